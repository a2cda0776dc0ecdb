"""What was loaded since a map was last invalidated, from the events of Airflow's assets."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from airflow_provider_fused._compat import get_current_context
from fused_cache_ops import InvalidInputError
from fused_cache_ops.integration import quoted_address, read_rendered

KEY = "fused_loads_until"
"""In the extra of the map's event: for each table, when the last load that it covers was reported."""

_SETTLES = timedelta(seconds=10)
"""An event can be read only a moment after its timestamp. Loads this close to the last known one are taken again."""

_LOOKED_AT = 100
"""Events of the map, the newest first. Other tasks may have written some of them."""


def loads_since_invalidation(table: Any, cache: Any) -> list[dict[str, Any]]:
    """What the events of a table's asset say, since the map's asset was last updated. For a task with
    ``inlets=[table, cache]`` and ``outlets=[cache]``.

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
    return _loads_since(get_current_context(), table, cache)


def tiles_from_events(
    context: Any, task: Any, key: Any, is_wanted: Callable[[Any], bool] | None = None
) -> tuple[list[Any], bool]:
    """The tiles that asset events name: those of the tables among the inlets since the map's asset, which is both an inlet and
    an outlet, was last updated. Without such an asset, those of the events that triggered the run.

    Args:
        context: the task's context.
        task: the task.
        key: the key of the events' extra.
        is_wanted: which assets to look at. Then, only the events that triggered the run are.

    Returns:
        The tiles, and whether the same events will be read again after a wait.

    Raises:
        InvalidInputError: there are no events, or one of them does not say what it changed.
    """
    if not isinstance(key, str) or not key.strip():
        raise InvalidInputError(f"tiles_from_events is {key!r}: pass a key of the events' extra, such as 'tiles'.")
    inlets = [each for each in task.inlets or () if hasattr(each, "uri")]
    maps = [each for each in inlets if each in (task.outlets or ())]
    tables = [each for each in inlets if each not in maps]
    since = is_wanted is None and maps and tables
    if since:
        loads = [(table, extra) for table in tables for extra in _loads_since(context, table, maps[0])]
    else:
        loads = list(_triggering(context, is_wanted))
        if not loads:
            raise InvalidInputError(
                "No asset event triggered this run, so nothing says what changed: pass tiles=, or let an event start the DAG. "
                "With inlets=[TABLE, MAP] and outlets=[MAP], a run without new events sends nothing."
            )
    return [tile for table, extra in loads for tile in _tiles_in(extra, key, table)], not since


def _tiles_in(extra: dict[str, Any], key: str, table: Any) -> list[Any]:
    found = extra.get(key)
    if isinstance(found, str):
        with contextlib.suppress(InvalidInputError):  # the message below names the event
            found = read_rendered({"tiles": found})["tiles"]
    if not isinstance(found, (list, tuple)):
        raise InvalidInputError(
            f"An event of {quoted_address(_name(table))} has no list of tiles under {key!r}, so it does not say "
            f"what the load changed: let the load add it, as in Metadata(table, {{{key!r}: tiles}}). Nothing was invalidated."
        )
    return list(found)


def _triggering(context: Any, is_wanted: Callable[[Any], bool] | None) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The events that triggered a run. An alias has those of its assets once more."""
    found = context.get("triggering_asset_events") or context.get("triggering_dataset_events") or {}
    for asset in found:
        is_of_asset = hasattr(asset, "uri") or isinstance(asset, str)  # the address, in Airflow 2
        if is_of_asset and (is_wanted is None or is_wanted(asset)):
            yield from ((asset, _said(event)) for event in found[asset])


def _said(event: Any) -> dict[str, Any]:
    """The extra of an event, or of a watcher's event its payload: a mapping, or its JSON, as message queues hand it out.
    Another payload says nothing."""
    extra: dict[str, Any] = dict(event.extra or {})
    if not extra.get("from_trigger"):
        return extra
    payload = extra.get("payload")
    if isinstance(payload, (str, bytes)):
        with contextlib.suppress(ValueError, RecursionError):
            payload = json.loads(payload)
    return dict(payload) if isinstance(payload, Mapping) else {}


def _loads_since(context: Any, table: Any, cache: Any) -> list[dict[str, Any]]:
    name = _name(table)
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
    return [_said(event) for event in found]


def _newest_first(context: Any, cache: Any) -> list[dict[str, Any]]:
    events = context["inlet_events"][cache]
    if hasattr(events, "limit"):
        return [dict(event.extra or {}) for event in events.ascending(False).limit(_LOOKED_AT)]
    return [dict(event.extra or {}) for event in list(events)[: -_LOOKED_AT - 1 : -1]]


def _name(asset: Any) -> str:
    return str(getattr(asset, "name", None) or getattr(asset, "uri", asset))
