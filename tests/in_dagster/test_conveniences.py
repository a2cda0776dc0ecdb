"""What Dagster's users look for first: how steps run, values of upstream assets, tokens by their variables, what was done."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_fused import (
    FusedCacheMapComponent,
    FusedInvalidateCacheComponent,
    FusedResource,
    build_fused_cache_asset,
    build_fused_cache_assets,
    build_fused_cache_check,
    build_fused_refresh_check,
    build_invalidate_cache_op,
    build_refresh_cache_op,
)
from fused_cache_ops import CacheMap
from fused_cache_ops.emulator import Emulator, Udf

pytestmark = pytest.mark.xdist_group("dagster-conveniences")

REGIONS = dg.StaticPartitionsDefinition(["north", "south"])
TILES = [[10, x, y] for x in range(10) for y in range(10)]


@pytest.fixture
def fused(fused_emulator: Emulator) -> FusedResource:
    return FusedResource(
        token=fused_emulator.token, base_url=fused_emulator.base_url, run_base_url=fused_emulator.root_url, deadline=30
    )


# -- how the steps of a component run -------------------------------------------------------------------------------------

STEPS = """
retry_policy: {max_retries: 4, delay: 2, backoff: exponential, jitter: plus_minus}
pool: fused
op_tags: {dagster-k8s/config: {container_config: {resources: {requests: {cpu: 100m}}}}, team: maps}
backfill_policy: {type: multi_run, max_partitions_per_run: 3}
limits: {deadline: 77}
"""


def built(kind: str, tmp_path: Path, more: str = STEPS) -> dg.Definitions:
    parts = "partitions_def: {type: static, partition_keys: [a, b]}" if "backfill_policy" in more else ""
    if kind == "one":
        component: Any = FusedInvalidateCacheComponent.resolve_from_yaml(f"udf: roads\nasset: {{key: roads, {parts}}}\n{more}")
        return component.build_defs(None)  # type: ignore[no-any-return]
    path = tmp_path / "fused-cache.toml"
    path.write_text('[datasets.raw]\nudfs = [{ udf = "roads", whole_udf = true }]\n')
    component = FusedCacheMapComponent.resolve_from_yaml(f"cache_map: {path}\nkey_prefix: maps\n{parts}\n{more}")
    return component.build_defs(dg.ComponentTree.for_test().load_context.for_path(tmp_path))  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("kind", ["one", "map"])
def test_how_steps_run_is_said_in_yaml(kind: str, tmp_path: Path) -> None:
    defs = built(kind, tmp_path)
    [asset] = [each for each in defs.assets or () if isinstance(each, dg.AssetsDefinition)]
    policy = asset.op.retry_policy
    assert policy == dg.RetryPolicy(max_retries=4, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
    assert asset.op.pool == "fused"
    assert asset.op.tags["team"] == "maps"
    assert asset.backfill_policy == dg.BackfillPolicy.multi_run(3)
    [resource] = [each for each in (defs.resources or {}).values() if isinstance(each, FusedResource)]
    assert resource.deadline == 77


@pytest.mark.parametrize("kind", ["one", "map"])
@pytest.mark.parametrize(
    "more",
    [
        "retry_policy: {max_retrys: 3}",
        "retry_policy: {max_retries: many}",
        "retry_policy: {backoff: cubic}",
        "backfill_policy: {type: no_run}",
        "limits: {dead_line: 3}",
    ],
)
def test_what_is_misspelled_is_found_when_the_project_is_loaded(kind: str, more: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"max_retries|backoff|backfill_policy|deadline"):
        built(kind, tmp_path, more)


def test_the_check_of_a_component_runs_in_the_same_pool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    defs = built("one", tmp_path, "pool: fused\nselection: {tiles: [1/0/0]}\nverify_tiles: 1\nshared_token_env: T")
    [check] = [each for each in defs.asset_checks or () if isinstance(each, dg.AssetChecksDefinition)]
    assert check.op.pool == "fused"


def test_a_component_retries_a_transient_error(fused_emulator: Emulator, udf: Udf, tmp_path: Path) -> None:
    fused_emulator.misbehave(status=503, retry_after=600, times=1, path="delete")
    defs = built("one", tmp_path, "retry_policy: {max_retries: 1}\nlimits: {deadline: 30}")
    with dg.DagsterInstance.ephemeral() as instance:
        done = defs.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance)
    assert done.success
    assert fused_emulator.cached_tiles(udf) == set()


# -- the values of assets upstream ----------------------------------------------------------------------------------------


@dg.asset(partitions_def=REGIONS)
def changes(context: dg.AssetExecutionContext) -> list[str]:
    return {"north": ["1/0/0"], "south": ["1/0/1"]}[context.partition_key]


@dg.asset
def all_changes() -> list[str]:
    return ["1/0/0", "1/1/1"]


def of_region(context: Any, partition_key: str, changed: list[str]) -> list[str]:
    return changed


def test_selection_fn_gets_the_value_of_an_asset_upstream(fused: FusedResource, fused_emulator: Emulator, udf: Udf) -> None:
    cache = build_fused_cache_asset(
        "roads_cache", udf="roads", ins={"changed": dg.AssetIn("all_changes")}, selection_fn=of_region, deps=["all_changes"]
    )
    done = dg.materialize([all_changes, cache], resources={"fused": fused})
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 1), (1, 1, 0)}
    [event] = done.asset_materializations_for_node("roads_cache")
    assert event.metadata["loaded_at"].value  # the time of the load of what is upstream
    assert cache.get_asset_spec().deps == [dg.AssetDep("all_changes")]


@pytest.mark.parametrize("keys", [["north"], ["north", "south"]])
def test_it_gets_the_value_of_each_partition(fused: FusedResource, fused_emulator: Emulator, udf: Udf, keys: list[str]) -> None:
    seen: dict[str, Any] = {}

    def note(context: Any, partition_key: str, changed: list[str]) -> list[str]:
        seen[partition_key] = changed
        return changed

    cache = build_fused_cache_asset(
        "roads_cache", udf="roads", ins={"changed": dg.AssetIn("changes")}, selection_fn=note, partitions_def=REGIONS
    )
    resources: Any = {"fused": fused}
    with dg.DagsterInstance.ephemeral() as instance:
        for key in ("north", "south"):
            dg.materialize([changes, cache], selection=[changes], partition_key=key, instance=instance, resources=resources)
        tags = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
        dg.materialize([changes, cache], selection=[cache], tags=tags, instance=instance, resources=resources)
    assert seen == {key: {"north": ["1/0/0"], "south": ["1/0/1"]}[key] for key in keys}


def test_so_does_the_selection_fn_of_a_check(fused_emulator: Emulator, udf: Udf) -> None:
    ins = {"changed": dg.AssetIn("all_changes")}
    cache = build_fused_cache_asset("roads_cache", udf="roads", ins=ins, selection_fn=of_region)
    check = build_fused_cache_check(cache, udf="roads", ins=ins, selection_fn=of_region, verify_tiles=2)
    resource = FusedResource(
        token=fused_emulator.token,
        base_url=fused_emulator.base_url,
        run_base_url=fused_emulator.root_url,
        shared_token=udf.shared_token,
    )
    done = dg.materialize([all_changes, cache, check], resources={"fused": resource})
    [evaluation] = done.get_asset_check_evaluations()
    assert evaluation.passed
    assert len(evaluation.metadata["fresh"].value) == 2  # type: ignore[arg-type]


def test_values_that_nothing_reads_are_refused() -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="ins are for selection_fn"):
        build_fused_cache_asset("c", udf="roads", ins={"changed": dg.AssetIn("all_changes")})


# -- what was done before a failure ---------------------------------------------------------------------------------------


def failed(result: dg.ExecuteInProcessResult) -> dg.Failure:
    [event] = [each for each in result.all_events if each.is_step_failure]
    return event.step_failure_data.user_failure_data  # type: ignore[return-value]


@pytest.mark.parametrize(("status", "tries"), [(403, 1), (503, 2)])
def test_a_failure_says_what_was_done(
    fused: FusedResource,
    fused_emulator: Emulator,
    udf: Udf,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    tries: int,
) -> None:
    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 10)
    seen = 0

    def refuse_the_fourth() -> None:
        nonlocal seen
        seen += 1
        if seen == 3:
            fused_emulator.misbehave(status=status, retry_after=600, times=None, path="delete")

    fused_emulator.before_invalidation = refuse_the_fourth
    cache = build_fused_cache_asset(
        "roads_cache", udf="roads", selection={"tiles": TILES}, retry_policy=dg.RetryPolicy(max_retries=1)
    )
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize([cache], resources={"fused": fused}, raise_on_error=False, instance=instance)
    assert sum(event.event_type_value in ("STEP_START", "STEP_RESTARTED") for event in done.all_events) == tries
    events = [each for each in done.all_events if each.is_step_up_for_retry or each.is_step_failure]
    assert len(events) == tries
    if status == 503:  # the retry is of everything, and got nowhere
        return
    metadata: Any = failed(done).metadata
    assert 0 < metadata["tiles_invalidated"].value < 100
    assert metadata["tiles_selected"].value == 100
    assert metadata["unfinished"].records[0].data == {"udf_id": udf.id, "instance": "fused-team", "left": "tiles"}
    assert fused_emulator.token not in str(metadata)


# -- shared tokens by the names of variables ------------------------------------------------------------------------------


def a_map(*entries: dict[str, Any]) -> CacheMap:
    return CacheMap.from_dict({"datasets": {"raw": {"udfs": list(entries)}}})


def test_each_udf_of_a_map_is_run_with_its_own_token(
    fused: FusedResource, fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch
) -> None:
    rivers = fused_emulator.register(dict, name="rivers")
    monkeypatch.setenv("ROADS_TOKEN", udf.shared_token)
    monkeypatch.setenv("RIVERS_TOKEN", rivers.shared_token)
    variables = {"roads": "ROADS_TOKEN", "rivers": "RIVERS_TOKEN"}
    entries = [{"udf": each, "verify_tiles": 1, "shared_token_env": variables[each]} for each in variables]
    assets = build_fused_cache_assets(a_map(*entries), selection_fn=lambda *_: ["1/0/0"])
    done = dg.materialize(assets, resources={"fused": fused})
    assert [each.passed for each in done.get_asset_check_evaluations()] == [True, True]


def test_ops_and_the_check_that_refreshes_take_the_variable_too(
    fused: FusedResource, fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROADS_TOKEN", udf.shared_token)
    selection: Any = {"tiles": ["1/0/0"]}
    known: Any = {"udf": "roads", "shared_token_env": "ROADS_TOKEN"}
    invalidate = build_invalidate_cache_op("invalidate", selection={**selection, "verify_tiles": 1}, **known)
    refresh = build_refresh_cache_op("refresh", selection=selection, **known)

    @dg.job(resource_defs={"fused": fused})
    def after_load() -> None:
        refresh(start_after=invalidate())

    done = after_load.execute_in_process()
    assert done.output_for_node("invalidate")["verification"]["fresh"] == ["1/0/0"]
    assert done.output_for_node("refresh")["already_cached"] == 1
    cache = build_fused_cache_asset("roads_cache", udf="roads", selection=selection)
    check = build_fused_refresh_check(cache, selection=selection, **known)
    [evaluation] = dg.materialize([cache, check], resources={"fused": fused}).get_asset_check_evaluations()
    assert evaluation.passed


# -- freshness ------------------------------------------------------------------------------------------------------------


def test_a_freshness_policy_reaches_the_asset() -> None:
    policy = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=36))
    asset = build_fused_cache_asset("roads_cache", udf="roads", freshness_policy=policy)
    assert asset.get_asset_spec().freshness_policy == policy
