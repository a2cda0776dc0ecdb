"""Reading and validation of bounding boxes in degrees."""

from __future__ import annotations

import math
from typing import Any

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.wording import quoted


def read_bounds(bounds: Any) -> list[tuple[float, float, float, float]]:
    """Validated boxes ``(west, south, east, north)``. ``east`` exceeds 180 where a box crosses the antimeridian.

    Raises:
        InvalidInputError: ``bounds`` is neither four numbers in degrees nor a list of such boxes.
    """
    if bounds is None:
        raise InvalidInputError("bounds is None: did a load step return nothing? Pass [] to invalidate nothing.")
    try:
        given = list(bounds) if not isinstance(bounds, (str, bytes)) else None
    except TypeError:
        given = None
    if given is None:
        raise InvalidInputError(
            f"bounds = {quoted(bounds)}: pass (west, south, east, north) in degrees, or a list of such boxes."
        )
    if len(given) == 4 and all(_is_number(value) for value in given):
        given = [given]
    return [_checked_box(box) for box in given]


def _checked_box(box: Any) -> tuple[float, float, float, float]:
    try:
        values = [float(value) if _is_number(value) else math.nan for value in box]
    except (TypeError, ValueError, OverflowError):
        values = []
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
