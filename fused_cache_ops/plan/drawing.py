"""The map of a plan: the footprint over the land and a graticule, in Web Mercator, as SVG.

The deepest zoom is filled and the others are outlines, all opaque, so that no colors mix. Light colors are attributes, for
programs that read little CSS; the dark ones are in `STYLE` and `dark_colors`.
"""

from __future__ import annotations

import functools
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from itertools import pairwise

from fused_cache_ops.plan.footprint import Footprint, drawn_footprint
from fused_cache_ops.tiles.blocks import Block, disjoint
from fused_cache_ops.tiles.projection import latitude_of_row, row_fraction

_WIDE = 4000  # the view's width in the drawing's units, which are whole: finer than the pixels of any screen
_STANDALONE = 900  # pixels
_LOCATOR = 256  # the side of the small map of the world, in its units
_MOST_OUTLINED = 4_000  # blocks per zoom
_ROUGH = 1 / 48  # a narrower part of the world is too small for the land, of which a point is 1/10,000 of the world
_STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
# From the coarsest zoom to the deepest. Both contrast with sea and land, and the deepest most.
_LIGHT = ((200, 82, 44), (176, 58, 122), (108, 20, 160), (20, 12, 110))
_DARK = ((186, 104, 214), (232, 106, 116), (252, 170, 60), (244, 244, 90))

STYLE = """.sea { fill: #eef2f4; } .land { fill: #e2ddd0; } .grid { stroke: #cdd3d6; } .label { fill: #57534b; }
.sea, .land, .coast, .grid, .label { stroke-width: 1px; vector-effect: non-scaling-stroke; }
.line, .fill { stroke-width: 2px; vector-effect: non-scaling-stroke; stroke-linecap: square; shape-rendering: crispEdges; }
.here { fill: none; stroke: #b91c1c; stroke-width: 1.5px; vector-effect: non-scaling-stroke; }
@media (prefers-color-scheme: dark) { .sea { fill: #1b2226; } .land { fill: #30302c; } .coast { stroke: #30302c; }
  .grid { stroke: #3b4348; }
  .label { fill: #b5b0a6; } .here { stroke: #fca5a5; } }
"""


@dataclass(frozen=True)
class View:
    """The part of the world that is drawn, in fractions of it from the northwest. East of the antimeridian, ``x`` exceeds 1.

    Attributes:
        start: where the footprint begins. What lies west of it is drawn one turn further east.
        beyond: coarse zooms that only surround what is shown, and are not shown as a whole.
    """

    x: float
    y: float
    width: float
    height: float
    start: float
    beyond: tuple[int, ...] = ()

    @classmethod
    def of(cls, footprint: Footprint) -> View:
        """The footprint with some margin around it, across the antimeridian if that is the shorter way.

        The deepest zoom decides, and coarser tiles elsewhere. Otherwise a city would be a dot in a tile of zoom 4.
        """
        shown = list(footprint[max(footprint)][1])
        inner = cls._around(shown)
        beyond = []
        for zoom, (drawn, blocks) in footprint.items():
            if zoom == max(footprint):
                continue
            if inner.width < 1 and 2**-drawn > inner.width / 2 and all(map(inner.overlaps, blocks)):
                beyond.append(zoom)
            else:
                shown += blocks
        return replace(cls._around(shown), beyond=tuple(beyond))

    @classmethod
    def _around(cls, blocks: Sequence[Block]) -> View:
        spans = sorted({(block.x / 2**block.z, (block.x + block.width) / 2**block.z) for block in blocks})
        start, gap = spans[0][0], spans[0][0] + 1 - max(right for _, right in spans)
        end = spans[0][1]
        for left, right in spans:
            if left - end > gap:
                start, gap = left, left - end
            end = max(end, right)
        top = min(block.y / 2**block.z for block in blocks)
        bottom = max((block.y + block.height) / 2**block.z for block in blocks)
        width = min(1, 1.3 * max(1 - gap, 1.2 * (bottom - top), 1e-7))
        height = min(max((bottom - top) * 1.3, width * 0.55), width)
        y = min(max(0, (top + bottom - height) / 2), 1 - height)
        return cls(start + (1 - gap - width) / 2, y, width, height, start)

    def overlaps(self, block: Block) -> bool:
        """Whether a block is in the view, at least in part."""
        size = 2**block.z
        tall = block.y / size < self.y + self.height and (block.y + block.height) / size > self.y
        return tall and any(
            block.x / size + turn < self.x + self.width and (block.x + block.width) / size + turn > self.x
            for turn in (-1, 0, 1)
        )

    @property
    def tall(self) -> int:
        """The height in the drawing's units."""
        return round(self.height / self.width * _WIDE)

    @property
    def is_small(self) -> bool:
        return self.width < _ROUGH

    def bounds(self) -> list[float]:
        """West, south, east and north in degrees. East may exceed 180."""
        west, east = (edge * 360 - 180 for edge in (self.x, self.x + self.width))
        return [west, latitude_of_row(self.y + self.height, 1), east, latitude_of_row(self.y, 1)]

    def column(self, block: Block) -> int:
        """A block's column, one turn further east if it is drawn there."""
        size = 2**block.z
        return block.x + size if (block.x + block.width) / size <= self.start else block.x

    def across(self, x: float) -> int:
        return round((x - self.x) / self.width * _WIDE)

    def down(self, y: float) -> int:
        return round((y - self.y) / self.width * _WIDE)


