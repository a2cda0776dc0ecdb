"""What could keep the map of one UDF stale although an invalidation succeeded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from fused_cache_ops.errors import InvalidRequestError, NotFoundError, PermissionDeniedError, UnexpectedResponseError
from fused_cache_ops.keywords.inner_caches import OWN, SHARED_FOLDER
from fused_cache_ops.keywords.values import Related
from fused_cache_ops.lineage.graph import CallGraph, Direction
from fused_cache_ops.lineage.lookup import Lookup, UnknownPart, look_up_everything, place
from fused_cache_ops.secret import Secret
from fused_cache_ops.service.canvases import Canvas, UdfRecord
from fused_cache_ops.service.h3 import read_index
from fused_cache_ops.udf_reference import UdfReference
from fused_cache_ops.wording import counted, without_any_credentials

if TYPE_CHECKING:
    from fused_cache_ops.service.retry import Retrier
    from fused_cache_ops.service.service import Service

_SHOWN = 5
_MOST_INDEXES = 10


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
    """A cache inside a UDF, which keeps its results when the UDF is invalidated. ``inner_caches`` deletes a folder's.

    Attributes:
        udf: the UDF's name, or its id if it has none.
        kind: ``@fused.cache``, or ``fused.submit``, ``udf.map`` or ``udf.map_async``, which keep results on the caller's side.
        function: the function that is cached, or that contains the call. ``<module>`` outside of any. A function of a public
            library is named with it: ``common.read_tiff``.
        line: where it stands in the UDF's code, from 1.
        max_age: seconds that a result is kept. None: not given (Fused's default is 48 hours) or not a constant.
        folder: its ``cache_folder_path``. Fused's default is ``tmp``, which all functions of a team share. None: not a
            constant, or not on the drive.
        is_own: whether the code itself names the folder, so that ``inner_caches="own"`` deletes it.
    """

    udf: str
    kind: str
    function: str
    line: int
    max_age: int | None
    folder: str | None = None
    is_own: bool = False

    def __str__(self) -> str:
        kept = "48h unless set otherwise" if self.max_age is None else f"{self.max_age:,} s"
        where = "" if self.folder is None else f", folder {self.folder!r}"
        return f"{self.function} (line {self.line}{where}, {kept})"


@dataclass(frozen=True)
class OutsideName:
    """A UDF or library outside of the canvas that a UDF's code loads or runs. It is never invalidated along.

    Attributes:
        udf: the name or id of the UDF whose code names it.
        line: the line of that code, from 1.
        name: the name as written there. Tokens are masked.
        reason: where it leads.
        is_library: whether it is a library on GitHub, pinned by commit, of which only functions are called.
    """

    udf: str
    line: int
    name: str
    reason: str
    is_library: bool = False

    def __str__(self) -> str:
        return f"{place(self.udf, self.line)}{self.name} ({self.reason})"


@dataclass(frozen=True)
class H3Table:
    """An H3 table that a UDF queries, and the state of its index, without which new rows are not found.

    Attributes:
        udf: the UDF's name, or its id if it has none.
        line: where it is queried, from 1.
        path: the table's path. Credentials in it are masked.
        status: ``"ready"``, ``"indexing"``, ``"queued"``, ``"failed"``, or ``"not indexed"``. None: not looked up.
        indexed_as_of: until when what was written is in the index, in ISO format. None: nothing is, or it is not known.
        is_running: whether a run of the index is queued or going.
    """

    udf: str
    line: int
    path: str
    status: str | None = None
    indexed_as_of: str | None = None
    is_running: bool = False

    def __str__(self) -> str:
        state = "state not known" if self.status is None else self.status
        as_of = "" if self.indexed_as_of is None else f", has what was written until {self.indexed_as_of}"
        running = ", a run is going" if self.is_running else ""
        return f"{place(self.udf, self.line)}{self.path} ({state}{as_of}{running})"


@dataclass(frozen=True)
class TileLayer:
    """A layer of a map with ``tile: true``. It may ask for the UDF by ``bounds`` in a plain run, which no tile stands for.

    Attributes:
        udf: the name or id of the UDF or map whose code has the layer.
        line: where the layer begins, from 1.
        drawn: the name of the UDF that it draws.
    """

    udf: str
    line: int
    drawn: str

    def __str__(self) -> str:
        return f"{place(self.udf, self.line)}draws {self.drawn}"


@dataclass(frozen=True)
class UdfReport:
    """What could keep the map of a UDF stale. Whatever could not be found out is None or empty, and named in `unknown`.

    Attributes:
        udf_id: the UDF's id.
        name: its name in the canvas.
        canvas: the name of its canvas.
        client_ids: the real-time instances that an invalidation reaches, the preferred one first: the configured ones,
            otherwise the service's preferred one and the one that the canvas's shared UDFs run on.
        share_client_id: the instance that the canvas's shared UDFs run on, and so a map's.
        access_scope: who may run the canvas's shared UDFs: ``"public"`` or ``"team"``.
        cache_max_age: seconds that the UDF's results are kept. None: not set (Fused keeps them 14 days) or not known.
        callers: the UDFs of the canvas that call it, directly or through others, in the order of invalidation. Each keeps
            results of its own. None: the canvas could not be read.
        callees: the UDFs of the canvas that it calls, directly or through others, in the order of invalidation.
        inner_caches: caches in the code of the UDF and its relatives, which keep their results unless ``inner_caches`` deletes
            them.
        unknown: what could not be found out: names made at run time, code that cannot be parsed, what the token may not see.
        outside: what the UDF and its relatives call outside of the canvas.
        h3_tables: the H3 tables that the UDF and its relatives query, each with the state of its index.
        layers: the layers of the canvas's maps that draw the UDF or a relative with ``tile: true``, which an invalidation of
            tiles may not reach.
    """

    udf_id: str
    name: str | None
    canvas: str | None
    client_ids: tuple[str, ...]
    share_client_id: str | None
    access_scope: str | None
    cache_max_age: int | None
    callers: tuple[RelatedUdf, ...] | None
    callees: tuple[RelatedUdf, ...] | None
    inner_caches: tuple[InnerCache, ...]
    unknown: tuple[UnknownPart, ...]
    outside: tuple[OutsideName, ...]
    h3_tables: tuple[H3Table, ...] = ()
    layers: tuple[TileLayer, ...] = ()

    @property
    def map_is_reached(self) -> bool | None:
        """Whether the instance that maps run on is among those that an invalidation reaches. None: not known."""
        return None if self.share_client_id is None or not self.client_ids else self.share_client_id in self.client_ids

    def to_dict(self) -> dict[str, Any]:
        """The fields, and `map_is_reached`, as a dict of JSON types."""
        fields = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return fields | {"map_is_reached": self.map_is_reached}

    def __str__(self) -> str:
        return f"UDF {self.name or self.udf_id}: {', '.join(self._findings()) or 'nothing found that could keep its map stale'}"

    def _findings(self) -> Iterator[str]:
        if self.callers:
            yield counted(len(self.callers), "caller")
        if self.callees:
            yield counted(len(self.callees), "callee")
        if self.map_is_reached is False:
            yield f"maps run on {self.share_client_id}, {', '.join(self.client_ids)} is invalidated"
        if self.inner_caches:
            yield counted(len(self.inner_caches), "inner cache")
        if self.h3_tables:
            yield counted(len({table.path for table in self.h3_tables}), "H3 table")
        if self.layers:
            yield f"{counted(len(self.layers), 'layer')} with tile: true"
        if self.outside:
            yield f"{counted(len(self.outside), 'call')} out of the canvas"
        if self.unknown:
            yield f"{counted(len(self.unknown), 'thing')} not known"


def inspect_udf(service: Service, retrier: Retrier, reference: UdfReference) -> UdfReport:
    """Look up a UDF, its canvas and the instances, and report what could keep its map stale. Three requests, and one for each
    H3 table that is queried, up to ten. No change.

    Raises:
        NotFoundError: the UDF does not exist, or this token may not see it.
        FusedCacheError: a lookup failed for another reason than a lack of permission.
    """
    found = look_up_everything(service, retrier, reference)
    assert found.udf is not None  # noqa: S101 - it raises otherwise
    report = report_on(found.udf, found, graph_of(found.udf, found.canvas, reference.secret, lambda: retrier.left < 0))
    return _with_indexes(report, service, retrier)


def _with_indexes(report: UdfReport, service: Service, retrier: Retrier) -> UdfReport:
    """The report with the states of the H3 tables' indexes, as far as the token may see them."""
    states: dict[str, dict[str, Any]] = {}
    unknown: list[UnknownPart] = []
    for path in dict.fromkeys(table.path for table in report.h3_tables):
        if len(states) + len(unknown) == _MOST_INDEXES:
            break
        try:
            state = read_index(service, path, retrier=retrier)
        except (PermissionDeniedError, NotFoundError, InvalidRequestError, UnexpectedResponseError) as error:
            reason = f"The index of the H3 table {without_any_credentials(path)} cannot be looked up ({error.status})"
            unknown.append(UnknownPart(None, None, reason))
            continue
        as_of = None if state is None or state.indexed_as_of is None else state.indexed_as_of.isoformat()
        states[path] = {
            "status": "not indexed" if state is None else state.status,
            "indexed_as_of": as_of,
            "is_running": state is not None and state.is_running,
        }
    tables = tuple(
        replace(table, path=without_any_credentials(table.path), **states.get(table.path, {})) for table in report.h3_tables
    )
    return replace(report, h3_tables=tables, unknown=(*report.unknown, *unknown))


def report_on(udf: UdfRecord, found: Lookup, graph: CallGraph) -> UdfReport:
    """The report on a UDF, from what was looked up."""
    canvas = found.canvas
    own = udf.id.lower()
    is_listed = canvas is not None and canvas.udfs is not None
    callees = tuple(sorted(_related(graph, own, "callees"), key=lambda each: -each.level))
    callers = _related(graph, own, "callers")
    family = [graph.nodes[each] for each in dict.fromkeys([own, *(each.id.lower() for each in (*callees, *callers))])]
    # A UDF of which something is not known may be a caller too.
    others = [node for each, node in graph.nodes.items() if node not in family]
    parts = [each for node in family for each in node.unknown]
    parts += [each for node in others for each in node.unknown if each.may_call]
    unknown = [UnknownPart(_name(each.udf), each.line, each.reason) for each in parts]
    names = {node.udf.name for node in family} - {None}
    return UdfReport(
        udf_id=udf.id,
        name=udf.name,
        canvas=(canvas.name if canvas else None) or udf.canvas_name,
        client_ids=found.client_ids,
        share_client_id=canvas.share_client_id if canvas else None,
        access_scope=canvas.access_scope if canvas else None,
        cache_max_age=graph.nodes[own].max_age,
        callers=callers if is_listed else None,
        callees=callees if is_listed else None,
        inner_caches=tuple(
            InnerCache(
                _name(node.udf),
                cache.kind,
                cache.function,
                cache.line,
                cache.max_age,
                folder,
                cache.is_of_code and folder not in (None, SHARED_FOLDER),
            )
            for node in family
            for cache in node.reading.caches
            for folder in cache.folders
        ),
        unknown=(*found.unknown, *unknown),
        outside=tuple(
            OutsideName(_name(call.udf), call.line, call.name, call.reason, call.is_library)
            for node in family
            for call in node.outside
        ),
        h3_tables=tuple(H3Table(_name(node.udf), line, path) for node in family for path, line in node.reading.h3_tables),
        layers=tuple(
            TileLayer(_name(node.udf), layer.line, layer.udf.rpartition("/")[2])
            for node in graph.nodes.values()
            for layer in node.reading.layers
            if layer.udf.rpartition("/")[2] in names
        ),
    )


def graph_of(udf: UdfRecord, canvas: Canvas | None, token: Secret | None, is_late: Callable[[], bool]) -> CallGraph:
    """The graph of a UDF's canvas, or of the UDF alone if its canvas was not read.

    Args:
        udf: the UDF.
        canvas: its canvas.
        token: the shared token that the UDF was given by.
        is_late: whether no more time may be spent on reading code.
    """
    tokens = () if token is None else [(token, udf.id.lower())]
    return CallGraph(canvas or Canvas(udf.canvas_id or "", udf.canvas_name), [udf], tokens, is_late)


def warnings_from(
    report: UdfReport, related: Related | None, *, has_tiles: bool = False, deleted: Collection[str] = ()
) -> Iterator[str]:
    """What could keep the map stale although an invalidation succeeded, a sentence each. The most important comes first: what
    is certain before what is possible, and the UDF itself before its relatives.

    Args:
        report: what is known of the UDF.
        related: which relatives are invalidated too.
        has_tiles: whether tiles are selected.
        deleted: the folders of inner caches that are deleted.
    """
    if report.map_is_reached is False:
        yield (
            f"Maps run on instance {report.share_client_id}, which client_id leaves out: omit client_id, or add this instance."
        )
    for relatives, direction in ((report.callers, "callers"), (report.callees, "callees")):
        if relatives and related not in (direction, "both"):
            one = len(relatives) == 1
            effect, more = "may return old results", ""
            if direction == "callers":
                effect = "keeps results of its own" if one else "keep results of their own"
                if has_tiles:
                    more = f" What {'it gets' if one else 'they get'} from this UDF is cached by parameters and not by tiles, "
                    more += "so that it stays old as well."
            yield (
                f"{counted(len(relatives), direction[:-1])} of this UDF {effect} ({_names(relatives)}): pass "
                f"related='{direction}' to invalidate {'it' if one else 'them'} too.{more}"
            )
    if has_tiles:
        for layer in report.layers:
            yield (
                f"{layer} with tile: true, which may ask for it by bounds, without a tile: an invalidation of tiles may not "
                "reach that. Invalidate the UDF whole, or let the layer use tileUrl."
            )
    kept = [cache for cache in report.inner_caches if cache.folder is None or cache.folder not in deleted]
    for udf, kind in dict.fromkeys((cache.udf, cache.kind) for cache in kept):
        caches = [cache for cache in kept if (cache.udf, cache.kind) == (udf, kind)]
        functions = ", ".join(map(str, caches))
        yield f"{udf}: {kind} keeps results when the UDF is invalidated: {functions}. {' '.join(_remedies(caches))}"
    for name in report.outside:
        if not name.is_library:
            yield f"{name}: it is not in the canvas, so it is not invalidated."
    for part in report.unknown:
        yield f"{part}."
    libraries = {name.name for name in report.outside if name.is_library}
    if libraries:
        pinned = counted(len(libraries), "library")
        code = "its code" if len(libraries) == 1 else "their code"
        yield f"{pinned} on GitHub, pinned by commit, of which only functions are called: {code} is not read."


def _remedies(caches: list[InnerCache]) -> Iterator[str]:
    """What deletes the results of caches."""
    common = list(dict.fromkeys(cache.folder for cache in caches if cache.folder is not None and not cache.is_own))
    named = [*([OWN] if any(cache.is_own for cache in caches) else []), *common]
    if named:
        also = f", and what else the team keeps in {', '.join(map(repr, common))}" if common else ""
        yield f"inner_caches={(OWN if named == [OWN] else named)!r} deletes them{also}."
    if any(cache.folder is None for cache in caches):
        yield "Those of which the folder is not known stay until they expire."


def _names(relatives: tuple[RelatedUdf, ...]) -> str:
    shown = ", ".join(each.name or each.id for each in relatives[:_SHOWN])
    return shown if len(relatives) <= _SHOWN else f"{shown}, …"


def _related(graph: CallGraph, udf_id: str, direction: Direction) -> tuple[RelatedUdf, ...]:
    return tuple(
        RelatedUdf(udf.id, udf.name, number, graph.nodes[udf.id.lower()].max_age)
        for number, level in enumerate(graph.levels(udf_id, direction), start=1)
        for udf in level
    )


def _name(udf: UdfRecord) -> str:
    return udf.name or udf.id
