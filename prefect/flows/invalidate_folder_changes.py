"""Load into a folder of files, then invalidate where files came, went, or were rewritten since the map was last brought up to
date."""

import json
import os
from pathlib import Path

from prefect import flow, task

from fused_cache_ops.changes import changes_of_folder, folder_listing
from prefect_fused import FusedCredentials, invalidate_cache


@task
def load():
    """Your load."""
    Path(os.environ["PARCELS_FOLDER"], "sold.parquet").unlink()


@flow
def invalidate_folder_changes() -> dict:
    load()
    shown = Path(os.environ["PARCELS_SHOWN"])
    listing = folder_listing(os.environ["PARCELS_FOLDER"], footprints=shown)
    changed = changes_of_folder(listing, since=shown)
    result = invalidate_cache("parcels", credentials=FusedCredentials(), geometry=changed, zooms="10-14")
    # Only now, so that a run that fails leaves its changes to the next one.
    shown.write_text(json.dumps(listing))
    return result


if __name__ == "__main__":
    invalidate_folder_changes()
