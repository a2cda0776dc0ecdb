"""Invalidate in the load's success callback. Prefer the operator: a failing callback leaves the run green."""

from airflow.sdk import dag, task  # Airflow 2: from airflow.decorators import dag, task

from airflow_provider_fused.notifications import FusedInvalidateCacheNotifier


@dag(schedule=None)
def invalidate_by_notifier():
    @task(on_success_callback=FusedInvalidateCacheNotifier(udf="parcels", tiles="{{ ti.xcom_pull(task_ids='load') }}"))
    def load() -> list[str]:
        return ["10/486/391", "10/486/392"]  # your load, which returns the tiles it changed

    load()


invalidate_by_notifier()
