"""The index of an H3 table, and its runs, as the service describes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from fused_cache_ops.errors import NotFoundError, UnexpectedResponseError
from fused_cache_ops.keywords.moment import parse_moment
from fused_cache_ops.secret import Secret
from fused_cache_ops.udf_reference import checked_identifier
from fused_cache_ops.wording import one_line, quoted_address, shortened, without_any_credentials

if TYPE_CHECKING:
    from fused_cache_ops.service.retry import Retrier
    from fused_cache_ops.service.service import Service


class IndexState(NamedTuple):
    """The state of an index.

    Attributes:
        status: ``queued``, ``indexing``, ``ready``, ``failed``, or whatever else the service says.
        is_running: whether a run is queued or going.
        indexed_as_of: until when what was written is in it. None: it was never made.
        failures: why files could not be indexed, in a few words.
    """

    status: str
    is_running: bool
    indexed_as_of: datetime | None
    failures: str


class IndexRun(NamedTuple):
    """A run of an index: its id, ``pending``, ``running``, ``succeeded`` or ``failed``, and its error."""

    id: str
    status: str
    error: str


def read_index(service: Service, path: str, *, retrier: Retrier) -> IndexState | None:
    """The state of a table's index, in one request. None: there is none, and no run either.

    Raises:
        UnexpectedResponseError: the answer is malformed.
        FusedCacheError: the lookup failed.
    """
    what = f"looking up the index of {quoted_address(path)}"
    try:
        query = f"?{urlencode({'path': path})}"
        found = service.read(("h3", "index"), what=what, retrier=retrier, query=query, secret=Secret(path))
    except NotFoundError:
        return None
    said = found.get("status") if isinstance(found, dict) else None
    moment = found.get("indexed_as_of") if isinstance(found, dict) else None
    if not isinstance(said, str) or not (moment is None or isinstance(moment, str)):
        raise _malformed(what)
    try:
        as_of = None if moment is None else parse_moment(moment)
    except ValueError:
        raise _malformed(what) from None
    if as_of is not None and as_of.tzinfo is None:  # the service's times are in UTC
        as_of = parse_moment(f"{moment}Z")
    return IndexState(one_line(said), bool(found.get("indexing")), as_of, _failures(found.get("failures")))


def start_index(service: Service, path: str, prefix: tuple[str, ...], *, retrier: Retrier) -> IndexRun | None:
    """Start a run of a table's index. None: one is going already, which this request may have started before it was retried.

    Raises:
        FusedCacheError: it could not be started.
    """
    what = f"running the index of {quoted_address(path)}"
    args: dict[str, Any] = {"path": path}
    if prefix:
        args["prefix"] = list(prefix) if len(prefix) > 1 else prefix[0]
    body = {"task": "h3.index", "args": args, "engine": "realtime"}
    try:
        found = service.send(
            "POST", ("tasks", "run"), what=what, retrier=retrier, body=json.dumps(body).encode(), secret=Secret(path)
        )
    except UnexpectedResponseError as error:
        if error.status == 409:
            return None
        raise
    return _run(found, what)


def read_run(service: Service, run_id: str, *, retrier: Retrier) -> IndexRun:
    """A run of an index, in one request.

    Raises:
        FusedCacheError: the lookup failed.
    """
    what = f"looking up the run {run_id} of an index"
    return _run(service.read(("tasks", run_id), what=what, retrier=retrier), what)


def _run(found: Any, what: str) -> IndexRun:
    if not isinstance(found, Mapping) or not isinstance(found.get("id"), str) or not isinstance(found.get("status"), str):
        raise _malformed(what)
    run_id = checked_identifier(found["id"], "the id of a run in the service's response", UnexpectedResponseError)
    return IndexRun(run_id, one_line(found["status"]), _plain(found.get("error") or "", 300))


def _failures(found: Any) -> str:
    if not isinstance(found, list) or not found:
        return ""
    first = found[0].get("error") if isinstance(found[0], dict) else found[0]
    more = f" (and {len(found) - 1:,} more)" if len(found) > 1 else ""
    return f"{_plain(first, 200)}{more}"


def _plain(text: Any, most: int) -> str:
    """A text of the service that names files, on one line and without credentials."""
    return shortened(without_any_credentials(one_line(str(text)[:4000])), most)


def _malformed(what: str) -> UnexpectedResponseError:
    return UnexpectedResponseError(f"Failed {what}: the service's answer is malformed: is base_url right?")
