"""The limiter against simulated servers: time beside the ideal, requests rejected, tiles lost. Nothing is sent, no time passes.

python benchmarks/limiter_simulation.py [--quick] [--write docs/measurements.md]
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

from pages import write_section

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


class Unlucky:
    """A server that says "too many" to a share of requests, whatever the rate: it has one broken backend of many."""

    def __init__(self, share: float, seed: int = 0) -> None:
        self._share = share
        self._dice = random.Random(seed)

    def take(self, now: float) -> bool | None:
        return self._dice.random() >= self._share


class Backends:
    """Several servers behind a balancer that knows nothing of their load: the first allows little, the others anything."""

    def __init__(self, count: int, rate: float, seed: int = 0) -> None:
        self._count = count
        self._weak = Bucket(rate, 5)
        self._dice = random.Random(seed)

    def take(self, now: float) -> bool | None:
        return self._weak.take(now) if self._dice.randrange(self._count) == 0 else True


class Shared:
    """A quota that others use too: by turns of 20 seconds they leave much of it and little."""

    def __init__(self, much: float, little: float) -> None:
        self._buckets = (Bucket(much, 20), Bucket(little, 20))

    def take(self, now: float) -> bool | None:
        return self._buckets[int(now // 20) % 2].take(now)


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


MIXED = (1.0, None)
"""``Retry-After`` of answers some of which have one: drawn anew for each."""


def simulate(
    server: Server,
    count: int,
    workers: int,
    *,
    retry_after: float | tuple[float | None, ...] | None,
    latency: float = 0.03,
    seed: int = 0,
    seconds_at_most: float = SECONDS_AT_MOST,
) -> Outcome:
    """Send ``count`` tiles through a `Limiter`, as its workers would."""
    asked_for = retry_after if isinstance(retry_after, tuple) else (retry_after,)
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
            limiter.throttled(turn, now, dice.choice(asked_for) if len(asked_for) > 1 else asked_for[0])
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
    while events and now < seconds_at_most:
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


CHANCE: dict[str, Callable[[int], Server]] = {
    "4% of requests at random": lambda seed: Unlucky(0.04, seed),
    "1% of requests at random": lambda seed: Unlucky(0.01, seed),
    "one of 8 backends allows 10/s": lambda seed: Backends(8, 10, seed),
    "a quota shared with others, 200/s and 20/s by turns": lambda seed: Shared(200, 20),
}
"""Where "too many" says little or nothing about the rate that this client should keep to."""

CHANCE_SECONDS = 300.0


def yields(server: str, workers: int, retry_after: float | tuple[float | None, ...] | None, seeds: int) -> list[float]:
    """Tiles a second, of several runs against a server of `CHANCE`."""
    return [
        outcome.done / outcome.seconds
        for seed in range(seeds)
        for outcome in [
            simulate(
                CHANCE[server](seed),
                200_000,
                workers,
                retry_after=retry_after,
                seed=seed,
                seconds_at_most=CHANCE_SECONDS,
            )
        ]
    ]


def cell(server: str, workers: int, retry_after: float | None, seeds: int, program: Callable[..., Outcome] = simulate) -> str:
    make, count = SERVERS[server]
    outcomes = [program(make(), count, workers, retry_after=retry_after, seed=seed) for seed in range(seeds)]
    slowest = max(outcome.seconds for outcome in outcomes) / make().ideal(count)
    lost = max(count - outcome.done for outcome in outcomes)
    rejected = max(outcome.rejected for outcome in outcomes)
    return f"{slowest:.2f} ×, {rejected:.1%}, {lost:,} lost"


def cell_of_chance(server: str, retry_after: float | tuple[float | None, ...] | None, seeds: int) -> str:
    found = yields(server, 16, retry_after, seeds)
    return f"{sum(found) / len(found):.1f}, {min(found):.1f}"


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
    rows = [["server", "`Retry-After: 1`", "none", "half of each"], ["---"] * 4]
    rows += [[name, *(cell_of_chance(name, asked, seeds) for asked in (1.0, None, MIXED))] for name in CHANCE]
    chance = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"""## Rate limits, and how they are kept

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

Some servers say "too many" for reasons that have little to do with the rate: one backend of many is broken, or others use
the same quota. There, each cut lowers the number of requests that succeed, and gains nothing. So a cut has to pay. If both
the rate and the number of requests that succeed per second, pauses included, have fallen below 0.8 of the best known, the
best rate is restored and kept for 12 closings of the gate, then for 24, up to 192. If it does no better than the lower rate
did, the limit has really fallen, and the lower rate returns. `Retry-After` is respected in any case, and is what costs most
here.

The next table shows 16 requests in flight for {CHANCE_SECONDS:g} simulated seconds, by what the responses ask for. Each
cell shows tiles per second: the mean and the worst of {seeds} runs.

{chance}

Hence the defaults: `max_concurrency=16`, no fixed rate, and `deadline=600`. More than 16 requests in flight help if the
server is far away and allows them, but the first excessive burst then costs more rejected requests. If you know the
limit, set `max_requests_per_second` slightly below it, and no request is rejected.

To reproduce: `python benchmarks/limiter_simulation.py --write docs/measurements.md`.
"""


def main() -> None:
    written = page(1 if "--quick" in sys.argv else 10)
    print(written)
    if "--write" in sys.argv:
        write_section(Path(sys.argv[sys.argv.index("--write") + 1]), "limits", written)


if __name__ == "__main__":
    main()
