"""The tiles that a geometry touches: its edges are followed column by column, and the tiles they enclose are filled in.

Needs the extra ``geo``. Edges are straight in longitude and latitude, as RFC 7946 defines them, and so are the edges of
tiles. The result is therefore exact to within `TOLERANCE`, about a micrometer. A tile is selected if its interior intersects
an area. For lines and points, a tile owns its west and north edges but not the other two, so a point on a corner belongs to
one tile. The map wraps: its east edge is its west edge. The outermost rows extend to the poles. Time and memory grow with the
length of the edges, not with the area.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from fused_cache_ops.tiles.blocks import Block
from fused_cache_ops.tiles.projection import LATITUDE_LIMIT, TOLERANCE

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Integers = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]
    Booleans = npt.NDArray[np.bool_]


_AT_ONCE = 250_000
"""Pieces of edges to hold at once, about 50 MB. Larger geometries are covered in bands of columns."""

_AT_FIRST = 50_000
"""Pieces in the first band, so that too many tiles are noticed early. Each further band may have twice as many."""

_FEW = 1000
"""Polygons whose boxes are compared in pairs. Of more, there may be too many pairs."""


class _Runs(NamedTuple):
    """Runs of tiles: in ``column``, the rows from ``start`` up to but not including ``stop``. Runs may overlap."""

    column: Integers
    start: Integers
    stop: Integers


class _Segments(NamedTuple):
    """Straight segments from west to east: longitudes and latitudes of both ends."""

    west: Floats
    west_latitude: Floats
    east: Floats
    east_latitude: Floats


def cover(geometry: Any, zooms: tuple[int, ...], buffer: int, most: int | None = None) -> Iterator[Block]:
    """The tiles at each of ``zooms`` that a shapely geometry touches, as non-overlapping blocks.

    Args:
        geometry: valid, in degrees, with its areas within longitudes ±180, as `read_geometry` returns it.
        zooms: in ascending order, so that coarse zooms show early whether there are too many tiles.
        buffer: tiles to add on every side.
        most: stop once more tiles than this have been found. The blocks are then incomplete, and only good for a count.
    """
    count = 0
    for zoom, runs in _cover(geometry, zooms, buffer):
        count += _tile_count(runs)
        yield from _blocks(runs, zoom)
        if most is not None and count > most:
            return


class Gathered:
    """The tiles that a series of geometries touches, in memory that grows with the covering, not with the geometries.

    Several callers can share it. Each has its own zooms, and a number of tiles beyond which its deeper zooms are given up, so
    that the rest is only good for a count.

    Args:
        buffer: tiles to add on every side.
        shares: for each caller, its zooms in ascending order and that number of tiles.
    """

    def __init__(self, buffer: int, *shares: tuple[tuple[int, ...], int]) -> None:
        self._wanted = [zooms for zooms, _ in shares]
        self._most = [most for _, most in shares]
        self._runs: dict[int, list[_Runs]] = {zoom: [] for zoom in sorted(set().union(*self._wanted))}
        self._merged = dict.fromkeys(self._runs, 0)  # how many runs there were after the last merging
        self._buffer = buffer

    @property
    def zooms(self) -> tuple[int, ...]:
        """The zooms that are still being covered."""
        return tuple(self._runs)

    def add(self, geometry: Any, zooms: tuple[int, ...] | None = None) -> None:
        """Add the tiles that one more geometry touches, at all zooms or at some of them."""
        wanted = self.zooms if zooms is None else tuple(zoom for zoom in zooms if zoom in self._runs)
        for zoom, runs in _cover(geometry, wanted, self._buffer):
            if zoom not in self._runs:
                continue
            self._runs[zoom].append(runs)
            if sum(len(each.column) for each in self._runs[zoom]) > 2 * self._merged[zoom] + _AT_FIRST:
                self._merge(zoom)

    def blocks(self, share: int = 0) -> Iterator[Block]:
        """The tiles of one caller as non-overlapping blocks, from the coarse zooms to the fine ones."""
        for zoom in self._wanted[share]:
            if zoom not in self._wanted[share]:  # given up while an earlier one was merged
                return
            self._merge(zoom)
            for runs in self._runs[zoom]:
                yield from _blocks(runs, zoom)

    def _merge(self, zoom: int) -> None:
        if len(self._runs[zoom]) > 1:
            self._runs[zoom] = [_union(_joined(self._runs[zoom]), 2**zoom)]
        self._merged[zoom] = sum(len(runs.column) for runs in self._runs[zoom])
        self._limit()

    def _limit(self) -> None:
        """Give up the zooms below the one at which there are too many tiles, unless another caller wants them."""
        # Runs that are not merged yet may overlap.
        counts = {zoom: max(map(_tile_count, runs), default=0) for zoom, runs in self._runs.items()}
        for share, most in enumerate(self._most):
            total = 0
            for zoom in self._wanted[share]:
                total += counts[zoom]
                if total > most:
                    self._wanted[share] = tuple(each for each in self._wanted[share] if each <= zoom)
                    break
        for zoom in counts.keys() - set().union(*self._wanted):
            del self._runs[zoom]


def in_one_tile(west: Floats, south: Floats, east: Floats, north: Floats, zoom: int) -> Booleans:
    """Which boxes in degrees lie inside one tile, clear of its edges. Those with a NaN do not."""
    import numpy as np

    size = 2**zoom
    grow = TOLERANCE / 360 * size
    left, right = (west + 180) / 360 * size - grow, (east + 180) / 360 * size + grow
    top, bottom = _row(north, size) - grow, _row(south, size) + grow
    within = (left >= 0) & (right < size) & (np.abs(south) < LATITUDE_LIMIT) & (np.abs(north) < LATITUDE_LIMIT)
    return np.asarray(within & (np.floor(left) == np.floor(right)) & (np.floor(top) == np.floor(bottom)))


def _tile_count(runs: _Runs) -> int:
    return int((runs.stop - runs.start).sum())


def _cover(geometry: Any, zooms: tuple[int, ...], buffer: int) -> Iterator[tuple[int, _Runs]]:
    """The tiles that a geometry touches, zoom by zoom, in one or more sets of runs that do not overlap."""
    import shapely

    parts = shapely.get_parts(geometry)
    dimensions = shapely.get_dimensions(parts)
    areas = _united(parts[dimensions == 2])
    thin = [_moved(_segments(parts[dimensions == 1])), _moved(_points(parts[dimensions == 0]))]
    edges = None
    if areas is not None:
        edges = _segments(shapely.get_rings(shapely.get_parts(areas)))
        shapely.prepare(areas)
    drawn = [*thin, edges] if edges is not None else thin
    for zoom in zooms:
        size = 2**zoom
        for low, high in _bands(drawn, zoom, _AT_ONCE // (1 + 2 * buffer)):
            found = []
            for columns in _widened(low, high, buffer, size):
                found += [_hits(segments, zoom, 0.0, columns) for segments in thin]
                if edges is not None:
                    found += _area(areas, edges, zoom, columns)
            yield zoom, _within(_buffered(_joined(found), zoom, buffer), low, high)


def _bands(drawn: list[_Segments], zoom: int, most: int) -> Iterator[tuple[int, int]]:
    """Bands of columns from west to east, each with at most ``most`` pieces of segments unless it is a single column."""
    import numpy as np

    size = 2**zoom
    ends = [(each / 360 + 0.5) * size for segments in drawn for each in (segments.west, segments.east)]
    first = np.floor(np.concatenate(ends[::2])).clip(0, size - 1)
    last = np.floor(np.concatenate(ends[1::2])).clip(0, size - 1)
    waiting = [(0, size, first, last)]
    allowed = min(_AT_FIRST, most)
    while waiting:
        low, high, first, last = waiting.pop()
        pieces = (np.minimum(last, high - 1) - np.maximum(first, low) + 1).sum()
        if pieces <= allowed or high - low == 1:
            yield low, high
            allowed = min(2 * allowed, most)
            continue
        middle = (low + high) // 2
        for start, stop in ((middle, high), (low, middle)):  # the western half comes next
            here = (last >= start) & (first < stop)
            waiting.append((start, stop, first[here], last[here]))


def _widened(low: int, high: int, buffer: int, size: int) -> list[tuple[int, int]]:
    """The columns whose tiles may reach into a band: ``buffer`` more on both sides, wrapping around the map."""
    if high - low + 2 * buffer >= size:
        return [(0, size)]
    low, high = low - buffer, high + buffer
    return [
        (start, stop) for start, stop in ((low + size, size), (max(low, 0), min(high, size)), (0, high - size)) if start < stop
    ]


def _united(polygons: Any) -> Any:
    """One valid geometry from valid polygons. They are only dissolved if they overlap, which those with boxes apart cannot."""
    import numpy as np
    import shapely

    if not len(polygons):
        return None
    crowded = polygons
    if len(polygons) <= _FEW:
        one, other = shapely.STRtree(polygons).query(polygons)
        crowded = polygons[np.unique(one[one != other])]
    together = shapely.is_valid(shapely.multipolygons(crowded))
    return shapely.multipolygons(polygons) if together else shapely.union_all(polygons)


def _segments(paths: Any) -> _Segments:
    import numpy as np
    import shapely

    points, path = shapely.get_coordinates(paths, return_index=True)
    first = np.flatnonzero(path[1:] == path[:-1])
    longitude, latitude = points[:, 0], points[:, 1]
    eastward = longitude[first] <= longitude[first + 1]
    west, east = np.where(eastward, first, first + 1), np.where(eastward, first + 1, first)
    return _Segments(longitude[west], latitude[west], longitude[east], latitude[east])


def _points(points: Any) -> _Segments:
    import shapely

    places = shapely.get_coordinates(points)
    return _Segments(places[:, 0], places[:, 1], places[:, 0], places[:, 1])


def _moved(segments: _Segments) -> _Segments:
    """Segments shifted by the tolerance into the tiles that own a west or north edge, and moved onto the map.

    Longitudes wrap: +180 is the west edge of the first column, as -180 is. A segment that only ends at the antimeridian stays
    on its side. One that crosses it is returned once for each side, and the part beyond the map is dropped later.
    """
    import numpy as np

    west, east = segments.west + TOLERANCE, segments.east + TOLERANCE
    first = np.floor((west + 180) / 360).astype(np.int64)
    last = np.maximum(first, np.ceil((east - 2 * TOLERANCE + 180) / 360).astype(np.int64) - 1)
    turns = last - first + 1
    piece = np.repeat(np.arange(len(turns)), turns)
    shift = 360.0 * (np.arange(len(piece)) - np.repeat(np.cumsum(turns) - turns, turns) + first[piece])
    return _Segments(
        west[piece] - shift,
        np.maximum(segments.west_latitude - TOLERANCE, -90.0)[piece],
        east[piece] - shift,
        np.maximum(segments.east_latitude - TOLERANCE, -90.0)[piece],
    )


def _area(areas: Any, edges: _Segments, zoom: int, columns: tuple[int, int]) -> list[_Runs]:
    """The tiles of an area in a band of columns: those that its edges pass through or may graze, and those enclosed."""
    import numpy as np

    size = 2**zoom
    held, rest = _held(edges, zoom, columns)
    pieces = _pieces(rest, zoom, TOLERANCE, columns)
    through, hit = _touched(*pieces, zoom, -TOLERANCE), _touched(*pieces, zoom, TOLERANCE)
    near = _union(_joined([held, hit]), size)
    # Between two runs near the edges, one below the other, a column is entirely inside or entirely outside: inside if the
    # edges cross its middle an odd number of times above. Over a whole column, that number is even.
    gap = np.flatnonzero(near.column[1:] == near.column[:-1])
    column, start, stop = near.column[gap], near.stop[gap], near.start[gap + 1]
    stride = size + 1
    inside = np.searchsorted(_crossings(edges, zoom, columns), column * stride + start) % 2 == 1
    enclosed = _Runs(column[inside], start[inside], stop[inside])
    if all(map(np.array_equal, through, hit)):
        return [near, enclosed]
    through = _joined([held, through])
    return [through, enclosed, *_grazed(areas, _without(near, through, size), size)]


def _held(segments: _Segments, zoom: int, columns: tuple[int, int]) -> tuple[_Runs, _Segments]:
    """The tiles of a band of columns that hold whole segments, clear of the tiles' edges; and the segments that none holds."""
    import numpy as np

    size = 2**zoom
    grow = TOLERANCE / 360 * size
    one, other = _row(segments.west_latitude, size), _row(segments.east_latitude, size)
    column = np.floor((segments.west + 180) / 360 * size - grow)
    row = np.floor(np.minimum(one, other) - grow)
    is_held = np.floor((segments.east + 180) / 360 * size + grow) == column
    is_held &= np.floor(np.maximum(one, other) + grow) == row
    here = is_held & (column >= columns[0]) & (column < columns[1])
    column, row = column[here].astype(np.int64), row[here].astype(np.int64)
    # Segments that follow each other are often in the same tile.
    fresh = np.append(True, (column[1:] != column[:-1]) | (row[1:] != row[:-1]))[: len(row)]
    column, row = column[fresh], row[fresh]
    return _Runs(column, row, row + 1), _Segments(*(field[~is_held] for field in segments))


