"""The keyword ``inner_caches``: folders in which functions under ``@fused.cache`` keep their results."""

from collections.abc import Mapping
from typing import Any

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.keywords.values import NOT_GIVEN
from fused_cache_ops.wording import quoted, rendered_to_nothing

OWN = "own"
"""What stands for the folders that the UDF's own code names."""

SHARED_FOLDER = "tmp"
"""Fused's default of ``cache_folder_path``. All functions of a team share it, so that it has to be named."""

_LONGEST = 1000


def read_folders(given: Any) -> tuple[str, ...]:
    """The folders to delete, in order and without repetitions. `OWN` may be among them. Empty if none are given.

    Raises:
        InvalidInputError: it is neither a folder's name nor a list of them.
    """
    if given is NOT_GIVEN:
        return ()
    if isinstance(given, str):
        return (checked_folder(given),)
    if given is None or isinstance(given, (bytes, Mapping)) or not hasattr(given, "__iter__"):
        what = "None, which may be a value that is missing" if given is None else f"of type {type(given).__name__}"
        raise InvalidInputError(
            f"inner_caches is {what}: pass 'own', the name of a folder, or a list of names. An empty list deletes nothing. "
            "Omit it to leave inner caches as they are."
        )
    return tuple(dict.fromkeys(map(checked_folder, given)))


def checked_folder(name: Any) -> str:
    """The name of a folder, as ``cache_folder_path`` gives it.

    Raises:
        InvalidInputError: it is not a name, or leads out of the folder of all caches.
    """
    if not isinstance(name, str):
        raise InvalidInputError(f"inner_caches has an entry of type {type(name).__name__}: name folders as text.")
    if rendered_to_nothing(name):
        raise InvalidInputError(
            f"inner_caches has {quoted(name)}, which looks like a value that is missing: name a folder, or omit it. An empty "
            "list deletes nothing."
        )
    if not is_folder(name):
        raise InvalidInputError(
            f"inner_caches has {quoted(name)}, which is not the name of a folder of inner caches: write it as "
            "cache_folder_path in the code, such as 'roads', without a slash at its ends, and without '.' and '..'."
        )
    return name


def is_folder(name: str) -> bool:
    """Whether a text is the name of a folder within the folder of all caches."""
    parts = name.split("/")
    wrong = any(part in ("", ".", "..") or part != part.strip() for part in parts) or len(name) > _LONGEST
    return not wrong and "\\" not in name and name.isprintable()
