"""The demonstration in a browser: a load happens while a map is open, and the step after it has the map draw what changed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from importlib.resources import files
from pathlib import Path

from rich.console import Console
from rich.text import Text
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from fused_cache_ops import invalidate_cache
from fused_cache_ops.demo.page import npm_packages, serving
from fused_cache_ops.demo.pictures import SIZE, Picture
from fused_cache_ops.demo.stations import UDF_NAME, create_table
from fused_cache_ops.emulator import Emulator
from fused_cache_ops.tiles.tile import Tile

MAPLIBRE = "maplibre-gl@6.17.0"
ZOOMS = range(8, 14)
BROWSERS_MAY_KEEP = 600
"""Seconds that a browser keeps a tile without asking: long enough to see that a load alone changes nothing on the map."""

_PAPER, _EDGE, _DOT, _HALO = (239, 241, 236), (208, 214, 204), (23, 92, 211), (255, 255, 255)
_PLACES = ((-9.206, 38.697), (-9.099, 38.768), (-9.144, 38.753), (-9.160, 38.722))
"""Where the new stations are, roughly."""


@contextlib.contextmanager
def map_demo(port: int = 0) -> Iterator[str]:
    """Serve the page until the context ends, and yield its address.

    Args:
        port: the port on 127.0.0.1. 0: a free one.

    Raises:
        RuntimeError: MapLibre GL JS could not be installed by npm.
        OSError: the port is taken.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    node_modules = npm_packages(cache / "fused-cache-ops" / MAPLIBRE.replace("@", "-"), [MAPLIBRE])
    with tempfile.TemporaryDirectory(prefix="fused-demo-") as folder, Emulator() as emulator:
        shown = {"access-control-allow-origin": "*", "cache-control": f"public, max-age={BROWSERS_MAY_KEEP}"}
        emulator.assumptions.shared_headers = shown
        demo = _Demo(emulator, Path(folder))
        routes = [
            Route("/", demo.page),
            Route("/state", demo.state),
            Route("/load", demo.load, methods=["POST"]),
            Route("/step", demo.step, methods=["POST"]),
            Route("/fused-cache-listener.js", demo.listener),
            Mount("/announced", StaticFiles(directory=demo.announced)),
            Mount("/maplibre", StaticFiles(directory=node_modules / "maplibre-gl" / "dist")),
        ]
        with serving(Starlette(routes=routes), port) as address:
            yield address


def run_map_demo(console: Console, port: int = 0) -> None:
    """Serve the page until Ctrl-C."""
    with map_demo(port) as address:
        console.print(Text(f"Open {address} in a browser. Ctrl-C ends it."))
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


class _Demo:
    """The table, the UDF that draws it, and the two buttons of the page."""

    def __init__(self, emulator: Emulator, folder: Path) -> None:
        self._emulator, self._database, self.announced = emulator, folder / "stations.sqlite", folder / "announced"
        self.announced.mkdir()
        create_table(self._database)
        self._udf = emulator.register(self._draw, name=UDF_NAME)
        self._changed: set[str] = set()
        self._random = random.Random(7)  # noqa: S311 - where stations are is no secret

    def _rows(self) -> list[tuple[float, float]]:
        with closing(sqlite3.connect(self._database)) as connection:
            return connection.execute("SELECT longitude, latitude FROM stations ORDER BY rowid").fetchall()

    def _draw(self, z: int, x: int, y: int, **_: str) -> bytes:
        """The UDF: the stations of a tile as dots, and their number."""
        picture = Picture([_PAPER, _EDGE, _HALO, _DOT])
        picture.rectangle(0, 0, SIZE, 1, 1)
        picture.rectangle(0, 0, 1, SIZE, 1)
        count = 0
        for longitude, latitude in self._rows():
            # The position in pixels is a tile at a zoom eight deeper: a tile has 256 of them.
            pixel = Tile.containing(longitude, latitude, z + 8)
            left, top = pixel.x - SIZE * x, pixel.y - SIZE * y
            count += 0 <= left < SIZE and 0 <= top < SIZE
            picture.circle(left, top, 9, 2)
            picture.circle(left, top, 7, 3)
        if count:
            picture.number(count, 10, 10, 4, 3)
        return picture.png()

    async def load(self, request: Request) -> Response:
        """The load: add rows. It knows which tiles they are drawn in, also where a dot reaches over the edge of its tile."""
        rows = [(x + self._random.uniform(-0.02, 0.02), y + self._random.uniform(-0.015, 0.015)) for x, y in _PLACES]
        with closing(sqlite3.connect(self._database)) as connection, connection:
            connection.executemany("INSERT INTO stations VALUES ('new', ?, ?)", rows)
        for longitude, latitude in rows:
            for zoom in ZOOMS:
                middle = Tile.containing(longitude, latitude, zoom + 8)
                for across in (-9, 9):
                    for down in (-9, 9):
                        tile = Tile(zoom, (middle.x + across) // SIZE, (middle.y + down) // SIZE)
                        self._changed.add(str(tile))
        return await self.state(request)

    async def step(self, request: Request) -> Response:
        """The step after the load."""
        await run_in_threadpool(self._invalidate)
        return await self.state(request)

    def _invalidate(self) -> None:
        changed, self._changed = sorted(self._changed), set()
        self._emulator.forget_requests()
        invalidate_cache(
            UDF_NAME,
            tiles=changed,
            announce=str(self.announced / f"{UDF_NAME}.json"),
            client={"token": self._emulator.token, "base_url": self._emulator.base_url},
        )

    async def state(self, request: Request) -> Response:
        """What the page says: rows in the table, tiles that changed since the last step, tiles that were asked for since."""
        asked = [call.path.partition("/run/tiles/")[2] for call in self._emulator.requests]
        return JSONResponse({"rows": len(self._rows()), "changed": len(self._changed), "asked": sorted(filter(None, asked))})

    async def page(self, request: Request) -> Response:
        source = {"tiles": f"{self._emulator.root_url}/{self._udf.shared_token}/run/tiles/{{z}}/{{x}}/{{y}}?format=png"}
        settings = source | {
            "announced": f"/announced/{UDF_NAME}.json",
            "maxAge": BROWSERS_MAY_KEEP,
            "zooms": [ZOOMS[0], ZOOMS[-1]],
        }
        html = (files("fused_cache_ops") / "demo" / "map.html").read_text(encoding="utf-8")
        return HTMLResponse(html.replace("{settings}", json.dumps(settings)))

    async def listener(self, request: Request) -> Response:
        code = (files("fused_cache_ops") / "announcements" / "fused-cache-listener.js").read_text(encoding="utf-8")
        return Response(code, media_type="text/javascript")
