"""Shards: one invalidation shared among machines, and one result made of theirs."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fused_cache_ops import FusedClient, InvalidationResult, Tile, plan_invalidation
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.selection.reading import read_selection

BOUNDS = (-9.25, 38.68, -9.08, 38.80)
TILES = [Tile(9, number % 500, number // 500) for number in range(1237)]


def selections(folder: Path) -> dict[str, dict[str, Any]]:
    (folder / "tiles.list").write_text("".join(f"{tile}\n" for tile in TILES))
    return {
        "a list": {"tiles": TILES},
        "a set of text": {"tiles": {str(tile) for tile in TILES}},
        "a file": {"tiles_file": folder / "tiles.list"},
        "bounds": {"bounds": BOUNDS, "zooms": "8-15"},
        "two boxes": {"bounds": [BOUNDS, (179, -1, -179, 1)], "zooms": "5,9", "buffer": 1},
        "a geometry": {"geometry": "POLYGON ((-9.2 38.7, -9.1 38.7, -9.1 38.8, -9.2 38.7))", "zooms": "10-16"},
        "children": {"tiles": TILES[:40], "zooms": "7-11"},
        "fewer zooms": {"bounds": BOUNDS, "zooms": "8-15", "max_tiles": 200, "when_too_many": "coarser"},
    }


KINDS = list(selections(Path("/tmp")))


@pytest.mark.parametrize("n", [1, 2, 7, 60])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:.*tiles are selected")
def test_shards_are_disjoint_and_together_complete(tmp_path: Path, kind: str, n: int) -> None:
    keywords = selections(tmp_path)[kind]
    whole = list(read_selection(**keywords).tiles())
    shards = [list(read_selection(**keywords, shard=(i, n)).tiles()) for i in range(n)]
    assert [tile for shard in shards for tile in shard] == whole
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("kind", ["a set of text", "bounds", "a geometry"])
def test_another_machine_sees_the_same_shards(tmp_path: Path, kind: str) -> None:
    first, second = (list(read_selection(**selections(tmp_path)[kind], shard=(1, 3)).tiles()) for _ in range(2))
    assert first == second


@given(st.integers(0, 3000), st.integers(1, 50))
def test_a_shard_knows_its_size(count: int, n: int) -> None:
    tiles = [Tile(12, number % 4096, number // 4096) for number in range(count)]
    plans = [plan_invalidation("roads", tiles=tiles, shard=(i, n)) for i in range(n)]
    assert sum(plan.tile_count or 0 for plan in plans) == count
    assert [plan.tile_count for plan in plans] == [len(list(plan.tiles())) for plan in plans]


def test_a_plan_tells_its_shards() -> None:
    plan = plan_invalidation("roads", bounds=BOUNDS, zooms="10-15")
    shards = plan.shards(4)
    assert [shard.shard for shard in shards] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert [tile for shard in shards for tile in shard.tiles()] == list(plan.tiles())
    assert sum(sum((shard.tiles_per_zoom or {}).values()) for shard in shards) == plan.tile_count
    assert shards[1].to_dict()["shard"] == [1, 4]


def test_a_shards_footprint_can_be_drawn() -> None:
    part = plan_invalidation("roads", bounds=BOUNDS, zooms="12").shards(3)[1]
    (feature,) = part.to_geojson()["features"]
    assert feature["properties"]["tiles"] == part.tile_count
    assert "<svg" in part.to_html()


@pytest.mark.parametrize("n", [0, -1, 1.5, "2", True])
def test_no_number_of_shards_is_no_plan(n: Any) -> None:
    with pytest.raises(InvalidInputError, match="shard"):
        plan_invalidation("roads", tiles=TILES).shards(n)


def test_the_whole_udf_and_a_shard_have_no_shards() -> None:
    with pytest.raises(InvalidInputError, match="of the whole UDF"):
        plan_invalidation("roads").shards(2)
    with pytest.raises(InvalidInputError, match=r"shard \(0, 2\) of another"):
        plan_invalidation("roads", tiles=TILES).shards(2)[0].shards(2)


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 0), (0,), (0, 1, 2), "0/2", 5, (0.0, 2), (True, 2)])
def test_what_is_no_shard_is_refused(shard: Any) -> None:
    with pytest.raises(InvalidInputError, match="the i-th of n shards, counted from 0"):
        read_selection(tiles=TILES, shard=shard)


def test_a_shard_of_everything_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"shard = \(0, 2\) needs a selection"):
        read_selection(shard=(0, 2))


def test_what_can_be_read_only_once_has_no_shards() -> None:
    with pytest.raises(InvalidInputError, match="read only once"):
        read_selection(tiles=iter(TILES), shard=(0, 2))


def test_shards_do_what_one_call_does(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.fill_cache(udf, TILES)
    results = [client.invalidate_cache(udf.id, tiles=TILES, shard=(i, 3)) for i in range(3)]
    merged = InvalidationResult.merge(results)
    assert fused_emulator.cached_tiles(udf) & set(TILES) == set()
    assert (merged.tiles_invalidated, merged.objects_deleted, merged.requests_sent) == (1237, 1237, 3)
    assert merged.elapsed_seconds == max(result.elapsed_seconds for result in results)


@pytest.mark.filterwarnings("ignore:.*tiles are selected")
def test_too_many_tiles_are_one_shards_whole_udf(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    keywords: dict[str, Any] = {"bounds": BOUNDS, "zooms": "10-15", "max_tiles": 5, "when_too_many": "whole-udf"}
    results = [client.invalidate_cache(udf.id, **keywords, shard=(i, 3)) for i in range(3)]
    assert [result.tiles_invalidated for result in results] == [None, 0, 0]
    assert len(fused_emulator.requests) == 1
    assert fused_emulator.cached_tiles(udf) == set()
    assert "by shard 0" in str(results[1].note)
    assert InvalidationResult.merge(results).tiles_invalidated is None


def test_results_merge_from_what_came_through_xcom(client: FusedClient, udf: Udf) -> None:
    results = [client.invalidate_cache(udf.id, tiles=[tile]) for tile in TILES[:3]]
    assert InvalidationResult.merge(result.to_dict() for result in results) == InvalidationResult.merge(results)
    assert InvalidationResult.from_dict(results[0].to_dict()) == results[0]


def test_an_empty_shard_says_nothing_of_the_udf(client: FusedClient, udf: Udf) -> None:
    results = [client.invalidate_cache("roads", tiles=TILES[:1], shard=(i, 2)) for i in range(2)]
    assert InvalidationResult.merge(results).udf_id == udf.id


def test_nothing_merges_to_nothing() -> None:
    with pytest.raises(InvalidInputError, match="no results to merge"):
        InvalidationResult.merge([])


def test_results_of_several_udfs_do_not_merge(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    other = fused_emulator.register(lambda: None, name="rivers")
    results = [client.invalidate_cache(each.id, tiles=["1/0/0"]) for each in (udf, other)]
    with pytest.raises(InvalidInputError, match="several udf_ids"):
        InvalidationResult.merge(results)
