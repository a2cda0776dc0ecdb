"""Tables, columns and streams of any library that speaks Arrow, and Parquet files. Needs the extra ``geo``.

What a column says of its coordinate reference system is read as its specification defines it. In GeoArrow, none means that
it is unknown. In GeoParquet and in Parquet's own geometry types, none means longitude and latitude.
"""

from __future__ import annotations

import itertools
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.selection.bounds import ENDS
from fused_cache_ops.selection.coverage import in_one_tile
from fused_cache_ops.selection.pieces import read_count
from fused_cache_ops.selection.reprojection import DEGREES
from fused_cache_ops.selection.shapes import file_system, import_geo
from fused_cache_ops.selection.texts import PLACES, from_bytes, from_texts, from_values
from fused_cache_ops.selection.texts import box as read_box
from fused_cache_ops.tiles.tile import Tile, from_quadkey
from fused_cache_ops.wording import quoted, shortened, warn

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Shapes = npt.NDArray[np.object_]

_ROWS = 50_000
"""Rows to turn into geometries at once."""

_DEPTHS = {"point": 0, "linestring": 1, "multipoint": 1, "polygon": 2, "multilinestring": 2, "multipolygon": 3}
"""GeoArrow's native encodings: how many lists there are around the coordinates."""

_ENCODINGS = ("wkb", "wkt", "box", "bbox", "geojson", *_DEPTHS)
_BIGQUERY = "google:sqlType:geography"
_PARQUET = (".parquet", ".geoparquet", ".pq")
_EXTENSION = b"ARROW:extension:name"
_METADATA = b"ARROW:extension:metadata"
_OF_CHANGES = b"fused_cache_ops:changes"
_MARGIN = b"fused_cache_ops:margin"


class Unknown:
    """The reference system of coordinates that come without one."""


