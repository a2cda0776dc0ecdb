"""The cache as an asset: partitions, backfills, automation, metadata; and the check of it."""

import itertools
import sys
from collections.abc import Iterator
from typing import Any, Optional

import dagster as dg
import pytest

from dagster_fused import FusedResource, build_fused_cache_asset, build_fused_cache_check
from fused_cache_ops import WHOLE_UDF, plan_invalidation
from fused_cache_ops.emulator import Emulator, Udf

pytestmark = pytest.mark.xdist_group("dagster")

REGIONS = dg.StaticPartitionsDefinition(["north", "south", "west"])
TILES = {"north": ["1/0/0", "1/1/0"], "south": ["1/0/1", "1/1/1"], "west": ["1/0/0", "1/0/1"]}


def tiles_of_region(context: dg.AssetExecutionContext, partition_key: str) -> list[str]:
    return TILES[partition_key]


@pytest.fixture
def fused(fused_emulator: Emulator, udf: Udf) -> FusedResource:
    return FusedResource(
        token=fused_emulator.token,
        base_url=fused_emulator.base_url,
        shared_token=udf.shared_token,
        run_base_url=fused_emulator.root_url,
        deadline=30,
    )


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@dg.asset(partitions_def=REGIONS)
def roads() -> None: ...


@dg.asset
def table() -> None: ...


def regions_cache(**arguments: Any) -> dg.AssetsDefinition:
    return build_fused_cache_asset(
        "roads_cache", udf="roads", deps=[roads], selection_fn=tiles_of_region, partitions_def=REGIONS, **arguments
    )


def sent(emulator: Emulator) -> list[Optional[int]]:
    return [request.tiles for request in emulator.requests if request.path.endswith("delete")]


def test_a_partition_invalidates_what_it_changed(fused: FusedResource, fused_emulator: Emulator, udf: Udf) -> None:
    result = dg.materialize([roads, regions_cache()], partition_key="north", resources={"fused": fused})
    assert result.success
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 1), (1, 1, 1)}


def test_partitions_that_post_processing_adds_are_asked_for_too(
    fused: FusedResource, fused_emulator: Emulator, udf: Udf
) -> None:
    cache = build_fused_cache_asset("roads_cache", udf="roads", selection_fn=tiles_of_region)
    processed = cache.map_asset_specs(lambda spec: spec.replace_attributes(partitions_def=REGIONS))
    assert dg.materialize([processed], partition_key="north", resources={"fused": fused}).success
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 1), (1, 1, 1)}


def test_a_backfill_of_many_partitions_is_one_request(
    fused: FusedResource, fused_emulator: Emulator, udf: Udf, instance: dg.DagsterInstance
) -> None:
    cache = regions_cache()
    result = dg.materialize(
        [roads, cache],
        selection=[cache],
        resources={"fused": fused},
        instance=instance,
        tags={"dagster/asset_partition_range_start": "north", "dagster/asset_partition_range_end": "west"},
    )
    assert sent(fused_emulator) == [4]
    assert fused_emulator.cached_tiles(udf) == set()
    partitions = [event.partition for event in result.get_asset_materialization_events()]
    assert sorted(filter(None, partitions)) == ["north", "south", "west"]


def test_a_cache_with_partitions_is_backfilled_in_a_single_run() -> None:
    assert regions_cache().backfill_policy == dg.BackfillPolicy.single_run()


def test_an_asset_without_tiles_is_the_whole_udf(fused: FusedResource, fused_emulator: Emulator, udf: Udf) -> None:
    cache = build_fused_cache_asset("roads_cache", udf="roads", deps=[table])
    dg.materialize([table, cache], resources={"fused": fused})
    assert [request.method for request in fused_emulator.requests if request.path.endswith("delete")] == ["DELETE"]
    assert fused_emulator.cached_tiles(udf) == set()


@pytest.mark.parametrize(
    "told", [{"bounds": (1, 1, 2, 2)}, {"geometry": "POINT (1.5 1.5)"}, {"bounds": (1, 1, 2, 2), "zooms": "0-1"}], ids=str
)
def test_selection_fn_may_tell_the_cores_keywords(fused: FusedResource, fused_emulator: Emulator, udf: Udf, told: Any) -> None:
    cache = build_fused_cache_asset(
        "roads_cache", udf="roads", selection_fn=lambda context, key: told, selection={"zooms": [1]}
    )
    dg.materialize([cache], resources={"fused": fused})
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 0), (1, 0, 1), (1, 1, 1)}


