"""Flows that only invalidate: deploy them, and run them from the UI, a schedule or an automation."""

# No `from __future__ import annotations`: Prefect reads the annotations to build the form's schema.
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, Union

from prefect import flow
from pydantic import Field, TypeAdapter, ValidationError

from fused_cache_ops import CacheMap, InvalidInputError
from fused_cache_ops.integration import (
    CALL_DEFAULTS,
    DEFAULT_DEADLINE,
    DEFAULT_MAP,
    KINDS,
    SELECTION_DEFAULTS,
    MapLocation,
    parse_udf,
    read_rendered,
    refuse_stored_webhook,
)
from prefect_fused.credentials import FusedCredentials
from prefect_fused.events import read_event
from prefect_fused.run import flow_file
from prefect_fused.tasks import invalidate_cache, invalidate_dataset, run_name

if TYPE_CHECKING:
    from prefect.events.schemas.deployment_triggers import DeploymentTriggerTypes

Kind = Literal["tiles", "bounds", "geometry", "tiles_file", "cells", "hex_dataset"]


def _run_name() -> str:
    from prefect.runtime import flow_run

    return run_name(flow_run.get_parameters())


@flow(
    name="Invalidate Fused cache",
    description="Invalidate the cached results of a Fused UDF: all of them, or those of some tiles.",
    flow_run_name=_run_name,
)
def invalidate_cache_flow(
    udf: str,
    tiles: Optional[list[str]] = None,
    bounds: Optional[Annotated[list[float], Field(min_length=4, max_length=6)]] = None,
    geometry: Optional[Union[str, dict[str, Any]]] = None,
    tiles_file: Optional[str] = None,
    cells: Optional[list[str]] = None,
    hex_dataset: Optional[str] = None,
    partition: Optional[str] = None,
    render_resolution: Optional[Union[int, str]] = None,
    order: Optional[Literal["zxy", "xyz"]] = None,
    layer: Optional[str] = None,
    antimeridian: Optional[Literal["cross", "literal"]] = None,
    geometry_column: Optional[Union[str, list[str]]] = None,
    crs: Optional[str] = None,
    zooms: Optional[str] = None,
    buffer: Annotated[int, Field(ge=0)] = 0,
    whole_udf: bool = False,
    credentials: Optional[str] = None,
    max_tiles: Annotated[int, Field(ge=1)] = SELECTION_DEFAULTS["max_tiles"],
    when_too_many: Literal["fail", "whole-udf", "coarser"] = "fail",
    max_zoom: Annotated[int, Field(ge=0)] = SELECTION_DEFAULTS["max_zoom"],
    deadline: Annotated[float, Field(gt=0)] = DEFAULT_DEADLINE,
    related: Optional[Literal["callers", "callees", "both"]] = None,
    max_related: Annotated[int, Field(ge=1)] = CALL_DEFAULTS["max_related"],
    inner_caches: Optional[list[str]] = None,
    h3_index: Optional[dict[str, Any]] = None,
    announce: Optional[Union[str, dict[str, Any]]] = None,
    loaded_at: Optional[str] = None,
    verify_tiles: Annotated[int, Field(ge=0)] = 0,
    fail_on_stale: bool = True,
    refresh: Union[int, str, dict[str, Any]] = 0,
    again_after: Annotated[float, Field(ge=0)] = 0,
    again_deployment: Optional[str] = None,
    event: Optional[str] = None,
    event_entry: Kind = "tiles",
) -> dict[str, Any]:
    """Invalidate the cached results of a Fused UDF: those of a selection of tiles, or all of them.

    Unlike the task, the flow needs `whole_udf` to invalidate everything, so that an empty form field or an empty automation
    template cannot do it by accident.

    Args:
        udf: An id, name, canvas/name, team/name, user@host/name or @handle/name.
        tiles: The tiles to invalidate, as z/x/y: 15/9647/12320. An empty list invalidates nothing.
        bounds: Instead of tiles: west, south, east, north in degrees.
        geometry: Instead of tiles: GeoJSON, WKT, or the path or URL of a vector or Parquet file.
        tiles_file: Instead of tiles: the path of a list of tiles, one per line.
        cells: Instead of tiles: H3 cells, such as 8928308280fffff.
        hex_dataset: Instead of tiles: the path or URL of an H3 dataset that Fused wrote.
        partition: The folder of the H3 dataset that was rewritten, such as date=2026-11-22. Default: all.
        render_resolution: The resolution of the H3 cells that the map draws, or fused for the rule of Fused's examples.
        order: The order of the numbers in a file of JSON lists: zxy, or xyz as mercantile and utiles write them.
        layer: The layer of a vector file to read. Default: all that have geometries.
        antimeridian: How to read an edge that spans more than half the globe: cross, over the antimeridian, or literal.
        geometry_column: The column of a file that holds the geometries, if none is marked as such, or two: longitudes and
            latitudes.
        crs: The coordinate reference system of a geometry that does not name one, such as EPSG:25832.
        zooms: 10-14, or 12. Required with an area: bounds, a geometry, cells or an H3 dataset. With tiles, adds their parents
            and children.
        buffer: Tiles to add on every side.
        whole_udf: Invalidate everything. Leave every selection empty then.
        credentials: The name of a Fused Credentials block. Default: the environment of the process that runs the flow.
        max_tiles: The most tiles that a computed selection may have.
        when_too_many: What to do when there are more: fail, invalidate the whole UDF, or leave the deepest zooms stale.
        max_zoom: The highest zoom that the selection may contain.
        deadline: Seconds that one attempt may take, retried requests included.
        related: Also invalidate the UDFs of the same canvas that call this one (callers), that it calls (callees), or both.
        max_related: The most UDFs that related may add.
        inner_caches: Before that, delete the folders in which functions under @fused.cache keep their results, by their names.
            own stands for those that the UDF's code names.
        h3_index: The index of the H3 table that the UDF queries, which must have what was loaded: path, loaded_at, run, prefix,
            deadline. The flow waits while the index is run.
        announce: Afterwards, put what has changed where open maps look for it: a path, a URL that fsspec supports, or a mapping
            with to, source, secret and must_succeed. env:NAME takes an address to post to from the worker's environment.
        loaded_at: When the load was done, with its time zone. Default: the time of the event.
        verify_tiles: Afterwards, request this many of the tiles through the shared token of the block.
        fail_on_stale: Fail if one of these is stale.
        refresh: Afterwards, run the UDF again for this many of the tiles, for all, or as a mapping says.
        again_after: Send everything a second time after this many seconds. The flow waits, unless there is a deployment for it.
        again_deployment: The deployment of this flow that makes the second pass, as flow/deployment.
        event: Instead of tiles: the id of the event of an asset, whose metadata says what changed.
        event_entry: The entry of the event's metadata that says it.

    Returns:
        What was done, as for `invalidate_cache`.

    Raises:
        fused_cache_ops.InvalidInputError: There is neither a selection nor `whole_udf`, or both are given. Or the UDF
            cannot be read, or is given by a shared token.
        fused_cache_ops.FusedCacheError: The invalidation failed.
    """
    if parse_udf(udf).secret is not None:
        raise InvalidInputError(
            "udf is a shared token, which grants access, and Prefect stores a flow run's parameters in plain text: pass the "
            "UDF's id or name instead."
        )
    refuse_stored_webhook(announce, "Prefect stores a flow run's parameters")
    given = {
        "tiles": tiles,
        "bounds": bounds,
        "geometry": geometry,
        "tiles_file": tiles_file,
        "cells": cells,
        "hex_dataset": hex_dataset,
    }
    selection: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    selection = _with_event(selection, event, event_entry)
    details: dict[str, Any] = {
        "zooms": zooms,
        "partition": partition,
        "render_resolution": render_resolution,
        "order": order,
        "layer": layer,
        "antimeridian": antimeridian,
        "geometry_column": geometry_column,
        "crs": crs,
        "related": related,
        "inner_caches": inner_caches,
        "h3_index": h3_index,
        "announce": announce,
        "loaded_at": loaded_at or _time_of(event),
    }
    if whole_udf == bool(selection):
        raise InvalidInputError(
            f"whole_udf is set together with {' and '.join(selection)}: use only one of them."
            if whole_udf
            else f"Nothing is selected: give one of {', '.join(KINDS)}, or set whole_udf to invalidate everything."
        )
    result: dict[str, Any] = invalidate_cache(
        udf,
        credentials=_block(credentials),
        buffer=buffer,
        max_tiles=max_tiles,
        when_too_many=when_too_many,
        max_zoom=max_zoom,
        limits={"deadline": deadline},
        max_related=max_related,
        fail_on_stale=fail_on_stale,
        **selection,
        **_afterwards(verify_tiles, refresh, again_after, again_deployment),
        **{name: value for name, value in details.items() if value is not None},  # an empty field of the form
    )
    return result


