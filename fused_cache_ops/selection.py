"""What a caller selected, checked: the whole UDF, or tiles from a list, bounds or a geometry."""

from __future__ import annotations

import copy
import hashlib
import itertools
import math
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Set
from typing import TYPE_CHECKING, Any, Literal, Union

from fused_cache_ops.batches import Batch, BlockBatches, TileBatches, tiles_of
from fused_cache_ops.blocks import Block, blocks_in_bounds, disjoint, wrapped
from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.spans import EVERYTHING, Span, Spans
from fused_cache_ops.tile_list import TileList, TilesFile, check_source, is_repeatable
from fused_cache_ops.tiles import (
    DEFAULT_MAX_TILES,
    HIGHEST_ZOOM,
    NOT_GIVEN,
    WHOLE_UDF,
    NotGiven,
    RemainingTiles,
    Tile,
    TileSelection,
    TileStream,
    is_boolean,
)
from fused_cache_ops.zooms import Zooms, parse_zooms

if TYPE_CHECKING:
    from fused_cache_ops.keywords import SelectionKeywords

WhenTooMany = Literal["fail", "whole-udf", "coarser"]
Bounds = Union[tuple[float, float, float, float], "list[float]", Iterable[Iterable[float]]]


_READ_AHEAD = 50_000
_KEPT_BLOCKS = 200_000  # of a cover that has been counted, to spare its computing once more
_RECENT = 200_000  # tiles that an expanded list remembers, to spare sending them twice


