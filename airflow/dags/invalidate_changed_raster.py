"""Load into a raster, then invalidate the blocks that differ from a copy of what the map shows."""

import os
import shutil
from pathlib import Path

import rasterio
from airflow.sdk import dag, task  # Airflow 2: from airflow.decorators import dag, task

from fused_cache_ops.changes import changed_raster


@dag(schedule=None)
def invalidate_changed_raster():
    @task
    def load() -> str:
        """Your load. It returns a copy of what the map shows so far."""
        path = os.environ["PARCELS_RASTER"]
        before = f"{path}.before.tif"
        if not Path(before).exists():  # a retry goes on comparing with what the map shows
            shutil.copy(path, before)
        with rasterio.open(path, "r+") as raster:
            raster.write(raster.read(window=((0, 1), (0, 1))) + 1, window=((0, 1), (0, 1)))
        return before

    @task.fused_invalidate_cache(udf="parcels", retries=2)
    def invalidate(before: str) -> dict:
        return {"geometry": changed_raster(before, os.environ["PARCELS_RASTER"]), "zooms": "10-14"}

    @task
    def forget(before: str):
        """Only now, so that a run that fails leaves its changes to the next one."""
        Path(before).unlink()

    before = load()
    invalidate(before) >> forget(before)


invalidate_changed_raster()
