"""Keywords that came through a template or an XCom: text is read, and what rendered to nothing is an error."""

from __future__ import annotations

import ast
import json
from typing import TYPE_CHECKING, Any, cast

from fused_cache_ops.errors import InvalidInputError

if TYPE_CHECKING:
    from fused_cache_ops.keywords import CallKeywords


def read_fields(rendered: dict[str, Any]) -> CallKeywords:
    """The core's keywords from an operator's rendered fields. Zooms and geometries the core reads from text itself."""
    from fused_cache_ops.selection import refuse_single_use

    keywords = cast("CallKeywords", {name: _read(name, value) for name, value in rendered.items()})
    refuse_single_use(keywords)
    return keywords


def _read(name: str, value: Any) -> Any:
    if name in ("tiles", "bounds", "shard"):
        return read_list(name, value)
    return _read_number(name, value) if name in ("buffer", "max_tiles", "verify") else value


def read_list(name: str, value: Any) -> Any:
    """A list from text: JSON, or the text of a Python list, as Jinja writes one. What is no text stays as it is.

    :raises InvalidInputError: the text is not a list; an empty one and ``None`` are among these, since a template that
        rendered to nothing must not pass for "nothing selected, so everything"
    """
    if not isinstance(value, str):
        return value
    found: Any = None
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(value)
            break
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    if isinstance(found, (list, tuple)):
        return list(found)
    shown = value if len(value) <= 80 else f"{value[:77]}..."
    raise InvalidInputError(
        f"{name} rendered to {shown!r}, which is not a list: write {{{{ … | tojson }}}} in the template, or give the "
        f"upstream task's output itself. To invalidate nothing give [], to invalidate the whole UDF leave {name} out."
    )


def _read_number(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return int(value)
    except ValueError:
        raise InvalidInputError(f"{name} rendered to {value[:80]!r}, which is not a whole number.") from None
