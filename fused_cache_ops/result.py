"""What an invalidation did, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class InvalidationResult:
    """What an invalidation did. The same data goes to XCom, a Prefect artifact, Dagster metadata and ``--json``.

    Attributes:
        udf_id: the UDF's id; None where nothing was sent and so a name was not looked up.
        client_id: the real-time instance; None where nothing was sent and it was not configured.
        tiles_requested: how many tiles were sent and confirmed; None: the whole UDF.
        objects_deleted: how many cached objects the server says it removed (one tile may hold several, or none);
            None where it does not say: only the batch endpoint does.
        requests_sent: HTTP requests, look-ups and retries included.
        retries: how many of them repeated one that had failed.
        elapsed_seconds: wall time.
    """

    udf_id: str | None
    client_id: str | None
    tiles_requested: int | None
    objects_deleted: int | None
    requests_sent: int
    retries: int
    elapsed_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict of JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        target = f"UDF {self.udf_id}" if self.udf_id else "a UDF that was not looked up"
        tiles = self.tiles_requested
        what = f"all of {target}" if tiles is None else f"{_count(tiles, 'tile')} of {target}"
        objects = "" if self.objects_deleted is None else f", {_count(self.objects_deleted, 'cached object')} deleted"
        requests = _count(self.requests_sent, "request")
        retries = f", {_count(self.retries, 'repeat')} among them" if self.retries else ""
        return f"invalidated {what}{objects} ({requests}{retries}, {self.elapsed_seconds:.2f} s)"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
