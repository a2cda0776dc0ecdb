"""Announce what is confirmed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fused_cache_ops.errors import FusedCacheError
from fused_cache_ops.keywords.announce import Announcing
from fused_cache_ops.outcome.announcement import Announcement

logger = logging.getLogger(__name__)

PATIENCE = 20.0
"""Seconds that announcing may take, retries included. They do not count toward the deadline of a call."""


def check_place(announcing: Announcing) -> None:
    """Reject what cannot be announced to on this machine: a variable that is not set, or a store's package that is missing.

    Raises:
        FusedCacheError: as said.
    """
    from fused_cache_ops.announcements import places  # slow to import

    places.check_place(announcing)


def announce(announcing: Announcing, source: str, change: Mapping[str, Any], patience: float = PATIENCE) -> Announcement:
    """Put a change at a place. A failure is logged, and is in what is returned.

    Args:
        announcing: where.
        source: what the document calls the map.
        change: what has changed.
        patience: seconds that this may take, retries included.
    """
    from fused_cache_ops.announcements.places import open_place  # slow to import

    what = next(name for name in ("everything", "ranges", "tiles") if name in change)
    try:
        place = open_place(announcing, source)
        announcement = Announcement(announcing.shown, source, place.announce(source, change, patience), what, note=place.note)
    except FusedCacheError as error:
        logger.warning("Fused cache: not announced to %s: %s", announcing.shown, error.message)
        return Announcement(announcing.shown, source, None, what, error=error.message, retryable=error.retryable)
    logger.info("Fused cache: %s", announcement)
    return announcement
