"""The graph of who calls whom in one canvas, and the order in which relatives are invalidated.

Anyone who may edit a UDF can write ``fused.load("expensive")`` in it. So names are only followed within the canvas, and what
leads out of it is reported.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from fused_cache_ops.code.calls import LoadedName, SourceReading, read_source, shown_name
from fused_cache_ops.code.scopes import Unknown
from fused_cache_ops.keywords.values import Related
from fused_cache_ops.secret import Secret, canvas_token, is_shared_token
from fused_cache_ops.service.canvases import Canvas, UdfRecord

Direction = Literal["callers", "callees"]


class OutsideCall(NamedTuple):
    """A name that leads, or may lead, out of the canvas. There, it is never followed.

    Attributes:
        udf: the UDF whose code contains it.
        name: the name as written there. Tokens are masked.
        reason: where it leads.
        line: where it stands, from 1.
        is_library: whether it is a library on GitHub, pinned by commit, of which only functions are called.
    """

    udf: UdfRecord
    name: str
    reason: str
    line: int
    is_library: bool = False


class UnknownCall(NamedTuple):
    """Something that cannot be known from the code of a UDF.

    Attributes:
        udf: the UDF.
        reason: what, and why.
        line: where it stands, from 1. None: the whole code.
        may_call: whether it may be a call of any UDF of the canvas.
    """

    udf: UdfRecord
    reason: str
    line: int | None
    may_call: bool = True


@dataclass(frozen=True)
class Node:
    """One UDF of the graph: its record, what its code says, and the ids of the UDFs that it calls."""

    udf: UdfRecord
    reading: SourceReading
    callees: frozenset[str]
    outside: tuple[OutsideCall, ...]
    unknown: tuple[UnknownCall, ...]

    @property
    def max_age(self) -> int | None:
        """Seconds that results are kept: the record's, otherwise the decorator's. None: neither is given or known."""
        return self.reading.max_age if self.udf.max_age is None else self.udf.max_age


class CallGraph:
    """Who calls whom in one canvas.

    Args:
        canvas: the canvas and its UDFs.
        udfs: more UDFs that belong to it, if its list may lack some.
        tokens: shared tokens that are known, each with the id of its UDF.
        is_late: whether no more time may be spent. The code of the UDFs that are left is then not read, and said to be unknown.
    """

    def __init__(
        self,
        canvas: Canvas,
        udfs: Iterable[UdfRecord] = (),
        tokens: Iterable[tuple[Secret, str]] = (),
        is_late: Callable[[], bool] = lambda: False,
    ) -> None:
        records = {udf.id.lower(): udf for udf in (*udfs, *(canvas.udfs or ()))}
        place = _Place(canvas, records, tokens)
        self.nodes: Mapping[str, Node] = {
            udf_id: place.node(udf, _NO_TIME if is_late() else read_source(udf.code, udf.entrypoint))
            for udf_id, udf in records.items()
        }

    def levels(self, udf_id: str, direction: Direction) -> tuple[tuple[UdfRecord, ...], ...]:
        """The callers or callees of a UDF, with theirs and so on, by level. Level 1 comes first.

        A level is the longest way from the UDF. So if one relative calls another, the other is nearer to the end of the calls:
        callees are invalidated from the last level to the first, callers from the first to the last. UDFs that call one another
        in a circle have the same level. The UDF is never its own relative.
        """
        own = udf_id.lower()
        edges = {each: node.callees for each, node in self.nodes.items()}
        steps = edges if direction == "callees" else _reversed(edges)
        return tuple(
            tuple(sorted((self.nodes[each].udf for each in level), key=lambda udf: (udf.name or "", udf.id)))
            for level in _levels(own, steps)
        )

    def in_order(self, udf_id: str, related: Related) -> tuple[tuple[UdfRecord, ...], ...]:
        """The levels in the order of invalidation: callees first, then the UDF itself, then its callers.

        A UDF that is both a callee and a caller counts as a callee.
        """
        own = self.nodes[udf_id.lower()].udf
        callees = self.levels(udf_id, "callees") if related != "callers" else ()
        callers = self.levels(udf_id, "callers") if related != "callees" else ()
        seen = {udf.id for level in callees for udf in level}
        rest = (tuple(udf for udf in level if udf.id not in seen) for level in callers)
        return (*reversed(callees), (own,), *(level for level in rest if level))


_NO_TIME = SourceReading(unknown=(Unknown("the deadline left no time to read the code", None),))


class _Place:
    """Resolves names as Fused's SDK does for code that runs in this canvas."""

    def __init__(self, canvas: Canvas, records: Mapping[str, UdfRecord], tokens: Iterable[tuple[Secret, str]]) -> None:
        self._records = records
        self._tokens = list(tokens)
        self._share_token = canvas.share_token
        self._is_listed = canvas.udfs is not None
        self._canvas = next(filter(None, (canvas.name, *(udf.canvas_name for udf in records.values()))), None)
        self._owner = canvas.username
        self._by_name: dict[str, set[str]] = {}
        for udf_id, udf in records.items():
            if udf.name is not None:
                self._by_name.setdefault(udf.name, set()).add(udf_id)

    def node(self, udf: UdfRecord, reading: SourceReading) -> Node:
        callees: set[str] = set()
        outside: list[OutsideCall] = []
        unknown = [UnknownCall(udf, each.reason, each.line) for each in reading.unknown]
        if reading.unknown_age is not None and udf.max_age is None:
            unknown.append(UnknownCall(udf, reading.unknown_age.reason, reading.unknown_age.line, may_call=False))
        if udf.modules:
            unknown.append(UnknownCall(udf, f"the modules saved with it are not read: {', '.join(udf.modules)}", None))
        for load in reading.loads:
            found, leads, missing = self._resolve(load)
            callees |= found
            if leads:
                outside.append(OutsideCall(udf, shown_name(load), leads, load.line, load.is_library))
            if missing and not (load.is_default and missing == _NOT_HERE):  # that others are possible is said already
                unknown.append(UnknownCall(udf, f"{shown_name(load)} {missing}", load.line, may_call=missing == _UNLISTED))
        return Node(udf, reading, frozenset(callees), tuple(outside), tuple(unknown))

    def _resolve(self, load: LoadedName) -> _Resolution:
        if isinstance(load.name, Secret):
            return self._by_token(load.name)
        if load.name.endswith((".py", ".zip")):
            return _Resolution(leads="a file")
        owner, slash, name = load.name.partition("/")
        if not slash:
            udf_id = _uuid(load.name)
            if udf_id is None:
                return self._in_canvas(load.name, load.canvas)
            if udf_id in self._records:
                return _Resolution({udf_id})
            return _Resolution(leads="the id of a UDF of another canvas") if self._is_listed else _Resolution(missing=_UNLISTED)
        if owner == "team":
            if self._canvas == "default" and name in self._by_name:
                # Whether a canvas belongs to the team or to a user is not told. Following it stays within the canvas.
                return _Resolution(self._by_name[name], leads="the team's canvas 'default', which may be this one")
            return _Resolution(leads="the team's canvas 'default'")
        if owner == "public":
            return _Resolution(leads="a public UDF")
        if self._owner is not None and owner.removeprefix("@") == self._owner:
            return self._in_canvas(name, load.canvas)
        if owner == self._canvas and not self._is_listed:
            return _Resolution(missing=_UNLISTED)
        if owner == self._canvas and name in self._by_name:
            # The SDK takes it for the handle of a user, the authors of pipelines for the canvas.
            return _Resolution(self._by_name[name], leads=f"a user named {owner!r}, or this canvas")
        return _Resolution(leads=f"another canvas, or the user {owner!r}")

    def _by_token(self, token: Secret) -> _Resolution:
        """By a token that is known, or by the name of this canvas: ``fc_<token>/<udf>``, ``fc_<team>/<canvas>/<udf>``."""
        text = token.reveal().strip()
        known = {udf_id for each, udf_id in self._tokens if each.reveal().strip() == text and udf_id in self._records}
        if known:
            return _Resolution(known)
        shared = canvas_token(text)
        name = text.removeprefix(shared or "").lstrip("/-")
        if shared is None or name not in self._by_name:
            return _Resolution(leads=_kind(token))
        if self._share_token is not None and self._share_token.reveal().strip() == shared:
            return _Resolution(self._by_name[name])
        if self._canvas is not None and shared.partition("/")[2] == self._canvas:
            return _Resolution(self._by_name[name], leads="a shared canvas, which may be this one")
        return _Resolution(leads=_kind(token))

    def _in_canvas(self, name: str, canvas: str | None) -> _Resolution:
        if canvas is not None and canvas != self._canvas:
            if self._canvas is None:
                return _Resolution(missing=f"is in the canvas {canvas!r}: whether that is this one is not known")
            return _Resolution(leads=f"the canvas {canvas!r}")
        if name in self._by_name:
            return _Resolution(self._by_name[name])
        return _Resolution(missing=_NOT_HERE if self._is_listed else _UNLISTED)


