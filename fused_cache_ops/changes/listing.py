"""Folders that can be listed: of this machine, of a store that fsspec or obstore knows, or as records of files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from fused_cache_ops.changes.footprints import Box, read_footprint
from fused_cache_ops.errors import FusedCacheError, InvalidInputError, unreadable
from fused_cache_ops.selection.geometry import Options
from fused_cache_ops.selection.shapes import file_system, import_geo
from fused_cache_ops.stores import local_path, refuse_broken_url
from fused_cache_ops.wording import quoted, quoted_address, rendered_to_nothing, shortened, without_credentials

MOST_FILES = 1_000_000
VERSION = 1

LEAVE_OUT = "If it is not data, leave it out by match=, such as match='*.parquet'"

_PATHS = ("path", "url", "name")
_TAGS = ("tag", "e_tag", "ETag", "etag", "checksum", "md5Hash", "content_md5", "sha", "generation", "version", "VersionId")
_TIMES = ("modified", "last_modified", "LastModified", "updated", "mtime")
"""What says when a file was written, and what changes with its content: names of fsspec's stores, of obstore and of Fused."""

_BESIDE = tuple(
    f".{end}"
    for end in (
        *("aux.xml", "ovr", "msk", "rrd", "tfw", "tifw", "wld", "gfs"),
        *("dbf", "shx", "prj", "cpg", "qix", "qpj", "qmd", "sbn", "sbx", "shp.xml"),
    )
)
"""How files end that belong to another one, of the same name before that: to a raster, and to a shapefile."""


class Source(NamedTuple):
    """A folder that can be listed.

    Attributes:
        root: what the listing says of where it is, without credentials. None: not known.
        entries: finds its files: their paths in it, and what is said of each.
        address: the path or URL of a file.
        system: the file system of fsspec that was given, if one was.
    """

    root: str | None
    entries: Callable[[], Iterable[tuple[str, Mapping[str, Any]]]]
    address: Callable[[str], str]
    system: Any = None

    def listed(self, match: str | None) -> dict[str, Any]:
        """As `fused_cache_ops.changes.folder_listing`, without footprints."""
        files: dict[str, Any] = {}
        left_out = 0
        what = "folder" if self.root is None else f"folder = {quoted(self.root, 200)}"
        with in_our_terms(f"{what} cannot be listed", self.root or ""):
            for path, info in self.entries():
                if _is_hidden(path):
                    left_out += info.get("size") != 0  # not .gitkeep or _SUCCESS
                    continue
                if path in files:
                    raise InvalidInputError(f"folder names {quoted(path, 200)} twice.")
                files[path] = _entry(info)
                if len(files) > MOST_FILES:
                    raise InvalidInputError(f"{what} has more than {MOST_FILES:,} files: list its folders one by one.")
        # Stores mark folders by empty objects.
        folders = {"", *(path.rpartition("/")[0] for path in files)}
        marked = {path for path in files if files[path]["size"] == 0 and (path in folders or path.endswith("/"))}
        files = {path: entry for path, entry in files.items() if path not in marked}
        left_out += len(files)
        if match is not None:
            chosen = {path for path in files if fnmatchcase(path.rpartition("/")[2], match) and not is_beside(path)}
            of = by_stem(chosen)
            files = {path: entry for path, entry in files.items() if path in chosen or (is_beside(path) and of(path))}
        if left_out and not files:
            why = "its names, or those of its folders, begin with _ or ." if match is None else f"none is like {quoted(match)}"
            raise InvalidInputError(f"{what} has files, but all are left out: {why}.")
        return {"version": VERSION, "root": self.root, "match": match, "files": dict(sorted(files.items()))}

    def footprint(self, path: str, options: Options) -> list[Box]:
        """Where a file of it is.

        Raises:
            FusedCacheError: as for `read_footprint`, or there is no address to read it from.
        """
        address = self.address(path)
        try:
            with in_our_terms(f"The file {quoted_address(address)} cannot be read", address):
                return read_footprint(address, options, self.system)
        except InvalidInputError as error:
            raise InvalidInputError(f"{error.message.rstrip('.')}. {LEAVE_OUT}.") from None


