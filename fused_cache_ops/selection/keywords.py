"""The single declaration of the keywords that select tiles: types, defaults, and a line of help for each.

The core and all wrappers read it. Signatures, configurations, template fields and command-line options are either derived
from it or compared with it by ``tests/repository/test_keywords.py``.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterable, Mapping
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

RenderResolution = Union[int, str, tuple[str, int], Mapping[Any, int], None]
"""The resolution of the H3 cells that a map draws: None for the cells themselves, a number, a mapping from zooms to numbers,
``"fused"``, or ``("fused", offset)``."""

TileSelection = Union[Iterable[TileLike], Literal[_WholeUdf.WHOLE_UDF]]

WhenTooMany = Literal["fail", "whole-udf", "coarser"]

KINDS = ("tiles", "tiles_file", "bounds", "geometry", "cells", "hex_dataset")
"""The keywords that select tiles on their own. A call has exactly one of them, or none for the whole UDF."""

AREAS = ("bounds", "geometry", "cells", "hex_dataset")
"""The kinds that select an area of the map, and so require zooms."""

DETAILS = {
    "geometry_column": ("geometry",),
    "crs": ("geometry",),
    "render_resolution": ("cells", "hex_dataset"),
    "partition": ("hex_dataset",),
}
"""The keywords that say how to read a selection, and the kinds that they belong to."""

SHAPERS = (*DETAILS, "zooms", "buffer", "max_tiles", "when_too_many", "max_zoom", "shard")
"""The keywords that shape a selection, and so require one. On their own, they must not invalidate everything."""


class SelectionKeywords(TypedDict, total=False):
    """The keywords that select tiles, as `fused_cache_ops.invalidate_cache` describes them."""

    tiles: TileSelection
    tiles_file: TilesFile | NotGiven
    bounds: Bounds | NotGiven
    geometry: Any
    cells: Any
    hex_dataset: str | os.PathLike[str] | NotGiven
    whole_udf: bool
    geometry_column: str | None
    crs: Any
    render_resolution: RenderResolution
    partition: str | list[str] | NotGiven
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
    "cells": NOT_GIVEN,
    "hex_dataset": NOT_GIVEN,
    "whole_udf": False,
    "geometry_column": None,
    "crs": None,
    "render_resolution": None,
    "partition": NOT_GIVEN,
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
    "geometry": "GeoJSON, WKT, or the path or URL of a vector or Parquet file.",
    "cells": "H3 cells as text or numbers, or the path of a file with one cell per line.",
    "hex_dataset": "Path or URL of an H3 dataset that Fused wrote. The cells that name its files are invalidated.",
    "whole_udf": "Invalidate everything that the UDF has cached. Required if the selection comes from data.",
    "geometry_column": "The column of a table or Parquet file that holds the geometries, if it is not marked as such.",
    "crs": "The coordinate reference system of a geometry that does not name one, such as EPSG:25832.",
    "render_resolution": "The resolution of the H3 cells that the map draws: a number, a mapping from zooms to numbers, or "
    "'fused' for the rule of Fused's examples. Default: the changed cells themselves.",
    "partition": "The folders of the H3 dataset that were rewritten, such as date=2026-11-22. Default: all.",
    "zooms": "Zoom levels: 12, 10-14 or 10,12-14. Required with bounds, a geometry, cells and an H3 dataset. With a list of "
    "tiles, adds their parents and children.",
    "buffer": "Tiles to add on every side.",
    "max_tiles": "The most tiles that an area, zooms or a buffer may produce.",
    "when_too_many": "What to do when there are more than max_tiles: fail, whole-udf or coarser.",
    "max_zoom": "The highest zoom that the selection may contain.",
    "shard": "Only the i-th of n equal parts of the selection, counted from 0.",
}
