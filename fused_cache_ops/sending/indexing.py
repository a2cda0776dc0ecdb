"""Waiting for the index of an H3 table, one look at a time, so that whoever waits need not keep a worker."""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NoReturn

from fused_cache_ops.errors import (
    FusedCacheError,
    InvalidationCancelledError,
    NotFoundError,
    PermanentError,
    UnavailableError,
)
from fused_cache_ops.keywords.h3_index import H3Index, utc_now
from fused_cache_ops.outcome.indexing import DatasetIndexWait, IndexWait
from fused_cache_ops.service.h3 import IndexRun, IndexState, read_index, read_run, start_index
from fused_cache_ops.wording import quoted_address

if TYPE_CHECKING:
    from fused_cache_ops.service.retry import Retrier
    from fused_cache_ops.service.service import Service

logger = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE, _GROWTH = 2.0, 60.0, 1.5  # seconds between two looks


def look_at_index(service: Service, retrier: Retrier, index: H3Index, wait: IndexWait | None = None) -> IndexWait | None:
    """Look once at an index, and start a run if that is asked for and none is going.

    Args:
        service: the deployment.
        retrier: the call.
        index: what the index must have.
        wait: what the last look returned. None: this is the first one.

    Returns:
        None if the index has what was loaded, otherwise when to look again.

    Raises:
        NotFoundError: there is no index, and none is to be made.
        UnavailableError: the index is older than the load and not to be run, its run failed, or the deadline has passed.
        FusedCacheError: a request failed.
    """
    now = utc_now()
    loaded_at = index.loaded_at or (now if wait is None else datetime.fromisoformat(wait.loaded_at))
    until = now + timedelta(seconds=index.deadline) if wait is None else datetime.fromisoformat(wait.until)
    seconds = _FIRST_PAUSE if wait is None else min(wait.seconds * _GROWTH, _LONGEST_PAUSE)
    run_id = None if wait is None else wait.run_id
    if run_id is not None:
        run = _run_of(service, retrier, run_id)
        if run is not None and run.status == "failed":
            _fail(index, f"its run {run_id} failed ({run.error or 'for no reason that it tells'})")
        if run is not None and run.status != "succeeded":
            return _again(index, loaded_at, until, seconds, run_id)
        if run is not None and index.loaded_at is None:  # it began after the load, whatever the clocks say
            return None
    # Without a time, no index is new enough that is not run now.
    state = None if wait is None and index.loaded_at is None else read_index(service, index.path, retrier=retrier)
    if state is not None and state.indexed_as_of is not None and state.indexed_as_of >= loaded_at:
        return None
    if not index.run:
        _refuse(index, loaded_at, state)
    if state is not None and state.is_running:
        return _again(index, loaded_at, until, seconds, None)
    started = start_index(service, index.path, index.prefix, retrier=retrier)
    if started is None:
        return _again(index, loaded_at, until, seconds, None)
    logger.info("Fused cache: run %s of the index of %s has started.", started.id, quoted_address(index.path))
    pause = 0.0 if started.status in ("succeeded", "failed") else seconds
    return _again(index, loaded_at, until, pause, started.id)


def _run_of(service: Service, retrier: Retrier, run_id: str) -> IndexRun | None:
    """A run, or None if the service does not know it, so that only the index can tell."""
    try:
        return read_run(service, run_id, retrier=retrier)
    except NotFoundError:
        return None


def _again(index: H3Index, loaded_at: datetime, until: datetime, seconds: float, run_id: str | None) -> IndexWait:
    left = (until - utc_now()).total_seconds()
    if left <= 0:
        _fail(index, f"it was not done within {index.deadline:g} s. Raise the deadline of h3_index")
    return IndexWait(loaded_at.isoformat(), until.isoformat(), min(seconds, left), run_id)


def _refuse(index: H3Index, loaded_at: datetime, state: IndexState | None) -> NoReturn:
    if state is None or (state.indexed_as_of is None and not state.is_running):
        why = f" ({state.failures})" if state is not None and state.failures else ""
        raise NotFoundError(
            f"The H3 table {quoted_address(index.path)} has no index{why}, so that fused.h3.query cannot read it. Nothing was "
            "invalidated. Make one with fused.h3.index, or pass run=True in h3_index."
        )
    as_of = "nothing yet" if state.indexed_as_of is None else f"what was written until {state.indexed_as_of.isoformat()}"
    going = "A run of it is going." if state.is_running else "No run of it is going: pass run=True in h3_index to start one."
    failed = f" Its last run failed: {state.failures}." if state.failures else ""
    raise UnavailableError(
        f"The index of the H3 table {quoted_address(index.path)} has {as_of}, and the load was done at "
        f"{loaded_at.isoformat()}, so that fused.h3.query would return old rows. Nothing was invalidated. {going}{failed}"
    )


def _fail(index: H3Index, why: str) -> NoReturn:
    raise UnavailableError(f"The index of the H3 table {quoted_address(index.path)}: {why}. Nothing was invalidated.")


def look_at_indexes(
    service: Service, retrier: Retrier, indexes: Iterable[H3Index], waiting: DatasetIndexWait
) -> DatasetIndexWait:
    """Look once at each index that is to be run and is neither done nor has failed.

    Raises:
        InvalidationCancelledError: the call was cancelled.
    """
    waits, done, failed = {}, list(waiting.done), dict(waiting.failed)
    for key, index in {index.key: index for index in indexes if index.run}.items():
        if key in done or key in failed:
            continue
        try:
            wait = look_at_index(service, retrier, index, waiting.waits.get(key))
        except InvalidationCancelledError:
            raise
        except FusedCacheError as error:
            failed[key] = (error.message, error.retryable)
            continue
        if wait is None:
            done.append(key)
        else:
            waits[key] = wait
    return DatasetIndexWait(waits, tuple(done), failed)


class Indexes:
    """The indexes that the UDFs of one call need, each looked at once for all of them.

    Args:
        known: what is known of them already.
    """

    def __init__(self, known: DatasetIndexWait | None = None) -> None:
        self._lock = threading.Lock()
        self._known = known or DatasetIndexWait()
        self._waits: dict[H3Index, IndexWait | None] = {}
        self._due: dict[H3Index, float] = {}
        self._failures: dict[H3Index, FusedCacheError] = {}
        self._locks: dict[H3Index, threading.Lock] = {}

    def look(self, service: Service, retrier: Retrier, index: H3Index) -> float | None:
        """Look at an index, if it is time to. Returns the seconds until the next look, or None if it has what was loaded.

        Raises:
            FusedCacheError: as for `look_at_index`, for each UDF that needs this index.
        """
        if index.run and index.key in self._known.done:
            return None
        if index.run and index.key in self._known.failed:
            message, retryable = self._known.failed[index.key]
            raise (UnavailableError if retryable else PermanentError)(message)
        with self._lock:
            lock = self._locks.setdefault(index, threading.Lock())
        with lock:
            if index in self._failures:
                raise copy.copy(self._failures[index])  # each call adds what it knows to its own
            if index in self._waits and self._waits[index] is None:
                return None
            left = self._due.get(index, 0.0) - time.monotonic()
            if left > 0:
                return left
            try:
                wait = self._waits[index] = look_at_index(service, retrier, index, self._waits.get(index))
            except FusedCacheError as error:
                self._failures[index] = error
                raise
            if wait is None:
                return None
            self._due[index] = time.monotonic() + wait.seconds
            return wait.seconds
