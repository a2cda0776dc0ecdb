"""How long maps were stale, as metrics of Airflow, where a team watches how that changes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from airflow_provider_fused._compat import send_timing

logger = logging.getLogger(__name__)

STALE_TIMES = ("seconds_until_invalidated", "seconds_until_fresh")


def report_stale_times(results: Iterable[Mapping[str, Any]], context: Any) -> None:
    """Send ``fused.seconds_until_invalidated`` and ``fused.seconds_until_fresh`` of each UDF, as far as they are known, in
    milliseconds, as Airflow sends the times of tasks. Where metrics have no tags, the task is in the name.

    :param results: what was done for each UDF, as the operators return it
    :param context: the task's context
    """
    instance = context.get("ti")
    if instance is None:
        return
    task = {"dag_id": instance.dag_id, "task_id": instance.task_id}
    for result in results:
        for name in STALE_TIMES:
            if (seconds := result.get(name)) is not None:
                passed = timedelta(seconds=seconds)
                try:
                    send_timing(f"fused.{name}", passed, tags={**task, "udf_id": str(result["udf_id"])})
                    send_timing(f"fused.{instance.dag_id}.{instance.task_id}.{name}", passed)
                except Exception as error:  # a failing metric must not fail the invalidation
                    logger.warning("The metric fused.%s could not be sent: %s", name, error)
