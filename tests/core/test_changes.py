"""What changed between two states of a table: the difference of two tables, and what table formats have recorded."""

from pathlib import Path
from typing import Any

import deltalake
import duckdb
import geopandas
import pandas
import polars
import pyarrow
import pyarrow.parquet
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.catalog.sql import SqlCatalog

from fused_cache_ops import InvalidInputError, plan_invalidation
from fused_cache_ops.changes import changed_geometry, changes_of_delta, changes_of_iceberg, difference

BEFORE = geopandas.GeoDataFrame(
    {"id": [1, 2, 3, 4], "name": ["a", "b", "c", "d"], "height": [1.0, None, 3.0, 4.0]},
    geometry=shapely.points([(1, 1), (2, 2), (3, 3), (4, 4)]),
    crs="EPSG:4326",
)
AFTER = geopandas.GeoDataFrame(  # 1 is gone, 2 has moved, 3 has another name, 4 is as before, 5 is new
    {"id": [5, 4, 3, 2], "name": ["e", "d", "C", "b"], "height": [5.0, 4.0, 3.0, None]},
    geometry=shapely.points([(5, 5), (4, 4), (3, 3), (20, 20)]),
    crs="EPSG:4326",
)
CHANGED = {(1, 1), (2, 2), (20, 20), (3, 3), (5, 5)}


def places(table: pyarrow.Table) -> set[tuple[float, ...] | None]:
    shapes = shapely.from_wkb(table["geometry"].to_pylist())
    return {None if shape is None else tuple(shapely.get_coordinates(shape)[0].tolist()) for shape in shapes}


def written(frame: geopandas.GeoDataFrame, path: Path) -> Path:
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_file(path)
    return path


def wkb(frame: geopandas.GeoDataFrame) -> pandas.DataFrame:
    return pandas.DataFrame({**frame.drop(columns="geometry"), "geometry": shapely.to_wkb(frame.geometry.to_numpy())})


def test_rows_that_were_added_removed_or_changed_are_found_with_their_old_and_new_place() -> None:
    assert places(changed_geometry(BEFORE, AFTER)) == CHANGED


def test_the_difference_is_what_geometry_takes() -> None:
    found = plan_invalidation("roads", geometry=changed_geometry(BEFORE, AFTER), zooms=8)
    assert set(found.tiles()) == set(plan_invalidation("roads", geometry=shapely.points(sorted(CHANGED)), zooms=8).tiles())


@pytest.mark.parametrize("name", ["before.gpkg", "after.gpkg"])
def test_a_file_of_several_layers_is_compared_layer_by_layer(tmp_path: Path, name: str) -> None:
    for layer in ("roads", "parcels"):
        BEFORE.to_file(tmp_path / name, layer=layer)
    with pytest.raises(InvalidInputError, match=r"has several layers: \['roads', 'parcels'\]. Compare one layer at a time"):
        changed_geometry(*((tmp_path / name, AFTER) if name == "before.gpkg" else (BEFORE, tmp_path / name)))


