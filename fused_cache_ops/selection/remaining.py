"""The tiles that are left when a call fails."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from fused_cache_ops.selection.tile_list import write_tile_list
from fused_cache_ops.tiles.tile import Tile


class RemainingTiles(Iterable[Tile]):
    """The tiles not yet confirmed as invalidated.

    If the selection can be read again (a list, a file, bounds, a geometry), they are produced anew each time. Otherwise they
    are the tiles in hand, followed by the rest of the caller's stream, which is kept once read.
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
        """Write the tiles as a list for ``tiles_file``: one ``z/x/y`` per line, gzipped if the name ends in ``.gz``.

        Returns:
            The number of tiles.
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
