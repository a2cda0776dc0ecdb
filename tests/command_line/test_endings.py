"""How a command of the command line ends: exit codes, the JSON of a failure, questions, signals and closed pipes."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from fused_cache_ops.cli.commands import program
from fused_cache_ops.cli.endings import EXIT_CODES
from fused_cache_ops.emulator import Emulator, Udf

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-c", "from fused_cache_ops.cli import main; main()"]
TILES = ["1/0/0", "1/0/1", "1/1/0", "1/1/1"]
runner = CliRunner()


def fail_after_the_first(emulator: Emulator, status: int) -> None:
    emulator.before_invalidation = lambda: emulator.misbehave(status=status, times=None)


def not_batched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 2)


# -- exit codes ---------------------------------------------------------------------------------------------------------

ENDINGS: list[tuple[str, int, Callable[[Emulator], object], list[str]]] = [
    ("done", 0, lambda _: None, ["roads", *TILES]),
    ("nothing to do", 0, lambda _: None, ["roads", "--tiles-file", "-"]),
    ("an unknown UDF", 1, lambda _: None, ["rods", *TILES]),
    ("a bad tile", 1, lambda _: None, ["roads", "1/9/9"]),
    ("refused", 1, lambda emulator: emulator.misbehave(status=403, times=None, path="delete"), ["roads", *TILES]),
    ("no selection", 2, lambda _: None, ["roads"]),
    ("an unknown option", 2, lambda _: None, ["roads", *TILES, "--nonsense"]),
    ("refused after a part", 3, lambda emulator: fail_after_the_first(emulator, 403), ["roads", *TILES]),
    ("unavailable", 75, lambda emulator: emulator.misbehave(status=503, times=None), ["roads", *TILES]),
    ("unavailable after a part", 75, lambda emulator: fail_after_the_first(emulator, 503), ["roads", *TILES]),
]


@pytest.mark.parametrize(("code", "prepare", "arguments"), [row[1:] for row in ENDINGS], ids=[row[0] for row in ENDINGS])
@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
def test_the_exit_code_says_how_it_ended(
    fused_emulator: Emulator,
    udf: Udf,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    prepare: Callable[[Emulator], object],
    arguments: list[str],
    as_json: bool,
) -> None:
    not_batched(monkeypatch)
    prepare(fused_emulator)
    options = ["--deadline", "1"] + ["--json"] * as_json
    done = runner.invoke(program, ["invalidate", *options, *arguments], input="")
    assert done.exit_code == code, done.output
    if as_json:
        document = json.loads(done.stdout)
        assert document.get("error", {}).get("exit_code", 0) == code
    elif code:
        assert done.stderr


def test_tiles_that_are_not_fresh_are_exit_code_4(fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSED_SHARED_TOKEN", udf.shared_token)
    fused_emulator.misbehave(status=200, after_work=False, body={"objects_deleted": 1}, path="delete", times=None)
    done = runner.invoke(program, ["invalidate", "roads", *TILES, "--verify-tiles", "2", "--json"])
    document = json.loads(done.stdout)
    assert (done.exit_code, document["error"]["kind"]) == (4, "VerificationError")
    assert document["result"]["tiles_invalidated"] == 4


def test_the_exit_codes_are_in_the_help_and_the_documentation() -> None:
    shown = " ".join(runner.invoke(program, ["--help"]).stdout.split())
    page = (ROOT / "docs/command-line.md").read_text()
    for code, meaning in EXIT_CODES.items():
        assert f"{code}: {meaning}" in shown
        assert f"| {code} | {meaning} |" in page


# -- the document of a failure --------------------------------------------------------------------------------------------


def test_a_partial_failure_hands_back_what_remains_in_the_document(
    fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch
) -> None:
    not_batched(monkeypatch)
    fail_after_the_first(fused_emulator, 403)
    document = json.loads(runner.invoke(program, ["invalidate", "roads", *TILES, "--json"]).stdout)
    assert document["remaining"] == ["1/1/0", "1/1/1"]
    assert document["result"]["tiles_invalidated"] == 2
    assert document["unfinished"] == [{"udf_id": udf.id, "client_id": "fused-team", "whole_udf": False}]
    assert document["error"] | {"message": ""} == {
        "kind": "PartialInvalidationError",
        "message": "",
        "retryable": False,
        "status": 403,
        "exit_code": 3,
    }


def test_a_failed_dataset_hands_back_what_remains_for_each_udf(
    fused_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fused-cache.toml").write_text('[datasets.d]\nudfs = [{ udf = "roads" }, { udf = "rods" }]\n')
    fused_emulator.register(dict, name="roads")
    document = json.loads(runner.invoke(program, ["dataset", "d", "1/0/0", "--json"]).stdout)
    assert list(document["result"]["results"]) == ["roads"]
    assert document["remaining"] == {"rods": ["1/0/0"]}


def test_what_remains_of_a_dataset_is_written_to_a_file_for_each_udf(
    fused_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fused-cache.toml").write_text('[datasets.d]\nudfs = [{ udf = "a/rods" }, { udf = "a rods" }, { udf = "a-rods" }]\n')
    done = runner.invoke(program, ["dataset", "d", "1/0/0", "--json", "--remaining", "rest"])
    files = json.loads(done.stdout)["remaining_file"]
    assert [Path(files[udf]).read_text() for udf in ("a/rods", "a rods", "a-rods")] == ["1/0/0\n"] * 3
    assert len(set(files.values())) == 3


@pytest.mark.parametrize("place", ["a-file", "missing/folder"])
def test_a_folder_for_what_remains_that_cannot_be_is_refused_before_anything_is_sent(
    fused_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a-file").touch()
    Path("fused-cache.toml").write_text('[datasets.d]\nudfs = [{ udf = "rods" }]\n')
    done = runner.invoke(program, ["dataset", "d", "1/0/0", "--remaining", place])
    assert done.exit_code == 2
    assert "--remaining" in done.stderr
    assert fused_emulator.requests == []


JSON_COMMANDS = [
    ["plan", "roads", "1/9/9"],
    ["invalidate", "roads", "1/0/0"],
    ["dataset", "d", "1/0/0"],
    ["dbt", "half"],
    ["inspect", "roads"],
    ["refresh", "roads", "1/0/0"],
    ["udfs"],
    ["check"],
    ["listing", "missing"],
    ["map", "check", "missing.toml"],
]


@pytest.mark.parametrize("command", JSON_COMMANDS, ids=" ".join)
def test_every_command_with_json_fails_with_one_document(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("half").mkdir()
    Path("half/run_results.json").write_text('{"metadata": ')
    done = runner.invoke(program, [*command, "--json"])  # there is no token
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert document["error"]["kind"] in ("ConfigurationError", "InvalidInputError")
    assert document["error"]["message"] in done.stderr


def test_no_command_with_json_is_missing_above() -> None:
    def with_json(commands: dict[str, Any], *before: str) -> set[tuple[str, ...]]:
        found: set[tuple[str, ...]] = set()
        for name, each in commands.items():
            found |= with_json(getattr(each, "commands", {}), *before, name)
            if any("--json" in option.opts for option in each.params):
                found.add((*before, name))
        return found

    listed = {tuple(command[: 2 if command[0] == "map" else 1]) for command in JSON_COMMANDS}
    assert with_json(get_command(program).commands) == listed  # type: ignore[attr-defined]


def test_a_wrong_option_is_a_document_too(udf: Udf) -> None:
    done = runner.invoke(program, ["udfs", "--json", "--nonsense"])
    assert done.exit_code == 2
    assert json.loads(done.stdout)["error"]["kind"] == "UsageError"


def test_json_behind_two_dashes_is_no_option(udf: Udf) -> None:
    done = runner.invoke(program, ["invalidate", "roads", "--", "--json"])
    assert done.exit_code == 1
    assert done.stdout == ""


# -- nothing to do ----------------------------------------------------------------------------------------------------------


def test_an_empty_pipe_says_that_there_is_nothing_to_invalidate(fused_emulator: Emulator, udf: Udf) -> None:
    done = runner.invoke(program, ["invalidate", "roads", "--tiles-file", "-"], input="")
    assert done.stdout == "Nothing to invalidate.\n"
    assert fused_emulator.requests == []


def test_an_empty_pipe_to_a_dataset_says_so_too(
    fused_emulator: Emulator, udf: Udf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fused-cache.toml").write_text('[datasets.d]\nudfs = [{ udf = "roads" }]\n')
    assert runner.invoke(program, ["dataset", "d", "--tiles-file", "-"], input="").stdout == "Nothing to invalidate.\n"


# -- in a terminal ----------------------------------------------------------------------------------------------------------


def in_terminal(emulator: Emulator, arguments: list[str], typed: bytes = b"", **variables: str) -> tuple[int, str]:
    """The exit code of a command, and all it shows in a terminal."""
    terminal, end = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= emulator.environment() | {"TERM": "xterm", "COLUMNS": "100"} | variables
    process = subprocess.Popen([*PROGRAM, *arguments], env=environment, stdin=end, stdout=end, stderr=end)
    os.close(end)
    shown = b""
    try:
        while True:
            select.select([terminal], [], [], 120)
            chunk = os.read(terminal, 65536)
            shown += chunk
            if typed and b"[y/N]" in shown:
                os.write(terminal, typed)
                typed = b""
            if not chunk:
                break
    except OSError:  # the other side is closed
        pass
    os.close(terminal)
    return process.wait(120), shown.decode()


@pytest.mark.parametrize(("answer", "code", "left"), [(b"y\n", 0, 0), (b"n\n", 1, 4), (b"\n", 1, 4)])
def test_in_a_terminal_the_whole_udf_takes_a_yes(
    fused_emulator: Emulator, udf: Udf, answer: bytes, code: int, left: int
) -> None:
    ended, shown = in_terminal(fused_emulator, ["invalidate", "roads", "--whole-udf"], answer)
    assert ended == code, shown
    assert "Invalidate everything cached by UDF 'roads'?" in shown
    assert len(fused_emulator.cached_tiles(udf)) == left


@pytest.mark.parametrize(("options", "variables"), [(["--yes"], {}), ([], {"CI": "true"})], ids=["yes", "CI"])
def test_nobody_is_asked_who_said_yes_or_is_not_there(
    fused_emulator: Emulator, udf: Udf, options: list[str], variables: dict[str, str]
) -> None:
    ended, shown = in_terminal(fused_emulator, ["invalidate", "roads", "--whole-udf", *options], **variables)
    assert ended == 0, shown
    assert "[y/N]" not in shown


WHOLE = [
    ('{ udf = "roads", whole_udf = true }', [], "UDF 'roads'?"),
    ('{ udf = "roads", zooms = "1-3", when_too_many = "whole-udf" }', [], "UDF 'roads' if its tiles are too many?"),
    ('{ udf = "roads", related = "callees" }', [], "UDF tracks (because of roads)?"),
    (
        '{ udf = "tracks" }, { udf = "rails" }',
        ["--related", "both"],
        "UDF tracks (because of roads), and what UDF 'rails' calls?",
    ),
    ('{ udf = "roads", inner_caches = ["tmp", "own"] }', [], "the functions in folder tmp, and the functions in UDF 'roads'?"),
    (", ".join(f'{{ udf = "{name}", whole_udf = true }}' for name in "abcdefg"), [], "UDF 'e', and 2 more?"),
]


@pytest.mark.parametrize(("entries", "options", "asked"), WHOLE, ids=[row[2] for row in WHOLE])
def test_a_dataset_with_a_udf_to_invalidate_whole_takes_a_yes(
    fused_emulator: Emulator,
    udf: Udf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    entries: str,
    options: list[str],
    asked: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    fused_emulator.register(dict, name="tracks", code="def udf():\n    return 1\n")
    fused_emulator.register(dict, name="roads", code='def udf():\n    return fused.run("tracks")\n')
    Path("fused-cache.toml").write_text(f"[datasets.d]\nudfs = [{entries}]\n")
    ended, shown = in_terminal(fused_emulator, ["dataset", "d", "1/0/0", *options], b"n\n", COLUMNS="200")
    assert ended == 1, shown
    assert f"{asked} [y/N]" in shown
    assert {request.method for request in fused_emulator.requests} <= {"GET"}


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (["--bounds=0,0,1,1", "--zooms", "1", "--when-too-many", "whole-udf"], "UDF 'roads' if its tiles are too many?"),
        (["1/0/0", "--related", "callers"], "UDF roads (because of map)?"),
        (["--whole-udf", "--related", "callers"], "UDF 'roads', and UDF map?"),
        (["1/0/0", "--inner-caches", "tmp"], "the functions in folder tmp?"),
    ],
)
def test_what_may_end_in_a_whole_udf_takes_a_yes_too(
    fused_emulator: Emulator, udf: Udf, options: list[str], asked: str
) -> None:
    fused_emulator.register(dict, name="map", code='def udf():\n    return fused.run("roads")\n')
    ended, shown = in_terminal(fused_emulator, ["invalidate", "roads", *options], b"n\n")
    assert ended == 1, shown
    assert f"Invalidate everything cached by {asked} [y/N]" in shown
    assert {request.method for request in fused_emulator.requests} <= {"GET"}  # who calls whom is looked up


def test_a_dataset_of_tiles_is_not_asked_about(
    fused_emulator: Emulator, udf: Udf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fused-cache.toml").write_text('[datasets.d]\nudfs = [{ udf = "roads" }]\n')
    ended, shown = in_terminal(fused_emulator, ["dataset", "d", "1/0/0"])
    assert ended == 0, shown
    assert "[y/N]" not in shown


def test_some_tiles_are_not_asked_about(fused_emulator: Emulator, udf: Udf) -> None:
    assert in_terminal(fused_emulator, ["invalidate", "roads", "1/0/0"])[0] == 0


@pytest.mark.parametrize("no_color", [True, False])
def test_colors_are_for_those_who_want_them(fused_emulator: Emulator, udf: Udf, no_color: bool) -> None:
    variables = {"NO_COLOR": "1"} if no_color else {}
    _, shown = in_terminal(fused_emulator, ["invalidate", "roads", "1/9/9"], **variables)
    assert ("\x1b[31m" in shown) is not no_color


@pytest.mark.parametrize("command", [["udfs"], ["check"], ["inspect", "roads"], ["plan", "roads", "1/0/0"]], ids=" ".join)
def test_what_is_shown_fits_a_narrow_terminal(fused_emulator: Emulator, udf: Udf, command: list[str]) -> None:
    ended, shown = in_terminal(fused_emulator, command, COLUMNS="40", NO_COLOR="1")
    assert ended == 0
    assert max(map(len, re.sub(r"\x1b\[\d*m", "", shown).splitlines())) <= 40


# -- pipes, locales, signals ------------------------------------------------------------------------------------------------


def test_a_reader_that_leaves_is_no_failure(fused_emulator: Emulator) -> None:
    command = [*PROGRAM, "plan", "roads", "--bounds=0,0,60,60", "--zooms", "10", "--list"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(120), said) == (0, b"")


@pytest.mark.parametrize("command", ["--help", "invalidate --help", "--version"])
def test_a_help_that_nobody_reads_is_no_failure(command: str) -> None:
    code = "import time; time.sleep(1); from fused_cache_ops.cli import main; main()"  # the reader has left by then
    shell = f"{sys.executable} -c '{code}' {command} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_a_reader_that_leaves_does_not_hide_a_failure(fused_emulator: Emulator, udf: Udf) -> None:
    fail = f'{sys.executable} -c "from fused_cache_ops.cli import main; main()" invalidate rods 1/0/0 --json'
    done = subprocess.run(["bash", "-c", f"{fail} | true; echo ${{PIPESTATUS[0]}}"], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "1"
    assert "Traceback" not in done.stderr


C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("variables", [{"PYTHONIOENCODING": "ascii"}, C_LOCALE], ids=["encoding", "locale"])
@pytest.mark.parametrize(
    "command", [["--help"], ["invalidate", "--help"], ["udfs"], ["udfs", "--json"], ["plan", "straßen", "1/9/9"]], ids=" ".join
)
def test_a_locale_without_utf_8_shows_escapes(fused_emulator: Emulator, variables: dict[str, str], command: list[str]) -> None:
    fused_emulator.register(dict, name="straßen")
    done = subprocess.run([*PROGRAM, *command], env=os.environ | variables, check=False, capture_output=True)
    assert b"Traceback" not in done.stderr
    assert done.returncode == (1 if "1/9/9" in command else 0), done.stderr
    assert (done.stdout + done.stderr).isascii()


def test_a_name_that_the_locale_cannot_express_is_an_error_with_the_remedy(fused_emulator: Emulator) -> None:
    done = subprocess.run([*PROGRAM, "inspect", "straßen"], env=os.environ | C_LOCALE, check=False, capture_output=True)
    assert done.returncode == 1
    assert b"PYTHONUTF8=1" in done.stderr


def test_ctrl_c_keeps_the_checkpoint_and_the_same_command_sends_the_rest(
    fused_emulator: Emulator, udf: Udf, tmp_path: Path
) -> None:
    listed, checkpoint = tmp_path / "tiles.list", tmp_path / "run.json"
    tiles = [(17, number % 1000, number // 1000) for number in range(220_000)]
    listed.write_text("".join("%d/%d/%d\n" % tile for tile in tiles))
    fused_emulator.fill_cache(udf, tiles)
    command = [*PROGRAM, "invalidate", udf.id, "--tiles-file", str(listed), "--checkpoint", str(checkpoint), "--json"]

    def delay_the_others() -> None:
        fused_emulator.before_invalidation = None
        fused_emulator.misbehave(latency=60.0, times=None)

    fused_emulator.before_invalidation = delay_the_others
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    end = time.monotonic() + 120
    while not _is_under_way(fused_emulator) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    shown, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Run the same command again to send the rest." in said
    document = json.loads(shown)
    assert (document["error"]["kind"], document["error"]["exit_code"]) == ("Interrupted", 130)
    left = {"%d/%d/%d" % tile for tile in fused_emulator.cached_tiles(udf) if tile[0] == 17}
    assert 0 < len(left) < len(tiles)
    assert set(document["remaining"]) >= left
    fused_emulator.behave()
    again = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert again["tiles_invalidated"] + again["tiles_already_done"] == len(tiles)
    assert again["tiles_already_done"] > 0
    assert {tile for tile in fused_emulator.cached_tiles(udf) if tile[0] == 17} == set()


def _is_under_way(emulator: Emulator) -> bool:
    answered = any(request.path.endswith("delete") for request in emulator.requests)
    return answered and emulator.requests_under_way > 0


def test_ctrl_c_in_a_dataset_says_what_remains(fused_emulator: Emulator, tmp_path: Path) -> None:
    udfs = [fused_emulator.register(dict, name=f"udf{number}") for number in range(2)]
    entries = ", ".join(f'{{ udf = "{udf.slug}" }}' for udf in udfs)
    (tmp_path / "fused-cache.toml").write_text(f"[datasets.d]\nudfs = [{entries}]\n")
    fused_emulator.misbehave(latency=60.0, times=None, path=udfs[1].id)
    process = subprocess.Popen(
        [*PROGRAM, "dataset", "d", "1/0/0", "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    end = time.monotonic() + 120
    while not _is_under_way(fused_emulator) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    shown, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    document = json.loads(shown)
    assert document["remaining"]["udf1"] == ["1/0/0"]
    assert "--checkpoint" in said


# -- how much is said -------------------------------------------------------------------------------------------------------


def test_the_version_is_the_distributions() -> None:
    from fused_cache_ops import __version__

    assert runner.invoke(program, ["--version"]).stdout == f"fused-cache-ops {__version__}\n"


def test_quiet_says_nothing_but_errors(fused_emulator: Emulator) -> None:
    assert runner.invoke(program, ["udfs", "x"]).stderr != ""
    assert runner.invoke(program, ["-q", "udfs", "x"]).stderr == ""
    assert runner.invoke(program, ["udfs", "x"]).stderr != ""
    assert runner.invoke(program, ["-q", "inspect", "x"]).stderr != ""


@pytest.mark.parametrize("quiet", [False, True])
def test_a_warning_is_a_line_without_a_place_in_pythons_code(tmp_path: Path, quiet: bool) -> None:
    places = [None, {"type": "Point", "coordinates": [1, 2]}]
    features = [{"type": "Feature", "properties": {}, "geometry": place} for place in places]
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    arguments = [*["--quiet"] * quiet, "plan", "roads", "--geometry", str(tmp_path / "a.geojson"), "--zooms", "8", "--list"]
    ran = runner.invoke(program, arguments)
    assert ran.stdout == "8/128/126\n"
    assert ran.stderr == ("" if quiet else "geometry has 1 member whose geometry is null: skipped.\n")


def test_quiet_and_verbose_contradict_each_other() -> None:
    assert runner.invoke(program, ["-q", "-v", "udfs"]).exit_code == 2
    assert runner.invoke(program, ["-q", "udfs", "-v"]).exit_code == 2


def leaves(commands: dict[str, Any], *before: str) -> dict[tuple[str, ...], Any]:
    """All commands, also those in groups."""
    found: dict[tuple[str, ...], Any] = {}
    for name, each in commands.items():
        found |= leaves(each.commands, *before, name) if hasattr(each, "commands") else {(*before, name): each}
    return found


COMMANDS = leaves(get_command(program).commands)  # type: ignore[attr-defined]


def test_quiet_and_verbose_may_come_after_any_command() -> None:
    assert ("map", "show") in COMMANDS
    for name, command in COMMANDS.items():
        assert {"--quiet", "-q", "--verbose", "-v"} <= {text for option in command.params for text in option.opts}, name


def test_quiet_after_the_command_says_nothing_but_errors(fused_emulator: Emulator) -> None:
    assert runner.invoke(program, ["udfs", "x", "-q"]).stderr == ""
    assert runner.invoke(program, ["inspect", "x", "--quiet"]).stderr != ""


def test_verbose_after_the_command_logs(fused_emulator: Emulator, udf: Udf) -> None:
    assert runner.invoke(program, ["invalidate", "roads", "1/0/0"]).stderr == ""
    assert runner.invoke(program, ["invalidate", "roads", "1/0/0", "-v"]).stderr != ""


@pytest.mark.parametrize("command", [(), ("map",), *COMMANDS], ids=" ".join)
def test_every_help_reads_well_at_80_columns(command: tuple[str, ...]) -> None:
    shown = runner.invoke(program, [*command, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).stdout
    assert max(map(len, shown.splitlines())) <= 80
    for line in shown.splitlines():
        assert line.count("<") == line.count(">"), line  # a list of choices that is broken amid a word


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_no_requests_and_no_selections(option: str) -> None:
    code = (
        "import sys; sys.argv = ['fused-cache-ops', sys.argv[1]]\n"
        "from fused_cache_ops.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, option], check=True, capture_output=True, text=True)
    imported = set(done.stderr.split())
    unwanted = {"requests", "urllib3", "fastapi", "numpy", "tomllib", "fused_cache_ops.client", "fused_cache_ops.plan.plan"}
    if option == "--version":
        unwanted |= {"rich.console"}
    assert unwanted & imported == set()


def test_help_is_shown_even_if_the_settings_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fused-cache.toml").write_text("[settings]\nnonsense = 1\n")
    assert runner.invoke(program, ["invalidate", "--help"]).exit_code == 0
