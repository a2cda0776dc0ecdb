"""Messages in the spelling of the command line, and of Prefect's tasks."""

import re

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from fused_cache_ops.cli.commands import program
from fused_cache_ops.cli.spelling import as_options
from fused_cache_ops.emulator import Emulator, Udf

SAID = {
    "bounds needs zooms, such as zooms='10-14'.": "--bounds needs zooms, such as --zooms 10-14.",
    "No token: set FUSED_X, or pass token=.": "No token: set FUSED_X, or pass --token-file.",
    "zooms = '99' must be 3.": "--zooms = '99' must be 3.",
    "bounds and geometry are both given: use one.": "--bounds and --geometry are both given: use one.",
    "give one of tiles, tiles_file, bounds. To invalidate all, omit zooms and buffer.": (
        "give one of Z/X/Y, --tiles-file, --bounds. To invalidate all, omit --zooms and --buffer."
    ),
    "It is called by a: pass related='callers'.": "It is called by a: pass --related callers.",
    "3 tiles are selected, over max_tiles=1,000. Raise it.": "3 tiles are selected, over --max-tiles 1,000. Raise it.",
    "fewer (refresh=100), or coarse (refresh={'zooms': '0-8'})": "fewer (--refresh 100), or coarse (--refresh-zooms 0-8)",
    "refresh: concurrency = 0 must be 1.": "--refresh-concurrency = 0 must be 1.",
    "whole_udf=True, or fail_on_stale=False": "--whole-udf, or --no-fail-on-stale",
    "Raise the deadline to wait. Raise the deadline of the refresh.": "Raise --deadline to wait. Raise --refresh-deadline.",
    "give the UDF by it, or pass shared_token=.": "give the UDF by it, or set FUSED_SHARED_TOKEN.",
    # what is plain English, was quoted, or is in a file
    "tiles are invalidated, and the refresh is done.": "tiles are invalidated, and the refresh is done.",
    "UDF 'max_tiles=3' is unknown.": "UDF 'max_tiles=3' is unknown.",
    "a.toml, dataset 'b', x: verify_tiles = 2 needs": "a.toml, dataset 'b', x: verify_tiles = 2 needs",
}


@pytest.mark.parametrize(("message", "said"), SAID.items(), ids=list(SAID))
def test_a_message_names_options(message: str, said: str) -> None:
    assert as_options(message) == said


WRONG = [
    ["plan", "roads", "--bounds", "1,1,2,2"],
    ["plan", "roads", "1/0/0", "--bounds", "1,1,2,2"],
    ["plan", "roads", "--zooms", "1"],
    ["plan", "roads", "1/0/0", "--refresh-zooms", "x"],
    ["plan", "roads", "--bounds", "1,1,2,2", "--zooms", "1-12", "--max-tiles", "1", "--when-too-many", "fail"],
    ["invalidate", "roads", "1/0/0", "--verify-tiles", "1"],
    ["invalidate", "roads", "1/0/0", "--max-concurrency", "0"],
    ["invalidate", "roads", "1/0/0", "--deadline", "0.2"],
    ["invalidate", "roads", "--cells", "nowhere", "--zooms", "3", "--crs", "EPSG:4326"],
    ["dataset", "x", "1/0/0", "--map", "nowhere.toml"],
]


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_no_command_speaks_python(words: list[str], fused_emulator: Emulator, udf: Udf) -> None:
    if "--deadline" in words:
        fused_emulator.misbehave(status=503, times=None)
    done = CliRunner().invoke(program, words)
    assert done.exit_code
    assert done.stderr
    assert re.findall(r"\b[a-z]+_[a-z_]+\b|\b[a-z_]+=|\.remaining|\.result", done.stderr) == []
    names = {name for command in get_command(program).commands.values() for each in command.params for name in each.opts}  # type: ignore[attr-defined]
    assert set(re.findall(r"--[a-z-]+", done.stderr)) <= {*names, "--help"}
