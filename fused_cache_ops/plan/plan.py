"""What an invalidation would do, before it is sent: counted, listed, and drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.plan.footprint import LARGEST_FOOTPRINT, Footprint, as_geojson, drawn_footprint
from fused_cache_ops.plan.page import render, render_map
from fused_cache_ops.secret import Secret, sealed_udf
from fused_cache_ops.selection.batches import MAX_BATCH
from fused_cache_ops.selection.keywords import SelectionKeywords
from fused_cache_ops.selection.reading import check_shard, read_selection
from fused_cache_ops.selection.selection import Selection, WholeUdf
from fused_cache_ops.tiles.tile import Tile
from fused_cache_ops.udf_reference import UdfReference, parse_udf
from fused_cache_ops.wording import counted

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True)
class InvalidationPlan:
    """What an invalidation would do. Nothing has been sent, and no name looked up.

    Attributes:
        udf: the UDF, as it was given; a shared token is masked.
        tile_count: the tiles that would be sent; None: the whole UDF.
        tiles_per_zoom: how many at each zoom; None: the whole UDF.
        request_count: invalidating requests, where the deployment takes batches; look-ups come on top.
        estimated_bytes: of the requests' bodies.
        zooms_left_stale: zooms that were left out since there were too many tiles.
        note: what was done about too many tiles, in words.
        shard: the part of the selection that this is, ``(i, n)``; None: all of it.
    """

    udf: str
    tile_count: int | None
    tiles_per_zoom: dict[int, int] | None
    request_count: int
    estimated_bytes: int
    zooms_left_stale: tuple[int, ...]
    note: str | None
    shard: tuple[int, int] | None
    _selection: Selection | WholeUdf = field(repr=False, compare=False)

    def tiles(self) -> Iterator[Tile]:
        """The tiles, made as they are read; a new iterator each time. None for the whole UDF."""
        return self._selection.tiles() if isinstance(self._selection, Selection) else iter(())

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict of JSON types; zooms, being keys, become text in JSON."""
        return {
            "udf": self.udf,
            "tile_count": self.tile_count,
            "tiles_per_zoom": self.tiles_per_zoom,
            "request_count": self.request_count,
            "estimated_bytes": self.estimated_bytes,
            "zooms_left_stale": list(self.zooms_left_stale),
            "note": self.note,
            "shard": None if self.shard is None else list(self.shard),
        }

    def shards(self, n: int) -> list[InvalidationPlan]:
        """The plan in ``n`` parts of equal size, for as many machines: each one's ``shard`` is for `invalidate_cache`.

        They have no tile in common and together all of them, whoever reads the same selection wherever.

        Raises:
            InvalidInputError: ``n`` is no whole number above 0, this is a shard already, or the plan is of the whole UDF.
        """
        if self.shard is not None or self.tile_count is None:
            what = "of the whole UDF, which one request invalidates" if self.shard is None else f"shard {self.shard} of another"
            raise InvalidInputError(f"This plan is {what}: there is nothing to share.")
        check_shard((0, n))
        return [_plan(self.udf, self._selection.shard_of((number, n))) for number in range(n)]

    def to_geojson(self, most_blocks: int = LARGEST_FOOTPRINT) -> dict[str, Any]:
        """The footprint: a FeatureCollection with one merged MultiPolygon a zoom, which needs the extra ``geo``.

        A footprint of more than ``most_blocks`` blocks at a zoom is merged at a coarser one, which the feature's
        ``drawn_at_zoom`` names.
        """
        return as_geojson(self.footprint(most_blocks), self.tiles_per_zoom or {})

    def to_html(self) -> str:
        """A page of its own: the footprint on a map, and the counts. It loads nothing from anywhere."""
        return render(self)

    def to_svg(self, most_blocks: int = 2000) -> str:
        """A picture of the footprint on a map, for where a page is too much; empty where there is nothing to draw.

        Args:
            most_blocks: rectangles a zoom; a finer footprint is drawn at a coarser zoom.
        """
        return render_map(self, most_blocks)

    def footprint(self, most_blocks: int = LARGEST_FOOTPRINT) -> Footprint:
        """For each zoom, the zoom it is drawn at and the blocks there: its own, unless there are too many to draw."""
        return drawn_footprint(self._selection.blocks() if isinstance(self._selection, Selection) else (), most_blocks)

    def __str__(self) -> str:
        what = "everything" if self.tile_count is None else counted(self.tile_count, "tile")
        requests = counted(self.request_count, "request")
        note = f"; {self.note}" if self.note else ""
        return f"would invalidate {what} of UDF {self.udf} in {requests}{note}"


def plan_invalidation(udf: str | Secret, **selection: Unpack[SelectionKeywords]) -> InvalidationPlan:
    """What `invalidate_cache` with the same keywords would do. Sends nothing.

    Bounds and geometries are counted before, and without, making their tiles.

    Raises:
        InvalidInputError: the UDF or the selection cannot be read, comes to more than ``max_tiles``, or can be read only
            once (a generator, standard input): counting would use it up.
    """
    udf = sealed_udf(udf)
    return plan_selection(parse_udf(udf), read_selection(**selection))


def plan_selection(udf: UdfReference, selection: Selection | WholeUdf) -> InvalidationPlan:
    """The plan of a selection that has been read."""
    return _plan(udf.shown, selection)


def _plan(shown: str, selection: Selection | WholeUdf) -> InvalidationPlan:
    counts = selection.tiles_per_zoom() if isinstance(selection, Selection) else None
    total = None if counts is None else sum(counts.values())
    # {"z":15,"x":9647,"y":12320}, and its comma: the numbers' digits vary with the zoom.
    widths = {zoom: 17 + len(str(zoom)) + 2 * len(str(2**zoom)) for zoom in counts or ()}
    return InvalidationPlan(
        udf=shown,
        tile_count=total,
        tiles_per_zoom=counts,
        request_count=1 if total is None else -(-total // MAX_BATCH),
        estimated_bytes=0 if total in (None, 1) else sum(widths[zoom] * count for zoom, count in (counts or {}).items()),
        zooms_left_stale=selection.zooms_left_stale,
        note=selection.note,
        shard=selection.shard,
        _selection=selection.unwatched() if isinstance(selection, Selection) else selection,
    )
