"""The page that shows a plan: the footprint on a map, and the counts."""

from __future__ import annotations

import base64
import hashlib
import html
from typing import Protocol

from fused_cache_ops.plan import basemap as maplibre
from fused_cache_ops.plan.basemap import Basemap
from fused_cache_ops.plan.drawing import STYLE, View, dark_colors, drawing, locator, outlined, picture, shape
from fused_cache_ops.plan.footprint import LARGEST_FOOTPRINT, Footprint

_STYLE = """
:root { color-scheme: light dark; --page: #fbfaf7; --card: #fff; --ink: #1c1b19; --soft: #6b675f; --line: #dedad2;
  --warn: #9a3412; }
@media (prefers-color-scheme: dark) { :root { --page: #161614; --card: #1f1e1c; --ink: #eceae5; --soft: #a39e94;
  --line: #3a3834; --warn: #fdba74; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 1.5rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 72rem; margin: 0 auto; display: grid; gap: 1.25rem; grid-template-columns: minmax(0, 1fr) 21rem; }
header { grid-column: 1 / -1; }
h1 { font-size: 1.35rem; line-height: 1.3; margin: 0 0 .25rem; overflow-wrap: anywhere; text-wrap: balance; }
p { margin: 0; color: var(--soft); overflow-wrap: anywhere; }
.warn { color: var(--warn); font-weight: 600; margin-top: .5rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; overflow: hidden; }
.card > p { padding: 1.5rem; }
.card > svg { display: block; width: 100%; height: auto; }
.map { position: relative; align-self: start; }
.map > .live { position: absolute; inset: 0; visibility: hidden; color: #1c1b19; }
.is-live { height: max(26rem, 60vh); }
.map.is-live > .live { visibility: visible; }
.is-live > svg { visibility: hidden; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .5rem .9rem; text-align: right; border-bottom: 1px solid var(--line); }
th { font-weight: 500; color: var(--soft); font-size: .85rem; }
th:first-child, td:first-child { text-align: left; }
tr:last-child td { border-bottom: 0; }
tfoot td { font-weight: 600; }
label { display: flex; align-items: center; gap: .55rem; cursor: pointer; }
small { color: var(--soft); white-space: nowrap; }
.key { width: 1rem; height: 1rem; flex: none; }
aside { display: grid; gap: 1.25rem; align-content: start; }
@media (max-width: 46rem) { body { padding: .9rem; } main { grid-template-columns: minmax(0, 1fr); }
  .map .label { font-size: 140px; } .where { max-width: 12rem; } }
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


def render(plan: Drawable, basemap: str | None = None) -> str:
    """The page as HTML.

    Raises:
        InvalidInputError: the basemap's address is invalid.
    """
    background = None if basemap is None else Basemap.of(basemap)
    footprint = plan.footprint()
    footprint = outlined(footprint) if footprint else footprint
    view = View.of(footprint) if footprint else None
    zooms = list(footprint)
    rows, rules = [], [_STYLE, STYLE, dark_colors(zooms)]
    for zoom, (drawn, _) in footprint.items():
        coarse = f" <small>(drawn at {drawn})</small>" if drawn != zoom else ""
        coarse += " <small>(wider than the map)</small>" if view and zoom in view.beyond else ""
        key = shape(zoom, "M2 2h12v12h-12z", zooms=zooms)
        rows.append(
            f'<tr><td><label><input type="checkbox" id="z{zoom}" checked><svg class="key" viewBox="0 0 16 16">{key}</svg>'
            f"<span>zoom {zoom}{coarse}</span></label></td><td>{(plan.tiles_per_zoom or {})[zoom]:,}</td></tr>"
        )
        rules.append(f":root:has(#z{zoom}:not(:checked)) .footprint .z{zoom} {{ display: none }}\n")
    title = html.escape(f"Invalidation plan: {plan.udf.strip(chr(39))}")
    total = "everything" if plan.tile_count is None else f"{plan.tile_count:,}"
    note = f'<p class="warn">{html.escape(plan.note)}.</p>' if plan.note else ""
    where = scripts = ""
    if plan.tile_count is None:
        shown = "<p>The whole UDF: every tile at every zoom, and every other result.</p>"
    elif view is None:
        shown = "<p>Nothing is selected: nothing would be sent.</p>"
    else:
        shown = drawing(footprint, view)
        where = f'<div class="card where">{locator(view)}</div>' if view.is_small else ""
        scripts = "" if background is None else _scripts(background.data(footprint, view))
    style = "".join(rules)
    allowed = _policy(style, background if scripts else None)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{html.escape(allowed)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><main>
<header><h1>{title}</h1><p>{html.escape(str(plan)[0].upper() + str(plan)[1:])}.</p>{note}</header>
<section class="card map">{shown}</section>
<aside><div class="card"><table><thead><tr><th>zoom</th><th>tiles</th></tr></thead><tbody>{"".join(rows)}</tbody>
<tfoot><tr><td>total</td><td>{total}</td></tr></tfoot></table></div>
<div class="card"><table><tbody><tr><td>requests</td><td>{plan.request_count:,}</td></tr>
<tr><td>approximate size</td><td>{_bytes(plan.estimated_bytes)}</td></tr></tbody></table></div>{where}</aside>
</main>{scripts}</body></html>
"""


def render_map(plan: Drawable, most_blocks: int) -> str:
    """The map alone, as an SVG document."""
    footprint = plan.footprint(most_blocks)
    return picture(footprint) if footprint else ""


def _scripts(data: str) -> str:
    library = maplibre.LIBRARY
    return (
        f'<script type="application/json" id="plan">{data}</script>'
        f'<link rel="stylesheet" href="{library}.css" integrity="{maplibre.STYLE_HASH}" crossorigin="anonymous">'
        f'<script src="{library}.js" integrity="{maplibre.SCRIPT_HASH}" crossorigin="anonymous"></script>'
        f"<script>{maplibre.script()}</script>"
    )


def _policy(style: str, basemap: Basemap | None) -> str:
    """What the page may load and run. Only what is written here, and with a basemap MapLibre and the map."""
    if basemap is None:
        return f"default-src 'none'; style-src {_hash(style)}"
    library = maplibre.LIBRARY
    return (
        f"default-src 'none'; style-src {_hash(style)} {library}.css; "
        f"script-src {library}.js {_hash(maplibre.script())}; {basemap.policy()}"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _bytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB" if count >= 1000 else f"{count} B"
