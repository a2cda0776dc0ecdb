"""H3 cells as areas of the map. Needs the extra ``h3``.

A map does not draw a fine cell at a coarse zoom: it draws a parent. What changed there is all of that parent, so its own
outline is covered. Cells of Fused's datasets are found by the names of their files, see `read_hex_dataset`.
"""

from __future__ import annotations

import ast
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fused_cache_ops.errors import InvalidInputError, unreadable
from fused_cache_ops.keywords.values import NOT_GIVEN, RenderResolution
from fused_cache_ops.selection.arrow import is_arrow, read_values
from fused_cache_ops.selection.coverage import in_one_tile
from fused_cache_ops.selection.shapes import MOST_BYTES, Areas, Portion, edges_of, file_system, import_geo, within_the_map
from fused_cache_ops.tiles.tile import is_boolean
from fused_cache_ops.wording import quoted, quoted_address, rendered_to_nothing, without_credentials

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    CellIds = npt.NDArray[np.uint64]

_FINEST = 15
_RESOLUTION = 52  # the lowest of the four bits that hold a cell's resolution
_FORMS = (
    "pass H3 cell ids as text ('8928308280fffff') or whole numbers, in a list, an array or an Arrow column, or a file's path"
)
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]+")  # int() also takes blanks, underscores and digits of other scripts
_LEAF = re.compile(r"([0-9a-f]{15}|[0-9]{18})\.parquet")
_NO_DATA = re.compile(r"(^|/)(\.|_[^/=]*(/|$)|overview/)")
"""As in Spark, a name that begins with an underscore is a partition if it contains ``=``."""

_DIGITS = 15
_DECIMAL_DIGITS = 17  # text this long is not hexadecimal
_AT_ONCE = 20_000  # cells to cover at once
_LEVELS = 2  # generations of a file's cell that are covered one by one
_REACH = 1.2
"""No corner of a cell is farther from its center than so many edges of an average hexagon. The most is 1.104."""

_REACH_OF_DESCENDANTS = 1.7
"""The same for the enlarged outlines of its descendants."""

_STRAIGHT = 16
"""Where the cosine of the latitude is so many times the length of an edge, one that is straight in degrees deviates by less
than 1% of its length from one that is straight on the sphere."""

_CHILDREN = 7  # of a hexagon
_FEW = 16  # cells, below which none can be enclosed by others that are enclosed
_EARTH = 6371.007180918475  # the radius that H3 takes for the earth, in km
_OVERHANG = 1.22
"""How much larger, seen from its center, an outline has to be to hold all descendants of its cell.

Seven children around a center reach 1.05 times as far as the corners of their parent, however many generations there are
(1.7320 / (7 ** 0.5 - 1) = 1.0523), while the middle of a side is 0.866 as far away as a corner.
"""


class Cells(NamedTuple):
    """Cells whose data changed.

    Attributes:
        ids: H3 cell ids, ascending, each once.
        hold_finer: whether the cells stand for all their descendants, which overhang them, and not for themselves.
    """

    ids: CellIds
    hold_finer: bool = False

    def portions(self, zooms: Iterable[int], rendering: Callable[[int], int]) -> Iterator[tuple[tuple[int, ...], Portion]]:
        """Outlines of the cells that a map draws, with the zooms that draw them.

        Args:
            zooms: the zooms to cover, in ascending order.
            rendering: the resolution that is drawn at a zoom.
        """
        import numpy as np

        by_resolution: dict[int, list[int]] = {}
        for zoom in zooms:
            by_resolution.setdefault(rendering(zoom), []).append(zoom)
        own = _resolutions(self.ids)
        for resolution, at in by_resolution.items():
            coarser = own > resolution
            drawn = [_parents(self.ids[coarser], resolution)]
            rest, levels = self.ids[~coarser], own[~coarser]
            if not self.hold_finer:
                drawn.append(rest)
            for portion in _portions(_distinct(np.concatenate(drawn)), at[-1]):
                yield tuple(at), portion
            for level in np.unique(levels).tolist() if self.hold_finer else ():
                for portion in _portions_of_files(rest[levels == level], level, resolution, at[-1]):
                    yield tuple(at), portion


