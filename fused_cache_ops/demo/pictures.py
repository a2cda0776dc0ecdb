"""Tiles as pictures: PNG images of 256 colors, written without a library."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

SIZE = 256
"""Width and height of a tile, in pixels."""

Color = tuple[int, int, int]

_GLYPHS = {
    "0": (7, 5, 5, 5, 7),
    "1": (2, 6, 2, 2, 7),
    "2": (7, 1, 7, 4, 7),
    "3": (7, 1, 7, 1, 7),
    "4": (5, 5, 7, 1, 1),
    "5": (7, 4, 7, 1, 7),
    "6": (7, 4, 7, 5, 7),
    "7": (7, 1, 1, 2, 2),
    "8": (7, 5, 7, 5, 7),
    "9": (7, 5, 7, 1, 7),
}
"""Digits of three by five dots, a number of three bits for each row."""


class Picture:
    """A tile to draw on.

    Args:
        palette: its colors, at most 256. The first one is the background. What is drawn is the number of a color.
    """

    def __init__(self, palette: Sequence[Color]) -> None:
        self._palette = palette
        self._rows = [bytearray(SIZE) for _ in range(SIZE)]

    def rectangle(self, left: int, top: int, right: int, bottom: int, color: int) -> None:
        """Fill the pixels from ``left`` and ``top`` up to ``right`` and ``bottom``, as far as they are on the tile."""
        left, right = max(left, 0), min(right, SIZE)
        if left < right:
            for row in self._rows[max(top, 0) : max(bottom, 0)]:
                row[left:right] = bytes([color]) * (right - left)

    def circle(self, x: int, y: int, radius: int, color: int) -> None:
        """Fill a circle."""
        for distance in range(-radius, radius + 1):
            half = int((radius**2 - distance**2) ** 0.5)
            self.rectangle(x - half, y + distance, x + half + 1, y + distance + 1, color)

    def number(self, value: int, left: int, top: int, scale: int, color: int) -> None:
        """Write a number, with ``scale`` pixels for a dot."""
        for place, digit in enumerate(str(value)):
            for row, bits in enumerate(_GLYPHS[digit]):
                for column in range(3):
                    if bits & 4 >> column:
                        x, y = left + (4 * place + column) * scale, top + row * scale
                        self.rectangle(x, y, x + scale, y + scale, color)

    def png(self) -> bytes:
        """The picture as the bytes of a PNG file."""
        header = struct.pack(">IIBBBBB", SIZE, SIZE, 8, 3, 0, 0, 0)  # eight bits for a number of the palette
        colors = b"".join(map(bytes, self._palette))
        pixels = b"".join(b"\0" + row for row in self._rows)  # no filter
        parts = ((b"IHDR", header), (b"PLTE", colors), (b"IDAT", zlib.compress(pixels)), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
        )
