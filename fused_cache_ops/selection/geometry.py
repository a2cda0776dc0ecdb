"""Reading of geometries in any common form, as valid shapely geometries in degrees. Needs the extra ``geo``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fused_cache_ops.errors import FusedCacheError, InvalidInputError, unreadable
from fused_cache_ops.selection.antimeridian import as_said
from fused_cache_ops.selection.arrays import refuse_arrays
from fused_cache_ops.selection.arrow import (
    Rows,
    Table,
    Unknown,
    find_column,
    is_arrow,
    is_parquet,
    no_column,
    open_parquet,
    open_table,
    parquet_schema,
    read_parquet_rows,
    read_rows,
    with_places,
)
from fused_cache_ops.selection.bounds import ENDS
from fused_cache_ops.selection.coverage import in_one_tile
from fused_cache_ops.selection.rasters import grid_outline, is_dataset, is_raster
from fused_cache_ops.selection.reprojection import DEGREES, is_same, name_of, reference_system, to_degrees
from fused_cache_ops.selection.shapes import Portion, import_geo, is_pipe, layers_of, portion_of, reading, single_parts, spooled
from fused_cache_ops.selection.texts import box, from_bytes, from_texts, from_values, is_geometry, is_null
from fused_cache_ops.tiles.tile import HIGHEST_ZOOM
from fused_cache_ops.wording import (
    a_type_of,
    counted,
    quoted,
    quoted_address,
    rendered_to_nothing,
    shortened,
    warn,
    without_credentials,
)

_FORMS = (
    "pass GeoJSON (a dict or text), WKT, WKB, a shapely geometry, a GeoSeries or GeoDataFrame, an Arrow table, the path or "
    "URL of a vector or Parquet file, or a list of these"
)
_CATALOGUES = ("Catalog", "Collection")  # of STAC
_CATALOGUE_FILE = re.compile(rb'"type"\s*:\s*"(Catalog|Collection)"')
_LONGEST_PATH = 4096  # characters
_BARE = (str, bytes, bytearray, memoryview, Mapping)

_PORTION = 50_000
"""Shapes to cover at once."""


class Options(NamedTuple):
    """How geometries are to be read.

    Attributes:
        deepest_zoom: the deepest zoom to be covered. Reprojected edges are exact to a thousandth of a tile at that zoom.
        column: the column of a table that holds the geometries, or two with longitudes and latitudes, or x and y. None: the
            one that says so.
        crs: the reference system of what does not name one, in any form that pyproj reads.
        layer: the layer of a file to read. None: all that have geometries.
        antimeridian: see `fused_cache_ops.selection.antimeridian.as_said`.
        unplaced: called with how many rows changed that have no place.
        widened: what to do with areas in degrees, before they are covered.
        watch: called often while shapes are read. It raises when they are no longer wanted.
    """

    deepest_zoom: int = HIGHEST_ZOOM
    column: str | Sequence[str] | None = None
    crs: Any = None
    layer: str | None = None
    antimeridian: str | None = None
    unplaced: Callable[[int], object] = bool
    widened: Callable[[Any], Any] | None = None
    watch: Callable[[], object] = bool


class _Source(NamedTuple):
    """Shapes as they were given, and the reference system that they name: None for degrees, or `Unknown`.

    Attributes:
        missing: how many null ones there were beside them.
    """

    shapes: Any
    system: Any = None
    what: str = "geometry"
    missing: int = 0


def read_geometry(geometry: Any, options: Options) -> Iterator[Portion]:
    """Portions of everything given, in degrees (WGS 84). Only one of them is held in memory at a time.

    Args:
        geometry: GeoJSON (a dict or text), WKT, WKB, a shapely geometry, anything with ``__geo_interface__``, a GeoSeries
            or GeoDataFrame, any Arrow table, stream or column, the path or URL of a vector or Parquet file, or a list of
            these for their union. Anything that names a coordinate reference system (a table, a file, the SRID of EWKB, EWKT
            or a shapely geometry, GeoJSON's ``crs``) is reprojected, and its edges are straight in that system. A table or
            file that does not name one is an error. A bare geometry is in degrees, longitude first.
        options: see `Options`.

    Raises:
        InvalidInputError: the geometry cannot be read, is all null, is not in degrees, or has a reference system that is
            unknown, unusable or not the one given.
        ConfigurationError: the extra ``geo`` is not installed.

    Warns:
        UserWarning: an invalid ring was repaired, an edge spans more than half the globe, or null geometries were skipped.
    """
    import numpy as np

    shapely = import_geo("shapely")
    systems = Systems(options.crs)
    for system, shapes in _gathered(_sources(geometry, options, shapely), systems, options.watch):
        if not np.isfinite(shapely.get_coordinates(shapes)).all():
            raise InvalidInputError("geometry has a NaN or infinite coordinate: coordinates must be finite.")
        if system is None or _in_degrees(system):
            shapes = as_said(shapes, options.antimeridian)
        if system is not None or options.widened is not None:
            valid = _valid(shapes, shapely)
            found = valid if system is None else to_degrees(valid, system, options.deepest_zoom)
            yield portion_of(found if options.widened is None else options.widened(found))
            continue
        # Shapes inside a single tile are replaced by their middles.
        west, south, east, north = shapely.bounds(shapes).T
        _check_degrees(west, south, east, north)
        small = in_one_tile(west, south, east, north, options.deepest_zoom)
        middles = np.column_stack((west + east, south + north))[small] / 2
        yield portion_of(_valid(shapes[~small], shapely), middles)


def _gathered(sources: Iterator[_Source], systems: Systems, watch: Callable[[], object]) -> Iterator[tuple[Any, Any]]:
    """Consecutive sources of one reference system together, in portions."""
    for system, shapes in _joined(sources, systems, watch):
        for start in range(0, len(shapes), _PORTION):
            watch()
            yield system, shapes[start : start + _PORTION]


def _joined(sources: Iterator[_Source], systems: Systems, watch: Callable[[], object]) -> Iterator[tuple[Any, Any]]:
    import numpy as np

    held: list[Any] = []
    count = given = missing = 0
    of: Any = None
    for source in sources:
        watch()
        given += len(source.shapes)
        missing += source.missing
        shapes = _present(source.shapes)
        if not len(shapes):
            continue
        system = systems.find(source.system, source.what)
        if held and (not is_same(system, of) or count + len(shapes) > _PORTION):
            yield of, np.concatenate(held)
            held, count = [], 0
        held.append(shapes)
        count += len(shapes)
        of = system
    if missing and not given:
        raise InvalidInputError(
            f"geometry has {counted(missing, 'member')} without a place, and nothing else: the geometry is null. Did a join "
            "lose it? To select nothing, pass []."
        )
    if held:
        yield of, np.concatenate(held)
    if missing:
        warn(f"geometry has {counted(missing, 'member')} whose geometry is null: skipped")


def _present(shapes: Any) -> Any:
    """An array of the shapes that are neither null nor empty."""
    import numpy as np
    import shapely

    found = np.empty(len(shapes), dtype=object)
    found[:] = shapes
    return found[~(shapely.is_missing(found) | shapely.is_empty(found))]


class Systems:
    """The reference systems that sources name, each looked up once.

    Args:
        given: the caller's, for sources that do not name one. None: there is none.

    Raises:
        InvalidInputError: it is unknown or unusable.
    """

    def __init__(self, given: Any) -> None:
        self._said = given
        self._given = None if given is None else reference_system(given)
        self._known: list[tuple[Any, Any]] = []

    def find(self, said: Any, what: str) -> Any:
        """A reference system as a pyproj CRS, None for degrees.

        Args:
            said: what the source says: `Unknown`, None for a bare geometry, or any form that pyproj reads.
            what: how messages name the source.

        Raises:
            InvalidInputError: it is unknown, or not the one that the caller gave.
        """
        if said is Unknown and self._said is None:
            raise InvalidInputError(
                f"{what} does not say its coordinate reference system: name it by crs=, such as crs='EPSG:4326' for "
                "longitude and latitude. Check that geometry_column= is the right column."
            )
        if said is Unknown or said is None:
            return self._given
        if said == DEGREES and self._said is None:
            return None
        for known, found in self._known:
            if known == said:
                return found
        found = reference_system(said)
        if self._said is not None and not is_same(found, self._given):
            raise InvalidInputError(
                f"{what} is in {name_of(found)}, but crs = {name_of(self._given)} was given: omit crs, or correct the data."
            )
        self._known.append((said, found))
        return found


def _sources(geometry: Any, options: Options, shapely: Any) -> Iterator[_Source]:
    if geometry is None:
        raise InvalidInputError(f"geometry is None: did a load step return nothing? To select an area, {_FORMS}.")
    if isinstance(geometry, os.PathLike):
        geometry = os.fspath(geometry)
    geometry = _of_catalogue(geometry)
    if not isinstance(geometry, str):
        refuse_arrays(geometry, f"geometry, {a_type_of(geometry)},")
    if isinstance(geometry, str):
        yield from _from_text(geometry.strip(), options, shapely)
    elif is_geopandas(geometry):
        yield from _from_geopandas(geometry, options, shapely)
    elif isinstance(geometry, Iterable) and not isinstance(geometry, (*_BARE, shapely.Geometry)) and not _is_whole(geometry):
        yield from _from_members(list(geometry), options, shapely)
    elif _holds_objects(geometry, options.column):
        what = f"geometry, {a_type_of(geometry)},"
        yield from _from_values(geometry[options.column].tolist(), what, shapely)
    elif is_dataset(geometry):
        yield _outline(geometry, "geometry", options)
    elif is_arrow(geometry):
        yield from _from_table(open_table(geometry), options, f"geometry, {a_type_of(geometry)},", shapely)
    elif options.column is not None:
        raise InvalidInputError(
            f"geometry_column = {quoted(options.column)} was given, but geometry is {a_type_of(geometry)}, which has no "
            "columns."
        )
    elif isinstance(geometry, (bytes, bytearray, memoryview)):
        yield from _by_srid(_parsed(from_bytes, [bytes(geometry)], "WKB"), shapely)
    elif isinstance(geometry, shapely.Geometry):
        yield from _by_srid([geometry], shapely)
    elif isinstance(geometry, Mapping):
        yield from _from_geojson(geometry, None, shapely)
    elif hasattr(geometry, "__geo_interface__"):
        yield from _from_geojson(geometry.__geo_interface__, None, shapely)
    else:
        raise InvalidInputError(f"geometry is of type {type(geometry).__name__}: {_FORMS}.")


def _from_members(members: list[Any], options: Options, shapely: Any) -> Iterator[_Source]:
    """The members of a list: geometries in any form, or records."""
    if members and all(isinstance(member, shapely.Geometry) for member in members) and options.column is None:
        yield from _by_srid(members, shapely)
        return
    records = [_record(member) for member in members]
    if records and all(record is not None for record in records):
        is_geojson = all(isinstance(record.get("type"), str) for record in records if record is not None)
        if options.column is not None or not is_geojson:
            yield from _from_records(records, options.column, shapely)
            return
    for member in members:
        yield from _sources(member, options, shapely)


def _record(member: Any) -> Mapping[str, Any] | None:
    """A row of a database as a mapping: a dict, or what the drivers have in its place. None if it is none."""
    if isinstance(member, Mapping):
        return member
    if isinstance(mapping := getattr(member, "_mapping", None), Mapping):  # SQLAlchemy
        return mapping
    if callable(names := getattr(member, "keys", None)) and hasattr(member, "__getitem__"):  # sqlite3, asyncpg
        return dict(zip(names(), member))
    return member._asdict() if callable(getattr(member, "_asdict", None)) else None


def _from_records(records: list[Any], column: str | Sequence[str] | None, shapely: Any) -> Iterator[_Source]:
    import numpy as np

    what = f"geometry, a list of {counted(len(records), 'record')},"
    names = list(dict.fromkeys(str(name) for record in records[:1000] for name in record))
    wanted = (column,) if isinstance(column, str) else tuple(column or ())
    if not wanted:
        if any(map({name.lower() for name in names}.issuperset, ENDS)):
            yield from _from_values(records, what, shapely)
            return
        raise InvalidInputError(
            f"{what} does not say where its geometries are: name the column by geometry_column=, or the two columns of "
            f"longitudes and latitudes. Its columns: {quoted(names, 300)}."
        )
    for name in wanted:
        if not any(name in record for record in records):
            raise no_column(what, name, "geometry_column", names)
    if len(wanted) == 1:
        yield from _from_values([record.get(wanted[0]) for record in records], what, shapely)
        return
    pairs = [[record.get(name) for name in wanted] for record in records]
    try:
        places = [[float(number) for number in pair] for pair in pairs if not any(map(is_null, pair))]
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"The columns {' and '.join(map(repr, wanted))} of {what} are not numbers: {error}.") from None
    yield from _from_rows([Rows(len(pairs), shapely.points(np.asarray(places, float).reshape(-1, 2)))], Unknown, what, shapely)


def _from_values(values: Sequence[Any], what: str, shapely: Any) -> Iterator[_Source]:
    """The values of one column, as Python objects."""
    try:
        shapes = from_values(values)
    except Exception as error:
        raise InvalidInputError(f"{what} has a value that is no geometry: {shortened(str(error), 300)}.") from None
    yield from _from_rows([Rows(len(shapes), shapes[~shapely.is_missing(shapes)])], Unknown, what, shapely)


def _holds_objects(frame: Any, column: Any) -> bool:
    """Whether a column of a pandas frame holds Python objects, which Arrow may not know."""
    if not (isinstance(column, str) and hasattr(frame, "iloc") and column in getattr(frame, "columns", ())):
        return False
    return getattr(frame[column], "ndim", 0) == 1 and str(frame[column].dtype) == "object"


def _from_table(table: Table, options: Options, what: str, shapely: Any) -> Iterator[_Source]:
    name = options.column
    if name is not None and not isinstance(name, str):
        table, name = with_places(table, name, what)
    column = find_column(table.schema, name, what)
    unplaced = options.unplaced if column.of_changes else None
    yield from _from_rows(read_rows(table, column, what), column.system, what, shapely, unplaced)


def _of_catalogue(given: Any) -> Any:
    """An object of pystac as what it says in JSON. Its own has no bbox where there is no geometry. Anything else unchanged."""
    if not hasattr(given, "to_dict"):
        return given
    if hasattr(given, "__geo_interface__") and isinstance(items := getattr(given, "items", None), list):
        return items
    if hasattr(given, "__geo_interface__") and (bbox := getattr(given, "bbox", None)) is not None:
        return {"bbox": bbox, **given.__geo_interface__}
    if hasattr(given, "get_items"):  # also those of pystac-client
        return {"type": "Collection" if hasattr(given, "extent") else "Catalog", "id": getattr(given, "id", None)}
    return given


def is_geopandas(value: Any) -> bool:
    """Whether a value is a GeoDataFrame or a GeoSeries."""
    return hasattr(value, "to_crs") and hasattr(value, "geometry")


def _is_whole(geometry: Any) -> bool:
    """Whether something that can be iterated is one geometry or one table."""
    return is_arrow(geometry) or hasattr(geometry, "__geo_interface__")


def _from_text(text: str, options: Options, shapely: Any) -> Iterator[_Source]:
    if rendered_to_nothing(text):
        raise InvalidInputError(f"geometry is {text!r}, which looks like a template that rendered to nothing: {_FORMS}.")
    if text[0] in "{[":
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"geometry = {quoted(text, 60)} is not JSON: {shortened(str(error), 300)}.") from None
        yield from _sources(content, options, shapely)
    elif is_geometry(text) and not _is_file(text):
        yield from _by_srid(_parsed(from_texts, [text], "WKT, EWKT or WKB in hexadecimal"), shapely)
    elif len(text) > _LONGEST_PATH:
        raise InvalidInputError(
            f"geometry = {quoted(text, 60)} has {len(text):,} characters, and is in no form that is read: {_FORMS}."
        )
    else:
        yield from _from_file(text, options, shapely)


def _by_srid(shapes: Any, shapely: Any, otherwise: Any = None, what: str = "geometry") -> Iterator[_Source]:
    """Shapes grouped by the SRID that each one carries (EWKB's, or shapely's own). ``otherwise`` is the system of those without
    one."""
    import numpy as np

    given = np.empty(len(shapes), dtype=object)
    given[:] = shapes
    shapes, srids = given, shapely.get_srid(given)
    for number in np.unique(srids).tolist():
        yield _Source(shapes[srids == number], f"EPSG:{number}" if number else otherwise, what)


def _from_rows(
    portions: Iterable[Rows], system: Any, what: str, shapely: Any, unplaced: Callable[[int], object] | None = None
) -> Iterator[_Source]:
    """Rows of a table. Where the table does not name a reference system, each geometry's SRID may. Where rows may have no
    place, their number is reported."""
    count = present = 0
    for rows in portions:
        count += rows.total
        present += len(rows.shapes)
        if system is Unknown:
            yield from _by_srid(rows.shapes, shapely, otherwise=Unknown, what=what)
        else:
            yield _Source(rows.shapes, system, what)
    if unplaced is None:
        _check_not_all_null(count, present, what)
        yield _Source((), missing=count - present)
    else:
        unplaced(count - present)


def _check_not_all_null(count: int, present: int, what: str) -> None:
    if count and not present:
        raise InvalidInputError(
            f"{what} has {counted(count, 'row')}, and nothing but null geometries. Did a join lose them? To select nothing, "
            "pass one without rows."
        )


def _from_geopandas(frame: Any, options: Options, shapely: Any) -> Iterator[_Source]:
    what = f"geometry, {a_type_of(frame)},"
    series = frame.geometry
    if options.column is not None and not isinstance(options.column, str):
        plain = import_geo("pandas").DataFrame({name: frame[name] for name in options.column if name in frame})
        yield from _from_table(open_table(plain), options, what, shapely)
        return
    if options.column is not None:
        if options.column not in getattr(frame, "columns", ()) or not hasattr(frame[options.column], "crs"):
            raise InvalidInputError(f"{what} has no column of geometries {options.column!r} (geometry_column).")
        series = frame[options.column]
    shapes = series.to_numpy()
    system = Unknown if series.crs is None else series.crs
    yield from _from_rows([Rows(len(shapes), shapes[~shapely.is_missing(shapes)])], system, what, shapely)


def _from_geojson(content: Any, system: str | None, shapely: Any) -> Iterator[_Source]:
    if not isinstance(content, Mapping) or content.get("type") is None:
        raise InvalidInputError(f"geometry = {quoted(content, 60)} is not GeoJSON, because it has no 'type': {_FORMS}.")
    kind, system = content["type"], _named_system(content, system)
    if kind == "FeatureCollection":
        features = _members(content, "features")
        located = [feature for feature in features if _has_geometry(feature)]
        _check_not_all_null(len(features), len(located), "geometry, a FeatureCollection,")
        yield _Source((), missing=len(features) - len(located))
        for feature in located:
            yield from _from_geojson(feature, system, shapely)
    elif kind == "Feature":
        if not _has_geometry(content):
            yield _Source((), missing=1)
        elif content["geometry"] is None:  # a STAC Item
            yield _Source([_parsed(box, content["bbox"], "a bbox")], system)
        else:
            yield from _from_geojson(content["geometry"], system, shapely)
    elif kind in _CATALOGUES:
        raise _no_items(kind, content.get("id"))
    elif kind == "GeometryCollection":
        for member in _members(content, "geometries"):
            yield from _from_geojson(member, system, shapely)
    else:
        yield _Source([_parsed(shapely.from_geojson, json.dumps(content), "GeoJSON")], system)


def _no_items(kind: str, name: Any) -> InvalidInputError:
    return InvalidInputError(
        f"geometry is the STAC {kind} {quoted(name)}, which says where its Items may be, not which of them changed, and its "
        "box may lack those beyond the antimeridian: pass the Items that changed, as a list or an ItemCollection. For all of "
        "them: list(collection.get_items(recursive=True))."
    )


def _members(content: Mapping[str, Any], name: str) -> Sequence[Any]:
    members = content.get(name)
    if not isinstance(members, (list, tuple)):
        said = f"has no {name!r}" if members is None else f"has {name} = {quoted(members, 60)}, which is not a list"
        raise InvalidInputError(f"geometry is a {content['type']} that {said}: to select nothing, pass an empty list there.")
    return members


def _has_geometry(feature: Any) -> bool:
    """Whether a feature has a place. One without has null as its geometry. A STAC Item may then have a bbox."""
    if isinstance(feature, Mapping) and feature.get("type") == "Feature" and "geometry" not in feature:
        raise InvalidInputError(
            f"geometry = {quoted(dict(feature), 60)} is a Feature without 'geometry', which is not valid GeoJSON."
        )
    if not isinstance(feature, Mapping) or feature.get("type") != "Feature":
        return True
    return feature["geometry"] is not None or feature.get("bbox") is not None


def _named_system(content: Mapping[str, Any], inherited: str | None) -> str | None:
    """The system that GeoJSON's old ``crs`` names. RFC 7946 allows only degrees."""
    member = content.get("crs")
    if member is None:
        return inherited
    try:
        name = member["properties"]["name"] if member["type"] == "name" else None
    except (TypeError, KeyError):
        name = None
    if not isinstance(name, str):
        raise InvalidInputError(
            f"geometry has crs = {quoted(member)}, which names no coordinate reference system: omit it for degrees, or "
            "write {'type': 'name', 'properties': {'name': 'EPSG:…'}}."
        )
    return name


def _parsed(parse: Any, value: Any, form: str) -> Any:
    try:
        return parse(value)
    except Exception as error:
        shown = quoted(value[0] if isinstance(value, list) and len(value) == 1 else value, 60)
        raise InvalidInputError(f"geometry = {shown} is not {form}: {shortened(str(error), 300)}.") from None


def _from_file(path: str, options: Options, shapely: Any) -> Iterator[_Source]:
    what = f"geometry, the file {quoted_address(path)},"
    if is_pipe(path):
        yield from _from_pipe(path, options, what, shapely)
        return
    try:
        if "\0" in path:
            raise ValueError("it holds a NUL character")
        refuse_arrays(path, f"geometry = {quoted_address(path)}")
        if is_raster(path):
            yield _outline(path, what, options)
            return
        if is_parquet(path) or _head(path)[:4] == b"PAR1":
            yield from _from_parquet(path, options, what, shapely)
            return
        if options.column is not None:
            yield from _from_attributes(path, options, what, shapely)
            return
        pyogrio = import_geo("pyogrio")
        layers = []
        with reading(path):
            for layer in _named(layers_of(path), options.layer, what):
                metadata, _, wkb, _ = pyogrio.raw.read(path, columns=[], layer=layer)
                layers.append((metadata["crs"], shapely.from_wkb(wkb)))
            fields = [] if layers else pyogrio.read_info(path, layer=options.layer)["fields"].tolist()
    except FusedCacheError:
        raise
    except Exception as error:
        if catalogue := _CATALOGUE_FILE.search(_head(path)):
            raise _no_items(catalogue[1].decode(), Path(path).name) from None
        reason = without_credentials(error, path)
        said = f"geometry = {quoted_address(path)} cannot be read as a vector file: {shortened(reason, 500)}."
        raise unreadable(error, said) from None
    if not layers:
        raise InvalidInputError(
            f"{what} has no geometries. Name the columns that hold them: geometry_column=['lon', 'lat'] for longitudes and "
            "latitudes, or x and y, or geometry_column='…' for one of WKT or GeoJSON. Their reference system is named by crs=. "
            f"Its columns: {quoted(fields, 300)}."
        )
    if layers and all(shapely.is_missing(shapes).all() for _, shapes in layers) and _head(path).lstrip()[:1] == b"{":
        text = Path(path).read_text(encoding="utf-8-sig")
        if '"bbox"' in text:  # of STAC Items, which GDAL does not read
            yield from _from_text(text, options, shapely)
            return
    count = sum(len(shapes) for _, shapes in layers)
    present = [(system, shapes[~shapely.is_missing(shapes)]) for system, shapes in layers]
    found = sum(len(shapes) for _, shapes in present)
    _check_not_all_null(count, found, what)
    yield _Source((), missing=count - found)
    for system, shapes in present:
        yield from _from_rows([Rows(len(shapes), shapes)], Unknown if system is None else system, what, shapely)


def _outline(raster: Any, what: str, options: Options) -> _Source:
    """The outline of a raster's grid."""
    for name, given in (("geometry_column", options.column), ("layer", options.layer)):
        if given is not None:
            raise InvalidInputError(f"{name} = {quoted(given)} was given, but {what.rstrip(',')} is a raster: omit it.")
    outlines, system = grid_outline(raster, "geometry")
    return _Source(outlines, Unknown if system is None else system, what)


def _is_file(text: str) -> bool:
    """Whether there is a file of this name."""
    try:
        return len(text) < _LONGEST_PATH and Path(text).is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _from_pipe(path: str, options: Options, what: str, shapely: Any) -> Iterator[_Source]:
    """What a pipe holds: text, or a file in any format that tells itself by its content."""
    with spooled(path, what) as copy:
        begin = _head(copy)
        if begin.lstrip()[:1] in (b"{", b"[") or is_geometry(begin.decode("ascii", "replace").strip()):
            yield from _from_text(Path(copy).read_text(encoding="utf-8-sig").strip(), options, shapely)
            return
        try:
            yield from _from_file(copy, options, shapely)
        except InvalidInputError as error:
            raise InvalidInputError(error.message.replace(copy, path)) from None


def _head(path: str) -> bytes:
    """How a local file begins."""
    if not _is_file(path):
        return b""
    with Path(path).open("rb") as file:
        return file.read(_LONGEST_PATH)


def _named(layers: list[str], name: str | None, what: str) -> list[str]:
    """The layers to read: the one named, or all.

    Raises:
        InvalidInputError: there is none of this name.
    """
    if name is None:
        return layers
    if name not in layers:
        raise InvalidInputError(f"{what} has no layer {quoted(name)} with geometries. Its layers: {quoted(layers, 300)}.")
    return [name]


def _from_attributes(path: str, options: Options, what: str, shapely: Any) -> Iterator[_Source]:
    """The geometries that a vector file, a spreadsheet or a CSV file has in its columns."""
    pyogrio = import_geo("pyogrio")
    wanted = [options.column] if isinstance(options.column, str) else list(options.column or ())
    tables = []
    with reading(path):
        every = [str(name) for name, _ in pyogrio.list_layers(path)]
        for layer in _named(every, options.layer, what):
            fields = pyogrio.read_info(path, layer=layer)["fields"].tolist()
            for name in wanted:
                if name not in fields:
                    raise no_column(what, name, "geometry_column", fields)
            tables.append(pyogrio.raw.read_arrow(path, layer=layer, columns=wanted, read_geometry=False)[1])
    for table in tables:
        yield from _from_table(Table(table.schema, iter(table.to_batches())), options, what, shapely)


def _from_parquet(path: str, options: Options, what: str, shapely: Any) -> Iterator[_Source]:
    if options.layer is not None:
        raise InvalidInputError(f"layer = {quoted(options.layer)} was given, but {what} has no layers: omit it.")
    with open_parquet(path) as file:
        if options.column is not None and not isinstance(options.column, str):
            wanted = [name for name in options.column if name in file.schema_arrow.names]
            schema = import_geo("pyarrow").schema([file.schema_arrow.field(name) for name in wanted])
            yield from _from_table(Table(schema, file.iter_batches(_PORTION, columns=wanted)), options, what, shapely)
            return
        column = find_column(parquet_schema(file), options.column, what)
        # Boxes in another system are not in degrees.
        in_degrees = column.system is not Unknown and reference_system(column.system) is None
        rows = read_parquet_rows(file, column, options.deepest_zoom if in_degrees else None, what)
        yield from _from_rows(rows, column.system, what, shapely)


def _valid(shapes: Any, shapely: Any) -> Any:
    """An array of the single, flat parts of shapes, of which broken ones are repaired.

    Parts may overlap. Repaired together, they would leave a hole where they do.
    """
    shapes = single_parts(shapely.force_2d(shapes))
    broken = ~shapely.is_valid(shapes)
    for number in broken.nonzero()[0]:
        warn(f"geometry was invalid and has been repaired: {shapely.is_valid_reason(shapes[number])}")
        # The one leaves a hole where a ring overlaps itself, and the other leaves out spikes, and holes outside of the shell.
        ways = [shapely.make_valid(shapes[number], method=method) for method in ("linework", "structure")]
        shapes[number] = shapely.GeometryCollection(ways)
    return shapes


def _in_degrees(system: Any) -> bool:
    """Whether the coordinates of a pyproj CRS are longitudes and latitudes in degrees."""
    return bool(system.is_geographic and {axis.unit_name for axis in system.axis_info[:2]} == {"degree"})


def _check_degrees(west: Any, south: Any, east: Any, north: Any) -> None:
    x, y = max(-west.min(), east.max()), max(-south.min(), north.max())
    if x > 540 or y > 90:
        raise InvalidInputError(
            f"geometry extends to ({x:g}, {y:g}), which is not in degrees: longitudes come first and are within ±180 (±540 "
            "across the antimeridian), latitudes within ±90. Name their reference system by crs=."
        )
