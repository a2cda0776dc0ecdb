"""Proof of an invalidation: some of its tiles are asked for, and none of the answers may come from the cache."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fused_cache_ops.batches import Batch
from fused_cache_ops.errors import ConfigurationError, InvalidInputError
from fused_cache_ops.identifiers import parse_udf
from fused_cache_ops.settings import Secret
from fused_cache_ops.tiles import Tile, is_boolean

if TYPE_CHECKING:
    from fused_cache_ops.client import FusedClient

logger = logging.getLogger(__name__)

MOST_TILES = 1000
"""Each one runs the UDF."""

_AT_ONCE = 8


@dataclass(frozen=True)
class Verification:
    """What came back for the sampled tiles.

    Attributes:
        fresh: tiles that the UDF has computed anew.
        from_cache: tiles that came from the cache: it was not invalidated, or somebody asked for them in between.
        unknown: tiles that brought no result, each with the reason.
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


class Sample:
    """Tiles drawn evenly from a stream of batches, of which all but the drawn ones are passed over (algorithm L).

    Args:
        size: how many to draw.
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


def check_verify(verify: int, udf: str, shared_token: str | None, client: FusedClient) -> Secret | None:
    """The shared token to verify with; None: nothing is to be verified.

    Raises:
        InvalidInputError: ``verify`` is no number of tiles.
        ConfigurationError: there is no shared token, or no address to use it at.
    """
    if is_boolean(verify) or not isinstance(verify, int) or not 0 <= verify <= MOST_TILES:
        raise InvalidInputError(f"verify = {verify!r} must be a whole number of tiles from 0 to {MOST_TILES:,}.")
    if verify == 0:
        return None
    token = shared_token if shared_token is not None else parse_udf(udf).secret
    if not token:
        raise ConfigurationError(
            "verify needs a shared token of the UDF (fsh_… or fc_…), since that is how its tiles are asked for: give it as "
            "udf, or as shared_token=."
        )
    if parse_udf(token).secret is None:
        raise ConfigurationError("shared_token is not a shared token: those begin with fsh_ or fc_.")
    if client.run_base_url is None:
        raise ConfigurationError(
            "verify needs to know where this deployment runs shared UDFs: set run_base_url, or FUSED_RUN_BASE_URL."
        )
    return Secret(token)


def verify_tiles(client: FusedClient, token: Secret, tiles: list[Tile]) -> Verification:
    """Ask for tiles through a shared token, and see whether they come from the cache."""
    tiles = sorted(set(tiles))
    with client.open_run_connections(min(_AT_ONCE, max(1, len(tiles)))) as ask:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fused-cache-ops-verify") as pool:
            answers = list(pool.map(lambda tile: ask(token, tile), tiles))
    found: dict[str, list[str]] = {"fresh": [], "from_cache": [], "unknown": []}
    for tile, (headers, trouble) in zip(tiles, answers):
        kind = "unknown" if trouble else "from_cache" if came_from_cache(headers) else "fresh"
        found[kind].append(f"{tile}: {trouble}" if trouble else str(tile))
    verification = Verification(**{kind: tuple(shown) for kind, shown in found.items()})
    if len(verification.fresh) < verification.sampled:
        amiss = "; ".join([*(f"{tile}: from the cache" for tile in verification.from_cache), *verification.unknown][:5])
        logger.warning("Fused cache: %s (%s)", verification, amiss)
    return verification


def came_from_cache(headers: Mapping[str, str]) -> bool:
    """Whether an answer did, by the headers that Fused's own SDK has been seen to read."""
    return "hit" in headers.get("x-cache", "").lower() or headers.get("x-fused-cached", "").lower() in ("true", "1")
