"""Write to an array of an Icechunk repository, then invalidate the chunks that were written since the snapshot that the map
shows: the branch ``shown`` is moved to it after each invalidation."""

import os

import icechunk
import zarr
from airflow.sdk import dag, task  # Airflow 2: from airflow.decorators import dag, task

from fused_cache_ops.changes import changes_of_icechunk


def open_repository() -> icechunk.Repository:
    """Yours may be in a bucket: icechunk.s3_storage(bucket=…, prefix=…, from_env=True)."""
    return icechunk.Repository.open(icechunk.local_filesystem_storage(os.environ["PARCELS_ICECHUNK"]))


@dag(schedule=None)
def invalidate_icechunk_changes():
    @task
    def load() -> str:
        """Your load. It returns the snapshot that the map is to show."""
        session = open_repository().writable_session("main")
        zarr.open_array(session.store, path="price")[0, 0] = 4_500
        return session.commit("A new price")

    @task.fused_invalidate_cache(udf="parcels", retries=2)
    def invalidate() -> dict:
        changed = changes_of_icechunk(open_repository(), since="shown", array="price")
        return {"geometry": changed, "zooms": "10-14"}

    @task
    def keep(snapshot: str):
        """Only now, so that a run that fails leaves its changes to the next one."""
        open_repository().reset_branch("shown", snapshot)

    snapshot = load()
    snapshot >> invalidate() >> keep(snapshot)


invalidate_icechunk_changes()
