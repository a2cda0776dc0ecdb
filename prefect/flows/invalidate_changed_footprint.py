"""Load a GeoParquet delivery, then invalidate the tiles of every changed shape, where it was and where it is now."""

from prefect import flow, task

from fused_cache_ops.demo.parcels import load_delivery
from prefect_fused import FusedCredentials, invalidate_cache


@task
def load() -> str:
    return load_delivery()  # your load, which returns the path of the changed shapes, here a GeoParquet file


@flow
def invalidate_changed_footprint() -> dict:
    return invalidate_cache("parcels", credentials=FusedCredentials(), geometry=load(), zooms="10-14")


if __name__ == "__main__":
    invalidate_changed_footprint()
