"""What is to be sent where: the UDF itself and its relatives, each on every instance on which its results may lie."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.keywords.inner_caches import OWN, SHARED_FOLDER
from fused_cache_ops.keywords.values import Related
from fused_cache_ops.lineage.graph import CallGraph
from fused_cache_ops.lineage.lookup import Lookup, look_up
from fused_cache_ops.lineage.report import graph_of, report_on, warnings_from
from fused_cache_ops.service.canvases import UdfRecord
from fused_cache_ops.service.retry import Retrier
from fused_cache_ops.service.service import Service, UdfCache
from fused_cache_ops.udf_reference import UdfReference
from fused_cache_ops.wording import counted, quoted, rendered_to_nothing, with_reasons

logger = logging.getLogger(__name__)

LONGEST_AGAIN_AFTER = 86_400
_SHOWN = 5
_LOGGED = 10


FOLDER = "inner caches"
"""The relation of a target that is a folder of inner caches."""


class Target(NamedTuple):
    """One UDF, or one folder of inner caches, on one instance.

    Attributes:
        cache: what is invalidated.
        name: the name of the UDF or the folder. None: the UDF was not looked up.
        relation: what it is to the UDF that was named: ``"callee"``, ``"udf"``, ``"caller"``, or `FOLDER`.
        level: targets of one level do not depend on each other. Those of the next level come after them.
        called_by: the names of the UDFs that call it and are invalidated too. Calls are cached by their parameters and not by
            tiles, so that everything is invalidated then even if tiles are selected.
    """

    cache: UdfCache
    name: str | None
    relation: str
    level: int
    called_by: tuple[str, ...] = ()

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of inner caches."""
        return self.relation == FOLDER

    @property
    def is_whole(self) -> bool:
        """Whether everything is invalidated even if tiles are selected."""
        return self.is_folder or bool(self.called_by)

    @property
    def note(self) -> str | None:
        """Why everything is invalidated, or None."""
        return f"all of it is invalidated, because {_named(self.called_by)} it by parameters" if self.called_by else None

    @property
    def shown(self) -> str:
        """The UDF or folder and the instance, for messages."""
        what = f"Folder {self.name}" if self.is_folder else f"UDF {self.name or self.cache.udf_id}"
        return f"{what} on instance {self.cache.client_id}"


def _named(callers: tuple[str, ...]) -> str:
    names = [*callers[:_SHOWN], *([f"{len(callers) - _SHOWN:,} more"] if len(callers) > _SHOWN else [])]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{listed} {'calls' if len(callers) == 1 else 'call'}"


@dataclass(frozen=True)
class Targets:
    """Where one call sends its selection.

    Attributes:
        udf_id: the id of the UDF that was named.
        client_ids: the instances, the preferred one first.
        all: the targets, in the order of invalidation: folders of inner caches, callees, the UDF, callers.
        warnings: what could keep the map stale all the same. None: no record was read.
    """

    udf_id: str
    client_ids: tuple[str, ...]
    all: tuple[Target, ...]
    warnings: tuple[str, ...] | None


def check_related(related: Any, max_related: Any) -> None:
    """Reject invalid values of ``related`` and ``max_related``.

    Raises:
        InvalidInputError: one of them is invalid.
    """
    allowed = get_args(Related)
    if related is not None and related not in allowed:
        nothing = isinstance(related, str) and rendered_to_nothing(related)
        why = ", which looks like a template that rendered to nothing" if nothing else ""
        shown = ", ".join(map(repr, allowed))
        raise InvalidInputError(f"related = {quoted(related)}{why} must be one of {shown}. Omit it for this UDF alone.")
    if isinstance(max_related, bool) or not isinstance(max_related, int) or max_related < 1:
        raise InvalidInputError(f"max_related = {quoted(max_related)} must be a whole number above 0.")


def refuse_shard(shard: tuple[int, int] | None) -> None:
    """Reject a part of a selection beside ``related``.

    Raises:
        InvalidInputError: as said.
    """
    if shard is not None and shard[1] > 1:
        raise InvalidInputError(
            f"shard = {shard} and related are both given. UDFs that are called by others are invalidated whole, which each "
            "shard would do again after the others: omit one of them."
        )


def check_again_after(seconds: Any) -> None:
    """Reject an invalid wait before the second pass.

    Raises:
        InvalidInputError: it is not a number of seconds from 0 to a day.
    """
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and math.isfinite(seconds)
    if not is_number or not 0 <= seconds <= LONGEST_AGAIN_AFTER:
        raise InvalidInputError(
            f"again_after = {quoted(seconds)} must be a number of seconds from 0 to {LONGEST_AGAIN_AFTER:,}. A run may take "
            "120 seconds, so 130 is a good value. 0 means no second pass."
        )


