"""The cache of a UDF as an asset downstream of the table that the UDF reads, and a check of that asset."""

import inspect
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional, Union, cast

import dagster as dg

from dagster_fused.invalidation import (
    SelectionFn,
    check_definition,
    invalidate,
    partition_keys,
    permanent_failures,
    refresh,
    select,
    shared_token_of,
)
from dagster_fused.loads import latest_loads, time_of_load
from fused_cache_ops.integration import SELECTION_DEFAULTS, CallKeywords, SelectionKeywords

if TYPE_CHECKING:
    from fused_cache_ops import CacheMap

AFTER_EACH_LOAD: dg.AutomationCondition[Any] = dg.AutomationCondition.any_deps_updated().with_label("after_each_load")
"""``AutomationCondition.any_deps_updated()``: each materialization of an upstream asset is followed by one of the cache, even
if the cache's own run for an earlier load is under way. ``eager()`` forgets such a load, and it waits for upstream assets and
partitions that were never materialized, although an invalidation needs none of them. An observation is not a load."""


def build_fused_cache_asset(
    name: str,
    *,
    udf: str,
    deps: Optional[Iterable[Any]] = None,
    ins: Optional[Mapping[str, dg.AssetIn]] = None,
    selection_fn: Optional[SelectionFn] = None,
    selection: Optional[CallKeywords] = None,
    partitions_def: Optional[dg.PartitionsDefinition[str]] = None,
    automation_condition: Optional[dg.AutomationCondition[Any]] = AFTER_EACH_LOAD,
    backfill_policy: Optional[dg.BackfillPolicy] = None,
    resource_key: str = "fused",
    shared_token_env: Optional[str] = None,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """The cache of a UDF as an asset. Materializing it invalidates what its upstream changed.

    Args:
        name: the asset's name.
        udf: id, ``name``, ``canvas/name``, ``team/name``, ``user@host/name`` or shared token.
        deps: the tables that the UDF reads.
        ins: tables whose values ``selection_fn`` gets as keyword arguments, loaded by their IO managers:
            ``{"parcels": dg.AssetIn("raw_parcels")}`` for ``selection_fn(context, partition_key, parcels)``. In a run of
            several partitions, it gets the value of each.
        selection_fn: ``selection_fn(context, partition_key)`` returns what a partition changed: an iterable of tiles, or a
            dict of the core's keywords such as ``{"bounds": (…)}``. It is called once for each partition of the run, with the
            `dagster.AssetExecutionContext` and the partition key (None if the asset has no partitions). The selections of
            several partitions are merged and sent together.
        selection: the core's keywords that are known in advance, as for `build_invalidate_cache_op`. With ``selection_fn``,
            for example, ``{"zooms": "10-14"}``. With neither, the whole UDF is invalidated.
        partitions_def: the partitions of the table.
        automation_condition: default: after each load of an upstream asset, whatever the partition. None: only manually, by
            jobs and by schedules.
        backfill_policy: default: all partitions of a backfill in a single run.
        resource_key: the key of the `FusedResource`.
        shared_token_env: the name of the environment variable with this UDF's shared token, to refresh with. Default: the
            resource's ``shared_token``.
        asset_arguments: further arguments of ``dagster.asset``: ``key_prefix``, ``group_name``, ``retry_policy``,
            ``required_resource_keys``, ``pool``, …

    Returns:
        An asset whose materializations have the counts, a table of the tiles at each zoom and the footprint as metadata.

    Raises:
        dagster.DagsterInvalidDefinitionError: the UDF or the selection cannot be read, or tiles are selected twice.
    """
    shown = check_definition(f"Asset {name!r}", udf, selection, selection_fn=selection_fn)
    _refuse_unread(f"Asset {name!r}", ins, selection_fn)
    known = dict(selection or {})
    arguments: dict[str, Any] = {
        "description": f"The cached results of the Fused UDF {shown}. Materializing it invalidates what changed.",
        "kinds": {"fused"},
    }
    arguments |= asset_arguments
    resources = {*arguments.pop("required_resource_keys", ()), resource_key}
    if partitions_def is not None and backfill_policy is None:
        backfill_policy = dg.BackfillPolicy.single_run()

    def invalidate_changed(context: dg.AssetExecutionContext, **values: Any) -> dg.MaterializeResult[Any]:
        with permanent_failures():
            loaded = latest_loads(context)
            keywords = select(selection_fn, known, ((context, key) for key in _partitions_of(context)), values)
            moment = time_of_load(context)
            if moment is not None:
                keywords.setdefault("loaded_at", moment)
            _, metadata = invalidate(context, getattr(context.resources, resource_key), udf, keywords, shared_token_env)
        return dg.MaterializeResult(metadata=metadata | loaded)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # about backfill_policy, which is set deliberately
        asset: dg.AssetsDefinition = dg.asset(
            name=name,
            deps=deps,
            ins=ins,
            partitions_def=partitions_def,
            automation_condition=automation_condition,
            backfill_policy=backfill_policy,
            required_resource_keys=resources,
            **arguments,
        )(invalidate_changed)
    return asset


def _refuse_unread(what: str, ins: Optional[Mapping[str, dg.AssetIn]], selection_fn: Optional[SelectionFn]) -> None:
    """Reject values that nothing would read.

    Raises:
        dagster.DagsterInvalidDefinitionError: there are some, and no function.
    """
    if ins and selection_fn is None:
        raise dg.DagsterInvalidDefinitionError(
            f"{what}: ins are for selection_fn, which gets their values: pass it, or name the assets as deps."
        )


def _partitions_of(context: dg.AssetExecutionContext) -> Sequence[Optional[str]]:
    # Not the argument: post_processing in a defs.yaml can give the asset its partitions afterwards.
    definition = context.assets_def.partitions_def
    if definition is None:
        return [None]
    tags = context.run.tags
    if "dagster/partition" in tags or "dagster/asset_partition_range_start" not in tags:
        return list(context.partition_keys)
    # The backfill of a job over several dimensions has the first partition in tags of its own, which the context takes for all.
    return partition_keys(context.instance, context.run, definition)


def build_fused_cache_assets(
    cache_map: "Union[CacheMap, str, os.PathLike[str]]" = "fused-cache.toml",
    *,
    selection_fn: Union[SelectionFn, Mapping[str, SelectionFn], None] = None,
    partitions_def: Union[dg.PartitionsDefinition[str], Mapping[str, dg.PartitionsDefinition[str]], None] = None,
    datasets: Optional[Iterable[str]] = None,
    key_prefix: Union[str, list[str]] = "fused_cache",
    resource_key: str = "fused",
    backfill_policy: Optional[dg.BackfillPolicy] = None,
    ins: Optional[Mapping[str, dg.AssetIn]] = None,
    **asset_arguments: Any,
) -> list[Union[dg.AssetsDefinition, dg.AssetChecksDefinition]]:
    """An asset for every UDF in a cache map, downstream of the asset of its dataset.

    Materializing one invalidates what the dataset's load changed, at the zooms and with the margins that the map says.

    Args:
        cache_map: the map, or the path of its file. A relative path is looked for beside the calling file first. The map's
            keys are asset keys, such as ``raw/parcels``.
        selection_fn: as for `build_fused_cache_asset`, without zooms: for all datasets, or one for each dataset's key. Not
            needed for UDFs with ``whole_udf = true``.
        partitions_def: the partitions of all tables, or of each by its dataset's key.
        datasets: the keys to build assets for. Default: all of the map.
        key_prefix: what the assets' keys begin with.
        resource_key: the key of the `FusedResource`.
        backfill_policy: as for `build_fused_cache_asset`, for the assets that have partitions.
        ins: as for `build_fused_cache_asset`, for the assets that have a ``selection_fn``.
        asset_arguments: further arguments of `build_fused_cache_asset`, for all of them.

    Returns:
        The assets, named after their UDFs. Where the map says ``verify_tiles``, a check of the asset comes after it.

    Raises:
        InvalidInputError: the map cannot be read, or does not list a dataset.
        dagster.DagsterInvalidDefinitionError: a UDF is not ``whole_udf = true``, and has no ``selection_fn``.
    """
    from fused_cache_ops import CacheMap

    read = CacheMap.of(cache_map, beside=sys._getframe(1).f_globals.get("__file__"))
    chosen = {key: read.entries(key) for key in (read.datasets if datasets is None else datasets)}
    for given in (selection_fn, partitions_def):
        for key in given if isinstance(given, Mapping) else ():
            read.entries(key)  # raises for a key that the map does not list
    names = Counter(asset_name(entry.label) for entries in chosen.values() for entry in entries)
    built: list[Union[dg.AssetsDefinition, dg.AssetChecksDefinition]] = []
    for key, entries in chosen.items():
        for entry in entries:
            name = asset_name(entry.label)
            name = name if names[name] == 1 else f"{name}_of_{asset_name(key)}"
            function = None if entry.is_whole else _of_dataset(selection_fn, key)
            if function is None and not entry.is_whole:
                raise dg.DagsterInvalidDefinitionError(
                    f"Asset {name!r}: {entry.label} is not whole_udf = true in {read.source}, so it needs a selection_fn, "
                    f"which says what a load of {key!r} changed."
                )
            keywords = dict(entry.keywords)
            verify_tiles = keywords.pop("verify_tiles", 0)
            partitions = _of_dataset(partitions_def, key)
            known = cast("CallKeywords", keywords | ({"whole_udf": True} if entry.is_whole else {}))
            asset = build_fused_cache_asset(
                name,
                udf=cast("str", entry.reference),
                deps=[dg.AssetKey.from_user_string(key)],
                selection_fn=function,
                selection=known or None,
                partitions_def=partitions,
                backfill_policy=None if partitions is None else backfill_policy,
                ins=None if function is None else ins,
                key_prefix=key_prefix,
                resource_key=resource_key,
                shared_token_env=entry.shared_token_env,
                **asset_arguments,
            )
            built.append(asset)
            if verify_tiles:
                selecting: Any = {each: value for each, value in keywords.items() if each in SELECTION_DEFAULTS}
                check = build_fused_cache_check(
                    asset,
                    udf=cast("str", entry.reference),
                    selection_fn=function,
                    selection=selecting or None,
                    verify_tiles=verify_tiles,
                    resource_key=resource_key,
                    shared_token_env=entry.shared_token_env,
                    ins=ins,
                )
                built.append(check)
    return built


def _of_dataset(given: Any, key: str) -> Any:
    """What was given for all datasets, or for this one."""
    return given.get(key) if isinstance(given, Mapping) else given


def asset_name(label: str) -> str:
    return re.sub("[^A-Za-z0-9]+", "_", label).strip("_") or "udf"


def build_fused_cache_check(
    asset: Any,
    *,
    udf: str,
    selection_fn: Optional[SelectionFn] = None,
    selection: Optional[SelectionKeywords] = None,
    verify_tiles: int = 10,
    partitions_def: Optional[dg.PartitionsDefinition[str]] = None,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    name: str = "fused_cache_is_fresh",
    resource_key: str = "fused",
    shared_token_env: Optional[str] = None,
    ins: Optional[Mapping[str, dg.AssetIn]] = None,
    **check_arguments: Any,
) -> dg.AssetChecksDefinition:
    """A check that an invalidation covered what was loaded: sampled tiles of the partition are requested through a shared
    token, and none of them may come from the cache.

    Run it right after the invalidation, in the same run, and only once: the tiles it requests are in the cache afterwards. It
    also fails if someone else requested a sampled tile in between. Use ``severity=AssetCheckSeverity.WARN`` to allow for
    that.

    Args:
        asset: the asset to check, or its key: the cache's, or the table's if a hook or op invalidates the cache.
        udf: as for `build_fused_cache_asset`. If it is not a shared token, the resource needs ``shared_token``.
        selection_fn: as for `build_fused_cache_asset`, with a `dagster.AssetCheckExecutionContext`.
        selection: the core's keywords that select tiles.
        verify_tiles: how many tiles to request, drawn at random. Each one runs the UDF.
        partitions_def: required for runs of several partitions if ``asset`` is a key. Default: that of the asset.
        severity: the severity of a failed check.
        name: the check's name.
        resource_key: the key of the `FusedResource`.
        shared_token_env: the name of the environment variable with this UDF's shared token. Default: the resource's
            ``shared_token``.
        ins: as for `build_fused_cache_asset`.
        check_arguments: further arguments of ``dagster.asset_check``: ``blocking``, ``description``, …

    Returns:
        A check whose result lists the tiles that were ``fresh``, those that came ``from_cache``, each with its
        tier (``10/1/2: memory``), and those ``unknown``, each with the reason.

    Raises:
        dagster.DagsterInvalidDefinitionError: the UDF or the selection cannot be read, or no tiles are selected.
    """

    def look(execution: Any, fused: Any, keywords: Mapping[str, Any]) -> tuple[bool, str, dict[str, Any]]:
        selecting: Any = {name: value for name, value in keywords.items() if name in SELECTION_DEFAULTS}
        with fused.get_client() as client:
            token = shared_token_of(fused, shared_token_env)
            found = client.verify_cache(udf, verify_tiles=verify_tiles, shared_token=token, **selecting)
        return len(found.fresh) == found.sampled, str(found), found.to_dict()

    described = "Sampled tiles of the Fused UDF {} are computed anew and do not come from the cache."
    return _check(
        asset,
        udf=udf,
        look=look,
        described=described,
        selection_fn=selection_fn,
        selection=selection,
        partitions_def=partitions_def,
        severity=severity,
        name=name,
        resource_key=resource_key,
        ins=ins,
        check_arguments=check_arguments,
    )


def build_fused_refresh_check(
    asset: Any,
    *,
    udf: str,
    selection_fn: Optional[SelectionFn] = None,
    selection: Optional[CallKeywords] = None,
    partitions_def: Optional[dg.PartitionsDefinition[str]] = None,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.WARN,
    name: str = "fused_cache_is_warm",
    resource_key: str = "fused",
    shared_token_env: Optional[str] = None,
    ins: Optional[Mapping[str, dg.AssetIn]] = None,
    **check_arguments: Any,
) -> dg.AssetChecksDefinition:
    """A check that refreshes: the UDF is run for the tiles of the partition, so that the first visitor does not wait.

    Run it after the invalidation, and after `build_fused_cache_check`, which finds in the cache what this check computed.

    Args:
        asset: as for `build_fused_cache_check`.
        udf: as for `build_fused_cache_check`.
        selection_fn: as for `build_fused_cache_check`.
        selection: the core's keywords that select tiles, and those of a refresh: ``{"zooms": "4-9", "refresh": 500}``. Without
            ``refresh``, all tiles of the selection.
        partitions_def: as for `build_fused_cache_check`.
        severity: the severity of a failed check. Default: a warning, since the map is right, only slow at first.
        name: the check's name.
        resource_key: the key of the `FusedResource`.
        shared_token_env: as for `build_fused_cache_check`.
        ins: as for `build_fused_cache_asset`.
        check_arguments: further arguments of ``dagster.asset_check``.

    Returns:
        A check that passes if everything was refreshed, with the counts as metadata.

    Raises:
        dagster.DagsterInvalidDefinitionError: as for `build_fused_cache_check`.
    """

    def look(execution: Any, fused: Any, keywords: Mapping[str, Any]) -> tuple[bool, str, dict[str, Any]]:
        found = refresh(execution, fused, udf, keywords, shared_token_env)
        return found.is_complete, str(found), found.to_dict()

    described = "The tiles of the Fused UDF {} that changed are cached again."
    return _check(
        asset,
        udf=udf,
        look=look,
        described=described,
        selection_fn=selection_fn,
        selection=selection,
        partitions_def=partitions_def,
        severity=severity,
        name=name,
        resource_key=resource_key,
        ins=ins,
        check_arguments=check_arguments,
    )


def _check(
    asset: Any,
    *,
    udf: str,
    look: Callable[[Any, Any, Mapping[str, Any]], tuple[bool, str, dict[str, Any]]],
    described: str,
    selection_fn: Optional[SelectionFn],
    selection: Optional[Mapping[str, Any]],
    partitions_def: Optional[dg.PartitionsDefinition[str]],
    severity: dg.AssetCheckSeverity,
    name: str,
    resource_key: str,
    ins: Optional[Mapping[str, dg.AssetIn]],
    check_arguments: dict[str, Any],
) -> dg.AssetChecksDefinition:
    """A check of what a partition changed. ``look`` says whether it passed, a sentence, and the metadata."""
    what = f"Check {name!r}"
    shown = check_definition(what, udf, selection, selection_fn=selection_fn)
    known = dict(selection or {})
    if selection_fn is None and not known:
        raise dg.DagsterInvalidDefinitionError(f"{what}: pass selection_fn or selection, to determine which tiles to request.")
    _refuse_unread(what, ins, selection_fn)
    arguments: dict[str, Any] = {"description": described.format(shown), "additional_ins": ins or {}} | check_arguments
    if partitions_def is None:
        partitions_def = getattr(asset, "partitions_def", None)
    resources = {*arguments.pop("required_resource_keys", ()), resource_key}

    def look_at_what_changed(context: dg.AssetCheckExecutionContext, **values: Any) -> dg.AssetCheckResult:
        execution = context.op_execution_context
        with permanent_failures():
            keys = partition_keys(execution.instance, context.run, partitions_def)
            keywords = select(selection_fn, known, ((context, key) for key in keys), values)
            passed, said, metadata = look(execution, getattr(execution.resources, resource_key), keywords)
        return dg.AssetCheckResult(passed=passed, severity=severity, description=said, metadata=metadata)

    # Dagster takes a check's inputs by the names of its parameters.
    own = inspect.signature(look_at_what_changed)
    inputs = [inspect.Parameter(each, inspect.Parameter.POSITIONAL_OR_KEYWORD) for each in ins or ()]
    look_at_what_changed.__signature__ = own.replace(parameters=[own.parameters["context"], *inputs])  # type: ignore[attr-defined]
    decorate = dg.asset_check(asset=asset, name=name, required_resource_keys=resources, **arguments)
    return decorate(look_at_what_changed)
