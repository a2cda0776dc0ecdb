"""The commands of ``fused-cache-ops map``."""

from collections.abc import Collection, Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from fused_cache_ops.cache_map.file import DEFAULT_MAP
from fused_cache_ops.cli.connection import Connection, connecting
from fused_cache_ops.cli.endings import CommandFailed
from fused_cache_ops.cli.options import AsJson, local_file
from fused_cache_ops.cli.output import output
from fused_cache_ops.cli.program import Commands, program
from fused_cache_ops.errors import ConfigurationError, FusedCacheError, InvalidInputError
from fused_cache_ops.wording import counted

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fused_cache_ops.cache_map.reading import CacheMap, MapEntry
    from fused_cache_ops.lineage.report import UdfReport

map_program = Commands(help="Check, draw and draft the cache map: which UDFs show which dataset.", no_args_is_help=True)
program.add_typer(map_program, name="map")


class Form(str, Enum):
    text = "text"
    mermaid = "mermaid"
    svg = "svg"


@map_program.command()
@connecting(deadline=120.0)
def check(
    connection: Connection,
    path: Annotated[str, typer.Argument(metavar="FILE", help="The cache map.")] = DEFAULT_MAP,
    as_json: AsJson = False,
) -> None:
    """Validate the cache map. With a token, also look up each UDF, and say what could keep it stale. Changes nothing."""
    from fused_cache_ops.cache_map.reading import CacheMap

    cache_map = CacheMap.read(path)
    found = _inspected(cache_map, connection)
    errors = [each for each in (found or {}).values() if isinstance(each, FusedCacheError)]
    udfs = {
        label: {"error": str(each)} if isinstance(each, FusedCacheError) else each.to_dict()
        for label, each in (found or {}).items()
    }
    warnings = list(cache_map.warnings)
    document = {"datasets": len(cache_map.datasets), "looked_up": found is not None, "udfs": udfs, "warnings": warnings}
    if not errors:
        output.show(document, lambda: _drawn(cache_map, found))
        return
    if not output.as_json:
        output.draw(*_drawn(cache_map, found))
    failed = next((error for error in errors if error.retryable), errors[0])
    failed.args = (f"{counted(len(errors), 'UDF')} of {cache_map.source} could not be looked up. {failed.message}",)
    raise CommandFailed(failed, result=document)


def _drawn(cache_map: "CacheMap", found: Optional[dict[str, "UdfReport | FusedCacheError"]]) -> Iterator["RenderableType"]:
    from rich.table import Table
    from rich.text import Text

    udfs = counted(len(_labels(cache_map)), "UDF")
    yield Text(f"{cache_map.source} is valid: {counted(len(cache_map.datasets), 'dataset')}, {udfs}.")
    for warning in cache_map.warnings:
        yield Text(warning, style="yellow")
    if found is None:
        yield Text("The UDFs were not looked up, because there is no token in FUSED_SERVICE_ACCOUNT_TOKEN.")
        return
    follow = {label for label, entry in _labels(cache_map).items() if entry.keywords.get("related") in ("callers", "both")}
    reports = [each for each in found.values() if not isinstance(each, FusedCacheError)]
    # What is unknown of every UDF says nothing of any of them, and no one can change it in this file.
    of_all = set.intersection(*({str(part) for part in each.unknown} for each in reports)) if len(reports) > 1 else set()
    table = Table("UDF", "found")
    for label, each in found.items():
        lines = [str(each)] if isinstance(each, FusedCacheError) else _findings(each, label in follow, of_all)
        table.add_row(Text(label), Text("\n".join(lines) or "ok"))
    if found:
        yield table
    for unknown in sorted(of_all):
        yield Text(f"Not known of any of them: {unknown}")


def _findings(report: "UdfReport", callers_follow: bool, said: Collection[str]) -> list[str]:
    """What could keep a UDF's map stale, one line each, but for what is said of all UDFs."""
    lines = []
    if report.map_is_reached is False:
        lines.append("its maps run on an instance that is not invalidated")
    if report.callers and not callers_follow:
        names = ", ".join(each.name or each.id for each in report.callers)
        lines.append(f'is called by {names}: they are invalidated only with related = "callers"')
    if report.callees:
        lines.append(f"calls {', '.join(each.name or each.id for each in report.callees)}")
    if report.inner_caches:
        lines.append(f"has {counted(len(report.inner_caches), 'inner cache')}: see inspect, and inner_caches")
    return [*lines, *(f"not known: {each}" for each in report.unknown if str(each) not in said)]


@map_program.command()
@connecting(deadline=120.0)
def show(
    connection: Connection,
    path: Annotated[str, typer.Argument(metavar="FILE", help="The cache map.")] = DEFAULT_MAP,
    form: Annotated[Form, typer.Option("--format", help="How to draw it.")] = Form.text,
) -> None:
    """Draw the cache map: datasets, the UDFs that show them, and with a token who calls these."""
    from fused_cache_ops.cache_map.drawing import described, shown_dataset, to_mermaid, to_svg
    from fused_cache_ops.cache_map.reading import CacheMap
    from fused_cache_ops.lineage.report import UdfReport

    cache_map = CacheMap.read(path)
    found = _inspected(cache_map, connection) or {}
    callers = {
        label: [each.name or each.id for each in report.callers or ()]
        for label, report in found.items()
        if isinstance(report, UdfReport)
    }
    if form is not Form.text:
        output.write([(to_mermaid if form is Form.mermaid else to_svg)(cache_map, callers)])
        return
    from rich.text import Text
    from rich.tree import Tree

    tree = Tree(Text(cache_map.source))
    for dataset, entries in cache_map.datasets.items():
        branch = tree.add(Text(shown_dataset(dataset), style="bold"))
        for entry in entries:
            udf = branch.add(Text(f"{entry.label}  ({described(entry)})"))
            for caller in callers.get(entry.label, ()):
                udf.add(Text(f"is called by {caller}"))
    output.draw(tree)


@map_program.command()
@connecting(deadline=120.0)
def suggest(
    connection: Connection,
    target: Annotated[
        Optional[Path],
        typer.Option("--output", help="Write the draft to this file, which must not exist.", parser=local_file, metavar="FILE"),
    ] = None,
) -> None:
    """Draft a cache map: read the code of the team's UDFs, without running it, for the paths and tables they read.

    The lines that gave the reason are comments in the draft, and so is what could not be known. Review it, and fill in zooms.
    """
    with connection.open() as client:
        draft = client.suggest_map()
    if target is None:
        output.write([draft.to_toml()])
        return
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(draft.to_toml())
    except OSError as error:
        raise InvalidInputError(f"--output {target} cannot be written, and is never overwritten: {error}.") from None
    found, read = counted(len(draft.datasets), "dataset"), counted(draft.udf_count, "UDF")
    output.say(f"{target} lists {found}, from the code of {read}.")


def _labels(cache_map: "CacheMap") -> dict[str, "MapEntry"]:
    return {entry.label: entry for entries in cache_map.datasets.values() for entry in entries}


def _inspected(cache_map: "CacheMap", connection: Connection) -> Optional[dict[str, "UdfReport | FusedCacheError"]]:
    """What is known of each UDF, or None without a token."""
    try:
        opened = connection.open()
    except ConfigurationError as error:
        if error.message.startswith("No Fused token found"):
            return None
        raise
    found: dict[str, UdfReport | FusedCacheError] = {}
    with opened as client:
        for label, entry in _labels(cache_map).items():
            try:
                found[label] = client.inspect(entry.reference)
            except FusedCacheError as error:
                found[label] = error
    return found
