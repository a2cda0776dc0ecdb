"""The tiles that shapes touch: their edges are followed column by column, and the tiles they enclose are filled in.

Needs the extra ``geo``. Edges are straight in longitude and latitude, as RFC 7946 defines them, and so are the edges of
tiles. The result is therefore exact to within `TOLERANCE`, about a micrometer. A tile is selected if its interior intersects
an area. For lines and points, a tile owns its west and north edges but not the other two, so a point on a corner belongs to
one tile. The map wraps: its east edge is its west edge. The outermost rows extend to the poles. Time and memory grow with the
length of the edges, not with the area.

Shapes are covered one by one, however they overlap. Where most edges are shorter than a tile, only the deepest zoom is
covered, and the coarser ones get its tiles' parents.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import chain, pairwise, repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from fused_cache_ops.selection.shapes import Portion
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


_KEPT = 200_000  # runs of tiles that have been counted, to avoid computing them again


class _Runs(NamedTuple):
    """Runs of tiles: in ``column``, the rows from ``start`` up to but not including ``stop``. Runs may overlap."""

    column: Integers
    start: Integers
    stop: Integers


class _Segments(NamedTuple):
    """Straight segments from west to east.

    Attributes:
        west: longitudes of their west ends, as fractions of the map's width.
        west_latitude: latitudes there, in degrees.
        west_row: the same as fractions of the map's height.
        east: the other ends, likewise.
        east_latitude: likewise.
        east_row: likewise.
        shape: which shape each one belongs to.
    """

    west: Floats
    west_latitude: Floats
    west_row: Floats
    east: Floats
    east_latitude: Floats
    east_row: Floats
    shape: Integers


class _Grazed(NamedTuple):
    """Runs of tiles that the edges of shapes come near to without entering them."""

    shape: Integers
    runs: _Runs


class Covering:
    """The tiles that some shapes touch. What is small is kept, and anything else is computed again when it is needed.

    Args:
        portion: the shapes.
        zooms: in ascending order, so that coarse zooms show early whether there are too many tiles.
        buffer: tiles to add on every side.
        most: stop once more tiles than this have been found. They are then incomplete, and only good for a count.
    """

    def __init__(self, portion: Portion, zooms: tuple[int, ...], buffer: int, most: int) -> None:
        self._portion, self._zooms, self._buffer, self._most = portion, zooms, buffer, most
        self._kept: list[tuple[int, _Runs]] | None = None

    def counts(self) -> dict[int, int]:
        """The number of tiles at each zoom."""
        kept: list[tuple[int, _Runs]] = []
        counts: dict[int, int] = {}
        room = _KEPT
        for zoom, runs in self._found():
            counts[zoom] = counts.get(zoom, 0) + _tile_count(runs)
            room -= len(runs.column)
            if room >= 0:
                kept.append((zoom, runs))
        self._kept = kept if room >= 0 else None
        return {zoom: count for zoom, count in counts.items() if count}

    def blocks(self) -> Iterator[Block]:
        """The tiles as non-overlapping blocks, from the coarse zooms to the fine ones."""
        return chain.from_iterable(_blocks(runs, zoom) for zoom, runs in self._kept or self._found())

    def _found(self) -> Iterator[tuple[int, _Runs]]:
        count = 0
        for zoom, runs in _cover(self._portion, self._zooms, self._buffer):
            count += _tile_count(runs)
            yield zoom, runs
            if count > self._most:
                return


class Gathered:
    """The tiles that a series of shapes touches, in memory that grows with the covering, not with the shapes.

    Several callers can share it. Each has its own zooms, and a number of tiles beyond which its deeper zooms are given up, so
    that the rest is only good for a count.

    Args:
        buffer: tiles to add on every side.
        shares: for each caller, its zooms in ascending order and that number of tiles.
    """

    def __init__(self, buffer: int, *shares: tuple[tuple[int, ...], int]) -> None:
        self._wanted = [zooms for zooms, _ in shares]
        self._most = [most for _, most in shares]
        self._buffer = buffer
        # For several zooms, runs at the deepest of them, whose parents are touched at the others.
        self._runs: dict[tuple[int, ...], list[_Runs]] = {}
        self._waiting = self._merged = 0  # how many runs were added since the last merging, and how many it left
        self._levels: dict[int, _Runs] | None = None

    @property
    def zooms(self) -> tuple[int, ...]:
        """The zooms that are still being covered."""
        return tuple(sorted(set().union(*self._wanted)))

    def add(self, portion: Portion, zooms: tuple[int, ...] | None = None) -> None:
        """Add the tiles that some more shapes touch, at all zooms or at some of them."""
        wanted = self.zooms if zooms is None else tuple(zoom for zoom in zooms if zoom in self.zooms)
        drawn = _Drawn(portion)
        shallow, deep = drawn.split(wanted)
        if shallow:
            for at, runs in drawn.pyramid(shallow):
                self._hold(at, runs)
        for zoom in deep:
            for columns in drawn.bands(zoom, _AT_ONCE):
                if zoom in self.zooms:
                    self._hold((zoom,), _joined(drawn.touched(zoom, columns)[0]))

    def counts(self, share: int = 0) -> dict[int, int]:
        """The number of one caller's tiles at each zoom."""
        levels = self._settled()
        wanted = self._wanted[share]
        counts = {zoom: sum(map(_tile_count, _grown(levels[zoom], zoom, self._buffer))) for zoom in wanted if zoom in levels}
        return {zoom: count for zoom, count in counts.items() if count}

    def blocks(self, share: int = 0) -> Iterator[Block]:
        """The tiles of one caller as non-overlapping blocks, from the coarse zooms to the fine ones."""
        levels = self._settled()
        for zoom in self._wanted[share]:
            if zoom in levels:
                for runs in _grown(levels[zoom], zoom, self._buffer):
                    yield from _blocks(runs, zoom)

    def _hold(self, zooms: tuple[int, ...], runs: _Runs) -> None:
        self._runs.setdefault(zooms, []).append(runs)
        self._waiting += len(runs.column)
        self._levels = None
        if self._waiting > 2 * self._merged + _AT_FIRST:
            self._merge()

    def _merge(self) -> None:
        self._runs = {zooms: [_union(_joined(runs), 2 ** zooms[-1])] for zooms, runs in self._runs.items()}
        self._merged, self._waiting = sum(len(runs.column) for (runs,) in self._runs.values()), 0
        # Tiles have no more parents than there are of them.
        bound = sum(len(zooms) * _tile_count(runs) for zooms, (runs,) in self._runs.items()) * (1 + 2 * self._buffer) ** 2
        if any(bound > most for most in self._most):
            self._limit()

    def _limit(self) -> None:
        """Give up the zooms below the one at which there are too many tiles, unless another caller wants them."""
        levels = _levels(self._runs)
        counts: dict[int, int] = {}
        for share, most in enumerate(self._most):
            total = 0
            for zoom in self._wanted[share]:
                if zoom not in counts and zoom in levels:
                    counts[zoom] = sum(map(_tile_count, _grown(levels[zoom], zoom, self._buffer)))
                total += counts.get(zoom, 0)
                if total > most:
                    self._wanted[share] = tuple(each for each in self._wanted[share] if each <= zoom)
                    break
        kept: dict[tuple[int, ...], list[_Runs]] = {}
        for zooms, (runs,) in self._runs.items():
            if left := tuple(zoom for zoom in zooms if zoom in self.zooms):
                kept.setdefault(left, []).append(_raised(runs, zooms[-1] - left[-1]))
        self._runs = kept

    def _settled(self) -> dict[int, _Runs]:
        if self._levels is None:
            self._merge()
            self._levels = _levels(self._runs)
        return self._levels


