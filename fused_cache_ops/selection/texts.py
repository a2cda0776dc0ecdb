"""Geometries one by one, as databases and tools write them: each tells its form by how it begins. Needs the extra ``geo``.

Text is WKT, EWKT, GeoJSON, WKB or EWKB in hexadecimal, or PostGIS's ``BOX(…)``. Bytes are WKB or EWKB, or GeoPackage's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fused_cache_ops.selection.bounds import ENDS
from fused_cache_ops.selection.shapes import import_geo
from fused_cache_ops.wording import quoted

_CURVES = "CIRCULARSTRING|COMPOUNDCURVE|CURVEPOLYGON|(?:MULTI)?(?:CURVE|SURFACE)|TIN|TRIANGLE|POLYHEDRALSURFACE"
_WKT = re.compile(
    rf"(?:(?:MULTI)?(?:POINT|LINESTRING|POLYGON)|GEOMETRYCOLLECTION|LINEARRING|{_CURVES})\s*(?:ZM?|M)?\s*(?:\(|EMPTY\b)",
    re.IGNORECASE | re.ASCII,
)
_CURVE = re.compile(rf"\b(?:{_CURVES})\b", re.IGNORECASE | re.ASCII)
_SRID = re.compile(r"\s*SRID\s*=\s*(\d{1,9})\s*;\s*", re.IGNORECASE | re.ASCII)
_HEXADECIMAL = re.compile(r"\s*(?:\\x|0x)?(0[01](?:[0-9a-f]{2}){8,})\s*", re.IGNORECASE | re.ASCII)
_BOX = re.compile(r"\s*BOX(?:3D)?\s*\(([^,()]+),([^,()]+)\)\s*", re.IGNORECASE | re.ASCII)
_EPSG = re.compile(r"(?:EPSG:|urn:ogc:def:crs:EPSG:[\w.]*:)(\d{1,9})", re.IGNORECASE | re.ASCII)
_DEGREES = re.compile(r"(?:urn:ogc:def:crs:)?OGC:[\w.]*:?CRS84h?", re.IGNORECASE | re.ASCII)
_OTHERS = frozenset("{0\\bBsS \t\r\n")  # how text may begin that is not plain WKT

_GEOPACKAGE = b"GP"
_ENVELOPES = (0, 32, 48, 48, 64)  # bytes

PLACES = (("x", "y"), ("lon", "lat"), ("lng", "lat"), ("longitude", "latitude"))
"""The names of a point's two numbers."""


def is_geometry(text: str) -> bool:
    """Whether a text is a geometry, and not JSON or a path."""
    rest = text[match.end() :] if (match := _SRID.match(text)) else text
    return bool(_WKT.match(rest) or _BOX.fullmatch(text) or _HEXADECIMAL.fullmatch(text))


def from_texts(texts: Any) -> Any:
    """An array of texts as shapely geometries, with the SRIDs that they name.

    Raises:
        Exception: one of them is not a geometry. Parsers have no common class of errors.
    """
    import numpy as np

    shapely = import_geo("shapely")
    if not {text[:1] for text in texts} & _OTHERS:
        return _straight(shapely.from_wkt, texts)
    found = np.empty(len(texts), dtype=object)
    found[:] = [_from_text(text, shapely) for text in texts]
    return found


def _from_text(text: str, shapely: Any) -> Any:
    if text.lstrip()[:1] == "{":
        return from_geojson(json.loads(text))
    if match := _HEXADECIMAL.fullmatch(text):
        return _straight(shapely.from_wkb, match[1])
    if match := _BOX.fullmatch(text):
        (west, south, *_), (east, north, *_) = (map(float, corner.split()) for corner in match.groups())
        return shapely.box(west, south, east, north)
    if match := _SRID.match(text):
        return shapely.set_srid(_straight(shapely.from_wkt, text[match.end() :]), int(match[1]))
    return _straight(shapely.from_wkt, text)


def _straight(parse: Any, values: Any) -> Any:
    """What a parser reads. Neither shapely nor GEOS reads all curves."""
    try:
        return parse(values)
    except Exception as error:
        texts = [values] if isinstance(values, str) else values
        curves = any(isinstance(text, str) and _CURVE.search(text[:100_000]) for text in texts)
        if curves or isinstance(error, NotImplementedError):
            raise ValueError("it holds a curve or a surface: make it straight first, as by ST_CurveToLine") from None
        raise


