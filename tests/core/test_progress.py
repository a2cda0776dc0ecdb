"""Progress: told in the caller's thread, to a callback and to the log."""

import logging
import threading

import pytest

from fused_cache_ops import FusedClient, Tile, progress
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.outcome.invalidation import PartialInvalidationError

TILES = [Tile(17, number, 0) for number in range(100)]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 10)


def test_it_begins_with_nothing_and_ends_with_everything(client: FusedClient, udf: Udf) -> None:
    told: list[tuple[int, int | None, int]] = []
    client.invalidate_cache(udf.id, tiles=TILES, on_progress=lambda *each: told.append(each))
    assert (told[0], told[-1]) == ((0, 100, 0), (100, 100, 0))
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)


def test_it_is_told_in_between(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(latency=0.25, times=None)
    told: list[int] = []
    client.invalidate_cache(udf.id, tiles=TILES, on_progress=lambda done, total, retries: told.append(done))
    assert len(set(told) - {0, 100}) >= 2


def test_it_is_told_in_the_callers_thread(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(latency=0.1, times=None)
    threads: set[int] = set()
    client.invalidate_cache(udf.id, tiles=TILES, on_progress=lambda *each: threads.add(threading.get_ident()))
    assert threads == {threading.get_ident()}


def test_of_a_generator_nobody_knows_the_total(client: FusedClient, udf: Udf) -> None:
    totals: set[int | None] = set()
    client.invalidate_cache(udf.id, tiles=iter(TILES), on_progress=lambda done, total, retries: totals.add(total))
    assert totals == {None}


def test_of_bounds_the_total_is_known_without_making_tiles(client: FusedClient, udf: Udf) -> None:
    totals: set[int | None] = set()
    client.invalidate_cache(udf.id, bounds=(0, 0, 1, 1), zooms="8", on_progress=lambda done, total, retries: totals.add(total))
    assert totals == {1}


def test_retries_are_reported(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=500, times=3)
    told: list[int] = []
    client.invalidate_cache(udf.id, tiles=TILES, on_progress=lambda done, total, retries: told.append(retries))
    assert told[-1] == 3


def test_a_callback_that_fails_ends_the_call_and_loses_nothing(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.fill_cache(udf, TILES)
    fused_emulator.misbehave(latency=0.5, times=None)  # so that the callback is due again before the answers are in
    failed: list[int] = []

    def fail(done: int, total: int | None, retries: int) -> None:
        if done > 30:
            failed.append(done)
            raise ZeroDivisionError

    with pytest.raises(PartialInvalidationError) as caught:
        client.invalidate_cache(udf.id, tiles=TILES, on_progress=fail)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert len(failed) == 1
    assert fused_emulator.cached_tiles(udf) & set(TILES) == set(caught.value.remaining)


def test_the_log_has_a_line_now_and_then(
    client: FusedClient,
    fused_emulator: Emulator,
    udf: Udf,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "LOG_INTERVAL", 0.3)
    fused_emulator.misbehave(latency=0.2, times=None)
    with caplog.at_level(logging.INFO, "fused_cache_ops"):
        client.invalidate_cache(udf.id, tiles=TILES)
    lines = [record.getMessage() for record in caplog.records if record.name == "fused_cache_ops.progress"]
    assert 1 <= len(lines) <= 5
    assert " of 100 tiles (" in lines[0]
