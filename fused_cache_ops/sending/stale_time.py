"""How long a map was stale: from the load to the last confirmation, and to the first tile that is known to be fresh."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any


class StaleTime:
    """The moments of one call, as seconds since the load.

    Args:
        loaded_at: when the load was done. None: not known, so that nothing is measured.
    """

    def __init__(self, loaded_at: datetime | None) -> None:
        self._loaded_at = loaded_at
        self._invalidated: float | None = None
        self._fresh: float | None = None

    def is_invalidated(self) -> None:
        """Note that everything is confirmed now."""
        self._invalidated = self._seconds()

    def is_fresh(self, moment: datetime | None = None) -> None:
        """Note that a tile was computed anew, at a moment or now."""
        if self._fresh is None:
            self._fresh = self._seconds(moment)

    def _seconds(self, moment: datetime | None = None) -> float | None:
        if self._loaded_at is None:
            return None
        passed = ((moment or datetime.now(timezone.utc)) - self._loaded_at).total_seconds()
        return round(max(0.0, passed), 3)  # clocks differ

    def to_dict(self) -> dict[str, Any]:
        """The fields of a result."""
        return {
            "loaded_at": None if self._loaded_at is None else self._loaded_at.isoformat(),
            "seconds_until_invalidated": self._invalidated,
            "seconds_until_fresh": self._fresh,
        }
