"""How long a map was stale: from the load to the last confirmation, and to the first tile that is known to be fresh."""

import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from fused_cache_ops import (
    CacheMap,
    FusedClient,
    InvalidationResult,
    InvalidInputError,
    invalidate_cache,
    invalidate_dataset,
)
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.keywords.moment import read_moment

MINUTE = timedelta(minutes=1)


def ago(**how: float) -> datetime:
    return datetime.now(timezone.utc) - timedelta(**how)


@pytest.mark.parametrize(
    "write", [lambda moment: moment, datetime.isoformat, datetime.timestamp], ids=["datetime", "text", "number"]
)
def test_the_result_says_how_many_seconds_passed_since_the_load(udf: Udf, write: Callable[[datetime], Any]) -> None:
    result = invalidate_cache("roads", tiles=["1/0/0"], loaded_at=write(ago(minutes=1)))
    assert result.seconds_until_invalidated is not None
    assert 60 <= result.seconds_until_invalidated < 75
    assert result.seconds_until_fresh is None
    assert f"invalidated {result.seconds_until_invalidated:.1f} s after the load" in str(result)
    assert "after the load" in result._repr_html_()


def test_without_it_nothing_is_measured(udf: Udf) -> None:
    result = invalidate_cache("roads", tiles=["1/0/0"], verify_tiles=1, shared_token=udf.shared_token)
    assert (result.loaded_at, result.seconds_until_invalidated, result.seconds_until_fresh, result.stale_time) == (None,) * 4


@pytest.mark.parametrize("how", [{"verify_tiles": 2}, {"refresh": "all"}, {"verify_tiles": 1, "refresh": 2}], ids=str)
def test_the_first_tile_that_was_computed_anew_is_noted(fused_emulator: Emulator, how: Any) -> None:
    def draw(**tile: str) -> int:
        time.sleep(0.2)
        return 1

    udf = fused_emulator.register(draw, name="slow")
    result = invalidate_cache("slow", tiles=["1/0/0", "1/0/1"], loaded_at=ago(seconds=1), shared_token=udf.shared_token, **how)
    assert result.seconds_until_invalidated is not None
    assert result.seconds_until_fresh is not None
    assert result.seconds_until_fresh - result.seconds_until_invalidated >= 0.2


def test_a_tile_from_the_cache_is_not_fresh(fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=200, body={}, headers={"x-cache": "hit"}, path="/run/tiles/", times=None)
    how: Any = {"verify_tiles": 1, "shared_token": udf.shared_token, "fail_on_stale": False}
    assert invalidate_cache("roads", tiles=["1/0/0"], loaded_at=ago(seconds=1), **how).seconds_until_fresh is None


def test_a_second_pass_is_what_counts(udf: Udf) -> None:
    first_done = invalidate_cache("roads", tiles=["1/0/0"], loaded_at=ago(seconds=0)).seconds_until_invalidated
    result = invalidate_cache("roads", tiles=["1/0/0"], loaded_at=ago(seconds=0), again_after=1)
    assert first_done is not None
    assert result.seconds_until_invalidated is not None
    assert result.seconds_until_invalidated >= 1
    with FusedClient() as client:
        how: Any = {"tiles": ["1/0/0"], "again_after": 1, "loaded_at": ago(minutes=1)}
        first = client.first_pass("roads", **how)
        second = client.second_pass("roads", first, **how)
    assert first.result.seconds_until_invalidated is not None
    assert second.seconds_until_invalidated is not None
    assert second.seconds_until_invalidated > first.result.seconds_until_invalidated >= 60


def test_each_udf_of_a_dataset_has_its_own(fused_emulator: Emulator, udf: Udf) -> None:
    known = CacheMap.from_dict({"datasets": {"d": {"udfs": [{"udf": "roads"}]}}})
    result = invalidate_dataset("d", cache_map=known, tiles=["1/0/0"], loaded_at=ago(minutes=1))
    assert 60 <= (result.results["roads"].seconds_until_invalidated or 0) < 75
    assert "after the load" in result._repr_html_()
    with pytest.raises(InvalidInputError, match="unknown key 'loaded_at'"):
        CacheMap.from_dict({"datasets": {"d": {"udfs": [{"udf": "roads", "loaded_at": 0}]}}})


def test_the_result_is_json_and_can_be_merged(udf: Udf) -> None:
    results = [invalidate_cache("roads", tiles=["1/0/0"], loaded_at=ago(seconds=seconds)) for seconds in (5, 9)]
    assert [InvalidationResult.from_dict(json.loads(json.dumps(each.to_dict()))) for each in results] == results
    merged = InvalidationResult.merge(results)
    assert merged.seconds_until_invalidated == results[1].seconds_until_invalidated
    assert merged.loaded_at == results[1].loaded_at


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T06:30:00Z", (2026, 11, 22, 6, 30, 0, 0)),
        ("2026-11-22 06:30:00+00:00", (2026, 11, 22, 6, 30, 0, 0)),
        ("2026-11-22T08:30:00.5+02:00", (2026, 11, 22, 6, 30, 0, 500_000)),
        ("2026-11-22T06:30:00.123456789z", (2026, 11, 22, 6, 30, 0, 123_456)),
        ("1795329000", (2026, 11, 22, 6, 30, 0, 0)),
        (1795329000.25, (2026, 11, 22, 6, 30, 0, 250_000)),
    ],
)
def test_a_time_is_read_in_every_form_that_a_pipeline_has(text: Any, moment: Any) -> None:
    assert read_moment("loaded_at", text) == datetime(*moment, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "given",
    [None, "", "None", "now", "2026-11-22", "2026-11-22T06:30:00", True, float("nan"), 1e20, [], b"x", {}]
    + [datetime(2026, 1, 1), "2999-01-01T00:00:00Z"],
    ids=repr,
)
def test_what_is_no_time_is_refused_before_anything_is_sent(fused_emulator: Emulator, given: Any) -> None:
    with pytest.raises(InvalidInputError, match="loaded_at"):
        invalidate_cache("roads", loaded_at=given)
    assert fused_emulator.requests == []


def test_a_clock_that_is_a_little_behind_is_no_error(udf: Udf) -> None:
    result = invalidate_cache("roads", tiles=["1/0/0"], loaded_at=datetime.now(timezone.utc) + MINUTE)
    assert result.seconds_until_invalidated == 0
