"""Prefect collection: invalidate Fused UDF caches right after a load."""

from prefect_fused.credentials import FusedCredentials
from prefect_fused.tasks import invalidate_cache

__all__ = ["FusedCredentials", "invalidate_cache"]
