"""The commands of ``fused-cache-ops``."""

import contextlib
import importlib.util
import json
import logging
import os
import runpy
import signal
import sqlite3
import sys
import threading
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NoReturn, Optional, cast

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from fused_cache_ops.cache_map.dataset import plan_dataset
from fused_cache_ops.cache_map.file import DEFAULT_MAP
from fused_cache_ops.call_keywords import CALL_HELP
from fused_cache_ops.cli.maps import map_program
from fused_cache_ops.cli.options import BaseUrl, CacheMapFile, ClientId, MaxRelated, RelatedUdfs, UdfName, fail, selecting
from fused_cache_ops.cli.report import report_table
from fused_cache_ops.client import FusedClient
from fused_cache_ops.errors import FusedCacheError, Remaining
from fused_cache_ops.outcome import DatasetInvalidationError, DatasetResult, InvalidationResult, PartialInvalidationError
from fused_cache_ops.plan.plan import plan_invalidation
from fused_cache_ops.selection.keywords import SelectionKeywords
from fused_cache_ops.sending.progress import OnProgress
from fused_cache_ops.settings import DEFAULT_CONCURRENCY, DEFAULT_DEADLINE, DEFAULT_TIMEOUT
from fused_cache_ops.wording import counted

# Tracebacks with locals would show the values of the caller's variables.
program = typer.Typer(help="Invalidate the caches of Fused UDFs.", no_args_is_help=True, pretty_exceptions_show_locals=False)
program.add_typer(map_program, name="map")


