"""Random geometries in random reference systems, against tiles that are drawn in that system and asked one by one."""

import functools
import math
import warnings
from typing import Any, NamedTuple

import geopandas
import numpy as np
import pyproj
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from fused_cache_ops import Tile, plan_invalidation

SIDE = 16  # points that draw a side of a tile
HAIR = 1 / 400  # of a tile: nearer to an edge than this the reference itself is not sure


class System(NamedTuple):
    """A reference system, where to look in it, and after how many units it begins again."""

    name: str
    places: tuple[tuple[float, float], ...]  # longitude, latitude
    period: float = 0.0


ROUND = 2 * math.pi * 6378137
SYSTEMS = (
    System("EPSG:4326", ((10, 50), (180, -30), (-179, 70), (0, 84)), 360.0),
    System("EPSG:4269", ((-100, 40), (180, 55)), 360.0),
    System("EPSG:3857", ((10, 50), (180, -30), (-179, 70), (0, 84)), ROUND),
    System("EPSG:32601", ((-177, 65), (-180, 5), (-179, -60))),
    System("EPSG:32632", ((9, 50), (4, 80), (14, 1))),
    System("EPSG:32760", ((180, -17), (177, -75))),
    System("EPSG:3031", ((0, -90), (0, -90), (180, -75), (33, -70))),
    System("EPSG:3995", ((0, 90), (0, 90), (180, 75), (-120, 60))),
    System("EPSG:2154", ((3, 46), (-4, 48))),
    System("EPSG:27700", ((-2, 54), (-6, 58))),
    System("EPSG:3035", ((10, 52), (-10, 60))),
    System("EPSG:6931", ((0, 90), (135, 80))),  # equal-area about the north pole
)


@functools.cache
def way(name: str) -> pyproj.Transformer:
    """From a system to degrees."""
    return pyproj.Transformer.from_crs(name, "EPSG:4326", always_xy=True)


unit = st.floats(-1, 1, allow_subnormal=False).map(lambda drawn: round(drawn, 3))


@st.composite
def shapes(draw: st.DrawFn) -> Any:
    """A shape within some two units of (0, 0)."""
    kind = draw(st.sampled_from(["point", "line", "strip", "star", "square"]))
    x, y = draw(st.sampled_from([0.0, 0.5])) * draw(unit), draw(st.sampled_from([0.0, 0.5])) * draw(unit)
    if kind == "point":
        return shapely.Point(x, y)
    if kind == "line":
        return shapely.LineString(draw(st.lists(st.tuples(unit, unit), min_size=2, max_size=4, unique=True)))
    if kind == "square":  # aligned with the axes, which in a polar system go through the pole
        return shapely.box(*draw(st.sampled_from([(-1, -1, 1, 1), (0, 0, 1, 1), (-1, 0, 1, 1), (-1, -1, 0, 1)])))
    if kind == "strip":
        strip = shapely.box(-1, -draw(st.sampled_from([0.01, 0.1])), 1, 0)
        turned = shapely.affinity.rotate(strip, draw(st.integers(0, 180)), origin=(0, 0))
        return shapely.affinity.translate(turned, x, y)
    corners = draw(st.integers(3, 9))
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False) + draw(unit)
    radii = np.array([0.3 + 0.7 * abs(draw(unit)) for _ in range(corners)])
    ring = np.column_stack((x + radii * np.cos(angles), y + radii * np.sin(angles)))
    holes = [(ring - [x, y]) * 0.4 + [x, y]] if draw(st.booleans()) else []
    return shapely.Polygon(ring, holes)


