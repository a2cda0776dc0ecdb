"""What surrounds the operator: the decorator, the notifier, asset events, the link, defaults, killing, lineage."""

import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pyarrow
import pytest

from airflow_provider_fused._compat import IS_AIRFLOW_2, has_worker
from airflow_provider_fused.decorators import fused_invalidate_cache_task
from airflow_provider_fused.exceptions import FusedUnavailableError
from airflow_provider_fused.links import FusedWorkbenchLink
from airflow_provider_fused.notifications import FusedInvalidateCacheNotifier
from airflow_provider_fused.operators import FusedInvalidateCacheOperator, FusedInvalidateDatasetOperator, own_checkpoint
from airflow_provider_fused.provider_info import CONFIG_OPTIONS, get_provider_info
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.errors import InvalidInputError

try:
    from airflow.sdk import Asset
except ImportError:  # Airflow 2
    from airflow.datasets import Dataset as Asset

pytestmark = [pytest.mark.xdist_group("airflow"), pytest.mark.usefixtures("_connection")]


@pytest.fixture
def _connection(fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"conn_type": "fused", "host": fused_emulator.base_url, "password": fused_emulator.token}
    monkeypatch.setenv("AIRFLOW_CONN_FUSED_DEFAULT", json.dumps(fields))


def operator(**arguments: Any) -> FusedInvalidateCacheOperator:
    return FusedInvalidateCacheOperator(task_id="invalidate", **({"udf": "roads"} | arguments))


def decorated(returned: Any, **arguments: Any) -> Any:
    """The operator that the decorator makes of a function."""
    made = fused_invalidate_cache_task(lambda: returned, task_id="invalidate", udf="roads", **arguments)
    return made().operator


# -- the decorator ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "left"),
    [
        (["1/0/0"], 3),
        ([], 4),
        ({"tiles": ["1/0/0", "1/0/1"]}, 2),
        ({"bounds": [0, -80, 180, 80], "zooms": 1}, 2),
        ({"geometry": pyarrow.table({"g": ["POINT (1.5 1.5)"]}), "geometry_column": "g", "crs": 4326, "zooms": 1}, 3),
    ],
    ids=["list", "empty", "dict", "bounds", "table"],
)
def test_what_the_function_returns_is_invalidated(fused_emulator: Emulator, udf: Udf, returned: Any, left: int) -> None:
    decorated(returned).execute({})
    assert len(fused_emulator.cached_tiles(udf)) == left


@pytest.mark.parametrize("returned", [None, {}, {"zooms": "3"}, {"tile": []}, "roads", {"tiles": None}], ids=str)
def test_a_function_that_returns_no_selection_invalidates_nothing(fused_emulator: Emulator, udf: Udf, returned: Any) -> None:
    from airflow_provider_fused._compat import AirflowFailException

    with pytest.raises(AirflowFailException):
        decorated(returned).execute({})
    assert len(fused_emulator.cached_tiles(udf)) == 4
    assert fused_emulator.requests == []


def test_the_functions_annotation_does_not_split_the_tasks_result() -> None:
    def select() -> dict[str, Any]:
        return {"tiles": []}

    assert fused_invalidate_cache_task(select, task_id="invalidate", udf="roads")().operator.multiple_outputs is False


def test_the_decorated_operator_templates_its_arguments_and_the_functions() -> None:
    assert {"udf", "tiles", "checkpoint", "op_args", "op_kwargs"} <= set(decorated([]).template_fields)


# -- the notifier -----------------------------------------------------------------------------------------


def test_the_notifier_renders_and_invalidates(fused_emulator: Emulator, udf: Udf) -> None:
    notifier = FusedInvalidateCacheNotifier(udf="{{ params.udf }}", tiles="{{ params.tiles }}")
    notifier({"dag": None, "params": {"udf": "roads", "tiles": ["1/0/0", "1/1/1"]}})
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 1), (1, 1, 0)}


