"""The only place that talks HTTP to Fused: addresses, headers, timeouts, typed errors."""

from __future__ import annotations

import json
import math
import os
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn
from urllib.parse import quote, urlsplit

from fused_cache_ops.errors import (
    ConfigurationError,
    FusedCacheError,
    StaleConnectionError,
    UnavailableError,
    UnconfirmedError,
    UnexpectedResponseError,
)
from fused_cache_ops.secret import Secret, masked
from fused_cache_ops.service.answers import cleaned, error_from, is_permanent, json_from, json_problem, reason_of, server_text
from fused_cache_ops.service.limiter import Limiter
from fused_cache_ops.service.retry import Branching, Retrier
from fused_cache_ops.settings import EVERY_INSTANCE, Settings
from fused_cache_ops.tiles.tile import Tile
from fused_cache_ops.udf_reference import checked_identifier
from fused_cache_ops.wording import quoted, shortened

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fused_cache_ops.service.connection import Connections
    from fused_cache_ops.settings import Certificate


MOST_RUNS_AT_ONCE = 64
"""Connections to shared UDFs. Each request on one runs a UDF."""

_PROBLEMS = ("error", "errors", "detail", "details", "error_type", "exception")
"""The keys by which an answer says that something failed, whatever its status is."""

_MAY_PASS = (408, 429, 502, 503, 504)  # a 500 says that the UDF itself failed

_SESSION_SECONDS = 3600  # the service's own default
_MINT_REMEDY = (
    "A team canvas needs a Fused token of its team. A public one needs the right shared token, and its passcode if it has one "
    "(passcode, FUSED_CANVAS_PASSCODE)."
)


class UdfCache(NamedTuple):
    """The cached results of one UDF on one real-time instance, each named by its id."""

    udf_id: str
    client_id: str


class SharedRun(NamedTuple):
    """The response to a run of a shared UDF.

    Attributes:
        status: the HTTP status, or None if there was no response.
        headers: those that matter here, keyed by lowercase name, of a response that carries a result. Otherwise only
            ``retry-after``.
        trouble: why there is no result, or ``""``.
        size: how many bytes of the result were received.
        may_pass: whether the same request may succeed in a moment.
    """

    status: int | None
    headers: Mapping[str, str]
    trouble: str = ""
    size: int = 0
    may_pass: bool = False


