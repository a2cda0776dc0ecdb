"""What reading and reprojecting geometries share: taking them apart, and moving areas onto the map."""

from __future__ import annotations

import math
from typing import Any

from fused_cache_ops.errors import ConfigurationError


def import_geo(name: str, distribution: str | None = None) -> Any:
    """A module of the extra ``geo``.

    Raises:
        ConfigurationError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigurationError(
            f"A geometry needs {distribution or name}, which is not installed: pip install 'fused-cache-ops[geo]'"
        ) from None


def flat(whole: Any) -> Any:
    """One collection of single points, lines and polygons, without empty ones."""
    shapely = import_geo("shapely")
    parts = [whole]
    while any(part.geom_type.startswith(("Multi", "GeometryCollection")) for part in parts):
        parts = list(shapely.get_parts(parts))
    return shapely.geometrycollections([part for part in parts if not part.is_empty])


def shift(geometry: Any, degrees: float) -> Any:
    """A shapely geometry, shifted eastward."""

    def move(points: Any) -> Any:
        points[:, 0] += degrees
        return points

    return import_geo("shapely").transform(geometry, move) if degrees else geometry


def within_the_map(whole: Any) -> Any:
    """A flat collection whose areas beyond ±180° are moved to the other side.

    Lines and points may stay beyond, because covering them wraps around.
    """
    shapely = import_geo("shapely")
    west, _, east, _ = whole.bounds if not whole.is_empty else (0, 0, 0, 0)
    if west >= -180 and east <= 180:
        return whole
    pieces = []
    for part in whole.geoms:
        west, _, east, _ = part.bounds
        if part.geom_type != "Polygon" or (west >= -180 and east <= 180):
            pieces.append(part)
            continue
        for turn in range(math.floor((west + 180) / 360), math.ceil((east + 180) / 360)):
            # If it only touches the antimeridian, the intersection is a line.
            pieces.extend(areas(shapely.intersection(shift(part, -360 * turn), shapely.box(-180, -90, 180, 90))))
    return shapely.geometrycollections(pieces)


def areas(whole: Any) -> list[Any]:
    """The polygons of a geometry, without the lines and points that cutting or repairing it may produce."""
    return [part for part in flat(whole).geoms if part.geom_type == "Polygon"]
