"""What Airflow's users look for first: tiles from events, names of mapped instances, records, deadline alerts, metrics."""

import asyncio
import contextlib
import importlib
import json
import logging
import runpy
import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_fused._compat import IS_AIRFLOW_2, AirflowFailException
from airflow_provider_fused.decorators import fused_invalidate_cache_task
from airflow_provider_fused.links import FusedWorkbenchLink
from airflow_provider_fused.notifications import FusedInvalidateCacheNotifier
from airflow_provider_fused.operators import FusedInvalidateCacheOperator, FusedInvalidateDatasetOperator, own_checkpoint
from fused_cache_ops import InvalidInputError
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.sending.checkpoint import Checkpoint

try:
    from airflow.sdk import Asset, AssetAlias
except ImportError:  # Airflow 2
    from airflow.datasets import Dataset as Asset
    from airflow.datasets import DatasetAlias as AssetAlias

pytestmark = [pytest.mark.xdist_group("airflow"), pytest.mark.usefixtures("_settings")]

RELEASE = tuple(map(int, version("apache-airflow").split(".")[:2]))
TABLE, OTHER, MAP = Asset("roads_table"), Asset("other_table"), Asset("roads_map")
KEPT = (9, 0, 0)


@pytest.fixture
def _settings(fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, airflow_database: Path) -> None:
    fields = {
        "conn_type": "fused",
        "host": fused_emulator.base_url,
        "password": fused_emulator.token,
        "extra": '{"deadline": 3, "max_concurrency": 1}',
    }
    monkeypatch.setenv("AIRFLOW_CONN_FUSED_DEFAULT", json.dumps(fields))


