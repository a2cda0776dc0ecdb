"""Nothing runs a UDF more often than was said, or leaves out what was."""

from pathlib import Path
from typing import Any

import pytest

from fused_cache_ops import InvalidInputError
from fused_cache_ops.running.refresh import plan_refresh
from fused_cache_ops.selection.reading import read_selection


def to_refresh(tiles: Any, *, refresh: Any) -> list[str]:
    """The tiles that a refresh would run, in order."""
    planned = plan_refresh(read_selection(tiles=tiles), refresh)
    assert planned is not None
    return ["%d/%d/%d" % tile for tile in planned.targets if tile is not None]


def test_tiles_that_are_listed_again_and_again_leave_no_other_out() -> None:
    listed = ["1/0/0"] * 3 + ["1/0/1", "1/1/0"]
    assert to_refresh(listed, refresh={"max_tiles": 3}) == ["1/0/0", "1/0/1", "1/1/0"]
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
    planned = plan_refresh(read_selection(tiles_file=tmp_path / "hot.list"), "all")
    assert planned is not None
    assert planned.targets == ((1, 0, 0), (1, 1, 0), (1, 0, 1))


def test_as_many_as_max_tiles_are_allowed() -> None:
    listed = ["1/0/0", "1/0/1", "1/1/0"]
    assert to_refresh(listed, refresh={"max_tiles": 3}) == listed
    assert to_refresh(listed, refresh={"count": 5, "max_tiles": 3}) == listed
    assert to_refresh(listed, refresh={"count": 3, "max_tiles": 3}) == listed
    assert to_refresh([*listed, "1/1/1"], refresh={"count": 3, "max_tiles": 3}) == listed


@pytest.mark.parametrize("amount", ["all", 4, 1000])
def test_one_more_than_max_tiles_is_refused(amount: Any) -> None:
    with pytest.raises(InvalidInputError, match="more than 3 tiles, and"):
        to_refresh(["1/0/0", "1/0/1", "1/1/0", "1/1/1"], refresh={"count": amount, "max_tiles": 3})


def test_max_tiles_counts_the_zooms_that_are_refreshed() -> None:
    listed = ["1/0/0", "1/0/1", "2/0/0", "2/0/1", "3/0/0"]
    assert to_refresh(listed, refresh={"zooms": "1,3", "max_tiles": 3}) == ["1/0/0", "1/0/1", "3/0/0"]
    with pytest.raises(InvalidInputError, match="more than max_tiles=2 tiles at zooms 1, 3, and"):
        to_refresh(listed, refresh={"zooms": "1,3", "max_tiles": 2})
