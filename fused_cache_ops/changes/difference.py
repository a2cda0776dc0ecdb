"""The geometry of the rows that differ between two states of a table.

DuckDB compares them, and writes what does not fit into memory to a temporary folder. It reads local Parquet files itself where
it reads their types exactly. Everything else comes to it as Arrow data.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

from fused_cache_ops.changes.engine import Engine, OnFraction
from fused_cache_ops.changes.kinds import INTEGERS, Kind, distinct, equal, from_parquet, kind_of, plain
from fused_cache_ops.changes.states import look_for_one_state
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
)
from fused_cache_ops.selection.geometry import Systems, is_geopandas
from fused_cache_ops.selection.reprojection import DEGREES, is_same, name_of
from fused_cache_ops.selection.shapes import import_geo, layers_of, reading
from fused_cache_ops.wording import a_type_of, counted, quoted, quoted_address, rendered_to_nothing, without_credentials

if TYPE_CHECKING:
    import pyarrow as pa

_PORTION = 1 << 17
"""Rows to hand to DuckDB at once, where it does not read them itself, and rows in a batch of the result."""

_BYTES_TO_SORT = 24  # for one whole number: it, a copy, and a mark

_PATTERN = frozenset("*?[]{}")  # what DuckDB takes for a pattern in a file's name


class _State(NamedTuple):
    """One state of the table.

    Attributes:
        what: how messages name it.
        schema: its columns.
        column: the one with the geometries.
        path: where it is, if it is a local Parquet file.
        is_held: whether its batches are in memory.
        read: returns its rows, with only the columns that are named.
        block: the largest block of a column in a file, in bytes.
    """

    what: str
    schema: pa.Schema
    column: Column
    read: Callable[[list[str]], Iterable[pa.RecordBatch]]
    path: str | None = None
    is_held: bool = False
    block: int = 0


class _Loaded(NamedTuple):
    """One state as DuckDB sees it.

    Attributes:
        sql: a query. Its columns are ``k0``, ``k1`` and so on for the key, ``c0`` and so on for what is compared, and ``g`` for
            the geometry as WKB.
        keys: the kinds of the key's columns.
        values: those of the others.
    """

    sql: str
    keys: list[Kind]
    values: list[Kind]


def changed_geometry(
    before: Any,
    after: Any,
    *,
    key: str | Sequence[str] = "id",
    columns: Sequence[str] | None = None,
    geometry_column: str | None = None,
    layer: str | None = None,
    crs: Any = None,
    memory_limit: str | int | None = None,
    temporary_directory: str | os.PathLike[str] | None = None,
    on_progress: OnFraction | None = None,
    stream: bool = False,
) -> pa.Table | pa.RecordBatchReader:
    """The geometry of the rows that were added, removed or changed. Where a geometry changed, both the old and the new one.

    Args:
        before: the earlier state: a GeoDataFrame, anything that hands out Arrow data, or the path or URL of a vector or Parquet
            file.
        after: the later state, likewise.
        key: the column that identifies a row, or several that do so together.
        columns: the columns in which a difference counts as a change. The geometry always counts. Default: all columns.
        geometry_column: as for `fused_cache_ops.invalidate_cache`. One column.
        layer: the layer of vector files. Needed if they have several.
        crs: as for `fused_cache_ops.invalidate_cache`.
        memory_limit: how much memory the comparison may use, as text such as ``"2GB"`` or as a number of bytes. What does not
            fit is written to temporary files. Default: half of what the machine, or the process's control group, has.
        temporary_directory: where the folder for these files is made. It is removed afterwards. Default: where the system
            keeps temporary files.
        on_progress: called in the caller's thread now and then, with how much of a step is done, from 0 to 1.
        stream: return the places as a stream that can be read once, so that they are never all in memory.

    Returns:
        A table with one column, or a ``pyarrow.RecordBatchReader`` of it, to be passed as ``geometry``. It has no rows if
        nothing changed.

    Raises:
        InvalidInputError: a state cannot be read, lacks a column, is in another reference system than the other one, or has
            values in a column that cannot be compared with those of the other one; or a key is null or not unique.
        ConfigurationError: the extra ``changes`` is not installed, or the comparison does not fit into ``memory_limit`` or
            into the temporary directory. The latter is retryable, because room may be made.

    Warns:
        UserWarning: both states are the same file or object, so that they cannot differ.
    """
    pa = import_geo("pyarrow")
    look_for_one_state(before, after)
    keys = _names("key", key)
    columns = None if columns is None else _names("columns", columns)
    with ExitStack() as opened:
        engine = Engine(memory_limit, temporary_directory, on_progress)
        opened.callback(engine.close)
        old = _open(before, "before", geometry_column, layer, opened)
        compared = _compared(old, keys, columns)
        # Before the other one is opened: a connection of DuckDB that hands out both reads only one at a time.
        one = _loaded(old, "before", keys, compared, engine)
        new = _open(after, "after", geometry_column, layer, opened)
        system = _system(old, new, crs)
        _check_columns(compared, _compared(new, keys, columns))
        other = _loaded(new, "after", keys, compared, engine)
        same = [
            equal(left, right, f"o.k{number}", f"n.k{number}") or _refused("key", name, old, new)
            for number, (name, left, right) in enumerate(zip(keys, one.keys, other.keys))
        ]
        differs = [
            distinct(left, right, f"o.c{number}", f"n.c{number}") or _refused("Column", name, old, new)
            for number, (name, left, right) in enumerate(zip(compared, one.values, other.values))
        ]
        what = _blocks(old, new)
        for state, loaded in ((old, one), (new, other)):
            _check_keys(state, loaded, keys, engine)
        moved = "o.g IS DISTINCT FROM n.g"
        engine.run(
            f"CREATE TEMP TABLE places AS SELECT CASE WHEN n.k0 IS NULL OR {moved} THEN o.g END AS old, n.g AS new "
            f"FROM ({one.sql}) o FULL JOIN ({other.sql}) n ON {' AND '.join(same)} "
            f"WHERE {' OR '.join(['o.k0 IS NULL', 'n.k0 IS NULL', moved, *differs])}",
            what,
        )
        # A row without a place has changed all the same, so it stays.
        found = (
            "SELECT old AS g FROM places WHERE old IS NOT NULL UNION ALL SELECT new FROM places WHERE new IS NOT NULL OR "
            "old IS NULL"
        )
        batches: Iterator[Any] = (batch.column(0).cast(pa.large_binary()) for batch in engine.stream(found, _PORTION))
        if crs is not None and Unknown in (old.column.system, new.column.system):
            batches = _checked_systems(batches, crs)
        if not stream:
            return marked(list(batches), system)
        schema = marked([], system).schema
        return pa.RecordBatchReader.from_batches(schema, _closing(batches, schema, opened.pop_all()))


def _names(keyword: str, given: Any) -> list[str]:
    """Names of columns, of which one may stand alone."""
    names = [given] if isinstance(given, str) else list(given) if isinstance(given, Iterable) else [given]
    if not all(isinstance(name, str) for name in names):
        raise InvalidInputError(f"{keyword} = {quoted(given)} must be the name of a column, or a list of names.")
    return list(dict.fromkeys(names))


def _checked_systems(batches: Iterable[Any], crs: Any) -> Iterator[Any]:
    """The same geometries, none of which names another reference system by its SRID."""
    import numpy as np

    shapely = import_geo("shapely")
    systems = Systems(crs)
    for batch in batches:
        srids = shapely.get_srid(shapely.from_wkb(batch.drop_null().to_numpy(zero_copy_only=False)))
        for srid in np.unique(srids[srids > 0]).tolist():
            systems.find(f"EPSG:{srid}", "A changed row")
        yield batch


def _closing(chunks: Iterator[Any], schema: Any, opened: ExitStack) -> Iterator[Any]:
    """Chunks as batches. At the end, what they come from is closed."""
    pa = import_geo("pyarrow")
    with opened:
        for chunk in chunks:
            yield pa.record_batch([chunk], schema=schema)


def _loaded(state: _State, name: str, keys: list[str], compared: list[str], engine: Engine) -> _Loaded:
    """Give one state to DuckDB, in columns that hold exactly what it holds."""
    columns = [(f"k{number}", each) for number, each in enumerate(keys)]
    columns += [(f"c{number}", each) for number, each in enumerate(compared)]
    if state.path is not None and (read := _read_by_duckdb(state, columns)) is not None:
        kinds, selected = read
        path = state.path.replace("'", "''")
        source = f"read_parquet('{path}', hive_partitioning = false)"
        return _Loaded(f"SELECT {', '.join(selected)} FROM {source}", kinds[: len(keys)], kinds[len(keys) :])
    known = [kind_of(state.schema.field(each).type) for _, each in columns]
    for (_, each), kind in zip(columns, known):
        if kind is None:
            raise InvalidInputError(
                f"Column {each!r} is {state.schema.field(each).type} in {name}, which cannot be compared: leave it out by "
                "columns=."
            )
    kinds = [kind for kind in known if kind is not None]
    batches = _converted(state, columns)
    if state.is_held:
        engine.register(name, import_geo("pyarrow").Table.from_batches(batches))
    else:
        engine.load(name, batches)
    return _Loaded(f"SELECT * FROM {name}", kinds[: len(keys)], kinds[len(keys) :])


def _read_by_duckdb(state: _State, columns: list[tuple[str, str]]) -> tuple[list[Kind], list[str]] | None:
    """The kinds of the columns in a Parquet file, and the SQL that selects them, if DuckDB reads all of them exactly."""
    kind = str(state.schema.field(state.column.name).type)
    folded = [name.casefold() for name in state.schema.names]
    # DuckDB has no empty names, and takes "a" and "A" for the same one.
    if state.column.encoding != "wkb" or kind not in ("binary", "large_binary") or len({*folded, ""}) != len(folded) + 1:
        return None
    found = []
    for _, name in columns:
        read = from_parquet(state.schema.field(name).type, _quoted(name))
        if read is None:
            return None
        found.append(read)
    selected = [f"{sql} AS {alias}" for (alias, _), (_, sql) in zip(columns, found)]
    return [kind for kind, _ in found], [*selected, f"{_quoted(state.column.name)} AS g"]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _converted(state: _State, columns: list[tuple[str, str]]) -> Iterator[Any]:
    """The rows of a state in plain columns, at least one batch."""
    pa = import_geo("pyarrow")
    names = [*(alias for alias, _ in columns), "g"]
    wanted = [name for _, name in columns]

    def convert(batch: Any) -> Any:
        geometry = as_wkb(batch.column(state.column.name), state.column.encoding, state.what)
        return pa.record_batch([*(plain(batch.column(name)) for name in wanted), geometry], names=names)

    empty = pa.schema([state.schema.field(name) for name in dict.fromkeys([*wanted, state.column.name])]).empty_table()
    yield convert(pa.record_batch([pa.array([], field.type) for field in empty.schema], schema=empty.schema))
    for batch in state.read([*wanted, state.column.name]):
        for start in range(0, batch.num_rows, _PORTION):
            yield convert(batch.slice(start, _PORTION))


def _check_keys(state: _State, loaded: _Loaded, keys: list[str], engine: Engine) -> None:
    """Reject a state in which the key of a row is null, or the key of another row.

    Raises:
        InvalidInputError: it does.
    """
    names = [f"k{number}" for number in range(len(keys))]
    counts = f"SELECT count(*), {', '.join(f'count({name})' for name in names)} FROM ({loaded.sql})"
    ((rows, *present),) = engine.rows(counts, _blocks(state))
    for name, count in zip(keys, present):
        if count < rows:
            raise InvalidInputError(
                f"{state.what} has {counted(rows - count, 'row')} whose key {name!r} is null: a key identifies a row."
            )
    if len(keys) == 1 and loaded.keys[0].sql in INTEGERS and engine.has_room(_BYTES_TO_SORT * rows):
        numbers = engine.numbers(f"SELECT k0 FROM ({loaded.sql})")
        numbers.sort()  # faster than grouping
        is_unique = not (numbers[1:] == numbers[:-1]).any()
    else:
        grouped = f"SELECT count(*) AS rows FROM ({loaded.sql}) GROUP BY {', '.join(names)} HAVING count(*) > 1"
        is_unique = engine.rows(f"SELECT count(*) FROM ({grouped})", _blocks(state)) == [(0,)]
    if not is_unique:
        raise _not_unique(state.what, keys)


def _refused(what: str, name: str, old: _State, new: _State) -> str:
    """Reject two columns whose values cannot be compared.

    Raises:
        InvalidInputError: always.
    """
    types = f"{old.schema.field(name).type} in before, and {new.schema.field(name).type} in after"
    if what == "key":
        raise InvalidInputError(f"key {name} is {types}: make them equal.")
    raise InvalidInputError(
        f"{what} {name!r} is {types}, which cannot be compared: make them equal, or leave it out by columns=."
    )


def _blocks(*states: _State) -> str:
    """What a reader of files should know if memory is short."""
    block = max(state.block for state in states)
    if not block:
        return "It reads no files itself."
    return f"The largest block of a column in the files has {-(-block // 2**20):,} MiB, and is read as a whole."


def _open(source: Any, name: str, geometry_column: str | None, layer: str | None, opened: ExitStack) -> _State:
    """One state, of which nothing but the schema is read yet."""
    if source is None or (isinstance(source, str) and rendered_to_nothing(source)):
        raise InvalidInputError(f"{name} is {source!r}: did a load step return nothing?")
    if isinstance(source, os.PathLike):
        source = os.fspath(source)
    pa = import_geo("pyarrow")
    if is_geopandas(source):
        source = pa.table(source.to_arrow())
    elif isinstance(source, str) and not is_parquet(source):
        source = _vector_file(source, name, layer)
    elif isinstance(source, str):
        return _parquet_file(source, name, geometry_column, opened)
    if not is_arrow(source):
        raise InvalidInputError(
            f"{name} is of type {type(source).__name__}: pass the path of a file, a GeoDataFrame, or anything that hands out "
            "Arrow data."
        )
    what = f"{name}, {a_type_of(source)},"
    table = open_table(source)
    column = find_column(table.schema, geometry_column, what)

    def read(names: list[str]) -> Iterator[Any]:
        return (batch.select(list(dict.fromkeys(names))) for batch in table.batches)

    return _State(what, table.schema, column, read, is_held=isinstance(source, (pa.Table, pa.RecordBatch)))


def _parquet_file(source: str, name: str, geometry_column: str | None, opened: ExitStack) -> _State:
    what = f"{name}, the file {quoted_address(source)},"
    try:
        file = opened.enter_context(open_parquet(source))
    except Exception as error:
        raise _unreadable(name, source, "a Parquet file", error) from None
    schema = parquet_schema(file)
    column = find_column(schema, geometry_column, what)
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    chunks = [group.column(number).total_uncompressed_size for group in groups for number in range(group.num_columns)]
    is_own = any(
        each.path == column.name and each.logical_type is not None and each.logical_type.type in ("GEOMETRY", "GEOGRAPHY")
        for each in (file.schema.column(number) for number in range(len(file.schema)))
    )
    path = None if is_own or "://" in source or _PATTERN & set(source) else source

    def read(names: list[str]) -> Iterator[Any]:
        yield from file.iter_batches(_PORTION, columns=list(dict.fromkeys(names)))

    return _State(what, schema, column, read, path, block=max(chunks, default=0))


def _vector_file(path: str, name: str, layer: str | None) -> pa.Table:
    """A vector file as a table whose geometries are marked."""
    pyogrio = import_geo("pyogrio")
    try:
        with reading(path):
            layers = [each for each in layers_of(path) if layer in (None, each)]
            metadata, table = pyogrio.raw.read_arrow(path, layer=layers[0]) if len(layers) == 1 else ({}, None)
    except Exception as error:
        raise _unreadable(name, path, "a vector file", error) from None
    if table is None:
        held = f"several layers: {quoted(layers, 300)}" if layers else "no geometries"
        held += "" if layer is None else f" in a layer {quoted(layer)}"
        raise InvalidInputError(
            f"{name}, the file {quoted_address(path)}, has {held}. Compare one layer at a time: name it by layer=."
        )
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
            f"before is in {name_of(one)}, but after is in {name_of(other)}: reproject one of them, so that they can be "
            "compared."
        )
    return DEGREES if one is None else one.to_json_dict()


def _compared(state: _State, keys: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    """The columns to be compared, besides the geometry."""
    if not keys:
        raise InvalidInputError("key is empty: name the column that identifies a row.")
    for name in (*keys, *(columns or ())):
        if state.schema.names.count(name) != 1:
            raise no_column(state.what, name, "key" if name in keys else "columns", state.schema.names)
    if columns is not None:
        return [name for name in columns if name not in keys and name != state.column.name]
    # A bounding box follows from the geometry, and an index without a name is where pandas has put the row.
    left_out = {*keys, state.column.name, *(path.partition(".")[0] for path in state.column.box)}
    found = [name for name in state.schema.names if name not in left_out and not name.startswith("__index_level_")]
    if repeated := [name for name in found if state.schema.names.count(name) > 1]:
        raise no_column(state.what, repeated[0], "columns", state.schema.names)
    return found


def _check_columns(before: Sequence[str], after: Sequence[str]) -> None:
    if different := set(before) ^ set(after):
        raise InvalidInputError(
            f"Only one of before and after has {quoted(sorted(different), 300)}: name the columns that count as a change by "
            "columns=."
        )


def _not_unique(what: str, keys: Sequence[str]) -> InvalidInputError:
    return InvalidInputError(
        f"{what} has several rows with the same key ({', '.join(keys)}): name the column that identifies a row by key=, or "
        "several that do so together."
    )
