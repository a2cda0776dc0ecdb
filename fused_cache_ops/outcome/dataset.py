"""What the invalidation of a dataset's UDFs did."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from typing import Any

from fused_cache_ops.errors import FusedCacheError, Remaining
from fused_cache_ops.notebook import table
from fused_cache_ops.outcome.invalidation import InvalidationResult
from fused_cache_ops.wording import counted, quoted_address, without_credentials


@dataclass(frozen=True)
class DatasetResult:
    """What the invalidation of a dataset's UDFs did.

    Attributes:
        dataset: the dataset's key.
        results: what was done for each UDF, by the UDF as the map writes it (shared tokens masked). One that failed after a
            part was done is in it too.
        failed: why the others failed, by UDF. Each error holds what remains.
        elapsed_seconds: wall-clock time.
        note: a sentence if there was nothing to do. Usually None.
    """

    dataset: str
    results: dict[str, InvalidationResult]
    failed: dict[str, FusedCacheError] = field(default_factory=dict)
    elapsed_seconds: float = 0.0
    note: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "dataset", without_credentials(self.dataset, self.dataset)
        )  # a signed URL, in logs and pickles

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict of JSON types. Of errors, the kind, the message and whether a retry may help."""
        return {
            "dataset": self.dataset,
            "results": {udf: result.to_dict() for udf, result in self.results.items()},
            "failed": {
                udf: {"error": type(error).__name__, "message": error.message, "retryable": error.retryable}
                for udf, error in self.failed.items()
            },
            "elapsed_seconds": self.elapsed_seconds,
            "note": self.note,
        }

    def _repr_html_(self) -> str:
        """The result in a notebook."""
        failed = {udf: f"failed: {type(error).__name__}: {error.message}" for udf, error in self.failed.items()}
        rows = []
        for udf in self.results | failed:
            tiles: object = ""
            requests: object = ""
            said = []
            if udf in self.results:
                result = self.results[udf]
                tiles = "everything" if result.tiles_invalidated is None else result.tiles_invalidated
                requests = result.requests_sent
                # What may have stayed stale, above all.
                said = [
                    str(each)
                    for each in (
                        *(result.verification, result.stale_time, result.announcement, result.note),
                        *(result.warnings or ()),
                    )
                    if each
                ]
            rows.append((udf, tiles, requests, ". ".join([failed.get(udf, "invalidated"), *said])))
        title = f"Dataset {quoted_address(self.dataset)}" + (f": {self.note}" if self.note else "")
        return table(title, rows, ("UDF", "tiles", "requests", "outcome"))

    def __str__(self) -> str:
        done = [result for udf, result in self.results.items() if udf not in self.failed]
        tiles = sum(result.tiles_invalidated or 0 for result in done)
        whole = sum(result.tiles_invalidated is None for result in done)
        parts = [counted(tiles, "tile")] * (whole < len(done)) + [f"{whole:,} whole"] * (whole > 0)
        requests = counted(sum(result.requests_sent for result in self.results.values()), "request")
        failed = f"; {len(self.failed):,} failed: {', '.join(self.failed)}" if self.failed else ""
        note = f"; {self.note}" if self.note else ""
        what = f"invalidated {counted(len(done), 'UDF')} of the dataset {quoted_address(self.dataset)}"
        return f"{what} ({', '.join([*parts, requests])}, {self.elapsed_seconds:.2f} s){failed}{note}"


class DatasetInvalidationError(FusedCacheError):
    """Some of a dataset's UDFs could not be invalidated. The others are.

    Attributes:
        result: what was done, as a `DatasetResult`.
        remaining_by_udf: for each UDF that failed, the tiles not yet confirmed. None for a whole UDF, or where the selection
            itself was refused.
        unfinished: what was not completed, for each UDF and instance.
        retryable: whether a retry may help any of them.
        first_pass: after `fused_cache_ops.FusedClient.first_dataset_pass`, the `DatasetFirstPass` of the others. Otherwise
            None.
    """

    result: DatasetResult
    first_pass: Any = None

    def __init__(self, result: DatasetResult) -> None:
        count = len(result.failed)
        others = len(result.results.keys() - result.failed.keys())
        by_reason: dict[str, list[str]] = {}
        for udf, error in result.failed.items():
            by_reason.setdefault(_reason(error.message), []).append(udf)
        reasons = [
            f"{_named(udfs)}: {reason if len(udfs) > 1 else result.failed[udfs[0]].message}"
            for reason, udfs in list(by_reason.items())[:_MOST_SHOWN]
        ]
        if len(by_reason) > _MOST_SHOWN:
            reasons.append(f"And {counted(len(by_reason) - _MOST_SHOWN, 'other reason')}: see this error's .result.failed.")
        super().__init__(
            f"{count:,} of {counted(count + others, 'UDF')} of the dataset {quoted_address(result.dataset)} failed. "
            f"{' '.join(reasons)} {'The others are invalidated. ' if others else ''}"
            "The tiles not yet confirmed are in this error's .remaining_by_udf."
        )
        self.result = result
        self.retryable = any(error.retryable for error in result.failed.values())
        self.unfinished = tuple(itertools.chain.from_iterable(error.unfinished for error in result.failed.values()))

    @property
    def remaining_by_udf(self) -> dict[str, Remaining | None]:
        return {udf: error.remaining for udf, error in self.result.failed.items()}

    def __reduce__(self) -> tuple[object, ...]:
        return DatasetInvalidationError, (self.result,)


_MOST_SHOWN = 10
"""UDFs and reasons in a message, so that it stays readable."""


def _reason(message: str) -> str:
    """What several UDFs that failed alike have in common: not what was being done, and how often it was tried."""
    reason = message.partition(": ")[2] if message.startswith("Failed ") else message
    return re.sub(r" Gave up after [\d,]+ attempts? in [\d.]+ s: ", " Gave up: ", reason)


def _named(udfs: list[str]) -> str:
    more = [f"and {len(udfs) - _MOST_SHOWN:,} more"] if len(udfs) > _MOST_SHOWN else []
    return ", ".join([*udfs[:_MOST_SHOWN], *more])
