"""Workers: a bounded number of requests in flight, over a stream that is read only as fast as it is sent."""

from __future__ import annotations

import contextvars
import logging
import queue
import threading
from collections.abc import Callable
from typing import Union

from fused_cache_ops.errors import FusedCacheError, UnconfirmedError
from fused_cache_ops.selection.batches import MAX_BATCH, Batch, BlockBatches
from fused_cache_ops.selection.spans import Spans
from fused_cache_ops.sending.outbox import Outbox
from fused_cache_ops.service.retry import Retrier, Stopped
from fused_cache_ops.service.service import Service, UdfCache
from fused_cache_ops.wording import counted

logger = logging.getLogger(__name__)

BATCHES_IN_FLIGHT = 4

_TICK = 0.1  # seconds between the caller's progress updates while workers send

_Send = Callable[[Batch], Union[int, None]]


class Work:
    """The tiles of one call: those that are confirmed, and the outbox with the rest.

    Args:
        outbox: the batches to send.
        retrier: retries and rate limiting.
        done: the positions that are confirmed already. Those that this call confirms are added.
        note: called with each confirmed batch, by one worker at a time.
        tick: called periodically by the caller's thread while workers send.

    Attributes:
        objects_deleted: the number of cached objects that the server reports as removed, or None if it does not report it.
    """

    def __init__(
        self,
        outbox: Outbox,
        retrier: Retrier,
        done: Spans,
        *,
        note: Callable[[Batch], None] | None,
        tick: Callable[[], None],
    ) -> None:
        self.outbox = outbox
        self.retrier = retrier
        self.done = done
        self.tick = tick
        self.objects_deleted: int | None = 0
        self.lock = threading.Lock()
        self._note = note

    def do_next(self, send: _Send, *, final: bool = True) -> None:
        """Send the next batch, if there is one."""
        batch = self.outbox.take()
        if batch is not None:
            self.do(batch, send, final=final)

    def do(self, batch: Batch, send: _Send, *, final: bool = True) -> None:
        """Send a batch and count it. If that fails, the batch is put back and, if ``final``, all sending stops."""
        try:
            deleted = send(batch)
        except BaseException:
            if final:
                self.retrier.stop()  # before the tiles can be taken again
            self.outbox.put_back(batch)
            raise
        with self.lock:
            self.done.add(batch.start, batch.start + len(batch))
            total = self.objects_deleted
            self.objects_deleted = None if total is None or deleted is None else total + deleted
            if self._note is not None:
                self._note(batch)


def send_tiles(service: Service, cache: UdfCache, work: Work) -> None:
    """Send everything in the outbox: in batches, or tile by tile if the deployment does not accept batches.

    Raises:
        FusedCacheError: the first failure. Tiles not yet confirmed are in the outbox.
    """

    largest = MAX_BATCH  # until a proxy in between rejects it as too large
    accepted = False  # whether this deployment has accepted a batch

    def send_batch(batch: Batch) -> int | None:
        nonlocal largest
        if len(batch) > largest:
            deleted = [send_batch(part) for part in BlockBatches(batch.blocks(), largest)]
            return None if None in deleted else sum(number or 0 for number in deleted)
        try:
            return service.invalidate_batch(cache, batch.body(), retrier=work.retrier)
        except UnconfirmedError as error:  # each tile by itself is a yes or an error
            if not accepted:
                raise
            logger.warning("%s Sending %s one by one.", error.message, counted(len(batch), "tile"))
            for position in range(len(batch)):
                service.invalidate_tile(cache, batch.at(position), retrier=work.retrier)
            return None
        except FusedCacheError as error:
            if error.status != 413 or len(batch) < 2:
                raise
            largest = min(largest, (len(batch) + 1) // 2)
            logger.info("A batch of %s tiles is too large for a proxy in between: halving it.", f"{len(batch):,}")
            return send_batch(batch)

    def send_tile(batch: Batch) -> None:
        service.invalidate_tile(cache, batch.at(0), retrier=work.retrier)

    # The first request goes alone: it shows whether this deployment accepts batches at all.
    if work.outbox.look_ahead() > 1:
        try:
            work.do_next(send_batch, final=False)
        except FusedCacheError as error:
            # 404 may mean "no such endpoint" or "no such UDF". The single-tile request below settles it.
            if error.status not in (404, 405) and not isinstance(error, UnconfirmedError):
                raise
            logger.info("This deployment does not accept batches (%s): sending tile by tile.", error.status)
        else:
            accepted = True
            return _send_all(service, work, send_batch, min(BATCHES_IN_FLIGHT, service.max_concurrency), ahead=0)
    work.outbox.one_by_one()
    work.do_next(send_tile)
    return _send_all(service, work, send_tile, service.max_concurrency, ahead=service.max_concurrency)


def _send_all(service: Service, work: Work, send: _Send, most_workers: int, *, ahead: int) -> None:
    """Send what is left, with at most ``most_workers`` requests at once. Raise the first failure.

    The tiles are read in the caller's thread, because a database cursor may require it. At most ``ahead`` of them are read
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
                workers.append(worker)  # first, so that one that an interrupt has just started ends too
                try:
                    worker.start()
                except RuntimeError:  # no more threads: the existing ones suffice
                    workers.pop()
                    if not workers:
                        raise

    def finish(tick: Callable[[], None]) -> None:
        """Tell the workers that nothing more comes, and wait until they have ended."""
        for _ in workers:
            handed.put(None)
        for worker in workers:
            while worker.is_alive():
                worker.join(_TICK)
                tick()

    try:
        try:
            hand_out()
            finish(work.tick)
        except Exception as error:  # from reading the tiles, or from the progress callback
            work.retrier.stop()
            failures.insert(0, error)
            finish(lambda: None)  # without the callback, which might fail again: what is in flight is still awaited
    except BaseException as leaving:
        # The caller has been interrupted: no response is awaited.
        work.retrier.stop()
        failures.insert(0, leaving)
        service.abort_requests(work.retrier)
        finish(lambda: None)
    finally:
        _take_back(handed, work)
        for _ in workers:  # an interrupt may have left one that only starts now
            handed.put(None)
    for failure in failures:
        if not isinstance(failure, Stopped):
            raise failure


def _take_back(handed: queue.SimpleQueue[Batch | None], work: Work) -> None:
    """Put back the batches that no worker has taken."""
    while not handed.empty():
        batch = handed.get()
        if batch is not None:
            work.outbox.put_back(batch)
