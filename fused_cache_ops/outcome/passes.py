"""The first of two passes, as an orchestrator stores it while it waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fused_cache_ops.outcome.dataset import DatasetResult
from fused_cache_ops.outcome.invalidation import InvalidationResult


@dataclass(frozen=True)
class FirstPass:
    """What `fused_cache_ops.FusedClient.first_pass` did. It holds no secret, so it can be stored while the caller waits.

    Attributes:
        fingerprint: what tells its selection from any other.
        result: what was done.
    """

    fingerprint: str
    result: InvalidationResult

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to send, so that no second pass is needed."""
        return not self.result.client_ids

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict of JSON types."""
        return {"fingerprint": self.fingerprint, "result": self.result.to_dict()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> FirstPass:
        """A first pass from the dict that `to_dict` returned."""
        return cls(fields["fingerprint"], InvalidationResult.from_dict(fields["result"]))


@dataclass(frozen=True)
class DatasetFirstPass:
    """What `fused_cache_ops.FusedClient.first_dataset_pass` did. It holds no secret, so it can be stored while the caller
    waits.

    Attributes:
        result: what was done for each UDF.
        fingerprints: for each UDF that has a second pass, what tells its selection from any other.
        again_after: seconds until the second pass. 0: none is needed.
    """

    result: DatasetResult
    fingerprints: dict[str, str]
    again_after: float

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict of JSON types."""
        return {"result": self.result.to_dict(), "fingerprints": self.fingerprints, "again_after": self.again_after}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> DatasetFirstPass:
        """A first pass from the dict that `to_dict` returned."""
        said = fields["result"]
        results = {udf: InvalidationResult.from_dict(result) for udf, result in said["results"].items()}
        result = DatasetResult(said["dataset"], results, {}, said["elapsed_seconds"], said["note"])
        return cls(result, fields["fingerprints"], fields["again_after"])
