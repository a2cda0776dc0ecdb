"""Prefect collection: invalidate Fused UDF caches right after a load."""

from prefect_fused.credentials import FusedCredentials
from prefect_fused.flows import invalidate_cache_flow
from prefect_fused.hooks import invalidate_on_commit, invalidate_on_completion
from prefect_fused.tasks import ainvalidate_cache, invalidate_cache

__all__ = [
    "FusedCredentials",
    "ainvalidate_cache",
    "invalidate_cache",
    "invalidate_cache_flow",
    "invalidate_on_commit",
    "invalidate_on_completion",
]
