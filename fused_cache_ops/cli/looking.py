"""The commands that look something up: UDFs, what could keep a map stale, and whether everything is set up."""

import fnmatch
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Optional, TypeVar

import typer

from fused_cache_ops.cli.connection import Connection, connecting
from fused_cache_ops.cli.endings import CommandFailed
from fused_cache_ops.cli.options import AsJson, UdfName
from fused_cache_ops.cli.output import output
from fused_cache_ops.cli.program import program
from fused_cache_ops.errors import (
    AuthenticationError,
    ConfigurationError,
    FusedCacheError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fused_cache_ops.client import FusedClient, TeamEnvironment

T = TypeVar("T")

_TEST_TILE = "15/0/0"
"""Far from any land."""


@program.command()
@connecting(deadline=60.0)
def inspect(udf: UdfName, connection: Connection, as_json: AsJson = False) -> None:
    """Show what could keep the map of a UDF stale although an invalidation succeeds. Changes nothing."""
    with connection.open() as client:
        report = client.inspect(udf)

    def draw() -> list["RenderableType"]:
        from fused_cache_ops.cli.report import report_table

        return [report_table(report)]

    output.show(report.to_dict(), draw)


@program.command()
@connecting(deadline=60.0)
def udfs(
    connection: Connection,
    name: Annotated[
        Optional[str],
        typer.Argument(
            metavar="NAME", help="Only those whose canvas/name contains this, or whose name matches a glob such as road*."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the UDFs of the token's team. Changes nothing."""
    if name is not None and not name.strip():
        raise InvalidInputError("NAME is empty: leave it out to list every UDF.")
    with connection.open() as client:
        team = client.list_udfs()
    listed = sorted((udf for udf in team if name is None or _matches(udf.reference, name)), key=lambda udf: udf.reference)

    def draw() -> list["RenderableType"]:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table("canvas", "name", "id", box=SIMPLE_HEAD)
        for column in table.columns:
            column.overflow = "fold"
        for udf in listed:
            table.add_row(Text(udf.canvas or "not known"), Text(udf.name or "(no name)"), udf.id)
        return [table] if listed else []

    if not listed:
        output.say("This team has no UDF." if name is None else f"None of the team's {len(team):,} UDFs matches {name!r}.")
    output.show({"udfs": [{"id": udf.id, "name": udf.name, "canvas": udf.canvas} for udf in listed]}, draw)


def _matches(reference: str, wanted: str) -> bool:
    reference, wanted = reference.lower(), wanted.lower()
    if not any(character in wanted for character in "*?["):
        return wanted in reference
    return fnmatch.fnmatchcase(reference if "/" in wanted else reference.rpartition("/")[2], wanted)


@program.command()
@connecting(deadline=30.0)
def check(
    connection: Connection,
    udf: Annotated[Optional[str], typer.Argument(metavar="UDF", help="A UDF to look up, too.")] = None,
    write: Annotated[
        bool, typer.Option("--write", help=f"Also test write access to the UDF, by invalidating its tile {_TEST_TILE}.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check token, environment, real-time instance, and a UDF with write access to it. Says what is wrong and how to fix it.

    Changes nothing, unless --write is given: only an invalidation shows whether the token may invalidate.
    """
    if write and udf is None:
        raise typer.BadParameter("--write needs a UDF: name the one to test.")
    steps = _Steps()
    try:
        token = steps.take("token", connection.open, _mend_token(connection))
        with token as client:
            _check(client, connection, steps, udf, write)
    except FusedCacheError as error:
        if not output.as_json:
            output.draw(steps.table())
        raise CommandFailed(error, result=steps.found) from None
    output.show(steps.found, lambda: [steps.table()])


def _check(client: "FusedClient", connection: Connection, steps: "_Steps", udf: Optional[str], write: bool) -> None:
    environment = steps.take("token", client.check, _mend_token(connection))
    steps.add("token", "ok", f"valid, from {connection.token_source}")
    steps.add("environment", "ok", _shown(environment))
    instance = steps.take("instance", client.resolve_client_id, _mend_instance)
    chosen = connection.settings["client_id"]
    steps.add("instance", "ok", instance if chosen is None else f"{chosen} (as configured, not looked up)")
    if udf is None:
        return
    udf_id = steps.take("UDF", lambda: client.inspect(udf).udf_id, _mend_udf)
    steps.add("UDF", "ok", udf_id)
    if not write:
        steps.add("write access", "unknown", f"not tested: --write tests it by invalidating the tile {_TEST_TILE}")
        return
    steps.take("write access", lambda: client.invalidate_cache(udf, tiles=[_TEST_TILE]), _mend_write)
    steps.add("write access", "ok", f"the tile {_TEST_TILE} was invalidated")


def _shown(environment: "TeamEnvironment") -> str:
    return environment.name or environment.id or "without a name"


class _Steps:
    """What has been checked, in order."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, str]] = {}
        self.failed: Optional[str] = None

    def add(self, name: str, state: str, text: str) -> None:
        self.found[name] = {"state": state, "detail": text}

    def take(self, name: str, action: Callable[[], T], mend: Callable[[FusedCacheError], str]) -> T:
        """Do one step. If it fails, the remedy is added to the error's message, and what comes after it is not known."""
        try:
            return action()
        except FusedCacheError as error:
            wrong = _WRONG.get(type(error), name) if name == "token" else name
            self.failed = wrong
            self.add(wrong, "unknown" if error.retryable else "wrong", error.message)
            error.args = (" ".join(filter(None, (f"The check of the {wrong} failed.", error.message, mend(error)))),)
            raise

    def table(self) -> Any:
        from rich.box import SIMPLE
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE, show_header=False)
        colors = {"ok": "green", "wrong": "red", "unknown": "yellow"}
        for name, each in self.found.items():
            detail = "" if name == self.failed else each["detail"]  # the error says it, with the remedy
            table.add_row(Text(name), Text(each["state"], style=colors[each["state"]]), Text(detail, overflow="fold"))
        return table


# The one request that shows whether a token is valid also asks for its environment.
_WRONG: dict[type[FusedCacheError], str] = {PermissionDeniedError: "environment", NotFoundError: "environment"}


def _mend_token(connection: Connection) -> Callable[[FusedCacheError], str]:
    def mend(error: FusedCacheError) -> str:
        if isinstance(error, AuthenticationError):
            return f"It came from {connection.token_source}."
        if isinstance(error, (PermissionDeniedError, NotFoundError)):
            return "The token may be of a user without a team: use the token of a service account."
        if isinstance(error, ConfigurationError) and connection.token_file is None:
            return "Or use --token-file." if "No Fused token found" in error.message else ""
        return ""

    return mend


def _mend_instance(error: FusedCacheError) -> str:
    return "" if error.retryable else "Ask your team's admin for the id of a real-time instance, and pass it as --client-id."


def _mend_udf(error: FusedCacheError) -> str:
    return "fused-cache-ops udfs lists the UDFs of the token's team." if isinstance(error, NotFoundError) else ""


def _mend_write(error: FusedCacheError) -> str:
    if isinstance(error, PermissionDeniedError):
        return "Give the service account write access to the UDF, or use the token of one that has it."
    if isinstance(error, NotFoundError):
        return "The UDF was found, so the instance may be wrong: check --client-id."
    return ""
