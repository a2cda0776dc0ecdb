"""The public function: one call, over a client of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fused_cache_ops.client import FusedClient
from fused_cache_ops.outcome import InvalidationResult
from fused_cache_ops.secret import Secret, sealed, sealed_udf
from fused_cache_ops.selection.keywords import (
    DEFAULT_MAX_TILES,
    NOT_GIVEN,
    WHOLE_UDF,
    Bounds,
    NotGiven,
    TileSelection,
    TilesFile,
    WhenTooMany,
)
from fused_cache_ops.sending.checkpoint import CheckpointLocation
from fused_cache_ops.sending.progress import OnProgress
from fused_cache_ops.settings import DEFAULT_CONCURRENCY, DEFAULT_DEADLINE, DEFAULT_TIMEOUT
from fused_cache_ops.tiles.tile import HIGHEST_ZOOM
from fused_cache_ops.tiles.zooms import Zooms

if TYPE_CHECKING:
    from collections.abc import Callable

    from fused_cache_ops.plan.plan import InvalidationPlan


def invalidate_cache(
    udf: str | Secret,
    *,
    tiles: TileSelection = WHOLE_UDF,
    bounds: Bounds | NotGiven = NOT_GIVEN,
    geometry: Any = NOT_GIVEN,
    tiles_file: TilesFile | NotGiven = NOT_GIVEN,
    whole_udf: bool = False,
    zooms: Zooms | None = None,
    buffer: int = 0,
    max_tiles: int = DEFAULT_MAX_TILES,
    when_too_many: WhenTooMany = "fail",
    shard: tuple[int, int] | None = None,
    checkpoint: CheckpointLocation | None = None,
    on_progress: OnProgress | None = None,
    on_plan: Callable[[InvalidationPlan], object] | None = None,
    verify_tiles: int = 0,
    shared_token: str | Secret | None = None,
    client_id: str | None = None,
    token: str | Secret | None = None,
    base_url: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    deadline: float = DEFAULT_DEADLINE,
    max_concurrency: int = DEFAULT_CONCURRENCY,
    max_requests_per_second: float | None = None,
    max_zoom: int = HIGHEST_ZOOM,
) -> InvalidationResult:
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
        bounds: ``(west, south, east, north)`` in degrees, or several of these; west > east crosses the antimeridian. Edges
            are exact to 1e-11 degrees, about a micrometer: the bounds of a tile are that tile, and not its neighbors.
        geometry: GeoJSON (a dict or text), WKT, WKB, anything with ``__geo_interface__``, a GeoDataFrame (reprojected from
            its CRS), the path or URL of a vector file, or a list of these, for the union. Needs the extra ``geo``.
        tiles_file: a list of tiles, one a line: a path, ``"-"`` or an open file; ``z/x/y``, CSV, JSON lines or quadkeys,
            gzip or not; read as it goes. A file is opened once; one that is changed in place meanwhile is an error.
        whole_udf: invalidate everything. Without a selection that is what happens anyway. Say it where the selection comes
            from data, so that data which went missing cannot mean everything.
        zooms: ``12``, ``range(10, 15)``, ``"10-14"``, ``[10, 12]``. Needed with ``bounds`` and ``geometry``; with a list
            of tiles it adds their parents and children at these zooms.
        buffer: tiles to add on every side, for UDFs that read beyond their tile.
        max_tiles: the most tiles that bounds, a geometry, or a list's ``zooms`` and ``buffer`` may come to. A plain
            list is sent as it is given, and so is what can be read only once.
        when_too_many: beyond ``max_tiles``: ``"fail"``; ``"whole-udf"`` invalidates everything; ``"coarser"`` leaves
            the deepest zooms stale. The latter two warn, and the result says so.
        shard: ``(i, n)``: of the selection only the ``i``-th of ``n`` equal parts, counted from 0, so that several machines
            share one invalidation. `InvalidationResult.merge` makes one result of theirs.
        checkpoint: where to keep a record of what is done: a path, or with the extra ``fsspec`` any URL that it knows; a
            place that ends in ``/`` is a folder, with a file for each selection. A call that ends early, however it
            ends, leaves it; the next call with the same keywords sends the rest; one that ends well removes it. Name one
            place for each load: a record that has not been touched for 12 hours is taken for an earlier load's.
        on_progress: called as ``on_progress(done, total, retries)`` in the caller's thread, a few times a second at most.
        on_plan: called once with the `InvalidationPlan`, before anything is sent: the counts and the footprint, which cost
            no second reading of bounds and geometries.
        verify_tiles: afterwards, ask for so many of the tiles through a shared token, and tell in the result which of them were
            computed anew. Each one runs the UDF.
        shared_token: for ``verify_tiles``; not needed where ``udf`` is one.
        client_id: as for `FusedClient`, like the next six.
        token: as for `FusedClient`.
        base_url: as for `FusedClient`.
        timeout: seconds that one request may take.
        deadline: seconds that the call may take, retries included.
        max_concurrency: requests in flight at once where tiles go one by one.
        max_requests_per_second: the most requests a second; None: as many as the service takes.
        max_zoom: the highest zoom that the selection may hold.

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
    udf, shared_token, token = sealed_udf(udf), sealed(shared_token), sealed(token)  # no traceback's locals show them
    with FusedClient(
        token=token,
        client_id=client_id,
        base_url=base_url,
        timeout=timeout,
        deadline=deadline,
        max_concurrency=max_concurrency,
        max_requests_per_second=max_requests_per_second,
    ) as client:
        return client.invalidate_cache(
            udf,
            tiles=tiles,
            tiles_file=tiles_file,
            bounds=bounds,
            geometry=geometry,
            whole_udf=whole_udf,
            zooms=zooms,
            buffer=buffer,
            max_tiles=max_tiles,
            when_too_many=when_too_many,
            max_zoom=max_zoom,
            shard=shard,
            checkpoint=checkpoint,
            on_progress=on_progress,
            on_plan=on_plan,
            verify_tiles=verify_tiles,
            shared_token=shared_token,
        )
