"""Prefect collection: invalidate Fused UDF caches right after a load."""

from prefect_fused.credentials import FusedCredentials
from prefect_fused.tasks import ainvalidate_cache, invalidate_cache

__all__ = ["FusedCredentials", "ainvalidate_cache", "invalidate_cache"]
