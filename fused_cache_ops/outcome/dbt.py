"""What the invalidation after a dbt build did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fused_cache_ops.errors import FusedCacheError
from fused_cache_ops.outcome.dataset import DatasetResult
from fused_cache_ops.wording import counted

_MOST_SHOWN = 10


@dataclass(frozen=True)
class DbtResult(DatasetResult):
    """What the invalidation after a dbt build did: a `DatasetResult`, whose dataset is ``dbt``, and what dbt built.

    Attributes:
        changed: the models, seeds and snapshots whose rows changed, by unique id, with their tables or views.
        not_built: those that dbt could not build, with its status. Their maps stay stale.
        not_shown: those of ``changed`` that neither the cache map nor an exposure names.
        invocations: dbt's ids of the builds.
        warnings: what may be missing.
    """

    changed: dict[str, str | None] = field(default_factory=dict)
    not_built: dict[str, str] = field(default_factory=dict)
    not_shown: tuple[str, ...] = ()
    invocations: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict of JSON types."""
        return {
            **super().to_dict(),
            "changed": dict(self.changed),
            "not_built": dict(self.not_built),
            "not_shown": list(self.not_shown),
            "invocations": list(self.invocations),
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        return f"{super().__str__()}; {counted(len(self.changed), 'node')} changed, {len(self.not_built):,} not built"


class DbtNodesFailedError(FusedCacheError):
    """dbt could not build everything. The maps of what it did build are invalidated, and the others stay stale.

    Run dbt again, and then this call: ``dbt retry`` builds only what failed.

    Attributes:
        result: what was done, as a `DbtResult`.
    """

    result: DbtResult

    def __init__(self, result: DbtResult) -> None:
        shown = [f"{uid} ({status})" for uid, status in list(result.not_built.items())[:_MOST_SHOWN]]
        if len(result.not_built) > _MOST_SHOWN:
            shown.append(f"and {len(result.not_built) - _MOST_SHOWN:,} more")
        super().__init__(
            f"dbt did not build {counted(len(result.not_built), 'node')}: {', '.join(shown)}. What shows "
            f"{'it' if len(result.not_built) == 1 else 'them'} stays stale. The maps of what was built are invalidated. Run "
            "dbt retry, and then this again."
        )
        self.result = result

    def __reduce__(self) -> tuple[object, ...]:
        return DbtNodesFailedError, (self.result,)
