"""Patience: try again what may pass, until a deadline, and let a server's ``Retry-After`` hold every worker back."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import TypeVar

from fused_cache_ops.errors import FusedCacheError, UnavailableError

logger = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0


class Stopped(Exception):
    """Another worker has failed, or the caller has left: this request is not to be sent."""


class Retrier:
    """Sends the requests of one call, each until it succeeds, fails for good, or the deadline is near.

    Failures that may pass are tried again after a pause drawn evenly from 0 to a bound that doubles from 0.25 s up to
    30 s (full jitter). A ``Retry-After`` closes one gate for all the workers of the call, and is never undercut.

    Args:
        deadline: seconds that the whole call may take, counted from now.

    Attributes:
        requests_sent: requests so far, of every worker.
        retries: how many of them repeated one that had failed.
    """

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.requests_sent = 0
        self.retries = 0
        self._started = time.monotonic()
        self._gate_opens = self._started
        self._lock = threading.Lock()
        self._stop = threading.Event()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._started

    def stop(self) -> None:
        """Make every worker give up before its next request, those that are waiting at once."""
        self._stop.set()

    def run(self, send: Callable[[float], T]) -> T:
        """Call ``send(seconds left)`` until it returns.

        Raises:
            FusedCacheError: what ``send`` raised, if it is permanent or the deadline leaves no time to try again.
            Stopped: after `stop`.
        """
        attempt = 0
        while True:
            self._wait_at_gate()
            with self._lock:
                self.requests_sent += 1
                self.retries += attempt > 0
            try:
                return send(self._left())
            except FusedCacheError as error:
                if not error.retryable:
                    raise
                failure = error
            attempt += 1
            pause = random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(attempt - 1, 16)))
            retry_after = getattr(failure, "retry_after", None)
            if retry_after is not None:
                with self._lock:
                    self._gate_opens = max(self._gate_opens, time.monotonic() + retry_after)
                pause = max(pause, retry_after)
            if pause >= self._left():
                failure.args = (f"{failure.message} {self._gave_up(attempt, retry_after)}",)
                raise failure
            logger.warning("%s Trying again in %.1f s.", failure.message, pause)
            if self._stop.wait(pause):
                raise Stopped

    def _left(self) -> float:
        return self._started + self.deadline - time.monotonic()

    def _wait_at_gate(self) -> None:
        while True:
            if self._stop.is_set():
                raise Stopped
            left = self._left()
            closed_for = self._gate_opens - time.monotonic()
            if min(left, left - closed_for) <= 0:
                raise UnavailableError(
                    f"The deadline of {self.deadline:g} s is over. Raise deadline=, or send fewer tiles a call."
                )
            if closed_for <= 0:
                return
            self._stop.wait(closed_for)

    def _gave_up(self, attempts: int, retry_after: float | None) -> str:
        asked = "" if retry_after is None else f" and the server asks for a pause of {retry_after:g} s"
        tries = "try" if attempts == 1 else "tries"
        return (
            f"Gave up after {attempts} {tries} in {self.elapsed:.1f} s: the deadline is {self.deadline:g} s{asked}. "
            "Raise deadline= to wait longer."
        )


def parse_retry_after(value: str | None) -> float | None:
    """Seconds from a ``Retry-After`` header, which holds seconds or an HTTP date; None where it is neither."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None