class Table(NamedTuple):
    """Rows and columns of any Arrow source. The only column of a source that is itself a column has no name."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


class Column(NamedTuple):
    """A column of geometries.

    Attributes:
        name: its name.
        encoding: ``wkb``, ``wkt`` (any text), ``box`` (a struct), ``bbox`` (a list), ``geojson`` (a struct of it), or one of
            GeoArrow's native encodings, such as ``polygon``.
        system: its reference system in a form that pyproj reads, or `Unknown`.
        box: the paths of the columns that hold each row's west, south, east and north, if a Parquet file has them.
        of_changes: whether it says what changed, see `marked`. A null in it is a row that changed without having a place.
    """

    name: str
    encoding: str
    system: Any
    box: tuple[str, ...] = ()
    of_changes: bool = False


class Rows(NamedTuple):
    """Some rows of a column: how many they are, and the shapely geometries of those that have one."""

    total: int
    shapes: Shapes


def is_arrow(value: object) -> bool:
    """Whether a value hands out Arrow data: a table, a record batch, a stream or a column.

    A pandas Series is read as the list that it is, because it may hold any Python objects.
    """
    if hasattr(value, "iloc") and getattr(value, "ndim", 2) == 1:
        return False
    return hasattr(value, "__arrow_c_stream__") or hasattr(value, "__arrow_c_array__")


def open_table(source: Any) -> Table:
    """The rows and columns of an Arrow source.

    Raises:
        InvalidInputError: the source cannot be read as Arrow.
        ConfigurationError: pyarrow is not installed.
    """
    pa = import_geo("pyarrow")
    if hasattr(source, "alias") and hasattr(source, "to_frame") and not hasattr(source.dtype, "fields"):
        source = source.alias("").to_frame()  # a Polars Series, which hands out its extension only in a frame
    try:
        field = _field(source, pa)
        if field is None or (pa.types.is_struct(field.type) and _extension(field)[0] is None):
            reader = _reader(source, pa)
            return Table(reader.schema, iter(reader))
        chunks = [pa.array(source)] if hasattr(source, "__arrow_c_array__") else pa.chunked_array(source).chunks
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InvalidInputError(f"A {type(source).__name__} cannot be read as Arrow data: {error}.") from None
    return Table(pa.schema([field]), (pa.record_batch([chunk], names=[""]) for chunk in chunks))


def _field(source: Any, pa: Any) -> Any:
    """The type of a source, with what extensions say of it. None: it hands out batches of rows."""
    if hasattr(source, "__arrow_c_array__"):
        return pa.Field._import_from_c_capsule(source.__arrow_c_array__()[0]).with_name("")
    if isinstance(source, pa.ChunkedArray):
        return pa.field("", source.type)
    if isinstance(source, pa.RecordBatchReader) or not hasattr(source, "__arrow_c_schema__"):
        return None if not hasattr(source, "dtype") else pa.field("", pa.chunked_array(source).type)
    found = source.__arrow_c_schema__()
    try:
        return pa.Field._import_from_c_capsule(found).with_name("")
    except pa.ArrowInvalid:
        return None


def _reader(source: Any, pa: Any) -> Any:
    if hasattr(source, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(source)
    batch = pa.record_batch(source)
    return pa.RecordBatchReader.from_batches(batch.schema, [batch])


def find_column(schema: Any, name: str | None, what: str) -> Column:
    """The column of geometries: the one named, GeoParquet's primary column, or the only one that is marked as geometries.

    Args:
        schema: a ``pyarrow.Schema``.
        name: the column to take, or None.
        what: how messages name the table.

    Raises:
        InvalidInputError: there is no such column, there are several, or it holds no geometries.
    """
    if name is not None and not isinstance(name, str):
        raise InvalidInputError(
            f"geometry_column = {quoted(name)} names two columns, but {what} needs one column of geometries."
        )
    geo = _geoparquet(schema)
    marked = [field.name for field in schema if _extension(field)[0] is not None]
    if name is None:
        primary = [geo["primary_column"]] if geo.get("primary_column") in schema.names else []
        named = primary or marked or (schema.names if schema.names == [""] else [])
        if len(named) != 1:
            held = f"several columns of geometries: {', '.join(marked)}" if marked else "no column marked as geometries"
            raise InvalidInputError(
                f"{what} has {held}. Name one by geometry_column=, and its reference system by crs= if the data does not say "
                f"it. Its columns: {quoted(schema.names, 300)}."
            )
        name = named[0]
    if schema.names.count(name) != 1:
        raise no_column(what, name, "geometry_column", schema.names)
    field = schema.field(name)
    said = geo.get("columns", {}).get(name)
    encoding, metadata = _extension(field)
    if encoding is None:
        encoding = str(said.get("encoding", "WKB")).lower() if said is not None else _plain_encoding(field, what)
    if encoding not in _ENCODINGS:
        raise InvalidInputError(
            f"{what} encodes its column {name!r} as {encoding}, which is not read: convert it to WKB, such as by "
            "shapely.to_wkb or ST_AsWKB."
        )
    edges = [each for each in (metadata.get("edges"), (said or {}).get("edges")) if each not in (None, "planar")]
    if edges:
        warn(
            f"The edges of column {name!r} are {shortened(str(edges[0]))}, and taken to be straight in degrees: long ones need "
            "a buffer"
        )
    if said is not None:
        # What only the column's own type says is written by DuckDB.
        system = said["crs"] if "crs" in said else metadata.get("crs", DEGREES)
        box = said.get("covering", {}).get("bbox", {})
        ends = tuple(".".join(box[end]) for end in ("xmin", "ymin", "xmax", "ymax")) if box else ()
        return Column(name, encoding, Unknown if system is None else system, ends)
    return Column(name, encoding, metadata.get("crs") or Unknown, of_changes=_OF_CHANGES in (field.metadata or {}))


def no_column(what: str, name: str, keyword: str, names: Sequence[str]) -> InvalidInputError:
    """The error of a column that is not there, or there more than once."""
    found = "no" if name not in names else "more than one"
    return InvalidInputError(f"{what} has {found} column {name!r} ({keyword}). Its columns: {quoted(list(names), 300)}.")


def _geoparquet(schema: Any) -> Any:
    return _metadata((schema.metadata or {}).get(b"geo"), "The GeoParquet metadata of a table")


def _metadata(text: bytes | None, what: str) -> Any:
    """A JSON object. Without a text, an empty one."""
    try:
        found = json.loads(text or b"{}")
    except ValueError as error:
        raise InvalidInputError(f"{what} is not JSON: {error}.") from None
    if not isinstance(found, dict):
        raise InvalidInputError(f"{what} is not a JSON object: {quoted(found)}.")
    return found


def _extension(field: Any) -> tuple[str | None, Any]:
    """A column's encoding and metadata, if it is marked as geometries, whether or not its type is known to pyarrow."""
    given = field.metadata or {}
    name = getattr(field.type, "extension_name", None) or given.get(_EXTENSION, b"").decode(errors="replace")
    family, _, encoding = name.partition(".")
    if name == _BIGQUERY:
        return "wkt", {"crs": DEGREES, "edges": "spherical"}
    if family not in ("geoarrow", "ogc"):  # pyarrow's own extension types have no metadata
        return None, {}
    metadata = field.type.__arrow_ext_serialize__() if hasattr(field.type, "extension_name") else given.get(_METADATA, b"")
    return encoding, _metadata(metadata, f"The GeoArrow metadata of column {field.name!r}")


