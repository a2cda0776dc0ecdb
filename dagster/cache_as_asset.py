"""A map's cache as an asset: when a district has been loaded, automation invalidates its tiles."""

from datetime import timedelta
from typing import Any

import dagster as dg

from dagster_fused import FusedResource, build_fused_cache_asset, build_fused_cache_check

BOUNDS = {"lisboa": (-9.25, 38.68, -9.08, 38.80), "porto": (-8.70, 41.13, -8.55, 41.19)}
DISTRICTS = dg.StaticPartitionsDefinition(list(BOUNDS))
ZOOMS: Any = {"zooms": "10-14"}


@dg.asset(partitions_def=DISTRICTS)
def parcels(context: dg.AssetExecutionContext) -> None:
    context.log.info(f"loading {context.partition_key}")  # your load, of one district


def changed(context: Any, partition_key: str) -> dict[str, Any]:
    return {"bounds": BOUNDS[partition_key]}  # or the tiles that its rows fall in


parcels_cache = build_fused_cache_asset(
    "parcels_cache",
    udf="parcels",
    deps=[parcels],
    selection_fn=changed,
    selection=ZOOMS,
    partitions_def=DISTRICTS,
    retry_policy=dg.RetryPolicy(max_retries=2, delay=10),
    # The page of the asset turns red if no load has reached the map for a day and a half.
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=36), warn_window=timedelta(hours=26)),
)

fresh = build_fused_cache_check(parcels_cache, udf="parcels", selection_fn=changed, selection=ZOOMS, verify_tiles=5)

defs = dg.Definitions(
    assets=[parcels, parcels_cache],
    asset_checks=[fresh],
    sensors=[
        dg.AutomationConditionSensorDefinition(
            "automation", target="*", default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=5
        )
    ],
    executor=dg.in_process_executor,  # an invalidation mostly waits for the service, so it needs no separate process
    resources={
        "fused": FusedResource(
            token=dg.EnvVar("FUSED_SERVICE_ACCOUNT_TOKEN"),
            shared_token=dg.EnvVar("PARCELS_SHARED_TOKEN"),  # only for the check, which requests tiles
        )
    },
)

if __name__ == "__main__":
    defs.resolve_implicit_global_asset_job_def().execute_in_process(partition_key="lisboa")
