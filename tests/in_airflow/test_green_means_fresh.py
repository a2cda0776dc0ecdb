"""When the task is green, the map is right: callers, instances, and runs under way, in real DAG runs."""

import importlib.util
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.exceptions import TaskDeferred

from airflow_provider_fused._compat import AirflowFailException
from airflow_provider_fused.decorators import LARGEST_STORED
from airflow_provider_fused.notifications import FusedInvalidateCacheNotifier
from airflow_provider_fused.operators import FusedInvalidateCacheOperator
from fused_cache_ops import InvalidInputError
from fused_cache_ops.emulator import Emulator, Udf

try:
    from airflow.sdk import task
except ImportError:
    from airflow.decorators import task

pytestmark = [pytest.mark.xdist_group("airflow"), pytest.mark.usefixtures("airflow_database", "connection")]

TILE = "1/0/0"


@pytest.fixture
def connection(fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = {"conn_type": "fused", "host": fused_emulator.base_url, "password": fused_emulator.token}
    monkeypatch.setenv("AIRFLOW_CONN_FUSED_DEFAULT", json.dumps(uri))


@pytest.fixture(scope="module")
def dags(install_dag: Callable[[Path], Path]) -> Any:
    copy = install_dag(Path(__file__).with_name("dag_green_means_fresh.py"))
    spec = importlib.util.spec_from_file_location("dag_green_means_fresh", copy)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.DAGS


@pytest.mark.parametrize("dag", ["callers", "callers_of_tiles"])
def test_a_caller_is_fresh_too(
    fused_emulator: Emulator, dags: Any, loader: Udf, table: dict[str, str], seen: Callable[[Udf], Any], parcels: Udf, dag: str
) -> None:
    before = seen(parcels)
    table["load"] = "new"
    assert str(dags[dag].test().state).endswith("success")
    assert (before, seen(parcels)) == ("old", "new")


def test_what_a_function_inside_the_udf_keeps_is_deleted(
    fused_emulator: Emulator, dags: Any, inner: Udf, table: dict[str, str], seen: Callable[[Udf], Any]
) -> None:
    before = seen(inner)
    table["load"] = "new"
    assert str(dags["inner"].test().state).endswith("success")
    assert (before, seen(inner)) == ("old", "new")


def test_one_that_may_not_be_deleted_fails_the_task_for_good(fused_emulator: Emulator, inner: Udf) -> None:
    fused_emulator.misbehave(status=403, path="/efs/", times=None)
    operator = FusedInvalidateCacheOperator(task_id="t", udf="land/inner", inner_caches=["land_inner"])
    with pytest.raises(AirflowFailException, match=r"Folder land_inner on instance fused-team: .* answered 403"):
        operator.execute({})


def test_the_instance_that_maps_run_on_is_reached(
    fused_emulator: Emulator, dags: Any, loader: Udf, table: dict[str, str], seen: Callable[[Udf], Any]
) -> None:
    before = seen(loader)
    table["load"] = "new"
    assert str(dags["instance"].test().state).endswith("success")
    assert (before, seen(loader)) == ("old", "new")


@pytest.mark.parametrize("form", ["operator", "decorator"])
def test_a_run_under_way_is_caught_by_the_second_pass(
    fused_emulator: Emulator,
    dags: Any,
    slow: tuple[Udf, threading.Event],
    when: Callable[..., threading.Thread],
    form: str,
    seen: Callable[[Udf], Any],
    deletes: Callable[[], int],
) -> None:
    udf, go = slow
    when(lambda: deletes() >= 2, go.set)  # the first pass is over, on both instances
    assert str(dags[form].test().state).endswith("success")
    assert deletes() == 4
    assert seen(udf) == "new"


def first_pass(**fields: Any) -> tuple[FusedInvalidateCacheOperator, dict[str, Any]]:
    """The operator after its first pass, and what Airflow stores of the trigger."""
    operator = FusedInvalidateCacheOperator(task_id="t", **fields)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute({})
    assert deferred.value.method_name == "second_pass"
    return operator, json.loads(json.dumps(deferred.value.trigger.serialize()[1]))


def test_what_is_stored_while_it_waits_is_json_without_a_secret(fused_emulator: Emulator, loader: Udf) -> None:
    _, stored = first_pass(udf=loader.shared_token, tiles=[TILE], again_after=60, verify_tiles=1)
    assert sorted(stored) == ["first", "moment", "returned"]
    assert fused_emulator.token not in json.dumps(stored)
    assert loader.shared_token not in json.dumps(stored)


def test_tiles_are_verified_after_the_second_pass_only(fused_emulator: Emulator, loader: Udf) -> None:
    operator, stored = first_pass(udf=loader.shared_token, tiles=[TILE], again_after=60, verify_tiles=1)
    assert stored["first"]["result"]["verification"] is None
    result = operator.second_pass({}, stored)
    assert result["verification"] == {"fresh": [TILE], "from_cache": [], "unknown": []}
    assert (result["second_pass"], result["tiles_invalidated"]) == ("done", 1)
    assert result["requests_sent"] > stored["first"]["result"]["requests_sent"]


def test_a_selection_that_renders_otherwise_on_resume_fails_with_both_fingerprints(
    fused_emulator: Emulator, loader: Udf, deletes: Callable[[], int]
) -> None:
    operator, stored = first_pass(udf=loader.id, tiles=[TILE], again_after=60)
    operator.tiles = ["1/1/1"]
    sent = deletes()
    with pytest.raises(AirflowFailException, match="selection has changed") as caught:
        operator.second_pass({}, stored)
    assert stored["first"]["fingerprint"] in str(caught.value)
    assert deletes() == sent


def test_nothing_to_send_is_no_reason_to_wait(fused_emulator: Emulator, loader: Udf) -> None:
    result = FusedInvalidateCacheOperator(task_id="t", udf=loader.id, tiles=[], again_after=60).execute({})
    assert (result["tiles_invalidated"], result["second_pass"]) == (0, None)
    assert fused_emulator.requests == []


@pytest.mark.parametrize(
    "returned", [{"bounds": {1}}, [[17, x, 0] for x in range(LARGEST_STORED // 12)]], ids=["no JSON", "large"]
)
def test_what_cannot_be_stored_is_refused_before_anything_is_sent(fused_emulator: Emulator, loader: Udf, returned: Any) -> None:
    @task.fused_invalidate_cache(udf=loader.id, again_after=60)
    def changed() -> Any:
        return returned

    with pytest.raises(AirflowFailException, match="tiles_file"):
        changed().operator.execute({})
    assert fused_emulator.requests == []


@pytest.mark.parametrize(
    ("field", "value"),
    [("related", "None"), ("related", "all"), ("again_after", "soon"), ("max_related", "x")]
    + [("inner_caches", each) for each in (None, "None", "", "../tmp", "['']", "[", [""], [None])],
)
def test_what_cannot_be_read_fails_before_anything_is_sent(
    fused_emulator: Emulator, loader: Udf, field: str, value: Any
) -> None:
    fields: Any = {field: value}
    with pytest.raises(AirflowFailException, match=field):
        FusedInvalidateCacheOperator(task_id="t", udf=loader.id, **fields).execute({})
    assert fused_emulator.requests == []


def test_a_notifier_cannot_wait() -> None:
    with pytest.raises(InvalidInputError, match="FusedInvalidateCacheOperator"):
        FusedInvalidateCacheNotifier(udf="roads", again_after=130)


def test_the_second_pass_needs_no_other_folder(tmp_path: Path, loader: Udf) -> None:
    operator, stored = first_pass(udf=loader.id, tiles=[TILE], again_after=60, checkpoint=str(tmp_path / "c.json"))
    operator.second_pass({}, stored)
    assert list(tmp_path.iterdir()) == []
