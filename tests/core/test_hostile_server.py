"""A server that means no good: whatever it answers, there is a clear error, and within the deadline."""

import contextlib
import itertools
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from fused_cache_ops import FusedClient
from fused_cache_ops.errors import FusedCacheError, RateLimitedError, UnavailableError, UnexpectedResponseError

UDF = "8f6c7d1e-3a52-4d0c-9a39-0a7f5b1f7a10"
Behaviour = Callable[[socket.socket], None]


@contextlib.contextmanager
def serving(behave: Behaviour) -> Iterator[str]:
    """A server on this machine that reads a request's beginning and then behaves as told; its base URL."""
    stopped = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)

        def answer(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                behave(connection)

        def accept() -> None:
            while not stopped.is_set():
                with contextlib.suppress(TimeoutError):
                    threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/server/v1"
        finally:
            stopped.set()
            thread.join()


def says(text: str) -> Behaviour:
    return lambda connection: connection.sendall(text.encode())


def drips(beginning: str, drop: bytes) -> Behaviour:
    def behave(connection: socket.socket) -> None:
        connection.sendall(beginning.encode())
        for _ in range(300):
            connection.sendall(drop)
            time.sleep(0.1)

    return behave


def pours(beginning: str, chunk: bytes) -> Behaviour:
    def behave(connection: socket.socket) -> None:
        connection.sendall(beginning.encode())
        for _ in itertools.repeat(None, 1000):
            connection.sendall(chunk)

    return behave


OK = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
MEGABYTE = b"a" * 2**20

SLOW = "not complete within|timed out"

HOSTILE: dict[str, tuple[Behaviour, type[FusedCacheError], str]] = {
    "endless body": (pours(f"{OK}\r\n", MEGABYTE), UnexpectedResponseError, "larger than 8,388,608 bytes"),
    "endless chunks": (
        pours(f"{OK}Transfer-Encoding: chunked\r\n\r\n", b"100000\r\n" + MEGABYTE + b"\r\n"),
        UnexpectedResponseError,
        "larger than 8,388,608 bytes",
    ),
    "slow status": (drips("HTTP/1.1 200 ", b"O"), UnavailableError, SLOW),
    "slow headers": (drips(OK, b"X: y\r\n"), UnavailableError, f"{SLOW}|headers"),
    "slow body": (drips(f"{OK}Content-Length: 1000000\r\n\r\n", b" "), UnavailableError, SLOW),
    "nothing at all": (lambda connection: time.sleep(3), UnavailableError, SLOW),
    "10 MB header": (pours(f"{OK}X-Long: ", MEGABYTE), FusedCacheError, "header line"),
    "1,000 headers": (says(f"{OK}{'X: y' + chr(13) + chr(10)}" * 1000), FusedCacheError, "headers|no response"),
    "no HTTP": (says("SSH-2.0-OpenSSH_9.6\r\n"), UnavailableError, "BadStatusLine|no response"),
    "body cut short": (says(f"{OK}Content-Length: 50\r\n\r\n{{}}"), UnavailableError, "IncompleteRead|no response"),
    "an error in a success": (
        says(f'{OK}Content-Length: 16\r\n\r\n{{"detail": "no"}}'),
        UnexpectedResponseError,
        "answered 200, but with detail: no",
    ),
    "a gzip bomb": (
        says(f"{OK}Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope"),
        UnavailableError,
        "DecodeError|no response",
    ),
    "accepted, not done": (
        says("HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}"),
        UnexpectedResponseError,
        "does not confirm it",
    ),
    "a huge Retry-After": (
        says("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 99999999999999999999\r\nContent-Length: 0\r\n\r\n"),
        RateLimitedError,
        "the server asks for a pause",
    ),
    "two lengths": (says(f"{OK}Content-Length: 1\r\nContent-Length: 2\r\n\r\n{{}}"), FusedCacheError, "Content-Length"),
}


@pytest.mark.parametrize(("behave", "error", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_server_leads_to_a_clear_error_within_the_deadline(
    behave: Behaviour, error: type[FusedCacheError], message: str
) -> None:
    # What is wrong with an answer has to be found out, however long that takes here. What has no end has to be ended.
    timeout, deadline = (60, 120) if error is UnexpectedResponseError else (0.6, 1.5)
    with serving(behave) as base_url:
        with FusedClient(token="a-token", client_id="c", base_url=base_url, timeout=timeout, deadline=deadline) as client:
            started = time.monotonic()
            with pytest.raises(error, match=message) as caught:
                client.invalidate_cache(UDF, tiles=["1/0/0", "1/0/1"])
    assert time.monotonic() - started < 120
    assert list(caught.value.remaining or ()) == [(1, 0, 0), (1, 0, 1)]


def test_a_servers_words_cannot_forge_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    forged = '{"detail": "no\\r\\n2026-01-01 INFO root: all is well \\u001b[2J\\u2028x"}'
    behave = says(f"HTTP/1.1 503 No\r\nContent-Length: {len(forged)}\r\n\r\n{forged}")
    with serving(behave) as base_url, caplog.at_level(logging.DEBUG, "fused_cache_ops"):
        with FusedClient(token="a-token", client_id="c", base_url=base_url, deadline=1) as client:
            with pytest.raises(UnavailableError) as caught:
                client.invalidate_cache(UDF, tiles=["1/0/0"])
    lines = [record.getMessage() for record in caplog.records] + [str(caught.value)]
    assert any("all is well" in line for line in lines)
    assert [line for line in lines if not line.isprintable()] == []


def test_what_drips_is_cut_off_for_every_worker_at_once() -> None:
    with serving(drips(f"{OK}Content-Length: 1000000\r\n\r\n", b" ")) as base_url:
        settings = {"timeout": 30.0, "deadline": 1.0, "max_concurrency": 8}
        with FusedClient(token="a-token", client_id="c", base_url=base_url, **settings) as client:
            started = time.monotonic()
            with pytest.raises(UnavailableError):
                client.invalidate_cache(UDF, tiles=[f"9/{x}/0" for x in range(50)])
    assert time.monotonic() - started < 60
