"""Reading of geometries in any common form, as valid shapely geometries in degrees. Needs the extra ``geo``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fused_cache_ops.errors import FusedCacheError, InvalidInputError, unreadable
from fused_cache_ops.selection.arrow import (
    Rows,
    Unknown,
    find_column,
    is_arrow,
    is_parquet,
    open_parquet,
    open_table,
    parquet_schema,
    read_parquet_rows,
    read_rows,
)
from fused_cache_ops.selection.coverage import in_one_tile
from fused_cache_ops.selection.reprojection import DEGREES, is_same, reference_system, to_degrees
from fused_cache_ops.selection.shapes import Portion, import_geo, layers_of, portion_of, reading, single_parts
from fused_cache_ops.tiles.tile import HIGHEST_ZOOM
from fused_cache_ops.wording import counted, quoted, quoted_address, rendered_to_nothing, warn, without_credentials

_WKT = re.compile(
    r"(?:SRID\s*=\s*(\d+)\s*;)?\s*"
    r"((?:(?:MULTI)?(?:POINT|LINESTRING|POLYGON|CURVE|SURFACE)|GEOMETRYCOLLECTION|LINEARRING)\s*(?:ZM?|M)?\s*(?:\(|EMPTY\b).*)",
    re.IGNORECASE | re.DOTALL | re.ASCII,
)
_FORMS = (
    "pass GeoJSON (a dict or text), WKT, WKB, a shapely geometry, a GeoSeries or GeoDataFrame, an Arrow table, the path or "
    "URL of a vector or Parquet file, or a list of these"
)
_BARE = (str, bytes, bytearray, memoryview, Mapping)

_PORTION = 50_000
"""Shapes to cover at once."""


class Options(NamedTuple):
    """How geometries are to be read.

    Attributes:
        deepest_zoom: the deepest zoom to be covered. Reprojected edges are exact to a thousandth of a tile at that zoom.
        column: the column of a table that holds the geometries. None: the one that says so.
        crs: the reference system of what does not name one, in any form that pyproj reads.
        unplaced: called with how many rows changed that have no place.
        watch: called often while shapes are read. It raises when they are no longer wanted.
    """

    deepest_zoom: int = HIGHEST_ZOOM
    column: str | None = None
    crs: Any = None
    unplaced: Callable[[int], object] = bool
    watch: Callable[[], object] = bool


class _Source(NamedTuple):
    """Shapes as they were given, and the reference system that they name: None for degrees, or `Unknown`."""

    shapes: Any
    system: Any = None
    what: str = "geometry"


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
        UserWarning: an invalid ring was repaired, or an edge spans more than half the globe.
    """
    import numpy as np

    shapely = import_geo("shapely")
    systems = Systems(options.crs)
    for system, shapes in _gathered(_sources(geometry, options, shapely), systems, options.watch):
        if not np.isfinite(shapely.get_coordinates(shapes)).all():
            raise InvalidInputError("geometry has a NaN or infinite coordinate: coordinates must be finite.")
        if system is not None:
            yield portion_of(to_degrees(_valid(shapes, shapely), system, options.deepest_zoom))
            continue
        # Shapes inside a single tile are replaced by their middles.
        west, south, east, north = shapely.bounds(shapes).T
        _check_degrees(shapes, west, south, east, north, shapely)
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
    count = 0
    of: Any = None
    for source in sources:
        watch()
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
    if held:
        yield of, np.concatenate(held)


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
            name = DEGREES if found is None else quoted(found.name)
            raise InvalidInputError(
                f"{what} is in {name}, but crs = {quoted(self._said)} was given: omit crs, or correct the data."
            )
        self._known.append((said, found))
        return found


def _sources(geometry: Any, options: Options, shapely: Any) -> Iterator[_Source]:
    if geometry is None:
        raise InvalidInputError(f"geometry is None: did a load step return nothing? To select an area, {_FORMS}.")
    if isinstance(geometry, os.PathLike):
        geometry = os.fspath(geometry)
    if isinstance(geometry, str):
        yield from _from_text(geometry.strip(), options, shapely)
    elif is_geopandas(geometry):
        yield from _from_geopandas(geometry, options, shapely)
    elif isinstance(geometry, Iterable) and not isinstance(geometry, (*_BARE, shapely.Geometry)) and not _is_whole(geometry):
        members = list(geometry)
        if members and all(isinstance(member, shapely.Geometry) for member in members) and options.column is None:
            yield from _by_srid(members, shapely)
            return
        for member in members:
            yield from _sources(member, options, shapely)
    elif is_arrow(geometry):
        table, what = open_table(geometry), f"geometry, a {type(geometry).__name__},"
        column = find_column(table.schema, options.column, what)
        unplaced = options.unplaced if column.of_changes else None
        yield from _from_rows(read_rows(table, column, what), column.system, what, shapely, unplaced)
    elif options.column is not None:
        raise InvalidInputError(
            f"geometry_column = {quoted(options.column)} was given, but geometry is a {type(geometry).__name__}, which has no "
            "columns."
        )
    elif isinstance(geometry, (bytes, bytearray, memoryview)):
        yield from _by_srid([_parsed(shapely.from_wkb, bytes(geometry), "WKB")], shapely)
    elif isinstance(geometry, shapely.Geometry):
        yield from _by_srid([geometry], shapely)
    elif isinstance(geometry, Mapping):
        yield from _from_geojson(geometry, None, shapely)
    elif hasattr(geometry, "__geo_interface__"):
        yield from _from_geojson(geometry.__geo_interface__, None, shapely)
    else:
        raise InvalidInputError(f"geometry is of type {type(geometry).__name__}: {_FORMS}.")


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
            raise InvalidInputError(f"geometry = {text[:60]!r} is not JSON: {error}.") from None
        yield from _sources(content, options, shapely)
    elif match := _WKT.match(text):
        yield from _by_srid([_parsed(shapely.from_wkt, match[2], "WKT")], shapely, int(match[1] or 0))
    else:
        yield from _from_file(text, options, shapely)


