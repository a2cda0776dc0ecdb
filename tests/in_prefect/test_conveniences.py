"""What Prefect's users look for first: the block's shared token, what follows in the flows, hooks that name a block, alerts."""

import asyncio
import json
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, get_client, task
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.transactions import atransaction, get_transaction
from pydantic import SecretStr

from fused_cache_ops import CacheMap, DatasetInvalidationError, InvalidInputError, VerificationError
from fused_cache_ops.emulator import Emulator, Udf
from prefect_fused import (
    FusedCredentials,
    ainvalidate_on_completion,
    build_failed_trigger_alert,
    invalidate_cache,
    invalidate_cache_flow,
    invalidate_dataset,
    invalidate_dataset_flow,
    invalidate_on_commit,
    invalidate_on_completion,
    refresh_cache,
)
from prefect_fused.second_pass import SecondPass

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("prefect_api")]

TILE = "1/0/0"
AGAIN = "Invalidate Fused cache/later"


@pytest.fixture
def block(fused_emulator: Emulator, udf: Udf) -> str:
    """The name of a saved block that has the UDF's shared token."""
    FusedCredentials(
        token=SecretStr(fused_emulator.token),
        base_url=fused_emulator.base_url,
        run_base_url=fused_emulator.root_url,
        shared_token=SecretStr(udf.shared_token),
    ).save("conveniences", overwrite=True)
    return "conveniences"


SCHEDULED = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])))
"""The server hands out 200 of the runs of all tests, in no order."""


@pytest.fixture
def _deployed() -> None:
    invalidate_cache_flow.to_deployment("later").apply()


def scheduled() -> dict[Any, Any]:
    with get_client(sync_client=True) as api:
        runs = api.read_flow_runs(flow_run_filter=SCHEDULED)
    return {run.id: run for run in runs if run.deployment_id and run.state_name == "Scheduled"}


# -- the shared token -----------------------------------------------------------------------------------------------------


def test_the_blocks_shared_token_verifies_and_refreshes(block: str, udf: Udf, fused_emulator: Emulator) -> None:
    result = invalidate_cache_flow("roads", tiles=[TILE], credentials=block, verify_tiles=1, refresh={"count": 1})
    assert result["verification"]["fresh"] == [TILE]
    assert result["refresh"]["already_cached"] + result["refresh"]["runs"] == 1


@pytest.mark.parametrize("refresh", [1, "1", "all"])
def test_a_refresh_in_the_form_is_a_number_or_all(block: str, udf: Udf, refresh: Any) -> None:
    assert invalidate_cache_flow("roads", tiles=[TILE], credentials=block, refresh=refresh)["refresh"]["runs"] == 1


def test_so_does_the_task_that_refreshes(block: str, udf: Udf) -> None:
    credentials: Any = FusedCredentials.load(block)
    found = flow(lambda: refresh_cache("roads", credentials, tiles=[TILE]), name="refreshing")()
    assert found["runs"] + found["already_cached"] == 1


def test_a_token_that_is_passed_has_precedence(block: str, fused_emulator: Emulator) -> None:
    rivers = fused_emulator.register(dict, name="rivers")
    credentials: Any = FusedCredentials.load(block)
    keywords: Any = {"tiles": [TILE], "verify_tiles": 1}
    passed = flow(lambda: invalidate_cache("rivers", credentials, shared_token=rivers.shared_token, **keywords), name="passed")
    assert passed()["verification"]["fresh"] == [TILE]


def test_a_block_for_several_udfs_still_invalidates_those_without_its_token(block: str, fused_emulator: Emulator) -> None:
    rivers = fused_emulator.register(dict, name="rivers")
    fused_emulator.fill_cache(rivers, [(1, 0, 0)])
    invalidate_cache_flow("rivers", whole_udf=True, credentials=block)
    assert fused_emulator.cached_tiles(rivers) == set()


def test_the_shared_token_is_hidden_wherever_the_block_is_shown(block: str, udf: Udf) -> None:
    loaded: Any = FusedCredentials.load(block)
    with get_client(sync_client=True) as api:
        stored = api.read_block_document_by_name(block, "fused-credentials", include_secrets=False)
    for shown in (repr(loaded), str(loaded.model_dump()), stored.model_dump_json()):
        assert udf.shared_token not in shown
    assert loaded.shared_token.get_secret_value() == udf.shared_token


# -- what follows an invalidation, in the flows ---------------------------------------------------------------------------


