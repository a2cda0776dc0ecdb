"""What an invalidation did, and the errors of one that failed after it had invalidated something."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from fused_cache_ops.errors import FollowUpError, FusedCacheError, InvalidInputError, Remaining, Unfinished
from fused_cache_ops.notebook import table
from fused_cache_ops.outcome.announcement import Announcement
from fused_cache_ops.outcome.refresh import RefreshResult
from fused_cache_ops.wording import counted, with_reasons

_KINDS = ("fresh", "from_cache", "unknown")


@dataclass(frozen=True)
class Verification:
    """The outcome of requesting the sampled tiles.

    Attributes:
        fresh: tiles that the UDF computed anew.
        from_cache: tiles that came from the cache, each with the tier that had it: ``10/1/2: memory`` or
            ``10/1/2: object storage``. They were not invalidated, or someone requested them in between.
        unknown: tiles that are neither certainly fresh nor certainly cached, each with the reason: there was no result, or a
            CDN may have answered.
        first_fresh: when the first fresh tile was received, as a ``datetime``. Not part of what is stored.
    """

    fresh: tuple[str, ...] = ()
    from_cache: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    first_fresh: Any = field(default=None, repr=False, compare=False)

    @property
    def sampled(self) -> int:
        return len(self.fresh) + len(self.from_cache) + len(self.unknown)

    def amended(self, later: Verification) -> Verification:
        """This one, with what a later one says of the same tiles."""
        seen = {each.partition(": ")[0] for name in _KINDS for each in getattr(later, name)}
        kept = {name: tuple(each for each in getattr(self, name) if each.partition(": ")[0] not in seen) for name in _KINDS}
        return Verification(**{name: (*kept[name], *getattr(later, name)) for name in _KINDS})

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict of JSON types."""
        return {name: list(getattr(self, name)) for name in _KINDS}

    def __str__(self) -> str:
        return f"verified: {len(self.fresh):,} of {self.sampled:,}"