def open_folder(folder: Any, address: str | None) -> Source:
    if isinstance(folder, os.PathLike):
        folder = os.fspath(folder)
    if isinstance(folder, str):
        if rendered_to_nothing(folder):
            raise InvalidInputError(f"folder is {quoted(folder)}, which looks like a value that is missing.")
        folder = local_path(folder)
        refuse_broken_url(folder, "folder")
        return _of_url(folder, None) if "://" in folder else _of_this_machine(folder)
    if isinstance(folder, (tuple, list)) and len(folder) == 2 and hasattr(folder[0], "ls") and isinstance(folder[1], str):
        system, path = folder
        if "file" in ((system.protocol,) if isinstance(system.protocol, str) else system.protocol):
            return _of_this_machine(system._strip_protocol(path))
        return _of_url(system.unstrip_protocol(path), system)
    joined = None if address is None else address if address.endswith("/") else f"{address}/"
    root = None if address is None else without_credentials(address, address)

    def place(path: str) -> str:
        if joined is None and "://" not in path and not path.startswith("/"):
            raise InvalidInputError(
                f"{quoted(path, 200)} cannot be read: pass address=, what the paths begin with, such as 's3://bucket/'."
            )
        return path if joined is None else joined + path

    if type(folder).__module__ == "obstore.store":
        return Source(root or _name_of_store(folder), lambda: _of_obstore(folder), place)
    if isinstance(folder, Mapping):
        folder = [{"name": name, **info} for name, info in folder.items()]
    if not isinstance(folder, Iterable) or isinstance(folder, (bytes, bytearray)):
        raise InvalidInputError(
            f"folder is of type {type(folder).__name__}: pass a path, a URL, a pair of a file system of fsspec and a path, a "
            "store of obstore, or records of files."
        )
    return Source(root, lambda: _of_records(folder), place)


def _of_this_machine(folder: str) -> Source:
    root = os.path.abspath(os.path.expanduser(folder))  # noqa: PTH100, PTH111
    if not Path(root).is_dir():
        said = "is a file: pass the folder that it is in" if Path(root).exists() else "does not exist"
        raise InvalidInputError(f"folder = {quoted(folder, 200)} {said}.")

    def failed(error: OSError) -> None:
        raise error

    def found() -> Iterator[tuple[str, Mapping[str, Any]]]:
        seen = set()
        for place, folders, names in os.walk(root, onerror=failed, followlinks=True):
            status = Path(place).stat()
            if (status.st_dev, status.st_ino) in seen:  # a link to a folder around it
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            for name in names:
                path = Path(place, name)
                try:
                    status = path.stat()
                except FileNotFoundError:
                    if not path.is_symlink():
                        continue  # it was removed just now
                    status = path.lstat()
                # As git does: the time of the last change of the inode cannot be set, so that a copy with an old time shows.
                tag = f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_ctime_ns:x}"
                yield path.relative_to(root).as_posix(), {"size": status.st_size, "modified": status.st_mtime_ns, "tag": tag}

    return Source(root, found, lambda path: os.path.join(root, path))  # noqa: PTH118


def _of_url(url: str, system: Any) -> Source:
    url = url.rstrip("/")

    def found() -> Iterator[tuple[str, Mapping[str, Any]]]:
        files, folder = (system, system._strip_protocol(url)) if system is not None else file_system(url, extra="fsspec")
        files.invalidate_cache()
        try:
            kind = files.info(folder)["type"]
        except FileNotFoundError:
            raise InvalidInputError(f"folder = {quoted_address(url)} does not exist, or holds no files.") from None
        if kind != "directory":
            raise InvalidInputError(f"folder = {quoted_address(url)} is not a folder.")
        start = folder.rstrip("/") + "/"
        for info in _infos(files, folder):
            if not (info.keys() & {*_TAGS, *_TIMES}):
                with contextlib.suppress(NotImplementedError):
                    info = {**info, "modified": files.modified(info["name"])}
            yield info["name"].removeprefix(start), info

    def place(path: str) -> str:
        return f"{url}/{path}"

    return Source(without_credentials(url, url), found, place, system)


