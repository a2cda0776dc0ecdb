"""Edges that jump over more than half the globe, such as from 179° to -179°.

GeoJSON asks that geometries be cut at the antimeridian (RFC 7946, 3.1.9). Many are not. Taken literally, such an edge runs the
long way round. Otherwise it crosses the antimeridian, as the package ``antimeridian`` reads it. Needs the extra ``geo``.
"""

from __future__ import annotations

from typing import Any

from fused_cache_ops.selection.shapes import import_geo, shift, single_parts
from fused_cache_ops.wording import warn

_HALF = 180.0
_WHOLE = 360.0
_POLE = 90 - 1e-9
_CROSS = "antimeridian='cross' lets it cross the antimeridian, antimeridian='literal' takes it as it is written"


def as_said(shapes: Any, antimeridian: str | None) -> Any:
    """Shapes in degrees, in which edges over more than half the globe are as the caller says. If nothing is said, they are left
    as they are, with a warning.

    Args:
        shapes: an array of shapely geometries.
        antimeridian: ``"cross"``, ``"literal"`` or None.

    Warns:
        UserWarning: an edge spans more than half the globe, and nothing is said.
    """
    import numpy as np

    shapely = import_geo("shapely")
    west, _, east, _ = shapely.bounds(shapes).T
    wide = east - west > _HALF
    if antimeridian == "literal" or not wide.any():
        return shapes
    parts = single_parts(shapely.force_2d(shapes[wide]))
    paths, owner = _paths(parts, shapely)
    jumping = [_jumps(shapely.get_coordinates(path)) for path in paths]
    if antimeridian is None:
        _warn(paths, jumping, shapely)
        return shapes
    odd = np.zeros(len(parts), bool)
    odd[[at for at, jumps in zip(owner, jumping) if jumps]] = True
    crossed = [_crossing(part, shapely) for part in parts[odd]]
    found = np.empty(len(crossed), dtype=object)
    found[:] = crossed
    return np.concatenate((shapes[~wide], parts[~odd], found))


def _paths(parts: Any, shapely: Any) -> tuple[list[Any], list[int]]:
    """The lines and rings of single parts, and the part that each belongs to."""
    import numpy as np

    kinds = shapely.get_dimensions(parts)
    lines, polygons = np.flatnonzero(kinds == 1), np.flatnonzero(kinds == 2)
    rings, owner = shapely.get_rings(parts[polygons], return_index=True)
    return [*parts[lines], *rings], [*lines, *polygons[owner]]


def _jumps(points: Any) -> bool:
    """Whether a path has an edge over more than half the globe that may be meant to cross the antimeridian.

    One that runs from -180° to 180° may not be: along a pole, and where all of the path is at ±180°, as in a band around the
    globe, the other reading leaves nothing, or the same.
    """
    import numpy as np

    steps = np.abs(np.diff(points[:, 0]))
    if ((steps > _HALF) & (steps < _WHOLE)).any():
        return True
    whole = (steps == _WHOLE) & (np.abs(points[:-1, 1]) < _POLE)
    return bool(whole.any() and (np.abs(points[:, 0]) != _HALF).any())


def _warn(paths: list[Any], jumping: list[bool], shapely: Any) -> None:
    import numpy as np

    steps = [np.abs(np.diff(shapely.get_coordinates(path)[:, 0])).max() for path, jumps in zip(paths, jumping) if jumps]
    if steps:
        several = f", and {len(steps):,} lines or rings with such edges, which are" if len(steps) > 1 else ", which is"
        warn(
            f"geometry has an edge that spans {max(steps):g}° of longitude{several} taken literally, the long way round: "
            f"{_CROSS}"
        )


def _crossing(part: Any, shapely: Any) -> Any:
    """A line or polygon whose edges go the shorter way round. It may go on beyond ±180°."""
    if part.geom_type == "LineString":
        return shapely.LineString(_unrolled(shapely.get_coordinates(part)))
    shell, *holes = (_enclosed(ring, shapely) for ring in shapely.get_rings(part))
    west, _, east, _ = shell.bounds
    for hole in holes:
        if hole.is_empty:
            continue
        # On the same turn as the shell.
        middle = (hole.bounds[0] + hole.bounds[2]) / 2
        for turn in (-1, 0, 1):
            if west <= middle + _WHOLE * turn <= east:
                shell = shapely.difference(shell, shift(hole, _WHOLE * turn))
    return shell


def _enclosed(ring: Any, shapely: Any) -> Any:
    points = _unrolled(shapely.get_coordinates(ring))
    if abs(points[-1, 0] - points[0, 0]) > _HALF:  # around a pole: the one that it is nearer to
        pole = 90.0 if points[:, 1].mean() >= 0 else -90.0
        points = [*points, (points[-1, 0], pole), (points[0, 0], pole)]
    found = shapely.Polygon(points)
    return found if found.is_valid else shapely.make_valid(found)


def _unrolled(points: Any) -> Any:
    """Points whose longitudes go on beyond ±180°, from each to the next one the shorter way round."""
    import numpy as np

    steps = np.diff(points[:, 0])
    steps = np.where(np.abs(steps) > _HALF, (steps + _HALF) % _WHOLE - _HALF, steps)
    return np.column_stack((points[0, 0] + np.append(0.0, np.cumsum(steps)), points[:, 1]))
