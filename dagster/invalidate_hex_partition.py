"""Rewrite a partition of an H3 dataset, then invalidate the tiles of the cells that its files are named by."""

import os

import dagster as dg

from dagster_fused import FusedResource, build_invalidate_cache_op


@dg.op
def load() -> str:
    return "date=2026-11-22"  # your load, such as fused.h3.partition, which returns the folder it has written


invalidate = build_invalidate_cache_op(
    "invalidate",
    udf="parcels",
    from_upstream="partition",
    selection={
        "hex_dataset": os.environ.get("PARCELS_HEXES", "s3://bucket/parcels/"),
        "zooms": "10-14",
        "render_resolution": "fused",
    },
)


@dg.job(op_retry_policy=dg.RetryPolicy(max_retries=2, delay=10))
def invalidate_hex_partition():
    invalidate(partition=load())


defs = dg.Definitions(
    jobs=[invalidate_hex_partition],
    resources={"fused": FusedResource(token=dg.EnvVar("FUSED_SERVICE_ACCOUNT_TOKEN"))},
)

if __name__ == "__main__":
    defs.resolve_job_def("invalidate_hex_partition").execute_in_process()
