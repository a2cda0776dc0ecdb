"""Secrets planted in what a task is given while it runs, and looked for in its log, its error and what it returns."""

import json
import logging
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_fused.decorators import fused_invalidate_cache_task
from airflow_provider_fused.notifications import FusedInvalidateCacheNotifier
from airflow_provider_fused.operators import FusedInvalidateDatasetOperator
from fused_cache_ops import CacheMap
from fused_cache_ops.emulator import Emulator, Udf

pytestmark = [pytest.mark.xdist_group("airflow"), pytest.mark.filterwarnings("ignore")]

Planted = Callable[..., str]


@pytest.fixture(autouse=True)
def _connection(fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {
        "conn_type": "fused",
        "host": fused_emulator.base_url,
        "password": fused_emulator.token,
        "extra": {"deadline": 5},
    }
    monkeypatch.setenv("AIRFLOW_CONN_FUSED_DEFAULT", json.dumps(fields))


def decorated(returned: Any) -> Any:
    made = fused_invalidate_cache_task(lambda: returned, task_id="invalidate", udf="roads")
    return lambda: made().operator.execute({})


def decorated_to(place: str) -> Any:
    how = {"to": place, "must_succeed": True}
    made = fused_invalidate_cache_task(lambda: ["1/0/0"], task_id="invalidate", udf="roads", announce=how)
    return lambda: made().operator.execute({})


PLACES: dict[str, Callable[[Planted], Callable[[], Any]]] = {
    "a list": lambda at: decorated({"tiles_file": at(".txt")}),
    "a table": lambda at: decorated({"geometry": at(".parquet"), "zooms": 3}),
    "cells": lambda at: decorated({"hex_dataset": at(), "zooms": 3}),
    "a tile": lambda at: decorated([at()]),
    "a dataset": lambda at: (
        lambda: FusedInvalidateDatasetOperator(
            task_id="invalidate",
            cache_map=CacheMap.from_dict({"datasets": {at(): {"udfs": [{"udf": "gone"}]}}}),
            dataset=at(),
            tiles=["1/0/0"],
        ).execute({})
    ),
    "what is announced": lambda at: decorated_to(at(".json")),
    "the notifier": lambda at: lambda: FusedInvalidateCacheNotifier(udf="roads", tiles_file=at(".txt")).notify({}),
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("place", PLACES)
def test_no_piece_of_a_secret_leaves_a_task(
    place: str, planted: Planted, leaked: Any, udf: Udf, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("fused_cache_ops", "airflow_provider_fused"):  # fsspec logs the whole address at DEBUG
        caplog.set_level(logging.DEBUG, logger=name)
    error: BaseException | None = None
    try:
        PLACES[place](planted)()
    except Exception as raised:
        error = raised
    assert error is not None or "ERROR" in caplog.text
    said = [caplog.text]
    while error is not None:
        said += [str(error), repr(error), repr(vars(error)), pickle.dumps(error).decode("latin-1")]
        error = error.__cause__
    assert leaked("\n".join(said)) == set()
