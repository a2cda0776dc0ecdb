"""The tasks: call one in a flow right after the load."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from typing_extensions import ParamSpec

from fused_cache_ops import FusedCacheError
from fused_cache_ops.integration import SelectionKeywords, parse_udf
from prefect_fused.keywords import TASK_DEFAULTS, TaskKeywords, split

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task
    from typing_extensions import Unpack

    from prefect_fused.credentials import FusedCredentials
    from prefect_fused.invalidation import Invalidation

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
    from fused_cache_ops import plan_invalidation

    tiles, bounds = (parameters.get(name) for name in ("tiles", "bounds"))
    more = {name: parameters[name] for name in ("zooms", "shard") if parameters.get(name) is not None}
    if parameters.get("buffer"):
        more["buffer"] = parameters["buffer"]
    if isinstance(tiles, (list, tuple, set, frozenset)):
        return plan_invalidation("udf", tiles=tiles, **more).tile_count if more else len(tiles)
    return plan_invalidation("udf", bounds=bounds, **more).tile_count if isinstance(bounds, (list, tuple)) else None


def _invalidation(udf: str, credentials: FusedCredentials | None = None, **keywords: Unpack[TaskKeywords]) -> Invalidation:
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
        whole_udf: Invalidate everything. Say it where the selection comes from data.
        zooms: `"10-14"`, `[10, 12]`, `12`. Needed with `bounds` and `geometry`; with a list it adds parents and children.
        buffer: Tiles to add on every side.
        max_tiles: The most tiles that a computed selection may come to.
        when_too_many: Beyond that: `"fail"`, `"whole-udf"` or `"coarser"`.
        max_zoom: The highest zoom that the selection may hold.
        shard: `(i, n)`: only the `i`-th of `n` equal parts of the selection, from 0. Map over these to share one purge
            among workers, and merge with `fused_cache_ops.InvalidationResult.merge`.
        checkpoint: Where to keep a record of what is done, a path or a URL that fsspec knows (with the core's extra
            `fsspec`), so that a retry sends only the rest. Name one place for each load.
        verify_tiles: Afterwards, ask for so many of the tiles through a shared token, and tell in the result which of them
            were computed anew.
        shared_token: For `verify_tiles`, where `udf` is none itself.
        timeout: Seconds that one request may take.
        deadline: Seconds that one try may take, the core's own retries included.
        max_concurrency: Requests in flight at once where tiles go one by one.
        max_requests_per_second: The most requests a second; without it as many as the service takes.

    Returns:
        What was done: `udf_id`, `client_id`, `tiles_invalidated` (None: the whole UDF), `objects_deleted` (None: the
        service does not say), `requests_sent`, `retries`, `elapsed_seconds`, `tiles_already_done`, `verification`,
        `zooms_left_stale`, `note`.

    Raises:
        fused_cache_ops.FusedCacheError: It failed. Only what may pass is retried.
    """
    from prefect_fused.invalidation import Invalidation

    if unknown := keywords.keys() - TASK_DEFAULTS.keys():
        raise TypeError(f"There is no keyword {', '.join(sorted(unknown))}: there are {', '.join(TASK_DEFAULTS)}.")
    return Invalidation(udf, credentials, *split(keywords))


def _declared(function: Callable[P, R]) -> Callable[P, R]:
    """Give a function of the pair its documentation, and a signature that spells the declared keywords out: Prefect binds
    parameters by it, and editors show it."""
    described: Any = function
    own = inspect.signature(function)
    types = {**SelectionKeywords.__annotations__, **TaskKeywords.__annotations__}
    declared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[name].__forward_arg__)
        for name, default in TASK_DEFAULTS.items()
    ]
    named = [parameter for parameter in own.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    described.__signature__ = own.replace(parameters=[*named, *declared])
    described.__doc__ = _invalidation.__doc__
    return function


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
@_declared
def invalidate_cache(udf: str, credentials: FusedCredentials | None = None, **keywords: Unpack[TaskKeywords]) -> dict[str, Any]:
    return _invalidation(udf, credentials, **keywords).send()


@_as_task
@_declared
async def ainvalidate_cache(
    udf: str, credentials: FusedCredentials | None = None, **keywords: Unpack[TaskKeywords]
) -> dict[str, Any]:
    return await _invalidation(udf, credentials, **keywords).asend()
