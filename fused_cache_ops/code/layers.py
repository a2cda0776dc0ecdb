"""Layers of maps that draw a UDF with ``tile: true``: as text in code, JSON or HTML, of which none is run."""

from __future__ import annotations

import re
from typing import NamedTuple

_SIMPLE = re.compile(r"\{\{\s*([\w./-]{1,200})\s*\}\}")
_OBJECT = re.compile(r"\{[^{}]{1,4000}\}")
_TILE = re.compile(r"(?<![\w-])[\"']?tile[\"']?\s{0,8}:\s{0,8}(?:true|True)\b")
_UDF = re.compile(r"(?<![\w-])[\"']?udf[\"']?\s{0,8}:\s{0,8}[\"'`]([\w./-]{1,200})[\"'`]")


class TileLayer(NamedTuple):
    """A layer that draws a UDF by tiles.

    Attributes:
        udf: the UDF's name, as the layer writes it.
        line: where the layer begins, from 1.
    """

    udf: str
    line: int


def tile_layers(source: str) -> tuple[TileLayer, ...]:
    """The layers with ``tile: true`` in a source, in the order of lines."""
    if "tile" not in source:
        return ()
    text = _SIMPLE.sub(lambda found: found[1].ljust(len(found[0])), source)  # {{name}} in a template
    found = []
    for layer in _OBJECT.finditer(text):
        udf = _UDF.search(re.sub(r" +(?=[\"'`])", "", layer[0]))
        if udf is not None and _TILE.search(layer[0]):
            found.append(TileLayer(udf[1], text.count("\n", 0, layer.start()) + 1))
    return tuple(found)
