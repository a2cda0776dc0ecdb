"""The commands of ``fused-cache-ops``."""

import importlib.util
import json
import logging
import runpy
import sys
import time
from enum import Enum
from pathlib import Path
from typing import Annotated, NoReturn, Optional

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from fused_cache_ops.client import DEFAULT_DEADLINE, DEFAULT_TIMEOUT, FusedClient
from fused_cache_ops.errors import FusedCacheError, PartialInvalidationError
from fused_cache_ops.tiles import WHOLE_UDF, TileSelection

# Tracebacks with locals would show what the caller's variables hold.
program = typer.Typer(help="Invalidate the caches of Fused UDFs.", no_args_is_help=True, pretty_exceptions_show_locals=False)

ClientId = Annotated[
    Optional[str], typer.Option(envvar="FUSED_CLIENT_ID", help="Real-time instance. Default: the preferred one.")
]
BaseUrl = Annotated[Optional[str], typer.Option(envvar="FUSED_BASE_URL", help="Address of the deployment.")]


@program.command()
def invalidate(
    udf: Annotated[str, typer.Argument(help="Id, name, canvas/name, team/name, user@host/name or shared token.")],
    tiles: Annotated[Optional[list[str]], typer.Argument(help="Tiles as z/x/y.", metavar="[Z/X/Y]...")] = None,
    whole_udf: Annotated[bool, typer.Option("--whole-udf", help="Invalidate everything that the UDF cached.")] = False,
    client_id: ClientId = None,
    base_url: BaseUrl = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the service, each time.")] = DEFAULT_TIMEOUT,
    deadline: Annotated[float, typer.Option(help="Seconds for all, retries included.")] = DEFAULT_DEADLINE,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Invalidate some tiles of a UDF, or with --whole-udf all of it.

    The token is read from FUSED_SERVICE_ACCOUNT_TOKEN. Exit code: 0 done, 1 failed for good, 75 may pass: try again.
    """
    if whole_udf == bool(tiles):
        raise typer.BadParameter("name the tiles as z/x/y, or give --whole-udf: one of the two.")
    selection: TileSelection = WHOLE_UDF if whole_udf else list(tiles or [])
    _log_to_terminal()
    try:
        with FusedClient(client_id=client_id, base_url=base_url, timeout=timeout, deadline=deadline) as client:
            result = client.invalidate_cache(udf, tiles=selection).to_dict()
    except FusedCacheError as error:
        if isinstance(error, PartialInvalidationError):
            print(*error.remaining, sep="\n")
        _fail(error)
    if as_json:
        print(json.dumps(result))
        return
    table = Table("", "", show_header=False)
    for name, value in result.items():
        shown = "the whole UDF" if name == "tiles_requested" and value is None else "not known" if value is None else value
        table.add_row(name.replace("_", " "), str(shown))
    Console().print(table)


@program.command()
def check(client_id: ClientId = None, base_url: BaseUrl = None) -> None:
    """Ask whether the token in FUSED_SERVICE_ACCOUNT_TOKEN is good. Changes nothing."""
    try:
        with FusedClient(client_id=client_id, base_url=base_url) as client:
            environment = client.check()
            instance = client.resolve_client_id()
    except FusedCacheError as error:
        _fail(error)
    print(f"The token is good, for the environment {environment.name or environment.id}, real-time instance {instance}.")


@program.command()
def emulator(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.")] = 8765,
    db: Annotated[Optional[Path], typer.Option(help="File that keeps everything from run to run.")] = None,
    udf: Annotated[
        Optional[list[str]], typer.Option(help="A function to serve as a UDF, as FILE.py:FUNCTION. Repeat for more.")
    ] = None,
    token: Annotated[
        Optional[str], typer.Option(envvar="FUSED_SERVICE_ACCOUNT_TOKEN", help="The service account's token.")
    ] = None,
    batch: Annotated[bool, typer.Option(help="Whether the deployment takes batches.")] = True,
    latency: Annotated[float, typer.Option(help="Seconds to wait before each answer.")] = 0.0,
    fault: Annotated[
        Optional[list[str]],
        typer.Option(help='Misbehave, as JSON: {"status": 429, "retry_after": 2, "times": 3}. Repeat for more.'),
    ] = None,
) -> None:
    """Run a stand-in for the Fused service on this machine, until Ctrl-C."""
    _need_emulator()
    from fused_cache_ops.emulator import Emulator

    functions = [_load_function(reference) for reference in udf or []]
    with Emulator(port=port, database=db, token=token, batch_endpoint=batch) as running:
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
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            pass


class Orchestrator(str, Enum):
    airflow = "airflow"
    prefect = "prefect"
    dagster = "dagster"
    all = "all"


@program.command()
def demo(orchestrator: Annotated[Orchestrator, typer.Argument(help="Which one to run.")] = Orchestrator.all) -> None:
    """Show the whole way in a real orchestrator: a load makes a map stale, the pipeline's next step makes it fresh."""
    _need_emulator()
    from fused_cache_ops.demo.pipelines import PIPELINES
    from fused_cache_ops.demo.run import run_demo

    names = list(PIPELINES) if orchestrator is Orchestrator.all else [orchestrator.value]
    console = Console(width=None if sys.stdout.isatty() else 120)
    if not run_demo(names, console):
        raise typer.Exit(1)


def _fail(error: FusedCacheError) -> NoReturn:
    Console(stderr=True).print(Text(str(error), style="red"))
    raise typer.Exit(75 if error.retryable else 1)  # 75 is sysexits' EX_TEMPFAIL


def _log_to_terminal() -> None:
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=Console(stderr=True), show_path=False)],
    )


def _need_emulator() -> None:
    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"{missing[0]} is not installed: pip install 'fused-cache-ops[emulator]'", file=sys.stderr)
        raise typer.Exit(1)


def _load_function(reference: str):  # type: ignore[no-untyped-def]
    path, _, name = reference.rpartition(":")
    if not path or not Path(path).exists():
        raise typer.BadParameter(f"--udf {reference}: write FILE.py:FUNCTION, with a file that exists.")
    function = runpy.run_path(path).get(name)
    if not callable(function):
        raise typer.BadParameter(f"--udf {reference}: the file has no function {name!r}.")
    return function
