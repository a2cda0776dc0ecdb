"""Coverings of many shapes and cells at several zooms, against plain loops over each shape, each zoom and each tile.

What is fast could be wrong: parents by shifting, cells within a larger area by their parents, files' cells without their
descendants, shapes in one tile without their outlines.
"""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h3
import mercantile
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from fused_cache_ops import Tile, plan_invalidation
from fused_cache_ops.selection import cells as cells_module
from fused_cache_ops.selection import coverage

HAIR = 1e-9  # degrees: nearer to a tile's edge than this, the loops are not sure


def tiles(**selection: Any) -> set[Tile]:
    plan = plan_invalidation("map", max_tiles=10**7, **selection)
    listed = list(plan.tiles())
    assert plan.tile_count == len(listed) == len(set(listed))
    return set(listed)


def boxes(shape: Any, zoom: int, grow: float) -> Iterator[tuple[Tile, Any]]:
    """The tiles near a shape, each as a box that is grown on every side. Longitudes go on beyond ±180."""
    west, south, east, north = shape.bounds
    size = 2**zoom
    first, last = math.floor((west + 180) / 360 * size) - 1, math.floor((east + 180) / 360 * size) + 1
    top, bottom = (min(max(mercantile.tile(0, latitude, zoom).y, 0), size - 1) for latitude in (north, south))
    for column, row in itertools.product(range(first, last + 1), range(max(top - 1, 0), min(bottom + 1, size - 1) + 1)):
        box = mercantile.bounds(0, row, zoom)
        sides = (column / size * 360 - 180 - grow, box.south - grow, (column + 1) / size * 360 - 180 + grow, box.north + grow)
        yield Tile(zoom, column % size, row), shapely.box(*sides)


def looped(shapes: list[Any], zooms: tuple[int, ...], grow: float) -> set[Tile]:
    """The tiles that shapes meet, by trying each tile near each shape at each zoom."""
    found = set()
    for shape, zoom in itertools.product(shapes, zooms):
        shapely.prepare(shape)
        found |= {tile for tile, box in boxes(shape, zoom, grow) if shape.intersects(box)}
    return found


def is_as_looped(found: set[Tile], shapes: list[Any], zooms: tuple[int, ...]) -> bool:
    return looped(shapes, zooms, -HAIR) <= found <= looped(shapes, zooms, HAIR)


def outline(cell: str) -> Any:
    points = [(longitude, latitude) for latitude, longitude in h3.cell_to_boundary(cell)]
    first = points[0][0]
    return shapely.Polygon([(first + (longitude - first + 180) % 360 - 180, latitude) for longitude, latitude in points])


