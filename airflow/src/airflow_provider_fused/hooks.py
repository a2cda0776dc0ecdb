"""The hook: a client from an Airflow connection of type ``fused``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow_provider_fused._compat import AirflowNotFoundException, BaseHook, mask_secret
from airflow_provider_fused.provider_info import CLIENT_SETTINGS, EXTRA_FIELDS, FIELD_BEHAVIOUR, SECRET_FIELDS
from airflow_provider_fused.words import in_airflows_words

if TYPE_CHECKING:
    from fused_cache_ops import FusedClient


class FusedHook(BaseHook):
    """Opens a `fused_cache_ops.FusedClient` from an Airflow connection.

    The connection's host is the base URL (default: ``https://www.fused.io/server/v1``), its login the client id and its
    password the service-account token. The client id is one instance, several with commas, or ``all`` (default: the preferred
    one, and the one that maps run on). The extra takes ``timeout``, ``deadline``, ``max_concurrency`` and
    ``max_requests_per_second``, as numbers or text, and ``ca_bundle``, ``client_certificate``, ``run_base_url`` and
    ``passcode_secret``. For an empty field, the section ``[fused]`` of Airflow's configuration applies
    (``AIRFLOW__FUSED__DEADLINE`` and so on), then the core's environment variables (``FUSED_SERVICE_ACCOUNT_TOKEN`` and so on).

    :param fused_conn_id: the connection's id
    """

    conn_name_attr = "fused_conn_id"
    default_conn_name = "fused_default"
    conn_type = "fused"
    hook_name = "Fused"

    def __init__(self, fused_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.fused_conn_id = fused_conn_id

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """The connection form before Airflow 3.2. Since 3.2 it is declared in ``get_provider_info``."""
        return {key.replace("-", "_"): value for key, value in FIELD_BEHAVIOUR.items()}

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """The form fields for the extra, before Airflow 3.2."""
        from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
        from wtforms import PasswordField, StringField

        return {
            name: PasswordField(label, description=description, widget=BS3PasswordFieldWidget())
            if name in SECRET_FIELDS
            else StringField(label, description=description, widget=BS3TextFieldWidget())
            for name, (label, description) in EXTRA_FIELDS.items()
        }

    def get_conn(self) -> FusedClient:
        """A new client. Close it, or use it in a ``with`` statement.

        :raises fused_cache_ops.ConfigurationError: a field is missing or invalid
        """
        try:
            connection = self.get_connection(self.fused_conn_id)
        except AirflowNotFoundException:
            raise self._missing() from None
        return self._client_of(connection)

    async def aget_conn(self) -> FusedClient:
        """Like `get_conn`, for the event loop of a trigger. The client itself is synchronous: call it in a thread.

        :raises fused_cache_ops.ConfigurationError: a field is missing or invalid
        """
        find = getattr(self, "aget_connection", None)
        if find is None:  # before Airflow 3.1
            return self.get_conn()
        try:
            connection = await find(self.fused_conn_id)
        except AirflowNotFoundException:
            raise self._missing() from None
        return self._client_of(connection)

    def _missing(self) -> Exception:
        from fused_cache_ops import ConfigurationError

        return ConfigurationError(
            f"Connection {self.fused_conn_id!r} does not exist: create it with the type 'fused', or pass the id of another "
            "one as fused_conn_id."
        )

    def _client_of(self, connection: Any) -> FusedClient:
        from fused_cache_ops import ConfigurationError, FusedClient, InvalidInputError
        from fused_cache_ops.integration import sealed

        try:
            return FusedClient(
                token=sealed(connection.password or None),
                client_id=connection.login or None,
                base_url=_base_url(connection) or _configured("base_url"),
                **_settings({name: _configured(name) for name in EXTRA_FIELDS} | _given(connection.extra_dejson)),
            )
        except (ConfigurationError, InvalidInputError) as error:
            told = in_airflows_words(str(error))
            raise ConfigurationError(
                f"Connection {self.fused_conn_id!r}: {told} The connection's fields are 'Service account token' (password), "
                "'Base URL' (host) and 'Client id' (login)."
            ) from None

    def test_connection(self) -> tuple[bool, str]:
        """Check that the connection's token is valid, and report its environment. Changes nothing."""
        from fused_cache_ops import FusedCacheError

        try:
            with self.get_conn() as client:
                environment = client.check()
        except FusedCacheError as error:
            return False, in_airflows_words(str(error))
        return True, f"The token is valid for the environment {environment.name or environment.id}."


def _base_url(connection: Any) -> str | None:
    host: str | None = connection.host
    if not host:
        return None
    # A connection given as a URI contains only the host: fused://client-id:token@www.fused.io
    scheme, separator, rest = host.rpartition("://")
    if not separator:
        scheme = connection.schema if connection.schema in ("http", "https") else "https"
    address, slash, path = rest.partition("/")
    own = re.search(r":(\d+)$", address)
    if connection.port and own and int(own[1]) != connection.port:
        from fused_cache_ops import ConfigurationError

        raise ConfigurationError(f"Base URL (host) has the port {own[1]}, and the field port has {connection.port}: omit one.")
    port = f":{connection.port}" if connection.port and not own else ""
    return f"{scheme}://{address}{port}{slash}{path}"


def _configured(name: str) -> str | None:
    """A default for every connection, from the section ``[fused]`` of Airflow's configuration. It holds no secrets."""
    from airflow.configuration import conf

    if name in SECRET_FIELDS:
        return None
    return conf.get("fused", name, fallback=None) or None


def _given(extra: dict[str, Any]) -> dict[str, Any]:
    """The fields of the extra that are not empty, with the secrets sealed.

    :raises InvalidInputError: a field is unknown
    """
    from fused_cache_ops.integration import check_keys, sealed

    check_keys(extra, EXTRA_FIELDS, "its extra")
    given = {name: value for name, value in extra.items() if value not in (None, "")}
    for name in SECRET_FIELDS & set(given):
        mask_secret(str(given[name]))
        given[name] = sealed(str(given[name]))  # a passcode of digits is a number in JSON
    return given


def _settings(extra: dict[str, Any]) -> dict[str, Any]:
    """The settings in the extra. Those from a URI or a form are text."""
    from fused_cache_ops import ConfigurationError

    types: dict[str, Any] = {"timeout": float, "deadline": float, "max_concurrency": int, "max_requests_per_second": float}
    settings: dict[str, Any] = {
        CLIENT_SETTINGS.get(name, name): extra[name] for name in EXTRA_FIELDS if name not in types and extra.get(name)
    }
    for name, kind in types.items():
        if extra.get(name) in (None, ""):
            continue
        try:
            settings[name] = kind(extra[name])
        except (TypeError, ValueError):
            raise ConfigurationError(f"{EXTRA_FIELDS[name][0]} = {extra[name]!r} is not a number.") from None
    return settings