def _portions(cells: CellIds, zoom: int, scale: float = 1.0) -> Iterator[Portion]:
    """Cells of any resolutions, by their outlines where these do not lie in one tile.

    Args:
        cells: H3 cell ids, ascending, each once.
        zoom: the deepest zoom to be covered.
        scale: by how much to enlarge each outline, seen from its center.
    """
    import numpy as np

    own = _resolutions(cells)
    for resolution in np.unique(own).tolist():
        same = cells[own == resolution]
        for each in _compacted(same, resolution) if scale == 1.0 else [same]:
            for start in range(0, len(each), _AT_ONCE):
                part = each[start : start + _AT_ONCE]
                centers, small = _in_one_tile(part, _REACH * scale, zoom)
                plain, odd = outlines(part[~small], scale)
                yield Portion(centers, _none(), plain)
                yield Portion(centers[:0], _none(), edges_of(odd))


def _compacted(cells: CellIds, resolution: int) -> Iterator[CellIds]:
    """Cells of one resolution, and the parents that stand for those within a larger area of them.

    The outline of a parent lies in its own children and in those of its neighbors, and a cell in the outlines of its parent
    and of the parent's neighbors. So where all of these are there, nothing is added and nothing is lost.
    """
    import numpy as np

    while resolution > 0:
        parents = _parents(cells, resolution - 1)
        first = np.flatnonzero(np.append(True, parents[1:] != parents[:-1])[: len(parents)])
        full = parents[first[np.diff(np.append(first, len(parents))) == _CHILDREN]]
        inner, enclosed = _inside(full)
        if not enclosed.any():
            break
        yield cells[~np.isin(parents, full[enclosed])]
        cells, resolution = full[inner], resolution - 1
    yield cells


def _portions_of_files(cells: CellIds, level: int, resolution: int, zoom: int) -> Iterator[Portion]:
    """All descendants of some cells at a resolution that is not coarser.

    Those of a cell within a larger area make no difference: with all neighbors there, nothing of it sticks out of the area,
    and its own outline serves. The others are replaced by their children until these lie in one tile or are fine enough.
    """
    import numpy as np

    finest = min(resolution, level + _LEVELS)
    scale = 1.0 if finest == resolution else _OVERHANG
    if level < finest:
        inner, enclosed = _inside(cells)
        yield from _portions(cells[inner], zoom)
        cells = cells[~enclosed]
    for generation in range(level, finest):
        rest = []
        for start in range(0, len(cells), _AT_ONCE):
            part = cells[start : start + _AT_ONCE]
            centers, small = _in_one_tile(part, _REACH_OF_DESCENDANTS, zoom)
            yield Portion(centers, _none(), edges_of(_none()))
            rest.append(_children(part[~small], generation + 1))
        cells = np.concatenate([np.empty(0, np.uint64), *rest])
    yield from _portions(cells, zoom, scale)


def _inside(cells: CellIds) -> tuple[Any, Any]:
    """Which cells of one resolution have all their neighbors among them, and which of these only such neighbors.

    Of cells so large, or so near a pole, that their edges, which are straight in degrees, run elsewhere than on the sphere:
    none.
    """
    import numpy as np

    h3 = _h3()
    if len(cells) < _FEW:
        return np.zeros(len(cells), bool), np.zeros(len(cells), bool)
    disks = [h3.grid_disk(cell, 1) for cell in cells.tolist()]
    first = np.cumsum([0, *map(len, disks)])[:-1]
    members = np.fromiter(itertools.chain.from_iterable(disks), np.uint64)

    def all_in(those: CellIds) -> Any:
        return np.logical_and.reduceat(np.isin(members, those), first)

    latitudes = _centers(cells)[:, 1]
    inner = all_in(cells[np.cos(np.radians(latitudes)) > _STRAIGHT * _edge_lengths(cells)])
    return inner, all_in(cells[inner])


