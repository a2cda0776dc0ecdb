"""Merging of several selections into one, such as those of a backfill's partitions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.selection.bounds import read_bounds
from fused_cache_ops.selection.keywords import KINDS, NOT_GIVEN, WHOLE_UDF
from fused_cache_ops.selection.reading import refuse_single_use
from fused_cache_ops.selection.tile_list import TileList
from fused_cache_ops.tiles.tile import HIGHEST_ZOOM, Tile, TileStream

if TYPE_CHECKING:
    from fused_cache_ops.selection.keywords import SelectionKeywords


def merge_selections(selections: Iterable[SelectionKeywords]) -> SelectionKeywords:
    """The union of several selections, so that one invalidation covers all and a tile in several of them is sent once.

    Lists of tiles are held in memory. The whole UDF, as ``tiles=WHOLE_UDF``, includes everything else.

    Args:
        selections: keywords of `invalidate_cache`. Each selects by one of ``tiles``, ``tiles_file``, ``bounds`` and
            ``geometry``. All must select by the same one, and have the same ``zooms`` and other keywords.

    Raises:
        InvalidInputError: there are no selections, they differ in kind or in other keywords, or one of them selects nothing,
            by more than one kind, or by something that can be read only once.
    """
    given: list[dict[str, Any]] = [dict(selection) for selection in selections]
    if not given:
        raise InvalidInputError("There are no selections to merge.")
    kinds = [_kind(selection) for selection in given]
    if len(given) == 1:
        return given[0]  # type: ignore[return-value]
    others: list[dict[str, Any]] = []
    for selection in given:
        refuse_single_use(selection)  # type: ignore[arg-type]
        others.append({name: value for name, value in selection.items() if name not in KINDS})
    if different := [other for other in others if other != others[0]]:
        raise InvalidInputError(f"Selections with {others[0]} and with {different[0]} cannot be merged: make them equal.")
    values = [selection[kind] for selection, kind in zip(given, kinds)]
    if any(value is WHOLE_UDF for value in values):
        return {"tiles": WHOLE_UDF}
    if set(kinds) <= {"tiles", "tiles_file"}:
        max_zoom = others[0].get("max_zoom", HIGHEST_ZOOM)
        tiles: set[Tile] = set()
        for kind, value in zip(kinds, values):
            tiles.update(TileStream(value, max_zoom=max_zoom) if kind == "tiles" else TileList(value, max_zoom=max_zoom))
        return {"tiles": sorted(tiles), **others[0]}  # type: ignore[typeddict-item]
    if len(set(kinds)) > 1:
        raise InvalidInputError(f"Selections by {' and by '.join(sorted(set(kinds)))} cannot be merged: use one kind.")
    if kinds[0] == "bounds":
        return {"bounds": [box for value in values for box in read_bounds(value)], **others[0]}  # type: ignore[typeddict-item]
    shapes = [shape for value in values for shape in (value if isinstance(value, (list, tuple)) else [value])]
    return {"geometry": shapes, **others[0]}  # type: ignore[typeddict-item]


def _kind(selection: dict[str, Any]) -> str:
    kinds = [name for name in KINDS if name in selection and selection[name] is not NOT_GIVEN]
    if len(kinds) != 1:
        said = f"names {' and '.join(kinds)}" if kinds else f"names none of {', '.join(KINDS)}"
        raise InvalidInputError(f"A selection {said}: give exactly one of these, or tiles=WHOLE_UDF for the whole UDF.")
    return kinds[0]
