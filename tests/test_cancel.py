"""Cancelling: from another thread, at once, and nothing is lost."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fused_cache_ops import FusedClient, Tile
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.errors import InvalidationCancelledError
from fused_cache_ops.outcome import PartialInvalidationError

TILES = [Tile(17, number, 0) for number in range(200)]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 10)


def cancel_after(client: FusedClient, seconds: float) -> None:
    threading.Timer(seconds, client.cancel).start()


def test_requests_under_way_are_cut_off(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(latency=10.0, times=None)
    cancel_after(client, 0.3)
    started = time.monotonic()
    with pytest.raises(InvalidationCancelledError) as caught:
        client.invalidate_cache(udf.id, tiles=TILES)
    assert time.monotonic() - started < 7
    assert not caught.value.retryable
    assert list(caught.value.remaining or ()) == TILES


def test_pauses_are_cut_short(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=429, retry_after=15, times=None)
    cancel_after(client, 0.3)
    started = time.monotonic()
    with pytest.raises(InvalidationCancelledError):
        client.invalidate_cache(udf.id, tiles=TILES)
    assert time.monotonic() - started < 7


def test_part_way_the_rest_is_handed_back(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.fill_cache(udf, TILES)
    fused_emulator.misbehave(latency=0.2, times=None)
    cancel_after(client, 0.7)
    with pytest.raises(PartialInvalidationError) as caught:
        client.invalidate_cache(udf.id, tiles=TILES)
    assert isinstance(caught.value.cause, InvalidationCancelledError)
    assert not caught.value.retryable
    assert fused_emulator.cached_tiles(udf) & set(TILES) <= set(caught.value.remaining)


def test_every_call_of_the_client_ends(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(latency=5.0, times=None)
    cancel_after(client, 0.5)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(client.invalidate_cache, udf.id, tiles=TILES[:5]) for _ in range(4)]
    assert {type(call.exception()) for call in calls} == {InvalidationCancelledError}


def test_a_client_can_be_used_again(client: FusedClient, udf: Udf) -> None:
    client.cancel()
    assert client.invalidate_cache(udf.id, tiles=TILES).tiles_invalidated == 200


def test_ctrl_c_does_not_wait_for_answers(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(latency=0.01)  # the first request, which goes alone
    fused_emulator.misbehave(latency=10.0, times=None)

    def interrupt_soon(done: int, total: int | None, retries: int) -> None:
        if done == 0:
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        client.invalidate_cache(udf.id, tiles=TILES, on_progress=interrupt_soon)
    assert time.monotonic() - started < 7
