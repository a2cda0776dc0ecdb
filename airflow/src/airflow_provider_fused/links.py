"""The link shown on a task instance."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from airflow_provider_fused._compat import IS_AIRFLOW_2, BaseOperatorLink
from fused_cache_ops.integration import DEFAULT_BASE_URL

BASE_URL_KEY = "fused_base_url"


class FusedWorkbenchLink(BaseOperatorLink):
    """A link to the Fused Workbench of the deployment that the task used.

    It does not point to the UDF itself, because Fused documents no address for a single UDF of a team.
    """

    name = "Fused Workbench"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        address = urlsplit(getattr(operator, "base_url", None) or _pushed(ti_key) or DEFAULT_BASE_URL)
        path = address.path.rstrip("/").removesuffix("/server/v1")
        return f"{address.scheme}://{address.netloc}{path}/workbench"


def _pushed(ti_key: Any) -> str | None:
    """The address that the task left for the web server of Airflow 2. In Airflow 3, the task makes the link itself."""
    if not IS_AIRFLOW_2 or ti_key is None:
        return None
    from airflow.models.xcom import XCom

    found: str | None = XCom.get_value(ti_key=ti_key, key=BASE_URL_KEY)
    return found
