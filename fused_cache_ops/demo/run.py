"""The demonstration: watch one map tile that a load changes, and one that it does not, through a real pipeline."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fused_cache_ops.demo.maps import look_at, run_maps_demo
from fused_cache_ops.demo.pipelines import PIPELINES, Pipeline, PipelineFailed, run_pipeline
from fused_cache_ops.demo.refresh import run_refresh_demo
from fused_cache_ops.demo.stations import (
    CALLER_CODE,
    CALLER_NAME,
    LISBON,
    PORTO,
    UDF_NAME,
    ZOOM,
    build_caller,
    build_udf,
    create_table,
    stations_in_tile,
)
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.tiles.tile import Tile


@dataclass(frozen=True)
class View:
    """One look at one tile: what the table contains there, what the map shows, and whether it came from the cache."""

    moment: str
    tile: Tile
    in_table: list[str]
    on_map: list[str]
    cached: bool

    @property
    def right(self) -> bool:
        return self.in_table == self.on_map


@dataclass(frozen=True)
class Expectation:
    """A look, and how it should turn out."""

    view: View
    right: bool
    cached: bool
    meaning: str

    @property
    def met(self) -> bool:
        return (self.view.right, self.view.cached) == (self.right, self.cached)


def run_demo(names: list[str], console: Console) -> bool:
    """Run the pipelines one after the other. Returns whether all went as expected."""
    outcomes = [_run_one(PIPELINES[name], console) and _run_maps(name, console) for name in names]
    return run_refresh_demo(console) and all(outcomes)


def _run_maps(name: str, console: Console) -> bool:
    pipeline, started = PIPELINES[name], time.monotonic()
    with console.status(f"{pipeline.title} is starting once more"):
        plain = _plain_progress(console, pipeline, started)
        good = run_maps_demo(name, console, lambda _: plain())
    console.print(f"[bold green]✓ {pipeline.title}, many maps" if good else f"[bold red]✗ {pipeline.title}, many maps")
    return good


def _run_one(pipeline: Pipeline, console: Console) -> bool:
    console.rule(f"[bold]{pipeline.title}")
    with tempfile.TemporaryDirectory(prefix="fused-demo-", ignore_cleanup_errors=True) as folder:
        database, home = Path(folder, "stations.sqlite"), Path(folder, "home")
        home.mkdir()
        create_table(database)
        with Emulator() as emulator:
            udf = emulator.register(build_udf(database), name=UDF_NAME)
            caller = emulator.register(build_caller(emulator.load), name=CALLER_NAME, code=CALLER_CODE)
            look, look_at_caller = _looker(emulator, udf, database), _looker(emulator, caller, database)
            changed, unchanged = (Tile.containing(*place, ZOOM) for place in (LISBON, PORTO))
            (
                look("before", changed),
                look_at_caller("before", changed),
                look_at_caller("before", unchanged),
            )  # fill the cache, as people looking at the map do
            expectations = [Expectation(look("before the load", changed), True, True, "right, from the cache")]

            # One more look as the invalidation arrives: after the load, but before the invalidation takes effect.
            between: list[View] = []

            def look_once() -> None:
                emulator.before_invalidation = None
                between.append(look("loaded, not yet invalidated", changed))

            emulator.before_invalidation = look_once
            started = time.monotonic()
            try:
                with console.status(f"{pipeline.title} is starting") as status:
                    plain = _plain_progress(console, pipeline, started)

                    def on_wait(line: str) -> None:
                        seconds = time.monotonic() - started
                        status.update(Text(f"{pipeline.title}, {seconds:.0f} s: {line[: max(20, console.width - 30)]}"))
                        plain()

                    run_pipeline(
                        pipeline,
                        home,
                        emulator=emulator.environment(),
                        variables={"STATIONS_DATABASE": str(database)},
                        on_wait=on_wait,
                    )
            except (PipelineFailed, ModuleNotFoundError) as failure:
                console.print(Text(str(failure), style="red"))
                return False
            seconds = time.monotonic() - started
            emulator.before_invalidation = None
            if not between:
                console.print("[red]The pipeline ended without invalidating anything.")
                return False
            invalidated = changed not in emulator.cached_tiles(udf)
            expectations += [
                Expectation(between[0], False, True, "STALE: the cache shows the old rows"),
                Expectation(look("after the pipeline", changed), True, False, "FRESH: computed anew"),
                Expectation(look_at_caller("after it, in a UDF that calls it", changed), True, False, "FRESH too: a caller"),
                # What a UDF calls is invalidated whole, because its results are kept by parameters.
                Expectation(look_at_caller("after it, elsewhere", unchanged), True, True, "untouched: still from the cache"),
            ]
            calls = [call for call in emulator.requests if call.path.endswith("delete")]
            console.print(_table(expectations))
            console.print(
                Text(
                    f"{pipeline.path().name} ran in {pipeline.title} in {seconds:.1f} s; the tile was "
                    f"{'invalidated' if invalidated else 'NOT invalidated'} by "
                    + ", ".join(f"{call.method} …/{call.path.rsplit('/', 1)[-1]} ({call.status})" for call in calls)
                )
            )
            good = invalidated and all(expectation.met for expectation in expectations)
            console.print(f"[bold green]✓ {pipeline.title}" if good else f"[bold red]✗ {pipeline.title}")
            return good


def _looker(emulator: Emulator, udf: Udf, database: Path) -> Callable[[str, Tile], View]:
    def look(moment: str, tile: Tile) -> View:
        return View(moment, tile, stations_in_tile(database, tile), *look_at(emulator, udf, tile))

    return look


def _plain_progress(console: Console, pipeline: Pipeline, started: float) -> Callable[[], None]:
    """A line every ten seconds, for when there is no terminal to show a spinner."""
    said = 0

    def say() -> None:
        nonlocal said
        seconds = int(time.monotonic() - started)
        if not console.is_terminal and seconds >= said + 10:
            said = seconds
            console.print(f"{pipeline.title} is running ({seconds} s)")

    return say


def _table(expectations: list[Expectation]) -> Table:
    table = Table(show_lines=False)
    for title in ("when", "tile", "in the table", "on the map", "from cache", "so the map is"):
        table.add_column(title, overflow="fold", no_wrap=title in ("tile", "from cache"))
    for expectation in expectations:
        view = expectation.view
        meaning = expectation.meaning if expectation.met else "NOT AS EXPECTED"
        style = "bold red" if not expectation.met else "yellow" if not view.right else "green"
        table.add_row(
            view.moment,
            str(view.tile),
            ", ".join(view.in_table),
            ", ".join(view.on_map),
            "yes" if view.cached else "no",
            Text(meaning, style=style),
        )
    return table
