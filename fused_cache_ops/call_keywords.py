"""The keywords of a call on a client: those that select tiles, and those that control sending.

``selection/keywords.py`` declares the former. This module adds the latter, in the same way: types, defaults and help.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fused_cache_ops.running.keywords import REFRESH_DEFAULTS, REFRESH_HELP, RefreshKeywords
from fused_cache_ops.selection.keywords import SELECTION_DEFAULTS, SELECTION_HELP, SHAPERS, SelectionKeywords

if TYPE_CHECKING:
    from collections.abc import Callable

    from fused_cache_ops.lineage.graph import Related
    from fused_cache_ops.plan.plan import InvalidationPlan
    from fused_cache_ops.progress import OnProgress
    from fused_cache_ops.secret import Secret
    from fused_cache_ops.sending.checkpoint import CheckpointLocation


class SendingKeywords(RefreshKeywords, total=False):
    """The keywords that control sending, and what follows it."""

    checkpoint: CheckpointLocation | None
    on_progress: OnProgress | None
    on_plan: Callable[[InvalidationPlan], object] | None
    verify_tiles: int
    shared_token: str | Secret | None
    related: Related | None
    max_related: int
    again_after: float


class CallKeywords(SelectionKeywords, SendingKeywords, total=False):
    """The keywords of `fused_cache_ops.FusedClient.invalidate_cache`."""


SENDING_DEFAULTS: SendingKeywords = {
    "checkpoint": None,
    "on_progress": None,
    "on_plan": None,
    "verify_tiles": 0,
    "shared_token": None,
    "related": None,
    "max_related": 20,
    "again_after": 0,
    **REFRESH_DEFAULTS,
}

SENDING_SHAPERS = ("checkpoint", "verify_tiles", "refresh_zooms")
"""The keywords for sending that require a selection, like `fused_cache_ops.selection.keywords.SHAPERS`."""

CALL_SHAPERS = (*SHAPERS, *SENDING_SHAPERS)

CALL_DEFAULTS: CallKeywords = {**SELECTION_DEFAULTS, **SENDING_DEFAULTS}

CALL_HELP: dict[str, str] = {
    **SELECTION_HELP,
    "checkpoint": "Where to record what is done, so that a retry sends only the rest: a path, or a URL that fsspec "
    "supports. Use one location per load.",
    "on_progress": "Called as on_progress(done, total, retries), at most a few times per second.",
    "on_plan": "Called once with the plan, before anything is sent.",
    "verify_tiles": "Afterwards, request this many of the tiles through a shared token, and report which were computed anew.",
    "shared_token": "The shared token to verify and refresh with. Not needed if the UDF is given by a shared token.",
    "related": "Also invalidate the UDFs of the same canvas that call this one (callers), that it calls (callees), or both.",
    "max_related": "The most UDFs that related may add.",
    "again_after": "Send everything a second time after this many seconds, for runs that were under way. 130 is a good value.",
    **REFRESH_HELP,
}
