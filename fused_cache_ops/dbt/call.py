"""The invalidation after a dbt build: every UDF that shows what it changed."""

from __future__ import annotations

import contextlib
import json
import logging
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fused_cache_ops.cache_map.dataset import DatasetCall, DatasetPlan, OnDatasetPlan, plan_parts, read_parts
from fused_cache_ops.cache_map.reading import MapLocation
from fused_cache_ops.dbt.artifacts import DbtBuild, DbtPath, read_build, results_files
from fused_cache_ops.dbt.maps import DbtMaps, DbtShare, maps_of
from fused_cache_ops.errors import FusedCacheError, InvalidInputError, PermanentError, TransientError
from fused_cache_ops.keywords.call import DATASET_DEFAULTS
from fused_cache_ops.keywords.rules import is_given, kinds_in, refuse_unknown
from fused_cache_ops.outcome.dataset import DatasetInvalidationError, DatasetResult
from fused_cache_ops.outcome.dbt import DbtNodesFailedError, DbtResult
from fused_cache_ops.outcome.passes import DatasetFirstPass
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
        del build["exposures"], build["names_udfs"]
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
    refuse_unknown(keywords, DATASET_DEFAULTS)
    given = {name: value for name, value in keywords.items() if is_given(keywords, name)}
    if share.selection and (kinds := kinds_in(given)):
        first = next(iter(share.cache_map.datasets[share.key])).label
        raise InvalidInputError(f"{kinds[0]} is given in the call, and an exposure selects for {first}: give it in one place.")
    return {**keywords, **share.selection}


@dataclass(frozen=True)
class DbtFirstPass:
    """What `fused_cache_ops.FusedClient.first_dbt_pass` did. It holds no secret, so it can be stored while the caller waits.

    Attributes:
        build: what dbt changed. Its files are not read again for the second pass.
        passes: the first pass of each share.
        failed: what failed in it, by UDF: the message, and whether a retry may help.
    """

    build: DbtBuild
    passes: dict[str, DatasetFirstPass]
    failed: dict[str, tuple[str, bool]]

    @property
    def again_after(self) -> float:
        """Seconds until the second pass. 0: none is needed."""
        return max((each.again_after for each in self.passes.values()), default=0)

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict of JSON types."""
        return {
            "build": self.build.to_dict(),
            "passes": {key: each.to_dict() for key, each in self.passes.items()},
            "failed": {udf: list(said) for udf, said in self.failed.items()},
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> DbtFirstPass:
        """A first pass from the dict that `to_dict` returned."""
        return cls(
            DbtBuild.from_dict(given["build"]),
            {key: DatasetFirstPass.from_dict(each) for key, each in given["passes"].items()},
            {udf: (message, retryable) for udf, (message, retryable) in given["failed"].items()},
        )


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
        results: dict[str, DatasetResult] = {}
        for share in self._maps.shares:
            try:
                results[share.key] = self._call(share).run()
            except DatasetInvalidationError as error:
                results[share.key] = error.result
        return self._concluded(results)

    def first_pass(self) -> DbtFirstPass:
        """Send everything once, without a wait. What failed is in it, and is raised after the second pass, or by `conclude`."""
        passes: dict[str, DatasetFirstPass] = {}
        failed: dict[str, tuple[str, bool]] = {}
        for share in self._maps.shares:
            try:
                passes[share.key] = self._call(share, only_pass=1).first_pass()
            except DatasetInvalidationError as error:
                passes[share.key] = error.first_pass
                failed |= {share.labels[udf]: (each.message, each.retryable) for udf, each in error.result.failed.items()}
        return DbtFirstPass(self._build, passes, failed)

    def second_pass(self, first: DbtFirstPass) -> DbtResult:
        """Send everything once more that has a second pass.

        Raises:
            DatasetInvalidationError, DbtNodesFailedError: as for `run`, also for what failed in the first pass.
            InvalidInputError: the map or the selection has changed since then.
        """
        results = {key: each.result for key, each in first.passes.items()}
        for share in self._maps.shares:
            if share.key in first.passes and first.passes[share.key].fingerprints:
                try:
                    results[share.key] = self._call(share, only_pass=2, first=first.passes[share.key]).run()
                except DatasetInvalidationError as error:
                    results[share.key] = error.result
        earlier: dict[str, FusedCacheError] = {
            udf: (TransientError if retryable else PermanentError)(message)
            for udf, (message, retryable) in first.failed.items()
        }
        return self._concluded(results, earlier)

    def _call(self, share: DbtShare, **passes: Any) -> DatasetCall:
        given: Any = keywords_of(share, self._keywords)
        return DatasetCall(self._service, share.cache_map, share.key, given, on_progress=self._on_progress, **passes)

    def _concluded(self, done: Mapping[str, DatasetResult], failed: Mapping[str, FusedCacheError] | None = None) -> DbtResult:
        build, maps = self._build, self._maps
        labels = {share.key: share.labels for share in maps.shares}
        results = {labels[key][udf]: each for key, found in done.items() for udf, each in found.results.items()}
        failures = {labels[key][udf]: each for key, found in done.items() for udf, each in found.failed.items()}
        note = None
        if not build.changed:
            note = "dbt changed no rows"
        elif not maps.shares:
            note = f"no UDF shows what changed ({counted(len(build.changed), 'node')})"
        result = DbtResult(
            "dbt",
            results,
            {**(failed or {}), **failures},
            round(sum(each.elapsed_seconds for each in done.values()), 3),
            note,
            build.changed,
            build.not_built,
            maps.not_shown,
            build.invocations,
            build.warnings,
        )
        logger.info("Fused cache: %s", result)
        if result.failed:
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


@contextlib.contextmanager
def noting(path: DbtPath, build: DbtBuild) -> Iterator[None]:
    """Note a build beside dbt's results once it was handled, also if dbt did not build everything. What cannot be noted, such
    as in a folder that is gone, is logged."""
    try:
        yield
    except DbtNodesFailedError:
        _note(path, build)
        raise
    _note(path, build)


def _note(path: DbtPath, build: DbtBuild) -> None:
    try:
        files = results_files(path)
    except FusedCacheError as error:
        logger.info("Fused cache: that the build was handled is not noted. %s", error.message)
        return
    for file in files:
        known = _handled(file)
        merged = [*known, *(each for each in build.invocations if each not in known)][-_MOST_RECORDED:]
        draft = file.with_name(f".{RECORD}.{uuid.uuid4().hex}")
        try:
            draft.write_text(json.dumps({"handled": merged}), encoding="utf-8")
            draft.replace(file.with_name(RECORD))
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            logger.warning("Fused cache: %s cannot be written: %s.", file.with_name(RECORD), error.strerror or error)
