"""What is seen of an invalidation in its run: logs, progress, result, events; and that a cancelled flow stops it."""

import asyncio
import base64
import re
import threading
import time
from typing import Any
from uuid import UUID
from xml.etree import ElementTree

import pytest
from prefect import flow, get_client, unmapped
from prefect.artifacts import Artifact
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import State
from prefect.context import get_run_context
from prefect.events.filters import EventFilter, EventNameFilter
from prefect.states import Cancelling

from fused_cache_ops import InvalidationResult, plan_invalidation
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.selection import geometry
from prefect_fused import FusedCredentials, ainvalidate_cache, invalidate_cache
from prefect_fused.reports import describe

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("prefect_api")]

TILES = [f"17/{number}/0" for number in range(200)]
BOUNDS = (-9.25, 38.68, -9.08, 38.80)


def eventually(find: Any) -> Any:
    """What an asynchronous sender has brought to the server, once it is there."""
    for _ in range(100):
        if found := find():
            return found
        time.sleep(0.1)
    return pytest.fail("it never came")


def read_logs(flow_run_id: Any) -> list[Any]:
    async def ask() -> list[Any]:
        async with get_client() as api:
            return list(await api.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id]))))

    return asyncio.run(ask())


def events(name: str) -> list[Any]:
    filter_ = EventFilter(event=EventNameFilter(name=[name]))
    with get_client(sync_client=True) as api:
        answer = api._client.post("/events/filter", json={"filter": filter_.model_dump(mode="json")})
    return list(answer.json()["events"])


def in_a_flow(**keywords: Any) -> State[Any]:
    @flow
    def pipeline() -> Any:
        return invalidate_cache("roads", **keywords)

    return pipeline(return_state=True)


# -- the result ---------------------------------------------------------------------------------------------------------


def test_the_result_is_an_artifact_with_a_table_per_zoom_and_a_picture(fused_emulator: Emulator, udf: Udf) -> None:
    in_a_flow(bounds=BOUNDS, zooms="10-14")
    shown = str(Artifact.get("fused-cache-roads").data)
    plan = plan_invalidation("roads", bounds=BOUNDS, zooms="10-14")
    for zoom, count in (plan.tiles_per_zoom or {}).items():
        assert f"| {zoom} | {count:,} |" in shown
    assert udf.id in shown
    picture = re.search(r"data:image/svg\+xml;base64,([^)]+)\)", shown)
    assert picture is not None
    assert len(ElementTree.fromstring(base64.b64decode(picture[1])).findall(".//*[@class='footprint']/*")) == 5


def test_the_result_of_the_whole_udf_has_no_zooms(fused_emulator: Emulator, udf: Udf) -> None:
    in_a_flow()
    shown = str(Artifact.get("fused-cache-roads").data)
    assert "| Tiles | the whole UDF |" in shown
    assert "Zoom" not in shown


def test_the_result_hangs_on_its_task_run(fused_emulator: Emulator, udf: Udf) -> None:
    state = in_a_flow(tiles=["1/0/0"])
    found = Artifact.get("fused-cache-roads")
    assert found.flow_run_id == state.state_details.flow_run_id
    assert found.task_run_id is not None


def test_a_shared_token_is_in_no_artifact(fused_emulator: Emulator, udf: Udf) -> None:
    @flow
    def pipeline() -> Any:
        return invalidate_cache(udf.shared_token, tiles=["1/0/0"], verify_tiles=1)

    pipeline()
    found = Artifact.get(f"fused-cache-{udf.id}")
    assert "| Verified | 1 of 1 |" in str(found.data)
    assert udf.shared_token not in repr(found)


def test_what_a_result_does_not_have_is_left_out() -> None:
    result = InvalidationResult("id", None, 2_000_000, None, 40, 3, 12.0, note="a|b")
    world = plan_invalidation("roads", bounds=(-180, -85, 180, 85), zooms=11, max_tiles=10**7)
    shown = describe("a`b", world, result)
    assert "| Requests | 40, 3 of them retries |" in shown
    assert "| Note | a\\|b |" in shown
    assert "tiles: not drawn" in shown
    assert f"| 11 | {world.tile_count:,} |" in shown
    assert "None" not in shown


