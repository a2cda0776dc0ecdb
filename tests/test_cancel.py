"""Cancelling: from another thread, at once, and nothing is lost."""

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from fused_cache_ops import FusedClient, Tile
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.errors import InvalidationCancelledError
from fused_cache_ops.outcome import PartialInvalidationError

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


def test_a_client_can_be_used_again(client: FusedClient, udf: Udf) -> None:
    client.cancel()
    assert client.invalidate_cache(udf.id, tiles=TILES).tiles_invalidated == 200


def test_ctrl_c_does_not_wait_for_answers(fused_emulator: Emulator, udf: Udf, when: When) -> None:
    fused_emulator.misbehave(latency=0.01)  # the first request, which goes alone
    fused_emulator.misbehave(latency=LONG, times=None)
    when(lambda: fused_emulator.requests and fused_emulator.requests_under_way, lambda: os.kill(os.getpid(), signal.SIGINT))
    started = time.monotonic()
    with FusedClient(client_id=fused_emulator.client_id, deadline=2 * LONG, timeout=LONG) as client:
        with pytest.raises(KeyboardInterrupt):
            client.invalidate_cache(udf.id, tiles=TILES)
    assert time.monotonic() - started < LONG