def test_without_a_selection_the_notifier_invalidates_the_whole_udf(fused_emulator: Emulator, udf: Udf) -> None:
    FusedInvalidateCacheNotifier(udf="roads")({"dag": None})
    assert fused_emulator.cached_tiles(udf) == set()


@pytest.mark.parametrize("tiles", ["{{ none }}", "", None])
def test_a_notifier_whose_template_rendered_to_nothing_invalidates_nothing(
    fused_emulator: Emulator, udf: Udf, tiles: str | None
) -> None:
    with contextlib.suppress(InvalidInputError):  # Airflow 3 logs and raises it, Airflow 2 logs it
        FusedInvalidateCacheNotifier(udf="roads", tiles=tiles)({"dag": None})
    assert fused_emulator.requests == []


def test_a_notifier_refuses_what_it_does_not_know() -> None:
    with pytest.raises(TypeError, match="Unknown keyword tile"):
        FusedInvalidateCacheNotifier(udf="roads", tile=["1/0/0"])


# -- assets -----------------------------------------------------------------------------------------------


def test_an_outlets_event_gets_the_result(udf: Udf) -> None:
    events: dict[str, Any] = {}

    class Accessors:
        """Airflow's own takes assets, which are not hashable in every version."""

        def __getitem__(self, asset: Asset) -> SimpleNamespace:
            return events.setdefault(asset.uri, SimpleNamespace(extra={}))

    the_map = Asset("roads_map")
    result = operator(tiles=["1/0/0"], outlets=[the_map]).execute({"outlet_events": Accessors()})
    assert events[the_map.uri].extra == result
    assert json.loads(json.dumps(result)) == result


def test_what_the_function_set_on_its_outlet_stays(udf: Udf) -> None:
    accessor = SimpleNamespace(extra={"tiles": ["1/0/0"], "note": "by hand"})
    the_map = Asset("roads_map")

    class Accessors:
        def __getitem__(self, asset: Asset) -> SimpleNamespace:
            return accessor

    result = operator(tiles=["1/0/0"], outlets=[the_map]).execute({"outlet_events": Accessors()})
    assert accessor.extra == {**result, "tiles": ["1/0/0"], "note": "by hand"}


def test_the_link_leads_to_the_deployment_that_the_task_used(monkeypatch: pytest.MonkeyPatch) -> None:
    used = SimpleNamespace(base_url="https://fused.example.com:8443/gis/server/v1")
    assert FusedWorkbenchLink().get_link(used, ti_key=None) == "https://fused.example.com:8443/gis/workbench"


@pytest.mark.skipif(not IS_AIRFLOW_2, reason="since Airflow 3, the time while a task is deferred does not count")
def test_a_wait_that_airflow_would_cut_off_is_refused(fused_emulator: Emulator, udf: Udf) -> None:
    from airflow_provider_fused._compat import AirflowFailException

    with pytest.raises(AirflowFailException, match="not below execution_timeout"):
        operator(tiles=["1/0/0"], again_after=130, execution_timeout=timedelta(seconds=60)).execute({})
    assert not [request for request in fused_emulator.requests if request.path.endswith("delete")]


@pytest.mark.skipif(IS_AIRFLOW_2, reason="Airflow 2 has another one")
def test_an_object_storage_path_is_read_as_the_path_it_stands_for(udf: Udf, fused_emulator: Emulator, tmp_path: Path) -> None:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_fused._compat import AirflowFailException

    (tmp_path / "tiles.txt").write_text("1/0/0\n")
    operator(tiles_file=ObjectStoragePath(f"file://{tmp_path}/tiles.txt")).execute({})
    assert len(fused_emulator.cached_tiles(udf)) == 3
    with pytest.raises(AirflowFailException, match="names the connection 'aws'"):
        operator(tiles_file=ObjectStoragePath("file://aws@/tiles.txt")).execute({})


# -- the checkpoint ---------------------------------------------------------------------------------------