def drawn_tiles(tiles: list[Tile], hair: float, system: System) -> Any:
    """Tiles grown by a part of themselves, as polygons of a system; the outermost rows reach to the poles."""
    if not tiles:
        return []
    sides = []
    t = np.linspace(0, 1, SIDE)
    for z, x, y in tiles:
        size = 2**z
        west, east = ((x - hair) / size * 360 - 180, (x + 1 + hair) / size * 360 - 180)
        north, south = (math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * row / size)))) for row in (y - hair, y + 1 + hair))
        pole = 90.0 if hair > 0 else 89.99
        north, south = pole if y == 0 else north, -pole if y == size - 1 else south
        longitudes = np.concatenate(
            (west + (east - west) * t, np.full(SIDE, east), east - (east - west) * t, np.full(SIDE, west))
        )
        latitudes = np.concatenate(
            (np.full(SIDE, north), north + (south - north) * t, np.full(SIDE, south), south - (south - north) * t)
        )
        sides.append((longitudes, latitudes))
    longitudes, latitudes = np.array(sides).transpose(1, 0, 2)
    if system.name != "EPSG:4326":
        # What a grown tile has beyond the antimeridian stays there where the system goes on.
        within = np.clip(longitudes, -180, 180) if system.period else longitudes
        beyond = (longitudes - within) / 360 * system.period
        longitudes, latitudes = way(system.name).transform(within, latitudes, direction="INVERSE")
        longitudes = longitudes + beyond
    return [shapely.make_valid(shapely.Polygon(np.column_stack(side))) for side in zip(longitudes, latitudes)]


def window(place: tuple[float, float], system: str, zoom: int) -> list[Tile]:
    """The tiles round a place that the shapes there can reach."""
    size = 2**zoom
    if abs(place[1]) == 90 or system in ("EPSG:3031", "EPSG:3995", "EPSG:6931"):
        rows = range(size // 2) if place[1] > 0 else range(size // 2, size)
        return [Tile(zoom, x, y) for x in range(size) for y in rows]
    middle = Tile.containing(*place, zoom)
    columns = {(middle.x + step) % size for step in range(-8, 9)}
    return [Tile(zoom, x, y) for x in columns for y in range(max(0, middle.y - 8), min(size, middle.y + 9))]


@st.composite
def cases(draw: st.DrawFn) -> tuple[System, tuple[float, float], int, Any]:
    system = draw(st.sampled_from(SYSTEMS))
    place = draw(st.sampled_from(system.places))
    polar = abs(place[1]) == 90 or system.name in ("EPSG:3031", "EPSG:3995", "EPSG:6931")
    zoom = draw(st.integers(2, 5)) if polar else draw(st.integers(4 if system.period else 6, 14))
    x, y = way(system.name).transform(*place, direction="INVERSE")
    if polar:
        reach = draw(st.sampled_from([3e5, 1e6, 3e6]))
    else:  # three tiles each way, in whatever units the system has
        reach = 3 * 360 / 2**zoom * math.cos(math.radians(place[1])) * (1 if system.period == 360.0 else 111_000)
    members = draw(st.lists(shapes(), min_size=1, max_size=2))
    moved = [shapely.transform(member, lambda points: points * reach + [x, y]) for member in members]
    shape = moved[0] if len(moved) == 1 else shapely.GeometryCollection(moved)
    return system, place, zoom, shape


def check(system: System, place: tuple[float, float], zoom: int, shape: Any) -> None:
    tiles = window(place, system.name, zoom)
    bounds = shape.bounds
    if system.period == 360.0 and (max(bounds[3], -bounds[1]) > 90 or max(-bounds[0], bounds[2]) > 540):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rings that had to be repaired
        found = set(plan_invalidation("roads", geometry=geopandas.GeoSeries([shape], crs=system.name), zooms=zoom).tiles())
    shape = shapely.make_valid(shape)
    turns = [shapely.affinity.translate(shape, turn * system.period) for turn in ((-1, 0, 1) if system.period else (0,))]
    assert found <= set(tiles)
    left_out = sorted(set(tiles) - found)
    missed = np.any([shapely.intersects(turned, drawn_tiles(left_out, -HAIR, system)) for turned in turns], axis=0)
    assert [tile for tile, is_missed in zip(left_out, missed) if is_missed] == []
    chosen = sorted(found)
    met = np.any([shapely.intersects(turned, drawn_tiles(chosen, HAIR, system)) for turned in turns], axis=0)
    assert [tile for tile, is_met in zip(chosen, met) if not is_met] == []


@given(cases())
@settings(max_examples=120)
def test_a_geometry_in_any_system_covers_the_tiles_that_it_meets_there(case: Any) -> None:
    check(*case)
