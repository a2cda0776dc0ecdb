"""The inputs of a step in CI."""

import os
from pathlib import Path

import pytest
import typer

from fused_cache_ops.cli.ci import NOT_GIVEN as LEFT_OUT
from fused_cache_ops.cli.ci import _arguments, _inputs, _several, _target
from fused_cache_ops.cli.commands import program


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
        ({"diff": "date=1/a.parquet\ndate=2/a.parquet"}, ["--diff", "date=1/a.parquet", "date=2/a.parquet"]),
        ({"diff": "changes_of=s3://lake/day=1\nsince=7"}, ["--changes-of=s3://lake/day=1", "--since=7"]),
        ({"diff": '{"changes_of": "--plan", "since": 7}'}, ["--changes-of=--plan", "--since=7"]),
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
        ({"diff": "changes_of=lake\n7"}, "is not NAME=VALUE"),
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
