"""A dataset whose UDFs hang, wait or refresh: the others are invalidated all the same, and at once."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fused_cache_ops import CacheMap, DatasetInvalidationError, FusedClient
from fused_cache_ops.emulator import Emulator, Udf

TILES = ["1/0/0", "1/0/1"]
COUNT = 20


@pytest.fixture
def many(fused_emulator: Emulator) -> list[Udf]:
    """UDFs with two cached tiles each."""
    udfs = []
    for number in range(COUNT):
        udf = fused_emulator.register(lambda **tile: tile, name=f"u{number}")
        fused_emulator.fill_cache(udf, [(1, 0, 0), (1, 0, 1)])
        udfs.append(udf)
    return udfs


def invalidated(emulator: Emulator, udfs: list[Udf], own: Callable[[int], dict[str, Any]], deadline: float) -> Any:
    """What the call for all of them returned or raised."""
    entries = [{"udf": udf.id, **own(number)} for number, udf in enumerate(udfs)]
    cache_map = CacheMap.from_dict({"datasets": {"d": {"udfs": entries}}})
    with FusedClient(client_id=emulator.client_id, deadline=deadline) as client:
        try:
            return client.invalidate_dataset("d", cache_map=cache_map, tiles=TILES)
        except DatasetInvalidationError as error:
            return error


@pytest.mark.parametrize("first", [0, 6, 12], ids=["the first", "in the middle", "the last"])
def test_those_that_hang_keep_no_other_from_being_invalidated(fused_emulator: Emulator, many: list[Udf], first: int) -> None:
    hanging = set(range(first, first + 8))  # as many as are invalidated side by side
    for number in hanging:
        fused_emulator.misbehave(latency=60, times=None, path=many[number].id)
    error = invalidated(fused_emulator, many, lambda _: {}, deadline=12)
    assert set(error.result.failed) == {many[number].id for number in hanging}
    healthy = [udf for number, udf in enumerate(many) if number not in hanging]
    assert [udf.slug for udf in healthy if fused_emulator.cached_tiles(udf)] == []


@given(st.lists(st.sampled_from(["is well", "is well", "hangs", "waits", "is refused", "refreshes"]), min_size=30, max_size=30))
@settings(max_examples=3, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_others_do_each_udf_that_answers_is_fresh(fused_emulator: Emulator, fates: list[str]) -> None:
    fused_emulator.behave()
    udfs = []
    for number, fate in enumerate(fates):
        udf = fused_emulator.register(lambda **tile: tile, name=f"v{number}")
        fused_emulator.fill_cache(udf, [(1, 0, 0), (1, 0, 1)])
        udfs.append(udf)
        if fate == "hangs":
            fused_emulator.misbehave(latency=60, times=None, path=udf.id)
        if fate == "is refused":
            fused_emulator.misbehave(status=403, times=None, path=udf.id)

    def own(number: int) -> dict[str, Any]:
        asked = {"waits": {"again_after": 1.0}, "refreshes": {"udf": udfs[number].shared_token, "refresh": "all"}}
        return asked.get(fates[number], {})

    outcome = invalidated(fused_emulator, udfs, own, deadline=16)
    stale = {number for number, udf in enumerate(udfs) if fused_emulator.cached_tiles(udf)}
    failed = {number for number, fate in enumerate(fates) if fate in ("hangs", "is refused")}
    assert stale - {number for number, fate in enumerate(fates) if fate == "refreshes"} == failed
    assert len(getattr(outcome, "result", outcome).failed) == len(failed)


def test_those_that_wait_wait_together(fused_emulator: Emulator, many: list[Udf]) -> None:
    result = invalidated(fused_emulator, many, lambda number: {"again_after": 1.0} if number % 2 else {}, deadline=20)
    assert [each.second_pass for each in result.results.values()] == [None, "done"] * (COUNT // 2)
    assert result.elapsed_seconds < 10  # ten waits in a row


def test_nothing_is_run_before_everything_is_invalidated(fused_emulator: Emulator, many: list[Udf]) -> None:
    entries = [{"udf": udf.shared_token, **({"refresh": "all"} if number < 10 else {})} for number, udf in enumerate(many)]
    cache_map = CacheMap.from_dict({"datasets": {"d": {"udfs": entries}}})
    with FusedClient(client_id=fused_emulator.client_id, deadline=60) as client:
        client.invalidate_dataset("d", cache_map=cache_map, tiles=TILES)
    kinds = [
        "/run/" in request.path for request in fused_emulator.requests if "delete" in request.path or "/run/" in request.path
    ]
    assert sum(kinds) == 20
    assert kinds == sorted(kinds)


def test_the_instances_are_looked_up_once_for_all(fused_emulator: Emulator, many: list[Udf]) -> None:
    entries = [{"udf": udf.id} for udf in many]
    cache_map = CacheMap.from_dict({"datasets": {"d": {"udfs": entries}}})
    with FusedClient(deadline=60) as client:
        client.invalidate_dataset("d", cache_map=cache_map, tiles=TILES)
    assert sum("realtime-instance" in request.path for request in fused_emulator.requests) == 1


def test_an_entrys_shared_token_is_read_from_the_variable_that_it_names(
    fused_emulator: Emulator, many: list[Udf], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONE", many[0].shared_token)
    entries = [{"udf": "u0", "verify_tiles": 2, "shared_token_env": "ONE"}]
    cache_map = CacheMap.from_dict({"datasets": {"d": {"udfs": entries}}})
    with FusedClient(deadline=20) as client:
        result = client.invalidate_dataset("d", cache_map=cache_map, tiles=TILES)
    assert str(result.results["u0"].verification) == "verified: 2 of 2"
    assert many[0].shared_token not in repr(cache_map)
