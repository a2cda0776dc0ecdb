"""The client: lookups, what it shows of itself, and how it treats connections."""

import json
import os
import pickle
import socket
import threading
from pathlib import Path

import pytest

from fused_cache_ops import FusedClient
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.errors import (
    AuthenticationError,
    ConfigurationError,
    PermissionDeniedError,
    UnavailableError,
    UnexpectedRedirectError,
    UnexpectedResponseError,
)


def test_check_names_the_environment(client: FusedClient, fused_emulator: Emulator) -> None:
    environment = client.check()
    assert (environment.id, environment.name) == (fused_emulator.environment_id, "team")


def test_check_says_that_a_token_is_bad(fused_emulator: Emulator) -> None:
    with FusedClient(token="wrong") as client, pytest.raises(AuthenticationError, match="missing, malformed or exp"):
        client.check()


def test_a_personal_access_token_works_too(fused_emulator: Emulator, udf: Udf) -> None:
    with FusedClient(token=f"Bearer {fused_emulator.bearer_token}") as client:
        client.invalidate_cache("roads")
    assert {request.scheme for request in fused_emulator.requests} == {"Bearer"}
    assert fused_emulator.cached_tiles(udf) == set()


def test_a_token_without_write_access_is_told_so(fused_emulator: Emulator, udf: Udf) -> None:
    token = fused_emulator.store.add_token(fused_emulator.environment_id, may_write=False)
    with FusedClient(token=token) as client, pytest.raises(PermissionDeniedError, match="needs write access"):
        client.invalidate_cache("roads")
    assert len(fused_emulator.cached_tiles(udf)) == 4


@pytest.mark.parametrize(
    ("instances", "preferred"),
    [
        ([("low", 1), ("high", 9), ("middle", 5)], "high"),
        ([("first", 5), ("second", 5)], "fused-team"),  # the emulator's own has rank 5 and came first
        ([("unranked", None)], "fused-team"),
        ([("negative", -1)], "fused-team"),
    ],
)
def test_the_instance_with_the_highest_rank_is_taken(
    fused_emulator: Emulator, instances: list[tuple[str, int | None]], preferred: str
) -> None:
    for client_id, rank in instances:
        fused_emulator.store.add_instance(client_id, fused_emulator.environment_id, rank)
    with FusedClient() as client:
        assert client.resolve_client_id() == preferred


def test_the_preferred_instance_is_asked_for_once_per_call(fused_emulator: Emulator, udf: Udf) -> None:
    with FusedClient() as client:
        client.invalidate_cache(udf.id)
        client.invalidate_cache(udf.id)
        assert client.client_id == "fused-team"
    assert [request.path.rsplit("/", 1)[-1] for request in fused_emulator.requests] == [
        *(udf.id, udf.canvas_id, "available", "delete"),
        *(udf.id, udf.canvas_id, "available", "delete"),
    ]


def test_no_instance_at_all_says_what_to_set(fused_emulator: Emulator) -> None:
    fused_emulator.misbehave(status=200, body=[])
    with FusedClient() as client, pytest.raises(ConfigurationError, match="set FUSED_CLIENT_ID"):
        client.resolve_client_id()


@pytest.mark.parametrize("body", [{}, "x", [1], None, [{"client_id": "../x"}], [{"client_id": 5}]], ids=json.dumps)
def test_an_instance_list_that_is_none_is_refused(fused_emulator: Emulator, body: object) -> None:
    fused_emulator.misbehave(status=200, body=body if body is not None else "null")
    with FusedClient() as client, pytest.raises(UnexpectedResponseError):
        client.resolve_client_id()


@pytest.mark.parametrize("body", [{}, [], "x", {"id": 5}, {"id": "../x"}, {"id": ""}], ids=json.dumps)
def test_a_udf_record_without_a_usable_id_is_refused(fused_emulator: Emulator, client: FusedClient, body: object) -> None:
    fused_emulator.misbehave(status=200, body=body)
    with pytest.raises(UnexpectedResponseError):
        client.resolve_udf("roads")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_error_and_never_followed(
    fused_emulator: Emulator, client: FusedClient, udf: Udf, status: int
) -> None:
    fused_emulator.misbehave(status=status, location=f"{fused_emulator.base_url}/user/self", path="delete")
    with pytest.raises(UnexpectedRedirectError, match="Redirects are never followed") as caught:
        client.invalidate_cache(udf.id)
    assert not caught.value.retryable
    assert len(fused_emulator.requests) == 1


