"""The basemap of a plan's page: a map by MapLibre, to pan and zoom, which takes the drawing's place once it has loaded."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib import resources
from urllib.parse import urlsplit

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.plan.drawing import View, outline, shifted
from fused_cache_ops.plan.footprint import Footprint
from fused_cache_ops.settings import is_loopback, read_url
from fused_cache_ops.wording import quoted

# The last release that is one script: its worker needs no second file, which an integrity hash could not cover.
LIBRARY = "https://cdn.jsdelivr.net/npm/maplibre-gl@5.24.1/dist/maplibre-gl"
SCRIPT_HASH = "sha384-nXMl9YiLoSG5KBPTFgvxVuIqQQcqIvo0bFrvoEaGJC6r7IibIzF1S36Zbf/sKBtL"
STYLE_HASH = "sha384-uTttxo/aOKbdE5RlD/SPzSDoDmNvGlUYPjONi2MN/b7c9HPSvW07OIuyP7uL6jxK"
_EXAMPLES = "'https://tiles.example.com/{z}/{x}/{y}.png' or 'https://tiles.example.com/style.json'"
_PLACES = {"{z}", "{x}", "{y}"}


def script() -> str:
    """What runs in the page after MapLibre."""
    return resources.files(__package__).joinpath("basemap.js").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Basemap:
    """A basemap's address, checked."""

    address: str
    is_template: bool

    @classmethod
    def of(cls, address: str) -> Basemap:
        """Check an address. The page shows it to whoever opens it, so nothing that grants access may be in it.

        Raises:
            InvalidInputError: it is not the address of a style or a template of tiles, or it has credentials or a query.
        """
        if not isinstance(address, str):
            raise InvalidInputError(f"basemap is of type {type(address).__name__}, not a string. Examples: {_EXAMPLES}")
        places = re.findall(r"\{[^{}]*\}", address)
        plain, shown, problem = read_url(address, allow_http=True)
        if not problem:
            parts = urlsplit(plain)
            host = parts.hostname or ""
            if not host.isascii():
                problem = "names a host with letters that are not ASCII: write it in punycode (xn--…)"
            elif parts.scheme == "http" and not is_loopback(host):
                problem = "would be loaded unencrypted: use https"
            elif places and (set(places) != _PLACES or len(places) != 3):
                problem = "must have {z}, {x} and {y} once each, and no other placeholder"
            elif re.search(r"[{}]", re.sub(r"\{[zxy]\}", "", plain)) or re.search(r"[{}]", parts.netloc):
                problem = "has braces that are not part of {z}, {x} or {y}"
        if problem:
            raise InvalidInputError(f"basemap{f' = {quoted(shown)}' if shown else ''} {problem}. Examples: {_EXAMPLES}")
        return cls(plain, bool(places))

    @property
    def host(self) -> str:
        return urlsplit(self.address).netloc

    def policy(self) -> str:
        """What the page may load: from a template's host, or from every https host, since a style names others."""
        parts = urlsplit(self.address)
        own = f"{parts.scheme}://{parts.netloc}"
        sources = own if self.is_template else f"https: {own}" if parts.scheme == "http" else "https:"
        return f"connect-src {sources}; img-src {sources} data: blob:; worker-src blob:"

    def data(self, footprint: Footprint, view: View) -> str:
        """What the script draws, as JSON for a page."""
        deepest = max(footprint)
        layers = []
        for zoom, (drawn, blocks) in sorted(footprint.items(), key=lambda item: item[0] != deepest):
            moved = shifted(blocks, view)
            what = {"blocks": [block[1:] for block in moved]} if zoom == deepest else {"lines": outline(moved)}
            layers.append({"zoom": zoom, "drawn": drawn, **what})
        style: object = self.address
        if self.is_template:
            source = {
                "type": "raster",
                "tiles": [self.address],
                "tileSize": 256,
                "maxzoom": 19,
                "attribution": self._attribution(),
            }
            style = {
                "version": 8,
                "sources": {"basemap": source},
                "layers": [{"id": "basemap", "type": "raster", "source": "basemap"}],
            }
        text = json.dumps({"style": style, "bounds": view.bounds(), "layers": layers}, separators=(",", ":"))
        return text.replace("<", "\\u003c")

    def _attribution(self) -> str:
        known = self.host == "openstreetmap.org" or self.host.endswith(".openstreetmap.org")
        return "© OpenStreetMap contributors" if known else f"Basemap: {self.host}"
