"""The guards, each on its own: nothing given by mistake invalidates everything, nothing is lost, nothing leaks, and nothing
stale is called fresh. ``scripts/mutants`` changes the guards in small ways, which these tests must notice."""

import json
import logging
import math
import os
import pickle
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import fsspec
import pyarrow
import pytest
import typer

from fused_cache_ops import ConfigurationError, FusedClient, InvalidInputError, Tile
from fused_cache_ops.cli.ci import NOT_GIVEN as LEFT_OUT
from fused_cache_ops.cli.ci import _arguments, _inputs, _several, _target
from fused_cache_ops.cli.commands import program
from fused_cache_ops.cli.options import _TYPES, _default, _read
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.running.refresh import plan_refresh
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
from fused_cache_ops.selection.batches import Batch, TileBatches
from fused_cache_ops.selection.keywords import KINDS, NOT_GIVEN, SELECTION_DEFAULTS, SHAPERS, WHOLE_UDF
from fused_cache_ops.selection.reading import (
    check_limits,
    check_shard,
    kinds_in,
    read_selection,
    refuse_shapers,
    refuse_single_use,
    require_kind,
)
from fused_cache_ops.selection.remaining import RemainingTiles
from fused_cache_ops.selection.rendered import read_rendered
from fused_cache_ops.selection.selection import Selection, WholeUdf
from fused_cache_ops.selection.spans import Spans
from fused_cache_ops.sending.checkpoint import LIFETIME, Checkpoint, check_location, is_folder
from fused_cache_ops.sending.outbox import Outbox
from fused_cache_ops.tiles.tile import ZOOM_LIMIT
from fused_cache_ops.wording import quoted, quoted_address, rendered_to_nothing, shortened, without_credentials

# -- text from a template -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiles", "bounds", "shard", "cells", "partition"])
@pytest.mark.parametrize("text", ["[1, 2]", " [1, 2]\n"])
def test_a_list_is_read_from_text(name: str, text: str) -> None:
    assert read_rendered({name: text}) == {name: [1, 2]}


@pytest.mark.parametrize(("text", "tiles"), [("[]", []), ("()", []), ("['1/0/0']", ["1/0/0"]), ("((1, 0, 0),)", [(1, 0, 0)])])
def test_a_list_may_be_written_as_python_does(text: str, tiles: list[Any]) -> None:
    assert read_rendered({"tiles": text}) == {"tiles": tiles}


