"""Web mercator: latitudes as rows of a square map, and back."""

from __future__ import annotations

import math

TOLERANCE = 1e-11
"""Degrees, about a micrometre: what two ways of computing a tile's edge may differ by, and nothing that matters."""

LATITUDE_LIMIT = 85.0511287798066  # where web mercator ends: the map is a square


def row_fraction(latitude: float) -> float:
    """How far down the square of web mercator a latitude lies: 0 at its north edge, 1 at its south edge."""
    sine = math.sin(math.radians(max(-LATITUDE_LIMIT, min(latitude, LATITUDE_LIMIT))))
    return 0.5 - math.log((1 + sine) / (1 - sine)) / (4 * math.pi)


def latitude_of_row(row: float, size: int) -> float:
    """The latitude of a row's north edge, on a map of ``size`` rows."""
    return math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * row / size))))
