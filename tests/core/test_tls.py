"""TLS: always verified, with the bundle that the environment names."""

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import trustme

from fused_cache_ops import FusedClient
from fused_cache_ops.errors import ConfigurationError


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "16")
        self.end_headers()
        self.wfile.write(b'{"name": "team"}')

    def log_message(self, template: str, *args: object) -> None:
        pass


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    return trustme.CA()


def serve(authority: trustme.CA, host: str) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Answer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def base_url(authority: trustme.CA) -> Iterator[str]:
    yield from serve(authority, "127.0.0.1")


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_bundle_of_the_environment_is_trusted(
    authority: trustme.CA, base_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    bundle = tmp_path / "bundle.pem"
    authority.cert_pem.write_to_path(str(bundle))
    monkeypatch.setenv(name, str(bundle))
    with FusedClient(token="a-token", base_url=base_url) as client:
        assert client.check().name == "team"


def test_an_unknown_authority_is_refused(base_url: str) -> None:
    with FusedClient(token="a-token", base_url=base_url, deadline=5) as client:
        with pytest.raises(ConfigurationError, match="CERTIFICATE_VERIFY_FAILED"):
            client.check()


def test_a_certificate_of_another_host_is_refused(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle.pem"
    authority.cert_pem.write_to_path(str(bundle))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    for base_url in serve(authority, "other.example.com"):
        with FusedClient(token="a-token", base_url=base_url, deadline=5) as client:
            with pytest.raises(ConfigurationError, match="CERTIFICATE_VERIFY_FAILED"):
                client.check()


def test_a_bundle_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
    with FusedClient(token="a-token", base_url="https://127.0.0.1:1") as client:
        with pytest.raises(ConfigurationError, match=r"REQUESTS_CA_BUNDLE = '/nowhere\.pem' cannot be read"):
            client.check()