def _crossings(segments: _Segments, zoom: int, columns: tuple[int, int]) -> Integers:
    """The tiles in which segments cross the middle of a column, as ascending keys. A middle through a point between two
    segments is crossed by one of them, or by both or neither if they turn back there."""
    import numpy as np

    size = 2**zoom
    west, east = (segments.west + 180) / 360 * size, (segments.east + 180) / 360 * size
    first = np.clip(np.ceil(west - 0.5), *columns).astype(np.int64)
    count = np.clip(np.ceil(east - 0.5), *columns).astype(np.int64) - first
    piece, column = _counted_from(first, count)
    part = (column + 0.5 - west[piece]) / (east - west)[piece]
    one, other = segments.west_latitude[piece], segments.east_latitude[piece]
    row = np.floor(_row(one + (other - one) * part, size)).clip(0, size - 1).astype(np.int64)
    return np.sort(column * (size + 1) + row)


def _grazed(areas: Any, runs: _Runs, size: int) -> Iterator[_Runs]:
    """The tiles of runs that intersect an area. Each run is tested as a whole, and halved if only a part of it may."""
    import numpy as np
    import shapely

    while len(runs.column):
        west, east = _longitudes(runs.column, size), _longitudes(runs.column + 1, size)
        north, south = _latitudes(runs.start, size), _latitudes(runs.stop, size)
        boxes = shapely.box(west + TOLERANCE, south + TOLERANCE, east - TOLERANCE, north - TOLERANCE)
        met = shapely.intersects(areas, boxes)
        whole = runs.stop - runs.start == 1
        long = met & ~whole
        whole[long] = shapely.covers(areas, boxes[long])
        yield _Runs(*(field[met & whole] for field in runs))
        column, start, stop = (field[met & ~whole] for field in runs)
        middle = (start + stop) // 2
        runs = _Runs(np.append(column, column), np.append(start, middle), np.append(middle, stop))


