"""The tiles of a changelog of Overture: how long its rows take, and how much memory.

python benchmarks/changelog.py [rows]

Each run is a process of its own. Shown are the tiles at zooms 0 to 14, the CPU time, and the peak memory, imports included,
beside what reading the boxes with pyarrow takes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

READING = """
def run():
    return changelog.num_rows
"""
TILES = """
from fused_cache_ops import plan_invalidation
def run():
    how = {"geometry_column": "bbox", "crs": "EPSG:4326", "zooms": "0-14", "max_tiles": 10_000_000}
    return plan_invalidation("buildings", geometry=changelog, **how).tile_count
"""
PROGRAM = """
import sys, time
import pyarrow.compute as pc
import pyarrow.dataset as ds
import numpy, shapely, pyproj
{program}
is_same = pc.field("change_type") == "unchanged"
changed = is_same.is_null() | ~is_same
started = time.process_time()
changelog = ds.dataset(sys.argv[1], format="parquet").to_table(columns=["bbox"], filter=changed)
found = run()
seconds = time.process_time() - started
peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
print(found, seconds, peak)
"""


def write(path: Path, rows: int, spread: float) -> None:
    """A changelog with the columns that ``overturemaps`` reads: buildings in 500 towns, a tenth of them unchanged."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(0)
    towns = np.column_stack((random.uniform(-170, 170, 500), random.uniform(-55, 70, 500)))[random.integers(0, 500, rows)]
    places = (towns + random.normal(0, spread, (rows, 2))).clip((-179, -84), (179, 84))
    sizes = random.uniform(0.00005, 0.0005, (rows, 2))
    ends = {"xmin": places[:, 0], "xmax": (places + sizes)[:, 0], "ymin": places[:, 1], "ymax": (places + sizes)[:, 1]}
    box = pa.StructArray.from_arrays([pa.array(end.astype("float32")) for end in ends.values()], names=list(ends))
    kinds = np.array(["added", "data_changed", "removed", "unchanged"])[random.choice(4, rows, p=[0.3, 0.4, 0.2, 0.1])]
    ids = pa.array([f"{number:032x}" for number in range(rows)])
    pq.write_table(pa.table({"id": ids, "change_type": kinds, "bbox": box}), path)


def main() -> None:
    """Print a table."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    print(f"| changelog of {rows:,} rows | tiles at zooms 0–14 | time | reading its boxes alone |")
    print("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for kind, spread in (("around 500 towns", 0.1), ("all over the land", 5.0)):
            path = Path(folder, "changelog.parquet")
            write(path, rows, spread)
            (tiles, seconds, peak), (_, least, base) = (
                subprocess.run(
                    [sys.executable, "-c", PROGRAM.replace("{program}", program), str(path)],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout.split()
                for program in (TILES, READING)
            )
            print(f"| {kind} | {int(tiles):,} | {float(seconds):.1f} s, {float(peak):.0f} MiB | ", end="")
            print(f"{float(least):.2f} s, {float(base):.0f} MiB |", flush=True)


if __name__ == "__main__":
    main()
