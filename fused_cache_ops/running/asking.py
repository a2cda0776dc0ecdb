"""Asking for results of a shared UDF: some at once, and what came back."""

from __future__ import annotations

import concurrent.futures
import itertools
import logging
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from fused_cache_ops.errors import (
    ConfigurationError,
    FusedCacheError,
    InvalidationCancelledError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    UnavailableError,
)
from fused_cache_ops.running.evidence import Freshness, freshness
from fused_cache_ops.secret import Secret, is_shared_token
from fused_cache_ops.service.access import Access
from fused_cache_ops.service.canvases import read_udf
from fused_cache_ops.service.retry import Retrier, parse_retry_after
from fused_cache_ops.service.service import Service, SharedRun
from fused_cache_ops.tiles.tile import Tile
from fused_cache_ops.udf_reference import UdfReference, parse_udf

logger = logging.getLogger(__name__)

_TICK = 0.1  # seconds between looks at the time while nothing comes back


class Asked(NamedTuple):
    """One result that was asked for.

    Attributes:
        tile: the tile. None: the UDF without one.
        freshness: where the result came from, or ``"unknown"``.
        reason: the cache's tier, or why that is unknown. ``""`` for a fresh result.
        seconds: how long the last request took.
        size: how many bytes were received.
        retryable: whether asking later may help, if there was no result.
        is_ours: whether an earlier request for it, which failed, may have computed it.
    """

    tile: Tile | None
    freshness: Freshness
    reason: str
    seconds: float = 0.0
    size: int = 0
    retryable: bool = False
    is_ours: bool = False


def run_token(what: str, udf: UdfReference, shared_token: Secret | None, service: Service) -> Secret:
    """The shared token to ask with.

    Args:
        what: the keyword that needs it, for messages.
        udf: the UDF.
        shared_token: the caller's.
        service: the deployment.

    Raises:
        ConfigurationError: there is no shared token, or the address where shared UDFs run is unknown.
    """
    token = shared_token if shared_token is not None else udf.secret
    if token is None:
        raise ConfigurationError(
            f"{what} needs a shared token of the UDF (fsh_…, fc_…), because that is how its tiles are requested: "
            "give the UDF by it, or pass shared_token=."
        )
    if not isinstance(token, Secret) or not is_shared_token(token.reveal()):
        raise ConfigurationError(
            "shared_token is not a shared token: shared tokens begin with fsh_, fc_ or UDF_, or are 64 hexadecimal digits."
        )
    if service.run_base_url is None:
        raise ConfigurationError(
            f"{what} needs the address where this deployment runs shared UDFs: set run_base_url or FUSED_RUN_BASE_URL."
        )
    read = parse_udf(token).secret
    return token if read is None else read


def refuse_another_udf(service: Service, retrier: Retrier, udf: UdfReference, token: Secret, udf_id: str | None = None) -> None:
    """Reject a shared token of another UDF than the one that was named: it would verify and refresh that one.

    Takes a request or two, unless the UDF is given by the token itself. A token that this client's own may not look up proves
    nothing, and is let through.

    Args:
        service: the deployment.
        retrier: the call.
        udf: the UDF that was named.
        token: the shared token.
        udf_id: the id of the UDF that was named, if it is known.

    Raises:
        InvalidInputError: they are two UDFs.
        FusedCacheError: a lookup failed.
    """
    if udf.secret is not None and udf.secret.reveal() == token.reveal():
        return
    try:
        named = udf_id or udf.udf_id or read_udf(service, udf, retrier=retrier).id
        found = read_udf(service, parse_udf(token), retrier=retrier)
    except (NotFoundError, PermissionDeniedError) as error:
        logger.warning("Fused cache: whether the shared token belongs to UDF %s is not known: %s", udf.shown, error.message)
        return
    if found.id != named:
        raise InvalidInputError(
            f"shared_token belongs to UDF {found.name or found.id}, not to {udf.shown}: it would verify and refresh that one. "
            "Pass a shared token of the same UDF. Nothing was sent."
        )


def ask_once(access: Access, retrier: Retrier, tile: Tile | None) -> Asked:
    """Ask for one result, without a retry: it might find in the cache what the first request has computed.

    Raises:
        InvalidationCancelledError: the call was cancelled.
    """
    began = 0.0

    def send(_: float) -> SharedRun:
        nonlocal began
        began = time.monotonic()
        return access.request(tile, retrier)

    try:
        return _read(tile, retrier.run(send), began)
    except InvalidationCancelledError:
        raise
    except FusedCacheError as error:  # no turn before the deadline
        return Asked(tile, "unknown", error.message, retryable=error.retryable)


def ask_until_answered(access: Access, retrier: Retrier, tile: Tile | None) -> Asked:
    """Ask for one result, again if that may help, at the rate that the service sustains.

    Raises:
        InvalidationCancelledError: the call was cancelled.
        Stopped: the caller was interrupted.
    """
    began = 0.0
    may_have_run = False

    def send(_: float) -> SharedRun:
        nonlocal began, may_have_run
        began = time.monotonic()
        run = access.request(tile, retrier)
        if not run.may_pass:
            return run
        retry_after = parse_retry_after(run.headers.get("retry-after"))
        if run.status == 429:
            raise RateLimitedError(run.trouble + ".", status=run.status, retry_after=retry_after)
        may_have_run = True
        raise UnavailableError(run.trouble + ".", status=run.status, retry_after=retry_after)

    try:
        asked = _read(tile, retrier.run(send), began)
    except InvalidationCancelledError:
        raise
    except FusedCacheError as error:
        return Asked(tile, "unknown", error.message, time.monotonic() - began, retryable=error.retryable)
    return asked._replace(is_ours=may_have_run)


def ask_for(
    tiles: Iterable[Tile | None],
    ask: Callable[[Tile | None], Asked],
    note: Callable[[Asked], None],
    *,
    at_once: int,
    tick: Callable[[], None],
    abort: Callable[[], None],
) -> None:
    """Ask for many results, ``at_once`` of them at the same time.

    Args:
        tiles: read as they are asked for.
        ask: asks for one.
        note: called in this thread with each answer, in the order in which they come.
        at_once: how many.
        tick: called in this thread, periodically.
        abort: called when the caller is interrupted, so that no response is awaited.

    Raises:
        InvalidationCancelledError: the call was cancelled.
    """
    left = iter(tiles)
    waiting: set[concurrent.futures.Future[Asked]] = set()
    with concurrent.futures.ThreadPoolExecutor(at_once, thread_name_prefix="fused-cache-ops-run") as pool:
        try:
            while True:
                waiting.update(pool.submit(ask, tile) for tile in itertools.islice(left, at_once - len(waiting)))
                if not waiting:
                    return
                done, waiting = concurrent.futures.wait(waiting, _TICK, concurrent.futures.FIRST_COMPLETED)
                for each in done:
                    note(each.result())
                tick()
        except BaseException:
            abort()
            raise


def _read(tile: Tile | None, run: SharedRun, began: float) -> Asked:
    seconds = time.monotonic() - began
    if run.trouble:
        return Asked(tile, "unknown", run.trouble, seconds, retryable=run.may_pass or run.status is None)
    return Asked(tile, *freshness(run.headers), seconds, run.size)
