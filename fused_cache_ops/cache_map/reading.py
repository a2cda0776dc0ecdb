"""The cache map: a file that says, for each dataset, which UDFs show it, at which zooms and with which margins.

::

    [datasets."s3://bucket/parcels/"]
    udfs = [
      { udf = "maps/parcels", zooms = "10-14", buffer = 1 },
      { udf = "reports/totals", whole_udf = true, related = "callers" },
    ]

The table ``[settings]`` beside it holds the command line's defaults (`fused_cache_ops.cache_map.defaults`).
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Union

from fused_cache_ops.cache_map.defaults import read_settings
from fused_cache_ops.cache_map.file import DEFAULT_MAP, read_tables
from fused_cache_ops.errors import ConfigurationError, InvalidInputError
from fused_cache_ops.keywords.announce import announce_options, merged_announce, read_announce, sealed_announce
from fused_cache_ops.keywords.call import CALL_DEFAULTS, NEEDS_SELECTION, SENDING_OPTIONS
from fused_cache_ops.keywords.h3_index import h3_index_options, read_h3_index
from fused_cache_ops.keywords.inner_caches import read_folders
from fused_cache_ops.keywords.option import check_keys
from fused_cache_ops.keywords.refresh import refresh_options
from fused_cache_ops.keywords.selection import SELECTION_OPTIONS
from fused_cache_ops.running.refresh import plan_refresh
from fused_cache_ops.secret import Secret
from fused_cache_ops.selection.cells import read_rendering
from fused_cache_ops.selection.reading import read_selection
from fused_cache_ops.selection.selection import WholeUdf
from fused_cache_ops.sending.targets import check_again_after, check_related
from fused_cache_ops.tiles.tile import is_boolean
from fused_cache_ops.udf_reference import UdfReference, parse_udf
from fused_cache_ops.wording import quoted, quoted_address

_OF_THE_LOAD = ("antimeridian", "layer", "order", "geometry_column", "crs", "partition", "shard")
"""Keywords that say how to read what one load changed, which no file can know."""

SELECTING = tuple(name for name in SELECTION_OPTIONS if name in NEEDS_SELECTION and name not in _OF_THE_LOAD)
"""The keywords of an entry that shape its selection."""

SENDING = tuple(name for name in SENDING_OPTIONS if name not in ("checkpoint", "loaded_at"))
"""The keywords of an entry that control sending, and what follows it."""

TOKEN_KEY = "shared_token_env"  # noqa: S105
"""The key of an entry that names the environment variable with the UDF's shared token, which no file holds."""

ENTRY_KEYS = ("udf", "whole_udf", TOKEN_KEY, *SELECTING, *SENDING)

_SHOWN = 8

MapLocation = Union["CacheMap", str, "os.PathLike[str]"]
"""A map, or the path of its file."""


@dataclass(frozen=True)
class MapEntry:
    """One UDF that shows a dataset.

    Attributes:
        label: the UDF as the map writes it. A shared token is masked.
        udf: the UDF.
        is_whole: whether all of it is invalidated, whatever changed.
        keywords: the other keywords of the entry.
        shared_token_env: the name of the environment variable with the UDF's shared token.
    """

    label: str
    udf: UdfReference
    is_whole: bool
    keywords: Mapping[str, Any]
    shared_token_env: str | None = None

    @property
    def shared_token(self) -> Secret | None:
        """The UDF's shared token, from the environment variable that the entry names.

        Raises:
            ConfigurationError: the variable is not set.
        """
        if self.shared_token_env is None:
            return None
        if not os.environ.get(self.shared_token_env):
            raise ConfigurationError(
                f"{TOKEN_KEY} = {self.shared_token_env!r} of {self.label} names an environment variable that is not set."
            )
        return Secret(os.environ[self.shared_token_env])

    @property
    def reference(self) -> str | Secret:
        """The UDF as a call takes it."""
        return self.udf.secret or self.label

    @property
    def is_open(self) -> bool:
        """Whether it says no zooms, so that a load given as an area needs them in the call."""
        return not self.is_whole and "zooms" not in self.keywords


