"""Text that a template rendered: read as what it says, or refused."""

from typing import Any

import pytest

from fused_cache_ops import InvalidInputError
from fused_cache_ops.selection.rendered import read_rendered


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