@pytest.fixture
def roads(fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Udf:
    udf = fused_emulator.register(dict, name="roads")
    fused_emulator.fill_cache(udf, [(1, 0, 0), (1, 0, 1), KEPT])
    monkeypatch.setenv("AIRFLOW_VAR_ROADS_UDF", udf.shared_token)
    return udf


@pytest.fixture
def dags(install_dag: Callable[[Path], Path]) -> Any:
    copy = install_dag(Path(__file__).with_name("dag_conveniences.py"))
    return runpy.run_path(str(copy))["DAGS"]


@pytest.fixture
def stored(airflow_database: Path) -> Callable[..., list[Any]]:
    def query(text: str, *values: Any) -> list[Any]:
        with contextlib.closing(sqlite3.connect(airflow_database)) as database:
            return list(database.execute(text, values))

    return query


def operator(**arguments: Any) -> FusedInvalidateCacheOperator:
    return FusedInvalidateCacheOperator(task_id="invalidate", **({"udf": "roads"} | arguments))


# -- tiles from events ----------------------------------------------------------------------------------------------------


def event(**extra: Any) -> Any:
    return SimpleNamespace(extra=extra, timestamp=datetime(2026, 11, 29, tzinfo=timezone.utc))


def test_the_tiles_of_every_event_that_triggered_the_run_are_invalidated(fused_emulator: Emulator, roads: Udf) -> None:
    events = {TABLE: [event(tiles=["1/0/0"]), event(tiles=[])], OTHER: [event(tiles="[[1, 0, 1]]")]}
    result = operator(tiles_from_events="tiles").execute({"triggering_asset_events": events})
    assert result["tiles_invalidated"] == 2
    assert fused_emulator.cached_tiles(roads) == {KEPT}


def test_the_event_of_a_watcher_says_it_in_its_payload(fused_emulator: Emulator, roads: Udf) -> None:
    events = {TABLE: [event(from_trigger=True, payload={"tiles": ["1/0/0"]})]}
    operator(tiles_from_events="tiles").execute({"triggering_asset_events": events})
    assert fused_emulator.cached_tiles(roads) == {(1, 0, 1), KEPT}


def test_events_of_an_alias_are_not_taken_twice(roads: Udf) -> None:
    alias = AssetAlias("any_table")
    events = {alias: [event(tiles=["1/0/0"])], TABLE: [event(tiles=["1/0/0"])]}
    task = operator(tiles_from_events="tiles", order="zxy")
    assert task.execute({"triggering_asset_events": events})["tiles_invalidated"] == 1
    assert len(task.tiles) == 1


def test_the_payload_of_a_message_queue_is_json(fused_emulator: Emulator, roads: Udf) -> None:
    events = {TABLE: [event(from_trigger=True, payload='{"tiles": ["1/0/0"]}')]}
    operator(tiles_from_events="tiles").execute({"triggering_asset_events": events})
    assert fused_emulator.cached_tiles(roads) == {(1, 0, 1), KEPT}


SAYS_NOTHING: list[dict[str, Any]] = [
    {},
    {"tiles": None},
    {"tiles": 3},
    {"tiles": "1/0/0"},
    {"tiles": ""},
    {"tiles": {"z": 1, "x": 0, "y": 0}},
    {"rows": []},
    {"from_trigger": True},
    *({"from_trigger": True, "payload": payload} for payload in ("loaded", "[]", None, ["1/0/0"], 3)),
]


@pytest.mark.parametrize("extra", SAYS_NOTHING, ids=str)
def test_an_event_that_does_not_say_what_it_changed_invalidates_nothing(
    fused_emulator: Emulator, roads: Udf, extra: dict[str, Any]
) -> None:
    events = {TABLE: [event(tiles=["1/0/0"]), event(**extra)]}
    with pytest.raises(AirflowFailException, match=r"An event of .* has no list of tiles under 'tiles'"):
        operator(tiles_from_events="tiles").execute({"triggering_asset_events": events})
    assert fused_emulator.requests == []


def test_the_message_about_an_event_does_not_have_the_password_of_its_asset(roads: Udf) -> None:
    table = SimpleNamespace(name="postgres://loader:s3cret@host/db/roads", uri="postgres://host/db/roads")
    task = operator(tiles_from_events="tiles")
    with pytest.raises(AirflowFailException, match="has no list of tiles") as failed:
        task.execute({"triggering_asset_events": _Events({table.name: (table, [event()])})})
    assert "s3cret" not in str(failed.value)


class _Events(dict[str, Any]):
    """Events by assets that cannot be hashed."""

    def __iter__(self) -> Iterator[Any]:
        return (asset for asset, _ in self.values())

    def __getitem__(self, asset: Any) -> Any:
        return dict.__getitem__(self, asset.name)[1]


@pytest.mark.parametrize("key", [None, "", " "])
def test_a_key_that_rendered_to_nothing_invalidates_nothing(fused_emulator: Emulator, key: Any) -> None:
    with pytest.raises(AirflowFailException, match="tiles_from_events is"):
        operator(tiles_from_events=key).execute({"triggering_asset_events": {TABLE: [event(tiles=["1/0/0"])]}})
    assert fused_emulator.requests == []


def test_a_run_without_events_is_not_taken_for_one_without_changes() -> None:
    with pytest.raises(AirflowFailException, match="No asset event triggered this run"):
        operator(tiles_from_events="tiles").execute({})


def test_tiles_and_events_together_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="tiles and tiles_from_events are both given"):
        operator(tiles=[], tiles_from_events="tiles")
    with pytest.raises(InvalidInputError, match="tiles and tiles_from_events are both given"):
        FusedInvalidateDatasetOperator(task_id="t", tiles=[], tiles_from_events="tiles")
    with pytest.raises(InvalidInputError, match="omit tiles_from_events"):
        fused_invalidate_cache_task(list, task_id="t", udf="roads", tiles_from_events="tiles")()


