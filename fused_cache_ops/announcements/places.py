"""Where documents are put, so that of two writers at the same time neither loses a version."""

from __future__ import annotations

import base64
import contextlib
import hmac
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from fused_cache_ops.announcements.document import AnotherDocumentError, amended
from fused_cache_ops.errors import ConfigurationError, FusedCacheError, InvalidInputError, UnavailableError, unreadable
from fused_cache_ops.keywords.announce import Announcing, document_name, masked_webhook
from fused_cache_ops.secret import MASK, Secret
from fused_cache_ops.service.answers import cleaned, is_permanent, reason_of
from fused_cache_ops.service.connection import AnswerTimedOut, ConnectionDropped, Connections
from fused_cache_ops.stores import LocalFile, StoredObject, open_store, reason

_S3: Mapping[str, Any] = {"CacheControl": "no-cache", "ContentType": "application/json"}
_GCS: Mapping[str, Any] = {"content_type": "application/json", "fixed_key_metadata": {"cache_control": "no-cache"}}
_CACHING = {"s3": _S3, "s3a": _S3, "gs": _GCS, "gcs": _GCS}
"""How each store is told that the document may be kept, but must be asked for again, so that it can be polled."""

_TAKEN = ("PreconditionFailed", "ConditionalRequestConflict")  # of S3, if another writer came first


class Place(Protocol):
    """Where the document of one map is put.

    Attributes:
        note: what a user should know of it, or None.
    """

    note: str | None

    def announce(self, source: str, change: Mapping[str, Any], patience: float) -> int:
        """Add a change, within some seconds. Returns its version.

        Raises:
            FusedCacheError: it cannot be put there.
        """
        ...


def check_place(announcing: Announcing) -> None:
    """As `fused_cache_ops.announcements.announce.check_place`."""
    opened = announcing.opened()
    if isinstance(opened.to, Secret):
        _key_of(announcing.secret)
    elif announcing.secret is not None:
        raise InvalidInputError("announce: secret signs what is posted to an https address. A path or a store needs none.")
    else:
        with contextlib.suppress(UnavailableError):  # which keeps nothing from being invalidated
            open_store(opened.to, "map.json", "announce")


def open_place(announcing: Announcing, source: str) -> Place:
    """The place for a map of a name.

    Raises:
        FusedCacheError: it cannot be used.
    """
    opened = announcing.opened()
    if isinstance(opened.to, Secret):
        return _Webhook(opened.to, announcing.secret)
    store = open_store(opened.to, document_name(source), "announce")
    return _File(store) if isinstance(store, LocalFile) else _Object(store)


class _File:
    note: str | None = None

    def __init__(self, file: LocalFile) -> None:
        self._file = file

    def announce(self, source: str, change: Mapping[str, Any], patience: float) -> int:
        try:
            self._file.path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self._file.path, patience):
                content, version = amended(self._file.read(), source, change)
                self._file.write(content)
        except OSError as error:
            raise unreadable(error, f"{self._file.name} cannot be written: {reason(error)}.") from error
        except AnotherDocumentError as error:
            raise InvalidInputError(f"{self._file.name}: {error}.") from None
        return version


@contextlib.contextmanager
def _locked(path: Path, patience: float) -> Iterator[None]:
    """Hold the lock of a document. It is that of a file beside it, because the document itself is replaced."""
    end = time.monotonic() + patience
    with path.with_name(f".{path.name}.lock").open("ab") as file:
        while not _lock(file):
            if time.monotonic() > end:
                raise OSError(f"another process has held its lock for {patience:g} s")
            time.sleep(random.uniform(0.002, 0.02))  # noqa: S311
        yield  # closing the file releases the lock


try:
    import fcntl

    def _lock(file: Any) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

except ImportError:  # Windows
    import msvcrt

    def _lock(file: Any) -> bool:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True


class _Object:
    """An object. S3 refuses to replace one that has changed since it was read. Of other stores, that is not known."""

    def __init__(self, store: StoredObject) -> None:
        self._store = store
        protocol = next((each for each in store.protocols if each in _CACHING), None)
        self._options: Mapping[str, Any] = _CACHING[protocol] if protocol else {}
        self._is_conditional = protocol in ("s3", "s3a")
        self.note: str | None = (
            None
            if self._is_conditional
            else f"{store.protocols[0]}: of two announcements at the same moment, one may be lost there"
        )

    def announce(self, source: str, change: Mapping[str, Any], patience: float) -> int:
        end = time.monotonic() + patience
        while True:
            try:
                return self._try(source, change)
            except AnotherDocumentError as error:
                raise InvalidInputError(f"{self._store.name}: {error}.") from None
            except OSError as error:
                if not _is_taken(error):
                    raise UnavailableError(f"{self._store.name} cannot be written: {reason(error)}.") from error
                if time.monotonic() > end:
                    raise UnavailableError(
                        f"{self._store.name} cannot be written: others wrote it for {patience:g} s."
                    ) from error
            time.sleep(random.uniform(0.01, 0.2))  # noqa: S311

    def _try(self, source: str, change: Mapping[str, Any]) -> int:
        condition: dict[str, str] = {}
        if self._is_conditional:  # its state first: what is read after that may be newer, but then the state has changed
            state = self._store.info()
            condition = {"IfMatch": state["ETag"]} if state.get("ETag") else {"IfNoneMatch": "*"}
        content, version = amended(self._store.read(), source, change)
        self._store.write(content, {**self._options, **condition})
        return version


