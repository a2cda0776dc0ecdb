"""The difference of two GeoParquet files, beside plain SQL in DuckDB and a plain GeoPandas computation.

python benchmarks/difference.py [number of rows] [--memory-limit 500MB] [--quick]

Each runs in a process of its own, in turns. Shown are the least CPU time, the time that it took, and its peak memory. The
answers are compared. With --quick, there are few rows, and CPU time above twice the target is an error.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

TARGET = 1.5  # of the CPU time of DuckDB
OURS = """
import duckdb, pyarrow.parquet, pyproj, shapely
from fused_cache_ops.changes import changed_geometry
def compare():
    table = changed_geometry(before, after, key="id", memory_limit=limit or None)
    return table["geometry"].to_pylist()
"""
DUCKDB = '''
import duckdb
connection = duckdb.connect(config={"threads": 2, "preserve_insertion_order": "false", "temp_directory": before + ".tmp"})
connection.execute("SET enable_geoparquet_conversion = false; SET enable_progress_bar = false")
if limit:
    connection.execute(f"SET memory_limit = '{limit}'")
def compare():
    sql = f"""
        SELECT CASE WHEN n.id IS NULL OR o.geometry IS DISTINCT FROM n.geometry THEN o.geometry END, n.geometry
        FROM '{before}' o FULL JOIN '{after}' n ON o.id = n.id
        WHERE o.id IS NULL OR n.id IS NULL OR o.geometry IS DISTINCT FROM n.geometry OR o.owner IS DISTINCT FROM n.owner
        OR o.value IS DISTINCT FROM n.value
    """
    table = connection.sql(sql).to_arrow_table()
    return [place for column in table.columns for place in column.drop_null().to_pylist()]
'''
GEOPANDAS = """
import geopandas, pandas, shapely
def compare():
    old, new = (geopandas.read_parquet(path).set_index("id") for path in (before, after))
    both = old.index.intersection(new.index)
    one, other = old.loc[both], new.loc[both]
    moved = ~one.geometry.geom_equals_exact(other.geometry, 0)
    changed = moved | (one["owner"] != other["owner"]) | (one["value"] != other["value"])
    parts = [old.drop(both), new.drop(both), one[moved], other[changed]]
    return list(shapely.to_wkb(pandas.concat([part.geometry for part in parts]).to_numpy()))
"""
PROGRAM = """
import hashlib, sys, time
before, after, limit = sys.argv[1:]
{program}
started, at = time.process_time(), time.monotonic()
found = compare()
seconds, wall = time.process_time() - started, time.monotonic() - at
peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
print(len(found), hashlib.sha256(b"".join(sorted(found))).hexdigest(), seconds, wall, peak)
"""
_AT_ONCE = 500_000


def write(folder: Path, rows: int) -> list[str]:
    """Parcels with 9 corners each. One in 100 has moved, one in 100 has another owner, one in 1,000 came or went."""
    import json

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet

    random = np.random.default_rng(0)
    centers = random.uniform((-170, -70), (170, 70), (rows, 2))
    owners, values = random.integers(0, 1000, rows), random.uniform(0, 1, rows)
    turns = np.linspace(0, 2 * np.pi, 9)
    corners = np.column_stack((np.cos(turns), np.sin(turns))) * 0.0002
    head = np.frombuffer(b"\x01\x03\x00\x00\x00\x01\x00\x00\x00\x09\x00\x00\x00", np.uint8)  # a polygon of one ring, in WKB
    says = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {"geometry": {"encoding": "WKB", "geometry_types": []}},
    }
    fields = [("id", pa.int64()), ("owner", pa.string()), ("value", pa.float64()), ("geometry", pa.binary())]
    schema = pa.schema(fields, metadata={"geo": json.dumps(says)})

    def some(which: np.ndarray, is_later: bool) -> pa.Table:
        places = centers[which] + np.where(which % 100 == 0, 0.01, 0.0)[:, None] * is_later
        points = places[:, None, :] + corners[None, :, :]
        points[:, -1] = points[:, 0]
        wkb = np.empty((len(which), len(head) + 16 * 9), np.uint8)
        wkb[:, : len(head)] = head
        wkb[:, len(head) :] = points.reshape(len(which), -1).view(np.uint8)
        ids = np.where(which % 1000 == 7, which + rows, which) if is_later else which
        owner = owners[which] + (which % 100 == 50) * is_later
        geometry = pa.Array.from_buffers(pa.binary(wkb.shape[1]), len(wkb), [None, pa.py_buffer(wkb)]).cast(pa.binary())
        return pa.table([pa.array(ids), pa.array([f"owner {number}" for number in owner]), values[which], geometry], schema)

    paths = [folder / "before.parquet", folder / "after.parquet"]
    for path, order in zip(paths, (np.arange(rows), random.permutation(rows))):
        with pyarrow.parquet.ParquetWriter(path, schema) as writer:
            for start in range(0, rows, _AT_ONCE):
                writer.write_table(some(order[start : start + _AT_ONCE], path == paths[1]))
    return list(map(str, paths))


class Figures(NamedTuple):
    """CPU seconds, seconds in all, and the peak of memory in MiB."""

    cpu: float
    wall: float
    peak: float


def measure(rows: int, limit: str, programs: dict[str, str], rounds: int) -> tuple[int, dict[str, Figures]]:
    """The number of places that differ, and each program's least figures.

    Raises:
        SystemExit: the answers differ.
    """
    best: dict[str, Figures] = {}
    answers = set()
    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder), rows)
        for _ in range(rounds):
            for name, program in programs.items():
                command = [sys.executable, "-c", PROGRAM.replace("{program}", program), *paths, limit]
                count, digest, *figures = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
                answers.add((int(count), digest))
                best[name] = min(best.get(name, Figures(1e9, 0, 0)), Figures(*map(float, figures)))
    if len(answers) != 1:
        sys.exit("The answers differ.")
    return answers.pop()[0], best


def main() -> None:
    given = sys.argv[1:]
    limit = given[given.index("--memory-limit") + 1] if "--memory-limit" in given else ""
    numbers = [argument for argument in given if argument.isdecimal()]
    rows = int(numbers[0]) if numbers else 200_000 if "--quick" in given else 1_000_000
    programs = {"ours": OURS, "DuckDB": DUCKDB}
    if rows <= 1_000_000 and not limit and "--quick" not in given:
        programs["GeoPandas"] = GEOPANDAS
    count, best = measure(rows, limit, programs, 3 if rows <= 4_000_000 else 2)
    print(f"difference of {rows:,} rows, {count:,} places, memory limit: {limit or 'none'}")
    for name, (cpu, wall, peak) in best.items():
        ratio = cpu / best["DuckDB"].cpu
        print(f"  {name:<10} {cpu:6.2f} s of CPU ({ratio:.2f} × DuckDB), {wall:6.2f} s in all, peak {peak:7.1f} MiB")
    if "--quick" in given and best["ours"].cpu > 2 * TARGET * best["DuckDB"].cpu:
        sys.exit(f"Above twice the target of {TARGET} × DuckDB.")


if __name__ == "__main__":
    main()
