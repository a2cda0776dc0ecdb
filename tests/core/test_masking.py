"""Nothing that grants access is shown."""

import pytest

from fused_cache_ops.secret import (
    Secret,
    canvas_token,
    holds_shared_token,
    is_shared_token,
    masked,
    masked_address,
    sealed,
    sealed_udf,
    token_kind,
)
from fused_cache_ops.wording import quoted, quoted_address, rendered_to_nothing, shortened, without_credentials

DIGITS = "0123456789abcdefABCDEF" * 2 + "0123456789abcdefABCD"


@pytest.mark.parametrize(
    ("text", "kind"),
    [("fsh_a", "fsh_"), ("fc_a/b", "fc_"), ("UDF_a", "UDF_"), (" fsh_a\n", "fsh_"), (DIGITS, ""), (f" {DIGITS} ", "")],
)
def test_every_form_of_shared_token_is_known(text: str, kind: str) -> None:
    assert (is_shared_token(text), token_kind(text)) == (True, kind)
    assert isinstance(sealed_udf(text), Secret)


@pytest.mark.parametrize("text", ["", "roads", "canvas/fc_a", DIGITS[:-1], f"{DIGITS}a", f"{DIGITS[:-1]}g", "FSH_a"])
def test_a_udfs_name_is_no_secret(text: str) -> None:
    assert not is_shared_token(text)
    assert sealed_udf(text) == text


@pytest.mark.parametrize(
    ("text", "canvas"),
    [
        ("fc_a/b", "fc_a"),
        (" fc_a/b/c\n", "fc_a/b"),
        ("fc_a-b", "fc_a"),
        ("fc_a-b-c", "fc_a-b"),
        ("fc_a", "fc_a"),
        ("fsh_a/b", None),
        ("UDF_a", None),
        (DIGITS, None),
    ],
)
def test_a_canvas_is_known_by_the_sdks_rule(text: str, canvas: str | None) -> None:
    assert canvas_token(text) == canvas


@pytest.mark.parametrize(
    "text",
    [
        "fc_team/canvas/udf",
        "fc_team%2Fcanvas%2Fudf",
        "fc_team/canvas",
        "fc_team%2Fcanvas",
        "fc_team",
        "fc_team/canvas/udf and fc_team/canvas/udf",
    ],
)
def test_every_form_of_a_shared_token_is_masked(text: str) -> None:
    shown = Secret("fc_team/canvas/udf").masked(f"no UDF {text} here")
    assert not any(each in shown for each in ("team", "canvas", "udf"))


def test_what_a_shared_token_begins_with_is_masked_whole() -> None:
    assert Secret("fc_a/b/c/d").masked("fc_a/b") == Secret("fc_a/b/c/d").masked("fc_a%2Fb") == "********"


def test_a_header_is_masked_whole() -> None:
    assert Secret("Fused-Service-Token abc").masked("sent: Fused-Service-Token abc") == "sent: ********"


def test_the_canvas_of_a_token_with_a_dash_is_masked() -> None:
    assert Secret("fc_token-roads").masked("no canvas fc_token here") == "no canvas ******** here"


@pytest.mark.parametrize("text", ["Fused-Service-Token a b+c/d=", "b+c/d=", "b%2Bc%2Fd%3D", "b%2Bc/d%3D"])
def test_the_token_of_a_header_is_masked_in_every_form(text: str) -> None:
    assert "c" not in Secret("Fused-Service-Token a b+c/d=").masked(text).replace("Service", "")


def test_masking_leaves_other_words() -> None:
    assert Secret("fsh_a").masked("tile 1/0/0 of fsh_b") == "tile 1/0/0 of fsh_b"
    assert Secret("").masked("a text") == "a text"


def test_all_of_several_secrets_are_masked() -> None:
    assert masked("one and two", [Secret("one"), None, Secret("two")]) == "******** and ********"


