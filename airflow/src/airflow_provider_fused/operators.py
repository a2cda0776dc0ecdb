"""The operator: add it to a DAG right after the load."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

from airflow_provider_fused._compat import IS_AIRFLOW_2, AirflowFailException, BaseOperator, has_worker, mask_secret
from airflow_provider_fused.exceptions import FusedUnavailableError
from airflow_provider_fused.links import FusedWorkbenchLink, workbench_of
from airflow_provider_fused.metrics import report_stale_times
from airflow_provider_fused.task_state import TASK_STATE, store_of
from airflow_provider_fused.templating import refuse_tables
from airflow_provider_fused.words import in_airflows_words
from fused_cache_ops.integration import (
    CALL_DEFAULTS,
    CALL_OPTIONS,
    NOT_GIVEN,
    SELECTION_DEFAULTS,
    STATED,
    WHOLE_UDF,
    refuse_stored_webhook,
    webhook_of,
)

if TYPE_CHECKING:
    from airflow.sdk import XComArg

    from airflow_provider_fused.hooks import FusedHook
    from fused_cache_ops import CacheMap, FusedCacheError, FusedClient, H3IndexOptions, IndexWait
    from fused_cache_ops.integration import (
        Announce,
        Antimeridian,
        Bounds,
        CallKeywords,
        LoadedAt,
        NotGiven,
        Refresh,
        Related,
        RenderResolution,
        TileOrder,
        TileSelection,
        WhenTooMany,
        Zooms,
    )


SELECTION_FIELDS = tuple(SELECTION_DEFAULTS)
CALL_FIELDS = tuple(CALL_DEFAULTS)
DATASET_FIELDS = tuple(name for name, option in CALL_OPTIONS.items() if option.stored)
REFRESH_FIELDS = (*SELECTION_FIELDS, "refresh", "shared_token")


class _FusedOperator(BaseOperator):
    """What the operators have in common: their fields as the core's keywords, a client, and the end of a task."""

    fields: ClassVar[tuple[str, ...]]
    template_fields_renderers: ClassVar[dict[str, str]] = {"tiles": "json", "bounds": "json", "geometry": "json"}
    ui_color = "#e8ff59"
    ui_fgcolor = "#141414"
    fused_conn_id: str
    udf: str | XComArg

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._client: FusedClient | None = None
        self._result: dict[str, Any] = {}
        self._extras: dict[str, dict[str, Any]] = {}
        self.base_url: str | None = None  # set when the task runs, for the link

    def _label(self, context: Any) -> None:
        """Name the instances of a task that is mapped over UDFs after these, unless the DAG says how to name them. A shared
        token is masked."""
        from fused_cache_ops import FusedCacheError
        from fused_cache_ops.integration import parse_udf

        is_mapped = getattr(context.get("ti"), "map_index", -1) >= 0
        if is_mapped and _is_mapped_over_udfs(self) and not context.get("map_index_template"):
            with contextlib.suppress(FusedCacheError):  # the call itself raises it
                context["fused_udf"] = parse_udf(cast("str", self.udf)).shown.strip("'")
                context["map_index_template"] = "{{ fused_udf }}"

    def _name(self, udf: Any) -> None:
        """Set the UDF. A shared token grants access, and Airflow would store one that a DAG's file holds.

        :raises InvalidInputError: it is such a token
        """
        if self.has_dag():  # type: ignore[no-untyped-call]
            _refuse_stored_token(udf)
        self.udf = udf

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """As Airflow's own. No operator is made before the task runs, so what Airflow must not store is rejected here.

        :raises InvalidInputError: ``announce`` is an address to post to, or ``udf`` is a shared token
        """
        refuse_stored_webhook(kwargs.get("announce", NOT_GIVEN), "Airflow stores a DAG's arguments")
        _refuse_stored_token(kwargs.get("udf"))
        return super().partial(**kwargs)

    def _refuse_without_token(self) -> None:
        """Reject, where the DAG is defined, what certainly has no shared token to run the UDF by.

        :raises InvalidInputError: as said
        """
        verified, udf = getattr(self, "verify_tiles", 0), self.udf
        what = "verify_tiles" if _is_wanted(verified) else "refresh" if _is_wanted(getattr(self, "refresh", 0)) else ""
        is_known = isinstance(udf, str) and "{{" not in udf and "{%" not in udf and not _is_shared_token(udf)
        if what and is_known and getattr(self, "shared_token", None) is None and self.has_dag():  # type: ignore[no-untyped-call]
            from fused_cache_ops import InvalidInputError

            raise InvalidInputError(
                f"{what} needs a shared token of UDF {udf!r}, because that is how its tiles are requested, and there is "
                "none: put it into a variable, and pass shared_token='{{ var.value.roads_token }}', or udf by such a template."
            )

    def _refuse_stored(self, announce: Any) -> None:
        """Reject an address to post to that Airflow would store.

        :raises InvalidInputError: as said
        """
        if self.has_dag():  # type: ignore[no-untyped-call]
            refuse_stored_webhook(announce, "Airflow stores a DAG's arguments")

    def __setattr__(self, name: str, value: Any) -> None:
        secret = value if name == "udf" and _is_shared_token(value) else webhook_of(value) if name == "announce" else None
        if secret is not None:  # before Airflow stores what was rendered
            mask_secret(secret)
        super().__setattr__(name, value)

    def _refuse_timeout(self, seconds: float) -> None:
        """Reject a wait that Airflow 2 would cut off. Since Airflow 3, the time while a task is deferred does not count.

        :raises InvalidInputError: as said
        """
        limit = self.execution_timeout
        if IS_AIRFLOW_2 and limit is not None and seconds and limit.total_seconds() <= seconds:
            from fused_cache_ops import InvalidInputError

            raise InvalidInputError(
                f"again_after = {seconds:g} is not below execution_timeout ({limit.total_seconds():g} s), and in Airflow 2 the "
                "wait counts: raise execution_timeout, or omit it."
            )

    def _set(self, given: dict[str, Any], taken: tuple[str, ...]) -> None:
        """Set the fields that an operator of many of them takes.

        :raises TypeError: one of them is not among these
        """
        for name in given:
            if name in ("udf", *CALL_FIELDS) and name not in taken:
                raise TypeError(f"{type(self).__name__} takes no {name}: it takes {', '.join(taken)}.")
        refuse_tables(given)
        self._refuse_stored(given.get("announce", NOT_GIVEN))
        for name in taken:
            setattr(self, name, given.get(name, NOT_GIVEN if name in STATED else CALL_OPTIONS[name].default))

    @cached_property
    def hook(self) -> FusedHook:
        from airflow_provider_fused.hooks import FusedHook

        return FusedHook(self.fused_conn_id)

    @contextlib.contextmanager
    def _keywords(self, context: Any) -> Iterator[tuple[FusedClient, CallKeywords]]:
        """A client, and the rendered fields as the core's keywords."""
        from airflow_provider_fused.templating import read_fields
        from fused_cache_ops.integration import require_kind

        self._label(context)
        keywords = read_fields({name: getattr(self, name) for name in self.fields})
        if _is_expanded_from_dicts(self):
            given = {name: value for name, value in keywords.items() if value is not CALL_OPTIONS[name].default}
            require_kind(given, "An item of expand_kwargs names")
        if "checkpoint" in keywords:
            keywords["checkpoint"] = own_checkpoint(keywords["checkpoint"], context)
        if keywords.get("loaded_at") is NOT_GIVEN:
            keywords["loaded_at"] = _time_of_load(context)
        with self.hook.get_conn() as client:
            self._client, self.base_url = client, client.base_url
            if "ti" in context and has_worker(context["ti"]):  # the link is there while the task runs, or is deferred
                context["ti"].xcom_push(key=FusedWorkbenchLink().xcom_key, value=workbench_of(client.base_url))
            yield client, keywords

    def _deferred(
        self, seconds: float, first: dict[str, Any], returned: dict[str, Any] | None = None, method: str = "second_pass"
    ) -> dict[str, Any]:
        """Wait without a worker slot: for the second pass, or for the index of an H3 table."""
        from airflow_provider_fused.triggers import SecondPassTrigger

        what = "the second pass begins" if method == "second_pass" else "the H3 index is looked at again"
        self.log.info("Deferred: %s in %g s.", what, seconds)
        moment = datetime.now(timezone.utc) + timedelta(seconds=seconds)
        self.defer(trigger=SecondPassTrigger(moment.isoformat(), first, returned), method_name=method)
        raise AssertionError  # defer raises

    def _with_outlets(self, context: Any, result: dict[str, Any]) -> dict[str, Any]:
        """The result, which each outlet asset's event gets too, for DAGs that are scheduled on the asset."""
        events = context.get("outlet_events")
        for outlet in self.outlets or ():
            if events is not None and hasattr(outlet, "uri"):  # an asset, not an asset alias
                # What a decorated function has set stays, also what it set before the task was deferred.
                events[outlet].extra = {**result, **self._extras.get(str(outlet.uri), {}), **events[outlet].extra}
        self._result = result
        report_stale_times(self._results(), context)
        return result

    def _extras_set(self, context: Any) -> dict[str, dict[str, Any]]:
        """What has been added to the events of the outlets, for after a wait, when it is no longer known."""
        events = context.get("outlet_events")
        outlets = [outlet for outlet in self.outlets or () if events is not None and hasattr(outlet, "uri")]
        return {str(outlet.uri): dict(events[outlet].extra) for outlet in outlets if events[outlet].extra}

    def on_kill(self) -> None:
        if self._client is not None:
            self._client.cancel()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """For the OpenLineage provider, if installed: the caches as the task's output datasets, one per UDF and instance."""
        from airflow.providers.common.compat.openlineage.facet import Dataset
        from airflow.providers.openlineage.extractors import OperatorLineage

        results = [each for found in self._results() for each in (found, *found["related"].values())]
        caches = dict.fromkeys((client_id, each["udf_id"]) for each in results for client_id in each["client_ids"])
        outputs = [Dataset(namespace=f"fused://{client_id}", name=f"udf-cache/{udf_id}") for client_id, udf_id in caches]
        return OperatorLineage(outputs=outputs)

    def _results(self) -> list[dict[str, Any]]:
        """The result of each UDF that the task named. None if the task failed."""
        raise NotImplementedError


