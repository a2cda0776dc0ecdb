"""Load a delivery with DuckDB, and invalidate the tiles of the rows that it brought. The decorated function returns the table
itself, which no XCom could hold."""

import os

import duckdb
from airflow.sdk import dag, task  # Airflow 2: from airflow.decorators import dag, task


@dag(schedule=None)
def invalidate_loaded_rows():
    @task.fused_invalidate_cache(udf="parcels")  # no retries: they would load again
    def load() -> dict:
        with duckdb.connect(os.environ["PARCELS_DATABASE"]) as database:
            delivery = database.read_parquet(os.environ["PARCELS_DELIVERY"])
            delivery.insert_into("parcels")
            changed = delivery.select("geometry").to_arrow_table()
        return {"geometry": changed, "geometry_column": "geometry", "crs": "EPSG:4326", "zooms": "10-14"}

    load()


invalidate_loaded_rows()
