"""Connections: kept alive, told when they are stale, and not shared with the child of a fork."""

import contextlib
import math
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from fused_cache_ops import FusedClient
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.errors import ConfigurationError, UnavailableError

UDF = "8f6c7d1e-3a52-4d0c-9a39-0a7f5b1f7a10"
DELETED = b"HTTP/1.1 204 No Content\r\n\r\n"


@contextlib.contextmanager
def closing_after(requests: int, context: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[int]]]:
    """A server that keeps connections alive, but closes each when the request after ``requests`` answered ones has come;
    its base URL, and how many requests each connection has brought."""
    seen: list[int] = []
    stopped = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)

        def serve(connection: socket.socket, number: int) -> None:
            with connection, contextlib.suppress(OSError):
                secure = connection if context is None else context.wrap_socket(connection, server_side=True)
                while secure.recv(65536):
                    seen[number] += 1
                    if seen[number] > requests:
                        break
                    secure.sendall(DELETED)

        def accept() -> None:
            while not stopped.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = server.accept()
                    seen.append(0)
                    threading.Thread(target=serve, args=(connection, len(seen) - 1), daemon=True).start()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            scheme = "http" if context is None else "https"
            yield f"{scheme}://127.0.0.1:{server.getsockname()[1]}", seen
        finally:
            stopped.set()
            thread.join()


def test_a_stale_connection_is_tried_again_at_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fused_cache_ops.service.retry.random.uniform", lambda low, high: pytest.fail("a pause was drawn"))
    with closing_after(3) as (base_url, seen):
        with FusedClient(token="t", client_id="c", base_url=base_url, max_concurrency=4, deadline=60) as client:
            for _ in range(10):
                client.invalidate_cache(UDF)
        assert client._service.limiter.closings == 0
    assert sum(min(count, 3) for count in seen) == 10
    assert "pause" not in caplog.text


def test_a_new_connection_that_closes_is_no_stale_one() -> None:
    with closing_after(0) as (base_url, seen):
        with FusedClient(token="t", client_id="c", base_url=base_url, deadline=0.4) as client:
            with pytest.raises(UnavailableError, match="no response"):
                client.invalidate_cache(UDF)
    assert set(seen) == {1}


def test_no_more_connections_are_opened_than_there_are_workers() -> None:
    with closing_after(10**6) as (base_url, seen):
        with FusedClient(token="t", client_id="c", base_url=base_url, max_concurrency=8, deadline=60) as client:
            client.invalidate_cache(UDF, tiles=[f"12/{x}/0" for x in range(500)])
    assert len(seen) <= 8


def test_a_fork_while_threads_hold_locks_does_not_hang(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    client.check()
    fused_emulator.misbehave(latency=0.05, times=None)
    held = threading.Event()
    release = threading.Event()

    def hold() -> None:
        with client._service._lock, client._service.limiter.changed:
            held.set()
            release.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    child = os.fork()
    if child == 0:  # pragma: no cover - the child's lines
        code = 1
        try:
            code = 0 if client.check().name == "team" else 2
        finally:
            os._exit(code)
    release.set()
    holder.join()
    watchdog = threading.Timer(10, os.kill, (child, 9))
    watchdog.start()
    _, status = os.waitpid(child, 0)
    watchdog.cancel()
    assert os.waitstatus_to_exitcode(status) == 0
    assert client.check().name == "team"


def test_a_fork_while_a_probe_is_out_does_not_wait_for_it(client: FusedClient, udf: Udf) -> None:
    limiter = client._service.limiter
    limiter.throttled(limiter.ask(0.0), 0.0, 0.0)  # type: ignore[arg-type]
    assert limiter.ask(1.0).probe  # type: ignore[union-attr]
    child = os.fork()
    if child == 0:  # pragma: no cover - the child's lines
        os._exit(0 if client._service.limiter.ask(1.0) != math.inf else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    return trustme.CA()


@pytest.fixture
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "bundle.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def test_a_bundle_of_ones_own_is_trusted(server_context: ssl.SSLContext, bundle: str) -> None:
    with closing_after(10, server_context) as (base_url, _):
        with FusedClient(token="t", client_id="c", base_url=base_url, ca_bundle=bundle, deadline=5) as client:
            assert client.invalidate_cache(UDF).tiles_invalidated is None


@pytest.mark.parametrize("files", ["one", "two"])
def test_a_client_certificate_is_shown(
    server_context: ssl.SSLContext, authority: trustme.CA, bundle: str, tmp_path: Path, files: str
) -> None:
    server_context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(server_context)
    own = authority.issue_cert("pipeline@example.com")
    own.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    own.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    own.cert_chain_pems[0].write_to_path(str(tmp_path / "certificate.pem"))
    certificate = (
        str(tmp_path / "both.pem") if files == "one" else (str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem"))
    )
    settings = {"token": "t", "client_id": "c", "ca_bundle": bundle, "deadline": 1.0}
    with closing_after(10, server_context) as (base_url, _):
        with FusedClient(**settings, base_url=base_url, client_certificate=certificate) as client:
            assert client.invalidate_cache(UDF).tiles_invalidated is None
        with FusedClient(**settings, base_url=base_url) as client:
            with pytest.raises(UnavailableError):
                client.invalidate_cache(UDF)


@pytest.mark.parametrize(
    "settings",
    [
        {"ca_bundle": "/nowhere.pem"},
        {"client_certificate": "/nowhere.pem"},
        {"client_certificate": ("/nowhere.pem", "/no.key")},
    ],
    ids=str,
)
def test_certificates_that_are_not_there_are_named(settings: dict[str, str]) -> None:
    with FusedClient(token="t", client_id="c", base_url="https://127.0.0.1:1", **settings) as client:
        with pytest.raises(ConfigurationError, match=r"/nowhere\.pem.* cannot be read: No such file"):
            client.invalidate_cache(UDF)


def test_a_key_with_a_password_does_not_ask_for_one(authority: trustme.CA, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    locked = serialization.BestAvailableEncryption(b"password")
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    (tmp_path / "key.pem").write_bytes(pem)
    authority.cert_pem.write_to_path(str(tmp_path / "c.pem"))
    certificate = (str(tmp_path / "c.pem"), str(tmp_path / "key.pem"))
    with FusedClient(token="t", client_id="c", base_url="https://127.0.0.1:1", client_certificate=certificate) as client:
        with pytest.raises(ConfigurationError, match="without a password"):
            client.check()
