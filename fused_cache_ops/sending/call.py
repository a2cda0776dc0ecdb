"""One call, from a validated selection to its result."""

from __future__ import annotations

import logging

from fused_cache_ops.errors import FusedCacheError, InvalidInputError
from fused_cache_ops.outcome import InvalidationResult, PartialInvalidationError, Verification
from fused_cache_ops.secret import Secret
from fused_cache_ops.selection.batches import MAX_BATCH, Batch
from fused_cache_ops.selection.remaining import RemainingTiles
from fused_cache_ops.selection.selection import Selection, WholeUdf, nobody_watches
from fused_cache_ops.sending.checkpoint import Checkpoint, CheckpointLocation
from fused_cache_ops.sending.outbox import Outbox
from fused_cache_ops.sending.progress import OnProgress, Progress
from fused_cache_ops.sending.verification import Sample, check_verify_tiles, request_tiles
from fused_cache_ops.sending.workers import Work, send_tiles
from fused_cache_ops.service.retry import Retrier
from fused_cache_ops.service.service import Service
from fused_cache_ops.udf_reference import UdfReference

logger = logging.getLogger(__name__)


class Call:
    """One call, from a validated selection to its result."""

    def __init__(
        self,
        service: Service,
        retrier: Retrier,
        udf: UdfReference,
        selection: Selection | WholeUdf,
        checkpoint: CheckpointLocation | None,
        on_progress: OnProgress | None,
        verify_tiles: int,
        shared_token: Secret | None,
    ) -> None:
        tiles = selection if isinstance(selection, Selection) else None
        if checkpoint is not None and tiles is not None and not tiles.repeatable:
            raise InvalidInputError(
                "A checkpoint needs a selection that can be read more than once, so that a second call can tell what is done: "
                "pass a list or the path of a file instead of a generator, standard input or an open file."
            )
        if verify_tiles and tiles is None:
            raise InvalidInputError("verify_tiles needs a selection of tiles to sample from: the whole UDF has none.")
        self._service = service
        self._udf = udf
        self._selection = selection
        self._tiles = tiles
        self._checkpoint = checkpoint
        self._run_token = check_verify_tiles(verify_tiles, udf, shared_token, service)
        self._sample = Sample(verify_tiles) if verify_tiles else None
        self._retrier = retrier
        self._step = "sending"
        self._progress = Progress(on_progress)
        self._record: Checkpoint | None = None
        self._already_done = 0
        self._work = Work(
            Outbox(tiles.batches(MAX_BATCH) if tiles is not None else iter(())),
            self._retrier,
            note=self._note if self._sample else None,
            tick=self._tick,
        )

    def run(self) -> InvalidationResult:
        """Send everything.

        Raises:
            FusedCacheError: ``remaining`` holds the tiles not yet confirmed.
        """
        udf_id = self._udf.udf_id
        failure: Exception | None = None
        verification: Verification | None = None
        try:
            self._retrier.check()
            if self._tiles is None or self._work.outbox.look_ahead():
                udf_id = self._service.resolve_udf(self._udf, retrier=self._retrier)
                self._send(udf_id)
            if self._sample and self._run_token:
                self._step = "verifying"
                verification = request_tiles(self._service, self._retrier, self._run_token, self._sample.tiles)
        except Exception as error:
            failure = error
        except KeyboardInterrupt as interrupt:
            if self._tiles is not None:
                interrupt.remaining = self._remaining(self._tiles)  # type: ignore[attr-defined]
            raise
        finally:
            if self._record is not None and not self._is_complete():
                self._record.save(at_once=True)
        work, whole = self._work, self._tiles is None
        result = InvalidationResult(
            udf_id=udf_id,
            client_id=self._service.client_id,
            tiles_invalidated=None if whole else work.confirmed,
            objects_deleted=None if whole else work.objects_deleted,
            requests_sent=self._retrier.requests_sent,
            retries=self._retrier.retries,
            elapsed_seconds=round(self._retrier.elapsed, 3),
            tiles_already_done=self._already_done,
            verification=verification,
            zooms_left_stale=self._selection.zooms_left_stale,
            note=self._selection.note,
        )
        if failure is not None:
            raise self._failed(failure, result)
        logger.info("Fused cache: %s", result)
        return result

    def _send(self, udf_id: str) -> None:
        if self._tiles is None:
            self._service.invalidate_udf(udf_id, retrier=self._retrier)
            return
        work = self._work
        self._progress.total = self._tiles.known_count()
        if self._checkpoint is not None:
            self._resume(self._tiles, self._checkpoint, udf_id)
        self._progress.tell(self._already_done, 0, at_once=True)
        send_tiles(self._service, udf_id, work)
        self._progress.tell(self._already_done + work.confirmed, self._retrier.retries, at_once=True)
        if self._record is not None:
            self._record.remove()

    def _resume(self, tiles: Selection, checkpoint: CheckpointLocation, udf_id: str) -> None:
        selection, total = tiles.digest()
        key = {
            "udf_id": udf_id,
            "client_id": self._service.resolve_client_id(retrier=self._retrier),
            "base_url": self._service.base_url,
            "selection": selection,
        }
        self._record = Checkpoint(checkpoint, key, tiles.end(total))
        self._work.done = self._record.done
        self._already_done = self._record.done.count
        self._progress.total = total
        self._work.outbox = Outbox(tiles.batches(MAX_BATCH, self._record.done))

    def _is_complete(self) -> bool:
        return self._progress.total is not None and self._work.done.count >= self._progress.total

    def _note(self, batch: Batch) -> None:
        if self._sample is not None:
            self._sample.add(batch)

    def _tick(self) -> None:
        """Runs in the caller's thread, periodically, while workers send."""
        self._progress.tell(self._already_done + self._work.confirmed, self._retrier.retries)
        if self._record is not None:
            with self._work.lock:
                self._record.save()

    def _remaining(self, tiles: Selection) -> RemainingTiles:
        tiles.watch = nobody_watches
        if not tiles.repeatable:
            return self._work.outbox.remaining()
        try:
            return tiles.remaining(self._work.done)
        except InvalidInputError as error:  # the list was changed, so only the tiles in hand are known
            in_hand = self._work.outbox.in_hand()
            return RemainingTiles(in_hand.__iter__, (error.message,))

    def _failed(self, failure: Exception, result: InvalidationResult) -> Exception:
        tiles, confirmed = self._tiles, self._work.confirmed
        if tiles is None:
            return failure
        if confirmed == 0 and isinstance(failure, FusedCacheError):
            failure.remaining = self._remaining(tiles)
            return failure
        reason = str(failure) if isinstance(failure, FusedCacheError) else f"{type(failure).__name__}: {failure}."
        done = f"{confirmed:,} tiles were invalidated" if confirmed else "No tile was invalidated"
        remedy = ""
        if self._step == "sending":
            remedy = " The tiles not yet confirmed are in this error's .remaining: pass them as tiles= to the next call."
        if self._record is not None and self._record.saved_count:
            remedy += f" The checkpoint records {self._record.saved_count:,} tiles: run the same call again to send the rest."
        partial = PartialInvalidationError(
            f"{done} before {self._step} failed: {reason}{remedy}",
            result=result,
            remaining=self._remaining(tiles),
            cause=failure,
        )
        partial.__cause__ = failure
        return partial
