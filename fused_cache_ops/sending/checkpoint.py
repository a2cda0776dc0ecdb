"""The record of what a call has done. If the call dies, however it dies, the next one sends only the rest."""

from __future__ import annotations

import json
import logging
import os
import time
from datetime import datetime, timedelta, timezone
from hashlib import blake2b
from typing import Any

from fused_cache_ops.errors import ConfigurationError, InvalidInputError, UnavailableError, unreadable
from fused_cache_ops.keywords.values import CheckpointLocation, RunCheckpoint
from fused_cache_ops.selection.spans import Spans
from fused_cache_ops.stores import LocalFile, Store, local_path, open_store, reason, refuse_broken_url
from fused_cache_ops.wording import counted, quoted, rendered_to_nothing

logger = logging.getLogger(__name__)

FORMAT = "fused-cache-ops checkpoint"
VERSION = 2
LIFETIME = timedelta(hours=12)
"""A record untouched for this long belongs to an earlier load, whose tiles may have changed again since. It is ignored, and
everything is sent. So is one from the future, which would never expire."""

_CLOCKS_DIFFER = timedelta(seconds=5)
_BEGINNING = b'{\n "format": "%s"' % FORMAT.encode()


class Checkpoint:
    """What is done of one invalidation, for every target and both passes, stored in a file or an object.

    Args:
        location: where to store the record.
        key: what identifies the invalidation, all as text: UDF, deployment and the selection's fingerprint.
        total: the position after the last tile of the selection.

    Attributes:
        saved_count: how many positions the last successful write recorded.

    Raises:
        InvalidInputError: the location holds the record of another invalidation, or something that is not a checkpoint.
        ConfigurationError: the location cannot be used.
        UnavailableError: the store does not answer, or is full.
    """

    def __init__(self, location: CheckpointLocation, key: dict[str, str], total: int) -> None:
        self._run = location.run if isinstance(location, RunCheckpoint) else None
        own = "" if self._run is None else f"-{blake2b(self._run.encode(), digest_size=8).hexdigest()}"
        self._store = _open_store(location, f"{key['udf_id']}-{key['selection']}{own}.json")
        self._key = key
        self._total = total
        self._started = _now()
        self._saved_at = 0.0
        self.saved_count = 0
        self._warned = False
        self._first_pass_ended: str | None = None
        self._done: dict[tuple[str, str, int], Spans] = {}
        self._read()
        try:
            if isinstance(self._store, LocalFile):
                self._store.make_folders()
            self._write()
        except OSError as error:
            said = f"checkpoint = {self._store.name!r} cannot be written: {reason(error)}."
            raise unreadable(error, said, ConfigurationError) from error
        if self.saved_count:
            logger.info("Fused cache: resuming from %s, which records %s.", self._store.name, counted(self.saved_count, "tile"))

    def spans(self, udf_id: str, client_id: str, number: int) -> Spans:
        """The positions that are done for one UDF on one instance in a pass. The sender adds to them. The whole UDF has one."""
        return self._done.setdefault((udf_id, client_id, number), Spans())

    def forget(self, udf_id: str, client_id: str, number: int) -> Spans:
        """Drop what is recorded for one UDF on one instance in a pass. Returns its new, empty record."""
        self._done.pop((udf_id, client_id, number), None)
        return self.spans(udf_id, client_id, number)

    def end_pass(self, number: int) -> None:
        """Record that a pass is over."""
        if number == 1 and self._first_pass_ended is None:
            self._first_pass_ended = _now()
            self.save(at_once=True)

    def wait_left(self, seconds: float) -> float:
        """Seconds until the second pass, which begins ``seconds`` after the first one ended."""
        if self._first_pass_ended is None:
            return seconds
        since = datetime.now(timezone.utc) - datetime.fromisoformat(self._first_pass_ended)
        return min(max(seconds - since.total_seconds(), 0.0), seconds)

    def save(self, *, at_once: bool = False) -> None:
        """Write the record, unless it has just been written. A failure to write is logged once."""
        if not at_once and (self._count() == self.saved_count or time.monotonic() - self._saved_at <= self._store.interval):
            return
        try:
            self._write()
        except OSError as error:
            if not self._warned:
                self._warned = True
                logger.warning("The checkpoint %s cannot be written: %s.", self._store.name, reason(error))

    def remove(self) -> None:
        """Remove the record once everything is done, so that the next load starts from scratch."""
        try:
            self._store.delete()
        except OSError as error:
            raise UnavailableError(
                f"All tiles are invalidated, but the checkpoint {self._store.name!r} cannot be removed "
                f"({reason(error)}). Remove it by hand: otherwise the next call that uses it sends nothing."
            ) from error

    def _count(self) -> int:
        return sum(spans.count for spans in self._done.values())

    def _write(self) -> None:
        count = self._count()
        record = {
            "format": FORMAT,
            "version": VERSION,
            "run": self._run,
            **self._key,
            "tiles": self._total,
            "tiles_done": count,
            "started": self._started,
            "updated": _now(),
            "first_pass_ended": self._first_pass_ended,
            "folders_made": self._store.folders_made if isinstance(self._store, LocalFile) else 0,
            "targets": [
                {"udf_id": udf_id, "client_id": client_id, "pass": number, "done": [list(span) for span in spans]}
                for (udf_id, client_id, number), spans in self._done.items()
            ],
        }
        self._saved_at = time.monotonic()
        self._store.write(json.dumps(record, indent=1).encode())
        self.saved_count = count

    def _read(self) -> None:
        try:
            content = self._store.read()
        except OSError as error:
            said = f"checkpoint = {self._store.name!r} cannot be read: {reason(error)}."
            raise unreadable(error, said, ConfigurationError) from error
        if content is None or not content.strip(b" \t\r\n\0"):  # nothing, or what a crash left of it
            return
        try:
            record = json.loads(content)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            if _BEGINNING.startswith(content.lstrip()[: len(_BEGINNING)]):
                logger.warning("The checkpoint %s is truncated: everything is sent.", self._store.name)
                return
            raise InvalidInputError(
                f"checkpoint = {self._store.name!r} is not a checkpoint and is left untouched. Use another location."
            )
        made = record.get("folders_made")
        if isinstance(self._store, LocalFile) and type(made) is int:
            self._store.folders_made = max(made, 0)
        age = _age(record)
        if not -_CLOCKS_DIFFER <= age <= LIFETIME:  # whatever it belongs to
            when = "an earlier load" if age > LIFETIME else "the future"
            logger.warning("The checkpoint %s is from %s (%s): everything is sent.", self._store.name, when, record["updated"])
            return
        if record.get("run") != self._run:
            logger.warning("The checkpoint %s is of another run: everything is sent.", self._store.name)
            return
        if record.get("version") != VERSION:
            raise InvalidInputError(
                f"checkpoint = {self._store.name!r} has version {record.get('version')!r}, but this package reads version "
                f"{VERSION}: remove it to send everything, or use another location."
            )
        other = [
            f"{name} {record.get(name)!r}, not {value!r}" for name, value in self._key.items() if record.get(name) != value
        ]
        if other and self._run is not None:
            logger.warning("What is selected has changed since %s was written: everything is sent.", self._store.name)
            return
        if other:
            raise InvalidInputError(
                f"checkpoint = {self._store.name!r} belongs to another invalidation ({'; '.join(other)}). Use one location for "
                "each load and shard, or a folder (a location that ends in /), or remove it to send everything."
            )
        try:
            datetime.fromisoformat(record["updated"])
            if record["first_pass_ended"] is not None:
                datetime.fromisoformat(record["first_pass_ended"])
            done = {
                (str(each["udf_id"]), str(each["client_id"]), int(each["pass"])): [
                    (int(start), int(stop)) for start, stop in each["done"]
                ]
                for each in record["targets"]
            }
            sane = all(0 <= start < stop <= self._total for spans in done.values() for start, stop in spans)
        except (KeyError, TypeError, ValueError):
            sane = False
        if not sane:
            logger.warning("The checkpoint %s is corrupt: everything is sent.", self._store.name)
            return
        self._started = str(record.get("started"))
        self._first_pass_ended = record["first_pass_ended"]
        self._done = {target: Spans(spans) for target, spans in done.items()}


