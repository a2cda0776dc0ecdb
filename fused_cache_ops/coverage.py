"""Which tiles a geometry touches: a quadtree that asks shapely about thousands of squares at once. Needs extra ``geo``.

Edges are straight in longitude and latitude, as RFC 7946 has it, and so are the edges of tiles: every answer is exact, but
for `TOLERANCE`, a micrometre. A tile is in where its interior meets an area; where it meets a line or a point, with its west
and north edges and without the others, so that a point on a corner belongs to one tile. The outermost rows reach to the poles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fused_cache_ops.blocks import Block
from fused_cache_ops.geometry import flat, shift
from fused_cache_ops.tiles import TOLERANCE

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Integers = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]

_CHUNK = 16_384  # squares that are asked about at once: it bounds the memory, whatever the geometry


def cover(geometry: Any, zooms: tuple[int, ...], buffer: int) -> Iterator[Block]:
    """The tiles at each of ``zooms`` that a shapely geometry touches, as blocks that do not overlap.

    Args:
        geometry: in degrees, valid, within longitudes ±180 (`fused_cache_ops.geometry.read_geometry` makes it so).
        zooms: ascending.
        buffer: tiles to add on every side.
    """
    if buffer:
        # A buffer is counted in tiles of one zoom, so each zoom has a tree of its own.
        for zoom in zooms:
            yield from _Cover(geometry, (zoom,), buffer).blocks()
    else:
        yield from _Cover(geometry, zooms, 0).blocks()


class _Cover:
    """One descent from the whole map to the deepest zoom."""

    def __init__(self, geometry: Any, zooms: tuple[int, ...], buffer: int) -> None:
        import shapely

        self._zooms = frozenset(zooms)
        self._deepest = max(zooms)
        self._buffer = buffer
        if buffer:
            geometry = _repeated(geometry, 360 * (buffer + 1) / 2**self._deepest)
        parts = shapely.get_parts(geometry)
        dimensions = shapely.get_dimensions(parts)
        self._areas = _united(parts[dimensions == 2])
        thin = parts[(dimensions == 0) | (dimensions == 1)]
        self._thin = shapely.geometrycollections(thin) if len(thin) else None
        for part in (self._areas, self._thin):
            if part is not None:
                shapely.prepare(part)

    def blocks(self) -> Iterator[Block]:
        import numpy as np

        # Depth first, so that what waits is a few chunks a level and not a whole level.
        waiting: list[tuple[int, Integers, Integers]] = [(0, np.zeros(1, np.int64), np.zeros(1, np.int64))]
        while waiting:
            zoom, x, y = waiting.pop()
            inside, touched = self._ask(zoom, x, y)
            yield from self._whole(zoom, x[inside], y[inside])
            x, y = x[touched], y[touched]
            if zoom in self._zooms:
                yield from _columns(zoom, x, y)
            if zoom < self._deepest and len(x):
                x = (2 * x[:, None] + np.array([0, 0, 1, 1])).ravel()
                y = (2 * y[:, None] + np.array([0, 1, 0, 1])).ravel()
                waiting += [
                    (zoom + 1, x[start : start + _CHUNK], y[start : start + _CHUNK]) for start in range(0, len(x), _CHUNK)
                ]

    def _ask(self, zoom: int, x: Integers, y: Integers) -> tuple[Any, Any]:
        """Which squares lie inside the areas altogether, and which of the others touch anything."""
        import numpy as np
        import shapely

        size = 2**zoom
        margin = self._buffer / 2 ** (self._deepest - zoom)
        west, east = (x - margin) / size * 360 - 180, (x + 1 + margin) / size * 360 - 180
        north, south = _latitudes(y - margin, size), _latitudes(y + 1 + margin, size)
        inside = np.zeros(len(x), bool)
        touched = np.zeros(len(x), bool)
        if self._areas is not None:
            squares = shapely.box(west + TOLERANCE, south + TOLERANCE, east - TOLERANCE, north - TOLERANCE)
            touched |= shapely.intersects(self._areas, squares)
            if zoom < self._deepest:
                inside[touched] = shapely.contains_properly(self._areas, squares[touched])
        if self._thin is not None:
            # The map's own last edges belong to its last column and row.
            east = np.where(x == size - 1, east + TOLERANCE, east - TOLERANCE)
            south = np.where(y == size - 1, south - TOLERANCE, south + TOLERANCE)
            squares = shapely.box(west - TOLERANCE, south, east, north + TOLERANCE)
            touched |= shapely.intersects(self._thin, squares)
        return inside, touched & ~inside

    def _whole(self, zoom: int, x: Integers, y: Integers) -> Iterator[Block]:
        for column, row in zip(x.tolist(), y.tolist()):
            for deeper in self._zooms:
                if deeper >= zoom:
                    side = 2 ** (deeper - zoom)
                    yield Block(deeper, column * side, row * side, side, side)


def _united(polygons: Any) -> Any:
    """One valid geometry of polygons; uniting them is spared where they do not overlap."""
    import shapely

    if not len(polygons):
        return None
    together = shapely.multipolygons(polygons)
    return together if shapely.is_valid(together) else shapely.union_all(polygons)


def _columns(zoom: int, x: Integers, y: Integers) -> Iterator[Block]:
    """Single tiles, those below one another joined."""
    import numpy as np

    if not len(x):
        return
    order = np.lexsort((y, x))
    x, y = x[order], y[order]
    starts = np.flatnonzero(np.concatenate(([True], (x[1:] != x[:-1]) | (y[1:] != y[:-1] + 1))))
    heights = np.diff(np.append(starts, len(x)))
    for column, row, height in zip(x[starts].tolist(), y[starts].tolist(), heights.tolist()):
        yield Block(zoom, column, row, 1, height)


def _latitudes(rows: Any, size: int) -> Floats:
    """The latitudes of rows' north edges; the edges of the map itself are the poles."""
    import numpy as np

    latitudes = np.degrees(np.arctan(np.sinh(math.pi * (1 - 2 * rows / size))))
    return np.where(rows <= 0, 90.0, np.where(rows >= size, -90.0, latitudes))


def _repeated(geometry: Any, margin: float) -> Any:
    """The geometry, with what lies within ``margin`` degrees beyond the antimeridian on either side."""
    import shapely

    margin = min(margin, 359.0)
    east, west = (shift(geometry, by) for by in (360, -360))
    beyond = [
        shapely.intersection(east, shapely.box(180, -91, 180 + margin, 91)),
        shapely.intersection(west, shapely.box(-180 - margin, -91, -180, 91)),
    ]
    return flat(shapely.geometrycollections([geometry, *beyond]))
