"""Whenever any DAG updates the table, invalidate the tiles named in its event."""

from datetime import datetime

from airflow.sdk import Asset, Metadata, dag, task

TABLE = Asset("parcels_table")
MAP = Asset("parcels_map")


@dag(schedule=None)
def load_parcels():
    @task(outlets=[TABLE])
    def load():
        tiles = ["10/486/391", "10/486/392"]  # your load, which adds the tiles it changed to the event
        yield Metadata(TABLE, {"tiles": tiles})

    load()


@dag(schedule=[TABLE], start_date=datetime(2026, 1, 1))
def invalidate_on_asset():
    # There may be events of several loads: take the tiles of all. The result is attached to the map's event.
    @task.fused_invalidate_cache(udf="parcels", outlets=[MAP], retries=2)
    def invalidate(triggering_asset_events=None) -> list[str]:
        events = [event for events in (triggering_asset_events or {}).values() for event in events]
        # An event of an asset's watcher has what the message says in its payload.
        changes = [event.extra["payload"] if event.extra.get("from_trigger") else event.extra for event in events]
        return [tile for change in changes for tile in change["tiles"]]

    invalidate()


load_parcels()
invalidate_on_asset()
