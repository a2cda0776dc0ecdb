"""Cancelling: from another thread, at once, and nothing is lost."""

import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fused_cache_ops import FusedClient, Tile
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.errors import FusedCacheError, InvalidationCancelledError, UnavailableError
from fused_cache_ops.outcome.invalidation import PartialInvalidationError

When = Callable[[Callable[[], object], Callable[[], object]], object]
TILES = [Tile(17, number, 0) for number in range(200)]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 10)


LONG = 60.0
"""Seconds that an answer takes which nobody waits for."""


def test_requests_under_way_are_cut_off(fused_emulator: Emulator, udf: Udf, when: When) -> None:
    fused_emulator.misbehave(latency=LONG, times=None)
    started = time.monotonic()
    with FusedClient(client_id=fused_emulator.client_id, deadline=2 * LONG, timeout=LONG) as client:
        when(lambda: fused_emulator.requests_under_way, client.cancel)
        with pytest.raises(InvalidationCancelledError) as caught:
            client.invalidate_cache(udf.id, tiles=TILES)
    assert time.monotonic() - started < LONG
    assert not caught.value.retryable
    assert list(caught.value.remaining or ()) == TILES


def test_pauses_are_cut_short(fused_emulator: Emulator, udf: Udf, when: When) -> None:
    fused_emulator.misbehave(status=429, retry_after=LONG, times=None)
    started = time.monotonic()
    with FusedClient(client_id=fused_emulator.client_id, deadline=2 * LONG) as client:
        when(lambda: fused_emulator.requests, client.cancel)
        with pytest.raises(InvalidationCancelledError):
            client.invalidate_cache(udf.id, tiles=TILES)
    assert time.monotonic() - started < LONG


def test_part_way_the_rest_is_handed_back(client: FusedClient, fused_emulator: Emulator, udf: Udf, when: When) -> None:
    fused_emulator.fill_cache(udf, TILES)
    fused_emulator.misbehave(latency=0.2, times=None)
    when(lambda: len(fused_emulator.requests) > 2, client.cancel)
    with pytest.raises(PartialInvalidationError) as caught:
        client.invalidate_cache(udf.id, tiles=TILES)
    assert isinstance(caught.value.cause, InvalidationCancelledError)
    assert not caught.value.retryable
    assert fused_emulator.cached_tiles(udf) & set(TILES) <= set(caught.value.remaining)


def test_every_call_of_the_client_ends(fused_emulator: Emulator, udf: Udf, when: When) -> None:
    fused_emulator.misbehave(latency=LONG, times=None)
    with FusedClient(client_id=fused_emulator.client_id, deadline=2 * LONG, timeout=LONG) as client:
        when(lambda: fused_emulator.requests_under_way == 4, client.cancel)
        with ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(client.invalidate_cache, udf.id, tiles=TILES[:5]) for _ in range(4)]
    assert {type(call.exception()) for call in calls} == {InvalidationCancelledError}


