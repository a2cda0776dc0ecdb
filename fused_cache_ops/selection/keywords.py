"""The single declaration of the keywords that select tiles: types, defaults, and a line of help for each.

The core and all wrappers read it. Signatures, configurations, template fields and command-line options are either derived
from it or compared with it by ``tests/test_keywords.py``.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterable
from typing import IO, Any, Literal, TypedDict, Union

from fused_cache_ops.tiles.tile import HIGHEST_ZOOM, TileLike
from fused_cache_ops.tiles.zooms import Zooms


class _WholeUdf(enum.Enum):
    WHOLE_UDF = "whole-udf"

    def __repr__(self) -> str:
        return self.name

    __str__ = __repr__


class NotGiven(enum.Enum):
    NOT_GIVEN = "not-given"

    def __repr__(self) -> str:
        return self.name

    __str__ = __repr__


WHOLE_UDF = _WholeUdf.WHOLE_UDF
"""The value of ``tiles`` when it is omitted. None is an error, so that a load step that forgot its ``return`` cannot
invalidate everything."""

NOT_GIVEN = NotGiven.NOT_GIVEN
"""The value of the other kinds of selection when they are omitted. None is an error here too."""

DEFAULT_MAX_TILES = 1_000_000
"""The default of ``max_tiles``: twenty requests. It limits computed selections. A plain list is sent as it is."""

Bounds = Union[tuple[float, float, float, float], "list[float]", Iterable[Iterable[float]]]
"""``(west, south, east, north)`` in degrees, or several such boxes."""

TilesFile = Union[str, "os.PathLike[str]", IO[bytes], IO[str]]
"""A path, ``-`` for standard input, or an open file."""

TileSelection = Union[Iterable[TileLike], Literal[_WholeUdf.WHOLE_UDF]]

WhenTooMany = Literal["fail", "whole-udf", "coarser"]

KINDS = ("tiles", "tiles_file", "bounds", "geometry")
"""The keywords that select tiles on their own. A call has exactly one of them, or none for the whole UDF."""


SHAPERS = ("zooms", "buffer", "max_tiles", "when_too_many", "max_zoom", "shard")
"""The keywords that shape a selection, and so require one. On their own, they must not invalidate everything."""


class SelectionKeywords(TypedDict, total=False):
    """The keywords that select tiles, as `fused_cache_ops.invalidate_cache` describes them."""

    tiles: TileSelection
    tiles_file: TilesFile | NotGiven
    bounds: Bounds | NotGiven
    geometry: Any
    whole_udf: bool
    zooms: Zooms | None
    buffer: int
    max_tiles: int
    when_too_many: WhenTooMany
    max_zoom: int
    shard: tuple[int, int] | None


SELECTION_DEFAULTS: SelectionKeywords = {
    "tiles": WHOLE_UDF,
    "tiles_file": NOT_GIVEN,
    "bounds": NOT_GIVEN,
    "geometry": NOT_GIVEN,
    "whole_udf": False,
    "zooms": None,
    "buffer": 0,
    "max_tiles": DEFAULT_MAX_TILES,
    "when_too_many": "fail",
    "max_zoom": HIGHEST_ZOOM,
    "shard": None,
}

SELECTION_HELP: dict[str, str] = {
    "tiles": "Tiles as 'z/x/y', [z, x, y] or {z, x, y}. An empty list invalidates nothing.",
    "tiles_file": "Path of a list of tiles, one per line: z/x/y, CSV, JSON lines or quadkeys, gzipped or not.",
    "bounds": "West, south, east, north in degrees, or a list of such boxes.",
    "geometry": "GeoJSON, WKT, or the path or URL of a vector file.",
    "whole_udf": "Invalidate everything that the UDF has cached. Required if the selection comes from data.",
    "zooms": "Zoom levels: 12, 10-14 or 10,12-14. Required with bounds and geometry. With a list of tiles, adds their "
    "parents and children.",
    "buffer": "Tiles to add on every side.",
    "max_tiles": "The most tiles that bounds, a geometry, zooms or a buffer may produce.",
    "when_too_many": "What to do when there are more than max_tiles: fail, whole-udf or coarser.",
    "max_zoom": "The highest zoom that the selection may contain.",
    "shard": "Only the i-th of n equal parts of the selection, counted from 0.",
}
