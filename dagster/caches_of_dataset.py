"""The caches of every UDF that shows a table as assets, as fused-cache.toml beside this file says."""

import dagster as dg

from dagster_fused import FusedResource, build_fused_cache_assets, loads_since_invalidation
from fused_cache_ops.demo.stations import load_new_stations


@dg.asset(key_prefix="raw")
def stations() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"changed": load_new_stations()})  # your load, which returns the tiles it changed


def changed(context: dg.AssetExecutionContext, partition_key: str | None) -> list[str]:
    """The tiles that the table's loads have changed since the cache was last invalidated."""
    loads = loads_since_invalidation(context, ["raw", "stations"])
    return [tile for load in loads for tile in load.metadata["changed"].value]


caches = build_fused_cache_assets(
    "fused-cache.toml", selection_fn={"raw/stations": changed}, retry_policy=dg.RetryPolicy(max_retries=2, delay=10)
)

defs = dg.Definitions(
    assets=[stations, *caches],
    sensors=[
        dg.AutomationConditionSensorDefinition(
            "automation", target="*", default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=5
        )
    ],
    executor=dg.in_process_executor,  # an invalidation mostly waits for the service, so it needs no separate process
    resources={
        "fused": FusedResource(
            token=dg.EnvVar("FUSED_SERVICE_ACCOUNT_TOKEN"),
            base_url=dg.EnvVar("FUSED_BASE_URL"),  # omit this line for fused.io itself
        )
    },
)

if __name__ == "__main__":
    defs.resolve_implicit_global_asset_job_def().execute_in_process()
