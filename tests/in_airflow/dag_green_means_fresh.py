"""DAGs whose maps must be right once they are green. The UDFs are those of `test_airflow_green_means_fresh.py`."""

from datetime import datetime

from airflow.sdk import dag, task

from airflow_provider_fused.operators import FusedInvalidateCacheOperator, FusedInvalidateDatasetOperator

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
def index():
    how = {"path": "s3://lake/hexes/", "run": True, "prefix": "date={{ 2026 }}"}
    FusedInvalidateCacheOperator(task_id="t", udf="land/hexes", tiles=["1/0/0"], h3_index=how)


@dag(schedule=None, start_date=START)
def index_decorator():
    @task.fused_invalidate_cache(udf="land/hexes", h3_index={"path": "s3://lake/hexes/", "run": "{{ true }}"})
    def changed():
        return ["1/0/0"]

    changed()


@dag(schedule=None, start_date=START)
def index_dataset():
    FusedInvalidateDatasetOperator(task_id="t", dataset="hexes", cache_map="{{ var.value.hexes_map }}", tiles=["1/0/0"])


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


FUNCTIONS = (callers, callers_of_tiles, inner, index, index_decorator, index_dataset, instance, operator, decorator)
DAGS = {function().dag_id: function() for function in FUNCTIONS}
