"""The block that holds a Fused token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from prefect.blocks.abstract import CredentialsBlock
from pydantic import Field, SecretStr

if TYPE_CHECKING:
    from fused_cache_ops import FusedClient


class FusedCredentials(CredentialsBlock):
    """Block that holds the token of a Fused service account, and where it is good for.

    A field that is left empty is taken from the environment of the process that runs the task:
    `FUSED_SERVICE_ACCOUNT_TOKEN`, `FUSED_CLIENT_ID`, `FUSED_BASE_URL`.

    Attributes:
        token: The service account's token.
        client_id: The real-time instance.
        base_url: The deployment's address.

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
        default=None, title="Service account token", description="The token of a Fused service account."
    )
    client_id: Optional[str] = Field(
        default=None,
        title="Client id",
        description="The real-time instance. If empty, the one that the service prefers.",
    )
    base_url: Optional[str] = Field(
        default=None,
        title="Base URL",
        description="The deployment's address. If empty, https://www.fused.io/server/v1.",
    )

    def get_client(self, **settings: Any) -> FusedClient:
        """A new client; close it, or use it in a `with` statement.

        Args:
            settings: `timeout`, `deadline` and the other keywords of `fused_cache_ops.FusedClient`.

        Raises:
            fused_cache_ops.errors.ConfigurationError: A setting is missing or unusable.
        """
        from fused_cache_ops import FusedClient

        token = self.token.get_secret_value() if self.token else None
        return FusedClient(token=token or None, client_id=self.client_id or None, base_url=self.base_url or None, **settings)
