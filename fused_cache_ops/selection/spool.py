"""A stream that can be read only once, kept as it is read, so that it can be sent to several places."""

from __future__ import annotations

import tempfile
import weakref
from array import array
from collections.abc import Iterator

from fused_cache_ops.tiles.tile import Tile

_IN_MEMORY = 30_000  # numbers; what comes before is in a temporary file
_NUMBER = array("I").itemsize


class Spool:
    """What has been read of a stream, as plain numbers of 12 bytes per tile: the end in memory, the rest in a temporary file.

    Each reader starts at the first tile. Once it has seen what is kept, it reads the stream further, as far as it is asked.

    Args:
        stream: the tiles. It may raise, and go on after that.
    """

    def __init__(self, stream: Iterator[Tile]) -> None:
        self._stream = stream
        self._end: array[int] = array("I")
        self._filed = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object
        weakref.finalize(self, self._file.close)
        self.keeps = True

    def stop_keeping(self) -> None:
        """Keep nothing more. The one reader that there is goes on, and there must be no other."""
        self.keeps = False

    def read(self) -> Iterator[Tile]:
        """The tiles, from the first one."""
        return _SpoolReader(self)

    def kept_from(self, position: int) -> array[int]:
        """Some of the numbers that are kept from a position on, counted in numbers. Empty if there are none."""
        if position >= self._filed:
            return self._end[position - self._filed :]
        found = array("I")
        self._file.seek(position * _NUMBER)
        found.frombytes(self._file.read(min(_IN_MEMORY, self._filed - position) * _NUMBER))
        return found

    def next(self) -> Tile:
        """The next tile of the stream, which is kept."""
        tile = next(self._stream)
        if self.keeps:
            self._end.extend(tile)
            if len(self._end) >= _IN_MEMORY:
                self._file.seek(self._filed * _NUMBER)
                self._file.write(self._end.tobytes())
                self._filed += len(self._end)
                self._end = array("I")
        return tile


class _SpoolReader(Iterator[Tile]):
    """Not a generator, because that would end once the stream has raised."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._position = 0
        self._numbers: Iterator[int] = iter(())

    def __next__(self) -> Tile:
        for z in self._numbers:
            return Tile(z, next(self._numbers), next(self._numbers))
        if self._spool.keeps:
            if kept := self._spool.kept_from(self._position):
                self._position += len(kept)
                self._numbers = iter(kept)
                return next(self)
            self._position += 3
        return self._spool.next()
