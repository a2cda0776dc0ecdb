"""The operator in real DAG runs, and its failures in Airflow's terms."""

import contextlib
import importlib.util
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_fused.operators import FusedInvalidateCacheOperator
from fused_cache_ops.emulator import Emulator, ReceivedRequest, Udf
from fused_cache_ops.errors import InvalidInputError

try:
    from airflow.sdk import DAG, task
except ImportError:
    from airflow import DAG
    from airflow.decorators import task

pytestmark = pytest.mark.xdist_group("airflow")


def connection(emulator: Emulator) -> str:
    return json.dumps({"conn_type": "fused", "host": emulator.base_url, "password": emulator.token})


class Runs:
    """What became of the tasks of the two test DAGs, run once for all the tests of this module."""

    def __init__(self, states: dict[str, list[str]], tries: dict[str, int], requests: list[ReceivedRequest]) -> None:
        self.states, self.tries, self.requests = states, tries, requests
        self.xcoms: dict[str, Any] = {}
        self.rendered: list[str] = []
        self.secret = ""


@pytest.fixture(scope="module")
def runs(airflow_database: Path, install_dag: Callable[[Path], Path]) -> Iterator[Runs]:
    copy = install_dag(Path(__file__).with_name("dag_selections.py"))
    with Emulator() as emulator, pytest.MonkeyPatch.context() as environment:
        udf = emulator.register(dict, name="roads")
        emulator.fill_cache(udf, [(1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)])
        environment.setenv("AIRFLOW_CONN_FUSED_DEFAULT", connection(emulator))
        environment.setenv("AIRFLOW_VAR_ROADS_TOKEN", udf.shared_token)
        environment.setenv("AIRFLOW_VAR_ROADS_UDF", udf.shared_token)
        spec = importlib.util.spec_from_file_location("dag_selections", copy)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        states: dict[str, list[str]] = {}
        tries: dict[str, int] = {}
        for dag in (module.SELECTIONS, module.NATIVE_SELECTIONS):
            run = dag.test()
            for instance in sorted(run.get_task_instances(), key=lambda each: each.map_index):
                states.setdefault(instance.task_id, []).append(str(instance.state))
                tries[instance.task_id] = instance.try_number
        found = Runs(states, tries, emulator.requests)
        with contextlib.closing(sqlite3.connect(airflow_database)) as database:
            query = "SELECT task_id, value FROM xcom WHERE key = 'return_value' AND dag_id LIKE '%selections'"
            for task_id, value in database.execute(query):
                found.xcoms[task_id] = json.loads(value) if isinstance(value, (str, bytes)) else value
            query = "SELECT rendered_fields FROM rendered_task_instance_fields WHERE dag_id LIKE '%selections'"
            found.rendered = [str(row) for row in database.execute(query)]
        found.secret = udf.shared_token
        yield found


@pytest.mark.parametrize(
    ("task_id", "tiles", "requests"),
    [
        ("whole", None, 4),
        ("whole_said", None, 4),
        ("static", 2, 4),
        ("one_tile", 1, 4),
        ("output", 2, 4),
        ("output_of_tiles", 2, 4),
        ("output_empty", 0, 0),
        ("template", 2, 4),
        ("template_json", 2, 4),
        ("template_connection", None, 4),
        ("native", 2, 4),
        ("bounds", 2, 4),
        ("bounds_template", 18, 4),
        ("bounds_empty", 0, 0),
        ("geometry", 2, 4),
        ("geometry_system", 2, 4),
        ("cells", 2, 4),
        ("cells_template", 2, 4),
        ("cells_drawn", 6, 4),
        ("mapped_loads", 3, 4),
        ("in_a_coroutine", 2, 4),
    ],
)
def test_a_selection_however_given_is_invalidated_and_the_result_is_in_xcom(
    runs: Runs, task_id: str, tiles: int | None, requests: int
) -> None:
    assert runs.states[task_id] == ["success"]
    result = runs.xcoms[task_id]
    result = json.loads(result) if isinstance(result, str) else result
    assert (result["tiles_invalidated"], result["requests_sent"]) == (tiles, requests)


