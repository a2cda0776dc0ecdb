"""The limiter against simulated servers: time relative to the ideal, requests rejected, tiles lost. Nothing is really sent.

python benchmarks/limiter_simulation.py [--quick] [--write docs/limits.md]
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fused_cache_ops.service.limiter import Limiter, Turn

SECONDS_AT_MOST = 10_000.0


class Server(Protocol):
    """What a server does with a request that arrives at a time: True: done; False: too many; None: it is down."""

    def take(self, now: float) -> bool | None: ...


class Bucket:
    """A server that allows a rate and, after a rest, a burst."""

    def __init__(self, rate: float, burst: int) -> None:
        self.rate, self.burst = rate, burst
        self._tokens, self._last = float(burst), 0.0

    def take(self, now: float) -> bool | None:
        self._tokens = min(self.burst, self._tokens + (now - self._last) * self.rate)
        self._last = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def ideal(self, count: int) -> float:
        return max(0, count - self.burst) / self.rate


class Window:
    """A server that allows so many requests in each second by the clock."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._second, self._taken = -1, 0

    def take(self, now: float) -> bool | None:
        if math.floor(now) != self._second:
            self._second, self._taken = math.floor(now), 0
        self._taken += 1
        return self._taken <= self.rate

    def ideal(self, count: int) -> float:
        return (count - self.rate) / self.rate


class Outage:
    """Another server, with a time in which it is down."""

    def __init__(self, server: Bucket, start: float, stop: float) -> None:
        self._server, self._start, self._stop = server, start, stop

    def take(self, now: float) -> bool | None:
        return None if self._start <= now < self._stop else self._server.take(now)

    def ideal(self, count: int) -> float:
        return self._server.ideal(count) + self._stop - self._start


@dataclass
class Outcome:
    done: int
    seconds: float
    sent: int

    @property
    def rejected(self) -> float:
        return (self.sent - self.done) / self.sent


def simulate(
    server: Server, count: int, workers: int, *, retry_after: float | None, latency: float = 0.03, seed: int = 0
) -> Outcome:
    """Send ``count`` tiles through a `Limiter`, as its workers would."""
    dice = random.Random(seed)
    limiter = Limiter(draw=dice.uniform)
    events: list[tuple[float, int, Callable[[], None]]] = []
    order = itertools.count()
    waiting = 0
    to_start = count
    outcome = Outcome(0, 0.0, 0)
    now = 0.0

    def at(time: float, action: Callable[[], None]) -> None:
        heapq.heappush(events, (time, next(order), action))

    def ask() -> None:
        nonlocal waiting
        turn = limiter.ask(now)
        if isinstance(turn, Turn):
            at(turn.at, lambda: send(turn))
        elif math.isinf(turn):
            waiting += 1
        else:
            at(now + turn + 1e-6, ask)

    def send(turn: Turn) -> None:
        if limiter.is_void(turn):
            ask()
            return
        outcome.sent += 1
        on_its_way = latency * dice.uniform(0.8, 1.2)
        answer = server.take(now + on_its_way / 2)
        at(now + on_its_way, lambda: receive(turn, answer))

    def receive(turn: Turn, answer: bool | None) -> None:
        nonlocal to_start, waiting
        if answer:
            limiter.succeeded(turn, now)
            outcome.done += 1
            outcome.seconds = now
        elif answer is None:
            limiter.troubled(turn, now)
        else:
            limiter.throttled(turn, now, retry_after)
        if not answer or to_start:
            to_start -= 1 if answer else 0
            ask()
        if turn.probe:
            woken, waiting = waiting, 0
            for _ in range(woken):
                ask()

    for _ in range(min(workers, count)):
        to_start -= 1
        at(dice.uniform(0, 0.005), ask)
    while events and now < SECONDS_AT_MOST:
        now, _, action = heapq.heappop(events)
        action()
    return outcome