def test_each_dataset_gets_the_tiles_of_its_own_events(fused_emulator: Emulator, roads: Udf, tmp_path: Path) -> None:
    rivers = fused_emulator.register(dict, name="rivers")
    fused_emulator.fill_cache(rivers, [(1, 0, 0), (1, 0, 1)])
    entries = {"roads_table": "roads", "other_table": "rivers"}
    lines = [f'[datasets.{dataset}]\nudfs = [{{ udf = "{udf}" }}]\n' for dataset, udf in entries.items()]
    (tmp_path / "map.toml").write_text("".join(lines))
    task = FusedInvalidateDatasetOperator(task_id="t", cache_map=str(tmp_path / "map.toml"), tiles_from_events="tiles")
    events = {TABLE: [event(tiles=["1/0/0"])], OTHER: [event(tiles=["1/0/1"])]}
    task.execute({"triggering_asset_events": events})
    assert fused_emulator.cached_tiles(roads) == {(1, 0, 1), KEPT}
    assert fused_emulator.cached_tiles(rivers) == {(1, 0, 0)}


@pytest.fixture
def _known_datasets() -> Iterator[None]:
    """In Airflow 2, dag.test() does not make the datasets of a DAG known, and drops the events of unknown ones."""
    if not IS_AIRFLOW_2:
        yield
        return
    from airflow.models.dataset import DatasetModel
    from airflow.utils.session import create_session

    with create_session() as session:
        session.add_all([DatasetModel(uri=uri) for uri in ("roads_table", "roads_map")])
    yield
    with create_session() as session:
        session.query(DatasetModel).delete()