class Selection:
    """Tiles, countable and in batches; or the whole UDF.

    Attributes:
        whole: the whole UDF: there are no tiles.
        zooms_left_stale: the zooms that were left out since there were too many tiles.
        note: what was done about too many tiles, in words.
        shard: the part of it that this is, ``(i, n)``; None: it is whole.
        repeatable: whether it can be read more than once.
    """

    def __init__(
        self,
        make: Callable[[], Iterator[Tile] | Iterator[Block]] | None,
        *,
        blocks: bool = False,
        repeatable: bool = True,
        note: str | None = None,
        size: int | None = None,
    ) -> None:
        self.whole = make is None
        self.zooms_left_stale: tuple[int, ...] = ()
        self.note = note
        self.shard: tuple[int, int] | None = None
        self._windows: tuple[Span, ...] = EVERYTHING
        self._size = size
        self._make = make or (lambda: iter(()))
        self._blocks = blocks
        self.repeatable = repeatable
        self._counts: dict[int, int] | None = None
        self._kept: list[Block] | None = None

    def batches(self, size: int, done: Spans | None = None) -> Iterator[Batch]:
        """The tiles, in batches of ``size``, without those at the positions that are done."""
        windows = self._windows if done is None else tuple(done.missing(self._windows))
        stream: Any = self._stream()
        return BlockBatches(stream, size, windows) if self._blocks else TileBatches(stream, size, windows)

    def tiles(self) -> Iterator[Tile]:
        """The tiles, one by one."""
        return itertools.chain.from_iterable(self.batches(_READ_AHEAD))

    def remaining(self, done: Spans, *, past_unreadable: bool) -> RemainingTiles:
        """The tiles that are not done, read anew.

        Args:
            done: the positions that are.
            past_unreadable: leave out the first tile that cannot be read, which has been told of.
        """

        def read() -> Iterator[Tile]:
            tiles = tiles_of(self.batches(_READ_AHEAD, done))
            try:
                yield from tiles
            except InvalidInputError:
                if not past_unreadable:
                    raise
            yield from tiles

        return RemainingTiles([], make=read)

    def blocks(self) -> Iterator[Block]:
        """The tiles as blocks."""
        if self._blocks and self._windows == EVERYTHING:
            return self._stream()  # type: ignore[return-value]
        return itertools.chain.from_iterable(batch.blocks() for batch in self.batches(_READ_AHEAD))

    def known_count(self) -> int | None:
        """How many tiles there are, where that can be told without reading them."""
        if self._windows != EVERYTHING:
            return sum(int(stop) - start for start, stop in self._windows)
        return self._size if self._counts is None else sum(self.tiles_per_zoom().values())

    def end(self, count: int) -> int:
        """The position after the last tile, of ``count`` ones."""
        start, _ = self._windows[0]
        return start + count

    def shard_of(self, shard: tuple[int, int]) -> Selection:
        """One of ``n`` equal runs of the tiles, the ``i``-th from 0.

        Raises:
            InvalidInputError: it can be read only once, so that no two readers would see the same runs.
        """
        number, count = shard
        part = copy.copy(self)
        part.shard = (number, count)
        if self.whole:  # of too many tiles, in the place of which the first shard invalidates everything
            part.whole = number == 0
            part.note = self.note if part.whole else f"{self.note}, by shard 0"
            return part
        known = self.known_count()
        total = sum(self.tiles_per_zoom().values()) if known is None else known
        part._windows = ((total * number // count, total * (number + 1) // count),)
        return part

    def digest(self) -> tuple[str, int]:
        """A fingerprint of the tiles, their order and the shard; and how many they are."""
        fingerprint = hashlib.blake2b(repr(self._windows).encode(), digest_size=16)
        count = 0
        for batch in self.batches(_READ_AHEAD):
            fingerprint.update(batch.fingerprint())
            count += len(batch)
        return fingerprint.hexdigest(), count

    def tiles_per_zoom(self) -> dict[int, int]:
        """How many tiles at each zoom, counted without making them where they come from bounds or a geometry.

        Raises:
            InvalidInputError: the selection can be read only once, so counting would use it up.
        """
        if self._windows != EVERYTHING:
            return _count(self.blocks())
        if self._counts is None:
            if not self.repeatable:
                raise InvalidInputError(
                    "This selection can be read only once, so it cannot be counted before it is sent: give a list or a "
                    "file instead of a generator, standard input or an open file."
                )
            counts: Counter[int] = Counter()
            kept: list[Block] = []
            for item in self._make():
                counts[item.z] += item.tile_count if isinstance(item, Block) else 1
                if isinstance(item, Block) and len(kept) <= _KEPT_BLOCKS:
                    kept.append(item)
            self._counts = dict(sorted(counts.items()))
            self._kept = kept if self._blocks and len(kept) <= _KEPT_BLOCKS else None
        return {zoom: count for zoom, count in self._counts.items() if zoom not in self.zooms_left_stale}

    def leave_out(self, zooms: Iterable[int]) -> None:
        """Leave zooms stale, and remember which."""
        self.zooms_left_stale = tuple(sorted(zooms))

    def _stream(self) -> Iterator[Tile] | Iterator[Block]:
        stream: Any = self._make() if self._kept is None else iter(self._kept)
        if self.zooms_left_stale:
            left_out = frozenset(self.zooms_left_stale)
            return filter(lambda item: item.z not in left_out, stream)  # no generator: it goes on after an error
        return stream  # type: ignore[no-any-return]


def read_selection(
    *,
    tiles: TileSelection = WHOLE_UDF,
    bounds: Bounds | NotGiven = NOT_GIVEN,
    geometry: Any = NOT_GIVEN,
    tiles_file: TilesFile | NotGiven = NOT_GIVEN,
    zooms: Zooms | None = None,
    buffer: int = 0,
    max_tiles: int = DEFAULT_MAX_TILES,
    when_too_many: WhenTooMany = "fail",
    max_zoom: int = HIGHEST_ZOOM,
    shard: tuple[int, int] | None = None,
) -> Selection:
    """The selection that the keywords describe. They are `invalidate_cache`'s.

    Raises:
        InvalidInputError: they cannot be read, contradict one another, or select more than ``max_tiles``.
    """
    given = [
        name
        for name, value in (("tiles", tiles), ("bounds", bounds), ("geometry", geometry), ("tiles_file", tiles_file))
        if value is not WHOLE_UDF and value is not NOT_GIVEN
    ]
    if len(given) > 1:
        raise InvalidInputError(f"{' and '.join(given)} are given together: give one kind of selection at a time.")
    _check_limits(buffer, max_tiles, when_too_many, max_zoom)
    check_shard(shard)
    if not given:
        if zooms is not None or buffer or shard is not None:
            raise InvalidInputError(
                "zooms, buffer and shard need a selection to work on: tiles, tiles_file, bounds or geometry. "
                "To invalidate the whole UDF leave them all out."
            )
        return Selection(None)
    levels = None if zooms is None else parse_zooms(zooms, max_zoom=max_zoom)
    if given[0] in ("bounds", "geometry"):
        if levels is None:
            raise InvalidInputError(f"{given[0]} needs zooms, such as zooms='10-14': a UDF is cached at each by itself.")
        selection, computed = _covered(bounds, geometry, levels, buffer), True
    else:
        selection, computed = _listed(tiles, tiles_file, levels or (), buffer, max_zoom)
    if computed and selection.repeatable:
        selection = _limited(selection, max_tiles, when_too_many)
    return selection if shard is None else selection.shard_of(shard)


def refuse_single_use(selection: SelectionKeywords) -> None:
    """Refuse what can be read only once, on behalf of callers that may be run again.

    An orchestrator's retry would find a generator used up, take that for "nothing selected", and succeed.

    Raises:
        InvalidInputError: ``tiles`` is a generator or another iterator, or ``tiles_file`` is no path.
    """
    tiles = selection.get("tiles")
    if isinstance(tiles, Iterator):
        raise InvalidInputError(
            f"tiles is of type {type(tiles).__name__}, which can be read only once: a retry would find it empty. Give a list."
        )
    tiles_file = selection.get("tiles_file", "")
    if tiles_file is not NOT_GIVEN and not is_repeatable(tiles_file):
        check_source(tiles_file)
        raise InvalidInputError("tiles_file can be read only once: a retry would find it empty. Give the path of a file.")


def _check_limits(buffer: int, max_tiles: int, when_too_many: str, max_zoom: int) -> None:
    if isinstance(buffer, bool) or not isinstance(buffer, int) or not 0 <= buffer <= 64:
        raise InvalidInputError(f"buffer = {buffer!r} must be a whole number of tiles from 0 to 64.")
    if isinstance(max_tiles, bool) or not isinstance(max_tiles, int) or max_tiles < 1:
        raise InvalidInputError(f"max_tiles = {max_tiles!r} must be a whole number above 0.")
    if when_too_many not in ("fail", "whole-udf", "coarser"):
        raise InvalidInputError(f"when_too_many = {when_too_many!r} must be 'fail', 'whole-udf' or 'coarser'.")
    if isinstance(max_zoom, bool) or not isinstance(max_zoom, int) or not 0 <= max_zoom <= 60:
        raise InvalidInputError(f"max_zoom = {max_zoom!r} must be a whole number from 0 to 60.")


def check_shard(shard: Any) -> None:
    """Refuse what is no shard.

    Raises:
        InvalidInputError: it is not ``(i, n)`` with 0 ≤ i < n.
    """
    if shard is None:
        return
    numbers = list(shard) if isinstance(shard, (tuple, list)) else []
    if (
        len(numbers) != 2
        or any(is_boolean(number) or not isinstance(number, int) for number in numbers)
        or not 0 <= numbers[0] < numbers[1]
    ):
        raise InvalidInputError(f"shard = {shard!r} must be (i, n): the i-th of n shards, counted from 0.")


def _count(blocks: Iterable[Block]) -> dict[int, int]:
    counts: Counter[int] = Counter()
    for block in blocks:
        counts[block.z] += block.tile_count
    return dict(sorted(counts.items()))


def _covered(bounds: Any, geometry: Any, zooms: tuple[int, ...], buffer: int) -> Selection:
    if bounds is not NOT_GIVEN:
        boxes = read_bounds(bounds)

        def in_bounds() -> Iterator[Block]:
            for zoom in zooms:
                yield from disjoint(block for box in boxes for block in blocks_in_bounds(*box, zoom, buffer))

        return Selection(in_bounds, blocks=True)
    from fused_cache_ops.coverage import cover
    from fused_cache_ops.geometry import read_geometry

    shape = read_geometry(geometry)
    return Selection(lambda: iter(()) if shape.is_empty else cover(shape, zooms, buffer), blocks=True)


def _listed(tiles: Any, tiles_file: Any, zooms: tuple[int, ...], buffer: int, max_zoom: int) -> tuple[Selection, bool]:
    """A list, and whether more than the list itself is to be sent."""
    stream: Callable[[], Iterator[Tile]]
    if tiles_file is not NOT_GIVEN:
        check_source(tiles_file)
        repeatable = is_repeatable(tiles_file)

        def stream() -> Iterator[Tile]:
            return TileList(tiles_file, max_zoom=max_zoom)
    else:
        repeatable = isinstance(tiles, Collection)
        if isinstance(tiles, Set):  # in the same order on every machine
            tiles = sorted(TileStream(tiles, max_zoom=max_zoom))
        first: TileStream | None = TileStream(tiles, max_zoom=max_zoom)  # checks every tile of a collection, now

        def stream() -> Iterator[Tile]:
            nonlocal first
            checked, first = first, None
            return checked or TileStream(tiles, max_zoom=max_zoom)

    if not zooms and not buffer:
        size = len(tiles) if isinstance(tiles, Collection) else None
        return Selection(stream, blocks=False, repeatable=repeatable, size=size), False
    return Selection(lambda: _Expanded(stream(), zooms, buffer), blocks=True, repeatable=repeatable), True


class _Expanded(Iterator[Block]):
    """Listed tiles with their neighbours, parents and children. A tile may come twice where two of the list share it and lie
    far apart; it is never left out."""

    def __init__(self, tiles: Iterator[Tile], zooms: tuple[int, ...], buffer: int) -> None:
        self._tiles, self._zooms, self._buffer = tiles, zooms, buffer
        self._waiting: list[Block] = []
        self._recent: set[Block] = set()

    def __next__(self) -> Block:
        while not self._waiting:
            z, x, y = next(self._tiles)
            if len(self._recent) > _RECENT:
                self._recent.clear()
            for zoom in {z, *self._zooms}:
                deeper = max(0, zoom - z)
                up = max(0, z - zoom)
                side = 2**deeper
                block = Block(zoom, x * side >> up, y * side >> up, side, side)
                for part in self._neighbourhood(block) if self._buffer else (block,):
                    if part not in self._recent:
                        self._recent.add(part)
                        self._waiting.append(part)
        return self._waiting.pop()

    def _neighbourhood(self, block: Block) -> Iterator[Block]:
        z, x, y, width, height = block
        top, bottom = max(0, y - self._buffer), min(2**z, y + height + self._buffer)
        around = wrapped(z, x - self._buffer, top, width + 2 * self._buffer, bottom - top)
        if width > 1:
            return iter(around)  # the children of a tile can be millions
        # Tile by tile, so that neighbours' neighbourhoods, which overlap, are recognised.
        return (Block(*tile, 1, 1) for part in around for tile in part.tiles())


def read_bounds(bounds: Any) -> list[tuple[float, float, float, float]]:
    """Boxes ``(west, south, east, north)``, checked; ``east`` is beyond 180 where a box crosses the antimeridian.

    Raises:
        InvalidInputError: it is not four degrees, or a list of such.
    """
    if bounds is None:
        raise InvalidInputError("bounds is None: did a load step return nothing? Give [] to invalidate nothing.")
    try:
        given = list(bounds) if not isinstance(bounds, (str, bytes)) else None
    except TypeError:
        given = None
    if given is None:
        raise InvalidInputError(
            f"bounds = {str(bounds)[:80]!r}: give (west, south, east, north) in degrees, or a list of these."
        )
    if len(given) == 4 and all(_is_number(value) for value in given):
        given = [given]
    return [_checked_box(box) for box in given]


def _checked_box(box: Any) -> tuple[float, float, float, float]:
    try:
        values = [float(value) if _is_number(value) else math.nan for value in box]
    except TypeError:
        values = []
    if len(values) != 4 or not all(math.isfinite(value) for value in values):
        raise InvalidInputError(f"bounds {str(box)[:80]} must be four finite numbers: (west, south, east, north) in degrees.")
    west, south, east, north = values
    if max(abs(west), abs(east)) > 540 or max(abs(south), abs(north)) > 90:
        raise InvalidInputError(
            f"bounds {tuple(values)} are no degrees: the order is (west, south, east, north), longitudes end at ±180 (±540 "
            "across the antimeridian), latitudes at ±90."
        )
    if south > north:
        raise InvalidInputError(f"bounds {tuple(values)}: south is above north. The order is (west, south, east, north).")
    return west, south, east + 360 if west > east else east, north


def _is_number(value: object) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, (bool, str, bytes))


def _limited(selection: Selection, max_tiles: int, when_too_many: WhenTooMany) -> Selection:
    counts = selection.tiles_per_zoom()
    total = sum(counts.values())
    if total <= max_tiles:
        return selection
    over = f"{total:,} tiles are selected, over max_tiles={max_tiles:,}"
    # Where not even the coarsest zoom is small enough, "coarser" would leave everything stale.
    if when_too_many == "fail" or (when_too_many == "coarser" and counts[min(counts)] > max_tiles):
        per_zoom = ", ".join(f"zoom {zoom}: {count:,}" for zoom, count in counts.items())
        raise InvalidInputError(
            f"{over} ({per_zoom}). Raise max_tiles, leave out deep zooms, narrow the selection, or set "
            "when_too_many='whole-udf' to invalidate everything instead or 'coarser' to leave the deepest zooms stale."
        )
    if when_too_many == "whole-udf":
        note = f"{over}: the whole UDF is invalidated instead"
        warnings.warn(f"{note}.", stacklevel=4)
        return Selection(None, note=note)
    dropped = []
    for zoom in sorted(counts, reverse=True):
        if total <= max_tiles:
            break
        dropped.append(zoom)
        total -= counts[zoom]
    selection.leave_out(dropped)
    stale = ", ".join(str(zoom) for zoom in sorted(dropped))
    selection.note = f"{over}: zooms {stale} are left stale"
    warnings.warn(f"{selection.note}.", stacklevel=4)
    return selection
