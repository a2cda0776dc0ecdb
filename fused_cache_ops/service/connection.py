"""A pool of kept-alive connections to one host. The certificate bundle is read once, and every response has a time limit.

`requests` handles the proxies, the certificate bundle and TLS. Its pools are used directly, which takes less than half the
CPU time of its ``Session`` and avoids everything that could replace the Authorization header (``.netrc``) or follow a
redirect.
"""

from __future__ import annotations

import contextvars
import ipaddress
import logging
import os
import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import urllib3
from requests.adapters import DEFAULT_CA_BUNDLE_PATH, HTTPAdapter
from requests.exceptions import RequestException
from requests.utils import default_user_agent, get_environ_proxies, select_proxy

from fused_cache_ops.errors import ConfigurationError
from fused_cache_ops.secret import Secret, masked, masked_address
from fused_cache_ops.settings import Certificate, is_loopback

LARGEST_BODY = 8 * 1024 * 1024  # a UDF's record includes its code; nothing else comes close
_HEADERS = ("retry-after", "location", "content-type", "age", "warning", "server-timing", "x-varnish")
_MOST_HEADERS = 60


def _matters(name: str) -> bool:
    """Whether a header says who answered, or what to do next."""
    return name in _HEADERS or name.startswith("x-fused-") or "cache" in name


_CHUNK = 64 * 1024
_LOOK = 0.1  # seconds between checks by the watchdog thread
_IDLE = 5.0  # idle seconds after which it ends


_hidden: contextvars.ContextVar[tuple[Secret, ...]] = contextvars.ContextVar("hidden", default=())
"""The target of the request that is being sent, if no log may show it."""


def _mask_addresses(record: logging.LogRecord) -> bool:
    """urllib3 logs every address at DEBUG level, and a shared token or a session token in an address grants access."""
    if isinstance(record.args, tuple):
        hidden = _hidden.get()
        record.args = tuple(masked(masked_address(each), hidden) if isinstance(each, str) else each for each in record.args)
    return True


logging.getLogger("urllib3.connectionpool").addFilter(_mask_addresses)


@dataclass(frozen=True)
class Answer:
    """A server's response. The token is masked if the server echoes it, because tracebacks can show the locals of frames.

    Attributes:
        status: the HTTP status.
        headers: the few headers that matter here, keyed by lowercase name.
        body: the whole body, or more than `LARGEST_BODY` bytes of it. Empty if it was discarded.
        size: how many bytes of it were received.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    size: int


class Call(Protocol):
    """The call for which a request is sent."""

    def is_over(self) -> bool:
        """Whether the response is no longer wanted."""
        ...


@dataclass
class _Exchange:
    """A request in flight, when it expires, and the call that it belongs to."""

    expires: float
    owner: Call
    connection: Any = field(default=None, repr=False)
    cut_off: bool = False


def _kept(headers: Any, secrets: tuple[Secret | None, ...]) -> dict[str, str]:
    """The headers that matter, keyed by lowercase name."""
    names = [name for name in headers if _matters(name.lower())][:_MOST_HEADERS]
    return {name.lower(): masked(str(headers.get(name)), secrets) for name in names}


class AnswerTimedOut(Exception):
    """The response was not complete in time."""


class ConnectionDropped(Exception):
    """A connection that had been used before turned out to be closed. This says nothing about the server's health."""


