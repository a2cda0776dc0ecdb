"""The deadline holds while a selection is read and computed, whatever it is made of."""

from __future__ import annotations

import h3
import numpy as np
import pyarrow as pa
import pytest
import shapely

from fused_cache_ops.errors import UnavailableError
from fused_cache_ops.selection.reading import read_selection

COUNT = 150_000
MIDDLES = np.column_stack((np.linspace(-170, 170, COUNT), np.linspace(-60, 60, COUNT)))
SQUARES = shapely.box(*MIDDLES.T, *(MIDDLES + 0.001).T)
FORMS = {
    "a list of shapes": lambda: {"geometry": list(SQUARES)},
    "an array of shapes": lambda: {"geometry": SQUARES},
    "a list of GeoJSON": lambda: {"geometry": [shapely.geometry.mapping(each) for each in SQUARES[:20_000]]},
    "a feature collection": lambda: {
        "geometry": {
            "type": "FeatureCollection",
            "features": [{"type": "Feature", "geometry": shapely.geometry.mapping(each)} for each in SQUARES[:20_000]],
        }
    },
    "another system": lambda: {"geometry": shapely.transform(SQUARES, lambda places: places * 100_000), "crs": "EPSG:3857"},
    "a table": lambda: {
        "geometry": pa.table({"geometry": shapely.to_wkb(SQUARES)}),
        "geometry_column": "geometry",
        "crs": "EPSG:4326",
    },
    "cells": lambda: {"cells": [h3.latlng_to_cell(latitude, longitude, 9) for longitude, latitude in MIDDLES[::3]]},
    "tiles": lambda: {"tiles": [(20, number, 5) for number in range(COUNT)]},
}


@pytest.mark.parametrize("form", FORMS)
def test_reading_ends_soon_after_the_deadline(form: str) -> None:
    """Counted in looks at the clock, not in seconds: the first one that says "no more" ends the reading."""
    looks = 0

    def watch() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise UnavailableError("The deadline has passed.")

    given = FORMS[form]()
    zooms = {} if "tiles" in given else {"zooms": (8, 12), "max_tiles": 10**9}

    def read() -> None:
        selection = read_selection(watch, **given, **zooms)
        list(selection.batches(1000))  # type: ignore[union-attr]

    with pytest.raises(UnavailableError):
        read()
    assert looks == 3
