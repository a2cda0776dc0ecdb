"""DAGs for the rows of the table of what is red and what stays green. Each has one task that invalidates."""

from datetime import timedelta

from airflow.sdk import Asset, Metadata, dag, task  # noqa: F401

from airflow_provider_fused.notifications import FusedInvalidateCacheNotifier
from airflow_provider_fused.operators import (
    FusedInvalidateCacheOperator,
    FusedInvalidateDatasetOperator,
    FusedRefreshCacheOperator,
)

OF_THE_TASK = {"task_id": "t", "outlets": [Asset("s3://bucket/map")], "retries": 2, "retry_delay": timedelta(0)}
TOKEN = {"shared_token": "{{ var.value.roads_token }}"}


def invalidating(name, operator=FusedInvalidateCacheOperator, **fields):
    @dag(dag_id=f"rg_{name}", schedule=None)
    def made():
        operator(**OF_THE_TASK, **{"udf": "roads", "tiles": ["1/0/0"], **fields})

    return made()


@dag(schedule=None)
def rg_none():
    @task
    def forgot():
        return None

    FusedInvalidateCacheOperator(udf="roads", tiles=forgot(), **OF_THE_TASK)


@dag(schedule=None)
def rg_dataset():
    FusedInvalidateDatasetOperator(dataset="lake", cache_map="{{ var.value.map }}", tiles=["1/0/0"], **OF_THE_TASK)


@dag(schedule=None)
def rg_notifier():
    @task(outlets=OF_THE_TASK["outlets"], on_success_callback=FusedInvalidateCacheNotifier(udf="roads", tiles=["1/0/0"]))
    def t():
        return None

    t()


DAGS = {
    "simple": invalidating("simple"),
    "nothing": invalidating("nothing", tiles=[]),
    "rendered_to_nothing": invalidating("rendered_to_nothing", tiles="{{ none }}"),
    "verified": invalidating("verified", verify_tiles=1, **TOKEN),
    "verified_leniently": invalidating("verified_leniently", verify_tiles=1, fail_on_stale=False, **TOKEN),
    "refreshed": invalidating("refreshed", refresh="all", **TOKEN),
    "must_be_refreshed": invalidating("must_be_refreshed", refresh={"must_succeed": True}, **TOKEN),
    "refresh": invalidating("refresh", FusedRefreshCacheOperator, **TOKEN),
    "none": rg_none(),
    "dataset": rg_dataset(),
    "notifier": rg_notifier(),
}
