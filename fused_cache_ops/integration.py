"""What an orchestrator integration may use, in addition to the public names of ``fused_cache_ops``.

It contains the declaration of the keywords, the reading of text rendered from templates, and the checks that every wrapper
needs. Names are imported on first use, as in ``fused_cache_ops`` itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fused_cache_ops.cache_map.dataset import calls_of_dataset
    from fused_cache_ops.cache_map.file import DEFAULT_MAP
    from fused_cache_ops.cache_map.reading import MapLocation
    from fused_cache_ops.dbt.artifacts import DbtPath, is_build, read_manifest
    from fused_cache_ops.dbt.maps import find_map, shown_udfs
    from fused_cache_ops.keywords.announce import (
        ANNOUNCE_OPTIONS,
        Announce,
        announce_options,
        refuse_stored_webhook,
        webhook_of,
    )
    from fused_cache_ops.keywords.call import (
        CALL_DEFAULTS,
        CALL_OPTIONS,
        NEEDS_SELECTION,
        SENDING_OPTIONS,
        CallKeywords,
        DatasetKeywords,
        SendingKeywords,
    )
    from fused_cache_ops.keywords.client import CLIENT_OPTIONS, LIMIT_OPTIONS, ClientSettings, Limits
    from fused_cache_ops.keywords.h3_index import H3_INDEX_OPTIONS, H3IndexOptions, merged_h3_index, runs_an_index
    from fused_cache_ops.keywords.option import Option, check_keys, defaults_of, help_of, types_of
    from fused_cache_ops.keywords.refresh import (
        REFRESH_DEFAULTS,
        REFRESH_OPTIONS,
        Refresh,
        RefreshOptions,
        merged_refresh,
        refresh_options,
    )
    from fused_cache_ops.keywords.rendered import read_rendered
    from fused_cache_ops.keywords.rules import (
        STATED,
        is_given,
        kinds_in,
        refuse_unknown,
        refuse_what_takes_long,
        refuse_without_selection,
        require_kind,
        stated,
    )
    from fused_cache_ops.keywords.selection import (
        DEFAULT_MAX_TILES,
        DETAILS,
        KINDS,
        SELECTION_DEFAULTS,
        SELECTION_OPTIONS,
        SelectionKeywords,
    )
    from fused_cache_ops.keywords.spelling import respelled, without_attributes
    from fused_cache_ops.keywords.text import read_boolean, read_number, read_seconds
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
        RunCheckpoint,
        TileOrder,
        TileSelection,
        TilesFile,
        WhenTooMany,
    )
    from fused_cache_ops.progress import OnProgress
    from fused_cache_ops.secret import Secret, sealed, sealed_udf
    from fused_cache_ops.selection.merging import merge_selections
    from fused_cache_ops.selection.reading import refuse_single_use
    from fused_cache_ops.settings import (
        DEFAULT_BASE_URL,
        DEFAULT_CONCURRENCY,
        DEFAULT_DEADLINE,
        DEFAULT_TIMEOUT,
        resolve_settings,
    )
    from fused_cache_ops.tiles.tile import HIGHEST_ZOOM
    from fused_cache_ops.tiles.zooms import Zooms
    from fused_cache_ops.udf_reference import parse_udf
    from fused_cache_ops.wording import quoted_address

__all__ = [
    "ANNOUNCE_OPTIONS",
    "CALL_DEFAULTS",
    "CALL_OPTIONS",
    "CLIENT_OPTIONS",
    "DEFAULT_BASE_URL",
    "DEFAULT_CONCURRENCY",
    "DEFAULT_DEADLINE",
    "DEFAULT_MAP",
    "DEFAULT_MAX_TILES",
    "DEFAULT_TIMEOUT",
    "DETAILS",
    "H3_INDEX_OPTIONS",
    "HIGHEST_ZOOM",
    "KINDS",
    "LIMIT_OPTIONS",
    "NEEDS_SELECTION",
    "NOT_GIVEN",
    "REFRESH_DEFAULTS",
    "REFRESH_OPTIONS",
    "SELECTION_DEFAULTS",
    "SELECTION_OPTIONS",
    "SENDING_OPTIONS",
    "STATED",
    "WHOLE_UDF",
    "Announce",
    "Antimeridian",
    "Bounds",
    "CallKeywords",
    "CheckpointLocation",
    "ClientSettings",
    "DatasetKeywords",
    "DbtPath",
    "H3IndexOptions",
    "InnerCaches",
    "Limits",
    "LoadedAt",
    "MapLocation",
    "NotGiven",
    "OnProgress",
    "Option",
    "Refresh",
    "RefreshOptions",
    "Related",
    "RenderResolution",
    "RunCheckpoint",
    "Secret",
    "SelectionKeywords",
    "SendingKeywords",
    "TileOrder",
    "TileSelection",
    "TilesFile",
    "WhenTooMany",
    "Zooms",
    "announce_options",
    "calls_of_dataset",
    "check_keys",
    "defaults_of",
    "find_map",
    "help_of",
    "is_build",
    "is_given",
    "kinds_in",
    "merge_selections",
    "merged_h3_index",
    "merged_refresh",
    "parse_udf",
    "quoted_address",
    "read_boolean",
    "read_manifest",
    "read_number",
    "read_rendered",
    "read_seconds",
    "refresh_options",
    "refuse_single_use",
    "refuse_stored_webhook",
    "refuse_unknown",
    "refuse_what_takes_long",
    "refuse_without_selection",
    "require_kind",
    "resolve_settings",
    "respelled",
    "runs_an_index",
    "sealed",
    "sealed_udf",
    "shown_udfs",
    "stated",
    "types_of",
    "webhook_of",
    "without_attributes",
]

_HOMES = {
    "ANNOUNCE_OPTIONS": "keywords.announce",
    "Announce": "keywords.announce",
    "announce_options": "keywords.announce",
    "refuse_stored_webhook": "keywords.announce",
    "webhook_of": "keywords.announce",
    "LoadedAt": "keywords.values",
    "InnerCaches": "keywords.values",
    "runs_an_index": "keywords.h3_index",
    "merged_h3_index": "keywords.h3_index",
    "H3IndexOptions": "keywords.h3_index",
    "H3_INDEX_OPTIONS": "keywords.h3_index",
    "Bounds": "keywords.values",
    "CALL_DEFAULTS": "keywords.call",
    "CALL_OPTIONS": "keywords.call",
    "CLIENT_OPTIONS": "keywords.client",
    "CallKeywords": "keywords.call",
    "CheckpointLocation": "keywords.values",
    "ClientSettings": "keywords.client",
    "DEFAULT_BASE_URL": "settings",
    "DEFAULT_CONCURRENCY": "settings",
    "DEFAULT_DEADLINE": "settings",
    "DEFAULT_MAP": "cache_map.file",
    "DEFAULT_MAX_TILES": "keywords.selection",
    "DEFAULT_TIMEOUT": "settings",
    "DETAILS": "keywords.selection",
    "DatasetKeywords": "keywords.call",
    "DbtPath": "dbt.artifacts",
    "HIGHEST_ZOOM": "tiles.tile",
    "KINDS": "keywords.selection",
    "LIMIT_OPTIONS": "keywords.client",
    "Limits": "keywords.client",
    "MapLocation": "cache_map.reading",
    "NEEDS_SELECTION": "keywords.call",
    "NOT_GIVEN": "keywords.values",
    "NotGiven": "keywords.values",
    "OnProgress": "progress",
    "Option": "keywords.option",
    "REFRESH_DEFAULTS": "keywords.refresh",
    "REFRESH_OPTIONS": "keywords.refresh",
    "Refresh": "keywords.refresh",
    "RefreshOptions": "keywords.refresh",
    "Related": "keywords.values",
    "RenderResolution": "keywords.values",
    "Antimeridian": "keywords.values",
    "TileOrder": "keywords.values",
    "RunCheckpoint": "keywords.values",
    "SELECTION_DEFAULTS": "keywords.selection",
    "SELECTION_OPTIONS": "keywords.selection",
    "SENDING_OPTIONS": "keywords.call",
    "Secret": "secret",
    "STATED": "keywords.rules",
    "SelectionKeywords": "keywords.selection",
    "SendingKeywords": "keywords.call",
    "TileSelection": "keywords.values",
    "TilesFile": "keywords.values",
    "WHOLE_UDF": "keywords.values",
    "WhenTooMany": "keywords.values",
    "Zooms": "tiles.zooms",
    "calls_of_dataset": "cache_map.dataset",
    "check_keys": "keywords.option",
    "is_build": "dbt.artifacts",
    "is_given": "keywords.rules",
    "defaults_of": "keywords.option",
    "find_map": "dbt.maps",
    "help_of": "keywords.option",
    "kinds_in": "keywords.rules",
    "merge_selections": "selection.merging",
    "merged_refresh": "keywords.refresh",
    "parse_udf": "udf_reference",
    "quoted_address": "wording",
    "read_boolean": "keywords.text",
    "read_manifest": "dbt.artifacts",
    "read_number": "keywords.text",
    "read_seconds": "keywords.text",
    "read_rendered": "keywords.rendered",
    "refresh_options": "keywords.refresh",
    "refuse_single_use": "selection.reading",
    "refuse_unknown": "keywords.rules",
    "refuse_what_takes_long": "keywords.rules",
    "refuse_without_selection": "keywords.rules",
    "require_kind": "keywords.rules",
    "respelled": "keywords.spelling",
    "resolve_settings": "settings",
    "sealed": "secret",
    "sealed_udf": "secret",
    "shown_udfs": "dbt.maps",
    "stated": "keywords.rules",
    "types_of": "keywords.option",
    "without_attributes": "keywords.spelling",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"fused_cache_ops.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