@pytest.mark.parametrize("late", [False, True], ids=["has started", "starts later"])
def test_an_interrupt_while_a_worker_starts_leaves_nobody_waiting(
    fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    start = threading.Thread.start
    workers = []

    def interrupted(thread: threading.Thread) -> None:
        is_worker = thread.name.startswith("fused-cache-ops-") and thread.name[-1].isdigit()
        if is_worker:
            workers.append(thread)
        if not is_worker or len(workers) < 2:
            return start(thread)
        if not late:
            start(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with FusedClient(client_id=fused_emulator.client_id) as client, pytest.raises(KeyboardInterrupt):
            client.invalidate_cache(udf.id, tiles=TILES)
    if late:
        workers[-1].start()
    for worker in workers:
        worker.join(60)
    assert [worker for worker in workers if worker.is_alive()] == []


def test_a_client_can_be_used_again(client: FusedClient, udf: Udf) -> None:
    client.cancel()
    assert client.invalidate_cache(udf.id, tiles=TILES).tiles_invalidated == 200


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as in a terminal: a shell's background job, such as this one may be, ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_does_not_wait_for_answers(fused_emulator: Emulator, udf: Udf, when: When) -> None:
    def delay_the_others() -> None:  # once the first request, which goes alone, has arrived
        fused_emulator.before_invalidation = None
        fused_emulator.misbehave(latency=LONG, times=None)

    fused_emulator.before_invalidation = delay_the_others
    when(lambda: fused_emulator.requests and fused_emulator.requests_under_way, lambda: os.kill(os.getpid(), signal.SIGINT))
    started = time.monotonic()
    with FusedClient(client_id=fused_emulator.client_id, deadline=2 * LONG, timeout=LONG) as client:
        with pytest.raises(KeyboardInterrupt):
            client.invalidate_cache(udf.id, tiles=TILES)
    assert time.monotonic() - started < LONG


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_does_not_wait_for_tiles_that_are_verified(fused_emulator: Emulator, udf: Udf, when: When) -> None:
    fused_emulator.misbehave(latency=LONG, times=None, path="run")
    when(lambda: fused_emulator.requests_under_way == 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    started = time.monotonic()
    with FusedClient(client_id=fused_emulator.client_id, deadline=2 * LONG, timeout=LONG) as client:
        with pytest.raises(KeyboardInterrupt):
            client.verify_cache(udf.shared_token, tiles=["1/0/0", "1/0/1"], verify_tiles=2)
    assert time.monotonic() - started < LONG


# -- wherever a call is ------------------------------------------------------------------------------------------------


def test_a_call_is_cancelled_before_its_first_request(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    with pytest.raises(InvalidationCancelledError):
        client.invalidate_cache(udf.id, tiles=TILES, on_plan=lambda plan: client.cancel())
    assert fused_emulator.requests == []


@pytest.mark.parametrize("selection", [{}, {"tiles": []}], ids=["whole", "empty"])
def test_so_is_one_that_has_no_tiles(client: FusedClient, fused_emulator: Emulator, udf: Udf, selection: Any) -> None:
    with pytest.raises(InvalidationCancelledError):
        client.invalidate_cache(udf.id, **selection, on_plan=lambda plan: client.cancel())
    assert fused_emulator.requests == []


def test_a_call_is_cancelled_while_it_counts(client: FusedClient, fused_emulator: Emulator, udf: Udf, when: When) -> None:
    begun = threading.Event()

    class Endless:
        """A collection that takes for ever to read."""

        def __len__(self) -> int:
            return 10**9

        def __contains__(self, item: object) -> bool:
            return False

        def __iter__(self) -> Iterator[Tile]:
            begun.set()
            while True:
                yield Tile(1, 0, 0)

    when(begun.is_set, client.cancel)
    with pytest.raises(InvalidationCancelledError):
        client.invalidate_cache(udf.id, tiles=Endless())  # type: ignore[arg-type]
    assert fused_emulator.requests == []


def test_a_call_that_begins_after_a_cancellation_is_not_ended(client: FusedClient, udf: Udf) -> None:
    client.cancel()
    with pytest.raises(InvalidationCancelledError):
        client.invalidate_cache(udf.id, tiles=TILES, on_plan=lambda plan: client.cancel())
    assert client.invalidate_cache(udf.id, tiles=TILES).tiles_invalidated == 200


def test_a_call_that_ends_by_itself_leaves_the_others_alone(fused_emulator: Emulator, udf: Udf, when: When) -> None:
    """Ctrl-C, or a failure, in one thread cuts off that call's requests and no others."""
    with FusedClient(client_id=fused_emulator.client_id, deadline=60) as client:
        fused_emulator.misbehave(latency=1.0, times=1)
        slow = ThreadPoolExecutor(1).submit(client.invalidate_cache, udf.id, tiles=["1/0/0"])
        while not fused_emulator.requests_under_way:
            time.sleep(0.01)

        def leave(done: int, total: int | None, retries: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            client.invalidate_cache(udf.id, tiles=TILES, on_progress=leave)
        assert slow.result(60).retries == 0


def test_cancelling_while_threads_begin_calls_ends_those_that_have_begun(fused_emulator: Emulator, udf: Udf) -> None:
    with FusedClient(client_id=fused_emulator.client_id, deadline=60) as client:
        over = threading.Event()

        def begin_calls() -> int:
            count = 0
            while not over.is_set():
                client._service.start()
                count += 1
            return count

        with ThreadPoolExecutor(4) as pool:
            beginning = [pool.submit(begin_calls) for _ in range(4)]
            for _ in range(200):
                client.cancel()
            over.set()
        assert all(each.result() for each in beginning)


def test_cancelling_at_random_moments_loses_no_tile(fused_emulator: Emulator, udf: Udf) -> None:
    rng = random.Random(20)
    for _ in range(25):
        fused_emulator.fill_cache(udf, TILES)
        fused_emulator.behave()
        fused_emulator.misbehave(latency=0.005, times=None)
        with FusedClient(client_id=fused_emulator.client_id, deadline=60) as client:
            timer = threading.Timer(rng.uniform(0, 0.12), client.cancel)
            timer.start()
            try:
                client.invalidate_cache(udf.id, tiles=TILES)
                left: set[Any] = set()
            except (InvalidationCancelledError, PartialInvalidationError) as error:
                left = set(error.remaining or TILES)
            timer.join()
        still_cached = fused_emulator.cached_tiles(udf) & set(TILES)
        assert still_cached <= left


# -- the deadline, wherever a call is -----------------------------------------------------------------------------------


def test_a_slow_generator_does_not_outlast_the_deadline(fused_emulator: Emulator, udf: Udf) -> None:
    taken, pause = 0, 0.2  # seconds: a batch takes many times the deadline

    def slowly() -> Iterator[Tile]:
        nonlocal taken
        for taken, tile in enumerate(TILES * 10, 1):  # noqa: B007
            time.sleep(pause)
            yield tile

    with FusedClient(client_id=fused_emulator.client_id, deadline=1) as client:
        with pytest.raises(FusedCacheError, match="The deadline of 1 s") as caught:
            client.invalidate_cache(udf.id, tiles=slowly())
    count, pause = taken, 0.0
    assert count <= 10  # of 2,000
    remaining = iter(caught.value.remaining or ())
    assert [next(remaining) for _ in range(count)] == (TILES * 10)[:count]
    assert fused_emulator.requests == []


def test_a_slow_generator_is_cancelled(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    def slowly() -> Iterator[Tile]:
        for number, tile in enumerate(TILES * 1000):
            if number == 5:
                client.cancel()
            yield tile

    with pytest.raises(InvalidationCancelledError) as caught:
        client.invalidate_cache(udf.id, tiles=slowly())
    assert len(list(caught.value.remaining or ())) == len(TILES) * 1000
    assert fused_emulator.requests == []


def test_a_name_server_that_hangs_does_not_outlast_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()

    def hang(*_: object) -> Any:
        answer.wait(120)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    started = time.monotonic()
    with FusedClient(token="a-token", base_url="https://fused.example.com", timeout=60, deadline=0.5) as client:
        with pytest.raises(UnavailableError):
            client.check()
    assert time.monotonic() - started < 60
    answer.set()


def test_verifying_keeps_to_the_deadline_and_says_so(fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(latency=LONG, times=None, path="run")
    started = time.monotonic()
    with FusedClient(client_id=fused_emulator.client_id, timeout=LONG, deadline=3) as client:
        result = client.invalidate_cache(udf.id, tiles=["1/0/0", "1/0/1"], verify_tiles=2, shared_token=udf.shared_token)
    assert time.monotonic() - started < LONG
    assert result.verification is not None
    assert result.verification.unknown == tuple(
        f"{tile}: no response before the deadline of 3 s" for tile in ("1/0/0", "1/0/1")
    )


def test_verifying_is_cancelled_at_once(fused_emulator: Emulator, udf: Udf, when: When) -> None:
    fused_emulator.misbehave(latency=LONG, times=None, path="run")
    started = time.monotonic()
    with FusedClient(client_id=fused_emulator.client_id, timeout=LONG, deadline=2 * LONG) as client:
        when(lambda: len(fused_emulator.requests) == 2 and fused_emulator.requests_under_way == 2, client.cancel)
        with pytest.raises(PartialInvalidationError, match="cancelled") as caught:
            client.invalidate_cache(udf.id, tiles=["1/0/0", "1/0/1"], verify_tiles=2, shared_token=udf.shared_token)
    assert time.monotonic() - started < LONG
    assert list(caught.value.remaining) == []