@dataclass(frozen=True)
class InvalidationResult:
    """What an invalidation did. The same data goes to XCom, a Prefect artifact, Dagster metadata and ``--json``.

    Attributes:
        udf_id: the UDF's id. None if nothing was sent, so that a name was not looked up.
        client_id: the real-time instance, the preferred one of several. None if nothing was sent and it was not configured.
        tiles_invalidated: the number of tiles sent and confirmed on every instance. None for the whole UDF.
        objects_deleted: the number of cached objects that the server reports as removed (a tile may have several, or none), on
            all instances together. None if it does not report it: only the batch endpoint does.
        requests_sent: HTTP requests, including lookups, retries and those for related UDFs.
        retries: how many of the requests were retries.
        elapsed_seconds: wall-clock time.
        tiles_already_done: tiles that an earlier call invalidated, according to its checkpoint.
        verification: for ``verify_tiles``, which sampled tiles were fresh, came from the cache, or returned no result. None if
            not requested.
        zooms_left_stale: zooms that were dropped because there were too many tiles. Usually empty.
        note: a sentence about what was done because there were too many tiles, or because others call the UDF. Usually None.
        client_ids: the real-time instances. Empty if nothing was sent.
        related: for ``related``, the result of each caller and callee by its id.
        refresh: for ``refresh``, what was run again. None if not requested.
        inner_caches: for ``inner_caches``, the folders that are deleted on every instance.
        loaded_at: for ``loaded_at``, when the load was done, in ISO format and UTC. None: not given.
        seconds_until_invalidated: seconds from the load to the last confirmation. None: the load's time was not given.
        seconds_until_fresh: seconds from the load to the first tile that a verification or a refresh found to be computed anew.
            None: there was none, or the load's time was not given.
        announcement: for ``announce``, where it was announced and as which version, or why not. None: nothing was.
        second_pass: for ``again_after``, ``"done"``. An orchestrator that has only scheduled it says ``"scheduled"``.
        warnings: what could keep the map stale all the same, from the records that the call has read. None: it read none.
    """

    udf_id: str | None
    client_id: str | None
    tiles_invalidated: int | None
    objects_deleted: int | None
    requests_sent: int
    retries: int
    elapsed_seconds: float
    tiles_already_done: int = 0
    verification: Verification | None = None
    zooms_left_stale: tuple[int, ...] = ()
    note: str | None = None
    client_ids: tuple[str, ...] = ()
    related: dict[str, InvalidationResult] = field(default_factory=dict, hash=False)
    second_pass: str | None = None
    warnings: tuple[str, ...] | None = None
    refresh: RefreshResult | None = None
    inner_caches: tuple[str, ...] = ()
    loaded_at: str | None = None
    seconds_until_invalidated: float | None = None
    seconds_until_fresh: float | None = None
    announcement: Announcement | None = None

    @property
    def stale_time(self) -> str | None:
        """How long the map was stale, in words. None: not known."""
        if self.seconds_until_invalidated is None:
            return None
        fresh = "" if self.seconds_until_fresh is None else f", first fresh tile after {self.seconds_until_fresh:,.1f} s"
        return f"invalidated {self.seconds_until_invalidated:,.1f} s after the load{fresh}"

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict of JSON types."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()} | {
            "verification": self.verification and self.verification.to_dict(),
            "refresh": self.refresh and self.refresh.to_dict(),
            "announcement": self.announcement and self.announcement.to_dict(),
            "related": {udf_id: result.to_dict() for udf_id, result in self.related.items()},
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> InvalidationResult:
        """A result from the dict that `to_dict` returned."""
        checked, refreshed = fields.get("verification"), fields.get("refresh")
        announced = fields.get("announcement")
        related = fields.get("related") or {}
        read: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()} | {
            "verification": checked and Verification(**{name: tuple(tiles) for name, tiles in checked.items()}),
            "refresh": refreshed and RefreshResult.from_dict(refreshed),
            "announcement": announced and Announcement.from_dict(announced),
            "related": {udf_id: cls.from_dict(result) for udf_id, result in related.items()},
        }
        return cls(**read)

    @classmethod
    def merge(cls, results: Iterable[InvalidationResult | Mapping[str, Any]]) -> InvalidationResult:
        """Merge several results into one, such as those of an invalidation's shards. Counts are added, and the longest time
        is taken.

        Args:
            results: results, or their dicts, all of the same UDF and instance.

        Raises:
            InvalidInputError: there are no results, or they are of several UDFs or instances.
        """
        parts = [part if isinstance(part, InvalidationResult) else cls.from_dict(part) for part in results]
        if not parts:
            raise InvalidInputError("There are no results to merge.")
        for name in ("udf_id", "client_id"):
            several = sorted({getattr(part, name) for part in parts} - {None})
            if len(several) > 1:
                raise InvalidInputError(f"Results of several {name}s cannot be merged: {', '.join(several)}.")
        checked = [part.verification for part in parts if part.verification]
        refreshed = [part.refresh for part in parts if part.refresh]
        warned = [part.warnings for part in parts if part.warnings is not None]
        relatives = dict.fromkeys(udf_id for part in parts for udf_id in part.related)
        return cls(
            udf_id=next((part.udf_id for part in parts if part.udf_id), None),
            client_id=next((part.client_id for part in parts if part.client_id), None),
            tiles_invalidated=_total(part.tiles_invalidated for part in parts),
            objects_deleted=_total(part.objects_deleted for part in parts),
            requests_sent=sum(part.requests_sent for part in parts),
            retries=sum(part.retries for part in parts),
            elapsed_seconds=max(part.elapsed_seconds for part in parts),
            tiles_already_done=sum(part.tiles_already_done for part in parts),
            verification=Verification(*(tuple(itertools.chain(*(getattr(each, name) for each in checked))) for name in _KINDS))
            if checked
            else None,
            refresh=RefreshResult.merge(refreshed) if refreshed else None,
            zooms_left_stale=tuple(sorted({zoom for part in parts for zoom in part.zooms_left_stale})),
            note="; ".join(dict.fromkeys(part.note for part in parts if part.note)) or None,
            client_ids=tuple(dict.fromkeys(client_id for part in parts for client_id in part.client_ids)),
            related={
                udf_id: cls.merge(part.related[udf_id] for part in parts if udf_id in part.related) for udf_id in relatives
            },
            second_pass=next((part.second_pass for part in parts if part.second_pass), None),
            warnings=tuple(dict.fromkeys(itertools.chain(*warned))) if warned else None,
            inner_caches=tuple(dict.fromkeys(itertools.chain.from_iterable(part.inner_caches for part in parts))),
            loaded_at=min((part.loaded_at for part in parts if part.loaded_at), default=None),
            seconds_until_invalidated=max(_known(part.seconds_until_invalidated for part in parts), default=None),
            seconds_until_fresh=min(_known(part.seconds_until_fresh for part in parts), default=None),
            announcement=Announcement.merge(part.announcement for part in parts if part.announcement),
        )

    def followed_by(self, second: InvalidationResult) -> InvalidationResult:
        """The result of two passes over the same tiles: of what was done in both, the sum, otherwise what the second says."""
        return replace(
            second,
            objects_deleted=_total((self.objects_deleted, second.objects_deleted)),
            requests_sent=self.requests_sent + second.requests_sent,
            retries=self.retries + second.retries,
            elapsed_seconds=round(self.elapsed_seconds + second.elapsed_seconds, 3),
            related={
                udf_id: self.related[udf_id].followed_by(result) if udf_id in self.related else result
                for udf_id, result in second.related.items()
            },
            second_pass="done",
            warnings=self.warnings if second.warnings is None else second.warnings,
        )

    def _repr_html_(self) -> str:
        """The result in a notebook."""
        rows = [
            ("UDF id", self.udf_id or "not looked up, because there was nothing to send"),
            ("instance", ", ".join(self.client_ids) or self.client_id),
            ("tiles", "everything" if self.tiles_invalidated is None else self.tiles_invalidated),
            ("by an earlier call", self.tiles_already_done or None),
            ("cached objects deleted", self.objects_deleted),
            ("requests", self.requests_sent),
            ("retries", self.retries or None),
            ("seconds", f"{self.elapsed_seconds:,.2f}"),
            ("verified", self.verification and str(self.verification).removeprefix("verified: ")),
            ("refreshed", self.refresh and str(self.refresh).removeprefix("refreshed: ")),
            ("zooms left stale", ", ".join(map(str, self.zooms_left_stale)) or None),
            ("related UDFs", ", ".join(self.related) or None),
            ("inner caches deleted", ", ".join(self.inner_caches) or None),
            ("second pass", self.second_pass),
            ("how long it was stale", self.stale_time),
            ("open maps", self.announcement and str(self.announcement)),
            ("note", self.note),
            *(("warning", warning) for warning in self.warnings or ()),
        ]
        return table("Invalidated", rows)

    def __str__(self) -> str:
        target = f"UDF {self.udf_id}" if self.udf_id else "a UDF that was not looked up"
        tiles = self.tiles_invalidated
        what = f"all of {target}" if tiles is None else f"{counted(tiles, 'tile')} of {target}"
        objects = "" if self.objects_deleted is None else f", {counted(self.objects_deleted, 'cached object')} deleted"
        requests = counted(self.requests_sent, "request")
        retries = f" including {counted(self.retries, 'retry')}" if self.retries else ""
        earlier = f", {self.tiles_already_done:,} more by an earlier call" if self.tiles_already_done else ""
        if len(self.client_ids) > 1:
            what += f" on {counted(len(self.client_ids), 'instance')}"
        if self.related:
            what += f" and {counted(len(self.related), 'related UDF')}"
        if self.inner_caches:
            what += f" and inner caches ({', '.join(self.inner_caches)})"
        if self.second_pass:
            what += " in two passes" if self.second_pass == "done" else f" (second pass {self.second_pass})"
        verified = f"; {self.verification}" if self.verification else ""
        verified += f"; {self.refresh}" if self.refresh else ""
        verified += f"; {self.stale_time}" if self.stale_time else ""
        verified += f"; {self.announcement}" if self.announcement else ""
        note = f"; {self.note}" if self.note else ""
        return f"invalidated {what}{earlier}{objects} ({requests}{retries}, {self.elapsed_seconds:.2f} s){verified}{note}"


