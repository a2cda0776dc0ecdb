"""What is left to do when a call fails."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from fused_cache_ops.selection.tile_list import write_tile_list
from fused_cache_ops.tiles.tile import Tile


class RemainingTiles(Iterable[Tile]):
    """Tiles still to do.

    Where the selection can be read again (a list, a file, bounds, a geometry) they are made anew each time. Where it
    cannot, they are those in hand and then what its stream still holds, kept once read.
    """

    def __init__(
        self, in_hand: list[Tile], stream: Iterable[Tile] = (), *, make: Callable[[], Iterator[Tile]] | None = None
    ) -> None:
        self._read = in_hand
        self._stream = iter(stream)
        self._make = make or self._keep_reading

    def __iter__(self) -> Iterator[Tile]:
        return self._make()

    def save(self, path: str | os.PathLike[str]) -> int:
        """Write them as a list that ``tiles_file`` takes, one ``z/x/y`` a line, gzipped if the name ends in ``.gz``.

        Returns:
            How many they are.
        """
        return write_tile_list(self, path)

    def _keep_reading(self) -> Iterator[Tile]:
        position = 0
        while True:
            while position < len(self._read):
                yield self._read[position]
                position += 1
            try:
                self._read.append(next(self._stream))
            except StopIteration:
                return

    def __reduce__(self) -> tuple[object, ...]:
        return RemainingTiles, (list(self),)
