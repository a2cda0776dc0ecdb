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


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "city" / "target"
    shutil.copytree(FILES / "first", folder)
    (folder / "changed_parcels.csv").write_text(f"z,x,y\n{','.join(map(str, CHANGED))}\n")
    return folder


@pytest.fixture
def udfs(fused_emulator: Emulator) -> dict[str, Udf]:
    made = {name: fused_emulator.register(dict, name=name) for name in ("parcels", "streets", "prices", "prices_legend")}
    for udf in made.values():
        fused_emulator.fill_cache(udf, [CHANGED, OTHER])
    return made


def left(emulator: Emulator, udfs: dict[str, Udf]) -> dict[str, int]:
    return {name: len(emulator.cached_tiles(udf)) for name, udf in udfs.items()}


def operator(target: Path, **arguments: Any) -> FusedInvalidateDbtOperator:
    return FusedInvalidateDbtOperator(task_id="invalidate", path=str(target), **arguments)


def test_the_maps_of_what_was_built_are_invalidated(target: Path, fused_emulator: Emulator, udfs: dict[str, Udf]) -> None:
    result = operator(target).execute({})
    assert left(fused_emulator, udfs) == {"parcels": 1, "streets": 0, "prices": 0, "prices_legend": 0}
    assert set(result["results"]) == set(udfs)
    assert result["changed"]["model.city.streets"] == "city.main.streets"
    assert json.loads(json.dumps(result)) == result


def test_a_failed_build_fails_the_task_once_the_rest_is_invalidated(
    target: Path, fused_emulator: Emulator, udfs: dict[str, Udf]
) -> None:
    shutil.copytree(FILES / "failed", target, dirs_exist_ok=True)
    with pytest.raises(AirflowFailException, match=r"dbt did not build 2 nodes: model\.city\.prices"):
        operator(target).execute({})
    assert left(fused_emulator, udfs) == {"parcels": 1, "streets": 0, "prices": 2, "prices_legend": 2}


def test_a_transient_failure_is_retried_with_all_of_it(target: Path, fused_emulator: Emulator, udfs: dict[str, Udf]) -> None:
    fields = {"conn_type": "fused", "host": fused_emulator.base_url, "password": fused_emulator.token}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIRFLOW_CONN_FUSED_DEFAULT", json.dumps({**fields, "extra": {"deadline": 1}}))
        fused_emulator.misbehave(status=503, times=None, path=udfs["streets"].id)
        with pytest.raises(FusedUnavailableError):
            operator(target).execute({})
    fused_emulator.behave()
    operator(target).execute({})
    assert left(fused_emulator, udfs) == {"parcels": 1, "streets": 0, "prices": 0, "prices_legend": 0}


def test_the_second_pass_needs_no_files_of_dbt(target: Path, fused_emulator: Emulator, udfs: dict[str, Udf]) -> None:
    kept = target / "changed_parcels.csv"
    with pytest.raises(TaskDeferred) as deferred:
        operator(target, again_after=60).execute({})
    first = json.loads(json.dumps(deferred.value.trigger.serialize()[1]["first"]))
    (target / "run_results.json").unlink()
    (target / "manifest.json").unlink()
    for udf in udfs.values():
        fused_emulator.fill_cache(udf, [CHANGED, OTHER])
    assert kept.exists()
    result = operator(target, again_after=60).second_pass({}, {"first": first, "returned": None})
    assert left(fused_emulator, udfs) == {"parcels": 1, "streets": 0, "prices": 0, "prices_legend": 0}
    assert {each["second_pass"] for each in result["results"].values()} == {"done"}


@pytest.mark.parametrize("name", ["cache_map", "newer_than"])
@pytest.mark.parametrize("value", [None, " "])
def test_an_argument_that_rendered_to_nothing_is_refused(target: Path, fused_emulator: Emulator, name: str, value: Any) -> None:
    with pytest.raises(AirflowFailException, match=f"{name} is"):
        operator(target, **{name: value}).execute({})
    assert fused_emulator.requests == []


def test_a_build_before_the_run_is_refused(target: Path, fused_emulator: Emulator) -> None:
    with pytest.raises(AirflowFailException, match="older than newer_than"):
        operator(target, newer_than="2026-12-01T00:00:00+00:00").execute({})
    assert fused_emulator.requests == []


@pytest.mark.parametrize("repeat", [True, "true", "True"])
def test_a_cleared_task_repeats_a_build_if_it_says_so(
    target: Path, fused_emulator: Emulator, udfs: dict[str, Udf], repeat: Any
) -> None:
    operator(target).execute({})
    with pytest.raises(AirflowFailException, match="before"):
        operator(target).execute({})
    assert operator(target, repeat=repeat).execute({})["results"]


def test_the_callback_of_cosmos_invalidates_what_a_model_shows(
    target: Path, fused_emulator: Emulator, udfs: dict[str, Udf]
) -> None:
    invalidate_after_cosmos(str(target.parent), context={})
    assert left(fused_emulator, udfs) == {"parcels": 1, "streets": 0, "prices": 0, "prices_legend": 0}


def test_the_callback_of_cosmos_leaves_a_failed_model_to_cosmos(
    target: Path, fused_emulator: Emulator, udfs: dict[str, Udf], caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(FILES / "failed", target, dirs_exist_ok=True)
    invalidate_after_cosmos(str(target.parent), context={})
    assert "did not build 2 nodes" in caplog.text
    assert left(fused_emulator, udfs)["streets"] == 0


def test_the_callback_of_cosmos_does_nothing_after_a_test(target: Path, fused_emulator: Emulator) -> None:
    results = json.loads((target / "run_results.json").read_text())
    results["args"]["which"] = "test"
    (target / "run_results.json").write_text(json.dumps(results))
    invalidate_after_cosmos(str(target.parent), context={})
    assert fused_emulator.requests == []
