"""The service's address and the caller's credentials: from arguments first, then from the environment.

| setting | argument | environment |
| --- | --- | --- |
| token | ``token`` | ``FUSED_SERVICE_ACCOUNT_TOKEN``, then the SDK's ``FUSED_AUTH_TOKEN_TYPE`` + ``FUSED_AUTH_TOKEN`` |
| instances | ``client_id``: one, several with commas, or ``all`` | ``FUSED_CLIENT_ID`` |
| base URL | ``base_url`` | ``FUSED_BASE_URL`` |
| base URL of shared UDFs | ``run_base_url`` | ``FUSED_RUN_BASE_URL`` |
| passcode of a public canvas | ``passcode`` | ``FUSED_CANVAS_PASSCODE`` |
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Union
from urllib.parse import urlsplit

from fused_cache_ops.errors import ConfigurationError
from fused_cache_ops.secret import Secret, holds_shared_token, masked_address, sealed
from fused_cache_ops.udf_reference import checked_identifier
from fused_cache_ops.wording import quoted

DEFAULT_BASE_URL = "https://www.fused.io/server/v1"
DEFAULT_RUN_BASE_URL = "https://udf.ai"
DEFAULT_TIMEOUT = 30.0
DEFAULT_DEADLINE = 600.0
DEFAULT_CONCURRENCY = 16

ClientId = Union[str, "Sequence[str]"]
"""A real-time instance, several (a sequence, or text with commas), or ``"all"``."""

Certificate = Union[str, "tuple[str, str]"]
"""The path of a PEM file, or the paths of a certificate and its key."""

EVERY_INSTANCE = "all"

_SERVICE = "Fused-Service-Token"
# HTTP schemes are case-insensitive. The last two are what the SDK finds in the environment of a running UDF.
_SCHEMES = {name.lower(): name for name in (_SERVICE, "Bearer", "Fused-Rtenv-Bearer", "Fused-Env-Bearer")}
_TOKEN = re.compile(r"[\x21-\x7e]+")
_PASSCODE = re.compile(r"[\x20-\x7e]+")


@dataclass(frozen=True)
class Settings:
    """Validated settings. ``authorization`` is the complete header value. Secrets are masked in its ``repr``.

    ``client_ids`` is empty if no instance is set, and ``("all",)`` for every instance.
    """

    authorization: Secret = field(repr=False)
    base_url: str
    client_ids: tuple[str, ...]
    run_base_url: str | None
    passcode: Secret | None = field(default=None, repr=False)


def resolve_settings(
    *,
    token: str | Secret | None = None,
    client_id: ClientId | None = None,
    base_url: str | None = None,
    run_base_url: str | None = None,
    passcode: str | Secret | None = None,
    allow_http: bool = False,
) -> Settings:
    """Settings from arguments, then from the environment, as listed in the table above.

    Args:
        token: a service-account token. Pass ``"Bearer …"`` for a personal access token.
        client_id: one real-time instance, several, or ``"all"``. None: those on which a UDF's results may lie.
        base_url: the deployment's address, with or without ``/server/v1``.
        run_base_url: where the deployment runs shared UDFs. Needed to verify; known for www.fused.io and this machine.
        passcode: the passcode of a public canvas, sent with its shared runs only.
        allow_http: allow plain http to a host that is not this machine.

    Raises:
        ConfigurationError: a setting is missing or invalid. The message never shows a token.
    """
    token, passcode = sealed(token), sealed(passcode)  # masked before anything here can fail
    client_id = client_id if client_id is not None else os.environ.get("FUSED_CLIENT_ID") or None
    base_url = base_url if base_url is not None else os.environ.get("FUSED_BASE_URL") or DEFAULT_BASE_URL
    authorization = _authorization(token)
    checked = _checked_url("base_url", base_url, allow_http, DEFAULT_BASE_URL)
    run_base_url = run_base_url if run_base_url is not None else os.environ.get("FUSED_RUN_BASE_URL") or None
    if run_base_url is not None:
        run_base_url = _checked_url("run_base_url", run_base_url, allow_http, DEFAULT_RUN_BASE_URL)
    else:
        parts = urlsplit(checked)
        if parts.hostname == urlsplit(DEFAULT_BASE_URL).hostname:
            run_base_url = DEFAULT_RUN_BASE_URL
        elif is_loopback(parts.hostname or ""):  # the emulator
            run_base_url = f"{parts.scheme}://{parts.netloc}"
    return Settings(
        authorization=authorization,
        base_url=checked if urlsplit(checked).path else f"{checked}/server/v1",
        client_ids=() if client_id is None else _client_ids(client_id),
        run_base_url=run_base_url,
        passcode=_passcode(passcode),
    )


def check_limits(timeout: float, deadline: float, max_concurrency: int, max_requests_per_second: float | None) -> None:
    """Reject invalid limits.

    Raises:
        ConfigurationError: a limit is invalid. The message names it.
    """
    for name, value in (("timeout", timeout), ("deadline", deadline)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e9:
            raise ConfigurationError(f"{name} = {quoted(value)} must be a number of seconds above 0.")
    if isinstance(max_concurrency, bool) or not isinstance(max_concurrency, int) or not 1 <= max_concurrency <= 256:
        raise ConfigurationError(f"max_concurrency = {quoted(max_concurrency)} must be a whole number from 1 to 256.")
    rate = max_requests_per_second
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0.001 <= rate < 1e6):
        raise ConfigurationError(f"max_requests_per_second = {quoted(rate)} must be a number of at least 0.001, or None.")


def check_client_id(client_id: ClientId) -> None:
    """Reject what does not name real-time instances.

    Raises:
        ConfigurationError: as said.
    """
    _client_ids(client_id)


def _client_ids(given: ClientId) -> tuple[str, ...]:
    parts: Sequence[str] = given.split(",") if isinstance(given, str) else given
    if not isinstance(parts, (list, tuple)) or not parts:
        raise ConfigurationError(
            f"client_id = {quoted(given)} must be the id of an instance, several ids, or {EVERY_INSTANCE!r} for every instance."
        )
    found = tuple(dict.fromkeys(checked_identifier(part, "client_id", ConfigurationError) for part in parts))
    if EVERY_INSTANCE in found and len(found) > 1:
        raise ConfigurationError(
            f"client_id = {quoted(given)} has {EVERY_INSTANCE!r} beside other instances: pass one or the other."
        )
    return found


def _authorization(token: Secret | None) -> Secret:
    scheme, origin = _SERVICE, "token"
    if token is None:
        origin = "FUSED_SERVICE_ACCOUNT_TOKEN"
        token = _from_environment(origin)
        if token is None:
            origin = "FUSED_AUTH_TOKEN"
            token = _from_environment(origin)
            scheme = _known_scheme(os.environ.get("FUSED_AUTH_TOKEN_TYPE", "Bearer"), "FUSED_AUTH_TOKEN_TYPE")
        if token is None:
            raise ConfigurationError(
                "No Fused token found: set FUSED_SERVICE_ACCOUNT_TOKEN to a service account's token, or pass token=."
            )
    if not isinstance(token, Secret):
        raise ConfigurationError(f"{origin} is of type {type(token).__name__}, not a string.")
    header, problem = _header(token, scheme)
    if header is None:
        raise ConfigurationError(f"{origin} {problem}")
    return header


def _passcode(passcode: Secret | None) -> Secret | None:
    origin = "passcode"
    if passcode is None:
        origin = "FUSED_CANVAS_PASSCODE"
        passcode = _from_environment(origin)
    if passcode is None:
        return None
    if not isinstance(passcode, Secret):
        raise ConfigurationError(f"{origin} is of type {type(passcode).__name__}, not a string.")
    if not _PASSCODE.fullmatch(passcode.reveal().strip()):
        raise ConfigurationError(f"{origin} is empty or contains characters not allowed in an HTTP header: copy it again.")
    return Secret(passcode.reveal().strip())


def _from_environment(name: str) -> Secret | None:
    return Secret(os.environ[name]) if os.environ.get(name) else None


def _header(token: Secret, scheme: str) -> tuple[Secret | None, str]:
    """The header's value, or what is wrong with the token. It never raises, so that no traceback shows parts of the token."""
    words = token.reveal().split()
    if len(words) == 2:
        if words[0].lower() not in _SCHEMES:  # it may be half of a secret, so it is not shown
            return None, (
                "contains two words, and the first is not a scheme that Fused knows: "
                "pass the token alone, or 'Fused-Service-Token …' or 'Bearer …'."
            )
        scheme = _SCHEMES[words[0].lower()]
    if not words or len(words) > 2 or not _TOKEN.fullmatch(words[-1]):
        state = "empty" if not words else "not a token: it contains spaces or characters not allowed in an HTTP header"
        return None, f"is {state}. Copy the service account's token again, on one line."
    return Secret(f"{scheme} {words[-1]}"), ""


