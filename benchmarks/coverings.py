"""Coverings of many shapes and of H3 cells beside the loops that one would write instead: ratios of CPU time, side by side.

python benchmarks/coverings.py [--quick] [--only NAME] [--write docs/benchmarks-areas.md]

Both sides of a row take turns in one process, and each is given by its least CPU time. With --quick, the rows are small, and
a ratio above twice its target is an error. With --write, the differences of difference.py are measured too.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h3
import mercantile
import numpy as np
import shapely
from difference import DUCKDB, GEOPANDAS, OURS, TARGET, measure, write
from tiles import bounds_of, consume, stars

from fused_cache_ops import plan_invalidation

QUICK = "--quick" in sys.argv
ROUNDS = 3
MANY = 10**9


class Row(NamedTuple):
    """One comparison.

    Attributes:
        name: what is computed.
        peer: what it is compared with.
        ours: returns the number of tiles.
        theirs: the peer.
        target: how often the peer's time ours may take at most.
    """

    name: str
    peer: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    target: float
    rounds: int = ROUNDS


def least(row: Row) -> tuple[float, float]:
    """The least CPU time of both sides, in seconds. They take turns, so that noise hits both."""
    best = [math.inf, math.inf]
    for _ in range(row.rounds):
        for side, program in enumerate((row.ours, row.theirs)):
            started = time.process_time()
            program()
            best[side] = min(best[side], time.process_time() - started)
    return best[0], best[1]


def counted(zooms: str | int, **selection: Any) -> Callable[[], int | None]:
    return lambda: plan_invalidation("map", zooms=zooms, max_tiles=MANY, **selection).tile_count


def by_boxes(path: str, shallowest: int, deepest: int) -> int:
    """The tiles of boxes, by numpy: those at the deepest zoom, and their parents by shifting."""
    import pyarrow.parquet

    shapes = shapely.from_wkb(pyarrow.parquet.read_table(path, columns=["geometry"])["geometry"].to_numpy())
    west, south, east, north = shapely.bounds(shapes).T
    size = 2**deepest

    def row(latitude: Any) -> Any:
        sine = np.sin(np.radians(latitude))
        return np.floor((0.5 - np.log((1 + sine) / (1 - sine)) / (4 * np.pi)) * size).astype(np.int64)

    left, right = (np.floor((each + 180) / 360 * size).astype(np.int64) for each in (west, east))
    top, bottom = row(north), row(south)
    wide, high = right - left + 1, bottom - top + 1
    box = np.repeat(np.arange(len(left)), wide * high)
    step = np.arange(len(box)) - np.repeat(np.cumsum(wide * high) - wide * high, wide * high)
    column, line = left[box] + step % wide[box], top[box] + step // wide[box]
    total = 0
    for _ in range(deepest, shallowest - 1, -1):
        keys = np.unique(column << 32 | line)
        total += len(keys)
        column, line = (keys >> 32) >> 1, (keys & (2**32 - 1)) >> 1
    return total


def by_corners(cells: list[str], zooms: range) -> int:
    """The tiles of the corners of cells, one after the other."""
    found = set()
    for cell in cells:
        for latitude, longitude in h3.cell_to_boundary(cell):
            for zoom in zooms:
                found.add(mercantile.tile(longitude, latitude, zoom))
    return len(found)


def rows(folder: Path) -> Iterator[Row]:
    small = 50 if QUICK else 1
    polygons = write(folder, 1_000_000 // small)[0]
    yield Row(
        f"{1_000_000 // small:,} small polygons of a file, zooms 8–14",
        "numpy: boxes at the deepest zoom, parents by shifts",
        counted("8-14", geometry=polygons),
        lambda: by_boxes(polygons, 8, 14),
        1.2,
    )
    random = np.random.default_rng(0)
    places = zip(random.uniform(-70, 70, 200_000 // small).tolist(), random.uniform(-180, 180, 200_000 // small).tolist())
    cells = [h3.latlng_to_cell(*place, 11) for place in places]
    yield Row(
        f"{len(cells):,} scattered H3 cells (resolution 11), zooms 8–14",
        "a loop of h3 and mercantile over their corners, one zoom",
        counted("8-14", cells=cells),
        lambda: by_corners(cells, range(14, 15)),
        1.0,
    )
    disk = h3.grid_disk(h3.latlng_to_cell(38.72, -9.14, 9), 35 if QUICK else 250)
    yield Row(
        f"{len(disk):,} neighboring H3 cells (resolution 9), zooms 8–16",
        "the same loop, one zoom",
        counted("8-16", cells=disk),
        lambda: by_corners(disk, range(16, 17)),
        1.0,
    )
    files = h3.grid_disk(h3.latlng_to_cell(38.72, -9.14, 7), 25 if QUICK else 60)
    dataset = folder / "hexes"
    dataset.mkdir()
    for cell in files:
        (dataset / f"{cell}.parquet").touch()
    for rendering, target in ((None, 1.5), ("fused", 3.0)):
        yield Row(
            f"H3 dataset of {len(files):,} files (resolution 7), zooms 4–12, drawn: {rendering}",
            "the same loop over the files' own cells, all zooms",
            counted("4-12", hex_dataset=str(dataset), render_resolution=rendering),
            lambda: by_corners(files, range(4, 13)),
            target,
        )
    bounds = bounds_of(300 if QUICK else 1000)
    plan = plan_invalidation("map", bounds=bounds, zooms=15, max_tiles=MANY)
    yield Row(
        f"bounds to {plan.tile_count:,} Tile objects",
        "mercantile",
        lambda: consume(plan.tiles()),
        lambda: consume(mercantile.tiles(*bounds, 15)),
        1 / 3.6,
    )
    shape = stars()
    text = shapely.to_geojson(shape)
    try:
        import utiles
    except ImportError:  # it needs Python 3.11
        return
    for zoom, target in ((14, 2.0), (15, 1.5), (16, 1.0)):
        yield Row(
            f"a multipolygon of {len(shapely.get_coordinates(shape)):,} vertices, zoom {zoom}",
            "utiles",
            counted(zoom, geometry=shape),
            lambda zoom=zoom: len(list(utiles.geojson2tiles(text, zoom))),
            target,
            rounds=9 if QUICK else 41,
        )


PAGE = """# Benchmarks: areas and differences

