"""Invalidate the caches of Fused UDFs: a whole UDF, or only the map tiles that a load changed.

Names are imported on first use, so ``import fused_cache_ops`` is cheap, even for schedulers that keep parsing files.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fused_cache_ops.cache_map.dataset import DatasetPlan, plan_dataset
    from fused_cache_ops.cache_map.reading import CacheMap
    from fused_cache_ops.client import FusedClient, TeamEnvironment, TeamUdf
    from fused_cache_ops.errors import (
        AuthenticationError,
        ConfigurationError,
        FusedCacheError,
        InvalidationCancelledError,
        InvalidInputError,
        InvalidRequestError,
        NotFoundError,
        PermissionDeniedError,
        RateLimitedError,
        StaleConnectionError,
        UnavailableError,
        UnexpectedRedirectError,
        UnexpectedResponseError,
        Unfinished,
    )
    from fused_cache_ops.invalidate import invalidate_cache, invalidate_dataset, refresh_cache
    from fused_cache_ops.lineage.report import UdfReport
    from fused_cache_ops.outcome import (
        DatasetFirstPass,
        DatasetInvalidationError,
        DatasetResult,
        FirstPass,
        InvalidationResult,
        PartialInvalidationError,
        Refresh,
        RefreshError,
        Verification,
    )
    from fused_cache_ops.plan.plan import InvalidationPlan, plan_invalidation
    from fused_cache_ops.selection.keywords import WHOLE_UDF
    from fused_cache_ops.selection.merging import merge_selections
    from fused_cache_ops.tiles.tile import Tile

__all__ = [
    "WHOLE_UDF",
    "AuthenticationError",
    "CacheMap",
    "ConfigurationError",
    "DatasetFirstPass",
    "DatasetInvalidationError",
    "DatasetPlan",
    "DatasetResult",
    "FirstPass",
    "FusedCacheError",
    "FusedClient",
    "InvalidInputError",
    "InvalidRequestError",
    "InvalidationCancelledError",
    "InvalidationPlan",
    "InvalidationResult",
    "NotFoundError",
    "PartialInvalidationError",
    "PermissionDeniedError",
    "RateLimitedError",
    "Refresh",
    "RefreshError",
    "StaleConnectionError",
    "TeamEnvironment",
    "TeamUdf",
    "Tile",
    "UdfReport",
    "UnavailableError",
    "UnexpectedRedirectError",
    "UnexpectedResponseError",
    "Unfinished",
    "Verification",
    "invalidate_cache",
    "invalidate_dataset",
    "merge_selections",
    "plan_dataset",
    "plan_invalidation",
    "refresh_cache",
]

_HOMES = {
    "WHOLE_UDF": "selection.keywords",
    "AuthenticationError": "errors",
    "CacheMap": "cache_map.reading",
    "ConfigurationError": "errors",
    "DatasetFirstPass": "outcome",
    "DatasetInvalidationError": "outcome",
    "DatasetPlan": "cache_map.dataset",
    "DatasetResult": "outcome",
    "FirstPass": "outcome",
    "FusedCacheError": "errors",
    "FusedClient": "client",
    "InvalidInputError": "errors",
    "InvalidRequestError": "errors",
    "InvalidationCancelledError": "errors",
    "InvalidationPlan": "plan.plan",
    "InvalidationResult": "outcome",
    "NotFoundError": "errors",
    "PartialInvalidationError": "outcome",
    "PermissionDeniedError": "errors",
    "RateLimitedError": "errors",
    "Refresh": "outcome",
    "RefreshError": "outcome",
    "StaleConnectionError": "errors",
    "TeamEnvironment": "client",
    "TeamUdf": "client",
    "Tile": "tiles.tile",
    "UdfReport": "lineage.report",
    "UnavailableError": "errors",
    "UnexpectedRedirectError": "errors",
    "UnexpectedResponseError": "errors",
    "Unfinished": "errors",
    "Verification": "outcome",
    "invalidate_cache": "invalidate",
    "invalidate_dataset": "invalidate",
    "merge_selections": "selection.merging",
    "plan_dataset": "cache_map.dataset",
    "plan_invalidation": "plan.plan",
    "refresh_cache": "invalidate",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("fused-cache-ops")
    if name in _HOMES:
        return getattr(import_module(f"fused_cache_ops.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
