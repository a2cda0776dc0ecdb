"""A long list of tiles, planned and sent to the emulator in another process, beside reading it line by line.

python benchmarks/long_list.py [number of tiles] [--quick]

Line by line is how a list is read that holds anything but plain lines. The first line is then a comment.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAM = """
import sys, time
from fused_cache_ops import invalidate_cache, plan_invalidation
from fused_cache_ops.selection import tile_list
if sys.argv[2] == "by line":
    tile_list._plain_piece = lambda lines, max_zoom: None
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
def run(what):
    started = time.process_time()
    if what == "plan":
        return plan_invalidation("roads", tiles_file=sys.argv[1]).tile_count, time.process_time() - started
    result = invalidate_cache("roads", tiles_file=sys.argv[1], client_id="fused-team", deadline=3600)
    return result.tiles_invalidated, time.process_time() - started
count, seconds = run(sys.argv[3])
print(count, seconds, peak())
"""


def main() -> None:
    from fused_cache_ops.emulator import Emulator

    given = [argument for argument in sys.argv[1:] if argument.isdecimal()]
    count = int(given[0]) if given else 100_000 if "--quick" in sys.argv else 10_000_000
    for order in ("in random order", "sorted"):
        with tempfile.TemporaryDirectory() as folder, Emulator() as emulator:
            udf = emulator.register(dict, name="roads")
            emulator.fill_cache(udf, [(15, number % 4000, number // 4000) for number in range(0, count, 1000)])
            numbers = list(range(count))
            if order != "sorted":
                random.Random(1).shuffle(numbers)
            path = Path(folder, "tiles.list")
            with path.open("w") as file:
                file.writelines(f"15/{number // 4000}/{number % 4000}\n" for number in numbers)
            del numbers
            print(f"{count:,} lines {order}, {path.stat().st_size / 1e6:.0f} MB")
            for what in ("plan", "send"):
                seconds = {}
                for how in ("at once", "by line"):
                    program = [sys.executable, "-c", PROGRAM, str(path), how, what]
                    environment = {**emulator.environment(), "PATH": ""}
                    done = subprocess.run(program, check=True, env=environment, capture_output=True, text=True).stdout.split()
                    assert int(done[0]) == count
                    seconds[how] = float(done[1])
                    print(f"  {what} {how}: {seconds[how]:6.2f} s of CPU, peak {float(done[2]):6.1f} MiB")
                print(f"  {what}: {seconds['by line'] / seconds['at once']:.1f} × as fast")


if __name__ == "__main__":
    main()
