"""Verification is a verdict: what looked at nothing has not passed, and what stays stale fails."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import requests

from fused_cache_ops import (
    FusedCacheError,
    FusedClient,
    InvalidInputError,
    PartialInvalidationError,
    RefreshError,
    VerificationError,
)
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.running import verification
from fused_cache_ops.sending import call as sending

ALL = ["1/0/0", "1/0/1", "1/1/0", "1/1/1"]
LIE = {"status": 200, "after_work": False, "body": {"objects_deleted": 4}, "path": "batch-delete"}  # it did not


@pytest.fixture
def out_of_reach(fused_emulator: Emulator, parcels: Udf) -> Udf:
    """A UDF whose map runs on another instance than the one that the client invalidates on."""
    fused_emulator.fill_cache(parcels, [(10, 1, 1), (10, 1, 2)], client_id="fused-maps")
    return parcels


def test_a_tile_that_came_from_the_cache_is_invalidated_and_asked_for_again(
    client: FusedClient, fused_emulator: Emulator, udf: Udf
) -> None:
    fused_emulator.misbehave(**LIE)
    result = client.invalidate_cache(udf.id, tiles=ALL, verify_tiles=4, shared_token=udf.shared_token)
    assert result.verification is not None
    assert sorted(result.verification.fresh) == ALL
    assert [request.path.rpartition("/")[2] for request in fused_emulator.requests if request.method == "POST"] == [
        "batch-delete"
    ] * 2


def test_a_visitor_in_between_does_not_fail_it(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, asked = sending.request_tiles, []

    def after_a_visit(*given: Any) -> Any:
        if not asked:
            requests.get(f"{fused_emulator.root_url}/{udf.shared_token}/run/tiles/1/0/0", timeout=30)
        asked.append(given[-1])
        return ask(*given)

    monkeypatch.setattr(sending, "request_tiles", after_a_visit)
    result = client.invalidate_cache(udf.id, tiles=ALL, verify_tiles=4, shared_token=udf.shared_token)
    assert result.verification is not None
    assert len(result.verification.fresh) == 4
    assert [list(map(str, tiles)) for tiles in asked[1:]] == [["1/0/0"]]


def test_what_stays_stale_fails_with_what_was_done_and_what_is_left(client: FusedClient, out_of_reach: Udf) -> None:
    with pytest.raises(VerificationError, match="2 of 2 tiles still came from the cache") as caught:
        client.invalidate_cache(
            out_of_reach.id, tiles=["10/1/1", "10/1/2"], verify_tiles=2, shared_token=out_of_reach.shared_token
        )
    error = caught.value
    assert error.retryable
    assert error.result.tiles_invalidated == 2
    assert error.remaining is not None
    assert sorted(error.remaining) == [(10, 1, 1), (10, 1, 2)]
    again = pickle.loads(pickle.dumps(error))
    assert (again.result, list(again.remaining)) == (error.result, list(error.remaining))


def test_what_stays_stale_may_be_accepted(client: FusedClient, out_of_reach: Udf, caplog: pytest.LogCaptureFixture) -> None:
    result = client.invalidate_cache(
        out_of_reach.id, tiles=["10/1/1"], verify_tiles=1, shared_token=out_of_reach.shared_token, fail_on_stale=False
    )
    assert result.verification is not None
    assert result.verification.from_cache == ("10/1/1: memory",)
    assert "10/1/1: from the cache (memory)" in caplog.text


def test_what_stays_stale_fails_beside_a_refresh_too(client: FusedClient, out_of_reach: Udf) -> None:
    with pytest.raises(VerificationError):
        client.invalidate_cache(
            out_of_reach.id, tiles=["10/1/1"], verify_tiles=1, refresh="all", shared_token=out_of_reach.shared_token
        )


def test_what_is_unknown_is_a_warning(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=500, path="/run/tiles/")
    result = client.invalidate_cache(udf.id, tiles=["1/0/0"], verify_tiles=1, shared_token=udf.shared_token)
    assert result.verification is not None
    assert len(result.verification.unknown) == 1


def test_looking_alone_never_fails(client: FusedClient, out_of_reach: Udf) -> None:
    found = client.verify_cache(out_of_reach.id, tiles=["10/1/1"], verify_tiles=1, shared_token=out_of_reach.shared_token)
    assert found.from_cache == ("10/1/1: memory",)


def test_after_a_resume_tiles_of_the_whole_selection_are_looked_at(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, tmp_path: Path
) -> None:
    keywords: Any = {"tiles": ALL, "checkpoint": tmp_path / "c.json", "verify_tiles": 4, "shared_token": udf.shared_token}
    fused_emulator.misbehave(status=500, path="/run/tiles/1/1/1")
    with pytest.raises(RefreshError):  # everything is invalidated, and recorded
        client.invalidate_cache(udf.id, refresh={"must_succeed": True}, **keywords)

    result = client.invalidate_cache(udf.id, refresh={"must_succeed": True}, **keywords)
    assert (result.tiles_invalidated, result.tiles_already_done) == (0, 4)
    assert result.verification is not None
    assert result.verification.sampled == 4


@pytest.mark.parametrize("keywords", [{"verify_tiles": 1}, {"refresh": "all"}], ids=str)
def test_a_shared_token_of_another_udf_is_refused_before_anything_is_sent(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, keywords: Any
) -> None:
    other = fused_emulator.register(dict, name="other")
    with pytest.raises(InvalidInputError, match="shared_token belongs to UDF other, not to"):
        client.invalidate_cache(udf.id, tiles=ALL, shared_token=other.shared_token, **keywords)
    assert len(fused_emulator.cached_tiles(udf)) == 4
    assert fused_emulator.runs == []


def test_nor_does_it_verify_or_refresh_by_itself(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    other = fused_emulator.register(dict, name="other")
    with pytest.raises(InvalidInputError, match="shared_token belongs to UDF other"):
        client.verify_cache("roads", tiles=ALL, verify_tiles=1, shared_token=other.shared_token)
    with pytest.raises(InvalidInputError, match="shared_token belongs to UDF other"):
        client.refresh_cache("roads", tiles=ALL, shared_token=other.shared_token)
    assert fused_emulator.runs == []


def test_a_partial_failure_names_each_udf_and_instance(fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.add_instance("fused-second")
    fused_emulator.misbehave(status=403, times=None, path="fused-second")
    with FusedClient(client_id="all", deadline=20) as client, pytest.raises(PartialInvalidationError) as caught:
        client.invalidate_cache("roads", tiles=ALL)
    assert "UDF roads on instance fused-second: " in caught.value.message


def test_an_instance_that_is_added_later_is_invalidated_too(fused_emulator: Emulator, udf: Udf) -> None:
    with FusedClient(client_id="all", deadline=20) as client:
        assert len(client.invalidate_cache("roads", tiles=ALL).client_ids) == 1
        fused_emulator.add_instance("fused-second")
        assert len(client.invalidate_cache("roads", tiles=ALL).client_ids) == 2


@pytest.mark.parametrize("rank", ["high", [1], True, {}])
def test_a_rank_that_is_none_is_an_error_of_ours(client: FusedClient, fused_emulator: Emulator, udf: Udf, rank: Any) -> None:
    body = [{"client_id": "a", "preference_rank": rank}, {"client_id": "b", "preference_rank": 2}]
    fused_emulator.misbehave(status=200, body=body, path="realtime-instance")
    with FusedClient() as own, pytest.raises(Exception, match="list of real-time instances is malformed") as caught:
        own.invalidate_cache(udf.id, tiles=ALL)
    assert type(caught.value).__name__ == "UnexpectedResponseError"


# -- whose token it is ----------------------------------------------------------------------------------------------------


@pytest.fixture
def rivers(fused_emulator: Emulator) -> Udf:
    return fused_emulator.register(dict, name="rivers")


WITH_A_TOKEN: dict[str, Any] = {
    "verify": lambda client, udf, token: client.verify_cache(udf, tiles=["1/0/0"], verify_tiles=1, shared_token=token),
    "refresh": lambda client, udf, token: client.refresh_cache(udf, tiles=["1/0/0"], shared_token=token),
    "invalidate": lambda client, udf, token: client.invalidate_cache(udf, tiles=["1/0/0"], verify_tiles=1, shared_token=token),
}


@pytest.mark.parametrize("what", WITH_A_TOKEN)
@pytest.mark.parametrize("by_name", [True, False])
def test_a_shared_token_of_another_udf_is_refused_however_the_udf_is_named(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, rivers: Udf, what: str, by_name: bool
) -> None:
    with pytest.raises(InvalidInputError, match="shared_token belongs to UDF rivers"):
        WITH_A_TOKEN[what](client, "roads" if by_name else udf.id, rivers.shared_token)
    assert fused_emulator.runs == []
    assert len(fused_emulator.cached_tiles(udf)) == 4


@pytest.mark.parametrize("what", WITH_A_TOKEN)
@pytest.mark.parametrize("by_name", [True, False])
def test_the_udfs_own_shared_token_is_taken_however_the_udf_is_named(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, what: str, by_name: bool
) -> None:
    WITH_A_TOKEN[what](client, "roads" if by_name else udf.id, udf.shared_token)
    assert [run.udf_id for run in fused_emulator.runs] == [udf.id] * len(fused_emulator.runs)


@pytest.mark.parametrize("what", ["verify", "refresh"])
def test_a_udf_that_is_given_by_its_token_is_not_looked_up(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, what: str
) -> None:
    WITH_A_TOKEN[what](client, udf.shared_token, udf.shared_token)
    assert not [request.path for request in fused_emulator.requests if "/udf/" in request.path]


def test_a_tile_whose_turn_never_comes_is_unknown_and_may_be_asked_for_again(
    fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    read = verification.ask_once
    monkeypatch.setattr(verification, "ask_once", lambda *given: asked.append(read(*given)) or asked[-1])
    with FusedClient(client_id=fused_emulator.client_id, deadline=2, max_requests_per_second=0.5) as slow:
        found = slow.verify_cache(udf.shared_token, tiles=ALL, verify_tiles=4)
    late = [each for each in asked if each.freshness == "unknown"]
    assert late
    assert all(each.retryable and each.reason and each.tile is not None for each in late)
    assert len(found.unknown) == len(late)


@pytest.mark.parametrize("what", WITH_A_TOKEN)
def test_whose_token_it_is_is_asked_with_the_calls_own_deadline(
    fused_emulator: Emulator, udf: Udf, rivers: Udf, what: str
) -> None:
    fused_emulator.misbehave(status=503, times=None, path="by-token")
    with (
        FusedClient(client_id=fused_emulator.client_id, deadline=0.5) as client,
        pytest.raises(FusedCacheError, match="deadline"),
    ):
        WITH_A_TOKEN[what](client, udf.id, rivers.shared_token)
    assert fused_emulator.runs == []
