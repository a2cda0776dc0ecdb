"""When the run is completed, the map is right: callers, instances, and runs under way, in real flow runs."""

import threading
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import httpx
import pytest
from prefect import flow, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.exceptions import PrefectHTTPStatusError

from fused_cache_ops import InvalidInputError, Tile
from fused_cache_ops.emulator import Emulator, H3Table, Udf
from prefect_fused import (
    FusedCredentials,
    invalidate_cache,
    invalidate_cache_flow,
    invalidate_on_commit,
    invalidate_on_completion,
)
from prefect_fused.events import api_error
from prefect_fused.second_pass import LARGEST_PARAMETERS, SecondPass

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("prefect_api")]

TILE = "1/0/0"
AGAIN = "Invalidate Fused cache/again"


@flow
def pipeline(**keywords: Any) -> dict[str, Any]:
    return invalidate_cache(**keywords)


@pytest.mark.parametrize("form", ["task", "flow"])
def test_a_caller_is_fresh_too(
    fused_emulator: Emulator, loader: Udf, table: dict[str, str], form: str, seen: Callable[[Udf], Any], parcels: Udf
) -> None:
    before = seen(parcels)
    table["load"] = "new"
    if form == "task":
        result = pipeline(udf="land/loader", related="callers")
    else:
        result = invalidate_cache_flow("land/loader", whole_udf=True, related="callers")
    assert list(result["related"]) == [parcels.id]
    assert (before, seen(parcels)) == ("old", "new")


@pytest.mark.parametrize("form", ["task", "flow"])
def test_what_a_function_inside_the_udf_keeps_is_deleted(
    fused_emulator: Emulator, inner: Udf, table: dict[str, str], form: str, seen: Callable[[Udf], Any]
) -> None:
    before = seen(inner)
    table["load"] = "new"
    if form == "task":
        result = pipeline(udf="land/inner", tiles=[TILE], inner_caches="own")
    else:
        result = invalidate_cache_flow("land/inner", tiles=[TILE], inner_caches=["own"])
    assert result["inner_caches"] == ["land_inner"]
    assert (before, seen(inner)) == ("old", "new")


@pytest.mark.parametrize("given", [None, "", [""], "../tmp"], ids=repr)
def test_what_is_no_folder_is_refused_before_anything_is_sent(fused_emulator: Emulator, inner: Udf, given: Any) -> None:
    with pytest.raises(InvalidInputError, match="inner_caches"):
        pipeline(udf="land/inner", inner_caches=given)
    assert fused_emulator.requests == []


@pytest.mark.parametrize("form", ["task", "flow", "deployment"])
def test_what_was_loaded_is_indexed_before_the_map_is_invalidated(
    fused_emulator: Emulator, hexes: tuple[H3Table, Udf], form: str, seen: Callable[[Udf], Any]
) -> None:
    table, udf = hexes
    before = seen(udf)
    index: Any = {"path": table.path, "run": True, "prefix": "date=2026"}
    now = datetime.now(timezone.utc)
    if form == "flow":
        result = invalidate_cache_flow("land/hexes", tiles=[TILE], h3_index=index, loaded_at=now.isoformat())
    elif form == "task":
        result = pipeline(udf="land/hexes", tiles=[TILE], h3_index=index, loaded_at=now)
    else:
        invalidate_cache_flow.to_deployment("again").apply()
        result = pipeline(udf=udf.id, tiles=[TILE], h3_index=index, again_after=130, again_deployment=AGAIN, loaded_at=now)
    assert (before, seen(udf)) == ("old", "new")
    assert [run["prefix"] for run in table.runs] == ["date=2026"]
    assert 1 <= result["seconds_until_invalidated"] < 60


