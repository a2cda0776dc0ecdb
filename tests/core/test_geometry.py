"""Geometries: read from every form, and covered exactly."""

import itertools
import json
import math
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import geopandas
import mercantile
import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from fused_cache_ops import Tile, plan_invalidation
from fused_cache_ops.errors import ConfigurationError, InvalidInputError
from fused_cache_ops.selection import coverage
from fused_cache_ops.selection.reading import read_selection
from fused_cache_ops.selection.reprojection import to_degrees
from fused_cache_ops.selection.selection import WholeUdf

# The other is about threads of Prefect, left by other tests, that use it while an example is drawn.
pytestmark = pytest.mark.filterwarnings("error", "ignore:Do not use the `random` module inside strategies")


def tiles(geometry: Any, zooms: Any, **options: Any) -> set[Tile]:
    plan = plan_invalidation("roads", geometry=geometry, zooms=zooms, **options)
    listed = list(plan.tiles())
    assert plan.tile_count == len(listed) == len(set(listed))
    return set(listed)


def tile_box(x: int, y: int, z: int) -> Any:
    return shapely.box(*mercantile.bounds(x, y, z))


TILE = mercantile.Tile(9647, 12320, 15)
BOX = mercantile.bounds(TILE)
NINE = {(15, x, y) for x in (9646, 9647, 9648) for y in (12319, 12320, 12321)}


# -- where other libraries give wrong answers ------------------------------------------------------------------------


def test_a_polygon_that_is_exactly_one_tile_is_one_tile() -> None:
    assert tiles(shapely.box(*BOX), 15) == {(15, 9647, 12320)}


def test_a_hole_that_is_aligned_with_tiles_is_left_out() -> None:
    outer, inner = mercantile.bounds(10, 10, 5), mercantile.bounds(41, 41, 7)
    outer_ring = shapely.box(*outer).exterior
    hole = shapely.box(*inner).exterior.reverse()
    with_hole = shapely.Polygon(outer_ring, [hole])
    inside_hole = {(8, x, y) for x in (82, 83) for y in (82, 83)}
    assert tiles(with_hole, 8) == {(8, x, y) for x in range(80, 88) for y in range(80, 88)} - inside_hole
    assert len(tiles(tile_box(1, 1, 2).difference(tile_box(4, 4, 4)), 6)) == 256 - 16


def test_a_ring_beyond_the_antimeridian_is_on_both_sides() -> None:
    found = tiles(shapely.box(179, -1, 181, 1), 8)
    assert found == tiles(shapely.MultiPolygon([shapely.box(179, -1, 180, 1), shapely.box(-180, -1, -179, 1)]), 8)
    assert found == {(8, x, y) for x in (255, 0) for y in (127, 128)}
    assert len(found) == 4


def test_latitudes_beyond_web_mercator_are_the_outermost_rows() -> None:
    assert tiles(shapely.box(0, 86, 10, 90), 5) == {(5, 16, 0)}
    assert tiles(shapely.box(0, -90, 10, -86), 5) == {(5, 16, 31)}
    assert tiles(shapely.Point(0.5, 90), 5) == {(5, 16, 0)}
    assert tiles(shapely.Point(0.5, -90), 5) == {(5, 16, 31)}


def test_a_collection_is_the_union_of_its_members() -> None:
    point, polygon = shapely.Point(50, 50), shapely.box(*BOX)
    line = shapely.LineString([(BOX.west + 1e-4, BOX.south + 1e-4), (BOX.west + 2e-4, BOX.south + 1e-4)])
    nested = shapely.GeometryCollection([polygon, shapely.GeometryCollection([point, line])])
    assert tiles(nested, 15) == {(15, 9647, 12320), Tile.containing(50, 50, 15)}


