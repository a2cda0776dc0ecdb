"""Blocks: rectangles of tiles at one zoom. A selection computed from an area is a stream of non-overlapping blocks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fused_cache_ops.tiles.projection import TOLERANCE, row_fraction
from fused_cache_ops.tiles.tile import Tile


class Block(NamedTuple):
    """``width`` × ``height`` tiles at zoom ``z``, from column ``x`` eastward and row ``y`` southward."""

    z: int
    x: int
    y: int
    width: int
    height: int

    @property
    def tile_count(self) -> int:
        return self.width * self.height

    def tiles(self) -> Iterator[Tile]:
        """Its tiles, column by column."""
        columns, rows = range(self.x, self.x + self.width), range(self.y, self.y + self.height)
        # All in C: no Python code runs per tile, not even Tile's own constructor.
        return map(tuple.__new__, itertools.repeat(Tile), itertools.product((self.z,), columns, rows))

    def split(self, count: int) -> tuple[list[Block], list[Block]]:
        """Split into the first ``count`` tiles, in the order of `tiles`, and the rest. Each part is at most two blocks."""
        z, x, y, width, height = self
        columns, rows = divmod(count, height)
        head = [Block(z, x, y, columns, height), Block(z, x + columns, y, 1, rows)]
        tail = [Block(z, x + columns, y + rows, 1, height - rows)] if rows else []
        done = columns + (rows > 0)
        tail.append(Block(z, x + done, y, width - done, height))
        return [block for block in head if block.tile_count], [block for block in tail if block.tile_count]


def blocks_in_bounds(west: float, south: float, east: float, north: float, zoom: int, buffer: int) -> list[Block]:
    """The tiles whose interior intersects a rectangle in degrees. A rectangle without width or height falls in one column
    or row. ``east`` may exceed 180, in which case it wraps. ``buffer`` adds that many tiles on every side.

    Edges are exact to within `TOLERANCE`: a rectangle that reaches less than that into a tile does not select it, because a
    tile edge computed elsewhere may be off by as much.
    """
    size = 2**zoom
    tolerance = TOLERANCE / 360 * size
    first = math.floor((west + 180) / 360 * size + tolerance)
    last = max(first, math.ceil((east + 180) / 360 * size - tolerance) - 1)
    top = math.floor(row_fraction(north) * size + tolerance)
    bottom = max(top, math.ceil(row_fraction(south) * size - tolerance) - 1)
    top, bottom = max(0, min(top, size - 1) - buffer), min(size - 1, bottom + buffer)
    return wrapped(zoom, first - buffer, top, last - first + 1 + 2 * buffer, bottom - top + 1)


def wrapped(zoom: int, x: int, y: int, width: int, height: int) -> list[Block]:
    """Split a block that may cross the antimeridian into one or two blocks that do not."""
    size = 2**zoom
    if width >= size:
        return [Block(zoom, 0, y, size, height)]
    x %= size
    blocks = [Block(zoom, x, y, min(width, size - x), height)]
    if x + width > size:
        blocks.append(Block(zoom, 0, y, x + width - size, height))
    return blocks


def disjoint(blocks: Iterable[Block]) -> list[Block]:
    """The union of blocks at one zoom, as non-overlapping blocks: vertical slabs, with the rows merged within each slab."""
    blocks = list(blocks)
    if len(blocks) < 2:
        return blocks
    edges = sorted({block.x for block in blocks} | {block.x + block.width for block in blocks})
    waiting = sorted(blocks, key=lambda block: block.x, reverse=True)
    active: list[Block] = []
    union: list[Block] = []
    for left, right in itertools.pairwise(edges):
        active = [block for block in active if block.x + block.width > left]
        while waiting and waiting[-1].x <= left:
            active.append(waiting.pop())
        start = stop = -1
        for block in sorted(active, key=lambda block: block.y):
            if block.y > stop and stop > start:
                union.append(Block(block.z, left, start, right - left, stop - start))
            if block.y > stop or stop == start:
                start, stop = block.y, block.y + block.height
            stop = max(stop, block.y + block.height)
        if stop > start:
            union.append(Block(active[0].z, left, start, right - left, stop - start))
    return union
