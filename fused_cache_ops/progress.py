"""Progress of a call: reported to a callback, and logged every few seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Union

from fused_cache_ops.wording import counted

logger = logging.getLogger(__name__)

OnProgress = Callable[[int, Union[int, None], int], object]
"""``on_progress(done, total, retries)``: tiles invalidated so far, including earlier runs; tiles in total, or None if that is
unknown; retries so far."""

CALLBACK_INTERVAL = 0.2
LOG_INTERVAL = 5.0


class Progress:
    """Reports the progress of a call, always in the caller's thread.

    Args:
        callback: the callback, or None.
        done_what: what is done to the tiles, for the log.
    """

    def __init__(self, callback: OnProgress | None, done_what: str = "invalidated") -> None:
        self._callback = callback
        self._done_what = done_what
        self._started = self._told = self._logged = time.monotonic()
        self.total: int | None = None

    def tell(self, done: int, retries: int, *, at_once: bool = False) -> None:
        """Report, unless that was done a moment ago."""
        now = time.monotonic()
        if self._callback is not None and (at_once or now - self._told >= CALLBACK_INTERVAL):
            self._told = now
            self._callback(done, self.total, retries)
        if now - self._logged >= LOG_INTERVAL:
            self._logged = now
            sent = (
                f"{done:,} of {counted(self.total, 'tile')} ({done / self.total:.0%})" if self.total else counted(done, "tile")
            )
            retried = f", {counted(retries, 'retry')}" if retries else ""
            took = now - self._started
            logger.info("Fused cache: %s %s in %.0f s%s.", sent, self._done_what, took, retried)
