"""When the step is green, the map is right: callers, instances, and runs under way, in real runs."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.execution.api import execute_job

from dagster_fused import (
    FusedResource,
    build_fused_cache_asset,
    build_invalidate_cache_op,
    fused_invalidate_cache_on_success,
    invalidate_cache_op,
)
from fused_cache_ops.emulator import Emulator, H3Table, Udf

pytestmark = pytest.mark.xdist_group("dagster")

TILE = "1/0/0"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def fused(fused_emulator: Emulator) -> FusedResource:
    return FusedResource(token=fused_emulator.token, base_url=fused_emulator.base_url)


def job_of(op: dg.OpDefinition) -> dg.JobDefinition:
    @dg.job
    def job() -> None:
        op()

    return job


@pytest.mark.parametrize("form", ["op", "config", "asset"])
def test_a_caller_is_fresh_too(
    fused_emulator: Emulator,
    fused: FusedResource,
    loader: Udf,
    table: dict[str, str],
    form: str,
    seen: Callable[[Udf], Any],
    parcels: Udf,
) -> None:
    before = seen(parcels)
    table["load"] = "new"
    if form == "asset":
        asset = build_fused_cache_asset("cache", udf="land/loader", selection={"related": "callers"})
        done = dg.materialize([asset], resources={"fused": fused})
        [event] = done.get_asset_materialization_events()
        assert "related" in event.materialization.metadata
    elif form == "op":
        op = build_invalidate_cache_op("refresh", udf="land/loader", selection={"related": "callers"})
        done = job_of(op).execute_in_process(resources={"fused": fused})
    else:
        config: Any = {"ops": {"invalidate_cache_op": {"config": {"udf": "land/loader", "related": "callers"}}}}
        done = job_of(invalidate_cache_op).execute_in_process(config, resources={"fused": fused})
    assert done.success
    assert (before, seen(parcels)) == ("old", "new")


@pytest.mark.parametrize("form", ["op", "config", "asset"])
def test_what_a_function_inside_the_udf_keeps_is_deleted(
    fused_emulator: Emulator,
    fused: FusedResource,
    inner: Udf,
    table: dict[str, str],
    form: str,
    seen: Callable[[Udf], Any],
) -> None:
    before = seen(inner)
    table["load"] = "new"
    selection: Any = {"tiles": [TILE], "inner_caches": "own"}
    if form == "asset":
        asset = build_fused_cache_asset("cache", udf="land/inner", selection=selection)
        done = dg.materialize([asset], resources={"fused": fused})
    elif form == "op":
        op = build_invalidate_cache_op("refresh", udf="land/inner", selection=selection)
        done = job_of(op).execute_in_process(resources={"fused": fused})
    else:
        config: Any = {"ops": {"invalidate_cache_op": {"config": {"udf": "land/inner", **selection}}}}
        done = job_of(invalidate_cache_op).execute_in_process(config, resources={"fused": fused})
    assert done.success
    assert (before, seen(inner)) == ("old", "new")


@pytest.mark.parametrize("form", ["op", "config", "asset"])
def test_what_was_loaded_is_indexed_before_the_map_is_invalidated(
    fused_emulator: Emulator,
    fused: FusedResource,
    instance: dg.DagsterInstance,
    hexes: tuple[H3Table, Udf],
    form: str,
    seen: Callable[[Udf], Any],
) -> None:
    table, udf = hexes
    before = seen(udf)
    keywords: Any = {"tiles": [TILE], "h3_index": {"path": table.path, "run": True, "prefix": "date=2026"}}
    more: Any = {"resources": {"fused": fused}, "instance": instance}
    if form == "asset":
        asset = build_fused_cache_asset("cache", udf="land/hexes", selection=keywords | {"again_after": 3})
        done: Any = dg.materialize([asset], **more)
    elif form == "op":
        op = build_invalidate_cache_op("refresh", udf="land/hexes", selection=keywords)
        done = job_of(op).execute_in_process(**more)
    else:
        config: Any = {"ops": {"invalidate_cache_op": {"config": {"udf": "land/hexes", **keywords}}}}
        done = job_of(invalidate_cache_op).execute_in_process(config, **more)
    assert done.success
    assert (before, seen(udf)) == ("old", "new")
    assert [run["prefix"] for run in table.runs] == ["date=2026"]
    kinds = [event.event_type_value for event in done.all_events]
    assert kinds.count("STEP_UP_FOR_RETRY") >= 1 + (form == "asset")  # no worker waits
    run = instance.get_run_by_id(done.run_id)
    assert run is not None
    assert fused_emulator.token not in str(run.tags)


def test_the_load_of_an_upstream_asset_says_when_the_data_was_loaded(
    fused_emulator: Emulator, fused: FusedResource, instance: dg.DagsterInstance, hexes: tuple[H3Table, Udf]
) -> None:
    @dg.asset
    def table() -> None: ...

    cache = build_fused_cache_asset("cache", udf="land/hexes", deps=[table], selection={"tiles": [TILE]})
    done = dg.materialize([table, cache], resources={"fused": fused}, instance=instance)
    event = done.asset_materializations_for_node("cache")[0]
    assert 0 <= float(event.metadata["seconds_until_invalidated"].value) < 60  # type: ignore[arg-type]
    old = build_fused_cache_asset("cache", udf="land/hexes", deps=[table], selection={"h3_index": {"path": hexes[0].path}})
    done = dg.materialize([table, old], resources={"fused": fused}, instance=instance, raise_on_error=False)
    assert not done.success
    assert "Nothing was invalidated" in str(done.failure_data_for_node("cache"))


def test_a_udf_that_is_called_is_whole_and_its_caller_keeps_the_tiles(
    fused_emulator: Emulator,
    fused: FusedResource,
    loader: Udf,
    table: dict[str, str],
    seen: Callable[[Udf], Any],
    parcels: Udf,
) -> None:
    before = seen(parcels)
    table["load"] = "new"
    op = build_invalidate_cache_op("refresh", udf="land/loader", selection={"tiles": [TILE], "related": "callers"})
    result = job_of(op).execute_in_process(resources={"fused": fused}).output_for_node("refresh")
    assert (result["tiles_invalidated"], result["related"][parcels.id]["tiles_invalidated"]) == (None, 1)
    assert (before, seen(parcels)) == ("old", "new")


@pytest.mark.parametrize("given", ["", [""], "../tmp"], ids=repr)
def test_what_is_no_folder_fails_before_anything_is_sent(
    fused_emulator: Emulator, fused: FusedResource, inner: Udf, given: Any
) -> None:
    config: Any = {"ops": {"invalidate_cache_op": {"config": {"udf": "land/inner", "inner_caches": given}}}}
    with pytest.raises(dg.Failure, match="inner_caches"):
        job_of(invalidate_cache_op).execute_in_process(config, resources={"fused": fused})
    assert fused_emulator.requests == []


def test_the_instance_that_maps_run_on_is_reached(
    fused_emulator: Emulator, fused: FusedResource, loader: Udf, table: dict[str, str], seen: Callable[[Udf], Any]
) -> None:
    before = seen(loader)
    table["load"] = "new"
    op = build_invalidate_cache_op("refresh", udf=loader.id, selection={"tiles": [TILE]})
    result = job_of(op).execute_in_process(resources={"fused": fused})
    assert result.output_for_node("refresh")["client_ids"] == ["fused-team", "fused-maps"]
    assert (before, seen(loader)) == ("old", "new")


@pytest.mark.parametrize("form", ["op", "asset"])
def test_a_run_under_way_is_caught_by_the_second_pass(
    fused_emulator: Emulator,
    fused: FusedResource,
    instance: dg.DagsterInstance,
    slow: tuple[Udf, threading.Event],
    when: Callable[..., threading.Thread],
    form: str,
    seen: Callable[[Udf], Any],
    deletes: Callable[[], int],
) -> None:
    udf, go = slow
    when(lambda: deletes() >= 2, go.set)  # the first pass is over, on both instances
    keywords: Any = {"tiles": [TILE], "again_after": 3}
    if form == "asset":
        asset = build_fused_cache_asset("cache", udf=udf.id, selection=keywords)
        done: Any = dg.materialize([asset], resources={"fused": fused}, instance=instance)
    else:
        op = build_invalidate_cache_op("refresh", udf=udf.id, selection=keywords)
        done = job_of(op).execute_in_process(resources={"fused": fused}, instance=instance)
    assert done.success
    kinds = [event.event_type_value for event in done.all_events]
    assert (kinds.count("STEP_UP_FOR_RETRY"), kinds.count("STEP_RESTARTED")) == (1, 1)
    assert deletes() == 4
    assert seen(udf) == "new"


def test_what_is_recorded_of_the_first_pass_is_hidden_and_holds_no_secret(
    fused_emulator: Emulator, fused: FusedResource, instance: dg.DagsterInstance, loader: Udf
) -> None:
    op = build_invalidate_cache_op("refresh", udf=loader.shared_token, selection={"tiles": [TILE], "again_after": 2})
    done = job_of(op).execute_in_process(resources={"fused": fused}, instance=instance)
    run = instance.get_run_by_id(done.run_id)
    assert run is not None
    [(name, value)] = [(name, value) for name, value in run.tags.items() if "first_pass" in name]
    assert name.startswith(".dagster/")
    assert fused_emulator.token not in value
    assert loader.shared_token not in value
    assert done.output_for_node("refresh")["second_pass"] == "done"


def test_an_error_that_may_pass_is_retried_as_the_second_pass_alone(
    fused_emulator: Emulator,
    instance: dg.DagsterInstance,
    loader: Udf,
    when: Callable[..., threading.Thread],
    deletes: Callable[[], int],
) -> None:
    fused = FusedResource(token=fused_emulator.token, base_url=fused_emulator.base_url, client_id="fused-team", deadline=0.5)

    def is_up_for_retry_again() -> bool:
        [run_id] = instance.get_run_ids()
        entries = [entry.dagster_event_type for entry in instance.all_logs(run_id)]
        return entries.count(dg.DagsterEventType.STEP_UP_FOR_RETRY) >= 2

    when(lambda: deletes() == 1, lambda: fused_emulator.misbehave(status=503, path="/delete", times=None))
    when(lambda: deletes() > 1 and is_up_for_retry_again(), fused_emulator.behave)
    op = build_invalidate_cache_op(
        "refresh",
        udf=loader.id,
        selection={"tiles": [TILE], "again_after": 2},
        retry_policy=dg.RetryPolicy(max_retries=100, delay=0.5),
    )
    done = job_of(op).execute_in_process(resources={"fused": fused}, instance=instance)
    assert done.success
    answered = [request.status for request in fused_emulator.requests if request.method == "DELETE"]
    assert answered.count(204) == 2
    assert 503 in answered


@dg.job(executor_def=dg.in_process_executor, resource_defs={"fused": FusedResource()})
def without_retries() -> None:
    invalidate_cache_op()


def test_where_retries_are_disabled_nothing_is_sent(
    fused_emulator: Emulator, instance: dg.DagsterInstance, loader: Udf
) -> None:
    config: Any = {
        "execution": {"config": {"retries": {"disabled": {}}}},
        "ops": {"invalidate_cache_op": {"config": {"udf": loader.id, "tiles": [TILE], "again_after": 2}}},
    }
    job = ReconstructableJob.for_file(__file__, "without_retries")
    done = execute_job(job, instance=instance, run_config=config)
    assert not done.success
    [failure] = [event for event in done.all_events if event.is_step_failure]
    assert "has them disabled" in str(failure.step_failure_data.error)
    assert fused_emulator.requests == []


def test_a_hook_refuses_to_wait() -> None:
    with pytest.raises(
        dg.DagsterInvalidDefinitionError,
        match=r"again_after takes long, and Hook .* cannot wait for it",
    ):
        fused_invalidate_cache_on_success("roads", selection={"again_after": 130})
    index: Any = {"h3_index": {"path": "s3://lake/hexes/", "run": True}}
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="run in h3_index takes long"):
        fused_invalidate_cache_on_success("roads", selection=index)


def test_a_hooks_function_cannot_ask_for_it_either(fused_emulator: Emulator, fused: FusedResource, loader: Udf) -> None:
    hook = fused_invalidate_cache_on_success(loader.id, selection_fn=lambda context, key: {"tiles": [TILE], "again_after": 130})

    @dg.op
    def load() -> None: ...

    @dg.job(hooks={hook}, resource_defs={"fused": fused})
    def job() -> None:
        load()

    done = job.execute_in_process()
    assert "HOOK_ERRORED" in [event.event_type_value for event in done.all_events]
    assert fused_emulator.requests == []


@pytest.mark.parametrize("related", ["none", "all", ""])
def test_what_cannot_be_read_fails_before_anything_is_sent(
    fused_emulator: Emulator, fused: FusedResource, loader: Udf, related: str
) -> None:
    config: Any = {"ops": {"invalidate_cache_op": {"config": {"udf": loader.id, "related": related}}}}
    with pytest.raises(dg.Failure, match="related"):
        job_of(invalidate_cache_op).execute_in_process(config, resources={"fused": fused})
    assert fused_emulator.requests == []
