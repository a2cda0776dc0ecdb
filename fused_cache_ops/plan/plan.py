"""The plan of an invalidation: what it would do, before anything is sent."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from fused_cache_ops.errors import FusedCacheError, InvalidInputError
from fused_cache_ops.keywords.announce import Announce, read_announce, sealed_announce
from fused_cache_ops.keywords.h3_index import H3IndexOptions, read_h3_index
from fused_cache_ops.keywords.inner_caches import read_folders
from fused_cache_ops.keywords.refresh import Refresh
from fused_cache_ops.keywords.selection import DEFAULT_MAX_TILES, SelectionKeywords
from fused_cache_ops.keywords.values import NOT_GIVEN, InnerCaches, LoadedAt, NotGiven
from fused_cache_ops.notebook import table
from fused_cache_ops.plan.footprint import LARGEST_FOOTPRINT, Footprint, as_geojson, drawn_footprint
from fused_cache_ops.plan.page import render, render_map
from fused_cache_ops.running.refresh import RefreshPlan, plan_refresh
from fused_cache_ops.secret import Secret, sealed_udf
from fused_cache_ops.selection.batches import MAX_BATCH
from fused_cache_ops.selection.reading import check_shard, read_selection, refuse_single_use
from fused_cache_ops.selection.selection import Selection, WholeUdf
from fused_cache_ops.tiles.tile import Tile
from fused_cache_ops.udf_reference import UdfReference, parse_udf
from fused_cache_ops.wording import counted, quoted

if TYPE_CHECKING:
    from typing_extensions import Unpack


_BLOCKS_IN_NOTEBOOK = 500  # per zoom


class PlannedTarget(NamedTuple):
    """One UDF on one instance that would be invalidated, or a folder of inner caches that would be deleted.

    Attributes:
        udf_id: the UDF's id.
        name: the name of the UDF or the folder, or None if it was not looked up.
        client_id: the real-time instance.
        relation: what it is to the UDF of the plan: ``"callee"``, ``"udf"`` (itself), ``"caller"`` or ``"inner caches"``.
        is_whole: whether everything is invalidated even if tiles are selected.
        called_by: the UDFs that call it and would be invalidated too, because of which it is whole.
    """

    udf_id: str
    name: str | None
    client_id: str
    relation: str
    is_whole: bool
    called_by: tuple[str, ...] = ()

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of inner caches."""
        return self.relation == "inner caches"

    @property
    def what(self) -> str:
        """What of it would be invalidated if tiles are selected."""
        why = f", because of {', '.join(self.called_by)}" if self.called_by else ""
        return f"everything{why}" if self.is_whole else "the tiles"


