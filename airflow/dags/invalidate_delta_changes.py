"""Load into a Delta table, then invalidate what its change data feed names: rows that came, went, and moved."""

import os

from airflow.sdk import dag, task  # Airflow 2: from airflow.decorators import dag, task
from deltalake import DeltaTable

from fused_cache_ops.changes import changes_of_delta


@dag(schedule=None)
def invalidate_delta_changes():
    @task
    def load() -> int:
        """Your load. It returns the version that the map shows so far."""
        table = DeltaTable(os.environ["PARCELS_DELTA"])
        version = table.version()
        table.delete("id = 'sold'")
        return version

    @task.fused_invalidate_cache(udf="parcels", retries=2)
    def invalidate(since: int) -> dict:
        changed = changes_of_delta(os.environ["PARCELS_DELTA"], since=since, crs="EPSG:4326")
        return {"geometry": changed, "zooms": "10-14"}

    invalidate(load())


invalidate_delta_changes()
