"""Batches: tiles grouped by request, encoded fast, and recoverable if the request fails."""

from __future__ import annotations

import itertools
import operator
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol

from fused_cache_ops.selection.pieces import Piece, PieceStream, TilesInPieces
from fused_cache_ops.selection.spans import EVERYTHING, Span
from fused_cache_ops.tiles.blocks import Block
from fused_cache_ops.tiles.tile import Tile

MAX_BATCH = 50_000
"""The most tiles that one ``batch-delete`` accepts, according to Fused's REST reference."""


class Batch(Protocol):
    """Tiles sent together: a contiguous run of the selection whose first tile is at position ``start``."""

    start: int

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Tile]: ...
    def body(self) -> bytes:
        """The JSON body for ``batch-delete``."""
        ...

    def at(self, offset: int) -> Tile:
        """The tile at an offset from the first tile."""
        ...

    def blocks(self) -> Iterator[Block]:
        """The tiles as blocks."""
        ...

    def extents(self) -> Iterator[Block]:
        """Blocks of which each contains some of the tiles, and which contain all of them. They need not be full."""
        ...

    def counts(self) -> Iterator[int]:
        """How often each tile is requested. 0 if that is not known."""
        ...

    def fingerprint(self) -> bytes:
        """Equal for the same tiles in the same order, different for any others."""
        ...


class TileBatch:
    """Tiles that were given one by one. They are stored as plain numbers: 12 bytes a tile instead of over a hundred."""

    def __init__(self, pieces: list[Piece], start: int) -> None:
        self.start = start
        self._pieces = pieces
        self._count = sum(map(len, pieces))

    @classmethod
    def of(cls, tile: Tile, start: int) -> TileBatch:
        """A batch of one tile."""
        return cls([Piece(array("I", tile))], start)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Tile]:
        return itertools.chain.from_iterable(self._pieces)

    def at(self, offset: int) -> Tile:
        for piece in self._pieces:
            if offset < len(piece):
                return Tile(*piece.numbers[3 * offset : 3 * offset + 3])
            offset -= len(piece)
        raise IndexError(offset)

    def blocks(self) -> Iterator[Block]:
        """Tiles that follow each other in a row or a column are one block."""
        z = x = y = -1
        width = height = 1
        for zoom, column, row in self:
            if zoom == z and column == x and row == y + height and width == 1:
                height += 1
            elif zoom == z and row == y and column == x + width and height == 1:
                width += 1
            else:
                if z >= 0:
                    yield Block(z, x, y, width, height)
                z, x, y, width, height = zoom, column, row, 1, 1
        if z >= 0:
            yield Block(z, x, y, width, height)

    def extents(self) -> Iterator[Block]:
        for piece in self._pieces:
            zooms, columns, rows = (piece.numbers[each::3] for each in range(3))
            if zooms.count(zooms[0]) < len(zooms):
                yield from self.blocks()
                return
            west, north = min(columns), min(rows)
            yield Block(zooms[0], west, north, max(columns) - west + 1, max(rows) - north + 1)

    def counts(self) -> Iterator[int]:
        return itertools.chain.from_iterable(piece.counts or itertools.repeat(0, len(piece)) for piece in self._pieces)

    def fingerprint(self) -> bytes:
        return b"".join([piece.numbers.tobytes() for piece in self._pieces])

    def body(self) -> bytes:
        return b'{"tiles":[%b]}' % b",".join([piece.written() for piece in self._pieces])