def test_only_text_is_sealed() -> None:
    assert isinstance(sealed("text"), Secret)
    assert sealed(None) is None
    assert sealed(7) == 7


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://udf.ai/fsh_S3CRET/run", "https://udf.ai/fsh_********/run"),
        (f"https://udf.ai/{DIGITS}/run", "https://udf.ai/********/run"),
        ("https://udf.ai/?FUSED_SESSION_TOKEN=S3CRET&z=1", "https://udf.ai/?FUSED_SESSION_TOKEN=********&z=1"),
        ("https://udf.ai/roads", "https://udf.ai/roads"),
    ],
)
def test_an_address_is_shown_without_its_tokens(address: str, shown: str) -> None:
    assert masked_address(address) == shown
    assert holds_shared_token(address) == ("fsh_" in address or DIGITS in address)


@pytest.mark.parametrize("text", ["", " \n", "None", "null", "undefined", "NaN"])
def test_what_a_template_renders_for_nothing_is_nothing(text: str) -> None:
    assert rendered_to_nothing(text)
    assert not rendered_to_nothing(f"x{text}x")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://user:PASS@host/a?sig=1", "https://********@host/a?********"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
        ("https://host/a?x=y?z", "https://host/a?********"),
        ("https://a@b@host/c", "https://********@host/c"),
        ("https://user:PASS@host/a@b/c", "https://********@host/a@b/c"),
        ("https://user:PASS@host/a?next=https://x/y", "https://********@host/a?********"),
        ("user:PASS@host", "user:PASS@host"),
    ],
)
def test_what_an_address_grants_access_with_is_masked(address: str, shown: str) -> None:
    assert without_credentials(address, address) == shown
    assert quoted_address(address) == repr(shown)
    assert without_credentials(OSError(f"no {address}"), address) == f"no {shown}"


def test_the_parts_of_an_address_are_masked_where_a_text_has_them_alone() -> None:
    address = "s3://me:hunter2@bucket/a?one=two://three"
    assert without_credentials("denied for me:hunter2", address) == "denied for ********"
    assert without_credentials("bad one=two://three", address) == "bad ********"


@pytest.mark.parametrize(
    "text",
    [
        "foo://AKIAUSER:wJalr/hunter2@bucket/a.parquet",
        "zip://a.parquet::foo://user:hunter2@127.0.0.1:9/a.zip.parquet",
        "PG:host=127.0.0.1 port=9 user=u password=hunter2",
        "https://user:hunter2@127.0.0.1:9/t.list",
        "/home/me/https:/user:hunter2@127.0.0.1:9/m.toml",
        "https://hunter2@bucket/a",
        "https://host/a?sig=hunter2",
        {"api_key": "hunter2"},
    ],
)
def test_what_grants_access_is_masked_in_every_value_that_a_message_quotes(text: object) -> None:
    assert "hunter2" not in quoted(text, 300)
    assert "hunter2" not in without_credentials(f"cannot open {text}", str(text))


@pytest.mark.parametrize(
    "text",
    ["https://cdn.example/npm/us-atlas@3/a.json", "https://host:8080/npm/a@3/b", "abfs://box@account.example/a", "roads@2"],
)
def test_what_only_looks_like_a_user_is_shown(text: str) -> None:
    assert quoted(text, 300) == repr(text)


def test_a_long_address_is_masked_before_it_is_shortened() -> None:
    address = f"https://{'u' * 300}@host/a"
    assert quoted_address(address) == "'https://********@host/a'"
    assert len(quoted_address(f"https://host/{'a' * 300}")) == 200


@pytest.mark.parametrize("length", [79, 80, 81, 500])
def test_a_text_is_cut_to_what_it_may_take(length: int) -> None:
    text = "".join(chr(97 + number % 26) for number in range(length))
    found = shortened(text)
    assert found == text if length <= 80 else (found == f"{text[:77]}..." and len(found) == 80)


def test_a_value_is_quoted_in_ascii_whatever_it_is() -> None:
    assert quoted("é") == "'\\xe9'"
    assert quoted(10**5000) == "a value of type int that is too large to show"
    assert quoted("a" * 100, 10) == "'aaaaaa..."
