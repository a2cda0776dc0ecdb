"""The examples of hook, sensors and asset are run; those of ops are in the demonstration and with the other orchestrators'."""

import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import dagster as dg
import pytest
import yaml

import dagster_fused as fused
from fused_cache_ops import plan_invalidation
from fused_cache_ops.demo.stations import LISBON, PORTO, UDF_NAME, ZOOM, build_udf, create_table
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.tiles.tile import Tile

pytestmark = pytest.mark.xdist_group("dagster")


def example(name: str) -> ModuleType:
    path = Path(__file__).parents[2] / "dagster" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def stations(fused_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Udf:
    """The demonstration's table and UDF, with a tile in the cache that the load changes, and one that it does not."""
    database = tmp_path / "stations.sqlite"
    create_table(database)
    monkeypatch.setenv("STATIONS_DATABASE", str(database))
    udf = fused_emulator.register(build_udf(database), name=UDF_NAME)
    fused_emulator.fill_cache(udf, [Tile.containing(*LISBON, ZOOM), Tile.containing(*PORTO, ZOOM)])
    return udf


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def test_the_hooks_example(fused_emulator: Emulator, stations: Udf) -> None:
    job = example("invalidate_by_hook").defs.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process().success
    assert fused_emulator.cached_tiles(stations) == {Tile.containing(*PORTO, ZOOM)}


def test_the_sensors_example(fused_emulator: Emulator, stations: Udf, instance: dg.DagsterInstance) -> None:
    parcels = fused_emulator.register(dict, name="parcels")
    fused_emulator.fill_cache(parcels, [(1, 0, 0)])
    module = example("invalidate_by_sensor")
    cursors: dict[str, str | None] = dict.fromkeys(["after_stations", "after_nightly"])

    def tick() -> int:
        requests = 0
        for name in cursors:
            context = dg.build_sensor_context(instance, cursors[name], definitions=module.defs)
            evaluated = module.defs.get_repository_def().get_sensor_def(name).evaluate_tick(context)
            cursors[name] = evaluated.cursor or cursors[name]
            for request in evaluated.run_requests or ():
                requests += 1
                job = module.defs.resolve_job_def(f"{name}_job")
                assert job.execute_in_process(run_config=request.run_config, instance=instance).success
        return requests

    assert tick() == 0
    dg.materialize([module.stations], instance=instance)
    module.nightly.execute_in_process(instance=instance)
    assert tick() == 2
    assert fused_emulator.cached_tiles(stations) == {Tile.containing(*PORTO, ZOOM)}
    assert fused_emulator.cached_tiles(parcels) == set()


def test_the_example_of_a_partitioned_asset(fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("cache_as_asset")
    parcels = fused_emulator.register(lambda **tile: tile, name="parcels")
    monkeypatch.setenv("PARCELS_SHARED_TOKEN", parcels.shared_token)
    monkeypatch.setenv("FUSED_RUN_BASE_URL", fused_emulator.root_url)
    lisboa, porto = (
        set(plan_invalidation("p", bounds=module.BOUNDS[name], **module.ZOOMS).tiles()) for name in ("lisboa", "porto")
    )
    fused_emulator.fill_cache(parcels, lisboa | porto)
    job = module.defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(partition_key="porto")
    (evaluation,) = result.get_asset_check_evaluations()
    fresh = {tuple(int(part) for part in tile.split("/")) for tile in evaluation.metadata["fresh"].value}
    assert (evaluation.passed, len(fresh)) == (True, 5)
    assert fused_emulator.cached_tiles(parcels) == lisboa | fresh  # the check has asked for these again


def test_the_example_of_a_refresh(fused_emulator: Emulator, stations: Udf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATIONS_SHARED_TOKEN", stations.shared_token)
    monkeypatch.setenv("FUSED_RUN_BASE_URL", fused_emulator.root_url)
    with dg.DagsterInstance.ephemeral() as instance:
        job = example("refresh_after_load").defs.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=instance)
    (evaluation,) = result.get_asset_check_evaluations()
    assert (evaluation.passed, evaluation.metadata["runs"].value) == (True, 2)
    assert Tile.containing(*LISBON, ZOOM) in fused_emulator.cached_tiles(stations)


def test_the_example_of_a_dataset(fused_emulator: Emulator, stations: Udf) -> None:
    others = [fused_emulator.register(dict, name=name) for name in ("charging_overview", "charging_totals", "parcels")]
    for udf in others:
        fused_emulator.fill_cache(udf, [(0, 0, 0), Tile.containing(*LISBON, 8)])
    job = example("caches_of_dataset").defs.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process().success
    assert fused_emulator.cached_tiles(stations) == {Tile.containing(*PORTO, ZOOM)}
    assert [len(fused_emulator.cached_tiles(udf)) for udf in others] == [1, 0, 2]


README = (Path(__file__).parents[2] / "dagster" / "README.md").read_text()


def test_what_the_readme_shows_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fused-cache.toml").write_text('[datasets."raw/parcels"]\nudfs = [{ udf = "parcels", zooms = "10-14" }]\n')

    @dg.asset
    def parcels() -> None: ...

    @dg.job
    def nightly() -> None:
        fused.invalidate_cache_op()

    regions = dg.StaticPartitionsDefinition(["lisboa"])
    shown = {"parcels": parcels, "nightly": nightly, "DISTRICTS": regions, "BOUNDS": {"lisboa": (0, 0, 1, 1)}}
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    of_dbt = [block for block in blocks if "dagster_dbt" in block]  # scripts/dbt runs it, with a real dbt
    assert len(of_dbt) == 1
    for block in blocks:
        if block not in of_dbt:
            exec(block, shown)
    resources = {"fused": fused.FusedResource()}
    sensors = [shown["after_roads"], shown["after_nightly"]]
    assets = [parcels, shown["parcels_cache"], shown["roads"]]
    dg.Definitions.validate_loadable(dg.Definitions(assets, jobs=[nightly], sensors=sensors, resources=resources))


def test_the_readmes_component_loads() -> None:
    (document,) = re.findall(r"```yaml\n(type:.*?)```", README, re.DOTALL)
    attributes = yaml.safe_dump(yaml.safe_load(document)["attributes"])
    component = fused.FusedInvalidateCacheComponent.resolve_from_yaml(attributes)
    assert component.asset.key == dg.AssetKey(["maps", "roads_cache"])
    assert component.selection == {"bounds": [-9.25, 38.68, -9.08, 38.80], "zooms": "10-16"}


@pytest.mark.parametrize(
    ("name", "invalidated"),
    [
        ("invalidate_loaded_rows", "new"),
        ("invalidate_delta_changes", "sold"),
        ("invalidate_folder_changes", "sold"),
        ("invalidate_hex_partition", "hex"),
        ("invalidate_icechunk_changes", "price"),
        ("invalidate_changed_raster", "height"),
    ],
)
def test_what_changed_comes_from_the_data_itself(
    fused_emulator: Emulator, parcel_sources: Callable[[], set[str]], name: str, invalidated: str
) -> None:
    assert example(name).defs.resolve_job_def(name).execute_in_process().success
    assert parcel_sources() == {"kept", "new", "sold", "hex", "price", "height"} - {invalidated}
