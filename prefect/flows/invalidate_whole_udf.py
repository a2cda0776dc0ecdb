"""Load new rows, then invalidate everything that the UDF has cached, for loads that change values all over the map."""

from prefect import flow, task

from fused_cache_ops.demo.stations import load_new_stations
from prefect_fused import FusedCredentials, invalidate_cache


@task
def load() -> None:
    load_new_stations()  # your load


@flow
def invalidate_whole_udf() -> dict:
    load()
    return invalidate_cache("charging_stations", credentials=FusedCredentials())


if __name__ == "__main__":
    invalidate_whole_udf()
