"""Tiles in the XYZ (Web Mercator) scheme, ``z/x/y``, validated one by one as they are read."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Union

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.tiles.projection import TOLERANCE, row_fraction
from fused_cache_ops.wording import quoted

HIGHEST_ZOOM = 30
"""The default of ``max_zoom``. Fused documents no zoom range, and no web map goes beyond 30."""

ZOOM_LIMIT = 31
"""What ``max_zoom`` may be at most. A tile there is 2 cm wide, and its column and row still fit into one number of 64 bits,
which is how geometries are covered."""

QUADKEY = re.compile(rf"[0-3]{{1,{ZOOM_LIMIT}}}", re.ASCII)
"""One digit for each zoom level, as Bing Maps numbers tiles."""

_PATH = re.compile(r"\s*(\d{1,10})/(\d{1,10})/(\d{1,10})\s*", re.ASCII)
_ALLOWED = "allowed: Tile, (z, x, y), 'z/x/y' or {'z': …, 'x': …, 'y': …}"


class Tile(NamedTuple):
    """A map tile: zoom ``z``, column ``x`` from the west, row ``y`` from the north."""

    z: int
    x: int
    y: int

    @classmethod
    def containing(cls, longitude: float, latitude: float, zoom: int) -> Tile:
        """The tile that contains a point, given in degrees (WGS 84).

        A tile owns its west and north edges. Longitudes wrap. Latitudes beyond Web Mercator's ±85.0511° fall in the
        outermost row.

        Raises:
            InvalidInputError: a coordinate is not finite, the latitude is beyond ±90°, or the zoom is out of range.
        """
        if not (math.isfinite(longitude) and math.isfinite(latitude) and abs(latitude) <= 90):
            raise InvalidInputError(
                f"({longitude}, {latitude}) is not a point: pass finite degrees, longitude first, latitude from -90 to 90."
            )
        _check_zoom(zoom, HIGHEST_ZOOM, f"zoom {quoted(zoom)}")
        size = 2**zoom
        tolerance = TOLERANCE / 360 * size
        x = math.floor((longitude + 180) / 360 * size + tolerance) % size
        y = math.floor(row_fraction(latitude) * size + tolerance)
        return cls(zoom, x, max(0, min(y, size - 1)))

    def __str__(self) -> str:
        return f"{self.z}/{self.x}/{self.y}"


TileLike = Union[Tile, tuple[int, int, int], list[int], str, Mapping[str, int]]
"""What is accepted as a tile. Objects with the attributes ``z``, ``x`` and ``y`` (such as mercantile's) are read by name."""


class TileStream(Iterator[Tile]):
    """Validated tiles from any iterable of `TileLike`, read one at a time and never collected.

    A tile that is out of range or malformed raises `InvalidInputError`. Iterating further continues after it.

    Args:
        tiles: the caller's iterable.
        max_zoom: the highest zoom allowed.
        order: ``"zxy"`` or ``"xyz"``, the order of three numbers that have no names.
        watch: called before each tile. It raises when the tiles are no longer wanted.

    Raises:
        InvalidInputError: ``tiles`` is not an iterable of tiles.
    """

    def __init__(
        self,
        tiles: Iterable[TileLike],
        *,
        max_zoom: int = HIGHEST_ZOOM,
        order: str = "zxy",
        watch: Callable[[], None] | None = None,
    ) -> None:
        self._raw = _iterate(tiles)
        self._max_zoom = max_zoom
        self._order = order
        self._position = -1
        self._watch = watch

    def __next__(self) -> Tile:
        if self._watch is not None:
            self._watch()
        item = next(self._raw)
        self._position += 1
        return parse_tile(item, max_zoom=self._max_zoom, position=self._position, order=self._order)


def parse_tile(item: TileLike, *, max_zoom: int = HIGHEST_ZOOM, position: int | None = None, order: str = "zxy") -> Tile:
    """Read and validate one tile.

    Args:
        item: a `Tile`, ``(z, x, y)``, ``"z/x/y"``, a mapping, or an object with attributes ``z``, ``x``, ``y``.
        max_zoom: the highest zoom allowed.
        position: its position in the selection, for the error message.
        order: ``"zxy"`` or ``"xyz"``, the order of three numbers that have no names.

    Raises:
        InvalidInputError: the tile is malformed or out of range.
    """
    # The common case comes first: this runs once for each of millions of tiles.
    if type(item) is Tile or (order == "zxy" and type(item) is tuple and len(item) == 3):
        z, x, y = item
        if type(z) is int and type(x) is int and type(y) is int and 0 <= z <= max_zoom:
            size = 1 << z
            if 0 <= x < size and 0 <= y < size:
                return item if type(item) is Tile else Tile(z, x, y)
    where = "tile" if position is None else f"tiles[{position}]"
    shown = f"{where} = {quoted(tuple(item) if type(item) is Tile else item)}"
    z, x, y = (_whole_number(value, name, shown) for name, value in zip("zxy", _coordinates(item, shown, order)))
    if 0 <= z <= max_zoom and 0 <= x < 2**z and 0 <= y < 2**z:
        return Tile(z, x, y)
    remedy = _other_order(item, (z, x, y), order, max_zoom)
    _check_zoom(z, max_zoom, shown, remedy)
    for name, value in (("x", x), ("y", y)):
        if not 0 <= value < 2**z:
            raise InvalidInputError(
                f"{shown}: {name}={quoted(value)} is outside 0 … {2**z - 1}, the range at zoom {z}.{remedy}"
            )
    raise AssertionError(shown)  # one of the three was out of range


def _other_order(item: Any, read: tuple[int, int, int], order: str, max_zoom: int) -> str:
    """What to say of three numbers that are a tile only in the other order."""
    if isinstance(item, (str, Mapping)) or _has_attributes(item):
        return ""
    z, x, y = (read[2], read[0], read[1]) if order == "zxy" else (read[1], read[2], read[0])
    if not 0 <= z <= max_zoom or not 0 <= x < 2**z or not 0 <= y < 2**z:
        return ""
    other = "xyz" if order == "zxy" else "zxy"
    return f" It is a tile as ({', '.join(other)}): if all are written so, pass order='{other}'."


def from_quadkey(quadkey: str) -> tuple[int, int, int]:
    """Zoom, column and row of a quadkey.

    Raises:
        InvalidInputError: it is not a quadkey.
    """
    if not isinstance(quadkey, str) or QUADKEY.fullmatch(quadkey) is None:
        raise InvalidInputError(f"{quoted(quadkey)} is not a quadkey: expected text with a digit from 0 to 3 for each zoom.")
    x = int("".join(str(int(digit) & 1) for digit in quadkey), 2)
    y = int("".join(str(int(digit) >> 1) for digit in quadkey), 2)
    return len(quadkey), x, y


def _iterate(tiles: Iterable[TileLike]) -> Iterator[TileLike]:
    if tiles is None:
        raise InvalidInputError(
            "tiles is None: did a load step return nothing? Omit tiles to invalidate the whole UDF, "
            "or pass [] to invalidate nothing."
        )
    if isinstance(tiles, (str, bytes, bytearray, Mapping)) or _has_attributes(tiles):
        raise InvalidInputError(
            f"tiles = {quoted(tiles)} is not a collection of tiles: put a single tile in a list; pass a table as .itertuples()."
        )
    try:
        return iter(tiles)
    except TypeError:
        pass
    raise InvalidInputError(f"tiles = {quoted(tiles)} is not a collection of tiles: pass an iterable; {_ALLOWED}.")


def _has_attributes(item: object) -> bool:
    return all(hasattr(item, name) for name in "zxy")


def _coordinates(item: Any, shown: str, order: str) -> tuple[Any, Any, Any]:
    if not _has_attributes(item) and hasattr(item, "tolist"):  # a row of a numpy array, read by name if it is structured
        names = getattr(getattr(item, "dtype", None), "names", None)
        item = dict(zip(names, item.tolist())) if names else item.tolist()
    if isinstance(item, str):
        if match := _PATH.fullmatch(item):
            z, x, y = match.groups()
            return int(z), int(x), int(y)
    elif isinstance(item, Mapping):
        if set(item) == {"z", "x", "y"}:
            return item["z"], item["x"], item["y"]
        raise InvalidInputError(f"{shown} must have exactly the keys z, x and y: the service accepts all three or none.")
    elif _has_attributes(item):  # before tuples: mercantile's tile is the tuple (x, y, z)
        return item.z, item.x, item.y
    elif isinstance(item, (tuple, list)):
        if len(item) == 3:
            return (item[0], item[1], item[2]) if order == "zxy" else (item[2], item[0], item[1])
        raise InvalidInputError(f"{shown} has {len(item)} parts; a tile has three: ({', '.join(order)}).")
    hint = " For a single tile, write tiles=[(z, x, y)]." if isinstance(item, (int, float)) else ""
    raise InvalidInputError(f"{shown} is not a tile; {_ALLOWED}.{hint}")


def _whole_number(value: Any, name: str, shown: str) -> int:
    if not is_boolean(value):
        try:
            return operator.index(value)
        except TypeError:
            pass
        try:  # 10.0, and the decimals of warehouses
            whole, parts = value.as_integer_ratio()
            if parts == 1:
                return int(whole)
        except (AttributeError, ValueError, OverflowError):  # neither, or not finite
            pass
    raise InvalidInputError(f"{shown}: {name}={quoted(value)} is not a whole number.")


def is_boolean(value: object) -> bool:
    """Whether a value is a Python or numpy boolean, which would otherwise be taken for 0 or 1."""
    return type(value).__name__ in ("bool", "bool_")


def _check_zoom(z: int, max_zoom: int, shown: str, remedy: str = "") -> None:
    if isinstance(z, bool) or not isinstance(z, int) or not 0 <= z <= max_zoom:
        raise InvalidInputError(f"{shown}: the zoom must be a whole number from 0 to {max_zoom} (max_zoom).{remedy}")