@pytest.mark.parametrize("name", ["tiles", "bounds", "shard"])
@pytest.mark.parametrize("text", ["", " ", "None", "null", "{}", "7", "1/0/0", "[1, 2", "[" * 100_000])
def test_text_that_is_no_list_is_an_error(name: str, text: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^{name} rendered to .*, which is not a list"):
        read_rendered({name: text})


@pytest.mark.parametrize("name", ["cells", "partition"])
def test_a_list_that_is_cut_off_is_no_path(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^{name} rendered to .*, which is not a list"):
        read_rendered({name: "['8a2a1072b59ffff'"})


@pytest.mark.parametrize("name", ["whole_udf", "fail_on_refresh_error"])
def test_true_and_false_are_read_from_text(name: str) -> None:
    assert [read_rendered({name: text})[name] for text in ("True", "false", " true\n")] == [True, False, True]


@pytest.mark.parametrize("name", ["whole_udf", "fail_on_refresh_error"])
@pytest.mark.parametrize("text", ["", "None", "1", "yes"])
def test_nothing_else_is_true(name: str, text: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^{name} rendered to .*, which is neither true nor false"):
        read_rendered({name: text})


@pytest.mark.parametrize(
    "name", ["buffer", "max_tiles", "max_zoom", "verify_tiles", "max_related", "refresh_concurrency", "max_refresh"]
)
def test_a_number_is_read_from_text_or_refused(name: str) -> None:
    assert read_rendered({name: " 12 "}) == {name: 12}
    for text in ("", "None", "1.5"):
        with pytest.raises(InvalidInputError, match=f"^{name} rendered to .*, which is not a whole number"):
            read_rendered({name: text})


@pytest.mark.parametrize("name", ["again_after", "refresh_deadline"])
def test_seconds_are_read_from_text_or_refused(name: str) -> None:
    assert read_rendered({name: "1.5"}) == {name: 1.5}
    for text in ("", "None", "soon"):
        with pytest.raises(InvalidInputError, match=f"^{name} rendered to .*, which is not a number of seconds"):
            read_rendered({name: text})


def test_parameters_are_read_from_text_or_refused() -> None:
    assert read_rendered({"refresh_parameters": '{"format": "png"}'}) == {"refresh_parameters": {"format": "png"}}
    for text in ("", "None", "[]"):
        with pytest.raises(InvalidInputError, match=r"^refresh_parameters rendered to .*, which is not a mapping"):
            read_rendered({"refresh_parameters": text})


@pytest.mark.parametrize(
    "keywords", [{"zooms": "3-5"}, {"cells": "cells.txt"}, {"partition": "date=1"}, {"tiles": ["1/0/0"]}, {"whole_udf": None}]
)
def test_what_the_core_reads_itself_is_left_as_it_is(keywords: dict[str, Any]) -> None:
    assert read_rendered(keywords) == keywords


# -- exactly one kind of selection ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [None, [], ""])
def test_a_kind_is_given_even_if_it_is_empty(kind: str, value: Any) -> None:
    assert kinds_in({**SELECTION_DEFAULTS, kind: value}) == [kind]


def test_what_is_at_its_default_is_not_given() -> None:
    assert kinds_in(SELECTION_DEFAULTS) == kinds_in({}) == []


def test_two_kinds_are_both_seen() -> None:
    assert kinds_in({"tiles": [], "bounds": [], "whole_udf": True}) == ["tiles", "bounds", "whole_udf"]


@pytest.mark.parametrize("value", [None, 1, "true", []])
def test_the_whole_udf_is_meant_by_true_alone(value: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"whole_udf = .* must be True or False"):
        kinds_in({"whole_udf": value})


@pytest.mark.parametrize("keywords", [{}, {"whole_udf": False}, {"zooms": "3"}, {"bounds": NOT_GIVEN}])
def test_data_that_selects_nothing_is_refused(keywords: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="The function returned no selection"):
        require_kind(keywords, "The function returned")


@pytest.mark.parametrize("keywords", [{"tiles": []}, {"bounds": None}, {"whole_udf": True}, {"tiles": WHOLE_UDF}])
def test_data_that_says_something_passes(keywords: dict[str, Any]) -> None:
    require_kind(keywords, "The function returned")


OTHER = {"zooms": "3", "buffer": 1, "max_tiles": 5, "when_too_many": "coarser", "max_zoom": 3, "shard": (0, 2)}


@pytest.mark.parametrize("name", SHAPERS)
def test_what_shapes_a_selection_is_refused_without_one(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{name} = .* needs a selection"):
        refuse_shapers({name: OTHER.get(name, "x")}, SELECTION_DEFAULTS, SHAPERS)


@pytest.mark.parametrize("value", [False, 0.0, None])
def test_a_shaper_that_merely_equals_its_default_is_refused_too(value: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"buffer = .* needs a selection"):
        refuse_shapers({"buffer": value}, SELECTION_DEFAULTS, SHAPERS)


def test_shapers_at_their_defaults_ask_for_nothing() -> None:
    refuse_shapers({**SELECTION_DEFAULTS, "max_tiles": int("1000000")}, SELECTION_DEFAULTS, SHAPERS)


LIMITS: dict[str, Any] = {"buffer": 0, "max_tiles": 1, "when_too_many": "fail", "max_zoom": 0}


@pytest.mark.parametrize(
    "limit",
    [
        {"buffer": 64},
        {"max_tiles": 10**9},
        {"max_zoom": ZOOM_LIMIT},
        {"when_too_many": "coarser"},
        {"when_too_many": "whole-udf"},
    ],
    ids=str,
)
def test_the_largest_limits_are_allowed(limit: dict[str, Any]) -> None:
    check_limits(**(LIMITS | limit))
    check_limits(**LIMITS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("buffer", value) for value in (-1, 65, True, 1.0, None, "1")),
        *(("max_tiles", value) for value in (0, -1, True, 5.0, None, "5")),
        *(("when_too_many", value) for value in (None, "", "FAIL", "whole_udf")),
        *(("max_zoom", value) for value in (-1, ZOOM_LIMIT + 1, True, 5.0, None, "5")),
    ],
)
def test_a_limit_that_is_none_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"^{name} = "):
        check_limits(**(LIMITS | {name: value}))


@pytest.mark.parametrize("shard", [None, (0, 1), [1, 2], (99, 100)])
def test_a_shard_is_one_of_several_parts(shard: Any) -> None:
    check_shard(shard)


@pytest.mark.parametrize(
    "shard", [(), (0,), (1, 1), (2, 1), (-1, 2), (0, 0), (0, 1, 2), (False, 2), (0, True), ("0", 2), (0, "2"), "02", 7]
)
def test_what_is_no_part_is_refused(shard: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^shard = "):
        check_shard(shard)


def test_a_file_given_by_its_path_may_be_read_again(tmp_path: Path) -> None:
    refuse_single_use({"tiles_file": tmp_path / "tiles.list"})
    refuse_single_use({"tiles_file": NOT_GIVEN, "bounds": [0, 0, 1, 1]})


def test_an_open_file_is_refused_where_it_would_be_read_again(tmp_path: Path) -> None:
    (tmp_path / "tiles.list").write_text("1/0/0\n")
    with (tmp_path / "tiles.list").open() as file, pytest.raises(InvalidInputError, match="tiles_file can be read only once"):
        refuse_single_use({"tiles_file": file})


@pytest.mark.parametrize("value", [[], ["1/0/0"], {"1/0/0"}, (), pyarrow.table({"z": [1], "x": [0], "y": [0]})], ids=repr)
def test_what_can_be_read_again_is_taken_where_it_will_be(value: Any) -> None:
    refuse_single_use({"tiles": value})


@pytest.mark.parametrize("kind", ["tiles", "bounds", "geometry", "cells"])
def test_what_can_be_read_only_once_is_refused_where_it_would_be_read_again(kind: str) -> None:
    reader = pyarrow.RecordBatchReader.from_batches(pyarrow.schema([]), [])
    for value in (iter([]), [iter([])], reader):
        with pytest.raises(InvalidInputError, match=f"{kind} is of type .*, which can be read only once"):
            refuse_single_use({kind: value})  # type: ignore[misc]


def test_the_whole_udf_is_selected_by_saying_so_or_by_no_keyword() -> None:
    assert isinstance(read_selection(whole_udf=True), WholeUdf)
    assert isinstance(read_selection(), WholeUdf)
    assert isinstance(read_selection(tiles=[]), Selection)


@pytest.mark.parametrize(
    ("keywords", "reason"),
    [
        ({"tiles": [], "bounds": (0, 0, 1, 1), "zooms": "1"}, "tiles and bounds are both given"),
        ({"tiles": [], "whole_udf": True}, "tiles and whole_udf are both given"),
        ({"tiles": [], "shard": (2, 2)}, "^shard = "),
        ({"tiles": [], "buffer": -1}, "^buffer = "),
        ({"whole_udf": True, "zooms": "3"}, "needs a selection"),
        ({"zooms": "3"}, "needs a selection"),
        ({"tiles": [], "crs": "EPSG:4326"}, "crs = .* is given with tiles, but it is for geometry"),
        ({"bounds": (0, 0, 1, 1), "zooms": "1", "render_resolution": 3}, "is for cells and hex_dataset"),
        ({"tiles": ["1/0/0"], "zooms": "5", "max_zoom": 4}, "zoom"),
        ({"bounds": (0, 0, 1, 1)}, "bounds needs zooms"),
    ],
    ids=str,
)
def test_keywords_that_contradict_each_other_are_refused(keywords: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        read_selection(**keywords)


def test_a_detail_belongs_to_its_kind() -> None:
    selection = read_selection(geometry="POINT (8 50)", crs="EPSG:4326", zooms="1")
    assert isinstance(selection, Selection)
    assert selection.tiles_per_zoom() == {1: 1}


# -- the inputs of a step in CI -------------------------------------------------------------------------------------------


def test_inputs_are_read_under_their_names() -> None:
    environment = {"FUSED_INPUT_UDF": "roads", "FUSED_INPUT_WHOLE_UDF": "true", "FUSED_INPUT_ZOOMS": LEFT_OUT, "OTHER": ""}
    assert _inputs(environment) == {"udf": "roads", "whole-udf": "true"}


@pytest.mark.parametrize("value", ["", " \n", "None", "null"])
@pytest.mark.parametrize("name", ["tiles", "zooms", "token"])
def test_an_input_that_rendered_to_nothing_is_refused(name: str, value: str) -> None:
    with pytest.raises(typer.BadParameter, match=f"The input {name} was given, but is empty"):
        _inputs({"FUSED_INPUT_UDF": "roads", f"FUSED_INPUT_{name.upper()}": value})


def test_a_token_is_no_argument_of_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSED_SERVICE_ACCOUNT_TOKEN", "another")
    assert _inputs({"FUSED_INPUT_UDF": "roads", "FUSED_INPUT_TOKEN": " the-token\n"}) == {"udf": "roads"}
    assert os.environ["FUSED_SERVICE_ACCOUNT_TOKEN"] == "the-token"


def test_without_a_token_the_environments_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSED_SERVICE_ACCOUNT_TOKEN", "another")
    _inputs({"FUSED_INPUT_UDF": "roads"})
    assert os.environ["FUSED_SERVICE_ACCOUNT_TOKEN"] == "another"


@pytest.mark.parametrize("inputs", [{}, {"udf": "roads", "dataset": "d"}], ids=str)
def test_a_step_has_one_target(inputs: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="exactly one of the inputs udf and dataset"):
        _target(inputs, tmp_path)


def test_tiles_follow_the_udf_they_belong_to(tmp_path: Path) -> None:
    inputs = {"udf": "roads", "tiles": "1/0/0 1/0/1\n1/1/0", "zooms": "1"}
    assert _target(inputs, tmp_path) == ("invalidate", ["roads", "1/0/0", "1/0/1", "1/1/0"])
    assert inputs == {"zooms": "1"}


def test_a_dataset_is_the_target_of_its_own_command(tmp_path: Path) -> None:
    assert _target({"dataset": "lake", "whole-udf": "true"}, tmp_path) == ("dataset", ["lake"])


def test_an_empty_list_of_tiles_is_an_empty_file(tmp_path: Path) -> None:
    inputs = {"udf": "roads", "tiles": "[]"}
    assert _target(inputs, tmp_path) == ("invalidate", ["roads"])
    assert Path(inputs["tiles-file"]).read_text() == ""


def test_tiles_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="The input tiles begins with"):
        _target({"udf": "roads", "tiles": "[1/0/0]"}, tmp_path)


@pytest.mark.parametrize("tiles", ["[]", "1/0/0"])
def test_tiles_and_a_file_of_tiles_are_refused_together(tiles: str, tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="both given"):
        _target({"udf": "roads", "tiles": tiles, "tiles-file": "x"}, tmp_path)


def arguments(command: str, inputs: dict[str, str], *, strict: bool = False) -> list[str]:
    assert program.registered_commands  # of the module that was imported for them
    return _arguments(command, inputs, strict=strict)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"zooms": " 3-5\n"}, ["--zooms=3-5"]),
        ({"zooms": "--whole-udf"}, ["--zooms=--whole-udf"]),
        ({"whole-udf": "true"}, ["--whole-udf"]),
        ({"whole-udf": "False"}, []),
        ({"bounds": "0,0,1,1\n\n 2,2,3,3"}, ["--bounds=0,0,1,1", "--bounds=2,2,3,3"]),
        ({"diff": "before.parquet\nafter.parquet"}, ["--diff", "before.parquet", "after.parquet"]),
    ],
    ids=str,
)
def test_no_value_is_taken_for_an_option(inputs: dict[str, str], expected: list[str]) -> None:
    assert arguments("invalidate", inputs, strict=True) == expected


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"whole-udf": ""}, "must be true or false"),
        ({"whole-udf": "1"}, "must be true or false"),
        ({"bounds": "[]"}, "is an empty list"),
        ({"diff": "before.parquet"}, "needs 2 lines, not 1"),
        ({"diff": "a\nb\nc"}, "needs 2 lines, not 3"),
        ({"key": '["id"'}, "is not a JSON list"),
        ({"map": "fused-cache.toml"}, "map is not for invalidate"),
        ({"-y": "true"}, "-y is not for invalidate"),
    ],
    ids=str,
)
def test_an_input_that_a_command_cannot_use_is_refused(inputs: dict[str, str], reason: str) -> None:
    with pytest.raises(typer.BadParameter, match=reason):
        arguments("invalidate", inputs, strict=True)


