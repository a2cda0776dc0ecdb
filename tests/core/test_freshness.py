"""Nothing is called fresh that may be stale."""

import logging
import time

import pytest

from fused_cache_ops import ConfigurationError, FusedClient
from fused_cache_ops.emulator import Emulator, Udf


def test_what_no_response_came_for_is_unknown_and_may_be_tried_again(
    client: FusedClient, fused_emulator: Emulator, udf: Udf
) -> None:
    fused_emulator.misbehave(status=503, retry_after=10_000, times=None, path="/run/tiles/")  # longer than the deadline
    result = client.invalidate_cache(udf.shared_token, tiles=["1/0/0"], refresh=1, verify_tiles=1)
    assert result.refresh is not None
    assert (result.refresh.runs, result.refresh.already_cached, result.refresh.retryable) == (0, 0, True)
    assert result.verification is not None
    assert (result.verification.fresh, result.verification.from_cache) == ((), ())
    for (told,) in (result.verification.unknown, result.refresh.failed):
        assert told.startswith("1/0/0: ")
        assert "503" in told


def test_what_takes_longer_than_the_refresh_may_be_tried_again(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(latency=3, path="/run/tiles/")
    found = client.refresh_cache(udf.shared_token, tiles=["1/0/0"], refresh={"deadline": 1})
    assert (found.runs, found.already_cached, found.is_complete, found.retryable) == (0, 0, False, True)


def test_a_tile_that_was_only_turned_away_before_is_still_told_stale(
    client: FusedClient, fused_emulator: Emulator, udf: Udf
) -> None:
    fused_emulator.misbehave(
        status=200, after_work=False, body={"objects_deleted": 1}, path="delete", times=None
    )  # says it did, and did not
    fused_emulator.misbehave(status=429, retry_after=0, path="/run/tiles/")
    result = client.invalidate_cache(
        udf.shared_token, tiles=["1/0/0", "1/0/1"], refresh="all", verify_tiles=2, fail_on_stale=False
    )
    assert result.verification is not None
    assert [tile.partition(":")[0] for tile in result.verification.from_cache] == ["1/0/0", "1/0/1"]


def test_a_shared_token_with_a_line_break_verifies(client: FusedClient, udf: Udf) -> None:
    found = client.verify_cache(udf.id, tiles=["2/0/0"], verify_tiles=1, shared_token=f"{udf.shared_token}\n")
    assert found.fresh == ("2/0/0",)


def test_the_seconds_of_a_run_are_its_own(client: FusedClient, fused_emulator: Emulator) -> None:
    def slow(z: int, x: int, y: int) -> list[int]:
        time.sleep(0.2)
        return [z, x, y]

    found = client.refresh_cache(fused_emulator.register(slow).shared_token, tiles=["1/0/0"])
    assert found.seconds_median is not None
    assert 0.2 <= found.seconds_median <= found.elapsed_seconds


def test_all_may_be_sampled_up_to_the_limit(client: FusedClient, udf: Udf) -> None:
    found = client.verify_cache(udf.shared_token, tiles=["2/0/0", "2/0/1"], verify_tiles=1000)
    assert found.fresh == ("2/0/0", "2/0/1")


def test_what_needs_a_shared_token_is_named(client: FusedClient, udf: Udf) -> None:
    with pytest.raises(ConfigurationError, match=r"^verify_tiles needs a shared token"):
        client.invalidate_cache(udf.id, tiles=["1/0/0"], verify_tiles=1)


def test_where_all_is_fresh_nobody_is_warned(client: FusedClient, udf: Udf, caplog: pytest.LogCaptureFixture) -> None:
    client.verify_cache(udf.shared_token, tiles=["2/0/0"], verify_tiles=1)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
