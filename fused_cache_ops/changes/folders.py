"""Which files of a folder are new, were rewritten or are gone since it was listed, and where they are."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from fused_cache_ops.changes.footprints import Box, as_geometry
from fused_cache_ops.changes.listing import LEAVE_OUT, MOST_FILES, VERSION, by_stem, in_our_terms, is_beside, open_folder
from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.selection.geometry import Options
from fused_cache_ops.selection.shapes import MOST_BYTES, file_system
from fused_cache_ops.stores import local_path
from fused_cache_ops.wording import counted, quoted, quoted_address, shortened

if TYPE_CHECKING:
    import pyarrow as pa

Listing = dict[str, Any]

_NO_PLACE = "Keep a listing with footprints=True from before each load. This time, invalidate the whole UDF"


class ChangedFiles(NamedTuple):
    """The files of a folder that changed, as paths in it.

    Attributes:
        new: those that were not there.
        rewritten: those that are not the same any more, or of which that cannot be told.
        removed: those that are gone.
    """

    new: tuple[str, ...]
    rewritten: tuple[str, ...]
    removed: tuple[str, ...]

    @property
    def partitions(self) -> list[dict[str, str | None]]:
        """The partitions that these files are in, by the names of their folders, such as ``date=2026-11-22``. A file that is
        in none gives an empty one."""
        found: dict[Any, None] = {}
        for path in (*self.new, *self.rewritten, *self.removed):
            pairs = [part.split("=", 1) for part in path.split("/")[:-1] if "=" in part]
            found[tuple((unquote(name), _hive(value)) for name, value in pairs)] = None
        return [dict(each) for each in found]


def folder_listing(
    folder: Any,
    *,
    match: str | None = None,
    footprints: Any = False,
    address: str | None = None,
    geometry_column: str | None = None,
    crs: Any = None,
    antimeridian: str | None = None,
) -> Listing:
    """The files of a folder and its folders, each with what tells whether it was rewritten, to be kept as JSON.

    Files and folders whose names begin with ``_`` or ``.`` are left out, as Spark and pyarrow do.

    Args:
        folder: a path, a URL that fsspec opens, a pair of a file system of fsspec and a path, a store of obstore, or records:
            what ``find(…, detail=True)`` of fsspec, ``list`` of obstore, or Fused's ``files/list-details`` return.
        match: a pattern that the names of files must match, such as ``*.parquet``. Files beside them, such as masks, belong to
            them.
        footprints: whether to read where each file is, which must be known of files that are removed or rewritten later. An
            earlier listing, or its path: the footprints of files that are the same are taken from it.
        address: what the paths of records or of a store begin with, if files are to be read: a path, or a URL.
        geometry_column: as for `fused_cache_ops.invalidate_cache`, for each file.
        crs: likewise.
        antimeridian: likewise.

    Returns:
        ``{"version": 1, "root": …, "match": …, "files": {path: {"size": …, "tag": …, "modified": …}}}``, in which the tag
        is the store's (an ETag or a checksum), or of this machine's files, made of their inode and times.

    Raises:
        InvalidInputError: there is no such folder, it cannot be read, or it has more than 1,000,000 files.
        UnavailableError: the store does not answer.
        ConfigurationError: fsspec or the extra ``geo`` or ``raster`` is not installed.
    """
    source = open_folder(folder, address)
    options = Options(column=geometry_column, crs=crs, antimeridian=antimeridian)
    listing = source.listed(match)
    if footprints is False:
        return listing
    known = {} if footprints is True else _state(footprints, "footprints")["files"]
    for path, entry in listing["files"].items():
        before = known.get(path)
        if before is not None and "footprint" in before and _is_same(before, entry):
            entry["footprint"] = before["footprint"]
        elif not is_beside(path):
            entry["footprint"] = [list(box) for box in source.footprint(path, options)]
    return listing


def changed_files(before: Any, after: Any) -> ChangedFiles:
    """What differs between two listings of a folder.

    Where a store names a tag (an ETag, a checksum), files of the same tag and size are the same. Otherwise, files of the same
    time and size are, so that one that was rewritten within the precision of the time, at the same size, is missed: of Fused's
    ``files/list-details``, and of sftp. A file without a tag and without a time counts as rewritten.

    Args:
        before: a listing of `folder_listing`, or the path or URL of one that was kept as JSON.
        after: the later one.

    Raises:
        InvalidInputError: one is no listing, they are of different folders or patterns, or nothing is left of what was there.
    """
    old, new = _state(before, "before"), _state(after, "after")
    for name, what in (("root", "folders"), ("match", "patterns")):
        if old[name] != new[name]:
            raise InvalidInputError(
                f"The listings are of different {what}: {quoted(old[name], 200)} and {quoted(new[name], 200)}. List the same "
                "folder by the same address, and with the same match=."
            )
    if old["files"] and not new["files"]:
        raise InvalidInputError(
            f"{_shown(new)} had {counted(len(old['files']), 'file')}, and has none: was it moved, or is it not mounted? If a "
            "load did remove all files, invalidate the whole UDF."
        )
    entries = new["files"]
    return ChangedFiles(
        new=tuple(path for path in sorted(entries) if path not in old["files"]),
        rewritten=tuple(
            path for path, was in sorted(old["files"].items()) if path in entries and not _is_same(was, entries[path])
        ),
        removed=tuple(path for path in sorted(old["files"]) if path not in entries),
    )


def changes_of_folder(
    folder: Any,
    *,
    since: Any,
    address: str | None = None,
    geometry_column: str | None = None,
    crs: Any = None,
    antimeridian: str | None = None,
) -> pa.Table:
    """Where the files are that changed in a folder since it was listed: new ones, rewritten ones as they were and as they are,
    and removed ones.

    Of a GeoParquet file, these are boxes around its row groups. Of any other file, it is a box around what it holds.

    Args:
        folder: as for `folder_listing`, or a listing of the folder after the load, or its path.
        since: the listing of what the map already shows, or its path or URL. If files were rewritten or removed, it needs
            footprints.
        address: as for `folder_listing`.
        geometry_column: as for `fused_cache_ops.invalidate_cache`, for each file.
        crs: likewise.
        antimeridian: likewise.

    Returns:
        A table with one column, to be passed as ``geometry``. It has no rows if nothing changed. A file whose content has no
        place is null.

    Raises:
        InvalidInputError: as for `folder_listing` and `changed_files`, a file is not one that has a place, or the place of one
            that was rewritten or removed is not known.
        UnavailableError: the store does not answer.
        ConfigurationError: fsspec or the extra ``geo`` or ``raster`` is not installed.
    """
    before = _state(since, "since")
    is_kept = _is_listing(folder)
    source = None if is_kept else open_folder(folder, address)
    after = _state(folder, "folder") if source is None else source.listed(before["match"])
    changed = changed_files(before, after)
    options = Options(column=geometry_column, crs=crs, antimeridian=antimeridian)

    def footprint_of(listing: Listing, path: str, is_now: bool) -> list[Box]:
        known = listing["files"][path].get("footprint")
        if known is None and is_now and source is not None:
            return source.footprint(path, options)
        if known is None:
            said = "it was" if not is_now else "it is"
            raise InvalidInputError(
                f"{quoted(path, 200)} changed in {_shown(listing)}, and its listing does not say where {said}. {_NO_PLACE}."
            )
        return [tuple(box) for box in known]

    found = []
    for listing, paths, is_now in (
        (before, changed.removed + changed.rewritten, False),
        (after, changed.new + changed.rewritten, True),
    ):
        found += [footprint_of(listing, path, is_now) for path in _placed(paths, listing)]
    return as_geometry(found)


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a file is the same as before, as far as `changed_files` says."""
    if one["size"] != other["size"] or one["tag"] != other["tag"]:
        return False
    return one["tag"] is not None or (None not in (one["size"], one["modified"]) and one["modified"] == other["modified"])


