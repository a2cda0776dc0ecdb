"""Text that a template rendered: read as what it says, or refused."""

from typing import Any

import pytest

from fused_cache_ops import InvalidInputError
from fused_cache_ops.keywords.rendered import read_rendered


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


@pytest.mark.parametrize("name", ["whole_udf"])
def test_true_and_false_are_read_from_text(name: str) -> None:
    assert [read_rendered({name: text})[name] for text in ("True", "false", " true\n")] == [True, False, True]


@pytest.mark.parametrize("name", ["whole_udf"])
@pytest.mark.parametrize("text", ["", "None", "1", "yes"])
def test_nothing_else_is_true(name: str, text: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^{name} rendered to .*, which is neither true nor false"):
        read_rendered({name: text})


@pytest.mark.parametrize("name", ["buffer", "max_tiles", "max_zoom", "verify_tiles", "max_related"])
def test_a_number_is_read_from_text_or_refused(name: str) -> None:
    assert read_rendered({name: " 12 "}) == {name: 12}
    for text in ("", "None", "1.5"):
        with pytest.raises(InvalidInputError, match=f"^{name} rendered to .*, which is not a whole number"):
            read_rendered({name: text})


@pytest.mark.parametrize("name", ["again_after"])
def test_seconds_are_read_from_text_or_refused(name: str) -> None:
    assert read_rendered({name: "1.5"}) == {name: 1.5}
    for text in ("", "None", "soon"):
        with pytest.raises(InvalidInputError, match=f"^{name} rendered to .*, which is not a number of seconds"):
            read_rendered({name: text})


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("concurrency", " 12 ", 12),
        ("max_tiles", "12", 12),
        ("deadline", "1.5", 1.5),
        ("must_succeed", "True", True),
        ("parameters", '{"format": "png"}', {"format": "png"}),
        ("zooms", "0-8", "0-8"),
        ("count", "12", "12"),
    ],
)
def test_a_key_of_a_group_is_read_from_text(key: str, text: str, value: Any) -> None:
    assert read_rendered({"refresh": {key: text}}) == {"refresh": {key: value}}


@pytest.mark.parametrize("key", ["concurrency", "max_tiles", "deadline", "must_succeed", "parameters"])
@pytest.mark.parametrize("text", ["", "None", "soon"])
def test_a_key_of_a_group_that_rendered_to_nothing_is_an_error(key: str, text: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"^refresh\['{key}'\] rendered to "):
        read_rendered({"refresh": {key: text}})


def test_a_group_is_read_from_text() -> None:
    assert read_rendered({"refresh": '{"count": 5, "deadline": "7"}'}) == {"refresh": {"count": 5, "deadline": 7.0}}
    assert read_rendered({"refresh": "all"}) == {"refresh": "all"}


def test_a_misspelled_key_of_a_group_is_named_without_its_value() -> None:
    with pytest.raises(InvalidInputError, match=r"refresh: unknown key 'concurency'. Did you mean concurrency\?") as caught:
        read_rendered({"refresh": {"concurency": "s3cret"}})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "keywords", [{"zooms": "3-5"}, {"cells": "cells.txt"}, {"partition": "date=1"}, {"tiles": ["1/0/0"]}, {"whole_udf": None}]
)
def test_what_the_core_reads_itself_is_left_as_it_is(keywords: dict[str, Any]) -> None:
    assert read_rendered(keywords) == keywords
