"""Columns of every Arrow type beside the geometry, as the key, and in its place: an answer, or one of our errors."""

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from fused_cache_ops import InvalidInputError, plan_invalidation
from fused_cache_ops.changes import changed_geometry

TYPES = [
    pyarrow.null(),
    pyarrow.bool_(),
    *(getattr(pyarrow, name)() for name in ("int8", "uint64", "float16", "float32", "float64")),
    pyarrow.string(),
    pyarrow.large_string(),
    pyarrow.string_view(),
    pyarrow.binary(),
    pyarrow.large_binary(),
    pyarrow.binary_view(),
    pyarrow.binary(4),
    pyarrow.decimal128(5, 2),
    pyarrow.decimal256(60, 2),
    pyarrow.date32(),
    pyarrow.date64(),
    pyarrow.time32("s"),
    pyarrow.time64("ns"),
    pyarrow.timestamp("ms"),
    pyarrow.timestamp("ns", "Europe/Berlin"),
    pyarrow.duration("s"),
    pyarrow.month_day_nano_interval(),
    pyarrow.list_(pyarrow.int8()),
    pyarrow.large_list(pyarrow.string()),
    pyarrow.list_(pyarrow.int8(), 2),
    pyarrow.list_view(pyarrow.int8()),
    pyarrow.large_list_view(pyarrow.int8()),
    pyarrow.struct({"a": pyarrow.int8()}),
    pyarrow.map_(pyarrow.string(), pyarrow.int8()),
    pyarrow.dictionary(pyarrow.int8(), pyarrow.string()),
    pyarrow.run_end_encoded(pyarrow.int32(), pyarrow.int8()),
    pyarrow.sparse_union([pyarrow.field("a", pyarrow.int8())]),
    pyarrow.dense_union([pyarrow.field("a", pyarrow.int8())]),
    pyarrow.uuid(),
    pyarrow.json_(),
    pyarrow.bool8(),
    pyarrow.fixed_shape_tensor(pyarrow.int8(), [2]),
    pyarrow.opaque(pyarrow.int8(), "t", "v"),
]
"""One of each kind that Arrow has."""

PLACES = ["POINT (1 1)", "POINT (50 50)"]
GIVEN: dict[str, Any] = {"geometry_column": "g", "crs": "EPSG:4326"}


def with_column(kind: pyarrow.DataType) -> pyarrow.Table:
    return pyarrow.table({"id": [1, 2], "v": pyarrow.nulls(2, kind), "g": PLACES})


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_a_column_of_any_type_beside_the_geometry_is_no_obstacle(kind: pyarrow.DataType) -> None:
    assert plan_invalidation("roads", geometry=with_column(kind), zooms=3, **GIVEN).tile_count == 2


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_a_column_of_any_type_beside_the_geometry_is_no_obstacle_in_a_file(kind: pyarrow.DataType, tmp_path: Path) -> None:
    try:
        pyarrow.parquet.write_table(with_column(kind), tmp_path / "a.parquet")
    except (pyarrow.ArrowException, NotImplementedError):
        pytest.skip("Parquet does not have this type")
    assert plan_invalidation("roads", geometry=tmp_path / "a.parquet", zooms=3, **GIVEN).tile_count == 2
    assert found(lambda: changed_geometry(tmp_path / "a.parquet", tmp_path / "a.parquet", **GIVEN).num_rows) in (0, "refused")


def found(attempt: Any) -> Any:
    """What an attempt returns, or "refused" if it raises an error of ours that names the column."""
    try:
        return attempt()
    except InvalidInputError as error:
        return "refused" if "'v'" in str(error) or "key v" in str(error) else str(error)


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_a_column_of_any_type_is_compared_or_refused(kind: pyarrow.DataType) -> None:
    assert found(lambda: changed_geometry(with_column(kind), with_column(kind), **GIVEN).num_rows) in (0, "refused")


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_a_key_of_nothing_but_nulls_is_refused_whatever_its_type_is(kind: pyarrow.DataType) -> None:
    assert found(lambda: changed_geometry(with_column(kind), with_column(kind), key="v", **GIVEN).num_rows) == "refused"


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_a_column_without_places_is_refused_as_the_geometry_whatever_its_type_is(kind: pyarrow.DataType) -> None:
    with pytest.raises(InvalidInputError):
        plan_invalidation("roads", geometry=with_column(kind), geometry_column="v", crs="EPSG:4326", zooms=3)
