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
    from fused_cache_ops.dbt.call import DbtFirstPass, DbtPlan, plan_dbt
    from fused_cache_ops.errors import (
        AuthenticationError,
        ConfigurationError,
        FollowUpError,
        FusedCacheError,
        InvalidationCancelledError,
        InvalidInputError,
        InvalidRequestError,
        NotFoundError,
        PermanentError,
        PermissionDeniedError,
        RateLimitedError,
        TransientError,
        UnavailableError,
        UnconfirmedError,
        UnexpectedRedirectError,
        UnexpectedResponseError,
        Unfinished,
    )
    from fused_cache_ops.invalidate import invalidate_cache, invalidate_dataset, invalidate_dbt, refresh_cache
    from fused_cache_ops.keywords.announce import AnnounceOptions
    from fused_cache_ops.keywords.client import ClientSettings
    from fused_cache_ops.keywords.h3_index import H3IndexOptions
    from fused_cache_ops.keywords.refresh import RefreshOptions
    from fused_cache_ops.keywords.values import WHOLE_UDF
    from fused_cache_ops.lineage.report import UdfReport
    from fused_cache_ops.outcome.announcement import Announcement, AnnouncementError
    from fused_cache_ops.outcome.dataset import DatasetInvalidationError, DatasetResult
    from fused_cache_ops.outcome.dbt import DbtNodesFailedError, DbtResult
    from fused_cache_ops.outcome.indexing import DatasetIndexWait, IndexWait
    from fused_cache_ops.outcome.interruption import InvalidationInterrupted
    from fused_cache_ops.outcome.invalidation import (
        InvalidationResult,
        PartialInvalidationError,
        RefreshError,
        Verification,
        VerificationError,
    )
    from fused_cache_ops.outcome.passes import DatasetFirstPass, FirstPass
    from fused_cache_ops.outcome.refresh import RefreshResult
    from fused_cache_ops.plan.plan import InvalidationPlan, plan_invalidation
    from fused_cache_ops.selection.merging import merge_selections
    from fused_cache_ops.tiles.tile import Tile

__all__ = [
    "WHOLE_UDF",
    "AnnounceOptions",
    "Announcement",
    "AnnouncementError",
    "AuthenticationError",
    "CacheMap",
    "ClientSettings",
    "ConfigurationError",
    "DatasetFirstPass",
    "DatasetIndexWait",
    "DatasetInvalidationError",
    "DatasetPlan",
    "DatasetResult",
    "DbtFirstPass",
    "DbtNodesFailedError",
    "DbtPlan",
    "DbtResult",
    "FirstPass",
    "FollowUpError",
    "FusedCacheError",
    "FusedClient",
    "H3IndexOptions",
    "IndexWait",
    "InvalidInputError",
    "InvalidRequestError",
    "InvalidationCancelledError",
    "InvalidationInterrupted",
    "InvalidationPlan",
    "InvalidationResult",
    "NotFoundError",
    "PartialInvalidationError",
    "PermanentError",
    "PermissionDeniedError",
    "RateLimitedError",
    "RefreshError",
    "RefreshOptions",
    "RefreshResult",
    "TeamEnvironment",
    "TeamUdf",
    "Tile",
    "TransientError",
    "UdfReport",
    "UnavailableError",
    "UnconfirmedError",
    "UnexpectedRedirectError",
    "UnexpectedResponseError",
    "Unfinished",
    "Verification",
    "VerificationError",
    "invalidate_cache",
    "invalidate_dataset",
    "invalidate_dbt",
    "merge_selections",
    "plan_dataset",
    "plan_dbt",
    "plan_invalidation",
    "refresh_cache",
]

_HOMES = {
    "WHOLE_UDF": "keywords.values",
    "AuthenticationError": "errors",
    "CacheMap": "cache_map.reading",
    "ClientSettings": "keywords.client",
    "ConfigurationError": "errors",
    "DatasetFirstPass": "outcome.passes",
    "DatasetIndexWait": "outcome.indexing",
    "DatasetInvalidationError": "outcome.dataset",
    "DatasetPlan": "cache_map.dataset",
    "DatasetResult": "outcome.dataset",
    "DbtFirstPass": "dbt.call",
    "DbtNodesFailedError": "outcome.dbt",
    "DbtPlan": "dbt.call",
    "DbtResult": "outcome.dbt",
    "FirstPass": "outcome.passes",
    "FollowUpError": "errors",
    "FusedCacheError": "errors",
    "FusedClient": "client",
    "H3IndexOptions": "keywords.h3_index",
    "IndexWait": "outcome.indexing",
    "InvalidInputError": "errors",
    "InvalidRequestError": "errors",
    "InvalidationCancelledError": "errors",
    "InvalidationInterrupted": "outcome.interruption",
    "InvalidationPlan": "plan.plan",
    "InvalidationResult": "outcome.invalidation",
    "NotFoundError": "errors",
    "PartialInvalidationError": "outcome.invalidation",
    "PermanentError": "errors",
    "PermissionDeniedError": "errors",
    "RateLimitedError": "errors",
    "RefreshError": "outcome.invalidation",
    "Announcement": "outcome.announcement",
    "AnnouncementError": "outcome.announcement",
    "AnnounceOptions": "keywords.announce",
    "RefreshOptions": "keywords.refresh",
    "RefreshResult": "outcome.refresh",
    "TeamEnvironment": "client",
    "TeamUdf": "client",
    "Tile": "tiles.tile",
    "TransientError": "errors",
    "UdfReport": "lineage.report",
    "UnavailableError": "errors",
    "UnconfirmedError": "errors",
    "UnexpectedRedirectError": "errors",
    "UnexpectedResponseError": "errors",
    "Unfinished": "errors",
    "Verification": "outcome.invalidation",
    "VerificationError": "outcome.invalidation",
    "invalidate_cache": "invalidate",
    "invalidate_dataset": "invalidate",
    "invalidate_dbt": "invalidate",
    "merge_selections": "selection.merging",
    "plan_dataset": "cache_map.dataset",
    "plan_dbt": "dbt.call",
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
