"""The table of what users have and what they pass: each row is run."""

import datetime
import json
import os
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import geopandas
import mercantile
import numpy as np
import pandas
import polars
import pyarrow
import pyarrow.parquet
import pystac
import pytest
import rasterio
import rasterio.transform
import shapely
import stac_geoparquet.arrow

from fused_cache_ops import plan_invalidation
from fused_cache_ops.changes import (
    changed_files,
    changed_geometry,
    changed_raster,
    changes_of_delta,
    changes_of_folder,
    changes_of_icechunk,
    folder_listing,
    raster_footprint,
)

PAGE = Path(__file__).parents[2] / "docs/sources.md"
ROWS = re.findall(r"^\| ((?!you have|---).+) \| `(.+)` \|$", PAGE.read_text(), re.MULTILINE)
HAS_ICECHUNK = sys.version_info >= (3, 11)
POINT = shapely.Point(-9.14, 38.71)
GEOJSON = {"type": "Point", "coordinates": [-9.14, 38.71]}
FRAME = geopandas.GeoDataFrame({"id": [1], "lon": [-9.14], "lat": [38.71]}, geometry=[POINT], crs=4326)
BOX = [-9.1404, 38.7096, -9.1396, 38.7104]
TRACK = """<?xml version="1.0"?><gpx version="1.1" creator="t" xmlns="http://www.topografix.com/GPX/1/1"><trk><trkseg>
<trkpt lat="38.71" lon="-9.14"/><trkpt lat="38.7101" lon="-9.14"/></trkseg></trk></gpx>"""
FOLDERS = """<?xml version="1.0"?><kml xmlns="http://www.opengis.net/kml/2.2"><Document><Folder><name>a</name><Placemark>
<Point><coordinates>-9.14,38.71</coordinates></Point></Placemark></Folder></Document></kml>"""
LISTS = {
    "expired.list": "12/1944/1569\n",
    "requests.list": "12/1944/1569 17\n",
    "mercantile.jsonl": "[1944, 1569, 12]\n",
    "zxy.jsonl": "[12, 1944, 1569]\n",
    "named.jsonl": '{"z": 12, "x": 1944, "y": 1569}\n',
    "tiles.csv": 'name,y,x,z\n"Lisbon, PT",1569,1944,12\n',
    "pandas.csv": ",z,x,y\n0,12.0,1944.0,1569.0\n",
    "quadkeys.txt": mercantile.quadkey(1944, 1569, 12) + "\n",
    "stations.csv": "id,lon,lat,place\n1,-9.14,38.71,POINT (-9.14 38.71)\n",
    "track.gpx": TRACK,
    "folders.kml": FOLDERS,
}


ITEM = {"type": "Feature", "properties": {}, "geometry": None, "bbox": BOX}


def stac_item(hour: int) -> pystac.Item:
    when = datetime.datetime(2026, 11, 2, hour, tzinfo=datetime.timezone.utc)
    properties = {"updated": pystac.utils.datetime_to_str(when)}
    return pystac.Item("a", shapely.geometry.mapping(shapely.box(*BOX)), BOX, when, properties)