@pytest.mark.parametrize(
    "task_id",
    [
        "output_none",
        "template_none",
        "template_null",
        "template_blank",
        "template_udf_none",
        "native_none",
        "bounds_none",
        "geometry_none",
        "geometry_null",
        "whole_rendered_to_nothing",
        "tiles_file",
        "tiles_file_none",
        "cells_none",
        "dataset_nowhere",
        "partition_none",
        "zooms_none",
        "zooms_of_nothing",
        "related_of_nothing",
        "too_many",
        "refresh_none",
        "refresh_of_nothing",
    ],
)
def test_what_rendered_to_nothing_fails_the_task(runs: Runs, task_id: str) -> None:
    assert runs.states[task_id] == ["failed"]


@pytest.mark.parametrize("task_id", ["refresh_rendered", "refresh_of_a_task"])
def test_a_refresh_is_rendered_inside_its_mapping(runs: Runs, task_id: str) -> None:
    assert runs.states[task_id] == ["success"]
    result = runs.xcoms[task_id]
    result = json.loads(result) if isinstance(result, str) else result
    assert result["refresh"]["runs"] == 1


def test_a_refresh_can_be_mapped_over_and_a_misspelled_key_fails_its_item_alone(runs: Runs) -> None:
    assert runs.states["refresh_mapped"] == ["success", "success", "failed"]


def test_a_tasks_output_inside_the_mapping_of_a_refresh_comes_before_it() -> None:
    with DAG("inside", schedule=None):

        @task
        def count() -> int:
            return 1

        operator = FusedInvalidateCacheOperator(task_id="t", udf="roads", tiles=["1/0/0"], refresh={"count": count()})
    assert operator.upstream_task_ids == {"count"}


def test_the_operator_maps_over_udfs(runs: Runs) -> None:
    assert runs.states["mapped"] == ["success", "success"]


def test_an_item_of_expand_kwargs_that_selects_nothing_is_not_everything(runs: Runs) -> None:
    assert runs.states["expanded"] == ["success", "failed", "success"]
    assert runs.states["expanded_shaper"] == ["failed"]


def test_items_of_expand_kwargs_may_leave_the_selection_to_the_author(runs: Runs) -> None:
    assert runs.states["expanded_udfs"] == ["success", "success"]


def test_clearing_a_task_raises_what_its_record_is_bound_to_and_a_retry_does_not(runs: Runs) -> None:
    """So a cleared task instance never goes on with the record of its earlier life."""
    from airflow.models.taskinstance import TaskInstance, clear_task_instances
    from airflow.utils.session import create_session

    with create_session() as session:
        instance = session.query(TaskInstance).filter(TaskInstance.task_id == "static").one()
        before = instance.max_tries
        assert before == 0  # it has succeeded at its first try
        clear_task_instances([instance], session)
        assert instance.max_tries > before
        session.rollback()


def test_a_mapped_selection_of_none_fails_alone(runs: Runs) -> None:
    assert runs.states["mapped_none"] == ["success", "failed"]


def test_only_what_was_meant_invalidates_the_whole_udf(runs: Runs) -> None:
    whole = [request for request in runs.requests if request.method == "DELETE" and not request.query]
    assert len(whole) == len(["whole", "whole_said", "template_connection", "mapped 0", "mapped 1", "expanded 2"])


def test_a_shared_token_is_masked_where_airflow_stores_what_it_rendered(runs: Runs) -> None:
    assert runs.states["udf_of_a_variable"] == ["success"]
    assert runs.rendered
    assert runs.secret not in "".join(runs.rendered)


def test_a_shared_token_in_a_dags_file_is_refused() -> None:
    with DAG("hard_coded", schedule=None), pytest.raises(InvalidInputError, match="put it into a variable"):
        operator(udf="fsh_0123456789", tiles=["1/0/0"])


def test_a_connection_that_does_not_exist_is_tried_once(runs: Runs) -> None:
    assert runs.states["no_connection"] == ["failed"]
    assert runs.tries["no_connection"] == 1


def test_a_permanent_failure_is_tried_once(runs: Runs) -> None:
    assert runs.states["unknown"] == ["failed"]
    assert runs.tries["unknown"] == 1
    look_ups = [request for request in runs.requests if request.path.endswith("/by-slug/nowhere")]
    assert len(look_ups) == 1


def operator(**arguments: Any) -> Any:
    from airflow_provider_fused.operators import FusedInvalidateCacheOperator

    return FusedInvalidateCacheOperator(task_id="invalidate", **arguments)


