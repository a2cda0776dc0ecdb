"""The command line: what each command prints, and how it ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import deltalake
import pyarrow
import pyarrow.parquet
import pytest
import requests
from typer.testing import CliRunner

from fused_cache_ops.cli.commands import program
from fused_cache_ops.emulator import Emulator, Udf

runner = CliRunner()


def test_invalidate_names_tiles(fused_emulator: Emulator, udf: Udf) -> None:
    done = runner.invoke(program, ["invalidate", "roads", "1/0/0", "1/1/1", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["tiles_invalidated"] == 2
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 1), (1, 1, 0)}


def test_invalidate_prints_a_table_for_people(fused_emulator: Emulator, udf: Udf) -> None:
    done = runner.invoke(program, ["invalidate", "roads", "--whole-udf"])
    assert done.exit_code == 0
    assert re.search(r"tiles invalidated\W+the whole UDF", done.stdout)
    assert fused_emulator.cached_tiles(udf) == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--cells", "{folder}/cells.txt"],
        ["--cells", "{folder}/cells.txt", "--render-resolution", "5"],
        ["--cells", "{folder}/cells.txt", "--render-resolution", '{"0": 1, "1": 5}'],
        ["--hex-dataset", "{folder}/hexes", "--partition", "date=1", "--render-resolution", "7"],
        ["--hex-dataset", "{folder}/hexes", "--partition", "date=1", "--partition", "date=2"],
        ["--geometry", "{folder}/table.parquet", "--geometry-column", "shape", "--crs", "EPSG:3857"],
    ],
    ids=lambda arguments: " ".join(arguments[::2]),
)
def test_invalidate_takes_what_changed_from_cells_datasets_and_tables(
    fused_emulator: Emulator, udf: Udf, tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "cells.txt").write_text("89756a535a7ffff\n")
    for name in ("date=1", "date=2"):
        (tmp_path / "hexes" / name).mkdir(parents=True)
        (tmp_path / "hexes" / name / "87756a535ffffff.parquet").touch()
    pyarrow.parquet.write_table(pyarrow.table({"shape": ["POINT (166979 166998)"]}), tmp_path / "table.parquet")
    given = [argument.replace("{folder}", str(tmp_path)) for argument in arguments]
    done = runner.invoke(program, ["invalidate", "roads", "--zooms", "0-1", "--json", *given])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["tiles_invalidated"] == 2
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 0), (1, 0, 1), (1, 1, 1)}


def write_states(folder: Path) -> list[str]:
    """Two states of a table, of which one row differs: at (1.5, 1.5) in Web Mercator."""
    for name, value in (("before", 1), ("after", 2)):
        table = pyarrow.table({"key": [1, 2], "value": [value, 7], "g": ["POINT (166979 166998)", "POINT (-166979 166998)"]})
        pyarrow.parquet.write_table(table, folder / f"{name}.parquet")
    return [str(folder / "before.parquet"), str(folder / "after.parquet")]


def test_invalidate_takes_the_difference_of_two_files(fused_emulator: Emulator, udf: Udf, tmp_path: Path) -> None:
    how = ["--key", "key", "--geometry-column", "g", "--crs", "EPSG:3857", "--zooms", "0-1", "--json"]
    done = runner.invoke(program, ["invalidate", "roads", "--diff", *write_states(tmp_path), *how])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["tiles_invalidated"] == 2
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 0), (1, 0, 1), (1, 1, 1)}


def test_only_the_columns_named_count_in_a_difference(tmp_path: Path) -> None:
    how = ["--key", "key", "--geometry-column", "g", "--crs", "EPSG:3857", "--zooms", "0-1", "--columns", "key"]
    done = runner.invoke(program, ["plan", "roads", "--diff", *write_states(tmp_path), *how, "--json"])
    assert json.loads(done.stdout)["tile_count"] == 0


def test_states_that_cannot_be_compared_end_with_1_and_say_why(tmp_path: Path) -> None:
    done = runner.invoke(
        program, ["plan", "roads", "--diff", *write_states(tmp_path), "--geometry-column", "g", "--zooms", "1"]
    )
    assert done.exit_code == 1
    assert "has no column 'id' (key)" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--key", "id", "1/0/0"], "--key is for --diff"),
        (["--columns", "id", "1/0/0"], "--columns is for --diff"),
        (["--diff", "a.parquet", "b.parquet", "--geometry", "POINT (0 0)"], "--diff and --geometry are both given"),
        (["--diff", "a.parquet", "b.parquet", "--changes-of", "a", "--since", "1"], "--diff and --changes-of are both given"),
        (["--changes-of", "a", "--since", "1", "--geometry", "POINT (0 0)"], "--changes-of and --geometry are both given"),
        (["--changes-of", "a"], "--changes-of needs --since"),
        (["--since", "1", "1/0/0"], "--since is for --changes-of"),
    ],
)
def test_options_of_a_difference_are_not_taken_for_something_else(arguments: list[str], message: str) -> None:
    done = runner.invoke(program, ["plan", "roads", *arguments])
    assert done.exit_code == 2
    assert message in done.stderr


def write_delta(folder: Path) -> str:
    """A Delta table, to which a point at (1.5, 1.5) in degrees was appended after version 0."""
    rows = pyarrow.table({"id": [1], "place": ["POINT (-1.5 1.5)"]})
    deltalake.write_deltalake(folder / "table", rows, configuration={"delta.enableChangeDataFeed": "true"})
    deltalake.write_deltalake(folder / "table", pyarrow.table({"id": [2], "place": ["POINT (1.5 1.5)"]}), mode="append")
    return str(folder / "table")


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_invalidate_takes_what_a_delta_table_recorded(fused_emulator: Emulator, udf: Udf, tmp_path: Path, prefix: str) -> None:
    how = ["--since", "0", "--geometry-column", "place", "--crs", "EPSG:4326", "--zooms", "0-1", "--json"]
    done = runner.invoke(program, ["invalidate", "roads", "--changes-of", prefix + write_delta(tmp_path), *how])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["tiles_invalidated"] == 2
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 0), (1, 0, 1), (1, 1, 1)}


@pytest.mark.parametrize(
    ("address", "since", "message"),
    [
        ("{table}", "3", "since = 3 is not a version of table"),
        ("{table}", "yesterday", "is no version of a Delta table: pass its number"),
        ("{table}", "null", "looks like a value that is missing"),
        ("", "0", "looks like a value that is missing"),
        ("{folder}", "0", "has no record of its changes that can be read"),
        ("{folder}/nowhere", "0", "has no record of its changes that can be read"),
    ],
)
def test_records_that_cannot_be_read_end_with_1_and_say_why(tmp_path: Path, address: str, since: str, message: str) -> None:
    address = address.format(table=write_delta(tmp_path), folder=tmp_path)
    how = ["--since", since, "--geometry-column", "place", "--zooms", "1"]
    done = runner.invoke(program, ["plan", "roads", "--changes-of", address, *how])
    assert done.exit_code == 1
    assert message in " ".join(done.stderr.split())


@pytest.mark.parametrize("arguments", [["roads"], ["roads", "1/0/0", "--whole-udf"]])
def test_invalidate_never_guesses_that_all_was_meant(fused_emulator: Emulator, udf: Udf, arguments: list[str]) -> None:
    assert runner.invoke(program, ["invalidate", *arguments]).exit_code == 2
    assert len(fused_emulator.cached_tiles(udf)) == 4


def test_a_bad_tile_ends_with_1_and_says_why(fused_emulator: Emulator, udf: Udf) -> None:
    done = runner.invoke(program, ["invalidate", "roads", "1/9/9"])
    assert done.exit_code == 1
    assert "outside 0 … 1" in done.stderr


def test_transient_errors_end_with_75(fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=503, times=None)
    assert runner.invoke(program, ["invalidate", "roads", "--whole-udf", "--deadline", "0.3"]).exit_code == 75


def test_a_partial_failure_prints_the_tiles_still_to_do(
    fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 2)
    fused_emulator.before_invalidation = lambda: fused_emulator.misbehave(status=401, times=None)
    done = runner.invoke(program, ["invalidate", "roads", "1/0/0", "1/0/1", "1/1/0", "1/1/1"])
    assert done.exit_code == 3
    assert done.stdout.split() == ["1/1/0", "1/1/1"]


def test_check_names_the_environment_and_the_instance(fused_emulator: Emulator) -> None:
    done = runner.invoke(program, ["check"])
    for row in ("token +ok +valid, from FUSED_SERVICE_ACCOUNT_TOKEN", "environment +ok +team", "instance +ok +fused-team"):
        assert re.search(row, done.stdout)


def test_check_of_a_bad_token_ends_with_1(fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSED_SERVICE_ACCOUNT_TOKEN", "wrong")
    assert runner.invoke(program, ["check"]).exit_code == 1


def test_without_the_extra_the_command_says_what_to_install() -> None:
    code = "import sys; sys.modules['typer'] = None; from fused_cache_ops.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "typer is not installed: install fused-cache-ops with the extra cli (docs/errors.md" in done.stderr


def ignore_interrupts() -> None:
    """As a shell does for its background jobs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_emulator_command_serves_functions_and_misbehaves(tmp_path: Path, stop: signal.Signals) -> None:
    (tmp_path / "udfs.py").write_text("def roads(z, x, y):\n    return [z, x, y]\n")
    command = [sys.executable, "-c", "from fused_cache_ops.cli import main; main()", "emulator", "--port", "0"]
    options = ["--udf", f"{tmp_path}/udfs.py:roads", "--token", "abc", "--db", f"{tmp_path}/fused.sqlite"]
    fault = ["--fault", '{"status": 429, "path": "execution-env"}', "--no-batch"]
    process = subprocess.Popen(
        [*command, *options, *fault], stdout=subprocess.PIPE, text=True, env=dict(os.environ), preexec_fn=ignore_interrupts
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        base_url = lines[0].strip().removeprefix("export FUSED_BASE_URL=")
        assert lines[1].strip() == "export FUSED_SERVICE_ACCOUNT_TOKEN=abc"
        tile_url = lines[2].split()[-1].replace("Z/X/Y", "1/0/1")
        assert lines[3].strip() == f"export FUSED_SHARED_TOKEN={tile_url.split('/')[3]}"
        assert requests.get(tile_url, timeout=120).json() == [1, 0, 1]
        header = {"Authorization": "Fused-Service-Token abc"}
        answers = [requests.get(f"{base_url}/execution-env/self", headers=header, timeout=120) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [429, 200]
    finally:
        for _ in range(20):  # of a person who does not wait, or a shell that tells each of a group
            process.send_signal(stop)
        assert process.wait(120) == 0
        assert process.stdout is not None
        process.stdout.close()


def test_an_emulator_whose_port_is_taken_says_by_whom(fused_emulator: Emulator) -> None:
    fused_emulator.misbehave(status=500, times=1)
    port = fused_emulator.root_url.rpartition(":")[2]
    done = runner.invoke(program, ["emulator", "--port", port])
    assert done.exit_code == 1
    assert f"Another emulator is running on port {port}: end it, or take a free port with --port 0." in done.stderr
    assert not fused_emulator.requests  # it has not noticed

    with socket.create_server(("127.0.0.1", 0)) as other:
        other.listen()
        done = runner.invoke(program, ["emulator", "--port", str(other.getsockname()[1])])
    assert "Another program uses port" in done.stderr


def test_each_udf_of_an_emulator_has_a_line_for_its_shared_token(tmp_path: Path) -> None:
    (tmp_path / "udfs.py").write_text("def roads(z, x, y):\n    return 1\n\n\ndef rivers(z, x, y):\n    return 2\n")
    command = [sys.executable, "-c", "from fused_cache_ops.cli import main; main()", "emulator", "--port", "0"]
    options = [each for name in ("roads", "rivers") for each in ("--udf", f"{tmp_path}/udfs.py:{name}")]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(6)]
        process.terminate()
    assert [line.partition("export")[0] for line in lines[4:]] == ["# for UDF rivers: ", "# for UDF roads: "]


@pytest.mark.parametrize("reference", ["nowhere.py:roads", "roads", "{file}:missing"])
def test_a_function_that_is_not_there_is_named(tmp_path: Path, reference: str) -> None:
    (tmp_path / "udfs.py").write_text("roads = 5\n")
    done = runner.invoke(program, ["emulator", "--udf", reference.format(file=tmp_path / "udfs.py")])
    assert done.exit_code == 2


@pytest.fixture
def land(fused_emulator: Emulator) -> Udf:
    """A UDF with a caller, in a canvas whose maps run on another instance than the preferred one."""
    fused_emulator.add_instance("fused-maps")
    fused_emulator.add_canvas("land", share_client_id="fused-maps")
    fused_emulator.register(dict, name="map", canvas="land", code="def udf():\n    fused.load('roads')()\n")
    return fused_emulator.register(dict, name="roads", canvas="land", code="def udf():\n    pass\n")


def test_a_plan_with_relatives_shows_the_order(fused_emulator: Emulator, land: Udf) -> None:
    done = runner.invoke(program, ["plan", "land/roads", "--whole-udf", "--related", "callers"])
    assert done.exit_code == 0, done.output
    lines = [line for line in done.stdout.splitlines() if "fused-" in line]
    assert [("roads" in line, "map" in line.split("fused-")[0]) for line in lines] == [(True, False)] * 2 + [(False, True)] * 2
    assert "on 2 instances" in done.stdout
    assert all(request.method == "GET" for request in fused_emulator.requests)


def test_a_plan_says_which_udfs_are_whole_because_of_whom(land: Udf) -> None:
    done = runner.invoke(program, ["plan", "land/roads", "1/0/0", "--related", "callers"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "everything, because of map" in done.stdout
    assert "the tiles" in done.stdout


def test_a_plan_of_inner_caches_looks_up_what_the_code_names(fused_emulator: Emulator, land: Udf) -> None:
    code = "@fused.udf\ndef udf():\n    @fused.cache(cache_folder_path='rails')\n    def read(): ...\n"
    fused_emulator.register(dict, name="rails", canvas="land", code=code)
    own = ["plan", "land/rails", "1/0/0", "--inner-caches", "own", "--inner-caches", "tmp", "--json"]
    named = ["plan", "land/rails", "1/0/0", "--inner-caches", "tmp", "--json"]
    assert json.loads(runner.invoke(program, own).stdout)["inner_caches"] == ["rails", "tmp"]
    fused_emulator.forget_requests()
    assert json.loads(runner.invoke(program, named).stdout)["inner_caches"] == ["tmp"]
    assert fused_emulator.requests == []


def test_inner_caches_that_are_deleted_are_shown(fused_emulator: Emulator, land: Udf) -> None:
    fused_emulator.cache(cache_folder_path="rails")(lambda: 1)()
    done = runner.invoke(program, ["invalidate", "land/roads", "1/0/0", "--inner-caches", "rails"])
    assert done.exit_code == 0, done.output
    assert "rails" in done.stdout
    assert fused_emulator.inner_caches() == []


def test_an_h3_table_is_indexed_first(fused_emulator: Emulator, land: Udf) -> None:
    table = fused_emulator.add_h3_table("s3://lake/hexes/")
    index = ["--h3-index", "s3://lake/hexes/", "--h3-index-run", "--h3-index-prefix", "a=1", "--h3-index-prefix", "a=2"]
    done = runner.invoke(program, ["plan", "land/roads", "1/0/0", *index, "--json"])
    assert "is run until it has" in json.loads(done.stdout)["h3_index"]
    assert fused_emulator.requests == []
    done = runner.invoke(program, ["invalidate", "land/roads", "1/0/0", *index, "--h3-index-deadline", "60"])
    assert done.exit_code == 0, done.output
    assert [run["prefix"] for run in table.runs] == [["a=1", "a=2"]]


def test_an_h3_table_that_is_not_indexed_yet_is_tried_again_later(fused_emulator: Emulator, land: Udf) -> None:
    table = fused_emulator.add_h3_table("s3://lake/hexes/")
    table.set_indexed(0)
    given = ["--h3-index", "s3://lake/hexes/", "--loaded-at", "2026-11-22T06:30:00Z"]
    done = runner.invoke(program, ["invalidate", "land/roads", "1/0/0", *given])
    assert (done.exit_code, "Nothing was invalidated" in " ".join(done.output.split())) == (75, True)


def test_how_long_the_map_was_stale_is_shown(land: Udf) -> None:
    given = ["invalidate", "land/roads", "1/0/0", "--loaded-at", "2026-11-22T06:30:00Z"]
    done = runner.invoke(program, given)
    assert done.exit_code == 0, done.output
    assert "seconds until invalidated" in done.stdout
    assert json.loads(runner.invoke(program, [*given, "--json"]).stdout)["seconds_until_invalidated"] > 0


def test_an_invalidation_with_relatives_and_a_second_pass_shows_both(land: Udf) -> None:
    done = runner.invoke(program, ["invalidate", "land/roads", "--whole-udf", "--related", "callers", "--again-after", "0.1"])
    assert done.exit_code == 0, done.output
    shown = " ".join(done.stdout.split())
    for expected in ("fused-team, fused-maps", "second pass", "done", "related"):
        assert expected in shown


def test_what_may_keep_the_map_stale_is_shown(land: Udf) -> None:
    done = runner.invoke(program, ["invalidate", "land/roads", "--whole-udf"])
    assert done.exit_code == 0, done.output
    assert "--related callers" in " ".join(done.stdout.split())


def test_an_unknown_relation_is_an_error(land: Udf, fused_emulator: Emulator) -> None:
    for command in ("plan", "invalidate"):
        done = runner.invoke(program, [command, "land/roads", "--whole-udf", "--related", "everyone"])
        assert done.exit_code == 1
        assert "must be one of" in " ".join(done.output.split())
    assert fused_emulator.requests == []
