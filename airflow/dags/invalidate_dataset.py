"""Load new rows, then invalidate every UDF that shows the table, as fused-cache.toml beside this file says."""

from airflow.sdk import dag, task  # Airflow 2: from airflow.decorators import dag, task

from airflow_provider_fused.operators import FusedInvalidateDatasetOperator


@dag(schedule=None)
def invalidate_dataset():
    @task
    def load() -> list[str]:
        return ["10/486/391", "10/486/392"]  # your load, which returns the tiles it changed

    FusedInvalidateDatasetOperator(task_id="invalidate", dataset="s3://bucket/stations", tiles=load(), retries=2)


invalidate_dataset()