def simulate_alone(
    server: Server, count: int, workers: int, *, retry_after: float | None, latency: float = 0.03, seed: int = 0
) -> Outcome:
    """The same with urllib3's ``Retry(5)`` in each of the workers, which know nothing of one another."""
    dice = random.Random(seed)
    free = [(dice.uniform(0, 0.005), number) for number in range(workers)]
    events = [(time, number, 0) for time, number in free]
    heapq.heapify(events)
    to_start = count - len(events)
    outcome = Outcome(0, 0.0, 0)
    while events:
        now, number, tries = heapq.heappop(events)
        outcome.sent += 1
        on_its_way = latency * dice.uniform(0.8, 1.2)
        answer = server.take(now + on_its_way / 2)
        after = now + on_its_way
        outcome.seconds = max(outcome.seconds, after)
        outcome.done += bool(answer)
        if not answer and tries < 5:
            backoff = 0 if tries == 0 else 0.5 * 2**tries
            heapq.heappush(
                events, (after + (backoff if answer is None or retry_after is None else retry_after), number, tries + 1)
            )
        elif to_start:
            to_start -= 1
            heapq.heappush(events, (after, number, 0))
    return outcome


SERVERS: dict[str, tuple[Callable[[], Bucket | Window | Outage], int]] = {
    "200/s, bursts of 200": (lambda: Bucket(200, 200), 4000),
    "200/s, bursts of 100": (lambda: Bucket(200, 100), 4000),
    "200/s, bursts of 20": (lambda: Bucket(200, 20), 4000),
    "200 in each second": (lambda: Window(200), 4000),
    "50/s, bursts of 100": (lambda: Bucket(50, 100), 5000),
    "50/s, bursts of 100, down for 15 s": (lambda: Outage(Bucket(50, 100), 30, 45), 5000),
    "50/s, bursts of 10": (lambda: Bucket(50, 10), 5000),
}


def cell(server: str, workers: int, retry_after: float | None, seeds: int, program: Callable[..., Outcome] = simulate) -> str:
    make, count = SERVERS[server]
    outcomes = [program(make(), count, workers, retry_after=retry_after, seed=seed) for seed in range(seeds)]
    slowest = max(outcome.seconds for outcome in outcomes) / make().ideal(count)
    lost = max(count - outcome.done for outcome in outcomes)
    rejected = max(outcome.rejected for outcome in outcomes)
    return f"{slowest:.2f} ×, {rejected:.1%}, {lost:,} lost"


def page(seeds: int) -> str:
    header = [
        "server",
        "16 in flight",
        "64 in flight",
        "16, no `Retry-After`",
        "each worker alone, 16",
        "each worker alone, 64",
    ]
    rows = [header, ["---"] * len(header)]
    for name in SERVERS:
        rows.append(
            [
                name,
                cell(name, 16, 1.0, seeds),
                cell(name, 64, 1.0, seeds),
                cell(name, 16, None, seeds),
                cell(name, 16, 1.0, seeds, simulate_alone),
                cell(name, 64, 1.0, seeds, simulate_alone),
            ]
        )
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"""# Rate limits, and how they are kept

`max_concurrency`, `max_requests_per_second` and `deadline` are settings of every call and client. Servers do not document
what they allow, so the limit is determined at run time. After "too many requests" (429, or 503 with `Retry-After`), all
workers wait out `Retry-After`. One request then goes first as a probe. From then on, all workers share one rate, between
what the server is known to sustain and what was too much. The rate grows with what the server is seen to sustain, and
after a while exceeds it. Other errors (5xx, no connection) make all workers pause, but do not change the rate. The
deadline, in seconds, ends the call and hands back the tiles not yet confirmed.

The table shows simulated servers. Each tile is one request of 30 ms, with `Retry-After: 1` unless stated otherwise. There
are 4,000 tiles at 200/s, and 5,000 at 50/s. Each cell shows the time relative to the server's ideal, the share of
rejected requests, and the number of lost tiles, for the worst of {seeds} runs. "Each worker alone" is what a thread pool with
`urllib3.Retry(5)` does.

{table}

Hence the defaults: `max_concurrency=16`, no fixed rate, and `deadline=600`. More than 16 requests in flight help if the
server is far away and allows them, but the first excessive burst then costs more rejected requests. If you know the
limit, set `max_requests_per_second` slightly below it, and no request is rejected.

To reproduce: `python benchmarks/limiter_simulation.py --write docs/limits.md`.
"""


def main() -> None:
    written = page(1 if "--quick" in sys.argv else 10)
    print(written)
    if "--write" in sys.argv:
        Path(sys.argv[sys.argv.index("--write") + 1]).write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
