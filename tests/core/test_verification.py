"""Verification: sampled tiles are requested after the invalidation, and none may come from the cache."""

import logging
import threading
from collections import Counter
from typing import Any

import pytest

from fused_cache_ops import FusedClient, InvalidationResult, Tile, invalidate_cache
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.errors import ConfigurationError, InvalidInputError
from fused_cache_ops.outcome.invalidation import Verification
from fused_cache_ops.running import asking
from fused_cache_ops.running.asking import freshness
from fused_cache_ops.running.verification import Sample
from fused_cache_ops.selection.batches import TileBatch, TileBatches
from fused_cache_ops.service.service import Service

ALL = ["1/0/0", "1/0/1", "1/1/0", "1/1/1"]


def test_what_was_invalidated_comes_fresh(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    result = client.invalidate_cache(udf.id, tiles=ALL, verify_tiles=3, shared_token=udf.shared_token)
    assert result.verification is not None
    assert (len(result.verification.fresh), result.verification.sampled) == (3, 3)
    assert str(result).endswith("verified: 3 of 3")
    runs = [request for request in fused_emulator.requests if "/run/tiles/" in request.path]
    assert len(runs) == 3
    assert {run.scheme for run in runs} == {""}  # the service's token does not go along


def test_a_verification_keeps_to_the_limit_of_runs_and_ends_with_its_call(
    client: FusedClient, udf: Udf, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiters, retriers = [], []
    branch, read = Service.branch, asking.read_udf

    def branching(self: Service, retrier: Any, **how: Any) -> Any:
        limiters.append((how.get("limiter"), self.run_limiter))
        return branch(self, retrier, **how)

    def reading(service: Service, reference: Any, *, retrier: Any) -> Any:
        retriers.append(retrier)
        return read(service, reference, retrier=retrier)

    monkeypatch.setattr(Service, "branch", branching)
    monkeypatch.setattr(asking, "read_udf", reading)
    client.verify_cache("roads", tiles=ALL, verify_tiles=1, shared_token=udf.shared_token)
    assert any(given is of_runs for given, of_runs in limiters)
    assert len(retriers) == 2  # the named UDF, and that of the token
    assert None not in retriers


def test_what_somebody_asked_for_in_between_is_told(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, caplog: pytest.LogCaptureFixture
) -> None:
    fused_emulator.misbehave(
        status=200, after_work=False, body={"objects_deleted": 1}, path="delete", times=None
    )  # says it did, and did not
    result = client.invalidate_cache(udf.id, tiles=ALL, verify_tiles=10, shared_token=udf.shared_token, fail_on_stale=False)
    assert result.verification == Verification(from_cache=tuple(f"{tile}: memory" for tile in ALL))
    assert "verified: 0 of 4" in caplog.text
    assert "(1/0/0, 1/0/1, 1/1/0, and 1 more: from the cache (memory))" in caplog.text


MEMORY, STORAGE = ("from_cache", "memory"), ("from_cache", "object storage")
FRESH = ("fresh", "")


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({"x-cache": "Hit"}, MEMORY),
        ({"x-cache": "HIT"}, MEMORY),
        ({"x-cache": "HIT", "x-fused-cached": "s3"}, MEMORY),
        ({"x-cache": "Miss", "x-fused-cached": "true"}, STORAGE),
        ({"x-fused-cached": "s3"}, STORAGE),
        ({"x-fused-cached": "false"}, STORAGE),
        ({"x-fused-cached": ""}, STORAGE),
        ({"x-cache": "Hit from cloudfront", "x-fused-cached": "true"}, STORAGE),
        ({"x-cache": "Miss"}, FRESH),
        ({"x-cache": "Miss from cloudfront", "age": "0"}, FRESH),
        ({}, FRESH),
    ],
    ids=str,
)
def test_a_tile_is_fresh_or_cached_by_the_sdks_rule(headers: dict[str, str], found: tuple[str, str]) -> None:
    assert freshness(headers) == found


