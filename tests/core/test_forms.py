"""The forms in which geometries come from databases, files and catalogues."""

import json
import os
import sqlite3
import threading
import warnings
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import geopandas
import numpy as np
import pandas
import polars
import pyarrow
import pyarrow.parquet
import pytest
import shapely

from fused_cache_ops import InvalidInputError, plan_invalidation

POINT = shapely.Point(-9.14, 38.71)
OTHER = shapely.Point(-8.61, 41.15)
WANTED = {"12/1944/1569"}
GEOJSON: dict[str, Any] = {"type": "Point", "coordinates": [-9.14, 38.71]}
BOX = {"xmin": -9.1404, "xmax": -9.1396, "ymin": 38.709, "ymax": 38.711}
EWKB = shapely.to_wkb(shapely.set_srid(POINT, 4326), hex=True, include_srid=True)


def tiles(geometry: Any, zooms: Any = 12, **options: Any) -> set[str]:
    return {str(tile) for tile in plan_invalidation("roads", geometry=geometry, zooms=zooms, **options).tiles()}


class Named(NamedTuple):
    place: str


def rows(*values: Any) -> list[dict[str, Any]]:
    return [{"id": number, "place": value} for number, value in enumerate(values)]


TEXTS = {
    "WKT": POINT.wkt,
    "WKT in lower case": POINT.wkt.lower(),
    "EWKT": f"SRID=4326;{POINT.wkt}",
    "WKB in hexadecimal": POINT.wkb_hex,
    "EWKB in hexadecimal": EWKB,
    "bytea of PostgreSQL": f"\\x{POINT.wkb_hex.lower()}",
    "GeoJSON": json.dumps(GEOJSON),
    "a feature": json.dumps({"type": "Feature", "properties": {}, "geometry": GEOJSON}),
    "box2d of PostGIS": "BOX(-9.1404 38.709,-9.1396 38.711)",
    "box3d of PostGIS": "BOX3D(-9.1404 38.709 0,-9.1396 38.711 7)",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_text_tells_its_form(text: str) -> None:
    column = {"geometry_column": "place", "crs": "EPSG:4326"}
    found = [
        tiles(text),
        tiles([text, text]),
        tiles(pyarrow.table({"place": [text, text]}), **column),
        tiles(pyarrow.table({"place": pyarrow.array([text]).dictionary_encode()}), **column),
        tiles(pandas.DataFrame({"place": [text]}), **column),
        tiles(rows(text), **column),
    ]
    assert found == [WANTED] * len(found)


def test_one_column_may_hold_all_forms() -> None:
    table = pyarrow.table({"place": list(TEXTS.values())})
    assert tiles(table, geometry_column="place", crs="EPSG:4326") == WANTED


@pytest.mark.parametrize(
    "text",
    [
        "SRID=3857;POINT (-1017460 4681700)",
        shapely.to_wkb(shapely.set_srid(shapely.Point(-1017460, 4681700), 3857), hex=True, include_srid=True),
        '{"type": "Point", "coordinates": [-1017460, 4681700], "crs": {"type": "name", "properties": {"name": "EPSG:3857"}}}',
        json.dumps(
            {
                "type": "Point",
                "coordinates": [-1017460, 4681700],
                "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3857"}},
            }
        ),
    ],
    ids=["EWKT", "EWKB", "GeoJSON", "GeoJSON with a URN"],
)
def test_the_system_that_a_text_names_is_heeded(text: str) -> None:
    assert tiles(text) == tiles(pyarrow.table({"": [text]})) == tiles(rows(text), geometry_column="place") == WANTED


@pytest.mark.parametrize(
    "value",
    [POINT, POINT.wkb, bytearray(POINT.wkb), memoryview(POINT.wkb), GEOJSON, BOX, {"lon": -9.14, "lat": Decimal("38.71")}],
    ids=lambda value: type(value).__name__,
)
def test_records_hold_geometries_in_any_form(value: Any) -> None:
    column = {"geometry_column": "place", "crs": "EPSG:4326"}
    assert tiles(rows(value), **column) == tiles(pandas.DataFrame(rows(value)), **column) == WANTED


