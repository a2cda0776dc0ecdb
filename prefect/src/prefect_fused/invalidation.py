"""One invalidation on behalf of a run, as the tasks, the flow and the hooks use it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import NoneType
from typing import TYPE_CHECKING, Any

import anyio
from prefect.events import emit_event
from pydantic import SecretStr

from fused_cache_ops import (
    CacheMap,
    ConfigurationError,
    DatasetInvalidationError,
    DatasetResult,
    DbtNodesFailedError,
    FollowUpError,
    FusedCacheError,
    InvalidInputError,
    RefreshError,
)
from fused_cache_ops.integration import (
    RunCheckpoint,
    Secret,
    calls_of_dataset,
    find_map,
    is_given,
    parse_udf,
    refuse_single_use,
    sealed_udf,
)
from prefect_fused.credentials import FusedCredentials
from prefect_fused.events import FAILED, INVALIDATED, note_event
from prefect_fused.logs import logs_of
from prefect_fused.reports import Progress, report_dataset, report_refresh, report_result, report_stale_time
from prefect_fused.run import Run, flow_file
from prefect_fused.second_pass import SecondPass
from prefect_fused.words import in_our_words, respelling

if TYPE_CHECKING:
    from fused_cache_ops import DatasetFirstPass, FusedClient, InvalidationPlan, InvalidationResult
    from fused_cache_ops.integration import CallKeywords, DbtPath, Limits, MapLocation, OnProgress

logger = logging.getLogger(__name__)

_WATCH_INTERVAL = 5.0  # seconds between checks of the flow run's state


def resource_id(shown: str) -> str:
    """The resource of a UDF's events, by what the UDF is called. A shared token is masked."""
    return f"fused.udf.{shown}"


