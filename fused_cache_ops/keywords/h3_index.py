"""The group ``h3_index``: the index of an H3 table, without which `fused.h3.query` does not find what was loaded."""

from collections.abc import Mapping
from datetime import datetime, timezone
from hashlib import blake2b
from typing import Annotated, Any, NamedTuple, TypedDict

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.keywords.moment import read_moment
from fused_cache_ops.keywords.option import Option, check_keys, described, options_of
from fused_cache_ops.keywords.text import read_boolean, read_list_or_text, read_seconds
from fused_cache_ops.keywords.values import NOT_GIVEN, LoadedAt
from fused_cache_ops.tiles.tile import is_boolean
from fused_cache_ops.wording import quoted, quoted_address, rendered_to_nothing

_LONGEST_DEADLINE = 86_400


class H3IndexOptions(TypedDict, total=False):
    """The index of an H3 table that must have what was loaded. `docs/h3-index.md` explains each key."""

    path: Annotated[str, Option(None, "The path or URL of the table, as fused.h3.query reads it. Required.")]
    loaded_at: Annotated[
        LoadedAt,
        Option(None, "When the load was done. Default: loaded_at of the call. Without it, run starts a run in any case."),
    ]
    run: Annotated[bool, Option(False, "Start a run of the index if it is older than the load, and wait for it.", read_boolean)]
    prefix: Annotated[
        str | list[str],
        Option(None, "With run: the folders to index, such as date=2026-11-22. Default: all.", read_list_or_text),
    ]
    deadline: Annotated[float, Option(3600.0, "With run: seconds that the index may take.", read_seconds)]


H3_INDEX_OPTIONS = options_of(H3IndexOptions)
H3IndexOptions.__doc__ = described(H3IndexOptions)


class H3Index(NamedTuple):
    """What an index must have before anything is sent.

    Attributes:
        path: the table's path.
        loaded_at: the moment that the index must have reached. None: only one that is run now has.
        run: whether to run it.
        prefix: the folders to run it for. Empty: all.
        deadline: seconds that this may take.
    """

    path: str
    loaded_at: datetime | None
    run: bool = False
    prefix: tuple[str, ...] = ()
    deadline: float = 3600.0

    @property
    def key(self) -> str:
        """What tells it from the other indexes of a call, and may be stored: an address can hold credentials."""
        return blake2b("\n".join((self.path, *self.prefix)).encode(), digest_size=12).hexdigest()

    def __str__(self) -> str:
        since = "the load" if self.loaded_at is None else self.loaded_at.isoformat(timespec="seconds")
        what = "is run until it has" if self.run else "must have"
        return f"the index of {quoted_address(self.path)} {what} what was loaded until {since}"


def h3_index_options(given: Any) -> H3IndexOptions:
    """The keys of ``h3_index`` that were given.

    Raises:
        InvalidInputError: it is not a mapping, it is empty, or a key is unknown or None.
    """
    if given is NOT_GIVEN:
        return {}
    if given is None:
        raise InvalidInputError("h3_index is None, which may be a value that is missing: pass a mapping, or omit it.")
    check_keys(given, H3_INDEX_OPTIONS, "h3_index", example="{'path': 's3://bucket/hexes/', 'run': True}")
    if not given:
        raise InvalidInputError("h3_index is an empty mapping: give the table's path, or omit it.")
    if missing := [name for name, value in given.items() if value is None]:
        raise InvalidInputError(f"h3_index: {missing[0]} is None, which may be a value that is missing: omit it instead.")
    return dict(given)  # type: ignore[return-value]


def read_h3_index(given: Any, loaded_at: Any = NOT_GIVEN) -> H3Index | None:
    """The index that was given, or None if none was.

    Args:
        given: the keyword.
        loaded_at: the keyword of this name beside it, which counts if the index has none of its own.

    Raises:
        InvalidInputError: a key is missing or cannot be read.
    """
    options = h3_index_options(given)
    if not options:
        return None
    path = options.get("path")
    if not isinstance(path, str) or rendered_to_nothing(path):
        said = "is missing" if path is None else f"= {quoted(path)} is not the path of a table"
        raise InvalidInputError(f"h3_index: path {said}: give it as fused.h3.query does, such as 's3://bucket/hexes/'.")
    run = options.get("run", False)
    if not is_boolean(run):
        raise InvalidInputError(f"h3_index: run = {quoted(run)} must be True or False.")
    own = options.get("loaded_at", loaded_at)
    moment = None if own is NOT_GIVEN else read_moment("h3_index: loaded_at", own)
    if moment is None and not run:
        raise InvalidInputError(
            "h3_index: loaded_at is missing, so that it is not known how new the index has to be: pass the time at which the "
            "load was done, or run=True to run the index now."
        )
    if not run and (only := [name for name in ("prefix", "deadline") if name in options]):
        raise InvalidInputError(f"h3_index: {only[0]} is for a run of the index: add run=True, or omit it.")
    deadline = options.get("deadline", H3_INDEX_OPTIONS["deadline"].default)
    is_number = isinstance(deadline, (int, float)) and not is_boolean(deadline)
    if not is_number or not 0 < deadline <= _LONGEST_DEADLINE:
        raise InvalidInputError(
            f"h3_index: deadline = {quoted(deadline)} must be a number of seconds above 0 and up to {_LONGEST_DEADLINE:,}."
        )
    return H3Index(path, moment, bool(run), _folders(options.get("prefix", ())), float(deadline))


def merged_h3_index(*given: Any) -> Any:
    """An index with the keys of several, of which a later one counts more. `NOT_GIVEN` if none of them names a table.

    Raises:
        InvalidInputError: one of them cannot be read.
    """
    options = {name: value for each in given for name, value in h3_index_options(each).items()}
    return options if "path" in options else NOT_GIVEN


def runs_an_index(keywords: Mapping[str, Any]) -> bool:
    """Whether keywords ask for a run of an index, which takes long."""
    given = keywords.get("h3_index", NOT_GIVEN)
    return isinstance(given, Mapping) and given.get("run", False) not in (False, "false", "False")


def _folders(given: Any) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else given
    is_list = isinstance(names, (list, tuple)) and all(isinstance(each, str) for each in names)
    if not is_list or any(rendered_to_nothing(each) for each in names) or (not names and given != ()):
        raise InvalidInputError(
            f"h3_index: prefix = {quoted(given)} must be the folders to index, such as 'date=2026-11-22' or a list of these. "
            "Omit it for all."
        )
    return tuple(names)


def utc_now() -> datetime:
    """The time now."""
    return datetime.now(timezone.utc)