def check_location(location: Any) -> None:
    """Reject an invalid checkpoint location.

    Raises:
        InvalidInputError: it is not a path or URL, or looks like a template that rendered to nothing.
    """
    location = _place(location)
    if hasattr(location, "record"):
        return
    if not isinstance(location, (str, os.PathLike)):
        raise InvalidInputError(f"checkpoint is of type {type(location).__name__}: pass a path or a URL.")
    if "\0" in os.fspath(location):
        raise InvalidInputError(f"checkpoint = {quoted(location)} is not a path: it holds a NUL character.")
    if rendered_to_nothing(os.fspath(location)):
        raise InvalidInputError(f"checkpoint is {location!r}, which looks like a template that rendered to nothing.")
    refuse_broken_url(os.fspath(location), "checkpoint")


def is_folder(location: CheckpointLocation) -> bool:
    """Whether a location is a folder, with one file for each UDF and selection."""
    place = _place(location)
    if hasattr(place, "record"):
        return True
    place = os.fspath(place)
    return place.endswith(("/", os.sep)) or ("://" not in place and os.path.isdir(place))  # noqa: PTH112


def _place(location: Any) -> Any:
    return location.location if isinstance(location, RunCheckpoint) else location


def _age(record: dict[str, Any]) -> timedelta:
    try:
        return datetime.now(timezone.utc) - datetime.fromisoformat(record["updated"])
    except (KeyError, TypeError, ValueError):  # reported by the checks that follow
        return timedelta(0)


def _open_store(location: CheckpointLocation, name: str) -> Store:
    check_location(location)
    place = _place(location)
    if hasattr(place, "record"):
        return place.record(name)  # type: ignore[no-any-return]
    return open_store(local_path(os.fspath(place)), name, "checkpoint")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