def _placed(paths: tuple[str, ...], listing: Listing) -> list[str]:
    """The files that say where those are that changed: themselves, and those that they belong to."""
    found = dict.fromkeys(path for path in paths if not is_beside(path))
    beside = [path for path in paths if is_beside(path)]
    of = by_stem(each for each in listing["files"] if not is_beside(each)) if beside else list
    for path in beside:
        owners = of(path)
        if not owners:
            raise InvalidInputError(f"{quoted(path, 200)} changed in {_shown(listing)}, and belongs to no file. {LEAVE_OUT}.")
        found.update(dict.fromkeys(owners))
    return list(found)


def _hive(value: str) -> str | None:
    return None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)


def _shown(listing: Listing) -> str:
    return "folder" if listing["root"] is None else f"folder = {quoted(listing['root'], 200)}"


def _is_listing(given: Any) -> bool:
    """Whether a value is a listing, or the path of one."""
    if isinstance(given, (str, os.PathLike)):
        return os.fspath(given).lower().endswith(".json")
    return isinstance(given, Mapping) and {"version", "root", "files"} <= given.keys()


def _state(given: Any, name: str) -> Listing:
    """A listing, checked.

    Raises:
        InvalidInputError: it is none.
        UnavailableError: it cannot be read.
    """
    what = f"{name}, a {type(given).__name__},"
    if isinstance(given, (str, os.PathLike)):
        place = local_path(os.fspath(given))
        what = f"{name} = {quoted_address(place)}"
        with in_our_terms(f"{what} cannot be read", place):
            try:
                content = _content(place, what)
            except FileNotFoundError:
                raise InvalidInputError(
                    f"{what} does not exist: keep what folder_listing or the command listing returns. This time, invalidate "
                    "the whole UDF."
                ) from None
        try:
            given = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"{what} is not a listing: {shortened(str(error), 200)}.") from None
    problem = _problem(given)
    if problem is not None:
        raise InvalidInputError(f"{what} is not a listing, because {problem}: pass what folder_listing returns.")
    return dict(given)


