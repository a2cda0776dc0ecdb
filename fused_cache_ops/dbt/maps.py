"""Which UDFs show what dbt changed: the cache map's, and those that exposures name."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fused_cache_ops.cache_map.file import DEFAULT_MAP
from fused_cache_ops.cache_map.reading import CacheMap, MapEntry, MapLocation, read_entries
from fused_cache_ops.dbt.artifacts import DbtBuild, Exposure
from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.keywords.selection import KINDS

_OWN = (
    *(kind for kind in KINDS if kind != "whole_udf"),
    "antimeridian",
    "crs",
    "geometry_column",
    "layer",
    "order",
    "partition",
)
"""What an exposure may say of what changed, beside the keys of a map's entry."""

_PATHS = ("tiles_file", "geometry", "cells", "hex_dataset")


@dataclass(frozen=True)
class ShownUdf:
    """A UDF that shows something.

    Attributes:
        entry: what is said of it.
        selection: the keywords of the selection that belong to it alone.
        nodes: what it shows, by unique id.
    """

    entry: MapEntry
    selection: Mapping[str, Any]
    nodes: list[str]


@dataclass(frozen=True)
class DbtShare:
    """UDFs that are invalidated for one selection.

    Attributes:
        key: their key in ``cache_map``.
        cache_map: the UDFs, as a map of one dataset.
        selection: the keywords of the selection that belong to them alone.
        labels: how a result names each UDF. One that is invalidated in two ways is in it twice.
    """

    key: str
    cache_map: CacheMap
    selection: Mapping[str, Any]
    labels: Mapping[str, str]


@dataclass(frozen=True)
class DbtMaps:
    """Everything that shows what changed.

    Attributes:
        shares: the UDFs, by what is selected.
        not_shown: what changed and is named by neither the map nor an exposure.
    """

    shares: tuple[DbtShare, ...]
    not_shown: tuple[str, ...]


def maps_of(build: DbtBuild, cache_map: MapLocation | None) -> DbtMaps:
    """Which UDFs show what a build changed.

    Args:
        build: what was built.
        cache_map: as for `find_map`.

    Raises:
        InvalidInputError: the map or an exposure cannot be read.
    """
    known = find_map(cache_map)
    if known is None and not build.names_udfs and build.changed:
        raise InvalidInputError(
            f"Nothing says which UDFs show what dbt changed: there is no {DEFAULT_MAP}, and no exposure has meta.fused. Write "
            "one of them, such as meta: {fused: {udf: maps/parcels, whole_udf: true}}."
        )
    found = shown_udfs(build, known)
    listed = _listed(build, known)
    source = "the exposures" if known is None else known.source
    return DbtMaps(tuple(_shares(found, source)), tuple(uid for uid in build.changed if uid not in listed))


def shown_udfs(build: DbtBuild, known: CacheMap | None) -> list[ShownUdf]:
    """Every UDF that a map or an exposure names for what a build changed.

    Raises:
        InvalidInputError: an exposure cannot be read, or the map names a table twice.
    """
    found = [
        ShownUdf(entry, {}, [uid])
        for uid, relation in build.changed.items()
        for key in (_key(known, uid, relation),)
        if known is not None and key is not None
        for entry in known.entries(key)
    ]
    return found + [udf for exposure in build.exposures for udf in _of_exposure(exposure)]


def _listed(build: DbtBuild, known: CacheMap | None) -> set[str]:
    """What the map lists, also with no UDFs, or an exposure is below of."""
    of_map = {uid for uid, relation in build.changed.items() if _key(known, uid, relation) is not None}
    return of_map.union(*(exposure.nodes for exposure in build.exposures))


def _key(known: CacheMap | None, uid: str, relation: str | None) -> str | None:
    return None if known is None else known.key_of(relation, uid) or _in_any_case(known, relation)


