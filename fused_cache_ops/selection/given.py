"""The value of a selection as its readers take it: one list where mapped loads gave one list each, and a path for ``file://``."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from fused_cache_ops.stores import local_path

_LISTS = ("tiles", "bounds", "geometry", "cells")


def as_read(kind: str, value: Any) -> Any:
    """The value of a selection of a kind, with a list of lists flattened, and a ``file://`` URL as a path."""
    if isinstance(value, str):
        return local_path(value)
    if kind in _LISTS and _is_list(value) and len(value) and _is_inner(kind, value[0]):
        return list(itertools.chain.from_iterable(each if _is_inner(kind, each) else (each,) for each in value))
    return value


def _is_list(value: Any) -> bool:
    """Whether a value is a plain list, or what stands for one, such as the outputs of Airflow's mapped tasks."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray, memoryview, range))


def _is_inner(kind: str, item: Any) -> bool:
    """Whether an item is what one of several loads returned, and not a tile, a box, a cell or a geometry."""
    if not _is_list(item) or hasattr(item, "keys") or (kind == "geometry" and hasattr(item, "_fields")):
        return False  # a row of a database, whose values have names, is one item
    if kind in ("cells", "geometry") or not len(item):
        return True
    first = item[0]
    return _is_list(first) or (kind == "tiles" and isinstance(first, (str, Mapping)) and not _is_tile(item))


def _is_tile(item: Any) -> bool:
    """Whether an item is a tile whose numbers are text."""
    return len(item) == 3 and all(isinstance(each, str) and each.strip().lstrip("-").isdigit() for each in item)
