"""What two states of the same thing must be, whatever they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.wording import quoted_address, warn


def look_for_one_state(before: Any, after: Any) -> None:
    """Say when one state is given twice: comparing it with itself always finds nothing.

    Raises:
        InvalidInputError: one of them is an open raster of the other's file, which is opened anew, so that both are what the
            file holds now.

    Warns:
        UserWarning: both are the same.
    """
    names = [_name(each) for each in (before, after)]
    if before is not after and (None in names or not _is_one_place(*names)):
        return
    shown = " object" if names[0] is None else f" file, {quoted_address(names[0])}"
    said = (
        f"before and after are the same{shown}, which never differs from itself. If the load overwrites it, keep a copy from "
        "before the load, and compare with that"
    )
    if before is not after and not all(isinstance(each, (str, os.PathLike)) for each in (before, after)):
        raise InvalidInputError(f"{said}.")
    warn(said)


def look_for_shared_files(before: Any, after: Any) -> None:
    """Say when two open rasters are made from the same file, as two VRTs may be.

    Warns:
        UserWarning: as said.
    """
    if not before.driver == after.driver == "VRT" or _is_one_place(before.name, after.name):
        return
    one, other = ({os.path.realpath(name) if Path(name).exists() else name for name in each.files} for each in (before, after))
    if shared := sorted(one & other):
        warn(
            f"before and after are both made from {quoted_address(shared[0])}, which never differs from itself. If the load "
            "overwrites it, keep a copy of it from before the load too, and compare with that"
        )


def _name(given: Any) -> str | None:
    """The path or URL that a state is read from. None: it is in memory."""
    if isinstance(given, (str, os.PathLike)):
        return str(os.fspath(given))
    name = getattr(given, "name", None)
    return name if type(given).__module__.startswith("rasterio.") and isinstance(name, str) else None


def _is_one_place(one: Any, other: Any) -> bool:
    try:
        return one == other or Path(one).samefile(other)
    except (OSError, ValueError):  # a URL, or what is not there
        return False
