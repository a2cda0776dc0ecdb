"""The one function that every wrapper and the command line call: tiles in, batches out, a result back."""

from __future__ import annotations

import contextvars
import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from fused_cache_ops.client import (
    DEFAULT_CONCURRENCY,
    DEFAULT_DEADLINE,
    DEFAULT_TIMEOUT,
    MAX_BATCH,
    FusedClient,
)
from fused_cache_ops.errors import ConfigurationError, FusedCacheError, PartialInvalidationError
from fused_cache_ops.identifiers import parse_udf
from fused_cache_ops.result import InvalidationResult
from fused_cache_ops.retry import Retrier, Stopped
from fused_cache_ops.settings import Secret
from fused_cache_ops.tiles import HIGHEST_ZOOM, WHOLE_UDF, RemainingTiles, Tile, TileSelection, TileStream

logger = logging.getLogger(__name__)

BATCHES_IN_FLIGHT = 4


def invalidate_cache(
    udf: str,
    *,
    tiles: TileSelection = WHOLE_UDF,
    client_id: str | None = None,
    token: str | None = None,
    base_url: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    deadline: float = DEFAULT_DEADLINE,
    max_concurrency: int = DEFAULT_CONCURRENCY,
    max_zoom: int = HIGHEST_ZOOM,
    client: FusedClient | None = None,
) -> InvalidationResult:
    """Invalidate the cached results of a UDF: all of them, or those of some tiles.

    Without ``tiles`` the whole UDF is invalidated, as by the SDK's method of this name. With ``tiles`` only those are:
    one by a single request, more in batches of up to 50,000, or one by one over kept-alive connections where the
    deployment takes no batches. Requests that fail in passing are repeated until the deadline.

    Args:
        udf: an id (a UUID), ``name``, ``canvas/name``, ``team/name``, ``user@host/name``, ``@handle/name``, or a shared
            token (``fsh_…``, ``fc_…``). Names are looked up over HTTP; the UDF's code is never run.
        tiles: any iterable of `Tile`, ``(z, x, y)``, ``"z/x/y"`` or ``{"z": …, "x": …, "y": …}``, read once as it
            goes. An empty one sends nothing. None is an error: leave ``tiles`` out for the whole UDF.
        client_id: as for `FusedClient`, like the next five.
        token: as for `FusedClient`.
        base_url: as for `FusedClient`.
        timeout: seconds to wait for the server, each time.
        deadline: seconds that the call may take, retries included.
        max_concurrency: requests in flight at once where tiles go one by one.
        max_zoom: the highest zoom that ``tiles`` may hold.
        client: an open client to use instead of one for this call alone; it brings its own settings.

    Returns:
        What was done, counted.

    Raises:
        InvalidInputError: the UDF or a tile cannot be read. Every tile of a collection is checked before the first
            request; a generator's are checked as they come.
        ConfigurationError: a setting is missing or unusable; no request was sent.
        PartialInvalidationError: it failed after some tiles were invalidated; ``remaining`` holds the rest.
        FusedCacheError: it failed before; the subclass says why, and ``retryable`` whether to try again.
    """
    token = Secret(token) if isinstance(token, str) else token  # so that no traceback's locals show it
    parse_udf(udf)
    stream = None if tiles is WHOLE_UDF else TileStream(tiles, max_zoom=max_zoom)
    if client is not None:
        if (token, client_id, base_url) != (None, None, None):
            raise ConfigurationError("Give client= or the settings token=, client_id= and base_url=, not both.")
        return _logged(_invalidate(client, udf, stream))
    with FusedClient(
        token=token,
        client_id=client_id,
        base_url=base_url,
        timeout=timeout,
        deadline=deadline,
        max_concurrency=max_concurrency,
    ) as own:
        return _logged(_invalidate(own, udf, stream))


def _logged(result: InvalidationResult) -> InvalidationResult:
    logger.info("Fused cache: %s", result)
    return result


def _invalidate(client: FusedClient, udf: str, stream: TileStream | None) -> InvalidationResult:
    retrier = Retrier(client.deadline)
    udf_id = parse_udf(udf).udf_id
    if stream is None:
        udf_id = client.resolve_udf(udf, retrier=retrier)
        client.invalidate_udf(udf_id, retrier=retrier)
        return _result(client, udf_id, retrier, tiles_requested=None, objects_deleted=None)
    work = _Work(stream, retrier)
    if not work.look_ahead():
        return _result(client, udf_id, retrier, tiles_requested=0, objects_deleted=0)
    failure: Exception | None = None
    try:
        udf_id = client.resolve_udf(udf, retrier=retrier)
        _send_tiles(client, udf_id, work, retrier)
    except Exception as error:
        failure = error
    result = _result(client, udf_id, retrier, tiles_requested=work.confirmed, objects_deleted=work.objects_deleted)
    if failure is None:
        return result
    if work.confirmed == 0:
        if isinstance(failure, FusedCacheError):
            failure.remaining = work.remaining()
        raise failure
    raise PartialInvalidationError(
        f"{work.confirmed:,} tiles were invalidated, then sending ended: {failure} "
        "The tiles still to do are in this error's .remaining: give them as tiles= to the next call.",
        result=result,
        remaining=work.remaining(),
        cause=failure,
    ) from failure


