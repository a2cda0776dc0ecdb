"""H3 cells: what is covered, at which resolution a map draws them, and the datasets whose files are named by them."""

import json
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import h3
import mercantile
import numpy
import polars
import pyarrow
import pytest
import shapely
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from fused_cache_ops import ConfigurationError, InvalidInputError, Tile, merge_selections, plan_invalidation
from fused_cache_ops.keywords.values import NOT_GIVEN
from fused_cache_ops.selection import reading
from fused_cache_ops.selection.cells import outlines, read_cells, read_hex_dataset, read_rendering

LISBON = h3.latlng_to_cell(38.72, -9.14, 9)
LATITUDES = st.floats(-84, 84)
LONGITUDES = st.floats(-180, 180)


def tiles(**selection: Any) -> set[Tile]:
    return set(plan_invalidation("hexes", **selection).tiles())


def outline(cell: str) -> Any:
    """A cell's outline by another way: shapely's, with longitudes that continue beyond ±180."""
    points = [(longitude, latitude) for latitude, longitude in h3.cell_to_boundary(cell)]
    first = points[0][0]
    return shapely.Polygon([(first + (longitude - first + 180) % 360 - 180, latitude) for longitude, latitude in points])


def touched(shape: Any, zoom: int) -> set[Tile]:
    """The tiles whose interior a shape touches, by trying each one near it."""
    west, south, east, north = shape.bounds
    size = 360 / 2**zoom
    found = set()
    last = 2**zoom - 1
    rows = range(max(mercantile.tile(0, north, zoom).y - 1, 0), min(mercantile.tile(0, south, zoom).y + 1, last) + 1)
    for column in range(int((west + 180) // size) - 1, int((east + 180) // size) + 2):
        for row in rows:
            box = mercantile.bounds(0, row, zoom)
            tile = shapely.box(-180 + column * size, box.south, -180 + (column + 1) * size, box.north)
            if shapely.relate_pattern(tile, shape, "T********"):
                found.add(Tile(zoom, column % 2**zoom, row))
    return found


@settings(max_examples=60, deadline=None)
@given(LATITUDES, LONGITUDES, st.integers(0, 15), st.integers(0, 6))
def test_a_cell_covers_the_tiles_that_its_outline_touches(
    latitude: float, longitude: float, resolution: int, deeper: int
) -> None:
    cell = h3.latlng_to_cell(latitude, longitude, resolution)
    # A zoom at which the cell is about as large as a tile, or a few of them.
    zoom = min(max(int(resolution * 1.4), 0) + deeper // 2, 22)
    if any(abs(north) > 84.9 for north, _ in h3.cell_to_boundary(cell)):
        return
    expected = touched(outline(cell), zoom)
    found = tiles(cells=[cell], zooms=zoom)
    assert expected - found == set()
    assert found == expected or max(touching_area(outline(cell), tile) for tile in found - expected) < 1e-9


def touching_area(shape: Any, tile: Tile) -> float:
    box = mercantile.bounds(tile.x, tile.y, tile.z)
    return max(
        float(shapely.box(box.west + turn, box.south, box.east + turn, box.north).intersection(shape).area / shape.area)
        for turn in (-360, 0, 360)
    )


@settings(max_examples=60, deadline=None)
@given(LATITUDES, LONGITUDES, st.integers(3, 15), st.integers(0, 8), st.integers(0, 15))
def test_every_tile_that_the_drawn_parent_touches_is_covered(
    latitude: float, longitude: float, resolution: int, zoom: int, drawn: int
) -> None:
    cell = h3.latlng_to_cell(latitude, longitude, resolution)
    parent = h3.cell_to_parent(cell, min(drawn, resolution))
    if any(abs(north) > 84.9 for north, _ in h3.cell_to_boundary(parent)):
        return
    found = tiles(cells=[cell], zooms=zoom, render_resolution=drawn)
    assert touched(outline(parent), zoom) <= found
    assert found == tiles(cells=[parent], zooms=zoom)


def test_a_parent_that_is_drawn_is_larger_than_the_cell() -> None:
    assert tiles(cells=[LISBON], zooms=12, render_resolution=4) > tiles(cells=[LISBON], zooms=12)


@pytest.mark.parametrize("latitude", [90, -90])
@pytest.mark.parametrize("resolution", [0, 1, 2, 3, 4])
def test_a_cell_around_a_pole_covers_the_whole_row_there(latitude: int, resolution: int) -> None:
    found = tiles(cells=[h3.latlng_to_cell(latitude, 0, resolution)], zooms=4)
    row = 0 if latitude > 0 else 15
    assert {tile.x for tile in found if tile.y == row} == set(range(16))
    assert {tile.y for tile in found} <= set(range(6)) if latitude > 0 else set(range(10, 16))


def test_a_cell_across_the_antimeridian_covers_both_sides_and_nothing_between() -> None:
    cell = h3.latlng_to_cell(-16.5, 179.999, 4)
    columns = {tile.x for tile in tiles(cells=[cell], zooms=10)}
    assert {0, 1023} <= columns
    assert all(column < 4 or column > 1019 for column in columns)


def test_all_cells_of_the_world_cover_it() -> None:
    assert len(tiles(cells=list(h3.get_res0_cells()), zooms=5)) == 4**5


def test_pentagons_are_covered() -> None:
    for cell in h3.get_pentagons(3):
        assert touched(outline(cell), 6) <= tiles(cells=[cell], zooms=6)


@pytest.mark.parametrize(
    "cells",
    [
        [LISBON],
        (LISBON.upper(),),
        [h3.str_to_int(LISBON)],
        [str(h3.str_to_int(LISBON))],
        iter([LISBON]),
        numpy.array([h3.str_to_int(LISBON)], numpy.uint64),
        numpy.array([h3.str_to_int(LISBON)], numpy.int64),
        numpy.array([LISBON]),
        pyarrow.array([h3.str_to_int(LISBON)], pyarrow.uint64()),
        pyarrow.chunked_array([[LISBON], [LISBON]]),
        pyarrow.table({"hex": pyarrow.array([h3.str_to_int(LISBON)], pyarrow.uint64()), "value": [1.5]}),
        polars.Series([h3.str_to_int(LISBON)], dtype=polars.UInt64),
        polars.DataFrame({"cell": [LISBON]}),
        {LISBON},
    ],
    ids=lambda cells: type(cells).__module__.partition(".")[0] + "-" + type(cells).__name__,
)
def test_every_form_of_cells_is_read(cells: Any) -> None:
    assert read_cells(cells).ids.tolist() == [h3.str_to_int(LISBON)]


def test_cells_are_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "cells.txt").write_text(f"# changed\n{LISBON}\n\n  {h3.str_to_int(LISBON)}\n")
    assert read_cells(str(tmp_path / "cells.txt")).ids.tolist() == [h3.str_to_int(LISBON)]


def test_no_cells_select_nothing() -> None:
    assert tiles(cells=[], zooms=5) == set()


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (None, "cells is None: did a load step return nothing"),
        (["nonsense"], "'nonsense' is not an H3 cell id"),
        (["89283082"], "89283082 .* is not a valid H3 cell id"),
        ([12], "c .12. is not a valid H3 cell id"),
        ([-1], "cells: -1 is not a valid H3 cell id"),
        (["9" * 30], "9{30} is not a valid H3 cell id"),
        ([6.1e17], "Floats cannot hold all digits"),
        ([True], "True is neither text nor a whole number"),
        ([None], "None is neither text nor a whole number"),
        (numpy.array([6.1e17]), "Floats cannot hold all digits"),
        (pyarrow.array([h3.str_to_int(LISBON), None]), "None is neither"),
        (b"8928308280fffff", "cells is of type bytes"),
        ({"hex": 1}, "cells is of type dict"),
        (LISBON, "cannot be read as a file with one cell per line.*For one cell, pass a list"),
        ("None", "looks like a template that rendered to nothing"),
        (polars.DataFrame({"a": [1], "b": [1]}), r"columns \['a', 'b'\]: pass one column, or name it hex or cell or h3"),
    ],
)
def test_what_is_no_cell_is_refused(cells: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        tiles(cells=cells, zooms=5)


def test_cells_need_zooms() -> None:
    with pytest.raises(InvalidInputError, match="cells needs zooms"):
        tiles(cells=[LISBON])


@pytest.mark.parametrize("given", ["fused", ("fused", 1), ["fused", 1], "('fused', 1)", '["fused", 1]'])
def test_the_rule_of_fuseds_examples(given: Any) -> None:
    rule = read_rendering(given)
    assert [rule(zoom) for zoom in (0, 3, 6, 9, 12, 15, 22)] == [2, 4, 6, 8, 10, 11, 11]


def test_the_rule_with_another_offset() -> None:
    rule = read_rendering(("fused", 2))
    assert [rule(zoom) for zoom in (0, 6, 22)] == [2, 5, 10]


@pytest.mark.parametrize("given", [{5: 3, 6: 4}, {"5": 3, "6": 4}, "{5: 3, 6: 4}", '{"5": 3, "6": 4}'])
def test_resolutions_by_zoom(given: Any) -> None:
    rule = read_rendering(given)
    assert [rule(zoom) for zoom in (5, 6)] == [3, 4]
    with pytest.raises(InvalidInputError, match="has no resolution for zoom 7"):
        rule(7)


@pytest.mark.parametrize(
    "given", [16, -1, 2.5, True, "coarse", "fused:2", ("fused",), ("fused", "x"), {"a": 3}, {3: 99}, "", b"3"]
)
def test_what_is_no_resolution_is_refused(given: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"render_resolution = .* must be a resolution from 0 to 15"):
        read_rendering(given)


# Datasets


def write_dataset(root: Path, files: dict[str, list[str]]) -> str:
    for folder, names in files.items():
        for name in names:
            path = root / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    return str(root)


FILE_CELL = h3.latlng_to_cell(47.4, 8.5, 4)
OTHER_CELL = h3.latlng_to_cell(-33.9, 18.4, 4)


def dataset(root: Path) -> str:
    return write_dataset(
        root,
        {
            "": ["_manifest.json"],
            "_parts": ["1.json"],
            ".fused-h3-source": ["a.parquet"],
            "date=2026-11-21": [f"{OTHER_CELL}.parquet"],
            "date=2026-11-22": [f"{FILE_CELL}.parquet"],
        },
    )


def test_a_partition_of_a_dataset_selects_the_cells_that_name_its_files(tmp_path: Path) -> None:
    found = tiles(hex_dataset=dataset(tmp_path), partition="date=2026-11-22", zooms=7, render_resolution=4)
    assert found == tiles(cells=[FILE_CELL], zooms=7)


def test_a_dataset_without_a_partition_is_all_of_it(tmp_path: Path) -> None:
    found = tiles(hex_dataset=dataset(tmp_path), zooms=7, render_resolution=4)
    assert found == tiles(cells=[FILE_CELL, OTHER_CELL], zooms=7)


def test_several_partitions_may_be_given(tmp_path: Path) -> None:
    both = ["date=2026-11-21", "date=2026-11-22/"]
    assert tiles(hex_dataset=dataset(tmp_path), partition=both, zooms=7) == tiles(hex_dataset=str(tmp_path), zooms=7)


def test_the_older_layout_names_files_in_decimal(tmp_path: Path) -> None:
    root = write_dataset(
        tmp_path,
        {
            "": [f"{h3.str_to_int(FILE_CELL)}.parquet", "_sample"],
            "overview": ["hex3.parquet", "hex7.parquet"],
            ".fused": [f"{h3.str_to_int(OTHER_CELL)}.metadata.parquet"],
        },
    )
    assert tiles(hex_dataset=root, zooms=7, render_resolution=4) == tiles(cells=[FILE_CELL], zooms=7)


def test_a_partition_whose_name_begins_with_an_underscore_holds_data(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, {"_region=eu": [f"{FILE_CELL}.parquet"], "_temporary": [f"{OTHER_CELL}.parquet"]})
    assert tiles(hex_dataset=root, zooms=7) == tiles(hex_dataset=root, partition="_region=eu", zooms=7)


@pytest.mark.parametrize("address", ["nonesuch://bucket/hexes", "hexes\0"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(InvalidInputError, match=r"cannot be (opened|listed)"):
        tiles(hex_dataset=address, zooms=7)


@pytest.mark.parametrize("resolution", ["1e999", {float("inf"): 3}, {3: float("inf")}, float("nan")])
def test_a_resolution_without_end_is_refused(resolution: Any) -> None:
    with pytest.raises(InvalidInputError, match="render_resolution = "):
        tiles(cells=[FILE_CELL], zooms=7, render_resolution=resolution)


def test_a_dataset_is_listed_wherever_fsspec_reaches() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe(f"/hexes/date=1/{FILE_CELL}.parquet", b"")
    found = tiles(hex_dataset="memory://hexes/", partition="date=1", zooms=7, render_resolution=4)
    assert found == tiles(cells=[FILE_CELL], zooms=7)


def test_a_dataset_is_listed_anew_each_time() -> None:
    """File systems such as s3fs remember their listings for the life of a worker, and would miss what was written since."""

    class Remembering(MemoryFileSystem):  # type: ignore[misc]
        protocol = "remembering"
        remembered: ClassVar[dict[str, Any]] = {}

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return str(super()._strip_protocol(path.replace("remembering://", "memory://")))

        def find(self, path: str, **options: Any) -> Any:
            if path not in self.remembered:
                self.remembered[path] = super().find(path, **options)
            return self.remembered[path]

        def invalidate_cache(self, path: str | None = None) -> None:
            self.remembered.clear()

    fsspec.register_implementation("remembering", Remembering, clobber=True)
    memory = fsspec.filesystem("memory")
    memory.pipe(f"/remembered/{FILE_CELL}.parquet", b"")
    assert len(read_hex_dataset("remembering://remembered", NOT_GIVEN).ids) == 1
    memory.pipe(f"/remembered/{OTHER_CELL}.parquet", b"")
    assert len(read_hex_dataset("remembering://remembered", NOT_GIVEN).ids) == 2


def test_a_url_that_needs_another_package_names_it() -> None:
    with pytest.raises(ConfigurationError, match=r"'abfs://hexes' cannot be opened: .*adlfs"):
        read_hex_dataset("abfs://hexes", NOT_GIVEN)


def drawn(cell: str, scale: float = 1.0) -> Any:
    """The outline that is covered, as one geometry within ±180°."""
    plain, across = outlines(numpy.array([h3.str_to_int(cell)], numpy.uint64), scale)
    return shapely.union_all([*plain.polygons(numpy.unique(plain.shape)), *across])


@settings(max_examples=30, deadline=None)
@given(st.floats(-80, 80), LONGITUDES, st.integers(2, 9), st.integers(1, 3))  # a file's cell is divided at least twice
def test_all_descendants_of_a_files_cell_are_covered(
    latitude: float, longitude: float, resolution: int, generations: int
) -> None:
    from fused_cache_ops.selection.cells import _OVERHANG

    parent = h3.latlng_to_cell(latitude, longitude, resolution)
    grown = drawn(parent, _OVERHANG)
    # The outermost ones are near the edge: those whose ring of neighbors is not all of the same parent.
    for cell in h3.cell_to_children(parent, resolution + generations):
        if any(h3.cell_to_parent(each, resolution) != parent for each in h3.grid_disk(cell, 1)):
            middle = drawn(cell)
            assert shapely.difference(middle, grown).area <= 1e-9 * middle.area


@pytest.mark.parametrize("resolution", [4, 5, 6, 7, None])
def test_descendants_that_overhang_are_covered_at_every_resolution(tmp_path: Path, resolution: int | None) -> None:
    write_dataset(tmp_path, {"": [f"{FILE_CELL}.parquet"]})
    found = tiles(hex_dataset=str(tmp_path), zooms=13, render_resolution=resolution)
    drawn = h3.cell_to_children(FILE_CELL, 7 if resolution is None else resolution)
    exact = tiles(cells=list(drawn), zooms=13)
    assert exact <= found
    assert len(found) <= 1.15 * len(exact)
    assert (found == exact) == (resolution in (4, 5, 6))


def test_the_parents_of_a_files_cell_are_covered_where_they_are_drawn(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"": [f"{FILE_CELL}.parquet"]})
    found = tiles(hex_dataset=str(tmp_path), zooms=7, render_resolution=2)
    assert found == tiles(cells=[h3.cell_to_parent(FILE_CELL, 2)], zooms=7)


@pytest.mark.parametrize("partition", ["date=2026-11-23", ["date=2026-11-22", "nowhere"]])
def test_a_partition_that_is_not_there_is_refused(tmp_path: Path, partition: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"partition = .* has no data files"):
        tiles(hex_dataset=dataset(tmp_path), partition=partition, zooms=7)


@pytest.mark.parametrize("partition", [None, "", "None", [], ["date=1", None], "../other", 5, {"date": 1}])
def test_a_partition_given_by_mistake_is_refused(tmp_path: Path, partition: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"partition = .* is not a folder in the dataset"):
        tiles(hex_dataset=dataset(tmp_path), partition=partition, zooms=7)


@pytest.mark.parametrize("address", [None, "", "None", 5])
def test_a_dataset_given_by_mistake_is_refused(address: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"hex_dataset = .* is not the path or URL of a dataset"):
        tiles(hex_dataset=address, zooms=7)


def test_a_data_file_that_is_not_named_by_a_cell_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"": [f"{FILE_CELL}.parquet", "part-0001.parquet"]})
    with pytest.raises(InvalidInputError, match=r"a file 'part-0001.parquet' that is not named by a cell"):
        tiles(hex_dataset=str(tmp_path), zooms=7)


