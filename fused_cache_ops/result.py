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
        zooms_left_stale: zooms that were left out since there were too many tiles; empty in general.
        note: what was done about too many tiles, in words; None in general.
    """

    udf_id: str | None
    client_id: str | None
    tiles_requested: int | None
    objects_deleted: int | None
    requests_sent: int
    retries: int
    elapsed_seconds: float
    zooms_left_stale: tuple[int, ...] = ()
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict of JSON types."""
        return asdict(self) | {"zooms_left_stale": list(self.zooms_left_stale)}

    def __str__(self) -> str:
        target = f"UDF {self.udf_id}" if self.udf_id else "a UDF that was not looked up"
        tiles = self.tiles_requested
        what = f"all of {target}" if tiles is None else f"{counted(tiles, 'tile')} of {target}"
        objects = "" if self.objects_deleted is None else f", {counted(self.objects_deleted, 'cached object')} deleted"
        requests = counted(self.requests_sent, "request")
        retries = f", {counted(self.retries, 'repeat')} among them" if self.retries else ""
        note = f"; {self.note}" if self.note else ""
        return f"invalidated {what}{objects} ({requests}{retries}, {self.elapsed_seconds:.2f} s){note}"


def counted(number: int, noun: str) -> str:
    """``1 tile``, ``2,500 tiles``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
