"""The difference of two GeoParquet files, beside a plain GeoPandas computation: the same answer, CPU time and peak memory.

python benchmarks/difference.py [number of rows] [--quick]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

OURS = """
from fused_cache_ops.changes import changed_geometry
table = changed_geometry(before, after, key="id")
found = table["geometry"].to_pylist()
"""
GEOPANDAS = """
import geopandas, pandas, shapely
old, new = (geopandas.read_parquet(path).set_index("id") for path in (before, after))
both = old.index.intersection(new.index)
one, other = old.loc[both], new.loc[both]
moved = ~one.geometry.geom_equals_exact(other.geometry, 0)
changed = moved | (one["owner"] != other["owner"]) | (one["value"] != other["value"])
parts = [old.drop(both), new.drop(both), one[moved], other[changed]]
found = list(shapely.to_wkb(pandas.concat([part.geometry for part in parts]).to_numpy()))
"""
PROGRAM = """
import hashlib, sys, time
before, after = sys.argv[1:]
started, at = time.process_time(), time.monotonic()
{program}
seconds, wall = time.process_time() - started, time.monotonic() - at
peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
print(len(found), hashlib.sha256(b"".join(sorted(found))).hexdigest(), seconds, wall, peak)
"""


def write(folder: Path, rows: int) -> list[str]:
    """Parcels with 9 corners each. One in 100 has moved, one in 100 has another owner, one in 1,000 came or went."""
    import geopandas
    import numpy as np
    import shapely

    random = np.random.default_rng(0)
    centers = random.uniform((-170, -70), (170, 70), (rows, 2))
    turns = np.linspace(0, 2 * np.pi, 9)
    corners = np.column_stack((np.cos(turns), np.sin(turns))) * 0.0002

    def parcels(places: np.ndarray) -> np.ndarray:
        points = places[:, None, :] + corners[None, :, :]
        points[:, -1] = points[:, 0]
        return shapely.polygons(points)

    ids, owners, values = np.arange(rows), random.integers(0, 1000, rows), random.uniform(0, 1, rows)
    frame = {"owner": [f"owner {number}" for number in owners], "value": values}
    before = geopandas.GeoDataFrame({"id": ids, **frame}, geometry=parcels(centers), crs="EPSG:4326")
    centers[::100] += 0.01
    ids = np.where(np.arange(rows) % 1000 == 7, ids + rows, ids)
    frame["owner"] = [f"owner {number + (at % 100 == 50)}" for at, number in enumerate(owners)]
    after = geopandas.GeoDataFrame({"id": ids, **frame}, geometry=parcels(centers), crs="EPSG:4326")
    paths = [folder / "before.parquet", folder / "after.parquet"]
    before.to_parquet(paths[0])
    after.sample(frac=1, random_state=0).to_parquet(paths[1], index=False)
    return list(map(str, paths))


def main() -> None:
    given = [argument for argument in sys.argv[1:] if argument.isdecimal()]
    rows = int(given[0]) if given else 20_000 if "--quick" in sys.argv else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder), rows)
        results = {}
        for name, program in (("ours", OURS), ("GeoPandas", GEOPANDAS)):
            command = [sys.executable, "-c", PROGRAM.replace("{program}", program), *paths]
            count, digest, *figures = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            results[name] = digest
            seconds, wall, peak = map(float, figures)
            print(f"{name:<10} {int(count):>9,} places, {seconds:6.2f} s of CPU, {wall:6.2f} s in all, peak {peak:8.1f} MiB")
        assert results["ours"] == results["GeoPandas"], "the answers differ"
        print("the same answer")


if __name__ == "__main__":
    main()
