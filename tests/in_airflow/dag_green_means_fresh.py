"""DAGs whose maps must be right once they are green. The UDFs are those of `test_airflow_green_means_fresh.py`."""

from datetime import datetime

from airflow.sdk import dag, task

from airflow_provider_fused.operators import FusedInvalidateCacheOperator

START = datetime(2024, 1, 1)


@dag(schedule=None, start_date=START)
def callers():
    FusedInvalidateCacheOperator(task_id="t", udf="land/loader", related="callers")


@dag(schedule=None, start_date=START)
def callers_of_tiles():
    FusedInvalidateCacheOperator(task_id="t", udf="land/loader", tiles=["1/0/0"], related="callers")


@dag(schedule=None, start_date=START)
def inner():
    FusedInvalidateCacheOperator(task_id="t", udf="land/inner", tiles=["1/0/0"], inner_caches="{{ ['own', 'tmp'] | tojson }}")


@dag(schedule=None, start_date=START)
def instance():
    FusedInvalidateCacheOperator(task_id="t", udf="land/loader", tiles=["1/0/0"])


@dag(schedule=None, start_date=START)
def operator():
    FusedInvalidateCacheOperator(task_id="t", udf="land/slow", tiles=["1/0/0"], again_after="{{ 3 }}")


@dag(schedule=None, start_date=START)
def decorator():
    @task.fused_invalidate_cache(udf="land/slow", again_after=3)
    def changed():
        return ["1/0/0"]

    changed()


DAGS = {each.dag_id: each for each in (callers(), callers_of_tiles(), inner(), instance(), operator(), decorator())}
