"""Load into a Delta table, then invalidate what its change data feed names: rows that came, went, and moved."""

import os

from deltalake import DeltaTable
from prefect import flow, task

from fused_cache_ops.changes import changes_of_delta
from prefect_fused import FusedCredentials, invalidate_cache


@task
def load() -> int:
    """Your load. It returns the version that the map shows so far."""
    table = DeltaTable(os.environ["PARCELS_DELTA"])
    version = table.version()
    table.delete("id = 'sold'")
    return version


@flow
def invalidate_delta_changes() -> dict:
    changed = changes_of_delta(os.environ["PARCELS_DELTA"], since=load(), crs="EPSG:4326")
    return invalidate_cache("parcels", credentials=FusedCredentials(), geometry=changed, zooms="10-14")


if __name__ == "__main__":
    invalidate_delta_changes()
