"""Rate limiting for all workers of a client: a gate that errors close for everyone, and a rate that the server sustains.

Only the decisions, without a clock, threads or sleep. `Retrier` provides those, and the tests provide a simulated server.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0

PLATEAU = 15.0
"""How long the rate stays below the one that was too high, as a multiple of the pause that the last "too many" cost. The
longer a pause was, the longer until the next one is risked."""

_MARGIN = 0.97

_STRETCH, _SECONDS = 3, 5.0
"""The fewest closings for "too many", and the fewest seconds, in a stretch whose yield is compared."""

_LOWER = 0.8
"""The factor below which a yield or a rate counts as lower than another."""

_HOLD, _LONGEST_HOLD = 12, 192
"""How many closings a restored rate is kept for: the first time, and at most. It doubles each time."""


class _Yield(NamedTuple):
    """Requests per second over a stretch: how many were allowed when it began, and how many succeeded, pauses included."""

    rate: float
    taken: float


@dataclass
class Turn:
    """Permission to send one request at a given time. It is void if the gate has closed in between."""

    at: float
    closings: int
    probe: bool = False


class Limiter:
    """Decides when the next request may be sent, for all workers that share it.

    - "Too many requests" (429, or 503 with ``Retry-After``) closes the gate for the requested time, or for a jittered
      backoff if none was requested. It also sets the rate, once for all requests that were in flight together, between
      what the server is known to sustain and what was too much. The rate then grows with what the server is seen to
      sustain. It stays below what was too much for a while, then exceeds it along a cubic curve.
    - A cut has to pay. A server with a real limit serves requests at that limit however fast they come, so a justified cut
      never lowers the yield: the requests that succeed per second, pauses included. A server that says "too many" for
      another reason (one broken backend of many, a quota shared with others) serves fewer the lower the rate, and would be
      cut forever. The yield is therefore compared from one stretch of closings to the next, without the first burst, and
      without stretches that other errors spoiled. If both rate and yield have fallen well below the best known ones, the
      best rate is restored and kept for a number of closings, which doubles each time. If it then yields no more than the
      lower rate did, the limit has really fallen, and the lower rate returns. ``Retry-After`` is respected in any case.
    - Other transient errors (5xx, no connection) close the gate for a jittered backoff once two requests in a row, from
      any workers, have failed. They do not change the rate.
    - When the pause is over, one request goes first as a probe. The gate opens when it succeeds.

    Args:
        ceiling: the most requests per second. None: as many as the workers manage.
        draw: ``draw(low, high)``, a random number between the two.

    Attributes:
        rate: the current requests per second. None: unlimited.
        ceiling: as given.
        closings: how often the gate has closed.
        changed: the lock to hold while calling methods, and the signal that the gate may have opened.
    """

    def __init__(self, ceiling: float | None = None, *, draw: Callable[[float, float], float] = random.uniform) -> None:
        self.changed = threading.Condition()
        self.rate = ceiling
        self.ceiling = ceiling
        self._draw = draw
        self._next_slot = -math.inf
        self._gate_opens = -math.inf
        self._asked_until = -math.inf  # the pause that the server asked for, which no deadline shortens
        self._closed = False  # until the request that goes first has succeeded
        self._probe_is_out = False
        self.closings = 0
        self._closings_in_a_row = 0
        self._failures_in_a_row = 0
        self._too_much: float | None = None
        self._sustained = 0.0
        self._burst = 0  # what the server took at once before it first said "too many"
        self._cycle = _Tally()  # since it last said so
        self._stretch = _Tally()  # since the yield was last compared
        self._rate_of_stretch = 0.0
        self._best: _Yield | None = None
        self._cut_to: _Yield | None = None  # what the cuts had come to when the best rate was restored
        self._hold = 0  # closings for which the rate is still left alone
        self._next_hold = _HOLD
        self._last_asked = -math.inf
        self._spell = _Tally()  # since the gate last opened
        self._plateau = 1.0

    def ask(self, now: float, latest: float = math.inf) -> Turn | float:
        """A turn, now or a little later; or the seconds after which to ask again (sooner if the gate opens).

        Args:
            now: the time.
            latest: the latest time at which the caller must send. A pause that the server did not request ends by then.
        """
        if now - max(self._last_asked, self._gate_opens) > LONGEST_PAUSE:
            self._cycle = _Tally(now)  # nobody wanted anything for a while, which is no low yield
            self._begin_stretch(now)
        self._last_asked = now
        opens = max(self._asked_until, min(self._gate_opens, latest))
        if now < opens:
            return opens - now
        if self._closed:
            if self._probe_is_out:
                return math.inf
            self._probe_is_out = True
            return Turn(now, self.closings, probe=True)
        self._cycle.give(now)
        self._spell.give(now)
        if self.rate is None:
            return Turn(now, self.closings)
        slot = max(now, self._next_slot)
        self._next_slot = slot + 1 / self.rate
        return Turn(slot, self.closings)

    def closed_for(self, now: float) -> float:
        """How many seconds the gate stays closed, at least."""
        return max(0.0, self._gate_opens - now)

    def is_void(self, turn: Turn) -> bool:
        """Whether the gate has closed since the turn was given: ask anew."""
        return turn.closings != self.closings

    def succeeded(self, turn: Turn, now: float) -> None:
        """The server answered as one in working order does, be it a refusal for good."""
        self._failures_in_a_row = 0
        self._cycle.taken += 1
        self._stretch.taken += 1
        self._spell.taken += 1
        if turn.probe:
            self._open(now)
        if self._too_much is not None and not self._closed and not self._hold:
            self._grow(self._too_much, now)

    def throttled(self, turn: Turn, now: float, retry_after: float | None) -> None:
        """The server said "too many requests"."""
        if self.is_void(turn):  # of the same burst as one that has closed the gate
            if retry_after is not None and self._closed:
                self._asked_until = max(self._asked_until, now + retry_after)
                self._gate_opens = max(self._gate_opens, self._asked_until)
            return
        if not turn.probe:
            self._cut(now)
        self._close(now, retry_after)
        self._plateau = max(1.0, PLATEAU * (self._gate_opens - now))

    def troubled(self, turn: Turn, now: float) -> None:
        """The server, or the way to it, failed."""
        self._failures_in_a_row += 1
        if not self.is_void(turn) and (turn.probe or self._failures_in_a_row >= 2):
            self._close(now, None)
            self._stretch.spoiled = True

    def abandoned(self, turn: Turn, now: float) -> None:
        """The turn came to nothing: the request was not sent, or there is no telling how it went."""
        if turn.probe and not self.is_void(turn):
            self._probe_is_out = False

    def _open(self, now: float) -> None:
        self._closed = self._probe_is_out = False
        self._closings_in_a_row = 0
        self._next_slot = now
        if self._too_much is not None and not self._burst:
            self._burst = self._spell.taken
        self._spell = _Tally(now)
        if self._stretch.spoiled:
            self._begin_stretch(now)

    def _close(self, now: float, retry_after: float | None) -> None:
        bound = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._closings_in_a_row, 16))
        pause = self._draw(bound / 2, bound) if retry_after is None else retry_after
        self._gate_opens = max(self._gate_opens, now + pause)
        if retry_after is not None:
            self._asked_until = max(self._asked_until, now + retry_after)
        self._closed, self._probe_is_out = True, False
        self.closings += 1
        self._closings_in_a_row += 1

    def _cut(self, now: float) -> None:
        first = self._too_much is None
        rate = self.rate or self._spell.given / self._spell.elapsed(now)
        # From one "too many" to the next, pauses included, it took no more than its limit allows.
        taken = rate / 8 if first else min(rate, self._cycle.taken / self._cycle.elapsed(now))
        self._cycle = _Tally(now)
        self._stretch.closings += 1
        over = self._stretch.closings >= (_HOLD if self._hold else _STRETCH) and self._stretch.elapsed(now) >= _SECONDS
        if over and not first:
            self._compare(_Yield(self._rate_of_stretch, self._stretch.taken / self._stretch.elapsed(now)))
        if self._hold:
            self._hold -= 1
        else:
            self._too_much, self._sustained = self.rate or rate, taken
            self._set_rate(self._too_much)
        if over or first:
            self._begin_stretch(now)

    def _compare(self, yielded: _Yield) -> None:
        """Ask whether the cuts have paid, and restore the best rate if they have not."""
        best = self._best
        if self._hold and self._cut_to is not None:
            self._best = yielded
            if yielded.taken <= self._cut_to.taken:  # the limit has really fallen
                self._best, self._hold, self._next_hold = self._cut_to, 0, _HOLD
                self._return_to(self._cut_to.rate)
        elif best is None or yielded.taken >= best.taken:
            self._best = yielded
        elif yielded.taken < _LOWER * best.taken and yielded.rate < _LOWER * best.rate:
            self._cut_to = yielded
            self._return_to(best.rate)
            self._hold, self._next_hold = self._next_hold, min(2 * self._next_hold, _LONGEST_HOLD)

    def _begin_stretch(self, now: float) -> None:
        self._stretch = _Tally(now)
        self._rate_of_stretch = self.rate or 0.0

    def _return_to(self, rate: float) -> None:
        self.rate = self._too_much = rate
        self._sustained = rate / _MARGIN**2  # so that it stays there once it may grow again

    def _grow(self, too_much: float, now: float) -> None:
        since = self._spell.elapsed(now)
        if since > 0.5:  # a shorter time tells the server's allowance for bursts, not its limit
            self._sustained = max(self._sustained, (self._spell.taken - self._burst) / since)
        self._set_rate(too_much * (1 + max(0.0, since / self._plateau - 1) ** 3))

    def _set_rate(self, too_much: float) -> None:
        self.rate = max(0.1, _MARGIN * math.sqrt(self._sustained * too_much))
        if self.ceiling is not None:
            self.rate = min(self.rate, self.ceiling)


class _Tally:
    """Requests since a time, which is that of the first one if it is not given."""

    def __init__(self, began: float | None = None) -> None:
        self.given = 0
        self.taken = 0
        self.closings = 0
        self.spoiled = False
        self._began = began

    def give(self, now: float) -> None:
        self._began = now if self._began is None else self._began
        self.given += 1

    def elapsed(self, now: float) -> float:
        return max(0.001, now - (now if self._began is None else self._began))
