"""The hook: on assets, on ops and on whole jobs."""

import itertools
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from dagster_fused import FusedResource, fused_invalidate_cache_on_success
from fused_cache_ops.emulator import Emulator, Udf

pytestmark = pytest.mark.xdist_group("dagster")


@pytest.fixture
def fused(fused_emulator: Emulator) -> FusedResource:
    return FusedResource(token=fused_emulator.token, base_url=fused_emulator.base_url, deadline=30)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@dg.op
def load() -> list[str]:
    return ["1/0/0"]


@dg.op
def report(rows: list[str]) -> None: ...


def run(fused: FusedResource, hook: dg.HookDefinition, **arguments: Any) -> dg.ExecuteInProcessResult:
    @dg.job(hooks={hook})
    def pipeline() -> None:
        report(load())

    return pipeline.execute_in_process(resources={"fused": fused}, **arguments)


def purges(emulator: Emulator) -> int:
    return len([request for request in emulator.requests if request.path.endswith("delete")])


def errors(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    entries = instance.all_logs(run_id)
    return [entry.user_message for entry in entries if entry.level == 40 and "NOT invalidated" in entry.user_message]


def test_a_jobs_hook_invalidates_once_after_the_op_it_names(fused: FusedResource, fused_emulator: Emulator, udf: Udf) -> None:
    hook = fused_invalidate_cache_on_success(
        "roads", after="load", selection_fn=lambda context, key: context.op_output_values["result"]
    )
    assert run(fused, hook).success
    assert purges(fused_emulator) == 1
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 1), (1, 1, 0), (1, 1, 1)}


@pytest.mark.parametrize(("after", "reason"), [(None, "after each of its 2 ops"), ("laod", "after names laod")])
def test_a_jobs_hook_that_would_fire_at_every_step_or_never_says_so(
    fused: FusedResource, fused_emulator: Emulator, instance: dg.DagsterInstance, after: Any, reason: str
) -> None:
    result = run(fused, fused_invalidate_cache_on_success("roads", after=after), instance=instance)
    assert result.success  # Dagster keeps the run green
    assert fused_emulator.requests == []
    assert reason in errors(instance, result.run_id)[0]


def test_a_job_of_one_op_needs_no_name(fused: FusedResource, fused_emulator: Emulator, udf: Udf) -> None:
    @dg.job(hooks={fused_invalidate_cache_on_success("roads")})
    def pipeline() -> None:
        load()

    pipeline.execute_in_process(resources={"fused": fused})
    assert fused_emulator.cached_tiles(udf) == set()


def test_an_ops_hook_needs_no_name(fused: FusedResource, fused_emulator: Emulator, udf: Udf) -> None:
    hook = fused_invalidate_cache_on_success("roads")

    @dg.job
    def pipeline() -> None:
        report(load.with_hooks({hook})())

    pipeline.execute_in_process(resources={"fused": fused})
    assert purges(fused_emulator) == 1


def test_an_op_that_failed_invalidates_nothing(fused: FusedResource, fused_emulator: Emulator) -> None:
    @dg.op
    def broken() -> None:
        raise ValueError("no rows")

    @dg.job(hooks={fused_invalidate_cache_on_success("roads", after="broken")})
    def pipeline() -> None:
        broken()

    assert not pipeline.execute_in_process(resources={"fused": fused}, raise_on_error=False).success
    assert fused_emulator.requests == []


def test_an_op_that_is_retried_invalidates_once(
    fused: FusedResource, fused_emulator: Emulator, udf: Udf, instance: dg.DagsterInstance
) -> None:
    tries = itertools.count()

    @dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
    def flaky() -> None:
        if next(tries) == 0:
            raise ValueError("try again")

    @dg.job(hooks={fused_invalidate_cache_on_success("roads", after="flaky")})
    def pipeline() -> None:
        flaky()

    assert pipeline.execute_in_process(resources={"fused": fused}, instance=instance).success
    assert purges(fused_emulator) == 1


def test_mapped_steps_are_refused(fused: FusedResource, fused_emulator: Emulator, instance: dg.DagsterInstance) -> None:
    @dg.op(out=dg.DynamicOut(int))
    def parts() -> Iterator[dg.DynamicOutput[int]]:
        for number in range(2):
            yield dg.DynamicOutput(number, mapping_key=str(number))

    @dg.op
    def load_part(number: int) -> None: ...

    @dg.job(hooks={fused_invalidate_cache_on_success("roads", after="load_part")})
    def pipeline() -> None:
        parts().map(load_part)

    result = pipeline.execute_in_process(resources={"fused": fused}, instance=instance)
    assert fused_emulator.requests == []
    assert "is mapped" in errors(instance, result.run_id)[0]


