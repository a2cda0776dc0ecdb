"""The caller's selection after validation: the whole UDF, or tiles from a list, bounds or a geometry."""

from __future__ import annotations

import copy
import hashlib
import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, Union

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.selection.batches import Batch, BlockBatches, TileBatches, tiles_of
from fused_cache_ops.selection.expansion import Expanded
from fused_cache_ops.selection.pieces import PieceStream, WatchedPieces
from fused_cache_ops.selection.remaining import RemainingTiles
from fused_cache_ops.selection.snapshot import TileSnapshot
from fused_cache_ops.selection.spans import EVERYTHING, Span, Spans
from fused_cache_ops.selection.spool import Spool
from fused_cache_ops.selection.tile_list import TileFile, file_tiles
from fused_cache_ops.tiles.blocks import Block
from fused_cache_ops.tiles.tile import ZOOM_LIMIT, Tile

_READ_AHEAD = 50_000
_KEPT_BLOCKS = 200_000  # of a selection that has been counted, to avoid computing it again
_LOOK_AFTER = 256  # items between calls of the watch

Watch = Callable[[], None]
"""Called periodically while a selection is read or counted. It raises when the result is no longer wanted."""


def nobody_watches() -> None:
    """The watch of a selection that is not part of a call."""


class Maker(Protocol):
    """Produces the tiles or blocks of a selection, from the start."""

    def __call__(self) -> Iterator[Tile] | Iterator[Block]: ...

    def copied(self) -> Maker:
        """A maker that produces the same, even if the caller changes the original."""
        ...


@dataclass(frozen=True)
class Covered:
    """The blocks that cover bounds or a geometry.

    Attributes:
        blocks: produces them.
        counts: returns the number of tiles at each zoom, if that is known without producing them.
    """

    blocks: Callable[[], Iterator[Block]]
    counts: Callable[[], dict[int, int]] | None = None

    def __call__(self) -> Iterator[Block]:
        return self.blocks()

    def copied(self) -> Covered:
        return self


@dataclass(frozen=True)
class Listed:
    """The tiles of a list, with their parents, children and neighbors if requested."""

    source: Union[TileSnapshot, TileFile, Once, RemainingTiles]
    zooms: tuple[int, ...] = ()
    buffer: int = 0

    def __call__(self) -> Iterator[Tile] | Iterator[Block]:
        tiles = iter(self.source) if isinstance(self.source, RemainingTiles) else self.source.read()
        return Expanded(tiles, self.zooms, self.buffer) if self.zooms or self.buffer else tiles

    def copied(self) -> Listed:
        return replace(self, source=self.source.copied()) if isinstance(self.source, TileFile) else self


class Once:
    """A stream that can be read only once. A second reader continues where the first one ended, unless it is kept."""

    def __init__(self, stream: Iterator[Tile]) -> None:
        self._stream = stream
        self._spool: Spool | None = None

    def read(self) -> Iterator[Tile]:
        return self._stream if self._spool is None else self._spool.read()

    def keep(self) -> None:
        """Before it is read: keep what will be read, so that a second reader gets it too."""
        self._spool = Spool(self._stream)

    def stop_keeping(self) -> None:
        """After `keep`, and with one reader: keep nothing more."""
        if self._spool is not None:
            self._spool.stop_keeping()
            self._spool = None


def nothing() -> Iterator[Block]:
    """The blocks of an empty selection."""
    return iter(())


@dataclass(frozen=True)
class WholeUdf:
    """Everything that a UDF has cached: one request, with no tiles to count, list or draw.

    Attributes:
        note: why everything is invalidated, if it is because there were too many tiles.
        shard: the shard that invalidates everything on behalf of all shards, if there were too many tiles. Otherwise None.
    """

    note: str | None = None
    shard: tuple[int, int] | None = None
    zooms_left_stale: ClassVar[tuple[int, ...]] = ()

    def shard_of(self, shard: tuple[int, int]) -> Selection | WholeUdf:
        """The first shard is the whole UDF; the others are empty."""
        if shard[0] == 0:
            return WholeUdf(self.note, shard)
        rest = Selection(Covered(nothing), blocks=True, note=f"{self.note}, by shard 0")
        rest.shard = shard
        return rest


