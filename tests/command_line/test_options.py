"""The options of a command, read as keywords."""

from typing import Any

import pytest
import typer

from fused_cache_ops.cli.options import _SELECTING, _default, _read
from fused_cache_ops.keywords.selection import SELECTION_DEFAULTS


def options(**given: Any) -> dict[str, Any]:
    return {name: _default(name) for name in _SELECTING} | given


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"tiles": ["1/0/0"]}, {"tiles": ["1/0/0"]}),
        ({"bounds": ["0,0,1,1.5", "a,0,1,1"]}, {"bounds": [[0.0, 0.0, 1.0, 1.5], ["a", 0.0, 1.0, 1.0]]}),
        ({"whole_udf": True}, {"whole_udf": True}),
        ({"tiles_file": ""}, {"tiles_file": ""}),
        ({"tiles": ["1/0/0"], "zooms": "", "buffer": 3}, {"tiles": ["1/0/0"], "zooms": "", "buffer": 3}),
        ({"tiles": ["1/0/0"], "shard": "1/4"}, {"tiles": ["1/0/0"], "shard": (1, 4)}),
        ({"tiles_file": "a", "geometry_column": "geom"}, {"tiles_file": "a", "geometry_column": "geom"}),
        ({"tiles_file": "a", "geometry_column": "lon, lat"}, {"tiles_file": "a", "geometry_column": ["lon", "lat"]}),
        ({"tiles_file": "a", "geometry_column": "a,b,c"}, {"tiles_file": "a", "geometry_column": "a,b,c"}),
        ({"tiles_file": "a", "geometry_column": '["x","y"]'}, {"tiles_file": "a", "geometry_column": '["x","y"]'}),
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
