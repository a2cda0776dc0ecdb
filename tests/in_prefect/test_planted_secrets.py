"""Secrets planted in what a task is given, and looked for in everything that Prefect stores of its run."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from prefect import flow, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from fused_cache_ops import CacheMap
from fused_cache_ops.emulator import Emulator, Udf
from prefect_fused import FusedCredentials, invalidate_cache, invalidate_dataset

pytestmark = [
    pytest.mark.xdist_group("prefect"),
    pytest.mark.usefixtures("prefect_api"),
    pytest.mark.filterwarnings("ignore"),
]

Planted = Callable[..., str]

PLACES: dict[str, Callable[[Planted], dict[str, Any]]] = {
    "a list": lambda at: {"tiles_file": at(".txt")},
    "a table": lambda at: {"geometry": at(".parquet"), "zooms": 3},
    "what is announced": lambda at: {"tiles": ["1/0/0"], "announce": {"to": at(".json"), "must_succeed": True}},
    "a dataset": lambda at: {
        "dataset": at(),
        "cache_map": CacheMap.from_dict({"datasets": {at(): {"udfs": [{"udf": "gone"}]}}}),
        "tiles": ["1/0/0"],
    },
}


def stored(flow_run_id: Any) -> str:
    """What the server has of a flow run and its task runs."""

    async def ask() -> str:
        async with get_client() as api:
            run = await api.read_flow_run(flow_run_id)
            tasks = await api.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])))
            return "\n".join(each.model_dump_json() for each in [run, *tasks])

    return asyncio.run(ask())


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("place", PLACES)
def test_no_piece_of_a_secret_is_stored_of_a_task(
    place: str, planted: Planted, leaked: Any, fused_emulator: Emulator, udf: Udf, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("fused_cache_ops", "prefect_fused"):  # fsspec logs the whole address at DEBUG
        caplog.set_level(logging.DEBUG, logger=name)
    credentials = FusedCredentials(token=fused_emulator.token, base_url=fused_emulator.base_url, deadline=5)
    keywords = PLACES[place](planted)

    @flow
    def pipeline() -> Any:
        called = keywords.copy()
        if "dataset" in called:
            return invalidate_dataset.with_options(retries=0)(called.pop("dataset"), credentials, **called)
        return invalidate_cache.with_options(retries=0)("roads", credentials, **called)

    state = pipeline(return_state=True)
    assert state.is_failed()
    error = asyncio.run(state.aresult(raise_on_failure=False))
    said = [stored(state.state_details.flow_run_id), state.message or "", str(error), repr(vars(error)), caplog.text]
    assert leaked("\n".join(said)) == set()
