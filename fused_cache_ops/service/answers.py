"""Errors out of answers, and out of their absence; a server's words made fit for a message."""

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
    403: "The token is good, but may not do this: invalidating needs write access to the UDF.",
    404: "There is no such thing, or this token may not see it: check the id or name, "
    "which team the token is of, and client_id and base_url where they are set.",
}


def error_from(
    status: int, headers: Mapping[str, str], content: bytes, *, what: str, host: str, clean: Callable[[str], str]
) -> FusedCacheError:
    """The error that an answer other than 2xx means.

    Args:
        status: the HTTP status.
        headers: by their names in lower case.
        content: the body.
        what: what was asked for, for the message: ``looking up UDF 'roads'``.
        host: who has answered.
        clean: takes secrets and line breaks out of the server's words.
    """
    said = clean(server_text(content))
    message = f"Failed {what}: {host} answered {status}{f' ({said})' if said else ''}."
    if remedy := _REMEDIES.get(status):
        message = f"{message} {remedy}"
    if 300 <= status < 400:
        target = clean(headers.get("location", "an address that it does not name"))
        return UnexpectedRedirectError(
            f"{message} It points to {target}. Redirects are never followed, since a redirected DELETE arrives as "
            "a GET and invalidates nothing: set base_url to the final address.",
            status=status,
        )
    if status == 429 or status == 408 or status >= 500:
        passing = RateLimitedError if status == 429 else UnavailableError
        return passing(message, status=status, retry_after=parse_retry_after(headers.get("retry-after")))
    permanent: dict[int, type[FusedCacheError]] = {
        401: AuthenticationError,
        403: PermissionDeniedError,
        404: NotFoundError,
        422: InvalidRequestError,
    }
    return permanent.get(status, UnexpectedResponseError)(message, status=status)


def json_from(status: int, content: bytes, *, what: str, host: str, clean: Callable[[str], str]) -> Any:
    """The JSON of a 2xx answer.

    Raises:
        UnexpectedResponseError: it is not JSON, so this is not the service.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise UnexpectedResponseError(
            f"Failed {what}: {host} answered {status} with what is not JSON ({clean(ascii(content[:80]))}): is base_url right?",
            status=status,
        ) from None


def cleaned(text: str) -> str:
    """A server's or a library's words, fit for one log line: no line breaks, not too long."""
    text = "".join(character if character.isprintable() else " " for character in text)
    return shortened(" ".join(text.split()).rstrip("."), 300)


def reason_of(error: Exception) -> str:
    """The innermost reason that a library gives; its own text tends to be a nest of reprs."""
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
    """Whether no later try can succeed: a certificate that does not verify, TLS to a plain port, an impossible address or
    an answer whose headers are beyond reason."""
    import urllib3

    return isinstance(error, urllib3.exceptions.LocationValueError) or any(sign in str(error) for sign in _PERMANENT)


def server_text(content: bytes) -> str:
    """What the service says went wrong: ``detail`` as text or as a list of reasons, ``message``, or plain text."""
    text = content[:10_000].decode("utf-8", "replace")
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return "" if text.lstrip().startswith("<") else text  # a proxy's page of HTML helps nobody
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
