"""Exactly one kind of selection, given or not, and what shapes it."""

from pathlib import Path
from typing import Any

import pyarrow
import pytest

from fused_cache_ops import InvalidInputError
from fused_cache_ops.keywords.call import NEEDS_SELECTION
from fused_cache_ops.keywords.rules import (
    STATED,
    kinds_in,
    refuse_what_takes_long,
    refuse_without_selection,
    require_kind,
    stated,
)
from fused_cache_ops.keywords.selection import KINDS, SELECTION_DEFAULTS
from fused_cache_ops.keywords.values import NOT_GIVEN, WHOLE_UDF
from fused_cache_ops.selection.reading import check_limits, check_shard, read_selection, refuse_single_use
from fused_cache_ops.selection.selection import Selection, WholeUdf
from fused_cache_ops.tiles.tile import ZOOM_LIMIT


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


@pytest.mark.parametrize("name", NEEDS_SELECTION)
def test_what_shapes_a_selection_is_refused_without_one(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{name} = .* needs a selection"):
        refuse_without_selection({name: OTHER.get(name, "x")})


@pytest.mark.parametrize("value", [False, 0.0, None])
def test_a_shaper_that_merely_equals_its_default_is_refused_too(value: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"buffer = .* needs a selection"):
        refuse_without_selection({"buffer": value})


def test_shapers_at_their_defaults_ask_for_nothing() -> None:
    refuse_without_selection({**SELECTION_DEFAULTS, "max_tiles": int("1000000")})


def test_what_needs_a_selection_is_shown_with_its_value_and_shortened() -> None:
    with pytest.raises(InvalidInputError) as caught:
        refuse_without_selection({"buffer": 7, "zooms": "9" * 100})
    assert f"zooms = '{'9' * 36}..., buffer = 7 need a selection" in caught.value.message


@pytest.mark.parametrize("name", STATED)
def test_what_may_be_missing_is_not_what_was_omitted(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^{name} is None, which may be a value that is missing"):
        stated({name: None})
    assert stated({name: NOT_GIVEN}) == {}
    assert stated({}) == {}
    assert stated({name: "x"}) == {name: "x"}


def test_what_has_no_value_that_may_be_missing_stays() -> None:
    assert stated({"inner_caches": NOT_GIVEN, "checkpoint": None}) == {"inner_caches": NOT_GIVEN, "checkpoint": None}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"again_after": 130}, "again_after"),
        ({"refresh": 5}, "refresh"),
        ({"h3_index": {"path": "a", "run": True}}, "run in h3_i"),
    ],
)
def test_what_takes_long_is_refused_where_nothing_can_wait(given: Any, named: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^{named}.* takes long, and a hook cannot wait for it: use the op"):
        refuse_what_takes_long(given, "a hook", "the op")


def test_what_takes_no_time_may_be_given_where_nothing_can_wait() -> None:
    refuse_what_takes_long({"again_after": 0, "refresh": 0, "h3_index": {"path": "a"}, "tiles": []}, "a hook", "the op")


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


def test_a_list_of_what_several_loads_returned_is_one_list() -> None:
    selection = read_selection(tiles=[["1/0/0"], ["1/0/1", "1/1/0"]])
    assert isinstance(selection, Selection)
    assert [str(tile) for tile in selection.tiles()] == ["1/0/0", "1/0/1", "1/1/0"]


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [("order", ("zxy", "xyz"), ("zyx", "", 3)), ("antimeridian", ("cross", "literal"), ("CROSS", "", 3))],
)
def test_a_choice_is_one_of_those_that_are_named(name: str, allowed: Any, refused: Any) -> None:
    more: dict[str, Any] = {"tiles": []} if name == "order" else {"geometry": [], "zooms": 3}
    for value in (*allowed, None):
        read_selection(**more, **{name: value})
    for value in refused:
        with pytest.raises(InvalidInputError, match=f"^{name} = .* must be '{allowed[0]}' or '{allowed[1]}'"):
            read_selection(**more, **{name: value})


@pytest.mark.parametrize("layer", ["", 5, ["a"]])
def test_a_layer_is_given_by_its_name(layer: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^layer = .* must be the name of a layer"):
        read_selection(geometry=[], zooms=3, layer=layer)


@pytest.mark.parametrize("given", [("lon", "lat"), ["lon", "lat"], '["lon", "lat"]'])
def test_two_columns_are_coordinates(given: Any) -> None:
    table = pyarrow.table({"lon": [-9.1], "lat": [38.7]})
    selection = read_selection(geometry=table, geometry_column=given, crs="EPSG:4326", zooms=1)
    assert isinstance(selection, Selection)
    assert [str(tile) for tile in selection.tiles()] == ["1/0/0"]
