"""Reading of geometries in any common form, as one valid shapely geometry in degrees. Needs the extra ``geo``."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fused_cache_ops.errors import ConfigurationError, InvalidInputError
from fused_cache_ops.selection.reprojection import DEGREES, reference_system, to_degrees
from fused_cache_ops.selection.shapes import flat, import_geo, within_the_map
from fused_cache_ops.tiles.tile import HIGHEST_ZOOM
from fused_cache_ops.wording import counted, quoted, rendered_to_nothing, warn

_WKT = re.compile(
    r"(?:SRID\s*=\s*(\d+)\s*;)?\s*((?:MULTI)?(?:POINT|LINESTRING|POLYGON|CURVE|SURFACE).*|(?:GEOMETRYCOLLECTION|LINEARRING).*)",
    re.IGNORECASE | re.DOTALL | re.ASCII,
)
_FORMS = (
    "pass GeoJSON (a dict or text), WKT, WKB, a shapely geometry, a GeoSeries or GeoDataFrame, the path or URL of a "
    "vector file, or a list of these"
)
_PARQUET = (".parquet", ".geoparquet", ".pq")
_SRIDS_OF_DEGREES = (0, 4326)  # 0: none was set


class _Source(NamedTuple):
    """Shapes as they were given, possibly None, and the reference system that they name. None: degrees."""

    shapes: Sequence[Any]
    system: Any = None


def read_geometry(geometry: Any, deepest_zoom: int = HIGHEST_ZOOM) -> Any:
    """One valid shapely geometry that covers everything given, in degrees (WGS 84), its areas within longitudes ±180.

    Args:
        geometry: GeoJSON (a dict or text), WKT, WKB, a shapely geometry, anything with ``__geo_interface__``, a GeoSeries
            or GeoDataFrame, the path or URL of a vector file, or a list of these for their union. Anything that names
            a coordinate reference system (a GeoDataFrame, a file, the SRID of EWKB, EWKT or a shapely geometry, GeoJSON's
            ``crs``) is reprojected, and its edges are straight in that system. Everything else must be in degrees,
            longitude first.
        deepest_zoom: the deepest zoom to be covered. Reprojected edges are exact to a thousandth of a tile at that zoom.

    Raises:
        InvalidInputError: the geometry cannot be read, is all null, is not in degrees, or names a reference system that is
            unknown or unusable.
        ConfigurationError: the extra ``geo`` is not installed.

    Warns:
        UserWarning: an invalid ring was repaired, or an edge spans more than half the globe.
    """
    shapely = import_geo("shapely")
    whole: list[Any] = []
    for name, sources in itertools.groupby(_sources(geometry, shapely), key=lambda source: source.system):
        given = [shape for source in sources for shape in source.shapes if shape is not None and not shape.is_empty]
        system = None if name is None else reference_system(name)
        parts = [_checked(shapely.force_2d(shape), system is None, shapely) for shape in given]
        whole += parts if system is None or not parts else to_degrees(parts, system, deepest_zoom)
    if not whole:
        return shapely.GeometryCollection()
    return within_the_map(flat(whole[0] if len(whole) == 1 else shapely.geometrycollections(whole)))


def _sources(geometry: Any, shapely: Any) -> Iterator[_Source]:
    if geometry is None:
        raise InvalidInputError(f"geometry is None: did a load step return nothing? To select an area, {_FORMS}.")
    if isinstance(geometry, os.PathLike):
        geometry = os.fspath(geometry)
    if isinstance(geometry, (bytes, bytearray, memoryview)):
        yield from _by_srid([_parsed(shapely.from_wkb, bytes(geometry), "WKB")], shapely)
    elif isinstance(geometry, str):
        yield from _from_text(geometry.strip(), shapely)
    elif isinstance(geometry, shapely.Geometry):
        yield from _by_srid([geometry], shapely)
    elif hasattr(geometry, "to_crs") and hasattr(geometry, "geometry"):  # geopandas
        yield from _from_table(list(geometry.geometry), geometry.crs, type(geometry).__name__, shapely)
    elif isinstance(geometry, Mapping):
        yield from _from_geojson(geometry, None, shapely)
    elif hasattr(geometry, "__geo_interface__"):
        yield from _from_geojson(geometry.__geo_interface__, None, shapely)
    elif isinstance(geometry, Iterable):
        for member in geometry:
            yield from _sources(member, shapely)
    else:
        raise InvalidInputError(f"geometry is of type {type(geometry).__name__}: {_FORMS}.")


def _from_text(text: str, shapely: Any) -> Iterator[_Source]:
    if rendered_to_nothing(text):
        raise InvalidInputError(f"geometry is {text!r}, which looks like a template that rendered to nothing: {_FORMS}.")
    if text[0] in "{[":
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"geometry = {text[:60]!r} is not JSON: {error}.") from None
        yield from _sources(content, shapely)
    elif match := _WKT.match(text):
        yield from _by_srid([_parsed(shapely.from_wkt, match[2], "WKT")], shapely, int(match[1] or 0))
    else:
        yield from _from_file(text, shapely)


def _by_srid(shapes: Sequence[Any], shapely: Any, srid: int | None = None) -> Iterator[_Source]:
    """Shapes grouped by the SRID that each one carries (EWKB's, or shapely's own), unless one is given."""
    srids = [int(number) for number in shapely.get_srid(shapes)] if srid is None else [srid] * len(shapes)
    for number in sorted(set(srids)):
        members = [shape for shape, its in zip(shapes, srids) if its == number]
        yield _Source(members, None if number in _SRIDS_OF_DEGREES else f"EPSG:{number}")


def _from_table(shapes: Sequence[Any], system: Any, what: str, shapely: Any) -> Iterator[_Source]:
    _check_not_all_null(shapes, what)
    present = [shape for shape in shapes if shape is not None]
    yield from _by_srid(present, shapely) if system is None else [_Source(present, system)]


def _check_not_all_null(shapes: Sequence[Any], what: str) -> None:
    if len(shapes) and all(shape is None for shape in shapes):
        raise InvalidInputError(
            f"geometry is a {what} with {counted(len(shapes), 'row')} whose geometries are all null. Did a join lose them? "
            "To select nothing, pass one without rows."
        )


def _from_geojson(content: Any, system: str | None, shapely: Any) -> Iterator[_Source]:
    if not isinstance(content, Mapping) or content.get("type") is None:
        raise InvalidInputError(f"geometry = {quoted(content, 60)} is not GeoJSON, because it has no 'type': {_FORMS}.")
    kind, system = content["type"], _named_system(content, system)
    if kind == "FeatureCollection":
        features = _members(content, "features")
        _check_not_all_null([feature if _has_geometry(feature) else None for feature in features], "FeatureCollection")
        for feature in features:
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


def _from_file(path: str, shapely: Any) -> Iterator[_Source]:
    try:
        read = _read_parquet if path.lower().partition("?")[0].endswith(_PARQUET) else _read_vector_file
        wkb, system = read(path)
        shapes = list(shapely.from_wkb(wkb))
    except ConfigurationError:
        raise
    except Exception as error:
        raise InvalidInputError(f"geometry = {path[:200]!r} cannot be read as a vector file: {error}.") from None
    yield from _from_table(shapes, system, f"file {path[:200]!r}", shapely)


def _read_vector_file(path: str) -> tuple[Any, Any]:
    metadata, _, geometry, _ = import_geo("pyogrio").raw.read(path, columns=[])
    return geometry, metadata["crs"]


def _read_parquet(path: str) -> tuple[Any, Any]:
    """GeoParquet: WKB in the primary column, and the reference system in the metadata (missing means degrees)."""
    parquet = import_geo("pyarrow.parquet", "pyarrow")
    if "://" in path:
        with import_geo("fsspec").open(path, "rb") as file:
            table = parquet.ParquetFile(file)
            return _parquet_column(table)
    return _parquet_column(parquet.ParquetFile(path))


def _parquet_column(file: Any) -> tuple[Any, Any]:
    metadata = json.loads(file.schema_arrow.metadata[b"geo"])
    name = metadata["primary_column"]
    column = metadata["columns"][name]
    if column.get("encoding", "WKB") != "WKB":
        raise ValueError(f"its column {name!r} is encoded as {column['encoding']}: only WKB is read")
    return file.read(columns=[name])[name].to_numpy(), column.get("crs", DEGREES)


def _checked(part: Any, in_degrees: bool, shapely: Any) -> Any:
    """A valid part with finite coordinates, in degrees if they have to be."""
    coordinates = shapely.get_coordinates(part)
    x, y = abs(coordinates[:, 0]).max(initial=0), abs(coordinates[:, 1]).max(initial=0)
    if not (math.isfinite(x) and math.isfinite(y)):
        raise InvalidInputError("geometry has a NaN or infinite coordinate: coordinates must be finite.")
    if in_degrees:
        _check_degrees(part, x, y, shapely)
    if not shapely.is_valid(part):
        warn(f"geometry was invalid and has been repaired: {shapely.is_valid_reason(part)}")
        part = shapely.make_valid(part)
    return part


def _check_degrees(part: Any, x: float, y: float, shapely: Any) -> None:
    if x > 540 or y > 90:
        raise InvalidInputError(
            f"geometry extends to ({x:g}, {y:g}), which is not in degrees: longitudes come first and are within ±180 (±540 "
            "across the antimeridian), latitudes within ±90. Reproject it to EPSG:4326, or pass a GeoDataFrame with a crs."
        )
    points, path = shapely.get_coordinates(_paths(part, shapely), return_index=True)
    steps = abs(points[1:, 0] - points[:-1, 0])[path[1:] == path[:-1]]
    if 180 < steps.max(initial=0) < 360:
        warn(
            f"geometry has an edge that spans {steps.max():g}° of longitude, which is taken literally. To cross the "
            "antimeridian instead, use longitudes beyond 180, or cut the geometry there"
        )


def _paths(part: Any, shapely: Any) -> Any:
    """The lines and rings of a geometry."""
    pieces = shapely.get_parts(flat(part))
    kinds = shapely.get_dimensions(pieces)
    return [*pieces[kinds == 1], *shapely.get_rings(pieces[kinds == 2])]