def test_a_stale_tile_fails_the_flow(block: str, udf: Udf, fused_emulator: Emulator) -> None:
    fused_emulator.misbehave(status=200, body={"status": "ok"}, times=None, path="delete")  # it says so, and does nothing
    fused_emulator.fill_cache(udf, [(1, 0, 0)])
    with pytest.raises((VerificationError, Exception), match="cache"):
        invalidate_cache_flow("roads", tiles=[TILE], credentials=block, verify_tiles=1)


def test_a_stale_tile_is_only_told_if_the_flow_is_not_to_fail(block: str, udf: Udf, fused_emulator: Emulator) -> None:
    fused_emulator.misbehave(status=200, body={"status": "ok"}, times=None, path="delete")
    fused_emulator.fill_cache(udf, [(1, 0, 0)])
    result = invalidate_cache_flow("roads", tiles=[TILE], credentials=block, verify_tiles=1, fail_on_stale=False)
    assert result["verification"]["from_cache"]


def test_the_flow_sends_everything_a_second_time(block: str, udf: Udf, fused_emulator: Emulator) -> None:
    result = invalidate_cache_flow("roads", tiles=[TILE], credentials=block, again_after=0.05)
    assert result["second_pass"] == "done"
    assert sum(request.path.endswith("delete") for request in fused_emulator.requests) == 2


@pytest.mark.usefixtures("_deployed")
def test_a_deployment_makes_the_second_pass_and_what_comes_after_it(block: str, udf: Udf, fused_emulator: Emulator) -> None:
    earlier = scheduled()
    keywords: Any = {"verify_tiles": 1, "fail_on_stale": False, "refresh": {"count": "all", "zooms": range(1, 2)}}
    credentials: Any = FusedCredentials.load(block)
    first = flow(
        lambda: invalidate_cache("roads", credentials, tiles=[TILE], again_after=130, again_deployment=AGAIN, **keywords),
        name="first",
    )()
    assert (first["second_pass"], first["verification"], first["refresh"]) == ("scheduled", None, None)
    assert fused_emulator.runs == []
    [run] = [run for each, run in scheduled().items() if each not in earlier]
    assert udf.shared_token not in json.dumps(run.parameters)
    assert run.parameters["refresh"] == {"count": "all", "zooms": "1"}
    assert run.parameters["fail_on_stale"] is False
    second = invalidate_cache_flow(**run.parameters)  # as its worker does
    assert second["verification"]["fresh"] == [TILE]
    assert second["second_pass"] is None


def test_without_the_blocks_token_the_deployment_cannot_verify() -> None:
    keywords: Any = {"again_after": 130, "tiles": [TILE], "verify_tiles": 1}
    with pytest.raises(InvalidInputError, match="save it in the block"):
        SecondPass(AGAIN, "roads", None, keywords, None)


# -- the second pass of a dataset -----------------------------------------------------------------------------------------


def a_map(*udfs: dict[str, Any]) -> CacheMap:
    return CacheMap.from_dict({"datasets": {"raw": {"udfs": list(udfs)}}})


PARCELS = {"udf": "parcels", "zooms": "1", "buffer": 1, "again_after": 60}
TOTALS = {"udf": "totals", "whole_udf": True}
OVERVIEW = {"udf": "overview", "zooms": "0"}


@pytest.fixture
def shown(fused_emulator: Emulator, udf: Udf) -> dict[str, Udf]:
    return {name: fused_emulator.register(dict, name=name) for name in ("parcels", "totals", "overview")}


def of_dataset(block: str, cache_map: CacheMap, **keywords: Any) -> Any:
    credentials: Any = FusedCredentials.load(block)

    @flow
    def pipeline() -> Any:
        return invalidate_dataset("raw", credentials, cache_map=cache_map, again_deployment=AGAIN, **keywords)

    return pipeline()


