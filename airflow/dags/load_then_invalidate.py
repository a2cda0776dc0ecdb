"""Load new rows, then invalidate the map tiles they fall in."""

from airflow.sdk import dag, task  # Airflow 2: from airflow.decorators import dag, task

from airflow_provider_fused.operators import FusedInvalidateCacheOperator
from fused_cache_ops.demo.stations import load_new_stations


@dag(schedule=None)
def load_then_invalidate():
    @task
    def load() -> list[str]:
        return load_new_stations()  # your load, which returns the tiles it changed: ["10/486/391", …]

    # UDFs of the canvas that draw on this one keep results of their own, so they are invalidated too.
    FusedInvalidateCacheOperator(task_id="invalidate", udf="charging_stations", tiles=load(), related="callers", retries=2)


load_then_invalidate()