def test_rows_of_databases_are_records() -> None:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    found = connection.execute("SELECT 1 AS id, ? AS place", [POINT.wkb]).fetchall()
    connection.close()
    assert tiles(found, geometry_column="place", crs="EPSG:4326") == WANTED
    assert tiles([Named(POINT.wkt)], geometry_column="place", crs="EPSG:4326") == WANTED


def test_records_may_have_a_column_that_is_called_type() -> None:
    assert tiles([{"type": "road", "place": POINT.wkt}], geometry_column="place", crs="EPSG:4326") == WANTED


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, r"a list of 1 record, does not say where its geometries are.* \['id', 'place'\]"),
        ({"geometry_column": "shape"}, "has no column 'shape'"),
        ({"geometry_column": "place"}, "does not say its coordinate reference system"),
        ({"geometry_column": "id", "crs": "EPSG:4326"}, "a value of type int is not a geometry"),
        ({"geometry_column": ["id", "place"], "crs": "EPSG:4326"}, "are not numbers"),
    ],
)
def test_records_that_do_not_say_where_they_are_are_refused(options: Any, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        tiles(rows(POINT.wkt), **options)


@pytest.mark.parametrize(
    "values",
    [
        pyarrow.array([BOX]),
        pyarrow.array([{"minx": -9.14, "miny": 38.71, "maxx": -9.14, "maxy": 38.71}]),
        pyarrow.array([{"min_x": -9.14, "min_y": 38.71, "max_x": -9.14, "max_y": 38.71}]),
        pyarrow.array([GEOJSON]),
        pyarrow.array([{"x": -9.14, "y": 38.71}]),
        pyarrow.array([{"lat": 38.71, "lon": -9.14}]),
    ],
    ids=["Overture's box", "GeoPandas' bounds", "DuckDB's BOX_2D", "GeoJSON", "DuckDB's POINT_2D", "lat and lon"],
)
def test_structs_tell_their_form_by_their_names(values: Any) -> None:
    assert tiles(pyarrow.table({"place": values}), geometry_column="place", crs="EPSG:4326") == WANTED


RUNS = pyarrow.RunEndEncodedArray.from_arrays


@pytest.mark.parametrize(
    "values",
    [
        RUNS(pyarrow.array([2], pyarrow.int32()), pyarrow.array([POINT.wkt])),
        RUNS(pyarrow.array([2], pyarrow.int32()), pyarrow.array([POINT.wkb])),
        pyarrow.array([json.dumps(GEOJSON)] * 2, pyarrow.json_()),
        pyarrow.array([[-9.1404, 38.7096, -9.1396, 38.7104], [-9.1404, 38.7096, 0.0, -9.1396, 38.7104, 9.0]]),
    ],
    ids=["runs of text", "runs of WKB", "JSON", "lists of a bbox"],
)
def test_a_column_may_be_stored_in_any_way(values: Any) -> None:
    assert tiles(pyarrow.table({"place": values}), geometry_column="place", crs="EPSG:4326") == WANTED


@pytest.mark.parametrize(
    "number",
    [
        lambda value: pyarrow.array([Decimal(value)]),
        lambda value: pyarrow.array([value]).dictionary_encode(),
        lambda value: RUNS(pyarrow.array([1], pyarrow.int32()), pyarrow.array([value])),
        lambda value: pyarrow.array([value], pyarrow.uint64()),
        lambda value: pyarrow.array([float(value)]),
    ],
    ids=["decimals", "dictionary", "runs", "uint64", "floats"],
)
def test_the_numbers_of_tiles_and_cells_may_be_stored_in_any_way(number: Any) -> None:
    table = pyarrow.table({"z": number(12), "x": number(1944), "y": number(1569)})
    assert {str(tile) for tile in plan_invalidation("roads", tiles=table).tiles()} == WANTED
    cell = number(0x87393362BFFFFFF) if "float" not in str(number(1).type) and "double" not in str(number(1).type) else None
    if cell is not None:  # a float does not hold all digits
        assert plan_invalidation("roads", cells=pyarrow.table({"cell": cell}), zooms=3).tile_count == 1


def test_a_struct_of_geojson_may_hold_several_kinds() -> None:
    ring = [[[-9.1404, 38.709], [-9.1396, 38.709], [-9.1396, 38.711], [-9.1404, 38.709]]]
    members = [{"type": "Polygon", "coordinates": ring}, {"type": "GeometryCollection", "geometries": [GEOJSON]}]
    kind = pyarrow.struct(
        {
            "type": pyarrow.string(),
            "coordinates": pyarrow.list_(pyarrow.list_(pyarrow.list_(pyarrow.float64()))),
            "geometries": pyarrow.list_(
                pyarrow.struct({"type": pyarrow.string(), "coordinates": pyarrow.list_(pyarrow.float64())})
            ),
        }
    )
    table = pyarrow.table({"place": pyarrow.array(members, kind)})
    assert tiles(table, geometry_column="place", crs="EPSG:4326") == WANTED


def test_bigquerys_geography_is_marked_and_in_degrees() -> None:
    marks = {"ARROW:extension:name": "google:sqlType:geography", "ARROW:extension:metadata": '{"encoding": "WKT"}'}
    schema = pyarrow.schema([pyarrow.field("id", pyarrow.int64()), pyarrow.field("place", pyarrow.string(), metadata=marks)])
    with pytest.warns(UserWarning, match="The edges of column 'place' are spherical"):
        assert tiles(pyarrow.table({"id": [1], "place": [POINT.wkt]}, schema=schema)) == WANTED


NUMBERS = {
    "numbers": pyarrow.table({"lon": [-9.14], "lat": [38.71]}),
    "decimals": pyarrow.table({"lon": [Decimal("-9.14")], "lat": [Decimal("38.71")]}),
    "text": pyarrow.table({"lon": ["-9.14"], "lat": ["38.71"]}),
    "pandas": pandas.DataFrame({"lon": [-9.14], "lat": [38.71]}),
    "records": [{"lon": -9.14, "lat": Decimal("38.71")}],
}


@pytest.mark.parametrize("geometry", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("column", [("lon", "lat"), ["lon", "lat"], '["lon", "lat"]'], ids=str)
def test_two_columns_are_points(geometry: Any, column: Any) -> None:
    assert tiles(geometry, geometry_column=column, crs="EPSG:4326") == WANTED


def test_two_columns_of_a_parquet_file_are_points(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"id": [1, 2], "x": [-9.14, None], "y": [38.71, 1]}), tmp_path / "a.parquet")
    with pytest.warns(UserWarning, match="1 member whose geometry is null: skipped"):
        assert tiles(tmp_path / "a.parquet", geometry_column=("x", "y"), crs="EPSG:4326") == WANTED


