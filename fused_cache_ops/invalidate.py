"""The one function that every wrapper and the command line call: tiles in, batches out, a result back."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, overload

from fused_cache_ops.batches import MAX_BATCH, Batch, Outbox
from fused_cache_ops.client import FusedClient
from fused_cache_ops.errors import ConfigurationError, FusedCacheError, PartialInvalidationError
from fused_cache_ops.identifiers import parse_udf
from fused_cache_ops.result import InvalidationResult
from fused_cache_ops.retry import Retrier, Stopped
from fused_cache_ops.selection import Bounds, Selection, SelectionKeywords, WhenTooMany, read_selection
from fused_cache_ops.settings import DEFAULT_CONCURRENCY, DEFAULT_DEADLINE, DEFAULT_TIMEOUT, Secret
from fused_cache_ops.tile_list import TilesFile
from fused_cache_ops.tiles import DEFAULT_MAX_TILES, HIGHEST_ZOOM, NOT_GIVEN, WHOLE_UDF, NotGiven, TileSelection
from fused_cache_ops.zooms import Zooms

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fused_cache_ops.plan import InvalidationPlan

logger = logging.getLogger(__name__)

BATCHES_IN_FLIGHT = 4


class _Keywords(SelectionKeywords, total=False):
    client_id: str | None
    token: str | None
    base_url: str | None
    timeout: float
    deadline: float
    max_concurrency: int
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
    dry_run: bool = False,
    client_id: str | None = None,
    token: str | None = None,
    base_url: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    deadline: float = DEFAULT_DEADLINE,
    max_concurrency: int = DEFAULT_CONCURRENCY,
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
        dry_run: return an `InvalidationPlan`; send nothing.
        client_id: as for `FusedClient`, like the next five.
        token: as for `FusedClient`.
        base_url: as for `FusedClient`.
        timeout: seconds to wait for the server, each time.
        deadline: seconds that the call may take, retries included.
        max_concurrency: requests in flight at once where tiles go one by one.
        max_zoom: the highest zoom that the selection may hold.
        client: an open client to use instead of one for this call alone; it brings its own settings.

    Returns:
        What was done, counted.

    Raises:
        InvalidInputError: the UDF or the selection cannot be read. Every tile of a collection is checked before the
            first request; those of a generator or a file are checked as they come.
        ConfigurationError: a setting is missing or unusable; no request was sent.
        PartialInvalidationError: it failed after some tiles were invalidated; ``remaining`` holds the rest.
        FusedCacheError: it failed before; the subclass says why, and ``retryable`` whether to try again.
    """
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
    )
    if dry_run:
        from fused_cache_ops.plan import plan_selection

        return plan_selection(udf, selection)
    if client is not None:
        given = (token, client_id, base_url, timeout, deadline, max_concurrency)
        if given != (None, None, None, DEFAULT_TIMEOUT, DEFAULT_DEADLINE, DEFAULT_CONCURRENCY):
            raise ConfigurationError(
                "Give client=, which has settings of its own, or token=, deadline= and the like: not both."
            )
        if not isinstance(client, FusedClient):
            raise ConfigurationError(f"client is of type {type(client).__name__}, not a FusedClient.")
        return _logged(_invalidate(client, udf, selection))
    with FusedClient(
        token=token,
        client_id=client_id,
        base_url=base_url,
        timeout=timeout,
        deadline=deadline,
        max_concurrency=max_concurrency,
    ) as own:
        return _logged(_invalidate(own, udf, selection))


def _logged(result: InvalidationResult) -> InvalidationResult:
    logger.info("Fused cache: %s", result)
    return result


