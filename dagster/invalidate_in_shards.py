"""Share one large invalidation among the processes of a run: one dynamic step per shard, and one merged result."""

from typing import Any

import dagster as dg

from dagster_fused import FusedResource, build_invalidate_cache_op
from fused_cache_ops import InvalidationResult

SHARDS = 4


@dg.op
def load() -> list[float]:
    return [-9.25, 38.68, -9.08, 38.80]  # your load, which returns the bounds of what it changed


@dg.op(out=dg.DynamicOut(list))
def shards():
    for number in range(SHARDS):
        yield dg.DynamicOutput([number, SHARDS], mapping_key=str(number))


invalidate = build_invalidate_cache_op(
    "invalidate", udf="parcels", from_upstream=("bounds", "shard"), selection={"zooms": "10-16"}
)


@dg.op
def merge(context: dg.OpExecutionContext, results: list[dict[str, Any]]) -> dict[str, Any]:
    merged = InvalidationResult.merge(results).to_dict()
    context.add_output_metadata(merged)
    return merged


@dg.job(op_retry_policy=dg.RetryPolicy(max_retries=2, delay=10))
def invalidate_in_shards():
    changed = load()
    merge(shards().map(lambda shard: invalidate(bounds=changed, shard=shard)).collect())


defs = dg.Definitions(
    jobs=[invalidate_in_shards],
    resources={
        "fused": FusedResource(
            token=dg.EnvVar("FUSED_SERVICE_ACCOUNT_TOKEN"),
            base_url=dg.EnvVar("FUSED_BASE_URL"),  # omit this line for fused.io itself
        )
    },
)

if __name__ == "__main__":
    defs.resolve_job_def("invalidate_in_shards").execute_in_process()
