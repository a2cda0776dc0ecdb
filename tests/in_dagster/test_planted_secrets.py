"""Secrets planted in what an asset or op is given while it runs, and looked for in everything that Dagster stores of it."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from dagster_fused import FusedResource, build_fused_cache_asset, build_fused_cache_check
from fused_cache_ops import CacheMap
from fused_cache_ops.emulator import Emulator, Udf

pytestmark = [pytest.mark.xdist_group("dagster"), pytest.mark.filterwarnings("ignore")]

Planted = Callable[..., str]

PLACES: dict[str, Callable[[Planted], Any]] = {
    "a list": lambda at: lambda context, key: {"tiles_file": at(".txt")},
    "a table": lambda at: lambda context, key: {"geometry": at(".parquet"), "zooms": 3},
    "cells": lambda at: lambda context, key: {"hex_dataset": at(), "zooms": 3},
    "a tile": lambda at: lambda context, key: [at()],
}


def stored(definitions: list[Any], emulator: Emulator) -> str:
    """Everything in the event log of a run: messages, errors with their causes, metadata."""
    fused = FusedResource(token=emulator.token, base_url=emulator.base_url, deadline=5)
    with dg.DagsterInstance.ephemeral() as instance:
        run = dg.materialize(definitions, instance=instance, resources={"fused": fused}, raise_on_error=False)
        return "\n".join(repr(entry) for entry in instance.all_logs(run.run_id))


@pytest.mark.parametrize("place", PLACES)
def test_no_piece_of_a_secret_is_stored_of_an_asset(
    place: str, planted: Planted, leaked: Any, fused_emulator: Emulator, udf: Udf
) -> None:
    log = stored([build_fused_cache_asset("cache", udf="roads", selection_fn=PLACES[place](planted))], fused_emulator)
    assert "STEP_FAILURE" in log
    assert leaked(log) == set()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("must_succeed", [True, False])
def test_no_piece_of_a_secret_is_stored_of_what_is_announced(
    planted: Planted, leaked: Any, fused_emulator: Emulator, udf: Udf, must_succeed: bool
) -> None:
    how: Any = {"tiles": ["1/0/0"], "announce": {"to": planted(".json"), "must_succeed": must_succeed}}
    log = stored([build_fused_cache_asset("cache", udf="roads", selection=how)], fused_emulator)
    assert leaked(log) == set()


def test_no_piece_of_a_secret_is_stored_of_a_dataset(planted: Planted, leaked: Any, fused_emulator: Emulator, udf: Udf) -> None:
    cache_map = CacheMap.from_dict({"datasets": {planted(): {"udfs": [{"udf": "roads"}, {"udf": "gone"}]}}})

    @dg.asset
    def maps(fused: FusedResource) -> None:
        with fused.get_client() as client:
            client.invalidate_dataset(planted(), cache_map=cache_map, tiles=["1/0/0"])

    log = stored([maps], fused_emulator)
    assert "STEP_FAILURE" in log
    assert leaked(log) == set()


def test_no_piece_of_a_secret_is_stored_of_a_check(planted: Planted, leaked: Any, fused_emulator: Emulator, udf: Udf) -> None:
    asset = build_fused_cache_asset("cache", udf="roads", selection_fn=lambda context, key: ["1/0/0"])
    check = build_fused_cache_check(asset="cache", udf="roads", selection_fn=lambda context: {"tiles_file": planted()})
    assert leaked(stored([asset, check], fused_emulator)) == set()