def _plain_encoding(field: Any, what: str) -> str:
    import pyarrow.types as types

    kind = bare(field.type)
    if types.is_fixed_size_binary(kind) or str(kind) in ("binary", "large_binary", "binary_view"):
        return "wkb"
    if is_text(kind):
        return "wkt"
    if (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)) and types.is_floating(
        kind.value_type
    ):
        return "bbox"
    if types.is_struct(kind):
        names = {kind.field(number).name.lower() for number in range(kind.num_fields)}
        if "type" in names and names & {"coordinates", "geometries", "geometry"}:
            return "geojson"
        if any(map(names.issuperset, ENDS)):
            return "box"
        if any(map(names.issuperset, PLACES)):
            return "point"
    raise InvalidInputError(
        f"{what} has the type {shortened(str(field.type))} in its column {field.name!r}, which is neither WKB (binary) nor "
        "WKT or GeoJSON (text), nor a struct of GeoJSON, of a box (xmin, ymin, xmax, ymax) or of lon and lat, and not marked "
        "as geometries."
    )


def is_text(kind: Any) -> bool:
    """Whether an Arrow type is text, in one of its layouts."""
    return str(kind) in ("string", "large_string", "string_view")


def read_rows(table: Table, column: Column, what: str) -> Iterator[Rows]:
    """The geometries of a column, some rows at a time.

    Raises:
        InvalidInputError: a value is not what the column's encoding says.
    """
    for batch in table.batches:
        for start in range(0, batch.num_rows, _ROWS):
            yield _rows(batch.column(column.name if column.name else 0).slice(start, _ROWS), column, what)


def stored(array: Any) -> Any:
    """The values of an Arrow array in a layout that pyarrow can filter, take and cast: without an extension type, a dictionary
    or runs around them, and not as views."""
    import pyarrow as pa
    import pyarrow.compute as compute

    values = getattr(array, "storage", array)
    if pa.types.is_dictionary(values.type):
        return stored(values.dictionary_decode())
    if pa.types.is_run_end_encoded(values.type):
        return stored(compute.run_end_decode(values))
    if str(values.type).startswith(("list_view", "large_list_view")):
        return values.cast(pa.large_list(values.type.value_field))
    whole = {"string_view": "large_string", "binary_view": "large_binary"}.get(str(values.type))
    return values if whole is None else values.cast(whole)


