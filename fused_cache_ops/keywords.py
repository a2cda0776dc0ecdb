"""The keywords of a call, the same in the core and in every wrapper; `invalidate_cache` describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable

    from fused_cache_ops.checkpoint import CheckpointLocation
    from fused_cache_ops.plan import InvalidationPlan
    from fused_cache_ops.progress import OnProgress
    from fused_cache_ops.selection import Bounds, WhenTooMany
    from fused_cache_ops.tile_list import TilesFile
    from fused_cache_ops.tiles import NotGiven, TileSelection
    from fused_cache_ops.zooms import Zooms


KINDS = ("tiles", "tiles_file", "bounds", "geometry")
"""The keywords that each select tiles by themselves: a call has one of them, or none for the whole UDF."""


class SelectionKeywords(TypedDict, total=False):
    """The keywords that select tiles."""

    tiles: TileSelection
    bounds: Bounds | NotGiven
    geometry: Any
    tiles_file: TilesFile | NotGiven
    zooms: Zooms | None
    buffer: int
    max_tiles: int
    when_too_many: WhenTooMany
    max_zoom: int
    shard: tuple[int, int] | None


class CallKeywords(SelectionKeywords, total=False):
    """The keywords of a call over a client, which has the settings."""

    checkpoint: CheckpointLocation | None
    on_progress: OnProgress | None
    on_plan: Callable[[InvalidationPlan], object] | None
    verify: int
    shared_token: str | None
