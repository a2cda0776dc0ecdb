"""Tables, columns and streams of the libraries that speak Arrow, and Parquet files, as geometries and as tiles."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import geopandas
import numpy
import pandas
import polars
import pyarrow
import pyarrow.parquet
import pyproj
import pytest
import shapely

from fused_cache_ops import InvalidInputError, Tile, merge_selections, plan_invalidation
from fused_cache_ops.integration import refuse_single_use
from fused_cache_ops.selection import arrow, geometry, reading
from fused_cache_ops.selection.selection import Selection

PLACES = [shapely.Point(13.4, 52.5), shapely.box(13.0, 52.0, 13.1, 52.1), shapely.LineString([(9.9, 53.5), (10.4, 53.7)])]
WKB = [shapely.to_wkb(place) for place in PLACES]
FRAME = geopandas.GeoDataFrame({"id": [1, 2, 3]}, geometry=PLACES, crs="EPSG:4326")
ZOOMS = "8-11"
CRS84 = {"crs": "OGC:CRS84"}


def tiles(**selection: Any) -> list[Tile]:
    return sorted(plan_invalidation("roads", **selection).tiles())


EXPECTED = tiles(geometry=[place.wkt for place in PLACES], zooms=ZOOMS)


def marked(values: Any, encoding: str, **metadata: Any) -> pyarrow.Table:
    """A table whose only geometries are marked as a GeoArrow producer would mark them."""
    field = pyarrow.field(
        "shape",
        values.type,
        metadata={"ARROW:extension:name": f"geoarrow.{encoding}", "ARROW:extension:metadata": json.dumps(metadata)},
    )
    return pyarrow.table([pyarrow.array(range(len(values))), values], schema=pyarrow.schema([("id", pyarrow.int64()), field]))


def duckdb_relation() -> Any:
    rows = ", ".join(f"({number}, '{place.wkt}'::GEOMETRY)" for number, place in enumerate(PLACES))
    return duckdb.connect().sql(f"SELECT * FROM (VALUES {rows}) AS t(id, geometry)")


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(lambda: {"geometry": pyarrow.table(FRAME.to_arrow())}, id="pyarrow table"),
        pytest.param(lambda: {"geometry": pyarrow.table(FRAME.to_arrow()).to_batches()[0]}, id="record batch"),
        pytest.param(lambda: {"geometry": FRAME.to_arrow()}, id="geopandas to_arrow"),
        pytest.param(lambda: {"geometry": FRAME.geometry.to_arrow()}, id="geopandas column"),
        pytest.param(lambda: {"geometry": FRAME.to_arrow(geometry_encoding="WKB")}, id="geopandas WKB"),
        pytest.param(lambda: {"geometry": FRAME}, id="GeoDataFrame"),
        pytest.param(lambda: {"geometry": duckdb_relation(), "crs": "EPSG:4326"}, id="DuckDB relation"),
        pytest.param(lambda: {"geometry": duckdb_relation().to_arrow_table(), "crs": "EPSG:4326"}, id="DuckDB table"),
        pytest.param(
            lambda: {"geometry": polars.DataFrame({"g": WKB}), "geometry_column": "g", "crs": "EPSG:4326"}, id="Polars WKB"
        ),
        pytest.param(
            lambda: {
                "geometry": polars.DataFrame({"g": [place.wkt for place in PLACES]}),
                "geometry_column": "g",
                "crs": "OGC:CRS84",
            },
            id="Polars WKT",
        ),
        pytest.param(lambda: {"geometry": polars.Series(WKB), "crs": "EPSG:4326"}, id="Polars column"),
        pytest.param(lambda: {"geometry": pyarrow.chunked_array([WKB[:1], WKB[1:]]), "crs": 4326}, id="chunked array"),
        pytest.param(lambda: {"geometry": pyarrow.array(WKB), "crs": "EPSG:4326"}, id="array"),
        pytest.param(
            lambda: {"geometry": pandas.DataFrame({"g": WKB}), "geometry_column": "g", "crs": "EPSG:4326"}, id="pandas"
        ),
        pytest.param(lambda: {"geometry": [pyarrow.table(FRAME[:1].to_arrow()), FRAME[1:]]}, id="a list of tables"),
    ],
)
def test_every_arrow_library_is_read(given: Any) -> None:
    assert tiles(**given(), zooms=ZOOMS) == EXPECTED


@pytest.mark.parametrize("layout", ["separated", "interleaved"])
@pytest.mark.parametrize(
    "shape",
    [
        shapely.Point(13.4, 52.5),
        shapely.LineString([(9.9, 53.5), (10.4, 53.7)]),
        shapely.Polygon([(0, 0), (3, 0), (3, 3), (0, 3)], [[(1, 1), (2, 1), (2, 2), (1, 2)]]),
        shapely.MultiPoint([(1, 2), (40, 50)]),
        shapely.MultiLineString([[(1, 2), (3, 4)], [(5, 6), (7, 8)]]),
        shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(5, 5, 6, 6)]),
    ],
    ids=lambda shape: shape.geom_type,
)
def test_native_encodings_are_read(shape: Any, layout: str) -> None:
    series = geopandas.GeoSeries([None, shape, None, shape], crs="EPSG:4326")
    column = series.to_arrow(geometry_encoding="geoarrow", interleaved=layout == "interleaved")
    assert tiles(geometry=column, zooms=9) == tiles(geometry=shape.wkt, zooms=9)


def test_a_slice_of_a_native_column_holds_only_its_rows() -> None:
    series = geopandas.GeoSeries(PLACES[1:2] * 2 + [shapely.box(50, 50, 51, 51)], crs="EPSG:4326")
    table = pyarrow.table(geopandas.GeoDataFrame(geometry=series).to_arrow(geometry_encoding="geoarrow")).slice(2)
    assert tiles(geometry=table, zooms=9) == tiles(bounds=(50, 50, 51, 51), zooms=9)


def test_heights_and_measures_are_dropped() -> None:
    series = geopandas.GeoSeries([shapely.Point(1, 2, 300)], crs="EPSG:4326")
    assert tiles(geometry=series.to_arrow(geometry_encoding="geoarrow"), zooms=9) == tiles(geometry="POINT (1 2)", zooms=9)


def test_boxes_of_geoarrow_are_read() -> None:
    ends = {"xmin": 0.0, "ymin": 1.0, "xmax": 2.0, "ymax": 3.0}
    assert tiles(geometry=marked(pyarrow.array([ends, None]), "box", **CRS84), zooms=9) == tiles(bounds=(0, 1, 2, 3), zooms=9)


def test_an_encoding_that_is_not_read_names_the_remedy() -> None:
    with pytest.raises(InvalidInputError, match="'shape' as geometrycollection, which is not read: convert it to WKB"):
        tiles(geometry=marked(pyarrow.array([b""]), "geometrycollection", **CRS84), zooms=9)


def test_spherical_edges_are_said_to_be_taken_as_straight() -> None:
    table = marked(pyarrow.array(WKB), "wkb", edges="spherical", **CRS84)
    with pytest.warns(UserWarning, match="edges of column 'shape' are spherical"):
        assert tiles(geometry=table, zooms=ZOOMS) == EXPECTED


@pytest.mark.parametrize("system", ["EPSG:3857", "EPSG:25832"])
@pytest.mark.parametrize(
    "form", [str, lambda system: pyproj.CRS(system).to_json_dict(), lambda system: pyproj.CRS(system).to_wkt()]
)
def test_the_reference_system_of_a_geoarrow_column_is_used(system: str, form: Any) -> None:
    moved = FRAME.to_crs(system)
    table = marked(pyarrow.array([shapely.to_wkb(shape) for shape in moved.geometry]), "wkb", crs=form(system))
    assert tiles(geometry=table, zooms=ZOOMS) == tiles(geometry=moved, zooms=ZOOMS)


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(marked(pyarrow.array(WKB), "wkb"), id="GeoArrow without crs"),
        pytest.param(marked(pyarrow.array(WKB), "wkb", crs=None), id="GeoArrow with crs null"),
        pytest.param(FRAME.set_crs(None, allow_override=True), id="GeoDataFrame"),
        pytest.param(FRAME.geometry.set_crs(None, allow_override=True), id="GeoSeries"),
        pytest.param(pyarrow.array(WKB), id="plain column"),
    ],
)
def test_a_table_that_does_not_name_its_reference_system_is_refused(table: Any) -> None:
    with pytest.raises(InvalidInputError, match="does not say its coordinate reference system: name it by crs="):
        tiles(geometry=table, zooms=ZOOMS)
    assert tiles(geometry=table, zooms=ZOOMS, crs="EPSG:4326") == EXPECTED


def test_the_reference_system_may_be_given_for_bare_geometries() -> None:
    moved = FRAME.to_crs("EPSG:3857")
    assert tiles(geometry=[shape.wkt for shape in moved.geometry], crs="EPSG:3857", zooms=ZOOMS) == EXPECTED


def test_the_srid_of_a_plain_column_names_its_reference_system() -> None:
    ewkb = [shapely.to_wkb(shapely.set_srid(shape, 3857), include_srid=True) for shape in FRAME.to_crs(3857).geometry]
    assert tiles(geometry=pyarrow.array(ewkb), zooms=ZOOMS) == EXPECTED


@pytest.mark.parametrize(
    "given", [pyarrow.table(FRAME.to_arrow()), FRAME, "SRID=4326;POINT (1 2)"], ids=["table", "frame", "EWKT"]
)
def test_a_reference_system_that_contradicts_the_data_is_refused(given: Any) -> None:
    with pytest.raises(InvalidInputError, match="is in 'EPSG:4326', but crs = 'EPSG:25832' was given: omit crs"):
        tiles(geometry=given, zooms=ZOOMS, crs="EPSG:25832")


def test_a_reference_system_that_says_the_same_in_another_way_is_accepted() -> None:
    assert tiles(geometry=FRAME, zooms=ZOOMS, crs="OGC:CRS84") == EXPECTED


def test_an_unknown_reference_system_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="'EPSG:1', which PROJ does not know"):
        tiles(geometry=pyarrow.array(WKB), zooms=ZOOMS, crs="EPSG:1")


def test_several_columns_of_geometries_need_a_name() -> None:
    table = pyarrow.table(FRAME.assign(middle=FRAME.geometry.to_crs(3857).centroid.to_crs(4326)).to_arrow())
    table = table.replace_schema_metadata(None)
    with pytest.raises(
        InvalidInputError, match=r"several columns of geometries: geometry, middle. Name one by geometry_column="
    ):
        tiles(geometry=table, zooms=ZOOMS)
    assert tiles(geometry=table, geometry_column="geometry", zooms=ZOOMS) == EXPECTED


def test_a_table_without_marked_geometries_needs_a_name() -> None:
    with pytest.raises(InvalidInputError, match=r"no column marked as geometries. Name one by geometry_column=.*'id', 'g'"):
        tiles(geometry=pyarrow.table({"id": [1, 2, 3], "g": WKB}), zooms=ZOOMS)


def test_a_column_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"no column 'geom'.*'id', 'geometry'"):
        tiles(geometry=pyarrow.table(FRAME.to_arrow()), geometry_column="geom", zooms=ZOOMS)


def test_a_column_of_numbers_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="the type int64 in its column 'id', which is neither WKB"):
        tiles(geometry=pyarrow.table(FRAME.to_arrow()), geometry_column="id", zooms=ZOOMS)


@pytest.mark.parametrize("values", [pyarrow.array([place.wkt for place in PLACES]), pyarrow.array(WKB)], ids=["WKT", "WKB"])
def test_a_column_with_a_dictionary_is_read(values: Any) -> None:
    assert tiles(geometry=values.dictionary_encode(), crs=4326, zooms=ZOOMS) == EXPECTED


def test_a_column_of_a_fixed_size_is_read() -> None:
    point = shapely.to_wkb(PLACES[0])
    table = pyarrow.table({"g": pyarrow.array([point], pyarrow.binary(len(point)))})
    assert tiles(geometry=table, geometry_column="g", crs=4326, zooms=9) == tiles(geometry=PLACES[0], zooms=9)


def test_rows_that_are_all_null_may_come_in_the_first_batches() -> None:
    table = pyarrow.table(FRAME[1:2].to_arrow(geometry_encoding="geoarrow"))
    field = table.schema.field("geometry")
    nulls = pyarrow.table([pyarrow.nulls(2, field.type)], schema=pyarrow.schema([field]))
    both = pyarrow.concat_tables([nulls, table.select(["geometry"])])
    assert tiles(geometry=both, zooms=ZOOMS) == tiles(geometry=FRAME[1:2], zooms=ZOOMS)


@pytest.mark.parametrize(
    ("geo", "mark", "message"),
    [
        (b"{oops", None, "The GeoParquet metadata of a table is not JSON"),
        (b"[1]", None, r"The GeoParquet metadata of a table is not a JSON object: \[1\]"),
        (b"{}", b"{oops", "The GeoArrow metadata of column 'g' is not JSON"),
    ],
)
def test_metadata_that_cannot_be_read_is_refused(geo: bytes, mark: bytes | None, message: str) -> None:
    marks = {} if mark is None else {"ARROW:extension:name": b"geoarrow.wkb", "ARROW:extension:metadata": mark}
    schema = pyarrow.schema([pyarrow.field("g", pyarrow.binary(), metadata=marks)], metadata={"geo": geo})
    with pytest.raises(InvalidInputError, match=message):
        tiles(geometry=pyarrow.table([pyarrow.array(WKB)], schema=schema), zooms=ZOOMS)


def test_a_value_that_is_no_wkb_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="column 'g' of geometry, a Table, cannot be read as wkb"):
        tiles(geometry=pyarrow.table({"g": [b"\x00nonsense"]}), geometry_column="g", crs=4326, zooms=ZOOMS)


def test_a_bare_geometry_has_no_column() -> None:
    with pytest.raises(InvalidInputError, match="geometry is a dict, which has no columns"):
        tiles(geometry=FRAME.geometry.iloc[0].__geo_interface__, geometry_column="g", zooms=ZOOMS)


@pytest.mark.parametrize(
    "nulls",
    [pyarrow.table({"g": pyarrow.nulls(2, pyarrow.binary())}), polars.DataFrame({"g": [None]}, schema={"g": polars.Binary})],
)
def test_a_table_whose_geometries_are_all_null_is_refused_and_one_without_rows_is_empty(nulls: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"rows?, and nothing but null geometries. Did a join lose them"):
        tiles(geometry=nulls, geometry_column="g", crs=4326, zooms=ZOOMS)
    assert tiles(geometry=nulls[:0], geometry_column="g", crs=4326, zooms=ZOOMS) == []


def test_rows_without_a_geometry_are_passed_over() -> None:
    table = pyarrow.table({"g": [None, *WKB, None]})
    assert tiles(geometry=table, geometry_column="g", crs=4326, zooms=ZOOMS) == EXPECTED


# Parquet


@pytest.mark.parametrize("options", [{}, {"write_covering_bbox": True}, {"geometry_encoding": "geoarrow"}], ids=str)
@pytest.mark.parametrize("system", ["EPSG:4326", "EPSG:3857"])
def test_geoparquet_is_read(tmp_path: Path, options: dict[str, Any], system: str) -> None:
    polygons = FRAME[1:2].to_crs(system)
    polygons.to_parquet(tmp_path / "a.parquet", schema_version="1.1.0", **options)
    assert tiles(geometry=tmp_path / "a.parquet", zooms=ZOOMS) == tiles(geometry=polygons, zooms=ZOOMS)


def write_geoparquet(path: Path, column: dict[str, Any]) -> Path:
    metadata = {
        "version": "1.0.0",
        "primary_column": "g",
        "columns": {"g": {"encoding": "WKB", "geometry_types": [], **column}},
    }
    table = pyarrow.table({"g": WKB}).replace_schema_metadata({"geo": json.dumps(metadata)})
    pyarrow.parquet.write_table(table, path)
    return path


def test_geoparquet_without_a_reference_system_is_in_degrees(tmp_path: Path) -> None:
    assert tiles(geometry=write_geoparquet(tmp_path / "a.parquet", {}), zooms=ZOOMS) == EXPECTED


def test_geoparquet_whose_reference_system_is_null_is_unknown(tmp_path: Path) -> None:
    path = write_geoparquet(tmp_path / "a.parquet", {"crs": None})
    with pytest.raises(InvalidInputError, match=r"the file '.*' ?, does not say its coordinate reference system"):
        tiles(geometry=path, zooms=ZOOMS)
    assert tiles(geometry=path, zooms=ZOOMS, crs="OGC:CRS84") == EXPECTED


def write_own_types(path: Path, version: str, values: str) -> Path:
    duckdb.connect().sql(f"COPY ({values}) TO '{path}' (FORMAT parquet, GEOPARQUET_VERSION '{version}')")
    return path


@pytest.mark.parametrize("version", ["V1", "V2", "BOTH", "NONE"])
def test_parquets_own_geometry_types_are_read(tmp_path: Path, version: str) -> None:
    values = " UNION ALL ".join(f"SELECT '{place.wkt}'::GEOMETRY AS g" for place in PLACES)
    assert tiles(geometry=write_own_types(tmp_path / "a.parquet", version, values), zooms=ZOOMS) == EXPECTED


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("", "EPSG:4326"),
        ("srid:3857", "EPSG:3857"),
        ("EPSG:25832", "EPSG:25832"),
        ("projjson:mine", '{"type": "GeographicCRS"}'),
    ],
)
def test_the_reference_system_of_parquets_own_types_has_forms_of_its_own(said: str, expected: str) -> None:
    assert arrow._own_system(said, {b"mine": b'{"type": "GeographicCRS"}'}) == expected


def test_a_plain_parquet_file_needs_a_column_and_a_reference_system(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"g": WKB}), tmp_path / "a.parquet")
    with pytest.raises(InvalidInputError, match="Name one by geometry_column="):
        tiles(geometry=tmp_path / "a.parquet", zooms=ZOOMS)
    with pytest.raises(InvalidInputError, match="name it by crs="):
        tiles(geometry=tmp_path / "a.parquet", geometry_column="g", zooms=ZOOMS)
    assert tiles(geometry=tmp_path / "a.parquet", geometry_column="g", crs=4326, zooms=ZOOMS) == EXPECTED


def small_boxes(count: int = 200) -> geopandas.GeoDataFrame:
    corners = numpy.random.default_rng(7).uniform((-170, -70), (170, 70), (count, 2))
    return geopandas.GeoDataFrame(geometry=shapely.box(*corners.T, *(corners + 0.0001).T), crs="EPSG:4326")


def test_boxes_inside_one_tile_are_enough_for_a_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = small_boxes()
    large = geopandas.GeoDataFrame(geometry=[shapely.Point(3, 3).buffer(8)] * 10, crs="EPSG:4326")
    pandas.concat([frame, large]).to_parquet(
        tmp_path / "a.parquet", schema_version="1.1.0", write_covering_bbox=True, row_group_size=100
    )
    decoded: list[int] = []
    plain = arrow._rows
    monkeypatch.setattr(arrow, "_rows", lambda array, *more: decoded.append(len(array)) or plain(array, *more))
    found = tiles(geometry=tmp_path / "a.parquet", zooms="0-6")
    assert sum(decoded) == 10
    monkeypatch.undo()
    assert found == tiles(geometry=pandas.concat([frame, large]), zooms="0-6")


def test_boxes_in_another_system_are_not_taken_for_degrees(tmp_path: Path) -> None:
    frame = FRAME[1:2].to_crs("EPSG:25832")
    frame.to_parquet(tmp_path / "a.parquet", schema_version="1.1.0", write_covering_bbox=True)
    assert tiles(geometry=tmp_path / "a.parquet", zooms=ZOOMS) == tiles(geometry=frame, zooms=ZOOMS)


def test_a_vector_file_without_a_reference_system_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="'crs' was not provided"):
        FRAME[1:2].set_crs(None, allow_override=True).to_file(tmp_path / "a.shp", engine="pyogrio")
    with pytest.raises(InvalidInputError, match="does not say its coordinate reference system"):
        tiles(geometry=tmp_path / "a.shp", zooms=ZOOMS)


# Large tables


def test_a_table_larger_than_a_portion_is_covered_as_if_it_were_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = geopandas.GeoDataFrame(geometry=shapely.buffer(small_boxes().geometry.to_numpy(), 3), crs="EPSG:4326")
    whole = tiles(geometry=frame, zooms="0-7", buffer=1)
    monkeypatch.setattr(geometry, "_PORTION", 7)
    monkeypatch.setattr(arrow, "_ROWS", 5)
    assert tiles(geometry=pyarrow.table(frame.to_arrow()), zooms="0-7", buffer=1) == whole


def test_too_many_tiles_are_noticed_before_the_table_is_covered_at_deeper_zooms(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = geopandas.GeoDataFrame(geometry=shapely.buffer(small_boxes().geometry.to_numpy(), 3), crs="EPSG:4326")
    monkeypatch.setattr(geometry, "_PORTION", 7)
    table = pyarrow.table(frame.to_arrow()).to_batches(max_chunksize=5)
    with pytest.raises(InvalidInputError, match=r"at least [\d,]+ tiles are selected, over max_tiles=1,000") as caught:
        tiles(geometry=pyarrow.Table.from_batches(table), zooms="0-20", max_tiles=1000)
    assert "zoom 12" not in str(caught.value)


def test_the_deepest_zooms_of_a_large_table_can_be_left_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = geopandas.GeoDataFrame(geometry=shapely.buffer(small_boxes().geometry.to_numpy(), 3), crs="EPSG:4326")
    monkeypatch.setattr(geometry, "_PORTION", 7)
    monkeypatch.setattr(arrow, "_ROWS", 5)
    given: Any = {"geometry": pyarrow.table(frame.to_arrow()), "max_tiles": 1000, "when_too_many": "coarser"}
    with pytest.warns(UserWarning, match="are left stale"):
        plan = plan_invalidation("roads", zooms="0-20", **given)
    complete = {zoom: plan_invalidation("roads", geometry=frame, zooms=zoom).tile_count for zoom in plan.tiles_per_zoom}
    assert plan.tiles_per_zoom == complete
    assert plan.zooms_left_stale == tuple(range(max(complete) + 1, 21))


# Tiles


TILES = [Tile(3, 1, 2), Tile(12, 2200, 1343), Tile(3, 1, 2)]


@pytest.mark.parametrize(
    "table",
    [
        polars.DataFrame({"x": [1, 2200, 1], "y": [2, 1343, 2], "z": [3, 12, 3], "count": [5, 6, 7]}),
        pandas.DataFrame({"z": [3, 12, 3], "x": [1, 2200, 1], "y": [2, 1343, 2]}),
        pyarrow.table({"tile": ["3/1/2", "12/2200/1343", "3/1/2"]}),
        pyarrow.table({"tile": [{"z": 3, "x": 1, "y": 2}, {"z": 12, "x": 2200, "y": 1343}, {"z": 3, "x": 1, "y": 2}]}),
        pyarrow.table({"quadkey": ["021", "120210233222", "021"]}),
        pyarrow.array(["3/1/2", "12/2200/1343", "3/1/2"]),
        polars.Series(["3/1/2", "12/2200/1343", "3/1/2"]),
        duckdb.sql("SELECT * FROM (VALUES (3, 1, 2), (12, 2200, 1343), (3, 1, 2)) AS t(z, x, y)"),
    ],
    ids=["polars", "pandas", "tile", "struct", "quadkey", "array", "series", "duckdb"],
)
def test_tiles_are_read_from_tables(table: Any) -> None:
    assert list(plan_invalidation("roads", tiles=table).tiles()) == TILES


def test_a_reader_of_tiles_is_read_once() -> None:
    found = reading.read_selection(tiles=pyarrow.table({"z": [3], "x": [1], "y": [2]}).to_reader())
    assert isinstance(found, Selection)
    assert (list(found.tiles()), list(found.tiles())) == (TILES[:1], TILES[:1])


def test_a_reader_of_geometries_is_read_once() -> None:
    found = reading.read_selection(geometry=pyarrow.table(FRAME.to_arrow()).to_reader(1), zooms=ZOOMS)
    assert isinstance(found, Selection)
    assert sorted(found.tiles()) == sorted(found.tiles()) == EXPECTED


@pytest.mark.parametrize("values", [[*WKB, None], [*(place.wkt for place in PLACES), None]], ids=["WKB", "WKT"])
def test_a_null_in_a_frame_of_polars_is_a_row_without_a_place(values: Any) -> None:
    frame = polars.DataFrame({"g": values})
    assert tiles(geometry=frame, geometry_column="g", crs="EPSG:4326", zooms=ZOOMS) == EXPECTED


def test_a_height_is_left_out_of_interleaved_coordinates() -> None:
    ring = [[0.0, 0.0, 7.0], [4.0, 0.0, 7.0], [4.0, 4.0, 7.0], [0.0, 0.0, 7.0]]
    kind = pyarrow.list_(pyarrow.list_(pyarrow.list_(pyarrow.field("xyz", pyarrow.float64()), 3)))
    table = marked(pyarrow.array([[ring]], kind), "polygon", **CRS84)
    assert tiles(geometry=table, zooms=6) == tiles(geometry="POLYGON ((0 0, 4 0, 4 4, 0 0))", zooms=6)


@pytest.mark.parametrize("version", ["NONE", "V2"])
def test_a_files_own_type_says_its_reference_system_where_the_metadata_is_silent(tmp_path: Path, version: str) -> None:
    duckdb.sql(
        f"COPY (SELECT ST_SetCRS('POINT (-120 40)'::GEOMETRY, 'EPSG:4267') AS g) TO '{tmp_path}/a.parquet' "
        f"(FORMAT parquet, GEOPARQUET_VERSION '{version}')"
    )
    nad27 = geopandas.GeoSeries([shapely.Point(-120, 40)], crs="EPSG:4267")
    assert tiles(geometry=tmp_path / "a.parquet", zooms=20) == tiles(geometry=nad27, zooms=20)


def test_srid_0_is_an_unknown_reference_system(tmp_path: Path) -> None:
    duckdb.sql(
        f"COPY (SELECT ST_SetCRS('POINT (9 51)'::GEOMETRY, 'srid:0') AS g) TO '{tmp_path}/a.parquet' "
        "(FORMAT parquet, GEOPARQUET_VERSION 'NONE')"
    )
    with pytest.raises(InvalidInputError, match="does not say its coordinate reference system"):
        tiles(geometry=tmp_path / "a.parquet", zooms=12)
    assert len(tiles(geometry=tmp_path / "a.parquet", crs="EPSG:4326", zooms=12)) == 1


def box_of(*ends: float) -> pyarrow.Table:
    return marked(
        pyarrow.StructArray.from_arrays([[end] for end in ends], names=["xmin", "ymin", "xmax", "ymax"]), "box", **CRS84
    )


@pytest.mark.parametrize("ends", [(179, 0, -179, 1), (170, -10, -170, 10), (0.5, 0, 0.25, 1)])
def test_a_box_whose_west_is_greater_than_its_east_crosses_the_antimeridian(ends: Any) -> None:
    assert tiles(geometry=box_of(*ends), zooms=7) == tiles(bounds=ends, zooms=7)


@pytest.mark.parametrize("ends", [(0, 1, 1, 0), (500_000, 0, 400_000, 1)])
def test_a_box_that_is_not_west_south_east_north_is_refused(ends: Any) -> None:
    with pytest.raises(InvalidInputError, match="is not west, south, east, north"):
        tiles(geometry=box_of(*ends), zooms=7)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pyarrow.table({"z": [3], "x": [8], "y": [2]}), r"tiles\[0\] = \(3, 8, 2\): x=8 is outside"),
        (pyarrow.table({"z": [3], "x": [None], "y": [2]}), r"x=None is not a whole number"),
        (pyarrow.table({"tile": ["3/1/2", None]}), r"tiles\[1\] = None is not a tile"),
        (pyarrow.table({"quadkey": ["0214"]}), "'0214' is not a quadkey"),
        (pyarrow.table({"a": [1], "b": [2]}), r"a Table with the columns \['a', 'b'\]: name them z, x and y"),
        (pyarrow.table({"z": [3], "x": [1]}), r"columns \['z', 'x'\]"),
    ],
)
def test_a_table_without_tiles_is_refused(table: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        plan_invalidation("roads", tiles=table)


def test_a_pandas_series_is_the_list_that_it_is() -> None:
    assert tiles(tiles=pandas.Series([(3, 1, 2), (4, 1, 2)])) == [Tile(3, 1, 2), Tile(4, 1, 2)]


# For whoever may read a selection twice


@pytest.mark.parametrize("kind", ["tiles", "geometry", "cells"])
def test_a_reader_of_batches_is_refused_where_a_retry_would_find_it_empty(kind: str) -> None:
    reader: Any = {kind: pyarrow.table({"z": [3]}).to_reader()}
    with pytest.raises(InvalidInputError, match=f"{kind} is of type RecordBatchReader, which can be read only once"):
        refuse_single_use(reader)


@pytest.mark.parametrize("kind", ["tiles", "geometry", "cells"])
@pytest.mark.parametrize("table", [pyarrow.table({"z": [3]}), polars.DataFrame({"z": [3]}), duckdb.sql("SELECT 3 AS z")])
def test_a_table_may_be_read_again(kind: str, table: Any) -> None:
    refuse_single_use({kind: table})  # type: ignore[misc]


def test_tables_are_merged() -> None:
    merged = merge_selections(
        [{"geometry": pyarrow.table(FRAME[:2].to_arrow()), "zooms": ZOOMS}, {"geometry": FRAME[2:], "zooms": ZOOMS}]
    )
    assert tiles(**merged) == EXPECTED


def test_a_stream_is_watched_while_it_is_read() -> None:
    class Over(Exception):
        pass

    def batches() -> Iterator[pyarrow.RecordBatch]:
        for _ in range(1000):
            taken.append(1)
            yield from pyarrow.table(small_boxes(40_000).to_arrow()).to_batches()

    taken: list[int] = []
    schema = pyarrow.table(small_boxes(1).to_arrow()).schema
    looks = iter(range(3))

    def watch() -> None:
        if next(looks, None) is None:
            raise Over

    with pytest.raises(Over):
        reading.read_selection(watch, geometry=pyarrow.RecordBatchReader.from_batches(schema, batches()), zooms=3)
    assert len(taken) < 20
