"""The demonstration of one load and many maps: three UDFs show the table at different zooms, and a fourth shows another."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fused_cache_ops.demo.pipelines import PIPELINES, Pipeline, PipelineFailed, run_pipeline
from fused_cache_ops.demo.stations import LISBON, UDF_NAME, ZOOM, create_table, stations_in_tile
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.tiles.tile import Tile

EXAMPLES = {"airflow": "invalidate_dataset", "prefect": "invalidate_dataset", "dagster": "caches_of_dataset"}
OVERVIEW, TOTALS, UNTOUCHED = "charging_overview", "charging_totals", "charging_prices"
WORLD = Tile(0, 0, 0)


def run_maps_demo(name: str, console: Console, on_wait: Callable[[str], None] = lambda line: None) -> bool:
    """Run an orchestrator's example of a dataset. Returns whether all maps of the table are right, and the other untouched."""
    pipeline = PIPELINES[name].another(EXAMPLES[name])
    with tempfile.TemporaryDirectory(prefix="fused-demo-", ignore_cleanup_errors=True) as folder:
        database, home = Path(folder, "stations.sqlite"), Path(folder, "home")
        home.mkdir()
        create_table(database)
        with Emulator() as emulator:
            return _show(pipeline, emulator, database, home, console, on_wait)


def look_at(emulator: Emulator, udf: Udf, tile: Tile) -> tuple[Any, bool]:
    """What the map shows in a tile, and whether it came from the cache."""
    with requests.Session() as session:
        session.trust_env = False  # no proxy between this machine and itself
        response = session.get(emulator.tile_url(udf, *tile), timeout=30)
    response.raise_for_status()
    return response.json(), response.headers["x-cache"] == "Hit"


def _show(
    pipeline: Pipeline, emulator: Emulator, database: Path, home: Path, console: Console, on_wait: Callable[[str], None]
) -> bool:
    def count(tile: Tile) -> int:
        return len(stations_in_tile(database, tile))

    def draw(z: int, x: int, y: int) -> int:
        return count(Tile(z, x, y))

    shown = {UDF_NAME: ZOOM, OVERVIEW: ZOOM - 2, TOTALS: 0, UNTOUCHED: ZOOM}
    udfs = {name: emulator.register(draw, name=name) for name in shown}
    tiles = {name: WORLD if zoom == 0 else Tile.containing(*LISBON, zoom) for name, zoom in shown.items()}
    before = {name: look_at(emulator, udfs[name], tiles[name])[0] for name in shown}  # fills the cache
    started = time.monotonic()
    try:
        run_pipeline(
            pipeline,
            home,
            emulator=emulator.environment(),
            variables={"STATIONS_DATABASE": str(database)},
            on_wait=on_wait,
        )
    except PipelineFailed as failure:
        console.print(Text(str(failure), style="red"))
        return False
    seconds = time.monotonic() - started
    table = Table()
    for title in ("UDF", "tile", "map before", "table now", "map now", "from cache", "so the map is"):
        table.add_column(title, overflow="fold", no_wrap=title in ("UDF", "tile"))
    good = True
    for name in shown:
        now, cached = look_at(emulator, udfs[name], tiles[name])
        rows = count(tiles[name])
        met = cached and now == before[name] if name == UNTOUCHED else not cached and now == rows != before[name]
        good = good and met
        meaning = "NOT AS EXPECTED" if not met else "untouched: not in the map of caches" if name == UNTOUCHED else "FRESH"
        values = (before[name], "-" if name == UNTOUCHED else rows, now, "yes" if cached else "no")
        table.add_row(name, str(tiles[name]), *map(str, values), Text(meaning, style="green" if met else "bold red"))
    console.print(table)
    console.print(Text(f"One load, three maps: {pipeline.path().name} ran in {pipeline.title} in {seconds:.1f} s"))
    return good
