"""The keywords of a call over a client: those that select tiles, and those of the sending.

``selection/keywords.py`` declares the former; this module adds the latter, with the same three: types, defaults, help.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from fused_cache_ops.selection.keywords import SELECTION_DEFAULTS, SELECTION_HELP, SHAPERS, SelectionKeywords

if TYPE_CHECKING:
    from collections.abc import Callable

    from fused_cache_ops.plan.plan import InvalidationPlan
    from fused_cache_ops.secret import Secret
    from fused_cache_ops.sending.checkpoint import CheckpointLocation
    from fused_cache_ops.sending.progress import OnProgress


class SendingKeywords(TypedDict, total=False):
    """The keywords of the sending."""

    checkpoint: CheckpointLocation | None
    on_progress: OnProgress | None
    on_plan: Callable[[InvalidationPlan], object] | None
    verify_tiles: int
    shared_token: str | Secret | None


class CallKeywords(SelectionKeywords, SendingKeywords, total=False):
    """The keywords of `fused_cache_ops.FusedClient.invalidate_cache`."""


SENDING_DEFAULTS: SendingKeywords = {
    "checkpoint": None,
    "on_progress": None,
    "on_plan": None,
    "verify_tiles": 0,
    "shared_token": None,
}

SENDING_SHAPERS = ("checkpoint", "verify_tiles")
"""The keywords of the sending that need a selection, as `fused_cache_ops.selection.keywords.SHAPERS` do."""

CALL_SHAPERS = (*SHAPERS, *SENDING_SHAPERS)

CALL_DEFAULTS: CallKeywords = {**SELECTION_DEFAULTS, **SENDING_DEFAULTS}

CALL_HELP: dict[str, str] = {
    **SELECTION_HELP,
    "checkpoint": "Where to keep a record of what is done, so that a retry sends only the rest: a path, or a URL that fsspec "
    "knows. Use one place per load.",
    "on_progress": "Called as on_progress(done, total, retries), a few times a second at most.",
    "on_plan": "Called once with the plan, before anything is sent.",
    "verify_tiles": "Afterwards, request this many of the tiles through a shared token, and report which were computed anew.",
    "shared_token": "The shared token to verify with. Not needed where the UDF is given by one.",
}
