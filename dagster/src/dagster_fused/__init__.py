"""Dagster integration for Fused: invalidate UDF caches right after a load.

Importing the package registers it with Dagster. Everything else is imported on first use.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from dagster_shared.libraries import DagsterLibraryRegistry

if TYPE_CHECKING:
    from dagster_fused.assets import (
        AFTER_EACH_LOAD,
        build_fused_cache_asset,
        build_fused_cache_assets,
        build_fused_cache_check,
        build_fused_refresh_check,
    )
    from dagster_fused.component import FusedCacheMapComponent, FusedInvalidateCacheComponent
    from dagster_fused.configured_op import InvalidateCacheConfig, invalidate_cache_op
    from dagster_fused.dbt import build_fused_dbt_assets
    from dagster_fused.hooks import fused_invalidate_cache_on_success
    from dagster_fused.loads import loads_since_invalidation
    from dagster_fused.ops import build_invalidate_cache_op, build_refresh_cache_op
    from dagster_fused.resources import FusedResource
    from dagster_fused.sensors import build_invalidate_on_asset_sensor, build_invalidate_on_run_success_sensor

__all__ = [
    "AFTER_EACH_LOAD",
    "FusedCacheMapComponent",
    "FusedInvalidateCacheComponent",
    "FusedResource",
    "InvalidateCacheConfig",
    "build_fused_cache_asset",
    "build_fused_cache_assets",
    "build_fused_cache_check",
    "build_fused_dbt_assets",
    "build_fused_refresh_check",
    "build_invalidate_cache_op",
    "build_invalidate_on_asset_sensor",
    "build_invalidate_on_run_success_sensor",
    "build_refresh_cache_op",
    "fused_invalidate_cache_on_success",
    "invalidate_cache_op",
    "loads_since_invalidation",
]

_HOMES = {
    "AFTER_EACH_LOAD": "assets",
    "FusedCacheMapComponent": "component",
    "FusedInvalidateCacheComponent": "component",
    "FusedResource": "resources",
    "InvalidateCacheConfig": "configured_op",
    "build_fused_cache_asset": "assets",
    "build_fused_cache_assets": "assets",
    "build_fused_cache_check": "assets",
    "build_fused_dbt_assets": "dbt",
    "build_fused_refresh_check": "assets",
    "build_invalidate_cache_op": "ops",
    "build_invalidate_on_asset_sensor": "sensors",
    "build_invalidate_on_run_success_sensor": "sensors",
    "build_refresh_cache_op": "ops",
    "fused_invalidate_cache_on_success": "hooks",
    "invalidate_cache_op": "configured_op",
    "loads_since_invalidation": "loads",
}

__version__ = version("dagster-fused")

DagsterLibraryRegistry.register("dagster-fused", __version__, is_dagster_package=False)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"dagster_fused.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
