"""Rectangles of pixels: how they become fewer, and what ``geometry`` takes."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from numbers import Real
from typing import Any, Protocol

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.selection.arrow import Unknown, marked, wkb_of
from fused_cache_ops.selection.reprojection import DEGREES, reference_system, to_degrees
from fused_cache_ops.selection.shapes import import_geo
from fused_cache_ops.tiles.tile import HIGHEST_ZOOM, is_boolean
from fused_cache_ops.wording import quoted

MARGIN = 9
"""Pixels of a tile of 256 pixels, by which a change reaches beyond the pixels that changed: overviews and resampling."""
MOST_MARGIN = 64
_CELL = 4  # pixels of an overview, on a side
_MOST_CELLS = 256  # in a block of an overview
_KERNEL = 3
"""Pixels of the raster, by which a pixel reaches beyond itself where a tile is finer than the raster: those of Lanczos."""

Window = tuple[int, int, int, int]
"""Left, top, right and bottom: columns and rows."""


class Placed(Protocol):
    """A grid whose place is known. Its system is in a form that pyproj reads, and None if it does not say it. Its size is how
    many columns and rows it has."""

    @property
    def system(self) -> Any: ...

    @property
    def size(self) -> tuple[int, int]: ...

    def outlines(self, windows: Any) -> Any:
        """The outlines of windows, as an array of polygons in the grid's system."""


def check_number(name: str, given: Any, most: float = sys.float_info.max) -> None:
    """Reject what is no number from 0 up.

    Raises:
        InvalidInputError: as said.
    """
    is_number = isinstance(given, Real) and not is_boolean(given)
    if not is_number or not 0 <= given <= most:
        limits = "of 0 or more" if most == sys.float_info.max else f"from 0 to {most:g}"
        raise InvalidInputError(f"{name} = {quoted(given)} must be a number {limits}.")


def table_of(found: Sequence[tuple[Placed, list[Window]]], margin: float) -> Any:
    """Windows of grids as what ``geometry`` takes.

    Args:
        found: the windows of each grid.
        margin: how far beyond them a tile changes, in pixels of a tile of 256 pixels. Where the grid's are larger, it is in
            these, up to `_KERNEL`.
    """
    import numpy as np

    reach = math.ceil(min(margin, _KERNEL))
    pieces = [(grid, grid.outlines(_widened(windows, reach, grid.size))) for grid, windows in found if windows]
    if len({grid.system for grid, _ in pieces}) > 1:
        return _in_degrees(pieces, margin)
    system = found[0][0].system
    shapes: Any = np.concatenate([each for _, each in pieces]) if pieces else []
    return marked([wkb_of(shapes)] if pieces else [], Unknown if system is None else system, margin=margin)


def _widened(windows: list[Window], reach: int, size: tuple[int, int]) -> Any:
    """Windows that reach further to all sides, within a grid."""
    import numpy as np

    wider = np.asarray(windows) + np.array([-reach, -reach, reach, reach])
    return wider.clip(0, [*size, *size])


def _in_degrees(pieces: list[tuple[Placed, Any]], margin: float) -> Any:
    shapes: list[Any] = []
    for grid, outlines in pieces:
        system = None if grid.system is None else reference_system(grid.system)
        shapes += list(outlines) if system is None else to_degrees(outlines, system, HIGHEST_ZOOM)
    return marked([wkb_of(shapes)], DEGREES, margin=margin)


def merged(windows: Iterable[Window]) -> list[Window]:
    """The same windows in fewer rectangles: neighbors of the same height are joined, then rows of the same columns.

    Args:
        windows: from top to bottom, and from left to right. They are merged as they come, because there may be millions.
    """
    done: list[Window] = []
    last: dict[tuple[int, int], tuple[int, int]] = {}  # the top and bottom of what may go on below, by its left and right
    for top, row in itertools.groupby(windows, key=lambda window: window[1]):
        current: dict[tuple[int, int], tuple[int, int]] = {}
        for left, right, bottom in _joined(row):
            above = last.get((left, right))
            goes_on = above is not None and above[1] == top
            current[left, right] = (last.pop((left, right))[0] if goes_on else top, bottom)
        done += [(left, above, right, below) for (left, right), (above, below) in last.items()]
        last = current
    return done + [(left, above, right, below) for (left, right), (above, below) in last.items()]


def _joined(row: Iterable[Window]) -> Iterator[tuple[int, int, int]]:
    """The left, right and bottom of the runs in windows of the same top: neighbors of the same height."""
    run: tuple[int, int, int] | None = None
    for left, _, right, bottom in row:
        if run is not None and run[1:] == (left, bottom):
            run = (run[0], right, bottom)
            continue
        if run is not None:
            yield run
        run = (left, right, bottom)
    if run is not None:
        yield run


def cells(different: Any, block: Window) -> list[Window]:
    """Rectangles that hold all pixels which differ in a block: small ones, or one if these would be many."""
    import numpy as np

    left, top, right, bottom = block
    rows, columns = (-(-size // _CELL) for size in different.shape)
    padded = np.zeros((rows * _CELL, columns * _CELL), dtype=bool)
    padded[: different.shape[0], : different.shape[1]] = different
    cells = np.argwhere(padded.reshape(rows, _CELL, columns, _CELL).any(axis=(1, 3))) * _CELL
    (north, west), (south, east) = cells.min(axis=0).tolist(), (cells.max(axis=0) + _CELL).tolist()
    whole = [(west, north, east, south)]
    few = len(cells) <= _MOST_CELLS and merged((x, y, x + _CELL, y + _CELL) for y, x in cells.tolist())
    return [
        (left + west, top + north, min(left + east, right), min(top + south, bottom))
        for west, north, east, south in few or whole
    ]


def scaled(window: Window, scale: tuple[float, float], size: tuple[int, int]) -> Window:
    """A window of an overview as one of the raster, of which the size is given in columns and rows."""
    left, top, right, bottom = window
    return (
        math.floor(left * scale[0]),
        math.floor(top * scale[1]),
        min(size[0], math.ceil(right * scale[0])),
        min(size[1], math.ceil(bottom * scale[1])),
    )


def covers(windows: list[Window], others: list[Window]) -> bool:
    """Whether windows cover all others."""
    import numpy as np

    shapely = import_geo("shapely")
    one, two = (shapely.union_all(shapely.box(*np.reshape(each, (-1, 4)).T)) for each in (windows, others))
    return bool(shapely.covers(one, two)) or not others
