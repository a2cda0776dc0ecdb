"""A `requests` session that keeps connections, reads the certificate bundle once, and sends one header."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import DEFAULT_CA_BUNDLE_PATH, HTTPAdapter
from requests.auth import AuthBase
from requests.utils import default_user_agent, get_environ_proxies

from fused_cache_ops.errors import ConfigurationError
from fused_cache_ops.settings import Secret, is_loopback


class _Authorization(AuthBase):
    """Sets the header. As the session's ``auth`` it also keeps ``.netrc`` from replacing the header."""

    def __init__(self, value: Secret) -> None:
        self._value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._value
        return request


class _OneContextAdapter(HTTPAdapter):
    """Verifies every connection with one preloaded TLS context.

    The stock adapter reads the bundle for each new connection, which costs more than the request does.
    """

    def __init__(self, context: ssl.SSLContext, pool_size: int) -> None:
        self._context = context
        super().__init__(pool_connections=1, pool_maxsize=pool_size, pool_block=True)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, ssl_context=self._context, **options)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, ssl_context=self._context, **options)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        conn.cert_reqs = "CERT_REQUIRED"  # with ca_certs left unset, so that the context is not loaded anew


def open_session(authorization: Secret, base_url: str, *, pool_size: int) -> requests.Session:
    """A session for one deployment. Proxies and ``REQUESTS_CA_BUNDLE`` are taken from the environment.

    Raises:
        ConfigurationError: the certificate bundle that the environment names cannot be read.
    """
    session = requests.Session()
    session.auth = _Authorization(authorization)
    if not is_loopback(urlsplit(base_url).hostname or ""):  # this machine is never reached by way of another
        session.proxies = get_environ_proxies(base_url)
    session.trust_env = False  # looked up once, here: requests would look anew for every request
    session.headers["User-Agent"] = f"fused-cache-ops ({default_user_agent()})"
    if base_url.startswith("https:"):
        session.mount("https://", _OneContextAdapter(_tls_context(), pool_size))
    else:
        session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=pool_size, pool_block=True))
    return session


def _tls_context() -> ssl.SSLContext:
    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    source = next((name for name in names if os.environ.get(name)), None)
    bundle = os.environ[source] if source else DEFAULT_CA_BUNDLE_PATH
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
    return context
