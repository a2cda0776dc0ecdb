"""The invalidation after a dbt build: every UDF that shows what it changed."""

from __future__ import annotations

import contextlib
import json
import logging
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fused_cache_ops.cache_map.dataset import DatasetCall, DatasetPlan, OnDatasetPlan, plan_parts, read_parts
from fused_cache_ops.cache_map.reading import MapLocation
from fused_cache_ops.dbt.artifacts import DbtBuild, DbtPath, read_build, results_files
from fused_cache_ops.dbt.maps import DbtMaps, DbtShare, maps_of
from fused_cache_ops.errors import FusedCacheError, InvalidInputError
from fused_cache_ops.keywords.rules import is_given, kinds_in
from fused_cache_ops.outcome.dataset import DatasetInvalidationError
from fused_cache_ops.outcome.dbt import DbtNodesFailedError, DbtResult
from fused_cache_ops.outcome.invalidation import InvalidationResult
from fused_cache_ops.plan.plan import InvalidationPlan
from fused_cache_ops.progress import OnProgress
from fused_cache_ops.selection.reading import refuse_single_use
from fused_cache_ops.selection.selection import nobody_watches
from fused_cache_ops.service.service import Service
from fused_cache_ops.tiles.tile import is_boolean
from fused_cache_ops.wording import counted, quoted

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fused_cache_ops.keywords.call import DatasetKeywords

logger = logging.getLogger(__name__)

RECORD = "fused_cache_ops.json"
"""The file beside dbt's results that says which builds were handled."""

_MOST_RECORDED = 100


@dataclass(frozen=True)
class DbtPlan(DatasetPlan):
    """What the invalidation after a dbt build would do. Nothing has been sent.

    Attributes:
        build: what dbt changed.
        not_shown: what changed, and is named by neither the cache map nor an exposure.
    """

    build: DbtBuild = field(default_factory=DbtBuild)
    not_shown: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict of JSON types."""
        build = self.build.to_dict()
        del build["exposures"]
        return {**super().to_dict(), **build, "not_shown": list(self.not_shown)}

    def __str__(self) -> str:
        changed = [f"changed: {uid}" for uid in self.build.changed]
        failed = [f"not built, stays stale: {uid} ({status})" for uid, status in self.build.not_built.items()]
        return "\n".join([super().__str__(), *changed, *failed])


def read_dbt(path: DbtPath, *, newer_than: Any = None, repeat: bool = False) -> DbtBuild:
    """What dbt changed in the builds that were not handled before.

    Args:
        path, newer_than: as for `fused_cache_ops.invalidate_dbt`.
        repeat: whether to take what was handled before, too.

    Raises:
        InvalidInputError: as for `fused_cache_ops.invalidate_dbt`.
    """
    if not is_boolean(repeat):
        raise InvalidInputError(f"repeat = {quoted(repeat)} must be True or False.")
    handled = set() if repeat else {uid for file in results_files(path) for uid in _handled(file)}
    build = read_build(path, newer_than=newer_than, handled=handled)
    if not build.invocations:
        raise InvalidInputError(
            f"path = {quoted(path)}: the maps were invalidated for this dbt build before ({RECORD}). Run dbt build first, or "
            "pass repeat=True to do it again."
        )
    for warning in build.warnings:
        logger.warning("Fused cache: %s", warning)
    return build


def plan_dbt(
    path: DbtPath,
    *,
    cache_map: MapLocation | None = None,
    newer_than: Any = None,
    repeat: bool = False,
    **keywords: Unpack[DatasetKeywords],
) -> DbtPlan:
    """What `invalidate_dbt` would do with the same keywords. Sends nothing, needs no token, and records nothing.

    Raises:
        InvalidInputError: as for `invalidate_dbt`.
    """
    refuse_single_use(keywords, "the plan would use it up")
    build = read_dbt(path, newer_than=newer_than, repeat=repeat)
    return _plan(build, maps_of(build, cache_map), keywords)


def _plan(build: DbtBuild, maps: DbtMaps, keywords: Mapping[str, Any]) -> DbtPlan:
    plans: dict[str, InvalidationPlan] = {}
    refused: dict[str, str] = {}
    for share in maps.shares:
        read: Any = keywords_of(share, keywords)
        made = plan_parts("dbt", read_parts(share.cache_map, share.key, nobody_watches, **read))
        plans |= {share.labels[udf]: plan for udf, plan in made.plans.items()}
        refused |= {share.labels[udf]: why for udf, why in made.refused.items()}
    return DbtPlan("dbt", plans, refused, build, maps.not_shown)


def keywords_of(share: DbtShare, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of the call for a share, with the selection that belongs to it.

    Raises:
        InvalidInputError: the call has a selection too.
    """
    given = {name: value for name, value in keywords.items() if is_given(keywords, name)}
    if share.selection and (kinds := kinds_in(given)):
        first = next(iter(share.cache_map.datasets[share.key])).label
        raise InvalidInputError(f"{kinds[0]} is given in the call, and an exposure selects for {first}: give it in one place.")
    return {**keywords, **share.selection}


