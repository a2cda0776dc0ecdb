"""Verification of an invalidation: some of its tiles are requested, and no response may come from the cache."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from fused_cache_ops.errors import ConfigurationError, InvalidInputError
from fused_cache_ops.outcome import Verification
from fused_cache_ops.secret import Secret, is_shared_token
from fused_cache_ops.selection.batches import MAX_BATCH, Batch
from fused_cache_ops.selection.selection import Selection, WholeUdf
from fused_cache_ops.service.access import Access
from fused_cache_ops.service.retry import Retrier
from fused_cache_ops.service.service import RUNS_AT_ONCE, Service
from fused_cache_ops.tiles.tile import Tile, is_boolean
from fused_cache_ops.udf_reference import UdfReference, parse_udf
from fused_cache_ops.wording import quoted

logger = logging.getLogger(__name__)

Freshness = Literal["fresh", "from_cache", "unknown"]

MOST_TILES = 1000
"""Each verified tile runs the UDF."""


class Sample:
    """Tiles drawn uniformly from a stream of batches. Tiles that are not drawn are skipped over (algorithm L).

    Args:
        size: how many tiles to draw.
    """

    def __init__(self, size: int) -> None:
        self.tiles: list[Tile] = []
        self._size = size
        self._seen = 0
        self._next = 0
        self._weight = 1.0

    def add(self, batch: Batch) -> None:
        """Draw from a batch."""
        while self._next < self._seen + len(batch):
            tile = batch.at(self._next - self._seen)
            if len(self.tiles) < self._size:
                self.tiles.append(tile)
            else:
                self.tiles[random.randrange(self._size)] = tile
            self._next += 1
            if len(self.tiles) == self._size:
                self._weight *= random.random() ** (1 / self._size)
                self._next += math.floor(math.log(random.random() or 1e-300) / math.log1p(-min(self._weight, 1 - 1e-12)))
        self._seen += len(batch)


def check_verify_tiles(verify_tiles: int, udf: UdfReference, shared_token: Secret | None, service: Service) -> Secret | None:
    """The shared token to verify with, or None if nothing is to be verified.

    Raises:
        InvalidInputError: ``verify_tiles`` is not a valid number of tiles.
        ConfigurationError: there is no shared token, or the address where shared UDFs run is unknown.
    """
    if is_boolean(verify_tiles) or not isinstance(verify_tiles, int) or not 0 <= verify_tiles <= MOST_TILES:
        raise InvalidInputError(
            f"verify_tiles = {quoted(verify_tiles)} must be a whole number of tiles from 0 to {MOST_TILES:,}."
        )
    if verify_tiles == 0:
        return None
    token = shared_token if shared_token is not None else udf.secret
    if token is None:
        raise ConfigurationError(
            "verify_tiles needs a shared token of the UDF (fsh_…, fc_…), because that is how its tiles are requested: pass "
            "it as udf or as shared_token=."
        )
    if not isinstance(token, Secret) or not is_shared_token(token.reveal()):
        raise ConfigurationError(
            "shared_token is not a shared token: shared tokens begin with fsh_, fc_ or UDF_, or are 64 hexadecimal digits."
        )
    token = parse_udf(token).secret
    if service.run_base_url is None:
        raise ConfigurationError(
            "verify_tiles needs the address where this deployment runs shared UDFs: set run_base_url or FUSED_RUN_BASE_URL."
        )
    return token


def verify_selection(
    service: Service,
    retrier: Retrier,
    udf: UdfReference,
    selection: Selection | WholeUdf,
    verify_tiles: int,
    shared_token: Secret | None,
) -> Verification:
    """Draw tiles from a selection, and check whether they come from the cache.

    Raises:
        InvalidInputError: the selection is the whole UDF, or ``verify_tiles`` is not a valid number of tiles.
        ConfigurationError: there is no shared token, or the address where shared UDFs run is unknown.
    """
    if isinstance(selection, WholeUdf):
        raise InvalidInputError("verify_tiles needs a selection of tiles to sample from: the whole UDF has none.")
    token = check_verify_tiles(verify_tiles, udf, shared_token, service)
    if token is None:
        raise InvalidInputError("verify_tiles = 0 would verify nothing: pass a number of tiles above 0.")
    sample = Sample(verify_tiles)
    for batch in selection.batches(MAX_BATCH):
        sample.add(batch)
    return request_tiles(service, retrier, token, sample.tiles)


def request_tiles(service: Service, retrier: Retrier, token: Secret, tiles: list[Tile]) -> Verification:
    """Request tiles through a shared token, and check whether they come from the cache.

    A tile for which there is no response by the call's deadline is unknown.

    Raises:
        InvalidationCancelledError: the call was cancelled.
    """
    tiles = sorted(set(tiles))
    access = Access(service, token, retrier)
    with ThreadPoolExecutor(RUNS_AT_ONCE, thread_name_prefix="fused-cache-ops-verify") as pool:
        try:
            runs = list(pool.map(access.request_tile, tiles))
        except BaseException:  # cancelled or interrupted: no response is awaited
            retrier.stop()
            service.abort_requests(retrier)
            raise
    found: dict[Freshness, list[str]] = {"fresh": [], "from_cache": [], "unknown": []}
    for tile, run in zip(tiles, runs):
        kind: Freshness = "unknown"
        reason = run.trouble
        if not reason:
            kind, reason = freshness(run.headers)
        found[kind].append(f"{tile}: {reason}" if reason else str(tile))
    verification = Verification(**{kind: tuple(shown) for kind, shown in found.items()})
    if len(verification.fresh) < verification.sampled:
        cached = [
            f"{tile}: from the cache ({tier})" for tile, _, tier in (each.partition(": ") for each in verification.from_cache)
        ]
        logger.warning("Fused cache: %s (%s)", verification, "; ".join([*cached, *verification.unknown][:5]))
    return verification


def freshness(headers: Mapping[str, str]) -> tuple[Freshness, str]:
    """Where the body of a 200 response came from, by the rule of Fused's own SDK, and the cache's tier or what is unclear.

    A cache that is not Fused's, such as a CDN, may have kept a response of either kind with its headers. Then nothing is
    known of what Fused has now, so such a response is unknown.
    """
    proxy, age = headers.get("x-cache", "").strip(), headers.get("age", "").strip()
    if proxy.lower() == "hit":
        return "from_cache", "memory"
    if "x-fused-cached" in headers:
        return "from_cache", "object storage"
    if "hit" in proxy.lower():
        return "unknown", f"a cache in front of Fused may have answered (x-cache: {quoted(proxy, 60)})"
    if age not in ("", "0"):
        return "unknown", f"a cache in front of Fused may have answered (age: {quoted(age, 60)})"
    return "fresh", ""
