"""Where settings come from, and what is refused before any request."""

import pickle
from typing import Any

import pytest

from fused_cache_ops import FusedClient, invalidate_cache
from fused_cache_ops.errors import ConfigurationError
from fused_cache_ops.secret import Secret
from fused_cache_ops.settings import DEFAULT_BASE_URL, resolve_settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FUSED_SERVICE_ACCOUNT_TOKEN", "FUSED_AUTH_TOKEN", "FUSED_AUTH_TOKEN_TYPE", "FUSED_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("token", "header"),
    [
        ("abc", "Fused-Service-Token abc"),
        (" abc\n", "Fused-Service-Token abc"),
        ("Bearer abc", "Bearer abc"),
        ("bearer  abc", "Bearer abc"),
        ("fused-service-token abc", "Fused-Service-Token abc"),
        ("Fused-Rtenv-Bearer abc", "Fused-Rtenv-Bearer abc"),
    ],
)
def test_the_header_of_a_token(token: str, header: str) -> None:
    assert resolve_settings(token=token).authorization.reveal() == header


def test_the_argument_comes_first_then_the_service_account_then_the_sdks_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSED_AUTH_TOKEN", "third")
    monkeypatch.setenv("FUSED_AUTH_TOKEN_TYPE", "Fused-Service-Token")
    assert resolve_settings().authorization.reveal() == "Fused-Service-Token third"
    monkeypatch.setenv("FUSED_SERVICE_ACCOUNT_TOKEN", "second")
    assert resolve_settings().authorization.reveal() == "Fused-Service-Token second"
    assert resolve_settings(token="first").authorization.reveal() == "Fused-Service-Token first"


def test_the_sdks_token_without_a_type_is_a_bearer_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSED_AUTH_TOKEN", "abc")
    assert resolve_settings().authorization.reveal() == "Bearer abc"


def test_an_unknown_scheme_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSED_AUTH_TOKEN", "abc")
    monkeypatch.setenv("FUSED_AUTH_TOKEN_TYPE", "Basic")
    with pytest.raises(ConfigurationError, match="FUSED_AUTH_TOKEN_TYPE is not a known scheme"):
        resolve_settings()


@pytest.mark.parametrize("token", ["", " \n", "Basic s3cret", "a b s3cret", "s3cret\x00", "s3crét", "Bearer ", 5, b"x"])
def test_a_bad_token_is_refused_and_never_shown(token: Any) -> None:
    if token == "Bearer ":
        assert resolve_settings(token=token).authorization.reveal() == "Fused-Service-Token Bearer"  # a word like any other
        return
    with pytest.raises(ConfigurationError) as caught:
        resolve_settings(token=token)
    assert "token" in str(caught.value)
    assert "s3cr" not in str(caught.value)


def test_without_a_token_the_message_says_what_to_set() -> None:
    with pytest.raises(ConfigurationError, match="set FUSED_SERVICE_ACCOUNT_TOKEN"):
        invalidate_cache("roads")


@pytest.mark.parametrize(
    ("base_url", "becomes"),
    [
        (None, DEFAULT_BASE_URL),
        ("https://fused.example.com", "https://fused.example.com/server/v1"),
        ("https://fused.example.com/", "https://fused.example.com/server/v1"),
        (" https://fused.example.com/server/v1/ ", "https://fused.example.com/server/v1"),
        ("https://fused.example.com:8443/x/v1", "https://fused.example.com:8443/x/v1"),
        ("http://127.0.0.1:8000/server/v1", "http://127.0.0.1:8000/server/v1"),
        ("http://localhost:8000", "http://localhost:8000/server/v1"),
        ("http://[::1]:8000", "http://[::1]:8000/server/v1"),
    ],
)
def test_a_base_url_is_brought_into_one_form(base_url: str | None, becomes: str) -> None:
    assert resolve_settings(token="abc", base_url=base_url).base_url == becomes


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "fused.io",
        "ftp://fused.io",
        "https://",
        "https:///x",
        "https://user:s3cret@fused.io",
        "https://fused.io/?a=1",
    ]
    + ["https://.fused.io", "https://fused..io", f"https://{'x' * 64}.io", "https://:443", "https://*.fused.io"]
    + ["https://fused.io/#a", "https://fused.io/a b", "https://fused.io/%2e%2e", "https://fused.io:port", 5]
    + ["http://fused.io", "http://127.0.0.1.example.com", "http://0.0.0.0", "http://localhost.example.com"],
)
def test_a_bad_base_url_is_refused(base_url: Any) -> None:
    with pytest.raises(ConfigurationError, match="base_url") as caught:
        resolve_settings(token="abc", base_url=base_url)
    assert "s3cret" not in str(caught.value)


def test_plain_http_to_another_machine_has_to_be_asked_for_by_name() -> None:
    assert resolve_settings(token="abc", base_url="http://fused.lan", allow_http=True).base_url.startswith("http://fu")


@pytest.mark.parametrize("client_id", ["", " ", ".", "..", "a/b", "a?b", "a#b", "a%b", "a\\b", "a\nb", "None", 5])
def test_a_bad_client_id_is_refused(client_id: Any) -> None:
    with pytest.raises(ConfigurationError, match="client_id"):
        resolve_settings(token="abc", client_id=client_id)


@pytest.mark.parametrize(
    "setting",
    [{"timeout": 0}, {"timeout": -1}, {"timeout": "5"}, {"timeout": float("nan")}, {"timeout": True}]
    + [{"deadline": 0}, {"deadline": float("inf")}, {"max_concurrency": 0}, {"max_concurrency": 1.5}],
    ids=str,
)
def test_a_bad_limit_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(setting))):
        FusedClient(token="abc", **setting)


def test_a_secret_is_masked_and_never_pickled() -> None:
    assert "s3cret" not in repr(Secret("s3cret"))
    assert "s3cret" not in repr(resolve_settings(token="s3cret"))
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(Secret("s3cret"))