class Sending:
    """What calls on behalf of a run have in common: they end when it is cancelled, and can run in a thread of their own.

    Args:
        credentials: The block, or None for the environment.
        limits: The client's settings for this call.
        run: The run that the call is part of. Default: the run that the caller is in, if any.

    Raises:
        fused_cache_ops.ConfigurationError: A setting is missing or invalid.
    """

    def __init__(self, credentials: FusedCredentials | None, limits: Limits, run: Run | None = None) -> None:
        if not isinstance(credentials, (FusedCredentials, NoneType)):
            raise ConfigurationError(
                f"credentials is of type {type(credentials).__name__}: pass a FusedCredentials block, such as "
                "FusedCredentials.load('production'), and pass the tiles as tiles=."
            )
        with respelling():
            self._client = (credentials or FusedCredentials()).get_client(**limits)
        self._run = run or Run.current()
        self._cancelled = False

    def send(self) -> dict[str, Any]:
        """Send it, and return what was done as a dict of JSON types."""
        raise NotImplementedError

    def _failed(self, shown: str, error: FusedCacheError) -> None:
        self._emit(FAILED, shown, None, {"reason": in_our_words(error.message), "retryable": error.retryable})

    def _emit(self, event: str, shown: str, udf_id: str | None, payload: dict[str, Any]) -> None:
        if self._run.exists:
            # Of a failure, the id may be unknown, and an automation pairs events by their resource.
            resource = {"prefect.resource.id": resource_id(shown), "prefect.resource.name": shown}
            udf = [] if udf_id is None else [{"prefect.resource.id": f"fused.udf-id.{udf_id}", "prefect.resource.role": "udf"}]
            note_event(resource_id(shown), event)
            emit_event(event, resource, payload={"udf": shown, **payload}, related=[*self._run.related(), *udf])

    async def asend(self) -> dict[str, Any]:
        """Like `send`, in a thread. If the coroutine is cancelled, as by a timeout, sending stops first."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        with ThreadPoolExecutor(1, thread_name_prefix="prefect-fused") as pool:
            sending = pool.submit(contextvars.copy_context().run, self.send)
            sending.add_done_callback(lambda _: loop.call_soon_threadsafe(done.set))
            try:
                await done.wait()
            except asyncio.CancelledError:
                with anyio.CancelScope(shield=True):  # Prefect's timeouts would cancel every further await too
                    while not done.is_set():
                        self.cancel()  # repeatedly, because the thread may not have begun to send
                        with contextlib.suppress(asyncio.TimeoutError):
                            await asyncio.wait_for(done.wait(), 0.1)
                raise
            return sending.result()

    def cancel(self) -> None:
        """Stop sending. May be called from any thread."""
        self._cancelled = True
        self._client.cancel()

    @contextlib.contextmanager
    def _cancelled_with_the_flow(self) -> Iterator[None]:
        """Stop when the flow run is cancelled.

        The signal that Prefect sends then interrupts only the main thread of the flow's process, not the threads of a task
        runner or the workers of a cluster.
        """
        if self._run.flow_run_id is None or self._run.is_over:
            with respelling():
                yield
            return
        over = threading.Event()
        watch = threading.Thread(
            target=contextvars.copy_context().run, args=(self._watch, over), name="prefect-fused-watch", daemon=True
        )
        watch.start()
        try:
            with respelling():
                yield
        finally:
            over.set()

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(_WATCH_INTERVAL):
            with contextlib.suppress(Exception):  # if the server does not respond, ask again later
                if self._run.is_cancelled() and not over.is_set():
                    self.cancel()


class Invalidation(Sending):
    """One call, which is created and checked in the caller's thread and can be sent from any thread.

    Args:
        udf: The UDF, as the core accepts it.
        credentials: The block, or None for the environment.
        keywords: The core's keywords.
        limits: The client's settings for this call.
        run: The run that the call is part of. Default: the run that the caller is in, if any.

    Raises:
        fused_cache_ops.InvalidInputError: The UDF cannot be read, or the selection can be read only once.
        fused_cache_ops.ConfigurationError: A setting is missing or invalid.
    """

    def __init__(
        self,
        udf: str | Secret,
        credentials: FusedCredentials | None,
        keywords: CallKeywords,
        limits: Limits,
        run: Run | None = None,
    ) -> None:
        deployment = keywords.pop("again_deployment", None)  # type: ignore[typeddict-item]
        refuse_single_use(keywords)
        super().__init__(credentials, limits, run)
        udf = sealed_udf(udf)
        wanted = [name for name in ("verify_tiles", "refresh") if is_given(keywords, name)]
        runs = isinstance(udf, str) and keywords.get("shared_token") is None and _token_of(credentials) is not None
        keywords = _unwrapped(_recorded(keywords, self._run))
        if wanted and runs:
            keywords = {**keywords, "shared_token": _token_of(credentials)}
        self._shown = parse_udf(udf).shown.strip("'")
        self._udf = udf
        self._keywords: Any = keywords
        self._later = (
            None
            if deployment is None
            else SecondPass(deployment, udf, credentials, keywords, limits.get("deadline"), runs=runs)
        )

    def send(self) -> dict[str, Any]:
        """Send the invalidation, and return what was done as a dict of JSON types.

        Raises:
            fused_cache_ops.FusedCacheError: The invalidation failed or was cancelled.
        """
        progress = Progress(self._run, self._shown)
        plans: list[InvalidationPlan] = []
        if self._run.exists:  # otherwise there is nowhere to show the plan
            self._keywords["on_plan"] = plans.append
        with self._client as client, logs_of(self._run), self._cancelled_with_the_flow():
            try:
                result = self._invalidate(client, progress)
            except FollowUpError as error:  # everything is invalidated
                if error.result is not None:
                    self._report(progress, plans, error.result)
                raise
            except FusedCacheError as error:
                if self._cancelled:
                    logger.warning("Fused cache of %s: %s", self._shown, error.message)
                self._failed(self._shown, error)
                raise
            self._report(progress, plans, result)
        return result.to_dict()

    def _report(self, progress: Progress, plans: list[InvalidationPlan], result: InvalidationResult) -> None:
        progress.finish()
        if plans:
            report_result(self._run, self._shown, plans[0], result)
        if result.udf_id is not None:  # otherwise there was nothing to send
            self._emit(INVALIDATED, self._shown, result.udf_id, result.to_dict())
            report_stale_time(self._run, self._shown, resource_id(self._shown), result.to_dict())

    def _invalidate(self, client: FusedClient, progress: Progress) -> InvalidationResult:
        if self._later is None:
            return client.invalidate_cache(self._udf, on_progress=progress.tell, **self._keywords)
        self._later.check()
        first = client.first_pass(self._udf, on_progress=progress.tell, **self._keywords)
        return first.result if first.is_empty else self._later.schedule(first.result)


class RefreshCall(Sending):
    """A refresh of its own.

    Args:
        udf: The UDF, as the core accepts it.
        credentials: The block, or None for the environment.
        keywords: The core's keywords.
        limits: The client's settings for this call.

    Raises:
        fused_cache_ops.InvalidInputError: The UDF cannot be read, or the selection can be read only once.
        fused_cache_ops.ConfigurationError: A setting is missing or invalid.
    """

    def __init__(self, udf: str | Secret, credentials: FusedCredentials | None, keywords: Any, limits: Limits) -> None:
        refuse_single_use(keywords)
        super().__init__(credentials, limits)
        self._udf = sealed_udf(udf)
        self._shown = parse_udf(self._udf).shown.strip("'")
        self._keywords = _unwrapped(keywords)
        if isinstance(self._udf, str) and self._keywords.get("shared_token") is None:
            self._keywords = {**self._keywords, "shared_token": _token_of(credentials)}

    def send(self) -> dict[str, Any]:
        """Refresh, and return what was done as a dict of JSON types.

        Raises:
            fused_cache_ops.FusedCacheError: Something could not be refreshed, or the refresh was cancelled.
        """
        progress = Progress(self._run, self._shown, "refreshed")
        with self._client as client, logs_of(self._run), self._cancelled_with_the_flow():
            try:
                found = client.refresh_cache(self._udf, on_progress=progress.tell, **self._keywords)
            except RefreshError as error:
                report_refresh(self._run, self._shown, error.refresh)
                raise
            progress.finish()
            report_refresh(self._run, self._shown, found)
        return found.to_dict()


def _recorded(keywords: Any, run: Run) -> Any:
    """The keywords with a checkpoint whose record belongs to the run, so that no later load resumes it."""
    if keywords.get("checkpoint") is None or not run.exists:
        return keywords
    return {**keywords, "checkpoint": RunCheckpoint(keywords["checkpoint"], run.step)}


def _token_of(credentials: FusedCredentials | None) -> Secret | None:
    """The shared token of a block."""
    token = None if credentials is None else credentials.shared_token
    return Secret(token.get_secret_value()) if token is not None and token.get_secret_value() else None


def _unwrapped(keywords: Any) -> Any:
    """The keywords with the shared token as the core's secret."""
    token = keywords.get("shared_token")
    return {**keywords, "shared_token": Secret(token.get_secret_value())} if isinstance(token, SecretStr) else keywords


