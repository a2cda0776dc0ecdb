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
_TRUE_OR_FALSE = ("whole_udf", "fail_on_refresh_error")
_BOOLEANS = {"true": True, "false": False}
_NUMBERS = ("buffer", "max_tiles", "max_zoom", "verify_tiles", "max_related", "refresh_concurrency", "max_refresh")
_SECONDS = ("again_after", "refresh_deadline")


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
    if name == "refresh_parameters":
        return _read_mapping(name, value)
    if name in _TRUE_OR_FALSE:
        return _read_boolean(name, value)
    if name in _SECONDS:
        return _read_seconds(name, value)
    return _read_number(name, value) if name in _NUMBERS else value


def _read_literal(text: str) -> Any:
    """What JSON says, or a Python literal, as Jinja renders it. None if it is neither."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def _read_mapping(name: str, text: str) -> Mapping[str, Any]:
    found = _read_literal(text)
    if isinstance(found, dict):
        return found
    raise InvalidInputError(f"{name} rendered to {quoted(text)}, which is not a mapping of names to values.")


def _read_list(name: str, text: str) -> list[Any]:
    found = _read_literal(text)
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
