"""A long list of tiles, planned and sent to the emulator in another process: time, requests, and peak memory.

python benchmarks/long_list.py [number of tiles]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

SENDER = """
import sys, time
from fused_cache_ops import invalidate_cache, plan_invalidation
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
started = time.monotonic()
plan = plan_invalidation("roads", tiles_file=sys.argv[1])
print(f"  planned  {plan.tile_count:>11,} tiles in {time.monotonic() - started:6.1f} s, peak {peak():6.1f} MiB")
started = time.monotonic()
result = invalidate_cache("roads", tiles_file=sys.argv[1], client_id="fused-team", deadline=3600)
requests = result.requests_sent - 1  # the lookup of the name
print(f"  sent     {result.tiles_invalidated:>11,} tiles in {time.monotonic() - started:6.1f} s, peak {peak():6.1f} MiB, "
      f"{requests} requests, {result.objects_deleted:,} objects deleted")
"""


def main() -> None:
    from fused_cache_ops.emulator import Emulator

    for count in (50_000, int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000):
        with tempfile.TemporaryDirectory() as folder, Emulator() as emulator:
            udf = emulator.register(dict, name="roads")
            emulator.fill_cache(udf, [(15, number % 4000, number // 4000) for number in range(0, count, 1000)])
            path = Path(folder, "tiles.list")
            started = time.monotonic()
            with path.open("w") as file:
                file.writelines(f"15/{number % 4000}/{number // 4000}\n" for number in range(count))
            print(f"{count:,} lines, {path.stat().st_size / 1e6:.0f} MB, written in {time.monotonic() - started:.1f} s")
            environment = {**emulator.environment(), "PATH": ""}
            subprocess.run([sys.executable, "-c", SENDER, str(path)], check=True, env=environment)
            left = emulator.cached_tiles(udf)
            print(f"  still cached: {len(left)}")


if __name__ == "__main__":
    main()
