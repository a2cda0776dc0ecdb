"""The document that a page polls: the last changes of a map, newest first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from fused_cache_ops.wording import quoted

LARGEST = 64_000
"""Bytes of a document."""

MOST_CHANGES = 50


class AnotherDocumentError(ValueError):
    """What is at a place is not a document of changes, so it is left as it is."""


def amended(content: bytes | None, source: str, change: Mapping[str, Any], *, first: int = 1) -> tuple[bytes, int]:
    """A document with one more change.

    Args:
        content: what is there. None, and what a crash left of it: there is none.
        source: the name of the map.
        change: what has changed.
        first: the version of a new document.

    Returns:
        The document, and its version.

    Raises:
        AnotherDocumentError: something else is there.
    """
    before = _read(content, source)
    version = int(before["version"]) + 1 if before else first
    at = datetime.now(timezone.utc).isoformat(timespec="microseconds")
    changes = [{"version": version, "at": at, **change}, *(before["changes"] if before else ())][:MOST_CHANGES]
    document = {"version": version, "at": at, "source": source, "changes": changes}
    while len(written := _written(document)) > LARGEST and len(changes) > 1:
        changes.pop()
    return written, version


def _written(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _read(content: bytes | None, source: str) -> dict[str, Any] | None:
    if content is None or not content.strip(b" \t\r\n\0"):
        return None
    try:
        found = json.loads(content)
        changes, version = found["changes"], found["version"]
        is_ours = isinstance(version, int) and version > 0 and all(isinstance(each["version"], int) for each in changes)
    except (ValueError, RecursionError, TypeError, KeyError):
        is_ours = False
    if not is_ours:
        raise AnotherDocumentError("something else is there, which is left untouched: give it a place of its own")
    document: dict[str, Any] = found
    if document.get("source") != source:
        raise AnotherDocumentError(
            f"it is the document of {quoted(document.get('source'))}, and this one is of {quoted(source)}: give each UDF a "
            "place of its own, or remove the document"
        )
    return document
