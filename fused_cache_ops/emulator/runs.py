"""Running UDFs: cached results, one per instance, and UDFs that run other UDFs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

from fused_cache_ops.emulator.assumptions import Assumptions
from fused_cache_ops.emulator.store import Store, Udf

DEFAULT_AGE = 14 * 86400  # [docs] how long results are kept by default, in seconds

JSON = "application/json"
_IMAGES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}

TileIndex = tuple[int, int, int]


class Outcome(NamedTuple):
    """The result of a run, and the headers that say where it came from."""

    body: bytes
    media_type: str
    headers: Mapping[str, str]


class Run(NamedTuple):
    """One run of a UDF: its function was called.

    Attributes:
        udf_id: the UDF's id.
        client_id: the real-time instance.
        tile: zoom, column and row, or None.
        parameters: the parameters, as they were received.
    """

    udf_id: str
    client_id: str
    tile: TileIndex | None
    parameters: Mapping[str, Any]


class UdfFailed(Exception):
    """A UDF raised an exception, or has no function."""


class _Running(NamedTuple):
    udf: Udf
    client_id: str


_RUNNING: ContextVar[_Running] = ContextVar("fused_emulator_running")


class Runner:
    """Runs UDFs, and keeps their results.

    Args:
        store: the data.
        assumptions: what the documentation leaves open.

    Attributes:
        functions: the Python functions behind the UDFs, by UDF id. A UDF kept from an earlier run may have none.
        runs: every run so far.
    """

    def __init__(self, store: Store, assumptions: Assumptions) -> None:
        self._store = store
        self._assumptions = assumptions
        self.functions: dict[str, Callable[..., Any]] = {}
        self.runs: list[Run] = []

    def run(
        self, udf: Udf, client_id: str, tile: TileIndex | None, parameters: Mapping[str, Any], max_age: int | None = None
    ) -> Outcome:
        """Run a UDF on an instance, or take its result from that instance's cache.

        Raises:
            UdfFailed: the UDF raised an exception, or has no function.
        """
        key = json.dumps(parameters, sort_keys=True)
        if max_age is None:
            max_age = DEFAULT_AGE if udf.cache_max_age is None else udf.cache_max_age
        hit = self._store.cached(client_id, udf.id, tile, key, max_age=max_age)
        if hit is not None:
            headers = self._assumptions.memory_headers if hit.in_memory else self._assumptions.storage_headers
            return Outcome(hit.body, hit.media_type, headers)
        began = self._store.invalidations(client_id, udf.id)
        function = self.functions.get(udf.id)
        if function is None:
            raise UdfFailed(f"UDF {udf.slug} has no function in this emulator: register it again")
        self.runs.append(Run(udf.id, client_id, tile, dict(parameters)))
        running = _RUNNING.set(_Running(udf, client_id))
        try:
            answer = function(**(dict(zip("zxy", tile or ())) | dict(parameters)))
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        except Exception as error:
            raise UdfFailed(f"UDF {udf.slug} failed: {type(error).__name__}: {error}") from error
        finally:
            _RUNNING.reset(running)
        media_type = _media_type(body) if isinstance(answer, bytes) else JSON
        if self._assumptions.late_results_are_stored or began == self._store.invalidations(client_id, udf.id):
            self._store.cache_many(client_id, udf.id, [tile], key, body, media_type)
        return Outcome(body, media_type, self._assumptions.fresh_headers)

    @property
    def client_id(self) -> str | None:
        """The instance of the UDF that is running, as its function sees it. None: none is running."""
        running = _RUNNING.get(None)
        return None if running is None else running.client_id

    def load(self, name: str, environment_id: str) -> Callable[..., Any]:
        """What `Emulator.load` does."""
        running = _RUNNING.get(None)
        canvas, email = ("default", None) if running is None else (running.udf.canvas, running.udf.email)
        udf = self._store.find_udf(environment_id=environment_id, email=email, canvas=canvas, slug=name)
        if udf is None:
            raise LookupError(f"There is no UDF {name!r} in the canvas {canvas!r}.")
        client_id = self._store.shared_client_id(udf) if running is None else running.client_id

        def call(**parameters: Any) -> Any:
            tile = (parameters.pop("z"), parameters.pop("x"), parameters.pop("y")) if {*"zxy"} <= {*parameters} else None
            outcome = self.run(udf, client_id, tile, parameters)
            return json.loads(outcome.body) if outcome.media_type == JSON else outcome.body

        return call


def _media_type(body: bytes) -> str:
    """What a UDF's bytes are. What is no image is taken for a vector tile."""
    return next((kind for start, kind in _IMAGES.items() if body.startswith(start)), "application/vnd.mapbox-vector-tile")