@program.command()
@selecting
def plan(
    udf: UdfName,
    selection: SelectionKeywords,
    html: Annotated[Optional[Path], typer.Option(help="Write an HTML page with the footprint on a map.")] = None,
    geojson: Annotated[Optional[Path], typer.Option(help="Write the footprint as GeoJSON.")] = None,
    list_tiles: Annotated[bool, typer.Option("--list", help="Print only the tiles, as z/x/y.")] = False,
    related: RelatedUdfs = None,
    max_related: MaxRelated = 20,
    client_id: ClientId = None,
    base_url: BaseUrl = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Count and draw what an invalidation would send. Invalidates nothing.

    It needs no token and sends nothing, except with --related, which looks up who calls whom.
    """
    try:
        if related is None:
            made = plan_invalidation(udf, **selection)
        else:
            with FusedClient(client_id=client_id, base_url=base_url, deadline=60) as client:
                made = client.plan_invalidation(udf, related=cast("Any", related), max_related=max_related, **selection)
        if html:
            html.write_text(made.to_html(), encoding="utf-8")
        if geojson:
            geojson.write_text(json.dumps(made.to_geojson()), encoding="utf-8")
        if list_tiles:
            for tile in made.tiles():
                print(tile)
            return
    except FusedCacheError as error:
        fail(error)
    if as_json:
        print(json.dumps(made.to_dict()))
        return
    table = Table("zoom", "tiles")
    for zoom, count in (made.tiles_per_zoom or {}).items():
        table.add_row(str(zoom), f"{count:,}")
    console = Console()
    if made.tiles_per_zoom:
        console.print(table)
    if made.targets:
        order = Table("order", "UDF", "is", "instance", "what")
        for number, each in enumerate(made.targets, start=1):
            what = "everything" if each.is_whole or made.tile_count is None else "the tiles"
            order.add_row(str(number), each.name or each.udf_id, each.relation, each.client_id, what)
        console.print(order)
    console.print(Text(f"{made}."))


@program.command()
@selecting
def invalidate(
    udf: UdfName,
    selection: SelectionKeywords,
    checkpoint: Annotated[
        Optional[str],
        typer.Option(help="Record what is done in this file or at this URL. Run the same command again to send the rest."),
    ] = None,
    remaining: Annotated[
        Optional[Path], typer.Option(help="If it fails, write the tiles not yet confirmed here instead of printing them.")
    ] = None,
    verify_tiles: Annotated[int, typer.Option(help="Afterwards, request this many tiles: none may come from the cache.")] = 0,
    related: RelatedUdfs = None,
    max_related: MaxRelated = 20,
    again_after: Annotated[float, typer.Option(help=CALL_HELP["again_after"])] = 0.0,
    # Only from the environment: everyone on the machine can see a command's options.
    shared_token: Annotated[Optional[str], typer.Option(envvar="FUSED_SHARED_TOKEN", hidden=True)] = None,
    client_id: ClientId = None,
    base_url: BaseUrl = None,
    timeout: Annotated[float, typer.Option(help="Seconds that one request may take.")] = DEFAULT_TIMEOUT,
    deadline: Annotated[float, typer.Option(help="Seconds in total, retries included.")] = DEFAULT_DEADLINE,
    max_concurrency: Annotated[int, typer.Option(help="Requests at once when tiles go one by one.")] = DEFAULT_CONCURRENCY,
    max_requests_per_second: Annotated[
        Optional[float], typer.Option(help="The most requests per second. Default: as many as the service accepts.")
    ] = None,
    ca_bundle: Annotated[Optional[str], typer.Option(help="Certificates to trust: a file or a folder.")] = None,
    client_certificate: Annotated[Optional[str], typer.Option(help="PEM file with a client certificate and its key.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Invalidate some tiles of a UDF, or all of it with --whole-udf.

    The token is read from FUSED_SERVICE_ACCOUNT_TOKEN. The shared token for --verify-tiles is read from FUSED_SHARED_TOKEN,
    unless the UDF is given by it. Exit codes: 0 done; 1 permanent failure, or not verified; 75 temporary failure, retry.
    """
    settings: dict[str, Any] = {"client_id": client_id, "base_url": base_url, "timeout": timeout, "deadline": deadline}
    settings |= {"max_concurrency": max_concurrency, "max_requests_per_second": max_requests_per_second}
    settings |= {"ca_bundle": ca_bundle, "client_certificate": client_certificate}
    terminal = Console(stderr=True)
    _log_to(terminal)
    _check_writable(remaining)
    try:
        with FusedClient(**settings) as client, _progress_bar(terminal) as on_progress, _interrupted_by_sigterm():
            done = client.invalidate_cache(
                udf,
                **selection,
                checkpoint=checkpoint,
                verify_tiles=verify_tiles,
                shared_token=shared_token,
                on_progress=on_progress,
                related=cast("Any", related),
                max_related=max_related,
                again_after=again_after,
            )
    except FusedCacheError as error:
        if error.remaining is not None:
            _hand_back(error.remaining, remaining, isinstance(error, PartialInvalidationError))
        fail(error)
    except KeyboardInterrupt as interrupt:
        if (left := getattr(interrupt, "remaining", None)) is not None:
            _hand_back(left, remaining, False)
        resume = "" if checkpoint is None else " Run the same command again to send the rest."
        typer.secho(f"Interrupted.{resume}", fg="red", err=True)
        raise typer.Exit(128 + getattr(interrupt, "signal", signal.SIGINT)) from None
    result = done.to_dict()
    if as_json:
        print(json.dumps(result))
        _end(done)
        return
    table = Table("", "", show_header=False)
    optional = ("zooms_left_stale", "note", "verification", "tiles_already_done", "second_pass", "warnings", "related")
    others = {udf_id: str(each) for udf_id, each in done.related.items()}
    instances = ", ".join(done.client_ids)
    rows = {"verification": done.verification, "related": "\n".join(others.values()), "client_ids": instances}
    for name, value in (result | rows | {"warnings": "\n".join(done.warnings or ())}).items():
        if name in optional and not value:
            continue
        shown = "the whole UDF" if name == "tiles_invalidated" and value is None else "unknown" if value is None else value
        table.add_row(name.replace("_", " "), str(shown))
    Console().print(table)
    _end(done)


@program.command()
@selecting
def dataset(
    dataset_key: Annotated[str, typer.Argument(metavar="DATASET", help="The dataset, as the cache map writes it.")],
    selection: SelectionKeywords,
    cache_map: CacheMapFile = DEFAULT_MAP,
    only_plan: Annotated[bool, typer.Option("--plan", help="Only show what would be sent. Needs no token.")] = False,
    checkpoint: Annotated[
        Optional[str], typer.Option(help="A folder, which ends in /. Run the same command again to send the rest.")
    ] = None,
    verify_tiles: Annotated[int, typer.Option(help="Afterwards, request this many tiles of each UDF.")] = 0,
    related: RelatedUdfs = None,
    max_related: MaxRelated = 20,
    again_after: Annotated[float, typer.Option(help=CALL_HELP["again_after"])] = 0.0,
    client_id: ClientId = None,
    base_url: BaseUrl = None,
    timeout: Annotated[float, typer.Option(help="Seconds that one request may take.")] = DEFAULT_TIMEOUT,
    deadline: Annotated[float, typer.Option(help="Seconds in total, retries included.")] = DEFAULT_DEADLINE,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Invalidate every UDF that shows a dataset, as the cache map says.

    The token is read from FUSED_SERVICE_ACCOUNT_TOKEN. One UDF that fails does not keep the others from being invalidated.
    Exit codes: 0 done; 1 permanent failure, or not verified; 75 temporary failure, retry.
    """
    terminal = Console(stderr=True)
    _log_to(terminal)
    sending: Any = {"checkpoint": checkpoint, "verify_tiles": verify_tiles, "related": related, "max_related": max_related}
    sending |= {"again_after": again_after}
    try:
        if only_plan:
            made = plan_dataset(dataset_key, cache_map=cache_map, **selection)
            if as_json:
                print(json.dumps(made.to_dict()))
            else:
                Console().print(Text(str(made)))
            return
        settings: Any = {"client_id": client_id, "base_url": base_url, "timeout": timeout, "deadline": deadline}
        with FusedClient(**settings) as client, _progress_bar(terminal) as on_progress, _interrupted_by_sigterm():
            done = client.invalidate_dataset(dataset_key, cache_map=cache_map, **selection, **sending, on_progress=on_progress)
    except DatasetInvalidationError as error:
        _show_dataset(error.result, as_json)
        fail(error)
    except FusedCacheError as error:
        fail(error)
    except KeyboardInterrupt as interrupt:
        resume = "" if checkpoint is None else " Run the same command again to send the rest."
        typer.secho(f"Interrupted.{resume}", fg="red", err=True)
        raise typer.Exit(128 + getattr(interrupt, "signal", signal.SIGINT)) from None
    _show_dataset(done, as_json)
    for result in done.results.values():
        _end(result)


def _show_dataset(done: DatasetResult, as_json: bool) -> None:
    if as_json:
        print(json.dumps(done.to_dict()))
        return
    table = Table("UDF", "tiles", "requests", "result")
    for udf in dict.fromkeys([*done.results, *done.failed]):
        result, error = done.results.get(udf), done.failed.get(udf)
        tiles = "" if result is None else "all" if result.tiles_invalidated is None else f"{result.tiles_invalidated:,}"
        said = "failed" if error is not None else (result and (result.note or str(result.verification or ""))) or "done"
        table.add_row(udf, tiles, "" if result is None else f"{result.requests_sent:,}", said)
    console = Console()
    if table.row_count:
        console.print(table)
    console.print(Text(f"{done}."))


@program.command()
def inspect(
    udf: UdfName,
    client_id: ClientId = None,
    base_url: BaseUrl = None,
    deadline: Annotated[float, typer.Option(help="Seconds in total, retries included.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Show what could keep the map of a UDF stale although an invalidation succeeds. Changes nothing.

    The token is read from FUSED_SERVICE_ACCOUNT_TOKEN. Exit codes: 0 done; 1 permanent failure; 75 temporary failure, retry.
    """
    try:
        with FusedClient(client_id=client_id, base_url=base_url, deadline=deadline) as client:
            report = client.inspect(udf)
    except FusedCacheError as error:
        fail(error)
    if as_json:
        print(json.dumps(report.to_dict()))
    else:
        Console().print(report_table(report))


@program.command()
def check(
    client_id: ClientId = None,
    base_url: BaseUrl = None,
    deadline: Annotated[float, typer.Option(help="Seconds in total, retries included.")] = 30.0,
) -> None:
    """Check that the token in FUSED_SERVICE_ACCOUNT_TOKEN is valid. Changes nothing."""
    try:
        with FusedClient(client_id=client_id, base_url=base_url, deadline=deadline) as client:
            environment = client.check()
            instance = client.resolve_client_id()
    except FusedCacheError as error:
        fail(error)
    print(f"The token is valid: environment {environment.name or environment.id}, real-time instance {instance}.")


@program.command()
def emulator(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1. 0 picks a free one.")] = 8765,
    db: Annotated[Optional[Path], typer.Option(help="File that keeps all data between runs.")] = None,
    udf: Annotated[
        Optional[list[str]], typer.Option(help="A function to serve as a UDF, as FILE.py:FUNCTION. Repeat for more.")
    ] = None,
    # Not from FUSED_SERVICE_ACCOUNT_TOKEN: that may be the real one, and this command prints the emulator's.
    token: Annotated[Optional[str], typer.Option(help="The service account's token. Default: a generated one.")] = None,
    batch: Annotated[bool, typer.Option(help="Whether the deployment accepts batches.")] = True,
    latency: Annotated[float, typer.Option(help="Seconds to wait before each response.")] = 0.0,
    fault: Annotated[
        Optional[list[str]],
        typer.Option(help='Misbehave, as JSON: {"status": 429, "retry_after": 2, "times": 3}. Repeat for more.'),
    ] = None,
) -> None:
    """Run a local stand-in for the Fused service, until Ctrl-C."""
    _need_emulator()
    from fused_cache_ops.emulator import Emulator

    functions = [_load_function(reference) for reference in udf or []]
    try:
        started = Emulator(port=port, database=db, token=token, batch_endpoint=batch).start()
    except (OSError, OverflowError, sqlite3.Error) as error:
        typer.secho(f"The emulator cannot start (port {port}, database {db}): {error}.", fg="red", err=True)
        raise typer.Exit(1) from None
    with contextlib.closing(started) as running:
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background jobs ignore SIGINT by default
            signal.signal(number, lambda *_: stopped.set())
        if latency:
            running.misbehave(latency=latency, times=None)
        for text in fault or []:
            try:
                running.misbehave(**json.loads(text))
            except (ValueError, TypeError) as error:
                raise typer.BadParameter(f"--fault {text}: {error}") from None
        for function in functions:
            running.register(function)
        print(f"export FUSED_BASE_URL={running.base_url}")
        print(f"export FUSED_SERVICE_ACCOUNT_TOKEN={running.token}")
        for served in running.store.udfs(running.environment_id):
            print(f"# UDF {served.slug} ({served.id}): {running.root_url}/{served.shared_token}/run/tiles/Z/X/Y")
        sys.stdout.flush()
        stopped.wait()


class Orchestrator(str, Enum):
    airflow = "airflow"
    prefect = "prefect"
    dagster = "dagster"
    all = "all"


@program.command()
def demo(orchestrator: Annotated[Orchestrator, typer.Argument(help="Which one to run.")] = Orchestrator.all) -> None:
    """Run end to end in a real orchestrator: a load makes a map stale, and the pipeline's next step makes it fresh."""
    _need_emulator()
    from fused_cache_ops.demo.pipelines import PIPELINES
    from fused_cache_ops.demo.run import run_demo

    names = list(PIPELINES) if orchestrator is Orchestrator.all else [orchestrator.value]
    console = Console(width=None if sys.stdout.isatty() else 120)
    if not run_demo(names, console):
        raise typer.Exit(1)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, as sent by a scheduler to end the process. Tiles not yet confirmed are handed back, as after Ctrl-C."""

    signal = signal.SIGTERM


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    def interrupt(*_: object) -> NoReturn:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_writable(path: Path | None) -> None:
    """Reject, before anything is sent, a location for the remaining tiles that cannot be written."""
    if path is None:
        return
    try:
        usable = not path.is_dir() and path.absolute().parent.is_dir() and os.access(path.absolute().parent, os.W_OK)
    except ValueError:  # a NUL
        usable = False
    if not usable:
        raise typer.BadParameter(f"--remaining {str(path)!r} cannot be written: use a file in an existing, writable folder.")


def _hand_back(left: Remaining, path: Path | None, is_partial: bool) -> None:
    """Write the tiles not yet confirmed to the requested file. Without one, or if that fails, print them."""
    written = False
    if path is not None:
        try:
            left.save(path)
            written = True
        except OSError as error:
            typer.secho(f"--remaining {path} cannot be written ({error}): the tiles are printed instead.", fg="red", err=True)
    if not written and (path is not None or is_partial):
        for tile in left:
            print("%d/%d/%d" % tile)
    for reason in left.unreadable:
        typer.secho(f"Missing from the remaining tiles: {reason}", fg="red", err=True)


def _end(result: InvalidationResult) -> None:
    verification = result.verification
    if verification is not None and len(verification.fresh) < verification.sampled:
        typer.secho(f"Not every tile could be verified. {verification}.", fg="red", err=True)
        raise typer.Exit(1)


def _log_to(terminal: Console) -> None:
    """Log warnings, and a progress line every few seconds if no progress bar can be shown."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=terminal, show_path=False)])
    if not terminal.is_terminal:
        logging.getLogger("fused_cache_ops.sending.progress").setLevel(logging.INFO)


@contextlib.contextmanager
def _progress_bar(terminal: Console) -> Iterator[OnProgress]:
    retried = TextColumn("{task.fields[retried]}")
    columns = (TextColumn("tiles"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), retried)
    with RichProgress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as bars:
        bar = bars.add_task("", total=None, retried="")

        def show(done: int, total: int | None, retries: int) -> None:
            bars.update(bar, completed=done, total=total, retried=counted(retries, "retry") if retries else "")

        yield show


def _need_emulator() -> None:
    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"{missing[0]} is not installed: pip install 'fused-cache-ops[emulator]'", file=sys.stderr)
        raise typer.Exit(1)


def _load_function(reference: str):  # type: ignore[no-untyped-def]
    path, _, name = reference.rpartition(":")
    if not path or not Path(path).exists():
        raise typer.BadParameter(f"--udf {reference}: write FILE.py:FUNCTION with an existing file.")
    function = runpy.run_path(path).get(name)
    if not callable(function):
        raise typer.BadParameter(f"--udf {reference}: the file has no function {name!r}.")
    return function
