"""When the task is green, the map is right: callers, instances, and runs under way, in real DAG runs."""

import importlib.util
import json
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from airflow.exceptions import TaskDeferred

from airflow_provider_fused._compat import IS_AIRFLOW_2, AirflowFailException
from airflow_provider_fused.exceptions import FusedUnavailableError
from airflow_provider_fused.notifications import FusedInvalidateCacheNotifier
from airflow_provider_fused.operators import LARGEST_STORED, FusedInvalidateCacheOperator
from fused_cache_ops import InvalidInputError
from fused_cache_ops.emulator import Emulator, H3Table, Udf

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


@pytest.mark.parametrize("dag", ["index", "index_decorator", "index_dataset"])
def test_what_was_loaded_is_indexed_before_the_map_is_invalidated(
    fused_emulator: Emulator,
    dags: Any,
    hexes: tuple[H3Table, Udf],
    seen: Callable[[Udf], Any],
    dag: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table, udf = hexes
    (tmp_path / "map.toml").write_text(
        '[datasets.hexes]\nudfs = [{ udf = "land/hexes", h3_index = { path = "s3://lake/hexes/", run = true } }]\n'
    )
    monkeypatch.setenv("AIRFLOW_VAR_HEXES_MAP", str(tmp_path / "map.toml"))
    before = seen(udf)
    assert str(dags[dag].test().state).endswith("success")
    assert (before, seen(udf)) == ("old", "new")
    assert [run["prefix"] for run in table.runs] == ["date=2026" if dag == "index" else None]


def test_while_an_index_is_run_the_task_is_deferred_and_stores_no_secret(
    fused_emulator: Emulator, hexes: tuple[H3Table, Udf], deletes: Callable[[], int]
) -> None:
    table, udf = hexes
    table.run_seconds = None
    index: Any = {"path": table.path, "run": True}
    operator = FusedInvalidateCacheOperator(task_id="t", udf=udf.shared_token, tiles=[TILE], h3_index=index)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute({})
    stored = json.loads(json.dumps(deferred.value.trigger.serialize()[1]))
    assert deferred.value.method_name == "index_looked_at"
    assert fused_emulator.token not in json.dumps(stored)
    assert udf.shared_token not in json.dumps(stored)
    with pytest.raises(TaskDeferred):
        operator.index_looked_at({}, stored)
    assert deletes() == 0
    table.finish()
    assert operator.index_looked_at({}, stored)["tiles_invalidated"] == 1
    assert len(table.runs) == 1


def test_an_index_that_is_too_old_leaves_it_to_the_tasks_retries(
    fused_emulator: Emulator, hexes: tuple[H3Table, Udf], deletes: Callable[[], int]
) -> None:
    index: Any = {"path": hexes[0].path}
    now = datetime.now(timezone.utc)
    operator = FusedInvalidateCacheOperator(task_id="t", udf=hexes[1].id, h3_index=index, loaded_at=now)
    with pytest.raises(FusedUnavailableError, match="Nothing was invalidated"):
        operator.execute({})
    assert deletes() == 0


class Event(NamedTuple):
    timestamp: datetime


@pytest.mark.parametrize("name", ["triggering_asset_events", "triggering_dataset_events"])
def test_the_event_that_triggered_the_run_says_when_the_data_was_loaded(
    fused_emulator: Emulator, hexes: tuple[H3Table, Udf], name: str
) -> None:
    now = datetime.now(timezone.utc)
    events = {"a": [Event(now - timedelta(seconds=90)), Event(now - timedelta(seconds=60))], "b": []}
    operator = FusedInvalidateCacheOperator(task_id="t", udf=hexes[1].id, tiles=[TILE])
    assert 60 <= operator.execute({name: events})["seconds_until_invalidated"] < 80
    with pytest.raises(FusedUnavailableError, match="Nothing was invalidated"):
        FusedInvalidateCacheOperator(task_id="t", udf=hexes[1].id, h3_index={"path": hexes[0].path}).execute(
            {name: {"a": [Event(datetime.now(timezone.utc))]}}
        )


@pytest.mark.skipif(IS_AIRFLOW_2, reason="Airflow 2 has another accessor")
def test_airflows_own_events_say_when_the_data_was_loaded(fused_emulator: Emulator, udf: Udf) -> None:
    from airflow.sdk.execution_time.comms import AssetEventDagRunReferenceResult
    from airflow.sdk.execution_time.context import TriggeringAssetEventsAccessor

    then = datetime.now(timezone.utc) - timedelta(seconds=60)
    named: Any = {f"source_{name}": None for name in ("task_id", "dag_id", "run_id", "map_index")}
    event = AssetEventDagRunReferenceResult(
        asset={"name": "parcels", "uri": "s3://lake/parcels", "extra": {}}, extra={}, source_aliases=[], timestamp=then, **named
    )
    context = {"triggering_asset_events": TriggeringAssetEventsAccessor.build([event])}
    result = FusedInvalidateCacheOperator(task_id="t", udf=udf.id, tiles=[TILE]).execute(context)
    assert 60 <= result["seconds_until_invalidated"] < 80


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
    + [("inner_caches", each) for each in (None, "None", "", "../tmp", "['']", "[", [""], [None])]
    + [("h3_index", each) for each in (None, "None", {}, {"path": "None", "run": True}, {"path": "a", "runs": True})]
    + [("loaded_at", each) for each in (None, "None", "", "soon", "2026-11-22T00:00:00")],
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
    with pytest.raises(InvalidInputError, match="run in h3_index takes long"):
        FusedInvalidateCacheNotifier(udf="roads", h3_index={"path": "s3://lake/hexes/", "run": True})


def test_the_second_pass_needs_no_other_folder(tmp_path: Path, loader: Udf) -> None:
    operator, stored = first_pass(udf=loader.id, tiles=[TILE], again_after=60, checkpoint=str(tmp_path / "c.json"))
    operator.second_pass({}, stored)
    assert list(tmp_path.iterdir()) == []
