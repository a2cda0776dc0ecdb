"""Load new rows, invalidate the map tiles they fall in, and then run the UDF for them, so that no visitor waits."""

import os

from prefect import flow, task

from fused_cache_ops.demo.stations import load_new_stations
from prefect_fused import invalidate_cache, refresh_cache


@task
def load() -> list[str]:
    return load_new_stations()  # your load, which returns the tiles it changed: ["10/486/391", …]


@flow
def refresh_after_load() -> dict:
    changed = load()
    invalidate_cache("charging_stations", tiles=changed)  # from here on, the map is right
    token = os.environ["STATIONS_SHARED_TOKEN"]  # or a Secret block: Secret.load("stations").get()
    return refresh_cache("charging_stations", tiles=changed, refresh=500, shared_token=token)


if __name__ == "__main__":
    refresh_after_load()
