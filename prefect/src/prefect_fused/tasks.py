"""The tasks: call one in a flow right after the load."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional, TypeVar, Union

from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import SecretStr
from typing_extensions import ParamSpec

from fused_cache_ops.errors import FusedCacheError
from fused_cache_ops.identifiers import parse_udf
from fused_cache_ops.plan import plan_invalidation
from fused_cache_ops.settings import DEFAULT_CONCURRENCY, DEFAULT_DEADLINE, DEFAULT_TIMEOUT
from fused_cache_ops.tiles import DEFAULT_MAX_TILES, HIGHEST_ZOOM, NOT_GIVEN, WHOLE_UDF
from prefect_fused.credentials import FusedCredentials
from prefect_fused.invalidation import Invalidation, Limits

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task

    from fused_cache_ops.checkpoint import CheckpointLocation
    from fused_cache_ops.keywords import CallKeywords
    from fused_cache_ops.selection import Bounds, WhenTooMany
    from fused_cache_ops.tile_list import TilesFile
    from fused_cache_ops.tiles import NotGiven, TileSelection
    from fused_cache_ops.zooms import Zooms

P = ParamSpec("P")
R = TypeVar("R")


async def _may_pass(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether to try again: not after a bad token, an unknown UDF or an unreadable selection."""
    failure = await state.aresult(raise_on_failure=False)
    return bool(getattr(failure, "retryable", False))


def _run_name() -> str:
    """Which UDF, and how many tiles; a shared token, which is a permission, is masked."""
    from prefect.runtime import task_run

    return run_name(task_run.get_parameters())


def run_name(parameters: dict[str, Any]) -> str:
    """A run's name from its parameters. Tiles of a geometry or a file are not counted: that may take long."""
    try:
        shown = parse_udf(parameters["udf"]).shown.strip("'")
    except (FusedCacheError, KeyError):
        shown = "unreadable-udf"
    count = None
    with contextlib.suppress(FusedCacheError):  # the call says why
        count = _count(parameters)
    return f"invalidate-{shown}" + ("" if count is None else f"-{count}-tile{'' if count == 1 else 's'}")


def _count(parameters: dict[str, Any]) -> int | None:
    tiles, bounds = (parameters.get(name) for name in ("tiles", "bounds"))
    more = {name: parameters[name] for name in ("zooms", "shard") if parameters.get(name) is not None}
    if parameters.get("buffer"):
        more["buffer"] = parameters["buffer"]
    if isinstance(tiles, (list, tuple, set, frozenset)):
        return plan_invalidation("udf", tiles=tiles, **more).tile_count if more else len(tiles)
    return plan_invalidation("udf", bounds=bounds, **more).tile_count if isinstance(bounds, (list, tuple)) else None


