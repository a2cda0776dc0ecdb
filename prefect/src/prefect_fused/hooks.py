"""Hooks: invalidate when a flow or task that loads data completes, or when its transaction commits."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Literal, Union

from prefect.transactions import BaseTransaction, CommitMode, get_transaction
from prefect.utilities.asyncutils import run_coro_as_sync
from typing_extensions import Unpack

from fused_cache_ops import InvalidInputError
from fused_cache_ops.integration import KINDS, parse_udf, refuse_unknown, refuse_what_takes_long
from prefect_fused.credentials import FusedCredentials
from prefect_fused.events import is_known_fresh
from prefect_fused.invalidation import Invalidation, resource_id
from prefect_fused.keywords import TASK_DEFAULTS, TaskKeywords, split
from prefect_fused.logs import logs_of
from prefect_fused.run import Run

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    Kind = Literal["tiles", "bounds", "geometry", "tiles_file", "cells", "hex_dataset"]

logger = logging.getLogger(__name__)

Credentials = Union[FusedCredentials, str, None]
"""A block, the name of one, or None for the environment."""


def invalidate_on_completion(
    udf: str,
    credentials: FusedCredentials | str | None = None,
    *,
    from_result: Kind | None = None,
    **keywords: Unpack[TaskKeywords],
) -> Callable[..., None]:
    """A hook for `on_completion` of a flow or task that loads data. It invalidates a UDF's cache.

    A load whose result came from Prefect's cache changed nothing, so nothing is invalidated, unless the last invalidation is
    known to have failed, or none is known. A load in a transaction is followed by the invalidation once the transaction
    commits. A run stays Completed even if a hook fails. A failing hook writes an error to the run's log and emits the event
    `fused.cache.invalidation-failed`. If the run should fail with the invalidation, call the task instead. The hook is
    synchronous: an async flow takes `ainvalidate_on_completion`.

    Args:
        udf: As for `invalidate_cache`.
        credentials: A block, or the name of one, such as `"production"`, which is loaded when the hook runs, so that importing
            the flow's module needs no server. Default: the environment.
        from_result: Take this selection, such as `"tiles"`, from the return value of the flow or task.
        keywords: The other keywords of `invalidate_cache`.

    Raises:
        fused_cache_ops.InvalidInputError: The UDF cannot be read, or there is more than one selection. This is raised
            immediately, because a failing hook is easily overlooked.
        TypeError: A keyword is unknown. This too is raised immediately.
    """
    hook = _OnCompletion(udf, credentials, from_result, keywords)

    def invalidate_fused_cache(subject: Any, run: Any, state: State[Any]) -> None:
        with hook.in_log_of(run):
            if (sending := hook.prepare(subject, run, state)) is not None:
                sending.send()

    return invalidate_fused_cache


def ainvalidate_on_completion(
    udf: str,
    credentials: FusedCredentials | str | None = None,
    *,
    from_result: Kind | None = None,
    **keywords: Unpack[TaskKeywords],
) -> Callable[..., Coroutine[Any, Any, None]]:
    """Like `invalidate_on_completion`, for an async flow or task: the event loop goes on while the hook sends.

    Args:
        udf: As for `invalidate_on_completion`, like the others.
        credentials: As there.
        from_result: As there.
        keywords: As there.

    Raises:
        fused_cache_ops.InvalidInputError: As there.
        TypeError: As there.
    """
    hook = _OnCompletion(udf, credentials, from_result, keywords)

    async def ainvalidate_fused_cache(subject: Any, run: Any, state: State[Any]) -> None:
        with hook.in_log_of(run):
            if (sending := await asyncio.to_thread(hook.prepare, subject, run, state)) is not None:
                await sending.asend()

    return ainvalidate_fused_cache


class _OnCompletion:
    """What a hook on completion sends, and when."""

    def __init__(self, udf: str, credentials: Credentials, from_result: Kind | None, keywords: TaskKeywords) -> None:
        _check(udf, credentials, from_result, "from_result", keywords)
        self._udf = udf
        self._credentials = credentials
        self._from_result = from_result
        self._keywords = keywords

    @contextlib.contextmanager
    def in_log_of(self, run: Any) -> Iterator[None]:
        """Log to the run, also what fails."""
        with logs_of(_run_of(run)):
            try:
                yield
            except Exception as error:
                logger.error("%s", _stale(self._udf, error))
                raise

    def prepare(self, subject: Any, run: Any, state: State[Any]) -> Invalidation | None:
        """The invalidation, or None if there is nothing to send now."""
        if not state.is_completed():
            logger.warning("Fused cache of %s: not invalidated, because the run is %s.", _shown(self._udf), state.name)
            return None
        if state.name == "Cached" and is_known_fresh(resource_id(_shown(self._udf))):
            logger.info("Fused cache of %s: not invalidated, because the load's result was cached.", _shown(self._udf))
            return None
        found: Any = dict(self._keywords)
        if self._from_result:
            found[self._from_result] = _returned(subject, state)
        of = _run_of(run)
        if (open_one := _open_transaction()) is not None:
            logger.info("Fused cache of %s: invalidated once the load's transaction commits.", _shown(self._udf))
            open_one.on_commit_hooks.append(lambda _: _send_or_log(self._udf, self._credentials, found, of))
            return None
        return _invalidation(self._udf, self._credentials, found, of)


def _run_of(run: Any) -> Run:
    is_task = hasattr(run, "task_key")  # only a task run has a flow run that it is part of
    return Run(run.flow_run_id, run.id) if is_task else Run(run.id, is_over=True, attempt=run.run_count)


def _returned(subject: Any, state: State[Any]) -> Any:
    """What a flow or task returned. A flow that returns a future or a state has the state of it as its result."""
    if inspect.isgeneratorfunction(subject.fn) or inspect.isasyncgenfunction(subject.fn):
        raise InvalidInputError(
            f"{subject.name} is a generator, of which Prefect keeps no result: return a list, or pass what it yields to the "
            "task invalidate_cache."
        )
    return _resolved(run_coro_as_sync(state.aresult()))


def _resolved(value: Any) -> Any:
    from prefect.client.schemas.objects import State

    if isinstance(value, State):
        return _resolved(run_coro_as_sync(value.aresult()))
    if isinstance(value, (list, tuple)) and any(isinstance(each, State) for each in value):
        return [_resolved(each) for each in value]
    return value


def _open_transaction() -> BaseTransaction | None:
    """The transaction that decides whether a load that has just ended is kept, if there is one."""
    found = get_transaction()
    if found is None or found.commit_mode is CommitMode.EAGER or found.is_committed() or found.is_rolled_back():
        return None
    return found


def invalidate_on_commit(
    udf: str,
    credentials: FusedCredentials | str | None = None,
    *,
    from_transaction: Kind | None = None,
    **keywords: Unpack[TaskKeywords],
) -> Callable[[BaseTransaction], None]:
    """A hook for `on_commit` of a task that loads data, or of a transaction's `stage`. It invalidates a UDF's cache.

    A transaction that is rolled back, or whose record already exists, invalidates nothing. Transient errors are retried
    until the deadline. A failure is written to the run's log and emitted as `fused.cache.invalidation-failed`. It is never
    raised, because that would roll back a successful load. Prefect runs the hook of an async transaction in a thread.

    Args:
        udf: As for `invalidate_cache`.
        credentials: As for `invalidate_on_completion`.
        from_transaction: Take this selection, such as `"tiles"`, from the value stored in the transaction under that name:
            `transaction.set("tiles", …)`.
        keywords: The other keywords of `invalidate_cache`.

    Raises:
        fused_cache_ops.InvalidInputError: The UDF cannot be read, or there is more than one selection. This is raised
            immediately.
        TypeError: A keyword is unknown. This too is raised immediately.
    """
    _check(udf, credentials, from_transaction, "from_transaction", keywords)

    def invalidate_fused_cache(transaction: BaseTransaction) -> None:
        run = Run.current()
        with logs_of(run):
            try:
                found: Any = dict(keywords)
                if from_transaction:
                    found[from_transaction] = transaction.get(from_transaction)
            except Exception as error:
                logger.error("%s", _stale(udf, error))
                return
        _send_or_log(udf, credentials, found, run)

    return invalidate_fused_cache


def _invalidation(udf: str, credentials: Credentials, keywords: dict[str, Any], run: Run) -> Invalidation:
    given: Any = keywords
    block: Any = run_coro_as_sync(FusedCredentials.aload(credentials)) if isinstance(credentials, str) else credentials
    return Invalidation(udf, block, *split(given), run)


def _send_or_log(udf: str, credentials: Credentials, keywords: dict[str, Any], run: Run) -> None:
    """Send it at a commit, where an error would roll back a successful load."""
    with logs_of(run):
        try:
            _invalidation(udf, credentials, keywords, run).send()
        except Exception as error:
            logger.error("%s", _stale(udf, error))


def _check(udf: str, credentials: Credentials, source: str | None, name: str, keywords: TaskKeywords) -> None:
    parse_udf(udf)
    if isinstance(credentials, str) and not credentials.strip():
        raise InvalidInputError("credentials is an empty name: pass the name of a FusedCredentials block, or omit it.")
    refuse_unknown(keywords, TASK_DEFAULTS)
    refuse_what_takes_long(keywords, "a hook", "the tasks invalidate_cache and refresh_cache in a flow")
    if keywords.get("again_deployment"):
        raise InvalidInputError("again_deployment is for the second pass of again_after, which a hook does not make: omit it.")
    if source is not None and source not in KINDS:
        raise InvalidInputError(f"{name}={source!r} is not a kind of selection: use one of {', '.join(KINDS)}.")
    given = [kind for kind in KINDS if kind in keywords] + ([f"{name}={source!r}"] if source else [])
    if len(given) > 1:
        raise InvalidInputError(f"There is more than one selection: {' and '.join(given)}. Use only one.")


def _shown(udf: str) -> str:
    return parse_udf(udf).shown.strip("'")


def _stale(udf: str, error: Exception) -> str:
    return f"Fused cache of {_shown(udf)}: the load succeeded, but the results stay stale until invalidated: {error}"