class DbtCall:
    """The invalidation of every UDF that shows what dbt changed.

    Args:
        service: the deployment.
        build: what dbt changed.
        maps: which UDFs show it.
        keywords: the selection, and what controls sending.
        on_progress: called with the sums of all UDFs.
        on_plan: called once, before anything is sent.
    """

    def __init__(
        self,
        service: Service,
        build: DbtBuild,
        maps: DbtMaps,
        keywords: Mapping[str, Any],
        *,
        on_progress: OnProgress | None = None,
        on_plan: OnDatasetPlan | None = None,
    ) -> None:
        self._service = service
        self._build = build
        self._maps = maps
        self._keywords = keywords
        self._on_progress = on_progress
        # Whatever cannot be read is refused before anything is sent.
        plan = _plan(build, maps, keywords) if on_plan is not None or len(maps.shares) > 1 else None
        if on_plan is not None and plan is not None:
            on_plan(plan)

    def run(self) -> DbtResult:
        """Send everything.

        Raises:
            DatasetInvalidationError: a UDF failed. The others are invalidated.
            DbtNodesFailedError: dbt did not build everything. The rest is invalidated.
        """
        results: dict[str, InvalidationResult] = {}
        failed: dict[str, FusedCacheError] = {}
        seconds = 0.0
        for share in self._maps.shares:
            given: Any = keywords_of(share, self._keywords)
            call = DatasetCall(self._service, share.cache_map, share.key, given, on_progress=self._on_progress)
            try:
                done = call.run()
            except DatasetInvalidationError as error:
                done = error.result
            results |= {share.labels[udf]: result for udf, result in done.results.items()}
            failed |= {share.labels[udf]: error for udf, error in done.failed.items()}
            seconds += done.elapsed_seconds
        return concluded(self._build, self._maps, results, failed, seconds)


def concluded(
    build: DbtBuild,
    maps: DbtMaps,
    results: dict[str, InvalidationResult],
    failed: dict[str, FusedCacheError],
    seconds: float = 0.0,
) -> DbtResult:
    """The result of everything that was done.

    Raises:
        DatasetInvalidationError, DbtNodesFailedError: as for `DbtCall.run`.
    """
    note = None
    if not build.changed:
        note = "dbt changed no rows"
    elif not maps.shares:
        note = f"no UDF shows what changed ({counted(len(build.changed), 'node')})"
    result = DbtResult(
        "dbt",
        results,
        failed,
        round(seconds, 3),
        note,
        build.changed,
        build.not_built,
        maps.not_shown,
        build.invocations,
        build.warnings,
    )
    logger.info("Fused cache: %s", result)
    if failed:
        raise DatasetInvalidationError(result)
    if build.not_built:
        raise DbtNodesFailedError(result)
    return result


def _handled(file: Path) -> list[str]:
    try:
        found = json.loads(file.with_name(RECORD).read_bytes())["handled"]
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or a crash left it
        return []
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def record(path: DbtPath, invocations: Iterable[str]) -> None:
    """Note that builds were handled, beside dbt's results. What cannot be noted is logged."""
    for file in results_files(path):
        known = _handled(file)
        merged = [*known, *(each for each in invocations if each not in known)][-_MOST_RECORDED:]
        draft = file.with_name(f".{RECORD}.{uuid.uuid4().hex}")
        try:
            draft.write_text(json.dumps({"handled": merged}), encoding="utf-8")
            draft.replace(file.with_name(RECORD))
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            logger.warning("Fused cache: %s cannot be written: %s.", file.with_name(RECORD), error.strerror or error)
