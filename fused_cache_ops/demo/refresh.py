"""The demonstration of a refresh: who waits after a load, the first visitor or nobody."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fused_cache_ops import invalidate_cache
from fused_cache_ops.demo.maps import look_at
from fused_cache_ops.demo.stations import LISBON, UDF_NAME, ZOOM, build_udf, create_table, load_new_stations, stations_in_tile
from fused_cache_ops.emulator import Emulator
from fused_cache_ops.keywords.values import RefreshCount
from fused_cache_ops.tiles.tile import Tile


def run_refresh_demo(console: Console) -> bool:
    """Load, invalidate and look, once without and once with a refresh. Returns whether all went as expected."""
    console.rule("[bold]Refresh")
    table = Table()
    for title in ("refresh", "runs by the refresh", "first visitor", "so the map is"):
        table.add_column(title)
    good = True
    tile = Tile.containing(*LISBON, ZOOM)
    amounts: tuple[RefreshCount, ...] = (0, "all")
    for refresh in amounts:
        with tempfile.TemporaryDirectory(prefix="fused-demo-") as folder, Emulator() as emulator:
            database = Path(folder, "stations.sqlite")
            create_table(database)
            udf = emulator.register(build_udf(database), name=UDF_NAME)
            look_at(emulator, udf, tile)  # fills the cache
            changed = load_new_stations(database)
            emulator.forget_runs()
            result = invalidate_cache(
                udf.shared_token,
                tiles=changed,
                refresh=refresh,
                client={"token": emulator.token, "base_url": emulator.base_url},
            )
            runs = len(emulator.runs)
            shown, cached = look_at(emulator, udf, tile)
            right = shown == stations_in_tile(database, tile)
            waits = "finds it cached" if cached else "waits for a run"
            met = right and cached == bool(refresh) and runs == (result.refresh.runs if result.refresh else 0)
            good = good and met
            meaning = "right" if met else "NOT AS EXPECTED"
            table.add_row(str(refresh), str(runs), waits, Text(meaning, style="green" if met else "bold red"))
    console.print(table)
    console.print("[bold green]✓ Refresh" if good else "[bold red]✗ Refresh")
    return good
