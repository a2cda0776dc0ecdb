"""How far a call has come: told to a callback, and to the log every few seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Union

from fused_cache_ops.wording import counted

logger = logging.getLogger(__name__)

OnProgress = Callable[[int, Union[int, None], int], object]
"""``on_progress(done, total, retries)``: tiles that are invalidated, those of earlier runs included; all of them, or None
where that is not known; requests repeated so far."""

CALLBACK_INTERVAL = 0.2
LOG_INTERVAL = 5.0


class Progress:
    """Tells how far a call has come, always in the thread that called.

    Args:
        callback: what to tell; None: nobody.
    """

    def __init__(self, callback: OnProgress | None) -> None:
        self._callback = callback
        self._started = self._told = self._logged = time.monotonic()
        self.total: int | None = None

    def tell(self, done: int, retries: int, *, at_once: bool = False) -> None:
        """Tell, unless that was done a moment ago."""
        now = time.monotonic()
        if self._callback is not None and (at_once or now - self._told >= CALLBACK_INTERVAL):
            self._told = now
            self._callback(done, self.total, retries)
        if now - self._logged >= LOG_INTERVAL:
            self._logged = now
            of = f" of {self.total:,} ({done / self.total:.0%})" if self.total else ""
            repeats = f", {counted(retries, 'repeat')}" if retries else ""
            logger.info("Fused cache: %s%s tiles invalidated in %.0f s%s.", f"{done:,}", of, now - self._started, repeats)
