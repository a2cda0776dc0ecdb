"""Events: what a load's event says, and what the last word about a UDF was."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError

from fused_cache_ops import FusedCacheError, InvalidInputError, UnavailableError

INVALIDATED = "fused.cache.invalidated"
FAILED = "fused.cache.invalidation-failed"

_TRIES, _PAUSE = 15, 2.0  # a trigger may be faster than what stores the event


def read_event(event_id: str) -> dict[str, Any]:
    """An event: its ``payload``, such as the metadata of an asset's materialization, and when it ``occurred``.

    Raises:
        fused_cache_ops.InvalidInputError: It is not the id of an event.
        fused_cache_ops.UnavailableError: Prefect's API does not answer, or does not have the event yet.
    """
    try:
        wanted = {"id": {"id": [str(UUID(event_id))]}}
    except ValueError:
        raise InvalidInputError(
            f"event = {event_id!r} is not the id of an event: use {{{{ event.id }}}} in the trigger."
        ) from None
    for attempt in range(_TRIES):
        if found := _events(wanted):
            return found[0]
        if attempt < _TRIES - 1:
            time.sleep(_PAUSE)
    raise UnavailableError(f"Prefect does not have the event {event_id}: it is not stored yet, or no longer.")


_emitted: dict[str, tuple[datetime, str]] = {}
"""The last event of each UDF that this process has emitted, which the server may not have stored yet."""


def note_event(resource_id: str, event: str) -> None:
    """Remember an event that this process emits."""
    _emitted[resource_id] = (datetime.now(timezone.utc), event)


def is_known_fresh(resource_id: str) -> bool:
    """Whether the last event about a UDF says that it was invalidated. Not if that cannot be known."""
    wanted = {"resource": {"id": [resource_id]}, "event": {"name": [INVALIDATED, FAILED]}, "order": "DESC"}
    try:
        stored = [(datetime.fromisoformat(each["occurred"].replace("Z", "+00:00")), each["event"]) for each in _events(wanted)]
    except FusedCacheError:
        return False
    own = [_emitted[resource_id]] if resource_id in _emitted else []
    return max([*stored, *own], default=(None, None))[1] == INVALIDATED


def invalidations(resource_id: str, most: int) -> list[dict[str, Any]]:
    """The results of a UDF's last invalidations, the newest first, as far as Prefect has stored their events.

    Raises:
        fused_cache_ops.UnavailableError: Prefect's API does not answer.
    """
    wanted = {"resource": {"id": [resource_id]}, "event": {"name": [INVALIDATED]}, "order": "DESC"}
    return [each["payload"] for each in _events(wanted, most)]


def _events(wanted: dict[str, Any], most: int = 1) -> list[dict[str, Any]]:
    try:
        with get_client(sync_client=True) as api:
            answer = api.request("POST", "/events/filter", json={"filter": wanted, "limit": most})
    except Exception as error:
        raise api_error(error, "Prefect's events cannot be read") from error
    found: list[dict[str, Any]] = answer.json()["events"]
    return found


def api_error(error: Exception, what: str) -> FusedCacheError:
    """An error of Prefect's API: transient, unless it refused the request."""
    said = f"{what}: {type(error).__name__}: {error}"
    status = error.response.status_code if isinstance(error, PrefectHTTPStatusError) else 503
    return InvalidInputError(said) if 400 <= status < 500 and status not in (408, 429) else UnavailableError(said)
