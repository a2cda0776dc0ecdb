"""Load a delivery with DuckDB, then invalidate the tiles of the rows that it brought: the relation says what changed."""

import os

import duckdb
from prefect import flow

from prefect_fused import FusedCredentials, invalidate_cache


@flow
def invalidate_loaded_rows() -> dict:
    with duckdb.connect(os.environ["PARCELS_DATABASE"]) as database:
        delivery = database.read_parquet(os.environ["PARCELS_DELIVERY"])
        delivery.insert_into("parcels")
        changed = delivery.select("geometry")
        return invalidate_cache(
            "parcels",
            credentials=FusedCredentials(),
            geometry=changed,
            geometry_column="geometry",
            crs="EPSG:4326",
            zooms="10-14",
        )


if __name__ == "__main__":
    invalidate_loaded_rows()
