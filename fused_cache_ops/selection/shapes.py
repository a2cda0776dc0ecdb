"""What reading and reprojecting geometries share: taking them apart, and moving areas onto the map."""

from __future__ import annotations

import math
import operator
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from fused_cache_ops.errors import ConfigurationError, InvalidInputError
from fused_cache_ops.wording import extra_needed, quoted_address, warn, without_credentials

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
        raise ConfigurationError(extra_needed(distribution or name, extra)) from None


def file_system(address: str, extra: str = "geo") -> tuple[Any, str]:
    """The file system that fsspec finds for a path or URL, and the path in it.

    What it remembers of earlier listings is dropped, because a load may have written since. It is shared by all of a process.

    Raises:
        ConfigurationError: fsspec, or what it needs for this kind of URL, is not installed.
        InvalidInputError: the URL's scheme is unknown.
    """
    try:
        system, path = import_geo("fsspec", extra=extra).core.url_to_fs(address)
    except ImportError as error:  # s3fs, gcsfs and the like
        raise ConfigurationError(f"{quoted_address(address)} cannot be opened: {error}.") from None
    except ValueError as error:  # an unknown scheme, or an address that is not one
        raise InvalidInputError(f"{quoted_address(address)} cannot be opened: {without_credentials(error, address)}.") from None
    system.invalidate_cache()
    return system, path


MOST_BYTES = 2**30
"""Of foreign input that is read whole: a pipe, or a text file."""


@contextmanager
def spooled(path: str, what: str) -> Iterator[str]:
    """The path of a temporary copy of a pipe, such as ``/dev/stdin``, which can be read only once and not from its middle.

    Raises:
        InvalidInputError: it is empty, or larger than `MOST_BYTES`.
    """
    with tempfile.NamedTemporaryFile() as copy, Path(path).open("rb", buffering=0) as pipe:
        while piece := pipe.read(1 << 17):
            copy.write(piece)
            if copy.tell() > MOST_BYTES:
                raise InvalidInputError(f"{what} is a pipe with more than {MOST_BYTES >> 20:,} MiB: save it as a file.")
        copy.flush()
        if not copy.tell():
            raise InvalidInputError(f"{what} is a pipe with nothing in it: did what writes to it fail, or was it read before?")
        yield copy.name


def is_pipe(path: str) -> bool:
    """Whether a path names a pipe: ``/dev/stdin``, a process substitution, a named pipe."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def layers_of(path: str) -> list[str]:
    """The names of the layers in a vector file that have geometries."""
    return [str(name) for name, kind in import_geo("pyogrio").list_layers(path) if kind is not None]


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


class Areas(NamedTuple):
    """Valid polygons within ±180°, as their edges. They may overlap.

    Attributes:
        points: longitudes and latitudes, one row each.
        start: the number of the point at which each edge begins.
        stop: that of the point at which it ends.
        shape: the number of the polygon that it belongs to, ascending from 0.
        polygons: returns the shapely polygons that have some numbers.
    """

    points: Any
    start: Any
    stop: Any
    shape: Any
    polygons: Callable[[Any], Any]


class Portion(NamedTuple):
    """Shapes to be covered, in degrees.

    Attributes:
        places: points, and the middles of shapes that lie in one tile: longitudes and latitudes, one row each.
        lines: shapely lines, as an array. Like points, they may lie beyond ±180°, because covering them wraps around.
        areas: polygons.
    """

    places: Any
    lines: Any
    areas: Areas

    @property
    def is_empty(self) -> bool:
        return not (len(self.places) or len(self.lines) or len(self.areas.shape))


def edges_of(polygons: Any) -> Areas:
    """An array of shapely polygons as their edges."""
    shapely = import_geo("shapely")
    rings, shape = shapely.get_rings(polygons, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    start = (ring[1:] == ring[:-1]).nonzero()[0]
    return Areas(points, start, start + 1, shape[ring[start]], partial(operator.getitem, polygons))


def portion_of(shapes: Any, *places: Any) -> Portion:
    """Valid shapely geometries and places as a portion. Areas beyond ±180° are moved to the other side."""
    import numpy as np

    shapely = import_geo("shapely")
    parts = single_parts(shapes)
    dimensions = shapely.get_dimensions(parts)
    points = shapely.get_coordinates(parts[dimensions == 0])
    polygons = within_the_map(parts[dimensions == 2])
    return Portion(np.concatenate([points, *places]), parts[dimensions == 1], edges_of(polygons))


def single_parts(shapes: Any) -> Any:
    """The single points, lines and polygons in a geometry or an array of geometries, as an array without empty ones."""
    import numpy as np

    shapely = import_geo("shapely")
    parts = np.atleast_1d(np.asarray(shapes, dtype=object))
    while (shapely.get_type_id(parts) >= _COLLECTIONS).any():
        parts = shapely.get_parts(parts)
    return parts[~shapely.is_empty(parts)]


def shift(geometry: Any, degrees: float) -> Any:
    """A shapely geometry, shifted eastward."""

    def move(points: Any) -> Any:
        points[:, 0] += degrees
        return points

    return import_geo("shapely").transform(geometry, move) if degrees else geometry


def within_the_map(polygons: Any) -> Any:
    """An array of polygons in which those beyond ±180° are moved to the other side."""
    import numpy as np

    shapely = import_geo("shapely")
    west, _, east, _ = shapely.bounds(polygons).T
    beyond = (west < -180) | (east > 180)
    if not beyond.any():
        return polygons
    pieces = []
    for part in polygons[beyond]:
        west, _, east, _ = part.bounds
        for turn in range(math.floor((west + 180) / 360), math.ceil((east + 180) / 360)):
            # If it only touches the antimeridian, the intersection is a line.
            pieces.extend(areas(shapely.intersection(shift(part, -360 * turn), shapely.box(-180, -90, 180, 90))))
    return np.concatenate([polygons[~beyond], np.array(pieces, dtype=object)])


def areas(whole: Any) -> list[Any]:
    """The polygons of a geometry, without the lines and points that cutting or repairing it may produce."""
    return [part for part in single_parts(whole) if part.geom_type == "Polygon"]