@pytest.mark.parametrize(
    "headers",
    [{"x-cache": "Hit from cloudfront"}, {"x-cache": "MISS, HIT"}, {"x-cache": "Miss", "age": "7"}, {"age": "long"}],
    ids=str,
)
def test_where_a_cdn_may_have_answered_nothing_is_known(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    fused_emulator.misbehave(status=200, headers=headers, path="/run/tiles/")
    found = client.verify_cache(udf.shared_token, tiles=["1/0/0"], verify_tiles=1)
    (unknown,) = found.unknown
    assert found.sampled == 1
    assert unknown.startswith("1/0/0: a cache in front of Fused may have answered")
    assert list(headers.values())[-1] in unknown
    assert unknown in caplog.text


@pytest.mark.parametrize("headers", [{}, {"x-cache": "Hit"}, {"x-fused-cached": "s3"}], ids=str)
@pytest.mark.parametrize("status", [202, 203, 204, 301, 404])
def test_only_a_200_says_anything(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, status: int, headers: dict[str, str]
) -> None:
    fused_emulator.misbehave(status=status, headers=headers, path="/run/tiles/", times=None)
    found = client.verify_cache(udf.shared_token, tiles=["1/0/0"], verify_tiles=1)
    assert (found.fresh, found.from_cache) == ((), ())
    assert f"answered {status}" in found.unknown[0]


def test_a_udf_that_fails_proves_nothing(client: FusedClient, fused_emulator: Emulator) -> None:
    broken = fused_emulator.register(lambda z, x, y: 1 / 0, name="broken")
    result = client.invalidate_cache(broken.id, tiles=ALL, verify_tiles=4, shared_token=broken.shared_token)
    assert result.verification is not None
    assert [each.split(":")[0] for each in result.verification.unknown] == ALL
    assert "answered 500" in result.verification.unknown[0]


def test_a_udf_given_by_its_shared_token_needs_no_other(fused_emulator: Emulator, udf: Udf) -> None:
    result = invalidate_cache(udf.shared_token, tiles=ALL, verify_tiles=2)
    assert result.verification is not None
    assert len(result.verification.fresh) == 2


def test_the_result_of_a_verification_is_json(client: FusedClient, udf: Udf) -> None:
    result = client.invalidate_cache(udf.id, tiles=ALL[:1], verify_tiles=1, shared_token=udf.shared_token)
    assert result.to_dict()["verification"] == {"fresh": ["1/0/0"], "from_cache": [], "unknown": []}
    assert InvalidationResult.merge([result, result.to_dict()]).verification == Verification(fresh=("1/0/0", "1/0/0"))


def test_an_empty_selection_has_nothing_to_verify(client: FusedClient, udf: Udf) -> None:
    result = client.invalidate_cache(udf.id, tiles=[], verify_tiles=5, shared_token=udf.shared_token)
    assert result.verification == Verification()


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"verify_tiles": -1}, InvalidInputError, "a whole number of tiles"),
        ({"verify_tiles": True}, InvalidInputError, "a whole number of tiles"),
        ({"verify_tiles": 1001}, InvalidInputError, "from 0 to 1,000"),
        ({"verify_tiles": 1}, ConfigurationError, "needs a shared token"),
        ({"verify_tiles": 1, "shared_token": ""}, ConfigurationError, "begin with fsh_"),
        ({"verify_tiles": 1, "shared_token": "roads"}, ConfigurationError, "begin with fsh_"),
    ],
)
def test_what_cannot_be_verified_fails_before_anything_is_sent(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, keywords: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        client.invalidate_cache(udf.id, tiles=ALL, **keywords)
    assert fused_emulator.requests == []


def test_the_whole_udf_has_no_tiles_to_verify(client: FusedClient, udf: Udf) -> None:
    with pytest.raises(InvalidInputError, match="verify_tiles = 1 needs a selection"):
        client.invalidate_cache(udf.id, verify_tiles=1, shared_token=udf.shared_token)


def test_another_deployment_must_say_where_its_udfs_run(udf: Udf) -> None:
    with FusedClient(token="t", client_id="c", base_url="https://fused.example.com") as client:
        with pytest.raises(ConfigurationError, match="FUSED_RUN_BASE_URL"):
            client.invalidate_cache(udf.id, tiles=ALL, verify_tiles=1, shared_token=udf.shared_token)


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({}, "https://udf.ai"),
        ({"base_url": "https://fused.example.com", "run_base_url": "https://run.example.com/"}, "https://run.example.com"),
        ({"base_url": "http://127.0.0.1:8765"}, "http://127.0.0.1:8765"),
    ],
)
def test_where_shared_udfs_run(settings: dict[str, Any], address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUSED_BASE_URL", raising=False)
    assert FusedClient(token="t", **settings).run_base_url == address


def test_the_shared_token_is_in_no_log(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fused_emulator.misbehave(drop=True, path="/run/tiles/", times=None)
    result = client.invalidate_cache(udf.id, tiles=ALL, verify_tiles=2, shared_token=udf.shared_token)
    fused_emulator.behave()
    client.invalidate_cache(udf.id, tiles=ALL, verify_tiles=2, shared_token=udf.shared_token)
    client.resolve_udf(udf.shared_token)
    assert udf.shared_token not in caplog.text + str(result) + repr(result)
    assert "/fsh_********/run/tiles/" in caplog.text


def test_no_thread_is_left_behind(client: FusedClient, udf: Udf) -> None:
    client.invalidate_cache(udf.id, tiles=ALL, verify_tiles=4, shared_token=udf.shared_token)
    assert [thread for thread in threading.enumerate() if thread.name.startswith("fused-cache-ops-verify")] == []


@pytest.mark.parametrize("size", [1, 3, 10])
def test_a_sample_is_drawn_evenly(size: int) -> None:
    tiles = [Tile(6, number, 0) for number in range(30)]
    counts: Counter[Tile] = Counter()
    for _ in range(4000):
        sample = Sample(size)
        for batch in TileBatches(iter(tiles), 7):
            sample.add(batch)
        assert len(set(sample.tiles)) == size
        counts.update(sample.tiles)
    expected = 4000 * size / 30
    assert set(counts) == set(tiles)
    assert all(abs(count - expected) < 6 * expected**0.5 for count in counts.values())


def test_a_sample_of_more_than_there_is_is_all() -> None:
    sample = Sample(5)
    sample.add(TileBatch.of(Tile(1, 0, 0), 0))
    assert sample.tiles == [(1, 0, 0)]
