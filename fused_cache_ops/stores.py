"""Places for one small document: a local file, or an object in a store that fsspec supports. Each is replaced atomically."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

from fused_cache_ops.errors import ConfigurationError, InvalidInputError, UnavailableError
from fused_cache_ops.wording import extra_needed, quoted, without_credentials

_BROKEN_URL = re.compile("[A-Za-z][A-Za-z0-9+.-]+:/(?!/)")
_INTERVAL_LOCAL, _INTERVAL_REMOTE = 0.5, 5.0  # seconds
_TRIES = 10


class Store(Protocol):
    """One document.

    Attributes:
        name: what messages call it, without credentials.
        interval: seconds that should pass between two writes.
    """

    name: str
    interval: float

    def read(self) -> bytes | None:
        """The document. None: there is none."""
        ...

    def write(self, content: bytes) -> None:
        """Replace it."""
        ...

    def delete(self) -> None:
        """Delete it, if it is there."""
        ...


class LocalFile:
    """A file of this machine.

    Attributes:
        path: where it is.
        folders_made: how many of the folders around it, from the innermost one outward, were made for it.
    """

    interval = _INTERVAL_LOCAL

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.path = path
        self.folders_made = 0

    def read(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None

    def write(self, content: bytes) -> None:
        draft = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}.draft")
        try:
            with self._opened(draft) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # otherwise a crash may leave a renamed file of zeros
            draft.replace(self.path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise

    def delete(self) -> None:
        """Delete it, and the folders that were made for it, as far as they are empty."""
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            for folder in self.path.parents[: self.folders_made]:
                folder.rmdir()

    def make_folders(self) -> None:
        """Make the folders around it that are missing, and note how many."""
        missing = list(itertools.takewhile(lambda each: not each.exists(), self.path.parents))
        for number, folder in reversed(list(enumerate(missing, start=1))):
            with contextlib.suppress(FileExistsError):  # another call has made it just now
                folder.mkdir()
                self.folders_made = max(self.folders_made, number)

    def _opened(self, draft: Path) -> BinaryIO:
        for _ in range(_TRIES):
            with contextlib.suppress(FileNotFoundError):  # another call removes the folder, which it has made, just now
                self.make_folders()
                return draft.open("wb")
        return draft.open("wb")


class StoredObject:
    """An object in a store that fsspec supports. Such stores replace an object atomically.

    Args:
        url: its address.
        what: the keyword that names it, for messages.

    Raises:
        ConfigurationError: fsspec or the store's own package is not installed.
        UnavailableError: the store does not answer.
    """

    interval = _INTERVAL_REMOTE

    def __init__(self, url: str, what: str) -> None:
        try:
            import fsspec
        except ImportError:
            raise ConfigurationError(
                f"A URL as {what} needs fsspec and the store's own package. {extra_needed('fsspec', 'fsspec')}"
            ) from None
        self.name = without_credentials(url, url)
        try:
            self._files, self._path = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError, TypeError) as error:
            raise ConfigurationError(f"{what} = {self.name!r} cannot be used: {error}.") from None
        except Exception as error:  # of a store that is looked for at once
            raise UnavailableError(
                f"{what} = {self.name!r} cannot be used: {type(error).__name__}: {quoted(str(error), 300)}."
            ) from None

    def read(self) -> bytes | None:
        def read() -> bytes | None:
            self._files.invalidate_cache()
            content: bytes = self._files.cat_file(self._path)
            return content

        found: bytes | None = self._try(read)
        return found

    def write(self, content: bytes, options: Mapping[str, Any] | None = None) -> None:
        """Replace it, with options of the store's own."""
        self._try(lambda: self._files.pipe_file(self._path, content, **(options or {})))

    def delete(self) -> None:
        self._try(lambda: self._files.rm_file(self._path))

    @property
    def protocols(self) -> tuple[str, ...]:
        """What the store's addresses begin with, such as ``s3``."""
        found = self._files.protocol
        return (found,) if isinstance(found, str) else tuple(found)

    def info(self) -> dict[str, Any]:
        """What the store says of it. Empty: there is none."""

        def ask() -> Any:
            self._files.invalidate_cache()
            return self._files.info(self._path)

        return self._try(ask) or {}

    @staticmethod
    def _try(action: Callable[[], Any]) -> Any:
        try:
            return action()
        except FileNotFoundError:
            return None
        except OSError:
            raise
        except Exception as error:  # each store has its own errors
            raise OSError(f"{type(error).__name__}: {error}") from error


def open_store(place: str, name: str, what: str) -> LocalFile | StoredObject:
    """What is at a path or URL.

    Args:
        place: a path or URL. One that ends in ``/``, and a folder that exists, gets the document as a file in it.
        name: the file's name then.
        what: the keyword that names the place, for messages.

    Raises:
        InvalidInputError: it is not a path.
        ConfigurationError: the store cannot be used.
        UnavailableError: it does not answer.
    """
    if "://" in place:
        return StoredObject(place + name if place.endswith("/") else place, what)
    try:
        path = Path(place).expanduser()
    except RuntimeError as error:  # ~nobody
        raise InvalidInputError(f"{what} = {quoted(place)} is not a path: {str(error).rstrip('.')}.") from None
    # Unlike Path.is_dir, this is False where it cannot be looked at. What is written there says why.
    return LocalFile(path / name if place.endswith(("/", os.sep)) or os.path.isdir(path) else path)  # noqa: PTH112


def refuse_broken_url(place: str, what: str) -> None:
    """Reject a URL that lost a slash, as ``Path("s3://bucket/roads.json")`` does: it would be a path of this machine.

    Raises:
        InvalidInputError: as said.
    """
    if _BROKEN_URL.match(place):
        scheme = place.partition(":")[0]
        raise InvalidInputError(
            f"{what} begins with {scheme}:/, which is neither a path nor a URL: write {scheme}://, as text, because "
            "Path() takes one slash away."
        )


def local_path(text: str) -> str:
    """The path that a ``file://`` URL names, and any other text unchanged."""
    return url2pathname(urlsplit(text).path) if text.startswith("file://") else text


def reason(error: OSError) -> str:
    """Why a file or an object could not be used."""
    return error.strerror or f"{type(error).__name__}: {error}"
