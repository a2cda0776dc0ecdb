"""What an invalidation did, as plain data."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fused_cache_ops.errors import InvalidInputError

if TYPE_CHECKING:
    from fused_cache_ops.verification import Verification


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
        tiles_already_done: how many were done by an earlier call, as its checkpoint tells.
        verification: of ``verify``: which sampled tiles were fresh, came from the cache, or brought no result; None: not
            asked for.
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
    tiles_already_done: int = 0
    verification: Verification | None = None
    zooms_left_stale: tuple[int, ...] = ()
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict of JSON types."""
        verification = self.verification and self.verification.to_dict()
        return asdict(self) | {"verification": verification, "zooms_left_stale": list(self.zooms_left_stale)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> InvalidationResult:
        """A result from what `to_dict` made of it."""
        from fused_cache_ops.verification import Verification

        found = fields.get("verification")
        verification = found and Verification(**{name: tuple(tiles) for name, tiles in found.items()})
        stale = tuple(fields.get("zooms_left_stale", ()))
        return cls(**{**fields, "verification": verification, "zooms_left_stale": stale})

    @classmethod
    def merge(cls, results: Iterable[InvalidationResult | Mapping[str, Any]]) -> InvalidationResult:
        """One result of several, such as those of a purge's shards: counts are added up, the longest time is taken.

        Args:
            results: results, or their dicts, all of one UDF and instance.

        Raises:
            InvalidInputError: there are none, or they are of several UDFs or instances.
        """
        from fused_cache_ops.verification import Verification

        parts = [part if isinstance(part, InvalidationResult) else cls.from_dict(part) for part in results]
        if not parts:
            raise InvalidInputError("There are no results to merge.")
        for name in ("udf_id", "client_id"):
            several = sorted({getattr(part, name) for part in parts} - {None})
            if len(several) > 1:
                raise InvalidInputError(f"Results of several {name}s cannot be merged: {', '.join(several)}.")
        checked = [part.verification for part in parts if part.verification]
        return cls(
            udf_id=next((part.udf_id for part in parts if part.udf_id), None),
            client_id=next((part.client_id for part in parts if part.client_id), None),
            tiles_requested=_total(part.tiles_requested for part in parts),
            objects_deleted=_total(part.objects_deleted for part in parts),
            requests_sent=sum(part.requests_sent for part in parts),
            retries=sum(part.retries for part in parts),
            elapsed_seconds=max(part.elapsed_seconds for part in parts),
            tiles_already_done=sum(part.tiles_already_done for part in parts),
            verification=Verification(
                *(tuple(itertools.chain(*(getattr(each, name) for each in checked))) for name in Verification.__annotations__)
            )
            if checked
            else None,
            zooms_left_stale=tuple(sorted({zoom for part in parts for zoom in part.zooms_left_stale})),
            note="; ".join(dict.fromkeys(part.note for part in parts if part.note)) or None,
        )

    def __str__(self) -> str:
        target = f"UDF {self.udf_id}" if self.udf_id else "a UDF that was not looked up"
        tiles = self.tiles_requested
        what = f"all of {target}" if tiles is None else f"{counted(tiles, 'tile')} of {target}"
        objects = "" if self.objects_deleted is None else f", {counted(self.objects_deleted, 'cached object')} deleted"
        requests = counted(self.requests_sent, "request")
        retries = f", {counted(self.retries, 'repeat')} among them" if self.retries else ""
        earlier = f", {self.tiles_already_done:,} more by an earlier call" if self.tiles_already_done else ""
        verified = f"; {self.verification}" if self.verification else ""
        note = f"; {self.note}" if self.note else ""
        return f"invalidated {what}{earlier}{objects} ({requests}{retries}, {self.elapsed_seconds:.2f} s){verified}{note}"


def _total(numbers: Iterable[int | None]) -> int | None:
    known = list(numbers)
    return None if None in known else sum(number or 0 for number in known)


def counted(number: int, noun: str) -> str:
    """``1 tile``, ``2,500 tiles``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
