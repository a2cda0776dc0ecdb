"""A hook for existing jobs and assets that invalidates after a successful load."""

from collections.abc import Sequence
from typing import Any, Optional, Union

import dagster as dg

from dagster_fused.invalidation import SelectionFn, check_definition, invalidate, partition_keys, refuse_to_wait, select
from fused_cache_ops import InvalidInputError
from fused_cache_ops.integration import CallKeywords


def fused_invalidate_cache_on_success(
    udf: str,
    *,
    after: Union[str, Sequence[str], None] = None,
    selection_fn: Optional[SelectionFn] = None,
    selection: Optional[CallKeywords] = None,
    partitions_def: Optional[dg.PartitionsDefinition[str]] = None,
    resource_key: str = "fused",
    name: str = "fused_invalidate_cache_on_success",
) -> dg.HookDefinition:
    """A hook that invalidates a UDF once its op or asset has succeeded: ``@asset(hooks={…})``, ``load.with_hooks({…})``, or
    for a whole job ``@job(hooks={…})``.

    Dagster calls a job's hook after every step, including checks. ``after`` names the steps that count. Without ``after``, the
    hook fails for a job with several ops.

    **A hook that fails leaves the run green.** It logs an error in the run's log, and Dagster records a HOOK_ERRORED event. No
    ``RetryPolicy`` retries it. If a stale map must not go unnoticed, use `build_fused_cache_asset`, an op, or
    `build_invalidate_on_run_success_sensor`.

    Args:
        udf: id, ``name``, ``canvas/name``, ``team/name``, ``user@host/name`` or shared token.
        after: the names of the ops or assets after which to invalidate, for a job's hook.
        selection_fn: ``selection_fn(context, partition_key)`` returns what changed, as for `build_fused_cache_asset`. It gets
            a `dagster.HookContext`, whose ``op_output_values`` and ``op_output_metadata`` are those of the load.
        selection: the core's keywords that are known in advance. With neither, the whole UDF is invalidated. Not
            ``again_after`` and ``refresh``, because a hook can neither be retried nor take long.
        partitions_def: the partitions of the asset. Required for runs of several partitions.
        resource_key: the key of the `FusedResource`.
        name: the hook's name. Hooks of the same job, op or asset need different names.

    Raises:
        dagster.DagsterInvalidDefinitionError: the UDF or the selection cannot be read, or tiles are selected twice.
    """
    known = dict(selection or {})
    refuse_to_wait(f"Hook {name!r}", known)
    shown = check_definition(f"Hook {name!r}", udf, selection, selection_fn=selection_fn)
    wanted = None if after is None else {each.replace("/", "__") for each in ([after] if isinstance(after, str) else after)}

    @dg.success_hook(name=name, required_resource_keys={resource_key})
    def invalidate_on_success(context: dg.HookContext) -> None:
        try:
            _check_place(context, wanted)
            if wanted is not None and context.op.name not in wanted:
                return
            run = context.instance.get_run_by_id(context.run_id)
            keys = partition_keys(context.instance, run, partitions_def)
            keywords = select(selection_fn, known, ((context, key) for key in keys))
            invalidate(context, getattr(context.resources, resource_key), udf, keywords)
        except Exception as error:
            context.log.error(f"The cache of the Fused UDF {shown} was NOT invalidated, but the run continues: {error}")
            raise

    return invalidate_on_success


def _check_place(context: dg.HookContext, wanted: Optional[set[str]]) -> None:
    """Reject a hook that would fire after every step, after each of many mapped steps, or never.

    Raises:
        InvalidInputError: the hook is attached in such a place.
    """
    step: Any = getattr(context, "_step_execution_context", None)  # a context built for a unit test has none
    if step is None or context.hook_def not in step.job_def.hook_defs:
        return
    names = {handle.name for handle in step.job_def.graph.iterate_node_handles()}
    if wanted is None and len(names) > 1:
        raise InvalidInputError(
            f"the hook is on job {context.job_name}, so that Dagster calls it after each of its {len(names)} ops: name the one "
            f"to invalidate after, as in after={context.op.name!r}, or put the hook on that op or asset."
        )
    if missing := sorted((wanted or set()) - names):
        raise InvalidInputError(
            f"after names {', '.join(missing)}, but job {context.job_name} has only {', '.join(sorted(names))}."
        )
    if "[" in context.step_key and (wanted is None or context.op.name in wanted):
        raise InvalidInputError(
            f"op {context.op.name} is mapped, so the hook would fire after each of its steps: name the op that collects them."
        )
