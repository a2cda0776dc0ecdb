"""The batches of one call that are still to be sent, including those that were put back."""

from __future__ import annotations

import itertools
import operator
from collections import deque
from collections.abc import Iterator

from fused_cache_ops.selection.batches import Batch, NumberedTiles, TileBatch
from fused_cache_ops.selection.remaining import RemainingTiles


class Outbox:
    """The batches of one call: those in hand, including any that were put back, and the stream of the others."""

    def __init__(self, stream: Iterator[Batch]) -> None:
        self._stream = stream
        self._in_hand: deque[Batch] = deque()

    def look_ahead(self) -> int:
        """The number of tiles in the next batch, or 0 if there is none."""
        if not self._in_hand:
            self._in_hand.extend(itertools.islice(self._stream, 1))
        return len(self._in_hand[0]) if self._in_hand else 0

    def take(self) -> Batch | None:
        """The next batch, or None."""
        return self._in_hand.popleft() if self.look_ahead() else None

    def put_back(self, batch: Batch) -> None:
        self._in_hand.appendleft(batch)

    def one_by_one(self) -> None:
        """From here on, make each batch a single tile."""
        self._stream = _Singles(itertools.chain(tuple(self._in_hand)), self._stream)
        self._in_hand.clear()

    def remaining(self) -> RemainingTiles:
        """Every tile that is in hand or still in the stream."""
        return RemainingTiles.of_stream(self._in_hand, map(operator.itemgetter(1), NumberedTiles(self._stream)))

    def in_hand(self) -> RemainingTiles:
        """Every tile that is in hand, for when those still in the stream cannot be known."""
        return RemainingTiles.of_stream(self._in_hand, iter(()))


class _Singles(Iterator[Batch]):
    def __init__(self, *streams: Iterator[Batch]) -> None:
        self._tiles = NumberedTiles(*streams)

    def __next__(self) -> Batch:
        position, tile = next(self._tiles)
        return TileBatch.of(tile, position)
