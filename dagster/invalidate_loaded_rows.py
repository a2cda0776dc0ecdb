"""Load a delivery with DuckDB, then invalidate the tiles of the rows that it brought. The table passes from op to op."""

import os

import dagster as dg
import duckdb
import pyarrow

from dagster_fused import FusedResource, build_invalidate_cache_op


@dg.op
def load() -> pyarrow.Table:
    with duckdb.connect(os.environ["PARCELS_DATABASE"]) as database:
        delivery = database.read_parquet(os.environ["PARCELS_DELIVERY"])
        delivery.insert_into("parcels")
        return delivery.select("geometry").to_arrow_table()


invalidate = build_invalidate_cache_op(
    "invalidate",
    udf="parcels",
    from_upstream="geometry",
    selection={"geometry_column": "geometry", "crs": "EPSG:4326", "zooms": "10-14"},
)


@dg.job
def invalidate_loaded_rows():
    invalidate(geometry=load())


defs = dg.Definitions(
    jobs=[invalidate_loaded_rows],
    resources={"fused": FusedResource(token=dg.EnvVar("FUSED_SERVICE_ACCOUNT_TOKEN"))},
)

if __name__ == "__main__":
    defs.resolve_job_def("invalidate_loaded_rows").execute_in_process()