@dataclass(frozen=True)
class CacheMap:
    """Which UDFs show which datasets.

    Attributes:
        datasets: the entries of each dataset, by its key: whatever the orchestrator calls it. A part ``*`` is any part.
        source: where the map comes from, for messages.
    """

    datasets: Mapping[str, tuple[MapEntry, ...]]
    source: str = "the cache map"

    def __repr__(self) -> str:
        keys = ", ".join(map(quoted_address, self.datasets))
        return f"CacheMap({keys}; {self.source})"

    @classmethod
    def read(cls, path: str | os.PathLike[str] = DEFAULT_MAP, *, beside: str | os.PathLike[str] | None = None) -> CacheMap:
        """Read a map from a file.

        Args:
            path: a TOML file. In a ``pyproject.toml``, the map is the table ``[tool.fused-cache]``.
            beside: a file, such as a pipeline's. A relative path is looked for in its folder first, then in the working folder.

        Raises:
            InvalidInputError: the file does not exist, is not TOML, or is not a valid map.
            ConfigurationError: Python 3.10 without the extra ``map``.
        """
        found = _find(Path(path), beside)
        tables = read_tables(found)
        if tables is None:
            raise InvalidInputError(f"{found} has no table [tool.fused-cache].")
        return cls.from_dict(tables, str(found))

    @classmethod
    def from_dict(cls, tables: Mapping[str, Any], source: str = "the cache map") -> CacheMap:
        """A map from what its file holds.

        Raises:
            InvalidInputError: it is not a valid map. The message names the dataset, the entry and the key.
        """
        check_keys(tables, ("datasets", "settings"), source)
        if "settings" in tables:
            read_settings(tables["settings"], f"{source}, table settings")
        datasets = tables.get("datasets", {})
        if not isinstance(datasets, Mapping):
            raise InvalidInputError(f"{source}: datasets = {quoted(datasets)} must be a table, such as [datasets.parcels].")
        if wrong := [key for key in datasets if not isinstance(key, str)]:
            raise InvalidInputError(f"{source}: the key {quoted(wrong[0])} of a dataset must be text.")
        return cls(
            {key: read_entries(table, f"{source}, dataset {quoted_address(key)}") for key, table in datasets.items()}, source
        )

    @classmethod
    def of(cls, given: MapLocation, *, beside: str | os.PathLike[str] | None = None) -> CacheMap:
        """A map as it is, or read from its file."""
        if isinstance(given, CacheMap):
            return given
        if not isinstance(given, (str, os.PathLike)):
            raise InvalidInputError(
                f"cache_map is of type {type(given).__name__}: pass the path of a map, or CacheMap.from_dict(…)."
            )
        return cls.read(given, beside=beside)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is valid, but fails with most loads: a sentence for each dataset with entries that say no zooms."""
        found = {key: [entry.label for entry in entries if entry.is_open] for key, entries in self.datasets.items()}
        return tuple(f"Dataset {quoted_address(key)}: {without_zooms(labels)}" for key, labels in found.items() if labels)

    def with_defaults(self, keywords: Mapping[str, Any]) -> CacheMap:
        """The map with keywords for sending that count where an entry does not have them. Those of ``refresh`` say how to
        refresh, and so count where a refresh is wanted."""
        datasets = {
            key: tuple(replace(each, keywords=_with_defaults(each.keywords, keywords)) for each in entries)
            for key, entries in self.datasets.items()
        }
        return replace(self, datasets=datasets)

    def entries(self, dataset: str) -> tuple[MapEntry, ...]:
        """The UDFs that show a dataset.

        Raises:
            InvalidInputError: the map does not list the dataset.
        """
        if not isinstance(dataset, str):
            raise InvalidInputError(f"dataset = {quoted(dataset)} must be text: a key of {self.source}.")
        alike = [dataset] if dataset in self.datasets else [key for key in self.datasets if _is_of(key, dataset)]
        if len(alike) > 1:
            raise InvalidInputError(
                f"{self.source} lists the dataset {quoted_address(dataset)} as {' and as '.join(map(quoted_address, alike))}: "
                "keep one of them."
            )
        if not alike:
            near = difflib.get_close_matches(dataset, self.datasets, n=1, cutoff=0.5)
            known = ", ".join(map(quoted_address, list(self.datasets)[:_SHOWN])) + (", …" * (len(self.datasets) > _SHOWN))
            meant = f"Did you mean {quoted_address(near[0])}?" if near else f"It lists {known or 'no dataset'}."
            raise InvalidInputError(
                f"{self.source} does not list the dataset {quoted_address(dataset)}. {meant} A dataset that no UDF shows is "
                "listed with udfs = []."
            )
        return self.datasets[alike[0]]

    def key_of(self, *names: str | None) -> str | None:
        """The key that lists a dataset under one of its names, or None. Addresses are compared as orchestrators normalize them:
        without the slashes at the end and the fragment.

        Args:
            names: what the dataset is called, such as an asset's URI and its name.
        """
        for same in (lambda key, name: key == name, lambda key, name: _normalized(key) == _normalized(name), _is_of):
            for name in filter(None, names):
                if found := next((key for key in self.datasets if same(key, name)), None):
                    return found
        return None


def without_zooms(labels: Sequence[str], kind: str = "") -> str:
    """What is to be done about entries that say no zooms.

    Args:
        labels: their UDFs.
        kind: the kind of selection that needs them. Empty: any area.
    """
    many = len(labels) > 1
    needs = f"{kind} needs" if kind else "a load given by bounds, geometry, cells or hex_dataset needs"
    return (
        f"the {'entries' if many else 'entry'} {', '.join(labels)} {'say' if many else 'says'} no zooms, which {needs}. Write "
        f'zooms = "10-14" into {"each" if many else "it"}, whichever zooms its map has, or whole_udf = true.'
    )


def _normalized(address: str) -> str:
    """An address with what makes no difference left out."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address.rstrip("/")
    path, mark, query = rest.partition("#")[0].partition("?")
    return f"{scheme.lower()}://{path.rstrip('/')}{mark}{'&'.join(sorted(query.split('&')))}"


