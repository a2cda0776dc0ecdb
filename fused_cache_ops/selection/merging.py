"""Merging of several selections into one, such as those of a backfill's partitions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.keywords.call import NEEDS_SELECTION
from fused_cache_ops.keywords.refresh import refresh_of_whole_udf
from fused_cache_ops.keywords.rules import kinds_in
from fused_cache_ops.keywords.selection import KINDS
from fused_cache_ops.keywords.values import NOT_GIVEN, WHOLE_UDF
from fused_cache_ops.selection.bounds import read_bounds
from fused_cache_ops.selection.given import as_read
from fused_cache_ops.selection.reading import refuse_single_use
from fused_cache_ops.selection.tile_list import TileFile
from fused_cache_ops.tiles.tile import HIGHEST_ZOOM, Tile, TileStream
from fused_cache_ops.wording import quoted

if TYPE_CHECKING:
    from fused_cache_ops.keywords.selection import SelectionKeywords


def merge_selections(selections: Iterable[SelectionKeywords]) -> SelectionKeywords:
    """The union of several selections, so that one invalidation covers all and a tile in several of them is sent once.

    Lists of tiles are held in memory. The whole UDF includes everything else.

    Args:
        selections: keywords of `invalidate_cache`. Each selects by one of ``tiles``, ``tiles_file``, ``bounds``,
            ``geometry``, ``cells``, ``hex_dataset`` and ``whole_udf``. All must select by the same one, and have the same
            ``zooms`` and other keywords, except for the ``partition`` of a dataset.

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
    if "whole_udf" in kinds:
        # What selects tiles or needs a selection has no meaning any more.
        kept = [{name: value for name, value in each.items() if name not in _OF_TILES} for each in given]
        kept = [each | ({"refresh": refresh_of_whole_udf(each["refresh"])} if "refresh" in each else {}) for each in kept]
        if different := [other for other in kept if other != kept[0]]:
            raise InvalidInputError(f"Selections with {kept[0]} and with {different[0]} cannot be merged: make them equal.")
        return {"whole_udf": True, **kept[0]}  # type: ignore[typeddict-item]
    others: list[dict[str, Any]] = []
    for selection in given:
        refuse_single_use(selection)  # type: ignore[arg-type]
        others.append({name: value for name, value in selection.items() if name not in (*KINDS, "whole_udf", "partition")})
    if different := [other for other in others if other != others[0]]:
        raise InvalidInputError(f"Selections with {others[0]} and with {different[0]} cannot be merged: make them equal.")
    values = [as_read(kind, selection[kind]) for selection, kind in zip(given, kinds)]
    if set(kinds) <= {"tiles", "tiles_file"}:
        max_zoom, order = others[0].get("max_zoom", HIGHEST_ZOOM), others[0].pop("order", None)
        tiles: set[Tile] = set()
        for kind, value in zip(kinds, values):
            if kind == "tiles":
                tiles.update(TileStream(value, max_zoom=max_zoom, order=order or "zxy"))
            else:
                tiles.update(TileFile.open(value, max_zoom, order).read())
        return {"tiles": sorted(tiles), **others[0]}  # type: ignore[typeddict-item]
    if len(set(kinds)) > 1:
        raise InvalidInputError(f"Selections by {' and by '.join(sorted(set(kinds)))} cannot be merged: use one kind.")
    if kinds[0] == "bounds":
        return {"bounds": [box for value in values for box in read_bounds(value)], **others[0]}  # type: ignore[typeddict-item]
    if kinds[0] == "cells":
        from fused_cache_ops.selection.cells import read_cells

        return {"cells": sorted({cell for value in values for cell in read_cells(value).ids.tolist()}), **others[0]}  # type: ignore[typeddict-item]
    if kinds[0] == "hex_dataset":
        return {**_merged_datasets(given), **others[0]}  # type: ignore[typeddict-item]
    shapes = [shape for value in values for shape in (value if isinstance(value, (list, tuple)) else [value])]
    return {"geometry": shapes, **others[0]}  # type: ignore[typeddict-item]


def _merged_datasets(given: list[dict[str, Any]]) -> dict[str, Any]:
    """One dataset with the partitions of all selections. Where one of them is the whole dataset, so is the union."""
    first, *others = (selection["hex_dataset"] for selection in given)
    if different := [other for other in others if other != first]:
        raise InvalidInputError(f"Selections of {quoted(first)} and of {quoted(different[0])} cannot be merged.")
    named = [selection.get("partition", NOT_GIVEN) for selection in given]
    if NOT_GIVEN in named:
        return {"hex_dataset": first}
    partitions = [name for value in named for name in (value if isinstance(value, (list, tuple)) else [value])]
    return {"hex_dataset": first, "partition": list(dict.fromkeys(partitions))}


_OF_TILES = {*KINDS, "whole_udf", *NEEDS_SELECTION}


def _kind(selection: dict[str, Any]) -> str:
    kinds = kinds_in(selection) or ["whole_udf"] * (selection.get("tiles") is WHOLE_UDF)
    if len(kinds) != 1:
        said = f"names {' and '.join(kinds)}" if kinds else f"names none of {', '.join(KINDS)}"
        raise InvalidInputError(f"A selection {said}: give exactly one of these, or whole_udf=True for the whole UDF.")
    return kinds[0]
