"""The difference of two COGs, beside reading both with rasterio.

python benchmarks/rasters.py [pixels on a side]

Both have overviews as the COG driver makes them, and differ in three places. Each way runs in a process of its own, in turns.
Shown are the number of rectangles, the least CPU time, and the peak memory, imports included. A ratio above its target is an
error from 10,000 pixels on: opening the files takes longer than comparing small ones.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TARGETS = {"stored alike": 0.1, "stored otherwise": 1.2}
OURS = """
import numpy.ma, pyarrow, rasterio, rasterio.windows, shapely
from fused_cache_ops.changes import changed_raster
def compare():
    table = changed_raster(before, after, margin=0)
    return [each.bounds for each in shapely.from_wkb(table["geometry"].to_pylist())]
"""
RASTERIO = """
import rasterio
def compare():
    found = []
    with rasterio.open(before) as old, rasterio.open(after) as new:
        for _, window in old.block_windows(1):
            one, two = old.read(1, window=window), new.read(1, window=window)
            if not ((one == two) | ((one != one) & (two != two))).all():
                found.append(rasterio.windows.bounds(window, old.transform))
    return found
"""
PROGRAM = """
import sys, time
before, after = sys.argv[1:]
{program}
started = time.process_time()
found = compare()
seconds = time.process_time() - started
peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
print(len(found), seconds, peak)
"""


def write(folder: Path, side: int) -> dict[str, list[str]]:
    """A COG, one of the same compression that differs in three places, and one of another compression that does too."""
    import numpy as np
    import rasterio
    from affine import Affine

    random = np.random.default_rng(0)
    y, x = np.mgrid[0:side, 0:side].astype("float32")
    data = np.sin(x / 97) * 100 + np.cos(y / 61) * 50 + random.random((side, side), dtype=np.float32)
    data[np.abs(x - side / 2) + np.abs(y - side / 2) > side * 0.45] = np.nan
    after = data.copy()
    for column, row in ((0.3, 0.5), (0.52, 0.71), (0.6, 0.4)):
        after[int(row * side) : int(row * side) + 40, int(column * side) : int(column * side) + 40] += 10
    profile: dict[str, Any] = {"driver": "COG", "width": side, "height": side, "count": 1, "dtype": "float32"}
    profile |= {"crs": "EPSG:32633", "transform": Affine(10, 0, 400_000, 0, -10, 5_400_000), "nodata": np.nan}
    profile |= {"compress": "deflate", "predictor": "yes", "blocksize": 512}
    paths = {}
    for name, pixels, level in (("before", data, 1), ("after", after, 1), ("other", after, 6)):
        paths[name] = str(folder / f"{name}.tif")
        with rasterio.open(paths[name], "w", **profile, level=level) as file:
            file.write(pixels, 1)
    return {kind: [paths["before"], paths[name]] for kind, name in (("stored alike", "after"), ("stored otherwise", "other"))}


def measured(program: str, paths: list[str]) -> tuple[int, float, float]:
    """How many rectangles were found, the CPU time and the peak memory in MiB."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("{program}", program), *paths], capture_output=True, text=True, check=True
    )
    found, seconds, peak = run.stdout.split()
    return int(found), float(seconds), float(peak)


def main() -> None:
    """Print a table, and fail if a target is missed."""
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    print(f"| two COGs of {side:,} × {side:,} pixels | changed_raster | reading both with rasterio | ratio |")
    print("| --- | --- | --- | --- |")
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, paths in write(Path(folder), side).items():
            runs = [(measured(OURS, paths), measured(RASTERIO, paths)) for _ in range(3)]
            (count, ours, peak), (_, others, their_peak) = (min(each, key=lambda run: run[1]) for each in zip(*runs))
            print(f"| {kind}: {count} found | {ours:.2f} s, {peak:.0f} MiB | {others:.2f} s, {their_peak:.0f} MiB | ", end="")
            print(f"{ours / others:.2f} |", flush=True)
            if side >= 10_000 and ours / others > TARGETS[kind] * 1.1:
                missed.append(kind)
    if missed:
        sys.exit(f"Slower than the targets, {TARGETS}: {', '.join(missed)}")


if __name__ == "__main__":
    main()
