"""The public functions, such as ``invalidate_cache`` and ``invalidate_dataset``: one call, over its own client."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Union

from fused_cache_ops.cache_map.file import DEFAULT_MAP
from fused_cache_ops.cache_map.reading import MapLocation
from fused_cache_ops.client import FusedClient
from fused_cache_ops.errors import ConfigurationError
from fused_cache_ops.keywords.announce import Announce, sealed_announce
from fused_cache_ops.keywords.call import CALL_DEFAULTS, DATASET_DEFAULTS
from fused_cache_ops.keywords.client import ClientSettings, checked_settings, sealed_client
from fused_cache_ops.keywords.h3_index import H3IndexOptions
from fused_cache_ops.keywords.refresh import Refresh
from fused_cache_ops.keywords.rules import refuse_unknown
from fused_cache_ops.keywords.selection import DEFAULT_MAX_TILES, SELECTION_DEFAULTS, SelectionKeywords
from fused_cache_ops.keywords.values import (
    NOT_GIVEN,
    WHOLE_UDF,
    Antimeridian,
    Bounds,
    CheckpointLocation,
    InnerCaches,
    LoadedAt,
    NotGiven,
    Related,
    RenderResolution,
    TileOrder,
    TileSelection,
    TilesFile,
    WhenTooMany,
)
from fused_cache_ops.outcome.dataset import DatasetResult
from fused_cache_ops.outcome.invalidation import InvalidationResult
from fused_cache_ops.outcome.refresh import RefreshResult
from fused_cache_ops.progress import OnProgress
from fused_cache_ops.secret import Secret, sealed, sealed_udf
from fused_cache_ops.tiles.tile import HIGHEST_ZOOM
from fused_cache_ops.tiles.zooms import Zooms

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fused_cache_ops.cache_map.dataset import OnDatasetPlan
    from fused_cache_ops.dbt.artifacts import DbtPath
    from fused_cache_ops.keywords.call import DatasetKeywords
    from fused_cache_ops.outcome.dbt import DbtResult
    from fused_cache_ops.plan.plan import OnPlan

Client = Union[FusedClient, ClientSettings, None]
"""A client, or the settings of one for this call alone. None: the settings of the environment."""


def invalidate_cache(
    udf: str | Secret,
    *,
    tiles: TileSelection = WHOLE_UDF,
    bounds: Bounds | NotGiven = NOT_GIVEN,
    geometry: Any = NOT_GIVEN,
    tiles_file: TilesFile | NotGiven = NOT_GIVEN,
    cells: Any = NOT_GIVEN,
    hex_dataset: str | os.PathLike[str] | NotGiven = NOT_GIVEN,
    whole_udf: bool = False,
    zooms: Zooms | None = None,
    buffer: int = 0,
    max_tiles: int = DEFAULT_MAX_TILES,
    when_too_many: WhenTooMany = "fail",
    shard: tuple[int, int] | None = None,
    order: TileOrder | None = None,
    layer: str | None = None,
    antimeridian: Antimeridian | None = None,
    geometry_column: str | Sequence[str] | None = None,
    crs: Any = None,
    render_resolution: RenderResolution = None,
    partition: str | list[str] | NotGiven = NOT_GIVEN,
    checkpoint: CheckpointLocation | None = None,
    on_progress: OnProgress | None = None,
    on_plan: OnPlan | None = None,
    verify_tiles: int = 0,
    fail_on_stale: bool = True,
    shared_token: str | Secret | None = None,
    related: Related | None = None,
    max_related: int = CALL_DEFAULTS["max_related"],
    inner_caches: InnerCaches | NotGiven = NOT_GIVEN,
    h3_index: H3IndexOptions | NotGiven = NOT_GIVEN,
    loaded_at: LoadedAt | NotGiven = NOT_GIVEN,
    again_after: float = 0,
    refresh: Refresh = 0,
    announce: Announce | NotGiven = NOT_GIVEN,
    client: Client = None,
    max_zoom: int = HIGHEST_ZOOM,
) -> InvalidationResult:
    """Invalidate the cached results of a UDF: all of them, or those of some tiles.

    Without a selection, the whole UDF is invalidated, as with the SDK's method of this name. A selection is one of ``tiles``,
    ``tiles_file``, ``bounds``, ``geometry``, ``cells`` and ``hex_dataset``. A single tile takes one request. More tiles are
    sent in batches of up to 50,000, or one by one over kept-alive connections if the deployment does not accept batches. An
    empty selection sends nothing. None is an error, so that a load that forgot its ``return`` cannot invalidate everything.
    Transient errors are retried until the deadline.

    Args:
        udf: an id (a UUID), ``name``, ``canvas/name``, ``team/name``, ``user@host/name``, ``@handle/name``, or a shared
            token (``fsh_…``, ``fc_<token>/<udf>``, ``fc_<team>/<canvas>/<udf>``, ``UDF_…``, 64 hexadecimal digits). Names are
            looked up over HTTP. The UDF's code is never run.
        tiles: any iterable of `Tile`, ``(z, x, y)``, ``"z/x/y"`` or ``{"z": …, "x": …, "y": …}``. It is read once, as it is
            sent. Or an Arrow or pandas table with columns ``z``, ``x`` and ``y``, or ``tile`` (``"z/x/y"``), or ``quadkey``.
        bounds: ``(west, south, east, north)`` in degrees, or several such boxes. West > east crosses the antimeridian. Edges
            are exact to 1e-11 degrees, about a micrometer: the bounds of a tile select that tile, but not its neighbors.
        geometry: GeoJSON (a dict or text), WKT, WKB, anything with ``__geo_interface__``, a GeoDataFrame, anything that hands
            out Arrow data (pyarrow, DuckDB, Polars, deltalake), the path or URL of a vector or Parquet file, or a list of
            these for their union. What names a coordinate reference system is reprojected. A table or file that does not is
            an error. A bare geometry is in degrees. Tables are read in batches, so memory grows with the tiles found. Needs
            the extra ``geo``.
        tiles_file: a list of tiles, one per line: a path, ``"-"`` or an open file. The format is ``z/x/y``, CSV, JSON lines
            or quadkeys, gzipped or not. It is read as it is sent. A file is opened once, and changing it in place in the
            meantime is an error.
        cells: H3 cell ids as text or whole numbers: any iterable, a numpy array, an Arrow column, or the path of a file with
            one cell per line. A cell's edges are straight in degrees. Needs the extra ``h3``.
        hex_dataset: the path or URL of an H3 dataset written by ``fused.h3.partition`` or ``run_ingest_raster_to_h3``. The
            cells that name its files are selected, with their descendants, which overhang them. Needs the extra ``h3``.
        whole_udf: invalidate everything. Without a selection, that happens anyway. Pass it if the selection comes from data,
            so that missing data cannot invalidate everything.
        zooms: ``12``, ``range(10, 15)``, ``"10-14"``, ``[10, 12]``. Required with ``bounds``, ``geometry``, ``cells`` and
            ``hex_dataset``. With a list of tiles, adds their parents and children at these zooms.
        buffer: tiles to add on every side, for UDFs that read beyond their tile.
        max_tiles: the most tiles that an area, or a list's ``zooms`` and ``buffer`` may produce. It does not apply
            to a plain list, or to a selection that can be read only once.
        when_too_many: what to do when there are more than ``max_tiles``: ``"fail"``; ``"whole-udf"``, which invalidates
            everything; or ``"coarser"``, which leaves the deepest zooms stale. The latter two warn, and the result says so.
        shard: ``(i, n)`` for only the ``i``-th of ``n`` equal parts of the selection, counted from 0, so that several machines
            can share one invalidation. `InvalidationResult.merge` merges their results.
        order: the order of the numbers in tiles that are bare lists: ``"zxy"``, or ``"xyz"``, as mercantile, utiles and
            supermercado write them. Lists in Python are (z, x, y) by default. A file of JSON lists needs it. ``"z/x/y"``, and
            what has names, is not affected.
        layer: the layer of a vector file to read. None: all that have geometries.
        antimeridian: how to read an edge in degrees that spans more than half the globe: ``"cross"``, the shorter way over the
            antimeridian, as the package ``antimeridian`` reads it; or ``"literal"``, the long way round. None: literally, with
            a warning.
        geometry_column: the column of a table or file that holds the geometries, if none is marked as such or several are: as
            WKB or EWKB (bytes or hexadecimal), WKT, EWKT, GeoJSON (text or a struct), or boxes. Or two columns of numbers:
            ``("lon", "lat")``, or x and y.
        crs: the coordinate reference system of a geometry that does not name one, in any form that pyproj reads, such as
            ``"EPSG:25832"``. A geometry that names another one is an error.
        render_resolution: the resolution of the H3 cells that the map draws. Where it is coarser than the changed cells, their
            parents are invalidated, each with its own outline. None: the map draws the cells themselves at every zoom. A
            number, a mapping from zooms to numbers, ``"fused"`` for the rule of Fused's examples
            (``max(min(int(3 + zoom / 1.5), 12) - 1, 2)``), or ``("fused", offset)`` for another offset than 1.
        partition: the folders of the dataset that were rewritten, such as ``"date=2026-11-22"``, or a list of these. Without
            it, all of the dataset.
        checkpoint: where to record what is done: a path, or with the extra ``fsspec`` any URL that it supports. A location
            that ends in ``/`` is a folder, with one file per UDF and selection. If a call dies, however it dies, its record
            remains, and the next call with the same keywords sends only the rest. A call that succeeds removes it. Use one
            location per load: a record untouched for 12 hours is assumed to belong to an earlier load, and is ignored.
        on_progress: called as ``on_progress(done, total, retries)`` in the caller's thread, at most a few times per second.
        on_plan: called once with the `InvalidationPlan`, which has the counts and the footprint, before anything is sent.
            This does not read bounds and geometries a second time.
        verify_tiles: afterwards, request this many of the selection's tiles through a shared token. The result says which of
            them were computed anew. Each one runs the UDF. A tile that comes from the cache is invalidated and requested again,
            twice at most.
        fail_on_stale: raise `VerificationError` if a tile of ``verify_tiles`` then still comes from the cache.
        shared_token: the shared token for ``verify_tiles`` and ``refresh``. Not needed if ``udf`` is one.
        related: also invalidate UDFs of the same canvas: ``"callers"``, which call this one and keep results of their own,
            ``"callees"``, which it calls, or ``"both"``, directly or through others. They are read from the code of the
            canvas's UDFs, which is never run. Callees are invalidated first, then the UDF, then its callers. Calls are cached
            by their parameters and not by tiles. So every UDF that another one of them calls is invalidated whole, this one
            too, and only the outermost callers keep the selection. Needs a token that may read the canvas. Not with ``shard``.
        max_related: the most UDFs that ``related`` may add. More are an error before anything is sent.
        inner_caches: before that, and again before a second pass, delete the results of functions under ``@fused.cache``, which
            they keep for up to 48 hours: the names of their folders (``cache_folder_path``), or ``"own"`` for those that the
            code of the UDF, and of its relatives with ``related``, names. ``"own"`` may be in a list too. Fused's default
            folder ``tmp`` is shared by all functions of a team, so it has to be named. An empty list deletes nothing. If the
            service refuses it, the UDF is invalidated nevertheless, and the call fails.
        h3_index: the index of the H3 table that the UDF reads by ``fused.h3.query``. Rows that were written after its last run
            are not returned, so that the UDF would compute old results again. A mapping of `H3IndexOptions`:
            ``{"path": "s3://bucket/hexes/", "loaded_at": …}`` looks at the index before anything is sent, and fails with a
            transient error while it is older than the load. ``{"path": …, "run": True, "prefix": "date=2026-11-22"}`` runs the
            index if it is older, and waits for that, which does not count toward the deadline.
        loaded_at: when the load was done: a ``datetime`` with a time zone, its ISO text, or seconds since 1970. The result then
            says after how many seconds everything was invalidated, and the first tile known to be fresh.
        again_after: seconds after which everything is sent a second time, for runs that began before the load was committed
            and stored their old results after the first pass. A run may take 120 seconds, so 130 is a good value. 0: no second
            pass. The wait does not count toward the deadline. Tiles are verified and refreshed after the second pass.
        refresh: afterwards, run the UDF for this many of the tiles, or for ``"all"`` of them, so that the first visitor finds
            them cached. Each run costs credits. The tiles that a list counts most often come first (``z/x/y count``,
            or a column ``count`` of a CSV file or an Arrow table), otherwise the coarse zooms. If the whole UDF is
            invalidated, 1 runs it once, without a tile, and more is an error. A selection that can be read only once is read
            to the end first. With ``shard``, each shard refreshes its own tiles. ``verify_tiles`` reads the same responses.
            What could not be refreshed is in the result's ``refresh``, and is not an error. A mapping of `RefreshOptions` says
            more: ``{"count": 500, "zooms": "0-8", "must_succeed": True}``.
        announce: afterwards, put what has changed where maps that are open in a browser look for it: a path, a URL that fsspec
            supports, or an https address, which gets it as a POST. A place that ends in ``/`` is a folder with one document per
            UDF, which ``related`` needs. ``"env:NAME"`` takes the place from an environment variable. A mapping of
            `AnnounceOptions` says more: ``{"to": …, "source": "roads", "secret": "MAP_SECRET", "must_succeed": True}``. A
            failure to announce is in the result's ``announcement``, and is an error only with ``must_succeed``. What is
            confirmed is announced, also if the call then fails. A selection that can be read only once is read to the end
            first.
        client: a `FusedClient`, which is left open, or a mapping of its settings: ``{"deadline": 300}``. Default: the
            environment.
        max_zoom: the highest zoom that the selection may contain.

    Returns:
        What was done, as an `InvalidationResult`.

    Raises:
        InvalidInputError: the UDF or the selection cannot be read. Every tile of a collection is checked before the
            first request. Those of a generator or a file are checked as they are read.
        ConfigurationError: a setting is missing or invalid. No request was sent.
        InvalidationCancelledError: `FusedClient.cancel` ended the call.
        VerificationError: everything is invalidated, but a tile still comes from the cache (``fail_on_stale``).
        RefreshError: everything is invalidated, but not everything could be refreshed (``must_succeed``).
        AnnouncementError: everything is invalidated, but it could not be announced (``must_succeed``).
        PartialInvalidationError: the call failed after something was invalidated. ``remaining`` holds the rest, and
            ``unfinished`` the rest of each UDF and instance.
        FusedCacheError: the call failed before that. The subclass says why, and ``retryable`` whether a retry may help.
    """
    udf, shared_token, client = sealed_udf(udf), sealed(shared_token), sealed_client(client)
    announce = sealed_announce(announce)
    with _opened(client) as opened:
        return opened.invalidate_cache(
            udf,
            tiles=tiles,
            tiles_file=tiles_file,
            bounds=bounds,
            geometry=geometry,
            cells=cells,
            hex_dataset=hex_dataset,
            whole_udf=whole_udf,
            zooms=zooms,
            buffer=buffer,
            max_tiles=max_tiles,
            when_too_many=when_too_many,
            max_zoom=max_zoom,
            shard=shard,
            order=order,
            layer=layer,
            antimeridian=antimeridian,
            geometry_column=geometry_column,
            crs=crs,
            render_resolution=render_resolution,
            partition=partition,
            checkpoint=checkpoint,
            on_progress=on_progress,
            on_plan=on_plan,
            verify_tiles=verify_tiles,
            fail_on_stale=fail_on_stale,
            shared_token=shared_token,
            related=related,
            max_related=max_related,
            inner_caches=inner_caches,
            h3_index=h3_index,
            loaded_at=loaded_at,
            again_after=again_after,
            refresh=refresh,
            announce=announce,
        )


@contextlib.contextmanager
def _opened(client: Client) -> Iterator[FusedClient]:
    """The client that was given, which is left open, or one of these settings for the time of a call."""
    if isinstance(client, FusedClient):
        yield client
        return
    settings = checked_settings(client)
    try:
        own = FusedClient(**settings)
    except ConfigurationError as error:
        if "pass token=" not in error.message:
            raise
        raise ConfigurationError(error.message.replace("pass token=", "pass client={'token': …}")) from None
    with own:
        yield own


def refresh_cache(
    udf: str | Secret,
    *,
    refresh: Refresh = "all",
    shared_token: str | Secret | None = None,
    on_progress: OnProgress | None = None,
    client: Client = None,
    **selection: Unpack[SelectionKeywords],
) -> RefreshResult:
    """Run a UDF for the tiles of a selection, so that the next visitor finds them cached. Nothing is invalidated.

    What is cached already is answered from the cache and costs no run. So it can be called again to continue.

    Args:
        udf: as for `invalidate_cache`.
        refresh: as for `invalidate_cache`. Default: all tiles of the selection.
        shared_token: a shared token of the UDF. Not needed if ``udf`` is one.
        on_progress: called as ``on_progress(done, total, retries)`` in the caller's thread, at most a few times per second.
        client: as for `invalidate_cache`. The service sees the token only for a team canvas.
        selection: the keywords of `invalidate_cache` that select tiles. Without one, the UDF is run once, without a tile.

    Returns:
        What was done, as a `RefreshResult`.

    Raises:
        InvalidInputError: the UDF or the selection cannot be read, or there are more tiles than ``max_tiles``.
        ConfigurationError: there is no shared token, or the address where shared UDFs run is unknown.
        RefreshError: something could not be refreshed (``must_succeed``).
    """
    udf, shared_token, client = sealed_udf(udf), sealed(shared_token), sealed_client(client)
    refuse_unknown(selection, SELECTION_DEFAULTS)
    with _opened(client) as opened:
        return opened.refresh_cache(udf, refresh=refresh, shared_token=shared_token, on_progress=on_progress, **selection)


def invalidate_dataset(
    dataset: str,
    *,
    cache_map: MapLocation = DEFAULT_MAP,
    on_progress: OnProgress | None = None,
    on_plan: OnDatasetPlan | None = None,
    client: Client = None,
    **keywords: Unpack[DatasetKeywords],
) -> DatasetResult:
    """Invalidate every UDF that shows a dataset, as a cache map says.

    What changed is read and covered once. The UDFs are invalidated side by side, each at its own zooms. One that fails does
    not keep the others from being invalidated.

    Args:
        dataset: the dataset's key in the map.
        cache_map: the map, or the path of its file.
        on_progress: as for `invalidate_cache`, for all UDFs together.
        on_plan: called once with a `DatasetPlan`, before anything is sent.
        client: as for `invalidate_cache`. Its limits are for all UDFs together.
        keywords: what changed, and the keywords for sending, as for `invalidate_cache`. They hold for every UDF, so one that
            the map says for a UDF too is an error. UDFs with ``whole_udf = true`` are invalidated whole, unless the selection
            is empty. ``checkpoint`` must be a folder. Without a selection, all UDFs must be ``whole_udf = true`` in the map.

    Returns:
        What was done for each UDF, as a `DatasetResult`.

    Raises:
        InvalidInputError: the map or the selection cannot be read, or the map does not list the dataset. Nothing was sent.
        ConfigurationError: a setting is missing or invalid. Nothing was sent.
        DatasetInvalidationError: a UDF failed. The others are invalidated.
    """
    client = sealed_client(client)
    keywords["announce"] = sealed_announce(keywords.get("announce", NOT_GIVEN))
    refuse_unknown(keywords, DATASET_DEFAULTS)
    with _opened(client) as opened:
        return opened.invalidate_dataset(dataset, cache_map=cache_map, on_progress=on_progress, on_plan=on_plan, **keywords)


def invalidate_dbt(
    path: DbtPath,
    *,
    cache_map: MapLocation | None = None,
    newer_than: Any = None,
    repeat: bool = False,
    on_progress: OnProgress | None = None,
    on_plan: OnDatasetPlan | None = None,
    client: Client = None,
    **keywords: Unpack[DatasetKeywords],
) -> DbtResult:
    """Invalidate every UDF that shows what a dbt build changed.

    Which models, seeds and snapshots changed is read from dbt's own ``run_results.json`` and ``manifest.json``. Call it after
    each build, also after one that failed: what succeeded in that one is in no later file.

    Args:
        path: the folder that dbt writes to (``target/``), the project's folder, a results file, or a list of these.
        cache_map: the map, or the path of its file. Its keys are tables (``database.schema.table``) or dbt's unique ids
            (``model.project.parcels``). Default: ``fused-cache.toml``, if there is one. Exposures name UDFs too, by
            ``meta: {fused: {udf: maps/parcels, whole_udf: true}}``, with the keys of a map's entry. They suffice without a map.
        newer_than: a time, or its text in ISO 8601. Older results are an error.
        repeat: whether to do again what was done for a build before, as ``fused_cache_ops.json`` beside the results notes.
        on_progress: as for `invalidate_cache`, for all UDFs together.
        on_plan: called once with a `DbtPlan`, before anything is sent.
        client: as for `invalidate_cache`.
        keywords: as for `invalidate_dataset`. Without a selection, UDFs must be ``whole_udf = true``, or an exposure must say
            what changed, such as ``geometry: target/changed.parquet``, a path in dbt's project.

    Returns:
        What was done for each UDF, and what dbt changed, as a `DbtResult`.

    Raises:
        InvalidInputError: the files are not those of a build, do not belong together, or were handled before; or the map or
            the selection cannot be read. Nothing was sent.
        UnavailableError: a file is not there yet, or a request failed.
        DatasetInvalidationError: a UDF failed. The others are invalidated.
        DbtNodesFailedError: dbt did not build everything. The maps of what was built are invalidated.
    """
    client = sealed_client(client)
    keywords["announce"] = sealed_announce(keywords.get("announce", NOT_GIVEN))
    refuse_unknown(keywords, DATASET_DEFAULTS)
    with _opened(client) as opened:
        return opened.invalidate_dbt(
            path,
            cache_map=cache_map,
            newer_than=newer_than,
            repeat=repeat,
            on_progress=on_progress,
            on_plan=on_plan,
            **keywords,
        )
