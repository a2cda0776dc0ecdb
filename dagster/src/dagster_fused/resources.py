"""The resource that opens Fused clients."""

from typing import TYPE_CHECKING, Optional

import dagster as dg
from pydantic import Field

from fused_cache_ops.integration import DEFAULT_CONCURRENCY, DEFAULT_DEADLINE, DEFAULT_TIMEOUT

if TYPE_CHECKING:
    from fused_cache_ops import FusedClient


class FusedResource(dg.ConfigurableResource["FusedResource"]):
    """A Fused deployment and the token of a service account.

    Pass the token as ``dg.EnvVar("FUSED_SERVICE_ACCOUNT_TOKEN")``, so that it stays out of snapshots of the configuration. An
    omitted field is taken from the environment of the process that runs the step.

    ```python
    import dagster as dg
    from dagster_fused import FusedResource

    defs = dg.Definitions(resources={"fused": FusedResource(token=dg.EnvVar("FUSED_SERVICE_ACCOUNT_TOKEN"))})
    ```
    """

    token: Optional[str] = Field(
        default=None,
        repr=False,
        description="Token of a Fused service account. Use EnvVar. Default: FUSED_SERVICE_ACCOUNT_TOKEN.",
        json_schema_extra={"dagster__is_secret": True},
    )
    client_id: Optional[str] = Field(
        default=None,
        description="One real-time instance, several with commas, or all. Default: FUSED_CLIENT_ID, otherwise the "
        "preferred one and the one that maps run on.",
    )
    base_url: Optional[str] = Field(
        default=None,
        description="Address of the deployment. Default: FUSED_BASE_URL, otherwise https://www.fused.io/server/v1.",
    )
    shared_token: Optional[str] = Field(
        default=None,
        repr=False,
        description="Shared token of the UDF, for verification and refresh. Use EnvVar. Not needed if the UDF is given by one.",
        json_schema_extra={"dagster__is_secret": True},
    )
    run_base_url: Optional[str] = Field(
        default=None,
        description="Where shared UDFs run. Default: FUSED_RUN_BASE_URL, otherwise https://udf.ai for www.fused.io.",
    )
    passcode: Optional[str] = Field(
        default=None,
        repr=False,
        description="Passcode of a public canvas, for verification and refresh. Use EnvVar. Default: FUSED_CANVAS_PASSCODE.",
        json_schema_extra={"dagster__is_secret": True},
    )
    timeout: float = Field(default=DEFAULT_TIMEOUT, description="Seconds that one request may take.")
    deadline: float = Field(default=DEFAULT_DEADLINE, description="Seconds that one invalidation may take, retries included.")
    max_concurrency: int = Field(
        default=DEFAULT_CONCURRENCY, description="Requests in flight at once when tiles are sent one by one."
    )
    max_requests_per_second: Optional[float] = Field(
        default=None, description="The most requests per second for one step. Default: as many as the service accepts."
    )
    ca_bundle: Optional[str] = Field(
        default=None,
        description="Certificates to trust: a file or a folder. Default: REQUESTS_CA_BUNDLE, otherwise requests' own.",
    )
    client_certificate: Optional[str] = Field(
        default=None, description="Path of a PEM file with a client certificate and its key."
    )

    def get_client(self) -> "FusedClient":
        """A new client. Close it, or use it in a ``with`` statement.

        Raises:
            fused_cache_ops.ConfigurationError: a setting is missing or invalid.
        """
        from fused_cache_ops import FusedClient
        from fused_cache_ops.integration import sealed

        return FusedClient(
            token=sealed(self.token or None),
            client_id=self.client_id or None,
            base_url=self.base_url or None,
            timeout=self.timeout,
            deadline=self.deadline,
            max_concurrency=self.max_concurrency,
            max_requests_per_second=self.max_requests_per_second,
            ca_bundle=self.ca_bundle or None,
            client_certificate=self.client_certificate or None,
            run_base_url=self.run_base_url or None,
            passcode=sealed(self.passcode or None),
        )
