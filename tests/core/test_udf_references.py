"""How a UDF may be named, and which lookup each form becomes."""

import uuid
from typing import Any

import pytest

from fused_cache_ops import FusedClient
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.errors import InvalidInputError, NotFoundError
from fused_cache_ops.secret import Secret, canvas_token
from fused_cache_ops.udf_reference import parse_udf

DIGITS = "0123456789abcdef" * 4
UDF_ID = "0b9c2f4e-5d0a-4f51-9f6e-3f1f6c1d2a3b"


@pytest.mark.parametrize(
    ("udf", "path"),
    [
        ("roads", "udf/exec-env/self/by-collection/default/by-slug/roads"),
        ("team/roads", "udf/exec-env/self/by-collection/default/by-slug/roads"),
        ("transport/roads", "udf/exec-env/self/by-collection/transport/by-slug/roads"),
        ("me@example.com/roads", "udf/by-user-email/me@example.com/by-collection/default/by-slug/roads"),
        ("@me/roads", "udf/by-user-handle/me/by-collection/default/by-slug/roads"),
        ("fsh_abc123", "udf/shared/by-token/fsh_abc123"),
        ("fc_abc123", "udf/shared/by-token/fc_abc123"),
        ("fc_abc123/roads", "udf/shared/by-token/fc_abc123/roads"),
        ("fc_abc123-roads", "udf/shared/by-token/fc_abc123-roads"),
        ("fc_team/transport/roads", "udf/shared/by-token/fc_team/transport/roads"),
        ("UDF_abc123", "udf/shared/by-token/UDF_abc123"),
        (f" {DIGITS}\n", f"udf/shared/by-token/{DIGITS}"),
        (DIGITS[1:], f"udf/exec-env/self/by-collection/default/by-slug/{DIGITS[1:]}"),
        (" roads\n", "udf/exec-env/self/by-collection/default/by-slug/roads"),
        ("Straßen & Wege", "udf/exec-env/self/by-collection/default/by-slug/Straßen & Wege"),
    ],
)
def test_each_form_becomes_its_look_up(udf: str, path: str) -> None:
    reference = parse_udf(udf)
    assert reference.udf_id is None
    assert "/".join(part.reveal() if isinstance(part, Secret) else part for part in reference.lookup) == path


@pytest.mark.parametrize(
    ("token", "canvas"),
    [
        ("fc_abc", "fc_abc"),
        ("fc_abc/roads", "fc_abc"),
        ("fc_abc-roads", "fc_abc"),
        ("fc_team/transport/roads", "fc_team/transport"),
        ("fsh_abc", None),
        ("UDF_abc", None),
        (DIGITS, None),
    ],
)
def test_the_canvas_of_a_shared_token(token: str, canvas: str | None) -> None:
    assert canvas_token(token) == canvas


@pytest.mark.parametrize("udf", [UDF_ID, UDF_ID.upper(), f" {UDF_ID} ", uuid.UUID(UDF_ID)])
def test_an_id_needs_no_look_up(udf: Any) -> None:
    assert parse_udf(udf).udf_id == UDF_ID


@pytest.mark.parametrize(
    "udf",
    ["", " ", "/", "/roads", "roads/", "a//b", "a/b/c", ".", "..", "../roads", "team/..", "./roads"]
    + [
        "roads?x=1",
        "roads#x",
        "roads%2f",
        "roads\\x",
        "ro\x00ads",
        "ro\nads",
        "ro\x7fads",
        "a?b/roads",
        "@/roads",
        "ro\udfffads",
        "\ud800/roads",
    ]
    + ["None", "null", "none", "undefined", "nan"]
    + ["fc_a/..", "fsh_a?b", "fsh_a\nb", "fc_a/", "fc_a//b", "fc_a/b/c/d", "fc_a/b/", "fsh_a/b", "UDF_a?", f"{DIGITS}/roads#"]
    + [None, 5, b"roads", ["roads"], 0.5],
    ids=ascii,
)
def test_a_bad_reference_is_refused(udf: Any) -> None:
    with pytest.raises(InvalidInputError, match="a UDF is given by its id"):
        parse_udf(udf)


@pytest.mark.parametrize("token", ["fsh_verysecret", "UDF_verysecret", "fc_verysecret", "fc_verysecret/x", "fc_verysecret/x/y"])
def test_a_shared_token_is_masked_in_messages(token: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_udf(f"{token}?")
    assert "verysecret" not in str(caught.value)
    assert "verysecret" not in repr(parse_udf(token))


def test_of_a_token_of_digits_alone_nothing_is_shown() -> None:
    assert parse_udf(DIGITS).shown == "********"
    assert not any(DIGITS[start : start + 8] in repr(parse_udf(DIGITS)) for start in range(57))


@pytest.mark.parametrize("form", ["{0.id}", "roads", "team/roads", "default/roads", "{0.shared_token}"])
def test_every_form_of_a_teams_udf_resolves_to_its_id(udf: Udf, client: FusedClient, form: str) -> None:
    assert client.resolve_udf(form.format(udf)) == udf.id


def test_a_udf_in_a_canvas_and_one_of_a_user_are_found(fused_emulator: Emulator, client: FusedClient) -> None:
    in_canvas = fused_emulator.register(dict, name="roads", canvas="transport")
    of_user = fused_emulator.register(dict, name="roads", email=fused_emulator.email)
    assert client.resolve_udf("transport/roads") == in_canvas.id
    assert client.resolve_udf("me@example.com/roads") == client.resolve_udf("@me/roads") == of_user.id


def test_a_name_with_spaces_and_umlauts_is_escaped(fused_emulator: Emulator, client: FusedClient) -> None:
    udf = fused_emulator.register(dict, name="Straßen & Wege")
    assert client.resolve_udf("Straßen & Wege") == udf.id
    assert fused_emulator.requests[-1].path.endswith("/by-slug/Stra%C3%9Fen%20%26%20Wege")


def test_an_unknown_udf_is_not_found_and_named(client: FusedClient) -> None:
    with pytest.raises(NotFoundError, match="UDF 'nowhere'"):
        client.resolve_udf("nowhere")


def test_an_unknown_shared_token_is_not_shown(client: FusedClient, fused_emulator: Emulator) -> None:
    fused_emulator.misbehave(status=404, body={"detail": "no UDF behind fsh_verysecret"})
    with pytest.raises(NotFoundError) as caught:
        client.resolve_udf("fsh_verysecret")
    assert "verysecret" not in str(caught.value)
    assert "fsh_********" in str(caught.value)
    assert "the token as shared_token" in str(caught.value)


def test_the_code_of_the_udf_is_never_run(fused_emulator: Emulator, client: FusedClient) -> None:
    udf = fused_emulator.register(dict, name="bomb", code="raise SystemExit('the UDF was executed')")
    assert client.resolve_udf("bomb") == udf.id