def bare(kind: Any) -> Any:
    """An Arrow type without an extension, a dictionary or runs around it."""
    import pyarrow.types as types

    kind = getattr(kind, "storage_type", kind)
    return bare(kind.value_type) if types.is_dictionary(kind) or types.is_run_end_encoded(kind) else kind


def _rows(array: Any, column: Column, what: str) -> Rows:
    values = stored(array).drop_null()
    try:
        return Rows(len(array), _decoded(values, column.encoding))
    except Exception as error:  # shapely's errors, pyarrow's, and what wrong nesting gives
        where = f"column {column.name!r} of {what}" if column.name else what
        form = "WKT, GeoJSON or hexadecimal WKB" if column.encoding == "wkt" else column.encoding
        raise InvalidInputError(f"{where} cannot be read as {form}: {shortened(str(error), 300)}.") from None


def as_wkb(array: Any, encoding: str, what: str) -> Any:
    """An Arrow array of geometries as WKB, nulls included.

    Raises:
        InvalidInputError: a value is not what the encoding says.
    """
    import numpy as np
    import pyarrow as pa

    values = stored(array)
    if encoding == "wkb":
        return values.cast(pa.large_binary())
    shapes = np.full(len(values), None, dtype=object)
    shapes[values.is_valid().to_numpy(zero_copy_only=False)] = _rows(values, Column("", encoding, Unknown), what).shapes
    return wkb_of(shapes)


def wkb_of(shapes: Any) -> Any:
    """Shapely geometries as an array of WKB with their SRIDs. None stays null. `pyarrow.array` would import pandas."""
    import numpy as np

    pa = import_geo("pyarrow")
    found = import_geo("shapely").to_wkb(np.asarray(shapes, object), include_srid=True).tolist()
    known = [wkb or b"" for wkb in found]
    offsets = np.cumsum([0, *map(len, known)], dtype=np.int64)
    nulls = np.packbits([wkb is not None for wkb in found], bitorder="little") if None in found else None
    buffers = [None if each is None else pa.py_buffer(each) for each in (nulls, offsets, b"".join(known))]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(found), buffers)


def marked(chunks: Sequence[Any], system: Any, *, margin: float = 0) -> Any:
    """Arrays of WKB as a ``pyarrow.Table`` with one column, marked as geometries and as what changed.

    Args:
        chunks: the arrays.
        system: their reference system as text or as PROJJSON, or `Unknown`.
        margin: how far beyond them a tile changes, in pixels of a tile of 256 pixels.
    """
    pa = import_geo("pyarrow")
    metadata = {} if system is Unknown else {"crs": system}
    kind = chunks[0].type if chunks else pa.large_binary()
    marks = {_EXTENSION: b"geoarrow.wkb", _METADATA: json.dumps(metadata).encode(), _OF_CHANGES: b"true"}
    if margin:
        marks[_MARGIN] = repr(margin).encode()
    return pa.table([pa.chunked_array(chunks, kind)], schema=pa.schema([pa.field("geometry", kind, metadata=marks)]))


def margin_of(source: Any) -> float:
    """The margin of what `marked` has made, as a share of a tile. 0: it has none."""
    schema: Any = getattr(source, "schema", None)
    if getattr(schema, "names", None) != ["geometry"]:
        return 0.0
    said = (schema.field(0).metadata or {}).get(_MARGIN)
    return 0.0 if said is None else float(said) / 256


def _decoded(values: Any, encoding: str) -> Shapes:
    import numpy as np
    import pyarrow as pa
    import shapely

    found: Any
    if encoding == "wkb":
        found = from_bytes(values.cast(pa.large_binary()).to_numpy(zero_copy_only=False))
    elif encoding == "wkt":
        found = from_texts(values.cast(pa.large_string()).to_numpy(zero_copy_only=False))
    elif encoding == "geojson":
        found = from_values([without_nulls(value) for value in values.to_pylist()])
    elif encoding == "bbox":
        found = [read_box(value) for value in values.to_pylist()]
    elif encoding == "box":
        west, south, east, north = (_numbers(end) for end in _fields(values, ENDS))
        found = boxes_of(_outward(west, -np.inf), _outward(south, -np.inf), _outward(east, np.inf), _outward(north, np.inf))
    else:
        offsets = []
        for _ in range(_DEPTHS[encoding]):
            values = stored(values)
            starts = values.offsets.to_numpy()
            offsets.append(starts - starts[0])
            values = values.flatten()
        kind = shapely.GeometryType[encoding.upper()]
        found = shapely.from_ragged_array(kind, _coordinates(values), tuple(reversed(offsets)) or None)
    return np.asarray(found, dtype=object)


