"""One selection of several, such as a backfill's partitions."""

from pathlib import Path
from typing import Any

import pytest

from fused_cache_ops import WHOLE_UDF, FusedClient, InvalidationPlan, plan_invalidation
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.outcome.invalidation import Verification
from fused_cache_ops.selection.merging import merge_selections
from fused_cache_ops.tiles.tile import Tile


def test_a_tile_that_two_lists_hold_is_sent_once(tmp_path: Path) -> None:
    path = tmp_path / "expired.list"
    path.write_text("2/0/0\n1/0/0\n")
    merged = merge_selections([{"tiles": ["1/0/0", (1, 1, 1)]}, {"tiles": [{"z": 1, "x": 0, "y": 0}]}, {"tiles_file": path}])
    assert merged == {"tiles": [Tile(1, 0, 0), Tile(1, 1, 1), Tile(2, 0, 0)]}


def test_bounds_become_one_list_of_boxes() -> None:
    boxes: list[Any] = [{"bounds": (1, 1, 2, 2), "zooms": 3}, {"bounds": [(1, 1, 2, 2), (178, 1, -178, 2)], "zooms": 3}]
    merged = merge_selections(boxes)
    apart: set[Tile] = set()
    for box in boxes:
        apart.update(plan_invalidation("roads", **box).tiles())
    assert sorted(plan_invalidation("roads", **merged).tiles()) == sorted(apart)


def test_geometries_become_their_union() -> None:
    merged = merge_selections(
        [{"geometry": "POINT (1 1)", "zooms": 2}, {"geometry": ["POINT (1 1)", "POINT (100 1)"], "zooms": 2}]
    )
    assert set(plan_invalidation("roads", **merged).tiles()) == {Tile(2, 2, 1), Tile(2, 3, 1)}


def test_the_whole_udf_takes_in_everything_else() -> None:
    assert merge_selections([{"tiles": ["1/0/0"]}, {"tiles": WHOLE_UDF}]) == {"whole_udf": True}


@pytest.mark.parametrize(
    ("selections", "reason"),
    [
        ([], "no selections"),
        ([{}], "none of"),
        ([{"tiles": [], "bounds": []}], "tiles and bounds"),
        ([{"tiles": ["1/0/0"]}, {"tiles": None}], "tiles is None"),
        ([{"tiles": ["1/0/0"]}, {"tiles": iter(["1/0/0"])}], "read only once"),
        ([{"tiles": ["1/0/0"]}, {"bounds": [0, 0, 1, 1]}], "by bounds and by tiles"),
        ([{"bounds": [0, 0, 1, 1], "zooms": 1}, {"bounds": [0, 0, 1, 1], "zooms": 2}], "make them equal"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_merged_says_why(selections: list[Any], reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        merge_selections(selections)


def test_the_plan_is_told_before_anything_is_sent(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    told: list[tuple[InvalidationPlan, int]] = []
    client.invalidate_cache(
        udf.id, bounds=(1, 1, 2, 2), zooms="0-1", on_plan=lambda plan: told.append((plan, len(fused_emulator.requests)))
    )
    ((plan, requests),) = told
    assert (plan.tiles_per_zoom, requests) == ({0: 1, 1: 1}, 0)


def test_a_footprint_of_few_blocks_is_drawn_at_a_coarser_zoom() -> None:
    plan = plan_invalidation("roads", tiles=[(4, x, y) for x in range(16) for y in range(0, 16, 2)])
    (feature,) = plan.to_geojson(most_blocks=10)["features"]
    assert (feature["properties"]["tiles"], feature["properties"]["drawn_at_zoom"]) == (128, 1)


def test_what_was_not_invalidated_is_found_out_without_invalidating(
    client: FusedClient, fused_emulator: Emulator, udf: Udf
) -> None:
    client.invalidate_cache(udf.id, tiles=["1/0/0"])
    fused_emulator.forget_requests()
    found = client.verify_cache(udf.id, tiles=["1/0/0", "1/0/1"], verify_tiles=5, shared_token=udf.shared_token)
    assert found == Verification(fresh=("1/0/0",), from_cache=("1/0/1: memory",))
    assert {request.method for request in fused_emulator.requests} == {"GET"}


@pytest.mark.parametrize(("verify_tiles", "selection"), [(5, {}), (0, {"tiles": ["1/0/0"]})], ids=str)
def test_nothing_to_verify_is_an_error(client: FusedClient, udf: Udf, verify_tiles: int, selection: Any) -> None:
    with pytest.raises(InvalidInputError, match="verify_tiles"):
        client.verify_cache(udf.id, verify_tiles=verify_tiles, shared_token=udf.shared_token, **selection)
