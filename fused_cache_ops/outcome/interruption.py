"""Ctrl-C, or a signal, in the middle of a call."""

from __future__ import annotations

import signal

from fused_cache_ops.errors import Remaining
from fused_cache_ops.outcome.dataset import DatasetResult


class InvalidationInterrupted(KeyboardInterrupt):
    """Ctrl-C, or a signal, ended a call.

    Attributes:
        remaining: the tiles not yet confirmed as invalidated. None for the whole UDF.
        result: what was done for each UDF, if the call was that of a dataset.
        signal: the signal's number.
    """

    def __init__(
        self, interrupt: KeyboardInterrupt, *, remaining: Remaining | None = None, result: DatasetResult | None = None
    ) -> None:
        super().__init__(*interrupt.args)
        self.remaining = remaining
        self.result = result
        self.signal = int(getattr(interrupt, "signal", signal.SIGINT))
