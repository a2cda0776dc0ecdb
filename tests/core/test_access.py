"""Access to shared UDFs: session tokens of team canvases, and passcodes."""

import logging
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import pytest

from fused_cache_ops import ConfigurationError, FusedClient, InvalidationCancelledError, Verification, invalidate_cache
from fused_cache_ops.emulator import Emulator, ReceivedRequest, Udf

ALL = ["1/0/0", "1/0/1", "1/1/0", "1/1/1"]
MINT = "/session-token/by-access-token/"


@pytest.fixture
def team_udf(fused_emulator: Emulator) -> Udf:
    """A UDF of a team canvas, with four cached tiles."""
    fused_emulator.add_canvas("transport")
    udf = fused_emulator.register(lambda **parameters: parameters, name="roads", canvas="transport")
    fused_emulator.fill_cache(udf, [(1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)])
    return udf


def runs(emulator: Emulator) -> list[ReceivedRequest]:
    return [request for request in emulator.requests if "/run/tiles/" in request.path]


def mints(emulator: Emulator) -> list[ReceivedRequest]:
    return [request for request in emulator.requests if MINT in request.path]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_team_canvas_is_verified_with_one_session_token(
    client: FusedClient, fused_emulator: Emulator, team_udf: Udf, status: int
) -> None:
    fused_emulator.assumptions.refusal_status = status
    token = fused_emulator.canvas_url_token(team_udf)
    found = client.verify_cache(token, tiles=ALL, verify_tiles=4)
    assert found.from_cache == tuple(f"{tile}: memory" for tile in ALL)
    result = client.invalidate_cache(team_udf.id, tiles=ALL, verify_tiles=4, shared_token=token)
    assert result.verification == Verification(fresh=tuple(ALL))
    assert [request.method for request in mints(fused_emulator)] == ["POST"]  # one for all threads and both calls
    (session,) = fused_emulator.session_tokens
    answered = [request for request in runs(fused_emulator) if request.status == 200]
    assert {parse_qs(request.query)["fused_session_token"][0] for request in answered} == {session}


@pytest.mark.parametrize("form", ["{token}/roads", "{token}-roads", "fc_team/transport/roads"])
def test_every_form_of_token_of_a_canvas_gets_a_session_token(
    client: FusedClient, fused_emulator: Emulator, team_udf: Udf, form: str
) -> None:
    token = form.format(token=fused_emulator.canvas_of(team_udf).share_token)
    assert client.verify_cache(token, tiles=ALL, verify_tiles=1).sampled == 1
    (mint,) = mints(fused_emulator)
    assert mint.status == 200
    assert mint.path.partition(MINT)[2].count("/") == 0  # a slash of the token is encoded
    assert runs(fused_emulator)[-1].path.startswith(f"/{token}/run/tiles/1/")  # there it stays a slash


def test_no_session_token_is_minted_for_a_public_canvas(client: FusedClient, fused_emulator: Emulator, team_udf: Udf) -> None:
    fused_emulator.add_canvas("transport", access_scope="public")
    client.verify_cache(fused_emulator.canvas_url_token(team_udf), tiles=ALL, verify_tiles=4)
    assert mints(fused_emulator) == []
    assert len(runs(fused_emulator)) == 4


def test_a_session_token_that_expires_is_minted_anew_once(client: FusedClient, fused_emulator: Emulator, team_udf: Udf) -> None:
    token = fused_emulator.canvas_url_token(team_udf)
    client.verify_cache(token, tiles=ALL[:1], verify_tiles=1)
    fused_emulator.expire_session_tokens()
    found = client.verify_cache(token, tiles=ALL, verify_tiles=4)
    assert len(found.from_cache) == 4
    assert len(mints(fused_emulator)) == 2


def test_session_tokens_that_never_work_are_not_minted_again_and_again(
    client: FusedClient, fused_emulator: Emulator, team_udf: Udf
) -> None:
    fused_emulator.misbehave(status=403, path="/run/tiles/", body={"detail": "Not today."}, times=None)
    found = client.verify_cache(fused_emulator.canvas_url_token(team_udf), tiles=ALL, verify_tiles=4)
    assert len(found.unknown) == 4
    assert "answered 403 (Not today)" in found.unknown[0]
    assert "check the UDF's name" in found.unknown[0]
    assert len(mints(fused_emulator)) == 2


