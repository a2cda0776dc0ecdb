"""The table ``[settings]`` of ``fused-cache.toml``: what it may hold."""

from pathlib import Path
from typing import Any

import pytest

from fused_cache_ops import CacheMap, InvalidInputError
from fused_cache_ops.cache_map.defaults import REFUSED, SETTINGS, find_settings, read_settings


def test_a_folder_without_the_table_has_no_settings(tmp_path: Path) -> None:
    assert find_settings(tmp_path) == {}
    (tmp_path / "fused-cache.toml").write_text("[datasets.a]\nudfs = []\n")
    assert find_settings(tmp_path) == {}


def test_the_map_comes_before_the_pyproject(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.fused-cache.settings]\ntimeout = 5\n")
    assert find_settings(tmp_path) == {"timeout": 5}
    (tmp_path / "fused-cache.toml").write_text("[settings]\ntimeout = 7\n")
    assert find_settings(tmp_path) == {"timeout": 7}


def test_a_pyproject_that_is_about_something_else_is_not_even_parsed(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("this is not TOML")
    assert find_settings(tmp_path) == {}


@pytest.mark.parametrize("key", REFUSED)
def test_what_could_redirect_the_token_is_refused_with_the_remedy_and_without_its_value(key: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{key} must not be in a file, because .*Remove it, and ") as caught:
        read_settings({key: "s3cret"}, "the table")
    assert "s3cret" not in str(caught.value)
    assert key not in SETTINGS


def test_an_unknown_setting_is_an_error_with_the_nearest_one() -> None:
    with pytest.raises(InvalidInputError, match=r"unknown key 'timeuot'. Did you mean timeout\?"):
        read_settings({"timeuot": 5}, "the table")


@pytest.mark.parametrize(
    "table",
    [
        {"timeout": "5"},
        {"deadline": 0},
        {"max_concurrency": True},
        {"max_requests_per_second": -1},
        {"client_id": 5},
        {"client_id": ["a", "all"]},
        {"related": "everyone"},
        {"related": True},
        {"max_related": -1},
        {"again_after": -1},
        "timeout = 5",
        ["timeout"],
    ],
    ids=str,
)
def test_a_bad_value_is_an_error_that_says_where(table: Any) -> None:
    with pytest.raises(InvalidInputError, match="the table"):
        read_settings(table, "the table")


def test_several_instances_may_be_a_list() -> None:
    assert read_settings({"client_id": ["a", "b"]}, "the table") == {"client_id": "a,b"}


def test_a_map_takes_the_table_and_checks_it() -> None:
    assert CacheMap.from_dict({"settings": {"timeout": 5}, "datasets": {}}).datasets == {}
    with pytest.raises(InvalidInputError, match="unknown key 'time'"):
        CacheMap.from_dict({"settings": {"time": 5}})
    with pytest.raises(InvalidInputError, match="base_url must not be in a file"):
        CacheMap.from_dict({"settings": {"base_url": "https://elsewhere.example"}})


def test_defaults_count_where_an_entry_says_nothing() -> None:
    entries = [{"udf": "a", "related": "callers"}, {"udf": "b"}]
    found = CacheMap.from_dict({"datasets": {"d": {"udfs": entries}}}).with_defaults({"related": "both"})
    assert [entry.keywords["related"] for entry in found.entries("d")] == ["callers", "both"]
