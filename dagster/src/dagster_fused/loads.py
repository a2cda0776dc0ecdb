"""What was loaded upstream of a cache since it was last invalidated."""

from collections.abc import Iterator
from typing import Any, Optional

import dagster as dg

LOADED = "fused_loads"
"""Metadata of a cache's materialization: for each upstream asset, the id of the latest load that it covers."""

_AT_ONCE = 1000  # events


def loads_since_invalidation(
    context: Any, asset_key: Any, partition_key: Optional[str] = None
) -> list[dg.AssetMaterialization]:
    """The materializations of an upstream asset since the cache was last invalidated, oldest first, for a ``selection_fn``.

    The latest one alone is not enough: several loads can precede one run of the cache, and a run that failed has invalidated
    nothing. In a check, these are the loads that the latest materialization of the cache covers.

    Args:
        context: what ``selection_fn`` was called with, by an asset or a check.
        asset_key: the upstream asset.
        partition_key: the partition, of both the upstream asset and the cache. None: the cache has no partitions, and all of
            the upstream asset's count.

    Returns:
        All of them. If the cache was never materialized, every load that Dagster still has an event of.
    """
    key = dg.AssetKey.from_coercible(asset_key)
    is_check = isinstance(context, dg.AssetCheckExecutionContext)
    execution = context.op_execution_context
    instance: dg.DagsterInstance = execution.instance
    cache = next(iter(execution.selected_asset_check_keys)).asset_key if is_check else context.asset_key
    wanted = dg.AssetRecordsFilter(cache, asset_partitions=None if partition_key is None else [partition_key])
    covered = [_covered(record, key) for record in instance.fetch_materializations(wanted, limit=2).records]
    until = covered.pop(0) if is_check and covered else None
    since = covered[0] if covered else None
    return list(_between(instance, key, partition_key, since, until))


def latest_loads(context: dg.AssetExecutionContext) -> dict[str, Any]:
    """The metadata that says which loads an invalidation covers that begins now."""
    spec = context.assets_def.get_asset_spec()
    found = {}
    for dep in spec.deps:
        records = context.instance.fetch_materializations(dep.asset_key, limit=1).records
        if records:
            found[dep.asset_key.to_user_string()] = records[0].storage_id
    return {LOADED: dg.MetadataValue.json(found)} if found else {}


def time_of_load(context: dg.AssetExecutionContext) -> Any:
    """When the latest load of an upstream asset was recorded, in seconds since 1970. None: there was none."""
    deps = context.assets_def.get_asset_spec().deps
    found = [context.instance.fetch_materializations(dep.asset_key, limit=1).records for dep in deps]
    return max((records[0].timestamp for records in found if records), default=None)


def _covered(record: Any, key: dg.AssetKey) -> Optional[int]:
    entry = record.asset_materialization.metadata.get(LOADED)
    found: Optional[int] = None if entry is None else entry.value.get(key.to_user_string())
    return found


def _between(
    instance: dg.DagsterInstance, key: dg.AssetKey, partition: Optional[str], since: Optional[int], until: Optional[int]
) -> Iterator[dg.AssetMaterialization]:
    partitions = None if partition is None else [partition]
    while True:
        wanted = dg.AssetRecordsFilter(key, asset_partitions=partitions, after_storage_id=since)
        records = instance.fetch_materializations(wanted, limit=_AT_ONCE, ascending=True).records
        for record in records:
            if until is not None and record.storage_id > until:
                return
            if record.asset_materialization is not None:
                yield record.asset_materialization
        if len(records) < _AT_ONCE:
            return
        since = records[-1].storage_id
