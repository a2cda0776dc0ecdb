"""Zoom levels, in every notation that is accepted."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable
from typing import Union

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.tiles.tile import HIGHEST_ZOOM, is_boolean
from fused_cache_ops.wording import quoted

Zooms = Union[int, str, Iterable[int]]
"""``12``, ``range(10, 15)``, ``[10, 12]``, ``"12"``, ``"10-14"``, ``"10,12-14"``."""

_PART = re.compile(r"(\d{1,3})(?:-(\d{1,3}))?", re.ASCII)


def parse_zooms(zooms: Zooms, *, max_zoom: int = HIGHEST_ZOOM, name: str = "zooms") -> tuple[int, ...]:
    """The zoom levels in ascending order, without duplicates.

    Raises:
        InvalidInputError: the value is malformed, empty, or names a zoom outside 0 … ``max_zoom``.
    """
    shown = f"{name} = {quoted(zooms)}"
    problem = InvalidInputError(
        f"{shown}: expected zoom levels from 0 to {max_zoom}, such as 12, range(10, 15), [10, 12], '10-14' or '10,12-14'."
    )
    if isinstance(zooms, str):
        levels: set[int] = set()
        for part in zooms.strip().strip("[]").split(","):
            match = _PART.fullmatch(part.strip())
            if match is None:
                raise problem
            first, last = int(match[1]), int(match[2] or match[1])
            if first > last:
                raise problem
            levels.update(range(first, last + 1))
    elif isinstance(zooms, int):
        levels = {zooms}
    else:
        try:
            given = list(zooms)
        except TypeError:
            raise problem from None
        if any(is_boolean(level) or not hasattr(level, "__index__") for level in given):
            raise problem
        levels = {operator.index(level) for level in given}
    if isinstance(zooms, bool) or not levels or min(levels) < 0 or max(levels) > max_zoom:
        raise problem
    return tuple(sorted(levels))
