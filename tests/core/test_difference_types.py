"""Which values of two types are equal when two states of a table are compared: exactly those that are, and never by a cast."""

import datetime
import decimal
from pathlib import Path
from typing import Any

import h3
import pyarrow as pa
import pyarrow.parquet
import pytest
import shapely

from fused_cache_ops import InvalidInputError
from fused_cache_ops.changes import changed_geometry

POINTS = [shapely.to_wkb(shapely.Point(number, 0)) for number in range(10)]
SAME: set[int] = set()
CELLS = sorted(map(h3.str_to_int, h3.grid_disk(h3.latlng_to_cell(38.7, -9.1, 15), 1)))
DAY = datetime.date(2026, 11, 29)
MIDNIGHT = datetime.datetime(2026, 11, 29)
TENTH, HALF = decimal.Decimal("0.1"), decimal.Decimal("0.5")


def table(values: Any) -> pa.Table:
    return pa.table({"id": range(len(values)), "value": values, "geometry": pa.array(POINTS[: len(values)])})


def changed(old: Any, new: Any, **given: Any) -> set[int]:
    found = changed_geometry(old, new, geometry_column="geometry", crs="EPSG:4326", **given)
    return {int(shape.x) for shape in shapely.from_wkb(found["geometry"].to_pylist())}


def intervals(*values: tuple[int, int, int]) -> pa.Array:
    return pa.array([pa.MonthDayNano(value) for value in values], pa.month_day_nano_interval())


def of(kind: Any, *values: Any) -> pa.Array:
    return pa.array(values, kind)