def test_an_index_that_is_too_old_is_left_to_the_retries(hexes: tuple[H3Table, Udf], deletes: Callable[[], int]) -> None:
    now = datetime.now(timezone.utc).isoformat()
    once = invalidate_cache.with_options(retries=0)

    @flow
    def load() -> Any:
        return once("land/hexes", h3_index={"path": hexes[0].path}, loaded_at=now, return_state=True)

    failure = load(return_state=True).result(raise_on_failure=False)
    failure = failure.result(raise_on_failure=False) if hasattr(failure, "result") else failure
    assert (getattr(failure, "retryable", None), deletes()) == (True, 0)


def test_a_udf_that_is_called_is_whole_and_its_caller_keeps_the_tiles(
    fused_emulator: Emulator, loader: Udf, table: dict[str, str], seen: Callable[[Udf], Any], parcels: Udf
) -> None:
    before = seen(parcels)
    table["load"] = "new"
    result = pipeline(udf="land/loader", tiles=[TILE], related="callers")
    assert (result["tiles_invalidated"], result["related"][parcels.id]["tiles_invalidated"]) == (None, 1)
    assert (before, seen(parcels)) == ("old", "new")


def test_the_instance_that_maps_run_on_is_reached(
    fused_emulator: Emulator, loader: Udf, table: dict[str, str], seen: Callable[[Udf], Any]
) -> None:
    before = seen(loader)
    table["load"] = "new"
    assert pipeline(udf=loader.id, tiles=[TILE])["client_ids"] == ["fused-team", "fused-maps"]
    assert (before, seen(loader)) == ("old", "new")


def test_a_run_under_way_is_caught_by_a_task_that_waits(
    fused_emulator: Emulator,
    slow: tuple[Udf, threading.Event],
    when: Callable[..., threading.Thread],
    seen: Callable[[Udf], Any],
    deletes: Callable[[], int],
) -> None:
    udf, go = slow
    when(lambda: deletes() >= 2, go.set)  # the first pass is over, on both instances
    result = pipeline(udf=udf.id, tiles=[TILE], again_after=3)
    assert result["second_pass"] == "done"
    assert deletes() == 4
    assert seen(udf) == "new"


SCHEDULED = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])))
"""The server hands out 200 of the runs of all tests, in no order."""


@pytest.fixture
def deployed() -> None:
    invalidate_cache_flow.to_deployment("again").apply()


def scheduled() -> list[Any]:
    with get_client(sync_client=True) as api:
        return [
            run for run in api.read_flow_runs(flow_run_filter=SCHEDULED) if run.deployment_id and run.state_name == "Scheduled"
        ]


@pytest.mark.usefixtures("deployed")
def test_a_deployment_makes_the_second_pass_with_the_same_selection(
    fused_emulator: Emulator, slow: tuple[Udf, threading.Event], seen: Callable[[Udf], Any], deletes: Callable[[], int]
) -> None:
    udf, go = slow
    earlier = {run.id for run in scheduled()}
    result = pipeline(udf=udf.id, tiles=[(1, 0, 0), Tile(1, 1, 1)], again_after=130, again_deployment=AGAIN)
    assert (result["second_pass"], deletes()) == ("scheduled", 0)
    [run] = [run for run in scheduled() if run.id not in earlier]
    seconds = (run.next_scheduled_start_time - datetime.now(timezone.utc)).total_seconds()
    assert 0 < seconds <= 130
    assert fused_emulator.token not in str(run.parameters)
    go.set()
    while not fused_emulator.cached_tiles(udf):
        threading.Event().wait(0.05)
    invalidate_cache_flow(**run.parameters)  # as its worker does, once it is time
    assert seen(udf) == "new"


@pytest.mark.parametrize("name", ["Invalidate Fused cache/nowhere", "no slash"])
def test_a_deployment_that_does_not_exist_is_refused_before_anything_is_sent(
    fused_emulator: Emulator, loader: Udf, name: str
) -> None:
    with pytest.raises(InvalidInputError, match="does not exist"):
        pipeline(udf=loader.id, again_after=130, again_deployment=name)
    assert fused_emulator.requests == []


