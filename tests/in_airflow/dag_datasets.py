"""DAGs that invalidate datasets. The UDFs and the map are those of `test_airflow_datasets.py`."""

from datetime import datetime

from airflow.sdk import Asset, Metadata, dag, task  # noqa: F401

from airflow_provider_fused.operators import FusedInvalidateDatasetOperator

START = datetime(2024, 1, 1)
PARCELS = Asset("s3://bucket/parcels")
BOUNDS = [13.0, 52.3, 13.8, 52.7]


@dag(schedule=None, start_date=START)
def named():
    FusedInvalidateDatasetOperator(task_id="t", dataset="s3://bucket/parcels", bounds=BOUNDS)


@dag(schedule=None, start_date=START)
def by_inlet():
    @task
    def load():
        return BOUNDS

    FusedInvalidateDatasetOperator(task_id="t", inlets=[PARCELS], bounds=load())


@dag(schedule=None, start_date=START)
def nothing_named():
    FusedInvalidateDatasetOperator(task_id="t", bounds=BOUNDS)


@dag(schedule=None, start_date=START)
def missing():
    FusedInvalidateDatasetOperator(task_id="t", dataset="roads", whole_udf=True, retries=3)


@dag(schedule=None, start_date=START)
def again():
    FusedInvalidateDatasetOperator(task_id="t", dataset="later", tiles=["1/0/0"])


@dag(schedule=None, start_date=START)
def again_beside_a_missing_one():
    FusedInvalidateDatasetOperator(task_id="t", dataset="beside", tiles=["1/0/0"])


DAGS = {each.__name__: each() for each in (named, by_inlet, nothing_named, missing, again, again_beside_a_missing_one)}
