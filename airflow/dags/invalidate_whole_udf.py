"""Load new rows, then invalidate everything that a UDF has cached."""

from airflow.sdk import dag, task  # Airflow 2: from airflow.decorators import dag, task

from airflow_provider_fused.operators import FusedInvalidateCacheOperator


@dag(schedule=None)
def invalidate_whole_udf():
    @task
    def load() -> None: ...  # your load

    load() >> FusedInvalidateCacheOperator(task_id="invalidate", udf="parcels", retries=2)


invalidate_whole_udf()