def test_a_file_without_geometries_is_not_compared(tmp_path: Path) -> None:
    (tmp_path / "places.csv").write_text("id,lon,lat\n1,10,50\n")
    with pytest.raises(InvalidInputError, match="has no geometries"):
        changed_geometry(tmp_path / "places.csv", BEFORE)


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:25832"])
def test_an_srid_that_contradicts_crs_is_refused(crs: str) -> None:
    before, after = (
        pyarrow.table({"id": [1], "g": [shapely.to_wkb(shapely.set_srid(shapely.Point(x, 50), 4326), include_srid=True)]})
        for x in (10, 20)
    )
    with pytest.raises(InvalidInputError, match="A changed row is in 'EPSG:4326', but crs = "):
        changed_geometry(before, after, geometry_column="g", crs=crs)
    assert changed_geometry(before, after, geometry_column="g", crs="EPSG:4326").num_rows == 2


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"key": None}, "key = None must be the name of a column"),
        ({"key": 5}, "key = 5 must be the name of a column"),
        ({"key": []}, "key is empty"),
        ({"columns": 5}, "columns = 5 must be the name of a column"),
        ({"columns": [None]}, r"columns = \[None\] must be the name of a column"),
        ({"columns": "price"}, "no column 'price'"),
    ],
)
def test_names_of_columns_that_are_none_are_refused(keywords: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        changed_geometry(BEFORE, AFTER, **keywords)


def test_a_column_that_is_there_twice_is_not_compared() -> None:
    table = pyarrow.table(BEFORE.to_arrow())
    twice = table.append_column("name", table["name"])
    with pytest.raises(InvalidInputError, match=r"more than one column 'name' \(columns\)"):
        changed_geometry(twice, twice.slice(0))
    assert changed_geometry(twice, twice.slice(0), columns="height").num_rows == 0


@pytest.mark.parametrize("kind", [pyarrow.uuid(), pyarrow.json_(), pyarrow.bool8()], ids=str)
def test_columns_of_pyarrows_own_types_are_compared(kind: Any) -> None:
    values = {"extension<arrow.uuid>": [b"0" * 16, b"1" * 16], "extension<arrow.json>": ["{}", "[]"]}.get(str(kind), [0, 1])
    table = pyarrow.table({"id": [1, 2], "v": pyarrow.array(values, kind.storage_type).cast(kind), "g": ["POINT (1 1)"] * 2})
    other = table.set_column(1, "v", pyarrow.array(values[:1] * 2, kind.storage_type).cast(kind))
    given: Any = {"geometry_column": "g", "crs": "EPSG:4326"}
    assert changed_geometry(table, table.slice(0), **given).num_rows == 0
    assert changed_geometry(table, other, **given).num_rows == 1
    assert plan_invalidation("roads", geometry=table, zooms=3, **given).tile_count == 1


@pytest.mark.parametrize("form", ["path", "other path", "URL", "object"])
def test_a_state_that_is_compared_with_itself_is_warned_about(tmp_path: Path, form: str) -> None:
    path = tmp_path / "table.parquet"
    BEFORE.to_parquet(path)
    (tmp_path / "link.parquet").symlink_to(path)
    one, other = {
        "path": (path, str(path)),
        "other path": (path, tmp_path / "link.parquet"),
        "URL": (path.as_uri(), path.as_uri()),
        "object": (AFTER, AFTER),
    }[form]
    with pytest.warns(UserWarning, match=r"before and after are the same.* keep a copy from before the load"):
        assert changed_geometry(one, other).num_rows == 0


def test_equal_states_select_nothing() -> None:
    found = changed_geometry(BEFORE, BEFORE[::-1])
    assert found.num_rows == 0
    assert plan_invalidation("roads", geometry=found, zooms=8).tile_count == 0


def test_a_row_whose_place_stays_is_named_once() -> None:
    assert changed_geometry(BEFORE, BEFORE.assign(name="x")).num_rows == len(BEFORE)


def test_only_the_columns_named_count_besides_the_geometry() -> None:
    assert places(changed_geometry(BEFORE, AFTER, columns=["height"])) == CHANGED - {(3, 3)}
    assert places(changed_geometry(BEFORE, AFTER, columns=[])) == CHANGED - {(3, 3)}


@pytest.mark.parametrize("suffix", ["parquet", "gpkg", "geojson"])
def test_files_are_compared(tmp_path: Path, suffix: str) -> None:
    before, after = (written(frame, tmp_path / f"{n}.{suffix}") for n, frame in enumerate((BEFORE, AFTER)))
    assert places(changed_geometry(before, str(after))) == CHANGED


def test_the_bounding_boxes_of_geoparquet_are_no_change(tmp_path: Path) -> None:
    AFTER.to_parquet(tmp_path / "a.parquet", write_covering_bbox=True, schema_version="1.1.0")
    assert places(changed_geometry(BEFORE, tmp_path / "a.parquet")) == CHANGED


@pytest.mark.parametrize(
    "convert",
    [
        lambda frame: pyarrow.table(frame.to_arrow()),
        lambda frame: pyarrow.table(frame.to_arrow()).to_reader(1),
        lambda frame: frame.to_arrow(geometry_encoding="geoarrow"),
        lambda frame: polars.from_pandas(wkb(frame)),
        wkb,
        lambda frame: duckdb.from_arrow(pyarrow.Table.from_pandas(wkb(frame))),
    ],
    ids=["table", "reader", "native", "polars", "pandas", "duckdb"],
)
def test_any_two_arrow_sources_are_compared(convert: Any) -> None:
    given: Any = {"geometry_column": "geometry", "crs": "EPSG:4326"}
    assert places(changed_geometry(convert(BEFORE), convert(AFTER), **given)) == CHANGED
    assert places(changed_geometry(BEFORE, convert(AFTER), **given)) == CHANGED
    assert places(changed_geometry(convert(BEFORE), AFTER, **given)) == CHANGED


def test_the_same_values_in_other_types_are_no_change() -> None:
    table = pyarrow.table(BEFORE.to_arrow())
    small = table.set_column(0, "id", table["id"].cast(pyarrow.int16()))
    small = small.set_column(1, "name", small["name"].cast(pyarrow.string()).dictionary_encode())
    small = small.set_column(2, "height", small["height"].cast(pyarrow.float32()))
    assert changed_geometry(table, small).num_rows == 0


def with_column(values: Any, kind: Any = None) -> pyarrow.Table:
    table = pyarrow.table(BEFORE[["id", "geometry"]].to_arrow())
    return table.append_column("value", pyarrow.array(values, kind))


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ([1, 2, None, None], [1, 3, 4, None], {(2, 2), (3, 3)}),
        ([float("nan"), 1.0, None, 0.0], [float("nan"), float("nan"), 1.0, -0.0], {(2, 2), (3, 3)}),
        ([[1], [1, 2], [], None], [[1], [1, 3], [1], []], {(2, 2), (3, 3), (4, 4)}),
        ([["a"], ["a", None], [None], None], [["a"], ["a", "b"], [None], None], {(2, 2)}),
        ([[[1]], [[1], [2]], [], None], [[[1]], [[1], [3]], [[]], None], {(2, 2), (3, 3)}),
        (
            [{"a": 1, "b": [1]}] * 4,
            [{"a": 1, "b": [1]}, {"a": 2, "b": [1]}, {"a": 1, "b": [2]}, None],
            {(2, 2), (3, 3), (4, 4)},
        ),
        ([True, False, None, True], [True, True, False, True], {(2, 2), (3, 3)}),
        ([None] * 4, ["a", None, None, None], {(1, 1)}),
        ([b"a", b"b", None, b""], [b"a", b"c", b"", b""], {(2, 2), (3, 3)}),
    ],
    ids=["numbers", "NaN", "lists", "texts in lists", "lists of lists", "structs", "booleans", "null", "binary"],
)
def test_values_of_every_type_are_compared(old: Any, new: Any, changed: Any) -> None:
    assert places(changed_geometry(with_column(old), with_column(new))) == changed