def _infos(system: Any, folder: str) -> Iterator[dict[str, Any]]:
    """What a file system of fsspec says of all files in a folder and its folders."""
    find = getattr(type(system), "_find", None) or type(system).find
    if not find.__module__.startswith("fsspec."):  # a store without folders finds all at once
        yield from system.find(folder, detail=True).values()
        return
    # fsspec's own way leaves out folders that cannot be read.
    waiting, seen = [folder], {folder.rstrip("/")}
    while waiting:
        for info in system.ls(waiting.pop(), detail=True):
            name = info["name"].rstrip("/")
            if info["type"] != "directory":
                yield info
            elif name not in seen:
                seen.add(name)
                waiting.append(name)


def _of_obstore(store: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for chunk in import_geo("obstore").list(store):
        for each in chunk:
            yield each["path"], each


def _name_of_store(store: Any) -> str:
    """The kind of a store of obstore, its bucket and its prefix."""
    config = getattr(store, "config", None) or {}
    bucket = config.get("bucket") or config.get("container_name") or ""
    return f"{type(store).__name__}:{bucket}/{getattr(store, 'prefix', None) or ''}"


def _of_records(records: Iterable[Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Files of records. A folder without any of its files is an error, because Fused lists only one level."""
    folders: list[str] = []
    parents: set[str] = set()
    for record in _flat(records):
        info = record if isinstance(record, Mapping) else vars(record) if hasattr(record, "__dict__") else {}
        path = next((info[name] for name in _PATHS if isinstance(info.get(name), str) and info[name]), None)
        if path is None:
            raise InvalidInputError(
                f"folder has a record without a path, {quoted(record)}: it needs path, url or name, and size, and an e_tag or "
                "the time last_modified."
            )
        if "://" in path and ("?" in path or "@" in path.split("/", 3)[2]):
            raise InvalidInputError(
                f"folder has a record with credentials in its address, {quoted_address(path)}: leave them out."
            )
        parent = path.rstrip("/").rpartition("/")[0]
        while parent and parent not in parents:
            parents.add(parent)
            parent = parent.rpartition("/")[0]
        if info.get("is_directory") or info.get("type") == "directory" or path.endswith("/"):
            folders.append(path.rstrip("/"))
        else:
            yield path, info
    for each in folders:
        if each not in parents:
            raise InvalidInputError(
                f"folder names the folder {quoted_address(each)}, but none of its files: list it too, or leave it out."
            )


def _flat(records: Iterable[Any]) -> Iterator[Any]:
    for each in records:
        if isinstance(each, (list, tuple)):  # obstore lists in chunks
            yield from each
        else:
            yield each


def _entry(info: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a file."""
    size = info.get("size")
    tags = (info[name] for name in _TAGS if info.get(name) not in (None, "", "null"))  # S3's version where there are none
    times = (info[name] for name in _TIMES if info.get(name) is not None)
    is_size = isinstance(size, int) and not isinstance(size, bool)
    return {"size": size if is_size else None, "tag": _text(next(tags, None)), "modified": _text(next(times, None))}


def _text(value: Any) -> str | None:
    if isinstance(value, datetime):
        return (value if value.tzinfo is None else value.astimezone(timezone.utc)).isoformat()
    return None if value is None else str(value)


def _is_hidden(path: str) -> bool:
    """Whether readers of a folder leave a file out. Of an absolute path, only the name says that."""
    if path.startswith("/") or "://" in path:
        path = path.rpartition("/")[2]
    return any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in path.split("/"))


def is_beside(path: str) -> bool:
    return path.lower().endswith(_BESIDE)


def by_stem(paths: Iterable[str]) -> Callable[[str], list[str]]:
    """What finds the files that one beside them belongs to."""
    found: dict[str, list[str]] = {}
    for path in paths:
        for stem in (path, path.rpartition(".")[0]):
            found.setdefault(stem.lower(), []).append(path)

    def of(path: str) -> list[str]:
        path = path.lower()
        return [each for end in _BESIDE if path.endswith(end) for each in found.get(path.removesuffix(end), ())]

    return of


@contextlib.contextmanager
def in_our_terms(failed: str, address: str) -> Iterator[None]:
    """Raise the errors of stores and of the libraries that read files, which have no common class, as ours."""
    try:
        yield
    except FusedCacheError:
        raise
    except Exception as error:
        text = " ".join(without_credentials(error, address).split())
        raise unreadable(error, f"{failed}: {type(error).__name__}: {shortened(text, 300).rstrip('.')}.") from None
