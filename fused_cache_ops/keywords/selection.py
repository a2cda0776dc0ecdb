"""The keywords that select tiles. The core and all wrappers read them here."""

import os
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

from fused_cache_ops.keywords.option import Option, options_of
from fused_cache_ops.keywords.text import read_boolean, read_list, read_list_or_text, read_number
from fused_cache_ops.keywords.values import (
    NOT_GIVEN,
    WHOLE_UDF,
    Antimeridian,
    Bounds,
    NotGiven,
    RenderResolution,
    TileOrder,
    TileSelection,
    TilesFile,
    WhenTooMany,
)
from fused_cache_ops.tiles.tile import HIGHEST_ZOOM
from fused_cache_ops.tiles.zooms import Zooms

DEFAULT_MAX_TILES = 1_000_000
"""The default of ``max_tiles``: twenty requests. It limits computed selections. A plain list is sent as it is."""

KINDS = ("tiles", "tiles_file", "bounds", "geometry", "cells", "hex_dataset")
"""The keywords that select tiles on their own. A call has exactly one of them, or none for the whole UDF."""

AREAS = ("bounds", "geometry", "cells", "hex_dataset")
"""The kinds that select an area of the map, and so require zooms."""

DETAILS = {
    "order": ("tiles", "tiles_file"),
    "geometry_column": ("geometry",),
    "crs": ("geometry",),
    "layer": ("geometry",),
    "antimeridian": ("geometry",),
    "render_resolution": ("cells", "hex_dataset"),
    "partition": ("hex_dataset",),
}
"""The keywords that say how to read a selection, and the kinds that they belong to."""


def _shapes(default: Any, help: str, read: Any = None) -> Option:  # noqa: A002
    """What shapes a selection, and so requires one."""
    return Option(default, help, read, needs_selection=True)


class SelectionKeywords(TypedDict, total=False):
    """The keywords that select tiles, as `fused_cache_ops.invalidate_cache` describes them."""

    tiles: Annotated[
        TileSelection,
        Option(WHOLE_UDF, "Tiles as 'z/x/y', [z, x, y] or {z, x, y}. An empty list invalidates nothing.", read_list),
    ]
    tiles_file: Annotated[
        TilesFile | NotGiven,
        Option(NOT_GIVEN, "Path of a list of tiles, one per line: z/x/y, CSV, JSON lines or quadkeys, gzipped or not."),
    ]
    bounds: Annotated[
        Bounds | NotGiven, Option(NOT_GIVEN, "West, south, east, north in degrees, or a list of such boxes.", read_list)
    ]
    geometry: Annotated[Any, Option(NOT_GIVEN, "GeoJSON, WKT, or the path or URL of a vector or Parquet file.")]
    cells: Annotated[
        Any,
        Option(NOT_GIVEN, "H3 cells as text or numbers, or the path of a file with one cell per line.", read_list_or_text),
    ]
    hex_dataset: Annotated[
        str | os.PathLike[str] | NotGiven,
        Option(NOT_GIVEN, "Path or URL of an H3 dataset that Fused wrote. The cells that name its files are invalidated."),
    ]
    whole_udf: Annotated[
        bool,
        Option(
            False,
            "Invalidate everything that the UDF has cached. Required if the selection comes from data.",
            read_boolean,
        ),
    ]
    order: Annotated[
        TileOrder | None,
        _shapes(
            None,
            "The order of the numbers in tiles that are bare lists: zxy, or xyz as mercantile and utiles write them. A file of "
            "JSON lists needs it.",
        ),
    ]
    geometry_column: Annotated[
        str | Sequence[str] | None,
        _shapes(
            None,
            "The column of a table or file that holds the geometries, if it is not marked as such. Or two with longitudes and "
            "latitudes: lon,lat.",
            read_list_or_text,
        ),
    ]
    layer: Annotated[str | None, _shapes(None, "The layer of a vector file. Default: all that have geometries.")]
    antimeridian: Annotated[
        Antimeridian | None,
        _shapes(
            None,
            "How to read an edge that spans more than half the globe: cross, the shorter way over the antimeridian, or "
            "literal, the long way round. Default: literal, with a warning.",
        ),
    ]
    crs: Annotated[
        Any,
        _shapes(None, "The coordinate reference system of a geometry that does not name one, such as EPSG:25832."),
    ]
    render_resolution: Annotated[
        RenderResolution,
        _shapes(
            None,
            "The resolution of the H3 cells that the map draws: a number, a mapping from zooms to numbers, or 'fused' for the "
            "rule of Fused's examples. Default: the changed cells themselves.",
        ),
    ]
    partition: Annotated[
        str | list[str] | NotGiven,
        _shapes(
            NOT_GIVEN,
            "The folders of the H3 dataset that were rewritten, such as date=2026-11-22. Default: all.",
            read_list_or_text,
        ),
    ]
    zooms: Annotated[
        Zooms | None,
        _shapes(
            None,
            "Zoom levels: 12, 10-14 or 10,12-14. Required with bounds, a geometry, cells and an H3 dataset. With a list of "
            "tiles, adds their parents and children.",
        ),
    ]
    buffer: Annotated[int, _shapes(0, "Tiles to add on every side.", read_number)]
    max_tiles: Annotated[
        int, _shapes(DEFAULT_MAX_TILES, "The most tiles that an area, zooms or a buffer may produce.", read_number)
    ]
    when_too_many: Annotated[
        WhenTooMany,
        _shapes("fail", "What to do when there are more than max_tiles: fail, whole-udf or coarser."),
    ]
    max_zoom: Annotated[int, _shapes(HIGHEST_ZOOM, "The highest zoom that the selection may contain.", read_number)]
    shard: Annotated[
        tuple[int, int] | None,
        _shapes(None, "Only the i-th of n equal parts of the selection, counted from 0.", read_list),
    ]


SELECTION_OPTIONS = options_of(SelectionKeywords)
SELECTION_DEFAULTS: SelectionKeywords = {name: option.default for name, option in SELECTION_OPTIONS.items()}  # type: ignore[assignment]
