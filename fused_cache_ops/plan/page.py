"""The page that shows a plan: the footprint on a Web Mercator map with a graticule, and the counts."""

from __future__ import annotations

import html
import math
from typing import Protocol

from fused_cache_ops.plan.footprint import LARGEST_FOOTPRINT, Footprint
from fused_cache_ops.tiles.blocks import Block
from fused_cache_ops.tiles.projection import latitude_of_row, row_fraction

_UNIT = 1_000_000.0  # the map's side in the drawing's units
_WIDTH = 900  # pixels, when the map is a standalone picture
_COLORS = ("#2563eb", "#c2410c", "#0f766e", "#9333ea", "#b45309", "#be123c", "#4d7c0f", "#0369a1")
_MAP_STYLE = """svg { background: #eef2f4; font-family: system-ui, sans-serif; }
.grid { stroke: #dedad2; fill: none; vector-effect: non-scaling-stroke; stroke-width: 1px; }
.label { fill: #6b675f; font-size: calc(var(--label) * 1px); }
.footprint path { opacity: .34; stroke-width: 1px; vector-effect: non-scaling-stroke; }"""
_STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)

_STYLE = """
:root { color-scheme: light dark; --page: #fbfaf7; --card: #fff; --ink: #1c1b19; --soft: #6b675f; --line: #dedad2;
  --sea: #eef2f4; --warn: #9a3412; }
@media (prefers-color-scheme: dark) { :root { --page: #161614; --card: #1f1e1c; --ink: #eceae5; --soft: #a39e94;
  --line: #3a3834; --sea: #1b2226; --warn: #fdba74; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 1.5rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 72rem; margin: 0 auto; display: grid; gap: 1.25rem; grid-template-columns: minmax(0, 1fr) 19rem; }
header { grid-column: 1 / -1; }
h1 { font-size: 1.35rem; line-height: 1.3; margin: 0 0 .25rem; overflow-wrap: anywhere; text-wrap: balance; }
p { margin: 0; color: var(--soft); }
.warn { color: var(--warn); font-weight: 600; margin-top: .5rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; overflow: hidden; }
.map svg { display: block; width: 100%; height: auto; background: var(--sea); }
.map .grid { stroke: var(--line); fill: none; vector-effect: non-scaling-stroke; stroke-width: 1px; }
.map .label { fill: var(--soft); font-family: inherit; font-size: calc(var(--label) * 1px); }
.footprint path { opacity: .34; stroke-width: 1px; vector-effect: non-scaling-stroke; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .5rem .9rem; text-align: right; border-bottom: 1px solid var(--line); }
th { font-weight: 500; color: var(--soft); font-size: .85rem; }
th:first-child, td:first-child { text-align: left; }
tr:last-child td { border-bottom: 0; }
tfoot td { font-weight: 600; }
label { display: flex; align-items: center; gap: .55rem; cursor: pointer; }
i { width: .85rem; height: .85rem; border-radius: .2rem; flex: none; }
aside { display: grid; gap: 1.25rem; align-content: start; }
@media (max-width: 46rem) { body { padding: .9rem; } main { grid-template-columns: minmax(0, 1fr); }
  .map .label { font-size: calc(var(--label) * 1.8px); } }
"""


class Drawable(Protocol):
    """What can be drawn: the interface of `fused_cache_ops.InvalidationPlan`."""

    @property
    def udf(self) -> str: ...
    @property
    def tile_count(self) -> int | None: ...
    @property
    def tiles_per_zoom(self) -> dict[int, int] | None: ...
    @property
    def request_count(self) -> int: ...
    @property
    def estimated_bytes(self) -> int: ...
    @property
    def note(self) -> str | None: ...
    def footprint(self, most_blocks: int = LARGEST_FOOTPRINT) -> Footprint: ...


def render(plan: Drawable) -> str:
    """The page as HTML."""
    footprint = plan.footprint()
    rows, rules, layers = [], [], []
    for number, (zoom, (drawn, blocks)) in enumerate(footprint.items()):
        color = _COLORS[number % len(_COLORS)]
        coarse = f" <small>(drawn at {drawn})</small>" if drawn != zoom else ""
        rows.append(
            f'<tr><td><label><input type="checkbox" id="z{zoom}" checked><i style="background:{color}"></i>'
            f"zoom {zoom}{coarse}</label></td><td>{(plan.tiles_per_zoom or {})[zoom]:,}</td></tr>"
        )
        rules.append(f":root:has(#z{zoom}:not(:checked)) .z{zoom} {{ display: none }}")
        path = "".join(_path(block) for block in blocks)
        layers.append(f'<path class="z{zoom}" d="{path}" fill="{color}" stroke="{color}"/>')
    title = html.escape(f"Invalidation plan: {plan.udf.strip(chr(39))}")
    total = "everything" if plan.tile_count is None else f"{plan.tile_count:,}"
    size = _bytes(plan.estimated_bytes)
    note = f'<p class="warn">{html.escape(plan.note)}.</p>' if plan.note else ""
    if plan.tile_count is None:
        picture = '<p style="padding:1.5rem">The whole UDF: every tile at every zoom, and every other result.</p>'
    elif not footprint:
        picture = '<p style="padding:1.5rem">Nothing is selected: nothing would be sent.</p>'
    else:
        picture = _map([block for _, blocks in footprint.values() for block in blocks], layers)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{_STYLE}{"".join(rules)}</style></head>
