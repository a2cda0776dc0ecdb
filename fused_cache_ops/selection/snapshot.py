"""A collection of tiles, read once: what was checked is what is sent, and what is handed back."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Iterator

from fused_cache_ops.tiles.tile import Tile

_AT_ONCE = 10_000  # tiles


class TileSnapshot:
    """Tiles as plain numbers, 12 bytes each up to zoom 32: the caller's collection may change or be used up.

    Args:
        tiles: checked tiles, read to the end.
    """

    def __init__(self, tiles: Iterable[Tile]) -> None:
        self._chunks: list[array[int]] = []
        self._count = 0
        stream = iter(tiles)
        while numbers := list(itertools.chain.from_iterable(itertools.islice(stream, _AT_ONCE))):
            self._chunks.append(_packed(numbers))
            self._count += len(numbers) // 3

    def __len__(self) -> int:
        return self._count

    def read(self) -> Iterator[Tile]:
        """The tiles, from the first one."""
        numbers = itertools.chain.from_iterable(self._chunks)
        return map(tuple.__new__, itertools.repeat(Tile), zip(numbers, numbers, numbers))


def _packed(numbers: list[int]) -> array[int]:
    try:
        return array("I", numbers)
    except OverflowError:
        return array("Q", numbers)
