"""Assets for the maps that show what dbt builds, downstream of the assets of dagster-dbt."""

import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Optional, Union, cast

import dagster as dg

from dagster_fused.assets import asset_name, build_fused_cache_asset
from dagster_fused.invalidation import SelectionFn
from fused_cache_ops.integration import find_map, kinds_in, read_manifest, shown_udfs

if TYPE_CHECKING:
    from fused_cache_ops import CacheMap
    from fused_cache_ops.integration import CallKeywords


def build_fused_dbt_assets(
    manifest: Union[str, "os.PathLike[str]"],
    *,
    cache_map: Union["CacheMap", str, "os.PathLike[str]", None] = None,
    translator: Any = None,
    selection_fn: Union[SelectionFn, Mapping[str, SelectionFn], None] = None,
    key_prefix: Union[str, Sequence[str]] = "fused",
    **asset_arguments: Any,
) -> list[dg.AssetsDefinition]:
    """An asset for every UDF that shows a model, seed, snapshot or source of a dbt project, downstream of its asset.

    An asset depends on what it shows, and on the tables above that through views, because a view changes with its tables.
    Ephemeral models have no asset.

    Args:
        manifest: dbt's ``manifest.json``, or the folder that has it, as for ``dagster_dbt.DbtProject``.
        cache_map: the map, or the path of its file, whose keys are tables (``database.schema.table``) or dbt's unique ids.
            Default: ``fused-cache.toml``, if there is one. UDFs that exposures name by ``meta.fused`` have assets too.
        translator: the ``dagster_dbt.DagsterDbtTranslator`` of your dbt assets, if they have one of their own.
        selection_fn: as for `build_fused_cache_asset`, without zooms: for all UDFs, or one for each by its name. Not needed for
            UDFs with ``whole_udf: true``, or whose exposure says what changed.
        key_prefix: what the assets' keys begin with, so that a UDF may be called like its model.
        asset_arguments: further arguments of `build_fused_cache_asset`, for all of them.

    Returns:
        The assets, named after their UDFs.

    Raises:
        InvalidInputError: the manifest, the map or an exposure cannot be read.
        dagster.DagsterInvalidDefinitionError: nothing says what changes for a UDF, or it is shown in two ways.
        ImportError: dagster-dbt is not installed.
    """
    if translator is None:
        translator = import_module("dagster_dbt").DagsterDbtTranslator()
    project = read_manifest(manifest)
    shown: dict[str, tuple[Any, dict[str, Any], list[str]]] = {}
    for each in shown_udfs(project.everything, find_map(cache_map)):
        said = {**each.entry.keywords, **each.selection, **({"whole_udf": True} if each.entry.is_whole else {})}
        entry, known, nodes = shown.setdefault(each.entry.label, (each.entry, said, []))
        if known != said:
            raise dg.DagsterInvalidDefinitionError(
                f"{entry.label} shows several nodes of dbt, with different keywords ({', '.join(sorted({*known, *said}))}): an "
                "asset has one selection. Say the same everywhere, or whole_udf."
            )
        nodes += [uid for uid in each.nodes if uid not in nodes]
    return [
        build_fused_cache_asset(
            asset_name(label),
            udf=entry.reference,
            deps=[translator.get_asset_key(project.nodes[uid]) for uid in project.loads_of(nodes)],
            selection_fn=_selection_of(label, said, selection_fn),
            selection=cast("CallKeywords", said) or None,
            shared_token_env=entry.shared_token_env,
            key_prefix=key_prefix,
            **asset_arguments,
        )
        for label, (entry, said, nodes) in shown.items()
    ]


def _selection_of(
    label: str, said: Mapping[str, Any], given: Union[SelectionFn, Mapping[str, SelectionFn], None]
) -> Optional[SelectionFn]:
    """What says what changed for a UDF, unless the map or its exposure does."""
    if kinds_in(said):
        return None
    found = given.get(label) if isinstance(given, Mapping) else given
    if found is None:
        raise dg.DagsterInvalidDefinitionError(
            f"Nothing says what changes for {label}: it is not whole_udf, no exposure selects for it, and there is no "
            "selection_fn."
        )
    return found
