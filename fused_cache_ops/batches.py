"""Tiles on their way out: in batches of a request's size, encoded fast, and given back unharmed where a request fails."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol

from fused_cache_ops.blocks import Block
from fused_cache_ops.tiles import RemainingTiles, Tile

MAX_BATCH = 50_000
"""Tiles that one ``batch-delete`` takes, by Fused's REST reference."""


class Batch(Protocol):
    """Tiles that go out together."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Tile]: ...
    def body(self) -> bytes:
        """The JSON that ``batch-delete`` takes."""
        ...


class TileBatch(list[Tile]):
    """Tiles that were given one by one."""

    def body(self) -> bytes:
        return ('{"tiles":[%s]}' % ",".join(['{"z":%d,"x":%d,"y":%d}' % tile for tile in self])).encode()


class BlockBatch:
    """Tiles of blocks, which are never made one by one unless somebody asks for them."""

    def __init__(self, blocks: list[Block]) -> None:
        self._blocks = blocks
        self._count = sum(block.tile_count for block in blocks)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Tile]:
        return itertools.chain.from_iterable(block.tiles() for block in self._blocks)

    def body(self) -> bytes:
        columns = []
        for z, x, y, width, height in self._blocks:
            rows = [str(row) for row in range(y, y + height)]  # written once for all the columns
            for column in range(x, x + width):
                start = '{"z":%d,"x":%d,"y":' % (z, column)
                columns.append(start + f"}},{start}".join(rows) + "}")
        return ('{"tiles":[%s]}' % ",".join(columns)).encode()


class TileBatches(Iterator[Batch]):
    """Batches from a stream of tiles. Where the stream raises, what it had given is in the next batch."""

    def __init__(self, stream: Iterator[Tile], size: int) -> None:
        self._stream, self._size = stream, size
        self._held = TileBatch()

    def __next__(self) -> Batch:
        # extend keeps what it has got where the stream raises.
        self._held.extend(itertools.islice(self._stream, self._size - len(self._held)))
        batch, self._held = self._held, TileBatch()
        if not batch:
            raise StopIteration
        return batch


class BlockBatches(Iterator[Batch]):
    """Batches from a stream of blocks, which are cut where a batch is full."""

    def __init__(self, stream: Iterator[Block], size: int) -> None:
        self._stream, self._size = stream, size
        self._held: deque[Block] = deque()

    def __next__(self) -> Batch:
        count = sum(block.tile_count for block in self._held)
        while count < self._size:
            block = next(self._stream, None)
            if block is None:
                break
            self._held.append(block)
            count += block.tile_count
        taken: list[Block] = []
        room = self._size
        while self._held and room:
            block = self._held.popleft()
            if block.tile_count > room:
                head, tail = block.split(room)
                taken += head
                self._held.extendleft(reversed(tail))
                break
            taken.append(block)
            room -= block.tile_count
        if not taken:
            raise StopIteration
        return BlockBatch(taken)


class Outbox:
    """The batches of one call: those in hand, which includes what came back, and the stream of the others."""

    def __init__(self, stream: Iterator[Batch]) -> None:
        self._stream = stream
        self._in_hand: deque[Batch] = deque()

    def look_ahead(self) -> int:
        """How many tiles the next batch has; 0: there is none."""
        if not self._in_hand:
            self._in_hand.extend(itertools.islice(self._stream, 1))
        return len(self._in_hand[0]) if self._in_hand else 0

    def take(self) -> Batch | None:
        """The next batch, or None."""
        return self._in_hand.popleft() if self.look_ahead() else None

    def put_back(self, batch: Batch) -> None:
        self._in_hand.appendleft(batch)

    def one_by_one(self) -> None:
        """From here on each batch is a single tile."""
        self._stream = _Singles(itertools.chain(tuple(self._in_hand)), self._stream)
        self._in_hand.clear()

    def remaining(self) -> RemainingTiles:
        """Every tile that is in hand or to come."""
        return RemainingTiles(list(itertools.chain.from_iterable(self._in_hand)), _Tiles(self._stream))


class _Tiles(Iterator[Tile]):
    """The tiles of batches. A class and no generator, since a generator that has raised is over."""

    def __init__(self, *streams: Iterator[Batch]) -> None:
        self._streams = deque(streams)
        self._current: Iterator[Tile] = iter(())

    def __next__(self) -> Tile:
        while True:
            for tile in self._current:
                return tile
            if not self._streams:
                raise StopIteration
            batch = next(self._streams[0], None)
            if batch is None:
                self._streams.popleft()
            else:
                self._current = iter(batch)


class _Singles(Iterator[Batch]):
    def __init__(self, *streams: Iterator[Batch]) -> None:
        self._tiles = _Tiles(*streams)

    def __next__(self) -> Batch:
        return TileBatch((next(self._tiles),))


def batches_of(stream: Iterable[Tile] | Iterable[Block], *, blocks: bool, size: int) -> Iterator[Batch]:
    """Batches of ``size`` from a stream of tiles or of blocks."""
    return BlockBatches(iter(stream), size) if blocks else TileBatches(iter(stream), size)  # type: ignore[arg-type]