_NOT_HERE = "is not the name of a UDF of this canvas"
_UNLISTED = "cannot be looked up, because the UDFs of the canvas could not be read"


class _Resolution(NamedTuple):
    """The UDFs of the canvas that a name stands for, where else it leads, and what is not known of it."""

    found: set[str] = set()  # noqa: RUF012 - never changed
    leads: str | None = None
    missing: str | None = None


def _kind(name: Secret) -> str:
    if is_shared_token(name.reveal()):
        return "a shared token"
    return "code on GitHub" if name.reveal().startswith("https://github.com") else "an address"


def _uuid(text: str) -> str | None:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


def _reversed(edges: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {each: set() for each in edges}
    for caller, callees in edges.items():
        for callee in callees:
            found[callee].add(caller)
    return found


def _levels(start: str, steps: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """What can be reached from a start, without it, by the longest way there. Circles count as one step."""
    reached = _reached(start, steps, without=start)
    within = {each: [next_ for next_ in steps[each] if next_ in reached] for each in reached}
    level = dict.fromkeys(reached, 1)
    for circle in _circles(within):  # each before those that it leads to
        members = set(circle)
        deepest = max(level[each] for each in circle)
        for each in circle:
            level[each] = deepest
            for next_ in within[each]:
                if next_ not in members:
                    level[next_] = max(level[next_], deepest + 1)
    levels: list[list[str]] = [[] for _ in range(max(level.values(), default=0))]
    for each, number in level.items():
        levels[number - 1].append(each)
    return levels


def _reached(start: str, steps: Mapping[str, Iterable[str]], *, without: str) -> set[str]:
    reached: set[str] = set()
    ahead = [start]
    while ahead:
        for each in steps[ahead.pop()]:
            if each != without and each not in reached:
                reached.add(each)
                ahead.append(each)
    return reached


def _circles(steps: Mapping[str, Iterable[str]]) -> Iterator[list[str]]:
    """The strongly connected components, each before those that it leads to (Kosaraju's algorithm, without recursion)."""
    finished: list[str] = []
    seen: set[str] = set()
    for root in steps:
        if root in seen:
            continue
        seen.add(root)
        path = [(root, iter(steps[root]))]
        while path:
            each, ahead = path[-1]
            next_ = next((one for one in ahead if one not in seen), None)
            if next_ is None:
                finished.append(each)
                path.pop()
            else:
                seen.add(next_)
                path.append((next_, iter(steps[next_])))
    back = _reversed(steps)
    assigned: set[str] = set()
    for root in reversed(finished):
        if root in assigned:
            continue
        circle, ahead_of = [], [root]
        assigned.add(root)
        while ahead_of:
            each_ = ahead_of.pop()
            circle.append(each_)
            for previous in back[each_]:
                if previous not in assigned:
                    assigned.add(previous)
                    ahead_of.append(previous)
        yield circle