def _invalidate(client: FusedClient, udf: str, selection: Selection) -> InvalidationResult:
    retrier = Retrier(client.deadline)
    work = _Work(Outbox(selection.batches(MAX_BATCH)), retrier)
    udf_id = parse_udf(udf).udf_id
    failure: Exception | None = None
    if selection.whole or work.outbox.look_ahead():
        try:
            udf_id = client.resolve_udf(udf, retrier=retrier)
            if selection.whole:
                client.invalidate_udf(udf_id, retrier=retrier)
            else:
                _send_tiles(client, udf_id, work)
        except Exception as error:
            failure = error
    result = InvalidationResult(
        udf_id=udf_id,
        client_id=client.client_id,
        tiles_requested=None if selection.whole else work.confirmed,
        objects_deleted=None if selection.whole else work.objects_deleted,
        requests_sent=retrier.requests_sent,
        retries=retrier.retries,
        elapsed_seconds=round(retrier.elapsed, 3),
        zooms_left_stale=selection.zooms_left_stale,
        note=selection.note,
    )
    if failure is None:
        return result
    if work.confirmed == 0:
        if isinstance(failure, FusedCacheError) and not selection.whole:
            failure.remaining = work.outbox.remaining()
        raise failure
    raise PartialInvalidationError(
        f"{work.confirmed:,} tiles were invalidated, then sending ended: {failure} "
        "The tiles still to do are in this error's .remaining: give them as tiles= to the next call.",
        result=result,
        remaining=work.outbox.remaining(),
        cause=failure,
    ) from failure


def _send_tiles(client: FusedClient, udf_id: str, work: _Work) -> None:
    def send_batch(batch: Batch) -> int | None:
        return client.invalidate_batch(udf_id, batch.body(), retrier=work.retrier)

    def send_tile(batch: Batch) -> None:
        client.invalidate_tile(udf_id, *batch, retrier=work.retrier)

    # The first request goes alone: it tells whether this deployment takes batches at all.
    if work.outbox.look_ahead() > 1:
        try:
            work.do_next(send_batch, final=False)
        except FusedCacheError as error:
            # 404 may mean "no such endpoint" or "no such UDF". A single tile's request settles it, just below.
            if error.status not in (404, 405):
                raise
            logger.info("No batches here (%s): trying tile by tile.", error.status)
        else:
            return _send_all(work, send_batch, min(BATCHES_IN_FLIGHT, client.max_concurrency))
    work.outbox.one_by_one()
    work.do_next(send_tile)
    return _send_all(work, send_tile, client.max_concurrency)


def _send_all(work: _Work, send: _Send, workers: int) -> None:
    """Send what is left, at most ``workers`` requests at once; raise the first failure.

    The tiles are read in the caller's thread (a database cursor may insist on it), and no further ahead than there
    are workers free to send them.
    """
    if not work.outbox.look_ahead():
        return
    failures: list[BaseException] = []
    slots = threading.Semaphore(workers)

    def job(batch: Batch) -> None:
        try:
            work.do(batch, send)
        except BaseException as error:
            failures.append(error)
        finally:
            slots.release()

    with ThreadPoolExecutor(workers, thread_name_prefix="fused-cache-ops") as pool:
        try:
            while slots.acquire() and not failures and (batch := work.outbox.take()):
                try:
                    pool.submit(contextvars.copy_context().run, job, batch)
                except BaseException:  # no thread could be started
                    work.outbox.put_back(batch)
                    raise
        except BaseException:
            work.retrier.stop()
            raise
    for failure in failures:
        if not isinstance(failure, Stopped):
            raise failure


_Send = Callable[[Batch], "int | None"]


class _Work:
    """The tiles of one call: what is confirmed, and the outbox of the rest."""

    def __init__(self, outbox: Outbox, retrier: Retrier) -> None:
        self.outbox = outbox
        self.retrier = retrier
        self.confirmed = 0
        self.objects_deleted: int | None = 0
        self._lock = threading.Lock()

    def do_next(self, send: _Send, *, final: bool = True) -> None:
        """Send the next batch, if there is one."""
        batch = self.outbox.take()
        if batch is not None:
            self.do(batch, send, final=final)

    def do(self, batch: Batch, send: _Send, *, final: bool = True) -> None:
        """Send a batch and count it; where that fails it is back in hand and, if ``final``, all sending stops."""
        try:
            deleted = send(batch)
        except BaseException:
            if final:
                self.retrier.stop()  # before the tiles are in reach again
            self.outbox.put_back(batch)
            raise
        with self._lock:
            self.confirmed += len(batch)
            total = self.objects_deleted
            self.objects_deleted = None if total is None or deleted is None else total + deleted
