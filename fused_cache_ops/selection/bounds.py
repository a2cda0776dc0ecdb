"""Reading and validation of bounding boxes in degrees."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.wording import counted, quoted, warn

ENDS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("minx", "miny", "maxx", "maxy"),
    ("min_x", "min_y", "max_x", "max_y"),
    ("west", "south", "east", "north"),
)
"""The names of a box's ends: Overture's and GeoParquet's, GeoPandas', DuckDB's, and plain ones."""


def read_bounds(bounds: Any) -> list[tuple[float, float, float, float]]:
    """Validated boxes ``(west, south, east, north)``. ``east`` exceeds 180 where a box crosses the antimeridian.

    Args:
        bounds: four numbers, six with heights (as in STAC and GeoJSON), a mapping with the names of the ends, several of these,
            or a pandas frame of boxes, such as the ``bounds`` of a GeoDataFrame.

    Raises:
        InvalidInputError: ``bounds`` is none of these, or not in degrees.

    Warns:
        UserWarning: rows of a frame have no box, and were skipped.
    """
    if bounds is None:
        raise InvalidInputError("bounds is None: did a load step return nothing? Pass [] to invalidate nothing.")
    if hasattr(bounds, "columns") and hasattr(bounds, "to_numpy"):
        return [_checked_box(box) for box in _rows(bounds)]
    if isinstance(bounds, Mapping):
        return [_checked_box(bounds)]
    try:
        given = list(bounds) if not isinstance(bounds, (str, bytes)) else None
    except TypeError:
        given = None
    if given is None:
        raise InvalidInputError(
            f"bounds = {quoted(bounds)}: pass (west, south, east, north) in degrees, or a list of such boxes."
        )
    if len(given) in (4, 6) and all(_is_number(value) for value in given):
        given = [given]
    return [_checked_box(box) for box in given]


def _rows(frame: Any) -> list[Any]:
    """The boxes in a frame with a column for each end. A row without a geometry has none."""
    names = _named(frame.columns)
    if names is None:
        raise InvalidInputError(
            f"bounds is a {type(frame).__name__} with the columns {quoted(list(frame.columns), 300)}: it needs minx, miny, "
            "maxx and maxy."
        )
    rows = [[frame[name].iloc[number] for name in names] for number in range(len(frame))]
    present = [row for row in rows if not all(value != value for value in row)]
    if rows and not present:
        raise InvalidInputError(
            f"bounds has {counted(len(rows), 'row')}, and nothing but nulls. Did a join lose them? Pass [] to invalidate "
            "nothing."
        )
    if len(present) < len(rows):
        warn(f"bounds has {counted(len(rows) - len(present), 'row')} without a box: skipped")
    return present


def _named(names: Any) -> list[Any] | None:
    """The names of a box's four ends as they are written, in any case."""
    written = {str(name).lower(): name for name in names}
    found: Sequence[str] | None = next((ends for ends in ENDS if set(ends) <= written.keys()), None)
    return None if found is None else [written[end] for end in found]


def _checked_box(box: Any) -> tuple[float, float, float, float]:
    try:
        given = box
        if isinstance(box, Mapping):
            given = [box[name] for name in _named(box) or ()]
        values = [float(value) if _is_number(value) else math.nan for value in given]
    except (TypeError, ValueError, OverflowError):
        values = []
    if len(values) == 6 and all(math.isfinite(value) for value in values):
        values = [*values[:2], *values[3:5]]  # with heights, as in STAC and GeoJSON
    if len(values) != 4 or not all(math.isfinite(value) for value in values):
        raise InvalidInputError(f"bounds {quoted(box)} must be four finite numbers: (west, south, east, north) in degrees.")
    west, south, east, north = values
    if max(abs(west), abs(east)) > 540 or max(abs(south), abs(north)) > 90:
        raise InvalidInputError(
            f"bounds {tuple(values)} are not in degrees: the order is (west, south, east, north), longitudes are within ±180 "
            "(±540 across the antimeridian) and latitudes within ±90."
        )
    if south > north:
        raise InvalidInputError(f"bounds {tuple(values)}: south is above north. The order is (west, south, east, north).")
    # As often round the globe as it takes to lie east of the west.
    return west, south, east + 360 * math.ceil((west - east) / 360) if west > east else east, north


def _is_number(value: object) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, (bool, str, bytes))