@pytest.fixture
def _connection(airflow_database: Path, fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    deadline = {"extra": json.dumps({"deadline": "1"})}
    fields = json.loads(connection(fused_emulator)) | deadline
    monkeypatch.setenv("AIRFLOW_CONN_FUSED_DEFAULT", json.dumps(fields))


@pytest.mark.parametrize("status", [401, 403, 404, 422, 302])
@pytest.mark.usefixtures("_connection")
def test_what_will_not_pass_fails_for_good(fused_emulator: Emulator, status: int) -> None:
    from airflow_provider_fused._compat import AirflowFailException

    fused_emulator.misbehave(status=status, times=None)
    with pytest.raises(AirflowFailException):
        operator(udf="roads").execute({})
    assert len(fused_emulator.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.usefixtures("_connection")
def test_transient_errors_are_left_to_the_tasks_retries(fused_emulator: Emulator, status: int) -> None:
    from airflow_provider_fused._compat import AirflowException, AirflowFailException
    from airflow_provider_fused.exceptions import FusedUnavailableError

    fused_emulator.misbehave(status=status, times=None)
    with pytest.raises(FusedUnavailableError) as caught:
        operator(udf="roads").execute({})
    assert isinstance(caught.value, AirflowException)
    assert not isinstance(caught.value, AirflowFailException)


@pytest.mark.usefixtures("_connection")
def test_a_generator_is_refused_since_a_retry_would_find_it_empty(fused_emulator: Emulator) -> None:
    from airflow_provider_fused._compat import AirflowFailException

    with pytest.raises(AirflowFailException, match="read only once"):
        operator(udf="roads", tiles=iter(["1/0/0"])).execute({})
    assert fused_emulator.requests == []


@pytest.mark.usefixtures("_connection")
def test_a_shard_and_a_number_may_come_as_text(fused_emulator: Emulator, udf: Udf) -> None:
    result = operator(
        udf="roads", tiles=["1/0/0", "1/0/1"], shard="[1, 2]", verify_tiles="1", shared_token=udf.shared_token
    ).execute({})
    assert (result["tiles_invalidated"], result["verification"]["fresh"]) == (1, ["1/0/1"])
    assert (1, 0, 0) in fused_emulator.cached_tiles(udf)


@pytest.mark.usefixtures("_connection")
def test_a_retry_sends_only_what_the_checkpoint_leaves(
    fused_emulator: Emulator, udf: Udf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_fused._compat import AirflowFailException

    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 2)
    fields = {"udf": "roads", "tiles": ["1/0/0", "1/0/1", "1/1/0"], "checkpoint": str(tmp_path / "c.json")}
    fused_emulator.before_invalidation = lambda: fused_emulator.misbehave(status=403, path="delete")
    with pytest.raises(AirflowFailException, match="a retry sends the rest"):
        operator(**fields).execute({})
    fused_emulator.before_invalidation = None
    fused_emulator.behave()
    result = operator(**fields).execute({})
    assert (result["tiles_already_done"], result["tiles_invalidated"]) == (2, 1)


@pytest.mark.usefixtures("_connection")
@pytest.mark.parametrize(
    "field", [{"checkpoint": "None"}, {"checkpoint": ""}, {"shard": "None"}, {"verify_tiles": "some"}], ids=str
)
def test_a_template_that_rendered_to_nothing_useful_fails_the_task(
    fused_emulator: Emulator, udf: Udf, field: dict[str, str]
) -> None:
    from airflow_provider_fused._compat import AirflowFailException

    with pytest.raises(AirflowFailException):
        operator(udf="roads", tiles=["1/0/0"], **field).execute({})
    assert fused_emulator.requests == []


@pytest.mark.parametrize("text", ["", "None", "null", " ", "5", '"1/0/0"', '{"z": 1}', "[1", "roads", "True"])
def test_text_that_is_not_a_list_is_refused(text: str) -> None:
    from airflow_provider_fused.templating import read_fields
    from fused_cache_ops import InvalidInputError

    with pytest.raises(InvalidInputError, match="which is not a list"):
        read_fields({"tiles": text})


@pytest.mark.parametrize("text", ['["1/0/0"]', "['1/0/0']", "('1/0/0',)", ' ["1/0/0"]\n'])
def test_text_that_is_a_list_is_read(text: str) -> None:
    from airflow_provider_fused.templating import read_fields

    assert read_fields({"tiles": text}) == {"tiles": ["1/0/0"]}
