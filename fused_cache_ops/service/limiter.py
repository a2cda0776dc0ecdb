"""Rate limiting for all workers of a client: a gate that errors close for everyone, and a rate that the server sustains.

Only the decisions, without a clock, threads or sleep. `Retrier` provides those, and the tests provide a simulated server.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0

PLATEAU = 15.0
"""How long the rate stays below the one that was too high, as a multiple of the pause that the last "too many" cost. The
longer a pause was, the longer until the next one is risked."""

_MARGIN = 0.97


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
        self._asked_until = -math.inf  # the end of a pause that the server requested, which no deadline shortens
        self._closed = False  # when closed, it stays closed until the probe has succeeded
        self._probe_is_out = False
        self.closings = 0
        self._closings_in_a_row = 0
        self._failures_in_a_row = 0
        self._too_much: float | None = None
        self._sustained = 0.0
        self._burst = 0  # what the server accepted at once before its first "too many"
        self._cycle = _Tally()  # since its last "too many"
        self._spell = _Tally()  # since the gate last opened
        self._plateau = 1.0

    def ask(self, now: float, latest: float = math.inf) -> Turn | float:
        """A turn, now or a little later, or the seconds after which to ask again (sooner if the gate opens).

        Args:
            now: the current time.
            latest: the latest time at which the caller can go. A pause that the server did not request is cut short then.
        """
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
        """The number of seconds that the gate stays closed, at least."""
        return max(0.0, self._gate_opens - now)

    def is_void(self, turn: Turn) -> bool:
        """Whether the gate has closed since the turn was granted, so that a new one is needed."""
        return turn.closings != self.closings

    def succeeded(self, turn: Turn, now: float) -> None:
        """The server responded normally, even if with a permanent error."""
        self._failures_in_a_row = 0
        self._cycle.taken += 1
        self._spell.taken += 1
        if turn.probe:
            self._open(now)
        if self._too_much is not None and not self._closed:
            self._grow(self._too_much, now)

    def throttled(self, turn: Turn, now: float, retry_after: float | None) -> None:
        """The server said "too many requests"."""
        if self.is_void(turn):  # from the same burst as the one that closed the gate
            if retry_after is not None and self._closed:
                self._asked_until = max(self._asked_until, now + retry_after)
                self._gate_opens = max(self._gate_opens, self._asked_until)
            return
        if not turn.probe:
            self._cut(now)
        self._close(now, retry_after)
        self._plateau = max(1.0, PLATEAU * (self._gate_opens - now))

    def troubled(self, turn: Turn, now: float) -> None:
        """The server or the connection failed."""
        self._failures_in_a_row += 1
        if not self.is_void(turn) and (turn.probe or self._failures_in_a_row >= 2):
            self._close(now, None)

    def abandoned(self, turn: Turn, now: float) -> None:
        """The turn was not used: the request was not sent, or its outcome is unknown."""
        if turn.probe and not self.is_void(turn):
            self._probe_is_out = False

    def _open(self, now: float) -> None:
        self._closed = self._probe_is_out = False
        self._closings_in_a_row = 0
        self._next_slot = now
        if self._too_much is not None and not self._burst:
            self._burst = self._spell.taken
        self._spell = _Tally(now)

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
        self._too_much = self.rate or self._spell.given / self._spell.elapsed(now)
        # From one "too many" to the next, pauses included, the server accepted no more than its limit allows.
        self._sustained = self._too_much / 8 if first else min(self._too_much, self._cycle.taken / self._cycle.elapsed(now))
        self._cycle = _Tally(now)
        self._set_rate(self._too_much)

    def _grow(self, too_much: float, now: float) -> None:
        since = self._spell.elapsed(now)
        if since > 0.5:  # a shorter time shows the server's burst allowance, not its limit
            self._sustained = max(self._sustained, (self._spell.taken - self._burst) / since)
        self._set_rate(too_much * (1 + max(0.0, since / self._plateau - 1) ** 3))

    def _set_rate(self, too_much: float) -> None:
        self.rate = max(0.1, _MARGIN * math.sqrt(self._sustained * too_much))
        if self.ceiling is not None:
            self.rate = min(self.rate, self.ceiling)


class _Tally:
    """Requests since a given time, by default that of the first request."""

    def __init__(self, began: float | None = None) -> None:
        self.given = 0
        self.taken = 0
        self._began = began

    def give(self, now: float) -> None:
        self._began = now if self._began is None else self._began
        self.given += 1

    def elapsed(self, now: float) -> float:
        return max(0.001, now - (now if self._began is None else self._began))