def test_maps_are_compared() -> None:
    kind = pyarrow.map_(pyarrow.string(), pyarrow.int64())
    old = with_column([[("a", 1)], [("a", 1)], [("a", 1)], None], kind)
    new = with_column([[("a", 1)], [("a", 2)], [("b", 1)], None], kind)
    assert places(changed_geometry(old, new)) == {(2, 2), (3, 3)}


@pytest.mark.parametrize(
    "kind", [pyarrow.timestamp("us"), pyarrow.date32(), pyarrow.decimal128(30, 2), pyarrow.uint64()], ids=str
)
def test_values_of_further_types_are_compared(kind: Any) -> None:
    small = pyarrow.int32() if pyarrow.types.is_date32(kind) else pyarrow.int64()
    old, new = (pyarrow.array(values, small).cast(kind) for values in ([1, 2, 3, None], [1, 9, None, 4]))
    assert places(changed_geometry(with_column(old, kind), with_column(new, kind))) == {(2, 2), (3, 3), (4, 4)}


def test_a_key_may_be_several_columns() -> None:
    parts: Any = {"region": ["x", "x", "y", "y"], "number": ["1", "2", "1", "2"]}
    old = BEFORE[["geometry"]].assign(**parts)
    moved = old.geometry.to_list()[:3] + [shapely.Point(9, 9)]
    new = geopandas.GeoDataFrame(parts, geometry=moved, crs="EPSG:4326")[::-1]
    assert places(changed_geometry(old, new, key=["region", "number"])) == {(4, 4), (9, 9)}


def test_keys_of_several_columns_are_not_mistaken_for_one_another() -> None:
    old = BEFORE[:2][["geometry"]].assign(a=["x\x1f", "x"], b=["y", "\x1fy"])
    assert changed_geometry(old, old[::-1], key=["a", "b"]).num_rows == 0


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_key_that_is_not_unique_is_refused(side: str) -> None:
    twice = pandas.concat([BEFORE, BEFORE[:1]])
    states = {"before": BEFORE, "after": BEFORE} | {side: twice}
    with pytest.raises(InvalidInputError, match=rf"{side}, a .*, has several rows with the same key \(id\)"):
        changed_geometry(**states)