@pytest.mark.parametrize(
    ("told", "reason"),
    [(None, "tiles is None"), ({}, "none of"), ({"bound": []}, "bound"), ({"tiles": None}, "tiles is None"), ("1/0/0", "list")],
    ids=str,
)
def test_selection_fn_that_tells_nothing_invalidates_nothing_and_is_not_retried(
    fused: FusedResource, fused_emulator: Emulator, told: Any, reason: str, instance: dg.DagsterInstance
) -> None:
    calls = itertools.count()

    def selection_fn(context: dg.AssetExecutionContext, partition_key: Optional[str]) -> Any:
        next(calls)
        return told

    cache = build_fused_cache_asset("c", udf="roads", selection_fn=selection_fn, retry_policy=dg.RetryPolicy(max_retries=3))
    with pytest.raises(dg.Failure, match=reason):
        dg.materialize([cache], resources={"fused": fused}, instance=instance)
    assert fused_emulator.requests == []
    assert next(calls) == 1


def test_selection_fn_may_name_the_whole_udf(fused: FusedResource, fused_emulator: Emulator, udf: Udf) -> None:
    cache = build_fused_cache_asset("roads_cache", udf="roads", selection_fn=lambda context, key: WHOLE_UDF)
    dg.materialize([cache], resources={"fused": fused})
    assert fused_emulator.cached_tiles(udf) == set()


def test_a_partition_that_changed_nothing_sends_nothing(fused: FusedResource, fused_emulator: Emulator) -> None:
    cache = build_fused_cache_asset("roads_cache", udf="roads", selection_fn=lambda context, key: [])
    assert dg.materialize([cache], resources={"fused": fused}).success
    assert fused_emulator.requests == []


def test_transient_errors_are_left_to_the_retry_policy(
    fused: FusedResource, fused_emulator: Emulator, udf: Udf, instance: dg.DagsterInstance
) -> None:
    fused_emulator.misbehave(status=503, retry_after=60, times=1)
    cache = regions_cache(retry_policy=dg.RetryPolicy(max_retries=1))
    result = dg.materialize(
        [roads, cache], selection=[cache], partition_key="south", resources={"fused": fused}, instance=instance
    )
    assert result.success
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 0), (1, 1, 0)}


