"""The command line with thousands of tiles: shards, checkpoints, progress, what is left, verification."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fused_cache_ops import Tile
from fused_cache_ops.cli.commands import program
from fused_cache_ops.emulator import Emulator, Udf

runner = CliRunner()
TILES = [Tile(9, number, 7) for number in range(60)]


@pytest.fixture
def tiles_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 10)
    path = tmp_path / "tiles.list"
    path.write_text("".join(f"{tile}\n" for tile in TILES))
    return str(path)


def fail_part_way(emulator: Emulator) -> None:
    seen = 0

    def refuse_the_third() -> None:
        nonlocal seen
        seen += 1
        if seen == 2:
            emulator.misbehave(status=403, times=None, path="batch-delete")

    emulator.before_invalidation = refuse_the_third


def test_a_shard_is_sent_alone(fused_emulator: Emulator, udf: Udf, tiles_file: str) -> None:
    done = runner.invoke(program, ["invalidate", "roads", "--tiles-file", tiles_file, "--shard", "2/3", "--json"])
    assert json.loads(done.stdout)["tiles_invalidated"] == 20
    assert runner.invoke(program, ["plan", "roads", "--tiles-file", tiles_file, "--shard", "2/3", "--list"]).stdout.split() == [
        str(tile) for tile in TILES[40:]
    ]


@pytest.mark.parametrize("shard", ["3/3", "1", "a/b", "0/0"])
def test_what_is_no_shard_is_refused(udf: Udf, tiles_file: str, shard: str) -> None:
    done = runner.invoke(program, ["invalidate", "roads", "--tiles-file", tiles_file, "--shard", shard])
    assert done.exit_code != 0
    assert "shard" in done.stderr


def test_the_same_command_again_sends_the_rest(fused_emulator: Emulator, udf: Udf, tiles_file: str, tmp_path: Path) -> None:
    command = ["invalidate", "roads", "--tiles-file", tiles_file, "--json"]
    command += ["--checkpoint", str(tmp_path / "c.json"), "--remaining", str(tmp_path / "rest.list")]
    fused_emulator.fill_cache(udf, TILES)
    fail_part_way(fused_emulator)
    failed = runner.invoke(program, command)
    left = (tmp_path / "rest.list").read_text().split()
    assert failed.exit_code == 3
    assert json.loads(failed.stdout)["remaining_file"] == str(tmp_path / "rest.list")
    assert 0 < len(left) < 60
    fused_emulator.before_invalidation = None
    fused_emulator.behave()
    result = json.loads(runner.invoke(program, command).stdout)
    assert (result["tiles_invalidated"], result["tiles_already_done"]) == (len(left), 60 - len(left))
    assert fused_emulator.cached_tiles(udf) & set(TILES) == set()


def test_what_is_left_can_be_gzipped(fused_emulator: Emulator, udf: Udf, tiles_file: str, tmp_path: Path) -> None:
    fail_part_way(fused_emulator)
    rest = str(tmp_path / "rest.list.gz")
    assert runner.invoke(program, ["invalidate", "roads", "--tiles-file", tiles_file, "--remaining", rest]).exit_code == 3
    fused_emulator.behave()
    assert json.loads(runner.invoke(program, ["invalidate", "roads", "--tiles-file", rest, "--json"]).stdout)[
        "tiles_invalidated"
    ]


def test_verification_ends_with_0_where_all_is_fresh(udf: Udf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSED_SHARED_TOKEN", udf.shared_token)
    done = runner.invoke(program, ["invalidate", "roads", "1/0/0", "1/1/1", "--verify-tiles", "2"])
    assert done.exit_code == 0
    assert "verified: 2 of 2" in done.stdout


def test_verification_ends_with_4_where_it_is_not(fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSED_SHARED_TOKEN", udf.shared_token)
    fused_emulator.misbehave(status=200, after_work=False, body={"objects_deleted": 1}, path="delete", times=None)
    done = runner.invoke(program, ["invalidate", "roads", "1/0/0", "1/1/1", "--verify-tiles", "2", "--json"])
    assert done.exit_code == 4
    assert json.loads(done.stdout)["result"]["verification"]["from_cache"] == ["1/0/0: memory", "1/1/1: memory"]
    assert "2 of 2 tiles still came from the cache" in done.stderr
    accepted = runner.invoke(program, ["invalidate", "roads", "1/0/0", "--verify-tiles", "1", "--no-fail-on-stale"])
    assert accepted.exit_code == 0, accepted.output


PROGRAM = """
import fused_cache_ops.sending.call, fused_cache_ops.progress
from fused_cache_ops.cli import main
fused_cache_ops.progress.LOG_INTERVAL, fused_cache_ops.sending.call.MAX_BATCH = 0.4, 5
main()
"""


def start(emulator: Emulator, stderr: int, *options: str) -> subprocess.Popen[str]:
    emulator.misbehave(latency=0.2, times=None)
    command = [sys.executable, "-c", PROGRAM, *options, "invalidate", "roads", "--bounds=0,0,10,10", "--zooms", "8"]
    environment = os.environ | emulator.environment() | {"TERM": "xterm", "COLUMNS": "100"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=stderr, text=True)


def test_where_nobody_looks_nothing_is_said(fused_emulator: Emulator, udf: Udf) -> None:
    with start(fused_emulator, subprocess.PIPE) as process:
        _, shown = process.communicate(timeout=60)
    assert (process.returncode, shown) == (0, "")


def test_where_nobody_looks_there_is_a_line_now_and_then_if_wanted(fused_emulator: Emulator, udf: Udf) -> None:
    with start(fused_emulator, subprocess.PIPE, "-v") as process:
        _, shown = process.communicate(timeout=60)
    assert process.returncode == 0, shown
    assert " of 64 tiles (" in shown
    assert "\x1b[" not in shown


def test_in_a_terminal_there_is_a_bar(fused_emulator: Emulator, udf: Udf) -> None:
    terminal, end = pty.openpty()
    with start(fused_emulator, end) as process:
        os.close(end)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal's other side is closed
            while chunk := os.read(terminal, 65536):
                shown += chunk
    os.close(terminal)
    assert process.returncode == 0
    assert "━" in shown.decode()
    assert "/64" in shown.decode()


# -- what is left, wherever it is to go, however it ends ----------------------------------------------------------------


def still_cached(emulator: Emulator, udf: Udf, zoom: int) -> set[str]:
    return {"%d/%d/%d" % tile for tile in emulator.cached_tiles(udf) if tile[0] == zoom}


@pytest.mark.parametrize("place", ["nowhere/rest.list", ".", "a\0b"])
def test_a_place_for_the_rest_that_takes_none_is_refused_before_anything_is_sent(
    fused_emulator: Emulator, udf: Udf, tiles_file: str, tmp_path: Path, place: str
) -> None:
    command = ["invalidate", "roads", "--tiles-file", tiles_file, "--remaining", str(tmp_path / place)]
    done = runner.invoke(program, command)
    assert done.exit_code == 2
    assert "--remaining" in done.stderr
    assert fused_emulator.requests == []


def test_a_place_that_fails_in_the_end_has_the_rest_printed(
    fused_emulator: Emulator, udf: Udf, tiles_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fused_cache_ops.selection.remaining.write_tile_list", full)
    fused_emulator.fill_cache(udf, TILES)
    fail_part_way(fused_emulator)
    command = ["invalidate", "roads", "--tiles-file", tiles_file, "--remaining", str(tmp_path / "rest.list")]
    done = runner.invoke(program, command)
    assert done.exit_code == 3
    assert "No space left" in done.stderr
    assert 0 < len(still_cached(fused_emulator, udf, 9)) < len(TILES)
    assert still_cached(fused_emulator, udf, 9) == set(done.stdout.split())


def test_the_rest_may_go_to_the_file_that_the_tiles_came_from(fused_emulator: Emulator, udf: Udf, tiles_file: str) -> None:
    fused_emulator.fill_cache(udf, TILES)
    fail_part_way(fused_emulator)
    command = ["invalidate", "roads", "--tiles-file", tiles_file, "--remaining", tiles_file]
    assert runner.invoke(program, command).exit_code == 3
    left = Path(tiles_file).read_text().split()
    assert 0 < len(left) < len(TILES)
    assert still_cached(fused_emulator, udf, 9) == set(left)


def test_bad_lines_in_the_rest_are_told(fused_emulator: Emulator, udf: Udf, tiles_file: str, tmp_path: Path) -> None:
    lines = Path(tiles_file).read_text().split()
    lines[40] = lines[50] = "nonsense"
    Path(tiles_file).write_text("\n".join(lines))
    fused_emulator.fill_cache(udf, TILES)
    fail_part_way(fused_emulator)
    rest = tmp_path / "rest.list"
    done = runner.invoke(program, ["invalidate", "roads", "--tiles-file", tiles_file, "--remaining", str(rest)])
    assert "line 41" in done.stderr
    assert "line 51" in done.stderr
    assert still_cached(fused_emulator, udf, 9) - {str(TILES[40]), str(TILES[50])} == set(rest.read_text().split())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_the_rest_where_it_was_asked_for(
    fused_emulator: Emulator, udf: Udf, tmp_path: Path, number: int, code: int
) -> None:
    tiles = [Tile(17, number % 1000, number // 1000) for number in range(120_000)]
    fused_emulator.fill_cache(udf, tiles)
    listed, rest = tmp_path / "tiles.list", tmp_path / "rest.list"
    listed.write_text("".join(f"{tile}\n" for tile in tiles))

    def delay_the_others() -> None:
        fused_emulator.before_invalidation = None
        fused_emulator.misbehave(latency=60.0, times=None)

    fused_emulator.before_invalidation = delay_the_others
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from fused_cache_ops.cli import main; main()",
            "invalidate",
            udf.id,
            "--tiles-file",
            str(listed),
            "--remaining",
            str(rest),
        ],
        env=os.environ | fused_emulator.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    end = time.monotonic() + 120
    while not (_batches(fused_emulator) and fused_emulator.requests_under_way) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == code, said.decode()
    assert b"Interrupted" in said
    left = set(rest.read_text().split())
    assert still_cached(fused_emulator, udf, 17) == left
    assert 0 < len(left) < len(tiles)


def _batches(emulator: Emulator) -> int:
    return sum(request.path.endswith("delete") for request in emulator.requests)