@pytest.mark.usefixtures("_deployed")
def test_each_udf_of_a_dataset_has_a_second_pass_of_its_own(
    block: str, shown: dict[str, Udf], fused_emulator: Emulator
) -> None:
    earlier = scheduled()
    begun = datetime.now(timezone.utc)
    totals = {**TOTALS, "again_after": 600, "related": "callers"}
    result = of_dataset(block, a_map(PARCELS, totals, OVERVIEW), bounds=[1, 1, 2, 2])
    assert {udf: each["second_pass"] for udf, each in result["results"].items()} == {
        "parcels": "scheduled",
        "totals": "scheduled",
        "overview": None,
    }
    runs = {run.parameters["udf"]: run for each, run in scheduled().items() if each not in earlier}
    assert set(runs) == {"parcels", "totals"}
    assert runs["parcels"].parameters["bounds"] == [1, 1, 2, 2]
    assert (runs["parcels"].parameters["zooms"], runs["parcels"].parameters["buffer"]) == ("1", 1)
    assert (runs["totals"].parameters["whole_udf"], runs["totals"].parameters["related"]) == (True, "callers")
    waits = {udf: (run.next_scheduled_start_time - begun).total_seconds() for udf, run in runs.items()}
    assert 60 <= waits["parcels"] < 600 <= waits["totals"]
    for name, udf in shown.items():
        fused_emulator.fill_cache(udf, [(1, 0, 0), (1, 1, 0), (0, 0, 0)])
        if name in runs:
            invalidate_cache_flow(**runs[name].parameters)
    left = {name: fused_emulator.cached_tiles(udf) for name, udf in shown.items()}
    assert left == {"parcels": {(0, 0, 0)}, "totals": set(), "overview": {(1, 0, 0), (1, 1, 0), (0, 0, 0)}}