<body><main>
<header><h1>{title}</h1><p>{html.escape(str(plan)[0].upper() + str(plan)[1:])}.</p>{note}</header>
<section class="card map">{picture}</section>
<aside><div class="card"><table><thead><tr><th>zoom</th><th>tiles</th></tr></thead><tbody>{"".join(rows)}</tbody>
<tfoot><tr><td>total</td><td>{total}</td></tr></tfoot></table></div>
<div class="card"><table><tbody><tr><td>requests</td><td>{plan.request_count:,}</td></tr>
<tr><td>approximate size</td><td>{size}</td></tr></tbody></table></div></aside>
</main></body></html>
"""


def render_map(plan: Drawable, most_blocks: int) -> str:
    """The map alone, as an SVG document."""
    footprint = plan.footprint(most_blocks)
    if not footprint:
        return ""
    layers = []
    for number, (_, blocks) in enumerate(footprint.values()):
        color = _COLORS[number % len(_COLORS)]
        layers.append(f'<path d="{"".join(map(_path, blocks))}" fill="{color}" stroke="{color}"/>')
    everything = [block for _, blocks in footprint.values() for block in blocks]
    return _map(everything, layers, f'xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}"', f"<style>{_MAP_STYLE}</style>")


def _map(blocks: list[Block], layers: list[str], attributes: str = "", style: str = "") -> str:
    """The footprint with some margin around it."""
    left = min(block.x / 2**block.z for block in blocks)
    right = max((block.x + block.width) / 2**block.z for block in blocks)
    top = min(block.y / 2**block.z for block in blocks)
    bottom = max((block.y + block.height) / 2**block.z for block in blocks)
    width = max(right - left, (bottom - top) * 1.2, 1e-5) * 1.3
    height = min(max((bottom - top) * 1.3, width * 0.55), width)
    x, y = (left + right - width) / 2, (top + bottom - height) / 2
    unit = width * _UNIT
    return (
        f'<svg {attributes} viewBox="{x * _UNIT:.3f} {y * _UNIT:.3f} {unit:.3f} {height * _UNIT:.3f}" role="img" '
        f'style="--label:{unit / 62:.3f}" aria-label="Map of the tiles">{style}<g>{_graticule(x, y, width, height)}</g>'
        f'<g class="footprint">{"".join(layers)}</g></svg>'
    )


def _graticule(x: float, y: float, width: float, height: float) -> str:
    """Labeled meridians and parallels, at least four across the map."""
    step = next((step for step in reversed(_STEPS) if width * 360 / step >= 4), _STEPS[0])
    size = width * _UNIT / 62
    parts = []
    for number in range(math.ceil((x * 360 - 180) / step), math.floor(((x + width) * 360 - 180) / step) + 1):
        degrees = number * step
        at = (degrees + 180) / 360 * _UNIT
        if not -1 <= at <= _UNIT + 1:
            continue
        parts.append(f'<path class="grid" d="M{at:.3f} {max(y, 0) * _UNIT:.3f}V{min(y + height, 1) * _UNIT:.3f}"/>')
        label = _degrees(degrees, "EW", step)
        parts.append(
            f'<text class="label" x="{at + size * 0.35:.3f}" y="{(y + height) * _UNIT - size * 0.5:.3f}">{label}</text>'
        )
    north, south = (latitude_of_row(max(0, min(edge, 1)), 1) for edge in (y, y + height))
    for number in range(math.ceil(south / step), math.floor(north / step) + 1):
        degrees = number * step
        at = row_fraction(degrees) * _UNIT
        parts.append(f'<path class="grid" d="M{max(x, 0) * _UNIT:.3f} {at:.3f}H{min(x + width, 1) * _UNIT:.3f}"/>')
        label = _degrees(degrees, "NS", step)
        parts.append(f'<text class="label" x="{x * _UNIT + size * 0.5:.3f}" y="{at - size * 0.3:.3f}">{label}</text>')
    return "".join(parts)


def _path(block: Block) -> str:
    side = _UNIT / 2**block.z
    width, height = block.width * side, block.height * side
    return f"M{block.x * side:.4f} {block.y * side:.4f}h{width:.4f}v{height:.4f}h{-width:.4f}z"


def _degrees(degrees: float, sides: str, step: float) -> str:
    digits = max(0, -math.floor(math.log10(step)))
    side = "" if abs(degrees) < step / 2 else sides[degrees < 0]
    return f"{abs(degrees):.{digits}f}°{side}"


def _bytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB" if count >= 1000 else f"{count} B"