def test_a_new_key_that_comes_twice_in_different_portions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(difference, "_PORTION", 2)
    with pytest.raises(InvalidInputError, match=r"after, .* has several rows with the same key"):
        changed_geometry(BEFORE[:1], pandas.concat([BEFORE, BEFORE[3:]]))


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_key_that_is_null_is_refused(side: str) -> None:
    states = {"before": BEFORE, "after": BEFORE} | {side: BEFORE.assign(id=pandas.array([1, 2, 3, None], "Int64"))}
    with pytest.raises(InvalidInputError, match=f"{side}, .* has 1 row whose key 'id' is null"):
        changed_geometry(**states)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"before": None}, "before is None: did a load step return nothing"),
        ({"after": "None"}, "after is 'None': did a load step return nothing"),
        ({"after": [1]}, "after is of type list: pass the path of a file"),
        ({"key": "number"}, r"before, .* has no column 'number' \(key\)"),
        ({"key": []}, "key is empty"),
        ({"columns": ["colour"]}, r"has no column 'colour' \(columns\)"),
        ({"geometry_column": "shape"}, r"has no column 'shape' \(geometry_column\)"),
        ({"after": AFTER.drop(columns="name")}, r"Only one of before and after has \['name'\]"),
        ({"after": AFTER.to_crs("EPSG:3857")}, "before is in 'EPSG:4326', but after is in 'EPSG:3857'"),
        ({"after": AFTER.set_crs(None, allow_override=True)}, "after, .* does not say its coordinate reference system"),
        ({"crs": "EPSG:3857"}, "before, .* is in 'EPSG:4326', but crs = 'EPSG:3857' was given"),
        ({"after": AFTER.assign(name=[1, 2, 3, 4])}, "Column 'name' is large_string in before, and int64 in after"),
        ({"after": AFTER.assign(id=["a", "b", "c", "d"])}, "key id is int64 in before, and large_string in after"),
    ],
)
def test_what_cannot_be_compared_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        changed_geometry(**({"before": BEFORE, "after": AFTER} | given))


def test_the_reference_system_of_both_states_is_kept() -> None:
    found = changed_geometry(BEFORE.to_crs("EPSG:25832"), AFTER.to_crs("EPSG:25832"))
    tiles = set(plan_invalidation("roads", geometry=found, zooms=8).tiles())
    assert tiles == set(plan_invalidation("roads", geometry=changed_geometry(BEFORE, AFTER), zooms=8).tiles())


def test_states_that_do_not_name_a_system_leave_it_to_the_invalidation() -> None:
    found = changed_geometry(wkb(BEFORE), wkb(AFTER), geometry_column="geometry")
    with pytest.raises(InvalidInputError, match="does not say its coordinate reference system"):
        plan_invalidation("roads", geometry=found, zooms=8)
    assert plan_invalidation("roads", geometry=found, crs="EPSG:4326", zooms=8).tile_count == 5


def test_rows_that_change_without_having_a_place_select_no_tile() -> None:
    old = BEFORE.assign(geometry=geopandas.GeoSeries([None] * 4, crs="EPSG:4326"))
    found = changed_geometry(old, old.assign(name="x"))
    assert places(found) == {None}
    assert plan_invalidation("roads", geometry=found, zooms=8).tile_count == 0
    assert places(changed_geometry(old, BEFORE)) == {(1, 1), (2, 2), (3, 3), (4, 4)}


@pytest.mark.parametrize("empty", ["before", "after", "both"])
def test_a_state_may_be_empty(empty: str) -> None:
    old = BEFORE[:0] if empty in ("before", "both") else BEFORE
    new = BEFORE[:0] if empty in ("after", "both") else BEFORE
    assert changed_geometry(old, new).num_rows == (0 if empty == "both" else 4)


ROWS = st.dictionaries(st.integers(0, 30), st.tuples(st.integers(0, 2), st.one_of(st.none(), st.integers(0, 2))), max_size=20)


