"""Rewrite a partition of an H3 dataset, then invalidate the tiles of the cells that its files are named by."""

import os

from airflow.sdk import dag, task  # Airflow 2: from airflow.decorators import dag, task

from airflow_provider_fused.operators import FusedInvalidateCacheOperator


@dag(schedule=None)
def invalidate_hex_partition():
    @task
    def load() -> str:
        return "date=2026-11-22"  # your load, such as fused.h3.partition, which returns the folder it has written

    FusedInvalidateCacheOperator(
        task_id="invalidate",
        udf="parcels",
        hex_dataset=os.environ.get("PARCELS_HEXES", "s3://bucket/parcels/"),
        partition=load(),
        zooms="10-14",
        render_resolution="fused",
        retries=2,
    )


invalidate_hex_partition()