def colors(zooms: Sequence[int]) -> dict[int, tuple[str, str]]:
    """A light page's and a dark page's color of each zoom, from one scale each."""
    steps = max(1, len(zooms) - 1)
    last = len(zooms) - 1
    # Of few zooms, the deep end of the scale.
    return {
        zoom: (_mixed(_LIGHT, 1 - (last - number) / max(steps, 4)), _mixed(_DARK, 1 - (last - number) / max(steps, 4)))
        for number, zoom in enumerate(sorted(zooms))
    }


def dark_colors(zooms: Sequence[int]) -> str:
    """The rules that a dark page needs besides `STYLE`."""
    rules = "".join(
        f".z{zoom} {{ stroke: {dark}; }} .fill.z{zoom} {{ fill: {dark}; }}\n" for zoom, (_, dark) in colors(zooms).items()
    )
    return f"@media (prefers-color-scheme: dark) {{ {rules}}}\n"


def shape(zoom: int, path: str, *, zooms: Sequence[int]) -> str:
    """A zoom's part of the map, or of its legend."""
    color = colors(zooms)[zoom][0]
    kind, fill = ("fill", color) if zoom == max(zooms) else ("line", "none")
    return f'<path class="z{zoom} {kind}" d="{path}" fill="{fill}" stroke="{color}"/>'


def outlined(footprint: Footprint) -> Footprint:
    """The footprint with fewer blocks at the zooms of which only the outline is drawn."""
    deepest = max(footprint)
    return {
        zoom: (drawn, blocks)
        if zoom == deepest or len(blocks) <= _MOST_OUTLINED
        else drawn_footprint(blocks, _MOST_OUTLINED)[drawn]
        for zoom, (drawn, blocks) in footprint.items()
    }


def outline(blocks: Iterable[Block]) -> list[tuple[int, int, int, int]]:
    """The outline of blocks at one zoom as lines from one corner to another, in columns and rows of tiles."""
    blocks = list(blocks)
    if sum(block.width for block in blocks) > sum(block.height for block in blocks):  # `disjoint` is slow with long rows
        turned = _outline_of_columns(Block(block.z, block.y, block.x, block.height, block.width) for block in blocks)
        return [(x, y, right, bottom) for y, x, bottom, right in turned]
    return _outline_of_columns(blocks)


def _outline_of_columns(blocks: Iterable[Block]) -> list[tuple[int, int, int, int]]:
    rows: defaultdict[int, set[int]] = defaultdict(set)
    columns: defaultdict[int, set[int]] = defaultdict(set)
    for block in disjoint(blocks):
        right, bottom = block.x + block.width, block.y + block.height
        for row in (block.y, bottom):  # where two edges meet, their ends cancel
            rows[row] ^= {block.x, right}
        for column in (block.x, right):
            columns[column] ^= {block.y, bottom}
    lines = [(start, row, end, row) for row, ends in rows.items() for start, end in _pairs(ends)]
    return lines + [(column, start, column, end) for column, ends in columns.items() for start, end in _pairs(ends)]