MOMENT = datetime(2026, 11, 29, tzinfo=timezone.utc)


def recorded(checkpoint: object = "s3://bucket/c/", *, begun: datetime = MOMENT, cleared: int = 0, **other: object) -> Any:
    instance = {"dag_id": "nightly", "run_id": "manual__1", "task_id": "group.invalidate", "map_index": -1, "max_tries": 2}
    run = SimpleNamespace(start_date=begun, clear_number=cleared)
    return own_checkpoint(checkpoint, {"ti": SimpleNamespace(**{**instance, **other}), "dag_run": run})


def test_a_retry_resumes_the_record_of_its_task_instance() -> None:
    assert recorded() == recorded()
    assert recorded().location == "s3://bucket/c/"


@pytest.mark.parametrize(
    "other",
    [{"map_index": 3}, {"run_id": "manual__2"}, {"task_id": "other"}, {"dag_id": "d"}, {"max_tries": 5}, {"cleared": 1}]
    + [{"begun": MOMENT.replace(minute=1)}],
    ids=str,
)
def test_a_record_of_another_load_is_not_resumed(other: Any) -> None:
    assert recorded(**other).run != recorded().run


def test_without_a_task_instance_the_checkpoint_is_taken_as_it_is() -> None:
    assert own_checkpoint("/c/load.json", {}) == "/c/load.json"
    assert own_checkpoint(None, {"ti": SimpleNamespace()}) is None


@pytest.mark.skipif(IS_AIRFLOW_2, reason="the workers of Airflow 2 have the row of the database")
def test_a_row_of_the_database_goes_on_seeing_when_its_run_is_cleared() -> None:
    from airflow.models.taskinstance import TaskInstance

    row = TaskInstance.__new__(TaskInstance)
    assert not has_worker(row)  # an XCom that is pushed to it would close its session
    assert has_worker(SimpleNamespace())


# -- killing ----------------------------------------------------------------------------------------------


def test_killing_stops_at_once_and_leaves_a_record(fused_emulator: Emulator, udf: Udf, tmp_path: Path, when: Any) -> None:
    fused_emulator.misbehave(latency=60.0, times=None, path="delete")
    task = operator(tiles=["1/0/0", "1/0/1"], checkpoint=str(tmp_path / "c.json"))
    when(lambda: (tmp_path / "c.json").exists() and fused_emulator.requests_under_way, task.on_kill)
    started = time.monotonic()
    with pytest.raises(FusedUnavailableError, match="cancelled"):  # so that retries apply, as to an evicted worker
        task.execute({})
    assert time.monotonic() - started < 50
    assert json.loads((tmp_path / "c.json").read_text())["tiles"] == 2


def test_killing_before_it_has_begun_is_no_error() -> None:
    operator().on_kill()


# -- link, defaults, lineage --------------------------------------------------------------------------------


def test_the_link_leads_to_the_workbench_of_the_deployment(fused_emulator: Emulator, udf: Udf) -> None:
    task, link = operator(), FusedWorkbenchLink()
    assert link.get_link(task, ti_key=None) == "https://www.fused.io/workbench"
    task.execute({})
    assert link.get_link(task, ti_key=None) == f"{fused_emulator.root_url}/workbench"