def _centers(cells: CellIds) -> Any:
    """The centers of cells: longitudes and latitudes."""
    import numpy as np

    places = map(_h3().cell_to_latlng, cells.tolist())
    return np.fromiter(itertools.chain.from_iterable(places), float, 2 * len(cells)).reshape(-1, 2)[:, ::-1]


def _edge_lengths(cells: CellIds) -> Any:
    """The lengths of the edges of an average hexagon, in radians."""
    import numpy as np

    length = _h3().average_hexagon_edge_length
    return np.array([length(resolution, "km") for resolution in range(_FINEST + 1)])[_resolutions(cells)] / _EARTH


def _in_one_tile(cells: CellIds, reach: float, zoom: int) -> tuple[Any, Any]:
    """Which cells surely lie in one tile, and before that the centers of these cells, as longitudes and latitudes.

    Args:
        cells: H3 cell ids.
        reach: how far from a center a cell reaches at most, in edges of an average hexagon.
        zoom: the zoom.
    """
    import numpy as np

    radius = reach * _edge_lengths(cells)
    small = radius < np.pi / 2 / 2**zoom  # a tile is four times as wide, or the outlines of nearly all are needed anyway
    centers, radius = _centers(cells[small]), radius[small]
    longitude, latitude = centers.T
    # How far a circle reaches to the east and west. Around a pole, all around.
    part = np.sin(radius) / np.maximum(np.cos(np.radians(latitude)), 1e-9)
    wide, high = np.degrees(np.arcsin(np.minimum(part, 1.0))), np.degrees(radius)
    within = in_one_tile(longitude - wide, latitude - high, longitude + wide, latitude + high, zoom) & (part < 1.0)
    small[small] = within
    return centers[within], small


def read_cells(cells: Any) -> Cells:
    """Cells from ids as text or numbers: any iterable, a numpy array, an Arrow column, or the path of a file, one id a line.

    Raises:
        InvalidInputError: one of them is not a valid H3 cell.
        ConfigurationError: the extra ``h3`` is not installed.
    """
    import numpy as np

    _h3()  # before anything else is found missing
    if cells is None:
        raise InvalidInputError(
            f"cells is None: did a load step return nothing? To select nothing, pass []. Otherwise {_FORMS}."
        )
    if isinstance(cells, (str, os.PathLike)):
        cells = _lines(os.fspath(cells))
    if is_arrow(cells):
        arrays = read_values(cells, ("hex", "cell", "h3"), "cells")
        found = [
            _collected(each.to_pylist()) if each.null_count else _numbers(each.to_numpy(zero_copy_only=False))
            for each in arrays
        ]
        ids = np.concatenate([np.empty(0, np.uint64), *found])
    elif hasattr(cells, "dtype"):
        ids = _numbers(np.asarray(cells))
    elif isinstance(cells, (bytes, Mapping)) or not isinstance(cells, Iterable):
        raise InvalidInputError(f"cells is of type {type(cells).__name__}: {_FORMS}.")
    else:
        ids = _collected(cells)
    return Cells(_checked(ids, "cells"))


def read_hex_dataset(address: Any, partitions: Any) -> Cells:
    """The cells of the files in an H3 dataset that Fused wrote, named by the parent cell of what they hold.

    ``fused.h3.partition`` writes ``<column>=<value>/…/<cell>.parquet`` with the cell in hexadecimal. The older
    ``run_ingest_raster_to_h3`` writes it in decimal. Its overviews, samples and metadata are not read.

    Args:
        address: the folder, as a path or a URL that fsspec opens.
        partitions: the folders in it whose files were rewritten, such as ``date=2026-11-22``, or `NOT_GIVEN` for all.

    Raises:
        InvalidInputError: a folder does not exist, or holds no such files.
        ConfigurationError: the extra ``h3`` is not installed.
    """
    import numpy as np

    _h3()  # before anything else is found missing
    if isinstance(address, os.PathLike):
        address = os.fspath(address)
    if not isinstance(address, str) or rendered_to_nothing(address):
        raise InvalidInputError(f"hex_dataset = {quoted(address)} is not the path or URL of a dataset.")
    found: set[int] = set()
    for partition in [None] if partitions is NOT_GIVEN else _partitions(partitions):
        folder = address.rstrip("/") + ("" if partition is None else f"/{partition}")
        said = f"hex_dataset = {quoted_address(address)}" + ("" if partition is None else f", partition = {quoted(partition)}")
        found |= _leaves(folder, said)
    return Cells(_checked(np.array(sorted(found), np.uint64), "hex_dataset"), hold_finer=True)


