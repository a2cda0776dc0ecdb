"""Whenever any DAG updates the table, invalidate the tiles named in the events since the last invalidation."""

from datetime import datetime

from airflow.sdk import Asset, Metadata, dag, task
from airflow.timetables.assets import AssetOrTimeSchedule
from airflow.timetables.trigger import CronTriggerTimetable

from airflow_provider_fused.operators import FusedInvalidateCacheOperator

TABLE = Asset("parcels_table")
MAP = Asset("parcels_map")


@dag(schedule=None)
def load_parcels():
    @task(outlets=[TABLE])
    def load():
        tiles = ["10/486/391", "10/486/392"]  # your load, which adds the tiles it changed to the event
        yield Metadata(TABLE, {"tiles": tiles})

    load()


# An event that Airflow gives to no run is taken by the next one: after the next load, or after ten minutes.
@dag(
    schedule=AssetOrTimeSchedule(timetable=CronTriggerTimetable("*/10 * * * *", timezone="UTC"), assets=[TABLE]),
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
)
def invalidate_on_asset():
    # The result is attached to the map's event, with the loads that it covers.
    FusedInvalidateCacheOperator(
        task_id="invalidate", udf="parcels", tiles_from_events="tiles", inlets=[TABLE, MAP], outlets=[MAP], retries=2
    )


load_parcels()
invalidate_on_asset()
