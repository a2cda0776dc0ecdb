"""Bounds: the tiles of rectangles in degrees."""

import math
from typing import Any

import geopandas
import mercantile
import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fused_cache_ops import Tile, plan_invalidation
from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.selection.bounds import read_bounds
from fused_cache_ops.tiles.blocks import Block, disjoint
from fused_cache_ops.tiles.projection import TOLERANCE


def tiles(bounds: Any, zooms: Any, **options: Any) -> set[Tile]:
    plan = plan_invalidation("roads", bounds=bounds, zooms=zooms, **options)
    listed = list(plan.tiles())
    assert plan.tile_count == len(listed) == len(set(listed))
    return set(listed)


@given(st.floats(-179.9, 179.9), st.floats(-84.9, 84.9), st.floats(0.001, 20), st.floats(0.001, 20), st.integers(0, 9))
@example(0.0, -7e-12, 10.0, 10.0, 1)  # less than the tolerance over the equator
@settings(max_examples=200)
def test_bounds_are_mercantiles(west: float, south: float, width: float, height: float, zoom: int) -> None:
    """But for what is within a hair of an edge: there two ways of computing it may differ, and both are right."""
    east, north, hair = min(west + width, 180.0), min(south + height, 85.0), 1e-10

    def mercantiles(by: float) -> set[Tile]:
        found = mercantile.tiles(west - by, south - by, east + by, north + by, zoom)
        return {Tile(tile.z, tile.x, tile.y) for tile in found}

    assert mercantiles(-hair) <= tiles((west, south, east, north), zoom) <= mercantiles(hair)


def test_what_reaches_less_than_the_tolerance_into_a_tile_leaves_it_out() -> None:
    assert tiles((0, -TOLERANCE / 2, 1, 1), 1) == {(1, 1, 0)}
    assert tiles((0, -TOLERANCE * 10, 1, 1), 1) == {(1, 1, 0), (1, 1, 1)}


