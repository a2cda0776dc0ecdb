"""The one place that speaks HTTP to Fused: address, header, time-outs, typed errors."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote, urlsplit

from fused_cache_ops.errors import (
    AuthenticationError,
    ConfigurationError,
    FusedCacheError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    UnavailableError,
    UnexpectedRedirectError,
    UnexpectedResponseError,
)
from fused_cache_ops.identifiers import checked_identifier, parse_udf
from fused_cache_ops.retry import Retrier, parse_retry_after
from fused_cache_ops.settings import (
    DEFAULT_CONCURRENCY,
    DEFAULT_DEADLINE,
    DEFAULT_TIMEOUT,
    Secret,
    resolve_settings,
)
from fused_cache_ops.tiles import Tile

if TYPE_CHECKING:
    import requests
    from typing_extensions import Unpack

    from fused_cache_ops.result import InvalidationResult
    from fused_cache_ops.selection import SelectionKeywords

_LARGEST_BODY = 8 * 1024 * 1024  # a UDF's record holds its code; nothing else comes near

_REMEDIES: dict[int, str] = {
    401: "The token is missing, malformed or expired: create a new one for the service account.",
    403: "The token is good, but may not do this: invalidating needs write access to the UDF.",
    404: "There is no such thing, or this token may not see it: check the id or name, "
    "which team the token is of, and client_id and base_url where they are set.",
}


@dataclass(frozen=True)
class Environment:
    """The team environment that a token stands for."""

    id: str | None
    name: str | None


class FusedClient:
    """A connection to one Fused deployment: one pool of kept-alive connections, one TLS context.

    Use it as a context manager, from as many threads as you like. It cannot be pickled, since it holds a token: make
    it where it is used.

    Args:
        token: a service-account token; else ``FUSED_SERVICE_ACCOUNT_TOKEN``; else the SDK's pair
            ``FUSED_AUTH_TOKEN_TYPE`` and ``FUSED_AUTH_TOKEN``. ``"Bearer …"`` makes it a personal access token.
        client_id: the real-time instance; else ``FUSED_CLIENT_ID``; else the service's preferred one, asked for once.
        base_url: the deployment; else ``FUSED_BASE_URL``; else ``https://www.fused.io/server/v1``. Plain http only to
            this machine.
        timeout: seconds for connecting, and for each wait on the server's answer.
        deadline: seconds that one call may take, retries included.
        max_concurrency: requests in flight at once where tiles go one by one.
        allow_http: permit plain http to other machines (the token then travels in clear).

    Raises:
        ConfigurationError: a setting is missing or unusable.
    """

    def __init__(
        self,
        *,
        token: str | None = None,
        client_id: str | None = None,
        base_url: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        deadline: float = DEFAULT_DEADLINE,
        max_concurrency: int = DEFAULT_CONCURRENCY,
        allow_http: bool = False,
    ) -> None:
        token = Secret(token) if isinstance(token, str) else token
        settings = resolve_settings(token=token, client_id=client_id, base_url=base_url, allow_http=allow_http)
        for name, value in (("timeout", timeout), ("deadline", deadline)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e9:
                raise ConfigurationError(f"{name}={value!r} must be a number of seconds above 0.")
        if isinstance(max_concurrency, bool) or not isinstance(max_concurrency, int) or not 1 <= max_concurrency <= 256:
            raise ConfigurationError(f"max_concurrency={max_concurrency!r} must be a whole number from 1 to 256.")
        self.base_url = settings.base_url
        self.timeout = float(timeout)
        self.deadline = float(deadline)
        self.max_concurrency = max_concurrency
        self._authorization = settings.authorization
        self._client_id = settings.client_id
        self._lock = threading.RLock()
        self._session: requests.Session | None = None
        self._session_process = os.getpid()

    @property
    def client_id(self) -> str | None:
        """The real-time instance, where it was configured or has been looked up."""
        return getattr(self, "_client_id", None)

    # -- what callers use ---------------------------------------------------------------------------------------

    def invalidate_cache(self, udf: str, **selection: Unpack[SelectionKeywords]) -> InvalidationResult:
        """As `fused_cache_ops.invalidate_cache`, over this client's connections."""
        from fused_cache_ops.invalidate import invalidate_cache

        return invalidate_cache(udf, client=self, **selection)

    def resolve_udf(self, udf: str, *, retrier: Retrier | None = None) -> str:
        """The id of a UDF given by id, name or shared token. An id costs no request, and no UDF's code is ever run.

        Raises:
            InvalidInputError: the reference cannot be read.
            NotFoundError: there is no such UDF for this token.
            FusedCacheError: the look-up failed.
        """
        reference = parse_udf(udf)
        if reference.udf_id is not None:
            return reference.udf_id
        record = self._request(
            "GET", reference.lookup, retrier=retrier, what=f"looking up UDF {reference.shown}", secret=reference.secret
        )
        udf_id = record.get("id") if isinstance(record, dict) else None
        if not isinstance(udf_id, str):
            raise UnexpectedResponseError(f"The record of UDF {reference.shown} has no id: cannot go on.")
        return checked_identifier(udf_id, "the UDF's id in the service's answer", UnexpectedResponseError)

    def resolve_client_id(self, *, retrier: Retrier | None = None) -> str:
        """The real-time instance: the configured one, or else the one with the highest ``preference_rank``.

        The first of equals is taken, and a missing rank counts as 0, as in Fused's SDK.

        Raises:
            ConfigurationError: the token has no real-time instance.
            FusedCacheError: the look-up failed.
        """
        with self._lock:
            if self._client_id is None:
                answer = self._request(
                    "GET", ("realtime-instance", "available"), retrier=retrier, what="looking up the real-time instance"
                )
                instances = [entry for entry in answer if "client_id" in entry] if _is_records(answer) else None
                if instances is None:
                    raise UnexpectedResponseError("The list of real-time instances is not one: set client_id instead.")
                if not instances:
                    raise ConfigurationError("This token has no real-time instance: pass client_id=, or set FUSED_CLIENT_ID.")
                preferred = max(instances, key=lambda entry: entry.get("preference_rank") or 0)
                self._client_id = checked_identifier(
                    preferred["client_id"], "client_id in the service's answer", UnexpectedResponseError
                )
            return self._client_id

    def check(self) -> Environment:
        """Ask whether the token is good, and for which environment. Changes nothing.

        Raises:
            AuthenticationError: it is not.
            FusedCacheError: the service could not say.
        """
        answer = self._request("GET", ("execution-env", "self"), what="checking the token")
        if not isinstance(answer, dict):
            raise UnexpectedResponseError("The service's answer about the token's environment cannot be read.")
        return Environment(*(str(answer[key]) if key in answer else None for key in ("id", "name")))

    def close(self) -> None:
        """Close the connections. The client can be used again; it then opens new ones."""
        with self._lock:
            session, self._session = self._session, None
        if session is not None and self._session_process == os.getpid():
            session.close()

    def __enter__(self) -> FusedClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        # A traceback may show a client that failed in the middle of being made.
        fields = (f"{name}={getattr(self, name, None)!r}" for name in ("base_url", "client_id"))
        return f"FusedClient({', '.join(fields)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a FusedClient is never pickled, since it holds a token: make it where it is used, "
            "with FusedClient() and FUSED_SERVICE_ACCOUNT_TOKEN, or with your orchestrator's secret."
        )

    # -- the three requests that invalidate ----------------------------------------------------------------------

    def invalidate_udf(self, udf_id: str, *, retrier: Retrier) -> None:
        """Send the one request that invalidates the whole cache of a UDF."""
        self._invalidate("DELETE", "delete", udf_id, retrier)

    def invalidate_tile(self, udf_id: str, tile: Tile, *, retrier: Retrier) -> None:
        """Send the one request that invalidates one tile."""
        self._invalidate("DELETE", "delete", udf_id, retrier, params={"z": tile.z, "x": tile.x, "y": tile.y})

    def invalidate_batch(self, udf_id: str, body: bytes, *, retrier: Retrier) -> int | None:
        """Send one request that invalidates 1 to 50,000 tiles; the number of objects deleted, where the server says.

        A deployment without the endpoint answers 404 or 405.
        """
        answer = self._invalidate("POST", "batch-delete", udf_id, retrier, body=body)
        deleted = answer.get("objects_deleted") if isinstance(answer, dict) else None
        return deleted if isinstance(deleted, int) and not isinstance(deleted, bool) and deleted >= 0 else None

    def _invalidate(self, method: str, action: str, udf_id: str, retrier: Retrier, **request: Any) -> Any:
        path = ("realtime-shared", self.resolve_client_id(retrier=retrier), "udf-cache", "by-id", udf_id, action)
        return self._request(method, path, retrier=retrier, what=f"invalidating UDF {udf_id}", **request)

    # -- one request ---------------------------------------------------------------------------------------------

    def _request(
        self,
        method: str,
        path: Iterable[str],
        *,
        what: str,
        retrier: Retrier | None = None,
        params: Mapping[str, int] | None = None,
        body: bytes | None = None,
        secret: str | None = None,
    ) -> Any:
        """Send until it succeeds or fails for good; the answer's JSON, or None where it has none."""
        url = f"{self.base_url}/{'/'.join(quote(part, safe='') for part in path)}"
        retrier = retrier or Retrier(self.deadline)
        return retrier.run(lambda seconds_left: self._send_once(method, url, params, body, what, secret, seconds_left))

    def _send_once(
        self,
        method: str,
        url: str,
        params: Mapping[str, int] | None,
        body: bytes | None,
        what: str,
        secret: str | None,
        seconds_left: float,
    ) -> Any:
        import requests
        import urllib3

        session = self._open_session()
        headers = {"Content-Type": "application/json"} if body else None
        trouble, permanent = "", False
        try:
            request = session.prepare_request(requests.Request(method, url, headers, params=params, data=body))
            response = session.send(
                request,
                timeout=min(self.timeout, max(seconds_left, 0.001)),
                allow_redirects=False,
                stream=True,
            )
            with response:
                content = self._scrubbed(response.raw.read(_LARGEST_BODY + 1, decode_content=True))
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            trouble, permanent = _reason(error), _is_permanent(error)
        # Raised out here, where no exception of requests hangs on: each of those carries the header.
        if trouble:
            message = f"Failed {what}: no answer from {urlsplit(url).netloc}: {self._clean(trouble, secret)}."
            if permanent:
                raise ConfigurationError(f"{message} Check base_url, and REQUESTS_CA_BUNDLE where certificates are your own.")
            raise UnavailableError(message)
        if len(content) > _LARGEST_BODY:
            raise UnexpectedResponseError(f"Failed {what}: the answer is larger than {_LARGEST_BODY:,} bytes.")
        if not 200 <= response.status_code < 300:
            raise self._error(response, content, what, secret)
        if content.lstrip()[:1] == b"<":
            raise UnexpectedResponseError(
                f"Failed {what}: {urlsplit(url).netloc} answered {response.status_code} with a page for people, so this is not "
                "the service: is base_url right, and does no proxy or login stand in between?",
                status=response.status_code,
            )
        try:
            return json.loads(content) if content else None
        except ValueError:
            return None

    def _error(self, response: requests.Response, content: bytes, what: str, secret: str | None) -> FusedCacheError:
        status = response.status_code
        said = self._clean(_server_text(content), secret)
        message = f"Failed {what}: {urlsplit(self.base_url).netloc} answered {status}{f' ({said})' if said else ''}."
        if remedy := _REMEDIES.get(status):
            message = f"{message} {remedy}"
        if 300 <= status < 400:
            target = self._clean(response.headers.get("Location", "an address that it does not name"), secret)
            return UnexpectedRedirectError(
                f"{message} It points to {target}. Redirects are never followed, since a redirected DELETE arrives as "
                "a GET and invalidates nothing: set base_url to the final address.",
                status=status,
            )
        if status == 429 or status == 408 or status >= 500:
            passing = RateLimitedError if status == 429 else UnavailableError
            return passing(message, status=status, retry_after=parse_retry_after(response.headers.get("Retry-After")))
        permanent: dict[int, type[FusedCacheError]] = {
            401: AuthenticationError,
            403: PermissionDeniedError,
            404: NotFoundError,
            422: InvalidRequestError,
        }
        return permanent.get(status, UnexpectedResponseError)(message, status=status)

    def _scrubbed(self, content: bytes) -> bytes:
        """A body without the token, should the service echo it: errors carry what the locals of their frames hold."""
        return content.replace(self._authorization.split()[-1].encode(), b"********")

    def _clean(self, text: str, secret: str | None) -> str:
        """A server's or a library's words, fit for one log line: no line breaks, no token, not too long."""
        for hidden in (self._authorization, self._authorization.split()[-1], secret):
            if hidden:
                text = text.replace(hidden, "********")
        text = "".join(character if character.isprintable() else " " for character in text)
        text = " ".join(text.split()).rstrip(".")
        return text if len(text) <= 300 else f"{text[:297]}..."

    def _open_session(self) -> requests.Session:
        with self._lock:
            # After a fork the pool's sockets are the parent's: answers would cross over.
            if self._session is None or self._session_process != os.getpid():
                from fused_cache_ops.connection import open_session

                self._session = open_session(self._authorization, self.base_url, pool_size=self.max_concurrency)
                self._session_process = os.getpid()
            return self._session


def _is_records(answer: object) -> bool:
    return isinstance(answer, list) and all(isinstance(entry, dict) for entry in answer)


def _reason(error: Exception) -> str:
    """The innermost reason that a library gives; its own text tends to be a nest of reprs."""
    import requests

    inner: Any = error
    while True:
        nested = getattr(inner, "reason", None) or next((a for a in inner.args if isinstance(a, Exception)), None)
        if not isinstance(nested, Exception) or nested is inner:
            break
        inner = nested
    kind = "the connection timed out" if isinstance(error, requests.Timeout) else "the connection failed"
    return f"{kind} ({type(inner).__name__}: {inner})"


def _is_permanent(error: Exception) -> bool:
    """Whether no later try can succeed: a certificate that does not verify, TLS to a plain port, an impossible address."""
    import requests

    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)):
        return True
    return any(sign in str(error) for sign in ("CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER", "label empty or too long"))


def _server_text(content: bytes) -> str:
    """What the service says went wrong: ``detail`` as text or as a list of reasons, ``message``, or plain text."""
    text = content[:10_000].decode("utf-8", "replace")
    try:
        answer = json.loads(text)
    except ValueError:
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
