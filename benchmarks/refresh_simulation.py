"""Who waits after an invalidation: a popular map, with and without a refresh, simulated.

python benchmarks/refresh_simulation.py [--quick] [--write docs/refresh.md]
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import random
import sys
from pathlib import Path
from typing import NamedTuple

from pages import write_section

TILES = 10_000
REQUESTS_PER_SECOND = 20.0
MINUTES = 30
RUN = 2.0  # seconds
COLD_START = 12.0  # seconds until the instance is warm, which the first runs wait for


class Outcome(NamedTuple):
    """Requests of visitors, those that waited for a run, and the runs of the refresh."""

    requests: int
    waited: int
    runs: int


def simulate(seed: int, refreshed: int, at_once: int, later: float) -> Outcome:
    """One load at time 0, which invalidates every tile. The refresh takes the hottest tiles first.

    The service makes as many runs at once as it is asked for.

    Args:
        seed: for the visitors.
        refreshed: how many tiles the refresh takes.
        at_once: its concurrency.
        later: seconds after the load at which the visitors come.
    """
    draw = random.Random(seed)
    shares = list(itertools.accumulate(1 / rank for rank in range(1, TILES + 1)))
    ready: dict[int, float] = {}  # when the result of a tile is in the cache
    workers = [0.0] * at_once
    todo = iter(range(refreshed))
    requests = waited = runs = 0
    now = later

    def run(tile: int, began: float) -> float:
        ended = max(began, COLD_START) + RUN
        ready[tile] = min(ended, ready.get(tile, ended))
        return ended

    while now < later + MINUTES * 60:
        now += draw.expovariate(REQUESTS_PER_SECOND)
        while workers and workers[0] <= now:
            began = heapq.heappop(workers)
            tile = next((each for each in todo if ready.get(each, began + 1) > began), None)
            if tile is not None:
                runs += 1
                heapq.heappush(workers, run(tile, began))
        requests += 1
        tile = bisect.bisect_left(shares, draw.random() * shares[-1])
        if ready.get(tile, now + 1) > now:  # also while another's run is under way
            waited += 1
            run(tile, now)
    return Outcome(requests, waited, runs)


def table(repeats: int) -> str:
    """The table, as markdown."""
    rows = []
    for refreshed, at_once in ((0, 4), (500, 4), (1000, 4), (2000, 4), (TILES, 4), (TILES, 16)):
        cells = []
        for later in (0.0, 3600.0):
            requests, waited, runs = map(sum, zip(*(simulate(seed, refreshed, at_once, later) for seed in range(repeats))))
            cells.append(f"{waited / repeats:,.0f} ({waited / requests:.1%})")
        amount = f"{refreshed:,}" if refreshed < TILES else "all"
        name = f"{amount}, {at_once} at once" if refreshed else "none"
        rows.append(f"| {name} | {runs / repeats:,.0f} | {' | '.join(cells)} |")
    head = "| refresh | its runs | waited, visitors there at once | waited, visitors an hour later |\n| --- | --: | --: | --: |"
    return "\n".join([head, *rows])


def main() -> None:
    written = table(1 if "--quick" in sys.argv else 5)
    print(written)
    if "--write" in sys.argv:
        write_section(Path(sys.argv[sys.argv.index("--write") + 1]), "simulation", written)


if __name__ == "__main__":
    main()