def _by_srid(
    shapes: Any, shapely: Any, srid: int | None = None, otherwise: Any = None, what: str = "geometry"
) -> Iterator[_Source]:
    """Shapes grouped by the SRID that each one carries (EWKB's, or shapely's own), unless one is given. ``otherwise`` is the
    system of those without one."""
    import numpy as np

    shapes = _present(shapes)
    srids = shapely.get_srid(shapes) if srid is None else np.full(len(shapes), srid)
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
    else:
        unplaced(count - present)


def _check_not_all_null(count: int, present: int, what: str) -> None:
    if count and not present:
        raise InvalidInputError(
            f"{what} has {counted(count, 'row')} whose geometries are all null. Did a join lose them? To select nothing, pass "
            "one without rows."
        )


def _from_geopandas(frame: Any, options: Options, shapely: Any) -> Iterator[_Source]:
    what = f"geometry, a {type(frame).__name__},"
    series = frame.geometry
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
        for feature in located:
            yield from _from_geojson(feature, system, shapely)
    elif kind == "Feature":
        if _has_geometry(content):
            yield from _from_geojson(content["geometry"], system, shapely)
    elif kind == "GeometryCollection":
        for member in _members(content, "geometries"):
            yield from _from_geojson(member, system, shapely)
    else:
        yield _Source([_parsed(shapely.from_geojson, json.dumps(content), "GeoJSON")], system)


def _members(content: Mapping[str, Any], name: str) -> Sequence[Any]:
    members = content.get(name)
    if not isinstance(members, (list, tuple)):
        said = f"has no {name!r}" if members is None else f"has {name} = {quoted(members, 60)}, which is not a list"
        raise InvalidInputError(f"geometry is a {content['type']} that {said}: to select nothing, pass an empty list there.")
    return members


def _has_geometry(feature: Any) -> bool:
    """Whether a feature has a location. In GeoJSON, one without has null as its geometry, and nothing else."""
    if isinstance(feature, Mapping) and feature.get("type") == "Feature" and "geometry" not in feature:
        raise InvalidInputError(
            f"geometry = {quoted(dict(feature), 60)} is a Feature without 'geometry', which is not valid GeoJSON."
        )
    return not isinstance(feature, Mapping) or feature.get("type") != "Feature" or feature["geometry"] is not None


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
        raise InvalidInputError(f"geometry = {quoted(value, 60)} is not {form}: {error}.") from None


def _from_file(path: str, options: Options, shapely: Any) -> Iterator[_Source]:
    what = f"geometry, the file {quoted_address(path)},"
    try:
        if "\0" in path:
            raise ValueError("it holds a NUL character")
        if is_parquet(path):
            yield from _from_parquet(path, options, what, shapely)
            return
        if options.column is not None:
            raise InvalidInputError(f"{what} is not a table: geometry_column is for Parquet files and tables.")
        pyogrio = import_geo("pyogrio")
        layers = []
        with reading(path):
            for layer in layers_of(path):
                metadata, _, wkb, _ = pyogrio.raw.read(path, columns=[], layer=layer)
                layers.append((metadata["crs"], shapely.from_wkb(wkb)))
    except FusedCacheError:
        raise
    except Exception as error:
        reason = without_credentials(error, path)
        raise unreadable(error, f"geometry = {quoted_address(path)} cannot be read as a vector file: {reason}.") from None
    if not layers:
        raise InvalidInputError(
            f"{what} has no geometries. Places in columns, such as lon and lat, have to be made into points first, as by "
            "geopandas.points_from_xy."
        )
    count = sum(len(shapes) for _, shapes in layers)
    present = [(system, shapes[~shapely.is_missing(shapes)]) for system, shapes in layers]
    _check_not_all_null(count, sum(len(shapes) for _, shapes in present), what)
    for system, shapes in present:
        yield from _from_rows([Rows(len(shapes), shapes)], Unknown if system is None else system, what, shapely)


def _from_parquet(path: str, options: Options, what: str, shapely: Any) -> Iterator[_Source]:
    with open_parquet(path) as file:
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


def _check_degrees(shapes: Any, west: Any, south: Any, east: Any, north: Any, shapely: Any) -> None:
    x, y = max(-west.min(), east.max()), max(-south.min(), north.max())
    if x > 540 or y > 90:
        raise InvalidInputError(
            f"geometry extends to ({x:g}, {y:g}), which is not in degrees: longitudes come first and are within ±180 (±540 "
            "across the antimeridian), latitudes within ±90. Name their reference system by crs=."
        )
    wide = east - west > 180
    if not wide.any():
        return
    points, path = shapely.get_coordinates(_paths(shapes[wide], shapely), return_index=True)
    steps = abs(points[1:, 0] - points[:-1, 0])[path[1:] == path[:-1]]
    if 180 < steps.max(initial=0) < 360:
        warn(
            f"geometry has an edge that spans {steps.max():g}° of longitude, which is taken literally. To cross the "
            "antimeridian instead, use longitudes beyond 180, or cut the geometry there"
        )


def _paths(shapes: Any, shapely: Any) -> Any:
    """The lines and rings of shapes."""
    pieces = single_parts(shapes)
    kinds = shapely.get_dimensions(pieces)
    return [*pieces[kinds == 1], *shapely.get_rings(pieces[kinds == 2])]
