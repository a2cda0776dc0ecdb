"""Results of an invalidation as plain data, and the error for one that failed after it had invalidated some tiles."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from fused_cache_ops.errors import FusedCacheError, InvalidInputError, Remaining, Unfinished
from fused_cache_ops.notebook import table
from fused_cache_ops.wording import counted, quoted_address, without_credentials


@dataclass(frozen=True)
class Verification:
    """The outcome of requesting the sampled tiles.

    Attributes:
        fresh: tiles that the UDF computed anew.
        from_cache: tiles that came from the cache, each with the tier that had it: ``10/1/2: memory`` or
            ``10/1/2: object storage``. They were not invalidated, or someone requested them in between.
        unknown: tiles that are neither certainly fresh nor certainly cached, each with the reason: there was no result, or a
            CDN may have answered.
    """

    fresh: tuple[str, ...] = ()
    from_cache: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def sampled(self) -> int:
        return len(self.fresh) + len(self.from_cache) + len(self.unknown)

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict of JSON types."""
        return {name: list(getattr(self, name)) for name in ("fresh", "from_cache", "unknown")}

    def __str__(self) -> str:
        return f"verified: {len(self.fresh)} of {self.sampled}"


@dataclass(frozen=True)
class Refresh:
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
    def from_dict(cls, fields: Mapping[str, Any]) -> Refresh:
        """A refresh from the dict that `to_dict` returned."""
        read: dict[str, Any] = {**fields, "failed": tuple(fields["failed"])}
        return cls(**read)

    @classmethod
    def merge(cls, refreshes: Iterable[Refresh]) -> Refresh:
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
        note: a sentence about what was done because there were too many tiles. Usually None.
        client_ids: the real-time instances. Empty if nothing was sent.
        related: for ``related``, the result of each caller and callee by its id.
        refresh: for ``refresh``, what was run again. None if not requested.
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
    refresh: Refresh | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict of JSON types."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()} | {
            "verification": self.verification and self.verification.to_dict(),
            "refresh": self.refresh and self.refresh.to_dict(),
            "related": {udf_id: result.to_dict() for udf_id, result in self.related.items()},
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> InvalidationResult:
        """A result from the dict that `to_dict` returned."""
        checked, refreshed = fields.get("verification"), fields.get("refresh")
        related = fields.get("related") or {}
        read: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()} | {
            "verification": checked and Verification(**{name: tuple(tiles) for name, tiles in checked.items()}),
            "refresh": refreshed and Refresh.from_dict(refreshed),
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
            verification=Verification(
                *(tuple(itertools.chain(*(getattr(each, name) for each in checked))) for name in Verification.__annotations__)
            )
            if checked
            else None,
            refresh=Refresh.merge(refreshed) if refreshed else None,
            zooms_left_stale=tuple(sorted({zoom for part in parts for zoom in part.zooms_left_stale})),
            note="; ".join(dict.fromkeys(part.note for part in parts if part.note)) or None,
            client_ids=tuple(dict.fromkeys(client_id for part in parts for client_id in part.client_ids)),
            related={
                udf_id: cls.merge(part.related[udf_id] for part in parts if udf_id in part.related) for udf_id in relatives
            },
            second_pass=next((part.second_pass for part in parts if part.second_pass), None),
            warnings=tuple(dict.fromkeys(itertools.chain(*warned))) if warned else None,
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
            ("second pass", self.second_pass),
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
            what += f" on {len(self.client_ids)} instances"
        if self.related:
            what += f" and {counted(len(self.related), 'related UDF')}"
        if self.second_pass:
            what += " in two passes" if self.second_pass == "done" else f" (second pass {self.second_pass})"
        verified = f"; {self.verification}" if self.verification else ""
        verified += f"; {self.refresh}" if self.refresh else ""
        note = f"; {self.note}" if self.note else ""
        return f"invalidated {what}{earlier}{objects} ({requests}{retries}, {self.elapsed_seconds:.2f} s){verified}{note}"


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


class RefreshError(FusedCacheError):
    """What was to be invalidated is invalidated, but some of it could not be refreshed: its first visitor waits.

    Attributes:
        refresh: what was refreshed, and why the rest was not.
        result: the result of the invalidation. None for `fused_cache_ops.refresh_cache`.
        not_refreshed: the tiles that were not refreshed. Pass them to `fused_cache_ops.refresh_cache`.
    """

    def __init__(self, refresh: Refresh, not_refreshed: Remaining, result: InvalidationResult | None = None) -> None:
        reasons = "; ".join(refresh.failed[:3]) or "the refresh_deadline had passed"
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

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict of JSON types. Of errors, the kind, the message and whether a retry may help."""
        return {
            "dataset": without_credentials(self.dataset, self.dataset),
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
                said = [str(each) for each in (result.verification, result.note, *(result.warnings or ())) if each]
            rows.append((udf, tiles, requests, ". ".join([failed.get(udf, "invalidated"), *said])))
        title = f"Dataset {quoted_address(self.dataset)}" + (f": {self.note}" if self.note else "")
        return table(title, rows, ("UDF", "tiles", "requests", "outcome"))

    def __str__(self) -> str:
        done = [result for udf, result in self.results.items() if udf not in self.failed]
        tiles = sum(result.tiles_invalidated or 0 for result in done)
        whole = sum(result.tiles_invalidated is None for result in done)
        parts = [counted(tiles, "tile")] * (whole < len(done)) + [f"{whole} whole"] * (whole > 0)
        requests = counted(sum(result.requests_sent for result in self.results.values()), "request")
        failed = f"; {len(self.failed)} failed: {', '.join(self.failed)}" if self.failed else ""
        note = f"; {self.note}" if self.note else ""
        what = f"invalidated {counted(len(done), 'UDF')} of the dataset {quoted_address(self.dataset)}"
        return f"{what} ({', '.join([*parts, requests])}, {self.elapsed_seconds:.2f} s){failed}{note}"


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


class DatasetInvalidationError(FusedCacheError):
    """Some of a dataset's UDFs could not be invalidated. The others are.

    Attributes:
        result: what was done, as a `DatasetResult`.
        remaining_by_udf: for each UDF that failed, the tiles not yet confirmed. None for a whole UDF, or where the selection
            itself was refused.
        unfinished: what was not completed, for each UDF and instance.
        retryable: whether a retry may help any of them.
    """

    result: DatasetResult

    def __init__(self, result: DatasetResult) -> None:
        count = len(result.failed)
        others = len(result.results.keys() - result.failed.keys())
        reasons = " ".join(f"{udf}: {error.message}" for udf, error in result.failed.items())
        super().__init__(
            f"{count} of {counted(count + others, 'UDF')} of the dataset {quoted_address(result.dataset)} failed. {reasons} "
            f"{'The others are invalidated. ' if others else ''}"
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
