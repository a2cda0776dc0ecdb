"""The one function: what it sends, what it returns, and what it hands back when it fails."""

import contextlib
import contextvars
import json
import pickle
import socket
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fused_cache_ops import WHOLE_UDF, FusedClient, Tile, invalidate_cache
from fused_cache_ops.emulator import Emulator, ReceivedRequest, Udf
from fused_cache_ops.errors import (
    AuthenticationError,
    FusedCacheError,
    InvalidInputError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    UnavailableError,
    UnexpectedRedirectError,
    UnexpectedResponseError,
)
from fused_cache_ops.outcome.invalidation import PartialInvalidationError
from fused_cache_ops.selection import batches
from fused_cache_ops.service.service import Service


def many(count: int) -> list[Tile]:
    return [Tile(17, number % 1000, number // 1000) for number in range(count)]


def is_worker(thread: threading.Thread) -> bool:
    return thread.name.startswith("fused-cache-ops") and not thread.name.endswith("-watch")


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> int:
    """Batches of ten, so that failures between batches need no millions of tiles."""
    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 10)
    return 10


def purges(emulator: Emulator) -> list[ReceivedRequest]:
    return [request for request in emulator.requests if request.path.endswith("delete")]


def kinds(emulator: Emulator) -> list[str]:
    return [request.path.rsplit("/", 1)[-1] for request in purges(emulator)]


# -- what is sent ----------------------------------------------------------------------------------------


def test_the_environment_is_enough(fused_emulator: Emulator, udf: Udf) -> None:
    result = invalidate_cache("roads")
    assert (result.udf_id, result.client_id) == (udf.id, fused_emulator.client_id)
    assert fused_emulator.cached_tiles(udf) == set()


def test_arguments_are_enough(fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUSED_BASE_URL")
    monkeypatch.delenv("FUSED_SERVICE_ACCOUNT_TOKEN")
    invalidate_cache(
        udf.id,
        client={"client_id": fused_emulator.client_id, "token": fused_emulator.token, "base_url": fused_emulator.base_url},
    )
    assert len(fused_emulator.requests) == 1


def test_the_whole_udf_is_one_delete_without_a_query(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    result = client.invalidate_cache(udf.id)
    (request,) = fused_emulator.requests
    assert request == ReceivedRequest(
        method="DELETE",
        path=f"/server/v1/realtime-shared/fused-team/udf-cache/by-id/{udf.id}/delete",
        query="",
        scheme="Fused-Service-Token",
        tiles=None,
        status=204,
    )
    assert (result.tiles_invalidated, result.objects_deleted, result.requests_sent) == (None, None, 1)


def test_the_whole_udf_can_be_asked_for_by_name(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    client.invalidate_cache(udf.id, tiles=WHOLE_UDF)
    assert fused_emulator.cached_tiles(udf) == set()


def test_one_tile_is_one_delete_with_z_x_and_y(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    result = client.invalidate_cache(udf.id, tiles=["1/0/1"])
    (request,) = fused_emulator.requests
    assert (request.method, request.query) == ("DELETE", "z=1&x=0&y=1")
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 0), (1, 1, 0), (1, 1, 1)}
    assert (result.tiles_invalidated, result.objects_deleted) == (1, None)


def test_several_tiles_are_one_batch(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    result = client.invalidate_cache(udf.id, tiles=["1/0/1", (1, 1, 1), {"z": 1, "x": 1, "y": 1}, Tile(5, 0, 0)])
    (request,) = fused_emulator.requests
    assert (request.method, request.tiles) == ("POST", 4)
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 0), (1, 1, 0)}
    assert (result.tiles_invalidated, result.objects_deleted) == (4, 2)


def test_100_001_tiles_make_exactly_three_requests(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    tiles = many(100_001)
    fused_emulator.fill_cache(udf, tiles)
    result = client.invalidate_cache(udf.id, tiles=(tile for tile in tiles))
    assert sorted(request.tiles or 0 for request in fused_emulator.requests) == [1, 50_000, 50_000]
    assert (result.tiles_invalidated, result.objects_deleted, result.requests_sent) == (100_001, 100_001, 3)
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)}


def test_exactly_one_batch_is_one_request(client: FusedClient, fused_emulator: Emulator, udf: Udf, small_batches: int) -> None:
    client.invalidate_cache(udf.id, tiles=many(small_batches))
    assert [request.tiles for request in fused_emulator.requests] == [10]


@pytest.mark.parametrize("tiles", [[], (), set(), {}.keys(), iter([]), (tile for tile in ())])
def test_an_empty_selection_sends_nothing(client: FusedClient, fused_emulator: Emulator, tiles: Any) -> None:
    result = client.invalidate_cache("roads", tiles=tiles)
    assert fused_emulator.requests == []
    assert (result.tiles_invalidated, result.requests_sent, result.udf_id) == (0, 0, None)


@pytest.mark.parametrize("by", ["id", "name", "shared_token"])
def test_a_udf_and_its_instances_cost_three_look_ups(fused_emulator: Emulator, udf: Udf, by: str) -> None:
    given = {"id": udf.id, "name": "roads", "shared_token": udf.shared_token}[by]
    assert invalidate_cache(given, tiles=["1/0/0"]).requests_sent == 4


def test_the_result_is_json(client: FusedClient, udf: Udf) -> None:
    result = client.invalidate_cache(udf.id, tiles=["1/0/0", "1/0/1"])
    assert json.loads(json.dumps(result.to_dict())) == result.to_dict()
    assert list(result.to_dict()) == [
        "udf_id",
        "client_id",
        "tiles_invalidated",
        "objects_deleted",
        "requests_sent",
        "retries",
        "elapsed_seconds",
        "tiles_already_done",
        "verification",
        "zooms_left_stale",
        "note",
        "client_ids",
        "related",
        "second_pass",
        "warnings",
        "refresh",
        "inner_caches",
        "loaded_at",
        "seconds_until_invalidated",
        "seconds_until_fresh",
        "announcement",
    ]


# -- where there is no batch endpoint --------------------------------------------------------------------


@pytest.mark.parametrize("status", [404, 405])
def test_without_the_batch_endpoint_tiles_go_one_by_one(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, status: int
) -> None:
    fused_emulator.misbehave(status=status, path="batch-delete", times=None)
    tiles = many(300)
    fused_emulator.fill_cache(udf, tiles)
    result = client.invalidate_cache(udf.id, tiles=iter(tiles))
    assert kinds(fused_emulator) == ["batch-delete"] + ["delete"] * 300
    assert len({request.query for request in purges(fused_emulator)[1:]}) == 300
    assert len(fused_emulator.cached_tiles(udf)) == 4
    assert (result.tiles_invalidated, result.objects_deleted, result.requests_sent) == (300, None, 301)


def test_a_deployment_without_the_endpoint_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    with Emulator(batch_endpoint=False) as emulator:
        udf = emulator.register(dict, name="roads")
        emulator.fill_cache(udf, many(20))
        result = invalidate_cache(udf.id, tiles=many(20), client={"token": emulator.token, "base_url": emulator.base_url})
        assert emulator.cached_tiles(udf) == set()
        assert result.tiles_invalidated == 20


def test_without_the_batch_endpoint_an_unknown_udf_is_still_not_found(client: FusedClient, fused_emulator: Emulator) -> None:
    with pytest.raises(NotFoundError) as caught:
        client.invalidate_cache(str(uuid.uuid4()), tiles=many(300))
    assert kinds(fused_emulator) == ["batch-delete", "delete"]
    assert list(caught.value.remaining or []) == many(300)


def test_many_single_deletes_are_in_flight_at_once_but_no_more_than_allowed(fused_emulator: Emulator, udf: Udf) -> None:
    now, most, calls = 0, 0, 0
    lock = threading.Lock()
    rendezvous = threading.Event()

    def hook() -> None:
        nonlocal now, most, calls
        with lock:
            now += 1
            calls += 1
            first = calls == 1  # it goes alone
            most = max(most, now)
            if now == 4:
                rendezvous.set()
        if not first:
            rendezvous.wait(30)
        with lock:
            now -= 1

    fused_emulator.misbehave(status=404, path="batch-delete", times=None)
    fused_emulator.before_invalidation = hook
    with FusedClient(max_concurrency=4) as client:
        client.invalidate_cache(udf.id, tiles=many(40))
    assert most == 4


# -- streams ---------------------------------------------------------------------------------------------


def test_a_generator_is_read_no_further_ahead_than_the_requests_in_flight(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, small_batches: int
) -> None:
    read = 0
    read_at_request: list[int] = []

    def tiles() -> Iterator[Tile]:
        nonlocal read
        for tile in many(500):
            read += 1
            yield tile

    fused_emulator.before_invalidation = lambda: read_at_request.append(read)
    client.invalidate_cache(udf.id, tiles=tiles())
    assert read_at_request[0] == 10
    assert all(seen <= (number + 6) * small_batches for number, seen in enumerate(read_at_request))


def test_tiles_are_read_in_the_callers_thread(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, small_batches: int, tmp_path: Path
) -> None:
    # sqlite3 refuses a cursor that is used in another thread.
    with contextlib.closing(sqlite3.connect(tmp_path / "tiles.sqlite")) as connection:
        connection.execute("CREATE TABLE expired (z, x, y)")
        connection.executemany("INSERT INTO expired VALUES (?, ?, ?)", many(95))
        result = client.invalidate_cache(udf.id, tiles=connection.execute("SELECT z, x, y FROM expired"))
    assert result.tiles_invalidated == 95


def test_the_callers_context_goes_along_into_the_workers(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, small_batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = contextvars.ContextVar("run", default="none")
    run.set("the caller's")
    seen = set()
    send_once = Service._send_once

    def spy(self: Service, *args: Any) -> Any:
        seen.add((run.get(), threading.current_thread() is threading.main_thread()))
        return send_once(self, *args)

    monkeypatch.setattr(Service, "_send_once", spy)
    client.invalidate_cache(udf.id, tiles=many(40))
    assert seen == {("the caller's", True), ("the caller's", False)}


def test_no_thread_is_left_behind(client: FusedClient, fused_emulator: Emulator, udf: Udf, small_batches: int) -> None:
    client.invalidate_cache(udf.id, tiles=many(100))
    assert [thread.name for thread in threading.enumerate() if is_worker(thread)] == []


# -- failures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (422, InvalidRequestError),
        (302, UnexpectedRedirectError),
        (400, UnexpectedResponseError),
        (410, UnexpectedResponseError),
    ],
)
def test_a_permanent_failure_stops_at_once(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, status: int, error: type[FusedCacheError]
) -> None:
    fused_emulator.misbehave(status=status, path="delete", times=None)
    with pytest.raises(error) as caught:
        client.invalidate_cache(udf.id)
    assert type(caught.value) is error
    assert (caught.value.retryable, caught.value.status) == (False, status)
    assert len(fused_emulator.requests) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 599])