def test_no_session_token_is_revoked(fused_emulator: Emulator, team_udf: Udf) -> None:
    token = fused_emulator.canvas_url_token(team_udf)
    invalidate_cache(team_udf.id, tiles=ALL, verify_tiles=4, shared_token=token)
    assert len(fused_emulator.session_tokens) == 1
    assert [request.method for request in mints(fused_emulator)] == ["POST"]


@pytest.mark.parametrize("status", [400, 403, 404, 409])
def test_a_mint_that_is_refused_leaves_the_tiles_unknown_with_the_remedy(
    client: FusedClient, fused_emulator: Emulator, team_udf: Udf, status: int
) -> None:
    fused_emulator.misbehave(status=status, path=MINT, body={"detail": "No such luck."}, times=None)
    token = fused_emulator.canvas_url_token(team_udf)
    result = client.invalidate_cache(team_udf.id, tiles=ALL, verify_tiles=4, shared_token=token)
    assert result.tiles_invalidated == 4
    assert result.verification is not None
    assert [each.split(":")[0] for each in result.verification.unknown] == ALL
    reason = result.verification.unknown[0]
    assert "answered 403 (This canvas is not shared publicly)" in reason
    assert f"answered {status} (No such luck)" in reason
    assert "a Fused token of its team" in reason
    assert len(mints(fused_emulator)) == 1  # not one for each tile


def test_a_mint_that_fails_for_a_moment_is_retried(client: FusedClient, fused_emulator: Emulator, team_udf: Udf) -> None:
    fused_emulator.misbehave(status=503, path=MINT)
    found = client.verify_cache(fused_emulator.canvas_url_token(team_udf), tiles=ALL, verify_tiles=4)
    assert len(found.from_cache) == 4
    assert [request.status for request in mints(fused_emulator)] == [503, 200]


def test_a_mint_keeps_to_the_deadline(fused_emulator: Emulator, team_udf: Udf) -> None:
    fused_emulator.misbehave(status=503, path=MINT, times=None)
    with FusedClient(client_id=fused_emulator.client_id, deadline=1) as client:
        found = client.verify_cache(fused_emulator.canvas_url_token(team_udf), tiles=ALL, verify_tiles=4)
    assert len(found.unknown) == 4
    assert any("deadline" in each for each in found.unknown)


def test_cancelling_ends_a_mint(
    client: FusedClient, fused_emulator: Emulator, team_udf: Udf, when: Callable[..., threading.Thread]
) -> None:
    fused_emulator.misbehave(latency=100, path=MINT, times=None)
    token = fused_emulator.canvas_url_token(team_udf)
    when(lambda: len(runs(fused_emulator)) == 4 and fused_emulator.requests_under_way, client.cancel)
    with pytest.raises(InvalidationCancelledError):
        client.verify_cache(token, tiles=ALL, verify_tiles=4)


@pytest.mark.parametrize("body", [{}, [], "x", {"session_token": ""}, {"session_token": None}])
def test_a_mint_that_answers_nonsense_leaves_the_tiles_unknown(
    client: FusedClient, fused_emulator: Emulator, team_udf: Udf, body: Any
) -> None:
    fused_emulator.misbehave(status=200, path=MINT, body=body, times=None)
    found = client.verify_cache(fused_emulator.canvas_url_token(team_udf), tiles=ALL, verify_tiles=1)
    assert "answered without one" in found.unknown[0]


def test_a_udfs_own_token_is_never_exchanged(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=403, path="/run/tiles/", times=None)
    found = client.verify_cache(udf.shared_token, tiles=ALL, verify_tiles=1)
    assert "FUSED_CANVAS_PASSCODE" in found.unknown[0]
    assert mints(fused_emulator) == []


# -- passcodes ----------------------------------------------------------------------------------------------------------

PASSCODE = "0pen-s3same pl3ase"


@pytest.fixture
def guarded_udf(fused_emulator: Emulator) -> Udf:
    """A UDF of a public canvas with a passcode, with four cached tiles."""
    fused_emulator.add_canvas("guarded", access_scope="public", passcode=PASSCODE)
    udf = fused_emulator.register(lambda **parameters: parameters, name="roads", canvas="guarded")
    fused_emulator.fill_cache(udf, [(1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)])
    return udf


