"""Folders of inner caches as targets of a call: they are deleted before the UDFs that compute from them are invalidated."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from fused_cache_ops.errors import FusedCacheError, InvalidationCancelledError
from fused_cache_ops.selection.batches import Batch
from fused_cache_ops.selection.spans import Spans
from fused_cache_ops.sending.delivery import Delivery
from fused_cache_ops.sending.outbox import Outbox
from fused_cache_ops.sending.targets import Target
from fused_cache_ops.service.drive import delete_inner_caches
from fused_cache_ops.service.retry import Retrier, Stopped

if TYPE_CHECKING:
    from fused_cache_ops.service.service import Service


class Folders:
    """Deletes each folder once in a pass, for all calls that share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[tuple[str, str, int], threading.Lock] = {}
        self._outcomes: dict[tuple[str, str, int], FusedCacheError | None] = {}

    def delete(self, service: Service, client_id: str, folder: str, number: int, retrier: Retrier) -> None:
        """Delete a folder, unless a call has done so in this pass. Another call that is at it is waited for.

        Raises:
            FusedCacheError: it could not be deleted.
        """
        key = (client_id, folder, number)
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._outcomes:
                try:
                    delete_inner_caches(service, client_id, folder, retrier=retrier)
                except (InvalidationCancelledError, Stopped):
                    raise
                except FusedCacheError as error:
                    self._outcomes[key] = error
                else:
                    self._outcomes[key] = None
            failure = self._outcomes[key]
        if failure is not None:
            raise copy.copy(failure)  # each call adds what it knows to its own


class FolderDelivery(Delivery):
    """Deletes one folder on one instance.

    Args:
        target: the folder and the instance.
        recorded: whether a checkpoint has it, as the position 0.
        folders: what deletes it.
        number: the pass.
    """

    def __init__(self, target: Target, recorded: Spans, folders: Folders, number: int) -> None:
        super().__init__(target, None, recorded, None)
        self._folders = folders
        self._number = number

    def send(
        self,
        service: Service,
        retrier: Retrier,
        outbox: Outbox | None,
        note: Callable[[Batch], None] | None,
        tick: Callable[[], None],
    ) -> None:
        """Delete it. As for a UDF.

        Raises:
            FusedCacheError: it could not be deleted.
        """
        began = time.monotonic()
        self._retrier = retrier
        try:
            self._folders.delete(service, self.target.cache.client_id, str(self.target.name), self._number, retrier)
            self.done.add(0, 1)
            self.is_complete = True
        finally:
            self.elapsed = time.monotonic() - began
