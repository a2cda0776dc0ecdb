"""Load a GeoParquet delivery, then invalidate the tiles of every changed shape, where it was and where it is now."""

import dagster as dg

from dagster_fused import FusedResource, build_invalidate_cache_op
from fused_cache_ops.demo.parcels import load_delivery


@dg.op
def load() -> str:
    return load_delivery()  # your load, which returns the path of the changed shapes, here a GeoParquet file


invalidate = build_invalidate_cache_op("invalidate", udf="parcels", from_upstream="geometry", selection={"zooms": "10-14"})


@dg.job(op_retry_policy=dg.RetryPolicy(max_retries=2, delay=10))
def invalidate_changed_footprint():
    invalidate(geometry=load())


defs = dg.Definitions(
    jobs=[invalidate_changed_footprint],
    resources={"fused": FusedResource(token=dg.EnvVar("FUSED_SERVICE_ACCOUNT_TOKEN"))},
)

if __name__ == "__main__":
    defs.resolve_job_def("invalidate_changed_footprint").execute_in_process()
