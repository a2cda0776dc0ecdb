"""The caller's selection after validation: the whole UDF, or tiles from a list, bounds or a geometry."""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.selection.batches import Batch, BlockBatches, TileBatches, tiles_of
from fused_cache_ops.selection.remaining import RemainingTiles
from fused_cache_ops.selection.spans import EVERYTHING, Span, Spans
from fused_cache_ops.tiles.blocks import Block
from fused_cache_ops.tiles.tile import Tile

_READ_AHEAD = 50_000
_KEPT_BLOCKS = 200_000  # of a selection that has been counted, to avoid computing it again


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
        nothing = Selection(lambda: iter(()), note=f"{self.note}, by shard 0")
        nothing.shard = shard
        return nothing


class Selection:
    """Tiles that can be counted and read in batches.

    Attributes:
        zooms_left_stale: the zooms that were dropped because there were too many tiles.
        note: a sentence about what was done because there were too many tiles.
        shard: ``(i, n)`` if this is one part of a selection, None if it is all of it.
        repeatable: whether it can be read more than once.
    """

    def __init__(
        self,
        make: Callable[[], Iterator[Tile] | Iterator[Block]],
        *,
        blocks: bool = False,
        repeatable: bool = True,
        note: str | None = None,
        size: int | None = None,
    ) -> None:
        self.zooms_left_stale: tuple[int, ...] = ()
        self.note = note
        self.shard: tuple[int, int] | None = None
        self._windows: tuple[Span, ...] = EVERYTHING
        self._size = size
        self._make = make
        self._blocks = blocks
        self.repeatable = repeatable
        self._counts: dict[int, int] | None = None
        self._kept: list[Block] | None = None

    def batches(self, size: int, done: Spans | None = None) -> Iterator[Batch]:
        """The tiles in batches of ``size``, without those at the positions in ``done``."""
        windows = self._windows if done is None else tuple(done.missing(self._windows))
        stream: Any = self._stream()
        return BlockBatches(stream, size, windows) if self._blocks else TileBatches(stream, size, windows)

    def tiles(self) -> Iterator[Tile]:
        """The tiles, one by one."""
        return itertools.chain.from_iterable(self.batches(_READ_AHEAD))

    def remaining(self, done: Spans, *, past_unreadable: bool) -> RemainingTiles:
        """The tiles that are not done, read again from the source.

        Args:
            done: the positions that are done.
            past_unreadable: skip the first unreadable tile, which has already been reported.
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
        """Leave some zooms stale, and record which."""
        self.zooms_left_stale = tuple(sorted(zooms))

    def _stream(self) -> Iterator[Tile] | Iterator[Block]:
        stream: Any = self._make() if self._kept is None else iter(self._kept)
        if self.zooms_left_stale:
            left_out = frozenset(self.zooms_left_stale)
            return filter(lambda item: item.z not in left_out, stream)  # unlike a generator, it continues after an error
        return stream  # type: ignore[no-any-return]


def _count(blocks: Iterable[Block]) -> dict[int, int]:
    counts: Counter[int] = Counter()
    for block in blocks:
        counts[block.z] += block.tile_count
    return dict(sorted(counts.items()))