def boxes_of(west: Any, south: Any, east: Any, north: Any) -> Any:
    """Boxes as polygons, or as lines and points where they have no width or height, because polygons would be invalid. As in
    ``bounds``, one whose west is greater than its east crosses the antimeridian."""
    import numpy as np
    import shapely

    crosses = west > east
    wrong = (south > north) | (crosses & (np.maximum(abs(west), abs(east)) > 180))
    if wrong.any():
        first = int(wrong.argmax())
        said = ", ".join(f"{each[first]:g}" for each in (west, south, east, north))
        raise ValueError(f"({said}) is not west, south, east, north")
    east = np.where(crosses, east + 360, east)
    found = shapely.box(west, south, east, north)
    ends = np.stack((west, south, east, north), axis=-1).reshape(-1, 2, 2)
    flat, is_place = (west == east) | (south == north), (west == east) & (south == north)
    found[flat] = shapely.linestrings(ends[flat])
    found[is_place] = shapely.points(ends[is_place, 0])
    return found


def _coordinates(values: Any) -> Any:
    """Longitudes and latitudes, or x and y, of interleaved or separate coordinates. Heights and measures are dropped."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_struct(values.type):
        return np.column_stack([_numbers(axis) for axis in _fields(values, PLACES)])
    size = values.type.list_size
    return np.ascontiguousarray(_numbers(values.flatten()).reshape(-1, size)[:, :2])


def _fields(values: Any, several: Sequence[tuple[str, ...]]) -> list[Any]:
    """The fields of a struct under the first of several groups of names that it has, in any case."""
    kind = values.type
    position = {kind.field(number).name.lower(): number for number in reversed(range(kind.num_fields))}
    names = next(filter(position.keys().__ge__, map(set, several)))
    wanted = next(group for group in several if set(group) == names)
    return [values.field(position[name]) for name in wanted]


def without_nulls(value: Any) -> Any:
    """A struct as a mapping without what is null, as GeoJSON writes it: of several kinds in one column, each lacks members."""
    if isinstance(value, dict):
        return {name: without_nulls(each) for name, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


def _numbers(values: Any) -> Any:
    """An array of numbers, of which decimals and text are cast."""
    import pyarrow as pa

    if not pa.types.is_floating(values.type):
        values = stored(values).cast(pa.float64())
    return values.to_numpy(zero_copy_only=False)


def with_places(table: Table, names: Sequence[str], what: str) -> tuple[Table, str]:
    """A table with a column of points, made of two of its columns, and the name of that column.

    Raises:
        InvalidInputError: there are no such columns.
    """
    import pyarrow as pa

    for name in names:
        if table.schema.names.count(name) != 1:
            raise no_column(what, name, "geometry_column", table.schema.names)
    field = pa.field(", ".join(names), pa.struct({"x": pa.float64(), "y": pa.float64()}))
    schema = pa.schema([field])
    return Table(schema, (_placed(batch, names, schema, what) for batch in table.batches)), field.name


def _placed(batch: Any, names: Sequence[str], schema: Any, what: str) -> Any:
    import numpy as np
    import pyarrow as pa

    try:
        axes = [_numbers(stored(batch.column(name)).cast(pa.float64(), safe=False)) for name in names]
    except pa.ArrowException as error:
        raise InvalidInputError(
            f"The columns {' and '.join(map(repr, names))} of {what} are not numbers: {shortened(str(error), 200)}."
        ) from None
    missing = np.isnan(axes[0]) | np.isnan(axes[1])  # pandas has no other null
    places = pa.StructArray.from_arrays(
        [pa.array(axis) for axis in axes], fields=list(schema.field(0).type), mask=pa.array(missing)
    )
    return pa.record_batch([places], schema=schema)


def is_parquet(path: str) -> bool:
    """Whether a path or URL names a Parquet file."""
    return path.lower().partition("?")[0].endswith(_PARQUET)


@contextmanager
def open_parquet(path: str, system: Any = None) -> Iterator[Any]:
    """A ``pyarrow.parquet.ParquetFile`` of a path, of a URL that fsspec opens, or of a path in a file system of fsspec."""
    parquet = import_geo("pyarrow.parquet", "pyarrow")
    with ExitStack() as opened:
        source: Any = path
        if system is not None:
            source = opened.enter_context(system.open(path, "rb"))
        elif "://" in path:
            system, name = file_system(path)
            source = opened.enter_context(system.open(name, "rb"))
        yield opened.enter_context(parquet.ParquetFile(source))


def parquet_schema(file: Any) -> Any:
    """A file's schema. Columns of Parquet's own geometry types are marked as such, as a GeoArrow schema marks them."""
    schema = file.schema_arrow
    # Where a file holds an Arrow schema, pyarrow shows only the metadata of that.
    own = {key: value for key, value in (file.metadata.metadata or {}).items() if key != b"ARROW:schema"}
    schema = schema.with_metadata({**own, **(schema.metadata or {})})
    for number in range(len(file.schema)):
        column = file.schema.column(number)
        kind = json.loads(column.logical_type.to_json()) if column.logical_type is not None else {}
        if kind.get("Type") in ("Geometry", "Geography") and column.path in schema.names:
            marks = {"crs": _own_system(kind.get("crs", ""), schema.metadata or {})}
            if kind["Type"] == "Geography":
                marks["edges"] = str(kind.get("algorithm", "spherical")).lower()
            position = schema.names.index(column.path)
            field = schema.field(position).with_metadata({_EXTENSION: b"geoarrow.wkb", _METADATA: json.dumps(marks).encode()})
            schema = schema.set(position, field)
    return schema


def _own_system(said: str, metadata: Any) -> str:
    """The reference system of one of Parquet's own types. The specification names two forms besides those of PROJ."""
    kind, _, name = said.partition(":")
    if kind == "srid":
        return f"EPSG:{name}" if name != "0" else ""  # GeoParquet 2.0: unknown
    if kind == "projjson" and name.encode() in metadata:
        return str(metadata[name.encode()].decode())
    return said or DEGREES


