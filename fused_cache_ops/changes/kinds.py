"""Which values of two columns are equal, as SQL that DuckDB runs without a cast that loses anything.

DuckDB itself calls 2^53 + 1 and 2.0^53 equal, '1' and 1, one month and 30 days. So whether two types can be compared is decided
here, before there is any SQL: they are equal, or one of them is widened exactly, or they are refused. Ways of storing the same
values do not count as types: a dictionary, a view, the width of a number, the unit of a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fused_cache_ops.selection.shapes import import_geo

if TYPE_CHECKING:
    import pyarrow as pa

_DIGITS = 38
"""The most digits of a DECIMAL."""

_UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}  # in nanoseconds
_DAY = 86_400 * 10**9
INTEGERS = {
    "TINYINT": (3, True),
    "SMALLINT": (5, True),
    "INTEGER": (10, True),
    "BIGINT": (19, False),
    "UTINYINT": (3, True),
    "USMALLINT": (5, True),
    "UINTEGER": (10, True),
    "UBIGINT": (20, False),
}
"""DuckDB's types of whole numbers: the digits that each needs, and whether a DOUBLE holds all of its values."""


class Kind(NamedTuple):
    """What the values of a column are.

    Attributes:
        family: values of two families are never compared.
        sql: DuckDB's type for them, except for lists and structs.
        unit: what a number counts, in nanoseconds, in the families of times.
        names: the fields of a struct.
        members: their kinds, or that of a list's values.
    """

    family: str
    sql: str = ""
    unit: int = 1
    names: tuple[str, ...] = ()
    members: tuple[Kind, ...] = ()


def kind_of(kind: pa.DataType) -> Kind | None:
    """The kind of an Arrow type. None: its values cannot be compared."""
    types = import_geo("pyarrow.types", "pyarrow")
    kind = _bare(kind)
    if types.is_null(kind):
        return Kind("null", "INTEGER")
    if types.is_boolean(kind):
        return Kind("boolean", "BOOLEAN")
    if types.is_integer(kind):
        sizes = {8: "TINYINT", 16: "SMALLINT", 32: "INTEGER", 64: "BIGINT"}
        return Kind("number", ("" if types.is_signed_integer(kind) else "U") + sizes[kind.bit_width])
    if types.is_floating(kind):
        return Kind("number", "DOUBLE")
    if types.is_decimal(kind):
        fits = kind.precision <= _DIGITS and 0 <= kind.scale <= kind.precision
        return Kind("number", f"DECIMAL({kind.precision},{kind.scale})") if fits else Kind(str(kind), "VARCHAR")
    if str(kind) in ("string", "large_string", "string_view"):
        return Kind("text", "VARCHAR")
    if str(kind) in ("binary", "large_binary", "binary_view") or types.is_fixed_size_binary(kind):
        return Kind("binary", "BLOB")
    if types.is_date(kind):
        return Kind("timestamp", "BIGINT", _DAY if types.is_date32(kind) else _UNITS["ms"])
    if types.is_timestamp(kind):
        return Kind("timestamp" if kind.tz is None else "timestamp with a time zone", "BIGINT", _UNITS[kind.unit])
    if types.is_time(kind):
        return Kind("time", "BIGINT", _UNITS[kind.unit])
    if types.is_duration(kind):
        return Kind("duration", "BIGINT", _UNITS[kind.unit])
    if str(kind) == "month_day_nano_interval":
        return Kind("interval", "BLOB")
    if types.is_struct(kind):
        fields = [kind.field(number) for number in range(kind.num_fields)]
        return _nested("struct", [kind_of(field.type) for field in fields], tuple(field.name for field in fields))
    if types.is_map(kind):
        entry = _nested("struct", [kind_of(kind.key_type), kind_of(kind.item_type)], ("key", "value"))
        return _nested("list", [entry])
    if types.is_nested(kind) and hasattr(kind, "value_type"):
        return _nested("list", [kind_of(kind.value_type)])
    return None


def _nested(family: str, members: Sequence[Kind | None], names: tuple[str, ...] = ()) -> Kind | None:
    known = tuple(member for member in members if member is not None)
    return Kind(family, names=names, members=known) if len(known) == len(members) else None


def _bare(kind: Any) -> Any:
    """A type without an extension, a dictionary or runs around it."""
    types = import_geo("pyarrow.types", "pyarrow")
    kind = getattr(kind, "storage_type", kind)
    return _bare(kind.value_type) if types.is_dictionary(kind) or types.is_run_end_encoded(kind) else kind


def plain(values: Any) -> Any:
    """An Arrow array as one that DuckDB reads without losing anything: times as whole numbers of their unit, for example."""
    pa, compute, types = (import_geo(each, "pyarrow") for each in ("pyarrow", "pyarrow.compute", "pyarrow.types"))
    values = getattr(values, "storage", values)
    kind = values.type
    if types.is_dictionary(kind):
        return plain(values.dictionary_decode())
    if types.is_run_end_encoded(kind):
        return plain(compute.run_end_decode(values))
    if types.is_float16(kind):
        return values.cast(pa.float32())
    if types.is_decimal(kind):
        known = kind_of(kind)
        if known is None or known.family != "number":
            return values.cast(pa.string())
        return values if types.is_decimal128(kind) else values.cast(pa.decimal128(kind.precision, kind.scale))
    if types.is_temporal(kind) and str(kind) != "month_day_nano_interval":
        return values.view(pa.int32() if kind.bit_width == 32 else pa.int64())
    if str(kind) == "month_day_nano_interval":
        return values.view(pa.binary(kind.bit_width // 8))
    if types.is_struct(kind):
        fields = [plain(values.field(number)) for number in range(kind.num_fields)]
        # By number, because DuckDB takes "a" and "A" for the same name.
        return pa.StructArray.from_arrays(fields, names=[f"f{number}" for number in range(len(fields))], mask=values.is_null())
    if types.is_map(kind):
        return plain(values.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)]))))
    if types.is_nested(kind):
        lengths = compute.fill_null(compute.list_value_length(values), 0).cast(pa.int64())
        offsets = pa.concat_arrays([pa.array([0]), compute.cumulative_sum(lengths)])
        return pa.LargeListArray.from_arrays(offsets, plain(values.flatten()), mask=values.is_null())
    return values


