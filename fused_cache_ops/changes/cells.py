"""Where the cells of a Zarr array are: by the coordinates of its dimensions, or by a transform."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.selection.arrow import Unknown
from fused_cache_ops.selection.geometry import Systems
from fused_cache_ops.selection.rasters import Grid, outlines_of
from fused_cache_ops.selection.reprojection import DEGREES
from fused_cache_ops.selection.shapes import import_geo
from fused_cache_ops.wording import quoted

_MOST_CELLS = 10_000_000
"""Along a dimension."""

_ROWS = ("y", "lat", "latitude", "northing", "northings")
_COLUMNS = ("x", "lon", "long", "longitude", "easting", "eastings")
_STANDARD = {"latitude": 0, "projection_y_coordinate": 0, "longitude": 1, "projection_x_coordinate": 1}
_DEGREES = {"lat", "latitude", "lon", "long", "longitude"}
_FARTHEST = (90, 540)
"""Degrees of latitude and of longitude."""
_METRES = ("m", "meter", "meters", "metre", "metres")
_KILOMETRES = ("km", "kilometer", "kilometers", "kilometre", "kilometres")


class Cells(NamedTuple):
    """Rows and columns of cells of any width.

    Attributes:
        rows: the edges of the rows, one more than there are rows.
        columns: the edges of the columns.
        system: their reference system in a form that pyproj reads.
        is_geographic: whether they are degrees.
    """

    rows: Any
    columns: Any
    system: Any
    is_geographic: bool

    @property
    def size(self) -> tuple[int, int]:
        """How many columns and rows there are."""
        return len(self.columns) - 1, len(self.rows) - 1

    def outlines(self, windows: Any) -> Any:
        """As `Grid.outlines`."""
        import numpy as np

        left, top, right, bottom = np.asarray(windows, dtype=np.int64).reshape(-1, 4).T
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        rings = [np.stack((self.columns[column], self.rows[row]), axis=-1) for column, row in corners]
        return outlines_of(np.stack(rings, axis=1), self.is_geographic)


class Layout(NamedTuple):
    """What says where the cells of an array are, and what they mean.

    Attributes:
        axes: which dimensions are the rows and the columns.
        grid: where these are.
        coordinates: the values of each dimension that has any, as they are stored.
        said: all that must be the same for the same values to look the same, but for the array's shape, as text.
    """

    axes: tuple[int, int]
    grid: Cells | Grid
    coordinates: Mapping[str, Any]
    said: str


def read_layout(array: Any, groups: list[Any], dimensions: Any, crs: Any, what: str) -> Layout:
    """The layout of a Zarr array.

    Args:
        array: the array.
        groups: the groups that it is in, its own first.
        dimensions: the names of the rows and the columns. None: they are told by what the array says.
        crs: the reference system, if the array does not say it. None: it must.
        what: how messages name the array.

    Raises:
        InvalidInputError: the array does not say where its cells are.
    """
    names = array.metadata.dimension_names or ()
    found = {name: _coordinate(groups, name, what) for name in names if name}
    arrays = {name: each for name, each in found.items() if each is not None}
    attributes = [dict(each.attrs) for each in (array, groups[0])]
    axes = _axes(names, arrays, dimensions, attributes, what)
    mapping = _grid_mapping(array, groups)
    said = _system(mapping, attributes)
    pair = [names[axis] for axis in axes]
    for axis, name in zip(axes, pair):
        if name in arrays and arrays[name].shape[0] != array.shape[axis]:
            raise InvalidInputError(
                f"{what} has {array.shape[axis]} cells along {quoted(name)}, but the array of that name has "
                f"{arrays[name].shape[0]} values."
            )
    if said is Unknown and crs is None and all(_means_degrees(name, arrays.get(name)) for name in pair):
        said = DEGREES
    if said is Unknown and crs is None:
        raise InvalidInputError(f"{what} does not say its coordinate reference system: name it by crs=, such as 'EPSG:32633'.")
    system = Systems(crs).find(said, what)
    is_geographic = system is None or bool(system.is_geographic)
    if said is Unknown and is_geographic and _is_curved(array, groups):
        raise InvalidInputError(
            f"{what} has coordinates of two dimensions, so its rows and columns are no places in degrees: its grid is curved. "
            "Pass its area as geometry instead."
        )
    if not is_geographic and any(_means_degrees(name, arrays.get(name)) for name in pair):
        raise InvalidInputError(
            f"{what} has coordinates in degrees, {' and '.join(map(quoted, pair))}, but its reference system is projected: "
            "name the right one by crs=, such as 'EPSG:4326'."
        )
    written = DEGREES if system is None else system.to_json()
    values = {name: each[...] for name, each in arrays.items()}
    transform = _transform(mapping, attributes)
    grid: Cells | Grid
    if all(name in arrays for name in pair):
        for name in pair:
            _check_units(arrays[name], system, f"{what[:-1]}: its coordinate {quoted(name)}")
        rows, columns = (
            _edges(values[name], arrays[name], groups, transform, side, is_geographic, f"{what} whose {quoted(name)}")
            for side, name in enumerate(pair)
        )
        grid = Cells(rows, columns, written, is_geographic)
    elif transform is not None:
        height, width = (array.shape[axis] for axis in axes)
        grid = Grid(transform, width, height, written, is_geographic)
    else:
        missing = next(name for name in pair if name not in arrays)
        raise InvalidInputError(
            f"{what} has no coordinates: there is no array {quoted(missing)} of one dimension, and no spatial:transform or "
            "GeoTransform. Write the coordinates of the cells' centers beside it. Where a grid is curved, pass its area as "
            "geometry instead."
        )
    metadata = {name: each for name, each in array.metadata.to_dict().items() if name != "shape"}
    of_dimensions = {name: dict(each.attrs) for name, each in arrays.items()}
    everything = [metadata, [dict(each.attrs) for each in groups], of_dimensions, mapping]
    return Layout(axes, grid, values, json.dumps(everything, sort_keys=True, default=str))


def _arrays(groups: list[Any], name: Any) -> Iterator[Any]:
    """The arrays of a name, in the array's group and in those around it."""
    for group in groups:
        each = group.get(name) if name else None
        if hasattr(each, "shape"):
            yield each


