"""The assets of a cache map in Dagster."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_fused import FusedCacheMapComponent, FusedResource, build_fused_cache_assets
from fused_cache_ops import CacheMap, InvalidInputError
from fused_cache_ops.emulator import Emulator, Udf

pytestmark = pytest.mark.xdist_group("dagster")

BOUNDS = (13.0, 52.3, 13.8, 52.7)
CACHED = [(9, 275, 167), (12, 2200, 1343), (12, 0, 0)]
NAMES = ("parcels", "overview", "totals", "untouched")


@dg.asset(key_prefix="raw")
def parcels() -> None:
    """The table."""


@pytest.fixture
def udfs(fused_emulator: Emulator) -> dict[str, Udf]:
    found = {name: fused_emulator.register(dict, name=name) for name in NAMES}
    for udf in found.values():
        fused_emulator.fill_cache(udf, CACHED)
    return found


def a_map(*udfs: dict[str, object], **others: list[dict[str, object]]) -> CacheMap:
    tables = {"raw/parcels": {"udfs": list(udfs)}} | {key: {"udfs": entries} for key, entries in others.items()}
    return CacheMap.from_dict({"datasets": tables})


THREE = a_map(
    {"udf": "parcels", "zooms": "10-12"}, {"udf": "overview", "zooms": "4-9", "buffer": 1}, {"udf": "totals", "whole_udf": True}
)


def changed(context: object, partition_key: object) -> dict[str, object]:
    return {"bounds": BOUNDS}


def run(*built: object) -> dg.ExecuteInProcessResult:
    resource = FusedResource(token=dg.EnvVar("FUSED_SERVICE_ACCOUNT_TOKEN"))
    definitions = dg.Definitions(
        assets=[parcels, *(each for each in built if not isinstance(each, dg.AssetChecksDefinition))],  # type: ignore[list-item]
        asset_checks=[each for each in built if isinstance(each, dg.AssetChecksDefinition)],
        resources={"fused": resource},
        jobs=[dg.define_asset_job("load", "*")],
    )
    return definitions.resolve_job_def("load").execute_in_process()


def test_one_load_makes_every_udf_of_its_dataset_fresh(fused_emulator: Emulator, udfs: dict[str, Udf]) -> None:
    result = run(*build_fused_cache_assets(THREE, selection_fn=changed))

    assert result.success
    assert [fused_emulator.cached_tiles(udfs[name]) for name in NAMES] == [
        {(9, 275, 167), (12, 0, 0)},
        {(12, 2200, 1343), (12, 0, 0)},
        set(),
        set(CACHED),
    ]


def test_each_asset_is_downstream_of_its_dataset_and_named_after_its_udf() -> None:
    built = build_fused_cache_assets(THREE, selection_fn=changed)

    assert [each.key.to_user_string() for each in built] == [  # type: ignore[union-attr]
        "fused_cache/parcels",
        "fused_cache/overview",
        "fused_cache/totals",
    ]
    assert {key for each in built for key in each.dependency_keys} == {dg.AssetKey(["raw", "parcels"])}  # type: ignore[union-attr]


def test_a_udf_that_shows_two_datasets_has_an_asset_for_each() -> None:
    both = a_map({"udf": "maps/totals", "whole_udf": True}, roads=[{"udf": "maps/totals", "whole_udf": True}])

    names = [each.key.path[-1] for each in build_fused_cache_assets(both)]  # type: ignore[union-attr]
    assert names == ["maps_totals_of_raw_parcels", "maps_totals_of_roads"]


def test_each_dataset_can_have_its_own_selection_and_partitions() -> None:
    days = dg.StaticPartitionsDefinition(["2026-11-26", "2026-11-27"])
    both = a_map({"udf": "parcels", "zooms": 12}, roads=[{"udf": "roads", "zooms": 12}])
    built = build_fused_cache_assets(
        both, selection_fn={"raw/parcels": changed, "roads": changed}, partitions_def={"roads": days}
    )

    assert [each.partitions_def for each in built] == [None, days]  # type: ignore[union-attr]


def test_a_udf_without_a_selection_is_refused_where_it_is_defined() -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=r"parcels is not whole_udf = true .* needs a selection_fn"):
        build_fused_cache_assets(THREE)


def test_only_the_datasets_that_are_named_have_assets() -> None:
    both = a_map({"udf": "totals", "whole_udf": True}, roads=[{"udf": "roads", "whole_udf": True}])

    assert len(build_fused_cache_assets(both, datasets=["roads"])) == 1
    with pytest.raises(InvalidInputError, match=r"Did you mean 'roads'"):
        build_fused_cache_assets(both, datasets=["road"])


@pytest.mark.parametrize("name", ["selection_fn", "partitions_def"])
def test_a_key_that_the_map_does_not_list_is_refused(name: str) -> None:
    own: dict[str, Any] = {"selection_fn": changed} | {name: {"raw/parcel": None}}
    with pytest.raises(InvalidInputError, match=r"Did you mean 'raw/parcels'"):
        build_fused_cache_assets(THREE, **own)


def test_a_check_verifies_what_the_map_says(fused_emulator: Emulator, udfs: dict[str, Udf]) -> None:
    token = udfs["parcels"].shared_token
    built = build_fused_cache_assets(a_map({"udf": token, "zooms": "12", "verify_tiles": 2}), selection_fn=changed)
    result = run(*built)

    (evaluation,) = result.get_asset_check_evaluations()
    assert evaluation.passed
    assert token not in repr(evaluation)


def test_the_map_beside_the_calling_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "fused-cache.toml").write_text('[datasets."raw/parcels"]\nudfs = [{ udf = "totals", whole_udf = true }]\n')
    code = "from dagster_fused import build_fused_cache_assets\nbuilt = build_fused_cache_assets()\n"
    names: dict[str, object] = {"__file__": str(tmp_path / "definitions.py"), "__name__": "definitions"}
    exec(code, names)

    assert len(names["built"]) == 1  # type: ignore[arg-type]


def component(folder: Path, yaml: str, **scope: object) -> dg.Definitions:
    (folder / "fused-cache.toml").write_text(
        '[datasets."raw/parcels"]\nudfs = [{ udf = "parcels", zooms = "10-12" }, { udf = "totals", whole_udf = true }]\n'
    )
    loaded = FusedCacheMapComponent.resolve_from_yaml(yaml, scope=scope)
    return loaded.build_defs(dg.ComponentTree.for_test().load_context.for_path(folder))  # type: ignore[attr-defined,no-any-return]


def test_a_component_has_the_assets_of_the_map_in_its_folder(
    fused_emulator: Emulator, udfs: dict[str, Udf], tmp_path: Path
) -> None:
    built = component(tmp_path, "{selection_fn: {raw/parcels: '{{ changed }}'}, group_name: maps}", changed=changed)
    job = built.resolve_implicit_global_asset_job_def()

    assert job.execute_in_process().success
    assert fused_emulator.cached_tiles(udfs["parcels"]) == {(9, 275, 167), (12, 0, 0)}
    assert fused_emulator.cached_tiles(udfs["totals"]) == set()
    assert {spec.group_name for spec in built.resolve_all_asset_specs() if "fused_cache" in spec.key.path} == {"maps"}


REGIONS = "{type: static, partition_keys: [north, south]}"
EVERY_DAY = dg.DailyPartitionsDefinition("2026-11-01")


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        (REGIONS, dg.StaticPartitionsDefinition(["north", "south"])),
        ("{type: daily, start_date: '2026-11-01'}", EVERY_DAY),
        ("'{{ every_day }}'", EVERY_DAY),
        (
            "\"{{ dg.MonthlyPartitionsDefinition(start_date='2026-11-01') }}\"",
            dg.MonthlyPartitionsDefinition(start_date="2026-11-01"),
        ),
        ("{raw/parcels: '{{ every_day }}'}", EVERY_DAY),
        ("{raw/parcels: {type: daily, start_date: '2026-11-01'}}", EVERY_DAY),
    ],
)
def test_a_component_says_its_partitions_as_every_asset_in_yaml_does(
    tmp_path: Path, yaml: str, expected: dg.PartitionsDefinition[str]
) -> None:
    built = component(
        tmp_path, f"{{selection_fn: '{{{{ changed }}}}', partitions_def: {yaml}}}", changed=changed, every_day=EVERY_DAY
    )
    assets = [spec for spec in built.resolve_all_asset_specs() if "fused_cache" in spec.key.path]
    assert [spec.partitions_def for spec in assets] == [expected, expected]


def test_a_component_asks_selection_fn_for_what_the_partition_changed(
    fused_emulator: Emulator, udfs: dict[str, Udf], tmp_path: Path
) -> None:
    asked = []

    def of_region(context: object, partition_key: object) -> dict[str, object]:
        asked.append(partition_key)
        return {"bounds": BOUNDS}

    built = component(tmp_path, f"{{selection_fn: '{{{{ changed }}}}', partitions_def: {REGIONS}}}", changed=of_region)
    assert built.resolve_implicit_global_asset_job_def().execute_in_process(partition_key="south").success
    assert asked == ["south"]
    assert fused_emulator.cached_tiles(udfs["parcels"]) == {(9, 275, 167), (12, 0, 0)}


@pytest.mark.parametrize(
    ("yaml", "reason"),
    [
        ("{type: dayly, start_date: '2026-11-01'}", "Input should be 'daily'"),
        ("{type: daily}", "Field required"),
        ("every_day", "partitions_def = 'every_day' is a str, not a partitions definition: give a type"),
        ("'{{ changed }}'", "is a function, not a partitions definition"),
        ("{raw/parcel: '{{ every_day }}'}", "Did you mean 'raw/parcels'"),
        ("null", "partitions_def"),
    ],
)
def test_partitions_of_a_component_that_cannot_be_read_are_refused(tmp_path: Path, yaml: str, reason: str) -> None:
    with pytest.raises(Exception, match=reason):
        component(
            tmp_path, f"{{selection_fn: '{{{{ changed }}}}', partitions_def: {yaml}}}", changed=changed, every_day=EVERY_DAY
        )


def test_the_schema_of_the_components_attributes_describes_every_one() -> None:
    properties = FusedCacheMapComponent.get_model_cls().model_json_schema()["properties"]
    assert [name for name, field in properties.items() if not field.get("description")] == []


def test_each_udf_of_a_map_is_verified_with_the_shared_token_that_it_names(
    fused_emulator: Emulator, udfs: dict[str, Udf], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARCELS_TOKEN", udfs["parcels"].shared_token)
    entry = {"udf": "parcels", "zooms": "12", "verify_tiles": 2, "refresh": 1, "shared_token_env": "PARCELS_TOKEN"}
    (evaluation,) = run(*build_fused_cache_assets(a_map(entry), selection_fn=changed)).get_asset_check_evaluations()
    assert evaluation.metadata["unknown"].value == []

    monkeypatch.delenv("PARCELS_TOKEN")
    with pytest.raises(dg.Failure, match="'PARCELS_TOKEN' names an environment variable that is not set"):
        run(*build_fused_cache_assets(a_map(entry), selection_fn=changed))
