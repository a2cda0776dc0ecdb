"""The example DAGs, each run for real against the emulator."""

import json
import runpy
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from fused_cache_ops.demo.stations import create_table
from fused_cache_ops.emulator import Emulator, Udf

pytestmark = pytest.mark.xdist_group("airflow")

FOLDER = Path(__file__).parents[2] / "airflow" / "dags"
CHANGED = {(10, 486, 391), (10, 486, 392)}
KEPT = (10, 0, 0)


@pytest.fixture
def parcels(fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Udf:
    udf = fused_emulator.register(lambda **tile: tile, name="parcels")
    fused_emulator.fill_cache(udf, [*CHANGED, KEPT])
    fields = {"conn_type": "fused", "host": fused_emulator.base_url, "password": fused_emulator.token}
    monkeypatch.setenv("AIRFLOW_CONN_FUSED_DEFAULT", json.dumps(fields))
    return udf


@pytest.fixture
def run(install_dag: Callable[[Path], Path]) -> Callable[..., Any]:
    """Run a DAG of an example; the states of its tasks."""

    def run_dag(example: str, dag_id: str = "") -> dict[str, list[str]]:
        made = runpy.run_path(str(install_dag(FOLDER / f"{example}.py")))[dag_id or example]()
        states: dict[str, list[str]] = {}
        for instance in made.test().get_task_instances():
            states.setdefault(instance.task_id, []).append(str(instance.state))
        return states

    return run_dag


@pytest.fixture
def _known_datasets() -> Iterator[None]:
    """In Airflow 2, dag.test() does not make the datasets of a DAG known, and drops the events of unknown ones."""
    if not version("apache-airflow").startswith("2."):
        yield
        return
    from airflow.models.dataset import DatasetModel
    from airflow.utils.session import create_session

    with create_session() as session:
        session.add_all([DatasetModel(uri=uri) for uri in ("parcels_table", "parcels_map")])
    yield
    with create_session() as session:
        session.query(DatasetModel).delete()


def test_the_whole_udf(run: Callable[..., Any], fused_emulator: Emulator, parcels: Udf) -> None:
    assert run("invalidate_whole_udf") == {"load": ["success"], "invalidate": ["success"]}
    assert fused_emulator.cached_tiles(parcels) == set()


def test_a_refresh_after_the_load(
    run: Callable[..., Any], fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    create_table(tmp_path / "stations.sqlite")
    monkeypatch.setenv("STATIONS_DATABASE", str(tmp_path / "stations.sqlite"))
    stations = fused_emulator.register(lambda **tile: tile, name="charging_stations")
    fields = {"conn_type": "fused", "host": fused_emulator.base_url, "password": fused_emulator.token}
    monkeypatch.setenv("AIRFLOW_CONN_FUSED_DEFAULT", json.dumps(fields))
    monkeypatch.setenv("AIRFLOW_VAR_STATIONS_SHARED_TOKEN", stations.shared_token)
    assert run("refresh_after_load") == {"load": ["success"], "invalidate": ["success"], "refresh": ["success"]}
    assert len(fused_emulator.runs) == 2
    assert len(fused_emulator.cached_tiles(stations)) == 2


def test_many_udfs(run: Callable[..., Any], fused_emulator: Emulator, parcels: Udf) -> None:
    other = fused_emulator.register(lambda **tile: tile, name="parcels_by_owner")
    fused_emulator.fill_cache(other, [*CHANGED, KEPT])
    assert run("invalidate_many_udfs")["invalidate"] == ["success", "success"]
    assert fused_emulator.cached_tiles(parcels) == fused_emulator.cached_tiles(other) == {KEPT}


def test_every_udf_of_a_dataset(
    run: Callable[..., Any], fused_emulator: Emulator, parcels: Udf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    create_table(tmp_path / "stations.sqlite")
    monkeypatch.setenv("STATIONS_DATABASE", str(tmp_path / "stations.sqlite"))
    names = ("charging_stations", "charging_overview", "charging_totals")
    udfs = [fused_emulator.register(lambda **tile: tile, name=name) for name in names]
    for udf in udfs:
        fused_emulator.fill_cache(udf, [*CHANGED, KEPT, (6, 30, 24)])
    monkeypatch.chdir(FOLDER)  # where the map is: this DAG is built in the test's file
    assert run("invalidate_dataset")["invalidate"] == ["success"]
    outside = {KEPT, (10, 486, 391)}
    assert [fused_emulator.cached_tiles(udf) for udf in udfs] == [{*outside, (6, 30, 24)}, outside, set()]
    assert fused_emulator.cached_tiles(parcels) == {KEPT, *CHANGED}  # another dataset's


def test_the_days_partition(run: Callable[..., Any], fused_emulator: Emulator, parcels: Udf) -> None:
    from fused_cache_ops import plan_invalidation

    triangle = {"type": "Polygon", "coordinates": [[[-9.2, 38.7], [-9.1, 38.7], [-9.1, 38.8], [-9.2, 38.7]]]}
    covered = set(plan_invalidation("parcels", geometry=triangle, zooms="10-14").tiles())
    fused_emulator.fill_cache(parcels, covered)
    assert run("invalidate_partition")["invalidate"] == ["success"]
    assert fused_emulator.cached_tiles(parcels) == {KEPT, *CHANGED} - covered


@pytest.mark.skipif(
    version("apache-airflow").startswith("3.0."), reason="dag.test() of Airflow 3.0 takes every asset for inactive"
)
@pytest.mark.usefixtures("_known_datasets")
def test_each_run_invalidates_the_loads_since_the_last_one(
    run: Callable[..., Any], fused_emulator: Emulator, parcels: Udf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_fused.assets._SETTLES", -timedelta(microseconds=1))
    assert run("invalidate_on_asset", "load_parcels") == {"load": ["success"]}
    fused_emulator.misbehave(status=403, times=None)
    assert run("invalidate_on_asset") == {"invalidate": ["failed"]}
    fused_emulator.behave()
    assert run("invalidate_on_asset") == {"invalidate": ["success"]}
    assert fused_emulator.cached_tiles(parcels) == {KEPT}
    fused_emulator.forget_requests()
    assert run("invalidate_on_asset") == {"invalidate": ["success"]}
    assert fused_emulator.requests == []


@pytest.mark.skipif(
    tuple(map(int, version("apache-airflow").split(".")[:2])) < (3, 2), reason="partitions came with Airflow 3.2"
)
def test_a_run_for_a_partition_invalidates_what_it_covers(
    install_dag: Callable[[Path], Path],
    fused_emulator: Emulator,
    parcel_sources: Callable[[], set[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fields = {"conn_type": "fused", "host": fused_emulator.base_url, "password": fused_emulator.token}
    monkeypatch.setenv("AIRFLOW_CONN_FUSED_DEFAULT", json.dumps(fields))
    dag = runpy.run_path(str(install_dag(FOLDER / "invalidate_on_partition.py")))["invalidate_on_partition"]()
    operator = dag.get_task("invalidate")  # `dag.test` makes runs without a partition only
    operator.render_template_fields({"partition_key": "2026-11-22"})
    operator.execute({})
    assert parcel_sources() == {"kept", "new", "sold", "price", "height"}


def test_the_notifier(run: Callable[..., Any], fused_emulator: Emulator, parcels: Udf) -> None:
    assert run("invalidate_by_notifier") == {"load": ["success"]}
    assert fused_emulator.cached_tiles(parcels) == {KEPT}


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
    run: Callable[..., Any],
    fused_emulator: Emulator,
    parcel_sources: Callable[[], set[str]],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    invalidated: str,
) -> None:
    fields = {"conn_type": "fused", "host": fused_emulator.base_url, "password": fused_emulator.token}
    monkeypatch.setenv("AIRFLOW_CONN_FUSED_DEFAULT", json.dumps(fields))
    assert set(map(tuple, run(name).values())) == {("success",)}
    assert parcel_sources() == {"kept", "new", "sold", "hex", "price", "height"} - {invalidated}
