"""Prefect collection for Fused: invalidate UDF caches right after a load.

Importing the package registers the block with Prefect. Everything else is imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from prefect_fused.credentials import FusedCredentials

if TYPE_CHECKING:
    from prefect_fused.automations import build_failed_trigger_alert
    from prefect_fused.flows import build_dataset_triggers, invalidate_cache_flow, invalidate_dataset_flow
    from prefect_fused.hooks import ainvalidate_on_completion, invalidate_on_commit, invalidate_on_completion
    from prefect_fused.tasks import ainvalidate_cache, invalidate_cache, invalidate_dataset, invalidate_dbt, refresh_cache

__all__ = [
    "FusedCredentials",
    "ainvalidate_cache",
    "ainvalidate_on_completion",
    "build_dataset_triggers",
    "build_failed_trigger_alert",
    "invalidate_cache",
    "invalidate_cache_flow",
    "invalidate_dataset",
    "invalidate_dataset_flow",
    "invalidate_dbt",
    "invalidate_on_commit",
    "invalidate_on_completion",
    "refresh_cache",
]

_HOMES = {
    "ainvalidate_cache": "tasks",
    "ainvalidate_on_completion": "hooks",
    "build_failed_trigger_alert": "automations",
    "build_dataset_triggers": "flows",
    "invalidate_cache": "tasks",
    "invalidate_cache_flow": "flows",
    "invalidate_dataset": "tasks",
    "invalidate_dataset_flow": "flows",
    "invalidate_dbt": "tasks",
    "invalidate_on_commit": "hooks",
    "invalidate_on_completion": "hooks",
    "refresh_cache": "tasks",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"prefect_fused.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