@pytest.fixture
def defaults(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    monkeypatch.setenv("AIRFLOW__FUSED__DEADLINE", "77")
    monkeypatch.setenv("AIRFLOW__FUSED__BASE_URL", "https://fused.example.com")
    return monkeypatch


def test_the_configuration_has_defaults_for_all_connections(defaults: pytest.MonkeyPatch) -> None:
    from airflow_provider_fused.hooks import FusedHook

    defaults.setenv("AIRFLOW_CONN_FUSED_DEFAULT", json.dumps({"conn_type": "fused", "password": "t"}))
    client = FusedHook().get_conn()
    assert (client.deadline, client.base_url) == (77, "https://fused.example.com/server/v1")


def test_what_a_connection_says_comes_first(defaults: pytest.MonkeyPatch) -> None:
    from airflow_provider_fused.hooks import FusedHook

    fields = {"conn_type": "fused", "password": "t", "host": "https://own.example.com", "extra": {"deadline": 5}}
    defaults.setenv("AIRFLOW_CONN_FUSED_DEFAULT", json.dumps(fields))
    client = FusedHook().get_conn()
    assert (client.deadline, client.base_url) == (5, "https://own.example.com/server/v1")


def test_the_options_are_declared_to_airflow() -> None:
    assert set(get_provider_info()["config"]["fused"]["options"]) == set(CONFIG_OPTIONS)


@pytest.fixture
def openlineage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The OpenLineage provider's two classes, which are plain records; the provider itself is not installed here."""
    facet, extractors = ModuleType("facet"), ModuleType("extractors")
    facet.Dataset = extractors.OperatorLineage = SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "airflow.providers.common.compat.openlineage.facet", facet)
    monkeypatch.setitem(sys.modules, "airflow.providers.openlineage.extractors", extractors)


def outputs(task: FusedInvalidateCacheOperator) -> list[tuple[str, str]]:
    return [(each.namespace, each.name) for each in task.get_openlineage_facets_on_complete(None).outputs]


@pytest.mark.usefixtures("openlineage")
def test_lineage_names_the_cache_that_was_written_to(fused_emulator: Emulator, udf: Udf) -> None:
    task = operator(tiles=["1/0/0"])
    task.execute({})
    assert outputs(task) == [(f"fused://{fused_emulator.client_id}", f"udf-cache/{udf.id}")]


def of_datasets(folder: Path, **arguments: Any) -> FusedInvalidateDatasetOperator:
    """A task whose inlets are two datasets, which are both shown by the UDF roads."""
    (folder / "fused-cache.toml").write_text(
        '[datasets]\nparcels = { udfs = [{ udf = "roads" }, { udf = "bridges" }] }\n'
        'streets = { udfs = [{ udf = "roads" }, { udf = "missing" }] }\n'
    )
    return FusedInvalidateDatasetOperator(
        task_id="refresh", cache_map=str(folder / "fused-cache.toml"), tiles=["1/0/0"], **arguments
    )


@pytest.mark.usefixtures("openlineage")
def test_lineage_of_datasets_names_the_cache_of_each_udf_once(fused_emulator: Emulator, udf: Udf, tmp_path: Path) -> None:
    bridges, missing = (fused_emulator.register(dict, name=name) for name in ("bridges", "missing"))
    task = of_datasets(tmp_path, inlets=[Asset("parcels"), Asset("streets")])
    task.execute({})
    caches = [(f"fused://{fused_emulator.client_id}", f"udf-cache/{each.id}") for each in (udf, bridges, missing)]
    assert outputs(task) == caches


@pytest.mark.usefixtures("openlineage", "udf")
def test_lineage_of_a_task_that_failed_names_no_cache(tmp_path: Path) -> None:
    task = of_datasets(tmp_path, dataset="streets")
    with pytest.raises(Exception, match="missing"):
        task.execute({})
    assert outputs(task) == outputs(operator(tiles=["1/0/0"])) == []


def test_the_task_log_tells_what_was_done(udf: Udf, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        operator(tiles=["1/0/0"]).execute({})
    assert "invalidated 1 tile of UDF" in caplog.text


# -- tables ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tiles", "geometry", "cells"])
@pytest.mark.parametrize("made", [FusedInvalidateCacheOperator, FusedInvalidateCacheNotifier])
def test_a_table_in_a_field_is_refused_where_the_dag_is_defined(kind: str, made: Any) -> None:
    own = {"task_id": "t"} if made is FusedInvalidateCacheOperator else {}
    with pytest.raises(InvalidInputError, match=rf"{kind} is a Table, which a field of a task cannot hold: pass the path"):
        made(udf="roads", **own, **{kind: pyarrow.table({"z": [1]})})