def _content(place: str, what: str) -> bytes:
    with contextlib.ExitStack() as opened:
        if "://" in place:
            system, path = file_system(place, extra="fsspec")
            file = opened.enter_context(system.open(path, "rb"))
        else:
            file = opened.enter_context(Path(place).open("rb"))
        content: bytes = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise InvalidInputError(f"{what} has more than {MOST_BYTES >> 20:,} MiB.")
    return content


def _problem(given: Any) -> str | None:
    if not isinstance(given, Mapping) or not isinstance(files := given.get("files"), Mapping):
        return "it has no files"
    if given.get("version") != VERSION:
        return f"its version is {quoted(given.get('version'))}, and not {VERSION}"
    if len(files) > MOST_FILES:
        return f"it has more than {MOST_FILES:,} files"
    if any(not isinstance(given.get(name, 0), (str, type(None))) for name in ("root", "match")):
        return "it does not say of what folder it is"
    return next((f"it says {quoted(entry)} of {quoted(path)}" for path, entry in files.items() if not _is_entry(entry)), None)


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, Mapping) or not {"size", "tag", "modified"} <= entry.keys():
        return False
    boxes = entry.get("footprint", [])
    return (
        isinstance(entry["size"], (int, type(None)))
        and all(isinstance(entry[name], (str, type(None))) for name in ("tag", "modified"))
        and isinstance(boxes, list)
        and all(isinstance(box, (list, tuple)) and len(box) == 4 and _is_box(*box) for box in boxes)
    )


def _is_box(west: Any, south: Any, east: Any, north: Any) -> bool:
    numbers = all(isinstance(each, (int, float)) for each in (west, south, east, north))
    return numbers and -541 < west <= east < 541 and -90 <= south <= north <= 90