@pytest.mark.skipif(RELEASE == (3, 0), reason="dag.test() of Airflow 3.0 takes every asset for inactive")
@pytest.mark.usefixtures("_known_datasets")
def test_with_a_second_pass_each_load_is_covered_once_and_none_is_forgotten(
    dags: Any, fused_emulator: Emulator, roads: Udf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_fused.assets._SETTLES", -timedelta(microseconds=1))

    def run(name: str, **conf: Any) -> str:
        return str(dags[name].test(run_conf=conf).state).rpartition(".")[2].lower()

    assert run("load", extra={"tiles": ["1/0/0"]}) == "success"
    fused_emulator.misbehave(status=403, times=None)
    assert run("after_load") == "failed"
    fused_emulator.behave()
    assert run("load", extra={"tiles": ["1/0/1"]}) == "success"
    fused_emulator.forget_requests()
    assert run("after_load") == "success"
    assert fused_emulator.cached_tiles(roads) == {KEPT}
    assert sum(request.method == "DELETE" or request.path.endswith("delete") for request in fused_emulator.requests) == 2
    fused_emulator.forget_requests()
    assert run("after_load") == "success"  # what was covered is known, although the task was deferred meanwhile
    assert fused_emulator.requests == []


# -- the names of mapped instances ----------------------------------------------------------------------------------------


def test_instances_that_are_mapped_over_udfs_are_named_after_them(
    dags: Any, fused_emulator: Emulator, roads: Udf, stored: Callable[..., list[Any]]
) -> None:
    run = dags["mapped"].test()
    names: dict[str, list[Any]] = {}
    query = "SELECT task_id, rendered_map_index FROM task_instance WHERE dag_id = 'mapped' AND run_id = ? ORDER BY map_index"
    for task_id, name in stored(query, run.run_id):
        names.setdefault(task_id, []).append(name)
    assert names == {
        "over_udfs": ["roads", "team/roads", "fsh_********"],
        "from_dicts": ["roads", "fsh_********"],
        "over_shards": [None, None],
        "named": ["roads!"],
        "failed": ["nowhere"],
        "not_mapped": [None],
    }
    assert roads.shared_token not in str(stored("SELECT rendered_map_index FROM task_instance"))


# -- the record in the task state store -----------------------------------------------------------------------------------


class _Accessor:
    """Airflow's accessor of the task state store, as far as it is used."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.retention: timedelta | None = None

    def get(self, key: str) -> Any:
        return self.values.get(key)

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        self.values[key], self.retention = value, retention

    def delete(self, key: str) -> None:
        self.values.pop(key, None)


def fail_after_three_batches(emulator: Emulator, status: int) -> None:
    seen = 0

    def refuse_the_fourth() -> None:
        nonlocal seen
        seen += 1
        if seen == 3:
            emulator.misbehave(status=status, times=None, path="delete")

    emulator.before_invalidation = refuse_the_fourth


def behave_again(emulator: Emulator) -> None:
    emulator.before_invalidation = None
    emulator.behave()


def context_of(accessor: _Accessor, **other: Any) -> dict[str, Any]:
    instance = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "max_tries": 2, "xcom_push": lambda **_: None}
    return {"ti": SimpleNamespace(**{**instance, **other}), "task_state_store": accessor}


@pytest.mark.skipif(RELEASE < (3, 3), reason="the task state store came with Airflow 3.3")
def test_a_retry_resumes_from_airflows_own_store(
    dags: Any, fused_emulator: Emulator, roads: Udf, monkeypatch: pytest.MonkeyPatch, stored: Callable[..., list[Any]]
) -> None:
    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 10)
    fail_after_three_batches(fused_emulator, 503)
    task = dags["recorded"].get_task("invalidate")
    outcomes: list[Any] = []
    execute = type(task).execute

    def recorded(self: Any, context: Any) -> Any:
        if outcomes:
            behave_again(fused_emulator)
        outcomes.append(None)
        outcomes[-1] = execute(self, context)
        return outcomes[-1]

    monkeypatch.setattr(type(task), "execute", recorded)
    assert str(dags["recorded"].test().state).endswith("success")
    failed, resumed = outcomes
    assert failed is None
    assert resumed["tiles_already_done"] > 0
    assert resumed["tiles_already_done"] + resumed["tiles_invalidated"] == 100
    assert stored("SELECT key FROM task_state_store") == []  # everything is done, so nothing is left behind


def test_a_record_of_a_task_that_was_cleared_is_not_resumed(
    fused_emulator: Emulator, roads: Udf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 10)
    accessor, tiles = _Accessor(), [[10, x, 0] for x in range(60)]
    task = operator(tiles=tiles, checkpoint="airflow://task-state")
    fail_after_three_batches(fused_emulator, 403)
    with pytest.raises(AirflowFailException):
        task.execute(context_of(accessor))
    (record,) = accessor.values.values()  # the store keeps it when a task is cleared
    assert record["tiles_done"] > 0
    assert accessor.retention == timedelta(hours=12)
    assert fused_emulator.token not in json.dumps(accessor.values)
    behave_again(fused_emulator)
    cleared = task.execute(context_of(accessor, max_tries=3))
    assert (cleared["tiles_already_done"], cleared["tiles_invalidated"]) == (0, 60)
    resumed = task.execute(context_of(accessor))
    assert resumed["tiles_already_done"] == record["tiles_done"]


def test_a_record_over_the_limit_stays_as_it_was_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("airflow_provider_fused.task_state._largest", lambda: 1000)
    accessor = _Accessor()
    place = own_checkpoint("airflow://task-state", context_of(accessor))
    record = Checkpoint(place, {"udf_id": "u", "base_url": "b", "selection": "s"}, 10_000)
    spans = record.spans("u", "i", 1)
    spans.add(0, 5)
    record.save(at_once=True)
    (kept,) = accessor.values.values()
    for start in range(10, 2000, 10):
        spans.add(start, start + 1)
    with caplog.at_level(logging.WARNING):
        record.save(at_once=True)
        record.save(at_once=True)
    assert list(accessor.values.values()) == [kept]
    assert kept["targets"][0]["done"] == [[0, 5]]
    assert caplog.text.count("over 1,000 ([state_store] max_value_storage_bytes), so a retry sends again") == 1


def test_where_there_is_no_such_store_another_place_is_named(fused_emulator: Emulator) -> None:
    with pytest.raises(AirflowFailException, match=r"Airflow 3\.3 and later.*s3://bucket/checkpoints/"):
        operator(tiles=["1/0/0"], checkpoint="airflow://task-state").execute({})
    assert fused_emulator.requests == []


def test_a_callback_has_no_state_of_a_task() -> None:
    with pytest.raises(InvalidInputError, match="is a task's"):
        FusedInvalidateCacheNotifier(udf="roads", tiles=[], checkpoint="airflow://task-state").notify({})


# -- deadline alerts ------------------------------------------------------------------------------------------------------


async def awaited(notifier: Any) -> None:
    await notifier


@pytest.mark.skipif(RELEASE < (3, 1), reason="deadline alerts came with Airflow 3.1")
def test_a_deadline_alert_invalidates_in_the_triggerer(fused_emulator: Emulator, roads: Udf) -> None:
    from airflow.sdk import AsyncCallback

    callback = AsyncCallback(FusedInvalidateCacheNotifier, kwargs={"udf": "{{ dag_run.conf.udf }}", "tiles": ["1/0/0"]})
    module, _, name = callback.path.rpartition(".")
    notifier = getattr(importlib.import_module(module), name)
    context = {"dag_run": {"conf": {"udf": "roads"}}, "deadline": {}}
    asyncio.run(awaited(notifier(**callback.kwargs, context=context)))
    assert fused_emulator.cached_tiles(roads) == {(1, 0, 1), KEPT}


@pytest.mark.parametrize("given", ["udf", "shared_token", "announce"])
def test_a_secret_that_airflow_would_store_in_plain_text_is_refused(fused_emulator: Emulator, roads: Udf, given: str) -> None:
    secret = f"https://maps.example.com/{roads.shared_token}" if given == "announce" else roads.shared_token
    arguments: dict[str, Any] = {"udf": "roads", given: secret}
    with pytest.raises(InvalidInputError, match="plain text") as refused:
        asyncio.run(FusedInvalidateCacheNotifier(**arguments, tiles=["1/0/0"]).async_notify({}))
    assert roads.shared_token not in str(refused.value)
    assert fused_emulator.requests == []


# -- the link -------------------------------------------------------------------------------------------------------------


def test_the_link_is_left_before_anything_is_sent(fused_emulator: Emulator, roads: Udf) -> None:
    fused_emulator.misbehave(status=403, times=None)
    pushed: dict[str, Any] = {}
    context = context_of(_Accessor(), xcom_push=lambda key, value: pushed.update({key: value}))
    with pytest.raises(AirflowFailException):
        operator(tiles=["1/0/0"]).execute(context)
    assert pushed == {FusedWorkbenchLink().xcom_key: f"{fused_emulator.root_url}/workbench"}


# -- metrics --------------------------------------------------------------------------------------------------------------


def test_how_long_a_map_was_stale_is_a_metric(roads: Udf, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr("airflow_provider_fused.metrics.send_timing", lambda *given, **more: sent.append((*given, more)))
    loaded = datetime.now(timezone.utc) - timedelta(seconds=60)
    operator(tiles=["1/0/0"], loaded_at=loaded.isoformat()).execute(context_of(_Accessor()))
    (name, passed, more), (own_name, own_passed, _) = sent
    assert name == "fused.seconds_until_invalidated"
    assert more == {"tags": {"dag_id": "d", "task_id": "t", "udf_id": roads.id}}
    assert (own_name, own_passed) == ("fused.d.t.seconds_until_invalidated", passed)
    assert timedelta(seconds=60) <= passed < timedelta(seconds=600)


def test_a_metric_that_cannot_be_sent_does_not_fail_the_task(
    roads: Udf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*given: Any, **more: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("airflow_provider_fused.metrics.send_timing", fail)
    operator(tiles=["1/0/0"], loaded_at="2026-11-29T00:00:00Z").execute(context_of(_Accessor()))
    assert "could not be sent: no route to host" in caplog.text


def test_what_is_not_known_is_no_metric(roads: Udf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_fused.metrics.send_timing", lambda *given, **more: pytest.fail(str(given)))
    operator(tiles=["1/0/0"]).execute(context_of(_Accessor()))