PAIRS = {
    # equal values in other types
    "int8, int64": (of(pa.int8(), 1, None), of(pa.int64(), 1, None), SAME),
    "uint8, int64": (of(pa.uint8(), 200, 3), of(pa.int64(), 200, 4), {1}),
    "int64, uint64": (of(pa.int64(), 1, -1), of(pa.uint64(), 1, 2**64 - 1), {1}),
    "uint64, decimal": (of(pa.uint64(), 2**64 - 1), of(pa.decimal128(25, 2), 2**64 - 1), SAME),
    "int32, double": (of(pa.int32(), 1, None, 2), of(pa.float64(), 1.0, None, 2.5), {2}),
    "float16, double": (of(pa.float16(), 0.5, None), of(pa.float64(), 0.5, None), SAME),
    "float, double": (of(pa.float32(), 0.1, float("nan")), of(pa.float64(), 0.1, float("nan")), {0}),
    "decimals": (of(pa.decimal128(10, 2), TENTH, HALF), of(pa.decimal128(20, 4), TENTH, TENTH), {1}),
    "decimal, int": (of(pa.decimal128(10, 2), 1, HALF), of(pa.int64(), 1, 0), {1}),
    "large decimals": (of(pa.decimal256(60, 1), TENTH, HALF), of(pa.decimal256(60, 1), TENTH, TENTH), {1}),
    "texts": (of(pa.string(), "a", "b"), of(pa.string_view(), "a", "B"), {1}),
    "dictionary": (of(pa.string(), "a", None).dictionary_encode(), of(pa.large_string(), "a", None), SAME),
    "binary": (of(pa.binary(2), b"ab", None), of(pa.binary_view(), b"ab", None), SAME),
    "seconds, nanoseconds": (of(pa.timestamp("s"), 1, 2), of(pa.timestamp("ns"), 10**9, 2 * 10**9 + 1), {1}),
    "milliseconds, microseconds": (of(pa.timestamp("ms"), 1, None), of(pa.timestamp("us"), 1000, None), SAME),
    "time zones": (of(pa.timestamp("us", "UTC"), 5), of(pa.timestamp("us", "Europe/Lisbon"), 5), SAME),
    "date32, date64": (of(pa.date32(), DAY), of(pa.date64(), DAY), SAME),
    "date, timestamp": (of(pa.date32(), DAY, DAY), of(pa.timestamp("us"), MIDNIGHT, MIDNIGHT.replace(hour=1)), {1}),
    "times": (of(pa.time32("s"), 5, 6), of(pa.time64("ns"), 5 * 10**9, 6 * 10**9 + 1), {1}),
    "durations": (of(pa.duration("ms"), 5, 6), of(pa.duration("us"), 5000, 6001), {1}),
    "lists": (of(pa.list_(pa.int8()), [1, None], []), of(pa.large_list(pa.int64()), [1, None], None), {1}),
    "fixed-size list": (of(pa.list_(pa.int8(), 2), [1, 2], None), of(pa.list_view(pa.int8()), [1, 2], None), SAME),
    "null": (pa.nulls(2), of(pa.int64(), None, 0), {1}),
    "null, struct": (pa.nulls(2), of(pa.struct({"a": pa.int64()}), None, {"a": None}), {1}),
    "null in a list": (of(pa.list_(pa.null()), [None], []), of(pa.list_(pa.int8()), [None], [None]), {1}),
    # what DuckDB by itself calls equal, though it is not
    "2^53 + 1 and 2.0^53": (of(pa.int64(), 2**53 + 1, 2**53), of(pa.float64(), 2.0**53, 2.0**53), {0}),
    "beyond any int64": (of(pa.uint64(), 2**64 - 1, 2**63), of(pa.float64(), 2.0**64, 2.0**63), {0}),
    "not finite": (of(pa.int64(), 1, None, 2), of(pa.float64(), float("nan"), float("inf"), 2.0), {0, 1}),
    "seven cells in a DOUBLE": (of(pa.int64(), *CELLS), of(pa.float64(), *map(float, CELLS)), set(range(7))),
    "a month and 30 days": (intervals((1, 0, 0), (0, 1, 0)), intervals((0, 30, 0), (0, 1, 0)), {0}),
    "a day and 24 hours": (intervals((0, 1, 0)), intervals((0, 0, 86400 * 10**9)), {0}),
    "a nanosecond": (intervals((0, 0, 1)), intervals((0, 0, 2)), {0}),
    "case and spaces": (of(pa.string(), "a", "a", "é"), of(pa.string(), "A", "a ", "é"), {0, 1}),
    "a struct of null and null": (of(pa.struct({"a": pa.int8()}), {"a": None}), of(pa.struct({"a": pa.int8()}), None), {0}),
    # values of every type by themselves
    "structs": (
        of(pa.struct({"a": pa.int8(), "A": pa.string()}), {"a": 1, "A": "x"}, {"a": 1, "A": "x"}),
        of(pa.struct({"a": pa.int64(), "A": pa.string()}), {"a": 1, "A": "x"}, {"a": 1, "A": "y"}),
        {1},
    ),
    "maps": (
        of(pa.map_(pa.string(), pa.int8()), [("a", 1)], [("a", 1), ("b", 2)], None),
        of(pa.map_(pa.string(), pa.int64()), [("a", 1)], [("a", 1), ("b", 3)], []),
        {1, 2},
    ),
    "lists of structs of times": (
        of(pa.list_(pa.struct({"at": pa.timestamp("us")})), [{"at": 1}, None], [{"at": 2}]),
        of(pa.list_(pa.struct({"at": pa.timestamp("us")})), [{"at": 1}, None], [{"at": 3}]),
        {1},
    ),
    "zeros": (of(pa.float64(), 0.0, 1.0), of(pa.float64(), -0.0, 1.0), SAME),
}
REFUSED = {
    "text, int": (of(pa.string(), "1"), of(pa.int64(), 1)),
    "bool, int": (of(pa.bool_(), True), of(pa.int8(), 1)),
    "text, binary": (of(pa.string(), "a"), of(pa.binary(), b"a")),
    "date, text": (of(pa.date32(), DAY), of(pa.string(), "2026-11-29")),
    "decimal, double": (of(pa.decimal128(5, 2), HALF), of(pa.float64(), 0.5)),
    "too many digits": (of(pa.decimal128(38, 0), 1), of(pa.decimal128(38, 10), 1)),
    "decimal256, decimal128": (of(pa.decimal256(60, 1), 1), of(pa.decimal128(38, 1), 1)),
    "a time zone and none": (of(pa.timestamp("us"), 1), of(pa.timestamp("us", "UTC"), 1)),
    "duration, int": (of(pa.duration("us"), 1), of(pa.int64(), 1)),
    "time, timestamp": (of(pa.time64("us"), 1), of(pa.timestamp("us"), 1)),
    "interval, duration": (intervals((0, 0, 1)), of(pa.duration("ns"), 1)),
    "int64 and double in a list": (of(pa.list_(pa.int64()), [1]), of(pa.list_(pa.float64()), [1.0])),
    "list, int": (of(pa.list_(pa.int64()), [1]), of(pa.int64(), 1)),
    "a field more": (of(pa.struct({"a": pa.int8()}), {"a": 1}), of(pa.struct({"a": pa.int8(), "b": pa.int8()}), {"a": 1})),
    "another field": (of(pa.struct({"a": pa.int8()}), {"a": 1}), of(pa.struct({"b": pa.int8()}), {"b": 1})),
}


