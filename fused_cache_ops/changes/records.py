"""What a table format has recorded itself since a state, or what changed in a folder, by an address alone: for the command
line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fused_cache_ops.changes.feeds import changes_of_delta
from fused_cache_ops.changes.folders import changes_of_folder
from fused_cache_ops.changes.icechunk import changes_of_icechunk
from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.selection.arrays import is_icechunk, refuse_arrays
from fused_cache_ops.stores import local_path
from fused_cache_ops.wording import quoted, quoted_address, rendered_to_nothing

if TYPE_CHECKING:
    import pyarrow as pa


class _Kind(NamedTuple):
    """Something that has a record of what changed.

    Attributes:
        name: how messages name it.
        recognizes: whether an address is one, given the address and ``since``.
        read: its changes, given the address, ``since`` as text, and those of the options that it takes.
        takes: the names of these options.
    """

    name: str
    recognizes: Callable[[str, str], bool]
    read: Callable[..., pa.Table]
    takes: tuple[str, ...]


def recorded_changes(address: str, *, since: str, **options: Any) -> pa.Table:
    """What changed since a state, as what is at an address has recorded it.

    Args:
        address: the path or URL of one of `_KINDS`.
        since: the state that the map already shows, as text: a version, or what else the format calls its states.
        options: what only some of them take, such as ``geometry_column``. None: not given.

    Returns:
        A table with one column, to be passed as ``geometry``.

    Raises:
        InvalidInputError: nothing with a record is there, it does not take one of the options, or it cannot be read.
        UnavailableError: the store does not answer.
        ConfigurationError: the extra that reads it is not installed.
    """
    for name, text in (("--changes-of", address), ("--since", since)):
        if rendered_to_nothing(text):
            raise InvalidInputError(f"{name} is {quoted(text)}, which looks like a value that is missing.")
    kind = next((each for each in _KINDS if each.recognizes(address, since)), None)
    if kind is None:
        refuse_arrays(address, quoted_address(address))
        *names, last = (each.name for each in _KINDS)
        raise InvalidInputError(
            f"{quoted_address(address)} has no record of its changes that can be read: name {', '.join(names)} or {last}, or "
            "compare two states of it by --diff."
        )
    given = {name: value for name, value in options.items() if value is not None}
    if others := sorted(given.keys() - set(kind.takes)):
        option, taken = f"--{others[0].replace('_', '-')}", f"{quoted_address(address)} is taken for {kind.name}"
        of = " or ".join(each.name for each in _KINDS if others[0] in each.takes)
        raise InvalidInputError(f"{option} is for {of}, and {taken}: leave it out.")
    return kind.read(address, since, **given)


def _is_delta(address: str, since: str) -> bool:
    path = local_path(address)
    return "://" in path or (Path(path) / "_delta_log").is_dir()


def _read_delta(address: str, since: str, antimeridian: Any = None, **options: Any) -> pa.Table:
    if not (since.strip().isascii() and since.strip().isdecimal()):
        raise InvalidInputError(f"since = {quoted(since)} is no version of a Delta table: pass its number, such as 7.")
    return changes_of_delta(address, since=int(since), **options)


def _is_listed(address: str, since: str) -> bool:
    return since.strip().lower().endswith(".json")


def _read_folder(address: str, since: str, **options: Any) -> pa.Table:
    return changes_of_folder(address, since=since, **options)


def _is_icechunk(address: str, since: str) -> bool:
    return is_icechunk(local_path(address))


def _read_icechunk(address: str, since: str, array: Any = None, antimeridian: Any = None, **options: Any) -> pa.Table:
    # It warns of commits to a folder by several processes, which is about those who write.
    os.environ.setdefault("ICECHUNK_LOG", "error")
    return changes_of_icechunk(address, since=since, array=array, **options)


_KINDS: tuple[_Kind, ...] = (
    _Kind("a folder (with its listing as --since)", _is_listed, _read_folder, ("geometry_column", "crs", "antimeridian")),
    _Kind("an Icechunk repository on this machine", _is_icechunk, _read_icechunk, ("array", "crs", "antimeridian")),
    # The last one, because what is not on this machine is taken for one: deltalake says what it finds there.
    _Kind("a Delta table", _is_delta, _read_delta, ("geometry_column", "crs", "antimeridian")),
)
"""The selection still has ``antimeridian``, so that only what reads geometries itself needs it."""
