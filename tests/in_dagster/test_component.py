"""The component: resolved from YAML, and in a real dg project by the dg command."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_fused import AFTER_EACH_LOAD, FusedInvalidateCacheComponent, FusedResource
from fused_cache_ops.emulator import Emulator, Udf

pytestmark = pytest.mark.xdist_group("dagster-component")

EXAMPLE = Path(__file__).parents[2] / "dagster" / "component_project"


def selection_fn(context: dg.AssetExecutionContext, partition_key: Any) -> list[str]:
    return ["1/0/0"]


def definitions(*documents: str, **scope: Any) -> dg.Definitions:
    components = [FusedInvalidateCacheComponent.resolve_from_yaml(each, scope=scope) for each in documents]
    load_context: Any = None  # which this component does not ask anything
    return dg.Definitions.merge(*(component.build_defs(load_context) for component in components))


def run(defs: dg.Definitions, **arguments: Any) -> dg.ExecuteInProcessResult:
    return defs.resolve_implicit_global_asset_job_def().execute_in_process(**arguments)


def test_its_cache_is_invalidated(fused_emulator: Emulator, udf: Udf) -> None:
    yaml = "{udf: roads, asset: {key: roads_cache}, selection: {bounds: [1, 1, 2, 2], zooms: '0-1'}}"
    assert run(definitions(yaml)).success
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 0), (1, 0, 1), (1, 1, 1)}


def test_without_a_selection_it_is_the_whole_udf(fused_emulator: Emulator, udf: Udf) -> None:
    assert run(definitions("{udf: roads, asset: {key: roads_cache}}")).success
    assert fused_emulator.cached_tiles(udf) == set()


def test_what_lies_below_the_udf_is_made_new_first(fused_emulator: Emulator, udf: Udf) -> None:
    for folder in ("rails", "tmp"):
        fused_emulator.cache(cache_folder_path=folder)(lambda: 1)()
    table = fused_emulator.add_h3_table("s3://lake/hexes/")
    table.set_indexed(0)
    yaml = """
