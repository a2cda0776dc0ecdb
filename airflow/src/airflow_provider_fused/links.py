"""The link shown on a task instance."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from airflow_provider_fused._compat import IS_AIRFLOW_2, BaseOperatorLink
from fused_cache_ops.integration import DEFAULT_BASE_URL


class FusedWorkbenchLink(BaseOperatorLink):
    """A link to the Fused Workbench of the deployment that the task used, from an XCom that the task leaves before it sends.

    It does not point to the UDF itself, because Fused documents no address for a single UDF of a team.
    """

    name = "Fused Workbench"

    @property
    def xcom_key(self) -> str:
        """The key of the XCom with the link, from which Airflow 3 takes it."""
        return "_link_FusedWorkbenchLink"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The link. Airflow 3 asks for it in the task, once that has ended, and Airflow 2 in its web server."""
        base_url = getattr(operator, "base_url", None)
        pushed = None if base_url else self._pushed(ti_key)
        return pushed or workbench_of(base_url or DEFAULT_BASE_URL)

    def _pushed(self, ti_key: Any) -> str | None:
        if not IS_AIRFLOW_2 or ti_key is None:
            return None
        from airflow.models.xcom import XCom

        found: str | None = XCom.get_value(ti_key=ti_key, key=self.xcom_key)
        return found


def workbench_of(base_url: str) -> str:
    """The address of a deployment's Workbench."""
    address = urlsplit(base_url)
    path = address.path.rstrip("/").removesuffix("/server/v1")
    return f"{address.scheme}://{address.netloc}{path}/workbench"