def read_rendering(given: RenderResolution) -> Callable[[int], int]:
    """The resolution that a map draws at each zoom.

    Args:
        given: None for the cells themselves, a resolution, a mapping from zooms to resolutions, ``"fused"``, or
            ``("fused", offset)``.

    Raises:
        InvalidInputError: it is none of these, or a resolution is out of range.
    """
    problem = InvalidInputError(
        f"render_resolution = {quoted(given)} must be a resolution from 0 to {_FINEST}, a mapping from zooms to resolutions, "
        "'fused' or ('fused', offset)."
    )
    if given is None:
        return lambda _zoom: _FINEST
    if given == "fused":
        given = ("fused", 1)
    elif isinstance(given, str):  # from a template, a form or the command line
        try:
            given = ast.literal_eval(given.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            raise problem from None
    if isinstance(given, (tuple, list)):
        if len(given) != 2 or given[0] != "fused" or is_boolean(given[1]) or not isinstance(given[1], int):
            raise problem
        offset = given[1]
        # fusedio/udfs, Read_H3_dataset: the finest that it draws is 12 before the offset, the coarsest 2.
        return lambda zoom: max(min(int(3 + zoom / 1.5), 12) - offset, 2)
    if isinstance(given, Mapping):
        try:
            table = {int(zoom): _resolution(resolution) for zoom, resolution in given.items()}
        except (TypeError, ValueError, OverflowError):
            raise problem from None

        def find(zoom: int) -> int:
            if zoom not in table:
                raise InvalidInputError(f"render_resolution = {quoted(given)} has no resolution for zoom {zoom}.")
            return table[zoom]

        return find
    try:
        resolution = _resolution(given)
    except (TypeError, ValueError, OverflowError):
        raise problem from None
    return lambda _zoom: resolution


def _resolution(given: Any) -> int:
    if is_boolean(given) or int(given) != (given if not isinstance(given, str) else int(given)):
        raise ValueError(given)
    if not 0 <= int(given) <= _FINEST:
        raise ValueError(given)
    return int(given)


def outlines(cells: CellIds, scale: float = 1.0) -> tuple[Areas, Any]:
    """The outlines of cells, within longitudes ±180. Their edges are straight in degrees.

    Args:
        cells: H3 cell ids.
        scale: by how much to enlarge each outline, seen from its center.

    Returns:
        Those that lie within the map, and an array of shapely polygons for those that cross the antimeridian or hold a pole.
    """
    import numpy as np

    rings = list(map(_h3().cell_to_boundary, cells.tolist()))
    sizes = np.fromiter(map(len, rings), int, len(rings))
    first = np.cumsum(sizes) - sizes
    ring = np.repeat(np.arange(len(rings)), sizes)
    numbers = itertools.chain.from_iterable(itertools.chain.from_iterable(rings))
    points = np.fromiter(numbers, float, 2 * len(ring)).reshape(-1, 2)[:, ::-1]
    if scale != 1.0:
        points = _enlarged(points, ring, sizes, scale)
    after = np.arange(len(ring)) + 1
    after[first + sizes - 1] = first
    steps = points[after, 0] - points[:, 0]
    across = np.zeros(len(rings), bool)
    across[ring[np.abs(steps) > 180]] = True
    start = np.flatnonzero(~across[ring])
    number = (np.cumsum(~across) - 1)[ring[start]]
    polygons = partial(_polygons, points, first[~across], sizes[~across])
    drawn = [_across(points[ring == number], steps[ring == number]) for number in np.flatnonzero(across)]
    return Areas(points, start, after[start], number, polygons), within_the_map(np.array(drawn, dtype=object))


def _polygons(points: Any, first: Any, size: Any, numbers: Any) -> Any:
    """Some outlines as polygons, each one by itself, even if it is asked for several times.

    Args:
        points: the corners of all.
        first: the number of the first corner of each.
        size: how many corners it has.
        numbers: the outlines to be made.
    """
    import numpy as np
    import shapely

    first, size = first[numbers], size[numbers]
    place = np.repeat(np.arange(len(numbers)), size)
    at = np.arange(len(place)) + np.repeat(first - np.cumsum(size) + size, size)
    return shapely.polygons(shapely.linearrings(points[at], indices=place))


def _across(points: Any, steps: Any) -> Any:
    """An outline that crosses the antimeridian or goes around a pole, as a polygon that continues beyond ±180°.

    Args:
        points: its corners.
        steps: how far east the next corner is of each.
    """
    import numpy as np
    import shapely

    # From each point to the next one, the shorter way around. Once around the globe means around a pole.
    steps = (steps + 180) % 360 - 180
    unrolled = points[0, 0] + np.cumsum(steps) - steps
    corners = np.column_stack((unrolled, points[:, 1]))
    around = steps.sum()
    if abs(around) <= 180:
        return shapely.Polygon(corners)
    (start, height), pole = corners[0], np.copysign(90.0, corners[0, 1])
    stop = start + around
    return shapely.Polygon([*corners, (stop, height), (stop, pole), (start, pole)])


def _enlarged(points: Any, ring: Any, sizes: Any, scale: float) -> Any:
    """Points moved away from the middle of their ring, on the sphere, so that the poles are nothing special."""
    import numpy as np

    east, north = np.radians(points.T)
    points = np.array([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)])
    middles = np.array([np.bincount(ring, axis) / sizes for axis in points])[:, ring]
    x, y, z = middles + (points - middles) * scale
    return np.degrees(np.column_stack((np.arctan2(y, x), np.arctan2(z, np.hypot(x, y)))))


