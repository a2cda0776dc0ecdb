"""How a keyword is read that arrives as text from a template, a form or an environment variable.

Text that rendered to nothing is an error, because nothing given by mistake may mean everything.
"""

import ast
import json
import re
from typing import Any

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.wording import quoted

_WHOLE = re.compile(r"\s*[+-]?\d{1,18}\s*", re.ASCII)  # int() also takes underscores and digits of other scripts
_BOOLEANS = {"true": True, "false": False}


def read_literal(text: str) -> Any:
    """What JSON says, or a Python literal, as Jinja renders it. None if it is neither."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def read_list(name: str, text: str) -> list[Any]:
    """A list."""
    found = read_literal(text)
    if isinstance(found, (list, tuple)):
        return list(found)
    raise InvalidInputError(
        f"{name} rendered to {quoted(text)}, which is not a list: write {{{{ … | tojson }}}} in the template, or pass the "
        f"upstream task's output itself. To invalidate nothing, pass []. To invalidate the whole UDF, omit {name}."
    )


def read_list_or_text(name: str, text: str) -> Any:
    """A list, or text that is not one."""
    return read_list(name, text) if text.lstrip().startswith("[") else text


def read_mapping(name: str, text: str) -> dict[str, Any]:
    """A mapping of names to values."""
    found = read_literal(text)
    if isinstance(found, dict):
        return found
    raise InvalidInputError(f"{name} rendered to {quoted(text)}, which is not a mapping of names to values.")


def read_mapping_or_text(name: str, text: str) -> Any:
    """A mapping, or text that is not one."""
    return read_mapping(name, text) if text.lstrip().startswith("{") else text


def read_boolean(name: str, text: str) -> bool:
    """True or false."""
    try:
        return _BOOLEANS[text.strip().lower()]
    except KeyError:
        raise InvalidInputError(f"{name} rendered to {quoted(text)}, which is neither true nor false.") from None


def read_number(name: str, text: str) -> int:
    """A whole number."""
    if _WHOLE.fullmatch(text) is None:
        raise InvalidInputError(f"{name} rendered to {quoted(text)}, which is not a whole number.")
    return int(text)


def read_seconds(name: str, text: str) -> float:
    """A number of seconds, or of requests per second."""
    try:
        return float(text)
    except ValueError:
        raise InvalidInputError(f"{name} rendered to {quoted(text)}, which is not a number of seconds.") from None
