"""A geometry, in whatever form people have one: as one valid shapely geometry in degrees. Needs the extra ``geo``."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from fused_cache_ops.errors import ConfigurationError, InvalidInputError
from fused_cache_ops.wording import quoted, rendered_to_nothing, warn

_WKT = re.compile(
    r"\s*(SRID=\d+;)?\s*(MULTI)?(POINT|LINESTRING|POLYGON|CURVE|SURFACE)|\s*(SRID=\d+;)?\s*(GEOMETRYCOLLECTION|LINEARRING)",
    re.IGNORECASE,
)
_FORMS = (
    "give GeoJSON (a dict or its text), WKT, WKB, a shapely geometry, a GeoSeries or GeoDataFrame, the path or URL of a "
    "vector file, or a list of these"
)
_PARQUET = (".parquet", ".geoparquet", ".pq")
_DEGREES = "EPSG:4326"


def read_geometry(geometry: Any) -> Any:
    """One valid shapely geometry that covers everything given, in degrees (WGS 84), its areas within longitudes ±180.

    Args:
        geometry: GeoJSON (a dict or its text), WKT, WKB, a shapely geometry, anything with ``__geo_interface__``, a GeoSeries
            or GeoDataFrame, the path or URL of a vector file, or a list of these for their union. What carries
            a coordinate reference system (a GeoDataFrame, a file) is reprojected; everything else is in degrees,
            longitude first.

    Raises:
        InvalidInputError: it cannot be read, or its coordinates are no degrees.
        ConfigurationError: the extra ``geo`` is not installed.

    Warns:
        UserWarning: a ring was not valid and has been repaired, or an edge spans more than half the globe.
    """
    shapely = import_geo("shapely")
    parts = [part for part in _parts(geometry, shapely) if part is not None and not part.is_empty]
    if not parts:
        return shapely.GeometryCollection()
    parts = [_checked(shapely.force_2d(part), shapely) for part in parts]
    whole = parts[0] if len(parts) == 1 else shapely.geometrycollections(parts)
    return _within_the_map(flat(whole, shapely), shapely)


def _parts(geometry: Any, shapely: Any) -> Iterable[Any]:
    if geometry is None:
        raise InvalidInputError(f"geometry is None: did a load step return nothing? To cover something {_FORMS}.")
    if isinstance(geometry, os.PathLike):
        geometry = os.fspath(geometry)
    if isinstance(geometry, (bytes, bytearray, memoryview)):
        yield _parsed(shapely.from_wkb, bytes(geometry), "WKB")
    elif isinstance(geometry, str):
        yield from _from_text(geometry.strip(), shapely)
    elif isinstance(geometry, shapely.Geometry):
        yield geometry
    elif hasattr(geometry, "to_crs") and hasattr(geometry, "geometry"):  # geopandas
        if geometry.crs is not None and not geometry.crs.equals(_DEGREES):
            geometry = geometry.to_crs(_DEGREES)
        yield from geometry.geometry
    elif isinstance(geometry, Mapping):
        yield from _from_geojson(geometry, shapely)
    elif hasattr(geometry, "__geo_interface__"):
        yield from _from_geojson(geometry.__geo_interface__, shapely)
    elif isinstance(geometry, Iterable):
        for member in geometry:
            yield from _parts(member, shapely)
    else:
        raise InvalidInputError(f"geometry is of type {type(geometry).__name__}: {_FORMS}.")


def _from_text(text: str, shapely: Any) -> Iterable[Any]:
    if rendered_to_nothing(text):
        raise InvalidInputError(f"geometry is {text!r}: it looks like a template that rendered to nothing. {_FORMS}.")
    if text[0] in "{[":
        try:
            content = json.loads(text)
        except ValueError as error:
            raise InvalidInputError(f"geometry = {text[:60]!r} is not JSON: {error}.") from None
        yield from _parts(content, shapely)
    elif _WKT.match(text):
        yield _parsed(shapely.from_wkt, re.sub(r"^SRID=4326;", "", text, flags=re.IGNORECASE), "WKT")
    else:
        yield from _from_file(text, shapely)


def _from_geojson(content: Mapping[str, Any], shapely: Any) -> Iterable[Any]:
    kind = content.get("type")
    if kind == "FeatureCollection":
        for feature in content.get("features") or ():
            yield from _from_geojson(feature, shapely)
    elif kind == "Feature":
        if content.get("geometry") is not None:
            yield from _from_geojson(content["geometry"], shapely)
    elif kind == "GeometryCollection":
        for member in content.get("geometries") or ():
            yield from _from_geojson(member, shapely)
    elif kind is None:
        raise InvalidInputError(f"geometry has no 'type', so it is not GeoJSON: {_FORMS}.")
    else:
        yield _parsed(shapely.from_geojson, json.dumps(content), "GeoJSON")


def _parsed(parse: Any, value: Any, form: str) -> Any:
    try:
        return parse(value)
    except Exception as error:
        raise InvalidInputError(f"geometry = {quoted(value, 60)} is not {form}: {error}.") from None


def _from_file(path: str, shapely: Any) -> Iterable[Any]:
    try:
        read = _read_parquet if path.lower().partition("?")[0].endswith(_PARQUET) else _read_vector_file
        wkb, crs = read(path)
    except ConfigurationError:
        raise
    except Exception as error:
        raise InvalidInputError(f"geometry = {path[:200]!r} cannot be read as a vector file: {error}.") from None
    parts = shapely.from_wkb(wkb)
    if crs is not None:
        pyproj = import_geo("pyproj")
        source = pyproj.CRS.from_user_input(crs)
        if not source.equals(pyproj.CRS(_DEGREES), ignore_axis_order=True) and source.to_authority() != (
            "OGC",
            "CRS84",
        ):
            convert = pyproj.Transformer.from_crs(source, _DEGREES, always_xy=True).transform
            parts = shapely.transform(parts, convert, interleaved=False)
    yield from parts


def _read_vector_file(path: str) -> tuple[Any, Any]:
    metadata, _, geometry, _ = import_geo("pyogrio").raw.read(path, columns=[])
    return geometry, metadata["crs"]


def _read_parquet(path: str) -> tuple[Any, Any]:
    """GeoParquet: WKB in its primary column, its reference system in the metadata (none there means degrees)."""
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
    return file.read(columns=[name])[name].to_numpy(), column.get("crs", _DEGREES)


def _checked(part: Any, shapely: Any) -> Any:
    """A valid part whose coordinates are degrees."""
    coordinates = shapely.get_coordinates(part)
    x, y = abs(coordinates[:, 0]).max(initial=0), abs(coordinates[:, 1]).max(initial=0)
    if not (math.isfinite(x) and math.isfinite(y)):
        raise InvalidInputError("geometry holds NaN or an infinite coordinate: give finite degrees.")
    if x > 540 or y > 90:
        raise InvalidInputError(
            f"geometry reaches to ({x:g}, {y:g}), which are no degrees: longitudes go first and end at ±180 (±540 where it "
            "crosses the antimeridian), latitudes end at ±90. Reproject it to EPSG:4326, or give a GeoDataFrame with a crs."
        )
    points, path = shapely.get_coordinates(_paths(part, shapely), return_index=True)
    steps = abs(points[1:, 0] - points[:-1, 0])[path[1:] == path[:-1]]
    if 180 < steps.max(initial=0) < 360:
        warn(
            f"geometry has an edge of {steps.max():g}° of longitude, and is taken at its word. If it is to cross the "
            "antimeridian, give longitudes beyond 180, or cut it there"
        )
    if not shapely.is_valid(part):
        warn(f"geometry was not valid and has been repaired: {shapely.is_valid_reason(part)}")
        part = shapely.make_valid(part)
    return part


def _paths(part: Any, shapely: Any) -> Any:
    """The lines and rings of a geometry."""
    pieces = shapely.get_parts(flat(part, shapely))
    kinds = shapely.get_dimensions(pieces)
    return [*pieces[kinds == 1], *shapely.get_rings(pieces[kinds == 2])]


def flat(whole: Any, shapely: Any) -> Any:
    """One collection of single points, lines and polygons."""
    parts = [whole]
    while any(part.geom_type.startswith(("Multi", "GeometryCollection")) for part in parts):
        parts = list(shapely.get_parts(parts))
    return shapely.geometrycollections([part for part in parts if not part.is_empty])


def _within_the_map(whole: Any, shapely: Any) -> Any:
    """Areas beyond ±180°, brought back to the other side. Lines and points may stay there: longitudes go round."""
    west, _, east, _ = whole.bounds if not whole.is_empty else (0, 0, 0, 0)
    if west >= -180 and east <= 180:
        return whole
    pieces = []
    for part in whole.geoms:
        west, _, east, _ = part.bounds
        if part.geom_type != "Polygon" or (west >= -180 and east <= 180):
            pieces.append(part)
            continue
        for turn in range(math.floor((west + 180) / 360), math.ceil((east + 180) / 360)):
            inside = flat(shapely.intersection(shift(part, -360 * turn), shapely.box(-180, -90, 180, 90)), shapely)
            # Where it only touches the antimeridian, that is a line.
            pieces.extend(piece for piece in inside.geoms if piece.geom_type == "Polygon")
    return shapely.geometrycollections(pieces)


def shift(geometry: Any, degrees: float) -> Any:
    """A shapely geometry, moved eastward."""

    def move(points: Any) -> Any:
        points[:, 0] += degrees
        return points

    return import_geo("shapely").transform(geometry, move) if degrees else geometry


def import_geo(name: str, distribution: str | None = None) -> Any:
    """A module of the extra ``geo``.

    Raises:
        ConfigurationError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigurationError(
            f"A geometry needs {distribution or name}, which is not installed: pip install 'fused-cache-ops[geo]'"
        ) from None
