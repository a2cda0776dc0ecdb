"""Everything that can go wrong on the way, in one call, and no tile lost. With ``-s`` it prints how many faults there were."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from fused_cache_ops import FusedClient, Tile
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.errors import FusedCacheError

TILES = [Tile(17, number % 1000, number // 1000) for number in range(1500)]

FOR_A_WHILE: dict[str, Any] = {"times": None, "seconds": 0.4}
CHAOS: dict[str, list[dict[str, Any]]] = {
    "429 bursts": [{"status": 429, "retry_after": 1} | FOR_A_WHILE] * 2,
    "429 bursts without Retry-After": [{"status": 429} | FOR_A_WHILE] * 3,
    "503 outages": [{"status": 503} | FOR_A_WHILE] * 3,
    "503 with Retry-After": [{"status": 503, "retry_after": 1} | FOR_A_WHILE] * 2,
    "500, 502, 504, 408": [{"status": status, "times": 5} for status in (500, 502, 504, 408)],
    "resets": [{"drop": True, "times": 8}, {"drop": True} | FOR_A_WHILE],
    "resets after the work": [{"drop": True, "after_work": True} | FOR_A_WHILE] * 3,
    "timeouts": [{"latency": 1.2, "times": 5}] * 2,
    "everything": [
        {"status": 429, "retry_after": 1} | FOR_A_WHILE,
        {"drop": True, "times": 5},
        {"status": 503} | FOR_A_WHILE,
        {"latency": 1.2, "times": 4},
        {"drop": True, "after_work": True, "times": 5},
        {"status": 500, "times": 3},
    ],
}


@pytest.fixture(params=[True, False], ids=["batches", "tile by tile"])
def emulator(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    with Emulator(batch_endpoint=request.param) as running:
        yield running


@pytest.fixture
def filled(emulator: Emulator) -> Udf:
    udf = emulator.register(lambda: None, name="roads")
    emulator.fill_cache(udf, TILES)
    return udf


@pytest.fixture
def chaotic(emulator: Emulator) -> Iterator[FusedClient]:
    settings = {"token": emulator.token, "base_url": emulator.base_url, "client_id": emulator.client_id}
    with FusedClient(**settings, timeout=0.8, deadline=60) as client:
        yield client


@pytest.mark.parametrize("faults", CHAOS.values(), ids=CHAOS)
def test_no_tile_is_lost(
    emulator: Emulator,
    filled: Udf,
    chaotic: FusedClient,
    faults: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 10)
    monkeypatch.setattr("fused_cache_ops.progress.CALLBACK_INTERVAL", 0.0)
    # Each fault strikes once the call has come so far, so that they do not all meet its first request.
    to_come = [(len(TILES) * number // (len(faults) + 1), fault) for number, fault in enumerate(faults, 1)]

    def strike(done: int, total: int | None, retries: int) -> None:
        while to_come and done >= to_come[0][0]:
            emulator.misbehave(**to_come.pop(0)[1], path="delete")

    result = chaotic.invalidate_cache(filled.id, tiles=TILES, on_progress=strike)
    purges = [each for each in emulator.requests if each.path.endswith("delete")]
    struck = sum((each.status >= 400 and each.status != 404) or each.status == 0 for each in purges)
    slow = sum(fault["times"] for fault in faults if "latency" in fault)
    lost = emulator.cached_tiles(filled) & set(TILES)
    print(f"\n  {request.node.callspec.id}: {struck + slow} faults, {result.retries} retries, {len(lost)} tiles lost", end="")
    assert to_come == []
    assert struck + slow >= len(faults)
    assert lost == set()
    assert (result.tiles_invalidated, emulator.cached_tiles(filled)) == (len(TILES), set())


@pytest.mark.parametrize("seed", range(3))
def test_whatever_ends_it_what_is_left_is_handed_back(
    emulator: Emulator, filled: Udf, chaotic: FusedClient, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Call after call, each of which ends badly somewhere, with what the one before handed back."""
    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 10)
    monkeypatch.setattr("fused_cache_ops.progress.CALLBACK_INTERVAL", 0.0)
    dice = random.Random(seed)
    left: Any = TILES
    calls = 0
    while True:
        calls += 1
        until = dice.randrange(0, 300)

        def end(done: int, total: int | None, retries: int, until: int = until) -> None:
            if done >= until:
                emulator.misbehave(status=dice.choice([401, 403, 422]), path="delete")

        try:
            chaotic.invalidate_cache(filled.id, tiles=left, on_progress=end if calls < 8 else None)
            break
        except FusedCacheError as error:
            emulator.behave()
            left = list(error.remaining or ())
            assert emulator.cached_tiles(filled) <= set(left)
    assert calls > 3
    assert emulator.cached_tiles(filled) == set()
