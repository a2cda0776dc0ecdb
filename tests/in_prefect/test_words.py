"""Errors in the spelling of the tasks."""

from typing import Any

import pytest

from fused_cache_ops import ConfigurationError, UnavailableError
from fused_cache_ops.emulator import Emulator, Udf
from prefect_fused import invalidate_cache
from prefect_fused.words import in_our_words


def test_a_missing_token_is_asked_for_as_credentials(fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUSED_SERVICE_ACCOUNT_TOKEN")
    with pytest.raises(ConfigurationError, match=r"or pass credentials=FusedCredentials\.load\('…'\)\."):
        invalidate_cache.fn("roads", tiles=["1/0/0"])


def test_a_deadline_is_raised_among_the_limits(fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=503, times=None)
    with pytest.raises(UnavailableError, match=r"Raise limits=\{'deadline': …\}"):
        invalidate_cache.fn("roads", tiles=["1/0/0"], limits={"deadline": 0.3})


def test_the_keywords_of_a_task_stay_as_they_are() -> None:
    assert in_our_words("bounds needs zooms, such as zooms='1'.") == "bounds needs zooms, such as zooms='1'."


@pytest.mark.parametrize("keywords", [{"verify_tiles": 2}, {"refresh": "all"}], ids=str)
def test_without_a_shared_token_nothing_is_sent(fused_emulator: Emulator, udf: Udf, keywords: Any) -> None:
    (what,) = keywords
    with pytest.raises(ConfigurationError, match=f"{what} needs a shared token of the UDF") as caught:
        invalidate_cache.fn("roads", tiles=["1/0/0"], **keywords)
    assert str(caught.value).endswith("pass shared_token=, or set shared_token of the FusedCredentials block.")
    assert not fused_emulator.requests
