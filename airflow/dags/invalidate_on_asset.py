"""Whenever the table is updated, by whatever DAG, invalidate the tiles that its event names."""

from datetime import datetime

from airflow.sdk import Asset, Metadata, dag, task

TABLE = Asset("parcels_table")
MAP = Asset("parcels_map")


@dag(schedule=None)
def load_parcels():
    @task(outlets=[TABLE])
    def load():
        tiles = ["10/486/391", "10/486/392"]  # your load; it tells the event which tiles it changed
        yield Metadata(TABLE, {"tiles": tiles})

    load()


@dag(schedule=[TABLE], start_date=datetime(2026, 1, 1))
def invalidate_on_asset():
    # Several loads may have come together: the tiles of all their events. What was done goes to the event of the map.
    @task.fused_invalidate_cache(udf="parcels", outlets=[MAP], retries=2)
    def invalidate(triggering_asset_events=None) -> list[str]:
        events = [event for events in (triggering_asset_events or {}).values() for event in events]
        return [tile for event in events for tile in event.extra["tiles"]]

    invalidate()


load_parcels()
invalidate_on_asset()
