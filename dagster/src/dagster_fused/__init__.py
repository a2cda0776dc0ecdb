"""Dagster integration for Fused: invalidate UDF caches right after a load."""

from importlib.metadata import version

from dagster_shared.libraries import DagsterLibraryRegistry

from dagster_fused.assets import AFTER_EACH_LOAD, build_fused_cache_asset, build_fused_cache_check
from dagster_fused.component import FusedInvalidateCacheComponent
from dagster_fused.hooks import fused_invalidate_cache_on_success
from dagster_fused.ops import InvalidateCacheConfig, build_invalidate_cache_op, invalidate_cache_op
from dagster_fused.resources import FusedResource
from dagster_fused.sensors import build_invalidate_on_asset_sensor, build_invalidate_on_run_success_sensor

__all__ = [
    "AFTER_EACH_LOAD",
    "FusedInvalidateCacheComponent",
    "FusedResource",
    "InvalidateCacheConfig",
    "build_fused_cache_asset",
    "build_fused_cache_check",
    "build_invalidate_cache_op",
    "build_invalidate_on_asset_sensor",
    "build_invalidate_on_run_success_sensor",
    "fused_invalidate_cache_on_success",
    "invalidate_cache_op",
]

__version__ = version("dagster-fused")

DagsterLibraryRegistry.register("dagster-fused", __version__, is_dagster_package=False)
