"""Load into a folder of files, then invalidate where files came, went, or were rewritten since the map was last brought up to
date."""

import json
import os
from pathlib import Path

import dagster as dg
import pyarrow

from dagster_fused import FusedResource, build_invalidate_cache_op
from fused_cache_ops.changes import changes_of_folder, folder_listing


@dg.op
def load() -> dg.Nothing:
    """Your load."""
    Path(os.environ["PARCELS_FOLDER"], "sold.parquet").unlink()


@dg.op(ins={"loaded": dg.In(dg.Nothing)})
def list_files() -> dict:
    return folder_listing(os.environ["PARCELS_FOLDER"], footprints=os.environ["PARCELS_SHOWN"])


@dg.op
def find_changes(listing: dict) -> pyarrow.Table:
    return changes_of_folder(listing, since=os.environ["PARCELS_SHOWN"])


invalidate = build_invalidate_cache_op("invalidate", udf="parcels", from_upstream="geometry", selection={"zooms": "10-14"})


@dg.op(ins={"invalidated": dg.In(dg.Nothing)})
def keep(listing: dict) -> None:
    """Only now, so that a run that fails leaves its changes to the next one."""
    Path(os.environ["PARCELS_SHOWN"]).write_text(json.dumps(listing))


@dg.job(op_retry_policy=dg.RetryPolicy(max_retries=2, delay=10))
def invalidate_folder_changes():
    listing = list_files(load())
    keep(listing=listing, invalidated=invalidate(geometry=find_changes(listing)))


defs = dg.Definitions(
    jobs=[invalidate_folder_changes],
    resources={"fused": FusedResource(token=dg.EnvVar("FUSED_SERVICE_ACCOUNT_TOKEN"))},
)

if __name__ == "__main__":
    defs.resolve_job_def("invalidate_folder_changes").execute_in_process()
