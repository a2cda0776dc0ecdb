"""What was loaded since a map was last invalidated, from the events of Airflow's assets."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow_provider_fused._compat import get_current_context

KEY = "fused_loads_until"
"""In the extra of the map's event: for each table, when the last load that it covers was reported."""

_SETTLES = timedelta(seconds=10)
"""An event can be read only a moment after its timestamp. Loads this close to the last known one are taken again."""

_LOOKED_AT = 100
"""Events of the map, the newest first. Other tasks may have written some of them."""


def loads_since_invalidation(table: Any, cache: Any) -> list[dict[str, Any]]:
    """What the events of a table's asset say, since the map's asset was last updated. For a task with
    ``inlets=[table, cache]`` and ``outlets=[cache]``, and without ``again_after``: after the wait, what is covered is no longer
    known, and the next run takes the same loads again.

    The events that triggered the run are not always all. Airflow 3.3.2 gives a run the events up to the moment when it was
    queued. One that arrives between that moment and the start of the run belongs to no run until the next event (seen with
    mapped loads; apache/airflow#56050). A run that failed has invalidated nothing either, and its events are not repeated.

    Args:
        table: the asset that loads update.
        cache: the asset that stands for the map. Its event records what was covered, once the task has succeeded.

    Returns:
        The extra of each event, oldest first; of a watcher's event its payload. If the map was never invalidated, of all events
        that Airflow still has.
    """
    context = get_current_context()
    name = getattr(table, "name", None) or str(table.uri)
    until = next((extra[KEY][name] for extra in _newest_first(context, cache) if name in (extra.get(KEY) or {})), None)
    since = None if until is None else datetime.fromisoformat(until) - _SETTLES
    events = context["inlet_events"][table]
    if since is not None and hasattr(events, "after"):
        events = events.after(since.isoformat())
    found = [event for event in events if since is None or event.timestamp >= since]
    reported = max((event.timestamp.isoformat() for event in found), default=until, key=datetime.fromisoformat)
    if reported is not None:
        covered: Any = context["outlet_events"][cache].extra
        covered[KEY] = {**covered.get(KEY, {}), name: max(filter(None, (until, reported)), key=datetime.fromisoformat)}
    extras: list[dict[str, Any]] = [dict(event.extra or {}) for event in found]
    return [extra["payload"] if extra.get("from_trigger") else extra for extra in extras]


def _newest_first(context: Any, cache: Any) -> list[dict[str, Any]]:
    events = context["inlet_events"][cache]
    if hasattr(events, "limit"):
        return [dict(event.extra or {}) for event in events.ascending(False).limit(_LOOKED_AT)]
    return [dict(event.extra or {}) for event in list(events)[: -_LOOKED_AT - 1 : -1]]
