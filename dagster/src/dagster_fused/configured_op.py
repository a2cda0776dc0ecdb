"""The op that is configured at launch. Defining it and its run configuration is slow, so ops built in code do without."""

from typing import Any, cast

import dagster as dg
from pydantic import Field

from dagster_fused.fields import CallFields
from dagster_fused.ops import RESULT, START_AFTER, invalidate_in_op
from dagster_fused.resources import FusedResource
from fused_cache_ops.integration import CallKeywords


class InvalidateCacheConfig(CallFields, dg.Config):  # type: ignore[misc]
    """The run configuration of `invalidate_cache_op`."""

    udf: str = Field(description="Id, name, canvas/name, team/name, user@host/name or shared token of the UDF.")

    def keywords(self) -> CallKeywords:
        """The core's keywords."""
        return cast(CallKeywords, self.given())


@dg.op(ins={"start_after": START_AFTER}, out=RESULT)
def invalidate_cache_op(context: dg.OpExecutionContext, config: InvalidateCacheConfig, fused: FusedResource) -> dict[str, Any]:
    """Invalidate the cached results of a Fused UDF, as configured at launch: all of them, or those of some tiles.

    Permanent errors fail the step without retries. Transient errors are left to the ``RetryPolicy`` of the job or op.
    """
    return invalidate_in_op(context, fused, config.udf, config.keywords())