def test_the_metadata_has_counts_a_table_and_the_footprint(fused: FusedResource, udf: Udf) -> None:
    selection: Any = {"bounds": (1, 1, 2, 2), "zooms": "0-3"}
    cache = build_fused_cache_asset("roads_cache", udf="roads", selection=selection)
    result = dg.materialize([cache], resources={"fused": fused})
    metadata = result.asset_materializations_for_node("roads_cache")[0].metadata
    assert metadata["tiles_invalidated"] == dg.IntMetadataValue(4)
    assert metadata["udf_id"] == dg.TextMetadataValue(udf.id)
    table = metadata["tiles_per_zoom"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [dict(record.data) for record in table.records] == [{"zoom": zoom, "tiles": 1} for zoom in range(4)]
    assert metadata["footprint"].value == plan_invalidation("roads", **selection).to_geojson()


def test_the_footprint_of_scattered_tiles_stays_small(fused_emulator: Emulator, udf: Udf) -> None:
    patient = FusedResource(token=fused_emulator.token, base_url=fused_emulator.base_url, deadline=60)
    tiles = [(9, x, y) for x in range(0, 512, 4) for y in range(0, 512, 4)]
    cache = build_fused_cache_asset("roads_cache", udf="roads", selection={"tiles": tiles})
    result = dg.materialize([cache], resources={"fused": patient})
    footprint: Any = result.asset_materializations_for_node("roads_cache")[0].metadata["footprint"].value
    assert footprint["features"][0]["properties"]["tiles"] == 128 * 128
    assert len(str(footprint)) < 60_000


def test_without_the_extra_geo_there_is_no_footprint(fused: FusedResource, udf: Udf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shapely", None)
    cache = build_fused_cache_asset("roads_cache", udf="roads", selection={"tiles": ["1/0/0"]})
    metadata = dg.materialize([cache], resources={"fused": fused}).asset_materializations_for_node("roads_cache")[0].metadata
    assert "tiles_per_zoom" in metadata
    assert "footprint" not in metadata


def test_extra_arguments_reach_the_asset() -> None:
    cache = regions_cache(key_prefix="maps", group_name="fused", required_resource_keys={"database"}, kinds={"fused", "map"})
    assert cache.key == dg.AssetKey(["maps", "roads_cache"])
    assert cache.required_resource_keys >= {"fused", "database"}


@pytest.mark.parametrize(
    "arguments",
    [
        {"selection": {"tiles": []}, "selection_fn": tiles_of_region},
        {"selection": {"bound": []}},
        {"selection": {"tiles": iter(["1/0/0"])}},
    ],
    ids=["twice", "unknown", "once"],
)
def test_what_cannot_be_meant_is_refused_when_the_asset_is_built(arguments: Any) -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=r"roads_cache.*(given together|unknown|once)"):
        build_fused_cache_asset("roads_cache", udf="roads", **arguments)


def requested(
    cache: dg.AssetsDefinition, upstream: dg.AssetsDefinition, instance: dg.DagsterInstance
) -> Iterator[set[Optional[str]]]:
    """What automation asks for, evaluation by evaluation: the partitions of the cache."""
    cursor = None
    while True:
        defs = dg.Definitions([upstream, cache], resources={"fused": FusedResource()})
        evaluated = dg.evaluate_automation_conditions(defs=defs, instance=instance, cursor=cursor)
        cursor = evaluated.cursor
        yield set(evaluated.get_requested_partitions(cache.key))


def test_automation_invalidates_after_each_load(instance: dg.DagsterInstance) -> None:
    cache = build_fused_cache_asset("roads_cache", udf="roads", deps=[table])
    asked = requested(cache, table, instance)
    next(asked)
    dg.materialize([table], instance=instance)
    assert next(asked) == {None}
    assert next(asked) == set()


def test_automation_invalidates_the_partition_that_was_loaded_even_an_old_one(instance: dg.DagsterInstance) -> None:
    days = dg.DailyPartitionsDefinition("2026-01-01", end_date="2026-02-01")

    @dg.asset(partitions_def=days)
    def daily() -> None: ...

    cache = build_fused_cache_asset("c", udf="roads", deps=[daily], selection_fn=tiles_of_region, partitions_def=days)
    asked = requested(cache, daily, instance)
    assert next(asked) == set()
    dg.materialize([daily], instance=instance, partition_key="2026-01-03")
    dg.materialize([daily], instance=instance, partition_key="2026-01-05")
    assert next(asked) == {"2026-01-03", "2026-01-05"}


def checked(fused: FusedResource, cache: dg.AssetsDefinition, check: dg.AssetChecksDefinition, **run: Any) -> Any:
    result = dg.materialize([roads, cache, check], selection=dg.AssetSelection.assets(cache), resources={"fused": fused}, **run)
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def test_the_check_passes_where_the_invalidation_covered_the_partition(fused: FusedResource, udf: Udf) -> None:
    cache = regions_cache()
    check = build_fused_cache_check(cache, udf="roads", selection_fn=tiles_of_region)
    evaluation = checked(fused, cache, check, partition_key="south")
    assert evaluation.passed
    assert evaluation.metadata["fresh"].value == TILES["south"]


def test_the_check_fails_where_the_invalidation_left_out_a_tile(fused: FusedResource, udf: Udf) -> None:
    cache = build_fused_cache_asset(
        "c", udf="roads", deps=[roads], selection_fn=lambda context, key: TILES[key][:1], partitions_def=REGIONS
    )
    check = build_fused_cache_check(cache, udf="roads", selection_fn=tiles_of_region, severity=dg.AssetCheckSeverity.WARN)
    evaluation = checked(fused, cache, check, partition_key="south")
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert evaluation.metadata["from_cache"].value == ["1/1/1: memory"]


def test_the_check_covers_all_partitions_of_a_backfill(fused: FusedResource, udf: Udf) -> None:
    cache = regions_cache()
    check = build_fused_cache_check(cache, udf="roads", selection_fn=tiles_of_region)
    tags = {"dagster/asset_partition_range_start": "north", "dagster/asset_partition_range_end": "south"}
    evaluation = checked(fused, cache, check, tags=tags)
    assert evaluation.passed
    assert len(evaluation.metadata["fresh"].value) == 4


def test_a_check_without_tiles_is_refused() -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="which tiles"):
        build_fused_cache_check(table, udf="roads")


def test_dynamic_and_multiple_partitions_are_told_by_their_keys(fused: FusedResource, instance: dg.DagsterInstance) -> None:
    dynamic = dg.DynamicPartitionsDefinition(name="deliveries")
    instance.add_dynamic_partitions("deliveries", ["a", "b", "c"])
    grid = dg.MultiPartitionsDefinition({name: dg.StaticPartitionsDefinition(["0", "1"]) for name in ("x", "y")})
    told: list[Any] = []

    def changed(context: dg.AssetExecutionContext, partition_key: Any) -> list[str]:
        told.append(partition_key)
        return []

    tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "b"}
    one = build_fused_cache_asset("one", udf="roads", selection_fn=changed, partitions_def=dynamic)
    two = build_fused_cache_asset("two", udf="roads", selection_fn=changed, partitions_def=grid)
    dg.materialize([one], tags=tags, resources={"fused": fused}, instance=instance)
    key = dg.MultiPartitionKey({"x": "1", "y": "0"})
    dg.materialize([two], partition_key=key, resources={"fused": fused}, instance=instance)
    assert told == ["a", "b", "1|0"]
