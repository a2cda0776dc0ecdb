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
from fused_cache_ops.integration import RefreshKeywords, SelectionKeywords, parse_udf
from prefect_fused.keywords import (
    DATASET_TASK_DEFAULTS,
    REFRESH_TASK_DEFAULTS,
    TASK_DEFAULTS,
    DatasetTaskKeywords,
    RefreshTaskKeywords,
    TaskKeywords,
    split,
)

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task
    from typing_extensions import Unpack

    from fused_cache_ops.integration import MapLocation
    from prefect_fused.credentials import FusedCredentials
    from prefect_fused.invalidation import Invalidation

P = ParamSpec("P")
R = TypeVar("R")


async def _is_transient(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether to retry: not after an invalid token, an unknown UDF or an unreadable selection."""
    failure = await state.aresult(raise_on_failure=False)
    return bool(getattr(failure, "retryable", False))


def _run_name() -> str:
    """The UDF and the number of tiles. A shared token grants access, so it is masked."""
    from prefect.runtime import task_run

    return run_name(task_run.get_parameters())


def run_name(parameters: dict[str, Any]) -> str:
    """A run's name from its parameters. The tiles of a geometry or a file are not counted, because that may take long."""
    try:
        shown = parse_udf(parameters["udf"]).shown.strip("'")
    except (FusedCacheError, KeyError):
        shown = "unreadable-udf"
    count = None
    with contextlib.suppress(FusedCacheError):  # the call itself raises it
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
    """Invalidate the cached results of a Fused UDF: all of them, or those of the tiles that a load changed.

    One run sends any number of tiles, up to 50,000 per request. To `.map` over UDFs, wrap the other arguments in
    `unmapped`, because Prefect would map over blocks and lists too.

    Args:
        udf: An id, `name`, `canvas/name`, `team/name`, `user@host/name` or a shared token.
        credentials: The block with the token. Default: `FUSED_SERVICE_ACCOUNT_TOKEN` from the environment.
        tiles: The tiles to invalidate, as `"z/x/y"`, `(z, x, y)` or `{"z": …, "x": …, "y": …}`. Omit every selection for
            the whole UDF. An empty selection invalidates nothing. None is an error, so that a load that forgot its
            `return` cannot invalidate everything.
        bounds: Instead of `tiles`: `(west, south, east, north)` in degrees, or several such boxes.
        geometry: Instead of `tiles`: GeoJSON, WKT, a shapely geometry, a GeoDataFrame, anything that hands out Arrow data
            (pyarrow, DuckDB, Polars, deltalake), or the path or URL of a vector or Parquet file.
        tiles_file: Instead of `tiles`: the path of a list of tiles, one per line.
        cells: Instead of `tiles`: H3 cells as text or numbers, or the path of a file with one cell per line.
        hex_dataset: Instead of `tiles`: the path or URL of an H3 dataset that Fused wrote.
        whole_udf: Invalidate everything. Pass it if the selection comes from data.
        zooms: `"10-14"`, `[10, 12]`, `12`. Required with `bounds`, `geometry`, `cells` and `hex_dataset`. With a list of
            tiles, adds their parents and children.
        buffer: Tiles to add on every side.
        max_tiles: The most tiles that a computed selection may have.
        when_too_many: What to do when there are more: `"fail"`, `"whole-udf"` or `"coarser"`.
        max_zoom: The highest zoom that the selection may contain.
        shard: `(i, n)` for only the `i`-th of `n` equal parts of the selection, counted from 0. Map over these to share one
            invalidation among workers, and merge with `fused_cache_ops.InvalidationResult.merge`.
        geometry_column: The column of a table that holds the geometries, if none is marked as such or several are.
        crs: The coordinate reference system of a geometry that does not name one, such as `"EPSG:25832"`.
        render_resolution: The resolution of the H3 cells that the map draws: a number, a mapping from zooms to numbers, or
            `"fused"` for the rule of Fused's examples. Default: the changed cells themselves.
        partition: The folders of the H3 dataset that were rewritten, such as `"date=2026-11-22"`. Default: all.
        checkpoint: Where to record what is done, so that a retry sends only the rest: a path, or with the core's extra
            `fsspec` a URL that it supports. Use one location per load.
        verify_tiles: Afterwards, request this many of the tiles through a shared token. The result says which of them
            were computed anew.
        shared_token: The shared token for `verify_tiles` and `refresh`, if `udf` is not one itself.
        related: Also invalidate UDFs of the same canvas: `"callers"`, which call this one and keep results of their own,
            `"callees"`, which it calls, or `"both"`.
        max_related: The most UDFs that `related` may add.
        again_after: Send everything a second time after this many seconds, for runs that began before the load was
            committed. A run may take 120 seconds, so 130 is a good value. Without `again_deployment` the task waits.
        refresh: Afterwards, run the UDF again for this many of the tiles, or for `"all"`, so that visitors find them cached.
            Each run costs credits. What could not be refreshed is in the result, and is no failure.
        refresh_zooms: The zooms to refresh. On its own, all tiles of these zooms.
        refresh_concurrency: How many runs at the same time.
        max_refresh: The most tiles to refresh. More are an error before anything is sent.
        refresh_parameters: The UDF's parameters as the map sends them.
        refresh_deadline: Seconds that the refresh may take.
        fail_on_refresh_error: Fail if something could not be refreshed.
        again_deployment: The deployment of `invalidate_cache_flow` that makes the second pass, as `flow/deployment`, so that
            no worker waits. The task is then Completed after the first pass, and its result has `second_pass: "scheduled"`.
            It needs a saved block, or a token in the environment of the deployment's worker.
        timeout: Seconds that one request may take.
        deadline: Seconds that one attempt may take, the core's own retries included.
        max_concurrency: Requests in flight at once when tiles are sent one by one.
        max_requests_per_second: The most requests per second. Default: as many as the service accepts.

    Returns:
        What was done: `udf_id`, `client_id`, `tiles_invalidated` (None for the whole UDF), `objects_deleted` (None if the
        service does not report it), `requests_sent`, `retries`, `elapsed_seconds`, `tiles_already_done`, `verification`,
        `zooms_left_stale`, `note`, `client_ids`, `related` (the result of each related UDF by its id), `second_pass`,
        `warnings`, `refresh`.

    Raises:
        fused_cache_ops.FusedCacheError: The invalidation failed. Prefect retries only transient errors.
    """
    from prefect_fused.invalidation import Invalidation

    if unknown := keywords.keys() - TASK_DEFAULTS.keys():
        raise TypeError(f"Unknown keyword {', '.join(sorted(unknown))}: the keywords are {', '.join(TASK_DEFAULTS)}.")
    return Invalidation(udf, credentials, *split(keywords))


def _declared(
    defaults: dict[str, Any], documented: Callable[..., Any] | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Give a task function a signature that spells out the declared keywords, and a docstring. Prefect binds parameters by
    it, and editors show it."""

    def declare(function: Callable[P, R]) -> Callable[P, R]:
        described: Any = function
        own = inspect.signature(function)
        types = {**SelectionKeywords.__annotations__, **RefreshKeywords.__annotations__, **TaskKeywords.__annotations__}
        declared = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[name].__forward_arg__)
            for name, default in defaults.items()
        ]
        named = [parameter for parameter in own.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
        described.__signature__ = own.replace(parameters=[*named, *declared])
        described.__doc__ = (documented or function).__doc__
        return function

    return declare


# Never cached: with a cached result, a second invalidation would do nothing. No timeout_seconds: it cannot interrupt a
# thread. The core's timeouts and deadline end every call.
_as_usual: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "persist_result": False,
    "retries": 2,
    "retry_delay_seconds": [10, 60],
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": _is_transient,
}
_as_task = task(
    name="Invalidate Fused cache",
    description="Invalidate the cached results of a Fused UDF: all of them, or those of some tiles.",
    task_run_name=_run_name,
    **_as_usual,
)


@_as_task
@_declared(TASK_DEFAULTS, _invalidation)
def invalidate_cache(udf: str, credentials: FusedCredentials | None = None, **keywords: Unpack[TaskKeywords]) -> dict[str, Any]:
    return _invalidation(udf, credentials, **keywords).send()


@_as_task
@_declared(TASK_DEFAULTS, _invalidation)
async def ainvalidate_cache(
    udf: str, credentials: FusedCredentials | None = None, **keywords: Unpack[TaskKeywords]
) -> dict[str, Any]:
    return await _invalidation(udf, credentials, **keywords).asend()


@task(
    name="Invalidate Fused caches of a dataset",
    description="Invalidate the cached results of every Fused UDF that shows a dataset.",
    task_run_name="invalidate-dataset",
    **_as_usual,
)
@_declared(DATASET_TASK_DEFAULTS)
def invalidate_dataset(
    dataset: str,
    credentials: FusedCredentials | None = None,
    *,
    cache_map: MapLocation = "fused-cache.toml",
    **keywords: Unpack[DatasetTaskKeywords],
) -> dict[str, Any]:
    """Invalidate every UDF that shows a dataset, as a cache map says.

    What changed is read and covered once. One UDF that fails does not keep the others from being invalidated. A retry makes
    all of them again, unless there is a `checkpoint` folder.

    Args:
        dataset: The dataset's key in the map, such as a Prefect asset's key.
        credentials: The block with the token. Default: `FUSED_SERVICE_ACCOUNT_TOKEN` from the environment.
        cache_map: The map, or the path of its file. A relative path is looked for beside the flow's file, and then in the
            working folder.
        keywords: What changed, and the keywords for sending, as for `invalidate_cache`, for all UDFs. What the map says for a
            UDF cannot be said here too. With `again_after`, the task waits.

    Returns:
        What was done: `dataset`, `results` (the result of each UDF), `failed`, `elapsed_seconds`, `note`.

    Raises:
        fused_cache_ops.DatasetInvalidationError: A UDF failed. Prefect retries only transient errors.
        fused_cache_ops.FusedCacheError: Nothing was sent.
    """
    from prefect_fused.invalidation import DatasetInvalidation

    if unknown := keywords.keys() - DATASET_TASK_DEFAULTS.keys():
        raise TypeError(f"Unknown keyword {', '.join(sorted(unknown))}: the keywords are {', '.join(DATASET_TASK_DEFAULTS)}.")
    return DatasetInvalidation(dataset, cache_map, credentials, *split(keywords)).send()


@task(
    name="Refresh Fused cache",
    description="Run a Fused UDF for some tiles, so that visitors find them cached.",
    task_run_name="refresh",
    **_as_usual,
)
@_declared(REFRESH_TASK_DEFAULTS)
def refresh_cache(
    udf: str, credentials: FusedCredentials | None = None, **keywords: Unpack[RefreshTaskKeywords]
) -> dict[str, Any]:
    """Run a Fused UDF for some tiles, so that visitors find them cached. Nothing is invalidated.

    Call it after `invalidate_cache`, with the same selection, so that the invalidation does not wait for it. What is cached
    already costs no run, so a retry continues.

    Args:
        udf: An id, a name or a shared token, as for `invalidate_cache`.
        credentials: The block with the token. Default: `FUSED_SERVICE_ACCOUNT_TOKEN` from the environment.
        keywords: The selection and the keywords of a refresh, as for `invalidate_cache`, `shared_token`, and the limits of a
            call. Without `refresh`, all tiles of the selection. Without a selection, the UDF is run once, without a tile.

    Returns:
        What was done: `runs`, `already_cached`, `failed`, `not_requested`, `already_done`, `seconds_median`, `seconds_p95`,
        `bytes`, `elapsed_seconds`, `retryable`, `note`.

    Raises:
        fused_cache_ops.RefreshError: Something could not be refreshed. Prefect retries if that may help.
        fused_cache_ops.FusedCacheError: Nothing was requested.
    """
    from prefect_fused.invalidation import Refreshing

    if unknown := keywords.keys() - REFRESH_TASK_DEFAULTS.keys():
        raise TypeError(f"Unknown keyword {', '.join(sorted(unknown))}: the keywords are {', '.join(REFRESH_TASK_DEFAULTS)}.")
    return Refreshing(udf, credentials, *split(keywords)).send()
