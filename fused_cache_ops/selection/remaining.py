"""The tiles that are left when a call fails."""

from __future__ import annotations

import itertools
import os
from array import array
from collections.abc import Callable, Iterable, Iterator

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.selection.batches import Batch, TileBatches
from fused_cache_ops.selection.pieces import Piece
from fused_cache_ops.selection.tile_list import write_tile_list
from fused_cache_ops.tiles.tile import Tile

_KEPT_AT_ONCE = 1000  # tiles, as plain numbers


class RemainingTiles(Iterable[Tile]):
    """The tiles not yet confirmed as invalidated, fixed at the moment of failure. Later changes to the caller's list or file
    do not affect them.

    If the selection is a collection, a file, bounds or a geometry, they are produced anew from its original state each time
    they are read. If it can be read only once, they are the tiles in hand, followed by the rest of its stream, which is kept
    once read.

    Tiles that cannot be read are skipped and reported in ``unreadable``.

    Args:
        make: produces the tiles, each time from the start.
        unreadable: what is already known to be missing.
    """

    def __init__(self, make: Callable[[], Iterator[Tile]], unreadable: tuple[str, ...] = ()) -> None:
        self._make = make
        self._known = self.unreadable = unreadable
        """Descriptions of what could not be read when the tiles were last read, such as malformed lines."""

    @classmethod
    def of_stream(cls, in_hand: Iterable[Batch], stream: Iterator[Tile]) -> RemainingTiles:
        """The tiles in hand, and those still to come from a stream that can be read only once."""
        return cls(_Kept(in_hand, stream).read)

    def __iter__(self) -> Iterator[Tile]:
        found: list[str] = []
        tiles = self._make()
        while True:
            try:
                yield from tiles
                break
            except InvalidInputError as error:  # a malformed line or tile: those after it can still be read
                if len(found) < _MOST_REASONS:
                    found.append(error.message)
            except Exception as error:  # from the caller's own stream, which has ended
                found.append(f"the rest of the tiles, because reading them failed: {type(error).__name__}: {error}")
                break
        self.unreadable = (*self._known, *found)

    def save(self, path: str | os.PathLike[str]) -> int:
        """Write the tiles as a list for ``tiles_file``: one ``z/x/y`` per line, gzipped if the name ends in ``.gz``.

        The file appears once it is complete. It may replace the file that the tiles are read from.

        Returns:
            The number of tiles.

        Raises:
            OSError: the file cannot be written. The tiles are still available.
        """
        return write_tile_list(self, path)

    def __reduce__(self) -> tuple[object, ...]:
        numbers = array("I", itertools.chain.from_iterable(self))
        return _of_numbers, (numbers, self.unreadable)


_MOST_REASONS = 100


def _of_numbers(numbers: array[int], unreadable: tuple[str, ...]) -> RemainingTiles:
    return RemainingTiles(Piece(numbers).__iter__, unreadable)


class _Kept:
    """A stream that can be read only once. What has been read is kept as plain numbers, so that it can be read again."""

    def __init__(self, in_hand: Iterable[Batch], stream: Iterator[Tile]) -> None:
        self._read = list(in_hand)
        self._stream = TileBatches(stream, _KEPT_AT_ONCE)

    def read(self) -> Iterator[Tile]:
        return _KeptTiles(self._read, self._stream)


class _KeptTiles(Iterator[Tile]):
    """Not a generator, because that would end once the stream has raised."""

    def __init__(self, read: list[Batch], stream: Iterator[Batch]) -> None:
        self._read, self._stream = read, stream
        self._position = 0
        self._tiles: Iterator[Tile] = iter(())

    def __next__(self) -> Tile:
        while True:
            for tile in self._tiles:
                return tile
            if self._position == len(self._read):
                self._read.append(next(self._stream))
            self._tiles = iter(self._read[self._position])
            self._position += 1