{versions}.

Times are CPU time on {cores} cores, the least of several runs in turns. Imports are not counted. The ratios are what matters.

## From areas to tiles

| what | ours | beside | its time | ratio | target |
| --- | ---: | --- | ---: | ---: | ---: |
{coverings}

Both sides read the polygons from a Parquet file. The loop over the corners of H3 cells misses tiles that a cell touches only
with an edge. Of each multipolygon's time, {validity:.1f} ms go into checking that it is valid, which utiles does not do.

## What changed between two states

Two GeoParquet files of parcels with nine corners. One in 100 has moved, one in 100 has another owner, and one in 1,000 came or
went. DuckDB runs plain SQL, a full join with `IS DISTINCT FROM`, which does not check keys. All give the same answer.

| rows | memory limit | | CPU | relative to DuckDB | target | peak memory |
| ---: | --- | --- | ---: | ---: | ---: | ---: |
{differences}

## To reproduce

```sh
python benchmarks/coverings.py --write docs/benchmarks-areas.md  # takes minutes; --quick takes seconds
python benchmarks/difference.py 4000000 --memory-limit 500MB
```
"""
DIFFERENCES = ((1_000_000, ""), (4_000_000, ""), (4_000_000, "500MB"), (12_000_000, "1GB"))


def differences() -> Iterator[str]:
    for rows, limit in DIFFERENCES:
        programs = {"ours": OURS, "DuckDB": DUCKDB} | ({"GeoPandas": GEOPANDAS} if rows <= 1_000_000 else {})
        best = measure(rows, limit, programs, 3 if rows <= 4_000_000 else 2)[1]
        for name, (cpu, _, peak) in best.items():
            ratio = f"{cpu / best['DuckDB'].cpu:.2f} ×" if name != "DuckDB" else ""
            target = f"≤ {TARGET} ×" if name == "ours" else ""
            yield f"| {rows:,} | {limit or 'default'} | {name} | {cpu:.2f} s | {ratio} | {target} | {peak:,.0f} MiB |"


def page(coverings: list[str]) -> str:
    import os
    import platform
    from importlib.metadata import version

    names = ("duckdb", "h3", "mercantile", "numpy", "shapely", "utiles")
    versions = ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in names)])
    shape = stars()
    validity = least(Row("", "", lambda: shapely.is_valid(shape), lambda: None, 1.0, rounds=41))[0] * 1000
    found = {"coverings": "\n".join(coverings), "differences": "\n".join(differences())}
    return PAGE.format(versions=versions, cores=os.cpu_count(), validity=validity, **found)


def main() -> None:
    only = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else ""
    missed, table = [], []
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(Path(folder)):
            if only not in row.name:
                continue
            ours, theirs = least(row)
            ratio = ours / theirs
            times = [f"{each * 1000:,.1f} ms" if each < 0.1 else f"{each:,.2f} s" for each in (ours, theirs)]
            print(f"{row.name:<75} {times[0]:>9}, {row.peer}: {times[1]:>9}, {ratio:5.2f} × ≤ {row.target:.2f}", flush=True)
            table.append(f"| {row.name} | {times[0]} | {row.peer} | {times[1]} | {ratio:.2f} × | ≤ {row.target:.2f} × |")
            if ratio > 2 * row.target:
                missed.append(row.name)
    if "--write" in sys.argv:
        Path(sys.argv[sys.argv.index("--write") + 1]).write_text(page(table))
    if QUICK and missed:
        sys.exit(f"Above twice the target: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
