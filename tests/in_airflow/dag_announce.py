"""DAGs that announce. The place is in a variable."""

from datetime import datetime

from airflow.sdk import dag

from airflow_provider_fused.operators import FusedInvalidateCacheOperator, FusedInvalidateDatasetOperator

START = datetime(2024, 1, 1)


@dag(schedule=None, start_date=START)
def announce_file():
    how = {"to": "{{ var.value.announce_place }}", "source": "streets"}
    FusedInvalidateCacheOperator(task_id="t", udf="roads", tiles=["1/0/0"], announce=how)


@dag(schedule=None, start_date=START)
def announce_again():
    FusedInvalidateCacheOperator(
        task_id="t", udf="roads", tiles=["1/0/0"], again_after=1, announce="{{ var.value.announce_place }}"
    )


@dag(schedule=None, start_date=START)
def announce_dataset():
    FusedInvalidateDatasetOperator(
        task_id="t",
        dataset="lake",
        cache_map="{{ var.value.announce_map }}",
        tiles=["1/0/0"],
        announce="{{ var.value.announce_folder }}/",
    )


DAGS = {function().dag_id: function() for function in (announce_file, announce_again, announce_dataset)}
