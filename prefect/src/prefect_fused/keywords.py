"""The keywords of the tasks and hooks: the core's keywords, and the limits of one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from fused_cache_ops.integration import (
    CALL_DEFAULTS,
    DEFAULT_CONCURRENCY,
    DEFAULT_DEADLINE,
    DEFAULT_TIMEOUT,
    REFRESH_DEFAULTS,
    SELECTION_DEFAULTS,
    RefreshKeywords,
    SelectionKeywords,
)

if TYPE_CHECKING:
    from pydantic import SecretStr

    from fused_cache_ops.integration import CheckpointLocation, Related, Secret


class Limits(TypedDict, total=False):
    """The client's settings that apply to one call."""

    timeout: float
    deadline: float
    max_concurrency: int
    max_requests_per_second: float | None


class TaskKeywords(SelectionKeywords, RefreshKeywords, Limits, total=False):
    """The keywords of the tasks and hooks. Artifacts and logs take the place of the core's callbacks."""

    checkpoint: CheckpointLocation | None
    verify_tiles: int
    shared_token: SecretStr | Secret | str | None
    related: Related | None
    max_related: int
    again_after: float
    again_deployment: str | None


class DatasetTaskKeywords(SelectionKeywords, RefreshKeywords, Limits, total=False):
    """The keywords of the task for datasets."""

    checkpoint: CheckpointLocation | None
    verify_tiles: int
    related: Related | None
    max_related: int
    again_after: float


class RefreshTaskKeywords(SelectionKeywords, RefreshKeywords, Limits, total=False):
    """The keywords of the task that refreshes."""

    shared_token: SecretStr | Secret | str | None


LIMITS: Limits = {
    "timeout": DEFAULT_TIMEOUT,
    "deadline": DEFAULT_DEADLINE,
    "max_concurrency": DEFAULT_CONCURRENCY,
    "max_requests_per_second": None,
}

TASK_DEFAULTS: dict[str, Any] = {
    **{name: default for name, default in CALL_DEFAULTS.items() if name not in ("on_progress", "on_plan")},
    **LIMITS,
    "again_deployment": None,
}


DATASET_TASK_DEFAULTS: dict[str, Any] = {
    name: default for name, default in TASK_DEFAULTS.items() if name not in ("shared_token", "again_deployment")
}


REFRESH_TASK_DEFAULTS: dict[str, Any] = {
    **SELECTION_DEFAULTS,
    **REFRESH_DEFAULTS,
    "refresh": "all",
    "fail_on_refresh_error": True,
    "shared_token": None,
    **LIMITS,
}


def split(keywords: TaskKeywords | DatasetTaskKeywords | RefreshTaskKeywords) -> tuple[Any, Limits]:
    """The core's keywords, and the limits."""
    limits: Any = {name: value for name, value in keywords.items() if name in LIMITS}
    return {name: value for name, value in keywords.items() if name not in LIMITS}, limits