def _is_taken(error: BaseException) -> bool:
    """Whether another writer came first."""
    said: Any = getattr(error.__cause__, "response", None) or {}
    return isinstance(error, FileExistsError) or said.get("Error", {}).get("Code") in _TAKEN


class _Webhook:
    """An address that takes a POST, signed as Standard Webhooks says (https://www.standardwebhooks.com), where a secret is
    given. It keeps no document, so each one has one change, and its version is the time in milliseconds."""

    note: str | None = None

    def __init__(self, address: Secret, secret: str | None) -> None:
        self._address = address
        self._key = _key_of(secret)
        self._shown = masked_webhook(address)

    def announce(self, source: str, change: Mapping[str, Any], patience: float) -> int:
        content, version = amended(None, source, change, first=time.time_ns() // 1_000_000)
        call = _Call(time.monotonic() + patience)
        name = f"msg_{uuid.uuid4().hex}"
        pause = 0.5
        connections = Connections(self._address.reveal(), None, pool_size=1)
        try:
            while True:
                failure = self._post(connections, call, name, content)
                if failure is None:
                    return version
                if not failure.retryable or call.left < 2 * pause:
                    raise failure
                time.sleep(random.uniform(pause / 2, pause))  # noqa: S311
                pause *= 2
        finally:
            connections.close()

    def _post(self, connections: Connections, call: _Call, name: str, content: bytes) -> FusedCacheError | None:
        parts = urlsplit(self._address.reveal())
        target = Secret(f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}")
        try:
            answer = connections.send(
                "POST",
                target,
                owner=call,
                body=content,
                headers=self._signature(name, content),
                is_hidden=True,
                wait=min(10.0, call.left),
                seconds=call.left,
            )
        except (AnswerTimedOut, ConnectionDropped):
            return UnavailableError(f"{self._shown} did not answer in time.")
        except Exception as error:  # the library's text holds the address
            kind = InvalidInputError if is_permanent(error) else UnavailableError
            return kind(f"{self._shown}: {self._cleaned(reason_of(error))}.")
        if 200 <= answer.status < 300:
            return None
        if 300 <= answer.status < 400:
            return InvalidInputError(
                f"{self._shown} answered {answer.status}: redirects are never followed. Give the final address."
            )
        is_passing = answer.status in (408, 425, 429) or answer.status >= 500
        return (UnavailableError if is_passing else InvalidInputError)(f"{self._shown} answered {answer.status}.")

    def _cleaned(self, text: str) -> str:
        parts = urlsplit(self._address.reveal())
        for each in filter(None, (parts.path.strip("/"), parts.query)):
            text = text.replace(each, MASK)
        return cleaned(text)

    def _signature(self, name: str, content: bytes) -> Mapping[str, str | Secret]:
        moment = str(int(time.time()))
        signed: dict[str, str | Secret] = {"webhook-id": name, "webhook-timestamp": moment}
        if self._key is not None:
            digest = hmac.new(self._key(), f"{name}.{moment}.".encode() + content, sha256).digest()
            signed["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
        return signed


def _key_of(name: str | None) -> Callable[[], bytes] | None:
    """What reads the key of a signature, by the name of an environment variable.

    Raises:
        ConfigurationError: the variable is not set, or cannot be read as a key.
    """
    if name is None:
        return None
    if not os.environ.get(name, "").strip():
        raise ConfigurationError(f"announce: secret = {name!r}, but the environment variable {name} is not set here.")

    def read() -> bytes:
        text = os.environ[name].strip()
        return base64.b64decode(text.removeprefix("whsec_"), validate=True) if text.startswith("whsec_") else text.encode()

    try:
        read()
    except ValueError:
        raise ConfigurationError(
            f"announce: the environment variable {name} begins with whsec_, but the rest of it is not base64."
        ) from None
    return read


class _Call:
    """What a request belongs to: it ends at a time."""

    def __init__(self, end: float) -> None:
        self._end = end

    @property
    def left(self) -> float:
        return max(0.05, self._end - time.monotonic())

    def is_over(self) -> bool:
        return time.monotonic() > self._end
