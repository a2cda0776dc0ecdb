"""Write to an array of an Icechunk repository, then invalidate the chunks that were written since the snapshot that the map
shows: the branch ``shown`` is moved to it after each invalidation."""

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
    """Your load. It returns the snapshot that the map is to show."""
    session = open_repository().writable_session("main")
    zarr.open_array(session.store, path="price")[0, 0] = 4_500
    return session.commit("A new price")


@dg.op(ins={"loaded": dg.In(dg.Nothing)})
def find_changes() -> pyarrow.Table:
    return changes_of_icechunk(open_repository(), since="shown", array="price")


invalidate = build_invalidate_cache_op("invalidate", udf="parcels", from_upstream="geometry", selection={"zooms": "10-14"})


@dg.op(ins={"invalidated": dg.In(dg.Nothing)})
def keep(snapshot: str) -> None:
    """Only now, so that a run that fails leaves its changes to the next one."""
    open_repository().reset_branch("shown", snapshot)


@dg.job(op_retry_policy=dg.RetryPolicy(max_retries=2, delay=10))
def invalidate_icechunk_changes():
    snapshot = load()
    keep(snapshot=snapshot, invalidated=invalidate(geometry=find_changes(snapshot)))


defs = dg.Definitions(
    jobs=[invalidate_icechunk_changes],
    resources={"fused": FusedResource(token=dg.EnvVar("FUSED_SERVICE_ACCOUNT_TOKEN"))},
)

if __name__ == "__main__":
    defs.resolve_job_def("invalidate_icechunk_changes").execute_in_process()
