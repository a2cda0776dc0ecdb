"""The link shown on a task instance."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from airflow_provider_fused._compat import BaseOperatorLink
from fused_cache_ops.integration import DEFAULT_BASE_URL


class FusedWorkbenchLink(BaseOperatorLink):
    """A link to the Fused Workbench of the deployment that the task used.

    It does not point to the UDF itself, because Fused documents no address for a single UDF of a team.
    """

    name = "Fused Workbench"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        address = urlsplit(getattr(operator, "base_url", None) or DEFAULT_BASE_URL)
        return f"{address.scheme}://{address.netloc}/workbench"
