"""Load new rows, then invalidate every UDF that shows the table, as fused-cache.toml beside this file says."""

from airflow.sdk import dag, task  # Airflow 2: from airflow.decorators import dag, task

from airflow_provider_fused.operators import FusedInvalidateDatasetOperator
from fused_cache_ops.demo.stations import load_new_stations


@dag(schedule=None)
def invalidate_dataset():
    @task
    def load() -> list[str]:
        return load_new_stations()  # your load, which returns the tiles it changed

    FusedInvalidateDatasetOperator(task_id="invalidate", dataset="s3://bucket/stations", tiles=load(), retries=2)


invalidate_dataset()
