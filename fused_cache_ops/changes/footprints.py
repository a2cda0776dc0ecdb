"""Where the content of a file is, as a few boxes in degrees: of the row groups of a Parquet file, of the grid of a raster, of
what any other file holds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.selection.arrow import (
    Table,
    Unknown,
    as_wkb,
    boxes_of,
    find_column,
    is_parquet,
    marked,
    open_parquet,
    parquet_schema,
    read_rows,
    row_boxes,
    wkb_of,
)
from fused_cache_ops.selection.geometry import Options, Systems, read_geometry
from fused_cache_ops.selection.reprojection import DEGREES
from fused_cache_ops.selection.shapes import Portion, import_geo
from fused_cache_ops.wording import quoted_address

Box = tuple[float, float, float, float]
"""West, south, east and north in degrees."""

_MOST_BOXES = 64  # of a file
_ROWS = 50_000
_HALF = 180.0
_WIDEST = 120.0  # of a box that is handed on: an edge over more than half the globe would be ambiguous


class _Source(NamedTuple):
    """Geometries to be read.

    Attributes:
        geometry: what `read_geometry` takes.
        options: how to read it.
        has_boxes: whether it holds the boxes that are wanted.
    """

    geometry: Any
    options: Options
    has_boxes: bool = False


def read_footprint(address: str, options: Options, system: Any = None) -> list[Box]:
    """Boxes whose tiles are those of all that a file holds, and more. None: nothing in it has a place.

    Where a GeoParquet file has a box for each row (its covering), these are read, and not the geometries. The statistics of
    these columns would be less to read, but they leave out NaN, and do not tell of a row that crosses the antimeridian. The
    file's own ``bbox`` is not used, because pyarrow keeps it when rows are added.

    Args:
        address: its path or URL, or its path in ``system``.
        options: how geometries are to be read.
        system: the file system of fsspec to open a Parquet file with. None: the one that the address names.

    Raises:
        FusedCacheError: it cannot be read, as for `read_geometry`.
    """
    import numpy as np

    found: list[Box] = []
    if is_parquet(address) and (options.column is None or isinstance(options.column, str)):
        sources = _of_parquet(address, options.column, options, system)
    else:
        sources = iter([_Source(address, options)])
    for source in sources:
        for portion in read_geometry(source.geometry, source.options):
            ends = _ends(portion)
            found += map(tuple, ends.tolist()) if source.has_boxes else _around(ends)
    together = math.ceil(len(found) / _MOST_BOXES)
    if together > 1:
        found = [box for start in range(0, len(found), together) for box in _around(np.array(found[start : start + together]))]
    return found


def as_geometry(footprints: list[list[Box]]) -> Any:
    """Footprints as a table to be passed as ``geometry``. One without boxes is null: what changed has no place."""
    pieces = dict.fromkeys(piece for boxes in footprints for box in boxes for piece in _narrow(box))
    shapes = [*_shapes(list(pieces)), *[None] * sum(not boxes for boxes in footprints)]
    return marked([wkb_of(shapes)] if shapes else [], DEGREES)


def _narrow(box: Box) -> Iterator[Box]:
    west, south, east, north = box
    count = max(1, math.ceil((east - west) / _WIDEST))
    width = (east - west) / count
    for number in range(count):
        yield west + number * width, south, east if number == count - 1 else west + (number + 1) * width, north


def _of_parquet(address: str, name: str | None, options: Options, system: Any) -> Iterator[_Source]:
    """The boxes of row groups, and geometries that need to be read to tell where they are."""
    pyarrow = import_geo("pyarrow")
    with open_parquet(address, system) as file:
        what = f"geometry, the file {quoted_address(address)},"
        column = find_column(parquet_schema(file), name, what)
        is_known = column.system is not Unknown or options.crs is not None
        reference = Systems(options.crs).find(column.system, what) if is_known else None
        is_in_degrees = reference is None or reference.is_geographic
        boxes: list[Box] = []
        others = []
        for group in range(file.num_row_groups):
            of_rows = row_boxes(file, group, column.box) if column.box else None
            if of_rows is None or (is_in_degrees and _is_wide(of_rows).any()):
                others.append(group)
            else:
                boxes += _around(of_rows)
        options = options._replace(column=None)
        if others and is_known:
            rows = file.iter_batches(_ROWS, row_groups=others, columns=[column.name])
            for each in read_rows(Table(file.schema_arrow, rows), column, what):
                ends, wide = _bounds(each.shapes, is_in_degrees, what)
                boxes += _around(ends)
                if len(wide):
                    yield _Source(marked([wkb_of(wide)], column.system), options)
            others = []
        if boxes:
            outlines = marked([wkb_of(_shapes(boxes))], column.system)
            yield _Source(outlines, options._replace(antimeridian="literal"), has_boxes=True)
        if others:
            schema = marked([], column.system).schema
            rows = file.iter_batches(_ROWS, row_groups=others, columns=[column.name])
            batches = (pyarrow.record_batch([as_wkb(each.column(0), column.encoding, what)], schema=schema) for each in rows)
            yield _Source(pyarrow.RecordBatchReader.from_batches(schema, batches), options)


def _bounds(shapes: Any, is_in_degrees: bool, what: str) -> tuple[Any, Any]:
    """The boxes of shapes that are not empty, and the shapes over more than half the globe, which may cross the antimeridian.

    Raises:
        InvalidInputError: a coordinate is not finite.
    """
    import numpy as np

    shapely = import_geo("shapely")
    shapes = shapes[~shapely.is_empty(shapes)]
    ends = shapely.bounds(shapes).reshape(-1, 4)
    if not np.isfinite(ends).all():
        raise InvalidInputError(f"{what} has a NaN or infinite coordinate: coordinates must be finite.")
    is_wide = is_in_degrees & _is_wide(ends)
    return ends[~is_wide], shapes[is_wide]


def _is_wide(boxes: Any) -> Any:
    return boxes[:, 2] - boxes[:, 0] > _HALF


def _shapes(boxes: list[Box]) -> Any:
    import numpy as np

    return boxes_of(*np.array(boxes, float).reshape(-1, 4).T)


def _ends(portion: Portion) -> Any:
    """The box of each shape in a portion, one row each."""
    import numpy as np

    shapely = import_geo("shapely")
    areas = portion.areas.polygons(np.unique(portion.areas.shape))
    return np.concatenate([np.tile(portion.places, 2), shapely.bounds(portion.lines), shapely.bounds(areas)]).reshape(-1, 4)


def _around(boxes: Any) -> list[Box]:
    """The box around some boxes, or two if there is more than half the globe between them, as at the antimeridian."""
    import numpy as np

    if not len(boxes):
        return []
    boxes = boxes[np.argsort(boxes[:, 0])]
    gaps = boxes[1:, 0] - np.maximum.accumulate(boxes[:, 2])[:-1]
    at = int(gaps.argmax()) + 1 if len(gaps) and gaps.max() > _HALF else len(boxes)
    return [
        (*part[:, :2].min(axis=0).tolist(), *part[:, 2:].max(axis=0).tolist()) for part in (boxes[:at], boxes[at:]) if len(part)
    ]
