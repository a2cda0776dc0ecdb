"""The emulator as a server, in a thread of this process."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import re
import secrets
import socket
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from fused_cache_ops.emulator.application import PREFIX, Hooks, Parts, build_application
from fused_cache_ops.emulator.assumptions import Assumptions
from fused_cache_ops.emulator.drive import CACHE_FOLDER, STORES, Drive, F
from fused_cache_ops.emulator.faults import Fault, Misbehavior
from fused_cache_ops.emulator.runs import Run, Runner
from fused_cache_ops.emulator.store import Canvas, ReceivedRequest, Store, Udf
from fused_cache_ops.emulator.tables import H3Table

NAME = "fused-cache-ops emulator"
NAME_PATH = "/.emulator"


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
        assumptions: the service's behavior where it is not documented, as switches.
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
        self.assumptions = Assumptions()
        self._hooks = Hooks()
        self._runner = Runner(self.store, self.assumptions)
        self._misbehavior = Misbehavior(self.store)
        self._drive = Drive()
        self._tables: dict[str, H3Table] = {}
        parts = Parts(self.store, self._runner, self.assumptions, self._hooks, self._drive, self._tables)
        application = build_application(parts, batch_endpoint=batch_endpoint)
        self._server = _Server(
            uvicorn.Config(
                _named(self._misbehavior.wrap(application)),
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
        entrypoint: str | None = None,
        visible: bool = True,
        cache_max_age: int | None = None,
        shared_token: str | None = None,
    ) -> Udf:
        """Serve a Python function as a UDF.

        Args:
            function: called with the tile's ``z``, ``x``, ``y`` and the query parameters (as strings), by keyword.
                Its result must be JSON-serializable, or the bytes of an image or a vector tile. It may run other UDFs with
                `load`.
            name: the UDF's name. Default: the function's name.
            canvas: the canvas it belongs to. One that does not exist is created as a public canvas: see `add_canvas`.
            email: the user who owns it. None: the team.
            code: what a lookup shows as its code. Default: the function's source.
            entrypoint: the name of the function in the code. Default: the first one that is defined there.
            visible: whether it is shown on the canvas.
            cache_max_age: seconds for which its results are kept. None: 14 days.
            shared_token: a shared token of its own, of any form. Default: a generated one, ``fsh_…``.
        """
        name = name or function.__name__
        code = code or _source(function)
        defined = re.search(r"^(?:async )?def (\w+)", code, re.MULTILINE)
        udf = self.store.add_udf(
            Udf(
                id=str(uuid.uuid4()),
                slug=name,
                canvas=canvas,
                environment_id=self.environment_id,
                email=email,
                code=code,
                entrypoint=entrypoint or (defined[1] if defined else function.__name__),
                shared_token=shared_token or f"fsh_{secrets.token_hex(16)}",
                visible=visible,
                cache_max_age=cache_max_age,
            )
        )
        self._runner.functions[udf.id] = function
        return udf

    def load(self, name: str) -> Callable[..., Any]:
        """Another UDF, for a registered function to run, as ``fused.load(name)`` within a UDF::

            def parcels(z, x, y):
                return emulator.load("expensive_loader")(z=z, x=x, y=y)

        The UDF is looked up in the canvas of the UDF that is running. Calling it with keywords runs it on the same instance,
        or takes its result from its own cache there. With ``z``, ``x`` and ``y``, it is run for that tile.

        Raises:
            LookupError: there is no UDF of this name in the canvas.
        """
        return self._runner.load(name, self.environment_id)

    def cache(self, *, cache_folder_path: str = "tmp", cache_max_age: float = 48 * 3600) -> Callable[[F], F]:
        """A decorator that keeps a function's results on the drive of the instance that runs it, as ``@fused.cache`` within a
        UDF. Deleting the folder makes them new.

        Args:
            cache_folder_path: the folder, under ``/mount/fused-system/cached_data/``.
            cache_max_age: seconds that a result is kept.
        """
        return self._drive.cached(lambda: self._runner.client_id or self.client_id, cache_folder_path, cache_max_age)

    def inner_caches(self, *, client_id: str | None = None) -> list[str]:
        """The folders of inner caches on an instance. Default: the preferred one."""
        return self._drive.folders(client_id or self.client_id, CACHE_FOLDER)

    def add_file(self, path: str, content: bytes = b"") -> None:
        """A file in an object store, such as ``s3://lake/parcels/a.parquet``, written now. ``fused.api.list`` shows it."""
        self._drive.write(STORES, path, content)

    def add_h3_table(self, path: str, rows: Any = None) -> H3Table:
        """An H3 table, for a registered function to read by its `H3Table.query`, as ``fused.h3.query(path)`` within a UDF."""
        return self._tables.setdefault(path.rstrip("/"), H3Table(path, rows))

    def add_canvas(
        self,
        name: str,
        *,
        access_scope: Literal["public", "team"] = "team",
        share_client_id: str | None = None,
        passcode: str | None = None,
        email: str | None = None,
        shared: bool = True,
    ) -> Canvas:
        """Create a canvas, or change the one of this name, which keeps its id and share token.

        Args:
            name: its name.
            access_scope: ``"team"``: running its UDFs takes a session token. ``"public"``: the shared token is enough.
            share_client_id: the instance that its shared UDFs run on. None: the preferred one.
            passcode: what runs of a public canvas must send.
            email: the user who owns it. None: the team.
            shared: whether it has a share token.
        """
        return self.store.add_canvas(
            self.environment_id,
            name,
            email=email,
            access_scope=access_scope,
            share_client_id=share_client_id,
            passcode=passcode,
            shared=shared,
        )

    def canvas_of(self, udf: Udf) -> Canvas:
        """The canvas that a UDF belongs to."""
        canvas = self.store.find_canvas(id=udf.canvas_id)
        if canvas is None:
            raise LookupError(f"UDF {udf.slug} is not stored in this emulator.")
        return canvas

    def canvas_url_token(self, udf: Udf) -> str:
        """``fc_<token>/<udf>``: the UDF's shared token under its canvas, whose access rules apply."""
        return f"{self.canvas_of(udf).share_token}/{udf.slug}"

    def add_instance(self, client_id: str, preference_rank: int | None = None) -> None:
        """Add a real-time instance. Each instance has caches of its own. The first one has rank 5."""
        self.store.add_instance(client_id, self.environment_id, preference_rank)

    @property
    def session_tokens(self) -> list[str]:
        """Every session token that was minted and not revoked."""
        return self.store.session_tokens()

    def expire_session_tokens(self) -> None:
        """Make every session token so far invalid, as if its time were over."""
        self.store.expire_session_tokens()

    def tile_url(self, udf: Udf, z: int, x: int, y: int) -> str:
        """The address of one tile of a shared UDF. It contains the shared token, so treat it as a secret."""
        return f"{self.root_url}/{udf.shared_token}/run/tiles/{z}/{x}/{y}"

    @property
    def runs(self) -> list[Run]:
        """Every run so far, those of one UDF by another included. A result that came from a cache does not count as a run."""
        return list(self._runner.runs)

    def forget_runs(self) -> None:
        self._runner.runs.clear()

    def fill_cache(self, udf: Udf, tiles: Iterable[tuple[int, int, int]], *, client_id: str | None = None) -> None:
        """Cache a result for each tile, as if it had been requested. Default: on the instance that shared runs are made on."""
        self.store.cache_many(client_id or self.store.shared_client_id(udf), udf.id, tiles)

    def cached_calls(self, udf: Udf, *, client_id: str | None = None) -> list[dict[str, Any]]:
        """The parameters of a UDF's cached results that are of no tile, as its callers ask for them, on one instance or on
        any."""
        return self.store.cached_calls(udf.id, client_id)

    def cached_tiles(self, udf: Udf, *, client_id: str | None = None) -> set[tuple[int, int, int]]:
        """The tiles of a UDF that have cached results, on one instance or on any."""
        return self.store.cached_tiles(udf.id, client_id)

    def forget_memory(self) -> None:
        """Empty the memory tier, so that the next response for each cached result comes from object storage."""
        self.store.forget_memory()

    @property
    def before_invalidation(self) -> Callable[[], None] | None:
        """A hook that is called when an invalidation has arrived, before it takes effect, to see what is still stale."""
        return self._hooks.before_invalidation

    @before_invalidation.setter
    def before_invalidation(self, hook: Callable[[], None] | None) -> None:
        self._hooks.before_invalidation = hook

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


def _named(application: ASGIApp) -> ASGIApp:
    """Says to another emulator that wants the same port what is running here. Not a request to Fused, so nothing strikes it."""

    async def layer(scope: Scope, receive: Receive, send: Send) -> None:
        named = scope["type"] == "http" and scope["path"] == NAME_PATH
        await (PlainTextResponse(NAME) if named else application)(scope, receive, send)

    return layer


class _Server(uvicorn.Server):
    """Ends immediately. uvicorn's own looks ten times a second whether it should, and most tests start and end one."""

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
        code = textwrap.dedent(inspect.getsource(function))
        ast.parse(code)
    except (OSError, TypeError, SyntaxError):  # of a lambda, only the first line may be found
        code = "def udf(**parameters):\n    ...\n"
    return code