class DatasetInvalidation(Sending):
    """The invalidation of every UDF that shows a dataset.

    Args:
        dataset: The dataset's key in the map.
        cache_map: The map, or the path of its file. A relative path is looked for beside the flow's file first.
        credentials: The block, or None for the environment.
        keywords: The core's keywords.
        limits: The client's settings for this call.

    Raises:
        fused_cache_ops.InvalidInputError: The map cannot be read, or the selection can be read only once.
        fused_cache_ops.ConfigurationError: A setting is missing or invalid.
    """

    def __init__(
        self, dataset: str, cache_map: MapLocation, credentials: FusedCredentials | None, keywords: Any, limits: Limits
    ) -> None:
        deployment = keywords.pop("again_deployment", None)
        refuse_single_use(keywords)
        super().__init__(credentials, limits)
        self._dataset = dataset
        self._shown: str = DatasetResult(dataset, {}).to_dict()["dataset"]  # without what grants access
        self._map = CacheMap.of(cache_map, beside=flow_file())
        self._keywords = _recorded(keywords, self._run)
        self._later: dict[str, SecondPass] | None = None
        if deployment is not None:
            again: Any = calls_of_dataset(self._map, dataset, **keywords)
            self._later = {
                label: SecondPass(deployment, udf, credentials, call, limits.get("deadline"))
                for label, (udf, call) in again.items()
                if call.get("again_after")
            }
            if not self._later:
                raise InvalidInputError(
                    f"again_deployment = {deployment!r} has no second pass to make: neither the call nor {self._map.source} "
                    "says again_after for a UDF of the dataset. Set it, such as 130, or omit again_deployment."
                )

    def send(self) -> dict[str, Any]:
        """Send the invalidations, and return what was done as a dict of JSON types.

        Raises:
            fused_cache_ops.FusedCacheError: One of them failed, or they were cancelled.
        """
        progress = Progress(self._run, self._shown)
        with self._client as client, logs_of(self._run), self._cancelled_with_the_flow():
            try:
                result = self._invalidate(client, progress.tell)
            except FusedCacheError as error:
                if isinstance(error, (DatasetInvalidationError, DbtNodesFailedError)):
                    self._report(error.result)
                else:
                    for udf in self._labels():
                        self._failed(udf, error)
                raise
            progress.finish()
            self._report(result)
        return result.to_dict()

    def _invalidate(self, client: FusedClient, on_progress: OnProgress) -> DatasetResult:
        about: Any = {"cache_map": self._map, "on_progress": on_progress, **self._keywords}
        if self._later is None:
            return client.invalidate_dataset(self._dataset, **about)
        for each in self._later.values():
            each.check()
        try:
            first = client.first_dataset_pass(self._dataset, **about)
        except DatasetInvalidationError as error:  # those that succeeded get their second pass
            if error.first_pass is not None:
                self._scheduled(error.first_pass)
            raise
        return self._scheduled(first)

    def _scheduled(self, first: DatasetFirstPass) -> DatasetResult:
        """The result of a first pass, once a run is scheduled for each UDF that has a second one."""
        results = dict(first.result.results)
        for label in first.fingerprints:
            results[label] = (self._later or {})[label].schedule(results[label])
        return dataclasses.replace(first.result, results=results)

    def _labels(self) -> list[str]:
        """The UDFs that were to be invalidated."""
        return [entry.label for entry in self._map.datasets.get(self._dataset, ())]

    def _report(self, result: DatasetResult) -> None:
        """An artifact for all, and for each UDF the event that a call of its own would emit."""
        report_dataset(self._run, self._shown, result)
        failed = {udf: error for udf, error in result.failed.items() if not isinstance(error, FollowUpError)}
        for udf, each in result.results.items():
            if udf not in failed and each.udf_id is not None:
                self._emit(INVALIDATED, udf, each.udf_id, each.to_dict())
                report_stale_time(self._run, udf, resource_id(udf), each.to_dict())
        for udf, error in failed.items():
            self._failed(udf, error)


class DbtInvalidation(DatasetInvalidation):
    """The invalidation of every UDF that shows what a dbt build changed.

    Args:
        path: The folder that dbt writes to.
        cache_map: The map, or the path of its file. None: the default file, if there is one beside the flow's file.
        about: `newer_than` and `repeat`.
        credentials, keywords, limits: As for `DatasetInvalidation`.

    Raises:
        fused_cache_ops.FusedCacheError: As for `DatasetInvalidation`.
    """

    def __init__(
        self,
        path: DbtPath,
        cache_map: MapLocation | None,
        about: Any,
        credentials: FusedCredentials | None,
        keywords: Any,
        limits: Limits,
    ) -> None:
        found = find_map(cache_map, beside=flow_file())
        super().__init__("dbt", CacheMap.from_dict({}) if found is None else found, credentials, keywords, limits)
        self._path, self._found, self._about = path, found, about

    def _invalidate(self, client: FusedClient, on_progress: OnProgress) -> DatasetResult:
        return client.invalidate_dbt(
            self._path, cache_map=self._found, on_progress=on_progress, **self._about, **self._keywords
        )

    def _labels(self) -> list[str]:
        return []  # which they are is in dbt's files
