"""One call, from a validated selection to its result: every target in order, a second pass, verification and a refresh
if requested."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

from fused_cache_ops.announcements.announce import PATIENCE, announce, check_place
from fused_cache_ops.announcements.changed import Changed
from fused_cache_ops.errors import (
    FollowUpError,
    FusedCacheError,
    InvalidationCancelledError,
    InvalidInputError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    UnavailableError,
    Unfinished,
)
from fused_cache_ops.keywords.announce import Announcing, checked_source
from fused_cache_ops.keywords.h3_index import H3Index
from fused_cache_ops.keywords.inner_caches import read_folders
from fused_cache_ops.keywords.values import CheckpointLocation, Related
from fused_cache_ops.outcome.announcement import Announcement, AnnouncementError
from fused_cache_ops.outcome.interruption import InvalidationInterrupted
from fused_cache_ops.outcome.invalidation import (
    InvalidationResult,
    PartialInvalidationError,
    Verification,
    VerificationError,
)
from fused_cache_ops.outcome.refresh import RefreshResult
from fused_cache_ops.progress import OnProgress, Progress
from fused_cache_ops.running.asking import refuse_another_udf, run_token
from fused_cache_ops.running.refresh import RefreshPlan, refresh, report_failures
from fused_cache_ops.running.verification import Sample, check_verify_tiles, request_tiles
from fused_cache_ops.secret import Secret
from fused_cache_ops.selection.batches import MAX_BATCH
from fused_cache_ops.selection.remaining import RemainingTiles
from fused_cache_ops.selection.selection import Listed, Selection, WholeUdf, nobody_watches
from fused_cache_ops.selection.snapshot import TileSnapshot
from fused_cache_ops.selection.spans import Spans
from fused_cache_ops.sending.checkpoint import Checkpoint
from fused_cache_ops.sending.delivery import Delivery, confirmed_on_each, total_deleted
from fused_cache_ops.sending.folders import FolderDelivery, Folders
from fused_cache_ops.sending.indexing import Indexes
from fused_cache_ops.sending.outbox import Outbox
from fused_cache_ops.sending.stale_time import StaleTime
from fused_cache_ops.sending.targets import Targets, check_again_after, check_related, find_targets, refuse_shard
from fused_cache_ops.service.canvases import read_udf
from fused_cache_ops.service.retry import Retrier
from fused_cache_ops.service.service import Service
from fused_cache_ops.tiles.tile import ZOOM_LIMIT, Tile, is_boolean, parse_tile
from fused_cache_ops.udf_reference import UdfReference
from fused_cache_ops.wording import counted, quoted

logger = logging.getLogger(__name__)

_MORE_TRIES = 2
"""How often tiles that came from the cache are invalidated and asked for again: a visitor may have come in between."""

_OF_ONE_TARGET = (PermissionDeniedError, NotFoundError, InvalidRequestError, UnavailableError, RateLimitedError)
"""What ends one target. The others may still succeed. Anything else ends the call."""


class Call:
    """One call, from a validated selection to its result.

    Args:
        service: the deployment.
        retrier: the call's retries and its deadline.
        udf: the UDF.
        selection: what to invalidate.
        refresh_plan: what to refresh afterwards, or None.
        announcing: where to announce what is confirmed, or None. The selection can be read more than once then.
        h3_index: the index that must have what was loaded, or None.
        loaded_at: when the load was done, or None.
        folders: what deletes inner caches, if other calls share it.
        indexes: what looks at H3 indexes, if other calls share it.
        only_pass: 1 or 2 to make only one of the two passes of ``again_after``, without waiting. Tiles are verified after the
            second.
        on_targets: called once before anything is sent, with the targets, or None if there is nothing to send.
        checkpoint, on_progress, verify_tiles, fail_on_stale, shared_token, related, max_related, inner_caches, again_after: as
            for `fused_cache_ops.invalidate_cache`.

    Attributes:
        h3_index: the index that is waited for, or None.

    Raises:
        InvalidInputError: a keyword is invalid, or needs another selection.
        ConfigurationError: a checkpoint or a verification is not possible.
    """

    def __init__(
        self,
        service: Service,
        retrier: Retrier,
        udf: UdfReference,
        selection: Selection | WholeUdf,
        *,
        on_targets: Callable[[Targets | None], object],
        checkpoint: CheckpointLocation | None,
        on_progress: OnProgress | None,
        verify_tiles: int,
        fail_on_stale: bool,
        shared_token: Secret | None,
        related: Related | None,
        max_related: int,
        inner_caches: Any,
        again_after: float,
        refresh_plan: RefreshPlan | None,
        announcing: Announcing | None = None,
        h3_index: H3Index | None = None,
        loaded_at: datetime | None = None,
        folders: Folders | None = None,
        indexes: Indexes | None = None,
        only_pass: int | None = None,
    ) -> None:
        tiles = selection if isinstance(selection, Selection) else None
        check_related(related, max_related)
        check_again_after(again_after)
        if related is not None:
            refuse_shard(selection.shard)
        if tiles is not None and not tiles.repeatable:
            for given, what in (
                (checkpoint is not None, "A checkpoint"),
                (again_after or only_pass, f"again_after = {again_after:g}"),
            ):
                if given:
                    raise InvalidInputError(
                        f"{what} needs a selection that can be read more than once, so that a second "
                        f"{'call can tell what is done' if what == 'A checkpoint' else 'pass can send it again'}: "
                        "pass a list or the path of a file instead of a generator, standard input or an open file."
                    )
        if not is_boolean(fail_on_stale):
            raise InvalidInputError(f"fail_on_stale = {quoted(fail_on_stale)} must be True or False.")
        if verify_tiles and tiles is None:
            raise InvalidInputError("verify_tiles needs a selection of tiles to sample from: the whole UDF has none.")
        self._service = service
        self._retrier = retrier
        self._udf = udf
        self._selection = selection
        self._tiles = tiles
        self._on_targets = on_targets
        self._checkpoint = checkpoint
        self._related, self._max_related = related, max_related
        self._inner_caches = read_folders(inner_caches)
        self._folders = folders or Folders()
        self.h3_index = None if only_pass == 2 else h3_index  # the first pass has waited for it
        self._indexes = indexes or Indexes()
        self._stale_time = StaleTime(loaded_at)
        self._again_after = 0.0 if only_pass else again_after
        self._pass_number = only_pass or 1
        self._run_token = check_verify_tiles(verify_tiles, udf, shared_token, service)
        if refresh_plan is not None and refresh_plan.note is None:
            self._run_token = run_token("refresh", udf, shared_token, service)
        self._refresh_plan = None if only_pass == 1 else refresh_plan
        self._refreshed: Spans | None = None  # positions
        self._refresh: RefreshResult | None = None
        if announcing is not None:
            check_place(announcing)
        self._announcing = announcing
        self._is_announced_later = only_pass == 1
        self._sources: dict[str, str] = {}  # what the documents call each UDF
        self._announcements: dict[str, Announcement] = {}
        self._verify_tiles = 0 if only_pass == 1 else verify_tiles
        self._fail_on_stale = fail_on_stale
        self._sample = Sample(self._verify_tiles) if self._verify_tiles else None
        self._verification: Verification | None = None
        self._progress = Progress(on_progress)
        self._step = "sending"
        self._has_begun = False
        self._record: Checkpoint | None = None
        self._total: int | None = None
        self._targets: Targets | None = None
        self._earlier: list[Delivery] = []  # of the first pass, once it is over
        self._deliveries: list[Delivery] = []
        self._more: list[Delivery] = []  # of tiles that still came from the cache
        if tiles is not None and not (related is None and service.is_one_instance):
            tiles.keep()  # until it is known how often it is sent
        self._outbox = Outbox(tiles.batches(MAX_BATCH) if tiles is not None else iter(()))
        self._begun: Outbox | None = self._outbox
        self._kept_tiles: Selection | None = None
        self._single: RemainingTiles | None = None

    def run(self) -> InvalidationResult:
        """Send everything.

        Raises:
            FusedCacheError: ``remaining`` and ``unfinished`` hold what is not yet confirmed.
        """
        while (seconds := self.look_at_index()) is not None:
            logger.info("Fused cache: the index of the H3 table does not have the load yet: looking again in %.0f s.", seconds)
            with self._accounted():
                self._retrier.wait(seconds)
        self.begin()
        if (seconds := self.send()) is not None:
            logger.info("Fused cache: the second pass begins in %.0f s.", seconds)
            with self._accounted():
                self._step = "waiting for the second pass"
                self._retrier.wait(seconds)
            self.send_again()
        return self.conclude()

    def look_at_index(self) -> float | None:
        """Look at the index of the H3 table. Returns the seconds after which to look again, or None if it has what was loaded.
        As for `run`, like the parts that follow."""
        with self._accounted():
            self._step = "looking at the index of the H3 table"
            self._retrier.check()
            if self.h3_index is None or not self._has_anything():
                return None
            return self._indexes.look(self._service, self._retrier, self.h3_index)

    def _has_anything(self) -> bool:
        """Whether there is anything to send."""
        return self._tiles is None or self._outbox.look_ahead() > 0

    def begin(self) -> None:
        """Look up what is needed, and say where it goes."""
        with self._accounted():
            self._step, self._has_begun = "sending", True
            self._retrier.check()
            if self._has_anything():
                self._targets = find_targets(
                    self._service,
                    self._retrier,
                    self._udf,
                    self._related,
                    self._max_related,
                    self._inner_caches,
                    has_tiles=self._tiles is not None,
                )
                if self._run_token is not None:
                    refuse_another_udf(self._service, self._retrier, self._udf, self._run_token, self._targets.udf_id)
                if self._announcing is not None:
                    self._sources = self._named_sources(self._announcing, self._targets)
        self._on_targets(self._targets)

    def send(self) -> float | None:
        """Send everything once. Returns the seconds until it is to be sent again, or None."""
        with self._accounted():
            self._retrier.check()
            if self._targets is None:
                return None
            self._send(self._targets)
            if not self._again_after:
                return None
            wait = self._again_after if self._record is None else self._record.wait_left(self._again_after)
            self._begin_pass(self._targets, 2)
            return wait

    def has_waited(self, seconds: float) -> None:
        """Note a wait that the caller made for this call, and that does not count toward its deadline."""
        self._retrier.has_waited(seconds)

    def send_again(self) -> None:
        """Make the second pass."""
        with self._accounted():
            self._step = "sending again"
            self._finish_pass(2)

    def conclude(self) -> InvalidationResult:
        """Verify and refresh, if requested, and return the result."""
        with self._accounted():
            is_over = self._refresh_plan is None and not (self._announcing and self._announcing.must_succeed)
            if self._record is not None and is_over:
                self._record.remove()
            if self._targets is not None:
                self._look(self._targets)
            else:  # nothing was selected, so there is nothing to look at
                self._verification = None if self._sample is None else Verification()
                self._refresh = None if self._refresh_plan is None else RefreshResult(note=self._refresh_plan.note)
            if not self._is_announced_later:
                self._announce()
            result = self._result()
            if (stale := self._stale()) and self._fail_on_stale:
                raise VerificationError(result, RemainingTiles(stale.__iter__))
            if self._refresh_plan is not None and self._refresh is not None and self._refreshed is not None:
                report_failures(self._refresh_plan, self._refresh, self._refreshed, result)
            failed = tuple(each for each in self._announcements.values() if each.error is not None)
            if failed and self._announcing is not None and self._announcing.must_succeed:
                raise AnnouncementError(result, failed)
            if self._record is not None and not is_over:
                self._record.remove()
        logger.info("Fused cache: %s", result)
        return result

    def not_begun(self) -> InvalidationCancelledError:
        """The error for a call that was ended before it began: all of its tiles remain."""
        error = InvalidationCancelledError("The call was ended before anything was sent.")
        error.remaining = None if self._tiles is None else self._remaining(self._tiles)
        return error

    def ended(self) -> InvalidationResult | Exception:
        """What was done, if the caller ended the call between two of its parts."""
        if not self._has_begun:
            return self.not_begun()
        if all(each.is_complete for each in self._deliveries):
            return self._result()
        return self._failed(InvalidationCancelledError("The call was ended."))

    # -- sending -------------------------------------------------------------------------------------------------

    def _send(self, targets: Targets) -> None:
        tiles = self._tiles
        if tiles is not None:
            self._total = tiles.known_count()
            if self._checkpoint is not None:
                selection, self._total = tiles.digest()
                key = {"udf_id": targets.udf_id, "base_url": self._service.base_url, "selection": selection}
                self._record = Checkpoint(self._checkpoint, key, tiles.end(self._total))
            lists = sum(not target.is_whole for target in targets.all)
            is_named_whole = any(target.relation == "udf" and target.is_whole for target in targets.all)
            if lists == 1 and not (is_named_whole and self._sample is not None):
                tiles.stop_keeping()
            self._progress.total = None if self._total is None else self._total * lists * (2 if self._again_after else 1)
        self._begin_pass(targets, self._pass_number)
        self._finish_pass(self._pass_number)

    def _begin_pass(self, targets: Targets, number: int) -> None:
        self._earlier, self._deliveries = self._deliveries, []
        incomplete_level = math.inf
        for target in targets.all:
            tiles = None if target.is_whole else self._tiles
            place = (*target.cache, number)
            done = Spans() if self._record is None else self._record.spans(*place)
            if self._record is not None and target.level > incomplete_level:
                # It may have been computed since, from old results of what comes before.
                done = self._record.forget(*place)
            if target.is_folder:
                delivery: Delivery = FolderDelivery(target, done, self._folders, number)
            else:
                delivery = Delivery(target, tiles, done, self._total)
            if not delivery.is_complete:
                incomplete_level = min(incomplete_level, target.level)
            self._deliveries.append(delivery)
        self._tell(at_once=True)

    def _finish_pass(self, number: int) -> None:
        """Send to every target in order. One that fails does not keep the others from being invalidated.

        Raises:
            FusedCacheError: a target failed, or the call ended.
        """
        to_send = [each for each in self._deliveries if not each.is_complete]
        if self._sample is not None:
            self._sample = Sample(self._verify_tiles)
        for position, delivery in enumerate(to_send):
            self._retrier.check()
            parts = len(to_send) - position
            patience = math.inf if parts == 1 else self._retrier.left / parts
            try:
                delivery.send(
                    self._service,
                    self._service.branch(self._retrier, patience=patience),
                    self._outbox_for(delivery),
                    self._sample.add if self._sample is not None and delivery is self._sampling() else None,
                    functools.partial(self._tick, delivery),
                )
            except _OF_ONE_TARGET as error:
                delivery.failure = error
                if len(self._deliveries) > 1:
                    error.args = (f"{delivery.target.shown}: {error.message}",)
                if parts > 1:
                    logger.warning("%s The other UDFs and instances are invalidated nevertheless.", error.message)
        self._tell(at_once=True)
        if failures := self._failures():
            raise failures[0]
        self._stale_time.is_invalidated()
        if self._record is not None:
            self._record.end_pass(number)

    def _outbox_for(self, delivery: Delivery) -> Outbox | None:
        """What is left for a target. The first batch has been read already: the first target that is sent all tiles gets it."""
        if delivery.tiles is None:
            return None
        if delivery.done.count:
            return Outbox(delivery.tiles.batches(MAX_BATCH, delivery.done))
        begun, self._begun = self._begun, None
        return begun or Outbox(delivery.tiles.batches(MAX_BATCH))

    def _tick(self, delivery: Delivery) -> None:
        """Runs in the caller's thread, periodically, while workers send."""
        self._tell()
        if self._record is not None and delivery.work is not None:
            with delivery.work.lock:
                self._record.save()

    def _tell(self, *, at_once: bool = False) -> None:
        if self._tiles is not None:
            done = sum(each.done.count for each in self._all() if each.tiles is not None)
            retries = self._retrier.retries + sum(each.retries for each in self._all())
            self._progress.tell(done, retries, at_once=at_once)

    # -- looking at what became of it ----------------------------------------------------------------------------

    def _look(self, targets: Targets) -> None:
        """Refresh, and verify by the same answers. What still comes from the cache is invalidated and asked for again."""
        sample = self._sampled()
        if self._refresh_plan is not None:
            self._step = "refreshing"
            self._run_again(self._refresh_plan, sample)
        elif sample and self._run_token is not None:
            self._step = "verifying"
            self._verification = self._request(sample)
        for _ in range(_MORE_TRIES):
            if not (stale := self._stale()) or self._run_token is None or self._verification is None:
                return
            logger.info("Fused cache: %s came from the cache: invalidating and asking again.", counted(len(stale), "tile"))
            self._step = "verifying"
            self._invalidate_again(targets, stale)
            self._verification = self._verification.amended(self._request(stale))

    def _request(self, tiles: list[Tile]) -> Verification:
        assert self._run_token is not None  # noqa: S101 - otherwise nothing is verified
        found = request_tiles(self._service, self._retrier, self._run_token, tiles)
        if found.first_fresh is not None:
            self._stale_time.is_fresh(found.first_fresh)
        return found

    def _sampled(self) -> list[Tile] | None:
        """The tiles to verify. What a checkpoint had was not sent, but belongs to the selection."""
        if self._sample is None or self._tiles is None:
            return None
        sampling = self._sampling()
        of_same = [each for each in self._deliveries if sampling and each.target.cache.udf_id == sampling.target.cache.udf_id]
        if not of_same or any(each.recorded.count for each in of_same):
            self._sample = Sample(self._verify_tiles)
            for batch in self._tiles.batches(MAX_BATCH):
                self._sample.add(batch)
        return self._sample.tiles

    def _sampling(self) -> Delivery | None:
        """The delivery whose tiles are sampled: the named UDF's first one, or a caller's, if the named UDF is invalidated
        whole. None: all of them are."""
        return next((each for each in (*self._named(), *self._deliveries) if each.tiles is not None), None)

    def _stale(self) -> list[Tile]:
        found = () if self._verification is None else self._verification.from_cache
        return [parse_tile(each.partition(": ")[0], max_zoom=ZOOM_LIMIT) for each in found]

    def _invalidate_again(self, targets: Targets, tiles: list[Tile]) -> None:
        selection = Selection(Listed(TileSnapshot(iter(tiles)), (), 0), repeatable=True, size=len(tiles))
        for target in targets.all:
            if target.relation == "udf":
                delivery = Delivery(target, None if target.is_whole else selection, Spans(), len(tiles))
                outbox = None if target.is_whole else Outbox(selection.batches(MAX_BATCH))
                delivery.send(self._service, self._service.branch(self._retrier), outbox, None, lambda: None)
                self._more.append(delivery)
        self._stale_time.is_invalidated()

    def _run_again(self, plan: RefreshPlan, sample: list[Tile] | None) -> None:
        if plan.note is not None or self._run_token is None:
            self._refresh = RefreshResult(note=plan.note)
            return
        record = self._record
        self._refreshed = Spans() if record is None else record.spans("refresh", plan.fingerprint, 3)
        self._refresh, self._verification = refresh(
            self._service,
            self._retrier,
            self._run_token,
            plan,
            sample=sample,
            done=self._refreshed,
            save=lambda: None if record is None else record.save(),
            on_fresh=self._stale_time.is_fresh,
        )

    # -- what open maps are told ---------------------------------------------------------------------------------

    def _named_sources(self, announcing: Announcing, targets: Targets) -> dict[str, str]:
        """What the documents call each UDF.

        Raises:
            InvalidInputError: the service does not tell a name.
        """
        sources: dict[str, str] = {}
        for target in targets.all:
            if target.is_folder or target.cache.udf_id in sources:
                continue
            is_named = target.relation == "udf"
            name = announcing.source if is_named and announcing.source is not None else target.name
            if name is None and is_named:
                name = read_udf(self._service, self._udf, retrier=self._retrier).name
            if name is None:
                raise InvalidInputError(
                    f"announce: source is missing, because the service does not tell the name of {target.shown}. Nothing was "
                    "sent."
                )
            sources[target.cache.udf_id] = checked_source(name)
        return sources

    def _announce(self) -> None:
        """Announce what is confirmed, once."""
        if self._announcing is None or self._announcements:
            return
        patience = 1.0 if self._retrier.cancelled else PATIENCE
        for udf_id, source in self._sources.items():
            deliveries = [each for each in self._sent() if each.target.cache.udf_id == udf_id]
            if change := self._confirmed(deliveries, by_earlier_call=self._pass_number == 2):
                self._announcements[udf_id] = announce(self._announcing, source, change, patience)

    def _sent(self) -> list[Delivery]:
        """The deliveries that say what is confirmed: those of the first pass, once it is over."""
        return self._earlier or self._deliveries

    @staticmethod
    def _confirmed(deliveries: list[Delivery], *, by_earlier_call: bool) -> dict[str, Any]:
        """What is confirmed of one UDF on every instance, as an entry of a document. Empty: nothing. If the first pass was a
        call of its own, it has confirmed all, also where the second one failed."""
        if not deliveries or deliveries[0].tiles is None:
            is_done = deliveries and (by_earlier_call or all(each.is_complete for each in deliveries))
            return {"everything": True} if is_done else {}
        done, _ = confirmed_on_each(deliveries)
        if not done.count and not by_earlier_call:
            return {}
        tiles = deliveries[0].tiles.unwatched()
        try:
            return Changed().add(tiles.batches(MAX_BATCH) if by_earlier_call else tiles.those_in(done)).entry()
        except Exception:  # what was sent cannot be read again: its file has changed since
            logger.warning("Fused cache: which tiles are confirmed cannot be read again, so everything is announced.")
            return {"everything": True}

    # -- the outcome ---------------------------------------------------------------------------------------------

    def _named(self, deliveries: Iterable[Delivery] | None = None) -> list[Delivery]:
        """Those of the UDF that was named, one for each instance."""
        return [each for each in (self._deliveries if deliveries is None else deliveries) if each.target.relation == "udf"]

    def _failures(self) -> list[Exception]:
        return [each.failure for each in self._deliveries if each.failure is not None]

    def _result(self) -> InvalidationResult:
        targets = self._targets
        others = dict.fromkeys(each.target.cache.udf_id for each in self._relatives())
        named = self._named()
        return self._result_of(
            self._udf.udf_id if targets is None else targets.udf_id,
            self._named,
            named[0].tiles if named else self._tiles,
            extra={
                "client_id": self._service.client_id if targets is None else targets.client_ids[0],
                "requests_sent": self._retrier.requests_sent + sum(each.requests_sent for each in [*self._all(), *self._more]),
                "retries": self._retrier.retries + sum(each.retries for each in [*self._all(), *self._more]),
                "elapsed_seconds": round(self._retrier.elapsed, 3),
                "verification": self._verification,
                "refresh": self._refresh,
                "zooms_left_stale": self._selection.zooms_left_stale,
                "note": "; ".join(filter(None, (self._selection.note, self._why_whole(named)))) or None,
                "related": {udf_id: self._relative(udf_id) for udf_id in others},
                "warnings": None if targets is None else targets.warnings,
                "inner_caches": self._deleted_folders(),
                "announcement": None if targets is None else self._announcements.get(targets.udf_id),
                **self._stale_time.to_dict(),
            },
        )

    def _relatives(self) -> list[Delivery]:
        return [each for each in self._deliveries if each.target.relation in ("callee", "caller")]

    def _deleted_folders(self) -> tuple[str, ...]:
        """The folders that are deleted on every instance."""
        folders = [each for each in self._deliveries if each.target.is_folder]
        left = {each.target.name for each in folders if not each.is_complete}
        return tuple(dict.fromkeys(str(each.target.name) for each in folders if each.target.name not in left))

    def _why_whole(self, deliveries: list[Delivery]) -> str | None:
        return deliveries[0].target.note if deliveries and self._tiles is not None else None

    def _relative(self, udf_id: str) -> InvalidationResult:
        def own(deliveries: Iterable[Delivery]) -> list[Delivery]:
            return [each for each in deliveries if each.target.cache.udf_id == udf_id]

        found = own(self._deliveries)
        extra = {"note": self._why_whole(found), "announcement": self._announcements.get(udf_id)}
        return self._result_of(udf_id, own, found[0].tiles, extra=extra)

    def _result_of(
        self,
        udf_id: str | None,
        choose: Callable[[Iterable[Delivery]], list[Delivery]],
        tiles: Selection | None,
        *,
        extra: dict[str, Any],
    ) -> InvalidationResult:
        now, both = choose(self._sent()), choose(self._all())
        done, recorded = confirmed_on_each(now)
        client_ids = tuple(each.target.cache.client_id for each in now)
        fields: dict[str, Any] = {
            "client_id": next(iter(client_ids), None),
            "requests_sent": sum(each.requests_sent for each in both),
            "retries": sum(each.retries for each in both),
            "elapsed_seconds": round(sum(each.elapsed for each in both), 3),
        }
        return InvalidationResult(
            udf_id=udf_id,
            tiles_invalidated=None if tiles is None else done.count - recorded.count,
            objects_deleted=None if tiles is None else total_deleted(both),
            tiles_already_done=0 if tiles is None else recorded.count,
            client_ids=client_ids,
            second_pass="done" if self._earlier and all(each.is_complete for each in self._deliveries) else None,
            **(fields | extra),
        )

    def _all(self) -> list[Delivery]:
        return [*self._earlier, *self._deliveries]

    @contextlib.contextmanager
    def _accounted(self) -> Iterator[None]:
        """Raise what fails with what remains, and keep the checkpoint."""
        try:
            yield
        except KeyboardInterrupt as interrupt:
            self._save()
            remaining = None if self._tiles is None else self._remaining(self._tiles)
            raise InvalidationInterrupted(interrupt, remaining=remaining) from interrupt
        except FollowUpError:
            self._save()
            raise
        except Exception as error:
            self._save()
            self._announce()
            failed = self._failed(error)
            if failed is error:
                raise
            raise failed from error
        except BaseException:
            self._save()
            raise

    def _save(self) -> None:
        if self._record is not None and (self._refreshed is not None or not all(each.is_complete for each in self._deliveries)):
            self._record.save(at_once=True)

    def _remaining(self, tiles: Selection) -> RemainingTiles:
        """The named UDF's tiles that are not confirmed on every instance."""
        named = self._named()
        if named and named[0].tiles is None:  # it is invalidated whole
            is_done = all(each.is_complete for each in named)
            return RemainingTiles(().__iter__) if is_done else self._left_of(tiles, Spans(), None)
        return self._left_of(tiles, confirmed_on_each(named)[0], None)

    def _left_of(self, tiles: Selection, done: Spans, delivery: Delivery | None) -> RemainingTiles:
        if self._single is not None:
            return self._single
        tiles.watch = nobody_watches
        begun = [each.work for each in ([delivery] if delivery else self._deliveries) if each.work is not None]
        outbox = begun[-1].outbox if begun else self._outbox
        if not tiles.repeatable:
            self._single = outbox.remaining()  # it takes over the stream
            return self._single
        try:
            self._kept_tiles = self._kept_tiles or tiles.kept_for_later()
            return self._kept_tiles.remaining(done)
        except InvalidInputError as error:  # the list was changed, so only the tiles in hand are known
            return RemainingTiles(outbox.in_hand().__iter__, (error.message,))

    def _unfinished(self) -> tuple[Unfinished, ...]:
        return tuple(
            Unfinished(*each.target.cache, None if each.tiles is None else self._left_of(each.tiles, each.done, each))
            for each in self._deliveries
            if not each.is_complete and not each.target.is_folder
        )

    def _failed(self, failure: Exception) -> Exception:
        tiles = self._tiles
        unfinished = self._unfinished()
        remaining = None if tiles is None else self._remaining(tiles)
        anything_done = any(each.count_sent for each in self._all())
        failures = self._failures() or [failure]
        if not anything_done and not isinstance(failure, FusedCacheError):
            kind = UnavailableError if isinstance(failure, OSError) else InvalidInputError
            failure = kind(f"{_listed([failure])} Nothing was invalidated.")
        if not anything_done and isinstance(failure, FusedCacheError):
            failure.remaining, failure.unfinished = remaining, unfinished
            if len(failures) > 1:
                failure.args = (_listed(failures),)
                failure.retryable = _is_any_retryable(failures)
            return failure
        return PartialInvalidationError(
            f"{self._what_was_done()} {self._step} failed: {_listed(failures)}{self._remedy()}",
            result=self._result(),
            remaining=remaining,
            cause=failure,
            unfinished=unfinished,
            retryable=_is_any_retryable(failures),
        )

    def _what_was_done(self) -> str:
        if self._tiles is None or len(self._deliveries) > 1:
            complete = sum(each.is_complete for each in self._deliveries)
            found = counted(len(self._deliveries), "invalidation")
            folder = ", folder" * any(each.target.is_folder for each in self._deliveries)
            return f"{complete} of {found} succeeded (one for each UDF{folder} and instance), but"
        confirmed = sum(each.count_sent for each in self._all())
        if not confirmed:
            return "No tile was invalidated before"
        return f"{counted(confirmed, 'tile')} {'was' if confirmed == 1 else 'were'} invalidated before"

    def _remedy(self) -> str:
        remedy = ""
        if self._tiles is not None and self._step == "sending":
            remedy = " The tiles not yet confirmed are in this error's .remaining: pass them as tiles= to the next call."
        if len(self._deliveries) > 1:
            remedy += " .unfinished lists them for each UDF and instance."
        if self._record is not None and self._record.saved_count:
            recorded = counted(self._record.saved_count, "tile")
            remedy += f" The checkpoint records {recorded}: run the same call again to send the rest."
        return remedy


def check_announcing(announcing: Announcing, related: Related | None) -> None:
    """Reject a place that cannot tell apart the UDFs that are announced there.

    Raises:
        InvalidInputError: as said.
    """
    if related is not None and not announcing.opened_here().can_tell_apart:
        raise InvalidInputError(
            f"announce: to = {quoted(announcing.shown)} must be a folder, which ends in '/': with related, each UDF has a "
            "document of its own in it."
        )


def _listed(failures: list[Exception]) -> str:
    said = [str(each) if isinstance(each, FusedCacheError) else f"{type(each).__name__}: {each}." for each in failures]
    return " ".join(dict.fromkeys(said))


def _is_any_retryable(failures: list[Exception]) -> bool:
    return any(bool(getattr(each, "retryable", False)) for each in failures)