class Service:
    """One Fused deployment and the caller's credentials, with one connection pool and one rate limiter for all requests.

    Args:
        settings: validated settings, including the address and the token.
        timeout: seconds that one request may take, until the last byte of the response.
        deadline: seconds that one call may take, retries included.
        max_concurrency: requests in flight at once when tiles are sent one by one.
        max_requests_per_second: the limit for all calls together. None: as many as the service accepts.
        ca_bundle: certificates to trust.
        client_certificate: the certificate to present to the server.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        timeout: float,
        deadline: float,
        max_concurrency: int,
        max_requests_per_second: float | None,
        ca_bundle: str | None,
        client_certificate: Certificate | None,
    ) -> None:
        self.base_url = settings.base_url
        self.run_base_url = settings.run_base_url
        self._host, self._path = urlsplit(settings.base_url)[1:3]
        self.timeout = float(timeout)
        self.deadline = float(deadline)
        self.max_concurrency = max_concurrency
        self.limiter = Limiter(max_requests_per_second)
        self.run_limiter = Limiter(max_requests_per_second)
        """That of all runs of shared UDFs, which are another service."""
        self._certificates: Any = {"ca_bundle": ca_bundle, "client_certificate": client_certificate}
        self._authorization = settings.authorization
        self._passcode = settings.passcode
        self._given_instances = settings.client_ids
        self._every_instance = settings.client_ids == (EVERY_INSTANCE,)
        self._preferred = None if self._every_instance else next(iter(settings.client_ids), None)
        self._lock = threading.RLock()
        self._connections: Connections | None = None
        self._run_connections: Connections | None = None  # to shared UDFs, without the token
        self.session_tokens: dict[bytes, Secret] = {}
        """Those of team canvases, for `access`, by a digest of the canvas's share token."""
        self._minted: deque[Secret] = deque(maxlen=100)  # a response may show one that has been replaced
        self._calls: weakref.WeakSet[Retrier] = weakref.WeakSet()  # those that have begun, for `cancel`
        _SERVICES.add(self)

    @property
    def instances_are_set(self) -> bool:
        """Whether the caller has said which instances to invalidate on."""
        return bool(self._given_instances)

    @property
    def is_one_instance(self) -> bool:
        """Whether the caller has said that there is one instance to invalidate on."""
        return len(self._given_instances) == 1 and not self._every_instance

    @property
    def client_id(self) -> str | None:
        """The preferred real-time instance, if it was configured or has been looked up."""
        return self._preferred

    def resolve_client_ids(self, *, retrier: Retrier | None = None) -> tuple[str, ...]:
        """The real-time instances to invalidate on, the preferred one first: the configured ones, or every instance if
        ``"all"`` is configured, otherwise the one with the highest ``preference_rank``.

        As in Fused's SDK, the first of equals is taken, and a missing rank counts as 0.

        Raises:
            ConfigurationError: the token has no real-time instance.
            FusedCacheError: the lookup failed.
        """
        if self._given_instances and not self._every_instance:
            return self._given_instances
        call = retrier or self.start()
        # Once per call: an instance may be added in a client's lifetime. The lock is the call's own, so that `cancel` never
        # waits for it.
        with call.whole.lookup:
            if call.whole.client_ids is None:
                call.whole.client_ids = self._read_instances(call)
                self._preferred = call.whole.client_ids[0]
            return call.whole.client_ids

    def _read_instances(self, call: Retrier) -> tuple[str, ...]:
        answer = self._request(
            "GET", ("realtime-instance", "available"), retrier=call, what="looking up the real-time instance"
        )
        instances = [entry for entry in answer if "client_id" in entry] if _is_records(answer) else None
        if instances is None or not all(_is_rank(entry.get("preference_rank")) for entry in instances):
            raise UnexpectedResponseError("The service's list of real-time instances is malformed: set client_id.")
        if not instances:
            raise ConfigurationError("This token has no real-time instance: pass client_id= or set FUSED_CLIENT_ID.")
        instances.sort(key=lambda entry: -(entry.get("preference_rank") or 0))
        return tuple(
            dict.fromkeys(
                checked_identifier(entry["client_id"], "client_id in the service's response", UnexpectedResponseError)
                for entry in (instances if self._every_instance else instances[:1])
            )
        )

    def resolve_client_id(self, *, retrier: Retrier | None = None) -> str:
        """The preferred one of `resolve_client_ids`.

        Raises:
            ConfigurationError: the token has no real-time instance.
            FusedCacheError: the lookup failed.
        """
        return self.resolve_client_ids(retrier=retrier)[0]

    def read_environment(self) -> dict[str, str | None]:
        """The ``id`` and ``name`` of the environment that the token belongs to.

        Raises:
            AuthenticationError: the token is not valid.
            FusedCacheError: the check failed.
        """
        answer = self._request("GET", ("execution-env", "self"), what="checking the token")
        if not isinstance(answer, dict):
            raise UnexpectedResponseError("The service's answer about the token's environment is malformed: is base_url right?")
        return {key: str(answer[key]) if key in answer else None for key in ("id", "name")}

    def read(
        self, path: Iterable[str | Secret], *, what: str, retrier: Retrier, secret: Secret | None = None, query: str = ""
    ) -> Any:
        """The JSON of one resource, given by the parts of its path, and a query that is already escaped, with its ``?``.

        Raises:
            FusedCacheError: the service did not return it.
        """
        return self._request("GET", path, what=what, retrier=retrier, secret=secret, query=query)

    def send(
        self,
        method: str,
        path: Iterable[str | Secret],
        *,
        what: str,
        retrier: Retrier,
        body: bytes | None = None,
        query: str = "",
        secret: Secret | None = None,
        confirms: bool = False,
    ) -> Any:
        """The JSON that the service answers to a request, or None if it has none. ``secret`` is masked in the answer.
        ``confirms``: only a yes is an answer.

        Raises:
            FusedCacheError: the request failed.
        """
        return self._request(method, path, what=what, retrier=retrier, body=body, query=query, secret=secret, confirms=confirms)

    def start(self) -> Retrier:
        """A retrier for one call, over this client's rate limiter. `cancel` ends it."""
        retrier = Retrier(self.deadline, self.limiter)
        with self._lock:
            self._calls.add(retrier)
        return retrier

    def branch(self, retrier: Retrier, **how: Unpack[Branching]) -> Retrier:
        """A retrier for one part of a call: see `Retrier.branch`. `cancel` ends it too."""
        part = retrier.branch(**how)
        with self._lock:
            self._calls.add(part)
        retrier.raise_if_cancelled()  # just before this one was known to `cancel`
        return part

    def cancel(self) -> None:
        """End the calls in progress immediately, from any thread. Calls that begin later are not affected. The ended calls
        raise `InvalidationCancelledError`, which holds the tiles not yet confirmed as invalidated."""
        with self._lock:
            calls = list(self._calls)
        for retrier in calls:
            self._end(retrier)

    def cancel_call(self, call: Retrier) -> None:
        """Like `cancel`, for one call and all of its parts."""
        with self._lock:
            parts = [each for each in self._calls if each.is_part_of(call)]
        for retrier in parts:
            self._end(retrier)

    def _end(self, retrier: Retrier) -> None:
        retrier.cancel()
        self.abort_requests(retrier)

    def abort_requests(self, retrier: Retrier) -> None:
        """Abort the requests of one call that are in flight."""
        for connections in (self._connections, self._run_connections):
            if connections is not None:
                connections.abort(retrier)

    def close(self) -> None:
        """Close the connections. If the client is used again, it opens new ones."""
        with self._lock:
            opened = (self._connections, self._run_connections)
            self._connections = self._run_connections = None
        for connections in opened:
            if connections is not None:
                connections.close()

    def __repr__(self) -> str:
        return f"Service(base_url={self.base_url!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Service cannot be pickled, because it holds a token.")

    # -- the three requests that invalidate ----------------------------------------------------------------------

    def invalidate_udf(self, cache: UdfCache, *, retrier: Retrier) -> None:
        """Send the one request that invalidates the whole cache of a UDF."""
        self._invalidate("DELETE", "delete", cache, retrier)

    def invalidate_tile(self, cache: UdfCache, tile: Tile, *, retrier: Retrier) -> None:
        """Send the one request that invalidates one tile."""
        self._invalidate("DELETE", "delete", cache, retrier, query="?z=%d&x=%d&y=%d" % tile)

    def invalidate_batch(self, cache: UdfCache, body: bytes, *, retrier: Retrier) -> int | None:
        """Send one request that invalidates 1 to 50,000 tiles. Returns the number of objects deleted, if the server reports it.

        A deployment without the endpoint responds with 404 or 405.

        Raises:
            UnconfirmedError: the response is neither a yes nor an error.
            FusedCacheError: the request failed.
        """
        answer = self._invalidate("POST", "batch-delete", cache, retrier, body=body)
        if answer is None:
            return None
        deleted = answer.get("objects_deleted") if isinstance(answer, dict) else answer
        if isinstance(deleted, bool) or not isinstance(deleted, int) or deleted < 0:
            raise UnconfirmedError(
                f"{self._host} answered the invalidation of tiles of UDF {cache.udf_id} with "
                f"objects_deleted={self._clean(quoted(deleted))}, which is not a count: is base_url right?"
            )
        return deleted

    def _invalidate(self, method: str, action: str, cache: UdfCache, retrier: Retrier, **request: Any) -> Any:
        path = ("realtime-shared", cache.client_id, "udf-cache", "by-id", cache.udf_id, action)
        return self._request(method, path, retrier=retrier, what=f"invalidating UDF {cache.udf_id}", confirms=True, **request)

    # -- shared UDFs ---------------------------------------------------------------------------------------------

    def mint_session_token(self, canvas: Secret, *, retrier: Retrier) -> Secret:
        """A session token for the shared UDFs of a canvas. It is good for an hour.

        Args:
            canvas: the canvas's share token.
            retrier: the call.

        Raises:
            FusedCacheError: the service refused it, as it does for a public canvas, or the request failed.
        """
        what = "minting a session token for the canvas"
        try:
            answer = self._request(
                "POST",
                ("session-token", "by-access-token", canvas),
                what=what,
                retrier=retrier,
                body=b'{"ttl": %d}' % _SESSION_SECONDS,
                secret=canvas,
                remedy=_MINT_REMEDY,
            )
        except UnexpectedResponseError as error:
            if error.status is None or not 200 <= error.status < 300:
                raise
            answer = None  # the error's text shows the beginning of the response, which may be the session token
        minted = Secret(str(answer.get("session_token") or "")) if isinstance(answer, dict) else Secret("")
        del answer
        if not minted.reveal():
            raise UnexpectedResponseError(f"Failed {what}: {self._host} answered without one: is base_url right?")
        self._minted.append(minted)
        return minted

    def request_shared(
        self,
        token: Secret,
        tile: Tile | None,
        *,
        retrier: Retrier,
        session: Secret | None = None,
        parameters: str = "",
        timeout: float | None = None,
    ) -> SharedRun:
        """Request a result of a shared UDF, once. This client's own token is not sent. The result itself is not kept.

        Args:
            token: the shared token, which goes into the address.
            tile: the tile. None: the UDF is run without one.
            retrier: the call.
            session: a session token of the canvas. It goes along instead of the passcode.
            parameters: the UDF's parameters, as a query that is already escaped, without its ``?``.
            timeout: seconds that the run may take. Default: those of the client.

        Raises:
            InvalidationCancelledError: `cancel` ended the call.
        """
        import urllib3

        from fused_cache_ops.service.connection import AnswerTimedOut, ConnectionDropped

        address = urlsplit(str(self.run_base_url))
        longest = self.timeout if timeout is None else timeout
        seconds = max(0.0, min(longest, retrier.left))
        trouble = f"no response before the deadline of {retrier.deadline:g} s"
        may_pass = False
        secrets = (token, session, self._passcode, *self._minted)
        if seconds:
            query = [parameters] if parameters else []
            if session is not None:
                query.append(f"fused_session_token={quote(session.reveal(), safe='')}")
            place = "file" if tile is None else f"tiles/{tile}"
            target = Secret(f"{address.path}/{quote(token.reveal())}/run/{place}{'?' if query else ''}{'&'.join(query)}")
            passcode = None
            if self._passcode is not None and session is None:
                passcode = Secret(f"Fused-Canvas-Passcode {self._passcode.reveal()}")
            try:
                answer = self._open_run_connections().send(
                    "GET",
                    target,
                    authorization=passcode,
                    secrets=secrets,
                    wait=min(self.timeout, seconds),
                    seconds=seconds,
                    owner=retrier,
                    discard=True,
                )
            except (AnswerTimedOut, urllib3.exceptions.TimeoutError):
                trouble = trouble if seconds < longest else f"no response within {longest:g} s"
            except (urllib3.exceptions.HTTPError, OSError, ConnectionDropped) as error:
                trouble = self._clean(reason_of(error), *secrets)
                may_pass = not is_permanent(error)
            else:
                # The SDK reads the headers of a 200 alone, and no other status is known to carry a result.
                if answer.status == 200:
                    return SharedRun(200, answer.headers, size=answer.size)
                said = shortened(self._clean(server_text(answer.body), *secrets), 120)
                trouble = f"{address.netloc} answered {answer.status}{f' ({said})' if said else ''}"
                asked = {name: value for name, value in answer.headers.items() if name == "retry-after"}
                return SharedRun(answer.status, asked, trouble, may_pass=answer.status in _MAY_PASS)
        retrier.raise_if_cancelled()
        return SharedRun(None, {}, trouble, may_pass=may_pass)

    # -- one request ---------------------------------------------------------------------------------------------

    def _request(
        self,
        method: str,
        path: Iterable[str | Secret],
        *,
        what: str,
        retrier: Retrier | None = None,
        query: str = "",
        body: bytes | None = None,
        secret: Secret | None = None,
        remedy: str | None = None,
        confirms: bool = False,
    ) -> Any:
        """Send a request until it succeeds or fails permanently. Returns the response's JSON, or None if it has none."""
        target = Secret(f"{self._path}/{'/'.join(map(_escaped, path))}{query}")
        call = retrier or self.start()
        return call.run(
            lambda seconds_left: self._send_once(method, target, body, what, secret, remedy, confirms, seconds_left, call)
        )

    def _send_once(
        self,
        method: str,
        target: Secret,
        body: bytes | None,
        what: str,
        secret: Secret | None,
        remedy: str | None,
        confirms: bool,
        seconds_left: float,
        retrier: Retrier,
    ) -> Any:
        import urllib3

        from fused_cache_ops.service.connection import LARGEST_BODY, AnswerTimedOut, ConnectionDropped

        connections = self._open_connections()
        answer, trouble = None, ""
        kind: type[FusedCacheError] = UnavailableError
        seconds = max(0.001, min(self.timeout, seconds_left))
        try:
            answer = connections.send(
                method, target, body=body, secrets=(secret,), wait=self.timeout, seconds=seconds, owner=retrier
            )
        except ConnectionDropped:
            kind = StaleConnectionError
            trouble = "the server had closed a kept-alive connection"
        except AnswerTimedOut:
            trouble = f"the response was not complete within {seconds:.3g} s"
        except (urllib3.exceptions.HTTPError, OSError) as error:
            trouble = reason_of(error)
            kind = ConfigurationError if is_permanent(error) else UnavailableError
        # Raised here, outside the except blocks, so that no urllib3 exception is chained: their frames hold the header.
        if answer is None:
            message = f"Failed {what}: no response from {self._host}: {self._clean(trouble, secret)}."
            if kind is ConfigurationError:
                message += " Check base_url, and ca_bundle or REQUESTS_CA_BUNDLE if you use your own certificates."
            raise kind(message)
        content = answer.body
        if len(content) > LARGEST_BODY:
            raise UnexpectedResponseError(f"Failed {what}: the response is larger than {LARGEST_BODY:,} bytes.")
        said: Any = {"what": what, "host": self._host, "clean": lambda text: self._clean(text, secret)}
        if not 200 <= answer.status < 300:
            raise error_from(answer.status, answer.headers, content, remedy=remedy, **said)
        if content.lstrip()[:1] == b"<":
            raise UnexpectedResponseError(
                f"Failed {what}: {self._host} answered {answer.status} with an HTML page, so this is not the Fused "
                "service: check base_url, and whether a proxy or login page is in between.",
                status=answer.status,
            )
        if confirms:
            return self._confirmation(method, answer.status, content, said)
        return json_from(answer.status, content, **said) if content else None

    def _confirmation(self, method: str, status: int, content: bytes, said: Any) -> Any:
        """What the service says of an invalidation: None for 204, otherwise its JSON. Only what is documented is a yes.

        Raises:
            UnconfirmedError: it is neither a yes nor an error.
            UnexpectedResponseError: it is an error in the form of a success.
        """
        if status == 204:
            return None
        found: Any = None
        try:
            found = json.loads(content) if content.strip() else None
        except (ValueError, RecursionError):
            if method == "POST" or status != 200:
                raise UnconfirmedError(json_problem(status, content, **said), status=status) from None
        if isinstance(found, dict) and (problem := next((name for name in _PROBLEMS if found.get(name)), None)):
            raise UnexpectedResponseError(
                f"Failed {said['what']}: {self._host} answered {status}, but with {problem}: "
                f"{said['clean'](server_text(content) or quoted(found[problem]))}.",
                status=status,
            )
        if status != 200 or (method == "POST" and found is None):
            raise UnconfirmedError(
                f"Failed {said['what']}: {self._host} answered {status}{'' if content.strip() else ' without a body'}, which "
                "does not confirm it: is base_url right?",
                status=status,
            )
        return found

    def _clean(self, text: str, *secrets: Secret | None) -> str:
        return cleaned(masked(text, (self._authorization, *secrets)))

    def _open_connections(self) -> Connections:
        with self._lock:
            if self._connections is None:
                self._connections = self._connect(self.base_url, self._authorization, self.max_concurrency)
            return self._connections

    def _open_run_connections(self) -> Connections:
        with self._lock:
            if self._run_connections is None:
                self._run_connections = self._connect(str(self.run_base_url), None, MOST_RUNS_AT_ONCE)
            return self._run_connections

    def _connect(self, url: str, authorization: Secret | None, pool_size: int) -> Connections:
        from fused_cache_ops.service.connection import Connections

        return Connections(url, authorization, pool_size=pool_size, **self._certificates)

    def _forget_connections(self) -> None:
        """Reset after a fork: in the child, the pool's sockets belong to the parent, and locks may be held by no thread."""
        self._lock = threading.RLock()
        self._connections = self._run_connections = None
        self.run_limiter = Limiter(self.run_limiter.ceiling)
        self.limiter = Limiter(self.limiter.ceiling)  # the parent's may be waiting for a probe that only the parent has sent


_SERVICES: weakref.WeakSet[Service] = weakref.WeakSet()


def _after_fork() -> None:
    for service in list(_SERVICES):
        service._forget_connections()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _escaped(part: str | Secret) -> str:
    if isinstance(part, Secret):
        return quote(part.reveal(), safe="")
    return part if part.isalnum() else quote(part, safe="")


def _is_records(answer: object) -> bool:
    return isinstance(answer, list) and all(isinstance(entry, dict) for entry in answer)


def _is_rank(rank: object) -> bool:
    return rank is None or (isinstance(rank, (int, float)) and not isinstance(rank, bool) and math.isfinite(rank))