@settings(max_examples=100, deadline=None)
@given(ROWS, ROWS, st.integers(1, 7))
def test_the_difference_is_that_of_a_row_by_row_comparison(old: Any, new: Any, portion: int) -> None:
    def table(rows: Any) -> pyarrow.Table:
        shapes = [None if place is None else shapely.to_wkb(shapely.Point(key, place)) for key, (_, place) in rows.items()]
        return pyarrow.table(
            {
                "id": pyarrow.array(list(rows), pyarrow.int64()),
                "value": pyarrow.array([value for value, _ in rows.values()], pyarrow.int64()),
                "geometry": pyarrow.array(shapes, pyarrow.binary()),
            }
        )

    expected = set()
    for key in old.keys() | new.keys():
        if old.get(key) != new.get(key):
            expected |= {(key, rows[key][1]) for rows in (old, new) if key in rows and rows[key][1] is not None} or {None}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(difference, "_PORTION", portion)
        assert places(changed_geometry(table(old), table(new), geometry_column="geometry")) == expected


# Delta


def delta_table(path: Path, **properties: str) -> deltalake.DeltaTable:
    configuration: Any = {"delta.enableChangeDataFeed": "true"} | properties
    deltalake.write_deltalake(
        str(path), pyarrow.Table.from_pandas(wkb(BEFORE), preserve_index=False), configuration=configuration
    )
    return deltalake.DeltaTable(str(path))


def point(x: float, y: float) -> str:
    return f"X'{shapely.to_wkb(shapely.Point(x, y)).hex()}'"


def test_a_delta_tables_feed_names_old_and_new_places(tmp_path: Path) -> None:
    table = delta_table(tmp_path / "t")
    added = pyarrow.Table.from_pandas(wkb(AFTER[:1]), preserve_index=False)
    deltalake.write_deltalake(table, added, mode="append")
    table.delete("id = 1")
    moved = pyarrow.Table.from_pandas(wkb(AFTER[3:]), preserve_index=False)
    merge = table.merge(moved, "t.id = s.id", source_alias="s", target_alias="t")
    merge.when_matched_update_all().execute()
    assert places(changes_of_delta(table, since=0)) == {(5, 5), (1, 1), (2, 2), (20, 20)}
    assert places(changes_of_delta(tmp_path / "t", since=1)) == {(1, 1), (2, 2), (20, 20)}
    assert places(changes_of_delta(str(tmp_path / "t"), since=2)) == {(2, 2), (20, 20)}
    found = changes_of_delta(table, since=table.version())
    assert found.num_rows == 0
    assert plan_invalidation("roads", geometry=found, zooms=8).tile_count == 0


@pytest.mark.parametrize("name", ["GEOMETRY", "Shape", "geom wkb", "geo.wkb", "geo-wkb", 'ge"o'])
def test_a_column_of_a_delta_table_may_have_any_name(tmp_path: Path, name: str) -> None:
    rows = pyarrow.table({name: pyarrow.array([shapely.Point(1, 1).wkb], pyarrow.binary())})
    deltalake.write_deltalake(str(tmp_path), rows, configuration={"delta.enableChangeDataFeed": "true"})
    deltalake.write_deltalake(str(tmp_path), rows, mode="append")
    assert places(changes_of_delta(tmp_path, since=0, geometry_column=name)) == {(1, 1)}


def test_the_reference_system_of_a_delta_table_is_given(tmp_path: Path) -> None:
    table = delta_table(tmp_path / "t")
    table.delete("id = 1")
    with pytest.raises(InvalidInputError, match="does not say its coordinate reference system"):
        plan_invalidation("roads", geometry=changes_of_delta(table, since=0), zooms=8)
    found = plan_invalidation("roads", geometry=changes_of_delta(table, since=0, crs="EPSG:4326"), zooms=8)
    assert found.tile_count == 1


def test_compaction_of_a_delta_table_is_no_change(tmp_path: Path) -> None:
    table = delta_table(tmp_path / "t")
    deltalake.write_deltalake(table, pyarrow.Table.from_pandas(wkb(AFTER[:1]), preserve_index=False), mode="append")
    table.optimize.compact()
    assert table.version() == 2
    assert changes_of_delta(table, since=1).num_rows == 0


@pytest.mark.parametrize("since", [-1, 3, None, True, "0"])
def test_a_version_that_is_not_there_is_refused(tmp_path: Path, since: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"is not a version of table, .* whose last version is 0"):
        changes_of_delta(delta_table(tmp_path / "t"), since=since)


def test_a_delta_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"has no column 'shape' \(geometry_column\)"):
        changes_of_delta(delta_table(tmp_path / "t"), since=0, geometry_column="shape")


def test_without_a_feed_all_rows_of_rewritten_files_are_named(tmp_path: Path) -> None:
    table = delta_table(tmp_path / "t", **{"delta.enableChangeDataFeed": "false"})
    table.delete("id = 1")
    assert places(changes_of_delta(table, since=0)) == {(1, 1), (2, 2), (3, 3), (4, 4)}


