"""Load into a raster, then invalidate the blocks that differ from a copy of what the map shows."""

import os
import shutil
from pathlib import Path

import rasterio
from prefect import flow, task

from fused_cache_ops.changes import changed_raster
from prefect_fused import FusedCredentials, invalidate_cache


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


@flow
def invalidate_changed_raster() -> dict:
    before = load()
    changed = changed_raster(before, os.environ["PARCELS_RASTER"])
    result = invalidate_cache("parcels", credentials=FusedCredentials(), geometry=changed, zooms="10-14")
    Path(before).unlink()  # only now, so that a run that fails leaves its changes to the next one
    return result


if __name__ == "__main__":
    invalidate_changed_raster()
