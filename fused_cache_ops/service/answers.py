"""Errors from responses or from missing responses, and sanitizing of the server's text for messages."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from fused_cache_ops.errors import (
    AuthenticationError,
    FusedCacheError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    UnavailableError,
    UnexpectedRedirectError,
    UnexpectedResponseError,
)
from fused_cache_ops.service.retry import parse_retry_after
from fused_cache_ops.wording import shortened

_REMEDIES: dict[int, str] = {
    401: "The token is missing, malformed or expired: create a new one for the service account.",
    403: "The token is valid but lacks permission: invalidating needs write access to the UDF.",
    404: "It does not exist, or this token may not see it: check the id or name, "
    "which team the token belongs to, and client_id and base_url if they are set.",
}


def error_from(
    status: int,
    headers: Mapping[str, str],
    content: bytes,
    *,
    what: str,
    host: str,
    clean: Callable[[str], str],
    remedy: str | None = None,
) -> FusedCacheError:
    """The error for a response other than 2xx.

    Args:
        status: the HTTP status.
        headers: the headers, keyed by lowercase name.
        content: the body.
        what: what was requested, for the message: ``looking up UDF 'roads'``.
        host: the host that responded.
        clean: removes secrets and line breaks from the server's text.
        remedy: what the caller can do, whatever the status. Default: depends on the status.
    """
    said = clean(server_text(content))
    message = f"Failed {what}: {host} answered {status}{f' ({said})' if said else ''}."
    if remedy := remedy or _REMEDIES.get(status):
        message = f"{message} {remedy}"
    if 300 <= status < 400:
        target = clean(headers.get("location", "an address it does not name"))
        return UnexpectedRedirectError(
            f"{message} It points to {target}. Redirects are never followed, because a redirected DELETE arrives as "
            "a GET and invalidates nothing: set base_url to the final address.",
            status=status,
        )
    if status == 429 or status == 408 or status >= 500:
        transient = RateLimitedError if status == 429 else UnavailableError
        return transient(message, status=status, retry_after=parse_retry_after(headers.get("retry-after")))
    permanent: dict[int, type[FusedCacheError]] = {
        401: AuthenticationError,
        403: PermissionDeniedError,
        404: NotFoundError,
        422: InvalidRequestError,
    }
    return permanent.get(status, UnexpectedResponseError)(message, status=status)


def json_from(status: int, content: bytes, *, what: str, host: str, clean: Callable[[str], str]) -> Any:
    """The JSON of a 2xx response.

    Raises:
        UnexpectedResponseError: the body is not JSON, so this is not the Fused service.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise UnexpectedResponseError(json_problem(status, content, what=what, host=host, clean=clean), status=status) from None


def json_problem(status: int, content: bytes, *, what: str, host: str, clean: Callable[[str], str]) -> str:
    """The message about a response that is not JSON."""
    return f"Failed {what}: {host} answered {status} with invalid JSON ({clean(ascii(content[:80]))}): is base_url right?"


def cleaned(text: str) -> str:
    """A server's or a library's text, made fit for one log line: no line breaks, not too long."""
    text = "".join(character if character.isprintable() else " " for character in text)
    return shortened(" ".join(text.split()).rstrip("."), 300)


def reason_of(error: Exception) -> str:
    """The innermost reason that a library gives. The outer exceptions tend to be nested reprs."""
    import urllib3

    inner: Any = error
    while True:
        nested = getattr(inner, "reason", None) or next((a for a in inner.args if isinstance(a, Exception)), None)
        if not isinstance(nested, Exception) or nested is inner:
            break
        inner = nested
    late = isinstance(error, urllib3.exceptions.TimeoutError) and not isinstance(error, urllib3.exceptions.NewConnectionError)
    return f"the connection {'timed out' if late else 'failed'} ({type(inner).__name__}: {inner})"


_PERMANENT = ("CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER", "label empty or too long", "when reading header line")


def is_permanent(error: Exception) -> bool:
    """Whether no retry can succeed: a certificate that does not verify, TLS to a plain-text port, an impossible address or
    a response with absurdly large headers."""
    import urllib3

    return isinstance(error, urllib3.exceptions.LocationValueError) or any(sign in str(error) for sign in _PERMANENT)


def server_text(content: bytes) -> str:
    """The service's reason for an error: ``detail`` as text or as a list of reasons, ``message``, or plain text."""
    text = content[:10_000].decode("utf-8", "replace")
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return "" if text.lstrip().startswith("<") else text  # a proxy's HTML page is of no help
    if not isinstance(answer, dict):
        return text
    detail = answer.get("detail") or answer.get("message") or ""
    if isinstance(detail, list):
        return "; ".join(_reason_text(entry) for entry in detail)
    return detail if isinstance(detail, str) else text


def _reason_text(entry: object) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    place = entry.get("loc")
    where = ".".join(str(part) for part in place) if isinstance(place, list) else ""
    return f"{where}: {entry.get('msg')}" if where else str(entry.get("msg"))
