"""The emulator's misbehavior on demand, and its record of every request: the outermost layer of the application."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fused_cache_ops.emulator.store import ReceivedRequest, Store


@dataclass
class Fault:
    """One way to misbehave.

    Attributes:
        status: respond with this status instead of doing the work. Use 3xx with ``location``.
        retry_after: the response's ``Retry-After``: seconds or an HTTP date.
        location: the response's ``Location``.
        headers: further headers of the response.
        body: the response's JSON, or its bytes. Default: ``{"detail": "…"}``.
        drop: close the connection without a response.
        latency: seconds to wait first.
        after_work: do the work, and only then drop the connection or respond with ``status``.
        times: how many requests it affects. None: all.
        seconds: how long it lasts, from now on. None: forever.
        method: affect only requests with this method.
        path: affect only requests whose path contains this.
    """

    status: int | None = None
    retry_after: int | str | None = None
    location: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    drop: bool = False
    latency: float = 0.0
    after_work: bool = False
    times: int | None = 1
    seconds: float | None = None
    method: str | None = None
    path: str = ""

    def __post_init__(self) -> None:
        self._ends = math.inf if self.seconds is None else time.monotonic() + self.seconds

    def strikes(self, scope: Scope) -> bool:
        return (
            self.times != 0
            and time.monotonic() < self._ends
            and self.path in scope["path"]
            and (self.method is None or self.method.upper() == scope["method"])
        )


class Misbehavior:
    """The list of faults, and the layer that applies them.

    Attributes:
        under_way: the number of requests that have arrived and have no response yet.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self.under_way = 0

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def _next(self, scope: Scope) -> list[Fault]:
        """The faults that affect this request: every delay, and the first that responds instead of the application."""
        with self._lock:
            struck: list[Fault] = []
            for fault in self._faults:
                answers = fault.drop or fault.status is not None
                if fault.strikes(scope) and not (answers and any(f.drop or f.status is not None for f in struck)):
                    struck.append(fault)
                    if fault.times is not None:
                        fault.times -= 1
            return struck

    def wrap(self, application: ASGIApp) -> ASGIApp:
        async def layer(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await application(scope, receive, send)
                return

            def record(status: int) -> None:
                self._store.record_request(
                    ReceivedRequest(
                        method=scope["method"],
                        path=scope["raw_path"].decode(),
                        query=scope["query_string"].decode(),
                        scheme=_header(scope, b"authorization").partition(" ")[0],
                        tiles=scope.get("state", {}).get("tiles"),
                        status=status,
                    )
                )

            async def recording_send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    record(message["status"])  # before the response, so that whoever receives it finds the record
                await send(message)

            async def silent_send(message: Message) -> None:
                pass

            struck = self._next(scope)
            await asyncio.sleep(sum(fault.latency for fault in struck))
            answer = next((fault for fault in struck if fault.drop or fault.status is not None), None)
            if answer is None:
                await application(scope, receive, recording_send)
            else:
                if answer.after_work:
                    await application(scope, receive, silent_send)
                elif not answer.drop:
                    await _read_all(receive)
                if answer.drop:
                    record(0)
                    _drop_connection(send)
                else:
                    await _answer(answer, recording_send)

        async def counting(scope: Scope, receive: Receive, send: Send) -> None:
            with self._lock:
                self.under_way += 1
            try:
                await layer(scope, receive, send)
            finally:
                with self._lock:
                    self.under_way -= 1

        return counting


async def _read_all(receive: Receive) -> None:
    while (await receive()).get("more_body"):
        pass


async def _answer(fault: Fault, send: Callable[[Message], Any]) -> None:
    headers = [(b"content-type", b"application/json")]
    if fault.retry_after is not None:
        headers.append((b"retry-after", str(fault.retry_after).encode()))
    if fault.location is not None:
        headers.append((b"location", fault.location.encode()))
    headers += [(name.lower().encode(), value.encode()) for name, value in fault.headers.items()]
    body = {"detail": "the emulator misbehaves, as it was asked to"} if fault.body is None else fault.body
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": fault.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _drop_connection(send: Send) -> None:
    # ASGI has no message for this. uvicorn's `send` is a method of the object that owns the connection.
    send.__self__.transport.abort()  # type: ignore[attr-defined]


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")
