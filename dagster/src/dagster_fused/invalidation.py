"""What ops, assets, hooks and sensors share: the core's call, and its errors and results in Dagster's terms."""

import contextlib
import functools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Optional, cast

import dagster as dg
from dagster._core.storage.tags import HIDDEN_TAG_PREFIX

from dagster_fused.fields import FIELDS
from dagster_fused.resources import FusedResource
from fused_cache_ops import ConfigurationError, FusedCacheError, InvalidInputError
from fused_cache_ops.integration import (
    KINDS,
    NOT_GIVEN,
    SELECTION_DEFAULTS,
    CallKeywords,
    RunCheckpoint,
    Secret,
    parse_udf,
    refuse_what_takes_long,
    refuse_without_selection,
    runs_an_index,
    sealed,
    stated,
)

if TYPE_CHECKING:
    from fused_cache_ops import FusedClient, InvalidationPlan, InvalidationResult, RefreshResult

SelectionFn = Callable[..., Any]
"""``selection_fn(context, partition_key)``: what changed, as tiles or as the core's keywords (``{"bounds": …}``). The key is
None if there are no partitions. With ``ins``, it gets the upstream values too, by their names."""

_DONE = "done"
_SOON = 1.0  # seconds before the second pass is due, that are not worth another attempt
_INSTEAD = "build_fused_cache_asset, an op, or build_invalidate_on_run_success_sensor"
_DRAWN_BLOCKS = 250  # at each zoom, because a footprint in metadata is stored with every run
_LARGEST_DRAWN = 1_000_000  # tiles, because drawing more takes seconds


@contextlib.contextmanager
def permanent_failures() -> Iterator[None]:
    """Turn permanent errors into a `dagster.Failure` that no ``RetryPolicy`` retries. Transient errors are raised unchanged."""
    try:
        yield
    except FusedCacheError as error:
        if error.retryable:
            raise
        raise dg.Failure(str(error), allow_retries=False) from error


def shared_token_of(fused: FusedResource, variable: Optional[str]) -> Optional[Secret]:
    """The shared token in an environment variable, or without one the resource's.

    Raises:
        ConfigurationError: the variable is not set.
    """
    if variable is None:
        return sealed(fused.shared_token or None)
    if not os.environ.get(variable):
        raise ConfigurationError(f"shared_token_env = {variable!r} names an environment variable that is not set here.")
    return sealed(os.environ[variable])