@dataclass(frozen=True)
class InvalidationPlan:
    """What an invalidation would do. Nothing has been sent.

    Attributes:
        udf: the UDF as it was given. A shared token is masked.
        tile_count: the number of tiles that would be sent. None for the whole UDF.
        tiles_per_zoom: the number of tiles at each zoom. None for the whole UDF.
        request_count: the invalidating requests for all targets, if the deployment accepts batches. Lookups are not included.
        estimated_bytes: the approximate total size of the request bodies, for all targets.
        zooms_left_stale: zooms that were dropped because there were too many tiles.
        note: a sentence about what was done because there were too many tiles.
        shard: ``(i, n)`` if this is one part of a selection, None if it is all of it.
        targets: the UDFs and instances, in the order of invalidation. None: not looked up, so that the counts are those of the
            UDF on one instance.
        refresh_runs: how many times ``refresh`` would run the UDF. None if not requested.
        inner_caches: the folders of inner caches that would be deleted. ``"own"``: those that the code names, which was not
            looked up.
        h3_index: what the index of an H3 table must have before anything is sent, as a sentence. None: none is given.
        announce: where what is confirmed would be announced, as a sentence. None: nowhere.
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
    targets: tuple[PlannedTarget, ...] | None = None
    refresh_runs: int | None = None
    inner_caches: tuple[str, ...] = ()
    h3_index: str | None = None
    announce: str | None = None

    def sent_to(self, targets: tuple[PlannedTarget, ...]) -> InvalidationPlan:
        """The same plan for these targets."""
        whole = sum(each.is_whole for each in targets)
        return replace(
            self,
            targets=targets,
            request_count=whole + self.request_count * (len(targets) - whole),
            estimated_bytes=self.estimated_bytes * (len(targets) - whole),
            inner_caches=tuple(dict.fromkeys(str(each.name) for each in targets if each.is_folder)),
        )

    @property
    def fingerprint(self) -> str:
        """What tells this selection from any other: the same tiles in the same order have the same fingerprint."""
        return self._selection.digest()[0] if isinstance(self._selection, Selection) else "whole-udf"

    def tiles(self) -> Iterator[Tile]:
        """The tiles, generated as they are read, as a new iterator each time. Empty for the whole UDF."""
        return self._selection.tiles() if isinstance(self._selection, Selection) else iter(())

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict of JSON types. JSON turns the zooms into text, because they are keys."""
        return {
            "udf": self.udf,
            "tile_count": self.tile_count,
            "tiles_per_zoom": self.tiles_per_zoom,
            "request_count": self.request_count,
            "estimated_bytes": self.estimated_bytes,
            "zooms_left_stale": list(self.zooms_left_stale),
            "note": self.note,
            "shard": None if self.shard is None else list(self.shard),
            "targets": None
            if self.targets is None
            else [{**each._asdict(), "called_by": list(each.called_by)} for each in self.targets],
            "refresh_runs": self.refresh_runs,
            "inner_caches": list(self.inner_caches),
            "h3_index": self.h3_index,
            "announce": self.announce,
        }

    def shards(self, n: int) -> list[InvalidationPlan]:
        """Split the plan into ``n`` parts of equal size, one per machine. Pass each part's ``shard`` to `invalidate_cache`.

        The parts are disjoint and together contain every tile. They are the same on every machine that reads the selection.

        Raises:
            InvalidInputError: ``n`` is not a whole number above 0, this is already a shard, or the plan is of the whole UDF.
        """
        if self.shard is not None or self.tile_count is None:
            what = "of the whole UDF, which one request invalidates" if self.shard is None else f"shard {self.shard} of another"
            raise InvalidInputError(f"This plan is {what}: it cannot be split.")
        check_shard((0, n))
        return [_plan(self.udf, self._selection.shard_of((number, n))) for number in range(n)]

    def to_geojson(self, most_blocks: int = LARGEST_FOOTPRINT) -> dict[str, Any]:
        """The footprint as a FeatureCollection with one merged MultiPolygon per zoom. Needs the extra ``geo``.

        A footprint with more than ``most_blocks`` blocks at a zoom is merged at a coarser zoom, which the feature's
        ``drawn_at_zoom`` gives.
        """
        return as_geojson(self.footprint(most_blocks), self.tiles_per_zoom or {})

    def to_html(self, basemap: str | None = None) -> str:
        """An HTML page with the footprint on a map and the counts. Without a basemap, it loads no external resources.

        Args:
            basemap: the address of a MapLibre style, or a template of tiles with ``{z}``, ``{x}`` and ``{y}``. It turns the
                drawing into a map to pan and zoom, by MapLibre from a CDN. The drawing stays where that cannot be loaded.
                Everyone who has the page can read the address, so it must be without a user, password and query.

        Raises:
            InvalidInputError: ``basemap`` is not such an address.
        """
        return render(self, basemap)

    def to_svg(self, most_blocks: int = 2000) -> str:
        """The footprint on a map as an SVG picture. Empty if there is nothing to draw.

        Args:
            most_blocks: the most rectangles per zoom. A more detailed footprint is drawn at a coarser zoom.
        """
        return render_map(self, most_blocks)

    def _repr_html_(self) -> str:
        """The counts in a notebook, and the map if there are at most a million tiles."""
        rows: list[tuple[object, ...]] = [(f"zoom {zoom}", count) for zoom, count in (self.tiles_per_zoom or {}).items()]
        rows += [("total", "everything" if self.tile_count is None else self.tile_count), ("requests", self.request_count)]
        rows += [("runs to refresh", self.refresh_runs), ("note", self.note)]
        rows += [("inner caches", ", ".join(self.inner_caches) or None), ("before that", self.h3_index)]
        rows += [("afterwards", self.announce)]
        try:
            picture = self.to_svg(_BLOCKS_IN_NOTEBOOK) if (self.tile_count or 0) <= DEFAULT_MAX_TILES else ""
        except FusedCacheError:  # the file of a list has changed since
            picture = ""
        if picture:
            encoded = base64.b64encode(picture.encode()).decode()
            # As an image, its style does not affect the notebook.
            image = f'<img alt="Map of the tiles" style="width:100%;max-width:40rem" src="data:image/svg+xml;base64,{encoded}">'
        else:
            image = ""
        return table(f"Invalidation plan: {self.udf.strip(chr(39))}", rows) + image

    def footprint(self, most_blocks: int = LARGEST_FOOTPRINT) -> Footprint:
        """For each zoom, the zoom at which it is drawn and the blocks there. They differ if there are too many to draw."""
        return drawn_footprint(self._selection.blocks() if isinstance(self._selection, Selection) else (), most_blocks)

    def __str__(self) -> str:
        what = "everything" if self.tile_count is None else counted(self.tile_count, "tile")
        requests = counted(self.request_count, "request")
        if self.targets is not None and len(self.targets) > 1:
            what += f" on {counted(len({each.client_id for each in self.targets}), 'instance')}"
            relatives = len({each.udf_id for each in self.targets if not each.is_folder}) - 1
            requests += f", {counted(relatives, 'related UDF')} included" if relatives else ""
        whole = {
            each.name or each.udf_id: each for each in self.targets or () if each.called_by and self.tile_count is not None
        }
        if whole:
            requests += f"; {', '.join(f'{name}: {each.what}' for name, each in whole.items())}"
        if self.inner_caches:
            requests += f"; inner caches deleted before: {', '.join(self.inner_caches)}"
        if self.h3_index:
            requests += f"; before that, {self.h3_index}"
        refresh = "" if self.refresh_runs is None else f", and run it {counted(self.refresh_runs, 'time')} to refresh"
        announced = f"; afterwards, {self.announce}" if self.announce else ""
        note = f"; {self.note}" if self.note else ""
        return f"would invalidate {what} of UDF {self.udf} in {requests}{refresh}{announced}{note}"