def test_a_passing_failure_is_tried_again(client: FusedClient, fused_emulator: Emulator, udf: Udf, status: int) -> None:
    fused_emulator.misbehave(status=status, path="delete", times=2)
    result = client.invalidate_cache(udf.id, tiles=["1/0/0"])
    assert [request.status for request in fused_emulator.requests] == [status, status, 204]
    assert (result.requests_sent, result.retries) == (3, 2)


def test_a_dropped_connection_is_tried_again(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(drop=True)
    fused_emulator.misbehave(drop=True, after_work=True)
    assert client.invalidate_cache(udf.id).retries == 2
    assert fused_emulator.cached_tiles(udf) == set()


def test_a_look_up_is_tried_again_too(fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=503, path="by-slug")
    fused_emulator.misbehave(status=429, path="available")
    assert invalidate_cache("roads").retries == 2


def test_retry_after_is_waited_for(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=429, retry_after=1)
    assert client.invalidate_cache(udf.id).elapsed_seconds >= 1


def test_retry_after_holds_every_worker_back(
    fused_emulator: Emulator, udf: Udf, small_batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    closed: list[float] = []
    during: list[float] = []
    send_once = Service._send_once

    def spy(self: Service, *args: Any) -> Any:
        if closed and time.monotonic() - closed[0] < 0.8:
            during.append(time.monotonic())
        try:
            return send_once(self, *args)
        except RateLimitedError:
            closed.append(time.monotonic())
            raise

    monkeypatch.setattr(Service, "_send_once", spy)
    with FusedClient(client_id=fused_emulator.client_id) as client:
        fused_emulator.misbehave(latency=0.02, times=None)
        client.invalidate_cache(udf.id, tiles=many(20))
        fused_emulator.misbehave(status=429, retry_after=1, times=1)
        client.invalidate_cache(udf.id, tiles=many(300))
    # The other workers may have been about to send when the answer came; none sends a second time.
    assert len(during) <= 3


def test_a_retry_after_beyond_the_deadline_is_not_waited_for(fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=429, retry_after=3600, times=None)
    with FusedClient(client_id=fused_emulator.client_id, deadline=5) as client:
        with pytest.raises(RateLimitedError, match="asks for a pause of 3600 s") as caught:
            client.invalidate_cache(udf.id)
    assert caught.value.retryable
    assert len(fused_emulator.requests) == 1


def test_the_deadline_ends_the_trying(fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=503, times=None)
    with FusedClient(client_id=fused_emulator.client_id, deadline=1) as client:
        with pytest.raises(UnavailableError, match=r"Gave up after|The deadline of 1 s leaves no time"):
            client.invalidate_cache(udf.id)
    assert len(fused_emulator.requests) >= 2


def test_the_servers_reasons_are_in_the_message(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    detail = [{"loc": ["query", "z"], "msg": "value is not an integer", "type": "int"}, "and more"]
    fused_emulator.misbehave(status=422, body={"detail": detail})
    with pytest.raises(InvalidRequestError, match=r"query\.z: value is not an integer; and more"):
        client.invalidate_cache(udf.id)


def test_a_servers_words_cannot_forge_log_lines(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=422, body={"detail": "x\r\nCRITICAL all is lost\x1b[31m" + "!" * 1000})
    with pytest.raises(InvalidRequestError) as caught:
        client.invalidate_cache(udf.id)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("tiles", [WHOLE_UDF, ["1/0/0"], ["1/0/0", "1/0/1"]], ids=["whole", "single", "batch"])
def test_a_page_for_people_is_not_taken_for_success(udf: Udf, tiles: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as portal:

        def serve() -> None:
            connection, _ = portal.accept()
            with connection:
                connection.recv(10_000)
                page = b"<html>Sign in to go on</html>"
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page))

        threading.Thread(target=serve, daemon=True).start()
        base_url = f"http://127.0.0.1:{portal.getsockname()[1]}"
        with pytest.raises(UnexpectedResponseError, match="an HTML page"):
            invalidate_cache(udf.id, tiles=tiles, client={"client_id": "team", "base_url": base_url})


def test_a_thread_that_cannot_start_loses_nothing(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, small_batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        if self.name.startswith("fused-cache-ops"):
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(PartialInvalidationError) as caught:
        client.invalidate_cache(udf.id, tiles=many(95))
    assert sorted(caught.value.remaining) == sorted(many(95)[10:])


@pytest.mark.parametrize("body", [{"objects_deleted": "x"}, {"objects_deleted": -1}, {"objects_deleted": True}, [], "done"])
def test_a_batch_answer_that_makes_no_sense_confirms_nothing(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, body: object
) -> None:
    fused_emulator.misbehave(status=200, body=body, path="batch-delete")
    fused_emulator.misbehave(status=202, body=b"", path="/delete", times=None)
    with pytest.raises(UnexpectedResponseError, match="is base_url right"):
        client.invalidate_cache(udf.id, tiles=many(5))


@pytest.mark.parametrize("selection", [{"tiles": many(1000)}, {"bounds": (0, 0, 40, 40), "zooms": 8}], ids=["tiles", "bounds"])
def test_a_batch_that_is_too_large_for_a_proxy_is_halved(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, selection: dict[str, Any]
) -> None:
    fused_emulator.misbehave(status=413, times=2, path="batch-delete")
    result = client.invalidate_cache(udf.id, **selection)
    sent = [request.tiles or 0 for request in purges(fused_emulator) if request.status == 200]
    total = result.tiles_invalidated or 0
    assert sum(sent) == total
    assert (len(sent), max(sent)) == (4, -(-total // 4))
    assert result.objects_deleted == 0


def test_a_single_tile_that_is_too_large_is_an_error(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=413, times=None, path="batch-delete")
    with pytest.raises(FusedCacheError, match="413"):
        client.invalidate_cache(udf.id, tiles=many(9))
    assert [request.tiles for request in purges(fused_emulator) if request.status == 200] == []


def test_a_batch_answer_need_not_count(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=200, body={"udf_id": udf.id}, path="batch-delete")
    result = client.invalidate_cache(udf.id, tiles=many(5))
    assert (result.tiles_invalidated, result.objects_deleted) == (5, None)


# -- partial failures ------------------------------------------------------------------------------------


def test_a_failure_part_way_hands_back_exactly_what_is_not_done(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, small_batches: int
) -> None:
    tiles = many(200)
    fused_emulator.fill_cache(udf, tiles)
    fused_emulator.misbehave(latency=0.01, times=None)
    calls = 0

    def revoke_after_seven() -> None:
        nonlocal calls
        calls += 1
        if calls == 7:
            fused_emulator.misbehave(status=401, times=None)

    fused_emulator.before_invalidation = revoke_after_seven
    with pytest.raises(PartialInvalidationError) as caught:
        client.invalidate_cache(udf.id, tiles=iter(tiles))
    error = caught.value
    remaining = set(error.remaining)
    assert remaining == {tile for tile in fused_emulator.cached_tiles(udf) if tile[0] == 17}
    assert len(list(error.remaining)) == len(remaining) == 200 - (error.result.tiles_invalidated or 0)
    assert isinstance(error.cause, AuthenticationError)
    assert (error.retryable, error.status) == (False, 401)

    fused_emulator.behave()
    client.invalidate_cache(udf.id, tiles=error.remaining)
    assert len(fused_emulator.cached_tiles(udf)) == 4


def test_a_single_tile_failure_part_way_hands_back_the_rest(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    tiles = many(120)
    fused_emulator.fill_cache(udf, tiles)
    fused_emulator.misbehave(status=405, path="batch-delete", times=None)
    calls = 0

    def forbid_after_fifty() -> None:
        nonlocal calls
        calls += 1
        if calls == 50:
            fused_emulator.misbehave(status=403, times=None)

    fused_emulator.before_invalidation = forbid_after_fifty
    with pytest.raises(PartialInvalidationError) as caught:
        client.invalidate_cache(udf.id, tiles=tiles)
    assert set(caught.value.remaining) == fused_emulator.cached_tiles(udf) - {
        (1, 0, 0),
        (1, 0, 1),
        (1, 1, 0),
        (1, 1, 1),
    }


def test_an_answer_that_was_lost_counts_as_not_done(fused_emulator: Emulator, udf: Udf, small_batches: int) -> None:
    calls = 0

    def lose_answers() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            fused_emulator.misbehave(drop=True, after_work=True, times=None)

    fused_emulator.before_invalidation = lose_answers
    with FusedClient(client_id=fused_emulator.client_id, deadline=3) as client:
        with pytest.raises(PartialInvalidationError) as caught:
            client.invalidate_cache(udf.id, tiles=many(20))
    assert sorted(caught.value.remaining) == sorted(many(20)[10:])
    assert caught.value.retryable


def test_when_nothing_was_done_the_error_is_the_cause_with_all_the_tiles(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, small_batches: int
) -> None:
    fused_emulator.misbehave(status=401, times=None)
    with pytest.raises(AuthenticationError) as caught:
        client.invalidate_cache(udf.id, tiles=iter(many(35)))
    assert list(caught.value.remaining or []) == many(35)


def test_a_failed_look_up_hands_back_all_the_tiles(client: FusedClient, fused_emulator: Emulator) -> None:
    with pytest.raises(NotFoundError) as caught:
        client.invalidate_cache("nowhere", tiles=iter(many(3)))
    assert list(caught.value.remaining or []) == many(3)


def test_a_bad_tile_far_down_a_generator_loses_nothing(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, small_batches: int
) -> None:
    good = many(90)
    fused_emulator.fill_cache(udf, good)
    with pytest.raises(PartialInvalidationError, match=r"tiles\[55\] = \(1, 2, 3\)") as caught:
        client.invalidate_cache(udf.id, tiles=iter([*good[:55], (1, 2, 3), *good[55:]]))
    assert isinstance(caught.value.cause, InvalidInputError)
    still_cached = {tile for tile in fused_emulator.cached_tiles(udf) if tile[0] == 17}
    assert set(caught.value.remaining) == still_cached


def test_a_bad_tile_in_a_list_fails_before_any_request(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, small_batches: int
) -> None:
    with pytest.raises(InvalidInputError, match=r"tiles\[90\]"):
        client.invalidate_cache(udf.id, tiles=[*many(90), (1, 2, 3)])
    assert fused_emulator.requests == []


def test_a_generator_that_breaks_hands_back_what_was_in_hand(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, small_batches: int
) -> None:
    def tiles() -> Iterator[Tile]:
        yield from many(25)
        raise OSError("the database went away")

    with pytest.raises(PartialInvalidationError, match="the database went away") as caught:
        client.invalidate_cache(udf.id, tiles=tiles())
    assert list(caught.value.remaining) == many(25)[(caught.value.result.tiles_invalidated or 0) :]


def test_ctrl_c_stops_the_sending(client: FusedClient, fused_emulator: Emulator, udf: Udf, small_batches: int) -> None:
    def tiles() -> Iterator[Tile]:
        yield from many(25)
        raise KeyboardInterrupt

    fused_emulator.misbehave(status=503, path="batch-delete", times=None)
    fused_emulator.misbehave(latency=0.01)
    with pytest.raises((KeyboardInterrupt, UnavailableError)):
        FusedClient(client_id=fused_emulator.client_id, deadline=1).invalidate_cache(udf.id, tiles=tiles())
    assert [thread for thread in threading.enumerate() if is_worker(thread)] == []


def test_a_partial_failure_can_be_pickled(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    error = PartialInvalidationError(
        "half done",
        result=client.invalidate_cache(udf.id, tiles=[]),
        remaining=many(3),
        cause=RateLimitedError("slow down", status=429, retry_after=2.0),
    )
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.result, list(copy.remaining), copy.retryable) == (
        "half done",
        error.result,
        many(3),
        True,
    )
    assert copy.cause.retry_after == 2.0


@pytest.mark.parametrize(
    ("udf", "tiles"),
    [("", WHOLE_UDF), ("a/../b", WHOLE_UDF), ("None", WHOLE_UDF), ("roads", None), ("roads", "1/0/0"), ("roads", 5)],
)
def test_bad_input_fails_before_any_request(client: FusedClient, fused_emulator: Emulator, udf: str, tiles: Any) -> None:
    with pytest.raises(InvalidInputError):
        client.invalidate_cache(udf, tiles=tiles)
    assert fused_emulator.requests == []


def test_the_batch_size_is_the_documented_one() -> None:
    assert batches.MAX_BATCH == 50_000