def invalidate(
    context: Any, fused: FusedResource, udf: str, keywords: CallKeywords, shared_token_env: Optional[str] = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Make the core's call. Returns its result, and the result as metadata.

    Args:
        context: any object with Dagster's ``log``.
        fused: the resource.
        udf: the UDF.
        keywords: the core's keywords.
        shared_token_env: the name of the environment variable with the UDF's shared token. None: the resource's token.

    Raises:
        dagster.Failure: a part of it is done, and that is in the metadata. A retry policy applies if the error is transient.
        FusedCacheError: nothing was done. See `permanent_failures`.
    """
    from fused_cache_ops.integration import refuse_single_use

    plans: list[InvalidationPlan] = []
    refuse_single_use(keywords)
    if isinstance(context, dg.HookContext):
        refuse_what_takes_long(keywords, "a hook", _INSTEAD)
    keywords = cast(CallKeywords, {**stated(keywords), "shared_token": shared_token_of(fused, shared_token_env)})
    step = _step_of(context)
    if "checkpoint" in keywords and step is not None:  # a retry is of the same run, and nothing that follows another load is
        location: Any = keywords["checkpoint"]
        keywords["checkpoint"] = RunCheckpoint(location, f"dagster run {step.run_id}, step {step.step.key}")
    with fused.get_client() as client:
        try:
            result = _send(context, client, udf, keywords, plans.append)
        except FusedCacheError as error:
            done: Optional[InvalidationResult] = getattr(error, "result", None)
            if done is None:
                raise
            told = describe(done) | _what_is_left(error, plans)
            raise dg.Failure(str(error), metadata=told, allow_retries=error.retryable) from error
    context.log.info(str(result))
    return result.to_dict(), describe(result, plans[0])


def _what_is_left(error: FusedCacheError, plans: Sequence["InvalidationPlan"]) -> dict[str, Any]:
    """What a call that failed has not done, as metadata."""
    left: dict[str, Any] = {"tiles_selected": plans[0].tile_count} if plans and plans[0].tile_count is not None else {}
    if error.unfinished:
        left["unfinished"] = dg.MetadataValue.table(
            [
                dg.TableRecord(
                    {
                        "udf_id": each.udf_id,
                        "instance": each.client_id,
                        "left": "the whole UDF" if each.remaining is None else "tiles",
                    }
                )
                for each in error.unfinished
            ]
        )
    return left


def refresh(
    context: Any, fused: FusedResource, udf: str, keywords: Mapping[str, Any], shared_token_env: Optional[str] = None
) -> "RefreshResult":
    """Run a UDF for a selection, so that it is cached. What could not be refreshed is in the result.

    Args:
        context: any object with Dagster's ``log``.
        fused: the resource.
        udf: the UDF.
        keywords: the core's keywords. Those of an invalidation are left out.
        shared_token_env: as for `invalidate`.

    Raises:
        FusedCacheError: nothing was requested. See `permanent_failures`.
    """
    wanted: Any = {name: keywords[name] for name in (*SELECTION_DEFAULTS, "refresh") if name in keywords}
    with fused.get_client() as client:
        found = client.refresh_cache(udf, shared_token=shared_token_of(fused, shared_token_env), **wanted)
    context.log.info(str(found))
    return found


def _send(
    context: Any, client: "FusedClient", udf: str, keywords: CallKeywords, on_plan: Callable[["InvalidationPlan"], object]
) -> "InvalidationResult":
    """The call. Between two passes, and while an H3 index is run, the step ends and is retried, so that it occupies no worker.
    The retry starts from scratch, so what has been done is recorded among the run's tags."""
    seconds = keywords.get("again_after")
    runs_index = runs_an_index(keywords) and keywords.get("tiles") != []
    step = _step_of(context)
    if not (seconds or runs_index) or step is None:  # otherwise it is invoked directly, outside of any run
        return client.invalidate_cache(udf, on_plan=on_plan, **keywords)
    if step.retry_mode.disabled:
        what = f"again_after = {seconds!r}" if seconds else "run in h3_index"
        raise InvalidInputError(f"{what} needs retries, and this run's executor has them disabled: enable them, or omit it.")
    key, recorded = _recorded(step, "first_pass")
    if runs_index and recorded is None:
        _await_index(context, step, client, keywords)
        keywords["h3_index"] = NOT_GIVEN
    if not seconds:
        return client.invalidate_cache(udf, on_plan=on_plan, **keywords)
    if recorded is None:
        first = client.first_pass(udf, on_plan=on_plan, **keywords)
        if first.is_empty:
            return first.result
        context.log.info(f"{first.result}. The second pass begins in {seconds:g} s, as a retry of this step.")
        step.instance.add_run_tags(step.run_id, {key: json.dumps(first.to_dict() | {"due": time.time() + seconds})})
        left = float(seconds)
    else:
        from fused_cache_ops import FirstPass

        fields = json.loads(recorded)
        first, left = FirstPass.from_dict(fields), fields["due"] - time.time()
    if left > _SOON:
        raise dg.RetryRequested(max_retries=context.retry_number + 1, seconds_to_wait=left)
    return client.second_pass(udf, first, on_plan=on_plan, **keywords)


def _recorded(step: Any, what: str) -> tuple[str, Optional[str]]:
    """The tag of a step's run that records something, and its value."""
    digest = blake2b(f"{step.run_id}/{step.step.key}".encode(), digest_size=12).hexdigest()
    key = f"{HIDDEN_TAG_PREFIX}fused_{what}_{digest}"
    run = step.instance.get_run_by_id(step.run_id)
    return key, run.tags.get(key) if run is not None else None


def _await_index(context: Any, step: Any, client: "FusedClient", keywords: Any) -> None:
    """Look at the index of an H3 table. If it does not have what was loaded, the step is retried after a while."""
    from fused_cache_ops import IndexWait

    key, recorded = _recorded(step, "h3_index")
    if recorded == _DONE:  # by an attempt that then failed for another reason
        return
    waiting = None if recorded is None else IndexWait.from_dict(json.loads(recorded))
    wait = client.look_at_index(keywords["h3_index"], waiting, loaded_at=keywords.get("loaded_at", NOT_GIVEN))
    step.instance.add_run_tags(step.run_id, {key: _DONE if wait is None else json.dumps(wait.to_dict())})
    if wait is not None:
        context.log.info(f"The H3 index does not have the load yet. It is looked at again in {wait.seconds:g} s.")
        raise dg.RetryRequested(max_retries=context.retry_number + 1, seconds_to_wait=wait.seconds)


def _step_of(context: Any) -> Any:
    """The step that a context is of, or None outside of any run."""
    return getattr(getattr(context, "op_execution_context", context), "_step_execution_context", None)


def describe(result: "InvalidationResult", plan: Optional["InvalidationPlan"] = None) -> dict[str, Any]:
    """A result as metadata: its counts, and of the plan the tiles at each zoom as a table, and the footprint as GeoJSON.

    The footprint needs the core's extra ``geo``, and is omitted without it.
    """
    metadata = result.to_dict()
    if result.refresh:
        metadata["refresh"] = dg.MetadataValue.json(result.refresh.to_dict())
    if result.announcement:
        metadata["announcement"] = str(result.announcement)
    if result.related:
        metadata["related"] = dg.MetadataValue.table(
            [
                dg.TableRecord(
                    {
                        "udf_id": udf_id,
                        "tiles": "the whole UDF" if each.tiles_invalidated is None else f"{each.tiles_invalidated:,}",
                        "instances": ", ".join(each.client_ids),
                    }
                )
                for udf_id, each in result.related.items()
            ]
        )
    if result.warnings:
        metadata["warnings"] = dg.MetadataValue.md("\n".join(f"- {warning}" for warning in result.warnings))
    if plan is not None and plan.tiles_per_zoom:
        metadata["tiles_per_zoom"] = dg.MetadataValue.table(
            [dg.TableRecord({"zoom": zoom, "tiles": tiles}) for zoom, tiles in plan.tiles_per_zoom.items()],
            dg.TableSchema([dg.TableColumn("zoom", "int"), dg.TableColumn("tiles", "int")]),
        )
        if (plan.tile_count or 0) <= _LARGEST_DRAWN:
            with contextlib.suppress(ConfigurationError):
                metadata["footprint"] = dg.MetadataValue.json(plan.to_geojson(most_blocks=_DRAWN_BLOCKS))
    return metadata


def check_definition(
    what: str,
    udf: str,
    known: Optional[Mapping[str, Any]],
    given: Optional[Sequence[str]] = None,
    selection_fn: Optional[SelectionFn] = None,
) -> str:
    """Reject a definition that could not work when it runs. Returns how messages name the UDF.

    Args:
        what: names the definition in the message.
        udf: the UDF.
        known: the core's keywords that are known in advance, or None.
        given: keywords that are only known at run time, or None.
        selection_fn: the function that selects the tiles, if there is one.

    Raises:
        dagster.DagsterInvalidDefinitionError: the UDF or the keywords cannot be read, or tiles are selected twice.
    """
    from fused_cache_ops.integration import refuse_single_use

    if empty := [
        f"{name} is empty"
        for name, value in (("selection", known), ("from_upstream", given))
        if value is not None and not value
    ]:
        raise dg.DagsterInvalidDefinitionError(f"{what}: {empty[0]}: omit it to invalidate the whole UDF.")
    known, given = known or {}, given or ()
    unknown = [key for key in known if key not in FIELDS]
    unknown += [key for key in given if key not in (*KINDS, "shard", "partition")]
    kinds = [key for key in (*KINDS, "whole_udf", "shard") for place in (known, given) if key in place]
    tiles = [key for key in kinds if key != "shard"] + ["selection_fn"] * (selection_fn is not None)
    if unknown or len(tiles) > 1 or kinds.count("shard") > 1:
        problem = f"unknown keys {unknown}" if unknown else f"{' and '.join(tiles if len(tiles) > 1 else kinds)} given together"
        raise dg.DagsterInvalidDefinitionError(f"{what}: {problem}. Give one kind of tiles, and only once.")
    try:
        refuse_single_use(cast(CallKeywords, stated(known)))
        if not tiles or "whole_udf" in tiles:
            refuse_without_selection(known)
        return parse_udf(udf).shown
    except InvalidInputError as error:
        raise dg.DagsterInvalidDefinitionError(f"{what}: {error}") from error


def refuse_to_wait(what: str, known: Mapping[str, Any]) -> None:
    """Reject ``again_after`` and ``refresh`` where there is no step to be retried, and nothing should take long.

    Raises:
        dagster.DagsterInvalidDefinitionError: one of them is given.
    """
    try:
        refuse_what_takes_long(known, what, _INSTEAD)
    except InvalidInputError as error:
        raise dg.DagsterInvalidDefinitionError(str(error)) from error


def select(
    selection_fn: Optional[SelectionFn],
    known: Mapping[str, Any],
    changes: Iterable[tuple[Any, Optional[str]]],
    values: Optional[Mapping[str, Any]] = None,
) -> CallKeywords:
    """The core's keywords for all ``changes``: the known ones, and those that ``selection_fn`` returns for each, merged. It
    gets the ``values`` of assets upstream too, of each change's partition.

    Raises:
        InvalidInputError: ``selection_fn`` returned None, or something that cannot be read or merged.
    """
    if selection_fn is None:
        return cast(CallKeywords, dict(known))
    pairs = list(changes)
    keys = {key for _, key in pairs if key is not None}
    return merged(
        known,
        [
            selected(functools.partial(selection_fn, **_of_partition(values or {}, partition, keys)), change, partition)
            for change, partition in pairs
        ],
    )


def _of_partition(values: Mapping[str, Any], partition: Optional[str], keys: set[str]) -> dict[str, Any]:
    """The values of one partition. If a run covers several, an IO manager loads a dict with a value for each."""
    return {
        name: value[partition] if isinstance(value, Mapping) and keys and keys == set(value) else value
        for name, value in values.items()
    }


def merged(known: Mapping[str, Any], selections: Sequence[CallKeywords]) -> CallKeywords:
    """The known keywords, and several selections as one.

    Raises:
        InvalidInputError: the selections cannot be merged.
    """
    from fused_cache_ops import merge_selections

    return cast(CallKeywords, {**known, **merge_selections(selections)})


def selected(selection_fn: SelectionFn, change: Any, partition: Optional[str]) -> CallKeywords:
    """What ``selection_fn`` returns for one change, as the core's keywords.

    Raises:
        InvalidInputError: it returned None, or a dict that cannot be read.
    """
    returned = selection_fn(change, partition)
    if returned is None:
        of = "" if partition is None else f" for partition {partition}"
        raise InvalidInputError(
            f"selection_fn returned None{of}, so tiles is None: return [] if nothing changed, or WHOLE_UDF for everything."
        )
    if not isinstance(returned, Mapping):
        return {"tiles": _plain(returned)}
    if unknown := sorted(set(map(str, returned)) - {*FIELDS}):
        raise InvalidInputError(
            f"selection_fn returned a dict with {', '.join(unknown)}: return a list of tiles, or a dict of {', '.join(FIELDS)}."
        )
    return cast(CallKeywords, stated({name: _plain(value) for name, value in returned.items()}))


def _plain(value: Any) -> Any:
    """The value inside a metadata entry, as contexts and materializations hold them."""
    return value.value if isinstance(value, dg.MetadataValue) else value


def partition_keys(
    instance: dg.DagsterInstance, run: Optional[dg.DagsterRun], partitions_def: Optional[dg.PartitionsDefinition[str]]
) -> list[Optional[str]]:
    """The partitions that a run covers, according to its tags, or ``[None]`` if it has none.

    Raises:
        InvalidInputError: the run covers a range of partitions, and ``partitions_def`` is not given or has none of them.
    """
    tags = run.tags if run else {}
    start, end = (tags.get(f"dagster/asset_partition_range_{end}") for end in ("start", "end"))
    if "dagster/partition" in tags or not (start and end):
        return [tags.get("dagster/partition")]
    if partitions_def is None:
        raise InvalidInputError(
            f"The run covers the partitions from {start} to {end}: pass partitions_def=, to determine which these are."
        )
    if isinstance(partitions_def, dg.DynamicPartitionsDefinition):
        names = partitions_def.get_partition_keys(dynamic_partitions_store=instance)
        return list(names[names.index(start) : names.index(end) + 1])
    stored: Any = {"dynamic_partitions_store": instance} if isinstance(partitions_def, dg.MultiPartitionsDefinition) else {}
    # Over several dimensions, a range is a box of them.
    keys = partitions_def.get_partition_keys_in_range(dg.PartitionKeyRange(start, end), **stored)
    if not keys:
        raise InvalidInputError(
            f"The run covers the partitions from {start} to {end}, but there are none between these: swap the ends of the "
            "range, in each dimension."
        )
    return list(keys)