def _known(numbers: Iterable[float | None]) -> list[float]:
    return [number for number in numbers if number is not None]


def _total(numbers: Iterable[int | None]) -> int | None:
    known = list(numbers)
    return None if None in known else sum(number or 0 for number in known)


class PartialInvalidationError(FusedCacheError):
    """Something was invalidated, and something else failed.

    Attributes:
        result: what was done, as an `InvalidationResult` of the confirmed tiles.
        remaining: exactly the UDF's tiles not yet confirmed as invalidated on every instance. Pass it to the next call. If
            necessary, it reads the rest of the caller's own iterable as it goes and keeps what it has read, so it can be read
            more than once. None for the whole UDF.
        unfinished: the same for each UDF and instance.
        cause: the error that ended the call, or the first of several. ``retryable``: whether a retry may help any of them.
    """

    result: InvalidationResult
    cause: Exception

    def __init__(
        self,
        message: str,
        *,
        result: InvalidationResult,
        remaining: Remaining | None,
        cause: Exception,
        unfinished: tuple[Unfinished, ...] = (),
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message, status=getattr(cause, "status", None))
        self.result = result
        self.remaining = remaining
        self.unfinished = unfinished
        self.cause = cause
        self.retryable = bool(getattr(cause, "retryable", False)) if retryable is None else retryable

    def __reduce__(self) -> tuple[object, ...]:
        named = {name: getattr(self, name) for name in ("result", "remaining", "cause", "unfinished", "retryable")}
        return _rebuild_partial, (self.message, named)


