"""Keywords that arrive as text from a template, a form or an environment variable. Text that rendered to nothing is an
error."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.wording import quoted

_LISTS = ("tiles", "bounds", "shard")
_LISTS_OR_TEXT = ("cells", "partition")
_BOOLEANS = {"true": True, "false": False}
_NUMBERS = ("buffer", "max_tiles", "max_zoom", "verify_tiles", "max_related")
_SECONDS = ("again_after",)


def read_rendered(rendered: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of a call from rendered templates. Zooms, geometries and resolutions stay text, because the core reads them.

    Raises:
        InvalidInputError: a text is not valid for its keyword. This includes empty text and ``None``: a template that
            rendered to nothing must not be taken for "no selection", which means everything.
    """
    return {name: _read(name, value) for name, value in rendered.items()}


def _read(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if name in _LISTS:
        return _read_list(name, value)
    if name in _LISTS_OR_TEXT and value.lstrip().startswith("["):
        return _read_list(name, value)
    if name == "whole_udf":
        return _read_boolean(name, value)
    if name in _SECONDS:
        return _read_seconds(name, value)
    return _read_number(name, value) if name in _NUMBERS else value


def _read_list(name: str, text: str) -> list[Any]:
    """A list from JSON, or from the text of a Python list as Jinja renders it."""
    found: Any = None
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
            break
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    if isinstance(found, (list, tuple)):
        return list(found)
    raise InvalidInputError(
        f"{name} rendered to {quoted(text)}, which is not a list: write {{{{ … | tojson }}}} in the template, or pass the "
        f"upstream task's output itself. To invalidate nothing, pass []. To invalidate the whole UDF, omit {name}."
    )


def _read_boolean(name: str, text: str) -> bool:
    try:
        return _BOOLEANS[text.strip().lower()]
    except KeyError:
        raise InvalidInputError(f"{name} rendered to {quoted(text)}, which is neither true nor false.") from None


def _read_number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidInputError(f"{name} rendered to {quoted(text)}, which is not a whole number.") from None


def _read_seconds(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidInputError(f"{name} rendered to {quoted(text)}, which is not a number of seconds.") from None