def test_a_plan_leaves_out_what_only_sending_needs() -> None:
    assert arguments("plan", {"checkpoint": "x", "zooms": "3"}) == ["--zooms=3"]


@pytest.mark.parametrize(
    ("text", "values"), [('["a b", "c"]', ["a b", "c"]), (" [ ]", []), ("a b\n\n c ", ["a b", "c"]), ("", [])], ids=repr
)
def test_several_values_are_a_json_list_or_lines(text: str, values: list[str]) -> None:
    assert _several("bounds", text) == values


@pytest.mark.parametrize("text", ["[1, 2]", '["a", null]'])
def test_a_list_of_something_else_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="quote its entries"):
        _several("bounds", text)


# -- the options of a command ---------------------------------------------------------------------------------------------


def options(**given: Any) -> dict[str, Any]:
    return {name: _default(name) for name in _TYPES} | given


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"tiles": ["1/0/0"]}, {"tiles": ["1/0/0"]}),
        ({"bounds": ["0,0,1,1.5", "a,0,1,1"]}, {"bounds": [[0.0, 0.0, 1.0, 1.5], ["a", 0.0, 1.0, 1.0]]}),
        ({"whole_udf": True}, {"whole_udf": True}),
        ({"tiles_file": ""}, {"tiles_file": ""}),
        ({"tiles": ["1/0/0"], "zooms": "", "buffer": 3}, {"tiles": ["1/0/0"], "zooms": "", "buffer": 3}),
        ({"tiles": ["1/0/0"], "shard": "1/4"}, {"tiles": ["1/0/0"], "shard": (1, 4)}),
    ],
    ids=str,
)
def test_options_are_read_as_keywords(given: dict[str, Any], read: dict[str, Any]) -> None:
    defaults = {"buffer": 0, "max_tiles": 1_000_000, "when_too_many": "fail", "max_zoom": SELECTION_DEFAULTS["max_zoom"]}
    assert _read(options(**given)) == defaults | read


