"""Errors in Airflow's spelling: what a connection holds, and what a retry does."""

import json
from typing import Any

import pytest

from airflow_provider_fused.exceptions import FusedUnavailableError
from airflow_provider_fused.hooks import FusedHook
from airflow_provider_fused.operators import AirflowFailException, FusedInvalidateCacheOperator, FusedRefreshCacheOperator
from airflow_provider_fused.words import in_airflows_words
from fused_cache_ops import ConfigurationError, InvalidInputError
from fused_cache_ops.emulator import Emulator, Udf

try:
    from airflow.sdk import DAG
except ImportError:
    from airflow import DAG

pytestmark = pytest.mark.xdist_group("airflow")


def connect(monkeypatch: pytest.MonkeyPatch, emulator: Emulator, **fields: object) -> None:
    whole = {"conn_type": "fused", "host": emulator.base_url, "password": emulator.token, **fields}
    monkeypatch.setenv("AIRFLOW_CONN_FUSED_DEFAULT", json.dumps(whole))


def test_a_missing_token_is_asked_for_as_the_password(monkeypatch: pytest.MonkeyPatch, fused_emulator: Emulator) -> None:
    connect(monkeypatch, fused_emulator, password="")
    monkeypatch.delenv("FUSED_SERVICE_ACCOUNT_TOKEN")
    with pytest.raises(ConfigurationError, match=r"or pass the connection's password \('Service account token'\)\.") as caught:
        FusedHook().get_conn()
    assert "token=" not in str(caught.value)


def test_a_task_says_so_too(monkeypatch: pytest.MonkeyPatch, fused_emulator: Emulator) -> None:
    connect(monkeypatch, fused_emulator, password="")
    monkeypatch.delenv("FUSED_SERVICE_ACCOUNT_TOKEN")
    with pytest.raises(AirflowFailException, match=r"or pass the connection's password"):
        FusedInvalidateCacheOperator(task_id="t", udf="roads", tiles=["1/0/0"]).execute({})


def test_a_deadline_is_raised_in_the_extra(monkeypatch: pytest.MonkeyPatch, fused_emulator: Emulator, udf: Udf) -> None:
    connect(monkeypatch, fused_emulator, extra={"deadline": 0.3})
    fused_emulator.misbehave(status=503, times=None)
    with pytest.raises(FusedUnavailableError, match=r"Raise 'deadline' in the connection's extra to wait longer\."):
        FusedInvalidateCacheOperator(task_id="t", udf=udf.id, tiles=["1/0/0"]).execute({})


def test_what_is_left_is_left_to_a_retry(monkeypatch: pytest.MonkeyPatch, fused_emulator: Emulator, udf: Udf) -> None:
    connect(monkeypatch, fused_emulator)
    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 1)
    fused_emulator.before_invalidation = lambda: fused_emulator.misbehave(status=403, path="delete", times=None)
    operator = FusedInvalidateCacheOperator(task_id="t", udf=udf.id, tiles=["1/0/0", "1/1/1"])
    with pytest.raises(AirflowFailException) as caught:
        operator.execute({})
    assert "1 tile was invalidated before" in str(caught.value)
    assert str(caught.value).endswith("With a checkpoint, a retry sends only the rest.")
    assert ".remaining" not in str(caught.value)


def test_with_a_record_a_retry_sends_the_rest() -> None:
    told = "It failed. The tiles not yet confirmed are in this error's .remaining: pass them as tiles= to the next call."
    record = " The checkpoint records 5 tiles: run the same call again to send the rest."
    assert in_airflows_words(told + record) == "It failed. The checkpoint records 5 tiles: a retry sends the rest."


def test_the_test_of_a_connection_speaks_of_its_fields(monkeypatch: pytest.MonkeyPatch, fused_emulator: Emulator) -> None:
    connect(monkeypatch, fused_emulator)
    fused_emulator.misbehave(status=302, times=None)
    is_valid, message = FusedHook().test_connection()
    assert (is_valid, "set the connection's host ('Base URL') to the final address" in message) == (False, True)


def test_a_passcode_has_the_name_of_its_field() -> None:
    told = in_airflows_words("Set passcode or FUSED_CANVAS_PASSCODE.")
    assert told == "Set 'passcode_secret' in the connection's extra or FUSED_CANVAS_PASSCODE."


@pytest.mark.parametrize(
    ("operator", "fields", "what"),
    [
        (FusedInvalidateCacheOperator, {"verify_tiles": 5}, "verify_tiles"),
        (FusedInvalidateCacheOperator, {"verify_tiles": "5"}, "verify_tiles"),
        (FusedInvalidateCacheOperator, {"refresh": "all"}, "refresh"),
        (FusedInvalidateCacheOperator, {"refresh": {"zooms": "0-4"}}, "refresh"),
        (FusedRefreshCacheOperator, {}, "refresh"),
    ],
    ids=str,
)
def test_what_certainly_has_no_shared_token_breaks_the_dag(operator: Any, fields: dict[str, Any], what: str) -> None:
    with (
        DAG("no_token", schedule=None),
        pytest.raises(InvalidInputError, match=rf"^{what} needs a shared token of UDF 'roads', .*: put it into a variable"),
    ):
        operator(task_id="t", udf="roads", tiles=["1/0/0"], **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"verify_tiles": 5, "shared_token": "{{ var.value.roads_token }}"},
        {"verify_tiles": 5, "udf": "{{ var.value.roads_token }}"},
        {"verify_tiles": "{{ params.verify }}"},
        {"verify_tiles": 0, "refresh": {"count": 0}},
        {"verify_tiles": "0", "refresh": 0},
    ],
    ids=str,
)
def test_what_may_have_a_shared_token_or_needs_none_does_not(fields: dict[str, Any]) -> None:
    with DAG("may_have_token", schedule=None):
        FusedInvalidateCacheOperator(task_id="t", **{"udf": "roads", "tiles": ["1/0/0"], **fields})


def test_a_task_that_is_mapped_over_its_shared_tokens_does_not_either() -> None:
    with DAG("mapped_tokens", schedule=None):
        FusedInvalidateCacheOperator.partial(task_id="t", tiles=["1/0/0"], verify_tiles=1).expand(udf=["roads", "rivers"])


def test_the_fields_of_a_task_stay_as_they_are() -> None:
    message = "bounds needs zooms, such as zooms='1': pass related='callers', or shared_token=."
    assert in_airflows_words(message) == message
