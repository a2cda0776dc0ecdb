"""Computing tiles from an area, compared with other libraries: ratios of CPU time, the best of several alternating runs.

python benchmarks/tiles.py [--quick]
"""

from __future__ import annotations

import collections
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import mercantile
import numpy as np
import orjson
import shapely

from fused_cache_ops import plan_invalidation
from fused_cache_ops.selection.reading import read_selection

QUICK = "--quick" in sys.argv
ROUNDS = 1 if QUICK else 7
SIDE = 100 if QUICK else 1000  # tiles along each side of the bounds

MEMORY = """
import json, sys
from fused_cache_ops import plan_invalidation
from fused_cache_ops.selection.reading import read_selection
width = int(sys.argv[1])
bounds = (-180, -80, -180 + width / 2**15 * 360, -76.185)  # 1,698 rows
keywords = {"bounds": bounds, "zooms": 15, "max_tiles": 10**9}
total = plan_invalidation("roads", **keywords).tile_count
sent = sum(len(batch) for batch in read_selection(**keywords).batches(50_000) if batch.body())
assert sent == total
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([total, int(peak.split()[1]) / 1024]))
"""


def consume(items: Iterable[Any]) -> None:
    collections.deque(items, maxlen=0)


def compare(**programs: Callable[[], Any]) -> dict[str, float]:
    """The least CPU time of each, in seconds; the programs take turns, so that noise hits all of them."""
    best = dict.fromkeys(programs, math.inf)
    for _ in range(ROUNDS):
        for name, program in programs.items():
            started = time.process_time()
            program()
            best[name] = min(best[name], time.process_time() - started)
    return best


def report(what: str, ours: float, theirs: float, name: str, target: str) -> None:
    print(f"{what:<62} {ours * 1000:9.1f} ms {theirs * 1000:9.1f} ms  {theirs / ours:6.2f} × as fast as {name} ({target})")


def bounds_of(side: int, zoom: int = 15) -> tuple[float, float, float, float]:
    first, last = mercantile.bounds(8000, 12000, zoom), mercantile.bounds(8000 + side - 1, 12000 + side - 1, zoom)
    return first.west + 1e-9, last.south + 1e-9, last.east - 1e-9, first.north - 1e-9


def stars(count: int = 10, corners: int = 1000) -> shapely.MultiPolygon:
    """A multipolygon of 10 rough stars, each with a hole of 25 corners: some 10,000 vertices."""
    random = np.random.default_rng(0)
    polygons = []
    for number in range(count):
        angle = np.linspace(0, 2 * np.pi, corners - 25, endpoint=False)
        radius = 0.15 * (1 + 0.3 * np.sin(7 * angle + number) + 0.02 * random.standard_normal(len(angle)))
        x, y = -9 + 0.55 * (number % 5), 38 + 0.5 * (number // 5)
        ring = np.c_[x + radius * np.cos(angle), y + radius * np.sin(angle)]
        turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        polygons.append(shapely.Polygon(ring, [np.c_[x + 0.05 * np.cos(turn), y + 0.05 * np.sin(turn)]]))
    return shapely.MultiPolygon(polygons)


def main() -> None:
    bounds = bounds_of(SIDE)
    count = plan_invalidation("roads", bounds=bounds, zooms=15, max_tiles=10**9).tile_count or 0
    print(f"Python {sys.version.split()[0]}, {count:,} tiles in bounds, best of {ROUNDS}; ours first\n")

    selection = read_selection(bounds=bounds, zooms=15, max_tiles=10**9)
    times = compare(
        ours=lambda: consume(selection.tiles()),
        theirs=lambda: consume(mercantile.tiles(*bounds, 15)),
    )
    report("bounds to Tile objects, beside mercantile.tiles", times["ours"], times["theirs"], "mercantile", "target 5")

    batches = [
        [{"z": tile.z, "x": tile.x, "y": tile.y} for tile in batch]
        for batch in read_selection(bounds=bounds, zooms=15, max_tiles=10**9).batches(50_000)
    ]
    times = compare(
        ours=lambda: consume(batch.body() for batch in selection.batches(50_000)),
        theirs=lambda: consume(orjson.dumps({"tiles": batch}) for batch in batches),
    )
    report("bounds to batch bodies, beside orjson on ready dicts", times["ours"], times["theirs"], "orjson", "target 0.5")
    listed = [tile for batch in selection.batches(50_000) for tile in batch]
    plain = read_selection(tiles=listed)
    times = compare(
        ours=lambda: consume(batch.body() for batch in plain.batches(50_000)),
        theirs=lambda: consume(orjson.dumps({"tiles": batch}) for batch in batches),
    )
    report("a list of Tile, checked, to batch bodies, beside the same", times["ours"], times["theirs"], "orjson", "no target")

    print("\npeak memory of a process that plans bounds and encodes every batch")
    for width in (50, 100) if QUICK else (589, 2945, 11780):
        done = subprocess.run([sys.executable, "-c", MEMORY, str(width)], check=True, capture_output=True, text=True)
        total, peak = json.loads(done.stdout)
        print(f"  {total:>11,} tiles {peak:8.1f} MiB")

    try:
        import utiles
    except ImportError:
        print("\nutiles is not installed here (it needs Python 3.11): no comparison of geometries")
        return
    shape = stars()
    text = shapely.to_geojson(shape)
    print(f"\na multipolygon of {len(shapely.get_coordinates(shape)):,} vertices with holes, counted")
    for zoom in (14, 15, 16):
        times = compare(
            ours=lambda zoom=zoom: plan_invalidation("roads", geometry=shape, zooms=zoom).tile_count,
            theirs=lambda zoom=zoom: len(list(utiles.geojson2tiles(text, zoom))),
        )
        ours = plan_invalidation("roads", geometry=shape, zooms=zoom).tile_count
        theirs = len(list(utiles.geojson2tiles(text, zoom)))
        report(f"  zoom {zoom}: {ours:,} tiles, utiles {theirs:,}", times["ours"], times["theirs"], "utiles", "target 0.33")


if __name__ == "__main__":
    main()
