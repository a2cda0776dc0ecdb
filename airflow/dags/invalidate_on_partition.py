"""Load a partition of an H3 dataset each day, and invalidate what its files cover. Needs Airflow 3.2 or later.

An event with a partition key starts only DAGs that are scheduled by `PartitionedAssetTimetable`, and an event without one
starts only those that are scheduled on the asset itself.
"""

import os

from airflow.sdk import Asset, CronPartitionTimetable, PartitionedAssetTimetable, dag, task

from airflow_provider_fused.operators import FusedInvalidateCacheOperator

HEXES = Asset("parcels_hexes")


@dag(schedule=CronPartitionTimetable("0 3 * * *", timezone="UTC", key_format="%Y-%m-%d"))
def load_partition():
    @task(outlets=[HEXES])  # whose event gets the run's key
    def load(dag_run=None):
        print("writing the folder", f"date={dag_run.partition_key}")  # your load

    load()


@dag(schedule=PartitionedAssetTimetable(assets=HEXES))
def invalidate_on_partition():
    FusedInvalidateCacheOperator(
        task_id="invalidate",
        udf="parcels",
        hex_dataset=os.environ.get("PARCELS_HEXES", "s3://bucket/parcels/"),
        partition="date={{ partition_key }}",
        zooms="10-14",
        render_resolution="fused",
        retries=2,
    )


load_partition()
invalidate_on_partition()