@pytest.mark.parametrize("column", [(), ("lon",), ("a", "b", "c"), ("lon", 5), 5, "", '["lon"]'], ids=str)
def test_neither_one_column_nor_two_is_refused(column: Any) -> None:
    with pytest.raises(InvalidInputError, match="geometry_column = "):
        tiles(NUMBERS["numbers"], geometry_column=column, crs="EPSG:4326")


# -- nulls ------------------------------------------------------------------------------------------------------------------

NULL = {"type": "Feature", "properties": {}, "geometry": None}
NULLS = {
    "feature": NULL,
    "text": json.dumps(NULL),
    "list": [NULL, NULL],
    "collection": {"type": "FeatureCollection", "features": [NULL]},
    "series": geopandas.GeoSeries([None], crs=4326),
    "table": pyarrow.table({"place": pyarrow.array([None], pyarrow.string())}),
    "records": rows(None),
    "not a number": rows(float("nan")),
}


@pytest.mark.parametrize("geometry", NULLS.values(), ids=NULLS)
def test_a_null_that_is_all_there_is_is_an_error(geometry: Any) -> None:
    options = {"geometry_column": "place", "crs": "EPSG:4326"} if "place" in str(geometry) else {}
    with pytest.raises(InvalidInputError, match=r"null"):
        tiles(geometry, **options)


