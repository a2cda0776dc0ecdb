"""Load new rows, then invalidate the map tiles they fall in."""

from prefect import flow, task

from fused_cache_ops.demo.stations import load_new_stations
from prefect_fused import FusedCredentials, invalidate_cache


@task
def load() -> list[str]:
    return load_new_stations()  # your load, which returns the tiles it changed: ["10/486/391", …]


@flow
def load_then_invalidate() -> dict:
    credentials = FusedCredentials()  # from the environment; a stored block: FusedCredentials.load("production")
    # UDFs of the canvas that draw on this one keep results of their own, so they are invalidated too.
    return invalidate_cache("charging_stations", credentials=credentials, tiles=load(), related="callers")


if __name__ == "__main__":
    load_then_invalidate()