udf: roads
asset: {key: roads_cache}
inner_caches: [rails, tmp]
h3_index: {path: "s3://lake/hexes/", run: true, prefix: date=2026-11-22}
loaded_at: "2026-11-22T06:30:00Z"
"""
    done = run(definitions(yaml))
    [event] = done.asset_materializations_for_node("roads_cache")
    assert fused_emulator.inner_caches() == []
    assert [each["prefix"] for each in table.runs] == ["date=2026-11-22"]
    assert event.metadata["loaded_at"].value == "2026-11-22T06:30:00+00:00"


@pytest.mark.parametrize("line", ["h3_index: {paths: a}", "h3_index: {path: a, loaded: b}", "inner_caches: 5"])
def test_what_lies_below_the_udf_is_checked_when_the_project_is_loaded(line: str) -> None:
    with pytest.raises(Exception, match=r"unknown key|inner_caches"):
        definitions(f"udf: roads\nasset: {{key: roads_cache}}\n{line}\n")


def test_two_instances_get_on_with_each_other(fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch) -> None:
    bridges = fused_emulator.register(dict, name="bridges")
    fused_emulator.fill_cache(bridges, [(1, 0, 0)])
    monkeypatch.setenv("OTHER_TOKEN", fused_emulator.token)
    two = definitions(
        "{udf: roads, asset: {key: maps/roads_cache}}",
        "{udf: bridges, asset: {key: maps/bridges_cache}, token_env: OTHER_TOKEN}",
    )
    assert run(two).success
    assert fused_emulator.cached_tiles(udf) == fused_emulator.cached_tiles(bridges) == set()


def test_the_snapshot_names_the_variable_and_holds_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROADS_TOKEN", "t0p-s3cret-t0ken")
    defs = definitions("{udf: fsh_s3cret, asset: {key: c}, token_env: ROADS_TOKEN}")
    snapshot = dg.serialize_value(defs.resolve_implicit_global_asset_job_def().get_job_snapshot())
    assert "ROADS_TOKEN" in snapshot
    assert "s3cret" not in snapshot


def test_the_projects_own_resource_can_be_used(fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUSED_SERVICE_ACCOUNT_TOKEN")
    own = dg.Definitions(resources={"ours": FusedResource(token=fused_emulator.token)})
    run(dg.Definitions.merge(own, definitions("{udf: roads, asset: {key: roads_cache}, resource_key: ours}")))
    assert fused_emulator.cached_tiles(udf) == set()


@pytest.mark.parametrize("value", [f"{__name__}.selection_fn", "{{ changed }}"])
def test_selection_fn_is_a_path_or_a_template_variable(
    fused_emulator: Emulator, udf: Udf, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, __name__, sys.modules[selection_fn.__module__])
    run(definitions(f"{{udf: roads, asset: {{key: c}}, selection_fn: '{value}'}}", changed=selection_fn))
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 1), (1, 1, 0), (1, 1, 1)}


def test_verify_adds_a_check(fused_emulator: Emulator, udf: Udf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHARED", udf.shared_token)
    monkeypatch.setenv("FUSED_RUN_BASE_URL", fused_emulator.root_url)
    beside = "checkpoint: c.json, verify_tiles: 5, shared_token_env: SHARED"
    yaml = f"{{udf: roads, asset: {{key: c}}, selection: {{tiles: [1/0/0]}}, {beside}}}"
    (evaluation,) = run(definitions(yaml)).get_asset_check_evaluations()
    assert evaluation.passed
    assert evaluation.metadata["fresh"].value == ["1/0/0"]


@pytest.mark.parametrize(
    ("refresh", "runs"), [("2", 2), ("all", 4), ("{zooms: 1, concurrency: 1}", 4), ("{count: 3}", 3)], ids=str
)
def test_a_refresh_is_a_scalar_or_a_mapping(
    fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch, refresh: str, runs: int
) -> None:
    monkeypatch.setenv("SHARED", udf.shared_token)
    monkeypatch.setenv("FUSED_RUN_BASE_URL", fused_emulator.root_url)
    selection = "{tiles: [1/0/0, 1/0/1, 1/1/0, 1/1/1]}"
    beside = f"refresh: {refresh}, shared_token_env: SHARED, limits: {{deadline: 20, max_concurrency: 2}}"
    defs = definitions(f"{{udf: roads, asset: {{key: c}}, selection: {selection}, {beside}}}")
    (event,) = run(defs).get_asset_materialization_events()
    assert event.materialization.metadata["refresh"].value["runs"] == runs  # type: ignore[index,call-overload]
    assert len(fused_emulator.runs) == runs


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ("refresh: {zoms: 1}", "refresh: unknown key 'zoms'. Did you mean zooms?"),
        ("limits: {deadlin: 1}", "limits: unknown key 'deadlin'. Did you mean deadline?"),
        ("selection: {tiles: [1/0/0], refresh: 5}", "selection: unknown key 'refresh'. The keys are "),
        ("selection: {tiles: [1/0/0], zoms: 5}", "selection: unknown key 'zoms'. Did you mean zooms?"),
        ("selecton: {tiles: [1/0/0]}", "attributes: unknown key 'selecton'. Did you mean selection?"),
        ("verfy_tiles: 5", "attributes: unknown key 'verfy_tiles'. Did you mean verify_tiles?"),
        ("limits: {deadline: 1}, resource_key: fused", "limits are those of the resource 'fused'"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused_when_the_project_is_loaded(attributes: str, said: str) -> None:
    with pytest.raises(Exception, match=re.escape(said)):
        definitions(f"{{udf: roads, asset: {{key: c}}, {attributes}}}")


def test_the_assets_settings_are_kept() -> None:
    spec = "{key: maps/c, deps: [raw/roads], group_name: maps, owners: ['team:maps'], tags: {tier: prod}, kinds: [map]}"
    defs = definitions(f"{{udf: roads, asset: {spec}}}")
    asset = defs.resolve_assets_def(dg.AssetKey(["maps", "c"])).get_asset_spec()
    assert (asset.key, asset.group_name, asset.owners) == (dg.AssetKey(["maps", "c"]), "maps", ["team:maps"])
    assert (asset.kinds, asset.tags["tier"]) == ({"map", "fused"}, "prod")
    assert [dep.asset_key for dep in asset.deps] == [dg.AssetKey(["raw", "roads"])]
    assert asset.automation_condition == AFTER_EACH_LOAD


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ("selection: {bounds: null}", "bounds"),
        ("selection: {tiles: null}", "tiles"),
        ("selection: null", "selection"),
        ("selection: {}", "omit it"),
        ("selection: {bound: [1, 1, 2, 2]}", "bound"),
        ("token_env: '{{ env.FUSED_SERVICE_ACCOUNT_TOKEN }}'", "not a template"),
        ("passcode_env: '{{ env.PASSCODE }}'", "not a template"),
        ("token_env: 'not-a-name'", "name of an environment variable"),
        ("selection_fn: nowhere.at.all", "cannot be imported"),
        ("selection_fn: nowhere", "cannot be imported"),
        ("verify_tiles: 5, shared_token_env: SHARED", "which tiles"),
    ],
)
def test_what_cannot_be_meant_is_refused(fused_emulator: Emulator, attributes: str, reason: str) -> None:
    with pytest.raises(Exception, match=reason):
        definitions(f"{{udf: roads, asset: {{key: c}}, {attributes}}}")


def test_every_field_of_the_schema_has_a_description() -> None:
    schema = FusedInvalidateCacheComponent.get_model_cls().model_json_schema()
    parts = [schema, schema["$defs"]["SelectionModel"]]
    assert [name for part in parts for name, field in part["properties"].items() if not field.get("description")] == []


def dg_command(project: Path, home: Path, *arguments: str) -> str:
    """Run ``dg`` in a project, with this environment's Dagster."""
    environment = os.environ | {"DAGSTER_HOME": str(home), "PYTHONPATH": str(project / "src"), "COLUMNS": "200"}
    command = [str(Path(sys.executable).with_name("dg")), *arguments]
    done = subprocess.run(command, cwd=project, env=environment, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_dg_project_scaffolds_checks_lists_and_launches(fused_emulator: Emulator, udf: Udf, tmp_path: Path) -> None:
    project, home = tmp_path / "project", tmp_path / "home"
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns("__pycache__"))
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")

    dg_command(
        project, home, "scaffold", "defs", "dagster_fused.FusedInvalidateCacheComponent", "rivers", "--table", "raw/roads"
    )
    assert "udf: rivers" in (project / "src/roads_project/defs/rivers/defs.yaml").read_text()
    dg_command(project, home, "check", "defs")
    listed = dg_command(project, home, "list", "defs", "--json")
    assert [key for key in ("maps/roads_cache", "maps/bridges_cache", "rivers_cache") if f'"{key}"' not in listed] == []
    in_process = '{"execution": {"config": {"in_process": {}}}}'  # which is quicker
    dg_command(project, home, "launch", "--assets", "maps/roads_cache", "--partition", "south", "--config-json", in_process)
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 0), (1, 1, 0)}


@pytest.mark.parametrize("beside", ["verify_tiles: 5", "refresh: all"])
def test_a_component_that_runs_its_udf_needs_a_shared_token_when_it_is_loaded(beside: str) -> None:
    with pytest.raises(ValueError, match="needs a shared token of the UDF roads: set shared_token_env to the name of"):
        definitions(f"{{udf: roads, asset: {{key: c}}, selection: {{tiles: [1/0/0]}}, {beside}}}")
