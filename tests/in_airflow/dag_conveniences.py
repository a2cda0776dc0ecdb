"""DAGs for `test_conveniences.py`, which copies them into a DAGs folder and runs them."""

from datetime import datetime, timedelta

from airflow.sdk import Asset, Metadata, dag, task

from airflow_provider_fused.operators import FusedInvalidateCacheOperator

START = datetime(2024, 1, 1)
TABLE = Asset("roads_table")
MAP = Asset("roads_map")
TILES = [[10, x, y] for x in range(10) for y in range(10)]
operator = FusedInvalidateCacheOperator


@dag(schedule=None, start_date=START)
def mapped():
    token = "{{ var.value.roads_udf }}"
    operator.partial(task_id="over_udfs", tiles=["1/0/0"]).expand(udf=["roads", "team/roads", token])
    operator.partial(task_id="from_dicts").expand_kwargs([{"udf": "roads", "tiles": []}, {"udf": token, "whole_udf": True}])
    operator.partial(task_id="over_shards", udf="roads", tiles=TILES).expand(shard=[[0, 2], [1, 2]])
    own = operator.partial(task_id="named", tiles=[], map_index_template="{{ task.udf }}!")
    own.expand(udf=["roads"])
    operator.partial(task_id="failed", tiles=["1/0/0"]).expand(udf=["nowhere"])
    operator(task_id="not_mapped", udf="roads", tiles=[])


@dag(schedule=None, start_date=START)
def recorded():
    operator(
        task_id="invalidate",
        udf="roads",
        tiles=TILES,
        checkpoint="airflow://task-state",
        retries=1,
        retry_delay=timedelta(seconds=0),
    )


@dag(schedule=None, start_date=START)
def load():
    @task(outlets=[TABLE])
    def write(params: dict):
        yield Metadata(TABLE, params["extra"])

    write()


@dag(schedule=[TABLE], start_date=START)
def after_load():
    operator(
        task_id="invalidate",
        udf="roads",
        tiles_from_events="{{ 'tiles' }}",
        inlets=[TABLE, MAP],
        outlets=[MAP],
        again_after=0.1,
    )


DAGS = {each.__name__: each() for each in (mapped, recorded, load, after_load)}
