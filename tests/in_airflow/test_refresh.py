"""The operator that refreshes, and ``refresh`` of the one that invalidates."""

import json
from typing import Any

import pytest

from airflow_provider_fused._compat import AirflowFailException
from airflow_provider_fused.exceptions import FusedUnavailableError
from airflow_provider_fused.notifications import FusedInvalidateCacheNotifier
from airflow_provider_fused.operators import FusedInvalidateCacheOperator, FusedRefreshCacheOperator
from fused_cache_ops import InvalidInputError
from fused_cache_ops.emulator import Emulator, Udf

pytestmark = [pytest.mark.xdist_group("airflow"), pytest.mark.usefixtures("airflow_database", "connection")]

ALL = ["1/0/0", "1/0/1", "1/1/0", "1/1/1"]


@pytest.fixture
def connection(fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = {"conn_type": "fused", "host": fused_emulator.base_url, "password": fused_emulator.token}
    monkeypatch.setenv("AIRFLOW_CONN_FUSED_DEFAULT", json.dumps(uri))


def execute(operator: FusedInvalidateCacheOperator) -> dict[str, Any]:
    return operator.execute({})


def test_the_operator_refreshes_what_it_invalidated(fused_emulator: Emulator, udf: Udf) -> None:
    operator = FusedInvalidateCacheOperator(
        task_id="t",
        udf=udf.id,
        tiles=ALL,
        shared_token=udf.shared_token,
        refresh={
            "count": "3",
            "zooms": "1",
            "concurrency": "2",
            "max_tiles": "10",
            "parameters": '{"format": "png"}',
            "deadline": "60",
            "must_succeed": "true",
        },
    )  # as templates render them
    result = execute(operator)
    assert (result["tiles_invalidated"], result["refresh"]["runs"]) == (4, 3)
    assert len(fused_emulator.runs) == 3


def test_another_task_refreshes(fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.store.forget_requests()
    result = execute(FusedRefreshCacheOperator(task_id="t", udf=udf.shared_token, bounds=(-180, -80, 180, 80), zooms="0-1"))
    assert (result["runs"], result["already_cached"]) == (1, 4)
    assert [request for request in fused_emulator.requests if "delete" in request.path] == []


def test_a_tile_that_fails_fails_the_task_without_retries(fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=500, path="/run/tiles/2/0/0")
    with pytest.raises(AirflowFailException, match="1 result could not be refreshed"):
        execute(FusedRefreshCacheOperator(task_id="t", udf=udf.shared_token, tiles=["2/0/0", "2/0/1"]))


def test_a_refresh_that_ran_out_of_time_is_retried(fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(latency=2, times=None, path="/run/tiles/")
    operator = FusedRefreshCacheOperator(
        task_id="t", udf=udf.shared_token, tiles=["2/0/0", "2/0/1"], refresh={"concurrency": 1, "deadline": 1}
    )
    with pytest.raises(FusedUnavailableError, match="could not be refreshed"):
        execute(operator)


def test_a_refresh_takes_nothing_that_is_for_an_invalidation(udf: Udf) -> None:
    with pytest.raises(TypeError, match="FusedRefreshCacheOperator takes no related: it takes tiles"):
        FusedRefreshCacheOperator(task_id="t", udf="roads", related="callers", again_after=1)


@pytest.mark.parametrize("tiles", ["", "None"])
def test_a_selection_that_rendered_to_nothing_refreshes_nothing(fused_emulator: Emulator, udf: Udf, tiles: str) -> None:
    with pytest.raises(AirflowFailException, match="tiles rendered to"):
        execute(FusedRefreshCacheOperator(task_id="t", udf=udf.shared_token, tiles=tiles))
    assert fused_emulator.runs == []


def test_a_callback_does_not_refresh() -> None:
    with pytest.raises(InvalidInputError, match="refresh takes long, and a callback cannot wait"):
        FusedInvalidateCacheNotifier(udf="roads", refresh=5)
