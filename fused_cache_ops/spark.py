"""The tiles of a table that only Spark holds, computed on its executors.

Needs the extra ``spark``. The executors need ``geo``, and for cells ``h3``. The DataFrames that these functions return are
passed as ``tiles``.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fused_cache_ops.errors import FusedCacheError, InvalidInputError
from fused_cache_ops.keywords.values import Antimeridian, RenderResolution
from fused_cache_ops.selection.arrow import no_column
from fused_cache_ops.selection.frames import is_frame, marked_text, our_error
from fused_cache_ops.selection.geometry import Systems
from fused_cache_ops.selection.reading import check_shard, read_selection
from fused_cache_ops.selection.selection import Selection
from fused_cache_ops.selection.shapes import import_geo
from fused_cache_ops.tiles.tile import HIGHEST_ZOOM
from fused_cache_ops.tiles.zooms import Zooms, parse_zooms
from fused_cache_ops.wording import a_type_of, quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = ["changed_tiles", "our_error", "tiles"]

_TILES = "z int, x int, y int"
_AT_ONCE = 200_000  # tiles in one batch
_ROWS, _BYTES = 100_000, 16 << 20  # of a portion, which is covered at once, so that each of its tiles comes once
MOST_TILES = 5_000_000
"""The most tiles of a portion, by default."""

_OWN = ("GeometryType", "GeographyType")
_TEXT = ("StringType", "VarcharType", "CharType", "BinaryType")
_NUMBERS = ("DoubleType", "FloatType", "DecimalType", "LongType", "IntegerType", "ShortType", "ByteType")
_CELLS = ("LongType", "DecimalType", "StringType", "VarcharType", "CharType")


class _How(NamedTuple):
    """What an executor is told.

    Attributes:
        kind: ``"geometry"``, ``"coordinates"`` or ``"cells"``.
        keywords: those of `read_selection`, without what is selected.
        columns: how the columns are called in messages.
    """

    kind: str
    keywords: Mapping[str, Any]
    columns: tuple[str, ...]


def tiles(
    frame: DataFrame,
    *,
    zooms: Zooms,
    geometry_column: str | Sequence[str] | None = None,
    cells_column: str | None = None,
    crs: Any = None,
    buffer: int = 0,
    render_resolution: RenderResolution = None,
    antimeridian: Antimeridian | None = None,
    max_tiles: int = MOST_TILES,
    max_zoom: int = HIGHEST_ZOOM,
    shard: tuple[int, int] | None = None,
) -> DataFrame:
    """The tiles that the rows of a DataFrame cover, each once.

    Nothing is computed yet. The executors do that when the DataFrame is passed as ``tiles``, or used otherwise.

    Args:
        frame: the rows, such as those that a load has written, or a change data feed.
        zooms: as for `fused_cache_ops.invalidate_cache`, like ``crs``, ``buffer``, ``render_resolution``, ``antimeridian`` and
            ``max_zoom``.
        geometry_column: the column of geometries: Spark's own type, WKB or EWKB (binary), or text (WKT, EWKT, GeoJSON,
            hexadecimal WKB). Or two columns of numbers, such as ``("lon", "lat")``. Default: the only column of Spark's own
            type.
        cells_column: instead, the column of H3 cells, as whole numbers or text. Needs the extra ``h3`` on the executors.
        crs: the reference system of a geometry that does not name one. Spark's own type names it by its SRID.
        buffer: tiles to add on every side.
        render_resolution: with ``cells_column``.
        antimeridian: how to read an edge that spans more than half the globe.
        max_tiles: the most tiles that 100,000 rows may cover. More are an error of the job, so that no executor runs out of
            memory.
        max_zoom: the highest zoom.
        shard: ``(i, n)`` for only those tiles that belong to the ``i``-th of ``n`` shards, by a hash of their numbers.

    Returns:
        A DataFrame with the columns ``z``, ``x`` and ``y``.

    Raises:
        InvalidInputError: a keyword is invalid, or a column is missing or of a type that is not read.
        ConfigurationError: the extra ``spark`` is not installed.
    """
    _check_frame("frame", frame)
    place = _place(frame, "frame", geometry_column, cells_column)
    how = _how(place, crs, zooms, buffer, render_resolution, antimeridian, max_tiles, max_zoom)
    return _covered(frame.select(*place.selected()), how, shard)


def changed_tiles(
    before: DataFrame,
    after: DataFrame,
    *,
    zooms: Zooms,
    key: str | Sequence[str] = "id",
    columns: Sequence[str] | None = None,
    geometry_column: str | Sequence[str] | None = None,
    cells_column: str | None = None,
    crs: Any = None,
    buffer: int = 0,
    render_resolution: RenderResolution = None,
    antimeridian: Antimeridian | None = None,
    max_tiles: int = MOST_TILES,
    max_zoom: int = HIGHEST_ZOOM,
    shard: tuple[int, int] | None = None,
) -> DataFrame:
    """The tiles of the rows that were added, removed or changed between two states of a table, where they were and where they
    are. The executors compare them.

    NaN equals NaN, and -0.0 equals 0.0. The order of a map's entries does not count.

    Args:
        before: the earlier state.
        after: the later state. Its columns that are compared must have the same types.
        zooms: as for `tiles`, like all that is not named here.
        key: the column that identifies a row, or several that do so together. A key that is null, or that two rows of a state
            have, is an error of the job.
        columns: the columns in which a difference counts as a change. The place always counts. Default: all columns.
        geometry_column: as for `tiles`.
        cells_column: as for `tiles`.
        crs: as for `tiles`.
        buffer: as for `tiles`.
        render_resolution: as for `tiles`.
        antimeridian: as for `tiles`.
        max_tiles: as for `tiles`.
        max_zoom: as for `tiles`.
        shard: as for `tiles`.

    Returns:
        A DataFrame with the columns ``z``, ``x`` and ``y``. One row of nulls says that rows changed that have no place. A UDF
        of a dataset that is invalidated whole is invalidated then.

    Raises:
        InvalidInputError: as for `tiles`, or columns of the two states do not match.
        ConfigurationError: the extra ``spark`` is not installed.
    """
    for name, frame in (("before", before), ("after", after)):
        _check_frame(name, frame)
    functions: Any = import_geo("pyspark.sql.functions", extra="spark")
    keys = [key] if isinstance(key, str) else list(key) if isinstance(key, Sequence) else []
    if not keys or not all(isinstance(name, str) for name in keys):
        raise InvalidInputError(f"key = {quoted(key)} must be the name of a column, or a list of names.")
    place = _place(before, "before", geometry_column, cells_column)
    other = _place(after, "after", geometry_column, cells_column)
    if (place.kind, place.types) != (other.kind, other.types):
        raise InvalidInputError(
            f"The place of a row is {', '.join(place.types)} in before, but {', '.join(other.types)} in after: make them equal."
        )
    compared = _compared(before, after, keys, columns, place)
    how = _how(place, crs, zooms, buffer, render_resolution, antimeridian, max_tiles, max_zoom)
    old, new = (
        _by_key(frame, name, keys, compared, each, functions)
        for frame, name, each in ((before, "before", place), (after, "after", other))
    )
    col = functions.col
    joined = old.alias("o").join(
        new.alias("n"), [col(f"o.k{number}") == col(f"n.k{number}") for number in range(len(keys))], "full_outer"
    )
    moved = ~col("o.place").eqNullSafe(col("n.place"))
    differs = moved | ~col("o.value").eqNullSafe(col("n.value")) | col("o.mark").isNull() | col("n.mark").isNull()
    # Where it was counts if it is gone or has moved. Where it is counts always: the one without a place has changed too.
    was = functions.when(col("n.mark").isNull() | moved, col("o.place"))
    places = functions.filter(functions.array(was, col("n.place")), lambda each: each["p0"].isNotNull())
    changed = joined.where(differs).select(places.alias("places"))
    exploded = changed.select(functions.explode_outer("places").alias("place"))
    return _covered(exploded.select(*(col(f"place.{name}").alias(name) for name in place.names)), how, shard, unplaced=True)


class _Place(NamedTuple):
    """Where a row is.

    Attributes:
        kind: as in `_How`.
        columns: the names of its columns.
        types: how they are typed, to compare two states.
        expressions: Spark's columns.
    """

    kind: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    expressions: tuple[Any, ...]

    @property
    def names(self) -> list[str]:
        """What its columns are called."""
        return [f"p{number}" for number in range(len(self.expressions))]

    def selected(self) -> list[Any]:
        """Its columns, to be selected."""
        return [each.alias(name) for name, each in zip(self.names, self.expressions)]


def _place(frame: Any, what: str, geometry_column: Any, cells_column: str | None) -> _Place:
    functions: Any = import_geo("pyspark.sql.functions", extra="spark")
    types = {field.name: field.dataType for field in frame.schema.fields}
    if cells_column is not None:
        if geometry_column is not None:
            raise InvalidInputError("geometry_column and cells_column are both given: use one of them.")
        kind = _type(frame, types, what, cells_column, "cells_column", _CELLS, "whole numbers or text")
        cell = _column(functions, cells_column)
        cell = cell.cast("string") if kind in _TEXT else cell.cast("long")
        return _Place("cells", (cells_column,), ("text" if kind in _TEXT else "number",), (cell,))
    if geometry_column is None:
        own = [name for name, each in types.items() if type(each).__name__ in _OWN]
        if len(own) != 1:
            held = f"several columns of geometries: {', '.join(own)}" if own else "no column of Spark's own geometry type"
            raise InvalidInputError(
                f"{what} has {held}. Name one by geometry_column=, or cells by cells_column=. Its columns: "
                f"{quoted(list(types), 300)}."
            )
        geometry_column = own[0]
    if isinstance(geometry_column, str):
        allowed = "a geometry, binary (WKB) or text"
        kind = _type(frame, types, what, geometry_column, "geometry_column", (*_OWN, *_TEXT), allowed)
        column = _column(functions, geometry_column)
        if kind not in _OWN:
            return _Place("geometry", (geometry_column,), ("binary" if kind == "BinaryType" else "text",), (column,))
        quoted_name = _quoted(geometry_column)
        parts = (functions.expr(f"st_asbinary({quoted_name})"), functions.expr(f"st_srid({quoted_name})"))
        return _Place("geometry", (geometry_column,), ("geometry",), parts)
    names = list(geometry_column)
    if len(names) != 2 or not all(isinstance(name, str) for name in names):
        raise InvalidInputError(
            f"geometry_column = {quoted(geometry_column)} must be the name of a column, or two: longitudes and latitudes."
        )
    for name in names:
        _type(frame, types, what, name, "geometry_column", _NUMBERS, "numbers")
    # NaN is no place, like null: otherwise a portion of nothing else would be an error, whatever the other ones hold.
    numbers = tuple(functions.nanvl(_column(functions, name).cast("double"), functions.lit(None)) for name in names)
    return _Place("coordinates", tuple(names), ("number", "number"), numbers)


def _type(frame: Any, types: Mapping[str, Any], what: str, name: str, keyword: str, allowed: Sequence[str], said: str) -> str:
    """The name of a column's type.

    Raises:
        InvalidInputError: there is no such column, or it is of another type.
    """
    if list(frame.columns).count(name) != 1:
        raise no_column(what, name, keyword, frame.columns)
    kind = type(types[name]).__name__
    if kind not in allowed:
        raise InvalidInputError(f"{keyword} = {name!r} is {types[name].simpleString()} in {what}, not {said}.")
    return kind


def _how(
    place: _Place,
    crs: Any,
    zooms: Any,
    buffer: int,
    render_resolution: Any,
    antimeridian: Any,
    max_tiles: int,
    max_zoom: int,
) -> _How:
    """What an executor is told. It is checked here, because an error of a job is tried four times."""
    levels = parse_zooms(zooms, max_zoom=max_zoom)
    keywords: dict[str, Any] = {"zooms": levels, "buffer": buffer, "max_tiles": max_tiles, "max_zoom": max_zoom}
    if place.kind == "cells":
        keywords["render_resolution"] = render_resolution
        read_selection(cells=[], **keywords)
        if crs is not None or antimeridian is not None:
            raise InvalidInputError("crs and antimeridian are for geometries: omit them with cells_column.")
        return _How(place.kind, keywords, place.columns)
    if render_resolution is not None:
        raise InvalidInputError("render_resolution is for cells_column: omit it.")
    keywords["antimeridian"] = antimeridian
    read_selection(bounds=[], **{name: value for name, value in keywords.items() if name != "antimeridian"})
    if antimeridian not in (None, "cross", "literal"):
        raise InvalidInputError(f"antimeridian = {quoted(antimeridian)} must be 'cross' or 'literal'.")
    if crs is not None:
        found = Systems(crs).find(crs, "crs")
        keywords["crs"] = crs if found is None else found.to_wkt()  # the same on every executor, whatever its PROJ knows
    return _How(place.kind, keywords, place.columns)


def _covered(frame: Any, how: _How, shard: Any, *, unplaced: bool = False) -> Any:
    """The distinct tiles of rows, of which only the place is left."""
    check_shard(shard)
    found = frame.mapInArrow(functools.partial(cover, how=how, unplaced=unplaced), _TILES).dropDuplicates()
    if shard is None:
        return found
    functions: Any = import_geo("pyspark.sql.functions", extra="spark")
    number = functions.pmod(functions.xxhash64("z", "x", "y"), functions.lit(shard[1]))
    return found.where(number == functions.lit(shard[0]))


def cover(batches: Iterable[Any], *, how: _How, unplaced: bool) -> Iterator[Any]:
    """The tiles of batches of rows, each once in a batch. Runs on an executor.

    Args:
        batches: record batches with the place of each row.
        how: what to select.
        unplaced: whether a row without a place is said by a row of nulls.

    Raises:
        RuntimeError: what `our_error` reads.
    """
    pa = import_geo("pyarrow")
    for batch in _portions(batches):
        try:
            placed = batch.drop_null()
            if unplaced and placed.num_rows < batch.num_rows:
                yield pa.record_batch([pa.nulls(1, pa.int32())] * 3, names=["z", "x", "y"])
            for selection in _selections(placed, how):
                yield from _numbers(selection)
        except FusedCacheError as error:
            # Spark hands only text to the driver.
            raise RuntimeError(marked_text(error)) from None


def _portions(batches: Iterable[Any]) -> Iterator[Any]:
    """The same rows in fewer batches."""
    pa = import_geo("pyarrow")
    held: list[Any] = []
    for batch in batches:
        held.append(batch)
        if sum(each.num_rows for each in held) >= _ROWS or sum(each.nbytes for each in held) >= _BYTES:
            yield pa.concat_batches(held)
            held = []
    if held:
        yield pa.concat_batches(held)


def _selections(batch: Any, how: _How) -> Iterator[Selection]:
    """What a batch of rows selects: one selection for each reference system in it."""
    if not batch.num_rows:
        return
    pa = import_geo("pyarrow")
    name = how.columns[0]
    keywords = dict(how.keywords)
    first = batch.column(0)
    if how.kind == "cells":
        yield _read(cells=first, **keywords)
    elif how.kind == "coordinates":
        table = pa.table([first, batch.column(1)], names=list(how.columns))
        yield _read(geometry=table, geometry_column=how.columns, **keywords)
    elif batch.num_columns == 1:
        yield _read(geometry=pa.table([first], names=[name]), geometry_column=name, **keywords)
    else:
        own = keywords.pop("crs", None)
        for srid in batch.column(1).unique().to_pylist():
            rows = pa.compute.equal(batch.column(1), srid)
            crs = (own or "OGC:CRS84") if srid == 0 else f"EPSG:{srid}"
            yield _read(geometry=pa.table([first.filter(rows)], names=[name]), geometry_column=name, crs=crs, **keywords)


def _read(**keywords: Any) -> Selection:
    selection = read_selection(**keywords)
    assert isinstance(selection, Selection)  # noqa: S101 - too many tiles are an error
    return selection


def _numbers(selection: Selection) -> Iterator[Any]:
    """The tiles of a selection as record batches."""
    import numpy as np

    pa = import_geo("pyarrow")
    for batch in selection.batches(_AT_ONCE):
        z, x, y, width, height = np.array(list(batch.blocks()), dtype=np.int64).T
        counts = width * height
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        heights = np.repeat(height, counts)
        columns = (
            np.repeat(z, counts),
            np.repeat(x, counts) + within // heights,
            np.repeat(y, counts) + within % heights,
        )
        yield pa.record_batch([pa.array(each.astype(np.int32)) for each in columns], names=["z", "x", "y"])


def _compared(before: Any, after: Any, keys: list[str], columns: Any, place: _Place) -> list[str]:
    """The columns to compare, besides the place.

    Raises:
        InvalidInputError: one is missing, or its types differ.
    """
    left_out = {*keys, *place.columns}
    named = None if columns is None else [columns] if isinstance(columns, str) else list(columns)
    found = [[name for name in frame.columns if name not in left_out] for frame in (before, after)]
    if named is None and set(found[0]) != set(found[1]):
        raise InvalidInputError(
            f"Only one of before and after has {quoted(sorted(set(found[0]) ^ set(found[1])), 300)}: name the columns that "
            "count as a change by columns=."
        )
    wanted = found[0] if named is None else [name for name in named if name not in left_out]
    for what, frame in (("before", before), ("after", after)):
        for name in (*keys, *wanted):
            if list(frame.columns).count(name) != 1:
                raise no_column(what, name, "key" if name in keys else "columns", frame.columns)
    for name in (*keys, *wanted):
        types = [frame.schema[name].dataType for frame in (before, after)]
        if types[0].json() != types[1].json():
            shown = f"{types[0].simpleString()} in before, and {types[1].simpleString()} in after"
            remedy = "make them equal" + ("." if name in keys else ", or leave it out by columns=.")
            raise InvalidInputError(f"Column {name!r} is {shown}, which cannot be compared: {remedy}")
    return wanted


def _by_key(frame: Any, what: str, keys: list[str], compared: list[str], place: _Place, functions: Any) -> Any:
    """The rows of one state by their key: ``k0`` and so on, ``value``, ``place``, and a ``mark`` that is never null."""
    types = {field.name: field.dataType for field in frame.schema.fields}
    names = [f"k{number}" for number in range(len(keys))]
    value = [_comparable(functions, name, types[name]).alias(f"c{number}") for number, name in enumerate(compared)]
    selected = frame.select(
        *(_column(functions, name).alias(alias) for alias, name in zip(names, keys)),
        functions.struct(*(value or [functions.lit(1).alias("c0")])).alias("value"),
        functions.struct(*place.selected()).alias("place"),
    )
    grouped = selected.groupBy(*names).agg(
        functions.count(functions.lit(1)).alias("rows"),
        functions.first("value").alias("value"),
        functions.first("place").alias("place"),
    )
    is_null = functools.reduce(lambda one, other: one | other, (functions.col(name).isNull() for name in names))
    shown = ", ".join(keys)
    mark = (
        functions.when(is_null, _raised(functions, f"{what} has rows whose key {shown} is null: a key identifies a row."))
        .when(
            functions.col("rows") > 1,
            _raised(
                functions,
                f"{what} has several rows with the same key ({shown}): name the column that identifies a row by key=, or "
                "several that do so together.",
            ),
        )
        .otherwise(functions.lit(1))
    )
    return grouped.select(*names, "value", "place", mark.alias("mark"))


def _raised(functions: Any, message: str) -> Any:
    return functions.raise_error(functions.lit(marked_text(InvalidInputError(message)))).cast("int")


def _comparable(functions: Any, name: str, kind: Any) -> Any:
    """A column in a form that Spark compares."""
    column = _column(functions, name)
    family = type(kind).__name__
    if family == "MapType":
        return functions.array_sort(functions.map_entries(column))
    if family == "VariantType":
        return functions.to_json(column)
    if family in _OWN:
        return functions.expr(f"struct(st_asbinary({_quoted(name)}), st_srid({_quoted(name)}))")
    if "Interval" in family:
        return column.cast("string")
    if any(each in json.dumps(kind.jsonValue()) for each in ('"map"', '"variant"', "geometry(", "geography(")):
        raise InvalidInputError(
            f"Column {name!r} is {kind.simpleString()}, which Spark cannot compare: leave it out by columns=."
        )
    return column


def _column(functions: Any, name: str) -> Any:
    return functions.col(_quoted(name))


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _check_frame(what: str, frame: Any) -> None:
    """Reject what is not a DataFrame of Spark.

    Raises:
        InvalidInputError: as said.
        ConfigurationError: the extra is not installed.
    """
    if not is_frame(frame):
        raise InvalidInputError(f"{what} is {a_type_of(frame)}, not a DataFrame of Spark: see geometry= and cells= for others.")
    import_geo("pyspark", extra="spark")