def test_a_deployment_of_another_flow_is_refused_before_anything_is_sent(fused_emulator: Emulator, loader: Udf) -> None:
    @flow(name="another flow")
    def another(day: str = "today") -> None: ...

    another.to_deployment("prod").apply()
    with pytest.raises(InvalidInputError, match="is of another flow, which does not take"):
        pipeline(udf=loader.id, again_after=130, again_deployment="another flow/prod")
    assert fused_emulator.requests == []


@pytest.mark.parametrize(("status", "retryable"), [(404, False), (409, False), (422, False), (429, True), (500, True)])
def test_what_prefects_api_refuses_is_permanent(status: int, retryable: bool) -> None:
    answer = httpx.Response(status, request=httpx.Request("POST", "http://prefect/api"))
    refused = PrefectHTTPStatusError("no", request=answer.request, response=answer)
    assert api_error(refused, "It failed").retryable is retryable


@pytest.mark.parametrize(
    ("keywords", "problem"),
    [
        ({"again_after": 0}, "again_after is 0"),
        ({"verify_tiles": 1, "tiles": [TILE]}, "verify_tiles"),
        ({"shard": (0, 2), "tiles": [TILE]}, "shard"),
        ({"credentials": FusedCredentials()}, "not saved"),
        ({"udf": "fsh_" + "0" * 32}, "plain text"),
    ],
    ids=["no wait", "verify_tiles", "shard", "block", "token"],
)
def test_what_a_deployment_cannot_do_is_refused_before_anything_is_sent(
    fused_emulator: Emulator, loader: Udf, keywords: dict[str, Any], problem: str
) -> None:
    given: Any = {"udf": loader.id, "again_after": 130, "again_deployment": AGAIN} | keywords
    with pytest.raises(InvalidInputError, match=problem):
        pipeline(**given)
    assert fused_emulator.requests == []


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({}, {"whole_udf": True}),
        ({"tiles_file": "t.txt", "zooms": range(3, 5)}, {"tiles_file": "t.txt", "zooms": "3,4"}),
        ({"bounds": (0, 0, 1, 1), "zooms": "10-14"}, {"bounds": [0, 0, 1, 1], "zooms": "10-14"}),
        ({"bounds": [(1, 1, 2, 2), (1, 1, 3, 3)], "zooms": 3}, {"tiles": ["3/4/3"]}),
        ({"tiles": [(1, 0, 0)], "zooms": "1"}, {"tiles": ["1/0/0"]}),
        ({"tiles": [], "related": "callers"}, {"tiles": [], "related": "callers", "inner_caches": None}),
        ({"tiles": [], "inner_caches": "own"}, {"tiles": [], "inner_caches": ["own"]}),
        ({"h3_index": {"path": "a", "run": True}, "loaded_at": 1.5}, {"h3_index": None, "loaded_at": "1.5"}),
    ],
    ids=str,
)
def test_the_flow_gets_what_the_task_was_given(selection: Any, expected: dict[str, Any]) -> None:
    given = SecondPass(AGAIN, "roads", None, {"again_after": 130, **selection}, None)._parameters
    assert {name: given[name] for name in expected} == expected


def test_more_tiles_than_prefect_stores_are_refused() -> None:
    tiles = [Tile(17, x, 0) for x in range(LARGEST_PARAMETERS // 12)]
    with pytest.raises(InvalidInputError, match="pass tiles_file"):
        SecondPass(AGAIN, "roads", None, {"again_after": 130, "tiles": tiles}, None)


@pytest.mark.parametrize("hook", [invalidate_on_completion, invalidate_on_commit])
def test_a_hook_refuses_to_wait(hook: Callable[..., Any]) -> None:
    with pytest.raises(InvalidInputError, match="again_after takes long, and a hook cannot wait"):
        hook("roads", again_after=130)
    with pytest.raises(InvalidInputError, match="run in h3_index takes long, and a hook cannot wait"):
        hook("roads", h3_index={"path": "s3://lake/hexes/", "run": True})
