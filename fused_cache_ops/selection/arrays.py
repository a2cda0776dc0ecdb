"""Stores of arrays, Zarr and Icechunk. They are not a geometry: a load rarely means their whole extent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fused_cache_ops.errors import InvalidInputError

_OF_ZARR = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")


def is_icechunk(path: str) -> bool:
    """Whether a path is that of a folder with an Icechunk repository."""
    folder = Path(path)
    return (folder / "snapshots").is_dir() and ((folder / "refs").is_dir() or (folder / "repo").is_file())  # Icechunk 1 and 2


def refuse_arrays(given: Any, what: str) -> None:
    """Reject a path, a URL or an object of Zarr or Icechunk.

    Args:
        given: a path, a URL, or any value.
        what: how messages name it.

    Raises:
        InvalidInputError: as said.
    """
    is_path = isinstance(given, str)
    module = type(given).__module__.partition(".")[0]
    if module == "icechunk" or (is_path and is_icechunk(given)):
        raise InvalidInputError(f"{what} is Icechunk's: pass what fused_cache_ops.changes.changes_of_icechunk returns.")
    is_store = is_path and (
        given.rstrip("/").lower().endswith(".zarr") or any((Path(given) / name).is_file() for name in _OF_ZARR)
    )
    if module == "zarr" or is_store:
        raise InvalidInputError(
            f"{what} is Zarr. Zarr keeps no record of what changed: pass the area that the load wrote, such as bounds=. "
            "Icechunk keeps one, which changes_of_icechunk reads."
        )