def write_repository(path: Path) -> None:
    """A repository of two arrays of one chunk, which were written after the snapshot that is tagged."""
    import icechunk
    import zarr

    repo = icechunk.Repository.create(icechunk.local_filesystem_storage(str(path)))
    session = repo.writable_session("main")
    group = zarr.group(store=session.store)
    coordinates = {"lat": [38.7098, 38.7102], "lon": [-9.1402, -9.1398], "y": [4681690, 4681710], "x": [-1017470, -1017450]}
    for name, values in coordinates.items():
        group.create_array(name, shape=(2,), dtype="f8", dimension_names=(name,))[:] = values
    for name, dimensions in (("rain", ("lat", "lon")), ("eastings", ("y", "x"))):
        group.create_array(name, shape=(2, 2), dtype="f4", dimension_names=dimensions)
    repo.create_tag("shown", session.commit("all zero"))
    session = repo.writable_session("main")
    for name in ("rain", "eastings"):
        zarr.open_array(session.store, path=name)[:] = 1
    session.commit("a load")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("sources")
    for name, text in LISTS.items():
        (found / name).write_text(text)
    FRAME.to_parquet(found / "parcels.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"lon": [-9.14], "lat": [38.71]}), found / "places.parquet")
    FRAME.to_file(found / "parcels.geojson")
    FRAME.to_file(found / "layers.gpkg", layer="parcels")
    FRAME.to_file(found / "layers.gpkg", layer="others", mode="a")
    for name, value in (("elevation.tif", 2), ("yesterday.tif", 1)):
        how: Any = {"transform": rasterio.transform.from_bounds(*BOX, 4, 4), "crs": "EPSG:4326", "dtype": "uint8"}
        with rasterio.open(found / name, "w", driver="GTiff", width=4, height=4, count=1, **how) as raster:
            raster.write(np.full((1, 4, 4), value, "uint8"))
    for name, hour in (("old.parquet", 6), ("items.parquet", 7)):
        stac_geoparquet.arrow.to_parquet(stac_geoparquet.arrow.parse_stac_items_to_arrow([stac_item(hour)]), found / name)
    (found / "shapes").mkdir()
    FRAME.to_file(found / "shapes/parcels.shp")
    (found / "stations.dbf").write_bytes((found / "shapes/parcels.dbf").read_bytes())
    with zipfile.ZipFile(found / "shapes.zip", "w") as packed:
        for path in (found / "shapes").iterdir():
            packed.write(path, path.name)
    rows = pyarrow.table({"id": [1], "geometry": [POINT.wkb]})
    deltalake.write_deltalake(found / "parcels", rows.slice(0, 0), configuration={"delta.enableChangeDataFeed": "true"})
    deltalake.write_deltalake(found / "parcels", rows, mode="append")
    (found / "lake").mkdir()
    (found / "listing.json").write_text(json.dumps(folder_listing(found / "lake")))
    FRAME.to_parquet(found / "lake/parcels.parquet")
    if HAS_ICECHUNK:
        write_repository(found / "rain")
    return found


@pytest.fixture
def names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the page's rows are about."""
    monkeypatch.chdir(folder)
    marks = {"ARROW:extension:name": "google:sqlType:geography", "ARROW:extension:metadata": '{"encoding": "WKT"}'}
    catalogue = pystac.Catalog("scenes", "All scenes")
    catalogue.add_item(stac_item(7))
    geography = pyarrow.field("place", pyarrow.string(), metadata=marks)
    with duckdb.connect() as connection, rasterio.open("elevation.tif") as dataset:
        yield {
            "dataset": dataset,
            "changed_raster": changed_raster,
            "raster_footprint": raster_footprint,
            "mercantile": mercantile,
            "numpy": np,
            "polars": polars,
            "pyarrow": pyarrow,
            "shapely": shapely,
            "quadkey": mercantile.quadkey(1944, 1569, 12),
            "item": ITEM,
            "pystac": pystac,
            "pystac_item": stac_item(7),
            "collection": catalogue,
            "frame": FRAME,
            "relation": connection.sql("SELECT 1 AS id, 'POINT (-9.14 38.71)'::GEOMETRY AS place"),
            "polars_frame": polars.from_arrow(pyarrow.table(FRAME.to_arrow())),
            "bigquery": pyarrow.table({"place": [POINT.wkt]}, schema=pyarrow.schema([geography])),
            "snowflake": pandas.DataFrame({"PLACE": [json.dumps(GEOJSON)]}),
            "hexadecimal": pyarrow.table({"PLACE": [POINT.wkb_hex]}),
            "ewkb": shapely.to_wkb(shapely.set_srid(POINT, 4326), hex=True, include_srid=True),
            "plain": pyarrow.table({"place": [POINT.wkb]}),
            "struct": pyarrow.table({"geometry": [GEOJSON]}),
            "boxes": pyarrow.table({"bbox": [dict(zip(("xmin", "ymin", "xmax", "ymax"), BOX))]}),
            "places": pandas.DataFrame({"lon": [-9.14], "lat": [38.71]}),
            "eastings": pandas.DataFrame({"x": [-1017460.0], "y": [4681700.0]}),
            "before": pyarrow.table({"id": [1], "place": [POINT.wkt], "name": ["a"]}),
            "after": pyarrow.table({"id": [1], "place": [POINT.wkt], "name": ["b"]}),
            "changed_files": changed_files,
            "changes_of_delta": changes_of_delta,
            "changes_of_folder": changes_of_folder,
            "folder_listing": folder_listing,
            "changes_of_icechunk": changes_of_icechunk,
            "repo": "rain",
            "snapshot": "shown",
            "changed_geometry": changed_geometry,
        }


@pytest.fixture
def pipe() -> Iterator[Any]:
    """Nine as the number of an open pipe, as in a process substitution."""
    reading, writing = os.pipe()

    def fill(content: bytes) -> str:
        os.write(writing, content)
        os.close(writing)
        return f"/dev/fd/{reading}"

    yield fill
    os.close(reading)


def test_the_page_has_rows() -> None:
    assert len(ROWS) > 50
    assert {len(line.split(" | ")) for line in PAGE.read_text().splitlines() if line.startswith("| ")} == {2}


@pytest.mark.filterwarnings("ignore:The edges of column 'place' are spherical")
@pytest.mark.parametrize(("what", "keywords"), ROWS, ids=[what for what, _ in ROWS])
def test_what_the_page_says_to_pass_is_read(what: str, keywords: str, names: dict[str, Any], pipe: Any) -> None:
    if "icechunk" in keywords and not HAS_ICECHUNK:
        pytest.skip("Icechunk needs Python 3.11")
    if "/dev/fd/9" in keywords:
        content = b"12/1944/1569\n" if keywords.startswith("tiles_file") else json.dumps(GEOJSON).encode()
        keywords = keywords.replace("/dev/fd/9", pipe(content))
    given = eval(f"dict({keywords})", names)
    zooms = {} if keywords.startswith("tiles") else {"zooms": 12}
    assert [str(tile) for tile in plan_invalidation("roads", **given, **zooms).tiles()] == ["12/1944/1569"]
