"""Retries: transient errors are retried until a deadline, at a rate that all workers share."""

from __future__ import annotations

import logging
import math
import random
import re
import threading
import time
from collections.abc import Callable
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import TypedDict, TypeVar

from fused_cache_ops.errors import (
    FusedCacheError,
    InvalidationCancelledError,
    RateLimitedError,
    StaleConnectionError,
    UnavailableError,
)
from fused_cache_ops.service.limiter import FIRST_PAUSE, LONGEST_PAUSE, Limiter, Turn

logger = logging.getLogger(__name__)

T = TypeVar("T")

_CANCELLED = "The invalidation was cancelled."
_SHORTEST_TRY = 0.05  # seconds: with less time left, no attempt is made
_AT_ONCE = 2  # immediate retries on another connection, after a kept-alive one turned out to be closed


class Stopped(Exception):
    """Another worker has failed, or the caller was interrupted: this request must not be sent."""


class Branching(TypedDict, total=False):
    """How a part of a call differs from it: see `Retrier.branch`."""

    patience: float
    deadline: float
    deadline_name: str
    limiter: Limiter


class Retrier:
    """Sends the requests of one call, each until it succeeds, fails permanently, or the deadline is near.

    Transient errors are retried after a pause drawn uniformly between 0 and a bound that doubles from 0.25 s up to 30 s (full
    jitter), and not before the limiter grants a turn. ``Retry-After`` is always honored. Any other pause that would end
    beyond the deadline is shortened, so that a last attempt is made just before it.

    Args:
        deadline: seconds that the whole call may take, counted from now.
        limiter: the rate limiter shared with other calls, or None for a separate one.

    With a patience, a request that has failed for longer than that is given up, although the deadline is not reached.

    Attributes:
        requests_sent: requests so far, by all workers.
        retries: how many of these were retries.
    """

    def __init__(self, deadline: float, limiter: Limiter | None = None) -> None:
        self.deadline = deadline
        self.requests_sent = 0
        self.retries = 0
        self.cancelled = False
        self._limiter = limiter or Limiter()
        self._deadline_name = "deadline"
        self._patience = math.inf
        self._whole: Retrier | None = None  # the call that this is a part of
        self._waited = 0.0
        self._started = time.monotonic()
        self._stop = threading.Event()
        self._trouble = ""
        self._logged: set[tuple[str, bool]] = set()
        self._longest_try = _SHORTEST_TRY
        self.lookup = threading.Lock()  # held while the instances are looked up, by one part of the call for all
        self.client_ids: tuple[str, ...] | None = None  # the instances, once they have been looked up

    @property
    def elapsed(self) -> float:
        """Seconds since the call began."""
        return time.monotonic() - self._started

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self._end - time.monotonic()

    @property
    def _end(self) -> float:
        return self._started + self.deadline + self._waited

    def branch(
        self,
        *,
        patience: float = math.inf,
        deadline: float | None = None,
        deadline_name: str = "deadline",
        limiter: Limiter | None = None,
    ) -> Retrier:
        """A retrier for one part of this call, with its own counts and a stop of its own.

        Args:
            patience: seconds after which a request of this part is given up, so that time is left for the other parts.
            deadline: seconds that this part may take, counted from now. None: the deadline of the call.
            deadline_name: the keyword that sets the deadline, for messages.
            limiter: the rate limiter. None: that of the call.
        """
        part = Retrier(self.deadline if deadline is None else deadline, limiter or self._limiter)
        if deadline is None:
            part._started, part._waited = self._started, self._waited
        part._patience, part._deadline_name = min(patience, self._patience), deadline_name
        part._whole = self
        return part

    @property
    def whole(self) -> Retrier:
        """The call that this is a part of, or this itself."""
        return self if self._whole is None else self._whole.whole

    def is_part_of(self, call: Retrier) -> bool:
        """Whether this is the call, or was branched from it, directly or through others."""
        return self is call or (self._whole is not None and self._whole.is_part_of(call))

    def wait(self, seconds: float) -> None:
        """Wait, without counting that toward the deadline.

        Raises:
            InvalidationCancelledError: after `cancel`, immediately.
        """
        began = time.monotonic()
        self._stop.wait(seconds)
        self.has_waited(time.monotonic() - began)
        self.raise_if_cancelled()

    def has_waited(self, seconds: float) -> None:
        """Note a wait that does not count toward the deadline."""
        self._waited += seconds

    def is_over(self) -> bool:
        """Whether the call is cancelled or stopped."""
        return self._stop.is_set()

    def check(self) -> None:
        """Check, during other work such as reading or counting tiles, whether its result is still wanted.

        Raises:
            InvalidationCancelledError: after `cancel`.
            UnavailableError: the deadline has passed.
        """
        self.raise_if_cancelled()
        if self.left <= 0:
            raise UnavailableError(self._over(0.0, 0.0))

    def raise_if_cancelled(self) -> None:
        """Raise `InvalidationCancelledError` after `cancel`."""
        if self.cancelled:
            raise InvalidationCancelledError(_CANCELLED)

    def stop(self) -> None:
        """Make every worker give up before its next request. Workers that are waiting give up immediately."""
        self._stop.set()
        with self._limiter.changed:
            self._limiter.changed.notify_all()

    def cancel(self) -> None:
        """Stop at the caller's request."""
        self.cancelled = True
        self.stop()

    def run(self, send: Callable[[float], T]) -> T:
        """Call ``send(seconds left)`` until it returns.

        Raises:
            FusedCacheError: what ``send`` raised, if it is permanent or the deadline leaves no time for a retry.
            InvalidationCancelledError: after `cancel`.
            Stopped: after `stop`.
        """
        attempt = stale = 0
        first_failed = math.inf
        while True:
            turn = self._wait_for_turn()
            with self._limiter.changed:
                self.requests_sent += 1
                self.retries += attempt > 0
            began = time.monotonic()
            try:
                # One that hangs may not take longer than all attempts together.
                answer = send(min(self.left, min(first_failed, began) + self._patience - began))
            except FusedCacheError as error:
                failure = error
                self._longest_try = max(self._longest_try, time.monotonic() - began)
            except BaseException:
                self._note(turn, self._limiter.abandoned)
                raise
            else:
                self._note(turn, self._limiter.succeeded)
                return answer
            attempt += 1
            retry_after = getattr(failure, "retry_after", None)
            if isinstance(failure, StaleConnectionError) and stale < _AT_ONCE:
                stale += 1
                self._note(turn, self._limiter.abandoned)
                continue
            if not failure.retryable:
                # Any response, even an error, opens the gate. No response at all says nothing.
                self._note(turn, self._limiter.abandoned if failure.status is None else self._limiter.succeeded)
                raise failure
            if isinstance(failure, RateLimitedError) or retry_after is not None:
                closed_for = self._note(turn, self._limiter.throttled, retry_after)
            else:
                closed_for = self._note(turn, self._limiter.troubled)
            self._trouble = failure.message
            if self._stop.is_set():
                raise self._stopped()
            first_failed = min(first_failed, began)
            pause = random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(attempt - 1, 16)))
            pause = max(min(pause, self._longest_pause()), retry_after or 0.0)
            left = min(self.left, first_failed + self._patience - time.monotonic())
            if pause >= left or left < _SHORTEST_TRY:
                failure.args = (f"{failure.message} {self._gave_up(attempt, retry_after)}",)
                raise failure
            self._log(failure.message, pause, closed_for)
            if self._stop.wait(pause):
                raise self._stopped()

    def _log(self, message: str, pause: float, closed_for: float) -> None:
        """Say why a request is retried. A call with many workers, or one that waits long, says each reason once, and once more
        if all requests pause for it."""
        reason = message.partition(": ")[2] or message  # without what was being done
        with self._limiter.changed:
            key, logged = (reason, bool(closed_for)), self.whole._logged
            is_new = key not in logged
            logged.add(key)
        level = (logging.WARNING if closed_for else logging.INFO) if is_new else logging.DEBUG
        what = f"All requests pause for {closed_for:.1f} s. Retrying" if closed_for else f"Retrying in {pause:.1f} s,"
        logger.log(level, "%s %s for up to %.0f s.", message, what, max(self.left, 0.0))

    def _last_try(self) -> float:
        """The latest time to start an attempt, so that it ends by the deadline."""
        return self._end - min(self._longest_try, self.deadline / 4)

    def _longest_pause(self) -> float:
        """The time left, minus one attempt, but at least half of the time left."""
        return max(self._last_try() - time.monotonic(), self.left / 2)

    def _note(self, turn: Turn, verdict: Callable[..., None], *retry_after: float | None) -> float:
        """Tell the limiter how a request went, and wake those that wait for a probe. Returns for how long the gate closed."""
        limiter = self._limiter
        with limiter.changed:
            closings, now = limiter.closings, time.monotonic()
            verdict(turn, now, *retry_after)
            if turn.probe:
                limiter.changed.notify_all()
            return limiter.closed_for(now) if limiter.closings > closings else 0.0

    def _wait_for_turn(self) -> Turn:
        limiter = self._limiter
        while True:
            with limiter.changed:
                if self._stop.is_set():
                    raise self._stopped()
                now, left = time.monotonic(), self.left
                turn = limiter.ask(now, self._last_try())
                wait = turn.at - now if isinstance(turn, Turn) else turn
                if left <= 0 or left <= wait < math.inf:
                    if isinstance(turn, Turn):
                        limiter.abandoned(turn, now)
                        limiter.changed.notify_all()
                    raise UnavailableError(self._over(left, wait))
                if not isinstance(turn, Turn):
                    limiter.changed.wait(min(wait, left))
                    continue
            if wait <= 0:
                return turn
            if self._stop.wait(wait):
                raise self._stopped()
            if not limiter.is_void(turn):
                return turn

    def _stopped(self) -> Exception:
        return InvalidationCancelledError(_CANCELLED) if self.cancelled else Stopped()

    def _over(self, left: float, wait: float) -> str:
        over = f"The deadline of {self.deadline:g} s has passed."
        if left > 0:
            over = f"The deadline of {self.deadline:g} s leaves no time for the pause of {wait:.1f} s that all requests take."
        before = f" The last error was: {self._trouble}" if self._trouble else ""
        return f"{over}{before} Raise the {self._deadline_name}, or send fewer tiles per call."

    def _gave_up(self, attempts: int, retry_after: float | None) -> str:
        asked = "" if retry_after is None else f" and the server asks for a pause of {retry_after:g} s"
        tries = "attempt" if attempts == 1 else "attempts"
        return (
            f"Gave up after {attempts} {tries} in {self.elapsed:.1f} s: the deadline is {self.deadline:g} s"
            f"{'' if self._patience >= self.deadline else ' for all UDFs and instances'}{asked}. "
            f"Raise the {self._deadline_name} to wait longer."
        )


def parse_retry_after(value: str | None) -> float | None:
    """Seconds from a ``Retry-After`` header, which holds seconds or an HTTP date. None if it is neither.

    A date without a time zone is taken as UTC, like all HTTP dates. Fractions of a second are not standard, but some servers
    send them.
    """
    if value is None:
        return None
    text = value.strip()
    if _SECONDS.fullmatch(text):
        return float(text[:12])
    try:
        date = parsedate_to_datetime(text)
        date = date if date.tzinfo is not None else date.replace(tzinfo=timezone.utc)
        return max(0.0, date.timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


_SECONDS = re.compile(r"\d+(\.\d*)?", re.ASCII)
