"""Load into a Delta table, then invalidate what its change data feed names: rows that came, went, and moved."""

import os

import dagster as dg
import pyarrow
from deltalake import DeltaTable

from dagster_fused import FusedResource, build_invalidate_cache_op
from fused_cache_ops.changes import changes_of_delta


@dg.op
def load() -> int:
    """Your load. It returns the version that the map shows so far."""
    table = DeltaTable(os.environ["PARCELS_DELTA"])
    version = table.version()
    table.delete("id = 'sold'")
    return version


@dg.op
def find_changes(since: int) -> pyarrow.Table:
    return changes_of_delta(os.environ["PARCELS_DELTA"], since=since, crs="EPSG:4326")


invalidate = build_invalidate_cache_op("invalidate", udf="parcels", from_upstream="geometry", selection={"zooms": "10-14"})


@dg.job(op_retry_policy=dg.RetryPolicy(max_retries=2, delay=10))
def invalidate_delta_changes():
    invalidate(geometry=find_changes(load()))


defs = dg.Definitions(
    jobs=[invalidate_delta_changes],
    resources={"fused": FusedResource(token=dg.EnvVar("FUSED_SERVICE_ACCOUNT_TOKEN"))},
)

if __name__ == "__main__":
    defs.resolve_job_def("invalidate_delta_changes").execute_in_process()