def from_parquet(kind: pa.DataType, name: str) -> tuple[Kind, str] | None:
    """The kind and the SQL of a column that DuckDB itself reads exactly from a Parquet file. None: it does not.

    Args:
        kind: its Arrow type.
        name: its name in SQL.
    """
    types = import_geo("pyarrow.types", "pyarrow")
    if hasattr(kind, "storage_type"):
        return None
    kind = _bare(kind)
    if types.is_date32(kind):
        return Kind("timestamp", "BIGINT", _DAY), f"{name} - DATE '1970-01-01'"
    if types.is_timestamp(kind) and kind.unit in ("ms", "us"):
        family = "timestamp" if kind.tz is None else "timestamp with a time zone"
        return Kind(family, "BIGINT", _UNITS["us"]), f"epoch_us({name})"
    known = kind_of(kind)
    is_known = types.is_boolean(kind) or types.is_integer(kind) or types.is_float32(kind) or types.is_float64(kind)
    is_known |= str(kind) in ("string", "large_string", "binary", "large_binary")
    is_known |= types.is_decimal128(kind) and known is not None and known.family == "number"
    return (known, name) if is_known and known is not None else None


def distinct(one: Kind, other: Kind, left: str, right: str) -> str | None:
    """SQL that says whether two values differ. NULL equals NULL, and NaN equals NaN. None: they cannot be compared.

    Args:
        one: the kind of the one value.
        other: that of the other one.
        left: the one in SQL.
        right: the other one in SQL.
    """
    if "null" in (one.family, other.family):
        return f"({left} IS NOT NULL OR {right} IS NOT NULL)"
    if (common := _common(one, other)) is not None:
        return f"{_cast(left, one, common)} IS DISTINCT FROM {_cast(right, other, common)}"
    if one.family == other.family and one.unit != other.unit:
        return f"{left}::HUGEINT * {one.unit} IS DISTINCT FROM {right}::HUGEINT * {other.unit}"
    if one.family == other.family == "number" and {one.sql, other.sql} in ({"BIGINT", "DOUBLE"}, {"UBIGINT", "DOUBLE"}):
        # Equal as DOUBLE, which rounds, and equal as whole numbers, which rounds the other one.
        sides = ((left, one), (right, other))
        whole = [f"TRY_CAST({value} AS HUGEINT)" for value, _ in sides]
        rounded = [f"{value}::DOUBLE" for value, _ in sides]
        return f"({' IS DISTINCT FROM '.join(rounded)} OR {' IS DISTINCT FROM '.join(whole)})"
    return None


def equal(one: Kind, other: Kind, left: str, right: str) -> str | None:
    """SQL that says whether two values are equal, for a join. None: they cannot be compared."""
    if (common := _common(one, other)) is not None:
        return f"{_cast(left, one, common)} = {_cast(right, other, common)}"
    if one.family == other.family and one.unit != other.unit:
        return f"{left}::HUGEINT * {one.unit} = {right}::HUGEINT * {other.unit}"
    return None


def _cast(value: str, kind: Kind, common: str) -> str:
    return value if kind.sql == common else f"{value}::{common}"


def _common(one: Kind, other: Kind) -> str | None:
    """The SQL type that holds the values of both exactly."""
    if "null" in (one.family, other.family):
        kind = other if one.family == "null" else one
        return kind.sql if kind.family == "null" else _common(kind, kind)
    if one.family != other.family or one.unit != other.unit or one.names != other.names:
        return None
    if one.family == "number":
        return _common_number(one.sql, other.sql)
    if not one.members and not other.members:
        return one.sql if one.sql else None
    members = [_common(*both) for both in zip(one.members, other.members)]
    if None in members:
        return None
    if one.family == "list":
        return f"{members[0]}[]"
    return f"STRUCT({', '.join(f'f{number} {member}' for number, member in enumerate(members))})"


def _common_number(one: str, other: str) -> str | None:
    if one == other:
        return one
    if "DOUBLE" in (one, other):
        held = INTEGERS.get(other if one == "DOUBLE" else one, (0, False))[1]
        return "DOUBLE" if held else None
    if one in INTEGERS and other in INTEGERS:
        unsigned = one[0] == other[0] == "U"
        if unsigned or "UBIGINT" not in (one, other):
            return "UBIGINT" if unsigned else "BIGINT"
        return "HUGEINT"
    whole, scale = map(max, zip(*map(_decimal, (one, other))))
    return f"DECIMAL({whole + scale},{scale})" if whole + scale <= _DIGITS else None


def _decimal(sql: str) -> tuple[int, int]:
    """How many digits a number has before the point, and after it."""
    if sql in INTEGERS:
        return INTEGERS[sql][0], 0
    precision, scale = map(int, sql[len("DECIMAL(") : -1].split(","))
    return precision - scale, scale
