"""A callback for Astronomer Cosmos, which runs each dbt model in a folder that is removed afterwards."""

from __future__ import annotations

import logging
from typing import Any

logger = logging.getLogger(__name__)


def invalidate_after_cosmos(
    project_dir: str, *, fused_conn_id: str = "fused_default", context: Any = None, **keywords: Any
) -> None:
    """Invalidate every UDF that shows what a task of Cosmos built: ``operator_args={"callback": invalidate_after_cosmos}``.

    Tasks that build nothing, such as tests, invalidate nothing. If the invalidation fails, so does the task, and a retry builds
    the model again.

    Args:
        project_dir: the project's folder, which Cosmos passes.
        fused_conn_id: the connection of type ``fused``.
        context: the task's context, which Cosmos passes.
        keywords: as for `fused_cache_ops.invalidate_dbt`, by ``operator_args={"callback_args": {"cache_map": …}}``.

    Raises:
        AirflowFailException: a permanent error.
        FusedUnavailableError: a transient error. The task's ``retries`` apply.
    """
    from airflow_provider_fused.hooks import FusedHook
    from airflow_provider_fused.operators import in_airflows_terms
    from fused_cache_ops import DbtNodesFailedError
    from fused_cache_ops.integration import is_build

    with in_airflows_terms():
        if not is_build(project_dir):
            return
        with FusedHook(fused_conn_id).get_conn() as client:
            try:
                client.invalidate_dbt(project_dir, **{"repeat": True, **keywords})
            except DbtNodesFailedError as error:  # the task of Cosmos says so itself
                logger.warning("%s", error)
