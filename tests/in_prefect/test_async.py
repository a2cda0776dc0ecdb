"""The pair of tasks: the same in all but waiting, and a coroutine that is cancelled really stops the sending."""

import asyncio
import inspect
import re
import time
from typing import Any

import pytest
from prefect import flow, unmapped

from fused_cache_ops.emulator import Emulator, Udf
from prefect_fused import FusedCredentials, ainvalidate_cache, invalidate_cache

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("prefect_api")]

TILES = [f"17/{number}/0" for number in range(200)]


@pytest.fixture
def credentials(fused_emulator: Emulator) -> FusedCredentials:
    return FusedCredentials(token=fused_emulator.token, base_url=fused_emulator.base_url, client_id=fused_emulator.client_id)


def requests_after(emulator: Emulator, seconds: float) -> int:
    """How many requests arrive from a moment on, when those that were cut off have been counted."""
    time.sleep(0.5)
    before = len(emulator.requests)
    time.sleep(seconds)
    return len(emulator.requests) - before


def test_the_pair_has_one_signature() -> None:
    assert not invalidate_cache.isasync
    assert ainvalidate_cache.isasync
    assert inspect.signature(invalidate_cache.fn) == inspect.signature(ainvalidate_cache.fn)
    assert ainvalidate_cache.fn.__doc__ == invalidate_cache.fn.__doc__
    assert ainvalidate_cache.name == invalidate_cache.name


def test_the_sync_one_never_returns_a_coroutine(fused_emulator: Emulator, credentials: FusedCredentials, udf: Udf) -> None:
    def call() -> list[Any]:
        return [
            invalidate_cache(udf.id, credentials, tiles=["1/0/0"]),
            invalidate_cache.submit(udf.id, credentials, tiles=["1/0/0"]).result(),
            invalidate_cache.fn(udf.id, credentials, tiles=["1/0/0"]),
        ]

    @flow
    def in_a_flow() -> list[Any]:
        return call()

    @flow
    async def in_an_async_flow() -> list[Any]:
        return call()

    async def in_a_loop() -> list[Any]:
        return [invalidate_cache.fn(udf.id, credentials, tiles=["1/0/0"])]

    for results in (in_a_flow(), asyncio.run(in_an_async_flow()), asyncio.run(in_a_loop())):
        assert [result["tiles_invalidated"] for result in results] == [1] * len(results)


def test_the_async_one_leaves_the_loop_free(fused_emulator: Emulator, credentials: FusedCredentials, udf: Udf) -> None:
    fused_emulator.misbehave(latency=0.5, times=None)

    @flow
    async def pipeline() -> tuple[Any, int]:
        sending = asyncio.ensure_future(ainvalidate_cache(udf.id, credentials, tiles=["1/0/0"]))
        turns = 0
        while not sending.done():
            await asyncio.sleep(0.01)
            turns += 1
        return await sending, turns

    result, turns = asyncio.run(pipeline())
    assert result["tiles_invalidated"] == 1
    assert turns > 10


def test_it_is_submitted_and_mapped_on_threads(fused_emulator: Emulator, credentials: FusedCredentials, udf: Udf) -> None:
    @flow
    async def pipeline() -> list[Any]:
        one = ainvalidate_cache.submit(udf.id, credentials, tiles=["1/0/0"])
        more = ainvalidate_cache.map(udf.id, credentials=unmapped(credentials), tiles=unmapped(TILES), shard=[(0, 2), (1, 2)])
        return [one.result(), *more.result()]

    assert [result["tiles_invalidated"] for result in asyncio.run(pipeline())] == [1, 100, 100]


def test_cancelling_the_coroutine_stops_the_sending(
    fused_emulator: Emulator,
    credentials: FusedCredentials,
    udf: Udf,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 2)
    fused_emulator.misbehave(latency=0.2, times=None)

    async def cancel_soon() -> float:
        sending = asyncio.ensure_future(ainvalidate_cache.fn(udf.id, credentials, tiles=TILES))
        while len(fused_emulator.requests) < 2:
            await asyncio.sleep(0.01)
        started = time.monotonic()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        return time.monotonic() - started

    assert asyncio.run(cancel_soon()) < 60
    assert 1 < len(fused_emulator.requests) < 100
    assert requests_after(fused_emulator, 0.5) == 0
    assert re.search(r"tiles? (was|were) invalidated before sending failed: The invalidation was cancelled\.", caplog.text)


def test_a_time_out_stops_the_sending(fused_emulator: Emulator, credentials: FusedCredentials, udf: Udf) -> None:
    fused_emulator.misbehave(status=503, retry_after=1, times=None)

    @flow
    async def pipeline() -> str:
        bounded = ainvalidate_cache.with_options(timeout_seconds=1.5, retries=0)
        return str(await bounded(udf.id, credentials, tiles=TILES, return_state=True))

    started = time.monotonic()
    assert "exceeded timeout of 1.5 second(s)" in asyncio.run(pipeline())
    assert time.monotonic() - started < 60
    assert fused_emulator.requests != []
    assert requests_after(fused_emulator, 1.5) == 0
