"""What is left to do when a call fails."""

from __future__ import annotations

import itertools
import os
from array import array
from collections.abc import Callable, Iterable, Iterator

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.selection.batches import Batch, TileBatch, TileBatches
from fused_cache_ops.selection.tile_list import write_tile_list
from fused_cache_ops.tiles.tile import Tile

_KEPT_AT_ONCE = 1000  # tiles, as plain numbers


class RemainingTiles(Iterable[Tile]):
    """Tiles still to do, the error's own from the moment of failure: whatever becomes of the caller's list or file.

    Where the selection is a collection, a file, bounds or a geometry, they are made from it as it was, anew each time they are
    read. Where it can be read only once, they are those in hand and then what its stream still holds, kept once read.

    What cannot be read is passed over, and told in ``unreadable``.

    Args:
        make: makes the tiles anew.
        unreadable: what is known already not to be among them.
    """

    def __init__(self, make: Callable[[], Iterator[Tile]], unreadable: tuple[str, ...] = ()) -> None:
        self._make = make
        self._known = self.unreadable = unreadable
        """What could not be read when the tiles were last read, such as bad lines, in words."""

    @classmethod
    def of_stream(cls, in_hand: Iterable[Batch], stream: Iterator[Tile]) -> RemainingTiles:
        """Tiles in hand, and those to come from a stream that can be read once."""
        return cls(_Kept(in_hand, stream).read)

    def __iter__(self) -> Iterator[Tile]:
        found: list[str] = []
        tiles = self._make()
        while True:
            try:
                yield from tiles
                break
            except InvalidInputError as error:  # a bad line or tile: those after it can be read
                found.append(error.message)
            except Exception as error:  # of the caller's own stream, which is over
                found.append(f"the rest of it, since reading it failed: {type(error).__name__}: {error}")
                break
        self.unreadable = (*self._known, *found[:_MOST_REASONS])

    def save(self, path: str | os.PathLike[str]) -> int:
        """Write them as a list that ``tiles_file`` takes, one ``z/x/y`` a line, gzipped if the name ends in ``.gz``.

        The file appears once it is complete. It may be the one that the tiles were read from.

        Returns:
            How many they are.

        Raises:
            OSError: it cannot be written; the tiles are still here.
        """
        return write_tile_list(self, path)

    def __reduce__(self) -> tuple[object, ...]:
        numbers = array("Q", itertools.chain.from_iterable(self))
        return _of_numbers, (numbers, self.unreadable)


_MOST_REASONS = 100


def _of_numbers(numbers: array[int], unreadable: tuple[str, ...]) -> RemainingTiles:
    return RemainingTiles(TileBatch(numbers, 0).__iter__, unreadable)


class _Kept:
    """A stream that can be read once, kept as plain numbers once read, so that it can be read again."""

    def __init__(self, in_hand: Iterable[Batch], stream: Iterator[Tile]) -> None:
        self._read = list(in_hand)
        self._stream = TileBatches(stream, _KEPT_AT_ONCE)

    def read(self) -> Iterator[Tile]:
        return _KeptTiles(self._read, self._stream)


class _KeptTiles(Iterator[Tile]):
    """No generator, which would be over once the stream has raised."""

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
