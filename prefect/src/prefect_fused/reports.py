"""Artifacts of a run: its progress and its result."""

from __future__ import annotations

import base64
import json
import logging
import math
import re
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate

from fused_cache_ops.integration import DEFAULT_MAX_TILES
from prefect_fused.events import invalidations
from prefect_fused.run import Run

if TYPE_CHECKING:
    from fused_cache_ops import DatasetResult, InvalidationPlan, InvalidationResult, RefreshResult

logger = logging.getLogger(__name__)

_PROGRESS_INTERVAL = 5.0  # seconds before the first progress update, and between updates
_LARGEST_PICTURE = 200_000  # bytes
_MOST_FAILURES = 20
_MOST_LOADS, _BAR = 50, 10  # rows of the table of stale times, and the width of its longest bar


class Progress:
    """A progress artifact for an invalidation that takes more than a moment.

    Args:
        run: The run to show it in.
        shown: How to name the UDF.
        done_what: What is done to the tiles.
    """

    def __init__(self, run: Run, shown: str, done_what: str = "invalidated") -> None:
        self._run = run
        self._done_what = done_what
        self._shown = shown
        self._due = time.monotonic() + _PROGRESS_INTERVAL
        self._id: UUID | None = None

    def tell(self, done: int, total: int | None, retries: int) -> None:
        """The core's `on_progress` callback."""
        now = time.monotonic()
        if not self._run.exists or not total or now < self._due:
            return
        self._due = now + _PROGRESS_INTERVAL
        retried = f", {retries:,} {'retry' if retries == 1 else 'retries'}" if retries else ""
        self._show(done / total * 100, f"Fused cache of {self._shown}: {done:,} of {total:,} tiles {self._done_what}{retried}")

    def finish(self) -> None:
        """Complete the artifact, if there is one."""
        if self._id is not None:
            self._show(100.0, f"Fused cache of {self._shown}: all tiles {self._done_what}")

    def _show(self, percent: float, description: str) -> None:
        try:
            with get_client(sync_client=True) as api:
                if self._id is not None:
                    api.update_artifact(self._id, ArtifactUpdate(data=percent, description=description))
                else:
                    key = f"{artifact_key(self._shown)}-progress"
                    self._id = _create(api, self._run, key=key, type="progress", data=percent, description=description)
        except Exception as error:  # a failing artifact must not fail the invalidation
            self._due = math.inf  # nor delay it again and again
            logger.warning("The progress artifact could not be written: %s", error)


def report_result(run: Run, shown: str, plan: InvalidationPlan, result: InvalidationResult) -> None:
    """Show the result as a markdown artifact: the counts, a table per zoom, and the footprint as a picture."""
    key = artifact_key(shown if "*" not in shown else str(result.udf_id))  # a shared token is shown as asterisks
    try:
        data = describe(shown, plan, result)
        with get_client(sync_client=True) as api:
            _create(api, run, key=key, type="markdown", data=data, description=f"Fused cache of {shown}")
    except Exception as error:  # a failing artifact must not fail the invalidation
        logger.warning("The result artifact could not be written: %s", error)


def report_stale_time(run: Run, shown: str, resource_id: str, result: dict[str, Any]) -> None:
    """Show how long the map was stale after each of the last loads as a table, the newest first. Each version of the artifact
    has a load more."""
    if not run.exists or result.get("seconds_until_invalidated") is None:
        return
    try:
        earlier = [each for each in invalidations(resource_id, _MOST_LOADS) if each.get("loaded_at") != result["loaded_at"]]
        known = [each for each in (result, *earlier) if each.get("seconds_until_invalidated") is not None][:_MOST_LOADS]
        longest = max(each["seconds_until_invalidated"] for each in known) or 1.0
        rows = [
            {
                "Loaded at": each["loaded_at"],
                "Seconds until invalidated": each["seconds_until_invalidated"],
                "Seconds until fresh": each.get("seconds_until_fresh"),
                "Compared": "█" * max(1, round(_BAR * each["seconds_until_invalidated"] / longest)),
            }
            for each in known
        ]
        with get_client(sync_client=True) as api:
            key = f"{artifact_key(shown if '*' not in shown else str(result['udf_id']))}-stale-time"
            said = f"How long the map of {shown} was stale after each load"
            _create(api, run, key=key, type="table", data=json.dumps(rows), description=said)
    except Exception as error:  # a failing artifact must not fail the invalidation
        logger.warning("The artifact of stale times could not be written: %s", error)


def report_dataset(run: Run, shown: str, result: DatasetResult) -> None:
    """Show what was done for each UDF of a dataset as a markdown artifact."""
    if not run.exists:
        return
    try:
        data = describe_dataset(shown, result)
        with get_client(sync_client=True) as api:
            _create(api, run, key=artifact_key(shown), type="markdown", data=data, description=f"Fused caches of {shown}")
    except Exception as error:  # a failing artifact must not fail the invalidation
        logger.warning("The result artifact could not be written: %s", error)


def report_refresh(run: Run, shown: str, found: RefreshResult) -> None:
    """Show a refresh as a markdown artifact."""
    if not run.exists:
        return
    try:
        with get_client(sync_client=True) as api:
            key = f"{artifact_key(shown)}-refresh"
            data = describe_refresh(shown, found)
            _create(api, run, key=key, type="markdown", data=data, description=f"Refresh of the Fused cache of {shown}")
    except Exception as error:  # a failing artifact must not fail the refresh
        logger.warning("The result artifact could not be written: %s", error)