# Beside other keywords


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"cells": [LISBON], "partition": "a"}, "partition = 'a' is given with cells, but it is for hex_dataset"),
        ({"cells": [LISBON], "crs": "EPSG:4326"}, "crs = 'EPSG:4326' is given with cells, but it is for geometry"),
        ({"bounds": (0, 0, 1, 1), "render_resolution": 4}, "is given with bounds, but it is for cells and hex_dataset"),
        ({"tiles": [], "geometry_column": "g"}, "is given with tiles, but it is for geometry"),
        ({"cells": [LISBON], "geometry": "POINT (0 0)"}, "geometry and cells are both given"),
    ],
)
def test_keywords_of_another_kind_are_refused(selection: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        tiles(**selection, zooms=5)


@pytest.mark.parametrize("name", ["geometry_column", "crs", "render_resolution", "partition"])
def test_how_to_read_a_selection_needs_one(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{name} = '5' needs a selection, but there is none"):
        reading.read_selection(**{name: "5"})  # type: ignore[misc]


def test_cells_are_merged() -> None:
    other = h3.latlng_to_cell(0, 0, 5)
    merged = merge_selections([{"cells": [LISBON], "zooms": 5}, {"cells": numpy.array([h3.str_to_int(other)]), "zooms": 5}])
    assert tiles(**merged) == tiles(cells=[LISBON, other], zooms=5)
    assert json.loads(json.dumps(merged)) == merged


def test_partitions_of_one_dataset_are_merged() -> None:
    merged = merge_selections(
        [{"hex_dataset": "a", "partition": "date=1", "zooms": 5}, {"hex_dataset": "a", "partition": ["date=2"], "zooms": 5}]
    )
    assert merged == {"hex_dataset": "a", "partition": ["date=1", "date=2"], "zooms": 5}


def test_a_whole_dataset_includes_its_partitions() -> None:
    merged = merge_selections([{"hex_dataset": "a", "partition": "date=1"}, {"hex_dataset": "a"}])
    assert merged == {"hex_dataset": "a"}


def test_two_datasets_are_not_merged() -> None:
    with pytest.raises(InvalidInputError, match="Selections of 'a' and of 'b' cannot be merged"):
        merge_selections([{"hex_dataset": "a"}, {"hex_dataset": "b"}])


def test_many_cells_are_covered_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = list(h3.cell_to_children(h3.latlng_to_cell(10, 10, 3), 6))
    whole = tiles(cells=cells, zooms="6-10")
    monkeypatch.setattr("fused_cache_ops.selection.cells._AT_ONCE", 10)
    assert tiles(cells=cells, zooms="6-10") == whole
