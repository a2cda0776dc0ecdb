"""What a refresh did."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from fused_cache_ops.wording import counted


@dataclass(frozen=True)
class RefreshResult:
    """The outcome of running the UDF again for what was invalidated.

    Attributes:
        runs: results that the UDF computed.
        already_cached: results that were in the cache already. Someone requested them in between.
        failed: what could not be refreshed, or not certainly, each with the reason: ``10/1/2: …``.
        not_requested: the number of tiles that were not reached before the deadline.
        already_done: the number of tiles that an earlier call refreshed, according to its checkpoint.
        seconds_median: how long a run took, as the median of all runs. None if there were none.
        seconds_p95: the time that 95 % of the runs did not exceed. None if there were none.
        bytes: the size of the results received.
        elapsed_seconds: wall-clock time.
        retryable: whether refreshing again may help what could not be refreshed.
        note: why nothing was refreshed. Usually None.
    """

    runs: int = 0
    already_cached: int = 0
    failed: tuple[str, ...] = ()
    not_requested: int = 0
    already_done: int = 0
    seconds_median: float | None = None
    seconds_p95: float | None = None
    bytes: int = 0
    elapsed_seconds: float = 0.0
    retryable: bool = False
    note: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether everything was refreshed."""
        return not self.failed and not self.not_requested

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict of JSON types."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> RefreshResult:
        """A refresh from the dict that `to_dict` returned."""
        read: dict[str, Any] = {**fields, "failed": tuple(fields["failed"])}
        return cls(**read)

    @classmethod
    def merge(cls, refreshes: Iterable[RefreshResult]) -> RefreshResult:
        """Merge several into one. Counts are added, and the longest time is taken. The median of several is not known."""
        parts = list(refreshes)
        if len(parts) == 1:
            return parts[0]
        return cls(
            runs=sum(part.runs for part in parts),
            already_cached=sum(part.already_cached for part in parts),
            failed=tuple(itertools.chain.from_iterable(part.failed for part in parts)),
            not_requested=sum(part.not_requested for part in parts),
            already_done=sum(part.already_done for part in parts),
            bytes=sum(part.bytes for part in parts),
            elapsed_seconds=max((part.elapsed_seconds for part in parts), default=0.0),
            retryable=any(part.retryable for part in parts),
            note="; ".join(dict.fromkeys(part.note for part in parts if part.note)) or None,
        )

    def __str__(self) -> str:
        if self.note:
            return self.note
        parts = [f"{self.already_cached:,} already cached"] * bool(self.already_cached)
        parts += [f"{self.already_done:,} by an earlier call"] * bool(self.already_done)
        parts += [f"{len(self.failed):,} failed"] * bool(self.failed)
        parts += [f"{self.not_requested:,} not reached in time"] * bool(self.not_requested)
        if self.seconds_median is not None:
            parts.append(f"median {self.seconds_median:.2f} s, 95 % within {self.seconds_p95:.2f} s")
        details = f" ({'; '.join(parts)})" if parts else ""
        return f"refreshed: {counted(self.runs, 'run')}{details}"