def _is_of(key: str, dataset: str) -> bool:
    """Whether a key stands for a dataset: a part ``*`` of it is any part, such as the name of a release."""
    parts, given = key.rstrip("/").split("/"), dataset.rstrip("/").split("/")
    return "*" in parts and len(parts) == len(given) and all(part in ("*", each) for part, each in zip(parts, given))


def _with_defaults(own: Mapping[str, Any], defaults: Mapping[str, Any]) -> Mapping[str, Any]:
    merged = {**defaults, **own}
    if "refresh" in defaults:
        merged.pop("refresh")
        if (options := refresh_options(own.get("refresh", 0))) is not None:
            merged["refresh"] = {**defaults["refresh"], **options}
    return merged


def _find(path: Path, beside: str | os.PathLike[str] | None) -> Path:
    folders = [] if beside is None or path.is_absolute() else [Path(beside).parent]
    tried = [folder / path for folder in folders] + [path]
    for each in tried:
        with contextlib.suppress(OSError, ValueError):  # a name that is too long, or has a NUL
            if each.is_file():
                return each
    shown = " and ".join(quoted(str(each if each.is_absolute() else Path.cwd() / each), 300) for each in tried)
    raise InvalidInputError(f"There is no cache map {shown}: pass its path as cache_map.")


def read_entries(table: Any, where: str) -> tuple[MapEntry, ...]:
    """The UDFs of one dataset, from its table.

    Args:
        table: a mapping with the key ``udfs``, a list of mappings.
        where: how messages name it.

    Raises:
        InvalidInputError: it is not valid. The message names the entry and the key.
    """
    check_keys(table, ("udfs",), where)
    listed = table.get("udfs")
    if not isinstance(listed, list):
        said = "is missing" if listed is None else f"= {quoted(listed)} is not a list"
        raise InvalidInputError(f'{where}: udfs {said}. Write udfs = [{{ udf = "canvas/name", zooms = "10-14" }}].')
    entries: list[MapEntry] = []
    known: dict[object, str] = {}
    same: Counter[str] = Counter()
    for number, given in enumerate(listed, 1):
        entry = _entry(given, f"{where}, entry {number}")
        if (first := known.setdefault(entry.udf.identity, entry.label)) != entry.label or len(known) < number:
            as_first = "" if first == entry.label else f", first as {first}"
            raise InvalidInputError(f"{where}, entry {number}: udf {entry.label} is listed twice for this dataset{as_first}.")
        same[entry.label] += 1
        if same[entry.label] > 1:  # masked tokens
            entry = replace(entry, label=f"{entry.label} ({same[entry.label]})")
        entries.append(entry)
    return tuple(entries)


