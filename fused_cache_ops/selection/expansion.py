"""Listed tiles with their neighbors, parents and children."""

from __future__ import annotations

from collections.abc import Iterator

from fused_cache_ops.tiles.blocks import Block, wrapped
from fused_cache_ops.tiles.tile import Tile

_RECENT = 200_000  # blocks that an expanded list remembers, to avoid sending them twice


class Expanded(Iterator[Block]):
    """Listed tiles with their neighbors, parents and children. A tile shared by two entries that are far apart in the list
    may be produced twice. None is left out."""

    def __init__(self, tiles: Iterator[Tile], zooms: tuple[int, ...], buffer: int) -> None:
        self._tiles, self._zooms, self._buffer = tiles, zooms, buffer
        self._waiting: list[Block] = []
        self._recent: set[Block] = set()

    def __next__(self) -> Block:
        while not self._waiting:
            z, x, y = next(self._tiles)
            if len(self._recent) > _RECENT:
                self._recent.clear()
            for zoom in {z, *self._zooms}:
                deeper = max(0, zoom - z)
                up = max(0, z - zoom)
                side = 2**deeper
                block = Block(zoom, x * side >> up, y * side >> up, side, side)
                for part in self._neighborhood(block) if self._buffer else (block,):
                    if part not in self._recent:
                        self._recent.add(part)
                        self._waiting.append(part)
        return self._waiting.pop()

    def _neighborhood(self, block: Block) -> Iterator[Block]:
        z, x, y, width, height = block
        top, bottom = max(0, y - self._buffer), min(2**z, y + height + self._buffer)
        around = wrapped(z, x - self._buffer, top, width + 2 * self._buffer, bottom - top)
        if width > 1:
            return iter(around)  # the children of a tile can be millions
        # Tile by tile, so that overlapping neighborhoods of adjacent tiles are recognized.
        return (Block(*tile, 1, 1) for part in around for tile in part.tiles())
