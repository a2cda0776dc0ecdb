"""What reading and reprojecting geometries share: taking them apart, and moving areas onto the map."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fused_cache_ops.errors import ConfigurationError
from fused_cache_ops.wording import quoted_address, warn, without_credentials

_COLLECTIONS = 4
"""From this number of shapely's types on, a geometry consists of others."""


def import_geo(name: str, distribution: str | None = None, extra: str = "geo") -> Any:
    """A module of an extra.

    Raises:
        ConfigurationError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigurationError(
            f"This needs {distribution or name}, which is not installed: pip install 'fused-cache-ops[{extra}]'"
        ) from None


def file_system(address: str, extra: str = "geo") -> tuple[Any, str]:
    """The file system that fsspec finds for a path or URL, and the path in it.

    What it remembers of earlier listings is dropped, because a load may have written since. It is shared by all of a process.

    Raises:
        ConfigurationError: fsspec, or what it needs for this kind of URL, is not installed.
    """
    try:
        system, path = import_geo("fsspec", extra=extra).core.url_to_fs(address)
    except ImportError as error:  # s3fs, gcsfs and the like
        raise ConfigurationError(f"{quoted_address(address)} cannot be opened: {error}.") from None
    system.invalidate_cache()
    return system, path


_READ_ANEW = {
    "CPL_VSIL_CURL_NON_CACHED": ":".join(f"/vsi{store}/" for store in ("curl", "s3", "gs", "az", "adls", "oss", "swift")),
    "CPL_VSIL_CURL_USE_HEAD": "NO",  # which signed addresses do not allow
}


@contextmanager
def reading(address: str) -> Iterator[None]:
    """Read an address with GDAL as it is now. Otherwise, GDAL remembers what it read of it, and that it could not be read.

    Warnings are those of GDAL, but without what grants access to the address.
    """
    pyogrio = import_geo("pyogrio")
    before = {name: pyogrio.get_gdal_config_option(name) for name in _READ_ANEW}
    pyogrio.set_gdal_config_options({name: value for name, value in _READ_ANEW.items() if before[name] is None})
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        pyogrio.set_gdal_config_options(before)
    for each in caught:
        warn(without_credentials(each.message, address))


def flat(shapes: Any) -> Any:
    """One collection of the single points, lines and polygons in a geometry or an array of geometries, without empty ones."""
    import numpy as np

    shapely = import_geo("shapely")
    parts = shapely.get_parts(np.atleast_1d(np.asarray(shapes, dtype=object)))
    while len(parts) and (shapely.get_type_id(parts) >= _COLLECTIONS).any():
        parts = shapely.get_parts(parts)
    return shapely.geometrycollections(parts[~shapely.is_empty(parts)])


def shift(geometry: Any, degrees: float) -> Any:
    """A shapely geometry, shifted eastward."""

    def move(points: Any) -> Any:
        points[:, 0] += degrees
        return points

    return import_geo("shapely").transform(geometry, move) if degrees else geometry


def within_the_map(whole: Any) -> Any:
    """A flat collection whose areas beyond ±180° are moved to the other side.

    Lines and points may stay beyond, because covering them wraps around.
    """
    shapely = import_geo("shapely")
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
            # If it only touches the antimeridian, the intersection is a line.
            pieces.extend(areas(shapely.intersection(shift(part, -360 * turn), shapely.box(-180, -90, 180, 90))))
    return shapely.geometrycollections(pieces)


def areas(whole: Any) -> list[Any]:
    """The polygons of a geometry, without the lines and points that cutting or repairing it may produce."""
    return [part for part in flat(whole).geoms if part.geom_type == "Polygon"]