class FusedInvalidateCacheOperator(_FusedOperator):
    """Invalidate the cached results of a Fused UDF: all of them, or those of the tiles that a load changed.

    One task sends any number of tiles, up to 50,000 per request, so map it over UDFs, never over tiles.

    :param udf: id, ``name``, ``canvas/name``, ``team/name``, ``user@host/name`` or shared token (templated)
    :param tiles: the tiles to invalidate: a list of ``"z/x/y"``, ``[z, x, y]`` or ``{"z": …, "x": …, "y": …}``, an
        upstream task's output, or a template that renders to a JSON list (templated). Omit every selection for the whole
        UDF. An empty selection invalidates nothing. None, and a template that renders to nothing, fail the task
    :param bounds: instead of ``tiles``: ``[west, south, east, north]`` in degrees, or a list of these (templated)
    :param geometry: instead of ``tiles``: GeoJSON, WKT, or the path or URL of a vector or Parquet file (templated). Not a
        table, because Airflow stores fields as text: return one from a function under ``@task.fused_invalidate_cache``
    :param tiles_file: instead of ``tiles``: the path of a list of tiles, one per line (templated)
    :param cells: instead of ``tiles``: H3 cells as text or numbers, or the path of a file with one cell per line (templated)
    :param hex_dataset: instead of ``tiles``: the path or URL of an H3 dataset that Fused wrote (templated)
    :param whole_udf: invalidate everything. Required with ``expand_kwargs``, where an item without a selection would otherwise
        mean everything. Elsewhere, omitting every selection does the same (templated)
    :param zooms: ``"10-14"``, ``[10, 12]``, ``12``. Required with ``bounds``, ``geometry``, ``cells`` and ``hex_dataset``.
        With a list of tiles, adds their parents and children (templated)
    :param buffer: tiles to add on every side (templated)
    :param max_tiles: the most tiles that a computed selection may have (templated)
    :param when_too_many: what to do when there are more: ``"fail"``, ``"whole-udf"`` or ``"coarser"`` (templated)
    :param shard: ``[i, n]`` for only the ``i``-th of ``n`` equal parts of the selection, counted from 0. Map over these to
        share one invalidation among workers, and merge with ``fused_cache_ops.InvalidationResult.merge`` (templated)
    :param order: the order of the numbers in tiles that are bare lists: ``"zxy"``, or ``"xyz"``, as mercantile writes them,
        also to XCom. Default: (z, x, y). A file of JSON lists needs it (templated)
    :param layer: the layer of a vector file to read. Default: all that have geometries (templated)
    :param antimeridian: how to read an edge that spans more than half the globe: ``"cross"``, the shorter way over the
        antimeridian, or ``"literal"``. Default: literally, with a warning (templated)
    :param geometry_column: the column of a file that holds the geometries, if none is marked as such, or a list of two with
        longitudes and latitudes (templated)
    :param crs: the coordinate reference system of a geometry that does not name one, such as ``"EPSG:25832"`` (templated)
    :param render_resolution: the resolution of the H3 cells that the map draws: a number, a mapping from zooms to numbers, or
        ``"fused"`` for the rule of Fused's examples. Default: the changed cells themselves (templated)
    :param partition: the folders of the H3 dataset that were rewritten, such as ``"date={{ ds }}"``. Default: all (templated)
    :param checkpoint: where to record what is done, so that a retry sends only the rest: a file, or a folder, which gets a file
        for each task instance. A path, or with the core's extra ``fsspec`` any URL that it supports, where a folder ends in
        ``/``: ``s3://bucket/checkpoints/``. A record of another run, or from before the task was cleared, is ignored
        (templated)
    :param verify_tiles: afterwards, request this many of the tiles through a shared token. The result says which of them
        were computed anew (templated)
    :param fail_on_stale: fail the task, which is then retried, if a tile of ``verify_tiles`` still comes from the cache after
        it was invalidated twice more (templated)
    :param shared_token: the shared token for ``verify_tiles`` and ``refresh``, if ``udf`` is not one itself (templated;
        masked in the UI)
    :param related: also invalidate UDFs of the same canvas: ``"callers"``, which call this one and keep results of their own,
        ``"callees"``, which it calls, or ``"both"`` (templated)
    :param max_related: the most UDFs that ``related`` may add (templated)
    :param inner_caches: before that, and before the second pass, delete the folders in which functions under ``@fused.cache``
        keep their results: names (``cache_folder_path``), or ``"own"`` for those that the UDF's code names (templated)
    :param h3_index: the index of the H3 table that the UDF queries, which must have what was loaded before anything is sent: a
        mapping of ``fused_cache_ops.H3IndexOptions``, such as ``{"path": "s3://bucket/hexes/", "run": True, "prefix":
        "date={{ ds }}"}``. While an index is run, the task is deferred (templated, also inside the mapping)
    :param loaded_at: when the load was done. The result says how long the map was stale. Default: the time of the latest asset
        event that triggered the DAG run, if one did (templated)
    :param again_after: send everything a second time after this many seconds, for runs that began before the load was
        committed. A run may take 120 seconds, so 130 is a good value. Meanwhile the task is deferred: it needs a triggerer,
        and occupies no worker slot. Tiles are verified and refreshed after the second pass (templated)
    :param refresh: afterwards, run the UDF again for this many of the tiles, or for ``"all"``, so that visitors find them
        cached. Or a mapping of ``fused_cache_ops.RefreshOptions``: ``{"count": 500, "zooms": "0-8", "must_succeed": True}``.
        Each run costs credits. What could not be refreshed is in the result, and fails the task only with ``must_succeed``
        (templated, also inside the mapping)
    :param announce: afterwards, put what has changed where maps that are open in a browser look for it: a path, or a URL that
        the core's extra ``fsspec`` supports, such as ``"s3://bucket/roads.json"``. Or a mapping of
        ``fused_cache_ops.AnnounceOptions``: ``{"to": "env:MAP_WEBHOOK", "source": "roads"}``. A failure to announce is in the
        result, and fails the task only with ``must_succeed`` (templated, also inside the mapping)
    :param fused_conn_id: the connection of type ``fused`` (templated)
    :param max_zoom: the highest zoom that the selection may contain (templated)
    :param tiles_from_events: instead of ``tiles``: the key under which the extra of asset events lists the tiles, such as
        ``"tiles"``. With ``inlets=[TABLE, MAP], outlets=[MAP]``, all events of the tables since the map's own asset was last
        updated. Otherwise, those that triggered the DAG run. An event without the key fails the task (templated)

    :returns: what was done, to XCom: ``udf_id``, ``client_id``, ``tiles_invalidated`` (None for the whole UDF),
        ``objects_deleted`` (None if the service does not report it), ``requests_sent``, ``retries``, ``elapsed_seconds``,
        ``tiles_already_done``, ``verification``, ``zooms_left_stale``, ``note``, ``client_ids``, ``related`` (the result of
        each related UDF by its id), ``second_pass``, ``warnings``, ``refresh``,
        ``inner_caches``, ``loaded_at``, ``seconds_until_invalidated``, ``seconds_until_fresh``, ``announcement`` (where it was
        announced and as which version, or why not)
    :raises AirflowFailException: a permanent error, which fails the task without retries
    :raises FusedUnavailableError: a transient error that outlasted the core's own retries. The task's ``retries`` apply

    Each asset among the task's ``outlets`` gets the result as the extra of its event.
    """

    template_fields: Sequence[str] = ("udf", *CALL_FIELDS, "tiles_from_events", "fused_conn_id")
    fields = CALL_FIELDS
    operator_extra_links: Any = (FusedWorkbenchLink(),)

    def __init__(
        self,
        *,
        udf: str | XComArg,
        tiles: TileSelection | str | XComArg = WHOLE_UDF,
        bounds: Bounds | str | XComArg | NotGiven = NOT_GIVEN,
        geometry: Any = NOT_GIVEN,
        tiles_file: str | XComArg | NotGiven = NOT_GIVEN,
        cells: Sequence[str | int] | str | XComArg | NotGiven = NOT_GIVEN,
        hex_dataset: str | XComArg | NotGiven = NOT_GIVEN,
        whole_udf: bool | str | XComArg = False,
        zooms: Zooms | XComArg | NotGiven = NOT_GIVEN,
        buffer: int | str | XComArg = 0,
        max_tiles: int | str | XComArg = CALL_DEFAULTS["max_tiles"],
        when_too_many: WhenTooMany | str | XComArg = "fail",
        shard: Sequence[int] | str | XComArg | NotGiven = NOT_GIVEN,
        order: TileOrder | str | XComArg | NotGiven = NOT_GIVEN,
        layer: str | XComArg | NotGiven = NOT_GIVEN,
        antimeridian: Antimeridian | str | XComArg | NotGiven = NOT_GIVEN,
        geometry_column: str | Sequence[str] | NotGiven = NOT_GIVEN,
        crs: str | XComArg | NotGiven = NOT_GIVEN,
        render_resolution: RenderResolution | XComArg | NotGiven = NOT_GIVEN,
        partition: str | list[str] | XComArg | NotGiven = NOT_GIVEN,
        checkpoint: str | None = None,
        verify_tiles: int | str = 0,
        fail_on_stale: bool | str | XComArg = True,
        shared_token: str | None = None,
        related: Related | str | XComArg | NotGiven = NOT_GIVEN,
        max_related: int | str | XComArg = CALL_DEFAULTS["max_related"],
        inner_caches: str | Sequence[str] | XComArg | NotGiven = NOT_GIVEN,
        h3_index: H3IndexOptions | str | XComArg | NotGiven = NOT_GIVEN,
        loaded_at: LoadedAt | XComArg | NotGiven = NOT_GIVEN,
        again_after: float | str | XComArg = 0,
        refresh: Refresh | str | XComArg = 0,
        announce: Announce | XComArg | NotGiven = NOT_GIVEN,
        fused_conn_id: str = "fused_default",
        max_zoom: int | str | XComArg = CALL_DEFAULTS["max_zoom"],
        tiles_from_events: str | NotGiven = NOT_GIVEN,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        refuse_tables({"tiles": tiles, "geometry": geometry, "cells": cells})
        _refuse_two_sources(tiles_from_events, tiles)
        self.tiles_from_events = tiles_from_events
        self._refuse_stored(announce)
        self._name(udf)
        self.tiles = tiles
        self.bounds = bounds
        self.geometry = geometry
        self.tiles_file = tiles_file
        self.cells = cells
        self.hex_dataset = hex_dataset
        self.whole_udf = whole_udf
        self.zooms = zooms
        self.buffer = buffer
        self.max_tiles = max_tiles
        self.when_too_many = when_too_many
        self.shard = shard
        self.order = order
        self.layer = layer
        self.antimeridian = antimeridian
        self.geometry_column = geometry_column
        self.crs = crs
        self.render_resolution = render_resolution
        self.partition = partition
        self.checkpoint = checkpoint
        self.verify_tiles = verify_tiles
        self.fail_on_stale = fail_on_stale
        self.shared_token = shared_token
        self.related = related
        self.max_related = max_related
        self.inner_caches = inner_caches
        self.h3_index = h3_index
        self.loaded_at = loaded_at
        self.again_after = again_after
        self.refresh = refresh
        self.announce = announce
        self.fused_conn_id = fused_conn_id
        self.max_zoom = max_zoom
        self._refuse_without_token()
        self._returned: dict[str, Any] | None = None  # by a decorated function, which is not called again

    def execute(self, context: Any) -> dict[str, Any]:
        self._take_events(context)
        return self._after_index(context, None)

    def _take_events(self, context: Any) -> None:
        """Select the tiles that asset events name, if they are to be taken from these."""
        if self.tiles_from_events is NOT_GIVEN or self._returned is not None:
            return
        from airflow_provider_fused.assets import tiles_from_events

        with in_airflows_terms():
            tiles, is_repeatable = tiles_from_events(context, self, self.tiles_from_events)
        if is_repeatable:
            self.tiles = tiles
        else:
            self._take({"tiles": tiles}, context)

    def _take(self, selection: Mapping[str, Any], context: Any) -> None:
        """Use a selection that is known only now. If the task is deferred, Airflow stores it, because what it comes from may
        be another one afterwards."""
        from fused_cache_ops.integration import read_rendered, runs_an_index

        with in_airflows_terms():
            given = read_rendered({"again_after": self.again_after, "h3_index": self.h3_index})
        if given["again_after"] or runs_an_index(given):
            selection = _storable(selection)
            self._returned = {**selection, "_extras": self._extras_set(context)}
        for name, value in selection.items():
            setattr(self, name, value)

    def index_looked_at(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """Airflow calls this instead of ``execute`` once it is time to look at the index of the H3 table again."""
        from fused_cache_ops import IndexWait

        for name, value in (event["returned"] or {}).items():
            setattr(self, name, value)
        self._returned = event["returned"]
        self._take_events(context)
        return self._after_index(context, IndexWait.from_dict(event["first"]))

    def _after_index(self, context: Any, waiting: IndexWait | None) -> dict[str, Any]:
        """Wait for an index that is to be run. Then invalidate."""
        from fused_cache_ops.integration import runs_an_index

        with in_airflows_terms(), self._keywords(context) as (client, keywords):
            udf = cast("str", self.udf)
            if runs_an_index(keywords) and keywords.get("tiles") != []:
                index: Any = keywords["h3_index"]
                wait = client.look_at_index(index, waiting, loaded_at=keywords["loaded_at"])
                if wait is not None:
                    return self._deferred(wait.seconds, wait.to_dict(), self._returned, "index_looked_at")
                keywords["h3_index"] = NOT_GIVEN
            if not keywords["again_after"]:
                return self._with_outlets(context, client.invalidate_cache(udf, **keywords).to_dict())
            self._refuse_timeout(keywords["again_after"])
            first = client.first_pass(udf, **keywords)
        if first.is_empty:
            return self._with_outlets(context, first.result.to_dict())
        return self._deferred(keywords["again_after"], first.to_dict(), self._returned)

    def second_pass(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """Airflow calls this instead of ``execute`` once the wait is over, with the fields rendered anew."""
        from fused_cache_ops import FirstPass

        for name, value in (event["returned"] or {}).items():
            setattr(self, name, value)
        self._returned = event["returned"]
        self._take_events(context)
        with in_airflows_terms(), self._keywords(context) as (client, keywords):
            result = client.second_pass(cast("str", self.udf), FirstPass.from_dict(event["first"]), **keywords)
        return self._with_outlets(context, result.to_dict())

    def _results(self) -> list[dict[str, Any]]:
        """The result of each UDF that the task named. None if the task failed."""
        return [self._result] if self._result else []


class FusedRefreshCacheOperator(_FusedOperator):
    """Run a Fused UDF for some tiles, so that visitors find them cached. Nothing is invalidated.

    Put it after `FusedInvalidateCacheOperator`, with the same selection, a low ``priority_weight`` and a pool of its own, so
    that no load waits for it. What is cached already costs no run, so a retry continues.

    :param udf: as for `FusedInvalidateCacheOperator` (templated)
    :param refresh: as for `FusedInvalidateCacheOperator`. Default: all tiles of the selection, and ``must_succeed`` is True
        (templated)
    :param fused_conn_id: the connection of type ``fused`` (templated)
    :param fields: the selection of `FusedInvalidateCacheOperator`, and ``shared_token`` (templated)

    :returns: what was done, to XCom: ``runs``, ``already_cached``, ``failed``, ``not_requested``, ``already_done``,
        ``seconds_median``, ``seconds_p95``, ``bytes``, ``elapsed_seconds``, ``retryable``, ``note``
    :raises AirflowFailException: something could not be refreshed, and a retry would not help
    :raises FusedUnavailableError: something could not be refreshed. The task's ``retries`` apply
    """

    fields = REFRESH_FIELDS
    template_fields: Sequence[str] = ("udf", *REFRESH_FIELDS, "fused_conn_id")

    def __init__(
        self,
        *,
        udf: str | XComArg,
        refresh: Refresh | str | XComArg = "all",
        fused_conn_id: str = "fused_default",
        **fields: Any,
    ) -> None:
        own = {name: fields.pop(name) for name in ("udf", *CALL_FIELDS) if name in fields}
        super().__init__(**fields)
        self._set({**own, "refresh": refresh}, REFRESH_FIELDS)
        self._name(udf)
        self.refresh = refresh
        self.fused_conn_id = fused_conn_id
        self._refuse_without_token()

    def execute(self, context: Any) -> dict[str, Any]:
        from fused_cache_ops.integration import merged_refresh

        with in_airflows_terms(), self._keywords(context) as (client, keywords):
            wanted: Any = {**keywords, "refresh": merged_refresh({"must_succeed": True}, keywords["refresh"])}
            return client.refresh_cache(cast("str", self.udf), **wanted).to_dict()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Nothing: no dataset changes."""


class FusedInvalidateDatasetOperator(_FusedOperator):
    """Invalidate every Fused UDF that shows a dataset, as a cache map says.

    What changed is read and covered once. One UDF that fails does not keep the others from being invalidated.

    :param dataset: the dataset's key in the map, such as an asset's URI or name (templated). Default: the task's inlet assets,
        or if it has none, the assets whose events triggered the DAG run, as far as the map lists their URI or name
    :param cache_map: the path of the map (templated). A relative path is looked for beside the DAG's file, and then in the
        working folder
    :param fused_conn_id: the connection of type ``fused`` (templated)
    :param fields: the selection and the arguments for sending of `FusedInvalidateCacheOperator`, except for ``udf`` and
        ``shared_token``. They hold for every UDF, so what the map says for one cannot be said here too. ``checkpoint`` must be
        a folder
    :param tiles_from_events: instead of ``tiles``: the key under which the extra of the events that triggered the DAG run lists
        the tiles. Each dataset gets those of its own events (templated)

    :returns: what was done, to XCom, by dataset: ``results`` (the result of each UDF), ``failed``, ``elapsed_seconds``,
        ``note``
    :raises AirflowFailException: a permanent error, which fails the task without retries
    :raises FusedUnavailableError: a transient error that outlasted the core's own retries. The task's ``retries`` apply
    """

    fields = DATASET_FIELDS
    template_fields: Sequence[str] = ("dataset", "cache_map", *DATASET_FIELDS, "tiles_from_events", "fused_conn_id")

    def __init__(
        self,
        *,
        dataset: str | XComArg | NotGiven = NOT_GIVEN,
        cache_map: str | XComArg = "fused-cache.toml",
        fused_conn_id: str = "fused_default",
        tiles_from_events: str | NotGiven = NOT_GIVEN,
        **fields: Any,
    ) -> None:
        own = {name: fields.pop(name) for name in ("udf", *CALL_FIELDS) if name in fields}
        super().__init__(**fields)
        self._set(own, DATASET_FIELDS)
        _refuse_two_sources(tiles_from_events, own.get("tiles", WHOLE_UDF))
        self.dataset = dataset
        self.tiles_from_events = tiles_from_events
        self.cache_map = cache_map
        self.fused_conn_id = fused_conn_id

    def execute(self, context: Any) -> dict[str, Any]:
        return self._after_indexes(context, {})

    def indexes_looked_at(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """Airflow calls this instead of ``execute`` once it is time to look at the indexes of H3 tables again."""
        return self._after_indexes(context, event["first"])

    def _after_indexes(self, context: Any, stored: dict[str, Any]) -> dict[str, Any]:
        """Wait for the indexes that are to be run. Then invalidate."""
        from fused_cache_ops import DatasetIndexWait

        waiting = {key: DatasetIndexWait.from_dict(each) for key, each in stored.items()}

        def look(client: FusedClient, key: str, given: Any) -> dict[str, Any]:
            wanted = {name: given[name] for name in ("cache_map", "h3_index", "loaded_at")}
            waiting[key] = client.look_at_dataset_indexes(key, waiting.get(key), **wanted)
            return waiting[key].to_dict()

        def send(client: FusedClient, key: str, given: Any) -> dict[str, Any]:
            return client.first_dataset_pass(key, indexes=waiting.get(key), **given).to_dict()

        with in_airflows_terms():
            looks, _ = self._each(context, look)  # what fails now fails again below, and does not keep the others stale
            seconds = min((each.seconds for each in waiting.values() if each.seconds is not None), default=None)
            if seconds is not None:
                return self._deferred(seconds, looks, None, "indexes_looked_at")
            passes, failures = self._each(context, send, is_first=True)
            wait = max((each["again_after"] for each in passes.values()), default=0)
            if not wait:
                _raise_one(failures)
                return self._with_outlets(context, {key: each["result"] for key, each in passes.items()})
        # One that failed does not take the second pass from the others.
        failed = [{"message": error.message, "retryable": error.retryable} for error in failures]
        return self._deferred(wait, {"passes": passes, "failed": failed})

    def second_pass(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """Airflow calls this instead of ``execute`` once the wait is over, with the fields rendered anew."""
        from fused_cache_ops import DatasetFirstPass, PermanentError, TransientError

        firsts = {key: DatasetFirstPass.from_dict(each) for key, each in event["first"]["passes"].items()}
        with in_airflows_terms():
            found, failures = self._each(
                context,
                lambda client, key, given: client.second_dataset_pass(key, firsts[key], **given).to_dict(),
                tuple(firsts),
            )
            of_first = [
                (TransientError if each["retryable"] else PermanentError)(each["message"]) for each in event["first"]["failed"]
            ]
            _raise_one([*of_first, *failures])
        return self._with_outlets(context, found)

    def _each(
        self,
        context: Any,
        send: Callable[[FusedClient, str, Any], dict[str, Any]],
        keys: tuple[str, ...] | None = None,
        *,
        is_first: bool = False,
    ) -> tuple[dict[str, dict[str, Any]], list[FusedCacheError]]:
        """What was done for each dataset, and the errors. One that fails does not keep the others from being invalidated."""
        from fused_cache_ops import CacheMap, FusedCacheError, InvalidationCancelledError, InvalidInputError

        if self.cache_map is None or not str(self.cache_map).strip():
            raise InvalidInputError(f"cache_map is {self.cache_map!r}: pass the path of the cache map, or omit it.")
        read = CacheMap.read(cast("str", self.cache_map), beside=getattr(context.get("dag"), "fileloc", None))
        done: dict[str, dict[str, Any]] = {}
        failures: list[FusedCacheError] = []
        with self._keywords(context) as (client, keywords):
            given: dict[str, Any] = dict(keywords)
            keys = keys or tuple(self._datasets(context, read))
            if is_first:
                waits = [each.keywords.get("again_after", 0) for key in keys for each in read.entries(key)]
                self._refuse_timeout(max([given["again_after"], *waits]))
            for key in keys:
                try:
                    done[key] = send(client, key, {**given, **self._of_events(context, read, key), "cache_map": read})
                except InvalidationCancelledError:
                    raise
                except FusedCacheError as error:
                    self.log.error("%s", error)
                    failures.append(error)
                    first = getattr(error, "first_pass", None)
                    if first is not None and first.fingerprints:
                        done[key] = first.to_dict()
        return done, failures

    def _of_events(self, context: Any, read: CacheMap, key: str) -> dict[str, Any]:
        """The tiles that the events of a dataset name, if they are to be taken from these."""
        if self.tiles_from_events is NOT_GIVEN:
            return {}
        from airflow_provider_fused.assets import tiles_from_events

        def is_of_dataset(asset: Any) -> bool:
            return read.key_of(str(getattr(asset, "uri", asset)), getattr(asset, "name", None)) == key

        return {"tiles": tiles_from_events(context, self, self.tiles_from_events, is_of_dataset)[0]}

    def _results(self) -> list[dict[str, Any]]:
        return [result for dataset in self._result.values() for result in dataset["results"].values()]

    def _datasets(self, context: Any, read: CacheMap) -> list[str]:
        """The datasets by their keys in the map: the one given, otherwise the inlets, otherwise what triggered the run."""
        from fused_cache_ops import InvalidInputError

        if self.dataset is not NOT_GIVEN:
            return [cast("str", self.dataset)]  # None is an error: the map does not list it
        assets = list(self._named_by_inlets(context))
        if not assets:
            assets = list(context.get("triggering_asset_events") or context.get("triggering_dataset_events") or ())
        named = [(getattr(asset, "uri", asset), getattr(asset, "name", None)) for asset in assets]
        keys = [read.key_of(*pair) for pair in named]
        found = list(dict.fromkeys(key for key in keys if key is not None))
        if not found:
            shown = ", ".join(repr(uri or name) for uri, name in named) or "there are none"
            raise InvalidInputError(
                f"No dataset is given, and {read.source} lists none of the task's inlets or the run's triggering assets "
                f"({shown}): pass dataset=."
            )
        for (uri, name), key in zip(named, keys):
            if key is None:
                self.log.info("Fused cache: %s does not list %r, so no UDF shows it.", read.source, uri or name)
        return found

    def _named_by_inlets(self, context: Any) -> Iterator[Any]:
        """The assets among the inlets, also those given by a reference, and those that an alias stands for."""
        for inlet in self.inlets or ():
            if hasattr(inlet, "uri") or type(inlet).__name__ == "AssetNameRef":
                yield inlet if hasattr(inlet, "uri") else _Named(inlet.name)
            elif type(inlet).__name__ in ("AssetAlias", "DatasetAlias"):
                events = context["inlet_events"][inlet]
                yield from (getattr(event, "asset", None) or event.dataset for event in events)


class FusedInvalidateDbtOperator(_FusedOperator):
    """Invalidate every Fused UDF that shows what a dbt build changed.

    Put it after the task that runs dbt, with ``trigger_rule="all_done"``: what succeeded in a failed build is in no later file.

    :param path: the folder that dbt writes to, such as ``target/``, the project's folder, or a list of these (templated)
    :param cache_map: the path of the map (templated), looked for as by `FusedInvalidateDatasetOperator`. Default:
        ``fused-cache.toml``, if there is one. UDFs that exposures name by ``meta.fused`` are invalidated too
    :param newer_than: a time. Older results fail the task: ``"{{ dag_run.start_date }}"`` (templated)
    :param repeat: do again what was done for a build before (templated)
    :param fused_conn_id: the connection of type ``fused`` (templated)
    :param fields: as for `FusedInvalidateDatasetOperator`

    :returns: what was done, to XCom: ``results`` (the result of each UDF), ``failed``, ``changed``, ``not_built``,
        ``not_shown``, ``invocations``, ``warnings``, ``elapsed_seconds``, ``note``
    :raises AirflowFailException: a permanent error, or dbt did not build everything. The maps of what it did are invalidated
    :raises FusedUnavailableError: a transient error that outlasted the core's own retries. The task's ``retries`` apply
    """

    fields = DATASET_FIELDS
    template_fields: Sequence[str] = ("path", "cache_map", "newer_than", "repeat", *DATASET_FIELDS, "fused_conn_id")

    def __init__(
        self,
        *,
        path: str | Sequence[str] | XComArg,
        cache_map: str | XComArg | NotGiven = NOT_GIVEN,
        newer_than: str | XComArg | NotGiven = NOT_GIVEN,
        repeat: bool | str | XComArg = False,
        fused_conn_id: str = "fused_default",
        **fields: Any,
    ) -> None:
        own = {name: fields.pop(name) for name in ("udf", *CALL_FIELDS) if name in fields}
        super().__init__(**fields)
        self._set(own, DATASET_FIELDS)
        self.path = path
        self.cache_map = cache_map
        self.newer_than = newer_than
        self.repeat = repeat
        self.fused_conn_id = fused_conn_id

    def execute(self, context: Any) -> dict[str, Any]:
        from fused_cache_ops.integration import read_boolean

        with in_airflows_terms(), self._keywords(context) as (client, keywords):
            self._refuse_timeout(keywords["again_after"])
            given: Any = dict(keywords)
            repeat = read_boolean("repeat", self.repeat) if isinstance(self.repeat, str) else self.repeat
            about: Any = {"repeat": repeat, "newer_than": self._text("newer_than"), "cache_map": self._map(context)}
            first = client.first_dbt_pass(cast("str", self.path), **about, **given)
            if not first.again_after:
                result = client.second_dbt_pass(cast("str", self.path), first, cache_map=about["cache_map"], **given)
                return self._with_outlets(context, result.to_dict())
        return self._deferred(first.again_after, first.to_dict())

    def second_pass(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """Airflow calls this instead of ``execute`` once the wait is over, with the fields rendered anew."""
        from fused_cache_ops import DbtFirstPass

        first = DbtFirstPass.from_dict(event["first"])
        with in_airflows_terms(), self._keywords(context) as (client, keywords):
            given: Any = dict(keywords)
            result = client.second_dbt_pass(cast("str", self.path), first, cache_map=self._map(context), **given)
        return self._with_outlets(context, result.to_dict())

    def _map(self, context: Any) -> CacheMap | None:
        """The map that is given, or the default one, if there is one beside the DAG's file or in the working folder."""
        from fused_cache_ops.integration import find_map

        return find_map(self._text("cache_map"), beside=getattr(context.get("dag"), "fileloc", None))

    def _text(self, name: str) -> Any:
        """An argument, None if it is omitted.

        :raises InvalidInputError: it rendered to nothing
        """
        from fused_cache_ops import InvalidInputError

        value = getattr(self, name)
        if value is None or (isinstance(value, str) and not value.strip()):
            raise InvalidInputError(f"{name} is {value!r}, which may be a value that is missing: pass a value, or omit it.")
        return None if value is NOT_GIVEN else value

    def _results(self) -> list[dict[str, Any]]:
        return list(self._result["results"].values()) if self._result else []


class _Named(NamedTuple):
    """An asset of which only the name is known."""

    name: str
    uri: None = None


def _raise_one(failures: Sequence[FusedCacheError]) -> None:
    """Raise the first error that may pass, otherwise the first one, if there are any."""
    if failures:
        raise next((error for error in failures if error.retryable), failures[0])


def _refuse_two_sources(key: Any, tiles: Any) -> None:
    """Reject tiles that are given beside those of events.

    :raises InvalidInputError: as said
    """
    if key is not NOT_GIVEN and tiles is not WHOLE_UDF:
        from fused_cache_ops import InvalidInputError

        raise InvalidInputError("tiles and tiles_from_events are both given: use one kind of selection at a time.")


LARGEST_STORED = 64_000
"""Bytes of JSON that a deferred task may keep in Airflow's database."""


def _storable(selection: Mapping[str, Any]) -> dict[str, Any]:
    """The selection as Airflow can store it while the task is deferred.

    :raises AirflowFailException: it is too large, or not JSON
    """
    tiles = selection.get("tiles")
    listed = {"tiles": list(tiles)} if isinstance(tiles, Set) else {}
    try:
        text = json.dumps({**selection, **listed})
    except (TypeError, ValueError, RecursionError):
        text = ""
    if not text or len(text) > LARGEST_STORED:
        what = f"has {len(text):,} bytes as JSON, over {LARGEST_STORED:,}" if text else "cannot be written as JSON"
        raise AirflowFailException(
            f"With again_after or a run of h3_index, Airflow stores what is selected while the task waits, and that {what}. "
            "Nothing was invalidated. Write the tiles to a file, and select by {'tiles_file': path}."
        )
    stored: dict[str, Any] = json.loads(text)
    return stored


def _refuse_stored_token(udf: Any) -> None:
    """Reject a shared token that Airflow would store.

    :raises InvalidInputError: as said
    """
    if _is_shared_token(udf):
        from fused_cache_ops import InvalidInputError

        raise InvalidInputError(
            "udf is a shared token, which grants access, and Airflow stores a DAG's arguments in plain text: put it into a "
            "variable, as in udf='{{ var.value.roads_token }}', or pass the UDF's id or name."
        )


def _is_wanted(value: Any) -> bool:
    """Whether a literal ``verify_tiles`` or ``refresh`` certainly asks for something."""
    if isinstance(value, Mapping):
        return _is_wanted(value.get("count", "all"))
    return value == "all" or (isinstance(value, int) and value > 0) or (isinstance(value, str) and value.strip("0").isdigit())


def _is_shared_token(udf: Any) -> bool:
    from fused_cache_ops.integration import Secret, sealed_udf

    return isinstance(sealed_udf(udf), Secret)


@contextlib.contextmanager
def in_airflows_terms() -> Iterator[None]:
    """Raise the core's errors as those that Airflow retries, or does not."""
    from fused_cache_ops import FusedCacheError, InvalidationCancelledError

    try:
        yield
    except FusedCacheError as error:
        # A cancelled call can be resumed, whoever cancelled it, so the task's retries apply.
        cancelled = isinstance(error, InvalidationCancelledError) or isinstance(error.__cause__, InvalidationCancelledError)
        failure = FusedUnavailableError if error.retryable or cancelled else AirflowFailException
        raise failure(in_airflows_words(str(error))) from error


def own_checkpoint(checkpoint: Any, context: Any) -> Any:
    """The checkpoint of this task instance. A retry resumes its record, and nothing else does: neither a task instance that was
    cleared, even while it was running, nor a run that was deleted and made again with the same id."""
    from fused_cache_ops.integration import RunCheckpoint

    if checkpoint == TASK_STATE:
        checkpoint = store_of(context)
    instance = context.get("ti")
    if checkpoint is None or instance is None:
        return checkpoint
    run = context.get("dag_run") or getattr(instance, "dag_run", None)
    begun = getattr(run, "start_date", None)
    parts = {
        "dag": instance.dag_id,
        "run": instance.run_id,
        "begun": begun and begun.isoformat(),
        "cleared": getattr(run, "clear_number", None),
        "task": instance.task_id,
        "map_index": instance.map_index,
        "max_tries": instance.max_tries,
    }
    return RunCheckpoint(checkpoint, f"airflow {parts}")


def _time_of_load(context: Any) -> Any:
    """When the data was loaded, as far as Airflow knows: the time of the latest asset event that triggered the DAG run."""
    try:
        triggering = context.get("triggering_asset_events") or context.get("triggering_dataset_events") or {}
        events = [event for asset in triggering for event in triggering[asset]]
    except Exception:  # `dag.test()` of Airflow 2 cannot read them in a task that is mapped, and a time is no reason to fail
        return NOT_GIVEN
    return max((moment for event in events if (moment := getattr(event, "timestamp", None)) is not None), default=NOT_GIVEN)


def _defined(operator: BaseOperator) -> Any:
    """A task as the DAG defines it: before it was mapped, if it is."""
    return operator.dag.task_dict.get(operator.task_id) if operator.has_dag() else None  # type: ignore[no-untyped-call]


def _is_expanded_from_dicts(operator: BaseOperator) -> bool:
    """Whether a task is an item of ``expand_kwargs``, so its selection comes from data."""
    return "ListOfDicts" in type(getattr(_defined(operator), "expand_input", None)).__name__


def _is_mapped_over_udfs(operator: BaseOperator) -> bool:
    """Whether the items of a mapped task are of different UDFs."""
    return "udf" not in getattr(_defined(operator), "partial_kwargs", {"udf": None})
