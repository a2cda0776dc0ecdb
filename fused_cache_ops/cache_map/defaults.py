"""The table ``[settings]`` beside the datasets: defaults of the command line's options.

It says how to send, never what to send, and never where to: a file in a repository could then redirect the token.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from fused_cache_ops.cache_map.file import DEFAULT_MAP, PYPROJECT, read_tables
from fused_cache_ops.errors import FusedCacheError, InvalidInputError
from fused_cache_ops.keywords.client import LIMIT_OPTIONS
from fused_cache_ops.keywords.option import check_keys
from fused_cache_ops.keywords.refresh import HOW, RefreshOptions
from fused_cache_ops.settings import check_client_id, check_limits
from fused_cache_ops.wording import quoted

SETTINGS = ("client_id", *LIMIT_OPTIONS, "related", "max_related", "again_after", "refresh")

REFUSED: Mapping[str, str] = {
    "token": "set FUSED_SERVICE_ACCOUNT_TOKEN, or use --token-file",
    "shared_token": "set FUSED_SHARED_TOKEN",
    "passcode": "set FUSED_CANVAS_PASSCODE",
    "base_url": "set FUSED_BASE_URL",
    "run_base_url": "set FUSED_RUN_BASE_URL",
    "ca_bundle": "set REQUESTS_CA_BUNDLE, or use --ca-bundle",
    "client_certificate": "use --client-certificate",
    "allow_http": "use https",
}
"""Settings that a file must not have, each with what to do instead."""


def find_settings(folder: Path) -> dict[str, Any]:
    """The settings of a folder's ``fused-cache.toml``, or else of its ``pyproject.toml``. Empty if there are none.

    Raises:
        InvalidInputError: a file or its table cannot be read.
        ConfigurationError: Python 3.10 without the extra ``map``.
    """
    for name in (DEFAULT_MAP, PYPROJECT):
        path = folder / name
        if not path.is_file() or (name == PYPROJECT and b"fused-cache" not in path.read_bytes()):
            continue
        tables = read_tables(path)
        if tables is not None and "settings" in tables:
            return read_settings(tables["settings"], f"{path.name}, table settings")
    return {}


def read_settings(table: Any, where: str) -> dict[str, Any]:
    """The checked settings of a table.

    Args:
        table: the table.
        where: what the messages call it.

    Raises:
        InvalidInputError: a key is unknown or must not be in a file, or a value is not valid.
    """
    if isinstance(table, Mapping):
        for key in table:
            if key in REFUSED:
                # Its value is not shown, because it may be a secret.
                raise InvalidInputError(
                    f"{where}: {key} must not be in a file, because whoever can change the file could redirect or read the "
                    f"token. Remove it, and {REFUSED[key]}."
                )
    check_keys(table, SETTINGS, where)
    found = dict(table)
    try:
        _check_values(found)
    except FusedCacheError as error:
        raise InvalidInputError(f"{where}: {error.message}") from None
    return found


def _check_values(found: dict[str, Any]) -> None:
    if "client_id" in found:
        check_client_id(found["client_id"])
        if not isinstance(found["client_id"], str):
            found["client_id"] = ",".join(found["client_id"])
    limits: Any = {name: found.get(name, option.default) for name, option in LIMIT_OPTIONS.items()}
    check_limits(**limits)
    if {"related", "max_related", "again_after"} & found.keys():
        from fused_cache_ops.sending.targets import check_again_after, check_related

        if not isinstance(found.get("related", "both"), str):
            raise InvalidInputError(f"related = {quoted(found['related'])} must be text.")
        check_related(found.get("related"), found.get("max_related", 1))
        check_again_after(found.get("again_after", 0))
    if "refresh" in found:
        from fused_cache_ops.running.refresh import plan_refresh
        from fused_cache_ops.selection.reading import read_selection

        check_keys(found["refresh"], HOW, "refresh")
        plan_refresh(read_selection(tiles=[]), cast("RefreshOptions", {"count": 1, **found["refresh"]}))