@flow(
    name="Invalidate Fused caches of a dataset",
    description="Invalidate the cached results of every Fused UDF that shows a dataset.",
    flow_run_name="invalidate-dataset",
)
def invalidate_dataset_flow(
    dataset: str,
    tiles: Optional[list[str]] = None,
    bounds: Optional[Annotated[list[float], Field(min_length=4, max_length=6)]] = None,
    geometry: Optional[Union[str, dict[str, Any]]] = None,
    tiles_file: Optional[str] = None,
    cells: Optional[list[str]] = None,
    hex_dataset: Optional[str] = None,
    partition: Optional[str] = None,
    cache_map: str = DEFAULT_MAP,
    credentials: Optional[str] = None,
    deadline: Annotated[float, Field(gt=0)] = DEFAULT_DEADLINE,
    loaded_at: Optional[str] = None,
    verify_tiles: Annotated[int, Field(ge=0)] = 0,
    refresh: Union[int, str, dict[str, Any]] = 0,
    again_after: Annotated[float, Field(ge=0)] = 0,
    again_deployment: Optional[str] = None,
    event: Optional[str] = None,
    event_entry: Kind = "tiles",
) -> dict[str, Any]:
    """Invalidate every UDF that shows a dataset, as a cache map says.

    Args:
        dataset: The dataset's key in the map, such as an asset's key.
        tiles: The tiles that changed, as z/x/y: 15/9647/12320. An empty list invalidates nothing.
        bounds: Instead of tiles: west, south, east, north in degrees.
        geometry: Instead of tiles: GeoJSON, WKT, or the path or URL of a vector or Parquet file.
        tiles_file: Instead of tiles: the path of a list of tiles, one per line.
        cells: Instead of tiles: H3 cells, such as 8928308280fffff.
        hex_dataset: Instead of tiles: the path or URL of an H3 dataset that Fused wrote.
        partition: The folder of the H3 dataset that was rewritten, such as date=2026-11-22. Default: all.
        cache_map: The path of the map's file, absolute or in the working folder of the run.
        credentials: The name of a Fused Credentials block. Default: the environment of the process that runs the flow.
        deadline: Seconds that one attempt may take, retried requests included.
        loaded_at: When the load was done, with its time zone. Default: the time of the event.
        verify_tiles: Afterwards, request this many of the tiles of each UDF, through the shared token that the map
            names, and fail if one is stale.
        refresh: Afterwards, run each UDF again for this many of the tiles, for all, or as a mapping says.
        again_after: Send everything a second time after this many seconds. What the map says for a UDF is not said here.
        again_deployment: The deployment of invalidate_cache_flow that makes the second passes, as flow/deployment.
        event: Instead of tiles: the id of the event of an asset, whose metadata says what changed.
        event_entry: The entry of the event's metadata that says it.

    Returns:
        What was done, as for `invalidate_dataset`.

    Raises:
        fused_cache_ops.FusedCacheError: Nothing is selected, although a UDF of the dataset needs it. Or an invalidation
            failed.
    """
    given = {
        "tiles": tiles,
        "bounds": bounds,
        "geometry": geometry,
        "tiles_file": tiles_file,
        "cells": cells,
        "hex_dataset": hex_dataset,
        "partition": partition,
    }
    selection: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    selection = _with_event(selection, event, event_entry)
    if not selection:
        shown = CacheMap.of(cache_map, beside=flow_file()).entries(dataset)
        if some := [each.label for each in shown if not each.is_whole]:
            raise InvalidInputError(
                f"Nothing is selected, and the cache map does not say whole_udf = true for {', '.join(some)}: give one of "
                f"{', '.join(kind for kind in KINDS if kind in given)}. If an asset's event started this run, the load has to "
                'say what it changed: asset.add_metadata({"tiles": ["15/9647/12320"]}).'
            )
    when = loaded_at or _time_of(event)
    if when is not None:
        selection["loaded_at"] = when
    result: dict[str, Any] = invalidate_dataset(
        dataset,
        credentials=_block(credentials),
        cache_map=cache_map,
        limits={"deadline": deadline},
        **selection,
        **_afterwards(verify_tiles, refresh, again_after, again_deployment),
    )
    return result


