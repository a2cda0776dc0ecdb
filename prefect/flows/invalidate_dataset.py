"""Load new rows, then invalidate every UDF that shows the table, as fused-cache.toml beside this file says."""

from prefect import flow, task

from fused_cache_ops.demo.stations import load_new_stations
from prefect_fused import invalidate_dataset


@task
def load() -> list[str]:
    return load_new_stations()  # your load, which returns the tiles it changed


@flow
def refresh_maps() -> dict:
    return invalidate_dataset("s3://bucket/stations", tiles=load())


if __name__ == "__main__":
    refresh_maps()