def _lines(path: str) -> list[str]:
    """The lines of a file of cells, without blank ones and those that begin with ``#``."""
    if rendered_to_nothing(path):
        raise InvalidInputError(f"cells is {path!r}, which looks like a template that rendered to nothing: {_FORMS}.")
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            text = file.read(MOST_BYTES)
            if file.read(1):
                raise ValueError(f"it has more than {MOST_BYTES >> 20:,} MiB: is it a list of cells?")
        lines = text.splitlines()
    except (OSError, ValueError) as error:
        said = (
            f"cells = {quoted(path, 300)} cannot be read as a file with one cell per line: "
            f"{without_credentials(error, str(path))}. For one cell, pass a list."
        )
        raise (InvalidInputError(said) if path.isalnum() else unreadable(error, said)) from None
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _number(cell: Any) -> int:
    if isinstance(cell, str):
        base = 16 if len(cell) < _DECIMAL_DIGITS else 10
        try:
            cell = int(cell if _HEXADECIMAL.fullmatch(cell) else "", base)
        except ValueError:
            raise InvalidInputError(f"cells: {quoted(cell)} is not an H3 cell id, such as '8928308280fffff'.") from None
    if type(cell).__name__ == "Decimal" and cell == cell // 1:  # the numbers of Snowflake
        cell = int(cell)
    if is_boolean(cell) or not hasattr(cell, "__index__"):
        lossy = " Floats cannot hold all digits of a cell id." if isinstance(cell, float) else ""
        raise InvalidInputError(f"cells: {quoted(cell)} is neither text nor a whole number.{lossy}")
    if not 0 <= int(cell) < 2**64:
        raise InvalidInputError(f"cells: {quoted(cell)} is not a valid H3 cell id.")
    return int(cell)