def test_repr_names_the_place_and_not_the_token(client: FusedClient, fused_emulator: Emulator) -> None:
    assert repr(client) == f"FusedClient(base_url='{fused_emulator.base_url}', client_id='fused-team')"


def test_a_client_is_never_pickled(client: FusedClient) -> None:
    with pytest.raises(TypeError, match="create it where it is used"):
        pickle.dumps(client)


def test_a_netrc_entry_never_replaces_the_token(
    fused_emulator: Emulator, client: FusedClient, udf: Udf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    client.invalidate_cache(udf.id)
    assert fused_emulator.requests[-1].scheme == "Fused-Service-Token"


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        seen: list[bytes] = []

        def serve() -> None:
            connection, _ = proxy.accept()
            with connection:
                seen.append(connection.recv(10_000))
                connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"id": "other"')

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        with FusedClient(token="a-token", base_url="http://fused.invalid", allow_http=True, deadline=60) as client:
            with pytest.raises(UnexpectedResponseError):
                client.check()
        thread.join(60)
    assert seen[0].startswith(b"GET http://fused.invalid/server/v1/execution-env/self ")


def test_this_machine_is_never_reached_through_a_proxy(
    fused_emulator: Emulator, client: FusedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert client.check().name == "team"


@pytest.mark.parametrize("base_url", ["https://*.example.com", "https://.example.com"])
def test_an_impossible_address_is_a_configuration_error(base_url: str) -> None:
    with pytest.raises(ConfigurationError):
        with FusedClient(token="a-token", base_url=base_url, deadline=5) as client:
            client.check()


def test_one_connection_serves_many_requests() -> None:
    accepted = 0
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            nonlocal accepted
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                accepted += 1
                with connection:
                    while request := connection.recv(10_000):
                        # An answer with a body in chunks, then one without a body.
                        if b"check" in request or b"execution-env" in request:
                            body = b'{"name": "team"}'
                            chunk = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
                            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk)
                        else:
                            connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        base_url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with FusedClient(token="a-token", client_id="c", base_url=base_url) as client:
            for _ in range(5):
                client.check()
                client.invalidate_cache("0b9c2f4e-5d0a-4f51-9f6e-3f1f6c1d2a3b")
        assert accepted == 1


def test_a_server_that_does_not_answer_in_time_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        base_url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with FusedClient(token="a-token", base_url=base_url, timeout=0.1, deadline=0.5) as client:
            with pytest.raises(UnavailableError, match=r"timed out|not complete within"):
                client.check()


def test_a_server_that_is_not_there_is_unavailable(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with FusedClient(token="a-token", base_url=f"http://127.0.0.1:{port}", deadline=0.5) as client:
        with pytest.raises(UnavailableError, match=r"no response from 127\.0\.0\.1") as caught:
            client.check()
    assert "Connection refused" in caplog.text + str(caught.value)  # the last attempt may end at the deadline instead
    assert caught.value.retryable
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_an_endless_answer_is_cut_off() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                try:
                    while True:
                        connection.sendall(b"x" * 65536)
                except OSError:
                    pass

        threading.Thread(target=serve, daemon=True).start()
        base_url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with FusedClient(token="a-token", base_url=base_url, deadline=10) as client:
            with pytest.raises(UnexpectedResponseError, match="larger than"):
                client.check()


def test_a_forked_child_opens_connections_of_its_own(client: FusedClient, fused_emulator: Emulator) -> None:
    client.check()
    parents = client._service._open_connections()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - the child's lines
        os.write(writing, b"other" if client._service._open_connections() is not parents else b"same")
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    assert os.read(reading, 10) == b"other"
    os.close(reading)