@pytest.mark.parametrize("tile", [(15, 9647, 12320), (0, 0, 0), (4, 15, 15), (20, 500_000, 3)])
def test_the_bounds_of_a_tile_are_that_tile(tile: tuple[int, int, int]) -> None:
    z, x, y = tile
    box = tuple(mercantile.bounds(x, y, z))
    assert tiles(box, z) == {tile}
    assert len(tiles(box, z + 2)) == 16
    assert tiles(box, max(0, z - 1)) == {(max(0, z - 1), *((x // 2, y // 2) if z else (0, 0)))}


@pytest.mark.parametrize("bounds", [(179.9, 0, 180.1, 1), (179.9, 0, -179.9, 1), (-180.1, 0, -179.9, 1)])
def test_bounds_across_the_antimeridian_are_on_both_sides(bounds: tuple[float, ...]) -> None:
    assert {tile.x for tile in tiles(bounds, 8)} == {255, 0}


@pytest.mark.parametrize("meridian", [-540, -180, 180, 540])
def test_bounds_without_width_at_the_antimeridian_are_the_first_column(meridian: int) -> None:
    assert {tile.x for tile in tiles((meridian, 0, meridian, 10), 8)} == {0}
    assert {tile.x for tile in tiles((meridian, 0, -meridian, 10), 8)} in ({0}, set(range(256)))


@given(st.integers(-180, 180), st.integers(-180, 180), st.integers(0, 6))
def test_bounds_are_the_same_by_whatever_turn_their_edges_are_written(west: int, east: int, zoom: int) -> None:
    if west == east:
        return
    once = tiles((west, 0, east, 10), zoom)
    for first, second in ((west - 360, east - 360), (west + 360, east + 360), (west + 360, east), (west + 360, east - 360)):
        if max(abs(first), abs(second)) <= 540:
            assert tiles((first, 0, second, 10), zoom) == once


def test_the_world_is_every_tile() -> None:
    assert len(tiles((-180, -90, 180, 90), range(5))) == 1 + 4 + 16 + 64 + 256
    assert len(tiles((-200, -90, 300, 90), 3)) == 64


def test_the_world_at_zoom_20_is_counted_and_not_made() -> None:
    plan = plan_invalidation("roads", bounds=(-180, -90, 180, 90), zooms=20, max_tiles=10**13)
    assert plan.tile_count == 4**20
    assert next(plan.tiles()) == (20, 0, 0)
    assert plan.request_count == math.ceil(4**20 / 50_000)


def test_a_point_and_a_line_belong_to_one_tile_and_one_row() -> None:
    corner = mercantile.ul(5, 9, 5)
    assert tiles((*corner, *corner), 5) == {(5, 5, 9)}
    line = (corner.lng, corner.lat, mercantile.ul(8, 9, 5).lng, corner.lat)
    assert tiles(line, 5) == {(5, 5, 9), (5, 6, 9), (5, 7, 9)}


def test_what_lies_beyond_web_mercator_goes_to_the_outermost_row() -> None:
    assert {tile.y for tile in tiles((0, 86, 10, 90), 5)} == {0}
    assert {tile.y for tile in tiles((0, -90, 10, -86), 5)} == {31}


def test_several_bounds_are_their_union() -> None:
    boxes = [(-9.2, 38.65, -9.05, 38.8), (-9.12, 38.7, -9.0, 38.85), (20, 20, 21, 21)]
    together = set().union(*(tiles(box, [9, 12]) for box in boxes))
    assert tiles(boxes, [9, 12]) == together


def test_a_buffer_adds_tiles_on_every_side() -> None:
    box = mercantile.bounds(5, 9, 5)
    assert tiles(box, 5, buffer=2) == {(5, x, y) for x in range(3, 8) for y in range(7, 12)}
    assert tiles(mercantile.bounds(0, 0, 3), 3, buffer=1) == {(3, x, y) for x in (7, 0, 1) for y in (0, 1)}


def test_no_bounds_at_all_select_nothing() -> None:
    assert tiles([], 5) == set()


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        (None, "bounds is None"),
        ("", "pass .west, south, east, north"),
        ("-9,38,-8,39", "pass .west, south, east, north"),
        (5, "pass .west, south, east, north"),
        ((1, 2, 3), "four finite numbers"),
        ((1, 2, 3, 4, 5), "four finite numbers"),
        ((0, 0, math.nan, 1), "four finite numbers"),
        ((0, 0, math.inf, 1), "four finite numbers"),
        ((0, 0, "1", 1), "four finite numbers"),
        ((0, 0, True, 1), "four finite numbers"),
        ([(0, 0, 1, 1), None], "four finite numbers"),
        ((0, 2, 1, 1), "south is above north"),
        ((0, -91, 1, 1), "not in degrees"),
        ((-1_000_000, 4_500_000, -900_000, 4_600_000), "not in degrees"),
    ],
    ids=str,
)
def test_bad_bounds_are_refused(bounds: Any, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        tiles(bounds, 5)


blocks = st.builds(
    lambda x, y, width, height: Block(6, x, y, width, height),
    st.integers(0, 50),
    st.integers(0, 50),
    st.integers(1, 12),
    st.integers(1, 12),
)


@given(st.lists(blocks, max_size=8))
def test_a_union_of_blocks_has_each_tile_once(given_blocks: list[Block]) -> None:
    listed = [tile for block in disjoint(given_blocks) for tile in block.tiles()]
    assert len(listed) == len(set(listed))
    assert set(listed) == {tile for block in given_blocks for tile in block.tiles()}


@given(blocks, st.integers(0, 200))
def test_a_block_is_cut_anywhere(block: Block, count: int) -> None:
    count = min(count, block.tile_count)
    head, tail = block.split(count)
    assert sum(each.tile_count for each in head) == count
    assert [tile for each in [*head, *tail] for tile in each.tiles()] == list(block.tiles())


FRAME = geopandas.GeoSeries([shapely.box(1, 2, 3, 4), None, shapely.box(5, 6, 7, 8)], crs=4326)


@pytest.mark.parametrize(
    ("bounds", "wanted"),
    [
        ([1, 2, -50, 3, 4, 900], [(1, 2, 3, 4)]),
        ([[1, 2, -50, 3, 4, 900], (5, 6, 7, 8)], [(1, 2, 3, 4), (5, 6, 7, 8)]),
        (np.array([1, 2, 3, 4]), [(1, 2, 3, 4)]),
        (FRAME.total_bounds, [(1, 2, 7, 8)]),
        (FRAME.dropna().bounds, [(1, 2, 3, 4), (5, 6, 7, 8)]),
        (FRAME.iloc[:0].bounds, []),
        ({"xmin": 1, "xmax": 3, "ymin": 2, "ymax": 4}, [(1, 2, 3, 4)]),
        ([{"west": 1, "south": 2, "east": 3, "north": 4}], [(1, 2, 3, 4)]),
        (mercantile.LngLatBbox(1, 2, 3, 4), [(1, 2, 3, 4)]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_boxes_come_as_other_tools_write_them(bounds: Any, wanted: Any) -> None:
    assert read_bounds(bounds) == wanted


def test_rows_without_a_box_are_skipped_with_a_count() -> None:
    with pytest.warns(UserWarning, match="bounds has 1 row without a box: skipped"):
        assert read_bounds(FRAME.bounds) == [(1, 2, 3, 4), (5, 6, 7, 8)]
    with pytest.raises(InvalidInputError, match="1 row, and nothing but nulls"):
        read_bounds(FRAME.iloc[1:2].bounds)


@pytest.mark.parametrize("bounds", [[1, 2, 3, 4, 5], {"xmin": 1}, FRAME.iloc[1:2].total_bounds, FRAME.to_frame("a")], ids=str)
def test_what_is_no_box_is_refused(bounds: Any) -> None:
    with pytest.raises(InvalidInputError, match="bounds"):
        read_bounds(bounds)
