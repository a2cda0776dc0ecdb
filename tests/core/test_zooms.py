"""Zoom levels, however they are written."""

import io
import json
from typing import Any

import numpy as np
import pytest

from fused_cache_ops import Tile, plan_invalidation
from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.selection.batches import TileBatch
from fused_cache_ops.selection.tile_list import TileList
from fused_cache_ops.tiles.tile import ZOOM_LIMIT
from fused_cache_ops.tiles.zooms import parse_zooms


@pytest.mark.parametrize(
    ("zooms", "levels"),
    [
        (12, (12,)),
        (range(10, 15), (10, 11, 12, 13, 14)),
        ([12, 10], (10, 12)),
        ((10, 10), (10,)),
        ({3}, (3,)),
        ("12", (12,)),
        ("10-14", (10, 11, 12, 13, 14)),
        (" 10, 12-13 ", (10, 12, 13)),
        ("[10, 12]", (10, 12)),
        (np.array([3, 1]), (1, 3)),
        (0, (0,)),
    ],
    ids=repr,
)
def test_every_form_is_read(zooms: Any, levels: tuple[int, ...]) -> None:
    assert parse_zooms(zooms) == levels


@pytest.mark.parametrize(
    "zooms",
    [
        "",
        "None",
        "null",
        "a",
        "14-10",
        "10-",
        "-1",
        "1.5",
        "31",
        "10;12",
        "٣",
        31,
        -1,
        1.5,
        True,
        [True],
        [np.True_],
        [1.0],
        [],
        ["10"],
        [None],
    ]
    + [range(0), object, float("nan")],
    ids=repr,
)
def test_what_is_none_is_refused(zooms: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"expected zoom levels from 0 to 30"):
        parse_zooms(zooms)


LAST = 2**ZOOM_LIMIT - 1
CORNERS = [Tile(ZOOM_LIMIT, x, y) for x in (0, LAST) for y in (0, LAST)]


@pytest.mark.parametrize("zoom", [0, 1, 29, 30, ZOOM_LIMIT])
@pytest.mark.parametrize("buffer", [0, 1])
def test_the_last_column_and_row_of_every_zoom_are_covered(zoom: int, buffer: int) -> None:
    size = 2**zoom
    near = 180 - 90 / size  # half a tile from the antimeridian
    around = {(size - 1 + step) % size for step in range(-buffer, buffer + 1)}
    rows = set(range(size - min(size, 1 + buffer), size))
    for selection in (
        {"geometry": f"POINT({near!r} -86)"},
        {"geometry": f"LINESTRING({near!r} -86, {near!r} -87)"},
        {"geometry": f"POLYGON(({near!r} -86, {near + 10 / size!r} -86, {near!r} -87, {near!r} -86))"},
        {"bounds": (near, -87, near + 10 / size, -86)},
    ):
        found = set(plan_invalidation("roads", zooms=zoom, buffer=buffer, max_zoom=ZOOM_LIMIT, **selection).tiles())  # type: ignore[arg-type]
        assert found == {(zoom, x, y) for x in around for y in rows}


@pytest.mark.parametrize("max_zoom", [ZOOM_LIMIT + 1, 34, 60, 63])
def test_a_deeper_zoom_than_all_parts_can_carry_is_refused(max_zoom: int) -> None:
    with pytest.raises(InvalidInputError, match=f"max_zoom = {max_zoom} must be a whole number from 0 to {ZOOM_LIMIT}"):
        plan_invalidation("roads", tiles=["1/0/0"], max_zoom=max_zoom)


def test_the_deepest_tiles_go_through_every_form_unharmed() -> None:
    quadkeys = [
        "".join(str((tile.x >> bit & 1) + 2 * (tile.y >> bit & 1)) for bit in reversed(range(tile.z))) for tile in CORNERS
    ]
    lists = [
        [str(tile) for tile in CORNERS],
        ["%d,%d,%d" % tile for tile in CORNERS],
        [json.dumps(tile._asdict()) for tile in CORNERS],
        quadkeys,
    ]
    for lines in lists:
        assert list(TileList(io.BytesIO("\n".join(lines).encode()).read, "a list", max_zoom=ZOOM_LIMIT)) == CORNERS
    assert list(TileBatch.of(CORNERS[-1], 0)) == [CORNERS[-1]]
    assert list(plan_invalidation("roads", tiles=lists[0], max_zoom=ZOOM_LIMIT).tiles()) == CORNERS