def test_a_geometry_is_read_once(fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    reader = geometry.read_geometry
    monkeypatch.setattr(geometry, "read_geometry", lambda given, *more: read.append(given) or reader(given, *more))
    assert in_a_flow(geometry="POINT (1 1)", zooms=2).is_completed()
    assert read == ["POINT (1 1)"]
    assert "| 2 | 1 |" in str(Artifact.get("fused-cache-roads").data)


def test_an_artifact_that_cannot_be_written_fails_no_invalidation(
    fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("prefect_fused.reports._create", fail)
    assert in_a_flow(tiles=["1/0/0"]).is_completed()
    assert "The result artifact could not be written: disk full" in caplog.text


# -- progress -----------------------------------------------------------------------------------------------------------


def test_a_long_invalidation_shows_its_progress(fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 10)
    monkeypatch.setattr("prefect_fused.reports._PROGRESS_INTERVAL", 0.3)
    fused_emulator.misbehave(latency=0.3, times=None)
    shown: list[float] = []

    def look() -> None:
        while not over.wait(0.1):
            if found := Artifact.get("fused-cache-roads-progress"):
                shown.append(float(found.data))

    over = threading.Event()
    watch = threading.Thread(target=look)
    watch.start()
    in_a_flow(tiles=TILES)
    over.set()
    watch.join()
    found = Artifact.get("fused-cache-roads-progress")
    assert (found.type, found.data) == ("progress", 100.0)
    assert any(0 < percent < 100 for percent in shown)
    assert shown == sorted(shown)


def test_a_short_invalidation_shows_none(fused_emulator: Emulator) -> None:
    fused_emulator.register(dict, name="short")

    @flow
    def pipeline() -> Any:
        return invalidate_cache("short", tiles=TILES)

    pipeline()
    assert Artifact.get("fused-cache-short") is not None
    assert Artifact.get("fused-cache-short-progress") is None


# -- logs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("submit", [False, True], ids=["called", "submitted"])
def test_the_cores_log_is_the_runs_from_its_worker_threads_too(
    fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch, submit: bool
) -> None:
    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 20)
    fused_emulator.before_invalidation = lambda: fused_emulator.misbehave(status=503, retry_after=0.1)

    @flow
    def pipeline() -> Any:
        call = invalidate_cache.submit if submit else invalidate_cache
        done: Any = call("roads", tiles=TILES)
        return done.result() if submit else done

    state = pipeline(return_state=True)

    def lines() -> list[Any]:
        found = read_logs(state.state_details.flow_run_id)
        return found if any("invalidated 200 tiles" in line.message for line in found) else []

    found = [line for line in eventually(lines) if line.name.startswith("fused_cache_ops")]
    assert any("answered 503" in line.message for line in found)
    assert all(line.task_run_id for line in found)
    assert len({(line.timestamp, line.message) for line in found}) == len(found)


# -- events -------------------------------------------------------------------------------------------------------------


def test_the_result_is_an_event_related_to_its_runs(fused_emulator: Emulator, udf: Udf) -> None:
    state = in_a_flow(tiles=["1/0/0"])

    def find() -> list[Any]:
        return [event for event in events("fused.cache.invalidated") if event["payload"]["udf_id"] == udf.id]

    (event,) = eventually(find)
    assert event["resource"]["prefect.resource.id"] == "fused.udf.roads"  # as that of a failure, which may not know the id
    assert {"prefect.resource.id": f"fused.udf-id.{udf.id}", "prefect.resource.role": "udf"} in event["related"]
    assert event["payload"]["tiles_invalidated"] == 1
    assert f"prefect.flow-run.{state.state_details.flow_run_id}" in {each["prefect.resource.id"] for each in event["related"]}


def test_a_failure_is_an_event_too(fused_emulator: Emulator) -> None:
    fused_emulator.misbehave(status=403, times=None)
    in_a_flow(tiles=["1/0/0"])
    eventually(lambda: [event for event in events("fused.cache.invalidation-failed") if "403" in event["payload"]["reason"]])


def test_nothing_to_send_is_no_event(fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr("prefect_fused.invalidation.emit_event", lambda *arguments, **_: sent.append(arguments))
    in_a_flow(tiles=[])
    assert sent == []


def test_outside_a_run_nothing_is_told(fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_fused.reports.get_client", None)
    monkeypatch.setattr("prefect_fused.invalidation.emit_event", None)
    assert invalidate_cache.fn("roads", tiles=["1/0/0"])["tiles_invalidated"] == 1
    assert asyncio.run(ainvalidate_cache.fn("roads", tiles=["1/0/1"]))["tiles_invalidated"] == 1


# -- cancellation -------------------------------------------------------------------------------------------------------


def test_a_cancelled_flow_run_stops_what_its_threads_send(fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_fused.invalidation._WATCH_INTERVAL", 0.3)
    udf = fused_emulator.register(dict, name="roads")
    credentials = FusedCredentials(client_id=fused_emulator.client_id)
    fused_emulator.misbehave(status=503, retry_after=1, times=None)
    ends: list[str] = []

    def cancel(flow_run_id: UUID) -> None:
        while not fused_emulator.requests:
            time.sleep(0.1)
        with get_client(sync_client=True) as api:
            api.set_flow_run_state(flow_run_id, Cancelling(), force=True)

    @flow
    def pipeline() -> None:
        run: Any = get_run_context()
        futures = invalidate_cache.map(udf.id, credentials=unmapped(credentials), tiles=unmapped(TILES), shard=[(0, 2), (1, 2)])
        threading.Thread(target=cancel, args=(run.flow_run.id,)).start()
        futures.wait()
        ends.extend(str(future.state.message) for future in futures)

    started = time.monotonic()
    pipeline(return_state=True)
    assert time.monotonic() - started < 60
    assert [end.count("The invalidation was cancelled") for end in ends] == [1, 1]
    before = len(fused_emulator.requests)
    time.sleep(1.5)
    assert len(fused_emulator.requests) == before > 0
