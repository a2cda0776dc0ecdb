"""Share one large invalidation among workers: one mapped task per shard, and one merged result."""

from airflow.sdk import dag, task  # Airflow 2: from airflow.decorators import dag, task

from airflow_provider_fused.operators import FusedInvalidateCacheOperator

SHARDS = 4


@dag(schedule=None)
def invalidate_in_shards():
    @task
    def load() -> list[float]:
        return [-9.25, 38.68, -9.08, 38.80]  # your load, which returns the bounds of what it changed

    @task
    def merge(results) -> dict:
        from fused_cache_ops import InvalidationResult

        return InvalidationResult.merge(results).to_dict()

    purge = FusedInvalidateCacheOperator.partial(
        task_id="invalidate", udf="parcels", bounds=load(), zooms="10-16", retries=2
    ).expand(shard=[[number, SHARDS] for number in range(SHARDS)])
    merge(purge.output)


invalidate_in_shards()
