"""Load an asset. Its event starts the deployment `after-load` in prefect.yaml, which invalidates the tiles named here."""

from prefect import flow
from prefect.assets import Asset, materialize

from fused_cache_ops.demo.stations import load_new_stations

STATIONS = Asset(key="postgres://warehouse/charging_stations")


# A load whose result comes from Prefect's cache emits no event, and so invalidates nothing.
@materialize(STATIONS)
def load() -> None:
    STATIONS.add_metadata({"tiles": load_new_stations()})  # your load, and the tiles it changed


@flow
def load_asset() -> None:
    load()


if __name__ == "__main__":
    load_asset()
