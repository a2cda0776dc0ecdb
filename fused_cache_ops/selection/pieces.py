"""Tiles as plain numbers, 12 bytes each, in pieces, so that millions pass without an object for each."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fused_cache_ops.tiles.tile import Tile

_ONE_TILE = '{"z":%d,"x":%d,"y":%d}'
_WRITTEN_AT_ONCE = 3 * 1000
_FEW_ZOOMS = 3  # with more, replacing each zoom costs more than splitting the lines
_AT_ONCE = 10_000  # tiles


class Piece:
    """Some tiles.

    Args:
        numbers: zoom, column and row of one tile after the other, as ``array("I")``.
        lines: the same as ``z/x/y`` lines, each with its line feed, if they came so. They are faster to rewrite than
            numbers.
        counts: how often each tile is requested, as ``array("Q")``, if the list says so.
    """

    def __init__(self, numbers: array[int], lines: bytes = b"", counts: array[int] | None = None) -> None:
        self.numbers = numbers
        self.counts = counts
        self._lines = lines

    def __len__(self) -> int:
        return len(self.numbers) // 3

    def __iter__(self) -> Iterator[Tile]:
        # All in C: no Python code runs per tile, not even Tile's own constructor.
        each = iter(self.numbers)
        return map(tuple.__new__, itertools.repeat(Tile), zip(each, each, each))

    def part(self, start: int, most: int) -> Piece:
        """At most ``most`` of its tiles, from a position on."""
        if start == 0 and most >= len(self):
            return self
        lines = self._lines.split(b"\n", start + most)[start : start + most] if self._lines else []
        counts = None if self.counts is None else self.counts[start : start + most]
        return Piece(self.numbers[3 * start : 3 * (start + most)], b"".join([line + b"\n" for line in lines if line]), counts)

    def written(self) -> bytes:
        """The tiles as JSON objects with commas between them, as ``batch-delete`` takes them."""
        zooms = set(self.numbers[0::3]) if self._lines else set()
        if 0 < len(zooms) <= _FEW_ZOOMS:
            text = b"\n" + self._lines[:-1]
            for zoom in zooms:
                text = text.replace(b"\n%d/" % zoom, b'},{"z":%d,"x":' % zoom)
            return text[2:].replace(b"/", b',"y":') + b"}"
        if zooms:
            # Numbers and the names before them in turn: faster than a format that is filled in per tile.
            numbers = self._lines[:-1].replace(b"\n", b'},{"z":').split(b"/")
            written = [b',"y":'] * (2 * len(numbers) - 1)
            written[0::2] = numbers
            written[1::4] = [b',"x":'] * (len(numbers) // 2)
            return b'{"z":' + b"".join(written) + b"}"
        parts = (self.numbers[i : i + _WRITTEN_AT_ONCE] for i in range(0, len(self.numbers), _WRITTEN_AT_ONCE))
        return ",".join([",".join([_ONE_TILE] * (len(part) // 3)) % tuple(part) for part in parts]).encode()


class PieceStream(Iterator[Tile]):
    """Tiles that arrive in pieces. They can be taken in pieces of any size, or one by one.

    An error is raised between the tiles before and after it. Reading further continues after it.
    """

    def __init__(self) -> None:
        self._piece = Piece(array("I"))
        self._taken = 0

    def next_piece(self) -> Piece:
        """The tiles that come next. Empty at the end."""
        raise NotImplementedError

    def take(self, most: int) -> Piece:
        """The next tiles, at least one and at most ``most``. Empty at the end."""
        if self._taken == len(self._piece):
            self._piece, self._taken = self.next_piece(), 0
        found = self._piece.part(self._taken, most)
        self._taken += len(found)
        return found

    def __next__(self) -> Tile:
        if self._taken == len(self._piece):
            self._piece, self._taken = self.next_piece(), 0
            if not self._piece:
                raise StopIteration
        start = 3 * self._taken
        self._taken += 1
        return Tile(*self._piece.numbers[start : start + 3])


class HeldPieces(PieceStream):
    """Tiles that are in memory as numbers.

    Args:
        chunks: none of them is empty.
        counts: how often each tile is requested, if that is known.
    """

    def __init__(self, chunks: Iterable[array[int]], counts: array[int] | None = None) -> None:
        super().__init__()
        self._chunks = iter(chunks)
        self._counts = counts
        self._position = 0

    def next_piece(self) -> Piece:
        numbers = next(self._chunks, array("I"))
        start = self._position
        self._position += len(numbers) // 3
        return Piece(numbers, counts=None if self._counts is None else self._counts[start : self._position])


class WatchedPieces(PieceStream):
    """A stream that may be slow. The watch is called before each piece, so that none is read in vain."""

    def __init__(self, stream: PieceStream, watch: Callable[[], None]) -> None:
        super().__init__()
        self._stream, self._watch = stream, watch

    def next_piece(self) -> Piece:
        self._watch()
        return self._stream.take(_AT_ONCE)


class TilesInPieces(PieceStream):
    """A stream of tiles that come one by one, of which no more are read than are taken."""

    def __init__(self, tiles: Iterator[Tile]) -> None:
        super().__init__()
        self._tiles = tiles
        self._held = array("I")

    def take(self, most: int) -> Piece:
        # extend keeps what it has read if the stream raises.
        self._held.extend(itertools.chain.from_iterable(itertools.islice(self._tiles, most - len(self._held) // 3)))
        return self.held()

    def held(self) -> Piece:
        """What has been read and not taken, if reading further failed."""
        taken, self._held = self._held, array("I")
        return Piece(taken)


def read_count(value: Any) -> int:
    """How often a tile is requested. What is not a number counts as 0: it decides only which tile comes first."""
    try:
        return max(0, min(int(float(value)), 2**63))
    except (TypeError, ValueError, OverflowError):
        return 0
