"""Dagster integration: invalidate Fused UDF caches right after a load."""

from importlib.metadata import version

from dagster_shared.libraries import DagsterLibraryRegistry

from dagster_fused.ops import InvalidateCacheConfig, build_invalidate_cache_op, invalidate_cache_op
from dagster_fused.resource import FusedResource

__all__ = ["FusedResource", "InvalidateCacheConfig", "build_invalidate_cache_op", "invalidate_cache_op"]

__version__ = version("dagster-fused")

DagsterLibraryRegistry.register("dagster-fused", __version__, is_dagster_package=False)
