"""Coverings of many shapes and of H3 cells beside the loops that one would write instead: ratios of CPU time, side by side.

python benchmarks/coverings.py [--quick] [--only NAME]

Both sides of a row take turns in one process, and each is given by its least CPU time. With --quick, the rows are small, and
a ratio above twice its target is an error.
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
from difference import write
from tiles import bounds_of, stars

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
    files = h3.grid_disk(h3.latlng_to_cell(38.72, -9.14, 7), 8 if QUICK else 60)
    dataset = folder / "hexes"
    dataset.mkdir()
    for cell in files:
        (dataset / f"{cell}.parquet").touch()
    for rendering in (None, "fused"):
        yield Row(
            f"H3 dataset of {len(files):,} files (resolution 7), zooms 4–12, drawn: {rendering}",
            "the same loop over the files' own cells, one zoom",
            counted("4-12", hex_dataset=str(dataset), render_resolution=rendering),
            lambda: by_corners(files, range(12, 13)),
            5.0,
        )
    shape = stars()
    text = shapely.to_geojson(shape)
    import utiles

    for zoom, target in ((14, 2.0), (15, 1.5), (16, 1.0)):
        yield Row(
            f"a multipolygon of {len(shapely.get_coordinates(shape)):,} vertices, zoom {zoom}",
            "utiles",
            counted(zoom, geometry=shape),
            lambda zoom=zoom: len(list(utiles.geojson2tiles(text, zoom))),
            target,
            rounds=9 if QUICK else 41,
        )
    bounds = bounds_of(300 if QUICK else 1000)
    plan = plan_invalidation("map", bounds=bounds, zooms=15, max_tiles=MANY)
    yield Row(
        f"bounds to {plan.tile_count:,} Tile objects",
        "mercantile",
        lambda: sum(1 for _ in plan.tiles()),
        lambda: sum(1 for _ in mercantile.tiles(*bounds, 15)),
        1 / 3.6,
    )


def main() -> None:
    only = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else ""
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(Path(folder)):
            if only not in row.name:
                continue
            ours, theirs = least(row)
            ratio = ours / theirs
            print(
                f"{row.name:<75} {ours * 1000:9.1f} ms, {row.peer}: {theirs * 1000:9.1f} ms, {ratio:5.2f} × ≤ {row.target:.2f}",
                flush=True,
            )
            if ratio > 2 * row.target:
                missed.append(row.name)
    if QUICK and missed:
        sys.exit(f"Above twice the target: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
