"""Reprojection of geometries to degrees. Needs the extra ``geo``.

Edges are straight in a geometry's own reference system, and curved in degrees. Each edge is therefore halved until its curve no
longer matters at the deepest zoom. Longitudes are then joined across the antimeridian, and a ring around a pole is closed
along the pole.
"""

from __future__ import annotations

import warnings
from array import array
from typing import TYPE_CHECKING, Any, NamedTuple

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.selection.shapes import areas, import_geo, single_parts, within_the_map
from fused_cache_ops.tiles.projection import LATITUDE_LIMIT
from fused_cache_ops.wording import quoted, warn

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Integers = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]
    Booleans = npt.NDArray[np.bool_]

DEGREES = "EPSG:4326"

MOST_POINTS = 1_000_000
"""The most points that halving edges may add to one geometry."""

_FRACTION = 1 / 1024  # of a tile at the deepest zoom: the largest deviation of an edge
_FINEST = 1e-9  # degrees, a tenth of a millimeter: the smallest deviation that is looked at
_AT_A_POLE = 90 - 1e-9
_HALVINGS = 48


class _Ends(NamedTuple):
    """Points on edges, in degrees, and whether each one is at a pole."""

    longitude: Floats
    latitude: Floats
    pole: Booleans

    def of(self, which: Booleans) -> _Ends:
        return _Ends(self.longitude[which], self.latitude[which], self.pole[which])

    def and_then(self, other: _Ends) -> _Ends:
        import numpy as np

        return _Ends(*(np.concatenate(both) for both in zip(self, other)))


def reference_system(given: Any) -> Any:
    """A pyproj CRS. None: degrees, longitude first.

    Raises:
        InvalidInputError: the system is unknown, or is neither geographic nor projected.
    """
    pyproj = import_geo("pyproj")
    try:
        system = pyproj.CRS.from_user_input(given)
    except (pyproj.exceptions.CRSError, ValueError):  # such as an array, or text that is no text
        raise InvalidInputError(
            f"geometry is in {quoted(given)}, which PROJ does not know as a coordinate reference system: reproject it to "
            f"{DEGREES}."
        ) from None
    if system.equals(pyproj.CRS(DEGREES), ignore_axis_order=True) or system.to_authority() == ("OGC", "CRS84"):
        return None
    if not (system.is_geographic or system.is_projected):
        raise InvalidInputError(
            f"geometry is in {quoted(system.name)}, which is neither geographic nor projected: reproject it to {DEGREES}."
        )
    return system


def name_of(system: Any) -> str:
    """How messages name a system, as `reference_system` returns it: by its code, or by its name if it has none."""
    if system is None:
        return quoted(DEGREES)
    authority = system.to_authority()
    return quoted(":".join(authority) if authority else system.name)


def is_same(one: Any, other: Any) -> bool:
    """Whether two systems are the same, as `reference_system` returns them."""
    return one is other or (one is not None and other is not None and bool(one.equals(other, ignore_axis_order=True)))


def to_degrees(shapes: Any, system: Any, deepest_zoom: int) -> list[Any]:
    """Valid single parts in degrees. Areas are within longitudes ±180, lines may go beyond.

    Args:
        shapes: an array of valid shapely geometries.
        system: a pyproj CRS.
        deepest_zoom: the deepest zoom to be covered. Edges are exact to a thousandth of a tile at that zoom.

    Raises:
        InvalidInputError: a coordinate cannot be converted to degrees.

    Warns:
        UserWarning: the edges are so long that they were approximated less closely, or PROJ lacks the grid for the best
            conversion.
    """
    import shapely

    parts = single_parts(shapes)
    dimensions = shapely.get_dimensions(parts)
    edges = _Edges(system, max(_FRACTION * 360 / 2**deepest_zoom, _FINEST))
    return [
        *_points(parts[dimensions == 0], edges),
        *_lines(parts[dimensions == 1], edges),
        *_polygons(parts[dimensions == 2], edges),
    ]


