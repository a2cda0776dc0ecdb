"""The operator: add it to a DAG right after the load."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow_provider_fused._compat import AirflowFailException, BaseOperator
from airflow_provider_fused.exceptions import FusedUnavailableError
from fused_cache_ops.tiles import HIGHEST_ZOOM, WHOLE_UDF

if TYPE_CHECKING:
    from airflow.sdk import XComArg

    from airflow_provider_fused.hooks import FusedHook
    from fused_cache_ops.tiles import TileSelection


class FusedInvalidateCacheOperator(BaseOperator):
    """Invalidate the cached results of a Fused UDF: all of them, or those of the tiles that a load has changed.

    One task sends any number of tiles, up to 50,000 a request, so map it over UDFs and never over tiles.

    :param udf: id, ``name``, ``canvas/name``, ``team/name``, ``user@host/name`` or shared token (templated)
    :param tiles: the tiles to invalidate: a list of ``"z/x/y"``, ``[z, x, y]`` or ``{"z": …, "x": …, "y": …}``, an
        upstream task's output, or a template that renders to a JSON list (templated). Leave it out for the whole UDF;
        an empty list invalidates nothing; None, and a template that renders to nothing, fail the task
    :param fused_conn_id: the connection of type ``fused`` (templated)
    :param max_zoom: the highest zoom that ``tiles`` may hold

    :returns: what was done, to XCom: ``udf_id``, ``client_id``, ``tiles_requested`` (None: the whole UDF),
        ``objects_deleted`` (None: the service does not say), ``requests_sent``, ``retries``, ``elapsed_seconds``
    :raises AirflowFailException: what will not pass: the task fails at its first try
    :raises FusedUnavailableError: what may pass, after the core's own retries: the task's ``retries`` apply
    """

    template_fields: Sequence[str] = ("udf", "tiles", "fused_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"tiles": "json"}
    ui_color = "#e8ff59"
    ui_fgcolor = "#141414"

    def __init__(
        self,
        *,
        udf: str | XComArg,
        tiles: TileSelection | str | XComArg = WHOLE_UDF,
        fused_conn_id: str = "fused_default",
        max_zoom: int = HIGHEST_ZOOM,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.udf = udf
        self.tiles = tiles
        self.fused_conn_id = fused_conn_id
        self.max_zoom = max_zoom

    @cached_property
    def hook(self) -> FusedHook:
        from airflow_provider_fused.hooks import FusedHook

        return FusedHook(self.fused_conn_id)

    def execute(self, context: Any) -> dict[str, Any]:
        from airflow_provider_fused.selection import read_tiles
        from fused_cache_ops.errors import FusedCacheError

        try:
            tiles = read_tiles(self.tiles)
            with self.hook.get_conn() as client:
                result = client.invalidate_cache(cast("str", self.udf), tiles=tiles, max_zoom=self.max_zoom)
        except FusedCacheError as error:
            failure = FusedUnavailableError if error.retryable else AirflowFailException
            raise failure(str(error)) from error
        return result.to_dict()
