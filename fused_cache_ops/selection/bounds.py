"""Boxes in degrees, checked."""

from __future__ import annotations

import math
from typing import Any

from fused_cache_ops.errors import InvalidInputError


def read_bounds(bounds: Any) -> list[tuple[float, float, float, float]]:
    """Boxes ``(west, south, east, north)``, checked; ``east`` is beyond 180 where a box crosses the antimeridian.

    Raises:
        InvalidInputError: it is not four degrees, or a list of such.
    """
    if bounds is None:
        raise InvalidInputError("bounds is None: did a load step return nothing? Give [] to invalidate nothing.")
    try:
        given = list(bounds) if not isinstance(bounds, (str, bytes)) else None
    except TypeError:
        given = None
    if given is None:
        raise InvalidInputError(
            f"bounds = {str(bounds)[:80]!r}: give (west, south, east, north) in degrees, or a list of these."
        )
    if len(given) == 4 and all(_is_number(value) for value in given):
        given = [given]
    return [_checked_box(box) for box in given]


def _checked_box(box: Any) -> tuple[float, float, float, float]:
    try:
        values = [float(value) if _is_number(value) else math.nan for value in box]
    except TypeError:
        values = []
    if len(values) != 4 or not all(math.isfinite(value) for value in values):
        raise InvalidInputError(f"bounds {str(box)[:80]} must be four finite numbers: (west, south, east, north) in degrees.")
    west, south, east, north = values
    if max(abs(west), abs(east)) > 540 or max(abs(south), abs(north)) > 90:
        raise InvalidInputError(
            f"bounds {tuple(values)} are no degrees: the order is (west, south, east, north), longitudes end at ±180 (±540 "
            "across the antimeridian), latitudes at ±90."
        )
    if south > north:
        raise InvalidInputError(f"bounds {tuple(values)}: south is above north. The order is (west, south, east, north).")
    # As often round the globe as it takes to lie east of the west.
    return west, south, east + 360 * math.ceil((west - east) / 360) if west > east else east, north


def _is_number(value: object) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, (bool, str, bytes))