def _in_any_case(known: CacheMap, relation: str | None) -> str | None:
    """The key that names a table in other capitals, such as Snowflake's.

    Raises:
        InvalidInputError: there are several.
    """
    alike = [key for key in known.datasets if relation is not None and key.casefold() == relation.casefold()]
    if len(alike) > 1:
        raise InvalidInputError(f"{known.source} lists {relation} as {' and as '.join(alike)}: keep one of them.")
    return alike[0] if alike else None


def find_map(cache_map: MapLocation | None, *, beside: str | os.PathLike[str] | None = None) -> CacheMap | None:
    """The map that is given, or None if none is and there is no default file: the exposures suffice.

    Args:
        cache_map: the map, or the path of its file. None: ``fused-cache.toml``, if there is one.
        beside: as for `CacheMap.read`.

    Raises:
        InvalidInputError: it cannot be read.
    """
    if cache_map is not None:
        return CacheMap.of(cache_map, beside=beside)
    folders = [Path()] if beside is None else [Path(beside).parent, Path()]
    found = next((folder / DEFAULT_MAP for folder in folders if (folder / DEFAULT_MAP).is_file()), None)
    return None if found is None else CacheMap.read(found)


def _of_exposure(exposure: Exposure) -> list[ShownUdf]:
    where = f"{exposure.name}, meta.fused"
    found = []
    for number, given in enumerate(exposure.fused, 1):
        if not isinstance(given, Mapping):
            raise InvalidInputError(
                f"{where}, entry {number} must be a mapping, such as {{udf: maps/parcels, whole_udf: true}}."
            )
        own = {name: _placed(name, given[name], exposure.project) for name in _OWN if name in given}
        entry = {name: value for name, value in given.items() if name not in own}
        (read,) = read_entries({"udfs": [entry]}, f"{where}, entry {number}")
        if read.udf.secret is not None:
            raise InvalidInputError(
                f"{where}, entry {number}: udf is a shared token, which a manifest must not hold. Name the UDF, and the "
                "variable with its token by shared_token_env."
            )
        found.append(ShownUdf(read, own, exposure.nodes))
    return found


def _placed(name: str, value: Any, project: str) -> Any:
    """A relative path belongs to the project. ``geometry`` and ``cells`` may be something else than a path."""
    if name not in _PATHS or not isinstance(value, str) or "://" in value:
        return value
    placed = Path(project, value)
    return str(placed) if name in ("tiles_file", "hex_dataset") or placed.exists() else value


def _shares(found: list[ShownUdf], source: str) -> list[DbtShare]:
    """The UDFs by what is selected. One that is shown twice in the same way is invalidated once, and once whole if it is whole
    anywhere, unless only where a selection of its own, which may be empty, says so."""
    whole = {each.entry.udf.identity for each in found if each.entry.is_whole and not each.selection}
    groups: list[tuple[Mapping[str, Any], dict[object, MapEntry]]] = []
    for each in found:
        entry, own = each.entry, each.selection
        if entry.udf.identity in whole and not entry.is_whole:
            continue
        for selection, entries in groups:
            known = entries.get(entry.udf.identity)
            if selection == own and known is not None and _is_same(known, entry):
                break
            if selection == own and known is None:
                entries[entry.udf.identity] = entry
                break
        else:
            groups.append((own, {entry.udf.identity: entry}))
    seen: Counter[str] = Counter()
    shares = []
    for number, (selection, of_udfs) in enumerate(groups):
        these = tuple(of_udfs.values())
        seen.update(each.label for each in these)
        times = {each.label: seen[each.label] for each in these}
        labels = {label: label if count == 1 else f"{label} ({count})" for label, count in times.items()}
        key = "dbt" if number == 0 else f"dbt {number + 1}"
        shares.append(DbtShare(key, CacheMap({key: these}, source), selection, labels))
    return shares


def _is_same(one: MapEntry, other: MapEntry) -> bool:
    return (one.is_whole, dict(one.keywords), one.shared_token_env) == (
        other.is_whole,
        dict(other.keywords),
        other.shared_token_env,
    )