def shifted(blocks: Iterable[Block], view: View) -> list[Block]:
    """The blocks where they are drawn."""
    return [block._replace(x=view.column(block)) for block in blocks]


def picture(footprint: Footprint) -> str:
    """The map as an SVG document, with a small map of the world beside it if it shows a small part."""
    footprint = outlined(footprint)
    view = View.of(footprint)
    side = _WIDE // 5 if view.is_small else 0
    inset = f'<g transform="translate({_WIDE} 0) scale({side / _LOCATOR})">{_world(view)}</g>' if side else ""
    style = STYLE + dark_colors(list(footprint))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_STANDALONE}" viewBox="0 0 {_WIDE + side} {view.tall}" role="img" '
        f'aria-label="Map of the tiles"><style>{style}</style><rect class="sea" fill="#eef2f4" width="100%" height="100%"/>'
        f'<svg width="{_WIDE}" height="{view.tall}">{_content(footprint, view)}</svg>{inset}</svg>'
    )


def drawing(footprint: Footprint, view: View) -> str:
    """The map as an element of a page with `STYLE`. The footprint is `outlined`."""
    return (
        f'<svg viewBox="0 0 {_WIDE} {view.tall}" role="img" aria-label="Map of the tiles">'
        f'<rect class="sea" fill="#eef2f4" width="100%" height="100%"/>{_content(footprint, view)}</svg>'
    )


def locator(view: View) -> str:
    """A small map of the world that shows where the view is, as an element of a page with `STYLE`."""
    return f'<svg viewBox="0 20 {_LOCATOR} 190" role="img" aria-label="Where it is in the world">{_world(view)}</svg>'


def _content(footprint: Footprint, view: View) -> str:
    zooms = list(footprint)
    deepest = max(zooms)
    layers = [shape(deepest, _filled(footprint[deepest][1], view), zooms=zooms)]
    for zoom, (drawn, blocks) in footprint.items():
        if zoom != deepest:
            layers.append(shape(zoom, _lines(drawn, outline(shifted(blocks, view)), view), zooms=zooms))
    fill, *lines = layers
    land = coast = ""
    if not view.is_small:
        land = f'<path id="land" fill-rule="evenodd" d="{_land_in(view)}"/>'
        land = f'<defs>{land}</defs><use class="land" fill="#e2ddd0" href="#land"/>'
        coast = '<use class="coast" fill="none" stroke="#e2ddd0" href="#land"/>'  # where the fill covers the land
    return f'{land}<g>{_graticule(view)}</g><g class="footprint">{fill}{coast}{"".join(lines)}</g>'


def _filled(blocks: Iterable[Block], view: View) -> str:
    parts: dict[str, None] = {}
    for block in blocks:
        size = 2**block.z
        left, right = (view.across(column / size) for column in (view.column(block), view.column(block) + block.width))
        top, bottom = (view.down(row / size) for row in (block.y, block.y + block.height))
        parts[f"M{left} {top}h{right - left}v{bottom - top}h{left - right}z"] = None
    return "".join(parts)


def _lines(zoom: int, lines: Iterable[tuple[int, int, int, int]], view: View) -> str:
    size = 2**zoom
    parts = []
    for left, top, right, bottom in lines:
        x, y = view.across(left / size), view.down(top / size)
        parts.append(
            f"M{x} {y}h{view.across(right / size) - x}" if top == bottom else f"M{x} {y}v{view.down(bottom / size) - y}"
        )
    return "".join(parts)


def _pairs(ends: set[int]) -> Iterator[tuple[int, int]]:
    ordered = sorted(ends)
    return zip(ordered[::2], ordered[1::2])