@pytest.mark.parametrize("seed", range(6))
def test_many_shapes_are_covered_as_by_loops(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fused_cache_ops.selection.geometry._PORTION", 40)
    random = np.random.default_rng(seed)
    shapes: list[Any] = []
    for x, y, size in zip(random.normal(179, 3, 120), random.normal(50, 3, 120), random.choice([1e-4, 0.02, 0.3], 120)):
        turns = np.sort(random.uniform(0, 2 * np.pi, random.integers(3, 9)))
        ring = np.column_stack((x + size * np.cos(turns), y + size * np.sin(turns)))
        shapes.append(shapely.Polygon(ring) if random.random() < 0.8 else shapely.LineString(ring))
    zooms = (3, 6, 7, 9)
    assert is_as_looped(tiles(geometry=shapes, zooms=zooms), shapes, zooms)


@given(st.integers(1, 254), st.integers(2, 250), st.integers(-4, 4), st.integers(1, 4), st.booleans())
@settings(max_examples=100)
def test_a_sliver_between_two_tiles_is_in_their_parent(column: int, row: int, offset: int, width: int, upright: bool) -> None:
    """It touches neither tile, since a tile ends a hair before its edge. But it lies well inside their parent."""
    corner = mercantile.ul(column, row, 8)
    off, wide = offset * coverage.TOLERANCE / 4, width * coverage.TOLERANCE / 4
    lng, lat = corner.lng + off, corner.lat + off
    sliver = shapely.box(lng, lat - 2.0, lng + wide, lat + 0.1) if upright else shapely.box(lng, lat, lng + 3.0, lat + wide)
    together = tiles(geometry=[sliver], zooms="4-8")
    assert together == {tile for zoom in range(4, 9) for tile in tiles(geometry=[sliver], zooms=zoom)}


PLACES = st.one_of(
    st.tuples(st.floats(-80, 80), st.floats(-180, 180)),
    st.sampled_from([(38.7, -9.1), (-16.5, 179.9), (64.7, 10.5), (58.3, 11.2), (-39.1, -57.7)]),  # some are near pentagons
)


@given(PLACES, st.integers(3, 9), st.sampled_from([3, 6, 9]), st.data())
@settings(max_examples=25, deadline=None)
def test_neighboring_cells_are_covered_as_by_loops(place: Any, resolution: int, rings: int, data: Any) -> None:
    disk = sorted(h3.grid_disk(h3.latlng_to_cell(*place, resolution), rings))
    if data.draw(st.booleans()):
        left_out = data.draw(st.sets(st.integers(0, len(disk) - 1), max_size=4))
        disk = [cell for number, cell in enumerate(disk) if number not in left_out]
    if any(abs(latitude) > 80 for latitude, _ in map(h3.cell_to_latlng, disk)):
        return
    zoom = int(resolution * 1.4)
    zooms = (zoom - 2, zoom)
    assert is_as_looped(tiles(cells=disk, zooms=zooms), [outline(cell) for cell in disk], zooms)


@pytest.mark.parametrize(("place", "resolution"), [((38.7, -9.1), 8), ((-16.5, 179.99), 5), ((61.0, 14.2), 6)])
def test_what_overhangs_between_parents_is_covered_too(place: tuple[float, float], resolution: int) -> None:
    """Tiles smaller than the slivers of cells that lie beyond their parent."""
    disk = h3.grid_disk(h3.latlng_to_cell(*place, resolution), 11)
    zooms = (int(resolution * 1.4) + 4, int(resolution * 1.4) + 7)
    assert is_as_looped(tiles(cells=disk, zooms=zooms), [outline(cell) for cell in disk], zooms)


@pytest.mark.parametrize("resolution", [1, 4, 7, 10])
def test_cells_around_a_pentagon_are_covered_as_by_loops(resolution: int) -> None:
    pentagon = sorted(h3.get_pentagons(resolution))[4]
    disk = h3.grid_disk(pentagon, 7 if resolution > 1 else 2)
    disk = [cell for cell in disk if abs(h3.cell_to_latlng(cell)[0]) < 75]
    zooms = (int(resolution * 1.4), int(resolution * 1.4) + 1)
    assert is_as_looped(tiles(cells=disk, zooms=zooms), [outline(cell) for cell in disk], zooms)


@pytest.mark.parametrize("pole", [90, -90])
def test_cells_around_a_pole_are_covered_as_each_one_alone(pole: int) -> None:
    disk = h3.grid_disk(h3.latlng_to_cell(pole, 0, 4), 6)
    assert tiles(cells=disk, zooms="2-6") == set().union(*(tiles(cells=[cell], zooms="2-6") for cell in disk))


@pytest.mark.parametrize(("rings", "drawn"), [(0, None), (3, None), (3, 7), (3, 8), (4, 9)])
def test_files_are_covered_as_all_their_descendants(tmp_path: Path, rings: int, drawn: int | None) -> None:
    cells = h3.grid_disk(h3.latlng_to_cell(47.4, 8.5, 6), rings)
    cells.remove(cells[len(cells) // 2]) if rings else None  # a hole
    for cell in cells:
        (tmp_path / f"{cell}.parquet").touch()
    descendants = [child for cell in cells for child in h3.cell_to_children(cell, 8 if drawn is None else min(drawn, 8))]
    found = tiles(hex_dataset=str(tmp_path), zooms="9-12", render_resolution=drawn)
    zooms = tuple(range(9, 13))
    if drawn in (7, 8):
        assert is_as_looped(found, [outline(cell) for cell in descendants], zooms)
    else:  # outlines that are larger stand for finer descendants
        numbers = np.array(sorted(map(h3.str_to_int, descendants)), np.uint64)
        plain, _ = cells_module.outlines(numbers, cells_module._OVERHANG)
        assert is_as_looped(found, list(plain.polygons(np.unique(plain.shape))), zooms)


def test_what_stands_for_cells_is_no_larger_than_it_may_be() -> None:
    """The circle that decides whether a cell lies in one tile holds its outline: at all resolutions, also around pentagons."""
    for resolution in range(16):
        cells = [h3.latlng_to_cell(latitude, 7.3 * latitude, resolution) for latitude in np.linspace(-89, 89, 60)]
        cells += [each for pentagon in h3.get_pentagons(resolution) for each in h3.grid_disk(pentagon, 1)]
        radius = cells_module._REACH * h3.average_hexagon_edge_length(resolution, "km")
        for cell in cells:
            center = h3.cell_to_latlng(cell)
            assert max(h3.great_circle_distance(center, corner, "km") for corner in h3.cell_to_boundary(cell)) < radius
