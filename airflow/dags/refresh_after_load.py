"""Load new rows, invalidate the map tiles they fall in, and then run the UDF for them, in a task that no load waits for."""

from airflow.sdk import dag, task  # Airflow 2: from airflow.decorators import dag, task

from airflow_provider_fused.operators import FusedInvalidateCacheOperator, FusedRefreshCacheOperator
from fused_cache_ops.demo.stations import load_new_stations


@dag(schedule=None)
def refresh_after_load():
    @task
    def load() -> list[str]:
        return load_new_stations()  # your load, which returns the tiles it changed: ["10/486/391", …]

    changed = load()
    invalidate = FusedInvalidateCacheOperator(task_id="invalidate", udf="charging_stations", tiles=changed, retries=2)
    refresh = FusedRefreshCacheOperator(
        task_id="refresh",
        udf="charging_stations",
        tiles=changed,
        refresh=500,  # of these at most, coarse zooms first
        shared_token="{{ var.value.stations_shared_token }}",  # noqa: S106 - a template
        priority_weight=1,
        weight_rule="absolute",  # any other task that waits for a slot comes first
        retries=2,
    )
    invalidate >> refresh


refresh_after_load()
