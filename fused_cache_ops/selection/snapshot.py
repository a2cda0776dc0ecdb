"""A snapshot of a collection of tiles, so that exactly what was checked is sent and handed back."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable

from fused_cache_ops.selection.pieces import HeldPieces
from fused_cache_ops.tiles.tile import Tile

_AT_ONCE = 10_000  # tiles


class TileSnapshot:
    """Tiles as plain numbers, 12 bytes each. The caller's collection may change or be exhausted.

    Args:
        tiles: validated tiles, which are read to the end.
        counts: how often each tile is requested, if that is known. It may be filled as the tiles are read.
    """

    def __init__(self, tiles: Iterable[Tile], counts: array[int] | None = None) -> None:
        self._counts = counts
        self._chunks: list[array[int]] = []
        self._count = 0
        stream = iter(tiles)
        while numbers := list(itertools.chain.from_iterable(itertools.islice(stream, _AT_ONCE))):
            self._chunks.append(array("I", numbers))
            self._count += len(numbers) // 3

    def __len__(self) -> int:
        return self._count

    def read(self) -> HeldPieces:
        """The tiles, from the start."""
        return HeldPieces(self._chunks, self._counts or None)