@pytest.mark.parametrize(
    "given",
    [{}, {"tiles": []}, {"zooms": "3"}, {"whole_udf": True, "tiles": ["1/0/0"]}, {"whole_udf": True, "tiles_file": ""}],
    ids=str,
)
def test_a_command_has_one_kind_of_selection_or_the_whole_udf(given: dict[str, Any]) -> None:
    with pytest.raises(typer.BadParameter, match="give exactly one of these"):
        _read(options(**given))


@pytest.mark.parametrize("shard", ["", "1", "1/2/3", "a/2", "1/", "-1/2", "1,2"])
def test_a_shard_that_cannot_be_read_is_refused(shard: str) -> None:
    with pytest.raises(typer.BadParameter, match="write I/N"):
        _read(options(tiles=["1/0/0"], shard=shard))


# -- nothing is fresh that may be stale -----------------------------------------------------------------------------------


def test_what_no_response_came_for_is_unknown_and_may_be_tried_again(
    client: FusedClient, fused_emulator: Emulator, udf: Udf
) -> None:
    fused_emulator.misbehave(status=503, retry_after=10_000, times=None, path="/run/tiles/")  # longer than the deadline
    result = client.invalidate_cache(udf.shared_token, tiles=["1/0/0"], refresh=1, verify_tiles=1)
    assert result.refresh is not None
    assert (result.refresh.runs, result.refresh.already_cached, result.refresh.retryable) == (0, 0, True)
    assert result.verification is not None
    assert (result.verification.fresh, result.verification.from_cache) == ((), ())
    for (told,) in (result.verification.unknown, result.refresh.failed):
        assert told.startswith("1/0/0: ")
        assert "503" in told


