"""The command that refreshes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fused_cache_ops.cli.connection import Connection, connecting
from fused_cache_ops.cli.endings import CommandFailed
from fused_cache_ops.cli.options import AsJson, SharedToken, UdfName, refreshing, selecting
from fused_cache_ops.cli.output import output
from fused_cache_ops.cli.program import program
from fused_cache_ops.keywords.selection import SelectionKeywords
from fused_cache_ops.outcome.invalidation import RefreshError
from fused_cache_ops.outcome.refresh import RefreshResult
from fused_cache_ops.settings import DEFAULT_DEADLINE

if TYPE_CHECKING:
    from rich.console import RenderableType


@program.command()
@connecting(deadline=DEFAULT_DEADLINE)
@selecting
@refreshing
def refresh(
    udf: UdfName,
    selection: SelectionKeywords,
    refresh: Any,
    connection: Connection,
    shared_token: SharedToken = None,
    as_json: AsJson = False,
) -> None:
    """Run a UDF for some tiles, so that the next visitor finds them cached. Invalidates nothing.

    What is cached already costs no run, so the same command continues what failed.

    With --whole-udf, the UDF is run once, without a tile.

    The shared token is read from FUSED_SHARED_TOKEN, unless the UDF is given by it.
    """
    try:
        with connection.open() as client, output.progress() as on_progress:
            done = client.refresh_cache(
                udf,
                refresh=refresh,
                **selection,
                shared_token=shared_token,
                on_progress=on_progress,
            )
    except RefreshError as error:
        if not output.as_json:
            output.draw(*_drawn(error.refresh))
        raise CommandFailed(error, result=error.refresh.to_dict()) from None
    except KeyboardInterrupt as interrupt:
        raise CommandFailed(interrupt, hint="Run the same command again to refresh the rest.") from None
    output.is_done = True
    output.show(done.to_dict(), lambda: _drawn(done))


def _drawn(done: RefreshResult) -> Iterator["RenderableType"]:
    from rich.table import Table
    from rich.text import Text

    table = Table("", "", show_header=False)
    rows = done.to_dict() | {"failed": "\n".join(done.failed[:10]), "bytes": f"{done.bytes:,}"}
    for name, value in rows.items():
        if value or name in ("runs", "already_cached"):
            table.add_row(name.replace("_", " "), Text(str(value)))
    yield table