def _send_tiles(client: FusedClient, udf_id: str, work: _Work, retrier: Retrier) -> None:
    def send_batch(tiles: Sequence[Tile]) -> int | None:
        return client.invalidate_batch(udf_id, tiles, retrier=retrier)

    def send_tile(tiles: Sequence[Tile]) -> None:
        client.invalidate_tile(udf_id, tiles[0], retrier=retrier)

    # The first request goes alone: it tells whether this deployment takes batches at all.
    if work.look_ahead() > 1:
        try:
            work.do(work.take(MAX_BATCH), send_batch, final=False)
        except FusedCacheError as error:
            # 404 may mean "no such endpoint" or "no such UDF". A single tile's request settles it, just below.
            if error.status not in (404, 405):
                raise
            logger.info("No batches here (%s): trying tile by tile.", error.status)
        else:
            workers = min(BATCHES_IN_FLIGHT, client.max_concurrency)
            return _send_all(work, MAX_BATCH, send_batch, workers, retrier)
    work.do(work.take(1), send_tile)
    return _send_all(work, 1, send_tile, client.max_concurrency, retrier)


def _send_all(work: _Work, size: int, send: _Send, workers: int, retrier: Retrier) -> None:
    """Send what is left, ``size`` tiles a request, at most ``workers`` requests at once; raise the first failure.

    The tiles are read in the caller's thread (a database cursor may insist on it), and no further ahead than there
    are workers free to send them.
    """
    if not work.look_ahead():
        return
    failures: list[BaseException] = []
    slots = threading.Semaphore(workers)

    def job(tiles: list[Tile]) -> None:
        try:
            work.do(tiles, send)
        except BaseException as error:
            failures.append(error)
        finally:
            slots.release()

    with ThreadPoolExecutor(workers, thread_name_prefix="fused-cache-ops") as pool:
        try:
            while slots.acquire() and not failures and (tiles := work.take(size)):
                pool.submit(contextvars.copy_context().run, job, tiles)
        except BaseException:
            retrier.stop()
            raise
    for failure in failures:
        if not isinstance(failure, Stopped):
            raise failure


_Send = Callable[[Sequence[Tile]], "int | None"]


class _Work:
    """The tiles of one call: what is done, what is in hand, and the stream of what has not been read yet."""

    def __init__(self, stream: TileStream, retrier: Retrier) -> None:
        self.confirmed = 0
        self.objects_deleted: int | None = 0
        self._retrier = retrier
        self._stream = stream
        self._in_hand: deque[Tile] = deque()
        self._lock = threading.Lock()

    def look_ahead(self) -> int:
        """How many tiles are in hand, after reading up to one batch where there were none."""
        if not self._in_hand:
            self._in_hand.extend(itertools.islice(self._stream, MAX_BATCH))
        return len(self._in_hand)

    def take(self, count: int) -> list[Tile]:
        """The next ``count`` tiles, or as many as there are."""
        tiles = [self._in_hand.popleft() for _ in range(min(count, len(self._in_hand)))]
        try:
            tiles.extend(itertools.islice(self._stream, count - len(tiles)))
        except BaseException:
            self._put_back(tiles)
            raise
        return tiles

    def do(self, tiles: list[Tile], send: _Send, *, final: bool = True) -> None:
        """Send tiles and count them; where that fails they are back in hand and, if ``final``, all sending stops."""
        try:
            deleted = send(tiles)
        except BaseException:
            if final:
                self._retrier.stop()  # before the tiles are in reach again
            self._put_back(tiles)
            raise
        with self._lock:
            self.confirmed += len(tiles)
            total = self.objects_deleted
            self.objects_deleted = None if total is None or deleted is None else total + deleted

    def remaining(self) -> RemainingTiles:
        return RemainingTiles(list(self._in_hand), self._stream)

    def _put_back(self, tiles: list[Tile]) -> None:
        self._in_hand.extendleft(reversed(tiles))


def _result(
    client: FusedClient,
    udf_id: str | None,
    retrier: Retrier,
    *,
    tiles_requested: int | None,
    objects_deleted: int | None,
) -> InvalidationResult:
    return InvalidationResult(
        udf_id=udf_id,
        client_id=client.client_id,
        tiles_requested=tiles_requested,
        objects_deleted=objects_deleted,
        requests_sent=retrier.requests_sent,
        retries=retrier.retries,
        elapsed_seconds=round(retrier.elapsed, 3),
    )
