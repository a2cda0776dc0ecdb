"""Where rasters are: the outline of a grid, in its own reference system. Needs the extra ``raster``."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from fused_cache_ops.errors import FusedCacheError, InvalidInputError, unreadable
from fused_cache_ops.selection.reprojection import DEGREES
from fused_cache_ops.selection.shapes import areas, import_geo, single_parts, within_the_map
from fused_cache_ops.wording import counted, quoted_address, shortened, without_any_credentials, without_credentials

_ENDINGS = (".tif", ".tiff", ".gtiff", ".cog", ".vrt")
_NO_RASTER = "not recognized as being in a supported file format"
_CACHE = 32  # MiB of blocks that GDAL keeps


class Grid(NamedTuple):
    """The grid of a raster.

    Attributes:
        transform: from columns and rows to coordinates.
        width: columns.
        height: rows.
        system: its reference system as WKT. None: it does not say it.
        is_geographic: whether its coordinates are degrees.
    """

    transform: Any
    width: int
    height: int
    system: str | None
    is_geographic: bool

    @property
    def size(self) -> tuple[int, int]:
        """How many columns and rows there are."""
        return self.width, self.height

    def outlines(self, windows: Any) -> Any:
        """The outlines of windows (left, top, right, bottom; columns and rows), as an array of polygons.

        Degrees beyond ±180, such as those of a grid from 0 to 360, are moved to the other side, and latitudes end at the
        poles.
        """
        import numpy as np

        left, top, right, bottom = np.asarray(windows, dtype=float).reshape(-1, 4).T
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        a, b, c, d, e, f = tuple(self.transform)[:6]
        rings = np.stack([np.stack((a * x + b * y + c, d * x + e * y + f), axis=-1) for x, y in corners], axis=1)
        return outlines_of(rings, self.is_geographic)


def outlines_of(rings: Any, is_geographic: bool) -> Any:
    """Polygons of rings of four corners, an array of numbers. Degrees are moved onto the map, see `Grid.outlines`."""
    import numpy as np

    shapely = import_geo("shapely")
    if not is_geographic:
        return shapely.polygons(rings)
    rings[..., 1] = rings[..., 1].clip(-90, 90)
    around = np.ptp(rings[..., 0], axis=1) >= 360  # all the way round, and more
    rings[around, :, 0] = [-180, 180, 180, -180]
    found = within_the_map(shapely.polygons(rings))
    wide = np.ptp(shapely.bounds(found)[:, [0, 2]], axis=1) > 180
    if wide.any():  # of which the edges alone do not tell what is inside, if its poles are not those of the earth
        quarters = shapely.box(np.arange(-180, 180, 90), -90, np.arange(-90, 270, 90), 90)
        parts = areas(shapely.intersection(found[wide][:, np.newaxis], quarters))
        found = np.concatenate([found[~wide], np.array(parts, dtype=object)])
    return single_parts(found)


def is_raster(path: str) -> bool:
    """Whether a path or URL ends like that of a raster."""
    return path.partition("?")[0].rstrip("/").lower().endswith(_ENDINGS)


def is_dataset(value: Any) -> bool:
    """Whether a value is a dataset of rasterio."""
    return type(value).__module__.startswith("rasterio.") and hasattr(value, "transform") and hasattr(value, "crs")


def is_warped(value: Any) -> bool:
    """Whether a value is a view of rasterio, which is warped as it is read."""
    return is_dataset(value) and type(value).__name__ == "WarpedVRT"


@contextmanager
def opened(raster: Any, what: str, **how: Any) -> Iterator[Any]:
    """A raster, opened anew: a handle that was opened before a load goes on showing the old pixels.

    Args:
        raster: a path, a URL, or a dataset of rasterio.
        what: how messages name it.
        how: how to open it.

    Raises:
        InvalidInputError: it cannot be read.
        UnavailableError: its store does not answer.
        ConfigurationError: the extra ``raster`` is not installed.
    """
    rasterio = import_geo("rasterio", extra="raster")
    if is_warped(raster):  # it has no name to be opened by
        if raster.closed:
            raise InvalidInputError(f"{what} is a WarpedVRT that is closed: pass it while it is open.")
        yield raster
        return
    address = raster.name if is_dataset(raster) else os.fspath(raster)
    # Files beside it, such as masks and overviews, are looked for by their names: listing a store's folder takes long.
    with rasterio.Env(GDAL_CACHEMAX=_CACHE, GDAL_DISABLE_READDIR_ON_OPEN="TRUE"), _quiet(rasterio):
        with reading(address, what), rasterio.open(address, **how) as dataset:
            yield dataset


@contextmanager
def reading(address: str, what: str) -> Iterator[None]:
    """Errors of rasterio as ours, see `opened`."""
    try:
        yield
    except FusedCacheError:
        raise
    except Exception as error:
        if not (isinstance(error, (OSError, UnicodeError)) or type(error).__module__.startswith("rasterio")):
            raise
        told = error.__cause__ if "See previous exception" in str(error) else None
        reason = shortened(without_credentials(told or error, address), 300).rstrip(".")
        said = f"{what} = {quoted_address(address)} cannot be read as a raster: {reason}."
        if _NO_RASTER in reason or isinstance(error, UnicodeError):
            raise InvalidInputError(said) from None
        raise unreadable(error, said) from None


def _mask(record: logging.LogRecord) -> bool:
    """GDAL's errors are logged by rasterio, with the whole address."""
    record.msg, record.args = without_any_credentials(record.getMessage()), ()
    return True


