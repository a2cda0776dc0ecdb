"""What differs between two states of a raster, and where a raster has valid pixels. Needs the extra ``raster``."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from fused_cache_ops.changes.states import look_for_one_state, look_for_shared_files
from fused_cache_ops.changes.windows import MARGIN, MOST_MARGIN, Window, cells, check_number, covers, merged, scaled, table_of
from fused_cache_ops.errors import InvalidInputError, UnavailableError
from fused_cache_ops.selection.rasters import Grid, grid_of, is_dataset, is_warped, opened, reading, valid_windows
from fused_cache_ops.selection.shapes import import_geo
from fused_cache_ops.tiles.tile import is_boolean
from fused_cache_ops.wording import quoted, quoted_address, rendered_to_nothing, warn

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 256  # the least height of a unit that is compared at once
_UNIT = 1 << 22  # pixels of a unit that is read at once
_LOSSLESS = ("", "NONE", "LZW", "DEFLATE", "ADOBE_DEFLATE", "ZSTD", "PACKBITS", "LZMA")
"""Compressions that need nothing outside of the block. Two blocks of the same bytes have the same pixels."""


def changed_raster(
    before: Any,
    after: Any,
    *,
    bands: int | Sequence[int] | None = None,
    tolerance: float = 0.0,
    margin: float = MARGIN,
    when_grid_differs: Literal["fail", "everything"] = "fail",
) -> pa.Table:
    """The blocks in which two states of a raster differ, as rectangles.

    Where both are local GeoTIFFs that are stored alike, blocks of the same bytes are not decoded. NaN equals NaN, -0.0 equals
    0.0, and so do values that mean "no data". If the georeferencing is the same, but scales, offsets, units, names of bands,
    colors or the value of "no data" differ, or overviews are there in one of them only, everything has changed. Overviews are
    compared too, because low zooms are drawn from them. The memory grows with the size of a block, not with that of the raster.

    Args:
        before: the earlier state: a path or URL that GDAL reads, or a dataset of rasterio, which is opened anew.
        after: the later state, likewise.
        bands: the bands to compare, counted from 1. Default: all.
        tolerance: the largest difference of two values that does not count.
        margin: how far beyond the changed pixels a tile changes, in pixels of a tile of 256 pixels, at each zoom. Resampling
            and overviews need it: 9 cover those of the COG driver, which are cubic. Where the raster's pixels are larger than
            the tile's, up to 3 of these. 0: none.
        when_grid_differs: what to do if the size, the georeferencing, the number or the types of bands differ: ``"fail"``, or
            ``"everything"`` for the outlines of both.

    Returns:
        A table with one column, to be passed as ``geometry``. It has no rows if nothing changed.

    Raises:
        InvalidInputError: a raster cannot be read, has no georeferencing, or has another grid than the other one.
        UnavailableError: a store does not answer, or a file was written while it was compared.
        ConfigurationError: the extra ``raster`` is not installed.

    Warns:
        UserWarning: pixels changed where the first overview did not: low zooms may go on showing the old ones. Or both are the
            same file, or made from the same one.
    """
    for name, given in (("before", before), ("after", after)):
        _check_given(name, given)
    look_for_one_state(before, after)
    if not isinstance(when_grid_differs, str) or when_grid_differs not in ("fail", "everything"):
        raise InvalidInputError(f"when_grid_differs = {quoted(when_grid_differs)} must be 'fail' or 'everything'.")
    check_number("tolerance", tolerance)
    check_number("margin", margin, MOST_MARGIN)
    with opened(before, "before") as old, opened(after, "after") as new:
        look_for_shared_files(old, new)
        written = _written(old, new)
        grid, other = grid_of(old, "before"), grid_of(new, "after")
        if why := _different_grids(old, new, grid, other):
            if when_grid_differs == "fail":
                raise InvalidInputError(
                    f"before and after differ in {why}, so their pixels cannot be compared: pass "
                    "when_grid_differs='everything' to take both as changed."
                )
            return table_of([(grid, [(0, 0, grid.width, grid.height)]), (other, [(0, 0, other.width, other.height)])], margin)
        chosen = _bands(bands, old.count)
        everything = [(0, 0, grid.width, grid.height)]
        if _says_other(old, new):
            return table_of([(grid, everything)], margin)
        windows = merged(block for block, _ in _differing(_Pair(old, new), chosen, tolerance))
        factors = old.overviews(1)
        # An overview that is a file of its own is named as the raster.
        has_one_file = all(len(each.files) == 1 for each in (old, new))
        of_levels: list[Window] = []
        is_stale = False
        for level in range(len(factors)):
            with opened(before, "before", overview_level=level) as low, opened(after, "after", overview_level=level) as later:
                scale = grid.width / low.width, grid.height / low.height
                found = list(_differing(_Pair(low, later), chosen, tolerance, by_bytes=has_one_file, precisely=True))
            if level == 0:
                is_stale = not covers([scaled(block, scale, grid.size) for block, _ in found], windows)
            of_levels += [scaled(each, scale, grid.size) for each in merged(cell for _, inner in found for cell in inner)]
        if _written(old, new) != written:
            raise UnavailableError(
                "before or after was written while they were compared: compare them again, once the load has ended."
            )
    if is_stale:
        warn(
            f"Pixels of {quoted_address(str(getattr(after, 'name', after)))} changed where its overviews did not: low zooms "
            "may go on showing the old ones. Build the overviews anew"
        )
    return table_of([(grid, windows + of_levels)], margin)


def raster_footprint(raster: Any, *, valid_data: bool = False) -> pa.Table:
    """The outline of a raster, or of the blocks in which it has valid pixels.

    Args:
        raster: a path or URL that GDAL reads, or a dataset of rasterio.
        valid_data: whether to leave out blocks of which all pixels are masked. This reads the raster once.

    Returns:
        A table with one column, to be passed as ``geometry``.

    Raises:
        FusedCacheError: as for `changed_raster`.
    """
    if not is_boolean(valid_data):
        raise InvalidInputError(f"valid_data = {quoted(valid_data)} must be True or False.")
    if valid_data or not is_warped(raster):
        _check_given("raster", raster)
    with opened(raster, "raster") as dataset:
        grid = grid_of(dataset, "raster")
        windows = merged(valid_windows(dataset)) if valid_data else [(0, 0, grid.width, grid.height)]
    return table_of([(grid, windows)], 0)


class _Pair(NamedTuple):
    """Both states, at the full resolution or at that of an overview."""

    old: Any
    new: Any


def _check_given(name: str, given: Any) -> None:
    """Reject what is no raster, and a dataset that does not show what its file holds."""
    is_path = isinstance(given, (str, os.PathLike))
    if not is_path and not is_dataset(given):
        raise InvalidInputError(
            f"{name} is of type {type(given).__name__}: pass the path or URL of a raster, or a dataset of rasterio."
        )
    if is_path and rendered_to_nothing(os.fspath(given)):
        raise InvalidInputError(f"{name} is {quoted(os.fspath(given))}, which looks like a value that is missing.")
    if is_warped(given):
        raise InvalidInputError(
            f"{name} is a WarpedVRT, which has no file that can be opened anew, and may show old pixels: pass the raster that "
            "it is made from, or a file of the format VRT."
        )
    if not is_path and not given.closed and given.mode != "r":
        raise InvalidInputError(
            f"{name}, the raster {quoted_address(given.name)}, is open for writing, so that its file may lack what was "
            "written: close it first."
        )


def _written(*states: Any) -> list[tuple[int, ...]]:
    """What tells whether files of this machine were written."""
    files = [Path(name) for each in states for name in each.files]
    stats = [file.stat() for file in files if file.is_file()]
    return [(stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats]


def _different_grids(old: Any, new: Any, grid: Grid, other: Grid) -> str:
    """What keeps two rasters from being compared pixel by pixel. Empty: nothing."""
    pairs = {
        "size": ((old.width, old.height), (new.width, new.height)),
        "reference system": (old.crs, new.crs),
        "number of bands": (old.count, new.count),
        "types of bands": (old.dtypes, new.dtypes),
    }
    different = [name for name, (one, two) in pairs.items() if one != two]
    a, b, _, d, e, _ = tuple(grid.transform)[:6]
    nothing = max(abs(each) for each in (a, b, d, e)) * 1e-6
    if any(abs(one - two) > nothing for one, two in zip(grid.transform, other.transform)):
        different.append("georeferencing")
    return " and ".join(different)


def _says_other(old: Any, new: Any) -> bool:
    """Whether the same pixels mean something else."""

    def said(each: Any) -> tuple[Any, ...]:
        numbers = [None if value is None else repr(float(value)) for value in each.nodatavals]
        colors = [each.colormap(band) if each.colorinterp[band - 1].name == "palette" else None for band in each.indexes]
        overviews = [each.overviews(band) for band in each.indexes]
        numbers += [each.scales, each.offsets, each.units, each.descriptions]
        return numbers, colors, each.colorinterp, each.mask_flag_enums, overviews

    return said(old) != said(new)


def _bands(given: Any, count: int) -> list[int]:
    is_list = isinstance(given, Iterable) and not isinstance(given, (bytes, bytearray))
    bands = range(1, count + 1) if given is None else list(given) if is_list else [given]
    if not bands or not all(isinstance(each, Integral) and not is_boolean(each) and 1 <= int(each) <= count for each in bands):
        raise InvalidInputError(f"bands = {quoted(given)} must be numbers from 1 to {count}.")
    return [int(band) for band in bands]


def _differing(
    pair: _Pair, bands: list[int], tolerance: float, *, by_bytes: bool = True, precisely: bool = False
) -> Iterator[tuple[Window, list[Window]]]:
    """The blocks in which both states differ, each with where in it: the block itself, or cells of a few pixels.

    Args:
        pair: both states.
        bands: the bands to compare.
        tolerance: the largest difference that does not count.
        by_bytes: whether the file that a dataset names holds its blocks, so that these can be compared as they are stored.
        precisely: whether to tell the cells. A block of an overview may be as large as the raster.
    """
    old, new = pair
    enums = import_geo("rasterio.enums", extra="raster")
    masks = [flags for band in bands if enums.MaskFlags.per_dataset in (flags := old.mask_flag_enums[band - 1])]
    alpha = [band for band, color in zip(old.indexes, old.colorinterp) if color is enums.ColorInterp.alpha]
    has_mask = any(enums.MaskFlags.alpha not in flags or not set(alpha) <= set(bands) for flags in masks)
    with ExitStack() as files:
        compare = _of_stored_bytes(pair, bands, files) if by_bytes and not has_mask else None
        for window, blocks in _units(old, new):
            if compare is not None and compare(blocks):
                continue
            different = _different_pixels(pair, bands, window, tolerance, has_mask, precisely)
            if different is not None:
                left, top, width, height = window.col_off, window.row_off, window.width, window.height
                block = (left, top, left + width, top + height)
                yield block, cells(different, block) if precisely else [block]


def _units(old: Any, new: Any) -> Iterator[tuple[Any, list[tuple[int, int]]]]:
    """Windows to compare at once, and the blocks of the first band in each: several, if blocks are small."""
    windows = import_geo("rasterio.windows", extra="raster")
    shapes = [dataset.block_shapes[0] for dataset in (old, new)]
    high, wide = (max(each) for each in zip(*shapes))
    high, wide = min(high, old.height), min(wide, old.width)
    is_striped = wide == old.width  # one line is a long rectangle
    together = max(1, min(-(-_ROWS // high), _UNIT // max(1, high * wide))) if is_striped else 1
    for top in range(0, old.height, high * together):
        for left in range(0, old.width, wide):
            height = min(high * together, old.height - top)
            window = windows.Window(left, top, min(wide, old.width - left), height)
            yield window, [(left // wide, (top + step) // high) for step in range(0, height, high)]


def _of_stored_bytes(pair: _Pair, bands: list[int], opened_files: ExitStack) -> Callable[[list[tuple[int, int]]], bool] | None:
    """What says whether blocks are stored in the same bytes. None: the two files are not stored alike, so that this would not
    mean anything."""
    old, new = pair
    if any(each.driver != "GTiff" or not Path(each.name).is_file() for each in (old, new)):
        return None

    def stored(each: Any) -> tuple[Any, ...]:
        tags = each.tags(ns="IMAGE_STRUCTURE")
        of_bands = [sorted(each.tags(band, ns="IMAGE_STRUCTURE").items()) for band in each.indexes]
        return each.block_shapes, sorted(tags.items()), of_bands, each.photometric, _head(each.name)

    structure = old.tags(ns="IMAGE_STRUCTURE")
    if stored(old) != stored(new) or structure.get("COMPRESSION", "") not in _LOSSLESS:
        return None
    separate = [1] if structure.get("INTERLEAVE") == "PIXEL" else bands
    files = [opened_files.enter_context(Path(each.name).open("rb")) for each in (old, new)]  # noqa: SIM115

    def bytes_of(number: int, band: int, column: int, row: int) -> object:
        dataset: Any = pair[number]
        place = [dataset.get_tag_item(f"BLOCK_{name}_{column}_{row}", "TIFF", bidx=band) for name in ("OFFSET", "SIZE")]
        if None in place:
            return None
        files[number].seek(int(place[0]))
        found = files[number].read(int(place[1]))
        return found if len(found) == int(place[1]) else object()  # of a file that breaks off, equal to nothing

    def is_same(blocks: list[tuple[int, int]]) -> bool:
        return all(
            bytes_of(0, band, column, row) == bytes_of(1, band, column, row) for band in separate for column, row in blocks
        )

    return is_same


def _head(path: str) -> bytes:
    """The order of a file's bytes, and its kind of TIFF."""
    with Path(path).open("rb") as file:
        return file.read(4)