@pytest.mark.parametrize(
    "geometry",
    [
        [NULL, POINT],
        {"type": "FeatureCollection", "features": [NULL, {**NULL, "geometry": GEOJSON}]},
        geopandas.GeoSeries([None, POINT], crs=4326),
        pyarrow.table({"": [None, f"SRID=4326;{POINT.wkt}"]}),
    ],
    ids=lambda geometry: type(geometry).__name__,
)
def test_a_null_beside_others_is_skipped_with_a_count(geometry: Any) -> None:
    with pytest.warns(UserWarning, match="geometry has 1 member whose geometry is null: skipped"):
        assert tiles(geometry) == WANTED


@pytest.mark.parametrize("name", ["a.geojson", "a.gpkg", "a.fgb", "a.parquet"])
def test_a_null_in_a_file_is_counted_too(tmp_path: Path, name: str) -> None:
    frame = geopandas.GeoDataFrame(geometry=[None, POINT, None], crs=4326)
    if name.endswith(".parquet"):
        frame.to_parquet(tmp_path / name)
    else:
        frame.to_file(tmp_path / name, **({"SPATIAL_INDEX": "NO"} if name.endswith(".fgb") else {}))
    with pytest.warns(UserWarning, match="geometry has 2 members whose geometry is null: skipped"):
        assert tiles(tmp_path / name) == WANTED


@pytest.mark.parametrize("name", ["polygon (1).geojson", "point empty.geojson", "BOX(1 2,3 4)"])
def test_a_file_may_be_called_like_a_geometry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(json.dumps(GEOJSON))
    assert tiles(name) == WANTED


def test_two_columns_of_a_geodataframe_are_points() -> None:
    frame = geopandas.GeoDataFrame({"lon": [-9.14], "lat": [38.71]}, geometry=[OTHER], crs=3857)
    assert tiles(frame, geometry_column=["lon", "lat"], crs="EPSG:4326") == WANTED
    with pytest.raises(InvalidInputError, match="has no column 'x'"):
        tiles(frame, geometry_column=["x", "lat"], crs="EPSG:4326")


# -- files ------------------------------------------------------------------------------------------------------------------


def test_a_csv_of_places_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "stations.csv").write_text("id,lon,lat,shape\n1,-9.14,38.71,POINT (-9.14 38.71)\n")
    path = str(tmp_path / "stations.csv")
    with pytest.raises(
        InvalidInputError, match=r"geometry_column=\['lon', 'lat'\].*Its columns: \['id', 'lon', 'lat', 'shape'\]"
    ):
        tiles(path)
    with pytest.raises(InvalidInputError, match="does not say its coordinate reference system"):
        tiles(path, geometry_column=["lon", "lat"])
    with pytest.raises(InvalidInputError, match="has no column 'long'"):
        tiles(path, geometry_column=["long", "lat"], crs="EPSG:4326")
    assert tiles(path, geometry_column=["lon", "lat"], crs="EPSG:4326") == WANTED
    assert tiles(path, geometry_column="shape", crs="EPSG:4326") == WANTED


def layers(folder: Path) -> str:
    for name, point in {"one": POINT, "two words": OTHER}.items():
        frame = geopandas.GeoDataFrame({"id": [1]}, geometry=[point], crs=4326)
        frame.to_file(folder / "a.gpkg", layer=name, mode="a" if (folder / "a.gpkg").exists() else "w")
    return str(folder / "a.gpkg")


def test_a_layer_is_read_alone_and_without_one_all_are(tmp_path: Path) -> None:
    path = layers(tmp_path)
    assert tiles(path) == WANTED | tiles(OTHER)
    assert tiles(path, layer="one") == WANTED
    assert tiles(path, layer="two words") == tiles(OTHER)


def test_a_layer_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"has no layer 'three' with geometries. Its layers: \['one', 'two words'\]"):
        tiles(layers(tmp_path), layer="three")
    pyarrow.parquet.write_table(pyarrow.table({"place": [POINT.wkb]}), tmp_path / "a.parquet")
    with pytest.raises(InvalidInputError, match="has no layers: omit it"):
        tiles(tmp_path / "a.parquet", layer="one", geometry_column="place", crs="EPSG:4326")
    with pytest.raises(InvalidInputError, match="must be the name of a layer"):
        tiles(layers(tmp_path), layer=0)


