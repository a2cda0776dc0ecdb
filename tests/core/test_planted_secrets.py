"""Secrets planted wherever a call takes a text, and looked for in everything that leaves it."""

import io
import json
import logging
import pickle
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest
from typer.testing import CliRunner

from fused_cache_ops import CacheMap, FusedCacheError, FusedClient, plan_dataset, plan_invalidation
from fused_cache_ops.changes import (
    changed_geometry,
    changed_raster,
    changes_of_delta,
    changes_of_folder,
    changes_of_icechunk,
    folder_listing,
)
from fused_cache_ops.changes.records import recorded_changes
from fused_cache_ops.cli.commands import program


def _repository() -> Any:
    if sys.version_info < (3, 11):
        pytest.skip("Icechunk needs Python 3.11")
    import icechunk

    return icechunk.Repository.create(icechunk.in_memory_storage())


PLACES: dict[str, Callable[[FusedClient, Callable[..., str]], Any]] = {
    "tiles_file": lambda client, at: client.invalidate_cache("roads", tiles_file=at(".txt")),
    "geometry": lambda client, at: client.invalidate_cache("roads", geometry=at(".parquet"), zooms=3),
    "vector file": lambda client, at: client.invalidate_cache("roads", geometry=at(".gpkg"), zooms=3),
    "cells": lambda client, at: client.invalidate_cache("roads", cells=at(".txt"), zooms=3),
    "hex_dataset": lambda client, at: client.invalidate_cache("roads", hex_dataset=at(), zooms=3),
    "checkpoint": lambda client, at: client.invalidate_cache("roads", tiles=["1/0/0", "1/0/1"], checkpoint=at()),
    "cache_map": lambda client, at: client.invalidate_dataset("d", cache_map=at(".toml"), tiles=["1/0/0"]),
    "dataset": lambda client, at: client.invalidate_dataset(
        at(),
        cache_map=CacheMap.from_dict({"datasets": {at(): {"udfs": [{"udf": "roads"}]}}}),
        tiles=["1/0/0"],
    ),
    "a dataset that is unknown": lambda client, at: client.invalidate_dataset(
        at(), cache_map=CacheMap.from_dict({"datasets": {"d": {"udfs": []}}}), tiles=["1/0/0"]
    ),
    "a dataset whose UDF fails": lambda client, at: client.invalidate_dataset(
        at(),
        cache_map=CacheMap.from_dict({"datasets": {at(): {"udfs": [{"udf": "gone"}]}}}),
        tiles=["1/0/0"],
    ),
    "the plan of a dataset": lambda _, at: plan_dataset(
        at(),
        cache_map=CacheMap.from_dict({"datasets": {at(): {"udfs": [{"udf": "roads"}]}}}),
        tiles=["1/0/0"],
    ),
    "udf": lambda client, at: client.invalidate_cache(at(), tiles=["1/0/0"]),
    "a raster": lambda client, at: client.invalidate_cache("roads", geometry=at(".tif"), zooms=3),
    "two rasters": lambda _, at: changed_raster(at(".tif"), at(".tif")),
    "before": lambda _, at: changed_geometry(at(".parquet"), at(".parquet")),
    "a Delta table": lambda _, at: changes_of_delta(at(), since=0),
    "a Delta table's address": lambda _, at: recorded_changes(at(), since="0"),
    "a folder": lambda _, at: folder_listing(at()),
    "a folder with a slash": lambda _, at: folder_listing(at("/")),
    "records of a folder": lambda _, at: folder_listing([{"url": at(".parquet")}]),
    "the address of records": lambda _, at: folder_listing([{"name": "a.tif"}], address=at(), footprints=True),
    "a listing": lambda _, at: changes_of_folder([], since=at(".json")),
    "a pattern": lambda _, at: folder_listing([{"name": "a.tif"}], match=at()),
    "the listing of an address": lambda _, at: recorded_changes(at(), since=at(".json")),
    "a version": lambda _, at: recorded_changes("s3://lake/t", since=at()),
    "Zarr": lambda client, at: client.invalidate_cache("roads", geometry=at(".zarr"), zooms=3),
    "Zarr's address": lambda _, at: recorded_changes("file://" + at(".zarr"), since="0"),
    "an Icechunk repository": lambda _, at: changes_of_icechunk(at(), since="0", array="a"),
    "a snapshot": lambda _, at: changes_of_icechunk(_repository(), since=at(), array="a"),
    "an array": lambda _, at: changes_of_icechunk(_repository(), since=_repository().lookup_branch("main"), array=at()),
    "a branch": lambda _, at: changes_of_icechunk(_repository(), since="0", array="a", branch=at()),
    "h3_index": lambda client, at: client.invalidate_cache("roads", tiles=["1/0/0"], h3_index={"path": at(), "loaded_at": 0}),
    "a run of h3_index": lambda client, at: client.invalidate_cache(
        "roads", tiles=["1/0/0"], h3_index={"path": at(), "run": True, "deadline": 1}
    ),
    "the prefix of h3_index": lambda client, at: client.invalidate_cache(
        "roads", h3_index={"path": "s3://a/", "run": True, "prefix": [at(), 5]}
    ),
    "a look at h3_index": lambda client, at: client.look_at_index({"path": at(), "run": True}),
    "a look at a dataset's": lambda client, at: client.look_at_dataset_indexes(
        "d",
        cache_map=CacheMap.from_dict({"datasets": {"d": {"udfs": [{"udf": "roads"}]}}}),
        h3_index={"path": at(), "run": True},
    ),
    "the plan of h3_index": lambda _, at: plan_invalidation("roads", h3_index={"path": at(), "run": True}),
    "announce": lambda client, at: client.invalidate_cache("roads", tiles=["1/0/0"], announce=at(".json")),
    "announce, must succeed": lambda client, at: client.invalidate_cache(
        "roads", tiles=["1/0/0"], announce={"to": at(".json"), "must_succeed": True}
    ),
    "the source of announce": lambda client, at: client.invalidate_cache(
        "roads", tiles=["1/0/0"], announce={"to": "maps/", "source": at() * 9}
    ),
    "a folder of announce": lambda client, at: client.invalidate_dataset(
        "d",
        cache_map=CacheMap.from_dict({"datasets": {"d": {"udfs": [{"udf": "roads", "announce": at(".json")}]}}}),
        tiles=["1/0/0"],
        announce=at("/"),
    ),
    "the plan of announce": lambda _, at: plan_invalidation("roads", announce=at(".json")),
    "inner_caches": lambda client, at: client.invalidate_cache("roads", inner_caches=[at()]),
    "loaded_at": lambda client, at: client.invalidate_cache("roads", loaded_at=at()),
    "the plan of a file": lambda _, at: plan_invalidation("roads", tiles_file=at(".txt")),
}