def in_one_tile(west: Floats, south: Floats, east: Floats, north: Floats, zoom: int) -> Booleans:
    """Which boxes in degrees lie inside one tile, clear of its edges. Those with a NaN do not."""
    import numpy as np

    size = 2**zoom
    grow = TOLERANCE / 360 * size
    left, right = (west + 180) / 360 * size - grow, (east + 180) / 360 * size + grow
    within = (left >= 0) & (right < size) & (np.abs(south) < LATITUDE_LIMIT) & (np.abs(north) < LATITUDE_LIMIT)
    within &= np.floor(left) == np.floor(right)
    place = np.flatnonzero(within)
    top, bottom = _fractions(north[place]) * size - grow, _fractions(south[place]) * size + grow
    within[place] = np.floor(top) == np.floor(bottom)
    return np.asarray(within)


def _tile_count(runs: _Runs) -> int:
    return int((runs.stop - runs.start).sum())


def _cover(portion: Portion, zooms: tuple[int, ...], buffer: int) -> Iterator[tuple[int, _Runs]]:
    """The tiles that shapes touch, zoom by zoom, in one or more sets of runs that do not overlap."""
    drawn = _Drawn(portion)
    shallow, deep = drawn.split(zooms)
    if shallow:
        found: dict[tuple[int, ...], list[_Runs]] = {}
        for at, runs in drawn.pyramid(shallow):
            found.setdefault(at, []).append(runs)
        for zoom, level in _levels(found).items():
            yield from zip(repeat(zoom), _grown(level, zoom, buffer))
    for zoom in deep:
        size = 2**zoom
        for low, high in drawn.bands(zoom, _AT_ONCE // (1 + 2 * buffer)):
            here = chain.from_iterable(drawn.touched(zoom, columns)[0] for columns in _widened(low, high, buffer, size))
            yield zoom, _within(_buffered(_joined(list(here)), zoom, buffer), low, high)


def _levels(pyramids: Mapping[tuple[int, ...], list[_Runs]]) -> dict[int, _Runs]:
    """For each zoom, in ascending order, its tiles in runs that do not overlap.

    Args:
        pyramids: for several zooms, runs at the deepest of them, whose parents are touched at the others.
    """
    found: dict[int, list[_Runs]] = {}
    for zooms, given in pyramids.items():
        level, runs = zooms[-1], _union(_joined(given), 2 ** zooms[-1])
        for zoom in reversed(zooms):
            if zoom < level:
                level, runs = zoom, _union(_raised(runs, level - zoom), 2**zoom)
            found.setdefault(zoom, []).append(runs)
    return {zoom: found[zoom][0] if len(found[zoom]) == 1 else _union(_joined(found[zoom]), 2**zoom) for zoom in sorted(found)}


def _raised(runs: _Runs, zooms: int) -> _Runs:
    """The parents of tiles, so many zooms up."""
    return _Runs(runs.column >> zooms, runs.start >> zooms, ((runs.stop - 1) >> zooms) + 1)


class _Drawn:
    """Shapes as points and segments, which are the same at all zooms."""

    def __init__(self, portion: Portion) -> None:
        import numpy as np

        self._polygons = portion.areas.polygons
        self._edges = _segments(*portion.areas[:4])
        self._lines = _moved_segments(portion.lines)
        self._points = _moved_points(portion.places)
        if len(self._edges.shape):
            first = np.flatnonzero(np.append(True, self._edges.shape[1:] != self._edges.shape[:-1]))
            self._west = np.minimum.reduceat(self._edges.west, first)
            self._east = np.maximum.reduceat(self._edges.east, first)

    def split(self, zooms: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The zooms at which few edges are longer than a tile is wide, and those at which more are."""
        import numpy as np

        west, east = (np.append(self._edges[end], self._lines[end]) for end in (0, 3))
        most = 2 * len(west) + _AT_FIRST
        for number in range(len(zooms), 0, -1):
            size = 2 ** zooms[number - 1]
            if (east * size).astype(np.int64).sum() - (west * size).astype(np.int64).sum() <= most - len(west):
                return zooms[:number], zooms[number:]
        return (), zooms

    def pyramid(self, zooms: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], _Runs]]:
        """Tiles that are touched at the deepest of some zooms, whose parents are touched at the others.

        A shape may touch a tile nowhere but where two of its children meet. Such tiles are looked for where the edges come
        near to the children, and returned with the zooms for which they, or their parents, count.
        """
        deepest = zooms[-1]
        found: list[_Runs] = []
        grazed: list[_Grazed] = []
        for columns in self.bands(deepest, _AT_ONCE, _AT_ONCE):
            here, near_here = self.touched(deepest, columns)
            found += here
            grazed += near_here
        runs = _union(_joined(found), 2**deepest)
        yield zooms, runs
        if not grazed:
            return
        near = _together(grazed)
        for number in range(len(zooms) - 1, 0, -1):
            zoom = zooms[number - 1]
            up = zooms[number] - zoom
            runs = _union(_raised(runs, up), 2**zoom)
            near = self._merged(_Grazed(near.shape, _raised(near.runs, up)), zoom, runs)
            if not len(near.shape):
                return
            met, missed = self._asked(near, zoom)
            if met:
                yield zooms[:number], _joined(met)
            near = _together(missed)

    def touched(self, zoom: int, columns: tuple[int, int]) -> tuple[list[_Runs], list[_Grazed]]:
        """The tiles in a band of columns that the shapes touch, and those that areas come near to but do not touch."""
        found = [_hits(self._lines, zoom, columns), _at(self._points, zoom, columns)]
        if not len(self._edges.shape):
            return found, []
        areas, grazed = self._area(zoom, columns)
        return found + areas, grazed

    def bands(self, zoom: int, most: int, first: int = _AT_FIRST) -> Iterator[tuple[int, int]]:
        """Bands of columns from west to east, each with at most ``most`` pieces of segments unless it is a single column.

        Args:
            zoom: the zoom.
            most: see above.
            first: the most pieces in the first band. Each further one may have twice as many.
        """
        import numpy as np

        size = 2**zoom
        ends = [(np.append(self._edges[end], self._lines[end]) * size).astype(np.int64) for end in (0, 3)]
        waiting = [(0, size, *(each.clip(0, size - 1) for each in ends))]
        allowed = min(first, most)
        while waiting:
            low, high, begin, end = waiting.pop()
            pieces = (np.minimum(end, high - 1) - np.maximum(begin, low) + 1).sum()
            if pieces <= allowed or high - low == 1:
                yield low, high
                allowed = min(2 * allowed, most)
                continue
            middle = (low + high) // 2
            for start, stop in ((middle, high), (low, middle)):  # the western half comes next
                here = (end >= start) & (begin < stop)
                waiting.append((start, stop, begin[here], end[here]))

    def _area(self, zoom: int, columns: tuple[int, int]) -> tuple[list[_Runs], list[_Grazed]]:
        """The tiles of the areas in a band of columns: those that their edges pass through or may graze, and those enclosed.

        Each area has its own lane for each column, as if it were alone on the map.
        """
        import numpy as np

        size = 2**zoom
        lanes = _Lanes(self._west, self._east, zoom, columns)
        held, rest = _held(self._edges, zoom, columns, lanes)
        column, piece = _pieces(rest, zoom, TOLERANCE, columns)
        pieces = _taken(rest, piece)
        lane = lanes.of(pieces.shape, column)
        through, hit = (_touched(column, pieces, zoom, margin, lane) for margin in (-TOLERANCE, TOLERANCE))
        near = _union(_joined([held, hit]), size)
        # Between two runs near the edges, one below the other, a lane is entirely inside or entirely outside: inside if the
        # edges cross its middle an odd number of times above. Over a whole lane, that number is even.
        gap = np.flatnonzero(near.column[1:] == near.column[:-1])
        enclosed = near
        if len(gap):
            lane, start, stop = near.column[gap], near.stop[gap], near.start[gap + 1]
            crossings = _crossings(self._edges, zoom, columns, lanes)
            inside = np.searchsorted(crossings, lane * (size + 1) + start) % 2 == 1
            enclosed = _joined([near, _Runs(lane[inside], start[inside], stop[inside])])
        if all(map(np.array_equal, through, hit)):
            return [lanes.on_the_map(enclosed)], []
        through = _joined([held, through])
        inner = _Runs(*(field[len(near.column) :] for field in enclosed)) if len(gap) else _nothing()
        asked = _without(near, through, size)
        met, missed = self._asked(_Grazed(lanes.shape(asked.column), lanes.on_the_map(asked)), zoom)
        return [lanes.on_the_map(_joined([through, inner])), *met], missed

    def _asked(self, grazed: _Grazed, zoom: int) -> tuple[list[_Runs], list[_Grazed]]:
        """The tiles of runs that intersect their area, and the runs that do not. Each run is tested as a whole, and halved
        if only a part of it may."""
        import numpy as np
        import shapely

        size = 2**zoom
        met: list[_Runs] = []
        missed: list[_Grazed] = []
        shape, runs = grazed
        while len(shape):
            west, east = _longitudes(runs.column, size), _longitudes(runs.column + 1, size)
            north, south = _latitudes(runs.start, size), _latitudes(runs.stop, size)
            boxes = shapely.box(west + TOLERANCE, south + TOLERANCE, east - TOLERANCE, north - TOLERANCE)
            areas = self._polygons(shape)
            meets = shapely.intersects(areas, boxes)
            whole = runs.stop - runs.start == 1
            long = meets & ~whole
            whole[long] = shapely.covers(areas[long], boxes[long])
            met.append(_chosen(runs, meets & whole))
            missed.append(_Grazed(shape[~meets], _chosen(runs, ~meets)))
            left = meets & ~whole
            shape, (column, start, stop) = shape[left], _chosen(runs, left)
            middle = (start + stop) // 2
            shape = np.append(shape, shape)
            runs = _Runs(np.append(column, column), np.append(start, middle), np.append(middle, stop))
        return met, missed

    def _merged(self, grazed: _Grazed, zoom: int, selected: _Runs) -> _Grazed:
        """The same tiles in fewer runs, without those that are selected anyway."""
        size = 2**zoom
        lanes = _Lanes(self._west, self._east, zoom, (0, size))
        runs = _union(grazed.runs._replace(column=lanes.of(grazed.shape, grazed.runs.column)), size)
        shape, runs = lanes.shape(runs.column), lanes.on_the_map(runs)
        stride = size + 1
        starts, stops = selected.column * stride + selected.start, selected.column * stride + selected.stop
        left = ~_holds(starts, stops, runs.column * stride + runs.start, runs.column * stride + runs.stop - 1)
        return _Grazed(shape[left], _chosen(runs, left))


class _Lanes:
    """Lanes: for each area, one for each column of a band that it may touch. They are numbered area by area.

    Args:
        west: for each area, where it begins, as a fraction of the map's width.
        east: where it ends.
        zoom: the zoom.
        columns: the band.
    """

    def __init__(self, west: Floats, east: Floats, zoom: int, columns: tuple[int, int]) -> None:
        import numpy as np

        size = 2**zoom
        grow = TOLERANCE / 360 * size
        self._first = np.floor(west * size - grow).clip(*columns).astype(np.int64)
        stop = (np.floor(east * size + grow) + 1).clip(*columns).astype(np.int64)
        width = np.maximum(stop - self._first, 0)
        self._begin = np.cumsum(width) - width

    def of(self, shape: Integers, column: Integers) -> Integers:
        """The lanes of areas in columns."""
        import numpy as np

        return np.asarray((self._begin - self._first)[shape] + column)

    def shape(self, lane: Integers) -> Integers:
        """The areas that lanes belong to."""
        import numpy as np

        return np.asarray(np.searchsorted(self._begin, lane, side="right") - 1)

    def on_the_map(self, runs: _Runs) -> _Runs:
        """Runs in lanes as runs in columns."""
        return runs._replace(column=runs.column - (self._begin - self._first)[self.shape(runs.column)])


def _widened(low: int, high: int, buffer: int, size: int) -> list[tuple[int, int]]:
    """The columns whose tiles may reach into a band: ``buffer`` more on both sides, wrapping around the map."""
    if high - low + 2 * buffer >= size:
        return [(0, size)]
    low, high = low - buffer, high + buffer
    return [
        (start, stop) for start, stop in ((low + size, size), (max(low, 0), min(high, size)), (0, high - size)) if start < stop
    ]


def _segments(points: Floats, start: Integers, stop: Integers, shape: Integers) -> _Segments:
    """Segments between points in degrees, each of which belongs to a shape."""
    import numpy as np

    along, latitude = (points[:, 0] + 180) / 360, np.ascontiguousarray(points[:, 1])
    row = _fractions(latitude)
    westward = np.flatnonzero(along[start] > along[stop])
    west, east = start.copy(), stop.copy()
    west[westward], east[westward] = stop[westward], start[westward]
    return _Segments(along[west], latitude[west], row[west], along[east], latitude[east], row[east], shape)


def _moved_segments(lines: Any) -> _Segments:
    """The segments of lines, shifted by the tolerance into the tiles that own a west or north edge, and moved onto the map.

    Longitudes wrap: +180 is the west edge of the first column, as -180 is. A segment that only ends at the antimeridian stays
    on its side. One that crosses it is returned once for each side, and the part beyond the map is dropped later.
    """
    import numpy as np
    import shapely

    points, path = shapely.get_coordinates(lines, return_index=True)
    first = np.flatnonzero(path[1:] == path[:-1])
    eastward = points[first, 0] <= points[first + 1, 0]
    west, east = points[np.where(eastward, first, first + 1)], points[np.where(eastward, first + 1, first)]
    begin, end = west[:, 0] + TOLERANCE, east[:, 0] + TOLERANCE
    turn = np.floor((begin + 180) / 360).astype(np.int64)
    last = np.maximum(turn, np.ceil((end - 2 * TOLERANCE + 180) / 360).astype(np.int64) - 1)
    piece, turns = _counted_from(turn, last - turn + 1)
    south = [np.maximum(each[:, 1] - TOLERANCE, -90.0)[piece] for each in (west, east)]
    ends = [(each[piece] - 360.0 * turns + 180) / 360 for each in (begin, end)]
    return _Segments(
        ends[0], south[0], _fractions(south[0]), ends[1], south[1], _fractions(south[1]), np.asarray(path[first])[piece]
    )


def _moved_points(places: Floats) -> tuple[Floats, Floats]:
    """Points as fractions of the map's width and height, shifted and moved as lines are."""
    import numpy as np

    longitude = places[:, 0] + TOLERANCE
    longitude = longitude - 360.0 * np.floor((longitude + 180) / 360)
    return (longitude + 180) / 360, _fractions(np.maximum(places[:, 1] - TOLERANCE, -90.0))


def _at(points: tuple[Floats, Floats], zoom: int, columns: tuple[int, int]) -> _Runs:
    """The tiles of a band of columns that hold points."""
    import numpy as np

    size = 2**zoom
    column, row = (np.floor(each * size).clip(0, size - 1).astype(np.int64) for each in points)
    if columns != (0, size):
        here = (column >= columns[0]) & (column < columns[1])
        column, row = column[here], row[here]
    return _Runs(column, row, row + 1)


def _held(segments: _Segments, zoom: int, columns: tuple[int, int], lanes: _Lanes) -> tuple[_Runs, _Segments]:
    """In lanes of a band of columns, the tiles that hold whole segments, clear of the tiles' edges; and the segments that no
    tile holds."""
    import numpy as np

    size = 2**zoom
    grow = TOLERANCE / 360 * size
    one, other = segments.west_row * size, segments.east_row * size
    column = np.floor(segments.west * size - grow)
    row = np.floor(np.minimum(one, other) - grow)
    is_held = np.floor(segments.east * size + grow) == column
    is_held &= np.floor(np.maximum(one, other) + grow) == row
    here = is_held & (column >= columns[0]) & (column < columns[1])
    lane, row = lanes.of(segments.shape[here], column[here].astype(np.int64)), row[here].astype(np.int64)
    # Segments that follow each other are often in the same tile.
    fresh = np.append(True, (lane[1:] != lane[:-1]) | (row[1:] != row[:-1]))[: len(row)]
    lane, row = lane[fresh], row[fresh]
    return _Runs(lane, row, row + 1), _taken(segments, np.flatnonzero(~is_held))


def _taken(segments: _Segments, which: Any) -> _Segments:
    return _Segments(*(field[which] for field in segments))


def _chosen(runs: _Runs, which: Booleans) -> _Runs:
    return _Runs(*(field[which] for field in runs))


def _crossings(segments: _Segments, zoom: int, columns: tuple[int, int], lanes: _Lanes) -> Integers:
    """The tiles in which segments cross the middle of a lane, as ascending keys. A middle through a point between two
    segments is crossed by one of them, or by both or neither if they turn back there."""
    import numpy as np

    size = 2**zoom
    west, east = segments.west * size, segments.east * size
    low, high = columns
    first, last = (np.minimum(np.maximum(np.ceil(each - 0.5), low), high).astype(np.int64) for each in (west, east))
    crossing = np.flatnonzero(last > first)
    segments, west, east = _taken(segments, crossing), west[crossing], east[crossing]
    first, count = first[crossing], (last - first)[crossing]
    piece, column = _counted_from(first, count)
    part = (column + 0.5 - west[piece]) / (east - west)[piece]
    one, other = segments.west_latitude[piece], segments.east_latitude[piece]
    row = np.floor(_fractions(one + (other - one) * part) * size).clip(0, size - 1).astype(np.int64)
    return np.sort(lanes.of(segments.shape[piece], column) * (size + 1) + row)


def _hits(segments: _Segments, zoom: int, columns: tuple[int, int]) -> _Runs:
    """The tiles of a band of columns that segments touch."""
    if not len(segments.west):
        return _nothing()
    column, piece = _pieces(segments, zoom, 0.0, columns)
    return _touched(column, _taken(segments, piece), zoom, 0.0)


def _pieces(segments: _Segments, zoom: int, margin: float, columns: tuple[int, int]) -> tuple[Integers, Integers]:
    """The columns of a band, each grown by ``margin`` degrees, that segments touch, and for each the segment."""
    import numpy as np

    size = 2**zoom
    grow = margin / 360 * size
    first = np.maximum(np.floor(segments.west * size - grow), columns[0]).astype(np.int64)
    last = np.minimum(np.floor(segments.east * size + grow), columns[1] - 1).astype(np.int64)
    piece, column = _counted_from(first, np.maximum(last - first + 1, 0))
    return column, piece


def _counted_from(first: Integers, count: Integers) -> tuple[Integers, Integers]:
    """For each place, as many numbers as ``count`` says, from ``first`` on; before them, the place that each belongs to."""
    import numpy as np

    place = np.repeat(np.arange(len(count)), count)
    return place, np.arange(len(place)) + (first - np.cumsum(count) + count)[place]


def _touched(column: Integers, pieces: _Segments, zoom: int, margin: float, lane: Integers | None = None) -> _Runs:
    """The tiles that pieces touch in their columns, each tile grown by ``margin`` degrees on every side (or shrunk, if
    negative).

    Args:
        column: the column of each piece.
        pieces: for each one the segment that it is a piece of.
        zoom: the zoom.
        margin: see above.
        lane: what the tiles' columns are to be. Default: the columns.
    """
    import numpy as np

    size = 2**zoom
    grow = margin / 360 * size
    west, east = pieces.west * size, pieces.east * size
    one, other = pieces.west_latitude, pieces.east_latitude
    # How far down the map a piece enters and leaves its column, or begins and ends in it.
    begins, ends = column - grow, column + (1 + grow)
    enter, leave = (np.minimum(np.maximum(each, west), east) for each in (begins, ends))
    first, last = pieces.west_row.copy(), pieces.east_row.copy()
    for at, place, otherwise in ((enter, first, west), (leave, last, east)):
        cut = np.flatnonzero(at != otherwise)
        begin, end = one[cut], other[cut]
        place[cut] = _fractions(begin + (end - begin) * ((at[cut] - west[cut]) / (east[cut] - west[cut])))
    top = np.minimum(first, last) * size - grow
    bottom = np.maximum(first, last) * size + grow
    start = np.minimum(np.maximum(np.floor(top), 0), size - 1).astype(np.int64)
    stop = np.minimum(np.maximum(np.floor(bottom), -1), size - 1).astype(np.int64) + 1
    # Shrunk tiles leave seams, where a piece may lie and touch none.
    real = (start < stop) & (enter <= leave) & (begins <= east) & (ends >= west)
    real &= (np.floor(west - grow) <= column) & (column <= np.floor(east + grow))
    return _Runs((column if lane is None else lane)[real], start[real], stop[real])


def _without(runs: _Runs, others: _Runs, size: int) -> _Runs:
    """The tiles of runs that are in none of the others."""
    import numpy as np

    inner = _union(others, size)
    stride = size + 1
    cuts = np.concatenate((inner.column * stride + inner.start, inner.column * stride + inner.stop))
    starts, stops = runs.column * stride + runs.start, runs.column * stride + runs.stop
    edges = np.unique(np.concatenate((starts, stops, cuts)))
    left, right = edges[:-1], edges[1:]
    in_runs = _holds(starts, stops, left, left)
    in_others = _holds(cuts[: len(inner.start)], cuts[len(inner.start) :], left, left)
    kept = in_runs & ~in_others
    return _Runs(left[kept] // stride, left[kept] % stride, left[kept] % stride + (right - left)[kept])


def _holds(starts: Integers, stops: Integers, first: Integers, last: Integers) -> Booleans:
    """Which keys, from a first to a last one, lie in one of some ascending intervals that do not overlap."""
    import numpy as np

    if not len(starts):
        return np.zeros(len(first), bool)
    at = np.searchsorted(starts, first, side="right") - 1
    return np.asarray((at >= 0) & (last < stops[np.maximum(at, 0)]))


def _union(runs: _Runs, size: int) -> _Runs:
    """The same tiles in ascending runs that neither overlap nor touch."""
    import numpy as np

    if not len(runs.column):
        return runs
    stride = size + 1  # one more than there are rows, so that no run continues in the next column
    starts, stops = runs.column * stride + runs.start, runs.column * stride + runs.stop
    if (starts[1:] < starts[:-1]).any():
        order = np.argsort(starts)
        starts, stops = starts[order], stops[order]
    stops = np.maximum.accumulate(stops)
    fresh = np.concatenate(([True], starts[1:] > stops[:-1]))
    starts, stops = starts[fresh], stops[np.append(np.flatnonzero(fresh)[1:] - 1, len(stops) - 1)]
    column, start = np.divmod(starts, stride)
    return _Runs(column, start, start + (stops - starts))


def _within(runs: _Runs, low: int, high: int) -> _Runs:
    """The runs in a band of columns."""
    here = (runs.column >= low) & (runs.column < high)
    return runs if here.all() else _chosen(runs, here)


def _nothing() -> _Runs:
    import numpy as np

    return _Runs(*np.empty((3, 0), np.int64))


def _joined(runs: list[_Runs]) -> _Runs:
    import numpy as np

    return _Runs(*(np.concatenate(fields) for fields in zip(*runs))) if runs else _nothing()


def _together(grazed: list[_Grazed]) -> _Grazed:
    import numpy as np

    return _Grazed(np.concatenate([each.shape for each in grazed]), _joined([each.runs for each in grazed]))


def _grown(runs: _Runs, zoom: int, buffer: int) -> Iterator[_Runs]:
    """Runs that do not overlap, grown by ``buffer`` tiles on every side, a band of columns at a time."""

    size = 2**zoom
    if not buffer:
        yield runs
        return
    # Each band reads as many runs as it has, and those of the columns beside it.
    edges = runs.column[:: max(1, _AT_ONCE // (1 + 2 * buffer))].tolist()
    cuts = [0, *sorted({each for each in edges if each}), size]
    for low, high in pairwise(cuts):
        parts = [
            _chosen(runs, (runs.column >= start) & (runs.column < stop)) for start, stop in _widened(low, high, buffer, size)
        ]
        yield _within(_buffered(_joined(parts), zoom, buffer), low, high)


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


def _fractions(latitudes: Floats) -> Floats:
    """How far down the map latitudes lie, as fractions of its height."""
    import numpy as np

    sine = np.sin(np.radians(np.clip(latitudes, -LATITUDE_LIMIT, LATITUDE_LIMIT)))
    fraction = 0.5 - np.log((1 + sine) / (1 - sine)) / (4 * math.pi)
    return np.asarray(np.clip(fraction, 0.0, 1.0), np.float64)
