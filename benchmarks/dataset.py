"""A dataset that 20 UDFs show and a load that changed 100,000 tiles, beside 20 calls one after another.

python benchmarks/dataset.py [--quick]

Each way runs in a process of its own, against the emulator in another, which waits 0.2 s before each response. Shown are the
requests, CPU time, wall-clock time and peak memory.
"""

from __future__ import annotations

import subprocess
import sys

LATENCY = 0.2  # seconds that each response takes at least, as over a network

PROGRAM = """
import resource, sys, time
from fused_cache_ops import CacheMap, FusedClient
how, kind, count, udfs = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
names = [f"map-{number}" for number in range(udfs)]
if kind == "tiles":
    given, own = {"tiles": [(15, number % 1000, number // 1000) for number in range(count)]}, {}
else:
    import math
    from shapely.geometry import Polygon
    turns = [2 * math.pi * number / 10000 for number in range(10000)]
    ring = [(10 + (3 + 0.2 * math.sin(40 * turn)) * math.cos(turn), 50 + 2 * math.sin(turn)) for turn in turns]
    given, own = {"geometry": Polygon(ring)}, {"zooms": "8-13"}
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
with FusedClient(client_id="fused-team", deadline=600) as client:
    client.invalidate_cache(names[0], tiles=["0/0/0"])
    started, at = time.process_time(), time.monotonic()
    if how == "dataset":
        cache_map = CacheMap.from_dict({"datasets": {"parcels": {"udfs": [{"udf": name, **own} for name in names]}}})
        results = client.invalidate_dataset("parcels", cache_map=cache_map, **given).results.values()
    else:
        results = [client.invalidate_cache(name, **own, **given) for name in names]
    print(time.process_time() - started, time.monotonic() - at, sum(each.requests_sent for each in results),
          sum(each.tiles_invalidated for each in results), peak())
"""


def main() -> None:
    from fused_cache_ops.emulator import Emulator

    udfs, count = (5, 10_000) if "--quick" in sys.argv else (20, 100_000)
    with Emulator() as emulator:
        for number in range(udfs):
            emulator.register(dict, name=f"map-{number}")
        emulator.misbehave(latency=LATENCY, times=None)
        for kind in ("tiles", "geometry"):
            found = {}
            for how in ("dataset", "calls") * 3:
                program = [sys.executable, "-c", PROGRAM, how, kind, str(count), str(udfs)]
                environment = {**emulator.environment(), "PATH": ""}
                done = subprocess.run(program, check=True, env=environment, capture_output=True, text=True).stdout.split()
                found[how] = min(found.get(how, done), done, key=lambda each: float(each[1]))
            print(f"{udfs} UDFs, {kind}, {int(found['dataset'][3]):,} tiles in all")
            assert found["dataset"][2:4] == found["calls"][2:4]
            for how, (cpu, wall, requests, _, peak) in found.items():
                times = f"{float(cpu):6.2f} s of CPU, {float(wall):6.2f} s"
                print(f"  {how:8} {requests:>5} requests, {times}, {float(peak):6.1f} MiB")
            ratios = [float(found["calls"][number]) / float(found["dataset"][number]) for number in (0, 1)]
            print("  the calls take {:.1f} × the CPU and {:.1f} × the time".format(*ratios))


if __name__ == "__main__":
    main()
