"""The group ``refresh``: a number of tiles, ``"all"``, or a mapping that says more."""

from collections.abc import Mapping
from typing import Annotated, Any, TypedDict, Union

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.keywords.option import Option, check_keys, described, options_of
from fused_cache_ops.keywords.text import read_boolean, read_mapping, read_number, read_seconds
from fused_cache_ops.keywords.values import RefreshCount, RefreshParameters
from fused_cache_ops.tiles.tile import is_boolean
from fused_cache_ops.tiles.zooms import Zooms
from fused_cache_ops.wording import quoted


class RefreshOptions(TypedDict, total=False):
    """What to refresh, and how. `docs/refresh.md` explains each key."""

    count: Annotated[RefreshCount, Option("all", "The most tiles to refresh, or all of them.")]
    zooms: Annotated[Zooms, Option(None, "Refresh only these zooms, such as 0-8.")]
    concurrency: Annotated[int, Option(4, "Runs at the same time, from 1 to 64. Each one costs credits.", read_number)]
    max_tiles: Annotated[
        int,
        Option(1000, "The most tiles that a refresh may run. More are an error before anything is sent.", read_number),
    ]
    parameters: Annotated[
        RefreshParameters,
        Option(
            None,
            "The UDF's parameters as the map sends them: results are cached for each set of parameters.",
            read_mapping,
        ),
    ]
    deadline: Annotated[float, Option(600.0, "Seconds that the refresh may take.", read_seconds)]
    must_succeed: Annotated[
        bool,
        Option(False, "Fail if a tile could not be refreshed. The invalidation is done nevertheless.", read_boolean),
    ]


Refresh = Union[RefreshCount, RefreshOptions]
"""A number of tiles, ``"all"``, or a mapping of `RefreshOptions`. 0: no refresh."""

REFRESH_OPTIONS = options_of(RefreshOptions)
RefreshOptions.__doc__ = described(RefreshOptions)
REFRESH_DEFAULTS: RefreshOptions = {name: option.default for name, option in REFRESH_OPTIONS.items()}  # type: ignore[assignment]

HOW = ("concurrency", "max_tiles", "deadline")
"""The keys that say how to refresh. They alone may be defaults for every UDF."""


def refresh_options(given: Any) -> RefreshOptions | None:
    """The keys of a refresh that were given, or None if no refresh is wanted.

    Raises:
        InvalidInputError: it is neither a number of tiles, ``"all"``, nor a mapping of `RefreshOptions`.
    """
    options = {"count": given}
    if isinstance(given, Mapping):
        check_keys(given, REFRESH_OPTIONS, "refresh")
        if not given:
            raise InvalidInputError("refresh is an empty mapping: pass 'all', a number of tiles, or omit it.")
        if missing := [name for name, value in given.items() if value is None]:
            raise InvalidInputError(f"refresh: {missing[0]} is None, which may be a value that is missing: omit it instead.")
        options = dict(given)
    count = read_count(options.get("count", "all"))
    return None if count == 0 else options  # type: ignore[return-value]


def read_count(given: object) -> int | None:
    """The most tiles to refresh. None: all of them. Text is what a template or a command line gives.

    Raises:
        InvalidInputError: it is neither a whole number of tiles nor ``"all"``.
    """
    if given == "all":
        return None
    if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) < 10:
        given = int(given)
    if is_boolean(given) or not isinstance(given, int) or given < 0:
        raise InvalidInputError(
            f"refresh = {quoted(given)} must be a whole number of tiles, 'all', or a mapping of {', '.join(REFRESH_OPTIONS)}."
        )
    return given


def merged_refresh(*given: Any) -> Any:
    """A refresh with the keys of several, of which a later one counts more. 0 if none of them is wanted.

    Raises:
        InvalidInputError: one of them cannot be read.
    """
    options = [each for each in map(refresh_options, given) if each is not None]
    return {name: value for each in options for name, value in each.items()} or 0


def refresh_of_whole_udf(given: Any) -> Any:
    """The refresh of a UDF that is invalidated whole: one run, without a tile. Which tiles and how many is for others.

    Raises:
        InvalidInputError: it cannot be read.
    """
    options = refresh_options(given)
    return 0 if options is None else {**{name: value for name, value in options.items() if name != "zooms"}, "count": 1}