def test_what_takes_longer_than_the_refresh_may_be_tried_again(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(latency=3, path="/run/tiles/")
    found = client.refresh_cache(udf.shared_token, tiles=["1/0/0"], refresh_deadline=1)
    assert (found.runs, found.already_cached, found.is_complete, found.retryable) == (0, 0, False, True)


def test_a_tile_that_was_only_turned_away_before_is_still_told_stale(
    client: FusedClient, fused_emulator: Emulator, udf: Udf
) -> None:
    fused_emulator.misbehave(status=200, after_work=False, body={}, path="batch-delete")  # says it did, and did not
    fused_emulator.misbehave(status=429, retry_after=0, path="/run/tiles/")
    result = client.invalidate_cache(udf.shared_token, tiles=["1/0/0", "1/0/1"], refresh="all", verify_tiles=2)
    assert result.verification is not None
    assert [tile.partition(":")[0] for tile in result.verification.from_cache] == ["1/0/0", "1/0/1"]


def test_a_shared_token_with_a_line_break_verifies(client: FusedClient, udf: Udf) -> None:
    found = client.verify_cache(udf.id, tiles=["2/0/0"], verify_tiles=1, shared_token=f"{udf.shared_token}\n")
    assert found.fresh == ("2/0/0",)


def test_the_seconds_of_a_run_are_its_own(client: FusedClient, fused_emulator: Emulator) -> None:
    def slow(z: int, x: int, y: int) -> list[int]:
        time.sleep(0.2)
        return [z, x, y]

    found = client.refresh_cache(fused_emulator.register(slow).shared_token, tiles=["1/0/0"])
    assert found.seconds_median is not None
    assert 0.2 <= found.seconds_median <= found.elapsed_seconds


def test_all_may_be_sampled_up_to_the_limit(client: FusedClient, udf: Udf) -> None:
    found = client.verify_cache(udf.shared_token, tiles=["2/0/0", "2/0/1"], verify_tiles=1000)
    assert found.fresh == ("2/0/0", "2/0/1")


def test_what_needs_a_shared_token_is_named(client: FusedClient, udf: Udf) -> None:
    with pytest.raises(ConfigurationError, match=r"^verify_tiles needs a shared token"):
        client.invalidate_cache(udf.id, tiles=["1/0/0"], verify_tiles=1)


def test_where_all_is_fresh_nobody_is_warned(client: FusedClient, udf: Udf, caplog: pytest.LogCaptureFixture) -> None:
    client.verify_cache(udf.shared_token, tiles=["2/0/0"], verify_tiles=1)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# -- nothing runs a UDF more often than was said, or leaves out what was --------------------------------------------------


def to_refresh(tiles: Any, **keywords: Any) -> list[str]:
    """The tiles that a refresh would run, in order."""
    planned = plan_refresh(read_selection(tiles=tiles), **keywords)
    assert planned is not None
    return ["%d/%d/%d" % tile for tile in planned.targets if tile is not None]


def test_tiles_that_are_listed_again_and_again_leave_no_other_out() -> None:
    listed = ["1/0/0"] * 3 + ["1/0/1", "1/1/0"]
    assert to_refresh(listed, refresh="all", max_refresh=3) == ["1/0/0", "1/0/1", "1/1/0"]
    assert to_refresh(listed, refresh=2) == ["1/0/0", "1/0/1"]


def test_more_tiles_than_are_ranked_at_a_time_are_all_considered() -> None:
    listed = [f"14/{number}/0" for number in range(5000)] + ["14/0/0", "3/0/0", "2/0/0"]
    assert to_refresh(listed, refresh=3) == ["2/0/0", "3/0/0", "14/0/0"]


def test_a_tile_listed_before_and_after_many_others_is_run_once() -> None:
    listed = ["2/0/0", *(f"14/{number}/0" for number in range(5000)), "2/0/0"]
    assert to_refresh(listed, refresh=2) == ["2/0/0", "14/0/0"]


def test_tiles_of_a_zoom_are_run_as_they_are_listed() -> None:
    assert to_refresh(["1/1/1", "1/0/0", "1/0/1"], refresh="all") == ["1/1/1", "1/0/0", "1/0/1"]


def test_a_tile_counts_as_often_as_its_hottest_line_says(tmp_path: Path) -> None:
    (tmp_path / "hot.list").write_text("1/0/0 1\n1/0/1 5\n1/1/0 7\n1/0/0 9\n1/1/0 2\n")
    planned = plan_refresh(read_selection(tiles_file=tmp_path / "hot.list"), refresh="all")
    assert planned is not None
    assert planned.targets == ((1, 0, 0), (1, 1, 0), (1, 0, 1))


def test_as_many_as_max_refresh_are_allowed() -> None:
    listed = ["1/0/0", "1/0/1", "1/1/0"]
    assert to_refresh(listed, refresh="all", max_refresh=3) == listed
    assert to_refresh(listed, refresh=5, max_refresh=3) == listed
    assert to_refresh(listed, refresh=3, max_refresh=3) == listed
    assert to_refresh([*listed, "1/1/1"], refresh=3, max_refresh=3) == listed


@pytest.mark.parametrize("amount", ["all", 4, 1000])
def test_one_more_than_max_refresh_is_refused(amount: Any) -> None:
    with pytest.raises(InvalidInputError, match="more than max_refresh=3 tiles, and"):
        to_refresh(["1/0/0", "1/0/1", "1/1/0", "1/1/1"], refresh=amount, max_refresh=3)


def test_max_refresh_counts_the_zooms_that_are_refreshed() -> None:
    listed = ["1/0/0", "1/0/1", "2/0/0", "2/0/1", "3/0/0"]
    assert to_refresh(listed, refresh_zooms="1,3", max_refresh=3) == ["1/0/0", "1/0/1", "3/0/0"]
    with pytest.raises(InvalidInputError, match="more than max_refresh=2 tiles at zooms 1, 3, and"):
        to_refresh(listed, refresh_zooms="1,3", max_refresh=2)


# -- nothing leaks --------------------------------------------------------------------------------------------------------

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


# -- nothing is lost ------------------------------------------------------------------------------------------------------

TILES = [Tile(5, number, 3) for number in range(10)]


def batches(tiles: list[Tile] = TILES, size: int = 4) -> Iterator[Batch]:
    return TileBatches(iter(tiles), size)


def test_batches_are_taken_in_order_and_all_of_them() -> None:
    outbox = Outbox(batches())
    taken = [outbox.take() for _ in range(4)]
    assert [list(each) for each in taken if each is not None] == [TILES[:4], TILES[4:8], TILES[8:]]
    assert taken[3] is None


def test_looking_ahead_takes_nothing() -> None:
    outbox = Outbox(batches())
    assert (outbox.look_ahead(), outbox.look_ahead()) == (4, 4)
    assert list(outbox.take() or ()) == TILES[:4]
    assert Outbox(iter(())).look_ahead() == 0


def test_what_was_put_back_comes_first() -> None:
    outbox = Outbox(batches())
    first, second = outbox.take(), outbox.take()
    assert first is not None
    assert second is not None
    outbox.put_back(second)
    outbox.put_back(first)
    remaining = outbox.remaining()
    assert (list(remaining), remaining.unreadable) == (TILES, ())


def test_what_is_left_can_be_read_again_and_again() -> None:
    outbox = Outbox(batches(TILES * 300))
    outbox.take()
    outbox.look_ahead()
    remaining = outbox.remaining()
    again = iter(remaining)
    assert next(again) == TILES[4]
    assert list(remaining) == list(remaining) == (TILES * 300)[4:]
    assert list(again) == (TILES * 300)[5:]


def test_in_hand_is_what_was_put_back_alone() -> None:
    outbox = Outbox(batches())
    first = outbox.take()
    assert first is not None
    outbox.put_back(first)
    in_hand = outbox.in_hand()
    assert (list(in_hand), in_hand.unreadable) == (TILES[:4], ())


def test_one_by_one_keeps_every_tile_and_its_position() -> None:
    outbox = Outbox(batches())
    outbox.look_ahead()
    outbox.one_by_one()
    taken = []
    while (batch := outbox.take()) is not None:
        taken.append((batch.start, list(batch)))
    assert taken == [(number, [tile]) for number, tile in enumerate(TILES)]


class Broken(Iterator[Tile]):
    """Tiles among which some cannot be read, as in a file with malformed lines."""

    def __init__(self, *found: Any) -> None:
        self._found = iter(found)

    def __next__(self) -> Tile:
        each = next(self._found)
        if isinstance(each, Exception):
            raise each
        return Tile(*each)


def test_tiles_after_one_that_cannot_be_read_are_not_lost() -> None:
    remaining = RemainingTiles(lambda: Broken(TILES[0], InvalidInputError("line 2"), TILES[1]), ("known",))
    assert list(remaining) == TILES[:2]
    assert remaining.unreadable == ("known", "line 2")
    assert list(remaining) == TILES[:2]
    assert remaining.unreadable == ("known", "line 2")


def test_a_stream_that_breaks_says_that_the_rest_is_missing() -> None:
    remaining = RemainingTiles(lambda: Broken(TILES[0], RuntimeError("the database is gone"), TILES[1]))
    assert list(remaining) == TILES[:1]
    (told,) = remaining.unreadable
    assert told.startswith("the rest of the tiles")
    assert "RuntimeError: the database is gone" in told


def test_reasons_are_kept_up_to_a_hundred_and_tiles_all() -> None:
    found = [each for number in range(150) for each in (InvalidInputError(f"line {number}"), TILES[0])]
    remaining = RemainingTiles(lambda: Broken(*found))
    assert len(list(remaining)) == 150
    assert remaining.unreadable == tuple(f"line {number}" for number in range(100))


def test_a_stream_that_breaks_can_be_read_again_up_to_there() -> None:
    stream = Broken(*TILES[:4], InvalidInputError("line 5"), *TILES[4:])
    remaining = RemainingTiles.of_stream(list(batches(TILES[:2], 2)), stream)
    assert list(remaining) == TILES[:2] + TILES
    assert list(remaining) == TILES[:2] + TILES


def test_what_is_left_survives_pickling_and_a_file(tmp_path: Path) -> None:
    remaining = RemainingTiles(lambda: iter(TILES), ("line 7",))
    read = pickle.loads(pickle.dumps(remaining))
    assert (list(read), list(read), read.unreadable) == (TILES, TILES, ("line 7",))
    assert remaining.save(tmp_path / "rest.list") == len(TILES)
    assert (tmp_path / "rest.list").read_text().splitlines() == [f"5/{number}/3" for number in range(10)]


@pytest.mark.parametrize(
    ("sets", "common"),
    [
        ([], []),
        ([[(0, 5)]], [(0, 5)]),
        ([[(0, 5)], []], []),
        ([[], [(0, 5)]], []),
        ([[(0, 5)], [(5, 9)]], []),
        ([[(0, 5), (7, 9)], [(2, 8)]], [(2, 5), (7, 8)]),
        ([[(2, 8)], [(0, 5), (7, 9)]], [(2, 5), (7, 8)]),
        ([[(0, 4), (6, 9)], [(0, 4), (6, 9)], [(3, 7)]], [(3, 4), (6, 7)]),
        ([[(0, 9)], [(1, 2), (3, 4), (5, 6)]], [(1, 2), (3, 4), (5, 6)]),
    ],
    ids=str,
)
def test_done_for_all_is_what_is_done_for_each(sets: list[list[tuple[int, int]]], common: list[tuple[int, int]]) -> None:
    found = Spans.common([Spans(each) for each in sets])
    assert list(found) == common
    assert found.count == sum(stop - start for start, stop in common)


def test_what_is_missing_is_looked_for_in_every_window() -> None:
    done = Spans([(2, 4), (6, 8), (11, 12)])
    assert list(done.missing([(0, 3), (3, 7), (7, 10), (20, math.inf)])) == [(0, 2), (4, 6), (8, 10), (20, math.inf)]


def test_where_nothing_is_missing_no_span_is() -> None:
    assert list(Spans([(0, 3), (5, 9)]).missing([(0, 3), (4, 4), (6, 9)])) == []


KEY = {"udf_id": "roads", "base_url": "https://fused.example.com", "selection": "abc"}


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """The record of a call that has done the positions 0 to 2 and 7 of ten."""
    place = tmp_path / "record.json"
    checkpoint = Checkpoint(place, KEY, 10)
    checkpoint.spans("roads", "one", 1).add(0, 3)
    checkpoint.spans("roads", "two", 2).add(7, 8)
    checkpoint.save(at_once=True)
    return place


def test_what_is_done_is_read_for_each_target_and_pass(record: Path) -> None:
    checkpoint = Checkpoint(record, KEY, 10)
    assert checkpoint.saved_count == 4
    assert list(checkpoint.spans("roads", "one", 1)) == [(0, 3)]
    assert list(checkpoint.spans("roads", "two", 2)) == [(7, 8)]
    for other in (("roads", "one", 2), ("roads", "two", 1), ("rivers", "one", 1)):
        assert list(checkpoint.spans(*other)) == []


def test_what_is_forgotten_is_sent_again(record: Path) -> None:
    checkpoint = Checkpoint(record, KEY, 10)
    assert list(checkpoint.forget("roads", "one", 1)) == list(checkpoint.spans("roads", "one", 1)) == []
    assert list(checkpoint.spans("roads", "two", 2)) == [(7, 8)]
    assert list(checkpoint.forget("roads", "three", 1)) == []
    checkpoint.forget("roads", "two", 2).add(0, 1)
    assert list(checkpoint.spans("roads", "two", 2)) == [(0, 1)]


@pytest.mark.parametrize("name", KEY)
def test_a_record_of_anything_else_is_refused(record: Path, name: str) -> None:
    before = record.read_bytes()
    with pytest.raises(InvalidInputError, match=f"belongs to another invalidation .*{name} "):
        Checkpoint(record, KEY | {name: "other"}, 10)
    assert record.read_bytes() == before


def change(record: Path, **changed: Any) -> None:
    record.write_text(json.dumps(json.loads(record.read_text()) | changed))


@pytest.mark.parametrize(("hours", "done"), [(11.9, 4), (12.1, 0), (-1, 4)])
def test_a_record_lasts_for_twelve_hours(record: Path, hours: float, done: int) -> None:
    change(record, updated=(datetime.now(timezone.utc) - timedelta(hours=hours)).isoformat())
    assert timedelta(hours=12) == LIFETIME
    assert Checkpoint(record, KEY, 10).saved_count == done


@pytest.mark.parametrize(
    ("spans", "done"),
    [
        ([[0, 10]], 10),
        ([[0, 11]], 0),
        ([[3, 3]], 0),
        ([[4, 3]], 0),
        ([[-1, 3]], 0),
        ([[9, 10], [11, 12]], 0),
        ([[0, 2], [3, 3]], 0),
    ],
)
def test_positions_that_cannot_be_are_all_sent_again(record: Path, spans: list[list[int]], done: int) -> None:
    change(record, targets=[{"udf_id": "roads", "client_id": "one", "pass": 1, "done": spans}])
    assert Checkpoint(record, KEY, 10).saved_count == done


def test_the_second_pass_waits_from_the_end_of_the_first(record: Path) -> None:
    checkpoint = Checkpoint(record, KEY, 10)
    assert checkpoint.wait_left(600) == 600
    checkpoint.end_pass(2)
    assert Checkpoint(record, KEY, 10).wait_left(600) == 600
    checkpoint.end_pass(1)
    time.sleep(0.01)
    assert 100 < Checkpoint(record, KEY, 10).wait_left(600) < 600
    assert Checkpoint(record, KEY, 10).wait_left(0) == 0


def test_a_first_pass_that_ended_before_counts_from_then(record: Path) -> None:
    ended = datetime.now(timezone.utc) - timedelta(seconds=400)
    change(record, first_pass_ended=ended.isoformat())
    checkpoint = Checkpoint(record, KEY, 10)
    checkpoint.end_pass(1)
    assert 0 < checkpoint.wait_left(600) < 201
    assert checkpoint.wait_left(300) == 0


def test_a_first_pass_that_ends_in_the_future_is_not_waited_for_longer(record: Path) -> None:
    change(record, first_pass_ended=(datetime.now(timezone.utc) + timedelta(hours=1)).isoformat())
    assert Checkpoint(record, KEY, 10).wait_left(60) == 60


def test_nothing_is_written_twice(record: Path) -> None:
    checkpoint = Checkpoint(record, KEY, 10)
    written = record.stat().st_mtime_ns
    checkpoint.save()
    assert record.stat().st_mtime_ns == written


def test_more_that_is_done_is_not_written_at_once_but_if_told_to(record: Path) -> None:
    checkpoint = Checkpoint(record, KEY, 10)
    checkpoint.spans("roads", "one", 1).add(3, 5)
    checkpoint._saved_at = math.inf
    checkpoint.save()
    assert (checkpoint.saved_count, json.loads(record.read_text())["tiles_done"]) == (4, 4)
    checkpoint.save(at_once=True)
    assert (checkpoint.saved_count, json.loads(record.read_text())["tiles_done"]) == (6, 6)


def test_more_that_is_done_is_written_after_a_while(record: Path) -> None:
    checkpoint = Checkpoint(record, KEY, 10)
    checkpoint.spans("roads", "one", 1).add(3, 5)
    checkpoint._saved_at = -math.inf
    checkpoint.save()
    assert json.loads(record.read_text())["tiles_done"] == 6


def test_a_record_that_is_removed_is_gone(record: Path) -> None:
    checkpoint = Checkpoint(record, KEY, 10)
    checkpoint.remove()
    assert not record.exists()
    checkpoint.remove()
    assert Checkpoint(record, KEY, 10).saved_count == 0


def test_a_folder_has_a_record_for_each_udf_and_selection(tmp_path: Path) -> None:
    Checkpoint(f"{tmp_path}/new/", KEY, 10)
    Checkpoint(tmp_path / "new", KEY | {"selection": "def"}, 10)
    Checkpoint(f"file://{tmp_path}/new/", KEY | {"udf_id": "rivers"}, 10)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"roads-abc.json", "roads-def.json", "rivers-abc.json"}


