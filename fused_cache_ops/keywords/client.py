"""The groups ``client`` and ``limits``: the settings of a client."""

from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

from fused_cache_ops.keywords.option import Option, check_keys, described, options_of
from fused_cache_ops.keywords.text import read_boolean, read_number, read_seconds
from fused_cache_ops.secret import Secret, sealed
from fused_cache_ops.settings import DEFAULT_CONCURRENCY, DEFAULT_DEADLINE, DEFAULT_TIMEOUT, Certificate, ClientId


class Limits(TypedDict, total=False):
    """The limits of one call."""

    timeout: Annotated[float, Option(DEFAULT_TIMEOUT, "Seconds that one request may take.", read_seconds)]
    deadline: Annotated[float, Option(DEFAULT_DEADLINE, "Seconds in total, retries included.", read_seconds)]
    max_concurrency: Annotated[int, Option(DEFAULT_CONCURRENCY, "Requests at once when tiles go one by one.", read_number)]
    max_requests_per_second: Annotated[
        float | None,
        Option(None, "The most requests per second. Default: as many as the service accepts.", read_seconds),
    ]


class ClientSettings(Limits, total=False):
    """The settings of `fused_cache_ops.FusedClient`, which describes them."""

    token: Annotated[str | Secret | None, Option(None, "Token of a Fused service account.", stored=False)]
    client_id: Annotated[
        ClientId | None,
        Option(
            None, "Real-time instance, several with commas, or all. Default: the preferred one, and the one that maps run on."
        ),
    ]
    base_url: Annotated[str | None, Option(None, "Address of the deployment.")]
    ca_bundle: Annotated[str | None, Option(None, "Certificates to trust: a file or a folder.")]
    client_certificate: Annotated[Certificate | None, Option(None, "PEM file with a client certificate and its key.")]
    run_base_url: Annotated[str | None, Option(None, "Where shared UDFs run, for verification and refresh.")]
    passcode: Annotated[str | Secret | None, Option(None, "Passcode of a public canvas.", stored=False)]
    allow_http: Annotated[bool, Option(False, "Allow plain http to other machines.", read_boolean)]


LIMIT_OPTIONS = options_of(Limits)
Limits.__doc__ = described(Limits)
CLIENT_OPTIONS = {**LIMIT_OPTIONS, **options_of(ClientSettings)}
_SECRETS = tuple(name for name, option in CLIENT_OPTIONS.items() if not option.stored)


def sealed_client(given: Any) -> Any:
    """What was given as ``client``, with its secrets sealed. A mapping is copied, never changed. It never raises.

    Use it in the first line of every function that takes ``client``, so that no traceback's locals show a token.
    """
    if not isinstance(given, Mapping):
        return given
    return {name: sealed(value) if name in _SECRETS else value for name, value in given.items()}


def checked_settings(given: Any) -> ClientSettings:
    """The settings of a client, from what `sealed_client` returned.

    Raises:
        InvalidInputError: it is not a mapping, or a key is unknown.
    """
    if given is None:
        return {}
    check_keys(given, CLIENT_OPTIONS, "client", example="{'deadline': 300}")
    return given  # type: ignore[no-any-return]
