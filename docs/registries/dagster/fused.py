import dagster as dg

from dagster_fused import FusedResource, build_fused_cache_asset


@dg.asset
def roads() -> None: ...  # write the new rows


# After each materialization of the table, the map tiles in this box are invalidated.
roads_cache = build_fused_cache_asset(
    "roads_cache",
    udf="roads",
    deps=[roads],
    selection={"bounds": (-9.25, 38.68, -9.08, 38.80), "zooms": "10-16"},
)

defs = dg.Definitions(
    assets=[roads, roads_cache],
    resources={"fused": FusedResource(token=dg.EnvVar("FUSED_SERVICE_ACCOUNT_TOKEN"))},
)
