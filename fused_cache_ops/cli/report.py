"""A report on a UDF as a table that fits a terminal."""

from collections.abc import Iterable, Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from fused_cache_ops.lineage.report import InnerCache, RelatedUdf, UdfReport

_UNITS = (("d", 86400), ("h", 3600), ("m", 60))


def report_table(report: UdfReport) -> Table:
    """What could keep the map stale, line by line."""
    table = Table(box=SIMPLE_HEAD, show_header=False, title_justify="left", title=Text(f"UDF {report.name or report.udf_id}"))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, lines in _rows(report):
        table.add_row(name, Text("\n".join(lines)))
    return table


def _rows(report: UdfReport) -> Iterator[tuple[str, Iterable[str]]]:
    yield "id", [report.udf_id]
    yield "canvas", [report.canvas or "not known"]
    scope = report.access_scope or "not known"
    yield "access", ["team (maps need a session token)" if scope == "team" else scope]
    yield "instances", _instances(report)
    yield "results kept", [_age(report.cache_max_age, "not set or not known (Fused's default: 14d)")]
    yield "callers", _relatives(report.callers, "invalidate them too, after this UDF")
    yield "callees", _relatives(report.callees, "invalidate them too, before this UDF")
    if report.inner_caches:
        yield "inner caches", ["To do: delete their folders with --inner-caches", *_items(map(_cache, report.inner_caches))]
    if report.h3_tables:
        yield "H3 tables", ["To do: --h3-index waits until their index has the load", *_items(report.h3_tables)]
    if report.layers:
        todo = "To do: invalidate the whole UDF. These layers have tile: true, and may ask for it without a tile"
        yield "map layers", [todo, *_items(report.layers)]
    if report.outside:
        yield "outside", ["Never invalidated along with this UDF:", *_items(report.outside)]
    if report.unknown:
        yield "not known", _items(report.unknown)


def _items(entries: Iterable[object]) -> Iterator[str]:
    return (f"- {entry}" for entry in entries)


def _instances(report: UdfReport) -> Iterator[str]:
    yield f"invalidated: {', '.join(report.client_ids) or 'not known'}"
    yield f"maps run on: {report.share_client_id or 'not known'}"
    if report.map_is_reached is False:
        yield "client_id leaves out the instance that maps run on, so an invalidation does not reach them"


def _relatives(related: tuple[RelatedUdf, ...] | None, remedy: str) -> Iterator[str]:
    if not related:
        yield "not known" if related is None else "none"
        return
    for each in related:
        kept = "" if each.cache_max_age is None else f", results kept {_age(each.cache_max_age, '')}"
        yield f"{each.name or '(no name)'}  {each.id}"
        yield f"   level {each.level}{kept}"
    yield f"To do: {remedy}"


def _cache(cache: InnerCache) -> str:
    function = "outside of functions" if cache.function == "<module>" else f"{cache.function}()"
    kept = _age(cache.max_age, "48h unless set otherwise")
    folder = ", folder not known" if cache.folder is None else f", folder {cache.folder}"
    return (
        f"{cache.udf}, line {cache.line}: {cache.kind} {'on' if cache.kind[0] == '@' else 'in'} {function}, kept {kept}{folder}"
    )


def _age(seconds: int | None, otherwise: str) -> str:
    if seconds is None:
        return otherwise
    unit, size = next(((unit, size) for unit, size in _UNITS if seconds and seconds % size == 0), ("s", 1))
    return f"{seconds // size}{unit}"