@pytest.mark.usefixtures("_deployed")
def test_a_udf_that_fails_does_not_take_the_second_pass_from_the_others(block: str, shown: dict[str, Udf]) -> None:
    earlier = scheduled()
    missing = {"udf": "missing", "again_after": 60}
    with pytest.raises(DatasetInvalidationError):
        of_dataset(block, a_map({**PARCELS, "buffer": 0}, missing), tiles=[TILE])
    assert [run.parameters["udf"] for each, run in scheduled().items() if each not in earlier] == ["parcels"]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (OVERVIEW, "has no second pass to make"),
        ({**PARCELS, "refresh": 1, "shared_token_env": "PARCELS_TOKEN"}, "refresh comes after the second pass"),
    ],
)
def test_what_a_deployment_cannot_do_for_a_dataset_is_refused_before_anything_is_sent(
    block: str, shown: dict[str, Udf], fused_emulator: Emulator, entry: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        of_dataset(block, a_map(entry), bounds=[1, 1, 2, 2])
    assert fused_emulator.requests == []


@pytest.mark.usefixtures("_deployed")
def test_the_flow_for_datasets_takes_what_follows_too(
    block: str, shown: dict[str, Udf], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARCELS_TOKEN", shown["parcels"].shared_token)
    (tmp_path / "map.toml").write_text('[datasets.raw]\nudfs = [{ udf = "parcels", shared_token_env = "PARCELS_TOKEN" }]\n')
    given: Any = {"tiles": [TILE], "cache_map": str(tmp_path / "map.toml"), "credentials": block}
    result = invalidate_dataset_flow("raw", verify_tiles=1, refresh="all", **given)["results"]["parcels"]
    assert result["verification"]["fresh"] == [TILE]
    assert result["refresh"]["already_cached"] + result["refresh"]["runs"] == 1
    later = invalidate_dataset_flow("raw", again_after=60, again_deployment=AGAIN, **given)
    assert later["results"]["parcels"]["second_pass"] == "scheduled"


# -- hooks ----------------------------------------------------------------------------------------------------------------


def test_a_hook_loads_the_block_that_it_names_when_it_runs(
    fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSED_SERVICE_ACCOUNT_TOKEN", "not this one")
    hook = invalidate_on_completion("roads", "named-later")

    @flow(on_completion=[hook])
    def load() -> None: ...

    token = SecretStr(fused_emulator.token)
    FusedCredentials(token=token, base_url=fused_emulator.base_url).save("named-later", overwrite=True)
    load()
    assert fused_emulator.cached_tiles(udf) == set()


@pytest.mark.parametrize("make", [invalidate_on_completion, ainvalidate_on_completion])
def test_in_an_async_flow_too(block: str, fused_emulator: Emulator, udf: Udf, make: Any) -> None:
    @flow(on_completion=[make("roads", block, from_result="tiles")])
    async def load() -> list[str]:
        return [TILE]

    asyncio.run(load())
    assert (1, 0, 0) not in fused_emulator.cached_tiles(udf)


def test_a_block_that_does_not_exist_fails_the_hook_and_not_the_load(
    fused_emulator: Emulator, udf: Udf, caplog: pytest.LogCaptureFixture
) -> None:
    @flow(on_completion=[invalidate_on_completion("roads", "nowhere")])
    def load() -> str:
        return "loaded"

    assert load() == "loaded"
    assert fused_emulator.requests == []
    assert "the load succeeded, but the results stay stale" in caplog.text


@pytest.mark.parametrize("make", [invalidate_on_completion, ainvalidate_on_completion, invalidate_on_commit])
@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_refused_at_once(make: Any, name: str) -> None:
    with pytest.raises(InvalidInputError, match="empty name"):
        make("roads", name)


def test_while_an_async_hook_sends_the_event_loop_goes_on(fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(latency=1.0, times=1, method="DELETE")
    ticks: list[float] = []

    @task(on_completion=[ainvalidate_on_completion("roads")])
    async def load() -> None: ...

    @flow
    async def pipeline() -> None:
        async def tick() -> None:
            while True:
                ticks.append(time.monotonic())
                await asyncio.sleep(0.01)

        ticking = asyncio.create_task(tick())
        before = len(ticks)
        await load()
        ticking.cancel()
        assert len(ticks) - before > 10

    asyncio.run(pipeline())
    assert fused_emulator.cached_tiles(udf) == set()


def test_an_async_transaction_invalidates_when_it_commits(block: str, fused_emulator: Emulator, udf: Udf) -> None:
    @task
    async def load() -> None:
        get_transaction().set("tiles", [TILE])  # type: ignore[union-attr]

    load.on_commit(invalidate_on_commit("roads", block, from_transaction="tiles"))

    @flow
    async def pipeline() -> None:
        async with atransaction():
            await load()
            assert fused_emulator.requests == []

    asyncio.run(pipeline())
    assert (1, 0, 0) not in fused_emulator.cached_tiles(udf)


# -- how long maps were stale ---------------------------------------------------------------------------------------------


def test_an_artifact_shows_how_long_the_map_was_stale_after_each_load(block: str, udf: Udf) -> None:
    def table() -> list[dict[str, Any]]:
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=["fused-cache-roads-stale-time"]))
        with get_client(sync_client=True) as api:
            found = api.read_artifacts(artifact_filter=wanted)
        return list(json.loads(str(max(found, key=lambda each: each.created).data))) if found else []

    now = datetime.now(timezone.utc)
    for minutes in (9, 3):
        loaded = (now - timedelta(minutes=minutes)).isoformat()
        invalidate_cache_flow("roads", tiles=[TILE], credentials=block, loaded_at=loaded)
    rows = table()
    assert 170 < rows[0]["Seconds until invalidated"] < 360
    for _ in range(100):  # the event of the first may be stored a moment later
        if len(rows) > 1:
            break
        time.sleep(0.2)
        invalidate_cache_flow("roads", tiles=[TILE], credentials=block, loaded_at=loaded)
        rows = table()
    assert [len(row["Compared"]) for row in rows[:2]] in ([3, 10], [4, 10])
    assert rows[1]["Loaded at"] == (now - timedelta(minutes=9)).isoformat()


def test_where_the_time_of_the_load_is_not_known_there_is_no_such_artifact(block: str, fused_emulator: Emulator) -> None:
    fused_emulator.register(dict, name="timeless")
    invalidate_cache_flow("timeless", whole_udf=True, credentials=block)
    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=["fused-cache-timeless-stale-time"]))
    with get_client(sync_client=True) as api:
        assert api.read_artifacts(artifact_filter=wanted) == []


# -- an alert about triggers that started no run --------------------------------------------------------------------------


def test_the_alert_is_about_the_named_triggers_and_never_about_itself() -> None:
    webhook = CustomWebhookNotificationBlock(name="maps", url="http://127.0.0.1:9/alert")
    webhook.save("maps", overwrite=True)
    alert = build_failed_trigger_alert(webhook, triggers=["after-load__automation_*"], name="mine")
    assert alert.trigger.match.root == {  # type: ignore[union-attr]
        "prefect.resource.id": "prefect.automation.*",
        "prefect.resource.name": ["after-load__automation_*", "!mine"],
    }
    [action] = alert.actions
    assert action.block_document_id == webhook._block_document_id  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("given", "reason"),
    [(CustomWebhookNotificationBlock(name="x", url="http://127.0.0.1:9"), "not saved"), ("slack", "pass a notification block")],
)
def test_a_block_that_cannot_notify_is_refused(given: Any, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        build_failed_trigger_alert(given)
