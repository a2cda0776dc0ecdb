"""H3 cells as areas of the map. Needs the extra ``h3``.

A map does not draw a fine cell at a coarse zoom: it draws a parent. What changed there is all of that parent, so its own
outline is covered. Cells of Fused's datasets are found by the names of their files, see `read_hex_dataset`.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fused_cache_ops.errors import InvalidInputError, unreadable
from fused_cache_ops.keywords.values import NOT_GIVEN, RenderResolution
from fused_cache_ops.selection.arrow import is_arrow, read_values
from fused_cache_ops.selection.shapes import file_system, import_geo, within_the_map
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
_LEAF = re.compile(r"([0-9a-f]{15}|[0-9]{18})\.parquet")
_NO_DATA = re.compile(r"(^|/)([._]|overview/)")
_DECIMAL_DIGITS = 17  # text this long is not hexadecimal
_AT_ONCE = 20_000  # cells to cover at once
_LEVELS = 2  # generations of a file's cell that are covered one by one
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

    def portions(self, zooms: Iterable[int], rendering: Callable[[int], int]) -> Iterator[tuple[tuple[int, ...], Any]]:
        """Outlines of the cells that a map draws, as collections of shapely polygons with the zooms that draw them.

        Args:
            zooms: the zooms to cover.
            rendering: the resolution that is drawn at a zoom.
        """
        by_resolution: dict[int, list[int]] = {}
        for zoom in zooms:
            by_resolution.setdefault(rendering(zoom), []).append(zoom)
        for resolution, at in by_resolution.items():
            for drawn, scale in self._drawn(resolution):
                for start in range(0, len(drawn), _AT_ONCE):
                    yield tuple(at), outlines(drawn[start : start + _AT_ONCE], scale)

    def _drawn(self, resolution: int) -> Iterator[tuple[CellIds, float]]:
        """The cells drawn at a resolution, and by how much their outlines have to be enlarged."""
        import numpy as np

        own = _resolutions(self.ids)
        coarser = own > resolution
        exact = [_parents(self.ids[coarser], resolution)]
        if not self.hold_finer:
            yield np.unique(np.concatenate([*exact, self.ids[~coarser]])), 1.0
            return
        rest = self.ids[~coarser]
        for level in np.unique(own[~coarser]).tolist():
            cells = rest[_resolutions(rest) == level]
            finest = min(resolution, level + _LEVELS)
            descendants = _descendants(cells, finest)
            if finest == resolution:
                exact.append(descendants)
            else:
                yield descendants, _OVERHANG
        yield np.unique(np.concatenate(exact)), 1.0


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
        except (TypeError, ValueError):
            raise problem from None

        def find(zoom: int) -> int:
            if zoom not in table:
                raise InvalidInputError(f"render_resolution = {quoted(given)} has no resolution for zoom {zoom}.")
            return table[zoom]

        return find
    try:
        resolution = _resolution(given)
    except (TypeError, ValueError):
        raise problem from None
    return lambda _zoom: resolution


def _resolution(given: Any) -> int:
    if is_boolean(given) or int(given) != (given if not isinstance(given, str) else int(given)):
        raise ValueError(given)
    if not 0 <= int(given) <= _FINEST:
        raise ValueError(given)
    return int(given)


def outlines(cells: CellIds, scale: float = 1.0) -> Any:
    """The outlines of cells as one collection of shapely polygons within longitudes ±180. Their edges are straight in degrees.

    Args:
        cells: H3 cell ids.
        scale: by how much to enlarge each outline, seen from its center.
    """
    import numpy as np
    import shapely

    rings = list(map(_h3().cell_to_boundary, cells.tolist()))
    if not rings:
        return shapely.GeometryCollection()
    sizes = np.array(list(map(len, rings)))
    first = np.cumsum(sizes) - sizes
    ring = np.repeat(np.arange(len(rings)), sizes)
    latitude, longitude = np.array([point for points in rings for point in points]).T
    if scale != 1.0:
        longitude, latitude = _enlarged(longitude, latitude, ring, sizes, scale)
    # From each point to the next one, the shorter way around. Once around the globe means around a pole.
    after = np.arange(len(ring)) + 1
    after[first + sizes - 1] = first
    steps = (longitude[after] - longitude + 180) % 360 - 180
    around = np.bincount(ring, steps)
    before = np.cumsum(steps) - steps
    unrolled = longitude[first][ring] + before - before[first][ring]
    polar = np.abs(around) > 180
    plain = ~polar[ring]
    _, numbers = np.unique(ring[plain], return_inverse=True)
    drawn = list(shapely.polygons(shapely.linearrings(unrolled[plain], latitude[plain], indices=numbers)))
    for number in np.flatnonzero(polar):
        points = np.column_stack((unrolled, latitude))[ring == number]
        (start, height), pole = points[0], np.copysign(90.0, points[0, 1])
        stop = start + around[number]
        drawn.append(shapely.Polygon([*points, (stop, height), (stop, pole), (start, pole)]))
    return within_the_map(shapely.geometrycollections(drawn))


def _enlarged(longitude: Any, latitude: Any, ring: Any, sizes: Any, scale: float) -> tuple[Any, Any]:
    """Points moved away from the middle of their ring, on the sphere, so that the poles are nothing special."""
    import numpy as np

    east, north = np.radians(longitude), np.radians(latitude)
    points = np.array([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)])
    middles = np.array([np.bincount(ring, axis) / sizes for axis in points])[:, ring]
    x, y, z = middles + (points - middles) * scale
    return np.degrees(np.arctan2(y, x)), np.degrees(np.arctan2(z, np.hypot(x, y)))


def _lines(path: str) -> list[str]:
    """The lines of a file of cells, without blank ones and those that begin with ``#``."""
    if rendered_to_nothing(path):
        raise InvalidInputError(f"cells is {path!r}, which looks like a template that rendered to nothing: {_FORMS}.")
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        said = (
            f"cells = {quoted(path, 300)} cannot be read as a file with one cell per line: "
            f"{without_credentials(error, str(path))}. For one cell, pass a list."
        )
        raise (InvalidInputError(said) if path.isalnum() else unreadable(error, said)) from None
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _number(cell: Any) -> int:
    if isinstance(cell, str):
        try:
            cell = int(cell, 16) if len(cell) < _DECIMAL_DIGITS else int(cell)
        except ValueError:
            raise InvalidInputError(f"cells: {quoted(cell)} is not an H3 cell id, such as '8928308280fffff'.") from None
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

    return np.array(list(map(_number, cells)), np.uint64)


def _checked(ids: CellIds, what: str) -> CellIds:
    """The ids in ascending order, each once.

    Raises:
        InvalidInputError: one of them is not a cell.
    """
    import numpy as np

    ids = np.unique(ids)
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
    """The parents at one resolution, by the layout of the ids: the unused digits, of three bits each, are all ones."""
    import numpy as np

    unused = np.uint64((1 << 3 * (_FINEST - resolution)) - 1)
    cleared = ids & ~np.uint64(15 << _RESOLUTION) | np.uint64(resolution << _RESOLUTION)
    return np.unique(cleared | unused)


def _descendants(ids: CellIds, resolution: int) -> CellIds:
    import numpy as np

    children = _h3().cell_to_children
    return np.array([child for cell in ids.tolist() for child in children(cell, resolution)], np.uint64)


def _h3() -> Any:
    return import_geo("h3.api.basic_int", "h3", extra="h3")