def _points(points: Any, edges: _Edges) -> list[Any]:
    import shapely

    places = shapely.get_coordinates(points)
    return [shapely.Point(place) for place in zip(*edges.convert(places[:, 0], places[:, 1]))]


def _lines(lines: Any, edges: _Edges) -> list[Any]:
    import numpy as np
    import shapely

    points, path = shapely.get_coordinates(lines, return_index=True)
    longitude, latitude, pole, path = edges.follow(points, path)
    drawn = []
    for at in np.split(np.arange(len(path)), np.flatnonzero(np.diff(path)) + 1) if len(path) else ():
        for piece in _pieces(longitude[at], latitude[at], pole[at]):
            drawn.append(shapely.LineString(piece) if len(piece) > 1 else shapely.Point(piece[0]))
    return drawn


def _polygons(polygons: Any, edges: _Edges) -> list[Any]:
    import numpy as np
    import shapely

    rings, owner = shapely.get_rings(polygons, return_index=True)
    points, path = shapely.get_coordinates(rings, return_index=True)
    longitude, latitude, pole, path = edges.follow(points, path)
    jumps = np.flatnonzero((np.abs(np.diff(longitude)) > 180) & (path[1:] == path[:-1]))
    odd = np.isin(owner, owner[np.union1d(path[jumps], path[pole])])
    plain = ~odd[path]
    _, ring_of_point = np.unique(path[plain], return_inverse=True)
    _, polygon_of_ring = np.unique(owner[~odd], return_inverse=True)
    drawn_rings: Any = shapely.linearrings(longitude[plain], latitude[plain], indices=ring_of_point)
    drawn: Any = shapely.polygons(drawn_rings, indices=polygon_of_ring)
    valid = shapely.is_valid(drawn)
    found = list(drawn[valid])
    for broken in drawn[~valid]:  # where two edges all but touch, following them can make them cross
        found += areas(shapely.make_valid(broken))
    for number in np.unique(owner[odd]):
        shell, *holes = (
            _enclosed(rings[ring], longitude[at], latitude[at], pole[at], edges)
            for ring in np.flatnonzero(owner == number)
            for at in [np.flatnonzero(path == ring)]
        )
        found += areas(shapely.difference(shell, shapely.union_all(holes)))
    return found


def _enclosed(ring: Any, longitude: Floats, latitude: Floats, pole: Booleans, edges: _Edges) -> Any:
    """The area enclosed by a ring that goes around the globe, around a pole or through one."""
    import numpy as np
    import shapely

    outline = _outline(longitude, latitude, pole)
    if len(outline) < 3:
        return shapely.Polygon()
    if abs(outline[-1, 0] - outline[0, 0]) < 180:
        return _mapped(outline)
    # Around a pole. A point inside tells which one.
    point = shapely.get_coordinates(shapely.point_on_surface(shapely.Polygon(ring)))
    inside_longitude, inside_latitude = edges.convert(point[:, 0], point[:, 1])
    inside = shapely.Point((inside_longitude[0] + 180) % 360 - 180, inside_latitude[0])
    found = [_mapped(np.vstack((outline, [[outline[-1, 0], end], [outline[0, 0], end]]))) for end in (90.0, -90.0)]
    return min(found, key=lambda area: area.distance(inside))


def _mapped(outline: Floats) -> Any:
    import numpy as np
    import shapely

    return shapely.union_all(within_the_map(np.array(areas(shapely.make_valid(shapely.Polygon(outline))), dtype=object)))


def _outline(longitude: Floats, latitude: Floats, pole: Booleans) -> Floats:
    """A ring's points, with longitudes that continue beyond ±180. Through a pole, it runs along the map's edge."""
    import numpy as np

    elsewhere = np.flatnonzero(~pole)
    if not len(elsewhere):
        return np.empty((0, 2))
    begin = elsewhere[0]  # so that no pole is at the ends
    around = np.append(np.arange(begin, len(pole) - 1), np.arange(begin + 1))
    return _unrolled(np.vstack(_pieces(longitude[around], latitude[around], pole[around])))