def build_dataset_triggers(
    cache_map: MapLocation = DEFAULT_MAP,
    *,
    selection: Kind = "tiles",
) -> "list[DeploymentTriggerTypes]":
    """Triggers that start `invalidate_dataset_flow` whenever an asset of a cache map is materialized.

        invalidate_dataset_flow.serve("after-load", triggers=build_dataset_triggers())

    The load says what changed in the asset's metadata: `asset.add_metadata({"tiles": [...]})`. Without it, the run that the
    event starts fails and invalidates nothing. Only datasets whose UDFs are all invalidated as a whole need no metadata.

    The run gets the event's id, and reads the metadata itself, because Prefect starts no run whose parameters exceed 512 kB or
    do not fit the flow. An event may have 1.5 MB, about 100,000 tiles. For more, write them to a file, and select by
    `tiles_file`.

    Args:
        cache_map: The map, or the path of its file. A relative path is looked for beside the calling file, and then in the
            working folder.
        selection: The entry of the metadata that says what changed, and the kind of selection that it is.

    Returns:
        At most two triggers: for the datasets that need a selection, and for those that need none.

    Raises:
        fused_cache_ops.InvalidInputError: The map cannot be read, or none of its datasets is a Prefect asset's key. Or
            `selection` is unknown.
    """
    from prefect.events import DeploymentEventTrigger

    if selection not in KINDS:
        raise InvalidInputError(f"selection = {selection!r} is unknown: use one of {', '.join(KINDS)}.")
    read = CacheMap.of(cache_map, beside=sys._getframe(1).f_globals.get("__file__"))
    keys = [key for key, udfs in read.datasets.items() if udfs and _is_asset_key(key)]
    if not keys:
        raise InvalidInputError(
            f"{read.source} lists no Prefect asset that a UDF shows: name a dataset as its asset, such as "
            '[datasets."s3://bucket/parcels"].'
        )
    whole = [key for key in keys if all(udf.is_whole for udf in read.datasets[key])]
    needed: dict[str, Any] = {"event": {"__prefect_kind": "jinja", "template": "{{ event.id }}"}, "event_entry": selection}
    return [
        DeploymentEventTrigger(
            match={"prefect.resource.id": matched},
            expect={"prefect.asset.materialization.succeeded"},
            for_each={"prefect.resource.id"},
            parameters={"dataset": {"__prefect_kind": "jinja", "template": "{{ event.resource.id }}"}, **more},
        )
        for matched, more in (([key for key in keys if key not in whole], needed), (whole, {}))
        if matched
    ]


