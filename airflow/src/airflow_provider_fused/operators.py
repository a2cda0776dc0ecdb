"""The operator: add it to a DAG right after the load."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow_provider_fused._compat import AirflowFailException, BaseOperator
from airflow_provider_fused.exceptions import FusedUnavailableError
from fused_cache_ops.tiles import DEFAULT_MAX_TILES, HIGHEST_ZOOM, NOT_GIVEN, WHOLE_UDF

if TYPE_CHECKING:
    from airflow.sdk import XComArg

    from airflow_provider_fused.hooks import FusedHook
    from fused_cache_ops.selection import Bounds, WhenTooMany
    from fused_cache_ops.tiles import NotGiven, TileSelection
    from fused_cache_ops.zooms import Zooms


SELECTION_FIELDS = ("tiles", "bounds", "geometry", "tiles_file", "zooms", "buffer", "max_tiles", "when_too_many", "shard")
CALL_FIELDS = (*SELECTION_FIELDS, "checkpoint", "verify", "shared_token")


class FusedInvalidateCacheOperator(BaseOperator):
    """Invalidate the cached results of a Fused UDF: all of them, or those of the tiles that a load has changed.

    One task sends any number of tiles, up to 50,000 a request, so map it over UDFs and never over tiles.

    :param udf: id, ``name``, ``canvas/name``, ``team/name``, ``user@host/name`` or shared token (templated)
    :param tiles: the tiles to invalidate: a list of ``"z/x/y"``, ``[z, x, y]`` or ``{"z": …, "x": …, "y": …}``, an
        upstream task's output, or a template that renders to a JSON list (templated). Leave every selection out for the
        whole UDF; an empty one invalidates nothing; None, and a template that renders to nothing, fail the task
    :param bounds: instead of ``tiles``: ``[west, south, east, north]`` in degrees, or a list of these (templated)
    :param geometry: instead of ``tiles``: GeoJSON, WKT, or the path or URL of a vector file (templated)
    :param tiles_file: instead of ``tiles``: the path of a list of tiles, one a line (templated)
    :param zooms: ``"10-14"``, ``[10, 12]``, ``12``: needed with ``bounds`` and ``geometry``; with a list it adds parents
        and children (templated)
    :param buffer: tiles to add on every side (templated)
    :param max_tiles: the most tiles that a computed selection may come to (templated)
    :param when_too_many: beyond that: ``"fail"``, ``"whole-udf"`` or ``"coarser"`` (templated)
    :param shard: ``[i, n]``: only the ``i``-th of ``n`` equal parts of the selection, from 0; map over these to share one
        purge among workers, and merge with ``fused_cache_ops.InvalidationResult.merge`` (templated)
    :param checkpoint: where to keep a record of what is done, a path or a URL that fsspec knows (with the core's extra
        ``fsspec``), so that a retry sends only the rest. Name it by the load, as
        ``/checkpoints/{{ run_id }}/{{ task_instance_key_str }}.json`` (templated)
    :param verify: afterwards, ask for so many of the tiles through a shared token, and tell in the result which of them
        were computed anew (templated)
    :param shared_token: for ``verify``, where ``udf`` is none itself (templated; masked in the interface)
    :param fused_conn_id: the connection of type ``fused`` (templated)
    :param max_zoom: the highest zoom that ``tiles`` may hold

    :returns: what was done, to XCom: ``udf_id``, ``client_id``, ``tiles_requested`` (None: the whole UDF),
        ``objects_deleted`` (None: the service does not say), ``requests_sent``, ``retries``, ``elapsed_seconds``,
        ``tiles_already_done``, ``verification``, ``zooms_left_stale``, ``note``
    :raises AirflowFailException: what will not pass: the task fails at its first try
    :raises FusedUnavailableError: what may pass, after the core's own retries: the task's ``retries`` apply
    """

    template_fields: Sequence[str] = ("udf", *CALL_FIELDS, "fused_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"tiles": "json", "bounds": "json", "geometry": "json"}
    ui_color = "#e8ff59"
    ui_fgcolor = "#141414"

    def __init__(
        self,
        *,
        udf: str | XComArg,
        tiles: TileSelection | str | XComArg = WHOLE_UDF,
        bounds: Bounds | str | XComArg | NotGiven = NOT_GIVEN,
        geometry: Any = NOT_GIVEN,
        tiles_file: str | XComArg | NotGiven = NOT_GIVEN,
        zooms: Zooms | XComArg | None = None,
        buffer: int | str | XComArg = 0,
        max_tiles: int | str | XComArg = DEFAULT_MAX_TILES,
        when_too_many: WhenTooMany | str | XComArg = "fail",
        shard: Sequence[int] | str | XComArg | None = None,
        checkpoint: str | None = None,
        verify: int | str = 0,
        shared_token: str | None = None,
        fused_conn_id: str = "fused_default",
        max_zoom: int = HIGHEST_ZOOM,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.udf = udf
        self.tiles = tiles
        self.bounds = bounds
        self.geometry = geometry
        self.tiles_file = tiles_file
        self.zooms = zooms
        self.buffer = buffer
        self.max_tiles = max_tiles
        self.when_too_many = when_too_many
        self.shard = shard
        self.checkpoint = checkpoint
        self.verify = verify
        self.shared_token = shared_token
        self.fused_conn_id = fused_conn_id
        self.max_zoom = max_zoom

    @cached_property
    def hook(self) -> FusedHook:
        from airflow_provider_fused.hooks import FusedHook

        return FusedHook(self.fused_conn_id)

    def execute(self, context: Any) -> dict[str, Any]:
        from airflow_provider_fused.selection import read_fields
        from fused_cache_ops.errors import FusedCacheError

        try:
            keywords = read_fields({name: getattr(self, name) for name in (*CALL_FIELDS, "max_zoom")})
            with self.hook.get_conn() as client:
                result = client.invalidate_cache(cast("str", self.udf), **keywords)
        except FusedCacheError as error:
            failure = FusedUnavailableError if error.retryable else AirflowFailException
            raise failure(str(error)) from error
        return result.to_dict()
