"""The one function that every wrapper and the command line call: tiles in, batches out, a result back."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal, overload

from fused_cache_ops.batches import MAX_BATCH, Batch, Outbox
from fused_cache_ops.checkpoint import Checkpoint, CheckpointLocation, check_location
from fused_cache_ops.client import FusedClient
from fused_cache_ops.errors import ConfigurationError, FusedCacheError, InvalidInputError, PartialInvalidationError
from fused_cache_ops.identifiers import parse_udf
from fused_cache_ops.keywords import CallKeywords
from fused_cache_ops.progress import OnProgress, Progress
from fused_cache_ops.result import InvalidationResult
from fused_cache_ops.selection import Bounds, Selection, WhenTooMany, read_selection
from fused_cache_ops.sending import Work, send_tiles
from fused_cache_ops.settings import DEFAULT_CONCURRENCY, DEFAULT_DEADLINE, DEFAULT_TIMEOUT, Secret
from fused_cache_ops.tile_list import TilesFile
from fused_cache_ops.tiles import (
    DEFAULT_MAX_TILES,
    HIGHEST_ZOOM,
    NOT_GIVEN,
    WHOLE_UDF,
    NotGiven,
    RemainingTiles,
    TileSelection,
)
from fused_cache_ops.verification import Sample, Verification, check_verify, verify_tiles
from fused_cache_ops.zooms import Zooms

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Unpack

    from fused_cache_ops.plan import InvalidationPlan

logger = logging.getLogger(__name__)


class _Keywords(CallKeywords, total=False):
    client_id: str | None
    token: str | None
    base_url: str | None
    timeout: float
    deadline: float
    max_concurrency: int
    max_requests_per_second: float | None
    client: FusedClient | None


@overload
def invalidate_cache(udf: str, *, dry_run: Literal[False] = False, **keywords: Unpack[_Keywords]) -> InvalidationResult: ...
@overload
def invalidate_cache(udf: str, *, dry_run: Literal[True], **keywords: Unpack[_Keywords]) -> InvalidationPlan: ...
def invalidate_cache(
    udf: str,
    *,
    tiles: TileSelection = WHOLE_UDF,
    bounds: Bounds | NotGiven = NOT_GIVEN,
    geometry: Any = NOT_GIVEN,
    tiles_file: TilesFile | NotGiven = NOT_GIVEN,
    zooms: Zooms | None = None,
    buffer: int = 0,
    max_tiles: int = DEFAULT_MAX_TILES,
    when_too_many: WhenTooMany = "fail",
    shard: tuple[int, int] | None = None,
    dry_run: bool = False,
    checkpoint: CheckpointLocation | None = None,
    on_progress: OnProgress | None = None,
    on_plan: Callable[[InvalidationPlan], object] | None = None,
    verify: int = 0,
    shared_token: str | None = None,
    client_id: str | None = None,
    token: str | None = None,
    base_url: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    deadline: float = DEFAULT_DEADLINE,
    max_concurrency: int = DEFAULT_CONCURRENCY,
    max_requests_per_second: float | None = None,
    max_zoom: int = HIGHEST_ZOOM,
    client: FusedClient | None = None,
) -> InvalidationResult | InvalidationPlan:
    """Invalidate the cached results of a UDF: all of them, or those of some tiles.

    Without a selection the whole UDF is invalidated, as by the SDK's method of this name. A selection is one of ``tiles``,
    ``tiles_file``, ``bounds`` and ``geometry``: one tile goes by a single request, more in batches of up to 50,000, or one
    by one over kept-alive connections where the deployment takes no batches. An empty selection sends nothing. None is an
    error: a load that forgot its ``return`` must not invalidate everything. Requests that fail in passing are repeated
    until the deadline.

    Args:
        udf: an id (a UUID), ``name``, ``canvas/name``, ``team/name``, ``user@host/name``, ``@handle/name``, or a shared
            token (``fsh_…``, ``fc_…``). Names are looked up over HTTP; the UDF's code is never run.
        tiles: any iterable of `Tile`, ``(z, x, y)``, ``"z/x/y"`` or ``{"z": …, "x": …, "y": …}``, read once as it goes.
        bounds: ``(west, south, east, north)`` in degrees, or several of these; west > east crosses the antimeridian.
        geometry: GeoJSON (a dict or text), WKT, WKB, anything with ``__geo_interface__``, a GeoDataFrame (reprojected from
            its CRS), the path or URL of a vector file, or a list of these, for the union. Needs the extra ``geo``.
        tiles_file: a list of tiles, one a line: a path, ``"-"`` or an open file; ``z/x/y``, CSV, JSON lines or quadkeys,
            gzip or not; read as it goes.
        zooms: ``12``, ``range(10, 15)``, ``"10-14"``, ``[10, 12]``. Needed with ``bounds`` and ``geometry``; with a list
            of tiles it adds their parents and children at these zooms.
        buffer: tiles to add on every side, for UDFs that read beyond their tile.
        max_tiles: the most tiles that bounds, a geometry, or a list's ``zooms`` and ``buffer`` may come to. A plain
            list is sent as it is given, and so is what can be read only once.
        when_too_many: beyond ``max_tiles``: ``"fail"``; ``"whole-udf"`` invalidates everything; ``"coarser"`` leaves
            the deepest zooms stale. The latter two warn, and the result says so.
        shard: ``(i, n)``: of the selection only the ``i``-th of ``n`` equal parts, counted from 0, so that several machines
            share one invalidation. `InvalidationResult.merge` makes one result of theirs.
        dry_run: return an `InvalidationPlan`; send nothing.
        checkpoint: where to keep a record of what is done: a path, or with the extra ``fsspec`` any URL that it knows; a
            place that ends in ``/`` is a folder, with a file for each selection. A call that ends early, however it
            ends, leaves it; the next call with the same keywords sends the rest; one that ends well removes it. Name one
            place for each load: a record that has not been touched for 12 hours is taken for an earlier load's.
        on_progress: called as ``on_progress(done, total, retries)`` in the caller's thread, a few times a second at most.
        on_plan: called once with the `InvalidationPlan`, before anything is sent: the counts and the footprint, which cost
            no second reading of bounds and geometries.
        verify: afterwards, ask for so many of the tiles through a shared token, and tell in the result which of them were
            computed anew. Each one runs the UDF.
        shared_token: for ``verify``; not needed where ``udf`` is one.
        client_id: as for `FusedClient`, like the next six.
        token: as for `FusedClient`.
        base_url: as for `FusedClient`.
        timeout: seconds that one request may take.
        deadline: seconds that the call may take, retries included.
        max_concurrency: requests in flight at once where tiles go one by one.
        max_requests_per_second: the most requests a second; None: as many as the service takes.
        max_zoom: the highest zoom that the selection may hold.
        client: an open client to use instead of one for this call alone; it brings its own settings.

    Returns:
        What was done, counted.

    Raises:
        InvalidInputError: the UDF or the selection cannot be read. Every tile of a collection is checked before the
            first request; those of a generator or a file are checked as they come.
        ConfigurationError: a setting is missing or unusable; no request was sent.
        InvalidationCancelledError: `FusedClient.cancel` ended it.
        PartialInvalidationError: it failed after some tiles were invalidated; ``remaining`` holds the rest.
        FusedCacheError: it failed before; the subclass says why, and ``retryable`` whether to try again.
    """
    shared_token = Secret(shared_token) if isinstance(shared_token, str) else shared_token
    token = Secret(token) if isinstance(token, str) else token  # so that no traceback's locals show it
    parse_udf(udf)
    selection = read_selection(
        tiles=tiles,
        bounds=bounds,
        geometry=geometry,
        tiles_file=tiles_file,
        zooms=zooms,
        buffer=buffer,
        max_tiles=max_tiles,
        when_too_many=when_too_many,
        max_zoom=max_zoom,
        shard=shard,
    )
    if checkpoint is not None:
        check_location(checkpoint)
    if dry_run or on_plan is not None:
        from fused_cache_ops.plan import plan_selection

        plan = plan_selection(udf, selection)
        if dry_run:
            return plan
        if on_plan is not None:
            on_plan(plan)
    if client is not None:
        given = (token, client_id, base_url, timeout, deadline, max_concurrency, max_requests_per_second)
        if given != (None, None, None, DEFAULT_TIMEOUT, DEFAULT_DEADLINE, DEFAULT_CONCURRENCY, None):
            raise ConfigurationError(
                "Give client=, which has settings of its own, or token=, deadline= and the like: not both."
            )
        if not isinstance(client, FusedClient):
            raise ConfigurationError(f"client is of type {type(client).__name__}, not a FusedClient.")
        return _Call(client, udf, selection, checkpoint, on_progress, verify, shared_token).run()
    with FusedClient(
        token=token,
        client_id=client_id,
        base_url=base_url,
        timeout=timeout,
        deadline=deadline,
        max_concurrency=max_concurrency,
        max_requests_per_second=max_requests_per_second,
    ) as own:
        return _Call(own, udf, selection, checkpoint, on_progress, verify, shared_token).run()


class _Call:
    """One call, from a selection that has been read to its result."""

    def __init__(
        self,
        client: FusedClient,
        udf: str,
        selection: Selection,
        checkpoint: CheckpointLocation | None,
        on_progress: OnProgress | None,
        verify: int,
        shared_token: str | None,
    ) -> None:
        if checkpoint is not None and not selection.repeatable:
            raise InvalidInputError(
                "A selection that can be read only once has no checkpoint, since a second call could not tell what is done: "
                "give a list or a file instead of a generator, standard input or an open file."
            )
        if verify and selection.whole:
            raise InvalidInputError("verify needs a selection of tiles to take samples from: the whole UDF has none.")
        self._client = client
        self._udf = udf
        self._selection = selection
        self._checkpoint = checkpoint
        self._run_token = check_verify(verify, udf, shared_token, client)
        self._sample = Sample(verify) if verify else None
        self._retrier = client.start()
        self._progress = Progress(on_progress)
        self._record: Checkpoint | None = None
        self._already_done = 0
        self._work = Work(
            Outbox(selection.batches(MAX_BATCH)),
            self._retrier,
            note=self._note if self._sample else None,
            tick=self._tick,
        )

    def run(self) -> InvalidationResult:
        """Send everything.

        Raises:
            FusedCacheError: with what is not known to be done as ``remaining``.
        """
        udf_id = parse_udf(self._udf).udf_id
        failure: Exception | None = None
        verification: Verification | None = None
        try:
            if self._selection.whole or self._work.outbox.look_ahead():
                udf_id = self._client.resolve_udf(self._udf, retrier=self._retrier)
                self._send(udf_id)
            if self._sample and self._run_token:
                verification = verify_tiles(self._client, self._run_token, self._sample.tiles)
        except Exception as error:
            failure = error
        finally:
            if self._record is not None and not self._is_complete():
                self._record.save(at_once=True)
        work, whole = self._work, self._selection.whole
        result = InvalidationResult(
            udf_id=udf_id,
            client_id=self._client.client_id,
            tiles_requested=None if whole else work.confirmed,
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
        if self._selection.whole:
            self._client.invalidate_udf(udf_id, retrier=self._retrier)
            return
        work = self._work
        self._progress.total = self._selection.known_count()
        if self._checkpoint is not None:
            self._resume(self._checkpoint, udf_id)
        self._progress.tell(self._already_done, 0, at_once=True)
        send_tiles(self._client, udf_id, work)
        self._progress.tell(self._already_done + work.confirmed, self._retrier.retries, at_once=True)
        if self._record is not None:
            self._record.remove()

    def _resume(self, checkpoint: CheckpointLocation, udf_id: str) -> None:
        selection, total = self._selection.digest()
        key = {
            "udf_id": udf_id,
            "client_id": self._client.resolve_client_id(retrier=self._retrier),
            "base_url": self._client.base_url,
            "selection": selection,
        }
        self._record = Checkpoint(checkpoint, key, self._selection.end(total))
        self._work.done = self._record.done
        self._already_done = self._record.done.count
        self._progress.total = total
        self._work.outbox = Outbox(self._selection.batches(MAX_BATCH, self._record.done))

    def _is_complete(self) -> bool:
        return self._progress.total is not None and self._work.done.count >= self._progress.total

    def _note(self, batch: Batch) -> None:
        if self._sample is not None:
            self._sample.add(batch)

    def _tick(self) -> None:
        """In the caller's thread, between two looks at the workers."""
        self._progress.tell(self._already_done + self._work.confirmed, self._retrier.retries)
        if self._record is not None:
            with self._work.lock:
                self._record.save()

    def _remaining(self, failure: Exception) -> RemainingTiles:
        if self._selection.repeatable:
            return self._selection.remaining(self._work.done, past_unreadable=isinstance(failure, InvalidInputError))
        return self._work.outbox.remaining()

    def _failed(self, failure: Exception, result: InvalidationResult) -> Exception:
        if self._work.confirmed == 0:
            if isinstance(failure, FusedCacheError) and not self._selection.whole:
                failure.remaining = self._remaining(failure)
            return failure
        kept = ""
        if self._record is not None:
            kept = " The checkpoint has a record of it: the same call again sends the rest."
        partial = PartialInvalidationError(
            f"{self._work.confirmed:,} tiles were invalidated, then sending ended: {failure} "
            f"The tiles still to do are in this error's .remaining: give them as tiles= to the next call.{kept}",
            result=result,
            remaining=self._remaining(failure),
            cause=failure,
        )
        partial.__cause__ = failure
        return partial
