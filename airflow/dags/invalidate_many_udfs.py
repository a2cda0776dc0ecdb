"""Invalidate the same tiles of several UDFs: one mapped task per UDF, each with all the tiles."""

from airflow.sdk import dag, task  # Airflow 2: from airflow.decorators import dag, task

from airflow_provider_fused.operators import FusedInvalidateCacheOperator


@dag(schedule=None)
def invalidate_many_udfs():
    @task
    def load() -> list[str]:
        return ["10/486/391", "10/486/392"]  # your load, which returns the tiles it changed

    @task
    def readers() -> list[str]:
        return ["parcels", "parcels_by_owner"]  # the UDFs that read the table

    FusedInvalidateCacheOperator.partial(task_id="invalidate", tiles=load(), retries=2).expand(udf=readers())


invalidate_many_udfs()
