"""Write to an array of an Icechunk repository, then invalidate the chunks that were written since its last snapshot."""

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
        """Your load. It returns the snapshot that the map shows so far."""
        repo = open_repository()
        snapshot = repo.lookup_branch("main")
        session = repo.writable_session("main")
        zarr.open_array(session.store, path="price")[0, 0] = 4_500
        session.commit("A new price")
        return snapshot

    @task.fused_invalidate_cache(udf="parcels", retries=2)
    def invalidate(since: str) -> dict:
        changed = changes_of_icechunk(open_repository(), since=since, array="price")
        return {"geometry": changed, "zooms": "10-14"}

    invalidate(load())


invalidate_icechunk_changes()