def as_file(values: Any, path: Path) -> Path:
    pyarrow.parquet.write_table(table(values), path)
    return path


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("swapped", [False, True])
def test_two_types_are_compared_exactly(name: str, swapped: bool) -> None:
    old, new, expected = PAIRS[name]
    old, new = (new, old) if swapped else (old, new)
    assert changed(table(old), table(new)) == expected
    assert changed(table(old).to_reader(1), table(new)) == expected


@pytest.mark.parametrize("name", PAIRS)
def test_two_types_are_compared_exactly_in_files_too(tmp_path: Path, name: str) -> None:
    old, new, expected = PAIRS[name]
    try:
        old, new = as_file(old, tmp_path / "old.parquet"), as_file(new, tmp_path / "new.parquet")
    except pa.ArrowException:  # Parquet has no such type
        old, new = table(old), table(new)
    assert changed(old, new) == expected


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("swapped", [False, True])
def test_two_types_that_hold_other_values_are_refused(name: str, swapped: bool) -> None:
    old, new = reversed(REFUSED[name]) if swapped else REFUSED[name]
    with pytest.raises(InvalidInputError, match=r"Column 'value' is .* which cannot be compared: make them equal, or leave it"):
        changed(table(old), table(new))
    assert changed(table(old), table(new), columns=[]) == SAME


def test_a_type_that_cannot_be_compared_is_refused() -> None:
    values = pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1])])
    with pytest.raises(InvalidInputError, match=r"Column 'value' is dense_union.* leave it out by columns="):
        changed(table(values), table(values))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (of(pa.int16(), 1, 2), of(pa.uint64(), 1, 3), {0, 1}),
        (of(pa.string(), "a", "b"), of(pa.string(), "a", "b").dictionary_encode(), SAME),
        (of(pa.timestamp("ms"), 1, 2), of(pa.timestamp("us"), 1000, 2000), SAME),
        (of(pa.float64(), float("nan"), 2.0), of(pa.float32(), float("nan"), 2.0), SAME),
        (of(pa.binary(), b"a", b"b"), of(pa.binary(1), b"a", b"b"), SAME),
    ],
    ids=["whole numbers", "texts", "times", "NaN", "binary"],
)
def test_keys_may_differ_in_how_they_are_stored(old: Any, new: Any, expected: set[int]) -> None:
    def keyed(keys: Any, place: int) -> pa.Table:
        return pa.table({"id": keys, "geometry": pa.array([POINTS[0], POINTS[place]])})

    assert changed(keyed(old, 1), keyed(new, 1)) == (SAME if not expected else {1})


@pytest.mark.parametrize("other", [of(pa.float64(), 1.0), of(pa.string(), "1"), of(pa.bool_(), True)], ids=str)
def test_keys_of_types_that_do_not_fit_are_refused(other: Any) -> None:
    old = pa.table({"id": of(pa.int64(), 1), "geometry": pa.array(POINTS[:1])})
    with pytest.raises(InvalidInputError, match=r"key id is int64 in before, and .* in after: make them equal"):
        changed(old, old.set_column(0, "id", other))
