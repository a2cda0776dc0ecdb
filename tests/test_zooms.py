"""Zoom levels, however they are written."""

from typing import Any

import numpy as np
import pytest

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.tiles.zooms import parse_zooms


@pytest.mark.parametrize(
    ("zooms", "levels"),
    [
        (12, (12,)),
        (range(10, 15), (10, 11, 12, 13, 14)),
        ([12, 10], (10, 12)),
        ((10, 10), (10,)),
        ({3}, (3,)),
        ("12", (12,)),
        ("10-14", (10, 11, 12, 13, 14)),
        (" 10, 12-13 ", (10, 12, 13)),
        ("[10, 12]", (10, 12)),
        (np.array([3, 1]), (1, 3)),
        (0, (0,)),
    ],
    ids=repr,
)
def test_every_form_is_read(zooms: Any, levels: tuple[int, ...]) -> None:
    assert parse_zooms(zooms) == levels


@pytest.mark.parametrize(
    "zooms",
    [
        "",
        "None",
        "null",
        "a",
        "14-10",
        "10-",
        "-1",
        "1.5",
        "31",
        "10;12",
        "٣",
        31,
        -1,
        1.5,
        True,
        [True],
        [np.True_],
        [1.0],
        [],
        ["10"],
        [None],
    ]
    + [range(0), object, float("nan")],
    ids=repr,
)
def test_what_is_none_is_refused(zooms: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"expected zoom levels from 0 to 30"):
        parse_zooms(zooms)
