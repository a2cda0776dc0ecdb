"""A refresh of 10,000 tiles, beside the ideal for the run time and the concurrency, with the cache hits afterwards.

python benchmarks/refresh.py [--quick]

The UDF takes 0.05 s a run. The refresh runs in a process of its own, beside the emulator. Shown are the time beside the ideal
(tiles × seconds per run / concurrency), the runs, the hits of a second refresh, and peak memory beside that of a refresh of a
tenth of the tiles.
"""

from __future__ import annotations

import subprocess
import sys
import time

SECONDS = 0.05
AT_ONCE = 16

PROGRAM = """
import sys, time
from fused_cache_ops import FusedClient
token, count, at_once = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
tiles = [(15, number % 1000, number // 1000) for number in range(count)]
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
with FusedClient(deadline=600) as client:
    started, at = time.process_time(), time.monotonic()
    result = client.invalidate_cache(
        token, tiles=tiles, refresh={"max_tiles": count, "concurrency": at_once, "deadline": 1800}
    )
    first = result.refresh
    wall, cpu = first.elapsed_seconds, time.process_time() - started
    again = client.refresh_cache(token, tiles=tiles, refresh={"max_tiles": count, "concurrency": at_once, "deadline": 1800})
    counts = (first.runs, len(first.failed), again.already_cached, again.runs)
    print(wall, cpu, *counts, first.seconds_median, first.seconds_p95, peak())
"""


def main() -> None:
    from fused_cache_ops.emulator import Emulator

    def slow(z: int, x: int, y: int) -> list[int]:
        time.sleep(SECONDS)
        return [z, x, y]

    count = 1000 if "--quick" in sys.argv else 10_000
    peaks = []
    for tiles in (count // 10, count):
        with Emulator() as emulator:
            udf = emulator.register(slow)
            environment = {**emulator.environment(), "PATH": ""}
            program = [sys.executable, "-c", PROGRAM, udf.shared_token, str(tiles), str(AT_ONCE)]
            done = subprocess.run(program, check=True, env=environment, capture_output=True, text=True).stdout.split()
            wall, cpu, runs, failed, hits, more, median, p95, peak = map(float, done)
            assert (runs, failed, hits, more) == (tiles, 0, tiles, 0), done
            assert len(emulator.runs) == tiles
        ideal = tiles * SECONDS / AT_ONCE
        peaks.append(peak)
        print(
            f"{tiles:>6,} tiles: {wall:6.1f} s, {wall / ideal:.2f} × the ideal of {ideal:.1f} s, {cpu:5.1f} s of CPU, a run "
            f"{median:.3f} s (95 %: {p95:.3f}), {runs:,.0f} runs, then {hits:,.0f} hits, peak {peak:.1f} MiB"
        )
    print(f"peak memory, ten times the tiles: {peaks[1] / peaks[0]:.2f} ×")


if __name__ == "__main__":
    main()
