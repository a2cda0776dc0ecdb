"""Load new rows, then invalidate the tiles they fall in, for each UDF that draws them."""

from prefect import flow, task, unmapped

from fused_cache_ops.demo.stations import load_new_stations
from prefect_fused import FusedCredentials, invalidate_cache


@task
def load() -> list[str]:
    return load_new_stations()  # your load, which returns the tiles it changed


@flow
def invalidate_many_udfs() -> list[dict]:
    # Prefect maps over blocks and lists too, so wrap what is the same for all in unmapped.
    return invalidate_cache.map(
        ["charging_stations", "charging_density"], credentials=unmapped(FusedCredentials()), tiles=unmapped(load())
    ).result()


if __name__ == "__main__":
    invalidate_many_udfs()