def find_targets(
    service: Service,
    retrier: Retrier,
    reference: UdfReference,
    related: Related | None,
    max_related: int,
    inner_caches: tuple[str, ...] = (),
    *,
    has_tiles: bool = False,
) -> Targets:
    """Look up where to send the invalidation of a UDF.

    Args:
        service: the deployment.
        retrier: the call.
        reference: the UDF.
        related: which relatives are invalidated too.
        max_related: the most of them.
        inner_caches: folders to delete, of which `OWN` stands for those that the code names.
        has_tiles: whether tiles are selected.

    Raises:
        InvalidInputError: there are more relatives than ``max_related``, or they cannot be known.
        FusedCacheError: a lookup failed.
    """
    found = look_up(service, retrier, reference, relatives=related is not None, code=OWN in inner_caches)
    udf = found.udf
    if udf is None:
        assert reference.udf_id is not None  # noqa: S101 - otherwise it was looked up
        return Targets(
            reference.udf_id,
            found.client_ids,
            (*_folders(found, inner_caches), *_on_each(found, UdfRecord(reference.udf_id), "udf", 0)),
            _logged(found, tuple(f"{part}." for part in found.unknown)) or None,
        )
    # Relatives that are to be invalidated have to be known. For warnings alone, the time is needed elsewhere.
    least = retrier.left / 2 if related is None else 0
    graph = graph_of(udf, found.canvas, reference.secret, lambda: retrier.left < least)
    if related is not None:
        retrier.check()
    levels = graph.in_order(udf.id, related) if related is not None else ((udf,),)
    _check_number(udf, levels, max_related)
    own = next(number for number, level in enumerate(levels) if udf in level)
    everyone = [each for level in levels for each in level]
    folders = tuple(dict.fromkeys(each for name in inner_caches for each in _own_or(name, graph, everyone)))
    targets = tuple(
        target
        for number, level in enumerate(levels)
        for each in level
        for target in _on_each(
            found,
            each,
            ("callee", "udf", "caller")[(number >= own) + (number > own)],
            number,
            tuple(sorted(_name(other) for other in everyone if related and _calls(graph, other, each))),
        )
    )
    if has_tiles:
        for target in targets:
            if target.note and target.cache.client_id == found.client_ids[0]:
                logger.info("Fused cache: UDF %s: %s.", target.name or target.cache.udf_id, target.note)
    warnings = warnings_from(report_on(udf, found, graph), related, has_tiles=has_tiles, deleted=folders)
    return Targets(
        udf.id,
        found.client_ids,
        (*_folders(found, folders), *targets),
        # Without the canvas, nobody looked for callers, so that there are none to name does not mean that there are none.
        _logged(found, tuple(warnings)) or (None if found.canvas is None else ()),
    )


def _on_each(found: Lookup, udf: UdfRecord, relation: str, level: int, called_by: tuple[str, ...] = ()) -> Iterator[Target]:
    for client_id in found.client_ids:
        yield Target(UdfCache(udf.id, client_id), udf.name, relation, level, called_by)


def _folders(found: Lookup, names: Iterable[str]) -> Iterator[Target]:
    """The folders come before all UDFs, which may compute from them."""
    for name in names:
        for client_id in found.client_ids:
            yield Target(UdfCache(f"{FOLDER} {name}", client_id), name, FOLDER, -1)


def _own_or(name: str, graph: CallGraph, udfs: Iterable[UdfRecord]) -> Iterator[str]:
    """A folder, or those that the code of UDFs names."""
    if name != OWN:
        yield name
        return
    for udf in udfs:
        reading = graph.nodes[udf.id.lower()].reading
        if udf.code is None:
            raise InvalidInputError(
                f"inner_caches = {OWN!r} needs the code of UDF {_name(udf)}, and the service does not return it: name the "
                "folders. Nothing was sent."
            )
        for cache in reading.caches:
            if cache.is_of_code and cache.folder is not None and cache.folder != SHARED_FOLDER:
                yield cache.folder


def _calls(graph: CallGraph, caller: UdfRecord, udf: UdfRecord) -> bool:
    return udf.id.lower() in graph.nodes[caller.id.lower()].callees


def _name(udf: UdfRecord) -> str:
    return udf.name or udf.id


def _check_number(udf: UdfRecord, levels: tuple[tuple[UdfRecord, ...], ...], most: int) -> None:
    relatives = [each for level in levels for each in level if each.id != udf.id]
    if len(relatives) > most:
        named = ", ".join(each.name or each.id for each in relatives[:_SHOWN]) + (", …" if len(relatives) > _SHOWN else "")
        raise InvalidInputError(
            f"UDF {udf.name or udf.id} has {counted(len(relatives), 'related UDF')} ({named}), over max_related={most:,}. "
            "Nothing was sent. Raise max_related to invalidate all of them."
        )


def _logged(found: Lookup, warnings: tuple[str, ...]) -> tuple[str, ...]:
    """Log the first warnings as one line. What the token may not see changes what is sent, so that is logged as a warning."""
    if warnings:
        said = list(with_reasons(warnings))
        logger.log(
            logging.WARNING if found.unknown else logging.INFO,
            "Fused cache: the map may stay stale all the same: %s",
            " ".join((*said[:_LOGGED], *([f"And {len(said) - _LOGGED:,} more."] if len(said) > _LOGGED else []))),
        )
    return warnings