def test_a_strip_on_a_tile_edge_touches_both_sides() -> None:
    south = mercantile.bounds(9647, 12340, 15).south
    assert len(tiles(shapely.box(BOX.east - 1e-6, south, BOX.east + 1e-6, BOX.north), 15)) == 42


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_coordinate_that_is_no_number_is_refused(bad: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        line = shapely.LineString([(0, 0), (1, bad)])
    with pytest.raises(InvalidInputError, match="NaN or infinite"):
        tiles(line, 5)


# -- exactness -------------------------------------------------------------------------------------------------------


def lattice(column: int, row: int) -> tuple[float, float]:
    """A point on a quarter-tile lattice at zoom 6, so that edges and corners come up all the time."""
    corner = mercantile.ul(column, row, 8)
    return corner.lng, corner.lat


points = st.tuples(st.integers(100, 124), st.integers(100, 124)).map(lambda cell: lattice(*cell))
polygons = st.lists(points, min_size=3, max_size=6, unique=True).map(lambda ring: shapely.Polygon(ring))
lines = st.lists(points, min_size=2, max_size=5, unique=True).map(lambda run: shapely.LineString(run))


@given(polygons)
@settings(max_examples=1000)
def test_polygons_are_covered_as_by_brute_force(polygon: Any) -> None:
    if not polygon.is_valid or polygon.area == 0:
        return
    expected = set()
    for x, y in itertools.product(range(24, 33), repeat=2):
        box = mercantile.bounds(x, y, 6)
        inner = shapely.box(box.west + 1e-9, box.south + 1e-9, box.east - 1e-9, box.north - 1e-9)
        if inner.intersects(polygon):
            expected.add((6, x, y))
    found = tiles(polygon, 6)
    # Between a micrometer (ours) and a tenth of a millimeter (the brute force) no lattice polygon has anything.
    assert found == expected


@given(lines)
@settings(max_examples=100)
def test_lines_are_covered_with_their_half_open_tiles(line: Any) -> None:
    found = tiles(line, 6)
    for x, y in itertools.product(range(24, 33), repeat=2):
        box = mercantile.bounds(x, y, 6)
        inner = shapely.box(box.west + 1e-9, box.south + 1e-9, box.east - 1e-9, box.north - 1e-9)
        if inner.intersects(line):
            assert (6, x, y) in found
        if not shapely.box(*box).buffer(1e-9).intersects(line):
            assert (6, x, y) not in found
    assert {Tile.containing(*corner, 6) for corner in line.coords} <= found


@given(st.lists(points, min_size=1, max_size=5))
@settings(max_examples=100)
def test_a_point_belongs_to_exactly_one_tile(corners: list[tuple[float, float]]) -> None:
    assert tiles(shapely.MultiPoint(corners), 6) == {Tile.containing(*corner, 6) for corner in corners}


@given(polygons)
@settings(max_examples=30)
def test_every_zoom_holds_the_parents_of_the_next(polygon: Any) -> None:
    if not polygon.is_valid or polygon.area == 0:
        return
    found = tiles(polygon, "3-8")
    for z, x, y in found:
        if z > 3:
            assert (z - 1, x // 2, y // 2) in found
    for zoom in range(3, 9):
        assert {tile for tile in found if tile.z == zoom} == tiles(polygon, zoom)


def test_points_on_the_maps_own_edges_are_in() -> None:
    assert tiles(shapely.Point(180, 0), 3) == {(3, 0, 4)}
    assert tiles(shapely.LineString([(179, 10), (180, 10)]), 3) == {(3, 7, 3)}


@pytest.mark.parametrize("meridian", [-540, -180, 180, 540])
def test_what_lies_in_the_antimeridian_belongs_to_the_first_column(meridian: int) -> None:
    east = tiles(shapely.LineString([(-180 + 1e-9, 10), (-180 + 1e-9, 20)]), 8)
    assert {tile.x for tile in east} == {0}
    assert tiles(shapely.LineString([(meridian, 10), (meridian, 20)]), 8) == east
    assert tiles(shapely.LineString([(meridian, 20), (meridian, 10)]), 8) == east
    assert tiles(shapely.Point(meridian, 10), 8) == {Tile.containing(-180, 10, 8)}
    assert tiles(shapely.MultiPoint([(meridian, 10), (0, 10)]), 8) == {Tile.containing(x, 10, 8) for x in (-180, 0)}


@pytest.mark.parametrize(("west", "east", "columns"), [(-190, -180, {7}), (180, 190, {0}), (170, 180, {7}), (-180, -170, {0})])
@pytest.mark.parametrize("turn", [0, 1, -1])
def test_what_ends_at_the_antimeridian_stays_on_its_side(west: int, east: int, columns: set[int], turn: int) -> None:
    west, east = west + 360 * turn, east + 360 * turn
    if max(-west, east) > 540:
        return
    assert {tile.x for tile in tiles(shapely.box(west, 10, east, 20), 3)} == columns
    assert {tile.x for tile in tiles(shapely.LineString([(west, 10), (east, 20)]), 3)} == columns


def test_a_line_along_the_antimeridian_and_across_it_is_on_both_sides() -> None:
    found = tiles(shapely.LineString([(179, 10), (180, 10), (180, 60), (181, 60)]), 3)
    assert found == {(3, 7, 3), (3, 0, 3), (3, 0, 2)}


halves = st.integers(-180 * 8, 180 * 8).map(lambda eighth: eighth / 8)  # tile edges come up all the time
places = st.tuples(halves, st.integers(-85, 85))
shapes = st.one_of(
    places.map(shapely.Point),
    st.lists(places, min_size=2, max_size=4, unique=True).map(shapely.LineString),
    st.tuples(places, st.integers(1, 60), st.integers(1, 4)).map(
        lambda drawn: shapely.box(drawn[0][0], drawn[0][1], drawn[0][0] + drawn[1], drawn[0][1] + drawn[2])
    ),
    st.lists(places, min_size=3, max_size=5, unique=True).map(shapely.Polygon),
)


@given(shapes, st.integers(0, 7))
@settings(max_examples=300)
def test_a_turn_round_the_globe_changes_nothing(shape: Any, zoom: int) -> None:
    for turn in (-360, 360):
        moved = shapely.transform(shape, lambda points, turn=turn: points + [turn, 0])
        if max(-moved.bounds[0], moved.bounds[2]) <= 540:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of long edges and of rings that had to be repaired
                assert tiles(moved, zoom) == tiles(shape, zoom)


@pytest.mark.parametrize("buffer", [1, 2])
def test_a_buffer_adds_tiles_on_every_side(buffer: int) -> None:
    around = range(-buffer, buffer + 1)
    assert tiles(shapely.box(*BOX), 15, buffer=buffer) == {(15, 9647 + x, 12320 + y) for x in around for y in around}
    assert tiles(shapely.Point(179.99, 0.01), 4, buffer=1) == {(4, x, y) for x in (14, 15, 0) for y in (6, 7, 8)}


def test_a_buffer_is_counted_at_each_zoom() -> None:
    found = tiles(shapely.box(*BOX), [13, 15], buffer=1)
    assert len({tile for tile in found if tile.z == 15}) == len({tile for tile in found if tile.z == 13}) == 9


def test_the_world_is_every_tile() -> None:
    assert len(tiles(shapely.box(-180, -90, 180, 90), "0-4")) == 341


# -- too many --------------------------------------------------------------------------------------------------------


def country(corners: int = 500) -> Any:
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return shapely.Polygon(np.column_stack((10 + 8 * np.cos(angle), 47 + 5 * np.sin(angle) * (1 + 0.1 * np.sin(9 * angle)))))


WIDE = shapely.LineString([(-170, -60), (0, 0), (170, 60), (0, 65), (-170, 70)])
ALIGNED = tile_box(2, 2, 3)  # each tile along it is grazed, and has to be asked about


@pytest.mark.parametrize("shape", [country(), WIDE, ALIGNED], ids=["country", "line", "aligned"])
@pytest.mark.parametrize("buffer", [0, 8])
def test_too_many_tiles_are_told_early(shape: Any, buffer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At zoom 24 an edge alone runs through millions of columns, and the area holds 10^13 tiles. No clock: memory and work."""
    looked_at = []
    touched = coverage._touched

    def counting(*arguments: Any) -> Any:
        found = touched(*arguments)
        looked_at.append(len(found.column))
        return found

    monkeypatch.setattr(coverage, "_touched", counting)
    tracemalloc.start()
    try:
        with pytest.warns(UserWarning, match="at least"):
            selection = read_selection(geometry=shape, zooms=24, buffer=buffer, when_too_many="whole-udf", max_tiles=100_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(selection, WholeUdf)
    assert peak < 150e6
    assert 0 < sum(looked_at) < 1_000_000


def test_the_message_says_which_counts_are_known() -> None:
    with pytest.raises(InvalidInputError) as caught:
        plan_invalidation("roads", geometry=country(), zooms="5,9,22-24")
    message = str(caught.value)
    for part in ("at least ", "over max_tiles=1,000,000 (zoom 5: 4, zoom 9: 424, zoom 22: at least ", "'coarser'"):
        assert part in message
    assert "zoom 23" not in message


def test_coarser_counts_no_zoom_deeper_than_the_first_that_is_too_much() -> None:
    with pytest.warns(UserWarning, match=r"over max_tiles=10,000: zooms 12, 22, 24 are left stale"):
        plan = plan_invalidation("roads", geometry=country(), zooms="9-10,12,22,24", max_tiles=10_000, when_too_many="coarser")
    assert plan.zooms_left_stale == (12, 22, 24)
    assert set(plan.tiles()) == tiles(country(), "9-10")
    with pytest.raises(InvalidInputError, match=r"zoom 22: at least"):
        plan_invalidation("roads", geometry=country(), zooms="22-24", when_too_many="coarser")


def test_as_many_as_max_tiles_are_whole() -> None:
    exact = len(tiles(country(), "9-12"))
    assert len(tiles(country(), "9-12", max_tiles=exact)) == exact
    with pytest.raises(InvalidInputError, match="over max_tiles"):
        tiles(country(), "9-12", max_tiles=exact - 1)


@given(st.one_of(polygons, lines), st.integers(0, 3))
@settings(max_examples=60)
@pytest.mark.parametrize("at_once", [1, 7])
def test_bands_of_columns_change_nothing(at_once: int, shape: Any, buffer: int) -> None:
    if not shape.is_valid or shape.is_empty:
        return
    whole = tiles(shape, "0-7", buffer=buffer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coverage, "_AT_ONCE", at_once)
        assert tiles(shape, "0-7", buffer=buffer) == whole


NEAR_EDGES = st.builds(
    lambda column, steps: (column / 8 - 0.5) * 360 + steps * coverage.TOLERANCE / 2, st.integers(0, 8), st.integers(-4, 4)
)


@given(st.lists(st.tuples(NEAR_EDGES, st.floats(-60, 60), NEAR_EDGES, st.floats(-60, 60)), min_size=1, max_size=5))
@settings(max_examples=300)
def test_edges_near_those_of_tiles_are_seen_alike_with_both_margins(ends: list[Any]) -> None:
    """Both margins share the pieces of the wider one, which reach into columns that the narrower one does not touch."""
    numbers = np.arange(len(ends))
    segments = coverage._segments(np.array(ends).reshape(-1, 2), 2 * numbers, 2 * numbers + 1, numbers)

    def touched(margin: float) -> Any:
        column, piece = coverage._pieces(segments, 3, margin, (0, 8))
        return coverage._touched(column, coverage._taken(segments, piece), 3, -coverage.TOLERANCE)

    shared, own = touched(coverage.TOLERANCE), touched(-coverage.TOLERANCE)
    assert set(zip(*map(np.ndarray.tolist, shared))) == set(zip(*map(np.ndarray.tolist, own)))


@given(st.lists(polygons, max_size=6))
@settings(max_examples=60)
def test_polygons_that_overlap_are_covered_one_by_one(several: list[Any]) -> None:
    together = [shape for shape in several if shape.is_valid]
    found = tiles(together, "0-7")
    assert found == {tile for shape in together for tile in tiles(shape, "0-7")}
    assert found == tiles(shapely.union_all(together), "0-7")


# -- forms -------------------------------------------------------------------------------------------------------------

POLYGON = shapely.box(*BOX)
GEOJSON = json.loads(shapely.to_geojson(POLYGON))
FEATURE = {"type": "Feature", "properties": {}, "geometry": GEOJSON}
FRAME = geopandas.GeoDataFrame({"name": ["a"]}, geometry=[POLYGON], crs="EPSG:4326")


class Interface:
    __geo_interface__ = GEOJSON


@pytest.mark.parametrize(
    "geometry",
    [
        POLYGON,
        GEOJSON,
        json.dumps(GEOJSON),
        FEATURE,
        {"type": "GeometryCollection", "geometries": [GEOJSON]},
        [GEOJSON, FEATURE],
        f" {json.dumps([FEATURE])}",
        POLYGON.wkt,
        f"SRID=4326;{POLYGON.wkt}",
        POLYGON.wkb,
        bytearray(POLYGON.wkb),
        Interface(),
        FRAME,
        FRAME.geometry,
        [POLYGON, FRAME, POLYGON.wkt],
        (POLYGON,),
    ],
    ids=lambda geometry: type(geometry).__name__,
)
def test_every_form_of_a_geometry_is_read(geometry: Any) -> None:
    assert tiles(geometry, 15) == {(15, 9647, 12320)}


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:32629", "OGC:CRS84"])
def test_a_geodataframe_is_reprojected(crs: str) -> None:
    inner = FRAME.set_geometry([POLYGON.buffer(-1e-6)], crs="EPSG:4326")
    assert tiles(inner.to_crs(crs), 15) == {(15, 9647, 12320)}


@pytest.mark.parametrize("name", ["a.geojson", "a.gpkg", "a.fgb", "a.shp", "a.parquet"])
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
def test_every_vector_file_is_read_and_reprojected(tmp_path: Path, name: str, crs: str) -> None:
    if name == "a.geojson" and crs != "EPSG:4326":
        crs = "EPSG:4326"  # the format has no other
    inner = FRAME.set_geometry([POLYGON.buffer(-1e-6)], crs="EPSG:4326").to_crs(crs)
    path = tmp_path / name
    inner.to_parquet(path) if name.endswith("parquet") else inner.to_file(path)
    assert tiles(path, 15) == tiles(str(path), 15) == {(15, 9647, 12320)}


def dense(shape: Any, system: str) -> Any:
    """The same shape in degrees, by so many points that its edges run where they do in its own system."""
    return geopandas.GeoSeries([shapely.segmentize(shape, shape.length / 40_000)], crs=system).to_crs("EPSG:4326")


@pytest.mark.parametrize(
    ("shape", "zoom"),
    [(shapely.box(300_000, 5_800_000, 700_000, 5_805_000), 14), (shapely.box(450_000, 6_200_000, 550_000, 6_201_000), 16)],
    ids=["400 km at zoom 14", "100 km at zoom 16"],
)
def test_edges_are_straight_in_their_own_system(shape: Any, zoom: int) -> None:
    found = tiles(geopandas.GeoSeries([shape], crs="EPSG:32632"), zoom)
    assert len(found) > 900
    assert found == tiles(dense(shape, "EPSG:32632"), zoom)


def test_following_edges_adds_points_where_they_bend_and_no_more() -> None:
    system = pyproj.CRS("EPSG:32632")
    field = shapely.box(500_000, 5_800_000, 500_100, 5_800_100)
    (small,) = to_degrees([field], system, 14)
    (long,) = to_degrees([shapely.box(300_000, 5_800_000, 700_000, 5_805_000)], system, 14)
    (longer,) = to_degrees([shapely.box(300_000, 5_800_000, 700_000, 5_805_000)], system, 18)
    points = [len(shapely.get_coordinates(shape)) for shape in (small, long, longer)]
    assert points[0] == 5
    assert 40 < points[1] < 400
    assert points[2] < 5 * points[1]  # four zooms deeper: a bend falls with the square of the length


def test_following_edges_ends_at_so_many_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fused_cache_ops.selection.reprojection.MOST_POINTS", 20)
    strip = geopandas.GeoSeries([shapely.box(300_000, 5_800_000, 700_000, 5_805_000)], crs="EPSG:32632")
    with pytest.warns(UserWarning, match=r"'WGS 84 / UTM zone 32N' that need over 20 points"):
        assert tiles(strip, 12)


@pytest.mark.parametrize(("system", "row"), [("EPSG:3031", 15), ("EPSG:3995", 0), ("EPSG:6931", 0)])
def test_a_ring_round_a_pole_covers_every_column_down_from_it(system: str, row: int) -> None:
    square = shapely.box(-1e6, -1e6, 1e6, 1e6)
    found = tiles(geopandas.GeoSeries([square], crs=system), 4)
    assert {tile for tile in found if tile.y == row} == {(4, x, row) for x in range(16)}
    assert {tile.y for tile in found} <= {row, abs(row - 1), abs(row - 2)}
    hollow = square - shapely.box(-9e5, -9e5, 9e5, 9e5)
    with_hole = tiles(geopandas.GeoSeries([hollow], crs=system), 4)
    assert with_hole == found - {(4, x, row) for x in range(16)}


@pytest.mark.parametrize(("corners", "columns"), [((0, 0, 1e6, 1e6), {8, 9, 10, 11}), ((0, -1e6, 1e6, 1e6), set(range(8, 16)))])
def test_a_ring_through_a_pole_covers_the_columns_on_its_side(corners: tuple[float, ...], columns: set[int]) -> None:
    found = tiles(geopandas.GeoSeries([shapely.box(*corners)], crs="EPSG:3031"), 4)
    assert {tile.x for tile in found} == columns


def test_a_line_through_a_pole_is_on_both_its_meridians_and_none_between() -> None:
    line = shapely.LineString([(1e5, -1e6), (-1e5, 1e6)])
    found = tiles(geopandas.GeoSeries([line], crs="EPSG:3995"), 5)
    assert len({tile.x for tile in found}) == 2


@pytest.mark.parametrize("system", ["EPSG:4269", "EPSG:4087", "EPSG:3857"])
def test_the_world_in_another_system_is_every_tile(system: str) -> None:
    latitude = 85.06 if system == "EPSG:3857" else 90
    world = geopandas.GeoSeries([shapely.box(-180, -latitude, 180, latitude)], crs="EPSG:4326").to_crs(system)
    assert len(tiles(world, "0-4")) == 341


def test_a_shape_across_the_antimeridian_in_its_own_system_is_on_both_sides() -> None:
    square = shapely.Point(180, -17).buffer(0.5)
    metres = shapely.transform(square, pyproj.Transformer.from_crs(4326, 32760, always_xy=True).transform, interleaved=False)
    found = tiles(geopandas.GeoSeries([metres], crs="EPSG:32760"), 8)
    assert {tile.x for tile in found} == {255, 0}


def test_coordinates_that_are_nowhere_in_their_system_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="which is outside 'WGS 84 / UTM zone 32N'"):
        tiles(geopandas.GeoSeries([shapely.Point(1e12, 1e12)], crs="EPSG:32632"), 5)


METRES = shapely.transform(
    POLYGON.buffer(-1e-6), pyproj.Transformer.from_crs(4326, 3857, always_xy=True).transform, interleaved=False
)
METRES_GEOJSON = json.loads(shapely.to_geojson(METRES))
METRES_FEATURE = {"type": "Feature", "properties": {}, "geometry": METRES_GEOJSON}


def named(name: str) -> Any:
    return {"type": "name", "properties": {"name": name}}


@pytest.mark.parametrize(
    "geometry",
    [
        shapely.to_wkb(shapely.set_srid(METRES, 3857), include_srid=True),
        shapely.set_srid(METRES, 3857),
        geopandas.GeoSeries([shapely.set_srid(METRES, 3857), shapely.set_srid(POLYGON.buffer(-1e-6), 4326)]),
        f"SRID=3857;{METRES.wkt}",
        f" srid = 3857 ; {METRES.wkt}",
        {**METRES_GEOJSON, "crs": named("EPSG:3857")},
        {**METRES_FEATURE, "crs": named("urn:ogc:def:crs:EPSG::3857")},
        {"type": "FeatureCollection", "features": [METRES_FEATURE], "crs": named("urn:ogc:def:crs:EPSG::3857")},
        {"type": "GeometryCollection", "geometries": [METRES_GEOJSON], "crs": named("EPSG:3857")},
        json.dumps({"type": "FeatureCollection", "features": [METRES_FEATURE], "crs": named("EPSG:3857")}),
        {"type": "FeatureCollection", "features": [FEATURE], "crs": named("urn:ogc:def:crs:OGC:1.3:CRS84")},
        {**GEOJSON, "crs": named("urn:ogc:def:crs:EPSG::4326")},
        {**GEOJSON, "crs": None},
        [f"SRID=3857;{METRES.wkt}", POLYGON, shapely.set_srid(METRES, 3857)],
    ],
    ids=lambda geometry: type(geometry).__name__,
)
def test_a_reference_system_that_a_value_names_is_heeded(geometry: Any) -> None:
    assert tiles(geometry, 15) == {(15, 9647, 12320)}


@pytest.mark.parametrize(
    ("geometry", "reason"),
    [
        (shapely.to_wkb(shapely.set_srid(METRES, 999_999), include_srid=True), "'EPSG:999999', which PROJ does not know"),
        (f"SRID=999999;{METRES.wkt}", "'EPSG:999999', which PROJ does not know"),
        ({**METRES_GEOJSON, "crs": named("EPSG:999999")}, "'EPSG:999999', which PROJ does not know"),
        ({**METRES_GEOJSON, "crs": {"type": "link", "properties": {"href": "http://a/b"}}}, "crs = {'type': 'link'"),
        ({**METRES_GEOJSON, "crs": "EPSG:3857"}, "crs = 'EPSG:3857', which names no"),
        ({**METRES_GEOJSON, "crs": {"type": "name", "properties": {"name": None}}}, "which names no"),
        ({**METRES_GEOJSON, "crs": named("EPSG:4978")}, "neither geographic nor projected"),
        ({**METRES_GEOJSON, "crs": named("EPSG:5703")}, "neither geographic nor projected"),
        (geopandas.GeoSeries([METRES], crs=pyproj.CRS('LOCAL_CS["site"]')), "'site', which is neither"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_reference_system_that_is_unknown_or_unusable_is_named(geometry: Any, reason: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        tiles(geometry, 5)
    assert reason in str(caught.value)


def test_a_pair_of_shapes_is_covered_whole() -> None:
    old, new = tile_box(9647, 12320, 15), tile_box(9649, 12320, 15)
    assert tiles((old, new), 15) == {(15, 9647, 12320), (15, 9649, 12320)}


@pytest.mark.parametrize(
    "geometry",
    [
        [],
        shapely.Polygon(),
        {"type": "FeatureCollection", "features": []},
        {"type": "GeometryCollection", "geometries": []},
        geopandas.GeoSeries([shapely.Polygon()]),
        "GEOMETRYCOLLECTION EMPTY",
        "SRID=3857;POLYGON EMPTY",
        FRAME.iloc[:0],
        [shapely.Point(), []],
    ],
    ids=lambda geometry: type(geometry).__name__,
)
def test_an_empty_geometry_selects_nothing(geometry: Any) -> None:
    assert tiles(geometry, 5) == set()


@pytest.mark.parametrize(
    ("geometry", "reason"),
    [
        (None, "geometry is None"),
        ("", "rendered to nothing"),
        ("None", "rendered to nothing"),
        ("null", "rendered to nothing"),
        ("{", "is not JSON"),
        ("POLYGON((0 0", "is not WKT"),
        (b"\x00", "is not WKB"),
        ({"coordinates": [0, 0]}, "not GeoJSON"),
        ({"type": "Cube", "coordinates": []}, "is not GeoJSON"),
        ({"type": "FeatureCollection"}, "a FeatureCollection that has no 'features'"),
        ({"type": "FeatureCollection", "features": None}, "a FeatureCollection that has no 'features'"),
        ({"type": "FeatureCollection", "features": {"type": "Feature"}}, "which is not a list"),
        ({"type": "FeatureCollection", "features": ["a"]}, "is not GeoJSON"),
        (
            {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": None}] * 2},
            "2 rows, and nothing but null geometries",
        ),
        ({"type": "FeatureCollection", "features": [{"type": "Feature"}]}, "a Feature without 'geometry'"),
        ({"type": "Feature"}, "a Feature without 'geometry'"),
        ({"type": "GeometryCollection"}, "a GeometryCollection that has no 'geometries'"),
        (geopandas.GeoSeries([None, None]), "a GeoSeries, has 2 rows, and nothing but null geometries"),
        (FRAME.set_geometry([None]), "a GeoDataFrame, has 1 row, and nothing but null geometries"),
        (5, "is of type int"),
        ([POLYGON, None], "geometry is None"),
        (shapely.Point(500_000, 4_500_000), "Name their reference system by crs="),
        (shapely.Point(38.7, -99.1), "longitudes come first"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_not_a_geometry_is_refused(geometry: Any, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        tiles(geometry, 5)


@pytest.mark.parametrize("name", ["a.geojson", "a.gpkg", "a.parquet"])
def test_a_file_of_nothing_but_nulls_is_refused_and_one_without_rows_is_not(tmp_path: Path, name: str) -> None:
    def save(frame: Any, to: Path) -> Path:
        frame.to_parquet(to) if name.endswith("parquet") else frame.to_file(to, engine="pyogrio")
        return to

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # geopandas' own, of an empty frame
        nulls = save(FRAME.set_geometry([None], crs="EPSG:4326"), tmp_path / name)
        nothing = save(FRAME.iloc[:0], tmp_path / f"nothing-{name}")
    with pytest.raises(InvalidInputError, match=r"the file '.*', has 1 row, and nothing but null geometries"):
        tiles(nulls, 5)
    assert tiles(nothing, 5) == set()


@pytest.mark.parametrize("inner", [shapely.box(5, 5, 8, 8), shapely.box(10, 10, 30, 30), shapely.box(0, 0, 20, 20)])
def test_parts_that_overlap_leave_no_hole(inner: shapely.Polygon) -> None:
    outer = shapely.box(0, 0, 20, 20)
    assert tiles(shapely.MultiPolygon([outer, inner]), 8) == tiles([outer, inner], 8)


def test_a_ring_that_overlaps_itself_leaves_no_hole() -> None:
    twice = shapely.Polygon([(0, 0), (40, 0), (40, 40), (10, 40), (10, 10), (30, 10), (30, 30), (0, 30)])
    with pytest.warns(UserWarning, match="has been repaired"):
        found = tiles(twice, 8)
    assert found == tiles([shapely.box(0, 0, 40, 30), shapely.box(10, 30, 40, 40)], 8)


def test_a_spike_is_covered() -> None:
    spike = shapely.LineString([(20, 20), (50, 50)])
    with pytest.warns(UserWarning, match="has been repaired"):
        found = tiles(shapely.Polygon([(0, 0), (20, 0), (20, 20), (50, 50), (20, 20), (0, 20)]), 8)
    assert found == tiles([shapely.box(0, 0, 20, 20), spike], 8)


@pytest.mark.parametrize(
    "name", ["points.parquet", "polygons.geojson", "Surface_water.gpkg", "point.fgb", "multipoint data.gpkg"]
)
def test_a_path_may_begin_like_wkt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    frame = FRAME.set_geometry([shapely.Point(9, 51)], crs="EPSG:4326")
    frame.to_parquet(name) if name.endswith("parquet") else frame.to_file(name)
    assert tiles(name, 5) == tiles(shapely.Point(9, 51), 5)


@pytest.mark.parametrize(
    "text", ["POINT(9 51)", "point z (9 51 3)", "POINT ZM (9 51 3 4)", "SRID=4326; Point(9 51)", "POINTZ(9 51 3)"]
)
def test_wkt_is_known_by_its_parenthesis(text: str) -> None:
    assert tiles(text, 5) == tiles(shapely.Point(9, 51), 5)


def test_all_layers_of_a_file_are_read(tmp_path: Path) -> None:
    places = {"one": shapely.Point(5, 5), "another": shapely.Point(50, 50)}
    for layer, place in places.items():
        geopandas.GeoDataFrame(geometry=[place], crs="EPSG:4326").to_file(tmp_path / "a.gpkg", layer=layer)
    assert tiles(tmp_path / "a.gpkg", 5) == tiles(list(places.values()), 5)


def test_a_file_without_geometries_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "places.csv").write_text("id,lon,lat\n1,10,50\n")
    with pytest.raises(InvalidInputError, match=r"has no geometries. Name the columns"):
        tiles(tmp_path / "places.csv", 5)


def test_an_invalid_ring_is_repaired_with_a_warning() -> None:
    bow_tie = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    with pytest.warns(UserWarning, match="has been repaired"):
        found = tiles(bow_tie, 7)
    repaired = shapely.make_valid(bow_tie)
    assert found == tiles(repaired, 7)


@pytest.mark.parametrize("shape", [shapely.Polygon, shapely.LineString])
def test_an_edge_round_the_globe_is_taken_literally_with_a_warning(shape: Any) -> None:
    with pytest.warns(UserWarning, match="an edge that spans 358° of longitude"):
        found = tiles(shape([(179, 0), (-179, 0), (-179, 1), (179, 1)]), 8)
    assert {tile.x for tile in found} == set(range(256))


def test_zooms_are_needed() -> None:
    with pytest.raises(InvalidInputError, match="geometry needs zooms"):
        plan_invalidation("roads", geometry=POLYGON)


def test_without_the_extra_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "shapely", None)
    with pytest.raises(ConfigurationError, match="shapely is not installed: install fused-cache-ops with the extra geo"):
        plan_invalidation("roads", geometry="POINT(0 0)", zooms=3)


def test_nothing_warns_where_nothing_is_wrong() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tiles([POLYGON, shapely.box(170, 0, 190, 10)], 5)