def _coordinate(groups: list[Any], name: str, what: str) -> Any:
    """The array with the values of a dimension. None: there is none."""
    found = next((each for each in _arrays(groups, name) if each.ndim == 1), None)
    if found is not None and found.shape[0] > _MOST_CELLS:
        raise InvalidInputError(f"{what} has {found.shape[0]:,} values of {quoted(name)}: {_MOST_CELLS:,} are the most.")
    return found


def _axes(
    names: Any, arrays: Mapping[str, Any], dimensions: Any, attributes: list[dict[str, Any]], what: str
) -> tuple[int, int]:
    given = dimensions if dimensions is not None else attributes[0].get("spatial:dimensions")
    if given is None:
        given = attributes[1].get("spatial:dimensions")
    has = f"{what} has the dimensions {', '.join(map(quoted, names))}." if names else f"{what} has no names of dimensions."
    if given is not None:
        pair = list(given) if isinstance(given, (list, tuple)) else [given]
        if len(pair) != 2 or pair[0] == pair[1] or not set(map(str, pair)) <= set(names):
            raise InvalidInputError(f"dimensions = {quoted(given)} must name the rows and the columns. {has}")
        if _side(pair[0], arrays) == 1 or _side(pair[1], arrays) == 0:
            raise InvalidInputError(f"dimensions = {quoted(given)} name the columns first: name the rows first. {has}")
        return names.index(pair[0]), names.index(pair[1])
    sides: tuple[list[int], list[int]] = ([], [])
    for axis, name in enumerate(names):
        if name and (side := _side(name, arrays)) is not None:
            sides[side].append(axis)
    if [len(each) for each in sides] != [1, 1]:
        raise InvalidInputError(
            f"{has} Say which are its rows and columns by dimensions=, such as ('y', 'x')."
            if names
            else f"{has} Write it anew with these (dimension_names)."
        )
    return sides[0][0], sides[1][0]


def _side(name: str, arrays: Mapping[str, Any]) -> int | None:
    """Whether a dimension is that of the rows (0) or of the columns (1), by what its coordinates say or by its name."""
    said = dict(arrays[name].attrs) if name in arrays else {}
    side = {"Y": 0, "X": 1}.get(said.get("axis", ""), _STANDARD.get(str(said.get("standard_name"))))
    return side if side is not None else 0 if name.lower() in _ROWS else 1 if name.lower() in _COLUMNS else None


def _is_curved(array: Any, groups: list[Any]) -> bool:
    """Whether an array has coordinates of two dimensions (CF), so that those of its rows and columns are no places."""
    names = str(array.attrs.get("coordinates", "")).split()
    return any(each.ndim == 2 for name in names for each in _arrays(groups, name))


def _grid_mapping(array: Any, groups: list[Any]) -> dict[str, Any]:
    """What the variable of the array's reference system says (CF), or an empty mapping."""
    named = str(array.attrs.get("grid_mapping", "")).partition(":")[0].strip()
    found = (each for name in ((named,) if named else ("spatial_ref", "crs")) for each in _arrays(groups, name))
    return next((dict(each.attrs) for each in found), {})


