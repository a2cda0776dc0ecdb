"""A map's cache as an asset, and a check that runs the UDF for what changed, so that no visitor waits."""

from typing import Any

import dagster as dg

from dagster_fused import FusedResource, build_fused_cache_asset, build_fused_refresh_check, loads_since_invalidation
from fused_cache_ops.demo.stations import load_new_stations


@dg.asset
def stations() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"tiles": load_new_stations()})  # your load, with the tiles it changed


def changed(context: Any, partition_key: str | None) -> list[str]:
    loads = loads_since_invalidation(context, stations.key)  # there may be several before the cache's run
    return [tile for load in loads for tile in load.metadata["tiles"].value]


stations_cache = build_fused_cache_asset("stations_cache", udf="charging_stations", deps=[stations], selection_fn=changed)

warm = build_fused_refresh_check(
    stations_cache, udf="charging_stations", selection_fn=changed, selection={"refresh": 500}
)  # of these at most, coarse zooms first

defs = dg.Definitions(
    assets=[stations, stations_cache],
    asset_checks=[warm],
    executor=dg.in_process_executor,
    resources={
        "fused": FusedResource(
            token=dg.EnvVar("FUSED_SERVICE_ACCOUNT_TOKEN"),
            shared_token=dg.EnvVar("STATIONS_SHARED_TOKEN"),  # for the check, which requests tiles
        )
    },
)

if __name__ == "__main__":
    with dg.DagsterInstance.ephemeral() as instance:
        defs.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance)