def test_a_zip_and_a_folder_of_shapefiles_are_read_with_all_layers(tmp_path: Path) -> None:
    folder = tmp_path / "shapes"
    folder.mkdir()
    for name, point in {"one": POINT, "two": OTHER}.items():
        geopandas.GeoDataFrame({"id": [1]}, geometry=[point], crs=4326).to_file(folder / f"{name}.shp")
    with zipfile.ZipFile(tmp_path / "shapes.zip", "w") as packed:
        for path in folder.iterdir():
            packed.write(path, path.name)
    for path in (folder, tmp_path / "shapes.zip"):
        assert tiles(path) == WANTED | tiles(OTHER)
        assert tiles(path, layer="one") == WANTED


@pytest.mark.parametrize(
    "text",
    [
        "CIRCULARSTRING (0 0, 1 1, 2 0)",
        "CURVEPOLYGON (COMPOUNDCURVE ((0 0, 1 1), CIRCULARSTRING (1 1, 0 2, 0 0)))",
        "TIN EMPTY",
    ],
)
def test_a_curve_as_text_says_what_to_do(text: str) -> None:
    for geometry, options in ((text, {}), (pyarrow.table({"": [text]}), {"crs": "EPSG:4326"})):
        with pytest.raises(InvalidInputError, match="ST_CurveToLine"):
            tiles(geometry, **options)


LONG = POINT.buffer(5, quad_segs=20_000)


@pytest.mark.parametrize(
    "geometry",
    [
        LONG.wkt.replace("POLYGON", "POLYGN"),
        LONG.wkt[:-5],
        LONG.wkb_hex[:-5],
        LONG.wkb_hex[:-6],
        LONG.wkb[:-6],
        shapely.to_geojson(LONG)[:-5],
        shapely.to_geojson(LONG).replace("Polygon", "Polygn"),
        {"type": "Polygn", "coordinates": shapely.to_geojson(LONG)},
        rows(LONG.wkt.replace("POLYGON", "POLYGN")),
        pyarrow.table({"place": [LONG.wkt.replace("POLYGON", "POLYGN")]}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_messages_about_long_text_are_short(geometry: Any) -> None:
    options = {"geometry_column": "place", "crs": "EPSG:4326"} if isinstance(geometry, (list, pyarrow.Table)) else {}
    with pytest.raises(InvalidInputError) as caught:
        tiles(geometry, **options)
    assert len(str(caught.value)) < 1000


# -- pipes ------------------------------------------------------------------------------------------------------------------


def through_a_pipe(folder: Path, content: bytes) -> str:
    os.mkfifo(folder / "pipe")
    threading.Thread(target=lambda: (folder / "pipe").write_bytes(content), daemon=True).start()
    return str(folder / "pipe")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
@pytest.mark.parametrize("form", ["GeoJSON", "WKT", "hexadecimal", "Parquet", "FlatGeobuf", "GeoPackage"])
def test_a_geometry_may_come_through_a_pipe(tmp_path: Path, form: str) -> None:
    frame = geopandas.GeoDataFrame({"id": [1]}, geometry=[POINT], crs=4326)
    if form == "Parquet":
        frame.to_parquet(tmp_path / "a.parquet")
    elif form in ("FlatGeobuf", "GeoPackage"):
        frame.to_file(tmp_path / f"a.{'fgb' if form == 'FlatGeobuf' else 'gpkg'}")
    else:
        texts = {"GeoJSON": json.dumps(GEOJSON), "WKT": POINT.wkt, "hexadecimal": EWKB}
        (tmp_path / "a.txt").write_text(f"{texts[form]}\n")
    (path,) = (each for each in tmp_path.iterdir() if each.stem == "a")
    assert tiles(through_a_pipe(tmp_path, path.read_bytes())) == WANTED


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
@pytest.mark.parametrize(
    ("content", "said"), [(b"", "is a pipe with nothing in it"), (b"nonsense", r"/pipe' cannot be read as a")]
)
def test_a_pipe_without_a_geometry_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        tiles(through_a_pipe(tmp_path, content))


def test_foreign_input_has_a_size_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fused_cache_ops.selection.shapes.MOST_BYTES", 1 << 20)
    monkeypatch.setattr("fused_cache_ops.selection.cells.MOST_BYTES", 1 << 20)
    content = b"8928308280fffff\n" * 70_000
    (tmp_path / "cells.txt").write_bytes(content)
    with pytest.raises(InvalidInputError, match="it has more than 1 MiB: is it a list of cells"):
        plan_invalidation("roads", cells=str(tmp_path / "cells.txt"), zooms=3)
    with pytest.raises(InvalidInputError, match="is a pipe with more than 1 MiB"):
        tiles(through_a_pipe(tmp_path, content))


# -- boxes in 32 bits -------------------------------------------------------------------------------------------------------


def test_a_box_in_32_bits_is_grown_before_it_spares_a_geometry(tmp_path: Path) -> None:
    """The corner of four tiles is at a latitude that 32 bits do not hold: rounded, the box lies on one side of it."""
    west = -9.14
    edge = np.float64(np.float32(west)) - 3e-8  # rounds up to the number
    line = shapely.LineString([(edge, 38.71), (edge + 1e-9, 38.71)])
    box = {name: np.float32(value) for name, value in zip(("xmin", "ymin", "xmax", "ymax"), line.bounds)}
    kind = pyarrow.struct(dict.fromkeys(box, pyarrow.float32()))
    covering = {"bbox": {name: ["bbox", name] for name in box}}
    geo = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {"geometry": {"encoding": "WKB", "geometry_types": [], "covering": covering}},
    }
    table = pyarrow.table({"geometry": [line.wkb], "bbox": pyarrow.array([box], kind)})
    pyarrow.parquet.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), tmp_path / "a.parquet")
    assert tiles(tmp_path / "a.parquet", 30) == tiles(line, 30)
    assert tiles(pyarrow.table({"place": pyarrow.array([box], kind)}), 30, geometry_column="place", crs=4326) >= tiles(line, 30)


