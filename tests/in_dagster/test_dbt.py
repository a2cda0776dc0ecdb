"""Assets for the maps of a dbt project, downstream of the project's own assets."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_fused import FusedResource, build_fused_dbt_assets
from fused_cache_ops import CacheMap
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.errors import InvalidInputError

pytestmark = pytest.mark.xdist_group("dagster")

CHANGED, OTHER = (14, 7776, 6278), (14, 0, 0)


class Translator:
    """The rule of dagster-dbt for nodes without a schema or an asset key of their own: scripts/dbt runs the real one."""

    def get_asset_key(self, properties: Any) -> dg.AssetKey:
        return dg.AssetKey([properties["name"]])


@pytest.fixture
def target(dbt_target: Path) -> Path:
    manifest = json.loads((dbt_target / "manifest.json").read_text())
    for uid, node in manifest["nodes"].items():
        node["name"] = uid.rpartition(".")[2]
    (dbt_target / "manifest.json").write_text(json.dumps(manifest))
    return dbt_target


def test_each_udf_has_an_asset_below_what_it_shows_and_the_tables_above_views(target: Path) -> None:
    assets = build_fused_dbt_assets(target, translator=Translator())
    deps = {asset.key.to_user_string(): {key.path[-1] for key in asset.dependency_keys} for asset in assets}
    assert deps == {
        "fused/parcels": {"parcels"},
        "fused/streets": {"streets_by_letter", "streets"},
        "fused/prices": {"prices_total"},
        "fused/prices_legend": {"prices_total"},
    }


def test_materializing_invalidates_what_the_exposure_says(
    target: Path, fused_emulator: Emulator, dbt_udfs: dict[str, Udf]
) -> None:
    assets = build_fused_dbt_assets(target.parent, translator=Translator())
    fused = FusedResource(token=fused_emulator.token, base_url=fused_emulator.base_url)
    assert dg.materialize(
        [each for each in assets if each.key.path[-1] in ("parcels", "streets")], resources={"fused": fused}
    ).success
    left = {name: fused_emulator.cached_tiles(udf) for name, udf in dbt_udfs.items()}
    both = {CHANGED, OTHER}
    assert left == {"parcels": {OTHER}, "streets": set(), "prices": both, "prices_legend": both}


def test_a_udf_of_the_map_takes_what_the_function_selects(
    target: Path, fused_emulator: Emulator, dbt_udfs: dict[str, Udf]
) -> None:
    cache_map = CacheMap.from_dict({"datasets": {"city.main.prices": {"udfs": [{"udf": "prices_map"}]}}})
    prices = fused_emulator.register(dict, name="prices_map")
    fused_emulator.fill_cache(prices, [CHANGED, OTHER])
    assets = build_fused_dbt_assets(
        target, cache_map=cache_map, translator=Translator(), selection_fn=lambda context, key: ["14/0/0"]
    )
    (asset,) = (each for each in assets if each.key.path[-1] == "prices_map")
    fused = FusedResource(token=fused_emulator.token, base_url=fused_emulator.base_url)
    assert dg.materialize([asset], resources={"fused": fused}).success
    assert fused_emulator.cached_tiles(prices) == {CHANGED}


def test_a_udf_for_which_nothing_is_selected_is_refused(target: Path) -> None:
    cache_map = CacheMap.from_dict({"datasets": {"model.city.prices": {"udfs": [{"udf": "prices_map"}]}}})
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="Nothing says what changes for prices_map"):
        build_fused_dbt_assets(target, cache_map=cache_map, translator=Translator())


def test_half_a_manifest_is_refused(target: Path) -> None:
    (target / "manifest.json").write_text('{"metadata": ')
    with pytest.raises(InvalidInputError, match=r"manifest\.json is not complete JSON"):
        build_fused_dbt_assets(target, translator=Translator())
