"""Sensors: invalidate after runs and materialisations of pipelines that are better left as they are.

They do not invalidate in their tick, which Dagster ends after a minute and, for run status, never repeats: they request a
run of a job of their own, which is seen, retried and found again.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Optional

import dagster as dg

from dagster_fused.invalidation import SelectionFn, check_definition, invalidate, partition_keys, permanent_failures, select
from fused_cache_ops.integration import CallKeywords

DEFAULT_RETRY_POLICY = dg.RetryPolicy(max_retries=3, delay=30, backoff=dg.Backoff.EXPONENTIAL)

_MOST_EVENTS = 1000  # of one tick: the rest comes with the next


_RUN = {"run_id": dg.Field(str, description="The run that has succeeded.")}
_MATERIALIZATIONS = {
    "storage_ids": dg.Field(
        [int], description="The materialisations that a run is requested for, by their ids in the event log."
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
    """A sensor that requests a run of the job ``<name>_job``, which invalidates, for each run of a job that has succeeded.

    Its first tick only marks where to begin.

    Args:
        name: the sensor's name.
        udf: id, ``name``, ``canvas/name``, ``team/name``, ``user@host/name`` or shared token.
        monitored_jobs: the jobs that load, or selectors of jobs in other code locations.
        selection_fn: ``selection_fn(run, partition_key)`` tells what has changed, as for `build_fused_cache_asset`; with the
            `dagster.DagsterRun` that has succeeded, in the requested run.
        selection: the core's keywords that are known beforehand. Without any of both: the whole UDF.
        partitions_def: needed for runs of several partitions.
        resource_key: the key of the `FusedResource`.
        retry_policy: of the requested run.
        sensor_arguments: further arguments of ``dagster.run_status_sensor``: ``default_status``, ``description``, …

    Raises:
        dagster.DagsterInvalidDefinitionError: the UDF or the selection cannot be read, select tiles twice, or no job is named.
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
    """A sensor that requests a run of the job ``<name>_job``, which invalidates, for the materialisations of an asset since
    its last tick.

    For all of these, and what each one says: Dagster's own ``asset_sensor`` passes over all but the latest. Its first tick
    only marks where to begin.

    Args:
        name: the sensor's name.
        asset_key: the asset that is loaded, also one of another code location.
        udf: id, ``name``, ``canvas/name``, ``team/name``, ``user@host/name`` or shared token.
        selection_fn: ``selection_fn(materialization, partition_key)`` tells what has changed, as for
            `build_fused_cache_asset`. It gets the `dagster.AssetMaterialization`, whose ``metadata`` is what the load has
            said, in the requested run.
        selection: the core's keywords that are known beforehand. Without any of both: the whole UDF.
        resource_key: the key of the `FusedResource`.
        retry_policy: of the requested run.
        sensor_arguments: further arguments of ``dagster.sensor``: ``default_status``, ``minimum_interval_seconds``, …

    Raises:
        dagster.DagsterInvalidDefinitionError: the UDF or the selection cannot be read, or select tiles twice.
    """
    key = dg.AssetKey.from_coercible(asset_key)

    def changes(context: dg.OpExecutionContext) -> Iterable[tuple[Any, Optional[str]]]:
        ids = context.op_config["storage_ids"]
        wanted = dg.AssetRecordsFilter(asset_key=key, storage_ids=ids)
        records = context.instance.fetch_materializations(wanted, limit=_MOST_EVENTS).records
        if len(records) < len(ids):
            context.log.warning(f"{len(ids) - len(records)} materialisations are no longer in the event log.")
        return ((record.asset_materialization, record.partition_key) for record in records)

    job = _build_job(name, udf, selection_fn, selection, resource_key, retry_policy, _MATERIALIZATIONS, changes)

    @dg.sensor(name=name, job=job, **sensor_arguments)
    def request_invalidation(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        if context.cursor is None:
            latest = context.instance.fetch_materializations(key, limit=1).records
            begin = latest[0].storage_id if latest else 0
            return dg.SensorResult(skip_reason=f"Begins after event {begin}.", cursor=str(begin))
        wanted = dg.AssetRecordsFilter(asset_key=key, after_storage_id=int(context.cursor))
        records = context.instance.fetch_materializations(wanted, limit=_MOST_EVENTS, ascending=True).records
        if not records:
            return dg.SensorResult(skip_reason=f"No new materialisation of {key.to_user_string()}.")
        ids = [record.storage_id for record in records]
        request = dg.RunRequest(run_key=f"{ids[0]}-{ids[-1]}", run_config=_run_config(name, storage_ids=ids))
        return dg.SensorResult(run_requests=[request], cursor=str(ids[-1]))

    return request_invalidation


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
    """The job that a sensor requests runs of: one op, told by its config what has triggered it."""
    known = dict(selection or {})
    shown = check_definition(f"Sensor {name!r}", udf, known, selection_fn=selection_fn)
    description = f"Invalidate the cache of the Fused UDF {shown}; requested by the sensor {name}."

    @dg.op(
        name=f"{name}_op",
        description=description,
        config_schema=config_schema,
        required_resource_keys={resource_key},
        retry_policy=retry_policy,
        out=dg.Out(dict[str, Any], description="What was done."),
    )
    def invalidate_triggered(context: dg.OpExecutionContext) -> dict[str, Any]:
        with permanent_failures():
            keywords = select(selection_fn, known, changes(context))
            result, metadata = invalidate(context, getattr(context.resources, resource_key), udf, keywords)
        context.add_output_metadata(metadata)
        return result

    @dg.job(name=f"{name}_job", description=description)
    def requested() -> None:
        invalidate_triggered()

    return requested