def _of_both(pair: _Pair, read: str, *what: Any, **how: Any) -> list[Any]:
    """What is read of both states."""
    found = []
    for name, each in zip(("before", "after"), pair):
        with reading(each.name, name):
            found.append(getattr(each, read)(*what, **how))
    return found


def _different_pixels(pair: _Pair, bands: list[int], window: Any, tolerance: float, has_mask: bool, in_all_bands: bool) -> Any:
    """Which pixels of a window differ, in all bands or in the first one that does. None: no pixel differs."""
    import numpy as np

    found = None
    for band in bands:
        one, two = _of_both(pair, "read", band, window=window)
        if not np.array_equal(one.view(np.uint8), two.view(np.uint8)):
            same = (one == two) | ((one != one) & (two != two))
            if tolerance:
                near = _are_near(one, two, tolerance)
                if (nothing := pair.old.nodatavals[band - 1]) is not None:
                    near &= (one == nothing) == (two == nothing)  # otherwise it became valid, or "no data"
                same |= near
            if not same.all():
                found = ~same if found is None else found | ~same
                if not in_all_bands:
                    return found
    if has_mask:
        one, two = _of_both(pair, "read_masks", window=window)
        masked = (one != two).any(axis=0)
        if masked.any():
            found = masked if found is None else found | masked
    return found


def _are_near(one: Any, two: Any, tolerance: float) -> Any:
    """Where two arrays of a type differ by no more than a tolerance. Whole numbers are not rounded."""
    import numpy as np

    if one.dtype.kind in "iu":
        distance = np.where(one > two, one - two, two - one).view(f"u{one.dtype.itemsize}")  # right also beyond the type
        return distance <= min(math.floor(tolerance), np.iinfo(distance.dtype).max)
    with np.errstate(invalid="ignore", over="ignore"):
        wide = np.complex128 if one.dtype.kind == "c" else np.float64
        return np.abs(one.astype(wide) - two.astype(wide)) <= tolerance