def _rebuild_partial(message: str, named: dict[str, Any]) -> PartialInvalidationError:
    return PartialInvalidationError(message, **named)


class RefreshError(FollowUpError):
    """What was to be invalidated is invalidated, but some of it could not be refreshed: its first visitor waits.

    Attributes:
        refresh: what was refreshed, and why the rest was not.
        result: the result of the invalidation. None for `fused_cache_ops.refresh_cache`.
        not_refreshed: the tiles that were not refreshed. Pass them to `fused_cache_ops.refresh_cache`.
    """

    def __init__(self, refresh: RefreshResult, not_refreshed: Remaining, result: InvalidationResult | None = None) -> None:
        reasons = "; ".join(list(with_reasons(refresh.failed, 3))[:3]) or "the deadline of the refresh had passed"
        done = "" if result is None else "Everything is invalidated. "
        cold = counted(len(refresh.failed) + refresh.not_requested, "result")
        super().__init__(
            f"{done}{cold} could not be refreshed: {reasons}. To continue, refresh the same selection again: what is cached "
            "costs no run."
        )
        self.refresh = refresh
        self.retryable = refresh.retryable
        self.result = result
        self.not_refreshed = not_refreshed

    def __reduce__(self) -> tuple[object, ...]:
        return RefreshError, (self.refresh, self.not_refreshed, self.result)


class VerificationError(FollowUpError):
    """What was to be invalidated is invalidated, but tiles that were looked at afterwards still came from the cache.

    They were invalidated and requested again, twice, since a visitor may have come in between.

    Attributes:
        result: what was done. Its ``verification`` lists the tiles.
        remaining: the tiles that came from the cache. Pass them to the next call.
    """

    retryable = True
    result: InvalidationResult

    def __init__(self, result: InvalidationResult, remaining: Remaining) -> None:
        checked = result.verification or Verification()
        stale = checked.from_cache
        shown = "; ".join(with_reasons(stale, 3))
        super().__init__(
            f"Everything is invalidated, but {len(stale):,} of {counted(checked.sampled, 'tile')} still came from the cache, "
            f"even after being invalidated again: {shown}. `fused-cache-ops inspect` says what may keep a map stale. To "
            "accept stale tiles, pass fail_on_stale=False."
        )
        self.result = result
        self.remaining = remaining

    def __reduce__(self) -> tuple[object, ...]:
        return VerificationError, (self.result, self.remaining)