def _hits(segments: _Segments, zoom: int, margin: float, columns: tuple[int, int]) -> _Runs:
    """The tiles of a band of columns that segments touch, each tile grown by ``margin`` degrees on every side (or shrunk, if
    negative)."""
    import numpy as np

    if not len(segments.west):
        return _Runs(*np.empty((3, 0), np.int64))
    return _touched(*_pieces(segments, zoom, margin, columns), zoom, margin)


def _pieces(segments: _Segments, zoom: int, margin: float, columns: tuple[int, int]) -> tuple[Integers, _Segments]:
    """The columns of a band, each grown by ``margin`` degrees, that segments touch, and for each the segment: its longitudes
    in columns."""
    import numpy as np

    size = 2**zoom
    grow = margin / 360 * size
    west, east = (segments.west + 180) / 360 * size, (segments.east + 180) / 360 * size
    first = np.maximum(np.floor(west - grow), columns[0]).astype(np.int64)
    last = np.minimum(np.floor(east + grow), columns[1] - 1).astype(np.int64)
    piece, column = _counted_from(first, np.maximum(last - first + 1, 0))
    return column, _Segments(west[piece], segments.west_latitude[piece], east[piece], segments.east_latitude[piece])


def _counted_from(first: Integers, count: Integers) -> tuple[Integers, Integers]:
    """For each place, as many numbers as ``count`` says, from ``first`` on; before them, the place that each belongs to."""
    import numpy as np

    place = np.repeat(np.arange(len(count)), count)
    return place, np.arange(len(place)) + (first - np.cumsum(count) + count)[place]


