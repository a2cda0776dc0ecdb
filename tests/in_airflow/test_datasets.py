"""One load, many maps, in real DAG runs."""

import contextlib
import importlib.util
import json
import sqlite3
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_fused.operators import FusedInvalidateDatasetOperator
from fused_cache_ops import CacheMap
from fused_cache_ops.emulator import Emulator, Udf

try:
    from airflow.sdk import Asset
except ImportError:
    from airflow.datasets import Dataset as Asset

pytestmark = [pytest.mark.xdist_group("airflow"), pytest.mark.usefixtures("connection")]

CACHED = [(1, 0, 0), (9, 275, 167), (12, 2200, 1343), (12, 0, 0)]
MAP = """
[datasets."s3://bucket/parcels"]
udfs = [{ udf = "parcels", zooms = "10-12" }, { udf = "overview", zooms = "4-9" }, { udf = "totals", whole_udf = true }]

[datasets.roads]
udfs = [{ udf = "missing" }, { udf = "totals" }]

[datasets.beside]
udfs = [{ udf = "parcels", again_after = 1 }, { udf = "missing" }]

[datasets.later]
udfs = [{ udf = "parcels", again_after = 1 }, { udf = "overview" }]
"""


@pytest.fixture
def connection(airflow_database: Path, fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = {"conn_type": "fused", "host": fused_emulator.base_url, "password": fused_emulator.token}
    monkeypatch.setenv("AIRFLOW_CONN_FUSED_DEFAULT", json.dumps(uri))


@pytest.fixture
def udfs(fused_emulator: Emulator) -> dict[str, Udf]:
    found = {name: fused_emulator.register(dict, name=name) for name in ("parcels", "overview", "totals", "untouched")}
    for udf in found.values():
        fused_emulator.fill_cache(udf, CACHED)
    return found


@pytest.fixture(scope="module")
def dags(install_dag: Callable[[Path], Path]) -> Any:
    copy = install_dag(Path(__file__).with_name("dag_datasets.py"))
    copy.with_name("fused-cache.toml").write_text(MAP)  # beside the DAG's file, not in the working folder
    spec = importlib.util.spec_from_file_location("dag_datasets", copy)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.DAGS


BY_INLET = pytest.param(
    "by_inlet",
    marks=pytest.mark.skipif(
        version("apache-airflow").startswith("3.0."), reason="dag.test() of Airflow 3.0 takes every asset for inactive"
    ),
)


@pytest.mark.parametrize("name", ["named", BY_INLET])
def test_one_load_makes_every_udf_of_its_dataset_fresh(
    fused_emulator: Emulator, udfs: dict[str, Udf], dags: Any, name: str, airflow_database: Path
) -> None:
    assert str(dags[name].test().state).endswith("success")

    assert [fused_emulator.cached_tiles(udf) for udf in udfs.values()] == [
        {(1, 0, 0), (9, 275, 167), (12, 0, 0)},
        {(1, 0, 0), (12, 2200, 1343), (12, 0, 0)},
        set(),
        set(CACHED),
    ]
    with contextlib.closing(sqlite3.connect(airflow_database)) as database:
        query = "SELECT value FROM xcom WHERE key = 'return_value' AND task_id = 't' AND dag_id = ?"
        ((stored,),) = database.execute(query, (name,))
    assert list(json.loads(stored)["s3://bucket/parcels"]["results"]) == ["parcels", "overview", "totals"]


def test_without_inlets_the_assets_that_triggered_the_run_are_the_datasets() -> None:
    read = CacheMap.from_dict({"datasets": {"s3://bucket/parcels": {"udfs": []}, "roads": {"udfs": []}}})
    operator = FusedInvalidateDatasetOperator(task_id="t")
    events = [Asset("s3://bucket/other"), Asset("s3://bucket/parcels")]  # the keys of a mapping: they are iterated over

    assert operator._datasets({"triggering_asset_events": events}, read) == ["s3://bucket/parcels"]


@pytest.mark.parametrize(
    ("uri", "name"), [("s3://bucket/parcels", "parcels"), ("S3://bucket/parcels", None), ("x://other", "s3://bucket/parcels/")]
)
def test_an_asset_is_found_by_its_uri_and_its_name_as_airflow_normalizes_them(uri: str, name: str | None) -> None:
    read = CacheMap.from_dict({"datasets": {"s3://bucket/parcels/": {"udfs": []}}})
    operator = FusedInvalidateDatasetOperator(task_id="t")
    assert operator._datasets({"triggering_asset_events": [SimpleNamespace(uri=uri, name=name)]}, read) == [
        "s3://bucket/parcels/"
    ]


@pytest.mark.skipif(version("apache-airflow").startswith("2."), reason="Airflow 3 has references to assets")
def test_references_and_aliases_among_the_inlets_are_found() -> None:
    from airflow.sdk import AssetAlias

    read = CacheMap.from_dict({"datasets": {key: {"udfs": []} for key in ("roads", "s3://bucket/parcels/", "s3://bucket/new")}})
    alias = AssetAlias("latest")
    inlets = [Asset("other"), Asset.ref(name="roads"), Asset.ref(uri="s3://bucket/parcels"), alias]
    operator = FusedInvalidateDatasetOperator(task_id="t")
    operator.inlets = inlets
    event = SimpleNamespace(asset=SimpleNamespace(name="new", uri="s3://bucket/new"))
    found = operator._datasets({"inlet_events": {alias: [event, event]}}, read)
    assert found == ["roads", "s3://bucket/parcels/", "s3://bucket/new"]


def test_a_udf_that_failed_does_not_take_the_second_pass_from_the_others(
    udfs: dict[str, Udf], fused_emulator: Emulator, dags: Any
) -> None:
    assert str(dags["again_beside_a_missing_one"].test().state).endswith("failed")
    sent = [request.path.split("/")[-2] for request in fused_emulator.requests if request.path.endswith("delete")]
    assert sent.count(udfs["parcels"].id) == 2


def test_a_dataset_that_cannot_be_told_fails_the_task(udfs: dict[str, Udf], fused_emulator: Emulator, dags: Any) -> None:
    assert str(dags["nothing_named"].test().state).endswith("failed")
    assert not fused_emulator.requests


def test_a_udf_that_does_not_exist_fails_the_task_at_once_with_the_others_done(
    udfs: dict[str, Udf], fused_emulator: Emulator, dags: Any
) -> None:
    run = dags["missing"].test()

    assert str(run.state).endswith("failed")
    assert [instance.try_number for instance in run.get_task_instances()] == [1]
    assert fused_emulator.cached_tiles(udfs["totals"]) == set()


def test_the_task_is_deferred_between_two_passes_of_a_udf(udfs: dict[str, Udf], fused_emulator: Emulator, dags: Any) -> None:
    assert str(dags["again"].test().state).endswith("success")

    sent = [request.path.split("/")[-2] for request in fused_emulator.requests if request.path.endswith("delete")]
    assert sorted(map(sent.count, {udfs["parcels"].id, udfs["overview"].id})) == [1, 2]


def test_a_dataset_that_rendered_to_none_is_not_taken_from_the_inlets() -> None:
    operator = FusedInvalidateDatasetOperator(task_id="t", inlets=[Asset("roads")], dataset=None)
    assert operator._datasets({}, CacheMap.from_dict({"datasets": {"roads": {"udfs": []}}})) == [None]


@pytest.mark.parametrize("name", ["udf", "shared_token"])
def test_what_the_map_says_is_no_argument(name: str) -> None:
    with pytest.raises(TypeError, match=rf"takes no {name}"):
        FusedInvalidateDatasetOperator(task_id="t", **{name: "x"})
