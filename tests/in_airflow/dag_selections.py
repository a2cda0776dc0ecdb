"""A DAG with every way of giving the operator its arguments. The tests copy it into a DAGs folder and run it."""

from airflow.sdk import dag, task

from airflow_provider_fused.operators import FusedInvalidateCacheOperator
from fused_cache_ops import Tile

CELL = "89756a535a7ffff"
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
    def one() -> int:
        return 1

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
    operator.partial(task_id="expanded", udf="roads").expand_kwargs([{"tiles": ["1/0/0"]}, {}, {"whole_udf": True}])
    operator.partial(task_id="expanded_udfs", tiles=["1/0/0"]).expand_kwargs([{"udf": "roads"}, {"udf": "team/roads"}])
    operator.partial(task_id="expanded_shaper", udf="roads").expand_kwargs([{"max_tiles": 5}])
    operator(task_id="whole_said", udf="roads", whole_udf="{{ params.all }}", params={"all": True})
    operator(task_id="whole_rendered_to_nothing", udf="roads", whole_udf="{{ '' }}")
    box = '{"type": "Polygon", "coordinates": [[[1, 1], [2, 1], [2, 2], [1, 2], [1, 1]]]}'
    operator(task_id="bounds", udf="roads", bounds=(1, 1, 2, 2), zooms=range(3, 5))
    operator(
        task_id="bounds_template", udf="roads", bounds="{{ [1, 1, 2, 2] | tojson }}", zooms="{{ '3-4' }}", buffer="{{ 1 }}"
    )
    operator(task_id="bounds_none", udf="roads", bounds="{{ none }}", zooms=3)
    operator(task_id="bounds_empty", udf="roads", bounds="{{ [] }}", zooms=3)
    operator(task_id="geometry", udf="roads", geometry="{{ params.shape }}", zooms=[3, 4], params={"shape": box})
    operator(task_id="geometry_none", udf="roads", geometry="{{ none }}", zooms=3)
    operator(task_id="geometry_null", udf="roads", geometry="{{ none | tojson }}", zooms=3)
    operator(task_id="tiles_file", udf="roads", tiles_file="{{ var.value.get('tiles_file', '/nowhere') }}")
    operator(task_id="tiles_file_none", udf="roads", tiles_file="{{ none }}")
    operator(task_id="cells", udf="roads", cells=[CELL], zooms="0-1")
    operator(task_id="cells_template", udf="roads", cells="{{ params.cells }}", zooms="0-1", params={"cells": [CELL]})
    operator(task_id="cells_none", udf="roads", cells="{{ none }}", zooms=1)
    operator(task_id="cells_drawn", udf="roads", cells=[CELL], zooms=6, render_resolution="{{ {6: 1} }}")
    dataset = "{{ var.value.get('hex_dataset', '/nowhere') }}"
    operator(task_id="dataset_nowhere", udf="roads", hex_dataset=dataset, zooms=1)
    operator(
        task_id="partition_none",
        udf="roads",
        hex_dataset="{{ params.here }}",
        partition="{{ none }}",
        zooms=1,
        params={"here": "."},
    )
    operator(task_id="geometry_system", udf="roads", geometry="POINT (166979 166998)", crs="{{ 'EPSG:3857' }}", zooms="0-1")
    operator(task_id="zooms_none", udf="roads", tiles=FUSED_TILE, zooms="{{ none }}")
    operator(task_id="zooms_of_nothing", udf="roads", tiles=FUSED_TILE, zooms=forgotten)
    operator(task_id="related_of_nothing", udf="roads", tiles=FUSED_TILE, related=forgotten)

    @task
    def load_day(day: int) -> list[str]:
        return [f"1/{day}/0", f"1/{day}/1"][: day + 1]

    operator(task_id="mapped_loads", udf="roads", tiles=load_day.expand(day=[0, 1]))
    operator(task_id="udf_of_a_variable", udf="{{ var.value.roads_udf }}", tiles=FUSED_TILE)

    @task.fused_invalidate_cache(udf="roads")
    async def in_a_coroutine() -> list[str]:
        return FUSED_TILE

    in_a_coroutine()
    operator(task_id="no_connection", udf="roads", fused_conn_id="nowhere", retries=3)
    operator(task_id="too_many", udf="roads", bounds=[1, 1, 2, 2], zooms=14, max_tiles="{{ 10 }}", when_too_many="fail")
    refreshed = {"udf": "roads", "tiles": FUSED_TILE, "shared_token": "{{ var.value.roads_token }}"}
    inside = {"count": "{{ params.most }}", "zooms": "{{ params.zoom }}", "parameters": {"date": "{{ 'a' ~ 'b' }}"}}
    operator(task_id="refresh_rendered", refresh=inside, params={"most": 1, "zoom": 1}, **refreshed)
    operator(task_id="refresh_of_a_task", refresh={"count": one(), "must_succeed": "{{ true }}"}, **refreshed)
    operator(task_id="refresh_none", refresh={"zooms": "{{ none }}"}, **refreshed)
    operator(task_id="refresh_of_nothing", refresh={"zooms": forgotten}, **refreshed)
    operator.partial(task_id="refresh_mapped", **refreshed).expand(refresh=[{"count": 1}, "all", {"zoms": "1"}])
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
