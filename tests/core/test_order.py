"""``order``: which of three numbers without names is the zoom."""

import json
from pathlib import Path
from typing import Any

import mercantile
import numpy as np
import pyarrow
import pytest

from fused_cache_ops import FusedClient, InvalidInputError, Tile, plan_invalidation
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.selection.merging import merge_selections

TILE = Tile(4, 6, 5)


def tiles_of(**selection: Any) -> list[Tile]:
    return list(plan_invalidation("roads", **selection).tiles())


@pytest.mark.parametrize(
    "tiles",
    [
        [(6, 5, 4)],
        [[6, 5, 4]],
        np.array([[6, 5, 4]]),
        [[6.0, 5.0, 4.0]],
        json.loads(json.dumps([mercantile.Tile(6, 5, 4)])),  # what XCom makes of it
        pyarrow.table({"tile": [[6, 5, 4]]}),
        [mercantile.Tile(6, 5, 4)],
        [TILE],
        ["4/6/5"],
        [{"z": 4, "x": 6, "y": 5}],
        pyarrow.table({"z": [4], "x": [6], "y": [5]}),
        pyarrow.table({"quadkey": [mercantile.quadkey(6, 5, 4)]}),
    ],
    ids=str,
)
def test_an_order_of_x_y_z_reads_bare_numbers_so_and_names_by_name(tiles: Any) -> None:
    assert tiles_of(tiles=tiles, order="xyz") == [TILE]


def test_lists_are_z_x_y_without_an_order() -> None:
    assert tiles_of(tiles=[[4, 6, 5]]) == tiles_of(tiles=[[4, 6, 5]], order="zxy") == [TILE]


@pytest.mark.parametrize(("order", "tiles"), [("xyz", [[486, 391, 10]]), ("zxy", [[10, 486, 391]])])
def test_what_fits_only_another_order_names_it(order: str, tiles: Any) -> None:
    other = {"xyz": "zxy", "zxy": "xyz"}[order]
    with pytest.raises(InvalidInputError, match=f"pass order='{order}'"):
        tiles_of(tiles=tiles, order=other)


@pytest.mark.parametrize("order", ["yxz", "", "XYZ", 5, True])
def test_another_order_is_refused(order: Any) -> None:
    with pytest.raises(InvalidInputError, match="must be 'zxy' or 'xyz'"):
        tiles_of(tiles=[[4, 6, 5]], order=order)


@pytest.mark.parametrize("selection", [{}, {"whole_udf": True}, {"bounds": (0, 0, 1, 1), "zooms": 4}], ids=str)
def test_an_order_needs_tiles(client: FusedClient, fused_emulator: Emulator, selection: Any) -> None:
    with pytest.raises(InvalidInputError, match="order = 'xyz'"):
        client.invalidate_cache("roads", order="xyz", **selection)
    assert fused_emulator.requests == []


def test_merged_tiles_have_names_and_no_order(tmp_path: Path) -> None:
    (tmp_path / "tiles.jsonl").write_text("[1, 0, 1]\n")
    merged = merge_selections(
        [{"tiles": [[6, 5, 4]], "order": "xyz"}, {"tiles_file": tmp_path / "tiles.jsonl", "order": "xyz"}]
    )
    assert merged == {"tiles": [Tile(1, 1, 0), TILE]}


def test_what_a_failed_call_left_over_keeps_its_meaning(fused_emulator: Emulator, udf: Udf, tmp_path: Path) -> None:
    (tmp_path / "tiles.jsonl").write_text("[6, 5, 4]\n[1, 0, 1]\n")
    plan = plan_invalidation("roads", tiles_file=tmp_path / "tiles.jsonl", order="xyz")
    assert list(plan.tiles()) == [TILE, Tile(1, 1, 0)]
