"""A single place to import names that Airflow 2.11 and Airflow 3 keep in different modules."""

from __future__ import annotations

from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import BaseHook, BaseOperator, BaseOperatorLink, get_current_context
    from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowNotFoundException
    from airflow.sdk.log import mask_secret
else:
    try:
        from airflow.sdk import BaseOperator, BaseOperatorLink
    except ImportError:
        from airflow.models.baseoperator import BaseOperator
        from airflow.models.baseoperatorlink import BaseOperatorLink
    try:
        from airflow.sdk import get_current_context
    except ImportError:
        from airflow.operators.python import get_current_context
    try:
        from airflow.sdk import BaseHook
    except ImportError:
        from airflow.hooks.base import BaseHook
    try:
        from airflow.sdk.exceptions import AirflowFailException
    except ImportError:
        from airflow.exceptions import AirflowFailException
    from airflow.exceptions import AirflowException, AirflowNotFoundException

    try:
        from airflow.sdk.log import mask_secret
    except ImportError:
        from airflow.utils.log.secrets_masker import mask_secret


def send_timing(name: str, passed: timedelta, tags: dict[str, Any] | None = None) -> None:
    """Send a time to where Airflow sends its metrics. Imported on use, because it takes a while."""
    try:
        metrics: Any = import_module("airflow.sdk.observability.stats")
    except ImportError:
        metrics = import_module("airflow.stats")
    send = getattr(metrics, "timing", None) or metrics.Stats.timing  # the latter before Airflow 3.3
    send(name, passed, tags=tags)


IS_AIRFLOW_2 = not BaseOperator.__module__.startswith("airflow.sdk")


def has_worker(instance: Any) -> bool:
    """Whether a task instance is what a worker is given. Airflow 3's row of its database is not: pushing an XCom to it closes
    its session, so that it no longer sees when its run is cleared."""
    return IS_AIRFLOW_2 or not type(instance).__module__.startswith("airflow.models.")


__all__ = [
    "IS_AIRFLOW_2",
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "BaseHook",
    "BaseOperator",
    "BaseOperatorLink",
    "get_current_context",
    "has_worker",
    "mask_secret",
    "send_timing",
]
