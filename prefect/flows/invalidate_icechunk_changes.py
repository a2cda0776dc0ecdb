"""Write to an array of an Icechunk repository, then invalidate the chunks that were written since the snapshot that the map
shows: the branch ``shown`` is moved to it after each invalidation."""

import os

import icechunk
import zarr
from prefect import flow, task

from fused_cache_ops.changes import changes_of_icechunk
from prefect_fused import FusedCredentials, invalidate_cache


def open_repository() -> icechunk.Repository:
    """Yours may be in a bucket: icechunk.s3_storage(bucket=…, prefix=…, from_env=True)."""
    return icechunk.Repository.open(icechunk.local_filesystem_storage(os.environ["PARCELS_ICECHUNK"]))


@task
def load() -> str:
    """Your load. It returns the snapshot that the map is to show."""
    session = open_repository().writable_session("main")
    zarr.open_array(session.store, path="price")[0, 0] = 4_500
    return session.commit("A new price")


@flow
def invalidate_icechunk_changes() -> dict:
    snapshot = load()
    changed = changes_of_icechunk(open_repository(), since="shown", array="price")
    result = invalidate_cache("parcels", credentials=FusedCredentials(), geometry=changed, zooms="10-14")
    open_repository().reset_branch("shown", snapshot)  # only now, so that a run that fails leaves its changes to the next one
    return result


if __name__ == "__main__":
    invalidate_icechunk_changes()
