"""Whenever an asset of the map is materialized, by any flow, invalidate every UDF that shows it."""

from pathlib import Path

from prefect_fused import build_dataset_triggers, invalidate_dataset_flow

MAP = Path(__file__).with_name("fused-cache.toml")

if __name__ == "__main__":
    # The load says what changed: asset.add_metadata({"tiles": ["10/486/391"]}).
    invalidate_dataset_flow.serve(
        "after-load", parameters={"cache_map": str(MAP)}, triggers=build_dataset_triggers(MAP, selection="tiles")
    )