def describe_refresh(shown: str, found: RefreshResult) -> str:
    """A refresh as markdown."""
    rows = {
        "Runs": f"{found.runs:,}",
        "Already cached": f"{found.already_cached:,}",
        "Failed": f"{len(found.failed):,}" if found.failed else None,
        "Not reached in time": f"{found.not_requested:,}" if found.not_requested else None,
        "Median run, seconds": found.seconds_median,
        "95 % of the runs within, seconds": found.seconds_p95,
        "Bytes": f"{found.bytes:,}",
        "Seconds": f"{found.elapsed_seconds:,.2f}",
        "Note": found.note,
    }
    parts = [f"# Fused cache of `{shown.replace('`', '')}` refreshed", _table("What", "", rows)]
    if found.failed:
        shown_failures = [f"- {_as_code(failure)}" for failure in found.failed[:_MOST_FAILURES]]
        parts.append("\n".join(["Could not be refreshed:", "", *shown_failures]))
    return "\n\n".join(parts)


def _as_code(text: str) -> str:
    """A text from elsewhere, so that it is shown as it is."""
    return f"`{text.replace('`', chr(39))}`"


def describe_dataset(shown: str, result: DatasetResult) -> str:
    """What was done for each UDF of a dataset, as markdown."""
    rows = {udf: result.failed[udf].message if udf in result.failed else str(each) for udf, each in result.results.items()}
    rows |= {udf: error.message for udf, error in result.failed.items()}
    rows = {udf: f"failed: {said}" if udf in result.failed else said for udf, said in rows.items()}
    parts = [f"# Fused caches of `{shown.replace('`', '')}` invalidated", _table("UDF", "Result", rows)]
    return "\n\n".join([*parts, result.note] if result.note else parts)


def describe(shown: str, plan: InvalidationPlan, result: InvalidationResult) -> str:
    """A result as markdown."""
    rows = {
        "UDF id": result.udf_id or "not looked up, because there was nothing to send",
        "Real-time instance": ", ".join(result.client_ids) or result.client_id,
        "Tiles": "the whole UDF" if result.tiles_invalidated is None else f"{result.tiles_invalidated:,}",
        "By an earlier call": f"{result.tiles_already_done:,}" if result.tiles_already_done else None,
        "Cached objects deleted": None if result.objects_deleted is None else f"{result.objects_deleted:,}",
        "Requests": f"{result.requests_sent:,}" + (f", {result.retries:,} of them retries" if result.retries else ""),
        "Seconds": f"{result.elapsed_seconds:,.2f}",
        "Verified": result.verification and str(result.verification).removeprefix("verified: "),
        "Refreshed": result.refresh and str(result.refresh).removeprefix("refreshed: "),
        "Zooms left stale": ", ".join(map(str, result.zooms_left_stale)) or None,
        "Related UDFs": f"{len(result.related):,}" if result.related else None,
        "Inner caches deleted": ", ".join(result.inner_caches) or None,
        "Open maps": result.announcement and str(result.announcement),
        "Second pass": result.second_pass,
        "How long it was stale": result.stale_time,
        "Note": result.note,
    }
    sent = bool(result.client_ids) or result.tiles_invalidated != 0
    what = f"# Fused cache of `{shown.replace('`', '')}`{' invalidated' if sent else ': nothing to invalidate'}"
    parts = [what, _table("What", "", rows)]
    if plan.tiles_per_zoom is not None:
        parts.append(_table("Zoom", "Tiles", {str(zoom): f"{count:,}" for zoom, count in plan.tiles_per_zoom.items()}))
    if result.related:
        counts = {udf_id: each.tiles_invalidated for udf_id, each in result.related.items()}
        parts.append(_table("Related UDF", "Tiles", {name: "all" if n is None else f"{n:,}" for name, n in counts.items()}))
    if result.warnings:
        parts.append("\n".join(["The map may stay stale all the same:", "", *(f"- {each}" for each in result.warnings)]))
    if (plan.tile_count or 0) > DEFAULT_MAX_TILES:
        parts.append(f"More than {DEFAULT_MAX_TILES:,} tiles: not drawn.")
    else:
        picture = plan.to_svg().encode()
        if 0 < len(picture) <= _LARGEST_PICTURE:
            parts.append(f"![The tiles on a map](data:image/svg+xml;base64,{base64.b64encode(picture).decode()})")
    return "\n\n".join(parts)


def artifact_key(shown: str) -> str:
    """An artifact's key, in lowercase letters, digits and dashes. Its versions are the invalidations of one UDF."""
    return f"fused-cache-{re.sub('[^a-z0-9]+', '-', shown.lower()).strip('-') or 'udf'}"


def _table(left: str, right: str, rows: dict[str, Any]) -> str:
    cells = {name: str(value).replace("|", "\\|") for name, value in rows.items() if value is not None}
    return "\n".join([f"| {left} | {right} |", "| :-- | --: |", *(f"| {name} | {cell} |" for name, cell in cells.items())])


def _create(api: Any, run: Run, **fields: Any) -> UUID:
    request = ArtifactCreate(flow_run_id=run.flow_run_id, task_run_id=run.task_run_id, **fields)
    created: UUID = api.create_artifact(request).id
    return created
