"""Write to an array of an Icechunk repository, then invalidate the chunks that were written since its last snapshot."""

import os

import dagster as dg
import icechunk
import pyarrow
import zarr

from dagster_fused import FusedResource, build_invalidate_cache_op
from fused_cache_ops.changes import changes_of_icechunk


def open_repository() -> icechunk.Repository:
    """Yours may be in a bucket: icechunk.s3_storage(bucket=…, prefix=…, from_env=True)."""
    return icechunk.Repository.open(icechunk.local_filesystem_storage(os.environ["PARCELS_ICECHUNK"]))


@dg.op
def load() -> str:
    """Your load. It returns the snapshot that the map shows so far."""
    repo = open_repository()
    snapshot = repo.lookup_branch("main")
    session = repo.writable_session("main")
    zarr.open_array(session.store, path="price")[0, 0] = 4_500
    session.commit("A new price")
    return snapshot


@dg.op
def find_changes(since: str) -> pyarrow.Table:
    return changes_of_icechunk(open_repository(), since=since, array="price")


invalidate = build_invalidate_cache_op("invalidate", udf="parcels", from_upstream="geometry", selection={"zooms": "10-14"})


@dg.job(op_retry_policy=dg.RetryPolicy(max_retries=2, delay=10))
def invalidate_icechunk_changes():
    invalidate(geometry=find_changes(load()))


defs = dg.Definitions(
    jobs=[invalidate_icechunk_changes],
    resources={"fused": FusedResource(token=dg.EnvVar("FUSED_SERVICE_ACCOUNT_TOKEN"))},
)

if __name__ == "__main__":
    defs.resolve_job_def("invalidate_icechunk_changes").execute_in_process()
