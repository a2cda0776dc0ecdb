"""Verification of an invalidation: some of its tiles are requested, and no response may come from the cache."""

from __future__ import annotations

import functools
import logging
import math
import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timezone

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.outcome.invalidation import Verification
from fused_cache_ops.running.asking import Asked, ask_for, ask_once, refuse_another_udf, run_token
from fused_cache_ops.running.evidence import Freshness
from fused_cache_ops.secret import Secret
from fused_cache_ops.selection.batches import MAX_BATCH, Batch
from fused_cache_ops.selection.selection import Selection, WholeUdf
from fused_cache_ops.service.access import Access
from fused_cache_ops.service.retry import Retrier
from fused_cache_ops.service.service import Service
from fused_cache_ops.tiles.tile import Tile, is_boolean
from fused_cache_ops.udf_reference import UdfReference
from fused_cache_ops.wording import quoted, with_reasons

logger = logging.getLogger(__name__)

MOST_TILES = 1000
"""Each verified tile runs the UDF."""

_AT_ONCE = 8


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
        ConfigurationError: as for `run_token`.
    """
    if is_boolean(verify_tiles) or not isinstance(verify_tiles, int) or not 0 <= verify_tiles <= MOST_TILES:
        raise InvalidInputError(
            f"verify_tiles = {quoted(verify_tiles)} must be a whole number of tiles from 0 to {MOST_TILES:,}."
        )
    return run_token("verify_tiles", udf, shared_token, service) if verify_tiles else None


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
        InvalidInputError: the selection is the whole UDF, ``verify_tiles`` is not a valid number of tiles, or the shared token
            is that of another UDF.
        ConfigurationError: there is no shared token, or the address where shared UDFs run is unknown.
    """
    if isinstance(selection, WholeUdf):
        raise InvalidInputError("verify_tiles needs a selection of tiles to sample from: the whole UDF has none.")
    token = check_verify_tiles(verify_tiles, udf, shared_token, service)
    if token is None:
        raise InvalidInputError("verify_tiles = 0 would verify nothing: pass a number of tiles above 0.")
    refuse_another_udf(service, retrier, udf, token)
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
    running = service.branch(retrier, limiter=service.run_limiter)
    access = Access(service, token, retrier)
    answers: list[Asked] = []

    fresh_at: list[datetime] = []

    def note(asked: Asked) -> None:
        answers.append(asked)
        if asked.freshness == "fresh" and not fresh_at:
            fresh_at.append(datetime.now(timezone.utc))

    def abort() -> None:
        for part in (running, retrier):
            part.stop()
            service.abort_requests(part)

    ask = functools.partial(ask_once, access, running)
    ask_for(sorted(set(tiles)), ask, note, at_once=_AT_ONCE, tick=lambda: None, abort=abort)
    return replace(verified(answers), first_fresh=next(iter(fresh_at), None))


def verified(answers: Iterable[Asked]) -> Verification:
    """What the answers say about the tiles."""
    found: dict[Freshness, list[str]] = {"fresh": [], "from_cache": [], "unknown": []}
    for each in sorted(answers, key=lambda each: each.tile or ()):
        kind, reason = each.freshness, each.reason
        if kind == "from_cache" and each.is_ours:
            kind, reason = "unknown", "from the cache, but an earlier request of this call may have computed it"
        found[kind].append(f"{each.tile}: {reason}" if reason else str(each.tile))
    verification = Verification(**{kind: tuple(shown) for kind, shown in found.items()})
    if len(verification.fresh) < verification.sampled:
        cached = [
            f"{tile}: from the cache ({tier})" for tile, _, tier in (each.partition(": ") for each in verification.from_cache)
        ]
        logger.warning(
            "Fused cache: %s (%s)", verification, "; ".join(list(with_reasons([*cached, *verification.unknown], 3))[:5])
        )
    return verification
