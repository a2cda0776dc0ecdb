"""The sensors: what they request, and that the requested run invalidates."""

from collections.abc import Iterator
from typing import Any, Optional

import dagster as dg
import pytest

from dagster_fused import FusedResource, build_invalidate_on_asset_sensor, build_invalidate_on_run_success_sensor
from fused_cache_ops.emulator import Emulator, Udf

pytestmark = pytest.mark.xdist_group("dagster")

REGIONS = dg.StaticPartitionsDefinition(["0", "1"])


@pytest.fixture
def fused(fused_emulator: Emulator) -> FusedResource:
    return FusedResource(token=fused_emulator.token, base_url=fused_emulator.base_url, deadline=30)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@dg.op
def load() -> None: ...


@dg.job
def nightly() -> None:
    load()


@dg.asset(partitions_def=REGIONS)
def roads(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
    return dg.MaterializeResult(metadata={"tiles": [[1, int(context.partition_key), 0]]})


class Ticks:
    """A sensor in a code location of its own, ticked by hand; what it requests is run."""

    def __init__(self, sensor: dg.SensorDefinition, fused: FusedResource, instance: dg.DagsterInstance) -> None:
        self.definitions = dg.Definitions([roads], jobs=[nightly], sensors=[sensor], resources={"fused": fused})
        self.sensor, self.instance = sensor, instance
        self.cursor: Optional[str] = None

    def tick(self) -> list[dg.RunRequest]:
        repository = self.definitions.get_repository_def()
        context = dg.build_sensor_context(self.instance, self.cursor, definitions=self.definitions)
        evaluated = repository.get_sensor_def(self.sensor.name).evaluate_tick(context)
        self.cursor = evaluated.cursor or self.cursor
        return list(evaluated.run_requests or [])

    def run(self, request: dg.RunRequest, **arguments: Any) -> dg.ExecuteInProcessResult:
        job = self.definitions.resolve_job_def(f"{self.sensor.name}_job")
        return job.execute_in_process(run_config=request.run_config, instance=self.instance, **arguments)


def test_a_run_that_succeeded_is_followed_by_an_invalidation(
    fused: FusedResource, fused_emulator: Emulator, udf: Udf, instance: dg.DagsterInstance
) -> None:
    seen: list[Any] = []
    sensor = build_invalidate_on_run_success_sensor(
        "after_nightly",
        udf="roads",
        monitored_jobs=[nightly],
        selection_fn=lambda run, key: seen.append((run, key)) or ["1/0/0"],
    )
    ticks = Ticks(sensor, fused, instance)
    assert ticks.tick() == []
    loaded = nightly.execute_in_process(instance=instance, tags={"dagster/partition": "2026-11-23"})
    (request,) = ticks.tick()
    assert request.run_key == loaded.run_id
    assert ticks.run(request).success
    assert [(run.run_id, key) for run, key in seen] == [(loaded.run_id, "2026-11-23")]
    assert len(fused_emulator.cached_tiles(udf)) == 3
    assert ticks.tick() == []  # neither the load again, nor the run that it requested itself


def test_a_sensor_that_would_watch_every_job_is_refused() -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="Name the jobs"):
        build_invalidate_on_run_success_sensor("s", udf="roads", monitored_jobs=[])


def test_every_materialization_since_the_last_tick_is_invalidated_as_one(
    fused: FusedResource, fused_emulator: Emulator, udf: Udf, instance: dg.DagsterInstance
) -> None:
    sensor = build_invalidate_on_asset_sensor(
        "after_roads",
        asset_key="roads",
        udf="roads",
        selection_fn=lambda materialization, key: materialization.metadata["tiles"].value,
    )
    ticks = Ticks(sensor, fused, instance)
    dg.materialize([roads], partition_key="0", instance=instance)
    assert ticks.tick() == []  # the first one marks where to begin
    for key in ("0", "1"):
        dg.materialize([roads], partition_key=key, instance=instance)
    (request,) = ticks.tick()
    assert ticks.run(request).success
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 1), (1, 1, 1)}
    assert [call.tiles for call in fused_emulator.requests if call.path.endswith("delete")] == [2]
    assert ticks.tick() == []


def test_the_asset_sensor_tells_the_partition(
    fused: FusedResource, fused_emulator: Emulator, udf: Udf, instance: dg.DagsterInstance
) -> None:
    sensor = build_invalidate_on_asset_sensor(
        "s", asset_key=roads.key, udf="roads", selection_fn=lambda materialization, key: [(1, int(key), 1)]
    )
    ticks = Ticks(sensor, fused, instance)
    ticks.tick()
    dg.materialize([roads], partition_key="1", instance=instance)
    ticks.run(ticks.tick()[0])
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 0), (1, 0, 1), (1, 1, 0)}


def test_the_requested_run_is_retried_where_that_may_help(
    fused: FusedResource, fused_emulator: Emulator, udf: Udf, instance: dg.DagsterInstance
) -> None:
    policy = dg.RetryPolicy(max_retries=1)
    sensor = build_invalidate_on_asset_sensor("s", asset_key="roads", udf="roads", retry_policy=policy)
    ticks = Ticks(sensor, fused, instance)
    ticks.tick()
    dg.materialize([roads], partition_key="1", instance=instance)
    fused_emulator.misbehave(status=503, retry_after=60, times=1)
    assert ticks.run(ticks.tick()[0]).success
    assert fused_emulator.cached_tiles(udf) == set()


def test_a_bad_token_fails_the_requested_run_at_once(
    fused: FusedResource, fused_emulator: Emulator, udf: Udf, instance: dg.DagsterInstance
) -> None:
    sensor = build_invalidate_on_asset_sensor("s", asset_key="roads", udf="roads")
    ticks = Ticks(sensor, fused, instance)
    ticks.tick()
    dg.materialize([roads], partition_key="1", instance=instance)
    fused_emulator.misbehave(status=401, times=None)
    assert not ticks.run(ticks.tick()[0], raise_on_error=False).success
    assert len(fused_emulator.requests) == 1


def test_the_run_config_holds_no_shared_token(fused: FusedResource, udf: Udf, instance: dg.DagsterInstance) -> None:
    sensor = build_invalidate_on_asset_sensor("s", asset_key="roads", udf=udf.shared_token)
    ticks = Ticks(sensor, fused, instance)
    ticks.tick()
    dg.materialize([roads], partition_key="1", instance=instance)
    (request,) = ticks.tick()
    assert ticks.run(request).success
    job = ticks.definitions.resolve_job_def("s_job")
    assert udf.shared_token not in str(request.run_config) + str(job.get_job_snapshot())
