"""Every load is followed by an invalidation that began after it, and a record belongs to one load."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_fused import (
    FusedCacheMapComponent,
    FusedInvalidateCacheComponent,
    FusedResource,
    build_fused_cache_asset,
    build_fused_cache_check,
    build_invalidate_cache_op,
    build_invalidate_on_asset_sensor,
    loads_since_invalidation,
)
from fused_cache_ops.emulator import Emulator, Udf

pytestmark = pytest.mark.xdist_group("dagster")

DAYS = dg.DailyPartitionsDefinition("2026-11-01", end_date="2026-11-11")
GRID = dg.MultiPartitionsDefinition({"date": DAYS, "zone": dg.StaticPartitionsDefinition(["east", "west"])})


@pytest.fixture
def fused(fused_emulator: Emulator, udf: Udf) -> FusedResource:
    return FusedResource(token=fused_emulator.token, base_url=fused_emulator.base_url, deadline=30)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@dg.asset
def table() -> None: ...


@dg.asset(partitions_def=DAYS)
def daily() -> None: ...


def loaded(instance: dg.DagsterInstance, *tiles: str, key: str = "table", partition: Any = None) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(key, metadata={"tiles": list(tiles)}, partition=partition))


def since_then(context: Any, partition_key: Any) -> list[str]:
    loads = loads_since_invalidation(context, "table", partition_key)
    return [tile for load in loads for tile in load.metadata["tiles"].value]  # type: ignore[union-attr]


def asked(defs: dg.Definitions, instance: dg.DagsterInstance) -> Iterator[set[str]]:
    """The assets that automation asks for, tick by tick."""
    cursor = None
    while True:
        tick = dg.evaluate_automation_conditions(defs=defs, instance=instance, cursor=cursor)
        cursor = tick.cursor
        yield {each.key.to_user_string() for each in tick.results if not each.true_subset.is_empty}


def test_upstream_data_that_is_missing_does_not_keep_a_load_waiting(instance: dg.DagsterInstance) -> None:
    deps = [daily, table, dg.AssetKey("of_another_team")]
    cache = build_fused_cache_asset("c", udf="roads", deps=deps)
    ticks = asked(dg.Definitions([daily, table, cache], resources={"fused": FusedResource()}), instance)
    assert next(ticks) == set()
    dg.materialize([daily], partition_key="2026-11-03", instance=instance)
    assert next(ticks) == {"c"}


def test_a_load_right_after_the_caches_own_run_is_not_forgotten(fused: FusedResource, instance: dg.DagsterInstance) -> None:
    cache = build_fused_cache_asset("c", udf="roads", deps=[table], selection={"tiles": []})
    ticks = asked(dg.Definitions([table, cache], resources={"fused": fused}), instance)
    next(ticks)
    dg.materialize([table], instance=instance)
    assert next(ticks) == {"c"}
    dg.materialize([table, cache], selection=["c"], resources={"fused": fused}, instance=instance)
    dg.materialize([table], instance=instance)
    assert [next(ticks), next(ticks)] == [{"c"}, set()]


def test_an_observation_is_not_a_load(instance: dg.DagsterInstance) -> None:
    cache = build_fused_cache_asset("c", udf="roads", deps=["external"])
    ticks = asked(dg.Definitions([dg.AssetSpec("external"), cache], resources={"fused": FusedResource()}), instance)
    next(ticks)
    instance.report_runless_asset_event(dg.AssetObservation("external"))
    assert next(ticks) == set()
    loaded(instance, key="external")
    assert next(ticks) == {"c"}


def test_all_loads_since_the_last_invalidation_are_covered_even_if_one_of_them_failed(
    fused: FusedResource, fused_emulator: Emulator, udf: Udf, instance: dg.DagsterInstance
) -> None:
    cache = build_fused_cache_asset("c", udf="roads", deps=["table"], selection_fn=since_then)

    def invalidate(**more: Any) -> dg.ExecuteInProcessResult:
        return dg.materialize([cache], resources={"fused": fused}, instance=instance, raise_on_error=False, **more)

    loaded(instance, "1/0/0")
    loaded(instance, "1/0/1")
    assert invalidate().success
    assert fused_emulator.cached_tiles(udf) == {(1, 1, 0), (1, 1, 1)}
    fused_emulator.fill_cache(udf, [(1, 0, 0)])
    loaded(instance, "1/1/0")
    fused_emulator.misbehave(status=403, times=1)
    assert not invalidate().success
    loaded(instance, "1/1/1")
    assert invalidate().success
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 0)}
    seen: list[Any] = []
    looked = build_fused_cache_check(
        cache, udf="roads", selection_fn=lambda context, key: seen.append(since_then(context, key)) or []
    )
    selection = dg.AssetSelection.checks(looked)
    dg.materialize([cache, looked], selection=selection, resources={"fused": fused}, instance=instance, raise_on_error=False)
    assert seen == [["1/1/0", "1/1/1"]]  # what the latest invalidation was for


def test_the_loads_of_another_partition_are_left_to_it(fused: FusedResource, instance: dg.DagsterInstance) -> None:
    seen: list[Any] = []
    cache = build_fused_cache_asset(
        "c",
        udf="roads",
        deps=["table"],
        partitions_def=DAYS,
        selection_fn=lambda context, key: seen.append(since_then(context, key)) or [],
    )
    loaded(instance, "1/0/0", partition="2026-11-02")
    loaded(instance, "1/0/1", partition="2026-11-03")
    for key in ("2026-11-03", "2026-11-02", "2026-11-02"):
        dg.materialize([cache], partition_key=key, resources={"fused": fused}, instance=instance)
    assert seen == [["1/0/1"], ["1/0/0"], []]


def test_a_load_while_the_selection_is_read_is_covered_once_more(fused: FusedResource, instance: dg.DagsterInstance) -> None:
    seen: list[Any] = []

    def changed(context: Any, partition_key: Any) -> list[str]:
        seen.append(since_then(context, partition_key))
        if len(seen) == 1:
            loaded(instance, "1/1/1")
        return []

    cache = build_fused_cache_asset("c", udf="roads", deps=["table"], selection_fn=changed)
    loaded(instance, "1/0/0")
    for _ in range(3):
        dg.materialize([cache], resources={"fused": fused}, instance=instance)
    assert seen == [["1/0/0"], ["1/1/1"], []]


def a_range(first: str, last: str) -> dict[str, str]:
    """What the backfill of a job in one run puts on it: the first partition without its name, and the range."""
    tags = {name: value for name, value in GRID.get_tags_for_partition_key(first).items() if name != "dagster/partition"}
    return {**tags, "dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


def over_two_dimensions(seen: list[Any]) -> dg.AssetsDefinition:
    return build_fused_cache_asset(
        "c", udf="roads", selection_fn=lambda context, key: seen.append(str(key)) or [], partitions_def=GRID
    )


def test_a_range_over_two_dimensions_is_a_box(fused: FusedResource, instance: dg.DagsterInstance) -> None:
    seen: list[str] = []
    tags = a_range("2026-11-02|east", "2026-11-03|west")
    dg.materialize([over_two_dimensions(seen)], tags=tags, resources={"fused": fused}, instance=instance)
    assert seen == [f"2026-11-{day}|{zone}" for day, zone in itertools.product(("02", "03"), ("east", "west"))]


def test_a_range_without_partitions_fails(fused: FusedResource, instance: dg.DagsterInstance) -> None:
    tags = a_range("2026-11-02|west", "2026-11-03|east")
    with pytest.raises(dg.Failure, match="there are none between these"):
        dg.materialize([over_two_dimensions([])], tags=tags, resources={"fused": fused}, instance=instance)


def test_a_bad_event_does_not_take_the_good_ones_along(
    fused: FusedResource, fused_emulator: Emulator, udf: Udf, instance: dg.DagsterInstance
) -> None:
    sensor = build_invalidate_on_asset_sensor(
        "s",
        asset_key="table",
        udf="roads",
        retry_policy=None,
        selection_fn=lambda event, key: event.metadata["tiles"].value,
    )
    defs = dg.Definitions(sensors=[sensor], resources={"fused": fused})
    loaded(instance, "1/0/0")
    instance.report_runless_asset_event(dg.AssetMaterialization("table"))
    loaded(instance, "1/1/1")
    ids = [record.storage_id for record in instance.fetch_materializations(dg.AssetKey("table"), limit=5).records]
    run = defs.resolve_job_def("s_job").execute_in_process(
        run_config={"ops": {"s_op": {"config": {"storage_ids": ids}}}}, instance=instance, raise_on_error=False
    )
    assert not run.success
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 1), (1, 1, 0)}


@pytest.mark.parametrize("returned", [None, {"tiles": None}], ids=str)
def test_none_for_one_of_many_partitions_invalidates_nothing(
    fused: FusedResource, fused_emulator: Emulator, udf: Udf, instance: dg.DagsterInstance, returned: Any
) -> None:
    cache = build_fused_cache_asset(
        "c",
        udf="roads",
        partitions_def=DAYS,
        selection_fn=lambda context, key: returned if key == "2026-11-03" else ["1/0/0"],
    )
    tags = {"dagster/asset_partition_range_start": "2026-11-02", "dagster/asset_partition_range_end": "2026-11-04"}
    with pytest.raises(dg.Failure, match="is None"):
        dg.materialize([cache], tags=tags, resources={"fused": fused}, instance=instance)
    assert fused_emulator.requests == []


@pytest.mark.parametrize("given", [{"selection": {}}, {"from_upstream": []}], ids=str)
def test_what_is_given_and_empty_does_not_mean_everything(given: Any) -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="is empty: omit it"):
        build_invalidate_cache_op("invalidate", udf="roads", **given)


@pytest.mark.parametrize("at", ["/", ".json"])
def test_a_record_is_resumed_by_a_retry_and_not_by_the_next_load(udf: Udf, tmp_path: Path, at: str) -> None:
    with Emulator(batch_endpoint=False) as emulator:
        roads = emulator.register(dict, name="roads")
        tiles = [f"9/{x}/7" for x in range(40)]
        fused = FusedResource(token=emulator.token, base_url=emulator.base_url, deadline=1, max_concurrency=1)
        selection: Any = {"tiles": tiles, "checkpoint": f"{tmp_path}/records{at}"}
        sent = 0

        def break_off() -> None:
            nonlocal sent
            sent += 1
            if sent == 20:
                emulator.misbehave(status=503, times=None)

        def run(**options: Any) -> bool:
            cache = build_fused_cache_asset("c", udf="roads", selection=selection, **options)
            return dg.materialize([cache], resources={"fused": fused}, raise_on_error=False).success

        emulator.fill_cache(roads, [(9, x, 7) for x in range(40)])
        emulator.before_invalidation = break_off
        assert not run()
        emulator.before_invalidation = None
        emulator.behave()
        emulator.fill_cache(roads, [(9, x, 7) for x in range(40)])  # the next load
        assert run()
        assert emulator.cached_tiles(roads) == set()


def test_automation_is_switched_off_by_null() -> None:
    yaml = "{udf: roads, asset: {key: c, deps: [roads], metadata: {team: maps}, automation_condition: null}}"
    (asset,) = FusedInvalidateCacheComponent.resolve_from_yaml(yaml).build_defs(None).assets or ()  # type: ignore[arg-type]
    (spec,) = asset.specs  # type: ignore[union-attr]
    assert spec.automation_condition is None
    assert spec.metadata["team"] == "maps"
    assert not [name for name in spec.metadata if "automat" in name]


def test_two_cache_maps_with_their_defaults_do_not_conflict(tmp_path: Path) -> None:
    built = []
    for name in ("parcels", "roads"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "fused-cache.toml").write_text(f'[datasets.{name}]\nudfs = [{{ udf = "{name}_map", whole_udf = true }}]\n')
        context: Any = dg.ComponentTree.for_test().load_context
        built.append(FusedCacheMapComponent.resolve_from_yaml("{}").build_defs(context.for_path(folder)))
    merged = dg.Definitions.merge(*built)
    dg.Definitions.validate_loadable(merged)
    assert len(merged.resources or {}) == 2