for _name in ("rasterio", "rasterio._env", "rasterio._err", "rasterio._base", "rasterio._io", "rasterio.env"):
    logging.getLogger(_name).addFilter(_mask)


@contextmanager
def _quiet(rasterio: Any) -> Iterator[None]:
    """Without the warning about a missing grid: it is an error of ours."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield


def grid_of(dataset: Any, what: str) -> Grid:
    """The grid of an open raster.

    Raises:
        InvalidInputError: it has none, one in grads, only ground control points, or coefficients of a sensor.
    """
    shown = f"{what}, the raster {quoted_address(dataset.name)},"
    if dataset.subdatasets:
        raise InvalidInputError(
            f"{shown} holds {counted(len(dataset.subdatasets), 'raster')}, of which only the first would be read: name each of "
            f"them, such as {quoted_address(dataset.subdatasets[0])}."
        )
    gcps, _ = dataset.gcps
    if dataset.crs is None or dataset.transform.is_identity:
        if gcps or dataset.rpcs:
            raise InvalidInputError(
                f"{shown} is placed by {'ground control points' if gcps else 'RPCs'} and has no grid: warp it first, as by "
                "gdalwarp."
            )
        if dataset.transform.is_identity:
            raise InvalidInputError(f"{shown} has no georeferencing: its coordinates would be pixels.")
    crs = dataset.crs
    system = None if crs is None else DEGREES if crs == "EPSG:4326" else crs.to_wkt()
    is_geographic = crs is not None and bool(crs.is_geographic)
    if is_geographic and not math.isclose(crs.units_factor[1], math.radians(1)):
        raise InvalidInputError(
            f"{shown} is in {crs.units_factor[0]}s and not in degrees: warp it to degrees first, as by gdalwarp."
        )
    return Grid(dataset.transform, dataset.width, dataset.height, system, is_geographic)


def whole(grid: Grid) -> Any:
    """The outline of a grid."""
    return grid.outlines([(0, 0, grid.width, grid.height)])


def grid_outline(raster: Any, what: str) -> tuple[Any, str | None]:
    """The outline of a raster's grid as polygons, and its reference system.

    Raises:
        FusedCacheError: as for `opened` and `grid_of`.
    """
    with opened(raster, what) as dataset:
        grid = grid_of(dataset, what)
    return whole(grid), grid.system


def valid_windows(dataset: Any) -> Iterator[tuple[int, int, int, int]]:
    """The blocks of an open raster that hold valid pixels, as windows."""
    for _, window in dataset.block_windows(1):
        if dataset.read_masks(window=window).any():
            left, top = window.col_off, window.row_off
            yield left, top, left + window.width, top + window.height