def _pieces(longitude: Floats, latitude: Floats, pole: Booleans) -> list[Floats]:
    """The pieces of a path between the poles that it passes through. Each ends at the pole, on the meridian that it took."""
    import numpy as np

    points = np.column_stack((longitude, latitude))
    if pole.all():
        return [points[:1]]
    pieces = []
    for run in np.split(np.arange(len(pole)), np.flatnonzero(np.diff(pole)) + 1):
        if pole[run[0]]:
            continue
        piece = points[run]
        if run[0] > 0:
            piece = np.vstack(([[piece[0, 0], np.copysign(90.0, piece[0, 1])]], piece))
        if run[-1] < len(pole) - 1:
            piece = np.vstack((piece, [[piece[-1, 0], np.copysign(90.0, piece[-1, 1])]]))
        pieces.append(_unrolled(piece))
    return pieces


def _unrolled(points: Floats) -> Floats:
    import numpy as np

    unrolled = points[0, 0] + np.append(0.0, np.cumsum(_turn(np.diff(points[:, 0]))))
    return np.column_stack((unrolled, points[:, 1]))


def _turn(degrees: Floats) -> Floats:
    """A difference of longitudes, the shorter way around."""
    return (degrees + 180) % 360 - 180


class _Edges:
    """Edges that are straight in one system, approximated in degrees.

    Args:
        system: a pyproj CRS.
        tolerance: in degrees of longitude.
    """

    def __init__(self, system: Any, tolerance: float) -> None:
        pyproj = import_geo("pyproj")
        self._name = system.name
        self._tolerance = tolerance
        try:
            self._transformer = pyproj.Transformer.from_crs(system, DEGREES, always_xy=True)
        except pyproj.exceptions.ProjError:
            raise InvalidInputError(
                f"geometry is in {quoted(self._name)}, which PROJ cannot convert to degrees: reproject it to {DEGREES}."
            ) from None
        self._system = system
        self._poles = [end for end in (90.0, -90.0) if self._is_a_point(end)]

    def _warn_without_grid(self, longitude: Floats, latitude: Floats) -> None:
        """Say once how exact the conversion is, if PROJ knows a better one here that needs a grid which is not installed."""
        import numpy as np

        known = np.isfinite(longitude) & np.isfinite(latitude)
        if self._system is None or not known.any():
            return
        system, self._system = self._system, None
        transformer = import_geo("pyproj.transformer", "pyproj")
        west, east = np.clip((longitude[known].min(), longitude[known].max()), -180, 180)
        south, north = np.clip((latitude[known].min(), latitude[known].max()), -90, 90)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PROJ's own says the same in other words
            area = transformer.AreaOfInterest(west, south, east, north)
            group = transformer.TransformerGroup(system, DEGREES, always_xy=True, area_of_interest=area)
        if group.best_available or not group.unavailable_operations or not group.transformers:
            return
        best, used = group.unavailable_operations[0], group.transformers[0]
        grids = ", ".join(grid.short_name for grid in best.grids if not grid.available)
        exact = "an unknown accuracy" if used.accuracy < 0 else f"about {used.accuracy:g} m"
        warn(
            f"geometry is in {quoted(self._name)}, which PROJ converts to degrees with {exact} here: the grid {grids}, which "
            f"allows {best.accuracy:g} m, is not installed. Install it, as by pyproj sync, or use a buffer"
        )

    def convert(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Longitudes and latitudes."""
        import numpy as np

        # Plain arrays, because older versions of pyproj take numpy's for a number if they have one element.
        plain = (array("d", each.astype(np.float64).tobytes()) for each in (x, y))
        longitude, latitude = map(np.asarray, self._transformer.transform(*plain))
        self._warn_without_grid(longitude, latitude)
        lost = np.flatnonzero(~(np.isfinite(longitude) & np.isfinite(latitude)))
        if len(lost):
            raise InvalidInputError(
                f"geometry extends to ({x[lost[0]]:g}, {y[lost[0]]:g}), which is outside {quoted(self._name)}: are its "
                "coordinates really in that system?"
            )
        return longitude, latitude

    def _is_a_point(self, end: float) -> bool:
        """Whether a pole is a point in the system, rather than a line or at infinity."""
        import numpy as np

        x, y = self._transformer.transform([0.0, 90.0, -120.0], [end] * 3, direction="INVERSE")
        return bool(np.isfinite([x, y]).all() and np.ptp(x) + np.ptp(y) <= 1e-9 * (1 + np.abs([x, y]).max()))

    def _poled(self, latitude: Floats) -> Booleans:
        import numpy as np

        return np.isin(np.where(np.abs(latitude) > _AT_A_POLE, np.copysign(90.0, latitude), 0.0), self._poles)

    def follow(self, points: Floats, path: Integers) -> tuple[Floats, Floats, Booleans, Integers]:
        """The points of paths and those added between them, in degrees: longitude, latitude, whether at a pole, and path."""
        import numpy as np

        longitude, latitude = self.convert(points[:, 0], points[:, 1])
        pole = self._poled(latitude)
        edge = np.flatnonzero(path[1:] == path[:-1])
        low, high = np.zeros(len(edge)), np.ones(len(edge))
        starts, stops = (_Ends(longitude[at], latitude[at], pole[at]) for at in (edge, edge + 1))
        found = [(np.arange(len(points)), np.zeros(len(points)), longitude, latitude)]
        room = MOST_POINTS

        def along(part: Floats) -> _Ends:
            x, y = (points[edge] + (points[edge + 1] - points[edge]) * part[:, None]).T
            there = self.convert(x, y)
            return _Ends(*there, self._poled(there[1]))

        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            halfway = along(middle)
            # A second look, for an edge that bends both ways or goes around the globe.
            split = self._bends(starts, halfway, stops) | self._bends(starts, along(low + 0.3 * (high - low)), stops)
            if split.sum() > room:
                warn(
                    f"geometry has edges in {quoted(self._name)} that need over {MOST_POINTS:,} points at this zoom, and are "
                    "approximated less closely"
                )
                break
            room -= split.sum()
            edge, low, middle, high = edge[split], low[split], middle[split], high[split]
            starts, halfway, stops = starts.of(split), halfway.of(split), stops.of(split)
            found.append((edge, middle, halfway.longitude, halfway.latitude))
            if not len(edge):
                break
            edge = np.append(edge, edge)
            low, high = np.append(low, middle), np.append(middle, high)
            starts, stops = starts.and_then(halfway), halfway.and_then(stops)
        start, part, longitude, latitude = map(np.concatenate, zip(*found))
        order = np.lexsort((part, start))
        latitude = latitude[order]
        return longitude[order], latitude, self._poled(latitude), path[start[order]]

    def _bends(self, start: _Ends, between: _Ends, stop: _Ends) -> Booleans:
        """Whether pieces deviate too far from the straight line between their ends, or which way around they go is unclear."""
        import numpy as np

        east, along = _turn(stop.longitude - start.longitude), _turn(between.longitude - start.longitude)
        latitudes = np.abs([start.latitude, between.latitude, stop.latitude])
        # Web mercator stretches latitudes so, and ends there.
        stretch = 1 / np.cos(np.radians(np.minimum(latitudes[1], LATITUDE_LIMIT)))
        stretch = np.where(latitudes.min(axis=0) > LATITUDE_LIMIT, 0.0, stretch)
        north, up = (stop.latitude - start.latitude) * stretch, (between.latitude - start.latitude) * stretch
        length = east**2 + north**2
        part = np.clip((along * east + up * north) / np.where(length > 0, length, 1.0), 0.0, 1.0)
        off = np.hypot(along - part * east, up - part * north) > self._tolerance
        # To a point that is a pole, on one meridian.
        meridian = np.where(start.pole, stop.longitude, start.longitude)
        off_meridian = np.abs(_turn(between.longitude - meridian)) > self._tolerance
        one = start.pole ^ stop.pole
        return np.where(one, off_meridian & ~between.pole, (off | (np.abs(east) > 120)) & ~(start.pole & stop.pole))