def _entry(given: Any, where: str) -> MapEntry:
    check_keys(given, ENTRY_KEYS, where)
    if "udf" not in given:
        raise InvalidInputError(f"{where}: udf is missing.")
    try:
        udf = parse_udf(given["udf"])
        label = str(given["udf"]).strip() if udf.secret is None else udf.shown
        where = f"{where} ({label})"
        whole = given.get("whole_udf", False)
        if not is_boolean(whole):
            raise InvalidInputError(f"whole_udf = {quoted(whole)} must be true or false.")
        token_env = given.get(TOKEN_KEY)
        if token_env is not None and (not isinstance(token_env, str) or not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", token_env)):
            raise InvalidInputError(f"{TOKEN_KEY} must be the name of an environment variable, not the token itself.")
        keywords = {name: value for name, value in given.items() if name not in ("udf", "whole_udf", TOKEN_KEY)}
        if "announce" in keywords:
            keywords["announce"] = sealed_announce(keywords["announce"])
        if whole and (shapers := [name for name in keywords if name in NEEDS_SELECTION]):
            raise InvalidInputError(f"{shapers[0]} cannot shape the whole UDF: remove it, or whole_udf = true.")
        _check_values(keywords, bool(whole))
        if udf.secret is None and token_env is None and (needing := _needs_token(keywords, bool(whole))):
            raise InvalidInputError(
                f"{needing} needs a shared token of the UDF: name the environment variable that has it, such as {TOKEN_KEY} = "
                '"MAP_TOKEN".'
            )
    except InvalidInputError as error:
        raise InvalidInputError(f"{where}: {error}") from None
    return MapEntry(label, udf, bool(whole), keywords, token_env)


def _needs_token(keywords: Mapping[str, Any], whole: bool) -> str | None:
    """The keyword of an entry that runs the UDF through its shared token, or None."""
    if keywords.get("verify_tiles") and not whole:  # of a whole UDF, nothing is verified
        return "verify_tiles"
    return None if refresh_options(keywords.get("refresh", 0)) is None else "refresh"


def _check_values(keywords: Mapping[str, Any], whole: bool) -> None:
    """Reject values that a call would reject, so that a reviewed map does not fail in the night."""
    read_rendering(keywords.get("render_resolution"))
    shaping: Any = {name: keywords[name] for name in SELECTING if name in keywords and name != "render_resolution"}
    read_selection(tiles=[], **shaping)
    sending: dict[str, Any] = {**CALL_DEFAULTS, **keywords}
    check_related(sending["related"], sending["max_related"])
    check_again_after(sending["again_after"])
    read_folders(sending["inner_caches"])
    index = h3_index_options(sending["h3_index"])
    if "loaded_at" in index:
        raise InvalidInputError("h3_index: loaded_at is what no file can know: pass it with each load.")
    read_h3_index(sending["h3_index"], 0)
    announcing = announce_options(sending["announce"])
    if announcing:
        read_announce(merged_announce({"to": "/"}, announcing))
    plan_refresh(WholeUdf() if whole else read_selection(tiles=[]), sending["refresh"])
    if is_boolean(sending["verify_tiles"]) or not isinstance(sending["verify_tiles"], int) or sending["verify_tiles"] < 0:
        raise InvalidInputError(f"verify_tiles = {quoted(sending['verify_tiles'])} must be a whole number of tiles.")
