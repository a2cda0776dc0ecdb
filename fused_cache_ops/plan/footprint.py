"""The area that a plan covers: merged, or drawn at a coarser zoom if it is too detailed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from fused_cache_ops.selection.shapes import import_geo
from fused_cache_ops.tiles.blocks import Block
from fused_cache_ops.tiles.projection import latitude_of_row

LARGEST_FOOTPRINT = 20_000
"""The most blocks merged or drawn at each zoom. A more detailed footprint is drawn at a coarser zoom."""

Footprint = dict[int, tuple[int, list[Block]]]
"""For each zoom: the zoom that it is drawn at, and the blocks at that zoom."""


def drawn_footprint(stream: Iterable[Block], most_blocks: int) -> Footprint:
    """The footprint of blocks, with at most ``most_blocks`` at each zoom."""
    found: dict[int, tuple[int, dict[Block, None]]] = {}
    for block in stream:
        drawn, blocks = found.setdefault(block.z, (block.z, {}))
        blocks[_coarsened(block, drawn)] = None
        while len(blocks) > most_blocks:
            drawn -= 1
            blocks = dict.fromkeys(_coarsened(each, drawn) for each in blocks)
            found[block.z] = (drawn, blocks)
    return {zoom: (drawn, list(blocks)) for zoom, (drawn, blocks) in sorted(found.items())}


def as_geojson(footprint: Footprint, tiles_per_zoom: dict[int, int]) -> dict[str, Any]:
    """A FeatureCollection with one merged MultiPolygon per zoom. Needs the extra ``geo``."""
    shapely = import_geo("shapely")
    features = []
    for zoom, (drawn, blocks) in footprint.items():
        corners = [_degrees(block) for block in blocks]
        merged = shapely.union_all([shapely.box(*box) for box in corners])
        merged = shapely.MultiPolygon([merged]) if merged.geom_type == "Polygon" else merged
        properties = {"zoom": zoom, "tiles": tiles_per_zoom[zoom], "drawn_at_zoom": drawn}
        geometry = json.loads(shapely.to_geojson(merged))
        features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    return {"type": "FeatureCollection", "features": features}


def _coarsened(block: Block, zoom: int) -> Block:
    up = max(0, block.z - zoom)
    right, bottom = (block.x + block.width - 1) >> up, (block.y + block.height - 1) >> up
    x, y = block.x >> up, block.y >> up
    return type(block)(block.z - up, x, y, right - x + 1, bottom - y + 1)


def _degrees(block: Block) -> tuple[float, float, float, float]:
    size = 2**block.z
    west, east = (column / size * 360 - 180 for column in (block.x, block.x + block.width))
    return west, latitude_of_row(block.y + block.height, size), east, latitude_of_row(block.y, size)