def read_parquet_rows(file: Any, column: Column, deepest_zoom: int | None, what: str) -> Iterator[Rows]:
    """The geometries of a column in a Parquet file, some rows at a time.

    Args:
        file: a ``pyarrow.parquet.ParquetFile``.
        column: one that `find_column` found.
        deepest_zoom: the deepest zoom to be covered. If each bounding box in a row group lies in one tile, its rows come as
            the middles of their boxes, and the geometries are not read. None: read all geometries.
        what: how messages name the file.
    """
    for group in range(file.num_row_groups):
        middles = None if deepest_zoom is None or not column.box else _middles(file, group, column.box, deepest_zoom)
        if middles is not None:
            yield Rows(len(middles), middles)
            continue
        for batch in file.iter_batches(_ROWS, row_groups=[group], columns=[column.name]):
            yield _rows(batch.column(0), column, what)


def _middles(file: Any, group: int, paths: Sequence[str], deepest_zoom: int) -> Shapes | None:
    """The middles of the bounding boxes in a row group, if each box lies in one tile."""
    import numpy as np
    import shapely

    found = _row_boxes(file, group, paths)
    if found is None:
        return None
    west, south, east, north = found
    if not in_one_tile(west, south, east, north, deepest_zoom).all():
        return None
    return np.asarray(shapely.points((west + east) / 2, (south + north) / 2), dtype=object)


