"""Load the day's partition, then invalidate where its shapes are. The decorated function returns the selection."""

from airflow.sdk import dag, task  # Airflow 2: from airflow.decorators import dag, task


@dag(schedule=None)
def invalidate_partition():
    @task
    def load(ds: str | None = None) -> dict:
        # Your load of the day's partition, which returns the area it covers, here as GeoJSON.
        return {"type": "Polygon", "coordinates": [[[-9.2, 38.7], [-9.1, 38.7], [-9.1, 38.8], [-9.2, 38.7]]]}

    @task.fused_invalidate_cache(udf="parcels", retries=2)
    def invalidate(partition: dict) -> dict:
        return {"geometry": partition, "zooms": "10-14"}

    invalidate(load())


invalidate_partition()
