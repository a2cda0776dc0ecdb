"""Tiles: what is read as one, what is refused, and how a stream of them is read."""

import math
import pickle
from collections import namedtuple
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import mercantile
import numpy as np
import pandas
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fused_cache_ops import Tile
from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.selection.batches import TileBatch
from fused_cache_ops.selection.reading import read_selection
from fused_cache_ops.selection.remaining import RemainingTiles
from fused_cache_ops.tiles.tile import HIGHEST_ZOOM, TileStream, parse_tile

WANTED = Tile(15, 9647, 12320)


@pytest.mark.parametrize(
    "item",
    [
        Tile(15, 9647, 12320),
        (15, 9647, 12320),
        [15, 9647, 12320],
        (15.0, 9647.0, 12320.0),
        "15/9647/12320",
        " 15/9647/12320\n",
        {"z": 15, "x": 9647, "y": 12320},
        {"y": 12320, "x": 9647, "z": 15},
        mercantile.Tile(x=9647, y=12320, z=15),
        SimpleNamespace(z=15, x=9647, y=12320),
        namedtuple("Row", "Index x y z")(0, 9647, 12320, 15),
        np.array([15, 9647, 12320]),
        np.array([(9647, 12320, 15)], dtype=[("x", int), ("y", int), ("z", int)])[0],
        pandas.Series({"x": 9647, "y": 12320, "z": 15}),
        (np.int64(15), np.int32(9647), np.float64(12320)),
    ],
    ids=repr,
)
def test_every_form_of_a_tile_is_read_as_the_same_tile(item: Any) -> None:
    tile = parse_tile(item)
    assert tile == WANTED
    assert [type(number) for number in tile] == [int, int, int]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ((2, 4, 0), "x=4 is outside 0 … 3"),
        ((2, 0, 4), "y=4 is outside 0 … 3"),
        ((2, -1, 0), "x=-1 is outside"),
        ((2, 0, -1), "y=-1 is outside"),
        ((-1, 0, 0), "from 0 to 30"),
        ((31, 0, 0), "from 0 to 30"),
        (Tile(0, 1, 0), "x=1 is outside 0 … 0"),
        ((1.5, 0, 0), "z=1.5 is not a whole number"),
        ((1, math.nan, 0), "x=nan is not a whole number"),
        ((1, math.inf, 0), "x=inf is not a whole number"),
        ((1, True, 0), "x=True is not a whole number"),
        ((1, np.True_, 0), "is not a whole number"),
        ((1, "0", 0), "x='0' is not a whole number"),
        ((1, None, 0), "x=None is not a whole number"),
        ((1, 0), "has 2 parts; a tile has three"),
        ((1, 0, 0, 0), "has 4 parts"),
        ({"z": 1, "x": 0}, "all three or none"),
        ({"z": 1, "x": 0, "y": 0, "t": 0}, "exactly the keys"),
        ("1/0", "is not a tile"),
        ("1/0/-1", "is not a tile"),
        ("1/0/0/0", "is not a tile"),
        ("1/0/٣", "is not a tile"),
        ("", "is not a tile"),
        (15, "For a single tile, write"),
        (None, "is not a tile"),
        (b"1/0/0", "is not a tile"),
    ],
    ids=repr,
)
def test_a_bad_tile_is_refused_with_its_value_and_the_reason(item: Any, reason: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_tile(item, position=7)
    assert reason in str(caught.value)
    assert str(caught.value).startswith("tiles[7] = ")


def test_a_long_bad_value_is_cut_in_the_message() -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_tile("x" * 10_000)
    assert len(str(caught.value)) < 300


def test_the_highest_zoom_is_a_setting() -> None:
    assert parse_tile((31, 2**31 - 1, 0), max_zoom=31).z == 31
    with pytest.raises(InvalidInputError, match="from 0 to 5"):
        parse_tile((6, 0, 0), max_zoom=5)


@pytest.mark.parametrize("tiles", ["1/0/0", b"1/0/0", 5, 5.0, True, {"z": 1, "x": 0, "y": 0}, Tile(1, 0, 0), object()])
def test_what_is_not_a_collection_of_tiles_is_refused(tiles: Any) -> None:
    with pytest.raises(InvalidInputError, match="not a collection of tiles"):
        TileStream(tiles)


def test_a_lone_tuple_is_refused_with_a_hint() -> None:
    with pytest.raises(InvalidInputError, match=r"write tiles=\[\(z, x, y\)\]"):
        next(TileStream((15, 9647, 12320)))


def test_none_is_refused_since_a_load_may_have_forgotten_its_return() -> None:
    with pytest.raises(InvalidInputError, match="tiles is None"):
        TileStream(None)


def test_a_collection_is_checked_to_its_end_before_anything_is_read() -> None:
    with pytest.raises(InvalidInputError, match=r"tiles\[2\]"):
        read_selection(tiles=[(1, 0, 0), (1, 0, 1), (1, 0, 9)])


def test_a_generator_is_read_only_as_far_as_it_is_asked() -> None:
    read = []

    def tiles() -> Iterator[tuple[int, int, int]]:
        for x in range(8):
            read.append(x)
            yield (3, x, 0)

    stream = TileStream(tiles())
    assert read == []
    next(stream)
    assert read == [0]


def test_a_stream_goes_on_after_a_bad_tile() -> None:
    stream = TileStream(iter([(1, 0, 0), (1, 9, 9), (1, 1, 1)]))
    assert next(stream) == (1, 0, 0)
    with pytest.raises(InvalidInputError):
        next(stream)
    assert list(stream) == [(1, 1, 1)]


def test_remaining_tiles_can_be_read_twice_and_pickled() -> None:
    remaining = RemainingTiles.of_stream([TileBatch.of(Tile(1, 0, 0), 0)], iter([Tile(1, 0, 1), Tile(1, 1, 1)]))
    assert next(iter(remaining)) == (1, 0, 0)
    assert list(remaining) == list(remaining) == [(1, 0, 0), (1, 0, 1), (1, 1, 1)]
    assert list(pickle.loads(pickle.dumps(remaining))) == list(remaining)


@given(st.floats(-179.999999, 179.999999), st.floats(-85.05, 85.05), st.integers(0, 24))
@example(-9.14, 38.72, 10)
@example(0.0, 0.0, 1)
def test_the_tile_of_a_point_is_mercantiles(longitude: float, latitude: float, zoom: int) -> None:
    ours, theirs = Tile.containing(longitude, latitude, zoom), mercantile.tile(longitude, latitude, zoom)
    # On an edge the last bit of a float decides.
    assert ours.z == theirs.z
    assert abs(ours.x - theirs.x) <= 1
    assert abs(ours.y - theirs.y) <= 1
    west, south, east, north = mercantile.bounds(theirs)
    margin = (east - west) * 1e-6
    if west + margin < longitude < east - margin and south + margin < latitude < north - margin:
        assert (ours.x, ours.y) == (theirs.x, theirs.y)


@pytest.mark.parametrize(
    ("longitude", "latitude", "tile"),
    [
        (0, 0, Tile(1, 1, 1)),
        (180, 0, Tile(1, 0, 1)),
        (-180, 0, Tile(1, 0, 1)),
        (540, 0, Tile(1, 0, 1)),
        (10, 90, Tile(1, 1, 0)),
        (10, -90, Tile(1, 1, 1)),
    ],
)
def test_edges_belong_to_one_tile(longitude: float, latitude: float, tile: Tile) -> None:
    assert Tile.containing(longitude, latitude, 1) == tile


@pytest.mark.parametrize("point", [(math.nan, 0), (0, math.inf), (0, 91)])
def test_a_point_that_is_none_is_refused(point: tuple[float, float]) -> None:
    with pytest.raises(InvalidInputError, match="is not a point"):
        Tile.containing(*point, 3)


@pytest.mark.parametrize("zoom", [-1, 1.0, True, HIGHEST_ZOOM + 1])
def test_the_zoom_of_a_point_is_checked(zoom: Any) -> None:
    with pytest.raises(InvalidInputError, match="zoom"):
        Tile.containing(0, 0, zoom)