def _with_event(selection: dict[str, Any], event: Optional[str], entry: str) -> dict[str, Any]:
    """The selection, or what an event's metadata says. Nothing if the metadata lacks the entry."""
    if event is None:
        return selection
    if selection:
        raise InvalidInputError(f"event and {' and '.join(selection)} are both given: use only one of them.")
    payload = read_event(event)["payload"]
    return {entry: payload[entry]} if payload.get(entry) is not None else {}


def _time_of(event: Optional[str]) -> Optional[str]:
    """When an event occurred, which is when the data was loaded."""
    return None if event is None else str(read_event(event)["occurred"])


def _is_asset_key(key: str) -> bool:
    from prefect.types.names import ValidAssetKey

    try:
        TypeAdapter(ValidAssetKey).validate_python(key)
    except ValidationError:
        return False
    return True


def _afterwards(
    verify_tiles: int, refresh: Union[int, str, dict[str, Any]], again_after: float, again_deployment: Optional[str]
) -> dict[str, Any]:
    """What is to follow, as the tasks take it. The form gives numbers as text where text is possible too."""
    wanted = read_rendered({"refresh": refresh}) if isinstance(refresh, str) else {"refresh": refresh}
    if isinstance(wanted["refresh"], str) and wanted["refresh"].strip().isdigit():
        wanted["refresh"] = int(wanted["refresh"])
    return {
        "verify_tiles": verify_tiles,
        "again_after": again_after,
        "again_deployment": again_deployment or None,
        **wanted,
    }


def _block(name: Optional[str]) -> Any:
    return FusedCredentials.load(name) if name else None