def _touched(column: Integers, pieces: _Segments, zoom: int, margin: float) -> _Runs:
    """The tiles that pieces touch in their columns, each tile grown by ``margin`` degrees on every side (or shrunk)."""
    import numpy as np

    size = 2**zoom
    grow = margin / 360 * size
    west, one, east, other = pieces
    # The latitudes at which a piece enters and leaves its column, or ends in it.
    enter, leave = np.clip(column - grow, west, east), np.clip(column + 1 + grow, west, east)
    upright = east == west
    width = np.where(upright, 1.0, east - west)
    at_enter = one + (other - one) * ((enter - west) / width)
    at_leave = np.where(upright, other, one + (other - one) * ((leave - west) / width))
    top = _row(np.maximum(at_enter, at_leave), size) - grow
    bottom = _row(np.minimum(at_enter, at_leave), size) + grow
    start = np.clip(np.floor(top), 0, size - 1).astype(np.int64)
    stop = np.clip(np.floor(bottom), -1, size - 1).astype(np.int64) + 1
    # Shrunk tiles leave seams, where a piece may lie and touch none.
    real = (start < stop) & (enter <= leave) & (column - grow <= east) & (column + 1 + grow >= west)
    real &= (np.floor(west - grow) <= column) & (column <= np.floor(east + grow))
    return _Runs(column[real], start[real], stop[real])


