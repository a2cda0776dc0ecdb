"""Web Mercator: conversion between latitudes and rows of a square map."""

from __future__ import annotations

import math

TOLERANCE = 1e-11
"""In degrees, about a micrometer: two ways of computing a tile's edge may differ by this much. It has no practical effect."""

LATITUDE_LIMIT = 85.0511287798066  # where Web Mercator ends, so that the map is a square


def row_fraction(latitude: float) -> float:
    """A latitude's position in the Web Mercator square: 0 at the north edge, 1 at the south edge."""
    sine = math.sin(math.radians(max(-LATITUDE_LIMIT, min(latitude, LATITUDE_LIMIT))))
    return 0.5 - math.log((1 + sine) / (1 - sine)) / (4 * math.pi)


def latitude_of_row(row: float, size: int) -> float:
    """The latitude of a row's north edge, on a map with ``size`` rows."""
    return math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * row / size))))
