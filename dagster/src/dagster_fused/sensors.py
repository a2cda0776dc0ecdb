"""Sensors that invalidate after runs and materializations, for pipelines that should stay unchanged.

They do not invalidate during their tick, which Dagster ends after a minute and, for run status sensors, never retries.
Instead, they request a run of a separate job, which is visible and can be retried.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Optional

import dagster as dg

from dagster_fused.invalidation import (
    SelectionFn,
    check_definition,
    invalidate,
    merged,
    partition_keys,
    permanent_failures,
    selected,
)
from fused_cache_ops.integration import CallKeywords

DEFAULT_RETRY_POLICY = dg.RetryPolicy(max_retries=3, delay=30, backoff=dg.Backoff.EXPONENTIAL)

_MOST_EVENTS = 1000  # per tick: the rest is left to the next one


_RUN = {"run_id": dg.Field(str, description="The run that succeeded.")}
_MATERIALIZATIONS = {
    "storage_ids": dg.Field(
        [int], description="The materializations that the run is requested for, by their ids in the event log."
    )
}


def build_invalidate_on_run_success_sensor(
    name: str,
    *,
    udf: str,
    monitored_jobs: Sequence[Any],
    selection_fn: Optional[SelectionFn] = None,
    selection: Optional[CallKeywords] = None,
    partitions_def: Optional[dg.PartitionsDefinition[str]] = None,
    resource_key: str = "fused",
    retry_policy: Optional[dg.RetryPolicy] = DEFAULT_RETRY_POLICY,
    **sensor_arguments: Any,
) -> dg.SensorDefinition:
    """A sensor that requests a run of the invalidating job ``<name>_job`` for each successful run of a monitored job.

    Its first tick only marks where to begin.

    Args:
        name: the sensor's name.
        udf: id, ``name``, ``canvas/name``, ``team/name``, ``user@host/name`` or shared token.
        monitored_jobs: the jobs that load, or selectors of jobs in other code locations.
        selection_fn: ``selection_fn(run, partition_key)`` returns what changed, as for `build_fused_cache_asset`. It is called
            in the requested run, with the `dagster.DagsterRun` that succeeded.
        selection: the core's keywords that are known in advance. With neither, the whole UDF is invalidated.
        partitions_def: required for runs of several partitions.
        resource_key: the key of the `FusedResource`.
        retry_policy: the retry policy of the requested run.
        sensor_arguments: further arguments of ``dagster.run_status_sensor``: ``default_status``, ``description``, …

    Raises:
        dagster.DagsterInvalidDefinitionError: the UDF or the selection cannot be read, tiles are selected twice, or no job is
            named.
    """
    if not monitored_jobs:
        raise dg.DagsterInvalidDefinitionError(f"Sensor {name!r}: monitored_jobs is empty. Name the jobs that load.")

    def changes(context: dg.OpExecutionContext) -> Iterable[tuple[Any, Optional[str]]]:
        run = context.instance.get_run_by_id(context.op_config["run_id"])
        return ((run, key) for key in partition_keys(context.instance, run, partitions_def))

    job = _build_job(name, udf, selection_fn, selection, resource_key, retry_policy, _RUN, changes)

    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        name=name,
        monitored_jobs=list(monitored_jobs),
        request_job=job,
        **sensor_arguments,
    )
    def request_invalidation(context: dg.RunStatusSensorContext) -> dg.RunRequest:
        run_id = context.dagster_run.run_id
        return dg.RunRequest(run_key=run_id, run_config=_run_config(name, run_id=run_id))

    return request_invalidation


def build_invalidate_on_asset_sensor(
    name: str,
    *,
    asset_key: Any,
    udf: str,
    selection_fn: Optional[SelectionFn] = None,
    selection: Optional[CallKeywords] = None,
    resource_key: str = "fused",
    retry_policy: Optional[dg.RetryPolicy] = DEFAULT_RETRY_POLICY,
    **sensor_arguments: Any,
) -> dg.SensorDefinition:
    """A sensor that requests a run of the invalidating job ``<name>_job`` for the materializations of an asset since its last
    tick.

    It handles every materialization, whereas Dagster's own ``asset_sensor`` skips all but the latest. Its first tick only
    marks where to begin.

    Args:
        name: the sensor's name.
        asset_key: the asset that is loaded. It may be in another code location.
        udf: id, ``name``, ``canvas/name``, ``team/name``, ``user@host/name`` or shared token.
        selection_fn: ``selection_fn(materialization, partition_key)`` returns what changed, as for
            `build_fused_cache_asset`. It is called in the requested run, with the `dagster.AssetMaterialization`, whose
            ``metadata`` is what the load recorded.
        selection: the core's keywords that are known in advance. With neither, the whole UDF is invalidated.
        resource_key: the key of the `FusedResource`.
        retry_policy: the retry policy of the requested run.
        sensor_arguments: further arguments of ``dagster.sensor``: ``default_status``, ``minimum_interval_seconds``, …

    Raises:
        dagster.DagsterInvalidDefinitionError: the UDF or the selection cannot be read, or tiles are selected twice.
    """
    key = dg.AssetKey.from_coercible(asset_key)

    def changes(context: dg.OpExecutionContext) -> Iterable[tuple[Any, Optional[str]]]:
        ids = context.op_config["storage_ids"]
        wanted = dg.AssetRecordsFilter(asset_key=key, storage_ids=ids)
        records = context.instance.fetch_materializations(wanted, limit=_MOST_EVENTS).records
        if len(records) < len(ids):
            context.log.warning(f"The event log no longer has {len(ids) - len(records):,} of {len(ids):,} materializations.")
        return ((record.asset_materialization, record.partition_key) for record in records)

    job = _build_job(name, udf, selection_fn, selection, resource_key, retry_policy, _MATERIALIZATIONS, changes)

    @dg.sensor(name=name, job=job, **sensor_arguments)
    def request_invalidation(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        if context.cursor is None:
            latest = context.instance.fetch_materializations(key, limit=1).records
            begin = latest[0].storage_id if latest else 0
            return dg.SensorResult(skip_reason=f"Starting after event {begin}.", cursor=str(begin))
        wanted = dg.AssetRecordsFilter(asset_key=key, after_storage_id=int(context.cursor))
        records = context.instance.fetch_materializations(wanted, limit=_MOST_EVENTS, ascending=True).records
        if not records:
            return dg.SensorResult(skip_reason=f"No new materialization of {key.to_user_string()}.")
        ids = [record.storage_id for record in records]
        request = dg.RunRequest(run_key=f"{ids[0]}-{ids[-1]}", run_config=_run_config(name, storage_ids=ids))
        return dg.SensorResult(run_requests=[request], cursor=str(ids[-1]))

    return request_invalidation


def _selections(
    context: dg.OpExecutionContext,
    selection_fn: SelectionFn,
    changes: Iterable[tuple[Any, Optional[str]]],
    failures: list[Exception],
) -> Iterator[CallKeywords]:
    """What each change selects. One that cannot be read is logged, and does not take the others along."""
    for change, partition in changes:
        try:
            yield selected(selection_fn, change, partition)
        except Exception as error:
            context.log.error(f"What was loaded cannot be read ({type(error).__name__}: {error}): {change}")
            failures.append(error)


def _run_config(name: str, **config: Any) -> dict[str, Any]:
    return {"ops": {f"{name}_op": {"config": config}}}


def _build_job(
    name: str,
    udf: str,
    selection_fn: Optional[SelectionFn],
    selection: Optional[CallKeywords],
    resource_key: str,
    retry_policy: Optional[dg.RetryPolicy],
    config_schema: dict[str, dg.Field],
    changes: Callable[[dg.OpExecutionContext], Iterable[tuple[Any, Optional[str]]]],
) -> dg.JobDefinition:
    """The job of which a sensor requests runs: one op, whose config says what triggered it."""
    shown = check_definition(f"Sensor {name!r}", udf, selection, selection_fn=selection_fn)
    known = dict(selection or {})
    description = f"Invalidate the cache of the Fused UDF {shown}. Requested by the sensor {name}."

    @dg.op(
        name=f"{name}_op",
        description=description,
        config_schema=config_schema,
        required_resource_keys={resource_key},
        retry_policy=retry_policy,
        out=dg.Out(dict[str, Any], description="What was done."),
    )
    def invalidate_triggered(context: dg.OpExecutionContext) -> dict[str, Any]:
        failures: list[Exception] = []
        with permanent_failures():
            keywords: Any = known
            if selection_fn is not None:
                selections = list(_selections(context, selection_fn, changes(context), failures))
                keywords = merged(known, selections) if selections else None
            if keywords is not None:  # what could be read is invalidated, even if the run fails for the rest
                result, metadata = invalidate(context, getattr(context.resources, resource_key), udf, keywords)
                context.add_output_metadata(metadata)
            if failures:
                raise failures[0]
        return result

    @dg.job(name=f"{name}_job", description=description)
    def requested() -> None:
        invalidate_triggered()

    return requested
