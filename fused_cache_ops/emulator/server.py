"""The emulator as a server, in a thread of this process."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import secrets
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import uvicorn

from fused_cache_ops.emulator.application import PREFIX, Functions, build_application
from fused_cache_ops.emulator.faults import Fault, Misbehavior
from fused_cache_ops.emulator.store import ReceivedRequest, Store, Udf


class Emulator:
    """A Fused service on a loopback port.

    ::

        def roads(z, x, y):
            return {"tile": [z, x, y], "rows": read_rows(z, x, y)}

        with Emulator() as emulator:
            udf = emulator.register(roads)
            invalidate_cache("roads", tiles=["15/9647/12320"], token=emulator.token, base_url=emulator.base_url)

    Args:
        port: the port on 127.0.0.1. 0 picks a free one.
        database: a file that keeps all data between runs. None keeps it in memory.
        token: the service account's token. None generates one.
        batch_endpoint: False for a deployment without ``batch-delete``.

    Attributes:
        token: a service-account token with write access.
        bearer_token: a personal access token of the user ``me@example.com`` (handle ``me``).
        client_id: the preferred real-time instance.
    """

    client_id = "fused-team"
    email = "me@example.com"

    def __init__(
        self,
        *,
        port: int = 0,
        database: str | Path | None = None,
        token: str | None = None,
        batch_endpoint: bool = True,
    ) -> None:
        self.store = Store(database)
        self.environment_id = self.store.add_environment("team")
        self.store.add_user(self.email, "me", self.environment_id)
        self.store.add_instance(self.client_id, self.environment_id, 5)
        self.token = self.store.add_token(self.environment_id, token=token)
        self.bearer_token = self.store.add_token(self.environment_id, email=self.email)
        self._functions = Functions()
        self._misbehavior = Misbehavior(self.store)
        application = build_application(self.store, self._functions, batch_endpoint=batch_endpoint)
        self._server = _Server(
            uvicorn.Config(
                self._misbehavior.wrap(application),
                log_config=None,
                log_level="critical",
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=1,
            )
        )
        self._wanted_port = port
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    # -- running -------------------------------------------------------------------------------------------------

    def start(self) -> Emulator:
        """Start listening, and return once the server responds."""
        self._socket = socket.create_server(("127.0.0.1", self._wanted_port))
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="fused-emulator", daemon=True
        )
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("The emulator did not start.")
            time.sleep(0.005)
        return self

    def stop(self) -> None:
        """Close every connection and end the thread."""
        self._server.end()
        if self._thread is not None:
            self._thread.join(timeout=10)
        if self._socket is not None:
            self._socket.close()
        self.store.close()

    close = stop

    def __enter__(self) -> Emulator:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def root_url(self) -> str:
        """Where shared UDFs run, as ``https://udf.ai`` does."""
        if self._socket is None:
            raise RuntimeError("The emulator is not running: use it in a with statement, or call start().")
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    @property
    def base_url(self) -> str:
        """What ``FUSED_BASE_URL`` should be."""
        return self.root_url + PREFIX

    def environment(self) -> dict[str, str]:
        """The environment variables that point this package, in any process, at the emulator."""
        return {"FUSED_BASE_URL": self.base_url, "FUSED_SERVICE_ACCOUNT_TOKEN": self.token}

    # -- UDFs ----------------------------------------------------------------------------------------------------

    def register(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        canvas: str = "default",
        email: str | None = None,
        code: str | None = None,
    ) -> Udf:
        """Serve a Python function as a UDF.

        Args:
            function: called with the tile's ``z``, ``x``, ``y`` and the query parameters (as strings), by keyword.
                Its result must be JSON-serializable.
            name: the UDF's name. Default: the function's name.
            canvas: the canvas it belongs to.
            email: the user who owns it. None: the team.
            code: what a lookup shows as its code. Default: the function's source.
        """
        name = name or function.__name__
        udf = self.store.add_udf(
            Udf(
                id=str(uuid.uuid4()),
                slug=name,
                canvas=canvas,
                environment_id=self.environment_id,
                email=email,
                code=code or _source(function),
                entrypoint=function.__name__,
                shared_token=f"fsh_{secrets.token_hex(16)}",
            )
        )
        self._functions.by_udf[udf.id] = function
        return udf

    def tile_url(self, udf: Udf, z: int, x: int, y: int) -> str:
        """The address of one tile of a shared UDF. It contains the shared token, so treat it as a secret."""
        return f"{self.root_url}/{udf.shared_token}/run/tiles/{z}/{x}/{y}"

    def fill_cache(self, udf: Udf, tiles: Iterable[tuple[int, int, int]]) -> None:
        """Cache a result for each tile, as if it had been requested."""
        self.store.cache_many(udf.id, tiles)

    def cached_tiles(self, udf: Udf) -> set[tuple[int, int, int]]:
        """The tiles of a UDF that have cached results."""
        return self.store.cached_tiles(udf.id)

    @property
    def before_invalidation(self) -> Callable[[], None] | None:
        """A hook that is called when an invalidation has arrived, before it takes effect, to see what is still stale."""
        return self._functions.before_invalidation

    @before_invalidation.setter
    def before_invalidation(self, hook: Callable[[], None] | None) -> None:
        self._functions.before_invalidation = hook

    # -- misbehavior and received requests ---------------------------------------------------------------------------

    def misbehave(self, **fault: Any) -> None:
        """Add a `Fault`, for example ``misbehave(status=429, retry_after=2, times=3)``."""
        self._misbehavior.add(Fault(**fault))

    def behave(self) -> None:
        """Remove every fault."""
        self._misbehavior.clear()

    @property
    def requests(self) -> list[ReceivedRequest]:
        """Every request so far."""
        return self.store.requests()

    @property
    def requests_under_way(self) -> int:
        """The number of requests that have arrived and have no response yet."""
        return self._misbehavior.under_way

    def forget_requests(self) -> None:
        self.store.forget_requests()


class _Server(uvicorn.Server):
    """Ends as soon as it is told to. uvicorn's own looks for that ten times a second, and most tests start and end one."""

    _loop: asyncio.AbstractEventLoop | None = None

    async def main_loop(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += 1
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._ended.wait(), 0.1)

    def end(self) -> None:
        """End it, from another thread."""
        self.should_exit = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._ended.set)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listening in (*self.servers, *(sockets or ())):
            listening.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        patience = time.monotonic() + (self.config.timeout_graceful_shutdown or 0)
        while (self.server_state.connections or self.server_state.tasks) and time.monotonic() < patience:
            await asyncio.sleep(0.002)
        for task in self.server_state.tasks:
            task.cancel()


def _source(function: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return f"def {function.__name__}(**parameters):\n    ...\n"
