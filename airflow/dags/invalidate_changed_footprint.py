"""Load a GeoParquet delivery, then invalidate the tiles of every changed shape, where it was and where it is now."""

from airflow.sdk import dag, task  # Airflow 2: from airflow.decorators import dag, task

from airflow_provider_fused.operators import FusedInvalidateCacheOperator
from fused_cache_ops.demo.parcels import load_delivery


@dag(schedule=None)
def invalidate_changed_footprint():
    @task
    def load() -> str:
        return load_delivery()  # your load, which returns the path of the changed shapes, here a GeoParquet file

    FusedInvalidateCacheOperator(task_id="invalidate", udf="parcels", geometry=load(), zooms="10-14", retries=2)


invalidate_changed_footprint()