class Selection:
    """Tiles that can be counted and read in batches.

    Attributes:
        zooms_left_stale: the zooms that were dropped because there were too many tiles.
        note: a sentence about what was done because there were too many tiles.
        shard: ``(i, n)`` if this is one part of a selection, None if it is all of it.
        repeatable: whether it can be read more than once.
        unplaced: how many rows changed that have no place, so that no tile shows them.
        watch: see `Watch`.
    """

    def __init__(
        self,
        make: Maker,
        *,
        blocks: bool = False,
        repeatable: bool = True,
        note: str | None = None,
        size: int | None = None,
        unplaced: int = 0,
    ) -> None:
        self.unplaced = unplaced
        self.zooms_left_stale: tuple[int, ...] = ()
        self.note = note
        self.shard: tuple[int, int] | None = None
        self._windows: tuple[Span, ...] = EVERYTHING
        self._size = size
        self._make = make
        self._blocks = blocks
        self.repeatable = repeatable
        self._once = not repeatable
        self._counts: dict[int, int] | None = None
        self._kept: list[Block] | None = None
        self.watch: Watch = nobody_watches

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"watch": nobody_watches}

    def unwatched(self) -> Selection:
        """The same selection, for reading after the call has ended."""
        copied = copy.copy(self)
        copied.watch = nobody_watches
        return copied

    def keep(self) -> None:
        """Make a selection that can be read only once repeatable: what is read is kept. To be called before it is read."""
        if self._once and isinstance(self._make, Listed) and isinstance(self._make.source, Once):
            self._make.source.keep()
            self.repeatable = True

    def file(self) -> None:
        """Make a selection that can be read only once repeatable, for good: it is read to the end into a temporary file."""
        if self._once and isinstance(self._make, Listed) and isinstance(self._make.source, Once):
            stream = self._make.source.read()
            file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by its list
            try:
                file_tiles(stream, file, self.watch)
            except BaseException:  # nothing is lost: what was read comes before the rest
                read_so_far = TileFile(file, "the list", ZOOM_LIMIT).read()
                self._make = replace(self._make, source=Once(itertools.chain(read_so_far, stream)))
                raise
            self._make = replace(self._make, source=TileFile(file, "the list", ZOOM_LIMIT))
            self.repeatable, self._once = True, False

    def stop_keeping(self) -> None:
        """After `keep`, and with one reader: keep nothing more."""
        if self._once and isinstance(self._make, Listed) and isinstance(self._make.source, Once):
            self._make.source.stop_keeping()
            self.repeatable = False

    def batches(self, size: int, done: Spans | None = None) -> Iterator[Batch]:
        """The tiles in batches of ``size``, without those at the positions in ``done``."""
        windows = self._windows if done is None else tuple(done.missing(self._windows))
        stream: Any = self._stream()
        return BlockBatches(stream, size, windows) if self._blocks else TileBatches(stream, size, windows)

    def those_in(self, positions: Spans) -> Iterator[Batch]:
        """The tiles at some of its positions, in batches."""
        stream: Any = self._stream()
        return (BlockBatches if self._blocks else TileBatches)(stream, _READ_AHEAD, tuple(positions))

    def tiles(self) -> Iterator[Tile]:
        """The tiles, one by one."""
        return itertools.chain.from_iterable(self.batches(_READ_AHEAD))

    def kept_for_later(self) -> Selection:
        """The same selection, for reading after the call has ended. Later changes to the caller's file do not affect it.

        Raises:
            InvalidInputError: the file was changed.
        """
        own = self.unwatched()
        try:
            own._make = self._make.copied()
        except OSError:  # no room for a copy: keep using the opened file, and treat changes to it as errors
            pass
        return own

    def remaining(self, done: Spans) -> RemainingTiles:
        """The tiles that are not done."""
        return RemainingTiles(lambda: tiles_of(self.batches(_READ_AHEAD, done)))

    def blocks(self) -> Iterator[Block]:
        """The tiles as blocks."""
        if self._blocks and self._windows == EVERYTHING:
            return self._stream()  # type: ignore[return-value]
        return itertools.chain.from_iterable(batch.blocks() for batch in self.batches(_READ_AHEAD))

    def known_count(self) -> int | None:
        """How many tiles there are, or None if that is unknown without reading them."""
        if self._windows != EVERYTHING:
            return sum(int(stop) - start for start, stop in self._windows)
        return self._size if self._counts is None else sum(self.tiles_per_zoom().values())

    def end(self, count: int) -> int:
        """The position after the last of ``count`` tiles."""
        start, _ = self._windows[0]
        return start + count

    def shard_of(self, shard: tuple[int, int]) -> Selection:
        """The ``i``-th of ``n`` equal runs of the tiles, counted from 0.

        Raises:
            InvalidInputError: the selection can be read only once, so two readers would not see the same runs.
        """
        number, count = shard
        part = copy.copy(self)
        part.shard = (number, count)
        known = self.known_count()
        total = sum(self.tiles_per_zoom().values()) if known is None else known
        part._windows = ((total * number // count, total * (number + 1) // count),)
        return part

    def digest(self) -> tuple[str, int]:
        """A fingerprint of the tiles, their order and the shard, and the number of tiles."""
        fingerprint = hashlib.blake2b(repr(self._windows).encode(), digest_size=16)
        count = 0
        for batch in self.batches(_READ_AHEAD):
            self.watch()
            fingerprint.update(batch.fingerprint())
            count += len(batch)
        return fingerprint.hexdigest(), count

    def tiles_per_zoom(self) -> dict[int, int]:
        """The number of tiles at each zoom. Tiles from bounds or a geometry are counted without being generated.

        Raises:
            InvalidInputError: the selection can be read only once, so counting would exhaust it.
        """
        if self._windows != EVERYTHING:
            return _count(self.blocks())
        if self._counts is None:
            if not self.repeatable:
                raise InvalidInputError(
                    "This selection can be read only once, so it cannot be counted before it is sent: pass a list or the path "
                    "of a file instead of a generator, standard input or an open file."
                )
            if isinstance(self._make, Covered) and self._make.counts is not None:
                self._counts = self._make.counts()
                return self.tiles_per_zoom()
            counts: Counter[int] = Counter()
            kept: list[Block] = []
            made: Iterator[Any] = self._make()
            while isinstance(made, PieceStream) and (piece := made.take(_READ_AHEAD)):
                self.watch()
                counts.update(piece.numbers[0::3])
            for number, item in enumerate(made):
                if number % _LOOK_AFTER == 0:
                    self.watch()
                counts[item.z] += item.tile_count if isinstance(item, Block) else 1
                if isinstance(item, Block) and len(kept) <= _KEPT_BLOCKS:
                    kept.append(item)
            self._counts = dict(sorted(counts.items()))
            self._kept = kept if self._blocks and len(kept) <= _KEPT_BLOCKS else None
        return {zoom: count for zoom, count in self._counts.items() if zoom not in self.zooms_left_stale}

    def leave_out(self, zooms: Iterable[int]) -> None:
        """Leave some zooms stale, and record which."""
        self.zooms_left_stale = tuple(sorted(zooms))

    def _stream(self) -> Iterator[Tile] | Iterator[Block]:
        stream: Any = self._make() if self._kept is None else iter(self._kept)
        if self._once:
            watched = isinstance(stream, PieceStream)
            stream = WatchedPieces(stream, lambda: self.watch()) if watched else _Watched(stream, self)
        if self.zooms_left_stale:
            left_out = frozenset(self.zooms_left_stale)
            return filter(lambda item: item.z not in left_out, stream)  # unlike a generator, it continues after an error
        return stream  # type: ignore[no-any-return]


class _Watched(Iterator[Any]):
    """A stream that may be slow. The watch is called before each item, so that none is read in vain."""

    def __init__(self, stream: Iterator[Any], selection: Selection) -> None:
        self._stream, self._selection = stream, selection

    def __next__(self) -> Any:
        self._selection.watch()
        return next(self._stream)


def _count(blocks: Iterable[Block]) -> dict[int, int]:
    counts: Counter[int] = Counter()
    for block in blocks:
        counts[block.z] += block.tile_count
    return dict(sorted(counts.items()))