def _system(mapping: Mapping[str, Any], attributes: list[dict[str, Any]]) -> Any:
    """The reference system that an array names, in a form that pyproj reads."""
    for name in ("crs_wkt", "spatial_ref"):
        if mapping.get(name):
            return mapping[name]
    if mapping.get("grid_mapping_name"):
        pyproj = import_geo("pyproj")
        try:
            return pyproj.CRS.from_cf(dict(mapping)).to_json_dict()
        except (pyproj.exceptions.CRSError, KeyError, ValueError, TypeError):
            return Unknown
    for each in attributes:
        for name in ("proj:code", "proj:wkt2", "proj:projjson"):
            if each.get(name):
                return each[name]
    return Unknown


def _means_degrees(name: str, coordinate: Any) -> bool:
    """Whether a dimension is of latitudes or longitudes by its name or by what its coordinates say."""
    said = {} if coordinate is None else dict(coordinate.attrs)
    of_units = str(said.get("units", "")).lower().startswith(("degrees_", "degree_"))
    return of_units or name.lower() in _DEGREES or said.get("standard_name") in ("latitude", "longitude")


def _check_units(coordinate: Any, system: Any, what: str) -> None:
    """Reject coordinates in another unit than their reference system's."""
    units = str(coordinate.attrs.get("units", "")).strip().lower()
    expected = "degree" if system is None else str(system.axis_info[0].unit_name).lower()
    known: tuple[str, ...] = next((each for each in (_METRES, _KILOMETRES) if expected in each), (expected,))
    if units and units not in known and not (expected == "degree" and units.startswith("deg")):
        raise InvalidInputError(
            f"{what} is in {quoted(units)}, but its reference system is in {quoted(expected)}: name one in that unit by crs=, "
            "such as '+proj=utm +zone=33 +units=km'."
        )


def _transform(mapping: Mapping[str, Any], attributes: list[dict[str, Any]]) -> tuple[float, ...] | None:
    """From columns and rows to coordinates, in the order of rasterio: of the convention ``spatial:``, or GDAL's."""
    try:
        for each in attributes:
            if "spatial:transform" in each:
                a, b, c, d, e, f = map(float, each["spatial:transform"][:6])
                half = 0.5 if each.get("spatial:registration") == "node" else 0.0
                return a, b, c - half * (a + b), d, e, f - half * (d + e)
        if "GeoTransform" in mapping:
            said = mapping["GeoTransform"]
            c, a, b, f, d, e = map(float, said.split() if isinstance(said, str) else said)
            return a, b, c, d, e, f
    except (TypeError, ValueError):
        pass
    return None


def _edges(stored: Any, coordinate: Any, groups: list[Any], transform: Any, side: int, is_geographic: bool, what: str) -> Any:
    """The edges of cells, halfway between their centers."""
    import numpy as np

    if stored.dtype.kind not in "iuf":
        raise InvalidInputError(f"{what} is of type {stored.dtype}, and not of numbers.")
    said = coordinate.attrs
    centers = stored.astype(float) * float(said.get("scale_factor", 1)) + float(said.get("add_offset", 0))
    if not np.isfinite(centers).all():
        raise InvalidInputError(f"{what} has values that are no numbers.")
    most = _FARTHEST[side] if is_geographic else np.inf
    if (np.abs(centers) > most).any():
        raise InvalidInputError(f"{what} goes beyond {most} degrees: name the reference system of its numbers by crs=.")
    if len(centers) == 0:
        return np.zeros(1)
    if len(centers) == 1:
        return centers + _of_one_cell(coordinate, groups, transform, side, centers, what)
    if side == 1 and is_geographic and not _is_sorted(centers):
        centers = np.unwrap(centers, period=360)  # across the antimeridian, or from 350 to 10
    if not _is_sorted(centers):
        raise InvalidInputError(f"{what} is not sorted, or has a value twice, so that its cells have no edges.")
    steps = np.diff(centers)
    middles = (centers[:-1] + centers[1:]) / 2
    return np.concatenate([[centers[0] - steps[0] / 2], middles, [centers[-1] + steps[-1] / 2]])


def _is_sorted(centers: Any) -> bool:
    import numpy as np

    steps = np.diff(centers)
    return bool((steps > 0).all() or (steps < 0).all())


def _of_one_cell(coordinate: Any, groups: list[Any], transform: Any, side: int, center: Any, what: str) -> Any:
    """Where the two edges of the only cell are, from its center: by its bounds (CF), or by a transform."""
    import numpy as np

    bounds = next(_arrays(groups, coordinate.attrs.get("bounds")), None)
    if bounds is not None and bounds.shape == (1, 2):
        return np.asarray(bounds[0], dtype=float) - center
    if transform is not None:
        step = transform[4 if side == 0 else 0]
        return np.array([-step / 2, step / 2])
    raise InvalidInputError(
        f"{what} is a single value, which does not tell how large the cell is: write its edges beside it (the attribute "
        "bounds, as CF has it), or a GeoTransform."
    )
