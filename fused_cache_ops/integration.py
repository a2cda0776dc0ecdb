"""What an orchestrator integration may use, in addition to the public names of ``fused_cache_ops``.

It contains the declaration of the keywords, the reading of text rendered from templates, and the checks that every wrapper
needs. Names are imported on first use, as in ``fused_cache_ops`` itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fused_cache_ops.cache_map.file import DEFAULT_MAP
    from fused_cache_ops.cache_map.reading import MapLocation
    from fused_cache_ops.call_keywords import CALL_DEFAULTS, CALL_HELP, CALL_SHAPERS, CallKeywords
    from fused_cache_ops.lineage.graph import Related
    from fused_cache_ops.progress import OnProgress
    from fused_cache_ops.running.keywords import REFRESH_DEFAULTS, RefreshAmount, RefreshKeywords, RefreshParameters
    from fused_cache_ops.secret import Secret, sealed, sealed_udf
    from fused_cache_ops.selection.keywords import (
        DEFAULT_MAX_TILES,
        DETAILS,
        KINDS,
        NOT_GIVEN,
        SELECTION_DEFAULTS,
        WHOLE_UDF,
        Bounds,
        NotGiven,
        RenderResolution,
        SelectionKeywords,
        TileSelection,
        TilesFile,
        WhenTooMany,
    )
    from fused_cache_ops.selection.merging import merge_selections
    from fused_cache_ops.selection.reading import kinds_in, refuse_shapers, refuse_single_use, require_kind
    from fused_cache_ops.selection.rendered import read_rendered
    from fused_cache_ops.sending.checkpoint import CheckpointLocation
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

__all__ = [
    "CALL_DEFAULTS",
    "CALL_HELP",
    "CALL_SHAPERS",
    "DEFAULT_BASE_URL",
    "DEFAULT_CONCURRENCY",
    "DEFAULT_DEADLINE",
    "DEFAULT_MAP",
    "DEFAULT_MAX_TILES",
    "DEFAULT_TIMEOUT",
    "DETAILS",
    "HIGHEST_ZOOM",
    "KINDS",
    "NOT_GIVEN",
    "REFRESH_DEFAULTS",
    "SELECTION_DEFAULTS",
    "WHOLE_UDF",
    "Bounds",
    "CallKeywords",
    "CheckpointLocation",
    "MapLocation",
    "NotGiven",
    "OnProgress",
    "RefreshAmount",
    "RefreshKeywords",
    "RefreshParameters",
    "Related",
    "RenderResolution",
    "Secret",
    "SelectionKeywords",
    "TileSelection",
    "TilesFile",
    "WhenTooMany",
    "Zooms",
    "kinds_in",
    "merge_selections",
    "parse_udf",
    "read_rendered",
    "refuse_shapers",
    "refuse_single_use",
    "require_kind",
    "resolve_settings",
    "sealed",
    "sealed_udf",
]

_HOMES = {
    "CALL_DEFAULTS": "call_keywords",
    "CALL_HELP": "call_keywords",
    "CALL_SHAPERS": "call_keywords",
    "DEFAULT_BASE_URL": "settings",
    "DEFAULT_CONCURRENCY": "settings",
    "DEFAULT_DEADLINE": "settings",
    "DEFAULT_MAP": "cache_map.reading",
    "DEFAULT_MAX_TILES": "selection.keywords",
    "DEFAULT_TIMEOUT": "settings",
    "DETAILS": "selection.keywords",
    "HIGHEST_ZOOM": "tiles.tile",
    "KINDS": "selection.keywords",
    "MapLocation": "cache_map.reading",
    "NOT_GIVEN": "selection.keywords",
    "SELECTION_DEFAULTS": "selection.keywords",
    "WHOLE_UDF": "selection.keywords",
    "Bounds": "selection.keywords",
    "CallKeywords": "call_keywords",
    "CheckpointLocation": "sending.checkpoint",
    "NotGiven": "selection.keywords",
    "OnProgress": "progress",
    "REFRESH_DEFAULTS": "running.keywords",
    "RefreshAmount": "running.keywords",
    "RefreshKeywords": "running.keywords",
    "RefreshParameters": "running.keywords",
    "Related": "lineage.graph",
    "RenderResolution": "selection.keywords",
    "Secret": "secret",
    "SelectionKeywords": "selection.keywords",
    "TileSelection": "selection.keywords",
    "TilesFile": "selection.keywords",
    "WhenTooMany": "selection.keywords",
    "Zooms": "tiles.zooms",
    "kinds_in": "selection.reading",
    "merge_selections": "selection.merging",
    "parse_udf": "udf_reference",
    "read_rendered": "selection.rendered",
    "refuse_shapers": "selection.reading",
    "refuse_single_use": "selection.reading",
    "require_kind": "selection.reading",
    "resolve_settings": "settings",
    "sealed": "secret",
    "sealed_udf": "secret",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"fused_cache_ops.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
