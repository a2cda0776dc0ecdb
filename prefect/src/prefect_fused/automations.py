"""An automation that tells of triggers that started no run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fused_cache_ops import InvalidInputError

if TYPE_CHECKING:
    from prefect.automations import Automation

NAME = "Fused: a trigger started no run"
SUBJECT = "A load was not followed by an invalidation"
BODY = """The trigger {{ event.resource.name }} could not start its run, so a map may stay stale.

Reason: {{ event.payload.reason }}
"""


def build_failed_trigger_alert(block: Any, *, triggers: Sequence[str] = (), name: str = NAME) -> Automation:
    """An automation that sends a notification when a trigger could not start its run. Otherwise, only an event says so: the
    parameters did not fit the flow, were larger than 512 kB, or a template could not be rendered, and the map stays stale.

        build_failed_trigger_alert(SlackWebhook.load("maps")).create()

    Args:
        block: A saved block that sends notifications.
        triggers: The names of the triggers, which may end in `*`. Prefect names those of a deployment
            `<deployment>__automation_1` and so on. Default: all automations of the server.
        name: The name of the automation. Its own failures do not start it again.

    Raises:
        fused_cache_ops.InvalidInputError: The block is not saved, or cannot send notifications.
    """
    from prefect.automations import Automation
    from prefect.blocks.abstract import NotificationBlock
    from prefect.events.actions import SendNotification
    from prefect.events.schemas.automations import EventTrigger, Posture

    document = getattr(block, "_block_document_id", None)
    if not isinstance(block, NotificationBlock) or document is None:
        raise InvalidInputError(
            f"block is of type {type(block).__name__}"
            + (
                ", which is not saved: call block.save('…')."
                if isinstance(block, NotificationBlock)
                else ": pass a notification block."
            )
        )
    return Automation(
        name=name,
        description="Tells of triggers that started no run, so that no map stays stale unnoticed.",
        trigger=EventTrigger(
            expect={"prefect.automation.action.failed"},
            match={"prefect.resource.id": "prefect.automation.*", "prefect.resource.name": [*triggers, f"!{name}"]},
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[SendNotification(block_document_id=document, subject=SUBJECT, body=BODY)],
    )
