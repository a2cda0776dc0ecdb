"""The wait for an H3 table's index, as an orchestrator stores it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class IndexWait:
    """What `fused_cache_ops.FusedClient.look_at_index` found: the index does not have what was loaded yet. It holds no secret,
    so it can be stored while the caller waits.

    Attributes:
        loaded_at: the moment that the index must have reached, in ISO format.
        until: when the deadline is over, in ISO format.
        seconds: seconds after which to look again.
        run_id: the run that was started, or None if another one is waited for.
    """

    loaded_at: str
    until: str
    seconds: float
    run_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict of JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> IndexWait:
        """A wait from the dict that `to_dict` returned."""
        return cls(**fields)


@dataclass(frozen=True)
class DatasetIndexWait:
    """What `fused_cache_ops.FusedClient.look_at_dataset_indexes` found of the indexes that a dataset's UDFs have run. It holds
    no secret, so it can be stored while the caller waits.

    Attributes:
        waits: the wait for each index that is not done yet, by a digest of its path and folders.
        done: the indexes that have what was loaded.
        failed: why the others failed, each with whether a retry may help.
    """

    waits: dict[str, IndexWait] = field(default_factory=dict)
    done: tuple[str, ...] = ()
    failed: dict[str, tuple[str, bool]] = field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        """Seconds after which to look again. None: nothing is waited for."""
        return min((wait.seconds for wait in self.waits.values()), default=None)

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict of JSON types."""
        return {
            "waits": {index: wait.to_dict() for index, wait in self.waits.items()},
            "done": list(self.done),
            "failed": {index: list(why) for index, why in self.failed.items()},
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> DatasetIndexWait:
        """A wait from the dict that `to_dict` returned."""
        waits = {index: IndexWait.from_dict(wait) for index, wait in fields["waits"].items()}
        return cls(waits, tuple(fields["done"]), {index: (why[0], why[1]) for index, why in fields["failed"].items()})