def _without(runs: _Runs, others: _Runs, size: int) -> _Runs:
    """The tiles of runs that are in none of the others."""
    import numpy as np

    inner = _union(others, size)
    stride = size + 1
    cuts = np.concatenate((inner.column * stride + inner.start, inner.column * stride + inner.stop))
    starts, stops = runs.column * stride + runs.start, runs.column * stride + runs.stop
    edges = np.unique(np.concatenate((starts, stops, cuts)))
    left, right = edges[:-1], edges[1:]
    in_runs = _holds(starts, stops, left)
    in_others = _holds(cuts[: len(inner.start)], cuts[len(inner.start) :], left)
    kept = in_runs & ~in_others
    return _Runs(left[kept] // stride, left[kept] % stride, left[kept] % stride + (right - left)[kept])


def _holds(starts: Integers, stops: Integers, keys: Integers) -> Any:
    """Which keys lie in one of some ascending intervals that do not overlap."""
    import numpy as np

    if not len(starts):
        return np.zeros(len(keys), bool)
    at = np.searchsorted(starts, keys, side="right") - 1
    return (at >= 0) & (keys < stops[np.maximum(at, 0)])


def _union(runs: _Runs, size: int) -> _Runs:
    """The same tiles in ascending runs that neither overlap nor touch."""
    import numpy as np

    if not len(runs.column):
        return runs
    stride = size + 1  # one more than there are rows, so that no run continues in the next column
    starts, stops = runs.column * stride + runs.start, runs.column * stride + runs.stop
    order = np.argsort(starts, kind="stable")
    starts, stops = starts[order], np.maximum.accumulate(stops[order])
    fresh = np.concatenate(([True], starts[1:] > stops[:-1]))
    starts, stops = starts[fresh], stops[np.append(np.flatnonzero(fresh)[1:] - 1, len(stops) - 1)]
    return _Runs(starts // stride, starts % stride, starts % stride + (stops - starts))


def _within(runs: _Runs, low: int, high: int) -> _Runs:
    """The runs in a band of columns."""
    here = (runs.column >= low) & (runs.column < high)
    return runs if here.all() else _Runs(runs.column[here], runs.start[here], runs.stop[here])


def _joined(runs: list[_Runs]) -> _Runs:
    import numpy as np

    return _Runs(*(np.concatenate(fields) for fields in zip(*runs)))


def _buffered(runs: _Runs, zoom: int, buffer: int) -> _Runs:
    """Grown by ``buffer`` tiles on every side; columns wrap."""
    size = 2**zoom
    if not buffer:
        return _union(runs, size)
    start, stop = (runs.start - buffer).clip(0), (runs.stop + buffer).clip(None, size)
    around = range(-min(buffer, size // 2), min(buffer, size // 2) + 1)
    return _union(_joined([_Runs((runs.column + step) % size, start, stop) for step in around]), size)


def _blocks(runs: _Runs, zoom: int) -> Iterator[Block]:
    heights = runs.stop - runs.start
    fields = zip(repeat(zoom), runs.column.tolist(), runs.start.tolist(), repeat(1), heights.tolist())
    return map(tuple.__new__, repeat(Block), fields)  # no Python code runs per block


def _longitudes(columns: Integers, size: int) -> Floats:
    return columns / size * 360.0 - 180.0


def _latitudes(rows: Integers, size: int) -> Floats:
    """The latitudes of rows' north edges; the edges of the map itself are the poles."""
    import numpy as np

    latitudes = np.degrees(np.arctan(np.sinh(math.pi * (1 - 2 * rows / size))))
    return np.where(rows <= 0, 90.0, np.where(rows >= size, -90.0, latitudes))


def _row(latitudes: Floats, size: int) -> Floats:
    """How many rows down the map a latitude lies."""
    import numpy as np

    sine = np.sin(np.radians(np.clip(latitudes, -LATITUDE_LIMIT, LATITUDE_LIMIT)))
    fraction = 0.5 - np.log((1 + sine) / (1 - sine)) / (4 * math.pi)
    return np.asarray(np.clip(fraction, 0.0, 1.0) * size, np.float64)
