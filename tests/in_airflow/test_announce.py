"""What open maps are told, in real DAG runs."""

import importlib.util
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_fused import operators
from airflow_provider_fused._compat import AirflowFailException
from airflow_provider_fused.operators import FusedInvalidateCacheOperator, FusedInvalidateDatasetOperator
from fused_cache_ops import InvalidInputError
from fused_cache_ops.emulator import Emulator

try:
    from airflow.sdk import DAG
except ImportError:
    from airflow import DAG

pytestmark = [pytest.mark.xdist_group("airflow"), pytest.mark.usefixtures("airflow_database", "connection", "udf")]

HOOK = "https://hooks.example.com/T0K3N/Zq7Xw9Kt3V"


@pytest.fixture
def connection(fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = {"conn_type": "fused", "host": fused_emulator.base_url, "password": fused_emulator.token}
    monkeypatch.setenv("AIRFLOW_CONN_FUSED_DEFAULT", json.dumps(uri))


@pytest.fixture(scope="module")
def dags(install_dag: Callable[[Path], Path]) -> Any:
    copy = install_dag(Path(__file__).with_name("dag_announce.py"))
    spec = importlib.util.spec_from_file_location("dag_announce", copy)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.DAGS


@pytest.mark.parametrize("dag", ["announce_file", "announce_again"])
def test_a_task_announces_once_at_a_place_that_is_templated(
    dags: Any, dag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_ANNOUNCE_PLACE", str(tmp_path / "map.json"))
    assert str(dags[dag].test().state).endswith("success")
    document = json.loads((tmp_path / "map.json").read_text())
    assert (document["version"], document["source"]) == (1, "streets" if dag == "announce_file" else "roads")
    assert document["changes"][0]["tiles"] == ["1/0/0"]


def test_the_udfs_of_a_dataset_are_announced_in_a_folder(
    dags: Any, fused_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused_emulator.register(dict, name="rivers")
    (tmp_path / "map.toml").write_text('[datasets.lake]\nudfs = [{ udf = "roads" }, { udf = "rivers" }]\n')
    monkeypatch.setenv("AIRFLOW_VAR_ANNOUNCE_MAP", str(tmp_path / "map.toml"))
    monkeypatch.setenv("AIRFLOW_VAR_ANNOUNCE_FOLDER", str(tmp_path / "maps"))
    assert str(dags["announce_dataset"].test().state).endswith("success")
    assert {path.name for path in (tmp_path / "maps").glob("*.json")} == {"roads.json", "rivers.json"}


def test_the_result_says_where_it_was_announced(tmp_path: Path) -> None:
    done = FusedInvalidateCacheOperator(task_id="t", udf="roads", announce=str(tmp_path / "a.json")).execute({})
    assert done["announcement"]["version"] == 1
    assert done["announcement"]["what"] == "everything"


def test_what_must_be_announced_fails_the_task(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("else")
    how = {"to": str(tmp_path / "a.json"), "must_succeed": "true"}
    with pytest.raises(AirflowFailException, match="Everything is invalidated, but it could not be announced"):
        FusedInvalidateCacheOperator(task_id="t", udf="roads", announce=how).execute({})


@pytest.mark.parametrize("how", [HOOK, {"to": HOOK, "source": "roads"}], ids=["text", "mapping"])
@pytest.mark.parametrize("operator", [FusedInvalidateCacheOperator, FusedInvalidateDatasetOperator])
def test_an_address_to_post_to_in_a_dag_is_refused_before_it_is_stored(operator: Any, how: Any) -> None:
    named = {"udf": "roads"} if operator is FusedInvalidateCacheOperator else {"dataset": "lake"}
    with DAG("announcing", schedule=None, start_date=datetime(2024, 1, 1)), pytest.raises(InvalidInputError) as caught:
        operator(task_id="t", announce=how, **named)
    assert "pass to = 'env:MAP_WEBHOOK'" in str(caught.value)
    assert "T0K3N" not in str(caught.value)


@pytest.mark.parametrize("how", [{"announce": HOOK}, {"announce": {"to": HOOK}}, {"udf": "fsh_T0K3NaBcDeFgHiJkLm"}], ids=str)
@pytest.mark.parametrize("operator", [FusedInvalidateCacheOperator, FusedInvalidateDatasetOperator])
def test_a_secret_of_a_mapped_task_is_refused_before_it_is_stored(operator: Any, how: Any) -> None:
    with pytest.raises(InvalidInputError, match="Airflow stores a DAG's arguments in plain text") as caught:
        operator.partial(task_id="t", **how)
    assert "T0K3N" not in str(caught.value)


def test_an_address_that_a_template_renders_is_masked_before_it_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    masked: list[str] = []
    monkeypatch.setattr(operators, "mask_secret", masked.append)
    operator = FusedInvalidateCacheOperator(task_id="t", udf="roads", announce={"to": "{{ params.hook }}"})
    operator.render_template_fields({"params": {"hook": HOOK}})
    assert masked == [HOOK]
