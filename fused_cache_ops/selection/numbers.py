"""Streams of tiles as plain numbers, 12 bytes a tile, so that millions pass without an object for each."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Iterator

from fused_cache_ops.tiles.tile import Tile

Numbers = array
"""Zoom, column and row of one tile after the other, as ``array("I")``."""

_AT_ONCE = 10_000  # tiles


class NumberStream(Iterator[Tile]):
    """Tiles that arrive in pieces. They can be taken one by one, or as numbers.

    An error is raised between the tiles before and after it. Reading further continues after it.
    """

    def __init__(self) -> None:
        self._piece: Numbers[int] = array("I")
        self._taken = 0

    def next_piece(self) -> Numbers[int]:
        """The tiles that come next. Empty at the end."""
        raise NotImplementedError

    def take(self, most: int) -> Numbers[int]:
        """The next tiles, at least one and at most ``most``. Empty at the end."""
        if self._taken == len(self._piece):
            self._piece, self._taken = self.next_piece(), 0
        start = self._taken
        self._taken = min(start + 3 * most, len(self._piece))
        return self._piece[start : self._taken]

    def __next__(self) -> Tile:
        for tile in tiles_of_numbers(self.take(1)):
            return tile
        raise StopIteration


class HeldNumbers(NumberStream):
    """Tiles that are in memory as numbers.

    Args:
        pieces: none of them is empty.
    """

    def __init__(self, pieces: Iterator[Numbers[int]]) -> None:
        super().__init__()
        self._pieces = pieces

    def next_piece(self) -> Numbers[int]:
        return next(self._pieces, array("I"))


class WatchedNumbers(NumberStream):
    """A stream that may be slow. The watch is called before each piece, so that none is read in vain."""

    def __init__(self, stream: NumberStream, watch: Callable[[], None]) -> None:
        super().__init__()
        self._stream, self._watch = stream, watch

    def next_piece(self) -> Numbers[int]:
        self._watch()
        return self._stream.take(_AT_ONCE)


class TilesAsNumbers(NumberStream):
    """A stream of tiles that come one by one, of which no more are read than are taken."""

    def __init__(self, tiles: Iterator[Tile]) -> None:
        super().__init__()
        self._tiles = tiles
        self._held: Numbers[int] = array("I")

    def take(self, most: int) -> Numbers[int]:
        # extend keeps what it has read if the stream raises.
        self._held.extend(itertools.chain.from_iterable(itertools.islice(self._tiles, most - len(self._held) // 3)))
        taken, self._held = self._held, array("I")
        return taken


def tiles_of_numbers(numbers: Numbers[int]) -> Iterator[Tile]:
    """Tiles from their numbers. All in C: no Python code runs per tile, not even Tile's own constructor."""
    each = iter(numbers)
    return map(tuple.__new__, itertools.repeat(Tile), zip(each, each, each))