def test_a_folder_is_told_from_a_file(tmp_path: Path) -> None:
    assert is_folder("records/")
    assert is_folder("s3://bucket/records/")
    assert is_folder(tmp_path)
    assert not is_folder(tmp_path / "record.json")
    assert not is_folder("s3://bucket/record.json")


@pytest.mark.parametrize("location", [None, 7, "", " ", "None", "a\0b", Path("null")], ids=repr)
def test_a_checkpoint_that_is_no_place_is_refused(location: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^checkpoint"):
        check_location(location)


def test_a_home_that_nobody_has_is_no_place() -> None:
    with pytest.raises(InvalidInputError, match="is not a path"):
        Checkpoint("~nobody-of-this-name/record.json", KEY, 10)


@pytest.mark.parametrize("before", [b"", b"\n "])
def test_a_record_of_ours_that_is_cut_off_sends_everything(record: Path, before: bytes) -> None:
    record.write_bytes(before + record.read_bytes()[:60])
    assert Checkpoint(record, KEY, 10).saved_count == 0


@pytest.mark.parametrize("updated", [None, "yesterday"])
def test_a_record_of_no_time_sends_everything(record: Path, updated: Any) -> None:
    change(record, updated=updated)
    assert Checkpoint(record, KEY, 10).saved_count == 0


def test_a_record_of_no_time_that_is_of_something_else_is_refused(record: Path) -> None:
    change(record, updated=None, udf_id="rivers")
    with pytest.raises(InvalidInputError, match="belongs to another invalidation"):
        Checkpoint(record, KEY, 10)


def test_something_else_is_named_and_left(record: Path) -> None:
    record.write_text("a letter")
    with pytest.raises(InvalidInputError, match=f"'{record}' is not a checkpoint"):
        Checkpoint(record, KEY, 10)
    assert record.read_text() == "a letter"


def test_a_record_says_when_the_first_call_began(record: Path) -> None:
    assert datetime.fromisoformat(json.loads(record.read_text())["started"]) <= datetime.now(timezone.utc)
    change(record, started="2020-01-01T00:00:00+00:00")
    Checkpoint(record, KEY, 10)
    assert json.loads(record.read_text())["started"] == "2020-01-01T00:00:00+00:00"


def test_folders_are_made_for_a_record(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "a" / "b" / "record.json", KEY, 10)
    assert (tmp_path / "a" / "b" / "record.json").exists()


def test_a_file_url_needs_no_other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    Checkpoint(f"file://{tmp_path}/record.json", KEY, 10)
    assert (tmp_path / "record.json").exists()


def test_a_store_has_files_and_folders_too() -> None:
    memory = fsspec.filesystem("memory")
    Checkpoint("memory://guards/", KEY, 10)
    memory.pipe_file("/guards/letter.json", b"a letter")
    with pytest.raises(InvalidInputError, match=r"'memory://guards/letter.json' is not a checkpoint"):
        Checkpoint("memory://guards/letter.json", KEY, 10)
    assert memory.ls("/guards", detail=False) == ["/guards/letter.json", "/guards/roads-abc.json"]


@pytest.mark.parametrize(
    ("error", "reason"), [(OSError(28, "No space left on device"), "No space left on device"), (OSError("odd"), "OSError: odd")]
)
def test_what_cannot_be_written_is_said_once(
    record: Path, error: OSError, reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(store: Any, content: bytes) -> None:
        raise error

    checkpoint = Checkpoint(record, KEY, 10)
    monkeypatch.setattr(type(checkpoint._store), "write", fail)
    checkpoint.save(at_once=True)
    checkpoint.save(at_once=True)
    said = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert said == [f"The checkpoint {record} cannot be written: {reason}."]
    with pytest.raises(ConfigurationError, match=f"cannot be written: {reason}."):
        Checkpoint(record, KEY, 10)
