"""The one place that speaks HTTP to Fused: address, header, time-outs, typed errors."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    StaleConnectionError,
    UnavailableError,
    UnexpectedRedirectError,
    UnexpectedResponseError,
)
from fused_cache_ops.identifiers import checked_identifier, parse_udf
from fused_cache_ops.limiter import Limiter
from fused_cache_ops.retry import Retrier, parse_retry_after
from fused_cache_ops.settings import (
    DEFAULT_CONCURRENCY,
    DEFAULT_DEADLINE,
    DEFAULT_TIMEOUT,
    Secret,
    check_limits,
    resolve_settings,
)
from fused_cache_ops.tiles import Tile

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fused_cache_ops.connection import Certificate, Connections
    from fused_cache_ops.keywords import CallKeywords, SelectionKeywords
    from fused_cache_ops.result import InvalidationResult
    from fused_cache_ops.verification import Verification

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
        timeout: seconds that one request may take, to the last byte of the answer.
        deadline: seconds that one call may take, retries included.
        max_concurrency: requests in flight at once where tiles go one by one; of batches at most four are.
        max_requests_per_second: the most requests a second, of all this client's calls together; None: as many as the
            service takes. After "too many requests" the rate is found out, and all workers keep to it.
        ca_bundle: certificates to trust, a file or a folder; else those that ``REQUESTS_CA_BUNDLE``, ``CURL_CA_BUNDLE``
            or ``SSL_CERT_FILE`` name, or requests' own.
        client_certificate: the path of a PEM file to show to the server, or those of a certificate and its key.
        run_base_url: where shared UDFs run, for ``verify``; else ``FUSED_RUN_BASE_URL``; else ``https://udf.ai`` for
            www.fused.io.
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
        max_requests_per_second: float | None = None,
        ca_bundle: str | None = None,
        client_certificate: Certificate | None = None,
        run_base_url: str | None = None,
        allow_http: bool = False,
    ) -> None:
        token = Secret(token) if isinstance(token, str) else token
        settings = resolve_settings(
            token=token, client_id=client_id, base_url=base_url, run_base_url=run_base_url, allow_http=allow_http
        )
        check_limits(timeout, deadline, max_concurrency, max_requests_per_second)
        self.base_url = settings.base_url
        self.run_base_url = settings.run_base_url
        self._host, self._path = urlsplit(settings.base_url)[1:3]
        self.timeout = float(timeout)
        self.deadline = float(deadline)
        self.max_concurrency = max_concurrency
        self.limiter = Limiter(max_requests_per_second)
        self._certificates: Any = {"ca_bundle": ca_bundle, "client_certificate": client_certificate}
        self._authorization = settings.authorization
        self._client_id = settings.client_id
        self._lock = threading.RLock()
        self._connections: Connections | None = None
        self._retriers: weakref.WeakSet[Retrier] = weakref.WeakSet()
        _CLIENTS.add(self)

    @property
    def client_id(self) -> str | None:
        """The real-time instance, where it was configured or has been looked up."""
        return getattr(self, "_client_id", None)

    # -- what callers use ---------------------------------------------------------------------------------------

    def invalidate_cache(self, udf: str, **keywords: Unpack[CallKeywords]) -> InvalidationResult:
        """As `fused_cache_ops.invalidate_cache`, over this client's connections."""
        from fused_cache_ops.invalidate import invalidate_cache

        return invalidate_cache(udf, client=self, **keywords)

    def verify_cache(
        self, udf: str, *, verify: int, shared_token: str | None = None, **selection: Unpack[SelectionKeywords]
    ) -> Verification:
        """Ask for some tiles of a selection, and tell which of them the UDF computed anew.

        Right after an invalidation that covered the selection, and before anybody else asks, that is all of them. A second
        call finds what the first one had computed.

        Args:
            udf: as for `fused_cache_ops.invalidate_cache`.
            verify: how many tiles, drawn at random. Each one runs the UDF.
            shared_token: of the UDF; not needed where ``udf`` is one.
            selection: the keywords of `fused_cache_ops.invalidate_cache` that select tiles.

        Raises:
            InvalidInputError: the selection cannot be read, or is the whole UDF.
            ConfigurationError: there is no shared token, or no address to use it at.
        """
        from fused_cache_ops.selection import read_selection
        from fused_cache_ops.verification import verify_selection

        shared_token = Secret(shared_token) if isinstance(shared_token, str) else shared_token
        parse_udf(udf)
        return verify_selection(self, udf, read_selection(**selection), verify, shared_token)

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

    def start(self) -> Retrier:
        """The patience for one call, over this client's pace. `cancel` ends it."""
        retrier = Retrier(self.deadline, self.limiter)
        self._retriers.add(retrier)
        return retrier

    def cancel(self) -> None:
        """End, at once and from whatever thread, the calls under way: they raise `InvalidationCancelledError`, which
        hands back the tiles that are not known to be invalidated."""
        for retrier in list(self._retriers):
            retrier.cancel()
        self.abort_requests()

    def abort_requests(self) -> None:
        """Cut off the requests that are under way."""
        if self._connections is not None:
            self._connections.abort()

    def close(self) -> None:
        """Close the connections. The client can be used again; it then opens new ones."""
        with self._lock:
            connections, self._connections = self._connections, None
        if connections is not None:
            connections.close()

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
        self._invalidate("DELETE", "delete", udf_id, retrier, query="?z=%d&x=%d&y=%d" % tile)

    def invalidate_batch(self, udf_id: str, body: bytes, *, retrier: Retrier) -> int | None:
        """Send one request that invalidates 1 to 50,000 tiles; the number of objects deleted, where the server says.

        A deployment without the endpoint answers 404 or 405.
        """
        answer = self._invalidate("POST", "batch-delete", udf_id, retrier, body=body)
        if answer is None:
            return None
        deleted = answer.get("objects_deleted") if isinstance(answer, dict) else answer
        if deleted is not None and (isinstance(deleted, bool) or not isinstance(deleted, int) or deleted < 0):
            raise UnexpectedResponseError(
                f"{self._host} answered the invalidation of tiles of UDF {udf_id} with "
                f"objects_deleted={self._clean(ascii(deleted), None)}, which is no number: is base_url right?"
            )
        return deleted

    def _invalidate(self, method: str, action: str, udf_id: str, retrier: Retrier, **request: Any) -> Any:
        path = ("realtime-shared", self.resolve_client_id(retrier=retrier), "udf-cache", "by-id", udf_id, action)
        return self._request(method, path, retrier=retrier, what=f"invalidating UDF {udf_id}", **request)

    # -- shared UDFs ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def open_run_connections(self, pool_size: int) -> Iterator[Callable[[str, Tile], tuple[Mapping[str, str], str]]]:
        """A function that asks a shared UDF for a tile: it returns the answer's headers, and what went wrong or ``""``.

        The shared token in the address is the permission; this client's own token does not go along.
        """
        import urllib3

        from fused_cache_ops.connection import Connections, Overdue, Reused

        run_base_url = str(self.run_base_url)
        connections = Connections(run_base_url, None, pool_size=pool_size, **self._certificates)

        def ask(token: str, tile: Tile) -> tuple[Mapping[str, str], str]:
            target = f"{urlsplit(run_base_url).path}/{quote(token)}/run/tiles/{tile}"
            try:
                answer = connections.send("GET", target, wait=self.timeout, seconds=self.timeout)
            except (urllib3.exceptions.HTTPError, OSError, Overdue, Reused) as error:
                late = isinstance(error, Overdue)
                return {}, f"no answer within {self.timeout:g} s" if late else self._clean(_reason(error), token)
            if not 200 <= answer.status < 300:
                return {}, f"{urlsplit(run_base_url).netloc} answered {answer.status}"
            return answer.headers, ""

        try:
            yield ask
        finally:
            connections.close()

    # -- one request ---------------------------------------------------------------------------------------------

    def _request(
        self,
        method: str,
        path: Iterable[str],
        *,
        what: str,
        retrier: Retrier | None = None,
        query: str = "",
        body: bytes | None = None,
        secret: str | None = None,
    ) -> Any:
        """Send until it succeeds or fails for good; the answer's JSON, or None where it has none."""
        target = f"{self._path}/{'/'.join([part if part.isalnum() else quote(part, safe='') for part in path])}{query}"
        retrier = retrier or self.start()
        return retrier.run(lambda seconds_left: self._send_once(method, target, body, what, secret, seconds_left))

    def _send_once(
        self, method: str, target: str, body: bytes | None, what: str, secret: str | None, seconds_left: float
    ) -> Any:
        import urllib3

        from fused_cache_ops.connection import LARGEST_BODY, Overdue, Reused

        connections = self._open_connections()
        answer, trouble = None, ""
        kind: type[FusedCacheError] = UnavailableError
        seconds = max(0.001, min(self.timeout, seconds_left))
        try:
            answer = connections.send(method, target, body=body, wait=self.timeout, seconds=seconds)
        except Reused:
            kind = StaleConnectionError
            trouble = "the server had closed a connection that was kept alive"
        except Overdue:
            trouble = f"the answer was not complete within {seconds:.3g} s"
        except (urllib3.exceptions.HTTPError, OSError) as error:
            trouble = _reason(error)
            kind = ConfigurationError if _is_permanent(error) else UnavailableError
        # Raised out here, where no exception of urllib3 hangs on: the frames of each of those hold the header.
        if answer is None:
            message = f"Failed {what}: no answer from {self._host}: {self._clean(trouble, secret)}."
            if kind is ConfigurationError:
                message += " Check base_url, and ca_bundle or REQUESTS_CA_BUNDLE where certificates are your own."
            raise kind(message)
        content = answer.body
        if len(content) > LARGEST_BODY:
            raise UnexpectedResponseError(f"Failed {what}: the answer is larger than {LARGEST_BODY:,} bytes.")
        if not 200 <= answer.status < 300:
            raise self._error(answer.status, answer.headers, content, what, secret)
        if content.lstrip()[:1] == b"<":
            raise UnexpectedResponseError(
                f"Failed {what}: {self._host} answered {answer.status} with a page for people, so this is not "
                "the service: is base_url right, and does no proxy or login stand in between?",
                status=answer.status,
            )
        if method == "DELETE" or not content:  # of a DELETE the status alone tells
            return None
        try:
            return json.loads(content)
        except ValueError:
            raise UnexpectedResponseError(
                f"Failed {what}: {self._host} answered {answer.status} with what is not JSON "
                f"({self._clean(ascii(content[:80]), secret)}): is base_url right?",
                status=answer.status,
            ) from None

    def _error(self, status: int, headers: Mapping[str, str], content: bytes, what: str, secret: str | None) -> FusedCacheError:
        said = self._clean(_server_text(content), secret)
        message = f"Failed {what}: {self._host} answered {status}{f' ({said})' if said else ''}."
        if remedy := _REMEDIES.get(status):
            message = f"{message} {remedy}"
        if 300 <= status < 400:
            target = self._clean(headers.get("location", "an address that it does not name"), secret)
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

    def _clean(self, text: str, secret: str | None) -> str:
        """A server's or a library's words, fit for one log line: no line breaks, no token, not too long."""
        for hidden in (self._authorization, self._authorization.split()[-1], secret):
            if hidden:
                text = text.replace(hidden, "********")
        text = "".join(character if character.isprintable() else " " for character in text)
        text = " ".join(text.split()).rstrip(".")
        return text if len(text) <= 300 else f"{text[:297]}..."

    def _open_connections(self) -> Connections:
        with self._lock:
            if self._connections is None:
                from fused_cache_ops.connection import Connections

                self._connections = Connections(
                    self.base_url, self._authorization, pool_size=self.max_concurrency, **self._certificates
                )
            return self._connections

    def _forget_connections(self) -> None:
        """In the child of a fork, where the pool's sockets are the parent's, and locks may be held by no thread."""
        self._lock = threading.RLock()
        self._connections = None
        self.limiter = Limiter(self.limiter.ceiling)  # the parent's may wait for a probe, which only the parent has sent


_CLIENTS: weakref.WeakSet[FusedClient] = weakref.WeakSet()


def _after_fork() -> None:
    for client in list(_CLIENTS):
        client._forget_connections()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _is_records(answer: object) -> bool:
    return isinstance(answer, list) and all(isinstance(entry, dict) for entry in answer)


def _reason(error: Exception) -> str:
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


def _is_permanent(error: Exception) -> bool:
    """Whether no later try can succeed: a certificate that does not verify, TLS to a plain port, an impossible address or
    an answer whose headers are beyond reason."""
    import urllib3

    return isinstance(error, urllib3.exceptions.LocationValueError) or any(sign in str(error) for sign in _PERMANENT)


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
