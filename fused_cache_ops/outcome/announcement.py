"""What was announced to pages that show a map."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from fused_cache_ops.errors import FollowUpError


@dataclass(frozen=True)
class Announcement:
    """The announcement of one UDF's change.

    Attributes:
        to: the place, without what grants access.
        source: what the document calls the map.
        version: the version of the document. None: it was not announced.
        what: ``"tiles"`` or ``"ranges"`` of tiles, or ``"everything"``, perhaps within zooms and bounds.
        error: why it was not announced. None: it was.
        note: what is to be known of the place. Usually None.
        retryable: whether announcing again may help.
    """

    to: str
    source: str
    version: int | None
    what: str
    error: str | None = None
    note: str | None = None
    retryable: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict of JSON types."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Announcement:
        """An announcement from the dict that `to_dict` returned."""
        return cls(**fields)

    @classmethod
    def merge(cls, announcements: Iterable[Announcement]) -> Announcement | None:
        """Of several, such as those of shards: one that failed, or the latest. None if there are none."""
        parts = list(announcements)
        return max(parts, key=lambda each: (each.error is not None, each.version or 0), default=None)

    def __str__(self) -> str:
        if self.error is not None:
            return f"not announced: {self.error}"
        return f"announced: {self.what} as version {self.version:,} of {self.source!r} at {self.to}"


class AnnouncementError(FollowUpError):
    """What was to be invalidated is invalidated, but it could not be announced (``must_succeed``).

    Attributes:
        result: the result of the invalidation. Its ``announcement``, and those of its ``related``, say what failed.
    """

    result: Any

    def __init__(self, result: Any, failed: tuple[Announcement, ...]) -> None:
        said = "; ".join(dict.fromkeys(str(each.error) for each in failed))
        super().__init__(
            f"Everything is invalidated, but it could not be announced: {said} Maps that are open go on showing old tiles. "
            "Run the same call again to announce it."
        )
        self.result = result
        self._failed = failed
        self.retryable = any(each.retryable for each in failed)

    def __reduce__(self) -> tuple[object, ...]:
        return AnnouncementError, (self.result, self._failed)
