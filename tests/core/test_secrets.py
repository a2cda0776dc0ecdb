"""No piece of a secret is shown: by whatever shortens texts, in a server's words, in addresses that went wrong."""

import copy
import io
import logging
import pickle
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console
from rich.traceback import Traceback

from fused_cache_ops import (
    ConfigurationError,
    FusedCacheError,
    FusedClient,
    InvalidInputError,
    invalidate_cache,
    plan_invalidation,
)
from fused_cache_ops.changes import changed_geometry, changes_of_delta
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.secret import Secret
from fused_cache_ops.selection.shapes import reading
from fused_cache_ops.service.connection import Connections

DIGITS = "0123456789abcdef" * 4
LONG = "".join(
    chr(97 + (number * 7) % 26) + str(number) for number in range(120)
)  # a few hundred characters, none of them alike


def pieces(secret: str, length: int = 12) -> Iterator[str]:
    return (secret[start : start + length] for start in range(0, len(secret) - length, length))


def shown(error: BaseException) -> str:
    """An error with the locals of every frame below the test's, as `traceback` and rich show them by default."""
    plain = traceback.TracebackException.from_exception(error, capture_locals=True)
    plain.stack = traceback.StackSummary.from_list(list(plain.stack)[1:])
    console = Console(width=10_000, record=True, file=io.StringIO())
    frames = error.__traceback__ and error.__traceback__.tb_next
    console.print(Traceback.from_exception(type(error), error, frames, show_locals=True))
    return "\n".join([*plain.format(), console.export_text(), repr(error), repr(vars(error))])


