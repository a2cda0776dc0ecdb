"""Load new rows, then invalidate the map tiles they fall in."""

import dagster as dg

from dagster_fused import FusedResource, build_invalidate_cache_op
from fused_cache_ops.demo.stations import load_new_stations


@dg.op
def load() -> list[str]:
    return load_new_stations()  # your load, which returns the tiles it changed: ["10/486/391", …]


# UDFs of the canvas that draw on this one keep results of their own, so they are invalidated too.
invalidate = build_invalidate_cache_op(
    "invalidate", udf="charging_stations", from_upstream="tiles", selection={"related": "callers"}
)


@dg.job(op_retry_policy=dg.RetryPolicy(max_retries=2, delay=10))
def load_then_invalidate():
    invalidate(tiles=load())


defs = dg.Definitions(
    jobs=[load_then_invalidate],
    resources={
        "fused": FusedResource(
            token=dg.EnvVar("FUSED_SERVICE_ACCOUNT_TOKEN"),
            base_url=dg.EnvVar("FUSED_BASE_URL"),  # omit this line for fused.io itself
        )
    },
)

if __name__ == "__main__":
    defs.resolve_job_def("load_then_invalidate").execute_in_process()