def row_boxes(file: Any, group: int, paths: Sequence[str]) -> Any:
    """The bounding boxes in a row group of a Parquet file, one row each: west, south, east, north. One whose west is greater
    than its east crosses the antimeridian, and its east is beyond 180. None: a row has no box, or one that cannot be.

    Args:
        file: a ``pyarrow.parquet.ParquetFile``.
        group: the number of the row group.
        paths: as `Column.box`.
    """
    import numpy as np

    found = _row_boxes(file, group, paths)
    if found is None or not np.isfinite(found).all():
        return None
    west, south, east, north = found
    crosses = west > east
    if (south > north).any() or (crosses & (np.maximum(abs(west), abs(east)) > 180)).any():
        return None
    return np.column_stack((west, south, np.where(crosses, east + 360, east), north))


def _row_boxes(file: Any, group: int, paths: Sequence[str]) -> tuple[Any, ...] | None:
    """The ends of the bounding boxes in a row group, as they are written, moved outward. None: they are not there."""
    import numpy as np

    table = file.read_row_group(group, columns=list(paths)).flatten()
    if not set(paths) <= set(table.column_names):
        return None
    ends = (table[path].to_numpy() for path in paths)
    return tuple(_outward(end, direction) for end, direction in zip(ends, (-np.inf, -np.inf, np.inf, np.inf)))


def _outward(ends: Any, direction: float) -> Any:
    """The ends of boxes, moved by one step of their precision: a cast to 32 bits rounds to the nearest number, which may lie
    inside of what it bounds."""
    import numpy as np

    return np.asarray(np.nextafter(ends, ends.dtype.type(direction)) if ends.dtype.itemsize < 8 else ends, float)


def read_tiles(source: Any, counts: array[int]) -> Iterator[Any]:
    """The tiles of an Arrow source, to be validated: columns ``z``, ``x`` and ``y``, a column ``tile``, or a ``quadkey``.

    Args:
        source: the table.
        counts: how often each tile is requested is added here, if there is a column ``count``.

    Raises:
        InvalidInputError: there are no such columns.
    """
    schema, batches = open_table(source)
    if "count" in schema.names:
        batches = _counted(batches, counts)
    if {"z", "x", "y"} <= set(schema.names):
        for batch in batches:
            yield from itertools.starmap(Tile, zip(*(stored(batch.column(axis)).to_pylist() for axis in "zxy")))
    elif schema.names == [""] or "tile" in schema.names:
        for batch in batches:
            yield from stored(batch.column("tile" if schema.names != [""] else 0)).to_pylist()
    elif "quadkey" in schema.names:
        for batch in batches:
            yield from itertools.starmap(Tile, map(from_quadkey, stored(batch.column("quadkey")).to_pylist()))
    else:
        raise InvalidInputError(
            f"tiles is a {type(source).__name__} with the columns {quoted(schema.names, 300)}: name them z, x and y, or tile "
            "('z/x/y'), or quadkey."
        )


def _counted(batches: Iterable[Any], counts: array[int]) -> Iterator[Any]:
    for batch in batches:
        counts.extend(map(read_count, stored(batch.column("count")).to_pylist()))
        yield batch


def read_values(source: Any, names: Sequence[str], what: str) -> Iterator[Any]:
    """Arrow arrays of one column: the source itself if it is a column, or its only column, or the first that has a name.

    Raises:
        InvalidInputError: there is no such column.
    """
    schema, batches = open_table(source)
    found = schema.names if len(schema.names) == 1 else [name for name in names if name in schema.names]
    if not found:
        raise InvalidInputError(
            f"{what} is a {type(source).__name__} with the columns {quoted(schema.names, 300)}: pass one column, or name it "
            f"{' or '.join(names)}."
        )
    position = schema.names.index(found[0])
    return (stored(batch.column(position)) for batch in batches)
