"""A yes is what is documented as a yes: answers drawn from a grammar of yes, no and neither."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fused_cache_ops import FusedCacheError, FusedClient, UnconfirmedError, UnexpectedResponseError
from fused_cache_ops.emulator import Emulator, Udf

TILES = ["1/0/0", "1/0/1"]
PROBLEM = st.sampled_from(
    [{"error": "no"}, {"errors": ["no"]}, {"detail": "no"}, {"detail": [{"msg": "no"}]}, {"error": "no", "objects_deleted": 2}]
)
NEITHER = st.sampled_from(
    [{}, {"ok": True}, [], "done", b"", b"done", {"objects_deleted": None}, {"objects_deleted": "2"}, {"objects_deleted": -1}]
)


def send(client: FusedClient, udf: Udf, tiles: list[str]) -> Any:
    """What a call with these tiles returns or raises."""
    try:
        return client.invalidate_cache(udf.id, tiles=tiles)
    except FusedCacheError as error:
        return error


@given(status=st.sampled_from([200, 201, 202, 203, 206, 207]), body=PROBLEM, count=st.sampled_from([1, 2]))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_error_in_the_form_of_a_success_is_an_error(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, status: int, body: Any, count: int
) -> None:
    fused_emulator.behave()
    fused_emulator.misbehave(status=status, after_work=False, body=body, path="delete", times=None)
    error = send(client, udf, TILES[:count])
    assert isinstance(error, UnexpectedResponseError)
    assert not error.retryable
    assert len(list(error.remaining or ())) == count


@given(status=st.sampled_from([200, 202, 206, 207]), body=NEITHER)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_batch_that_is_answered_by_neither_is_settled_tile_by_tile(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, status: int, body: Any
) -> None:
    fused_emulator.behave()
    fused_emulator.forget_requests()
    fused_emulator.misbehave(status=status, after_work=False, body=body, path="batch-delete", times=None)
    result = send(client, udf, TILES)
    assert result.tiles_invalidated == 2
    assert [request.method for request in fused_emulator.requests] == ["POST", "DELETE", "DELETE"]


@pytest.mark.parametrize("status", [201, 202, 203, 206, 207])
def test_a_tile_that_is_answered_by_neither_is_not_confirmed(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, status: int
) -> None:
    fused_emulator.misbehave(status=status, after_work=False, body=b"", path="delete")
    assert isinstance(send(client, udf, TILES[:1]), UnconfirmedError)


@pytest.mark.parametrize(("status", "body"), [(204, b""), (200, {"objects_deleted": 2}), (200, {"objects_deleted": 0})])
def test_what_is_documented_is_a_yes(client: FusedClient, fused_emulator: Emulator, udf: Udf, status: int, body: Any) -> None:
    fused_emulator.misbehave(status=status, after_work=False, body=body, path="batch-delete")
    assert send(client, udf, TILES).tiles_invalidated == 2
    assert len(fused_emulator.requests) == 1


@pytest.mark.parametrize(("status", "body"), [(204, b""), (200, b""), (200, {}), (200, {"ok": True}), (200, b"done")])
def test_a_tiles_yes_needs_no_count(client: FusedClient, fused_emulator: Emulator, udf: Udf, status: int, body: Any) -> None:
    fused_emulator.misbehave(status=status, after_work=False, body=body, path="delete")
    assert send(client, udf, TILES[:1]).tiles_invalidated == 1


def test_later_batches_are_settled_too(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 2)
    fused_emulator.before_invalidation = lambda: fused_emulator.misbehave(
        status=202, after_work=False, body=b"", path="batch-delete"
    )
    assert send(client, udf, ["1/0/0", "1/0/1", "1/1/0", "1/1/1"]).tiles_invalidated == 4
    assert fused_emulator.cached_tiles(udf) == set()
