"""Load into a folder of files, then invalidate where files came, went, or were rewritten since the map was last brought up to
date."""

import json
import os
from pathlib import Path

from airflow.sdk import dag, task  # Airflow 2: from airflow.decorators import dag, task

from fused_cache_ops.changes import changes_of_folder, folder_listing


@dag(schedule=None)
def invalidate_folder_changes():
    @task
    def load():
        """Your load."""
        Path(os.environ["PARCELS_FOLDER"], "sold.parquet").unlink()

    @task
    def list_files() -> str:
        """The listing after the load, beside that of what the map shows."""
        shown = Path(os.environ["PARCELS_SHOWN"])
        listing = shown.with_name("now.json")
        listing.write_text(json.dumps(folder_listing(os.environ["PARCELS_FOLDER"], footprints=shown)))
        return str(listing)

    @task.fused_invalidate_cache(udf="parcels", retries=2)
    def invalidate(listing: str) -> dict:
        return {"geometry": changes_of_folder(listing, since=os.environ["PARCELS_SHOWN"]), "zooms": "10-14"}

    @task
    def keep(listing: str):
        """Only now, so that a run that fails leaves its changes to the next one."""
        Path(listing).replace(os.environ["PARCELS_SHOWN"])

    listing = list_files()
    load() >> listing
    invalidate(listing) >> keep(listing)


invalidate_folder_changes()