def leaving(outcome: Any) -> str:
    """Everything that a result or an error says of itself, wherever an orchestrator may store it."""
    said = [str(outcome), repr(outcome), repr(getattr(outcome, "__context__", None)), pickle.dumps(outcome).decode("latin-1")]
    if isinstance(outcome, BaseException):
        said += [*traceback.format_exception_only(outcome), repr(vars(outcome))]
        outcome = getattr(outcome, "result", None)
    if hasattr(outcome, "to_dict"):
        said.append(json.dumps(outcome.to_dict(), default=str))
    return "\n".join(said)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_no_piece_of_a_planted_secret_leaves_a_call(
    place: Any, planted: Any, leaked: Any, client: FusedClient, udf: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="fused_cache_ops")
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        try:
            outcome = place(client, planted)
        except FusedCacheError as error:
            outcome = error
    assert leaked("\n".join([leaving(outcome), caplog.text, printed.getvalue()])) == set()


COMMANDS = {
    "invalidate": ["invalidate", "roads", "--tiles-file", "{at}"],
    "geometry": ["invalidate", "roads", "--geometry", "{at}", "--zooms", "3"],
    "difference": ["invalidate", "roads", "--diff", "{at}", "{at}", "--zooms", "3"],
    "rasters": ["invalidate", "roads", "--diff", "{at}.tif", "{at}.tif", "--zooms", "3"],
    "plan": ["plan", "roads", "--cells", "{at}", "--zooms", "3"],
    "listing": ["listing", "{at}"],
    "output of a listing": ["listing", "scripts", "--output", "{at}"],
    "checkpoint": ["invalidate", "roads", "1/0/0", "1/0/1", "--checkpoint", "{at}"],
    "dataset": ["dataset", "{at}", "1/0/0"],
    "index": ["invalidate", "roads", "1/0/0", "--h3-index", "{at}", "--h3-index-run"],
    "plan of an index": ["plan", "roads", "1/0/0", "--h3-index", "{at}", "--h3-index-run"],
    "announce": ["invalidate", "roads", "1/0/0", "--announce", "{at}", "--announce-must-succeed"],
    "plan of announce": ["plan", "roads", "1/0/0", "--announce", "{at}"],
    "inner caches": ["invalidate", "roads", "1/0/0", "--inner-caches", "{at}"],
    "time": ["invalidate", "roads", "1/0/0", "--loaded-at", "{at}"],
    "map": ["map", "check", "--map", "{at}"],
    "remaining": ["invalidate", "roads", "1/0/0", "--remaining", "{at}"],
    "page": ["plan", "roads", "1/0/0", "--html", "{at}"],
    "footprint": ["plan", "roads", "1/0/0", "--geojson", "{at}"],
    "draft": ["map", "suggest", "--output", "{at}"],
    "token's file": ["invalidate", "roads", "1/0/0", "--token-file", "{at}"],
    "certificates": ["invalidate", "roads", "1/0/0", "--ca-bundle", "{at}"],
    "certificate": ["invalidate", "roads", "1/0/0", "--client-certificate", "{at}"],
    "service": ["invalidate", "roads", "1/0/0", "--base-url", "{at}"],
    "refresh": ["invalidate", "roads", "1/0/0", "--refresh", "all", "--refresh-parameter", "at={at}"],
    "parts": ["invalidate", "roads", "--hex-dataset", ".", "--partition", "{at}", "--zooms", "3"],
    "a word that is no option": ["invalidate", "roads", "--geometri", "{at}"],
    "a tile": ["invalidate", "roads", "{at}"],
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_no_piece_of_a_planted_secret_leaves_a_command(
    command: list[str], planted: Any, leaked: Any, udf: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(program, [each.format(at=planted()) for each in command])
    assert ran.exception is None or isinstance(ran.exception, SystemExit)
    assert leaked(ran.output + ran.stderr) == set()