def test_metadata_of_a_file_count_that_its_arrow_schema_lacks(tmp_path: Path) -> None:
    """As geoarrow-c writes it: the file's own key-value metadata beside an Arrow schema that has none."""
    geo = {"version": "1.1.0", "primary_column": "place", "columns": {"place": {"encoding": "WKB", "geometry_types": []}}}
    table = pyarrow.table({"id": [1], "place": [POINT.wkb]}).replace_schema_metadata({})
    with pyarrow.parquet.ParquetWriter(tmp_path / "a.parquet", table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"geo": json.dumps(geo)})
    assert tiles(tmp_path / "a.parquet") == WANTED


def test_a_polars_column_says_its_system_as_its_frame_does() -> None:
    frame = geopandas.GeoDataFrame({"id": [1, 2]}, geometry=[POINT, None], crs=4326).to_crs(3857)
    table = polars.from_arrow(pyarrow.table(frame.to_arrow()))
    assert isinstance(table, polars.DataFrame)
    for form in (table, table["geometry"], table.filter(polars.col("id") == 1)["geometry"]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the null
            assert tiles(form) == WANTED
    assert tiles(polars.Series(["POINT (-9.14 38.71)"]), crs="EPSG:4326") == WANTED


def test_a_grid_that_is_not_installed_is_said_with_what_it_costs() -> None:
    place = geopandas.GeoSeries([shapely.Point(-100, 40)], crs="EPSG:4267")
    with pytest.warns(
        UserWarning, match=r"geometry is in 'NAD27', which PROJ converts to degrees with about \d+ m here: the grid"
    ):
        tiles(place)


@pytest.mark.parametrize("edges", ["spherical", "vincenty", "thomas", "andoyer", "karney"])
def test_edges_that_are_not_planar_are_said_to_be_taken_as_straight(edges: str) -> None:
    marks = {
        "ARROW:extension:name": "geoarrow.wkb",
        "ARROW:extension:metadata": json.dumps({"crs": "OGC:CRS84", "edges": edges}),
    }
    schema = pyarrow.schema([pyarrow.field("place", pyarrow.binary(), metadata=marks)])
    with pytest.warns(UserWarning, match=f"The edges of column 'place' are {edges}, and taken to be straight"):
        assert tiles(pyarrow.table({"place": [POINT.wkb]}, schema=schema)) == WANTED


# -- edges over more than half the globe ------------------------------------------------------------------------------------

JUMPING = shapely.Polygon([(179, 1), (-179, 1), (-179, 2), (179, 2)])
AT_180 = shapely.Polygon([(179, 1), (180, 1), (-180, 1), (-179, 1), (-179, 2), (-180, 2), (180, 2), (179, 2)])
BAND = shapely.box(-180, 60, 180, 61)
BOTH_SIDES = {"3/7/3", "3/0/3"}


@pytest.mark.parametrize(
    "shape", [JUMPING, AT_180, shapely.MultiPolygon([JUMPING, BAND]), shapely.GeometryCollection([JUMPING, BAND])]
)
def test_each_ring_that_jumps_is_warned_about_and_can_be_let_cross(shape: Any) -> None:
    with pytest.warns(UserWarning, match="taken literally, the long way round: antimeridian='cross' lets it cross"):
        literal = tiles(shape, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", "geometry was invalid and has been repaired")  # it is, taken literally
        assert tiles(shape, 3, antimeridian="literal") == literal
        crossing = tiles(shape, 3, antimeridian="cross")
    assert crossing == (BOTH_SIDES | (tiles(BAND, 3) if len(shapely.get_parts(shape)) > 1 else set()))
    assert literal > crossing


@pytest.mark.parametrize(
    "shape",
    [
        BAND,
        shapely.box(-180, -90, 180, 90),
        shapely.Polygon([(-180, -90), (-180, -78), (-90, -75), (0, -70), (90, -66), (180, -78), (180, -90)]),
        shapely.Polygon([(-180, 0), (0, 0), (180, 0), (180, 1), (0, 1), (-180, 1)]),
    ],
    ids=["band", "world", "Antarctica", "band with more corners"],
)
def test_what_goes_around_the_globe_is_not_warned_about_and_stays(shape: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tiles(shape, 4) == tiles(shape, 4, antimeridian="cross") == tiles(shape, 4, antimeridian="literal")


def test_a_line_may_cross() -> None:
    line = shapely.LineString([(179, 1), (-179, 1)])
    assert tiles(line, 3, antimeridian="cross") == BOTH_SIDES


def test_a_ring_around_a_pole_encloses_it() -> None:
    ring = shapely.Polygon([(-120, 80), (0, 80), (120, 80)])
    assert tiles(ring, 3, antimeridian="cross") == {f"3/{column}/0" for column in range(8)}
    south = shapely.Polygon([(-120, -80), (0, -80), (120, -80)])
    assert tiles(south, 3, antimeridian="cross") == {f"3/{column}/7" for column in range(8)}


def test_a_hole_crosses_with_its_shell() -> None:
    shell = [(170, -20), (-170, -20), (-170, 20), (170, 20)]
    hole = [(174, -14), (174, 14), (-174, 14), (-174, -14)]
    shape = shapely.Polygon(shell, [hole])
    same = shapely.difference(shapely.box(170, -20, 190, 20), shapely.box(174, -14, 186, 14))
    assert tiles(shape, 8, antimeridian="cross") == tiles(same, 8)


def test_another_system_in_degrees_may_cross_too() -> None:
    frame = geopandas.GeoSeries([JUMPING], crs="EPSG:4258")
    assert tiles(frame, 3, antimeridian="cross") == BOTH_SIDES
    with pytest.warns(UserWarning, match="an edge that spans 358°"):
        assert len(tiles(frame, 3)) == 8


@pytest.mark.parametrize("antimeridian", ["split", "", True])
def test_another_reading_is_refused(antimeridian: Any) -> None:
    with pytest.raises(InvalidInputError, match="must be 'cross' or 'literal'"):
        tiles(JUMPING, antimeridian=antimeridian)
