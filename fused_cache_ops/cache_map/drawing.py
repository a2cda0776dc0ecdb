"""The graph of a cache map: datasets, the UDFs that show them, and who calls these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from fused_cache_ops.cache_map.reading import CacheMap, MapEntry
from fused_cache_ops.wording import option_text, shortened, without_credentials

Callers = Mapping[str, Sequence[str]]
"""The names of the UDFs that call a UDF, by its label in the map."""

_ROW, _WIDTH, _GAP, _MARGIN = 40, 310, 70, 16  # pixels
_LONGEST = 40  # characters in a box
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1f2933}rect{fill:#f5f7fa;stroke:#7b8794}.dataset{fill:#d9e8f6}"
    ".caller{stroke-dasharray:4 3}path{fill:none;stroke:#7b8794}"
    "@media(prefers-color-scheme:dark){text{fill:#e4e7eb}rect{fill:#323f4b}.dataset{fill:#1d4268}}"
)


def described(entry: MapEntry) -> str:
    """What is done with one UDF, in a few words."""
    said = "whole" if entry.is_whole else " ".join(option_text(name, value) for name, value in entry.keywords.items())
    extra = [option_text(name, value) for name, value in entry.keywords.items()] if entry.is_whole else []
    return " ".join([said, *extra]).strip() or "as the call says"


def shown_dataset(dataset: str) -> str:
    """A dataset's key without what grants access."""
    return without_credentials(dataset, dataset)


def to_mermaid(cache_map: CacheMap, callers: Callers) -> str:
    """The graph as a mermaid flowchart."""
    lines = ["flowchart LR"]
    ids: dict[tuple[str, str], str] = {}

    def node(kind: str, name: str) -> str:
        if (kind, name) not in ids:
            ids[kind, name] = f"n{len(ids)}"
            opening, closing = ("[(", ")]") if kind == "dataset" else ("[", "]")
            lines.append(f'  {ids[kind, name]}{opening}"{_in_mermaid(name)}"{closing}')
        return ids[kind, name]

    drawn = set()
    for dataset, entries in cache_map.datasets.items():
        start = node("dataset", shown_dataset(dataset))
        for entry in entries:
            udf = node("udf", entry.label)
            lines.append(f'  {start} -->|"{_in_mermaid(described(entry))}"| {udf}')
            for caller in callers.get(entry.label, ()):
                if (entry.label, caller) not in drawn:
                    drawn.add((entry.label, caller))
                    lines.append(f'  {udf} -.->|"is called by"| {node("udf", caller)}')
    return "\n".join(lines) + "\n"


def _in_mermaid(text: str) -> str:
    """Text between quotes. Mermaid reads ``#quot;`` and the like."""
    text = "".join(each if each.isprintable() else " " for each in text)
    return text.replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")


def to_svg(cache_map: CacheMap, callers: Callers) -> str:
    """The graph as an SVG picture in three columns: datasets, UDFs, callers."""
    columns: tuple[dict[str, int], ...] = ({}, {}, {})
    edges: list[tuple[int, str, str]] = []
    notes: dict[str, list[str]] = {}
    for dataset, entries in cache_map.datasets.items():
        columns[0].setdefault(shown_dataset(dataset), len(columns[0]))
        for entry in entries:
            columns[1].setdefault(entry.label, len(columns[1]))
            notes.setdefault(entry.label, []).append(described(entry))
            edges.append((0, shown_dataset(dataset), entry.label))
            for caller in callers.get(entry.label, ()):
                columns[2].setdefault(caller, len(columns[2]))
                if (1, entry.label, caller) not in edges:
                    edges.append((1, entry.label, caller))
    used = 3 if columns[2] else 2
    rows = max(map(len, columns), default=0) or 1
    width = 2 * _MARGIN + used * _WIDTH + (used - 1) * _GAP
    height = 2 * _MARGIN + rows * (_ROW + 10)

    def place(column: int, name: str) -> tuple[float, float]:
        """The left edge of a box, and its middle."""
        step = (height - 2 * _MARGIN) / max(1, len(columns[column]))
        return _MARGIN + column * (_WIDTH + _GAP), _MARGIN + step * (columns[column][name] + 0.5)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        f"<title>Cache map</title><style>{_STYLE}</style>",
    ]
    for column, one, other in edges:
        x, y = place(column, one)
        to_x, to_y = place(column + 1, other)
        x += _WIDTH
        middle = (x + to_x) / 2
        parts.append(f'<path d="M{x:g} {y:g}C{middle:g} {y:g} {middle:g} {to_y:g} {to_x:g} {to_y:g}"/>')
    for column, kind in enumerate(("dataset", "udf", "caller")):
        for name in columns[column]:
            x, y = place(column, name)
            said = "; ".join(notes.get(name, [])) if column == 1 else ""
            tip = f"{name}: {said}" if said else name
            parts.append(
                f'<g><title>{escape(tip)}</title><rect class="{kind}" x="{x:g}" y="{y - _ROW / 2:g}" width="{_WIDTH}" '
                f'height="{_ROW}" rx="5"/>'
            )
            lines = [name] if not said else [name, said]
            for number, line in enumerate(lines):
                offset = 4.5 if len(lines) == 1 else -3 + number * 16
                parts.append(f'<text x="{x + 8:g}" y="{y + offset:g}">{escape(shortened(line, _LONGEST))}</text>')
            parts.append("</g>")
    return "".join(parts) + "</svg>\n"
