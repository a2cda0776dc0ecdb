"""Load into a raster, then invalidate the blocks that differ from a copy of what the map shows."""

import os
import shutil
from pathlib import Path

import dagster as dg
import pyarrow
import rasterio

from dagster_fused import FusedResource, build_invalidate_cache_op
from fused_cache_ops.changes import changed_raster


@dg.op
def load() -> str:
    """Your load. It returns a copy of what the map shows so far."""
    path = os.environ["PARCELS_RASTER"]
    before = f"{path}.before.tif"
    if not Path(before).exists():  # a retry goes on comparing with what the map shows
        shutil.copy(path, before)
    with rasterio.open(path, "r+") as raster:
        raster.write(raster.read(window=((0, 1), (0, 1))) + 1, window=((0, 1), (0, 1)))
    return before


@dg.op
def find_changes(before: str) -> pyarrow.Table:
    return changed_raster(before, os.environ["PARCELS_RASTER"])


invalidate = build_invalidate_cache_op("invalidate", udf="parcels", from_upstream="geometry", selection={"zooms": "10-14"})


@dg.op(ins={"invalidated": dg.In(dg.Nothing)})
def forget(before: str) -> None:
    """Only now, so that a run that fails leaves its changes to the next one."""
    Path(before).unlink()


@dg.job(op_retry_policy=dg.RetryPolicy(max_retries=2, delay=10))
def invalidate_changed_raster():
    before = load()
    forget(before=before, invalidated=invalidate(geometry=find_changes(before)))


defs = dg.Definitions(
    jobs=[invalidate_changed_raster],
    resources={"fused": FusedResource(token=dg.EnvVar("FUSED_SERVICE_ACCOUNT_TOKEN"))},
)

if __name__ == "__main__":
    defs.resolve_job_def("invalidate_changed_raster").execute_in_process()
