"""Tiles on their way: a bounded window of requests under way, over a stream that is read no further than it is sent."""

from __future__ import annotations

import contextvars
import logging
import queue
import threading
from collections.abc import Callable
from typing import Union

from fused_cache_ops.errors import FusedCacheError
from fused_cache_ops.selection.batches import MAX_BATCH, Batch, BlockBatches
from fused_cache_ops.selection.spans import Spans
from fused_cache_ops.sending.outbox import Outbox
from fused_cache_ops.service.retry import Retrier, Stopped
from fused_cache_ops.service.service import Service

logger = logging.getLogger(__name__)

BATCHES_IN_FLIGHT = 4

_TICK = 0.1  # seconds between the caller's looks at progress while workers send

_Send = Callable[[Batch], Union[int, None]]


class Work:
    """The tiles of one call: what is confirmed, and the outbox of the rest.

    Args:
        outbox: what is to be sent.
        retrier: patience and pace.
        note: called with each batch that has been confirmed, by one worker at a time.
        tick: called now and then by the caller's thread, while workers send.

    Attributes:
        done: the positions that are confirmed, those of earlier calls included.
        confirmed: how many tiles this call has sent and seen confirmed.
        objects_deleted: how many cached objects the server says it removed; None: it does not say.
    """

    def __init__(
        self,
        outbox: Outbox,
        retrier: Retrier,
        *,
        note: Callable[[Batch], None] | None,
        tick: Callable[[], None],
    ) -> None:
        self.outbox = outbox
        self.retrier = retrier
        self.done = Spans()
        self.tick = tick
        self.confirmed = 0
        self.objects_deleted: int | None = 0
        self.lock = threading.Lock()
        self._note = note

    def do_next(self, send: _Send, *, final: bool = True) -> None:
        """Send the next batch, if there is one."""
        batch = self.outbox.take()
        if batch is not None:
            self.do(batch, send, final=final)

    def do(self, batch: Batch, send: _Send, *, final: bool = True) -> None:
        """Send a batch and count it; where that fails it is back in hand and, if ``final``, all sending stops."""
        try:
            deleted = send(batch)
        except BaseException:
            if final:
                self.retrier.stop()  # before the tiles are in reach again
            self.outbox.put_back(batch)
            raise
        with self.lock:
            self.confirmed += len(batch)
            self.done.add(batch.start, batch.start + len(batch))
            total = self.objects_deleted
            self.objects_deleted = None if total is None or deleted is None else total + deleted
            if self._note is not None:
                self._note(batch)


def send_tiles(service: Service, udf_id: str, work: Work) -> None:
    """Send all that is in the outbox: in batches, or tile by tile where the deployment takes none.

    Raises:
        FusedCacheError: the first failure; what is not confirmed is in the outbox.
    """

    largest = MAX_BATCH  # until a proxy on the way says that it is too much

    def send_batch(batch: Batch) -> int | None:
        nonlocal largest
        if len(batch) > largest:
            deleted = [send_batch(part) for part in BlockBatches(batch.blocks(), largest)]
            return None if None in deleted else sum(number or 0 for number in deleted)
        try:
            return service.invalidate_batch(udf_id, batch.body(), retrier=work.retrier)
        except FusedCacheError as error:
            if error.status != 413 or len(batch) < 2:
                raise
            largest = min(largest, (len(batch) + 1) // 2)
            logger.info("A batch of %s tiles is too large for a proxy on the way: halved.", f"{len(batch):,}")
            return send_batch(batch)

    def send_tile(batch: Batch) -> None:
        service.invalidate_tile(udf_id, batch.at(0), retrier=work.retrier)

    # The first request goes alone: it tells whether this deployment takes batches at all.
    if work.outbox.look_ahead() > 1:
        try:
            work.do_next(send_batch, final=False)
        except FusedCacheError as error:
            # 404 may mean "no such endpoint" or "no such UDF". A single tile's request settles it, just below.
            if error.status not in (404, 405):
                raise
            logger.info("No batches here (%s): trying tile by tile.", error.status)
        else:
            return _send_all(service, work, send_batch, min(BATCHES_IN_FLIGHT, service.max_concurrency), ahead=0)
    work.outbox.one_by_one()
    work.do_next(send_tile)
    return _send_all(service, work, send_tile, service.max_concurrency, ahead=service.max_concurrency)


def _send_all(service: Service, work: Work, send: _Send, most_workers: int, *, ahead: int) -> None:
    """Send what is left, at most ``most_workers`` requests at once; raise the first failure.

    The tiles are read in the caller's thread (a database cursor may insist on it), and no more than ``ahead`` of them
    before a worker is free to send them.
    """
    handed: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
    failures: list[BaseException] = []
    wanted = threading.Semaphore(most_workers + ahead)
    workers: list[threading.Thread] = []

    def serve() -> None:
        while (batch := handed.get()) is not None:
            try:
                if failures:
                    work.outbox.put_back(batch)
                else:
                    work.do(batch, send)
            except BaseException as error:
                failures.append(error)
            finally:
                wanted.release()

    def hand_out() -> None:
        while not failures and work.outbox.look_ahead():
            while not wanted.acquire(timeout=_TICK):
                work.tick()
            work.tick()
            if failures or (batch := work.outbox.take()) is None:
                return
            handed.put(batch)
            if len(workers) < most_workers:
                context = contextvars.copy_context()
                worker = threading.Thread(
                    target=context.run, args=(serve,), name=f"fused-cache-ops-{len(workers)}", daemon=True
                )
                try:
                    worker.start()
                except RuntimeError:  # no more threads: those that there are will do
                    if not workers:
                        raise
                else:
                    workers.append(worker)

    def wait(tick: Callable[[], None]) -> None:
        for worker in workers:
            while worker.is_alive():
                worker.join(_TICK)
                tick()

    try:
        try:
            hand_out()
        except Exception as error:  # of reading the tiles, or of whoever is told of progress
            work.retrier.stop()
            failures.insert(0, error)
        for _ in workers:
            handed.put(None)
        wait(work.tick)
    except BaseException as leaving:
        # The caller has left: no answer is waited for.
        work.retrier.stop()
        failures.insert(0, leaving)
        service.abort_requests(work.retrier)
        for _ in workers:
            handed.put(None)
        wait(lambda: None)
    finally:
        _take_back(handed, work)
    for failure in failures:
        if not isinstance(failure, Stopped):
            raise failure


def _take_back(handed: queue.SimpleQueue[Batch | None], work: Work) -> None:
    """What no worker has taken."""
    while not handed.empty():
        batch = handed.get()
        if batch is not None:
            work.outbox.put_back(batch)