def _graticule(view: View) -> str:
    """Labeled meridians and parallels, at least four across the map."""
    step = next((step for step in reversed(_STEPS) if view.width * 360 / step >= 4), _STEPS[0])
    size = _WIDE // 50
    parts = []
    west, south, east, north = view.bounds()
    for number in range(math.ceil(west / step), math.floor(east / step) + 1):
        at = view.across((number * step + 180) / 360)
        parts.append(f'<path class="grid" stroke="#cdd3d6" d="M{at} 0V{view.tall}"/>')
        label = _degrees((number * step + 180) % 360 - 180, "EW", step)
        if at < _WIDE * 0.92:  # so that none is cut off
            parts.append(_label(at + size // 3, view.tall - size // 2, size, label))
    for number in range(math.ceil(south / step), math.floor(north / step) + 1):
        at = view.down(row_fraction(number * step))
        parts.append(f'<path class="grid" stroke="#cdd3d6" d="M0 {at}H{_WIDE}"/>')
        if at < view.tall - 2 * size:  # the row of the meridians' labels
            parts.append(_label(size // 2, at - size // 3, size, _degrees(number * step, "NS", step)))
    return "".join(parts)


def _mixed(scale: Sequence[tuple[int, int, int]], part: float) -> str:
    """The color at a part of the way through a scale."""
    at = part * (len(scale) - 1)
    index = min(int(at), len(scale) - 2)
    return "#" + "".join(
        f"{round(one + (other - one) * (at - index)):02x}" for one, other in zip(scale[index], scale[index + 1])
    )


def _label(x: int, y: int, size: int, text: str) -> str:
    look = f'class="label" font-family="system-ui,sans-serif" font-size="{size}" fill="#57534b"'
    return f'<text {look} x="{x}" y="{y}">{text}</text>'


def _degrees(degrees: float, sides: str, step: float) -> str:
    digits = max(0, -math.floor(math.log10(step)))
    side = "" if abs(degrees) < step / 2 or abs(degrees) > 180 - step / 2 else sides[degrees < 0]
    return f"{abs(degrees):.{digits}f}°{side}"


@functools.cache
def _land() -> list[list[tuple[float, float]]]:
    """The outlines of the land, in fractions of the world.

    They are Natural Earth's 1:110m countries (public domain, naturalearthdata.com) merged and simplified by 0.02°. The file has
    a ring a line, in 10,000ths of the Web Mercator square.
    """
    rings = []
    for line in resources.files(__package__).joinpath("land.txt").read_text(encoding="ascii").splitlines():
        numbers = [int(number) for number in re.findall(r"-?\d+", line)]
        x = y = 0
        ring = []
        for right, down in zip(numbers[::2], numbers[1::2]):
            x, y = x + right, y + down
            ring.append((x / 10_000, y / 10_000))
        rings.append(ring)
    return rings


def _land_in(view: View) -> str:
    """The land as far as it can be seen."""
    parts = []
    for ring in _land():
        xs, ys = [x for x, _ in ring], [y for _, y in ring]
        if max(ys) < view.y or min(ys) > view.y + view.height:
            continue
        for turn in (-1, 0, 1):
            if max(xs) + turn >= view.x and min(xs) + turn <= view.x + view.width:
                parts.append(_ring([(view.across(x + turn), view.down(y)) for x, y in ring], 4))
    return "".join(parts)


def _ring(points: list[tuple[int, int]], finest: int) -> str:
    """A closed line without steps shorter than ``finest``. Empty if too little is left of it."""
    kept = [points[0]]
    for point in points:
        if abs(point[0] - kept[-1][0]) + abs(point[1] - kept[-1][1]) >= finest:
            kept.append(point)
    if len(kept) < 3:
        return ""
    steps = " ".join(f"{x - before_x} {y - before_y}" for (before_x, before_y), (x, y) in pairwise(kept))
    return f"M{kept[0][0]} {kept[0][1]}l{steps}z".replace(" -", "-")


def _world(view: View) -> str:
    land = "".join(_ring([(round(x * _LOCATOR), round(y * _LOCATOR)) for x, y in ring], 2) for ring in _land())
    x, y = ((view.x + view.width / 2) % 1 * _LOCATOR, (view.y + view.height / 2) * _LOCATOR)
    return (
        f'<rect class="sea" fill="#eef2f4" width="{_LOCATOR}" height="{_LOCATOR}"/>'
        f'<path class="land" fill="#e2ddd0" fill-rule="evenodd" d="{land}"/>'
        f'<circle class="here" fill="none" stroke="#b91c1c" cx="{x:.1f}" cy="{y:.1f}" r="6"/>'
    )
