"""What could keep the map of one UDF stale although an invalidation succeeded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fused_cache_ops.errors import ConfigurationError, NotFoundError, PermissionDeniedError
from fused_cache_ops.lineage.graph import CallGraph, Direction
from fused_cache_ops.service.canvases import Canvas, UdfRecord, read_canvas, read_udf
from fused_cache_ops.udf_reference import UdfReference
from fused_cache_ops.wording import counted

if TYPE_CHECKING:
    from fused_cache_ops.service.retry import Retrier
    from fused_cache_ops.service.service import Service


@dataclass(frozen=True)
class RelatedUdf:
    """A UDF that calls the inspected one, or is called by it, directly or through others.

    Attributes:
        id: its id.
        name: its name in the canvas. None: the service did not return it.
        level: the longest way from the inspected UDF, in calls. 1: direct.
        cache_max_age: seconds that its results are kept. None: not set or not known.
    """

    id: str
    name: str | None
    level: int
    cache_max_age: int | None


@dataclass(frozen=True)
class InnerCache:
    """A cache inside a UDF that no invalidation reaches.

    Attributes:
        udf: the UDF's name, or its id if it has none.
        kind: ``@fused.cache``, or ``fused.submit``, ``udf.map`` or ``udf.map_async``, which keep results on the caller's side.
        function: the function that is cached, or that contains the call. ``<module>`` outside of any.
        line: where it stands in the UDF's code, from 1.
        max_age: seconds that a result is kept. None: not given (Fused's default is 48 hours) or not a constant.
    """

    udf: str
    kind: str
    function: str
    line: int
    max_age: int | None


@dataclass(frozen=True)
class UnknownPart:
    """Something that could not be found out.

    Attributes:
        udf: the name or id of the UDF whose code it is about. None: not about code.
        line: the line of that code, from 1. None: not about one line.
        reason: what is not known, and why.
    """

    udf: str | None
    line: int | None
    reason: str

    def __str__(self) -> str:
        return f"{_place(self.udf, self.line)}{self.reason}"


@dataclass(frozen=True)
class OutsideName:
    """A UDF outside of the canvas that a UDF's code loads or runs. It is never invalidated along.

    Attributes:
        udf: the name or id of the UDF whose code names it.
        line: the line of that code, from 1.
        name: the name as written there. Tokens are masked.
        reason: where it leads.
    """

    udf: str
    line: int
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{_place(self.udf, self.line)}{self.name} ({self.reason})"


@dataclass(frozen=True)
class UdfReport:
    """What could keep the map of a UDF stale. Whatever could not be found out is None or empty, and named in `unknown`.

    Attributes:
        udf_id: the UDF's id.
        name: its name in the canvas.
        canvas: the name of its canvas.
        client_id: the real-time instance that is invalidated: the configured one, otherwise the service's preferred one.
        share_client_id: the instance that the canvas's shared UDFs run on, and so a map's.
        access_scope: who may run the canvas's shared UDFs: ``"public"`` or ``"team"``.
        cache_max_age: seconds that the UDF's results are kept. None: not set (Fused keeps them 14 days) or not known.
        callers: the UDFs of the canvas that call it, directly or through others, in the order of invalidation. Each keeps
            results of its own. None: the canvas could not be read.
        callees: the UDFs of the canvas that it calls, directly or through others, in the order of invalidation.
        inner_caches: caches in the code of the UDF and its relatives that no invalidation reaches.
        unknown: what could not be found out: names made at run time, code that cannot be parsed, what the token may not see.
        outside: what the UDF and its relatives call outside of the canvas.
    """

    udf_id: str
    name: str | None
    canvas: str | None
    client_id: str | None
    share_client_id: str | None
    access_scope: str | None
    cache_max_age: int | None
    callers: tuple[RelatedUdf, ...] | None
    callees: tuple[RelatedUdf, ...] | None
    inner_caches: tuple[InnerCache, ...]
    unknown: tuple[UnknownPart, ...]
    outside: tuple[OutsideName, ...]

    @property
    def instances_differ(self) -> bool | None:
        """Whether maps read from another instance than the one that is invalidated. None: not known."""
        return None if None in (self.client_id, self.share_client_id) else self.client_id != self.share_client_id

    def to_dict(self) -> dict[str, Any]:
        """The fields, and `instances_differ`, as a dict of JSON types."""
        fields = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return fields | {"instances_differ": self.instances_differ}

    def __str__(self) -> str:
        return f"UDF {self.name or self.udf_id}: {', '.join(self._findings()) or 'nothing found that could keep its map stale'}"

    def _findings(self) -> Iterator[str]:
        if self.callers:
            yield counted(len(self.callers), "caller")
        if self.callees:
            yield counted(len(self.callees), "callee")
        if self.instances_differ:
            yield f"maps run on {self.share_client_id}, {self.client_id} is invalidated"
        if self.inner_caches:
            yield counted(len(self.inner_caches), "inner cache")
        if self.outside:
            yield f"{counted(len(self.outside), 'call')} out of the canvas"
        if self.unknown:
            yield f"{counted(len(self.unknown), 'thing')} not known"


def inspect_udf(service: Service, retrier: Retrier, reference: UdfReference) -> UdfReport:
    """Look up a UDF, its canvas and the instances, and report what could keep its map stale. Three requests, and no change.

    Raises:
        NotFoundError: the UDF does not exist, or this token may not see it.
        FusedCacheError: a lookup failed for another reason than a lack of permission.
    """
    udf = read_udf(service, reference, retrier=retrier)
    unknown: list[UnknownPart] = []
    canvas = _canvas(service, retrier, udf, unknown)
    client_id = _client_id(service, retrier, unknown)
    graph = CallGraph(canvas or Canvas(udf.canvas_id or "", udf.canvas_name), [udf])
    own = udf.id.lower()
    is_listed = canvas is not None and canvas.udfs is not None
    callees = tuple(sorted(_related(graph, own, "callees"), key=lambda each: -each.level))
    callers = _related(graph, own, "callers")
    family = [graph.nodes[each] for each in dict.fromkeys([own, *(each.id.lower() for each in (*callees, *callers))])]
    # A UDF of which something is not known may be a caller too.
    everyone = dict.fromkeys([*family, *graph.nodes.values()])
    unknown += [UnknownPart(_name(each.udf), each.line, each.reason) for node in everyone for each in node.unknown]
    return UdfReport(
        udf_id=udf.id,
        name=udf.name,
        canvas=(canvas.name if canvas else None) or udf.canvas_name,
        client_id=client_id,
        share_client_id=canvas.share_client_id if canvas else None,
        access_scope=canvas.access_scope if canvas else None,
        cache_max_age=graph.nodes[own].max_age,
        callers=callers if is_listed else None,
        callees=callees if is_listed else None,
        inner_caches=tuple(
            InnerCache(_name(node.udf), cache.kind, cache.function, cache.line, cache.max_age)
            for node in family
            for cache in node.reading.caches
        ),
        unknown=tuple(unknown),
        outside=tuple(
            OutsideName(_name(call.udf), call.line, call.name, call.reason) for node in family for call in node.outside
        ),
    )


def _canvas(service: Service, retrier: Retrier, udf: UdfRecord, unknown: list[UnknownPart]) -> Canvas | None:
    """The UDF's canvas, or None if this token may not read it."""
    lacking = "so access, callers, callees and the instance of its maps are not known"
    if udf.canvas_id is None:
        unknown.append(UnknownPart(None, None, f"The service does not say which canvas the UDF is in, {lacking}"))
        return None
    try:
        canvas = read_canvas(service, udf.canvas_id, retrier=retrier)
    except (NotFoundError, PermissionDeniedError) as error:
        shown = udf.canvas_name or udf.canvas_id
        unknown.append(UnknownPart(None, None, f"This token may not read the canvas {shown!r} ({error.status}), {lacking}"))
        return None
    for value, what in (
        (canvas.udfs, "which UDFs are in the canvas"),
        (canvas.share_client_id, "which instance the canvas's shared UDFs run on"),
        (canvas.access_scope, "who may run the canvas's shared UDFs"),
    ):
        if value is None:
            unknown.append(UnknownPart(None, None, f"The service does not say {what}"))
    return canvas


def _client_id(service: Service, retrier: Retrier, unknown: list[UnknownPart]) -> str | None:
    """The instance that is invalidated by default, or None if this token may not look it up, or has none."""
    try:
        return service.resolve_client_id(retrier=retrier)
    except (NotFoundError, PermissionDeniedError) as error:
        unknown.append(UnknownPart(None, None, f"This token may not list real-time instances ({error.status})"))
    except ConfigurationError as error:  # it has none
        unknown.append(UnknownPart(None, None, error.message))
    return None


def _related(graph: CallGraph, udf_id: str, direction: Direction) -> tuple[RelatedUdf, ...]:
    return tuple(
        RelatedUdf(udf.id, udf.name, number, graph.nodes[udf.id.lower()].max_age)
        for number, level in enumerate(graph.levels(udf_id, direction), start=1)
        for udf in level
    )


def _name(udf: UdfRecord) -> str:
    return udf.name or udf.id


def _place(udf: str | None, line: int | None) -> str:
    if udf is None:
        return ""
    return f"{udf}: " if line is None else f"{udf}, line {line}: "