def _known_scheme(scheme: str, origin: str) -> str:
    try:
        return _SCHEMES[scheme.strip().lower()]
    except KeyError:
        raise ConfigurationError(f"{origin} is not a known scheme: use one of {', '.join(_SCHEMES.values())}.") from None


_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?|[0-9a-f:.]*:[0-9a-f:.]*(%.+)?")
"""A name, whose parts are neither empty nor too long, or an address of IPv6."""


def _checked_url(name: str, url: str, allow_http: bool, example: str) -> str:
    if not isinstance(url, str):
        raise ConfigurationError(f"{name} is of type {type(url).__name__}, not a string. Example: {example}")
    checked, shown, problem = read_url(url, allow_http)
    if problem:
        raise ConfigurationError(f"{name}{f' = {quoted(shown)}' if shown else ''} {problem}. Example: {example}")
    return checked


def read_url(url: str, allow_http: bool) -> tuple[str, str, str]:
    """A normalized address, the part of it that may be shown, and what is wrong with it.

    User names, passwords, queries and fragments may contain a token by mistake, so they are never shown.
    """
    url = url.strip()
    shown = masked_address(re.split(r"[?#]", url)[0]) if "@" not in url else ""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "", shown, "is not a URL"
    if "@" in url:
        return "", "", "contains an @, as after a user name or password: the token belongs in its own setting"
    if parts.scheme not in ("http", "https") or not host:
        return "", shown, "must begin with https:// and name a host"
    if host.isascii() and not _HOST.fullmatch(host):
        return "", shown, "does not name a valid host"
    if re.search(r"[?#\s\\%\x00-\x1f\x7f]", url):
        return "", shown, "must be a plain address, without a query, fragment, escapes or spaces"
    if holds_shared_token(parts.path):
        return "", shown, "contains a shared token: use the address without it, and pass the token as udf or shared_token"
    if parts.scheme == "http" and not (allow_http or is_loopback(host)):
        return "", shown, "would send the token unencrypted: use https, or FusedClient(allow_http=True) if that is intended"
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}", shown, ""


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
