"""Tables that a notebook shows. They have no colors of their own, so that they fit light and dark themes, and no script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_CELL = "padding:.25em .8em;text-align:left;vertical-align:top"


def table(title: str, rows: Iterable[Sequence[object]], heading: Sequence[str] = ()) -> str:
    """A title and rows of text as HTML. Rows whose last cell is None are left out. Every text is escaped."""
    lines = []
    if heading:
        lines.append("".join(f'<th style="{_CELL}">{escape(each)}</th>' for each in heading))
    for row in rows:
        if row[-1] is not None:
            lines.append("".join(f'<td style="{_CELL}">{escape(number(each))}</td>' for each in row))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div><p><strong>{escape(title)}</strong></p><table style="border-collapse:collapse">{body}</table></div>'


def number(value: object) -> str:
    """A whole number with its thousands marked, anything else as text."""
    return f"{value:,}" if isinstance(value, int) else str(value)
