"""Two pipelines stay unchanged: sensors invalidate after the runs of a job, and after each load of an asset."""

from typing import Any

import dagster as dg

from dagster_fused import FusedResource, build_invalidate_on_asset_sensor, build_invalidate_on_run_success_sensor
from fused_cache_ops.demo.stations import load_new_stations


@dg.asset
def stations() -> dg.MaterializeResult[Any]:
    return dg.MaterializeResult(metadata={"tiles": load_new_stations()})  # the tiles it changed: ["10/486/391", …]


@dg.op
def load() -> None: ...  # your load, of which nothing is known except that it succeeded


@dg.job
def nightly() -> None:
    load()


def changed(materialization: dg.AssetMaterialization, partition_key: Any) -> Any:
    return materialization.metadata["tiles"]


defs = dg.Definitions(
    assets=[stations],
    jobs=[nightly],
    sensors=[
        build_invalidate_on_asset_sensor(
            "after_stations",
            asset_key="stations",
            udf="charging_stations",
            selection_fn=changed,
            default_status=dg.DefaultSensorStatus.RUNNING,
        ),
        build_invalidate_on_run_success_sensor(
            "after_nightly",
            monitored_jobs=[nightly],
            udf="parcels",  # the whole UDF
            default_status=dg.DefaultSensorStatus.RUNNING,
        ),
    ],
    resources={"fused": FusedResource(token=dg.EnvVar("FUSED_SERVICE_ACCOUNT_TOKEN"))},
)
