"""The operator after a dbt build."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_fused._compat import AirflowFailException
from airflow_provider_fused.cosmos import invalidate_after_cosmos
from airflow_provider_fused.exceptions import FusedUnavailableError
from airflow_provider_fused.operators import FusedInvalidateDbtOperator
from fused_cache_ops.emulator import Emulator, Udf

try:
    from airflow.sdk.exceptions import TaskDeferred
except ImportError:
    from airflow.exceptions import TaskDeferred

pytestmark = [pytest.mark.xdist_group("airflow"), pytest.mark.usefixtures("_connection")]

FILES = Path(__file__).parents[1] / "core" / "dbt"
CHANGED, OTHER = (14, 7776, 6278), (14, 0, 0)


@pytest.fixture
def _connection(fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"conn_type": "fused", "host": fused_emulator.base_url, "password": fused_emulator.token}
    monkeypatch.setenv("AIRFLOW_CONN_FUSED_DEFAULT", json.dumps(fields))


def left(emulator: Emulator, dbt_udfs: dict[str, Udf]) -> dict[str, int]:
    return {name: len(emulator.cached_tiles(udf)) for name, udf in dbt_udfs.items()}


def operator(dbt_target: Path, **arguments: Any) -> FusedInvalidateDbtOperator:
    return FusedInvalidateDbtOperator(task_id="invalidate", path=str(dbt_target), **arguments)


def test_the_maps_of_what_was_built_are_invalidated(
    dbt_target: Path, fused_emulator: Emulator, dbt_udfs: dict[str, Udf]
) -> None:
    result = operator(dbt_target).execute({})
    assert left(fused_emulator, dbt_udfs) == {"parcels": 1, "streets": 0, "prices": 0, "prices_legend": 0}
    assert set(result["results"]) == set(dbt_udfs)
    assert result["changed"]["model.city.streets"] == "city.main.streets"
    assert json.loads(json.dumps(result)) == result


def test_a_failed_build_fails_the_task_once_the_rest_is_invalidated(
    dbt_target: Path, fused_emulator: Emulator, dbt_udfs: dict[str, Udf]
) -> None:
    shutil.copytree(FILES / "failed", dbt_target, dirs_exist_ok=True)
    with pytest.raises(AirflowFailException, match=r"dbt did not build 2 nodes: model\.city\.prices"):
        operator(dbt_target).execute({})
    assert left(fused_emulator, dbt_udfs) == {"parcels": 1, "streets": 0, "prices": 2, "prices_legend": 2}


def test_a_transient_failure_is_retried_with_all_of_it(
    dbt_target: Path, fused_emulator: Emulator, dbt_udfs: dict[str, Udf]
) -> None:
    fields = {"conn_type": "fused", "host": fused_emulator.base_url, "password": fused_emulator.token}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIRFLOW_CONN_FUSED_DEFAULT", json.dumps({**fields, "extra": {"deadline": 1}}))
        fused_emulator.misbehave(status=503, times=None, path=dbt_udfs["streets"].id)
        with pytest.raises(FusedUnavailableError):
            operator(dbt_target).execute({})
    fused_emulator.behave()
    operator(dbt_target).execute({})
    assert left(fused_emulator, dbt_udfs) == {"parcels": 1, "streets": 0, "prices": 0, "prices_legend": 0}


def test_the_second_pass_needs_no_files_of_dbt(dbt_target: Path, fused_emulator: Emulator, dbt_udfs: dict[str, Udf]) -> None:
    kept = dbt_target / "changed_parcels.csv"
    with pytest.raises(TaskDeferred) as deferred:
        operator(dbt_target, again_after=60).execute({})
    first = json.loads(json.dumps(deferred.value.trigger.serialize()[1]["first"]))
    (dbt_target / "run_results.json").unlink()
    (dbt_target / "manifest.json").unlink()
    for udf in dbt_udfs.values():
        fused_emulator.fill_cache(udf, [CHANGED, OTHER])
    assert kept.exists()
    result = operator(dbt_target, again_after=60).second_pass({}, {"first": first, "returned": None})
    assert left(fused_emulator, dbt_udfs) == {"parcels": 1, "streets": 0, "prices": 0, "prices_legend": 0}
    assert {each["second_pass"] for each in result["results"].values()} == {"done"}


@pytest.mark.parametrize("name", ["cache_map", "newer_than"])
@pytest.mark.parametrize("value", [None, " "])
def test_an_argument_that_rendered_to_nothing_is_refused(
    dbt_target: Path, fused_emulator: Emulator, name: str, value: Any
) -> None:
    with pytest.raises(AirflowFailException, match=f"{name} is"):
        operator(dbt_target, **{name: value}).execute({})
    assert fused_emulator.requests == []


def test_a_build_before_the_run_is_refused(dbt_target: Path, fused_emulator: Emulator) -> None:
    with pytest.raises(AirflowFailException, match="older than newer_than"):
        operator(dbt_target, newer_than="2026-12-01T00:00:00+00:00").execute({})
    assert fused_emulator.requests == []


@pytest.mark.parametrize("repeat", [True, "true", "True"])
def test_a_cleared_task_repeats_a_build_if_it_says_so(
    dbt_target: Path, fused_emulator: Emulator, dbt_udfs: dict[str, Udf], repeat: Any
) -> None:
    operator(dbt_target).execute({})
    with pytest.raises(AirflowFailException, match="before"):
        operator(dbt_target).execute({})
    assert operator(dbt_target, repeat=repeat).execute({})["results"]


def test_the_callback_of_cosmos_invalidates_what_a_model_shows(
    dbt_target: Path, fused_emulator: Emulator, dbt_udfs: dict[str, Udf]
) -> None:
    invalidate_after_cosmos(str(dbt_target.parent), context={})
    assert left(fused_emulator, dbt_udfs) == {"parcels": 1, "streets": 0, "prices": 0, "prices_legend": 0}


def test_the_callback_of_cosmos_leaves_a_failed_model_to_cosmos(
    dbt_target: Path, fused_emulator: Emulator, dbt_udfs: dict[str, Udf], caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(FILES / "failed", dbt_target, dirs_exist_ok=True)
    invalidate_after_cosmos(str(dbt_target.parent), context={})
    assert "did not build 2 nodes" in caplog.text
    assert left(fused_emulator, dbt_udfs)["streets"] == 0


def test_the_callback_of_cosmos_does_nothing_after_a_test(dbt_target: Path, fused_emulator: Emulator) -> None:
    results = json.loads((dbt_target / "run_results.json").read_text())
    results["args"]["which"] = "test"
    (dbt_target / "run_results.json").write_text(json.dumps(results))
    invalidate_after_cosmos(str(dbt_target.parent), context={})
    assert fused_emulator.requests == []
