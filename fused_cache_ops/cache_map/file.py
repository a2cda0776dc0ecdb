"""The file ``fused-cache.toml``, or the table ``[tool.fused-cache]`` of a ``pyproject.toml``, and the checks of its tables."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fused_cache_ops.errors import ConfigurationError, InvalidInputError, unreadable
from fused_cache_ops.wording import extra_needed, quoted

DEFAULT_MAP = "fused-cache.toml"
PYPROJECT = "pyproject.toml"


def read_tables(path: Path) -> Mapping[str, Any] | None:
    """The tables of a file. None: it is a ``pyproject.toml`` without ``[tool.fused-cache]``.

    Raises:
        InvalidInputError: the file cannot be read, or is not TOML.
        ConfigurationError: Python 3.10 without the extra ``map``.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise unreadable(error, f"cache_map = {quoted(str(path), 300)} cannot be read: {error}.") from None
    toml = _toml()
    try:
        tables: Mapping[str, Any] = toml.loads(text)
    except (toml.TOMLDecodeError, RecursionError) as error:
        raise InvalidInputError(f"{path}: {error}.") from None
    if path.name != PYPROJECT:
        return tables
    tool = tables.get("tool", {})
    check_table(tool, f"{path}: tool")
    found: Mapping[str, Any] | None = tool.get("fused-cache")
    if found is not None:
        check_table(found, f"{path}: tool.fused-cache")
    return found


def check_table(table: Any, where: str) -> None:
    """Reject what is not a table of TOML.

    Raises:
        InvalidInputError: as said.
    """
    if not isinstance(table, Mapping):
        raise InvalidInputError(f"{where} is of type {type(table).__name__}, and must be a table.")


def _toml() -> Any:
    import importlib

    try:
        return importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    except ImportError:
        raise ConfigurationError(f"A cache map needs tomli on Python 3.10. {extra_needed('tomli', 'map')}") from None