class Connections:
    """Connections to the host of a URL, for any number of threads.

    Args:
        url: the destination. Only its scheme, host and port matter.
        authorization: the value of the Authorization header, if it should be sent.
        pool_size: the most connections at once. Further threads wait for a free one.
        ca_bundle: certificates to trust, as a file or a folder. By default those that ``REQUESTS_CA_BUNDLE``,
            ``CURL_CA_BUNDLE`` or ``SSL_CERT_FILE`` name, otherwise requests' own.
        client_certificate: the certificate to present to the server.

    Raises:
        ConfigurationError: a certificate cannot be read.
    """

    def __init__(
        self,
        url: str,
        authorization: Secret | None,
        *,
        pool_size: int,
        ca_bundle: str | None = None,
        client_certificate: Certificate | None = None,
    ) -> None:
        self._exchanges: dict[int, _Exchange] = {}
        self._lock = threading.Lock()
        self._watching = False
        self._closed = threading.Event()
        parts = urlsplit(url)
        self._headers: dict[str, str | Secret] = {"User-Agent": f"fused-cache-ops ({default_user_agent()})", "Accept": "*/*"}
        self._secret = authorization
        if authorization is not None:
            self._headers["Authorization"] = authorization
        secure = parts.scheme == "https"
        self._adapter = _Adapter(tls_context(ca_bundle, client_certificate) if secure else None, pool_size)
        # This machine is never reached through a proxy.
        proxies = {} if is_loopback(parts.hostname or "") else get_environ_proxies(url)
        proxy = select_proxy(url, proxies)
        try:
            manager: Any = self._adapter.proxy_manager_for(proxy) if proxy else self._adapter.poolmanager
        except (RequestException, ValueError, urllib3.exceptions.HTTPError):
            # The library's text contains the proxy's address, which may include its password or part of it.
            raise ConfigurationError(
                f"The proxy configured in the environment for {parts.scheme} cannot be used. Its address may contain a "
                f"password and is not shown. Check {parts.scheme.upper()}_PROXY and ALL_PROXY: http://user:password@host:port, "
                "with special characters in the password escaped."
            ) from None
        self._pool = manager.connection_from_url(url)
        self._pool.ConnectionCls = self._watched(self._pool.ConnectionCls)
        # A proxy needs the full address, unless it only tunnels encrypted traffic.
        self._origin = f"{parts.scheme}://{parts.netloc}" if proxy and not secure else ""

    def send(
        self,
        method: str,
        target: Secret,
        *,
        owner: Call,
        body: bytes | None = None,
        authorization: Secret | None = None,
        headers: Mapping[str, str | Secret] | None = None,
        is_hidden: bool = False,
        secrets: Iterable[Secret | None] = (),
        wait: float,
        seconds: float,
        discard: bool = False,
    ) -> Answer:
        """Send a request and read the response.

        Args:
            method: such as ``"DELETE"``.
            target: the path and query.
            owner: the call that the request belongs to, for `abort`.
            body: the JSON body.
            authorization: the value of the Authorization header of this request, in place of the common one.
            headers: further headers of this request.
            is_hidden: whether the target grants access, so that no log may show it.
            secrets: what else is masked in the response, as the token is.
            wait: seconds that connecting may take.
            seconds: seconds after which the response must be complete.
            discard: count the bytes of a 200 response's body instead of keeping them.

        Raises:
            AnswerTimedOut: the response was not complete in time, or the call is over.
            ConnectionDropped: the server had closed a kept-alive connection.
            urllib3.exceptions.HTTPError: the connection failed.
            OSError: the connection failed.
        """
        headers = {**self._headers, **({} if body is None else {"Content-Type": "application/json"}), **(headers or {})}
        if authorization is not None:
            headers = headers | {"Authorization": authorization}
        secrets = (self._secret, *secrets)
        exchange = _Exchange(time.monotonic() + seconds, owner)
        self._exchanges[threading.get_ident()] = exchange
        hiding = _hidden.set((target,) if is_hidden else ())
        exchange.cut_off = owner.is_over()  # checked once `abort` would see the exchange
        if not self._watching:
            self._watch()
        try:
            if exchange.cut_off:
                raise AnswerTimedOut
            response = self._pool.urlopen(
                method,
                self._origin + target.reveal(),
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(connect=min(wait, seconds), read=seconds),
                retries=False,
                redirect=False,
                assert_same_host=False,
                preload_content=False,
                pool_timeout=seconds,
            )
            content, size = b"", 0
            keep = not (discard and response.status == 200)
            try:
                while size <= LARGEST_BODY and (chunk := response.read(_CHUNK, decode_content=keep)):
                    size += len(chunk)
                    content += chunk if keep else b""
            except BaseException:
                response.close()
                raise
            if size > LARGEST_BODY:
                response.close()
            response.release_conn()
            if exchange.cut_off:
                raise AnswerTimedOut
        except (urllib3.exceptions.HTTPError, OSError) as error:
            if exchange.cut_off:
                raise AnswerTimedOut from None
            if exchange.connection is not None and exchange.connection.served and _is_closed(error):
                raise ConnectionDropped from None
            raise
        finally:
            _hidden.reset(hiding)
            del self._exchanges[threading.get_ident()]
        if exchange.connection is not None:
            exchange.connection.served = True
        return Answer(
            response.status,
            _kept(response.headers, secrets),
            _masked(content, secrets),
            size,
        )

    def abort(self, owner: Call) -> None:
        """Abort the requests of a call that are in flight."""
        for exchange in list(self._exchanges.values()):
            if exchange.owner is owner:
                _cut_off(exchange)

    def close(self) -> None:
        """Close the connections."""
        self._closed.set()
        self._adapter.close()
        self._pool.close()

    def _watched(self, kind: type[Any]) -> type[Any]:
        exchanges = self._exchanges

        class Watched(kind):  # type: ignore[misc]
            """A connection that records which exchange it is used for."""

            served = False
            timeout: float
            _dns_host: str

            def connect(self) -> None:
                self.served = False
                exchanges[threading.get_ident()].connection = self
                super().connect()

            def request(self, *arguments: Any, **keywords: Any) -> None:
                exchanges[threading.get_ident()].connection = self
                super().request(*arguments, **keywords)

            def putheader(self, header: str, *values: Any) -> None:
                super().putheader(header, *(value.reveal() if isinstance(value, Secret) else value for value in values))

            def _new_conn(self) -> socket.socket:
                name, exchange = self._dns_host, exchanges[threading.get_ident()]
                try:
                    addresses = _resolved(name, self.port, exchange)
                except OSError as error:
                    raise urllib3.exceptions.NewConnectionError(self, f"Failed to resolve {name!r}: {error}") from error
                failure: Exception = urllib3.exceptions.NewConnectionError(self, f"{name!r} has no address")
                for address in addresses:
                    self._dns_host, self.timeout = address, max(0.001, min(self.timeout, exchange.expires - time.monotonic()))
                    try:
                        return super()._new_conn()  # type: ignore[no-any-return]
                    except (urllib3.exceptions.HTTPError, OSError) as error:
                        failure = error
                    finally:
                        self._dns_host = name  # the name that TLS verifies
                    if exchange.cut_off:
                        raise AnswerTimedOut
                raise failure

        Watched.__name__ = kind.__name__  # which urllib3's messages show
        return Watched

    def _watch(self) -> None:
        """Start a thread that aborts overdue requests: a socket timeout restarts with every byte that arrives."""
        with self._lock:
            if self._watching:
                return
            self._closed.clear()
            try:
                threading.Thread(target=self._look, name="fused-cache-ops-watch", daemon=True).start()
                self._watching = True
            except RuntimeError:  # no more threads: the socket's own timeouts must suffice
                pass

    def _look(self) -> None:
        last_use = time.monotonic()
        while True:
            closed = self._closed.wait(_LOOK)
            now = time.monotonic()
            with self._lock:
                if self._exchanges:
                    last_use = now
                elif closed or now - last_use > _IDLE:
                    self._watching = False
                    return
            for exchange in list(self._exchanges.values()):
                if exchange.cut_off or now > exchange.expires:  # it may not have had a socket before
                    _cut_off(exchange)