class BlockBatch:
    """Tiles given as blocks. Individual tiles are created only on request."""

    def __init__(self, blocks: list[Block], start: int) -> None:
        self.start = start
        self._blocks = blocks
        self._count = sum(block.tile_count for block in blocks)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Tile]:
        return itertools.chain.from_iterable(block.tiles() for block in self._blocks)

    def at(self, offset: int) -> Tile:
        for z, x, y, width, height in self._blocks:
            if offset < width * height:
                return Tile(z, x + offset // height, y + offset % height)
            offset -= width * height
        raise IndexError(offset)

    def blocks(self) -> Iterator[Block]:
        return iter(self._blocks)

    def extents(self) -> Iterator[Block]:
        return iter(self._blocks)

    def counts(self) -> Iterator[int]:
        return itertools.repeat(0, self._count)

    def fingerprint(self) -> bytes:
        return repr([tuple(block) for block in self._blocks]).encode()

    def body(self) -> bytes:
        columns = []
        for z, x, y, width, height in self._blocks:
            rows = [str(row) for row in range(y, y + height)]  # written once for all the columns
            for column in range(x, x + width):
                start = '{"z":%d,"x":%d,"y":' % (z, column)
                columns.append(start + f"}},{start}".join(rows) + "}")
        return ('{"tiles":[%s]}' % ",".join(columns)).encode()


class _Batches(Iterator[Batch]):
    """Batches of the tiles in some spans of a stream. If the stream raises, the tiles read before are in the next batch.

    These are classes, not generators, because a generator ends once it has raised.
    """

    def __init__(self, size: int, spans: Iterable[Span]) -> None:
        self._size = size
        self._spans = iter(spans)
        self._position = 0  # of the next tile to take from the stream
        self._stop: int | float = 0  # where the current span ends
        self._skip_to = 0

    def __next__(self) -> Batch:
        while True:
            if self._position >= self._stop:
                span = next(self._spans, None)
                if span is None:
                    raise StopIteration
                self._skip_to, self._stop = span
            self._pass_over(self._skip_to)
            batch = self._fill(int(min(self._size, self._stop - self._position)))
            self._position += len(batch)
            if batch:
                return batch
            self._stop = self._position  # the stream is exhausted

    def _pass_over(self, position: int) -> None:
        raise NotImplementedError

    def _fill(self, count: int) -> Batch:
        raise NotImplementedError


class TileBatches(_Batches):
    """Batches from a stream of tiles."""

    def __init__(self, stream: Iterator[Tile], size: int, spans: Iterable[Span] = EVERYTHING) -> None:
        super().__init__(size, spans)
        self._stream = stream if isinstance(stream, PieceStream) else TilesInPieces(stream)
        self._held: list[Piece] = []

    def _pass_over(self, position: int) -> None:
        while (left := position - self._position) > 0 and (piece := self._stream.take(left)):
            self._position += len(piece)

    def _fill(self, count: int) -> Batch:
        # What has been read is kept if the stream raises.
        while (room := count - sum(map(len, self._held))) and (piece := self._stream.take(room)):
            self._held.append(piece)
        pieces, self._held = self._held, []
        return TileBatch(pieces, self._position)


class BlockBatches(_Batches):
    """Batches from a stream of blocks, which are split where a batch is full."""

    def __init__(self, stream: Iterator[Block], size: int, spans: Iterable[Span] = EVERYTHING) -> None:
        super().__init__(size, spans)
        self._stream = stream
        self._next: deque[Block] = deque()
        self._held: list[Block] = []

    def _pass_over(self, position: int) -> None:
        while self._position < position and (block := self._take(position - self._position)):
            self._position += block.tile_count

    def _fill(self, count: int) -> Batch:
        room = count - sum(block.tile_count for block in self._held)
        while room and (block := self._take(room)):
            self._held.append(block)
            room -= block.tile_count
        blocks, self._held = self._held, []
        return BlockBatch(blocks, self._position)

    def _take(self, most: int) -> Block | None:
        """The next block, or a part of it with at most ``most`` tiles."""
        block = self._next.popleft() if self._next else next(self._stream, None)
        if block is None or block.tile_count <= most:
            return block
        head, tail = block.split(most)
        self._next.extendleft(reversed(head[1:] + tail))
        return head[0]


def tiles_of(batches: Iterator[Batch]) -> Iterator[Tile]:
    """The tiles of batches. Iterating can continue after a tile that could not be read."""
    return map(operator.itemgetter(1), NumberedTiles(batches))


class NumberedTiles(Iterator[tuple[int, Tile]]):
    """The tiles of batches, each with its position."""

    def __init__(self, *streams: Iterator[Batch]) -> None:
        self._streams = deque(streams)
        self._current: Iterator[tuple[int, Tile]] = iter(())

    def __next__(self) -> tuple[int, Tile]:
        while True:
            for numbered in self._current:
                return numbered
            if not self._streams:
                raise StopIteration
            batch = next(self._streams[0], None)
            if batch is None:
                self._streams.popleft()
            else:
                self._current = enumerate(batch, batch.start)