def _numbers(values: Any) -> CellIds:
    """The ids in a numpy array."""
    import numpy as np

    if values.dtype.kind in "iu":
        return np.asarray(values.ravel(), np.uint64)
    return _collected(values.ravel().tolist())


def _collected(cells: Iterable[Any]) -> CellIds:
    import numpy as np

    given = list(cells)
    if set(map(type, given)) == {str} and set(map(len, given)) == {_DIGITS} and _HEXADECIMAL.fullmatch("".join(given)):
        return np.array(list(map(int, given, itertools.repeat(16))), np.uint64)  # as h3 writes them
    return np.array(list(map(_number, given)), np.uint64)


def _checked(ids: CellIds, what: str) -> CellIds:
    """The ids in ascending order, each once.

    Raises:
        InvalidInputError: one of them is not a cell.
    """
    ids = _distinct(ids)
    valid = _h3().is_valid_cell
    for cell in ids.tolist():
        if not valid(cell):
            raise InvalidInputError(f"{what}: {cell:x} ({cell}) is not a valid H3 cell id.")
    return ids


def _partitions(given: Any) -> list[str]:
    partitions = [given] if isinstance(given, str) else list(given) if isinstance(given, (list, tuple)) else []
    for partition in partitions or [given]:
        if not isinstance(partition, str) or rendered_to_nothing(partition.strip("/")) or ".." in partition.split("/"):
            raise InvalidInputError(
                f"partition = {quoted(given)} is not a folder in the dataset, such as 'date=2026-11-22', or a list of these. "
                "For the whole dataset, omit it."
            )
    return [partition.strip("/") for partition in partitions]


def _leaves(folder: str, said: str) -> set[int]:
    """The cells that name the data files in a folder."""
    system, path = file_system(folder, extra="h3")
    try:
        files = [name[len(path.rstrip("/")) :].lstrip("/") for name in system.find(path)]
    except Exception as error:
        raise unreadable(error, f"{said} cannot be listed: {without_credentials(error, folder)}.") from None
    data = [name for name in files if name.lower().endswith(".parquet") and not _NO_DATA.search(name)]
    if not data:
        raise InvalidInputError(f"{said} has no data files: does it exist, and is it written like this?")
    cells = set()
    for name in data:
        match = _LEAF.fullmatch(name.lower().rpartition("/")[2])
        if match is None:
            raise InvalidInputError(
                f"{said} has a file {name!r} that is not named by a cell, as fused.h3.partition names them. Pass what changed "
                "as cells= instead."
            )
        cells.add(_number(match[1]))
    return cells


def _resolutions(ids: CellIds) -> Any:
    import numpy as np

    return ((ids >> np.uint64(_RESOLUTION)) & np.uint64(15)).astype(np.int64)


def _parents(ids: CellIds, resolution: int) -> CellIds:
    """The parents of cells at one resolution, by the layout of the ids: the unused digits, of three bits each, are all ones."""
    import numpy as np

    unused = np.uint64((1 << 3 * (_FINEST - resolution)) - 1)
    cleared = ids & ~np.uint64(15 << _RESOLUTION) | np.uint64(resolution << _RESOLUTION)
    return cleared | unused


def _children(ids: CellIds, resolution: int) -> CellIds:
    import numpy as np

    children = _h3().cell_to_children
    return np.fromiter((child for cell in ids.tolist() for child in children(cell, resolution)), np.uint64)


def _distinct(ids: CellIds) -> CellIds:
    """In ascending order, each once."""
    import numpy as np

    ids = np.sort(ids)  # faster than numpy.unique, which hashes
    return np.asarray(ids[np.append(True, ids[1:] != ids[:-1])[: len(ids)]])


def _none() -> Any:
    import numpy as np

    return np.empty(0, dtype=object)


def _h3() -> Any:
    return import_geo("h3.api.basic_int", "h3", extra="h3")
