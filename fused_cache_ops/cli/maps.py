"""The commands of ``fused-cache-ops map``."""

import json
from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from fused_cache_ops.cache_map.drawing import described, shown_dataset, to_mermaid, to_svg
from fused_cache_ops.cache_map.file import DEFAULT_MAP
from fused_cache_ops.cache_map.reading import CacheMap, MapEntry
from fused_cache_ops.cli.options import BaseUrl, ClientId, fail
from fused_cache_ops.client import FusedClient
from fused_cache_ops.errors import ConfigurationError, FusedCacheError, InvalidInputError
from fused_cache_ops.lineage.report import UdfReport
from fused_cache_ops.settings import resolve_settings
from fused_cache_ops.wording import counted

map_program = typer.Typer(help="Check, draw and draft the cache map: which UDFs show which dataset.", no_args_is_help=True)

_DEADLINE = 120.0
Deadline = Annotated[float, typer.Option(help="Seconds in total, retries included.")]


class Form(str, Enum):
    text = "text"
    mermaid = "mermaid"
    svg = "svg"


@map_program.command()
def check(
    path: Annotated[str, typer.Argument(metavar="[FILE]", help="The cache map.")] = DEFAULT_MAP,
    client_id: ClientId = None,
    base_url: BaseUrl = None,
    deadline: Deadline = _DEADLINE,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Validate the cache map. With a token, also look up each UDF, and say what could keep it stale. Changes nothing.

    The token is read from FUSED_SERVICE_ACCOUNT_TOKEN. Exit codes: 0 all is well; 1 a mistake, or a UDF that does not exist; 75
    temporary failure, retry.
    """
    try:
        cache_map = CacheMap.read(path)
        found = _inspected(cache_map, client_id, base_url, deadline)
    except FusedCacheError as error:
        fail(error)
    errors = {label: error for label, error in (found or {}).items() if isinstance(error, FusedCacheError)}
    if as_json:
        udfs = {
            label: {"error": str(each)} if isinstance(each, FusedCacheError) else each.to_dict()
            for label, each in (found or {}).items()
        }
        print(json.dumps({"datasets": len(cache_map.datasets), "looked_up": found is not None, "udfs": udfs}))
    else:
        _show_check(cache_map, found)
    if errors:
        raise typer.Exit(75 if any(error.retryable for error in errors.values()) else 1)


def _show_check(cache_map: CacheMap, found: Optional[dict[str, "UdfReport | FusedCacheError"]]) -> None:
    console = Console()
    udfs = counted(len(_labels(cache_map)), "UDF")
    console.print(Text(f"{cache_map.source} is valid: {counted(len(cache_map.datasets), 'dataset')}, {udfs}."))
    if found is None:
        console.print("The UDFs were not looked up, because there is no token in FUSED_SERVICE_ACCOUNT_TOKEN.")
        return
    follow = {label for label, entry in _labels(cache_map).items() if entry.keywords.get("related") in ("callers", "both")}
    table = Table("UDF", "found")
    for label, each in found.items():
        table.add_row(
            Text(label),
            Text(str(each) if isinstance(each, FusedCacheError) else "\n".join(_findings(each, label in follow)) or "ok"),
        )
    if found:
        console.print(table)


def _findings(report: UdfReport, callers_follow: bool) -> list[str]:
    """What could keep a UDF's map stale, one line each."""
    lines = []
    if report.map_is_reached is False:
        lines.append("its maps run on an instance that is not invalidated")
    if report.callers and not callers_follow:
        names = ", ".join(each.name or each.id for each in report.callers)
        lines.append(f'is called by {names}: they are invalidated only with related = "callers"')
    if report.callees:
        lines.append(f"calls {', '.join(each.name or each.id for each in report.callees)}")
    if report.inner_caches:
        lines.append(f"has {counted(len(report.inner_caches), 'inner cache')} that no invalidation reaches")
    return [*lines, *(f"not known: {each}" for each in report.unknown)]


@map_program.command()
def show(
    path: Annotated[str, typer.Argument(metavar="[FILE]", help="The cache map.")] = DEFAULT_MAP,
    form: Annotated[Form, typer.Option("--format", help="How to draw it.")] = Form.text,
    client_id: ClientId = None,
    base_url: BaseUrl = None,
    deadline: Deadline = _DEADLINE,
) -> None:
    """Draw the cache map: datasets, the UDFs that show them, and with a token who calls these."""
    try:
        cache_map = CacheMap.read(path)
        found = _inspected(cache_map, client_id, base_url, deadline) or {}
    except FusedCacheError as error:
        fail(error)
    callers = {
        label: [each.name or each.id for each in report.callers or ()]
        for label, report in found.items()
        if isinstance(report, UdfReport)
    }
    if form is not Form.text:
        print((to_mermaid if form is Form.mermaid else to_svg)(cache_map, callers), end="")
        return
    tree = Tree(Text(cache_map.source))
    for dataset, entries in cache_map.datasets.items():
        branch = tree.add(Text(shown_dataset(dataset), style="bold"))
        for entry in entries:
            udf = branch.add(Text(f"{entry.label}  ({described(entry)})"))
            for caller in callers.get(entry.label, ()):
                udf.add(Text(f"is called by {caller}"))
    Console().print(tree)


@map_program.command()
def suggest(
    output: Annotated[Optional[Path], typer.Option(help="Write the draft to this file, which must not exist.")] = None,
    client_id: ClientId = None,
    base_url: BaseUrl = None,
    deadline: Deadline = _DEADLINE,
) -> None:
    """Draft a cache map: read the code of the team's UDFs, without running it, for the paths and tables they read.

    The lines that gave the reason are comments in the draft, and so is what could not be known. Review it, and add zooms.
    """
    try:
        with FusedClient(client_id=client_id, base_url=base_url, deadline=deadline) as client:
            draft = client.suggest_map()
    except FusedCacheError as error:
        fail(error)
    if output is None:
        print(draft.to_toml(), end="")
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(draft.to_toml())
    except OSError as error:
        fail(InvalidInputError(f"--output {output} cannot be written, and is never overwritten: {error}."))
    print(f"{output} has {counted(len(draft.datasets), 'dataset')} of {counted(draft.udf_count, 'UDF')}.")


def _labels(cache_map: CacheMap) -> dict[str, MapEntry]:
    return {entry.label: entry for entries in cache_map.datasets.values() for entry in entries}


def _inspected(
    cache_map: CacheMap, client_id: Optional[str], base_url: Optional[str], deadline: float
) -> Optional[dict[str, "UdfReport | FusedCacheError"]]:
    """What is known of each UDF, or None without a token."""
    try:
        resolve_settings(client_id=client_id, base_url=base_url)
    except ConfigurationError as error:
        if error.message.startswith("No Fused token found"):
            return None
        raise
    found: dict[str, UdfReport | FusedCacheError] = {}
    with FusedClient(client_id=client_id, base_url=base_url, deadline=deadline) as client:
        for label, entry in _labels(cache_map).items():
            try:
                found[label] = client.inspect(entry.reference)
            except FusedCacheError as error:
                found[label] = error
    return found