def test_versions_whose_files_are_gone_are_refused(tmp_path: Path) -> None:
    table = delta_table(tmp_path / "t")
    table.delete("id = 1")
    for path in (tmp_path / "t" / "_change_data").iterdir():
        path.unlink()
    with pytest.raises(InvalidInputError, match=r"cannot be read since version 0: .* were they vacuumed"):
        changes_of_delta(table, since=0)


def test_a_folder_that_is_no_delta_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=f"The changes of '{tmp_path}' cannot be read since version 0"):
        changes_of_delta(tmp_path, since=0)


@pytest.mark.parametrize("folder", ["nothing", ""], ids=["not there", "empty"])
def test_a_table_that_is_not_there_was_not_vacuumed(tmp_path: Path, folder: str) -> None:
    with pytest.raises(InvalidInputError, match="there is no such table") as caught:
        changes_of_delta(tmp_path / folder, since=0)
    assert "vacuum" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_version_that_changed_the_tables_metadata_says_so_without_a_feed(tmp_path: Path) -> None:
    table = delta_table(tmp_path / "t", **{"delta.enableChangeDataFeed": "false"})
    more = pyarrow.table({"id": [9], "geometry": [shapely.Point(1, 1).wkb], "more": [1]})
    deltalake.write_deltalake(table, more, mode="append", schema_mode="merge")
    with pytest.raises(InvalidInputError, match="its feed is not enabled: set ") as caught:
        changes_of_delta(table, since=0)
    assert "vacuum" not in str(caught.value)


# Iceberg


@pytest.fixture
def iceberg(tmp_path: Path) -> Any:
    catalog = SqlCatalog("local", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}")
    catalog.create_namespace("maps")
    rows = pyarrow.Table.from_pandas(wkb(BEFORE)[["id", "geometry"]], preserve_index=False)
    table = catalog.create_table("maps.parcels", rows.schema)
    table.append(rows)
    yield table
    catalog.engine.dispose()


def iceberg_rows(frame: geopandas.GeoDataFrame) -> pyarrow.Table:
    return pyarrow.Table.from_pandas(wkb(frame)[["id", "geometry"]], preserve_index=False)


def test_rows_appended_to_an_iceberg_table_are_named(iceberg: Any) -> None:
    first = iceberg.current_snapshot().snapshot_id
    iceberg.append(iceberg_rows(AFTER[:1]))
    second = iceberg.current_snapshot().snapshot_id
    iceberg.append(iceberg_rows(AFTER[3:]))
    assert places(changes_of_iceberg(iceberg, since=first)) == {(5, 5), (20, 20)}
    assert places(changes_of_iceberg(iceberg, since=second, crs="EPSG:4326")) == {(20, 20)}
    assert changes_of_iceberg(iceberg, since=iceberg.current_snapshot().snapshot_id).num_rows == 0


@pytest.mark.parametrize("change", ["delete", "overwrite"])
def test_an_iceberg_table_with_deleted_or_overwritten_rows_is_refused(iceberg: Any, change: str) -> None:
    first = iceberg.current_snapshot().snapshot_id
    iceberg.append(iceberg_rows(AFTER[:1]))
    iceberg.delete("id == 1") if change == "delete" else iceberg.overwrite(iceberg_rows(AFTER))
    with pytest.raises(
        InvalidInputError, match=rf"table, .*parcels.*, has the snapshot \d+ \((delete|overwrite|append)\) since {first}"
    ):
        changes_of_iceberg(iceberg, since=first)


@pytest.mark.parametrize("since", [12, None, "x"])
def test_a_snapshot_that_is_not_there_is_refused(iceberg: Any, since: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"has no snapshot {since!r} before its current one"):
        changes_of_iceberg(iceberg, since=since)


def test_an_iceberg_column_that_is_not_there_is_refused(iceberg: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"has no column 'shape' \(geometry_column\)"):
        changes_of_iceberg(iceberg, since=iceberg.current_snapshot().snapshot_id, geometry_column="shape")


def test_an_iceberg_table_that_was_dropped_was_not_vacuumed(iceberg: Any) -> None:
    since = iceberg.current_snapshot().snapshot_id
    iceberg.catalog.drop_table("maps.parcels")
    with pytest.raises(InvalidInputError, match="there is no such table"):
        changes_of_iceberg(iceberg, since=since)