def test_an_assets_hook_invalidates_the_partition_once_though_it_has_a_check(
    fused: FusedResource, fused_emulator: Emulator, udf: Udf
) -> None:
    regions = dg.StaticPartitionsDefinition(["0", "1"])
    hook = fused_invalidate_cache_on_success("roads", selection_fn=lambda context, key: [(1, int(key), 0)])

    @dg.asset(partitions_def=regions, hooks={hook})
    def roads() -> None: ...

    @dg.asset_check(asset=roads)
    def has_rows() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    dg.materialize([roads, has_rows], partition_key="1", resources={"fused": fused})
    assert purges(fused_emulator) == 1
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 0), (1, 0, 1), (1, 1, 1)}


def test_an_asset_jobs_hook_takes_the_assets_key(fused: FusedResource, fused_emulator: Emulator, udf: Udf) -> None:
    @dg.asset(key_prefix="raw")
    def roads() -> None: ...

    @dg.asset(deps=[roads])
    def statistics() -> None: ...

    hook = fused_invalidate_cache_on_success("roads", after="raw/roads")
    job = dg.define_asset_job("job", hooks={hook})
    definitions = dg.Definitions([roads, statistics], jobs=[job], resources={"fused": fused})
    assert definitions.resolve_job_def("job").execute_in_process().success
    assert purges(fused_emulator) == 1


@pytest.mark.parametrize("known", [True, False])
def test_a_run_of_several_partitions_is_invalidated_as_one(
    fused: FusedResource, fused_emulator: Emulator, udf: Udf, instance: dg.DagsterInstance, known: bool
) -> None:
    regions = dg.StaticPartitionsDefinition(["0", "1"])
    hook = fused_invalidate_cache_on_success(
        "roads", selection_fn=lambda context, key: [(1, int(key), 0)], partitions_def=regions if known else None
    )

    @dg.asset(partitions_def=regions, hooks={hook})
    def roads() -> None: ...

    tags = {"dagster/asset_partition_range_start": "0", "dagster/asset_partition_range_end": "1"}
    result = dg.materialize([roads], tags=tags, resources={"fused": fused}, instance=instance)
    assert purges(fused_emulator) == int(known)
    if not known:
        assert "pass partitions_def=" in errors(instance, result.run_id)[0]


def test_a_hook_that_fails_leaves_the_run_green_and_is_loud(
    fused: FusedResource, fused_emulator: Emulator, instance: dg.DagsterInstance
) -> None:
    fused_emulator.misbehave(status=401, times=None)
    result = run(fused, fused_invalidate_cache_on_success("roads", after="load"), instance=instance)
    assert result.success
    assert "answered 401" in errors(instance, result.run_id)[0]
    assert [event.node_name for event in result.all_events if event.event_type_value == "HOOK_ERRORED"] == ["load"]


def test_dynamic_and_multiple_partitions_are_told_by_their_keys(
    fused: FusedResource, fused_emulator: Emulator, udf: Udf, instance: dg.DagsterInstance
) -> None:
    dynamic = dg.DynamicPartitionsDefinition(name="deliveries")
    instance.add_dynamic_partitions("deliveries", ["a", "b", "c"])
    grid = dg.MultiPartitionsDefinition({name: dg.StaticPartitionsDefinition(["0", "1"]) for name in ("x", "y")})
    told: list[Any] = []

    def changed(context: dg.HookContext, partition_key: Any) -> list[str]:
        told.append(partition_key)
        return []

    @dg.asset(
        partitions_def=dynamic,
        hooks={fused_invalidate_cache_on_success("roads", selection_fn=changed, partitions_def=dynamic)},
    )
    def deliveries() -> None: ...

    @dg.asset(partitions_def=grid, hooks={fused_invalidate_cache_on_success("roads", selection_fn=changed)})
    def cells() -> None: ...

    tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "b"}
    dg.materialize([deliveries], tags=tags, resources={"fused": fused}, instance=instance)
    key = dg.MultiPartitionKey({"x": "1", "y": "0"})
    dg.materialize([cells], partition_key=key, resources={"fused": fused}, instance=instance)
    assert told == ["a", "b", "1|0"]
