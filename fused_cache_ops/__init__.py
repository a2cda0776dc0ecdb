"""Invalidate the caches of Fused UDFs: all of one UDF, or just the map tiles that a load has changed.

Names load on first use, so that ``import fused_cache_ops`` costs next to nothing where files are parsed all day.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fused_cache_ops.client import Environment, FusedClient
    from fused_cache_ops.invalidate import invalidate_cache
    from fused_cache_ops.plan import InvalidationPlan, plan_invalidation
    from fused_cache_ops.result import InvalidationResult
    from fused_cache_ops.tiles import WHOLE_UDF, Tile

__all__ = [
    "WHOLE_UDF",
    "Environment",
    "FusedClient",
    "InvalidationPlan",
    "InvalidationResult",
    "Tile",
    "invalidate_cache",
    "plan_invalidation",
]

_HOMES = {
    "WHOLE_UDF": "tiles",
    "Environment": "client",
    "FusedClient": "client",
    "InvalidationPlan": "plan",
    "InvalidationResult": "result",
    "Tile": "tiles",
    "invalidate_cache": "invalidate",
    "plan_invalidation": "plan",
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
