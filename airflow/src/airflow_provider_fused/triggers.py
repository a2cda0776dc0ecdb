"""The trigger that waits for the second pass of an invalidation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger, TriggerEvent
else:
    try:
        from airflow.sdk.triggers.base import BaseTrigger, TriggerEvent
    except ImportError:
        from airflow.triggers.base import BaseTrigger, TriggerEvent

_LONGEST_SLEEP = 60  # seconds, so that a change of the clock is noticed


class SecondPassTrigger(BaseTrigger):
    """Fires at a moment, and hands back what the first pass did. It holds no secret, because Airflow stores its arguments.

    :param moment: when to fire, in ISO format with a time zone
    :param first: what the first pass did, as ``fused_cache_ops.FirstPass.to_dict`` returns it
    :param returned: the selection that a decorated function returned, which is not called again
    """

    def __init__(self, moment: str, first: dict[str, Any], returned: dict[str, Any] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.moment = moment
        self.first = first
        self.returned = returned

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and its arguments, as Airflow stores them."""
        return (
            "airflow_provider_fused.triggers.SecondPassTrigger",
            {"moment": self.moment, "first": self.first, "returned": self.returned},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and fire once."""
        moment = datetime.fromisoformat(self.moment)
        while (left := (moment - datetime.now(timezone.utc)).total_seconds()) > 0:
            await asyncio.sleep(min(left, _LONGEST_SLEEP))
        yield TriggerEvent({"first": self.first, "returned": self.returned})  # type: ignore[no-untyped-call]
