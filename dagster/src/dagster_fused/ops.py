"""Ops that invalidate a cache, to use in a job after the load."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Literal, Optional, Union, cast

import dagster as dg

from dagster_fused.invalidation import check_definition, invalidate, permanent_failures, refresh
from dagster_fused.resources import FusedResource
from fused_cache_ops import InvalidationResult, RefreshResult
from fused_cache_ops.integration import CallKeywords, merged_refresh

Upstream = Literal["tiles", "bounds", "geometry", "tiles_file", "cells", "hex_dataset", "partition", "shard"]

START_AFTER = dg.In(dg.Nothing, description="Whatever must run first, such as the load.")
RESULT = dg.Out(dict[str, Any], description=f"What was done: {', '.join(each.name for each in fields(InvalidationResult))}.")
REFRESHED = dg.Out(dict[str, Any], description=f"What was done: {', '.join(each.name for each in fields(RefreshResult))}.")


def build_invalidate_cache_op(
    name: str,
    *,
    udf: str,
    from_upstream: Union[Upstream, Sequence[Upstream], None] = None,
    selection: Optional[CallKeywords] = None,
    shared_token_env: Optional[str] = None,
    **op_arguments: Any,
) -> dg.OpDefinition:
    """An op that invalidates one UDF.

    Args:
        name: the op's name.
        udf: id, ``name``, ``canvas/name``, ``team/name``, ``user@host/name`` or shared token.
        from_upstream: gives the op an input of this name, to connect to the op that knows what the load changed: its tiles,
            bounds, geometry (a table from an IO manager, too), cells, or the path of a list. Dagster rejects a job that
            leaves it unconnected. The input ``"shard"``, alone or as in ``("bounds", "shard")``, takes a part of the
            selection as ``(i, n)``, and ``"partition"`` takes the folders of an H3 dataset. Map over a ``DynamicOut`` of
            these to share one invalidation among workers, and merge with ``fused_cache_ops.InvalidationResult.merge``.
        selection: the core's keywords that are known in advance: ``{"bounds": (…), "zooms": "10-14"}``, or just
            ``{"zooms": "10-14"}`` with ``from_upstream="geometry"``. ``checkpoint`` and ``verify_tiles`` go here too. With
            neither, the whole UDF is invalidated.
        shared_token_env: the name of the environment variable with this UDF's shared token. Default: the resource's
            ``shared_token``.
        op_arguments: further arguments of ``dagster.op``, such as ``retry_policy``, ``pool``, ``tags``.

    Returns:
        An op with an input ``start_after`` for ordering, the resource ``fused``, and the result as output and metadata.

    Raises:
        dagster.DagsterInvalidDefinitionError: ``selection`` and ``from_upstream`` name two kinds of tiles, or
            ``selection`` cannot be read.
    """
    known: dict[str, Any] = dict(selection or {})
    upstream = [from_upstream] if isinstance(from_upstream, str) else list(from_upstream or ())
    shown = check_definition(f"Op {name!r}", udf, selection, None if from_upstream is None else upstream)
    arguments: dict[str, Any] = {"description": f"Invalidate the cache of the Fused UDF {shown}."} | op_arguments

    if upstream:
        changed: dict[str, dg.In] = {key: dg.In(Any, description="What the load changed.") for key in upstream}
        if "shard" in changed:
            changed["shard"] = dg.In(Any, description="Which part of the selection: (i, n).")

        @dg.op(name=name, ins={"start_after": START_AFTER, **changed}, out=RESULT, **arguments)
        def invalidate_from_upstream(context: dg.OpExecutionContext, fused: FusedResource, **inputs: Any) -> dict[str, Any]:
            return invalidate_in_op(context, fused, udf, cast(CallKeywords, known | inputs), shared_token_env)

        return invalidate_from_upstream

    @dg.op(name=name, ins={"start_after": START_AFTER}, out=RESULT, **arguments)
    def invalidate_known(context: dg.OpExecutionContext, fused: FusedResource) -> dict[str, Any]:
        return invalidate_in_op(context, fused, udf, cast(CallKeywords, known), shared_token_env)

    return invalidate_known


def build_refresh_cache_op(
    name: str,
    *,
    udf: str,
    from_upstream: Union[Upstream, Sequence[Upstream], None] = None,
    selection: Optional[CallKeywords] = None,
    shared_token_env: Optional[str] = None,
    **op_arguments: Any,
) -> dg.OpDefinition:
    """An op that runs a UDF for some tiles, so that visitors find them cached. It invalidates nothing.

    Put it after the op that invalidates, with the same selection. What is cached already costs no run, so a retry continues.

    Args:
        name: the op's name.
        udf: as for `build_invalidate_cache_op`. If it is not a shared token, the resource needs ``shared_token``.
        from_upstream: as for `build_invalidate_cache_op`.
        selection: the core's keywords that are known in advance, such as ``{"zooms": "4-9", "refresh": 500}``. Without
            ``refresh``, all tiles of the selection. Without a selection, the UDF is run once, without a tile.
        shared_token_env: as for `build_invalidate_cache_op`.
        op_arguments: further arguments of ``dagster.op``, such as ``retry_policy``, ``pool``, ``tags``.

    Returns:
        An op with an input ``start_after`` for ordering, the resource ``fused``, and the counts as output and metadata. It
        fails if something could not be refreshed, and is retried only if that may help.

    Raises:
        dagster.DagsterInvalidDefinitionError: as for `build_invalidate_cache_op`.
    """
    known: dict[str, Any] = dict(selection or {})
    upstream = [from_upstream] if isinstance(from_upstream, str) else list(from_upstream or ())
    shown = check_definition(f"Op {name!r}", udf, selection, None if from_upstream is None else upstream)
    arguments: dict[str, Any] = {"description": f"Refresh the cache of the Fused UDF {shown}."} | op_arguments
    inputs: dict[str, dg.In] = {key: dg.In(Any, description="What the load changed.") for key in upstream}

    @dg.op(name=name, ins={"start_after": START_AFTER, **inputs}, out=REFRESHED, **arguments)
    def refresh_known(context: dg.OpExecutionContext, fused: FusedResource, **given: Any) -> dict[str, Any]:
        with permanent_failures():
            wanted = merged_refresh({"must_succeed": True}, known.get("refresh", "all"))
            found = refresh(context, fused, udf, {**known, **given, "refresh": wanted}, shared_token_env).to_dict()
        context.add_output_metadata(found)
        return found

    return refresh_known


def invalidate_in_op(
    context: dg.OpExecutionContext,
    fused: FusedResource,
    udf: str,
    keywords: CallKeywords,
    shared_token_env: Optional[str] = None,
) -> dict[str, Any]:
    """The body of an op: returns the result as its output, and adds the metadata.

    Raises:
        dagster.Failure: a permanent error.
        FusedCacheError: a transient error.
    """
    with permanent_failures():
        result, metadata = invalidate(context, fused, udf, keywords, shared_token_env)
    context.add_output_metadata(metadata)
    return result