FAULTS: dict[str, dict[str, Any]] = {
    "unauthorized": {"status": 401, "times": None},
    "limited": {"status": 429, "retry_after": 60, "times": None},
    "dropped": {"drop": True, "times": None},
    "slow": {"latency": 3.0, "times": None},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_no_piece_of_a_long_token_is_in_a_traceback(
    fused_emulator: Emulator, udf: Udf, fault: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fused_emulator.store.add_token(fused_emulator.environment_id, token=LONG)
    fused_emulator.misbehave(**fault)
    with pytest.raises(FusedCacheError) as caught:
        invalidate_cache("roads", tiles=["1/0/0"], client={"token": LONG, "timeout": 0.3, "deadline": 0.5})
    everything = shown(caught.value) + caplog.text
    assert [piece for piece in pieces(LONG) if piece in everything] == []


FORMS = {
    "with a name": f"fc_{LONG}/roads",
    "with a name after a dash": f"fc_{LONG}-roads",
    "by name": f"fc_team/{LONG}/roads",
    "alone": f"fsh_{LONG}",
    "older": f"UDF_{LONG}",
    "oldest": "".join(f"{number * 37 % 256:02x}" for number in range(32)),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_no_piece_of_a_shared_token_is_in_a_traceback(
    fused_emulator: Emulator, udf: Udf, form: str, fault: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fused_emulator.misbehave(**fault)
    with pytest.raises(FusedCacheError) as caught:
        invalidate_cache(form, tiles=["1/0/0"], client={"timeout": 0.3, "deadline": 0.5})
    everything = shown(caught.value) + caplog.text
    secret = LONG if LONG in form else form
    assert [piece for piece in pieces(secret) if piece in everything] == []


@pytest.mark.parametrize("said", ["nothing behind fc_S3CRET", "fc_S3CRET/roads?", "see /fc_S3CRET%2Froads", "fc_S3CRET"])
@pytest.mark.parametrize("form", ["fc_S3CRET/roads", "fc_S3CRET-roads", "fc_S3CRET/canvas/roads"])
def test_in_a_servers_words_the_token_before_a_name_is_masked_too(
    fused_emulator: Emulator, udf: Udf, said: str, form: str
) -> None:
    fused_emulator.misbehave(status=404, body={"detail": said}, times=None)
    with pytest.raises(FusedCacheError) as caught:
        invalidate_cache(form, tiles=["1/0/0"])
    assert "S3CRET" not in shown(caught.value)
    assert "********" in str(caught.value)


@pytest.mark.parametrize("call", [invalidate_cache, plan_invalidation])
def test_a_shared_token_that_cannot_be_read_is_not_shown(call: Any, fused_emulator: Emulator) -> None:
    with pytest.raises(InvalidInputError) as caught:
        call(f"fc_{LONG}?/roads", tiles=["1/0/0"])
    everything = shown(caught.value)
    assert [piece for piece in pieces(LONG) if piece in everything] == []


@pytest.mark.parametrize(
    "url",
    [
        "https://fused.example.com/?token=S3CRET",
        "https://fused.example.com/#S3CRET",
        "https://user:S3CRET@fused.example.com",
        "https://S3CRET@fused.example.com",
        "//user:S3CRET@fused.example.com",
        "https://user:S3CRET@fused.example.com:port",
        "https://udf.ai/fsh_S3CRET/run",
        "https://udf.ai/fc_S3CRET/",
        "ftp://fused.example.com/fc_S3CRET",
        "https://udf.ai/fc_S3CRET/canvas/S3CRET/run",
        "https://udf.ai/UDF_S3CRET/run",
        "https://fused.example.com/a b?fused_session_token=S3CRET",
    ],
)
@pytest.mark.parametrize("setting", ["base_url", "run_base_url"])
def test_an_address_that_went_wrong_is_shown_without_what_may_be_secret(setting: Any, url: str) -> None:
    with pytest.raises(ConfigurationError, match=setting) as caught:
        FusedClient(token="a-token", **{setting: url})
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        ("/fsh_S3CRET/run/tiles/1/2/3?x=1", "/fsh_********/run/tiles/1/2/3?x=1"),
        ("/fc_S3CRET/S3CRET/run", "/fc_********/run"),
        ("/fc_S3CRET-S3CRET.json", "/fc_********"),
        ("/fc_S3CRET/S3CRET/runner/run/file", "/fc_********/run/file"),
        ("/UDF_S3CRET", "/UDF_********"),
        (f"/v1/realtime-shared/{DIGITS}/run", "/v1/realtime-shared/********/run"),
        (f"/{DIGITS}.json", "/********.json"),
        ("/x?next=https%3A%2F%2Fudf.ai%2Ffc_S3CRET", "/x?next=https%3A%2F%2Fudf.ai%2Ffc_********"),
        ("/a/b?x=1&fused_session_token=id%3A1%3AS3CRET&y=2", "/a/b?x=1&fused_session_token=********&y=2"),
        ("/session-token/by-access-token/fc_S3CRET%2FS3CRET", "/session-token/by-access-token/fc_********"),
        ("/udf/by-id/0b9c2f4e-5d0a-4f51-9f6e-3f1f6c1d2a3b", "/udf/by-id/0b9c2f4e-5d0a-4f51-9f6e-3f1f6c1d2a3b"),
    ],
)
def test_urllib3s_debug_lines_show_no_form_of_a_token(line: str, masked: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("urllib3.connectionpool").debug('%s://%s "%s %s"', "https", "udf.ai", "GET", line)
    assert caplog.messages == [f'https://udf.ai "GET {masked}"']


@pytest.mark.parametrize(
    "proxy",
    ["http://user:S3CRET@127.0.0.1:port", "http://user:S3/CRET@127.0.0.1:3128", "S3CRET://x", "http://user:S3CRET@[::1"],
)
def test_the_password_of_a_proxy_that_cannot_be_used_is_not_shown(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(FusedCacheError) as caught:
        with FusedClient(token="a-token", base_url="https://fused.invalid", deadline=0.5) as client:
            client.check()
    assert "S3" not in str(caught.value)
    assert "CRET" not in str(caught.value)


def test_a_secret_is_no_text() -> None:
    secret = Secret("s3cret")
    assert not isinstance(secret, str)
    assert {str(secret), f"{secret}", f"{secret!s:.3}"} <= {"********", "***"}
    assert "s3cret" not in repr([secret, {"token": secret}]) + "%s %r" % (secret, secret)
    with pytest.raises(TypeError):
        secret[:3]  # type: ignore[index]
    for leave in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled"):
            leave(secret)  # type: ignore[operator]


def test_the_token_is_written_into_the_header_alone(fused_emulator: Emulator, udf: Udf) -> None:
    with FusedClient() as client:
        client.invalidate_cache(udf.id, tiles=["1/0/0"])
        connections = client._service._open_connections()
        assert isinstance(connections, Connections)
        assert fused_emulator.token not in repr(vars(connections)) + repr(connections._headers)
    assert [request.status for request in fused_emulator.requests] == [200, 200, 200, 204]


SIGNED = "https://user:PASSWORD@127.0.0.1:9/data/shapes.parquet?X-Amz-Signature=SIGNATURE"


@pytest.mark.parametrize(
    "read",
    [
        lambda address: plan_invalidation("roads", geometry=address, zooms=3),
        lambda address: plan_invalidation("roads", geometry=address.replace(".parquet", ".gpkg"), zooms=3),
        lambda address: plan_invalidation("roads", hex_dataset=address, zooms=3),
        lambda address: plan_invalidation("roads", hex_dataset=address.replace("https", "abfs"), zooms=3),
        lambda address: changed_geometry(address, address),
        lambda address: changed_geometry(address.replace(".parquet", ".gpkg"), address),
        lambda address: changes_of_delta(address.replace("https", "s3"), since=0),
    ],
    ids=["Parquet", "vector file", "dataset", "another store", "difference", "difference of vector files", "Delta"],
)
def test_what_a_url_grants_access_with_is_in_no_message(read: Any, recwarn: pytest.WarningsRecorder) -> None:
    with pytest.raises(FusedCacheError) as caught:
        read(SIGNED)
    assert not any("SIGNATURE" in str(each.message) for each in recwarn)
    said = "".join(traceback.format_exception_only(caught.value))
    assert "PASSWORD" not in said
    assert "SIGNATURE" not in said
    assert "********" in said


def test_a_warning_of_gdal_shows_no_signature() -> None:
    with (
        pytest.warns(UserWarning, match=r"^https://\*{8}@host/a\?\*{8} is slow\.$"),
        reading("https://me:PASS@host/a?sig=1"),
    ):
        warnings.warn("https://me:PASS@host/a?sig=1 is slow", RuntimeWarning, stacklevel=1)
