"""What has changed as an entry of a document: its tiles, ranges of tiles, or everything within zooms and bounds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from fused_cache_ops.selection.batches import Batch
from fused_cache_ops.tiles.blocks import Block
from fused_cache_ops.tiles.projection import latitude_of_row

LARGEST_CHANGE = 16_000
"""Bytes of one change, so that a document holds the last few of any size."""

_COARSEST = 4  # zooms: a parent then stands for 256 tiles
_KEPT = 20_000  # rectangles while counting

_Rectangle = tuple[int, int, int, int]  # west, east, north, south: columns and rows, all included


class Changed:
    """The tiles of a change, in an amount of memory that does not grow with their number.

    Neighbors are joined. If there are too many for `LARGEST_CHANGE`, parents stand for their tiles, and in the end the zooms
    and the bounds of all. So what is said contains every tile, and may contain more.
    """

    def __init__(self) -> None:
        self._coarser: dict[int, int] = {}  # zooms that the rectangles of a zoom are above it
        self._found: dict[int, set[_Rectangle]] = {}
        self._around: dict[int, _Rectangle] = {}
        self._is_coarse = False

    def add(self, batches: Iterable[Batch]) -> Changed:
        """Add tiles."""
        for batch in batches:
            for z, x, y, width, height in batch.extents() if self._is_coarse else batch.blocks():
                self._add(z, (x, x + width - 1, y, y + height - 1))
        return self

    def _add(self, zoom: int, rectangle: _Rectangle) -> None:
        around = self._around.get(zoom)
        if around is None:
            self._around[zoom] = rectangle
        elif rectangle[0] < around[0] or rectangle[1] > around[1] or rectangle[2] < around[2] or rectangle[3] > around[3]:
            self._around[zoom] = _joined(around, rectangle)
        if self._is_coarse:
            return
        found = self._found.setdefault(zoom, set())
        found.add(_above(rectangle, self._coarser.get(zoom, 0)))
        if len(found) > _KEPT:
            self._coarsen(zoom)

    def _coarsen(self, zoom: int) -> None:
        """Let parents stand for the tiles of a zoom."""
        self._coarser[zoom] = self._coarser.get(zoom, 0) + 1
        self._is_coarse = self._coarser[zoom] > _COARSEST
        self._found[zoom] = set() if self._is_coarse else {_above(each, 1) for each in _runs(self._found[zoom])}

    def entry(self) -> dict[str, Any]:
        """What the document says of it. Empty: nothing has changed."""
        if not self._around:
            return {}
        while not self._is_coarse:
            said = self._said()
            if len(json.dumps(said, separators=(",", ":"))) <= LARGEST_CHANGE:
                return said
            self._coarsen(max(self._found, key=lambda zoom: len(self._found[zoom])))
        zooms = sorted(self._around)
        west, east, north, south = _joined_all(_in_degrees(zoom, around) for zoom, around in self._around.items())
        return {"everything": True, "zooms": [zooms[0], zooms[-1]], "bounds": [west, south, east, north]}

    def _said(self) -> dict[str, Any]:
        rows = [
            (zoom, _below(each, self._coarser.get(zoom, 0)))
            for zoom, found in sorted(self._found.items())
            for each in _runs(found)
        ]
        count = sum((east - west + 1) * (south - north + 1) for _, (west, east, north, south) in rows)
        ranges = [{"z": zoom, "x": [west, east], "y": [north, south]} for zoom, (west, east, north, south) in rows]
        if count > 3 * len(ranges) or any(self._coarser.values()):
            return {"ranges": ranges}
        blocks = (Block(zoom, west, north, east - west + 1, south - north + 1) for zoom, (west, east, north, south) in rows)
        return {"tiles": [f"{tile.z}/{tile.x}/{tile.y}" for block in blocks for tile in block.tiles()]}


def _above(rectangle: _Rectangle, zooms: int) -> _Rectangle:
    west, east, north, south = rectangle
    return west >> zooms, east >> zooms, north >> zooms, south >> zooms


def _below(rectangle: _Rectangle, zooms: int) -> _Rectangle:
    west, east, north, south = rectangle
    return west << zooms, ((east + 1) << zooms) - 1, north << zooms, ((south + 1) << zooms) - 1


def _runs(rectangles: Iterable[_Rectangle]) -> list[_Rectangle]:
    """The same tiles in fewer rectangles: neighbors of the same rows are joined, then those of the same columns."""
    found = list(rectangles)
    while True:
        count = len(found)
        found = [(west, east, north, south) for north, south, west, east in _side_by_side(_turned(found))]
        found = _side_by_side(found)
        if len(found) in (1, count):
            return found


def _turned(rectangles: Iterable[_Rectangle]) -> Iterable[_Rectangle]:
    return ((north, south, west, east) for west, east, north, south in rectangles)


def _side_by_side(rectangles: Iterable[_Rectangle]) -> list[_Rectangle]:
    """Rectangles with the first two numbers in common, joined where the others touch or overlap."""
    joined: list[_Rectangle] = []
    for first, last, start, stop in sorted(rectangles):
        if joined and joined[-1][:2] == (first, last) and start <= joined[-1][3] + 1:
            joined[-1] = (first, last, joined[-1][2], max(stop, joined[-1][3]))
        else:
            joined.append((first, last, start, stop))
    return joined


def _joined(one: Any, other: Any) -> Any:
    return min(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), max(one[3], other[3])


def _joined_all(rectangles: Iterable[tuple[float, float, float, float]]) -> tuple[float, float, float, float]:
    west, east, north, south = zip(*rectangles)
    return min(west), max(east), max(north), min(south)


def _in_degrees(zoom: int, rectangle: _Rectangle) -> tuple[float, float, float, float]:
    west, east, north, south = rectangle
    size = 2**zoom
    longitudes = (round(column / size * 360 - 180, 6) for column in (west, east + 1))
    latitudes = (round(latitude_of_row(row, size), 6) for row in (north, south + 1))
    return (*longitudes, *latitudes)