OnPlan = Callable[[InvalidationPlan], object]
"""Called once with the plan, before anything is sent."""


def plan_invalidation(
    udf: str | Secret,
    *,
    related: object = None,
    inner_caches: InnerCaches | NotGiven = NOT_GIVEN,
    h3_index: H3IndexOptions | NotGiven = NOT_GIVEN,
    loaded_at: LoadedAt | NotGiven = NOT_GIVEN,
    refresh: Refresh = 0,
    announce: Announce | NotGiven = NOT_GIVEN,
    **selection: Unpack[SelectionKeywords],
) -> InvalidationPlan:
    """What `invalidate_cache` would do with the same keywords. Sends nothing, and needs no token.

    Bounds and geometries are counted without generating their tiles. ``related`` takes lookups, and so do the folders that
    ``inner_caches="own"`` stands for: see `FusedClient.plan_invalidation`.

    Raises:
        InvalidInputError: the UDF or the selection cannot be read, has more than ``max_tiles``, would be refreshed in too many
            runs, or can be read only once (a generator, standard input), so that counting would exhaust it.
    """
    udf = sealed_udf(udf)
    if related is not None:
        raise InvalidInputError(
            f"related = {quoted(related)} needs to look up the UDFs of the canvas, which this function never does: use "
            "FusedClient.plan_invalidation."
        )
    refuse_single_use(selection, "the plan would use it up", pipes=True)
    read = read_selection(**selection)
    folders, index = read_folders(inner_caches), read_h3_index(h3_index, loaded_at)
    announcing = read_announce(sealed_announce(announce))
    plan = plan_selection(parse_udf(udf), read, plan_refresh(read, refresh))
    return replace(
        plan,
        inner_caches=folders,
        h3_index=None if index is None else str(index),
        announce=None if announcing is None else str(announcing),
    )


def plan_selection(udf: UdfReference, selection: Selection | WholeUdf, refresh: RefreshPlan | None = None) -> InvalidationPlan:
    """The plan of a validated selection."""
    return _plan(udf.shown, selection, None if refresh is None else len(refresh.targets))


def _plan(shown: str, selection: Selection | WholeUdf, refresh_runs: int | None = None) -> InvalidationPlan:
    counts = selection.tiles_per_zoom() if isinstance(selection, Selection) else None
    total = None if counts is None else sum(counts.values())
    # {"z":15,"x":9647,"y":12320} and its comma: the number of digits varies with the zoom.
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
        refresh_runs=refresh_runs,
    )