def from_geojson(content: Mapping[str, Any]) -> Any:
    """A GeoJSON geometry or feature as a shapely geometry, with the SRID of its ``crs``. None if it is null.

    Raises:
        ValueError: it is not GeoJSON, or its ``crs`` names no EPSG code.
    """
    shapely = import_geo("shapely")
    if content.get("type") == "Feature" and content.get("geometry") is None:
        return box(bounds) if (bounds := content.get("bbox")) is not None else None
    shape = shapely.from_geojson(json.dumps(content))
    said = content.get("crs")
    if said is None:
        return shape
    name = said.get("properties", {}).get("name") if isinstance(said, Mapping) else None
    if isinstance(name, str) and _DEGREES.fullmatch(name):
        return shapely.set_srid(shape, 4326)
    if not isinstance(name, str) or (match := _EPSG.fullmatch(name)) is None:
        raise ValueError(f"its crs is {quoted(said)}, which names no EPSG code")
    return shapely.set_srid(shape, int(match[1]))


def box(bounds: Any) -> Any:
    """A ``bbox`` of GeoJSON or STAC as a polygon: four numbers, or six with heights. West > east crosses the antimeridian.

    Raises:
        ValueError: it is not a box.
    """
    shapely = import_geo("shapely")
    numbers = list(map(float, bounds)) if isinstance(bounds, Sequence) and not isinstance(bounds, str) else []
    if len(numbers) not in (4, 6):
        raise ValueError(f"bbox = {quoted(bounds)} is neither four numbers nor six")
    west, south, east, north = numbers if len(numbers) == 4 else (*numbers[:2], *numbers[3:5])
    return shapely.box(west, south, east + 360 if west > east else east, north)


def from_bytes(values: Any) -> Any:
    """An array of bytes as shapely geometries.

    Raises:
        Exception: one of them is not WKB.
    """
    shapely = import_geo("shapely")
    if any(value[:2] == _GEOPACKAGE for value in values):
        import numpy as np

        plain = np.empty(len(values), dtype=object)
        plain[:] = [_of_geopackage(value) if value[:2] == _GEOPACKAGE else value for value in values]
        values = plain
    return _straight(shapely.from_wkb, values)


def _of_geopackage(blob: bytes) -> bytes:
    """The WKB in a GeoPackage's blob: after a header of 8 bytes, and an envelope whose size the flags say."""
    envelope = (blob[3] >> 1) & 7
    if envelope >= len(_ENVELOPES):
        raise ValueError("it is not a GeoPackage's geometry")
    return blob[8 + _ENVELOPES[envelope] :]


def from_values(values: Sequence[Any]) -> Any:
    """Python objects as shapely geometries, an array of objects. What is null is None.

    Raises:
        Exception: one of them is not a geometry.
    """
    import numpy as np

    shapely = import_geo("shapely")
    found = np.empty(len(values), dtype=object)
    forms: dict[Any, list[int]] = {}
    for number, value in enumerate(values):
        if isinstance(value, str):
            forms.setdefault(from_texts, []).append(number)
        elif isinstance(value, (bytes, bytearray, memoryview)):
            forms.setdefault(from_bytes, []).append(number)
        elif not is_null(value):
            found[number] = _from_object(value, shapely)
    for read, numbers in forms.items():
        given = np.empty(len(numbers), dtype=object)
        given[:] = [values[number] if read is from_texts else bytes(values[number]) for number in numbers]
        found[numbers] = read(given)
    return found


def _from_object(value: Any, shapely: Any) -> Any:
    if isinstance(value, shapely.Geometry):
        return value
    if not isinstance(value, Mapping) and hasattr(value, "__geo_interface__"):
        value = value.__geo_interface__
    if isinstance(value, Mapping):
        by_name = {str(name).lower(): each for name, each in value.items()}
        for ends in ENDS:
            if set(ends) <= by_name.keys():
                return box([by_name[end] for end in ends])
        for x, y in PLACES:
            if {x, y} <= by_name.keys():
                return shapely.Point(float(by_name[x]), float(by_name[y]))
        return from_geojson(value)
    if hasattr(value, "desc") and hasattr(value, "srid"):  # GeoAlchemy's elements
        shape = from_texts([value.desc])[0]
        return shapely.set_srid(shape, value.srid) if value.srid > 0 else shape
    raise ValueError(f"a value of type {type(value).__name__} is not a geometry")


def is_null(value: object) -> bool:
    """Whether a value stands for a missing one, in Python, numpy or pandas."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
