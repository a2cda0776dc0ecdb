"""An existing asset gets a hook: once it is loaded, the tiles named in its metadata are invalidated."""

from typing import Any

import dagster as dg

from dagster_fused import FusedResource, fused_invalidate_cache_on_success
from fused_cache_ops.demo.stations import load_new_stations


def changed(context: dg.HookContext, partition_key: Any) -> Any:
    return context.op_output_metadata["result"]["tiles"]


@dg.asset(hooks={fused_invalidate_cache_on_success("charging_stations", selection_fn=changed)})
def stations(context: dg.AssetExecutionContext) -> None:
    context.add_output_metadata({"tiles": load_new_stations()})  # your load, which returns the tiles it changed


defs = dg.Definitions(assets=[stations], resources={"fused": FusedResource(token=dg.EnvVar("FUSED_SERVICE_ACCOUNT_TOKEN"))})

if __name__ == "__main__":
    defs.resolve_implicit_global_asset_job_def().execute_in_process()
