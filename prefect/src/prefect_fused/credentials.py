"""The block that holds a Fused token."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Optional

from prefect.blocks.abstract import CredentialsBlock
from pydantic import Field, SecretStr

if TYPE_CHECKING:
    from fused_cache_ops import FusedClient


class FusedCredentials(CredentialsBlock):
    """Block with the token of a Fused service account and the deployment it belongs to.

    An empty field is taken from the environment of the process that runs the task, such as `FUSED_SERVICE_ACCOUNT_TOKEN`,
    or has the default of `fused_cache_ops.FusedClient`.

    Attributes:
        token: The service account's token.
        client_id: One real-time instance, several with commas, or `all`.
        base_url: The deployment's address.
        run_base_url: Where the deployment runs shared UDFs.
        passcode: The passcode of a public canvas, for verification and refresh.
        shared_token: The shared token of the UDF that the block is for, for verification and refresh.
        max_requests_per_second: The most requests per second.
        ca_bundle: Certificates to trust.
        client_certificate: A certificate to present to the server.

    Example:
        Load stored credentials and invalidate a UDF's cache:
        ```python
        from prefect import flow
        from prefect_fused import FusedCredentials, invalidate_cache

        @flow
        def after_load():
            credentials = FusedCredentials.load("BLOCK_NAME")
            invalidate_cache("team/roads", credentials=credentials, tiles=["15/9647/12320"])
        ```
    """

    _block_type_name = "Fused Credentials"
    _block_type_slug = "fused-credentials"
    _logo_url = "https://www.fused.io/favicon.ico"  # type: ignore[assignment]
    _documentation_url = "https://docs.fused.io/"  # type: ignore[assignment]

    token: Optional[SecretStr] = Field(
        default=None,
        title="Service account token",
        description="The token of a Fused service account. Default: FUSED_SERVICE_ACCOUNT_TOKEN.",
    )
    client_id: Optional[str] = Field(
        default=None,
        title="Client id",
        description="One real-time instance, several with commas, or all. Default: FUSED_CLIENT_ID, otherwise the "
        "preferred one and the one that maps run on.",
    )
    base_url: Optional[str] = Field(
        default=None,
        title="Base URL",
        description="The deployment's address. Default: FUSED_BASE_URL, otherwise https://www.fused.io/server/v1.",
    )
    run_base_url: Optional[str] = Field(
        default=None,
        title="Base URL of shared UDFs",
        description="Where shared UDFs run. Default: FUSED_RUN_BASE_URL, otherwise https://udf.ai for www.fused.io.",
    )
    passcode: Optional[SecretStr] = Field(
        default=None,
        title="Passcode",
        description="The passcode of a public canvas, for verification and refresh. Default: FUSED_CANVAS_PASSCODE.",
    )
    shared_token: Optional[SecretStr] = Field(
        default=None,
        title="Shared token",
        description="The shared token of a UDF, for verification and refresh of that UDF. Not needed for others.",
    )
    max_requests_per_second: Optional[float] = Field(
        default=None,
        title="Requests per second",
        description="The most requests per second for one task. Default: as many as the service accepts.",
    )
    ca_bundle: Optional[str] = Field(
        default=None,
        title="CA bundle",
        description="Path of certificates to trust, on the machine that runs the task. Default: REQUESTS_CA_BUNDLE.",
    )
    client_certificate: Optional[str] = Field(
        default=None,
        title="Client certificate",
        description="Path of a PEM file with a client certificate and its key, on the machine that runs the task.",
    )

    @classmethod
    def from_env(cls) -> FusedCredentials:
        """A block with the current settings from this process's environment, to be saved for other processes.

        An unsaved `FusedCredentials()` reads the environment too, but where and when the task runs.

        Raises:
            fused_cache_ops.ConfigurationError: There is no token in the environment, or a setting is invalid.
        """
        from fused_cache_ops.integration import resolve_settings

        settings = resolve_settings()
        return cls(
            token=SecretStr(settings.authorization.reveal()),
            client_id=",".join(settings.client_ids) or None,
            base_url=settings.base_url,
            run_base_url=os.environ.get("FUSED_RUN_BASE_URL") or None,
            passcode=SecretStr(settings.passcode.reveal()) if settings.passcode else None,
        )

    def get_client(self, **settings: Any) -> FusedClient:
        """A new client. Close it, or use it in a `with` statement.

        Args:
            settings: `timeout`, `deadline` and the other keywords of `fused_cache_ops.FusedClient`.

        Raises:
            fused_cache_ops.ConfigurationError: A setting is missing or invalid.
        """
        from fused_cache_ops import FusedClient
        from fused_cache_ops.integration import sealed

        fields = {name: getattr(self, name) for name in type(self).model_fields if name != "shared_token"}
        for name, value in fields.items():
            if isinstance(value, SecretStr):
                fields[name] = sealed(value.get_secret_value() or None)
        # The form in the UI saves an empty field as "".
        given = {name: value for name, value in (fields | settings).items() if value not in (None, "")}
        return FusedClient(**given)
