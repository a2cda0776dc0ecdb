"""A DAG with every way of giving the operator its arguments. The tests copy it into a DAGs folder and run it."""

from airflow.sdk import dag, task

from airflow_provider_fused.operators import FusedInvalidateCacheOperator
from fused_cache_ops import Tile

FUSED_TILE = ["1/0/0", "1/1/1"]


@dag(schedule=None)
def selections():
    @task
    def strings() -> list[str]:
        return FUSED_TILE

    @task
    def named_tuples() -> list[Tile]:
        return [Tile(1, 0, 0), Tile(1, 1, 1)]

    @task
    def nothing() -> None:
        return None

    @task
    def empty() -> list[str]:
        return []

    @task
    def udfs() -> list[str]:
        return ["roads", "team/roads"]

    changed, forgotten = strings(), nothing()
    operator = FusedInvalidateCacheOperator
    operator(task_id="whole", udf="roads")
    operator(task_id="static", udf="roads", tiles=[(1, 0, 0), "1/0/1"])
    operator(task_id="one_tile", udf="roads", tiles=["1/0/0"])
    operator(task_id="output", udf="roads", tiles=changed)
    operator(task_id="output_of_tiles", udf="roads", tiles=named_tuples())
    operator(task_id="output_empty", udf="roads", tiles=empty())
    operator(task_id="output_none", udf="roads", tiles=forgotten)
    template = "{{ ti.xcom_pull(task_ids='%s') %s}}"
    changed >> operator(task_id="template", udf="{{ 'ro' + 'ads' }}", tiles=template % ("strings", ""))
    changed >> operator(task_id="template_json", udf="roads", tiles=template % ("strings", "| tojson "))
    forgotten >> operator(task_id="template_none", udf="roads", tiles=template % ("nothing", ""))
    forgotten >> operator(task_id="template_null", udf="roads", tiles=template % ("nothing", "| tojson "))
    operator(task_id="template_blank", udf="roads", tiles="{{ '' }}")
    operator(task_id="template_udf_none", udf="{{ none }}")
    operator(task_id="template_connection", udf="roads", fused_conn_id="fused_{{ 'default' }}")
    operator.partial(task_id="mapped").expand(udf=udfs())
    operator.partial(task_id="mapped_none", udf="roads").expand(tiles=[["1/1/1"], None])
    # A permanent failure is not tried again, however many retries the task has.
    operator(task_id="unknown", udf="nowhere", retries=3)


@dag(schedule=None, render_template_as_native_obj=True)
def native_selections():
    @task
    def nothing() -> None:
        return None

    @task
    def strings() -> list[str]:
        return FUSED_TILE

    template = "{{ ti.xcom_pull(task_ids='%s') }}"
    operator = FusedInvalidateCacheOperator
    strings() >> operator(task_id="native", udf="roads", tiles=template % "strings")
    nothing() >> operator(task_id="native_none", udf="roads", tiles=template % "nothing")


SELECTIONS = selections()
NATIVE_SELECTIONS = native_selections()
