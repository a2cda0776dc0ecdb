"""Ops: attach one to a job, after the load."""

from typing import Any

import dagster as dg
from pydantic import Field

from dagster_fused.resource import FusedResource
from fused_cache_ops.errors import FusedCacheError
from fused_cache_ops.tiles import WHOLE_UDF, TileSelection

_WHOLE = [WHOLE_UDF.value]
_START_AFTER = dg.In(dg.Nothing, description="Whatever must be done first, such as the load.")
_RESULT = dg.Out(
    dict[str, Any],
    description="What was done: udf_id, client_id, tiles_requested (None: the whole UDF), objects_deleted (None: the "
    "service does not say), requests_sent, retries, elapsed_seconds.",
)


class InvalidateCacheConfig(dg.Config):
    """What `invalidate_cache_op` is told at launch."""

    udf: str = Field(description="Id, name, canvas/name, team/name, user@host/name or shared token of the UDF.")
    # Not Optional: Dagster turns both "left out" and "null" into None, and a null must not purge everything.
    tiles: list[Any] = Field(
        default=_WHOLE,
        description="Tiles as 'z/x/y', [z, x, y] or {z, x, y}. Left out, or ['whole-udf']: the whole UDF. []: nothing.",
    )


@dg.op(ins={"start_after": _START_AFTER}, out=_RESULT)
def invalidate_cache_op(context: dg.OpExecutionContext, config: InvalidateCacheConfig, fused: FusedResource) -> dict[str, Any]:
    """Invalidate the cached results of a Fused UDF, as configured at launch: all of them, or those of some tiles.

    What will not pass fails the step for good; what may pass is left to the job's or op's ``RetryPolicy``.
    """
    return _invalidate(context, fused, config.udf, WHOLE_UDF if config.tiles == _WHOLE else config.tiles)


def build_invalidate_cache_op(
    name: str,
    *,
    udf: str,
    tiles: TileSelection = WHOLE_UDF,
    tiles_from_upstream: bool = False,
    **op_arguments: Any,
) -> dg.OpDefinition:
    """An op that invalidates one UDF.

    Args:
        name: the op's name.
        udf: id, ``name``, ``canvas/name``, ``team/name``, ``user@host/name`` or shared token.
        tiles: the tiles to invalidate; leave it out for the whole UDF.
        tiles_from_upstream: give the op an input ``tiles``, to connect to the op that knows what the load has changed.
            Dagster refuses a job that leaves it unconnected.
        op_arguments: further arguments of ``dagster.op``, such as ``retry_policy``, ``pool``, ``tags``.

    Returns:
        An op with an input ``start_after`` for ordering, the resource ``fused``, and the result as output and metadata.

    Raises:
        dagster.DagsterInvalidDefinitionError: ``tiles`` and ``tiles_from_upstream`` together.
    """
    if tiles_from_upstream and tiles is not WHOLE_UDF:
        raise dg.DagsterInvalidDefinitionError(
            f"Op {name!r}: give tiles, or tiles_from_upstream=True, not both: which should be invalidated?"
        )
    arguments: dict[str, Any] = {"description": f"Invalidate the cache of the Fused UDF {udf}."} | op_arguments

    if tiles_from_upstream:

        @dg.op(
            name=name,
            ins={"start_after": _START_AFTER, "tiles": dg.In(Any, description="The tiles that the load has changed.")},
            out=_RESULT,
            **arguments,
        )
        def invalidate_upstream_tiles(context: dg.OpExecutionContext, fused: FusedResource, tiles: Any) -> dict[str, Any]:
            return _invalidate(context, fused, udf, tiles)

        return invalidate_upstream_tiles

    @dg.op(name=name, ins={"start_after": _START_AFTER}, out=_RESULT, **arguments)
    def invalidate(context: dg.OpExecutionContext, fused: FusedResource) -> dict[str, Any]:
        return _invalidate(context, fused, udf, tiles)

    return invalidate


def _invalidate(context: dg.OpExecutionContext, fused: FusedResource, udf: str, tiles: TileSelection) -> dict[str, Any]:
    try:
        with fused.get_client() as client:
            result = client.invalidate_cache(udf, tiles=tiles)
    except FusedCacheError as error:
        if error.retryable:
            raise
        raise dg.Failure(str(error), allow_retries=False) from error
    context.log.info(str(result))
    context.add_output_metadata(result.to_dict())
    return result.to_dict()
