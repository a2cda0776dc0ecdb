"""The commands that run something on this machine: the emulator, the demonstration, the listener, the completion of a shell."""

import contextlib
import errno
import importlib.util
import json
import os
import runpy
import signal
import sqlite3
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer

from fused_cache_ops.cli.output import output
from fused_cache_ops.cli.program import program
from fused_cache_ops.wording import extra_needed


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
        taken = getattr(error, "errno", None) == errno.EADDRINUSE
        reason = _who_listens(port) if taken else f"The emulator cannot start (port {port}, database {db}): {error}."
        output.complain(reason)
        raise typer.Exit(1) from None
    with contextlib.closing(started) as running:
        stopped, stop = os.pipe()  # not an Event: a second signal would wait for the lock that the first one holds
        for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background jobs ignore SIGINT by default
            signal.signal(number, lambda *_: os.write(stop, b"."))
        if latency:
            running.misbehave(latency=latency, times=None)
        for text in fault or []:
            try:
                running.misbehave(**json.loads(text))
            except (ValueError, TypeError) as error:
                raise typer.BadParameter(f"--fault {text}: {error}") from None
        for function in functions:
            running.register(function)
        lines = [f"export FUSED_BASE_URL={running.base_url}", f"export FUSED_SERVICE_ACCOUNT_TOKEN={running.token}"]
        served = running.store.udfs(running.environment_id)
        for each in served:
            lines.append(f"# UDF {each.slug} ({each.id}): {running.root_url}/{each.shared_token}/run/tiles/Z/X/Y")
        for each in served:  # a shared token belongs to one UDF
            only = "" if len(served) == 1 else f"# for UDF {each.slug}: "
            lines.append(f"{only}export FUSED_SHARED_TOKEN={each.shared_token}")
        output.write(f"{line}\n" for line in lines)
        os.read(stopped, 1)


class Orchestrator(str, Enum):
    airflow = "airflow"
    prefect = "prefect"
    dagster = "dagster"
    all = "all"


@program.command()
def demo(
    orchestrator: Annotated[Orchestrator, typer.Argument(metavar="NAME", help="Which one to run.")] = Orchestrator.all,
    map_: Annotated[
        bool, typer.Option("--map", help="Serve a page with an open map instead, until Ctrl-C. It needs Node.js.")
    ] = False,
    port: Annotated[int, typer.Option(help="The page's port on 127.0.0.1. 0 picks a free one.")] = 0,
) -> None:
    """Run end to end in a real orchestrator: a load makes a map stale, and the pipeline's next step makes it fresh."""
    _need_emulator()
    from rich.console import Console

    if port and not map_:
        raise typer.BadParameter("--port is the page's: it goes with --map.")
    if map_:
        from fused_cache_ops.demo.map import run_map_demo

        try:
            run_map_demo(Console(), port)
        except (RuntimeError, OSError, OverflowError) as error:
            output.complain(f"The page cannot be served: {error}")
            raise typer.Exit(1) from None
        return

    from fused_cache_ops.demo.pipelines import PIPELINES
    from fused_cache_ops.demo.run import run_demo

    names = list(PIPELINES) if orchestrator is Orchestrator.all else [orchestrator.value]
    console = Console(width=None if sys.stdout.isatty() else 120)
    if not run_demo(names, console):
        raise typer.Exit(1)


@program.command()
def listener(
    file: Annotated[Optional[Path], typer.Option("--output", metavar="FILE", help="Write it to this file.")] = None,
) -> None:
    """Print fused-cache-listener.js, by which an open map hears of what is announced."""
    from importlib.resources import files

    code = (files("fused_cache_ops") / "announcements" / "fused-cache-listener.js").read_text(encoding="utf-8")
    if file is None:
        output.write([code])
        return
    try:
        file.write_text(code, encoding="utf-8", newline="\n")
    except OSError as error:
        output.complain(f"{file} cannot be written: {error.strerror or error}.")
        raise typer.Exit(1) from None
    output.say(f"Written to {file}.")


class Shell(str, Enum):
    bash = "bash"
    zsh = "zsh"
    fish = "fish"
    powershell = "powershell"


@program.command()
def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="The shell.")],
    install: Annotated[bool, typer.Option("--install", help="Install it for your user instead of printing it.")] = False,
) -> None:
    """Print the script that completes commands and options in a shell.

    For bash: eval "$(fused-cache-ops completion bash)".
    """
    from typer import _completion_shared as typers

    names = {"prog_name": "fused-cache-ops", "complete_var": "_FUSED_CACHE_OPS_COMPLETE"}
    if not install:
        output.write([typers.get_completion_script(shell=shell.value, **names), "\n"])
        return
    try:
        _, path = typers.install(shell=shell.value, **names)
    except OSError as error:
        output.complain(f"The completion for {shell.value} cannot be installed: {error}.")
        raise typer.Exit(1) from None
    output.say(f"Installed in {path}. It takes effect in new shells.")


def _who_listens(port: int) -> str:
    """What to do about a port that is taken."""
    import requests

    from fused_cache_ops.emulator.server import NAME, NAME_PATH

    try:
        is_emulator = requests.get(f"http://127.0.0.1:{port}{NAME_PATH}", timeout=2).text == NAME
    except requests.RequestException:
        is_emulator = False
    who = "Another emulator is running on" if is_emulator else "Another program uses"
    return f"{who} port {port}: end it, or take a free port with --port 0."


def _need_emulator() -> None:
    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        output.complain(extra_needed(missing[0], "emulator"))
        raise typer.Exit(1)


def _load_function(reference: str):  # type: ignore[no-untyped-def]
    path, _, name = reference.rpartition(":")
    if not path or not Path(path).exists():
        raise typer.BadParameter(f"--udf {reference}: write FILE.py:FUNCTION with an existing file.")
    function = runpy.run_path(path).get(name)
    if not callable(function):
        raise typer.BadParameter(f"--udf {reference}: the file has no function {name!r}.")
    return function