def _invalidation(
    udf: str,
    credentials: Optional[FusedCredentials] = None,
    tiles: TileSelection = WHOLE_UDF,
    bounds: Bounds | NotGiven = NOT_GIVEN,
    geometry: Any = NOT_GIVEN,
    tiles_file: TilesFile | NotGiven = NOT_GIVEN,
    zooms: Zooms | None = None,
    buffer: int = 0,
    max_tiles: int = DEFAULT_MAX_TILES,
    when_too_many: WhenTooMany = "fail",
    max_zoom: int = HIGHEST_ZOOM,
    shard: Optional[tuple[int, int]] = None,
    checkpoint: Optional[CheckpointLocation] = None,
    verify: int = 0,
    shared_token: Optional[Union[SecretStr, str]] = None,
    timeout: float = DEFAULT_TIMEOUT,
    deadline: float = DEFAULT_DEADLINE,
    max_concurrency: int = DEFAULT_CONCURRENCY,
    max_requests_per_second: Optional[float] = None,
) -> Invalidation:
    """Invalidate the cached results of a Fused UDF: all of them, or those of the tiles that a load has changed.

    One run sends any number of tiles, up to 50,000 a request. For `.map` over UDFs wrap the other arguments in
    `unmapped`, since Prefect takes blocks and lists for things to map over.

    Args:
        udf: An id, `name`, `canvas/name`, `team/name`, `user@host/name` or a shared token.
        credentials: The block with the token; without it the environment's `FUSED_SERVICE_ACCOUNT_TOKEN` is used.
        tiles: The tiles to invalidate, as `"z/x/y"`, `(z, x, y)` or `{"z": …, "x": …, "y": …}`. Leave every selection
            out for the whole UDF. An empty one invalidates nothing, and None is an error, so that a load which forgot
            its `return` cannot purge everything.
        bounds: Instead of `tiles`: `(west, south, east, north)` in degrees, or several of these.
        geometry: Instead of `tiles`: GeoJSON, WKT, a shapely geometry, a GeoDataFrame, or a vector file's path or URL.
        tiles_file: Instead of `tiles`: the path of a list of tiles, one a line.
        zooms: `"10-14"`, `[10, 12]`, `12`. Needed with `bounds` and `geometry`; with a list it adds parents and children.
        buffer: Tiles to add on every side.
        max_tiles: The most tiles that a computed selection may come to.
        when_too_many: Beyond that: `"fail"`, `"whole-udf"` or `"coarser"`.
        max_zoom: The highest zoom that the selection may hold.
        shard: `(i, n)`: only the `i`-th of `n` equal parts of the selection, from 0. Map over these to share one purge
            among workers, and merge with `fused_cache_ops.InvalidationResult.merge`.
        checkpoint: Where to keep a record of what is done, a path or a URL that fsspec knows (with the core's extra
            `fsspec`), so that a retry sends only the rest. Name one place for each load.
        verify: Afterwards, ask for so many of the tiles through a shared token, and tell in the result which of them
            were computed anew.
        shared_token: For `verify`, where `udf` is none itself.
        timeout: Seconds that one request may take.
        deadline: Seconds that one try may take, the core's own retries included.
        max_concurrency: Requests in flight at once where tiles go one by one.
        max_requests_per_second: The most requests a second; without it as many as the service takes.

    Returns:
        What was done: `udf_id`, `client_id`, `tiles_requested` (None: the whole UDF), `objects_deleted` (None: the
        service does not say), `requests_sent`, `retries`, `elapsed_seconds`, `tiles_already_done`, `verification`,
        `zooms_left_stale`, `note`.

    Raises:
        fused_cache_ops.errors.FusedCacheError: It failed. Only what may pass is retried.
    """
    keywords: CallKeywords = {
        "tiles": tiles,
        "bounds": bounds,
        "geometry": geometry,
        "tiles_file": tiles_file,
        "zooms": zooms,
        "buffer": buffer,
        "max_tiles": max_tiles,
        "when_too_many": when_too_many,
        "max_zoom": max_zoom,
        "shard": shard,
        "checkpoint": checkpoint,
        "verify": verify,
        "shared_token": shared_token,  # type: ignore[typeddict-item]  # a SecretStr is read by Invalidation
    }
    limits: Limits = {
        "timeout": timeout,
        "deadline": deadline,
        "max_concurrency": max_concurrency,
        "max_requests_per_second": max_requests_per_second,
    }
    return Invalidation(udf, credentials, keywords, limits)


def _with_the_signature_of(model: Callable[P, Any]) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Give a function the signature and the documentation of another, so that they are written once for a pair."""

    def decorate(function: Any) -> Any:
        function.__doc__ = model.__doc__
        returned = inspect.signature(function).return_annotation
        function.__signature__ = inspect.signature(model).replace(return_annotation=returned)
        return function

    return decorate


# Never cached: with a cached result a second invalidation would do nothing. No timeout_seconds: it cannot interrupt a
# thread; the core's time-outs and its deadline end every call.
_as_task = task(
    name="Invalidate Fused cache",
    description="Invalidate the cached results of a Fused UDF: all of them, or those of some tiles.",
    task_run_name=_run_name,
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=[10, 60],
    retry_jitter_factor=0.5,
    retry_condition_fn=_may_pass,
)


@_as_task
@_with_the_signature_of(_invalidation)
def invalidate_cache(*arguments: Any, **keywords: Any) -> dict[str, Any]:
    return _invalidation(*arguments, **keywords).send()


@_as_task
@_with_the_signature_of(_invalidation)
async def ainvalidate_cache(*arguments: Any, **keywords: Any) -> dict[str, Any]:
    return await _invalidation(*arguments, **keywords).asend()
