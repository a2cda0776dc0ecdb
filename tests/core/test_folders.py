"""Folders: which files are new, rewritten or gone since a listing, and where they are."""

import datetime
import json
import os
import random
import shutil
import warnings
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import geopandas
import mercantile
import numpy as np
import obstore.store
import pyarrow
import pyarrow.parquet
import pytest
import rasterio
import rasterio.transform
import shapely
from fsspec.implementations.memory import MemoryFileSystem
from typer.testing import CliRunner

from fused_cache_ops import InvalidInputError, UnavailableError, plan_invalidation
from fused_cache_ops.changes import ChangedFiles, changed_files, changes_of_folder, folder_listing
from fused_cache_ops.cli.commands import program

LISBON, PARIS, SUVA = shapely.Point(-9.14, 38.71), shapely.Point(2.35, 48.86), shapely.Point(178.44, -18.14)
COVERED = {"write_covering_bbox": True}
SAME = {"size": 1, "tag": "1", "modified": None}


def write(path: Path, *places: Any, crs: Any = 4326, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = geopandas.GeoDataFrame({"id": range(len(places))}, geometry=list(places), crs=4326).to_crs(crs)
    frame.to_parquet(path, **how) if path.suffix == ".parquet" else frame.to_file(path)
    return path


def write_raster(path: Path, *box: float, crs: Any = "EPSG:4326") -> Path:
    how: Any = {"transform": rasterio.transform.from_bounds(*box, 4, 4), "crs": crs, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", width=4, height=4, count=1, **how) as raster:
        raster.write(np.ones((1, 4, 4), "uint8"))
    return path


def tiles(geometry: Any, zooms: Any = 10) -> set[Any]:
    return {tuple(tile) for tile in plan_invalidation("udf", geometry=geometry, zooms=zooms).tiles()}


def of(*places: Any, zoom: int = 10) -> set[Any]:
    return {(zoom, tile.x, tile.y) for tile in (mercantile.tile(place.x, place.y, zoom) for place in places)}


def kept(listing: Any) -> Any:
    """A listing that went through JSON."""
    return json.loads(json.dumps(listing))


# -- what changed ------------------------------------------------------------------------------------------------


def test_nothing_has_changed_in_a_folder_that_nobody_touched(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", LISBON)
    before = kept(folder_listing(tmp_path))
    assert changed_files(before, folder_listing(str(tmp_path))) == ChangedFiles((), (), ())
    assert changes_of_folder(tmp_path, since=before).num_rows == 0


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", ["local", "memory", "obstore"])
def test_random_changes_are_found(tmp_path: Path, kind: str, seed: int) -> None:
    choose = random.Random(seed)
    store: Any = obstore.store.MemoryStore()
    memory = fsspec.filesystem("memory")

    def put(path: str, content: bytes) -> None:
        if kind == "obstore":
            obstore.put(store, path, content)
        elif kind == "memory":
            memory.pipe(f"/lake{seed}/{path}", content)
        else:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(content)

    def delete(path: str) -> None:
        if kind == "obstore":
            obstore.delete(store, path)
        elif kind == "memory":
            memory.rm(f"/lake{seed}/{path}")
        else:
            (tmp_path / path).unlink()

    def listed() -> Any:
        return kept(folder_listing({"local": tmp_path, "memory": f"memory://lake{seed}", "obstore": store}[kind]))

    names = [f"date={day}/{part}/f{number}.parquet" for day in range(3) for part in "ab" for number in range(4)]
    there = dict.fromkeys(["keep.parquet", *choose.sample(names, 10)])
    for path in there:
        put(path, b"1234")
    before = listed()
    rewritten = choose.sample(sorted(there.keys() - {"keep.parquet"}), 3)
    removed = choose.sample(sorted(there.keys() - {"keep.parquet", *rewritten}), 3)
    new = choose.sample(sorted(set(names) - there.keys()), 3)
    for path in rewritten:
        if kind == "local":
            (tmp_path / path).unlink()  # otherwise the clock of the file system may not have moved on
            put(f"{path}.other", b"")
            put(path, b"4321")
            delete(f"{path}.other")
            os.utime(tmp_path / path, ns=(1, 1))
        else:
            put(path, b"4321")
    for path in removed:
        delete(path)
    for path in new:
        put(path, b"1234")
    changed = changed_files(before, listed())
    assert changed == ChangedFiles(*(tuple(sorted(each)) for each in (new, rewritten, removed)))
    days = {path.split("/")[0].removeprefix("date=") for path in (*new, *rewritten, *removed)}
    assert {each["date"] for each in changed.partitions} == days


@pytest.mark.parametrize(
    ("before", "after", "is_same"),
    [
        ({"e_tag": '"1"', "size": 4, "last_modified": "a"}, {"e_tag": '"1"', "size": 4, "last_modified": "b"}, True),
        ({"e_tag": '"1"', "size": 4, "last_modified": "a"}, {"e_tag": '"2"', "size": 4, "last_modified": "a"}, False),
        ({"e_tag": '"1"', "size": 4, "last_modified": "a"}, {"size": 4, "last_modified": "a"}, False),
        ({"size": 4, "last_modified": "a"}, {"size": 4, "last_modified": "a"}, True),
        ({"size": 4, "last_modified": "a"}, {"size": 5, "last_modified": "a"}, False),
        ({"size": 4, "last_modified": "a"}, {"size": 4, "last_modified": "b"}, False),
        ({"size": 4}, {"size": 4}, False),
        ({"last_modified": "a"}, {"last_modified": "a"}, False),
        ({"size": 4, "VersionId": "null"}, {"size": 4, "VersionId": "null"}, False),  # S3 without versions
        ({"size": 4, "ETag": None, "LastModified": "a"}, {"size": 4, "ETag": None, "LastModified": "a"}, True),
    ],
    ids=str,
)
def test_what_cannot_be_told_apart_was_rewritten(before: Any, after: Any, is_same: bool) -> None:
    old, new = (folder_listing([{"name": "a.parquet", **each}]) for each in (before, after))
    assert changed_files(kept(old), kept(new)).rewritten == (() if is_same else ("a.parquet",))


def test_a_local_file_that_keeps_its_time_and_size_is_rewritten_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"1234")
    status = path.stat()
    before = folder_listing(tmp_path)
    (tmp_path / "b").write_bytes(b"4321")
    (tmp_path / "b").replace(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert changed_files(before, folder_listing(tmp_path)).rewritten == ("a.parquet",)


def test_partitions_are_values_of_folders(tmp_path: Path) -> None:
    before = folder_listing(tmp_path)
    for path in ("date=2026-11-22/city=S%C3%A3o%20Paulo/a.parquet", "date=__HIVE_DEFAULT_PARTITION__/a=b.parquet", "c.parquet"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    found = changed_files(before, folder_listing(tmp_path)).partitions
    assert found == [{}, {"date": "2026-11-22", "city": "São Paulo"}, {"date": None}]


# -- folders -----------------------------------------------------------------------------------------------------


def test_a_folder_that_does_not_exist_is_an_error_and_not_empty(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="does not exist"):
        folder_listing(tmp_path / "nowhere")
    with pytest.raises(InvalidInputError, match="does not exist"):
        folder_listing("memory://nowhere/at/all")
    (tmp_path / "a.parquet").touch()
    with pytest.raises(InvalidInputError, match="is a file"):
        folder_listing(tmp_path / "a.parquet")


def test_a_folder_of_which_nothing_is_left_is_an_error(tmp_path: Path) -> None:
    before = folder_listing(write(tmp_path / "a.parquet", LISBON).parent, footprints=True)
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(InvalidInputError, match="had 1 file, and has none: was it moved, or is it not mounted"):
        changes_of_folder(tmp_path, since=before)


def test_listings_of_different_folders_and_patterns_are_not_compared(tmp_path: Path) -> None:
    write(tmp_path / "a/1.parquet", LISBON)
    write(tmp_path / "b/1.parquet", LISBON)
    with pytest.raises(InvalidInputError, match="of different folders"):
        changed_files(folder_listing(tmp_path / "a"), folder_listing(tmp_path / "b"))
    with pytest.raises(InvalidInputError, match="of different patterns"):
        changed_files(folder_listing(tmp_path / "a"), folder_listing(tmp_path / "a", match="*.parquet"))


def test_a_folder_in_it_that_cannot_be_read_is_no_removal(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/locked/inner/a.parquet", b"1")
    real = type(memory).ls

    def refuse(self: Any, path: str, **how: Any) -> Any:
        if path.endswith("/inner"):
            raise PermissionError("no access")
        return real(self, path, **how)

    monkeypatch.setattr(type(memory), "ls", refuse)
    assert fsspec.AbstractFileSystem.find(memory, "/locked") == []  # what fsspec makes of it
    with pytest.raises(UnavailableError, match="no access"):
        folder_listing("memory://locked")


def test_links_are_followed_and_those_in_a_circle_end(tmp_path: Path) -> None:
    write(tmp_path / "real/a.parquet", LISBON)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/linked").symlink_to(tmp_path / "real")
    (tmp_path / "real/round").symlink_to(tmp_path / "folder")
    (tmp_path / "folder/gone.parquet").symlink_to(tmp_path / "nowhere")
    assert list(folder_listing(tmp_path / "folder")["files"]) == ["gone.parquet", "linked/a.parquet"]


def test_files_that_readers_of_such_folders_leave_out_are_left_out(tmp_path: Path) -> None:
    for path in ("_SUCCESS", ".part-0.crc", "_delta_log/0.json", ".cache/a.parquet", "_x=1/a.parquet"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    assert list(folder_listing(tmp_path)["files"]) == ["_x=1/a.parquet"]


def test_a_folder_of_which_all_is_left_out_is_an_error_and_not_empty(tmp_path: Path) -> None:
    (tmp_path / ".gitkeep").touch()
    assert folder_listing(tmp_path)["files"] == {}
    (tmp_path / "_lake").mkdir()
    (tmp_path / "_lake/a.parquet").write_bytes(b"1")
    with pytest.raises(InvalidInputError, match="all are left out: its names, or those of its folders, begin with _ or"):
        folder_listing(tmp_path)
    assert list(folder_listing(tmp_path / "_lake")["files"]) == ["a.parquet"]
    assert list(folder_listing([{"url": "s3://_lake/_b/a.parquet"}])["files"]) == ["s3://_lake/_b/a.parquet"]
    with pytest.raises(InvalidInputError, match=r"all are left out: none is like '\*\.parqet'"):
        folder_listing(tmp_path / "_lake", match="*.parqet")


def test_a_pattern_is_kept_with_the_listing(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", LISBON)
    before = folder_listing(tmp_path, match="*.parquet")
    (tmp_path / "readme.txt").touch()
    write(tmp_path / "b.parquet", PARIS)
    assert tiles(changes_of_folder(tmp_path, since=before)) == of(PARIS)


def test_records_of_fused_are_read_with_one_call_for_each_folder() -> None:
    when = datetime.datetime(2026, 11, 22, tzinfo=datetime.timezone.utc)
    folder = SimpleNamespace(url="s3://lake/a/", file_name="a", is_directory=True, size=None, last_modified=None)
    file = SimpleNamespace(url="s3://lake/a/1.parquet", file_name="1.parquet", is_directory=False, size=4, last_modified=when)
    with pytest.raises(InvalidInputError, match="names the folder 's3://lake/a', but none of its files"):
        folder_listing([folder])
    found = folder_listing([folder, file])["files"]
    assert found == {"s3://lake/a/1.parquet": {"size": 4, "tag": None, "modified": "2026-11-22T00:00:00+00:00"}}


def test_records_of_fsspec_and_of_obstore_are_read(tmp_path: Path) -> None:
    write(tmp_path / "a/1.parquet", LISBON)
    system = fsspec.filesystem("file")
    found = folder_listing(system.find(str(tmp_path), detail=True), footprints=True)["files"]
    assert list(found) == [str(tmp_path / "a/1.parquet")]
    assert "footprint" in found[str(tmp_path / "a/1.parquet")]
    store = obstore.store.LocalStore(str(tmp_path))
    (entry,) = folder_listing(obstore.list(store), address=str(tmp_path), footprints=True)["files"].values()
    assert entry["tag"]
    assert entry["footprint"]
    before = kept(folder_listing(store, address=str(tmp_path)))
    write(tmp_path / "a/2.parquet", PARIS)
    assert tiles(changes_of_folder(store, since=before, address=str(tmp_path))) == of(PARIS)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ([{"size": 4}], "a record without a path"),
        ([{"name": "a"}, {"name": "a"}], "names 'a' twice"),
        ([{"url": "https://a.b/c.parquet?sig=hunter2"}], r"with credentials in its address, 'https://a.b/c.parquet\?\*+'"),
        (7, "folder is of type int"),
        ("None", "looks like a value that is missing"),
        ("s3:/bucket/folder", "neither a path nor a URL"),
    ],
)
def test_what_is_no_folder_is_refused(folder: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        folder_listing(folder)


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        ({}, "it has no files"),
        ({"version": 2, "root": None, "match": None, "files": {}}, "its version is 2, and not 1"),
        ({"version": 1, "root": 3, "match": None, "files": {}}, "does not say of what folder"),
        ({"version": 1, "root": None, "match": None, "files": {"a": {"size": 1}}}, "it says"),
        (
            {"version": 1, "root": None, "match": None, "files": {"a": {"size": 1, "tag": "1", "modified": 1}}},
            "it says",
        ),
        (
            {"version": 1, "root": None, "match": None, "files": {"a": {**SAME, "footprint": [[2]]}}},
            "it says",
        ),
        (
            {"version": 1, "root": None, "match": None, "files": {"a": {**SAME, "footprint": [[2, 1, 1, float("nan")]]}}},
            "it says",
        ),
    ],
)
def test_what_is_no_listing_is_refused(tmp_path: Path, listing: Any, message: str) -> None:
    (tmp_path / "since.json").write_text(json.dumps(listing))
    with pytest.raises(InvalidInputError, match=message):
        changes_of_folder(tmp_path, since=tmp_path / "since.json")


def test_a_listing_is_limited_in_files_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        (tmp_path / f"{number}.parquet").touch()
    (tmp_path / "since.json").write_text(json.dumps(folder_listing(tmp_path)))
    monkeypatch.setattr("fused_cache_ops.changes.folders.MOST_FILES", 2)
    with pytest.raises(InvalidInputError, match="more than 2 files"):
        changes_of_folder(tmp_path, since=tmp_path / "since.json")
    monkeypatch.setattr("fused_cache_ops.changes.folders.MOST_BYTES", 100)
    with pytest.raises(InvalidInputError, match="more than 0 MiB"):
        changes_of_folder(tmp_path, since=tmp_path / "since.json")
    monkeypatch.setattr("fused_cache_ops.changes.listing.MOST_FILES", 2)
    with pytest.raises(InvalidInputError, match="more than 2 files: list its folders one by one"):
        folder_listing(tmp_path)


def test_a_password_in_an_address_is_neither_kept_nor_shown() -> None:
    with pytest.raises((InvalidInputError, UnavailableError)) as caught:
        folder_listing("ftp://user:hunter2@127.0.0.1:1/lake")
    assert "hunter2" not in str(caught.value)
    memory = fsspec.filesystem("memory")
    memory.pipe("/user:hunter2@lake/a.parquet", b"1")
    assert "hunter2" not in json.dumps(folder_listing("memory://user:hunter2@lake"))


# -- where it changed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_exactly_the_places_of_random_changes_are_found(tmp_path: Path, seed: int) -> None:
    choose = random.Random(seed)

    def somewhere() -> Any:
        return shapely.Point(choose.uniform(-180, 180), choose.uniform(-85, 85))

    def put(name: str) -> None:
        held[name] = [somewhere() for _ in range(choose.randint(1, 3))]
        write(tmp_path / name, *held[name], row_group_size=1, **COVERED)

    held: dict[str, list[Any]] = {}
    names = [f"part={number % 3}/{number}.parquet" for number in range(9)]
    for name in names[:6]:
        put(name)
    before = kept(folder_listing(tmp_path, footprints=True))
    changed = [place for name in names[:3] for place in held[name]]
    put(names[0])
    (tmp_path / names[1]).unlink()
    (tmp_path / names[2]).rename(tmp_path / names[6])
    put(names[7])
    changed += [place for name in (names[0], names[2], names[7]) for place in held[name]]
    assert tiles(changes_of_folder(tmp_path, since=before)) == of(*changed)


def test_a_rewritten_file_changed_where_it_was_and_where_it_is(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", LISBON)
    write(tmp_path / "b.parquet", SUVA)
    before = kept(folder_listing(tmp_path, footprints=True))
    write(tmp_path / "a.parquet", PARIS)
    assert tiles(changes_of_folder(tmp_path, since=before)) == of(LISBON, PARIS)


def test_a_removed_file_changed_where_it_was(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", LISBON)
    write(tmp_path / "b.parquet", SUVA)
    before = kept(folder_listing(tmp_path, footprints=True))
    (tmp_path / "a.parquet").unlink()
    assert tiles(changes_of_folder(tmp_path, since=before)) == of(LISBON)


@pytest.mark.parametrize("is_removed", [True, False])
def test_without_its_old_place_a_change_is_an_error(tmp_path: Path, is_removed: bool) -> None:
    write(tmp_path / "a.parquet", LISBON)
    write(tmp_path / "b.parquet", SUVA)
    before = folder_listing(tmp_path)
    (tmp_path / "a.parquet").unlink()
    if not is_removed:
        write(tmp_path / "a.parquet", LISBON, PARIS)
    with pytest.raises(InvalidInputError, match=r"'a.parquet' changed in .* does not say where it was"):
        changes_of_folder(tmp_path, since=before)


def test_a_listing_after_the_load_stands_for_the_folder_and_takes_over_what_is_known(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", LISBON)
    before = kept(folder_listing(tmp_path, footprints=True))
    before["files"]["a.parquet"]["footprint"] = [[0, 0, 1, 1]]  # so that it shows
    write(tmp_path / "b.parquet", PARIS)
    after = kept(folder_listing(tmp_path, footprints=before))
    assert after["files"]["a.parquet"]["footprint"] == [[0, 0, 1, 1]]
    write(tmp_path / "c.parquet", SUVA)  # is for the next time
    assert tiles(changes_of_folder(after, since=before)) == of(PARIS)
    assert tiles(changes_of_folder(tmp_path, since=after)) == of(SUVA)
    with pytest.raises(InvalidInputError, match="does not say where it is"):
        changes_of_folder(folder_listing(tmp_path), since=after)


@pytest.mark.parametrize("name", ["a.parquet", "a.geojson", "a.gpkg", "a.shp", "a.tif"])
def test_files_of_every_kind_have_a_place(tmp_path: Path, name: str) -> None:
    before = folder_listing(tmp_path)
    square = shapely.box(-9.2, 38.6, -9.1, 38.7)
    write_raster(tmp_path / name, *square.bounds) if name.endswith(".tif") else write(tmp_path / name, square)
    assert tiles(changes_of_folder(tmp_path, since=before)) == tiles(square)


@pytest.mark.parametrize("name", ["a.parquet", "a.gpkg", "a.tif"])
def test_places_in_another_system_are_within_the_boxes(tmp_path: Path, name: str) -> None:
    before = folder_listing(tmp_path)
    square = shapely.box(500_000, 4_500_000, 600_000, 4_600_000)
    how: Any = {"crs": "EPSG:32629"}
    if name.endswith(".tif"):
        write_raster(tmp_path / name, *square.bounds, **how)
    else:
        frame = geopandas.GeoDataFrame(geometry=[square], **how)
        frame.to_parquet(tmp_path / name, **COVERED) if name == "a.parquet" else frame.to_file(tmp_path / name)
    exact = {tuple(t) for t in plan_invalidation("udf", geometry=square, crs="EPSG:32629", zooms=10).tiles()}
    west, south, east, north = geopandas.GeoSeries([square.segmentize(1000)], **how).to_crs(4326).total_bounds
    around = tiles(shapely.box(west - 0.01, south - 0.01, east + 0.01, north + 0.01))
    assert exact <= tiles(changes_of_folder(tmp_path, since=before)) <= around


def test_row_groups_have_boxes_of_their_own(tmp_path: Path) -> None:
    before = folder_listing(tmp_path)
    write(tmp_path / "a.parquet", LISBON.buffer(0.001), PARIS.buffer(0.001), row_group_size=1, **COVERED)
    found = tiles(changes_of_folder(tmp_path, since=before))
    assert found == tiles([LISBON.buffer(0.001), PARIS.buffer(0.001)])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", ["float32", "float64"])
def test_the_boxes_of_a_covering_hold_all_rows(tmp_path: Path, seed: int, size: str) -> None:
    choose = np.random.default_rng(seed)
    places = [shapely.Point(x, y).buffer(0.4) for x, y in zip(choose.uniform(-179, 179, 40), choose.uniform(-80, 80, 40))]
    (tmp_path / "a").mkdir()
    before = folder_listing(tmp_path / "a")
    write(tmp_path / "full.parquet", *places, **COVERED)
    table = pyarrow.parquet.read_table(tmp_path / "full.parquet")
    kind = pyarrow.struct([(end, size) for end in ("xmin", "ymin", "xmax", "ymax")])
    column = table.schema.names.index("bbox")
    table = table.set_column(column, pyarrow.field("bbox", kind), table["bbox"].cast(kind))
    pyarrow.parquet.write_table(table, tmp_path / "a/a.parquet", row_group_size=4)
    assert tiles(places, 8) <= tiles(changes_of_folder(tmp_path / "a", since=before), 8)


def covered(path: Path, shapes: Any, boxes: Any) -> None:
    """GeoParquet with boxes that are given."""
    struct = [None if box is None else dict(zip(("xmin", "ymin", "xmax", "ymax"), box)) for box in boxes]
    ends = {end: ["bbox", end] for end in ("xmin", "ymin", "xmax", "ymax")}
    column = {"encoding": "WKB", "geometry_types": [], "covering": {"bbox": ends}, "bbox": [0.0, 0.0, 0.0, 0.0]}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    kind = pyarrow.struct([(end, pyarrow.float64()) for end in ends])
    table = pyarrow.table({"geometry": shapely.to_wkb(np.array(shapes, object)), "bbox": pyarrow.array(struct, kind)})
    pyarrow.parquet.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), path)


@pytest.mark.parametrize("antimeridian", ["cross", "literal"])
@pytest.mark.parametrize("has_boxes", [True, False])
@pytest.mark.parametrize("crs", [4326, 4269])
def test_a_shape_across_the_antimeridian_is_as_the_caller_says(
    tmp_path: Path, antimeridian: str, crs: int, has_boxes: bool
) -> None:
    before = folder_listing(tmp_path)
    ring = shapely.Polygon([(179, -17), (-179, -17), (-179, -16), (179, -16)])
    geopandas.GeoDataFrame(geometry=[ring, LISBON], crs=crs).to_parquet(tmp_path / "a.parquet", write_covering_bbox=has_boxes)
    found = tiles(changes_of_folder(tmp_path, since=before, antimeridian=antimeridian), 7)
    across, between = of(shapely.Point(179.5, -16.5), shapely.Point(-179.5, -16.5), zoom=7), of(shapely.Point(0, -16.5), zoom=7)
    assert (across if antimeridian == "cross" else between) | of(LISBON, zoom=7) <= found
    assert bool(between & found) == (antimeridian == "literal")


def test_a_row_across_the_antimeridian_is_not_lost_among_others(tmp_path: Path) -> None:
    before = folder_listing(tmp_path)
    # The statistics of these columns are those of rows within -178 and 178.
    across = shapely.multipolygons([shapely.box(179, -17, 180, -16), shapely.box(-180, -17, -179, -16)])
    others = [shapely.box(177, -17, 178, -16), shapely.box(-178, -17, -177, -16)]
    boxes = [(179, -17, -179, -16), *(each.bounds for each in others)]
    covered(tmp_path / "a.parquet", [across, *others], boxes)
    found = tiles(changes_of_folder(tmp_path, since=before), 7)
    assert tiles([across, *others], 7) <= found
    assert not found & of(LISBON, zoom=7)  # it is no band around the globe


@pytest.mark.parametrize("box", [None, (np.nan,) * 4, (2.3, np.nan, 2.4, 49)])
def test_a_row_without_its_box_is_read_itself(tmp_path: Path, box: Any) -> None:
    before = folder_listing(tmp_path)
    covered(tmp_path / "a.parquet", [LISBON, PARIS], [(*LISBON.coords[0], *LISBON.coords[0]), box])
    assert of(LISBON, PARIS) <= tiles(changes_of_folder(tmp_path, since=before))


def test_the_bbox_of_a_file_is_not_believed_because_pyarrow_keeps_it(tmp_path: Path) -> None:
    before = folder_listing(tmp_path)
    one, two = (pyarrow.parquet.read_table(write(tmp_path / "_parts" / f"{each.x}.parquet", each)) for each in (LISBON, PARIS))
    pyarrow.parquet.write_table(pyarrow.concat_tables([one, two]), tmp_path / "a.parquet")
    geo = json.loads(pyarrow.parquet.read_schema(tmp_path / "a.parquet").metadata[b"geo"])
    assert geo["columns"]["geometry"]["bbox"] == [-9.14, 38.71, -9.14, 38.71]  # Paris is not in it
    assert of(LISBON, PARIS) <= tiles(changes_of_folder(tmp_path, since=before))


def test_a_file_of_which_nothing_has_a_place_is_null(tmp_path: Path) -> None:
    before = folder_listing(tmp_path)
    write(tmp_path / "a.parquet", LISBON)
    (tmp_path / "b").mkdir()
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(tmp_path / "a.parquet").slice(0, 0), tmp_path / "b/a.parquet")
    found = changes_of_folder(tmp_path, since=before)
    assert found.column(0).null_count == 1
    assert tiles(found) == of(LISBON)


def test_a_coordinate_that_is_not_a_number_is_an_error(tmp_path: Path) -> None:
    before = folder_listing(tmp_path)
    table = pyarrow.table({"place": [shapely.Point(np.nan, 1).wkb, LISBON.wkb]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InvalidInputError, match=r"a\.parquet.* has a NaN or infinite coordinate"):
        changes_of_folder(tmp_path, since=before, geometry_column="place", crs="EPSG:4326")


def test_a_place_whose_srid_says_its_system_is_read(tmp_path: Path) -> None:
    before = folder_listing(tmp_path)
    place = shapely.to_wkb(shapely.set_srid(shapely.Point(-1_017_460, 4_681_700), 3857), include_srid=True)
    pyarrow.parquet.write_table(pyarrow.table({"place": [place]}), tmp_path / "a.parquet")
    assert tiles(changes_of_folder(tmp_path, since=before, geometry_column="place")) == of(LISBON)


def test_a_file_of_many_row_groups_has_few_boxes(tmp_path: Path) -> None:
    places = [shapely.Point(x / 10, 1) for x in range(200)]
    before = folder_listing(tmp_path)
    write(tmp_path / "a.parquet", *places, row_group_size=1, **COVERED)
    found = changes_of_folder(tmp_path, since=before)
    assert 2 < found.num_rows <= 64
    assert of(*places) <= tiles(found)


def test_a_wide_box_is_handed_on_without_a_warning(tmp_path: Path) -> None:
    before = folder_listing(tmp_path)
    write(tmp_path / "a.parquet", shapely.box(-170, -1, 20, 1), shapely.box(10, -1, 175, 1), **COVERED)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = tiles(changes_of_folder(tmp_path, since=before, antimeridian="literal"), 5)
    assert {(5, x, 15) for x in range(1, 31)} <= found


def test_a_file_that_is_no_data_is_an_error_that_names_it(tmp_path: Path) -> None:
    before = folder_listing(tmp_path)
    (tmp_path / "readme.txt").write_text("Hello")
    with pytest.raises(InvalidInputError, match=r"readme.txt.*leave it out by match="):
        changes_of_folder(tmp_path, since=before)


def test_a_file_beside_another_one_changes_that(tmp_path: Path) -> None:
    write(tmp_path / "roads.shp", LISBON)
    write_raster(tmp_path / "a.b.tif", -9, 38, -8, 39)
    before = folder_listing(tmp_path, footprints=True)
    shutil.copy(tmp_path / "roads.dbf", tmp_path / "x")
    (tmp_path / "x").replace(tmp_path / "roads.dbf")
    assert tiles(changes_of_folder(tmp_path, since=before)) == of(LISBON)
    before = folder_listing(tmp_path, match="*.tif", footprints=True)
    (tmp_path / "a.b.tif.msk").touch()
    os.utime(tmp_path / "a.b.tif.msk", ns=(1, 1))
    assert list(folder_listing(tmp_path, match="*.tif")["files"]) == ["a.b.tif", "a.b.tif.msk"]
    (tmp_path / "a.b.tif.msk").unlink()
    (tmp_path / "a.b.tif.aux.xml").write_text("<PAMDataset></PAMDataset>")
    assert tiles(changes_of_folder(tmp_path, since=before)) == tiles(shapely.box(-9, 38, -8, 39))


def test_a_file_beside_nothing_is_an_error(tmp_path: Path) -> None:
    before = folder_listing(tmp_path)
    (tmp_path / "roads.dbf").touch()
    with pytest.raises(InvalidInputError, match=r"'roads.dbf' changed in .*, and belongs to no file"):
        changes_of_folder(tmp_path, since=before)


def test_a_file_system_of_the_caller_is_used(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/lake/a/a.parquet", write(tmp_path / "a.parquet", LISBON).read_bytes())
    before = kept(folder_listing((memory, "/lake/a"), footprints=True))
    memory.pipe("/lake/a/b.parquet", write(tmp_path / "b.parquet", PARIS).read_bytes())
    assert tiles(changes_of_folder((memory, "/lake/a"), since=before)) == of(PARIS)
    assert tiles(changes_of_folder("memory://lake/a", since={**before, "root": "memory://lake/a"})) == of(PARIS)
    assert folder_listing((fsspec.filesystem("file"), str(tmp_path)))["root"] == str(tmp_path)


class Store(MemoryFileSystem):
    """What the file systems of object stores do: they find all objects at once, also those that mark folders."""

    protocol = "memory"

    def find(self, path: str, maxdepth: Any = None, withdirs: bool = False, **how: Any) -> Any:
        content = {name: file.getvalue() for name, file in self.store.items() if name.startswith(f"{path}/")}
        content |= {"/store/": b"", "/store/a/": b""}
        return {
            name: {"name": name, "size": len(each), "type": "file", "ETag": f'"{zlib.crc32(each)}"'}
            for name, each in content.items()
        }


def test_a_store_that_finds_all_at_once_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(skip_instance_cache=True)
    content = write(tmp_path / "a.parquet", LISBON).read_bytes()
    store.pipe("/store/a/a.parquet", content)
    before = kept(folder_listing((store, "/store")))
    assert list(before["files"]) == ["a/a.parquet"]
    store.pipe("/store/a/a.parquet", content)  # the same bytes, at another time
    store.pipe("/store/b/b.parquet", write(tmp_path / "b.parquet", PARIS).read_bytes())
    monkeypatch.setattr(Store, "ls", lambda *_, **__: pytest.fail("it looks into each folder"))
    monkeypatch.setattr(Store, "info", lambda *_, **__: {"type": "directory"})
    assert changed_files(before, folder_listing((store, "/store"))).new == ("b/b.parquet",)
    assert changed_files(before, folder_listing((store, "/store"))).rewritten == ()


def test_an_empty_object_that_marks_a_folder_is_no_file() -> None:
    store = obstore.store.MemoryStore()
    obstore.put(store, "date=1", b"")  # as obstore names "date=1/"
    obstore.put(store, "date=1/a.parquet", b"1")
    obstore.put(store, "empty.parquet", b"")
    assert list(folder_listing(store)["files"]) == ["date=1/a.parquet", "empty.parquet"]


def test_records_without_an_address_say_that_it_is_missing() -> None:
    store = obstore.store.MemoryStore()
    obstore.put(store, "a.parquet", b"1")
    with pytest.raises(InvalidInputError, match="pass address="):
        folder_listing(store, footprints=True)


def test_a_column_and_a_system_that_files_do_not_name_are_given(tmp_path: Path) -> None:
    before = folder_listing(tmp_path)
    pyarrow.parquet.write_table(pyarrow.table({"place": [LISBON.wkt]}), tmp_path / "a.parquet")
    with pytest.raises(InvalidInputError, match=r"a\.parquet.* no column marked as geometries"):
        changes_of_folder(tmp_path, since=before)
    assert tiles(changes_of_folder(tmp_path, since=before, geometry_column="place", crs="EPSG:4326")) == of(LISBON)
    pyarrow.parquet.write_table(pyarrow.table({"lon": [LISBON.x], "lat": [LISBON.y]}), tmp_path / "a.parquet")
    assert tiles(changes_of_folder(tmp_path, since=before, geometry_column=("lon", "lat"), crs="EPSG:4326")) == of(LISBON)


# -- the command line --------------------------------------------------------------------------------------------


def test_the_command_line_goes_from_listing_to_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "lake/a.parquet", LISBON)

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(program, [*arguments, "--json"])
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)

    assert run("listing", "lake", "--footprints", "--output", "shown.json") == {
        "files": 1,
        "output": str(Path("shown.json")),
    }
    write(tmp_path / "lake/b.parquet", PARIS)
    run("listing", "lake", "--footprints", "--known", "shown.json", "--output", "now.json")
    for folder in ("now.json", "lake"):
        assert run("plan", "roads", "--changes-of", folder, "--since", "shown.json", "--zooms", "10")["tile_count"] == 1
    assert run("listing", "lake")["files"].keys() == {"a.parquet", "b.parquet"}


def test_known_footprints_are_for_footprints() -> None:
    done = CliRunner().invoke(program, ["listing", ".", "--known", "a.json"])
    assert done.exit_code == 2
    assert "--known is for --footprints" in done.stderr


def test_a_first_run_says_what_to_do(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        program, ["plan", "a", "--changes-of", str(tmp_path), "--since", str(tmp_path / "no.json"), "--zooms", "3"]
    )
    assert done.exit_code == 1
    assert "does not exist" in done.stderr
    assert "This time, invalidate the whole UDF" in " ".join(done.stderr.split())