class _Adapter(HTTPAdapter):
    """Verifies every connection with one preloaded TLS context.

    The stock adapter reads the bundle for each new connection, which costs more than the request does.
    """

    def __init__(self, context: ssl.SSLContext | None, pool_size: int) -> None:
        self._options = {} if context is None else {"ssl_context": context}
        super().__init__(pool_connections=1, pool_maxsize=pool_size, pool_block=True)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, **self._options, **options)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, **self._options, **options)


def tls_context(ca_bundle: str | None = None, client_certificate: Certificate | None = None) -> ssl.SSLContext:
    """A TLS context that fully verifies servers: certificates and host names.

    Raises:
        ConfigurationError: a certificate cannot be read.
    """
    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    source = "ca_bundle" if ca_bundle else next((name for name in names if os.environ.get(name)), None)
    bundle = ca_bundle or (os.environ[source] if source else DEFAULT_CA_BUNDLE_PATH)
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=None, capath=None, cadata="")
    try:
        if Path(bundle).is_dir():
            context.load_verify_locations(capath=bundle)
        else:
            context.load_verify_locations(cafile=bundle)
    except OSError as error:
        raise ConfigurationError(
            f"{source or 'the certificate bundle'} = {bundle!r} cannot be read: {error.strerror or error}."
        ) from None
    if client_certificate is not None:
        certificate, key = (client_certificate, None) if isinstance(client_certificate, str) else client_certificate
        try:
            # An empty password: otherwise OpenSSL would prompt for one in the terminal, in the middle of a pipeline.
            context.load_cert_chain(certificate, key, password="")
        except (OSError, TypeError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigurationError(
                f"client_certificate = {client_certificate!r} cannot be read: {reason}. Pass the path of a PEM file, or the "
                "paths of the certificate and its key, without a password."
            ) from None
    return context


def _masked(content: bytes, secrets: Iterable[Secret | None]) -> bytes:
    # As Latin-1 every byte is a character, and comes back as it was.
    return masked(content.decode("latin-1"), secrets).encode("latin-1") if content else content


def _is_closed(error: Exception) -> bool:
    """Whether a connection ended before the first byte of the response. On a reused one, the server had closed it."""
    return isinstance(error, urllib3.exceptions.ProtocolError) and "Connection aborted" in str(error)


def _resolved(name: str, port: int, exchange: _Exchange) -> list[str]:
    """A host's addresses. The system call cannot be interrupted, so it runs in a thread while the watchdog can end the wait.

    Raises:
        AnswerTimedOut: the exchange is over.
        OSError: the host has no addresses.
    """
    host = name.strip("[]")
    try:
        ipaddress.ip_address(host)
        return [host]
    except ValueError:
        pass
    found: queue.SimpleQueue[list[str] | OSError] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            found.put([str(entry[4][0]) for entry in socket.getaddrinfo(host, port, _family(), socket.SOCK_STREAM)])
        except (OSError, UnicodeError) as error:
            found.put(error if isinstance(error, OSError) else OSError(f"{host!r}: {error}"))

    try:
        threading.Thread(target=look_up, name="fused-cache-ops-resolve", daemon=True).start()
    except RuntimeError:  # no more threads
        look_up()
    while time.monotonic() < exchange.expires and not exchange.cut_off:
        try:
            answer = found.get(timeout=_LOOK)
        except queue.Empty:
            continue
        if isinstance(answer, OSError):
            raise answer
        return list(dict.fromkeys(answer))
    exchange.cut_off = True
    raise AnswerTimedOut


def _family() -> socket.AddressFamily:
    return urllib3.util.connection.allowed_gai_family()


def _cut_off(exchange: _Exchange) -> None:
    exchange.cut_off = True
    sock = getattr(exchange.connection, "sock", None)
    if isinstance(sock, socket.socket):
        try:
            socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not the method of a TLS socket, which other threads may be in
        except OSError:
            pass
