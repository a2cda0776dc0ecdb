"""The geometry of the rows that differ between two states of a table.

One state is held in memory as Arrow columns, and the other one passes by in portions. No Python code runs per row.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

from fused_cache_ops.errors import FusedCacheError, InvalidInputError, unreadable
from fused_cache_ops.selection.arrow import (
    Column,
    Unknown,
    as_wkb,
    find_column,
    is_arrow,
    is_parquet,
    marked,
    no_column,
    open_parquet,
    open_table,
    parquet_schema,
    stored,
)
from fused_cache_ops.selection.geometry import Systems, is_geopandas
from fused_cache_ops.selection.reprojection import DEGREES, is_same
from fused_cache_ops.selection.shapes import import_geo, reading
from fused_cache_ops.wording import quoted, quoted_address, rendered_to_nothing, without_credentials

if TYPE_CHECKING:
    import pyarrow as pa

_PORTION = 1 << 18
"""Rows of the later state to look up at once. Each look-up reads all keys of the earlier state."""

_SEPARATOR = "\x1f"  # between the parts of a key


class _State(NamedTuple):
    """One state of the table.

    Attributes:
        what: how messages name it.
        names: its columns.
        column: the one with the geometries.
        read: returns its rows, with only the columns that are named.
    """

    what: str
    names: list[str]
    column: Column
    read: Callable[[list[str]], Iterable[pa.RecordBatch]]


def changed_geometry(
    before: Any,
    after: Any,
    *,
    key: str | Sequence[str] = "id",
    columns: Sequence[str] | None = None,
    geometry_column: str | None = None,
    crs: Any = None,
) -> pa.Table:
    """The geometry of the rows that were added, removed or changed. Where a geometry changed, both the old and the new one.

    ``before`` is held in memory, without the columns that are not needed. ``after`` is read in portions.

    Args:
        before: the earlier state: a GeoDataFrame, anything that hands out Arrow data, or the path or URL of a vector or Parquet
            file.
        after: the later state, likewise.
        key: the column that identifies a row, or several that do so together.
        columns: the columns in which a difference counts as a change. The geometry always counts. Default: all columns.
        geometry_column: as for `fused_cache_ops.invalidate_cache`.
        crs: as for `fused_cache_ops.invalidate_cache`.

    Returns:
        A table with one column, to be passed as ``geometry``. It has no rows if nothing changed.

    Raises:
        InvalidInputError: a state cannot be read, lacks a column, or is in another reference system than the other one; or a
            key is null or not unique.
        ConfigurationError: the extra ``geo`` is not installed.
    """
    import numpy as np

    pa, compute = import_geo("pyarrow"), import_geo("pyarrow.compute", "pyarrow")
    keys = [key] if isinstance(key, str) else list(key)
    with ExitStack() as opened:
        old = _open(before, "before", geometry_column, opened)
        compared = _compared(old, keys, columns)
        # To the end before the other one is opened: a DuckDB connection reads only one relation at a time.
        held = _table(old, keys, compared, old.read([*keys, *compared, old.column.name]))
        new = _open(after, "after", geometry_column, opened)
        system = _system(old, new, crs)
        _check_columns(compared, _compared(new, keys, columns))
        known = _keys(held, keys, old.what)
        _check_unique([known], keys, old.what)
        seen = np.zeros(len(known), bool)
        found: list[Any] = []
        added: list[Any] = []
        for batches in _portions(new.read([*keys, *compared, new.column.name])):
            portion = _table(new, keys, compared, batches)
            ids = _keys(portion, keys, new.what)
            try:
                position = compute.index_in(ids, value_set=known) if len(known) else pa.nulls(len(ids), pa.int32())
            except pa.ArrowException:
                raise InvalidInputError(
                    f"key {' and '.join(keys)} is {known.type} in before, and {ids.type} in after: make them equal."
                ) from None
            there = position.is_valid()
            at = position.drop_null().to_numpy()
            if seen[at].any() or len(np.unique(at)) != len(at):
                raise _not_unique(new.what, keys)
            seen[at] = True
            is_new = compute.invert(there)
            added.append(ids.filter(is_new))
            found.append(_places(portion.filter(is_new)))
            one, other = held.take(position.drop_null()), portion.filter(there)
            moved = _differ(_places(one), _places(other), "geometry")
            changed = moved.copy()
            for name in compared:
                changed |= _differ(_whole(one, name), _whole(other, name), name)
            found += [_places(one).filter(pa.array(moved)), _places(other).filter(pa.array(changed))]
        _check_unique(added, keys, new.what)
        found.append(_places(held.filter(pa.array(~seen))))
        return marked([each.drop_null() for each in found], system)


def _open(source: Any, name: str, geometry_column: str | None, opened: ExitStack) -> _State:
    """One state, of which nothing but the schema is read yet."""
    if source is None or (isinstance(source, str) and rendered_to_nothing(source)):
        raise InvalidInputError(f"{name} is {source!r}: did a load step return nothing?")
    if isinstance(source, os.PathLike):
        source = os.fspath(source)
    if is_geopandas(source):
        source = source.to_arrow()
    elif isinstance(source, str) and not is_parquet(source):
        source = _vector_file(source, name)
    elif isinstance(source, str):
        what = f"{name}, the file {quoted_address(source)},"
        try:
            file = opened.enter_context(open_parquet(source))
        except Exception as error:
            raise _unreadable(name, source, "a Parquet file", error) from None
        schema = parquet_schema(file)
        column = find_column(schema, geometry_column, what)
        return _State(what, schema.names, column, lambda names: file.iter_batches(_PORTION, columns=names))
    if not is_arrow(source):
        raise InvalidInputError(
            f"{name} is of type {type(source).__name__}: pass the path of a file, a GeoDataFrame, or anything that hands out "
            "Arrow data."
        )
    what = f"{name}, a {type(source).__name__},"
    table = open_table(source)
    column = find_column(table.schema, geometry_column, what)
    return _State(what, table.schema.names, column, lambda names: (batch.select(names) for batch in table.batches))


def _vector_file(path: str, name: str) -> pa.Table:
    """A vector file as a table whose geometries are marked."""
    pyogrio = import_geo("pyogrio")
    try:
        with reading(path):
            metadata, table = pyogrio.raw.read_arrow(path)
    except Exception as error:
        raise _unreadable(name, path, "a vector file", error) from None
    geometry = metadata["geometry_name"] or "wkb_geometry"
    position = table.schema.names.index(geometry)
    column = marked(table.column(position).chunks, metadata["crs"] or Unknown)
    return table.set_column(position, column.schema.field(0).with_name(geometry), column.column(0))


def _unreadable(name: str, path: str, kind: str, error: Exception) -> FusedCacheError:
    reason = without_credentials(error, path)
    return unreadable(error, f"{name} = {quoted_address(path)} cannot be read as {kind}: {reason}.")


def _system(old: _State, new: _State, crs: Any) -> Any:
    """The reference system of both states, in a form that can be written into metadata, or `Unknown`."""
    if crs is None and old.column.system is Unknown and new.column.system is Unknown:
        return Unknown
    one, other = (Systems(crs).find(state.column.system, state.what) for state in (old, new))
    if not is_same(one, other):
        raise InvalidInputError(
            f"before is in {_name(one)}, but after is in {_name(other)}: reproject one of them, so that they can be compared."
        )
    return DEGREES if one is None else one.to_json_dict()


def _name(system: Any) -> str:
    return DEGREES if system is None else quoted(system.name)


def _compared(state: _State, keys: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    """The columns to be compared, besides the geometry."""
    if not keys:
        raise InvalidInputError("key is empty: name the column that identifies a row.")
    for name in (*keys, *(columns or ())):
        if name not in state.names:
            raise no_column(state.what, name, "key" if name in keys else "columns", state.names)
    if columns is not None:
        return [name for name in columns if name not in keys and name != state.column.name]
    # A bounding box follows from the geometry, and an index without a name is where pandas has put the row.
    left_out = {*keys, state.column.name, *(path.partition(".")[0] for path in state.column.box)}
    return [name for name in state.names if name not in left_out and not name.startswith("__index_level_")]


def _check_columns(before: Sequence[str], after: Sequence[str]) -> None:
    if different := set(before) ^ set(after):
        raise InvalidInputError(
            f"Only one of before and after has {quoted(sorted(different), 300)}: name the columns that count as a change by "
            "columns=."
        )


def _check_unique(keys: Sequence[Any], names: Sequence[str], what: str) -> None:
    pa, compute = import_geo("pyarrow"), import_geo("pyarrow.compute", "pyarrow")
    found = [part for part in keys if len(part)]
    if found and compute.count_distinct(pa.chunked_array(found)).as_py() != sum(map(len, found)):
        raise _not_unique(what, names)


def _portions(batches: Iterable[Any]) -> Iterator[list[Any]]:
    held: list[Any] = []
    count = 0
    for batch in batches:
        for start in range(0, batch.num_rows, _PORTION):
            part = batch.slice(start, _PORTION)
            held.append(part)
            count += part.num_rows
            if count >= _PORTION:
                yield held
                held, count = [], 0
    if held:
        yield held


_PLACES = "\0geometry"  # the name of the geometries as WKB, which is nobody's


def _table(state: _State, keys: Sequence[str], compared: Sequence[str], batches: Iterable[Any]) -> Any:
    """Batches as one table, in types that are the same for both states."""
    pa = import_geo("pyarrow")
    names = [*keys, *compared, _PLACES]
    read = [
        pa.record_batch(
            [
                *(_plain(batch.column(name), pa) for name in (*keys, *compared)),
                as_wkb(batch.column(state.column.name), state.column.encoding, state.what),
            ],
            names=names,
        )
        for batch in batches
    ]
    if not read:
        return pa.table({name: pa.nulls(0) for name in names}).set_column(
            len(names) - 1, _PLACES, pa.array([], pa.large_binary())
        )
    return pa.Table.from_batches(read).combine_chunks()


def _plain(values: Any, pa: Any) -> Any:
    """An array without what only distinguishes ways of storing the same values."""
    types = import_geo("pyarrow.types", "pyarrow")
    values = stored(values)
    kind = values.type
    if str(kind) in ("string", "string_view"):
        return values.cast(pa.large_string())
    if str(kind) in ("binary", "binary_view") or types.is_fixed_size_binary(kind):
        return values.cast(pa.large_binary())
    if types.is_integer(kind) and not types.is_uint64(kind):
        return values.cast(pa.int64())
    return values.cast(pa.float64()) if types.is_floating(kind) else values


def _keys(table: Any, keys: Sequence[str], what: str) -> Any:
    """One value for each row that identifies it."""
    pa, compute = import_geo("pyarrow"), import_geo("pyarrow.compute", "pyarrow")
    parts = [_whole(table, name) for name in keys]
    for name, part in zip(keys, parts):
        if part.null_count:
            raise InvalidInputError(f"{what} has {part.null_count:,} rows whose key {name!r} is null: a key identifies a row.")
    if len(parts) == 1:
        return parts[0]
    texts = [part.cast(pa.large_string()) for part in parts]
    for sign, written in (("\\", "\\\\"), (_SEPARATOR, "\\s")):  # so that no two keys are joined to the same text
        texts = [compute.replace_substring(text, sign, written) for text in texts]
    return compute.binary_join_element_wise(*texts, pa.scalar(_SEPARATOR, pa.large_string()))


def _not_unique(what: str, keys: Sequence[str]) -> InvalidInputError:
    return InvalidInputError(
        f"{what} has several rows with the same key ({', '.join(keys)}): name the column that identifies a row by key=, or "
        "several that do so together."
    )


def _whole(table: Any, name: str) -> Any:
    """A column as one array."""
    pa = import_geo("pyarrow")
    column = table.column(name)
    return (
        column.chunk(0)
        if column.num_chunks == 1
        else pa.concat_arrays(column.chunks)
        if column.num_chunks
        else pa.array([], column.type)
    )


def _places(table: Any) -> Any:
    return _whole(table, _PLACES)


def _differ(one: Any, other: Any, name: str) -> Any:
    """In which rows two arrays of equal length differ, as booleans of numpy. Null equals null, and NaN equals NaN."""
    pa, compute, types = (import_geo(each, "pyarrow") for each in ("pyarrow", "pyarrow.compute", "pyarrow.types"))
    if types.is_null(one.type) or types.is_null(other.type):
        return _flags(compute.xor(one.is_null(), other.is_null()))
    found = _flags(compute.xor(one.is_null(), other.is_null()))
    both = _flags(compute.and_(one.is_valid(), other.is_valid()))
    if types.is_struct(one.type) and types.is_struct(other.type) and _fields(one) == _fields(other):
        for field in _fields(one):
            found |= both & _differ(_plain(one.field(field), pa), _plain(other.field(field), pa), name)
        return found
    if types.is_nested(one.type) and types.is_nested(other.type) and not types.is_struct(one.type):
        return found | (both & _lists_differ(one, other, name))
    try:
        unequal = compute.not_equal(one, other)
    except pa.ArrowException:
        raise InvalidInputError(
            f"Column {name!r} is {one.type} in before, and {other.type} in after, which cannot be compared: make them equal, "
            "or leave it out by columns=."
        ) from None
    found |= _flags(compute.fill_null(unequal, False))
    if types.is_floating(one.type) and types.is_floating(other.type):
        found &= ~_flags(compute.fill_null(compute.and_(compute.is_nan(one), compute.is_nan(other)), False))
    return found


def _fields(values: Any) -> list[str]:
    return [values.type.field(number).name for number in range(values.type.num_fields)]


def _lists_differ(one: Any, other: Any, name: str) -> Any:
    """Which lists differ: in length, or in one of their values."""
    import numpy as np

    pa, compute, types = (import_geo(each, "pyarrow") for each in ("pyarrow", "pyarrow.compute", "pyarrow.types"))
    one, other = (_entries(each, pa) if types.is_map(each.type) else each for each in (one, other))
    if not all(hasattr(each, "flatten") and hasattr(each.type, "value_type") for each in (one, other)):
        raise InvalidInputError(f"Column {name!r} is {one.type}, which cannot be compared: leave it out by columns=.")
    lengths = [_flags(compute.fill_null(compute.list_value_length(each), -1)) for each in (one, other)]
    found = lengths[0] != lengths[1]
    same = np.flatnonzero(~found & (lengths[0] > 0))
    values = [_plain(each.take(pa.array(same)).flatten(), pa) for each in (one, other)]
    if len(values[0]):
        of = np.repeat(same, lengths[0][same])
        found[of[_differ(values[0], values[1], name)]] = True
    return found


def _entries(values: Any, pa: Any) -> Any:
    """A map as the list of its entries."""
    return values.cast(pa.list_(pa.struct([("key", values.type.key_type), ("value", values.type.item_type)])))


def _flags(values: Any) -> Any:
    return values.to_numpy(zero_copy_only=False)