@pytest.mark.parametrize("origin", ["argument", "environment"])
def test_a_passcode_goes_to_the_host_of_shared_udfs_alone(
    fused_emulator: Emulator, guarded_udf: Udf, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if origin == "environment":
        monkeypatch.setenv("FUSED_CANVAS_PASSCODE", f"{PASSCODE}\n")
    token = fused_emulator.canvas_url_token(guarded_udf)
    with FusedClient(passcode=PASSCODE if origin == "argument" else None) as client:
        result = client.invalidate_cache("guarded/roads", tiles=ALL, verify_tiles=4, shared_token=token)
    assert result.verification == Verification(fresh=tuple(ALL))
    assert {request.scheme for request in runs(fused_emulator)} == {"Fused-Canvas-Passcode"}
    others = [request for request in fused_emulator.requests if "/run/tiles/" not in request.path]
    assert {request.scheme for request in others} == {"Fused-Service-Token"}


@pytest.mark.parametrize("passcode", [None, "wr0ng"])
@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_missing_or_wrong_passcode_leaves_the_tiles_unknown_with_the_remedy(
    fused_emulator: Emulator, guarded_udf: Udf, passcode: str | None, status: int
) -> None:
    fused_emulator.assumptions.refusal_status = status
    with FusedClient(passcode=passcode) as client:
        found = client.verify_cache(fused_emulator.canvas_url_token(guarded_udf), tiles=ALL, verify_tiles=4)
    assert len(found.unknown) == 4
    assert f"answered {status} (This canvas needs a passcode)" in found.unknown[0]
    assert "FUSED_CANVAS_PASSCODE" in found.unknown[0]


def test_a_passcode_does_not_keep_a_team_canvas_from_being_verified(fused_emulator: Emulator, team_udf: Udf) -> None:
    with FusedClient(passcode=PASSCODE) as client:
        found = client.verify_cache(fused_emulator.canvas_url_token(team_udf), tiles=ALL, verify_tiles=4)
    assert len(found.from_cache) == 4
    assert {request.scheme for request in runs(fused_emulator) if request.status == 200} == {""}


@pytest.mark.parametrize("passcode", ["", " ", "a\nb", "schlüssel", 5], ids=ascii)
def test_a_passcode_that_no_header_can_carry_is_refused_and_not_shown(passcode: Any) -> None:
    with pytest.raises(ConfigurationError, match="passcode is") as caught:
        FusedClient(token="a-token", passcode=passcode)
    assert not isinstance(passcode, str) or len(passcode) < 2 or passcode not in str(caught.value)


# -- nothing of them is shown ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        {},
        {"drop": True},
        {"status": 302, "location": "https://elsewhere.example.com/?{session}"},
        {"status": 403, "body": "{session}"},
    ],
    ids=str,
)
def test_no_session_token_is_shown(
    fused_emulator: Emulator, team_udf: Udf, fault: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = fused_emulator.canvas_url_token(team_udf)
    with FusedClient() as client:
        first = client.verify_cache(token, tiles=ALL, verify_tiles=4)
        (session,) = fused_emulator.session_tokens
        said = {name: value.format(session=session) if isinstance(value, str) else value for name, value in fault.items()}
        if fault:
            fused_emulator.misbehave(path="/run/tiles/", times=None, **said)
        second = client.verify_cache(token, tiles=ALL, verify_tiles=4)
        shown = repr([first, second, second.to_dict(), client, vars(client), vars(client._service)]) + caplog.text
    secret = session.rpartition(":")[2]
    assert secret not in shown
    assert fused_emulator.canvas_of(team_udf).share_token not in shown
    assert "fused_session_token=********" in caplog.text


@pytest.mark.parametrize("fault", [{"drop": True}, {"status": 403, "body": {"detail": f"wrong: {PASSCODE}"}}], ids=str)
def test_no_passcode_is_shown(
    fused_emulator: Emulator, guarded_udf: Udf, fault: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fused_emulator.misbehave(path="/run/tiles/", times=None, **fault)
    with FusedClient(passcode=PASSCODE) as client:
        found = client.verify_cache(fused_emulator.canvas_url_token(guarded_udf), tiles=ALL, verify_tiles=4)
        shown = repr([found, client, vars(client), vars(client._service)]) + caplog.text
    assert PASSCODE not in shown
    assert PASSCODE.split()[0] not in shown
