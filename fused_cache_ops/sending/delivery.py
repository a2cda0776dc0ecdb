"""One target of a call: what of it is confirmed, and what it cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from fused_cache_ops.selection.batches import Batch
from fused_cache_ops.selection.selection import Selection
from fused_cache_ops.selection.spans import Spans
from fused_cache_ops.sending.outbox import Outbox
from fused_cache_ops.sending.targets import Target
from fused_cache_ops.sending.workers import Work, send_tiles
from fused_cache_ops.service.retry import Retrier
from fused_cache_ops.service.service import Service


class Delivery:
    """Sends the selection to one target.

    Args:
        target: where to.
        tiles: what. None: the whole UDF.
        recorded: the positions that a checkpoint has for this target.
        total: the number of tiles, if it is known.

    Attributes:
        done: the positions that are confirmed, including the recorded ones. The whole UDF is one position.
        is_complete: whether nothing is left to send.
        failure: why it was not completed.
        elapsed: seconds spent on this target.
        work: the sending of tiles, once it has begun.
    """

    def __init__(self, target: Target, tiles: Selection | None, recorded: Spans, total: int | None) -> None:
        self.target = target
        self.tiles = tiles
        self.done = recorded
        self.recorded = Spans(recorded)
        self.is_complete = recorded.count >= (1 if tiles is None else total or 1)
        self.failure: Exception | None = None
        self.elapsed = 0.0
        self._retrier: Retrier | None = None
        self.objects_deleted: int | None = None if tiles is None else 0
        self.work: Work | None = None

    @property
    def requests_sent(self) -> int:
        """The requests for this target so far, including retries."""
        return 0 if self._retrier is None else self._retrier.requests_sent

    @property
    def retries(self) -> int:
        """How many of the requests were retries."""
        return 0 if self._retrier is None else self._retrier.retries

    @property
    def count_sent(self) -> int:
        """How many positions this call has sent and confirmed."""
        return self.done.count - self.recorded.count

    def send(
        self,
        service: Service,
        retrier: Retrier,
        outbox: Outbox | None,
        note: Callable[[Batch], None] | None,
        tick: Callable[[], None],
    ) -> None:
        """Send what is left.

        Args:
            service: the deployment.
            retrier: a retrier for this target alone.
            outbox: the tiles that are left. None for the whole UDF.
            note: called with each confirmed batch.
            tick: called periodically.

        Raises:
            FusedCacheError: sending failed.
        """
        began = time.monotonic()
        self._retrier = retrier
        try:
            if outbox is None:
                service.invalidate_udf(self.target.cache, retrier=retrier)
                self.done.add(0, 1)
            else:
                self.work = Work(outbox, retrier, self.done, note=note, tick=tick)
                send_tiles(service, self.target.cache, self.work)
            self.is_complete = True
        finally:
            self.elapsed = time.monotonic() - began
            if self.work is not None:
                self.objects_deleted = self.work.objects_deleted


def confirmed_on_each(deliveries: Sequence[Delivery]) -> tuple[Spans, Spans]:
    """The positions that are confirmed on every instance of one UDF, and those of them that a checkpoint had on every one."""
    return Spans.common([each.done for each in deliveries]), Spans.common([each.recorded for each in deliveries])


def total_deleted(deliveries: Iterable[Delivery]) -> int | None:
    """The number of cached objects removed on all instances together, or None if one of them does not report it."""
    numbers = [each.objects_deleted for each in deliveries]
    return None if None in numbers else sum(number or 0 for number in numbers)
