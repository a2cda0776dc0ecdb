"""The tasks: call one in a flow right after the load."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from prefect import unmapped
from prefect.cache_policies import NO_CACHE
from prefect.tasks import Task
from typing_extensions import ParamSpec

from fused_cache_ops import FusedCacheError, InvalidInputError
from fused_cache_ops.integration import (
    NOT_GIVEN,
    STATED,
    defaults_of,
    help_of,
    merged_refresh,
    parse_udf,
    refuse_unknown,
    types_of,
)
from prefect_fused.keywords import (
    DATASET_TASK_DEFAULTS,
    DBT_TASK_DEFAULTS,
    GROUPS,
    REFRESH_TASK_DEFAULTS,
    TASK_DEFAULTS,
    DatasetAgainKeywords,
    DatasetTaskKeywords,
    RefreshTaskKeywords,
    TaskKeywords,
    split,
)

if TYPE_CHECKING:
    from datetime import datetime

    from prefect.client.schemas.objects import State, TaskRun
    from typing_extensions import Unpack

    from fused_cache_ops.integration import DbtPath, MapLocation
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
    more = {name: parameters[name] for name in ("zooms", "shard") if parameters.get(name) not in (None, NOT_GIVEN)}
    if parameters.get("buffer"):
        more["buffer"] = parameters["buffer"]
    if isinstance(tiles, (list, tuple, set, frozenset)):
        return plan_invalidation("udf", tiles=tiles, **more).tile_count if more else len(tiles)
    return plan_invalidation("udf", bounds=bounds, **more).tile_count if isinstance(bounds, (list, tuple)) else None


def _invalidation(udf: str, credentials: FusedCredentials | None = None, **keywords: Unpack[TaskKeywords]) -> Invalidation:
    """Invalidate the cached results of a Fused UDF: all of them, or those of the tiles that a load changed.

    One run sends any number of tiles, up to 50,000 per request. To `.map` over UDFs, wrap blocks and lists in `unmapped`,
    because Prefect would map over them too. The mappings `refresh`, `h3_index`, `announce` and `limits` are never mapped over.

    Omit every selection for the whole UDF. An empty selection invalidates nothing. None is an error, so that a load that forgot
    its `return` cannot invalidate everything.

    Args:
        udf: An id, `name`, `canvas/name`, `team/name`, `user@host/name` or a shared token.
        credentials: The block with the token. Default: `FUSED_SERVICE_ACCOUNT_TOKEN` from the environment.

    Returns:
        What was done: `udf_id`, `client_id`, `tiles_invalidated` (None for the whole UDF), `objects_deleted` (None if the
        service does not report it), `requests_sent`, `retries`, `elapsed_seconds`, `tiles_already_done`, `verification`,
        `zooms_left_stale`, `note`, `client_ids`, `related` (the result of each related UDF by its id), `second_pass`,
        `warnings`, `refresh`, `inner_caches`, `loaded_at`, `seconds_until_invalidated`, `seconds_until_fresh`,
        `announcement`.

    Raises:
        fused_cache_ops.FusedCacheError: The invalidation failed. Prefect retries only transient errors.
    """
    from prefect_fused.invalidation import Invalidation

    refuse_unknown(keywords, TASK_DEFAULTS)
    return Invalidation(udf, credentials, *split(keywords))


def _declared(declaration: Any, documented: Callable[..., Any] | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Give a task function a signature that spells out the declared keywords, and a docstring that describes them. Prefect
    binds parameters by it, and editors show it."""

    def declare(function: Callable[P, R]) -> Callable[P, R]:
        described: Any = function
        own = inspect.signature(function)
        types = types_of(declaration)
        declared = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=NOT_GIVEN if name in STATED else default, annotation=types[name]
            )
            for name, default in defaults_of(declaration).items()
        ]
        named = [parameter for parameter in own.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
        described.__signature__ = own.replace(parameters=[*named, *declared])
        text = (documented or function).__doc__ or ""
        lines = [f"        {name}: {said}\n" for name, said in help_of(declaration).items()]
        described.__doc__ = text.replace("\n\n    Returns:", "\n" + "".join(lines) + "\n    Returns:", 1)
        return function

    return declare


class FusedTask(Task[P, R]):
    """A task whose groups of options `.map` hands over whole. Prefect would map over their keys."""

    def map(self, *args: Any, **kwargs: Any) -> Any:
        """Like Prefect's own, with the mappings `refresh`, `h3_index`, `announce` and `limits` as `unmapped`.

        Raises:
            fused_cache_ops.InvalidInputError: Another argument is a mapping, of which Prefect would pass the keys alone.
        """
        for name in GROUPS:
            if isinstance(kwargs.get(name), Mapping):
                kwargs[name] = unmapped(kwargs[name])
        for given in (*args, *kwargs.values()):
            if isinstance(given, Mapping):
                raise InvalidInputError(
                    "Prefect would map over the keys of a dict, and drop its values: pass lists, such as list(changed) for the "
                    "UDFs and tiles=list(changed.values()), or wrap a value for all runs in unmapped(…)."
                )
        return super().map(*args, **kwargs)

    def with_options(self, **options: Any) -> Any:
        """Like Prefect's own, which would return a plain task."""
        changed = super().with_options(**options)
        changed.__class__ = type(self)
        return changed


def _task(**options: Any) -> Callable[[Callable[P, R]], FusedTask[P, R]]:
    return lambda function: FusedTask(function, **options)


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
_as_task = _task(
    name="Invalidate Fused cache",
    description="Invalidate the cached results of a Fused UDF: all of them, or those of some tiles.",
    task_run_name=_run_name,
    **_as_usual,
)


@_as_task
@_declared(TaskKeywords, _invalidation)
def invalidate_cache(udf: str, credentials: FusedCredentials | None = None, **keywords: Unpack[TaskKeywords]) -> dict[str, Any]:
    return _invalidation(udf, credentials, **keywords).send()


@_as_task
@_declared(TaskKeywords, _invalidation)
async def ainvalidate_cache(
    udf: str, credentials: FusedCredentials | None = None, **keywords: Unpack[TaskKeywords]
) -> dict[str, Any]:
    return await _invalidation(udf, credentials, **keywords).asend()


@_task(
    name="Invalidate Fused caches of a dataset",
    description="Invalidate the cached results of every Fused UDF that shows a dataset.",
    task_run_name="invalidate-dataset",
    **_as_usual,
)
@_declared(DatasetAgainKeywords)
def invalidate_dataset(
    dataset: str,
    credentials: FusedCredentials | None = None,
    *,
    cache_map: MapLocation = "fused-cache.toml",
    **keywords: Unpack[DatasetAgainKeywords],
) -> dict[str, Any]:
    """Invalidate every UDF that shows a dataset, as a cache map says.

    What changed is read and covered once. One UDF that fails does not keep the others from being invalidated. A retry makes
    all of them again, unless there is a `checkpoint` folder. The keywords hold for all UDFs. What the map says for a UDF cannot
    be said here too. With `again_after`, the task waits, unless `again_deployment` names what does instead.

    Args:
        dataset: The dataset's key in the map, such as a Prefect asset's key.
        credentials: The block with the token. Default: `FUSED_SERVICE_ACCOUNT_TOKEN` from the environment.
        cache_map: The map, or the path of its file. A relative path is looked for beside the flow's file, and then in the
            working folder.

    Returns:
        What was done: `dataset`, `results` (the result of each UDF), `failed`, `elapsed_seconds`, `note`.

    Raises:
        fused_cache_ops.DatasetInvalidationError: A UDF failed. Prefect retries only transient errors.
        fused_cache_ops.FusedCacheError: Nothing was sent.
    """
    from prefect_fused.invalidation import DatasetInvalidation

    refuse_unknown(keywords, DATASET_TASK_DEFAULTS)
    return DatasetInvalidation(dataset, cache_map, credentials, *split(keywords)).send()


@_task(
    name="Invalidate Fused caches after dbt",
    description="Invalidate the cached results of every Fused UDF that shows what a dbt build changed.",
    task_run_name="invalidate-dbt",
    **_as_usual,
)
@_declared(DatasetTaskKeywords)
def invalidate_dbt(
    path: DbtPath,
    credentials: FusedCredentials | None = None,
    *,
    cache_map: MapLocation | None = None,
    newer_than: str | datetime | None = None,
    repeat: bool = False,
    **keywords: Unpack[DatasetTaskKeywords],
) -> dict[str, Any]:
    """Invalidate every UDF that shows what a dbt build changed.

    Call it after each build, also after one that failed: what succeeded in that one is in no later file. With `again_after`,
    the task waits.

    Args:
        path: The folder that dbt writes to, such as `target/`, the project's folder, or a list of these.
        credentials: The block with the token. Default: `FUSED_SERVICE_ACCOUNT_TOKEN` from the environment.
        cache_map: The map, or the path of its file, looked for as by `invalidate_dataset`. Default: `fused-cache.toml`, if
            there is one. UDFs that exposures name by `meta.fused` are invalidated too.
        newer_than: A time, or its text in ISO 8601. Older results are an error.
        repeat: Whether to do again what was done for a build before.

    Returns:
        What was done: `results` (the result of each UDF), `failed`, `changed`, `not_built`, `not_shown`, `invocations`,
        `warnings`, `elapsed_seconds`, `note`.

    Raises:
        fused_cache_ops.DatasetInvalidationError: A UDF failed. Prefect retries only transient errors.
        fused_cache_ops.DbtNodesFailedError: dbt did not build everything. The maps of what it did build are invalidated.
        fused_cache_ops.FusedCacheError: Nothing was sent.
    """
    from prefect_fused.invalidation import DbtInvalidation

    refuse_unknown(keywords, DBT_TASK_DEFAULTS)
    about = {"newer_than": newer_than, "repeat": repeat}
    return DbtInvalidation(path, cache_map, about, credentials, *split(keywords)).send()


@_task(
    name="Refresh Fused cache",
    description="Run a Fused UDF for some tiles, so that visitors find them cached.",
    task_run_name="refresh",
    **_as_usual,
)
@_declared(RefreshTaskKeywords)
def refresh_cache(
    udf: str, credentials: FusedCredentials | None = None, **keywords: Unpack[RefreshTaskKeywords]
) -> dict[str, Any]:
    """Run a Fused UDF for some tiles, so that visitors find them cached. Nothing is invalidated.

    Call it after `invalidate_cache`, with the same selection, so that the invalidation does not wait for it. What is cached
    already costs no run, so a retry continues. Without a selection, the UDF is run once, without a tile.

    Args:
        udf: An id, a name or a shared token, as for `invalidate_cache`.
        credentials: The block with the token. Default: `FUSED_SERVICE_ACCOUNT_TOKEN` from the environment.

    Returns:
        What was done: `runs`, `already_cached`, `failed`, `not_requested`, `already_done`, `seconds_median`, `seconds_p95`,
        `bytes`, `elapsed_seconds`, `retryable`, `note`.

    Raises:
        fused_cache_ops.RefreshError: Something could not be refreshed. Prefect retries if that may help.
        fused_cache_ops.FusedCacheError: Nothing was requested.
    """
    from prefect_fused.invalidation import RefreshCall

    refuse_unknown(keywords, REFRESH_TASK_DEFAULTS)
    given, limits = split(keywords)
    refresh = merged_refresh({"must_succeed": True}, given.get("refresh", "all"))
    return RefreshCall(udf, credentials, {**given, "refresh": refresh}, limits).send()
