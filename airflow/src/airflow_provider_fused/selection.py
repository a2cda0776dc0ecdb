"""A selection that came through a template or an XCom: text is read, and what rendered to nothing is an error."""

from __future__ import annotations

import ast
import json
from typing import Any

from fused_cache_ops.errors import InvalidInputError


def read_tiles(tiles: Any) -> Any:
    """``tiles`` for the core: JSON text (or the text of a Python list, as Jinja writes one) becomes a list.

    :raises InvalidInputError: the text is not a list; an empty one and ``None`` are among these, since a template that
        rendered to nothing must not pass for "nothing selected, so everything"
    """
    if not isinstance(tiles, str):
        return tiles
    value: Any = None
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(tiles)
            break
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    if isinstance(value, (list, tuple)):
        return list(value)
    shown = tiles if len(tiles) <= 80 else f"{tiles[:77]}..."
    raise InvalidInputError(
        f"tiles rendered to {shown!r}, which is not a list: write {{{{ … | tojson }}}} in the template, or give the "
        "upstream task's output itself. To invalidate nothing give [], to invalidate the whole UDF leave tiles out."
    )
