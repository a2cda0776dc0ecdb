"""Share one large invalidation among the workers of a Dask cluster, and merge their results.

Needs prefect-dask, and a Prefect server that the workers can reach (PREFECT_API_URL). A temporary server is not enough.
"""

from prefect import flow, task, unmapped
from prefect_dask import DaskTaskRunner

from fused_cache_ops import InvalidationResult
from prefect_fused import FusedCredentials, invalidate_cache

SHARDS = 4


@task
def load() -> tuple[float, float, float, float]:
    return (-9.25, 38.68, -9.08, 38.80)  # your load, which returns the bounds of what it changed


# A local cluster of two processes. For your own cluster, use DaskTaskRunner(address="tcp://…").
@flow(task_runner=DaskTaskRunner(cluster_kwargs={"n_workers": 2, "threads_per_worker": 2, "dashboard_address": None}))
def invalidate_in_shards() -> dict:
    results = invalidate_cache.map(
        "parcels",
        credentials=unmapped(FusedCredentials()),  # keep the token in a stored block or the workers' environment, not here
        bounds=unmapped(load()),
        zooms=unmapped("10-16"),
        shard=[(number, SHARDS) for number in range(SHARDS)],
    )
    return InvalidationResult.merge(results.result()).to_dict()


if __name__ == "__main__":
    invalidate_in_shards()
