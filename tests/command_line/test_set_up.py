"""What a command of the command line runs with: tokens, settings, completion; and the commands that look these up."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fused_cache_ops.cli.commands import program
from fused_cache_ops.emulator import Emulator, Udf

runner = CliRunner()
SECRET = "s3cret-token"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


# -- the token --------------------------------------------------------------------------------------------------------------


def test_the_token_may_be_in_a_file(fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUSED_SERVICE_ACCOUNT_TOKEN")
    Path("token").write_text(f"  {fused_emulator.token}\n")
    done = runner.invoke(program, ["check", "--token-file", "token"])
    assert done.exit_code == 0
    assert "valid, from token" in done.stdout


def test_the_token_may_come_from_standard_input(fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUSED_SERVICE_ACCOUNT_TOKEN")
    done = runner.invoke(program, ["check", "--token-file", "-"], input=f"{fused_emulator.token}\n")
    assert done.exit_code == 0
    assert "valid, from standard input" in done.stdout


def test_the_file_comes_before_the_environment(fused_emulator: Emulator) -> None:
    Path("token").write_text(SECRET)
    done = runner.invoke(program, ["check", "--token-file", "token"])
    assert done.exit_code == 1
    assert "It came from token." in done.stderr


@pytest.mark.parametrize(
    "content", [b"", b" \n", b"\xff" + SECRET.encode(), SECRET.encode() + b" two words", f"{SECRET}é".encode()]
)
def test_a_file_that_is_no_token_is_refused_without_showing_it(fused_emulator: Emulator, content: bytes) -> None:
    Path("token").write_bytes(content)
    done = runner.invoke(program, ["udfs", "--token-file", "token", "--json"])
    assert done.exit_code == 1
    assert "token" in done.stderr
    assert SECRET not in done.output
    assert fused_emulator.requests == []


@pytest.mark.parametrize("path", ["missing", ".", "a\0b"])
def test_a_file_that_cannot_be_read_is_an_error(fused_emulator: Emulator, path: str) -> None:
    done = runner.invoke(program, ["udfs", "--token-file", path])
    assert done.exit_code == 1
    assert "cannot be read" in done.stderr


def test_only_one_can_read_standard_input(fused_emulator: Emulator, udf: Udf) -> None:
    done = runner.invoke(program, ["invalidate", "roads", "--tiles-file", "-", "--token-file", "-"], input=fused_emulator.token)
    assert done.exit_code == 2
    assert fused_emulator.requests == []


def test_a_token_is_no_argument() -> None:
    assert runner.invoke(program, ["udfs", "--token", SECRET]).exit_code == 2


# -- settings ---------------------------------------------------------------------------------------------------------------


def test_an_option_comes_before_the_environment_and_that_before_the_file(
    fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("fused-cache.toml").write_text('[settings]\nclient_id = "of-the-file"\n')
    assert "of-the-file" in runner.invoke(program, ["check"]).stdout
    monkeypatch.setenv("FUSED_CLIENT_ID", "of-the-environment")
    assert "of-the-environment" in runner.invoke(program, ["check"]).stdout
    assert "of-the-option" in runner.invoke(program, ["check", "--client-id", "of-the-option"]).stdout


def test_settings_may_be_in_the_pyproject(fused_emulator: Emulator) -> None:
    Path("pyproject.toml").write_text('[tool.fused-cache.settings]\nclient_id = "of-the-project"\n')
    assert "of-the-project" in runner.invoke(program, ["check"]).stdout


def test_settings_reach_what_is_sent(fused_emulator: Emulator) -> None:
    code = "def udf():\n    fused.load('roads')()\n"
    roads = fused_emulator.register(dict, name="roads", code="def udf():\n    pass\n")
    report = fused_emulator.register(dict, name="report", code=code)
    Path("fused-cache.toml").write_text('[settings]\nrelated = "callers"\n')
    result = json.loads(runner.invoke(program, ["invalidate", roads.id, "1/0/0", "--json"]).stdout)
    assert list(result["related"]) == [report.id]


def test_a_plan_needs_no_token_whatever_the_settings_are() -> None:
    Path("fused-cache.toml").write_text('[settings]\nrelated = "callers"\nmax_related = 3\n')
    assert runner.invoke(program, ["plan", "roads", "1/0/0"]).exit_code == 0


def test_the_map_is_more_specific_than_the_settings(fused_emulator: Emulator) -> None:
    for name in ("roads", "rails"):
        fused_emulator.register(dict, name=name)
    entries = '{ udf = "roads", again_after = 0 }, { udf = "rails" }'
    Path("fused-cache.toml").write_text(f"[settings]\nagain_after = 0.1\n[datasets.d]\nudfs = [{entries}]\n")
    results = json.loads(runner.invoke(program, ["dataset", "d", "1/0/0", "--json"]).stdout)["results"]
    assert [results[name]["second_pass"] for name in ("roads", "rails")] == [None, "done"]


@pytest.mark.parametrize("command", [["udfs"], ["map", "show"], ["plan", "roads", "1/0/0"]], ids=" ".join)
def test_a_file_that_names_another_deployment_is_refused_before_anything_is_sent(
    fused_emulator: Emulator, command: list[str]
) -> None:
    Path("fused-cache.toml").write_text('[settings]\nbase_url = "https://elsewhere.example"\n')
    done = runner.invoke(program, command)
    assert done.exit_code == 1
    assert "base_url must not be in a file" in done.stderr
    assert "FUSED_BASE_URL" in done.stderr
    assert fused_emulator.requests == []


# -- udfs -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def team(fused_emulator: Emulator) -> dict[str, Udf]:
    named = [("maps", "roads"), ("maps", "rails"), ("reports", "roads_total")]
    return {f"{canvas}/{name}": fused_emulator.register(dict, name=name, canvas=canvas) for canvas, name in named}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ([], ["maps/rails", "maps/roads", "reports/roads_total"]),
        (["roads"], ["maps/roads", "reports/roads_total"]),
        (["ROAD"], ["maps/roads", "reports/roads_total"]),
        (["maps/"], ["maps/rails", "maps/roads"]),
        (["r*s"], ["maps/rails", "maps/roads"]),
        (["*/roads*"], ["maps/roads", "reports/roads_total"]),
        (["nothing"], []),
    ],
)
def test_udfs_are_listed_by_name(team: dict[str, Udf], given: list[str], found: list[str]) -> None:
    done = runner.invoke(program, ["udfs", *given, "--json"])
    assert done.exit_code == 0
    listed = json.loads(done.stdout)["udfs"]
    assert [f"{each['canvas']}/{each['name']}" for each in listed] == found
    assert [each["id"] for each in listed] == [team[name].id for name in found]


def test_udfs_are_a_table_for_people(team: dict[str, Udf]) -> None:
    shown = runner.invoke(program, ["udfs", "rails"]).stdout
    assert re.search(rf"maps +rails +{team['maps/rails'].id}", shown)


def test_a_name_that_is_empty_is_an_error(team: dict[str, Udf]) -> None:
    assert runner.invoke(program, ["udfs", ""]).exit_code == 1


# -- check ------------------------------------------------------------------------------------------------------------------


def checked(*arguments: str) -> tuple[int, dict[str, Any], str]:
    """The exit code of a check, the state of each step, and its message."""
    done = runner.invoke(program, ["check", "--json", "--deadline", "1", *arguments])
    document = json.loads(done.stdout)
    steps = document.get("result", document)
    return done.exit_code, {name: step["state"] for name, step in steps.items()}, done.stderr


def test_a_check_of_a_udf_does_not_test_what_only_an_invalidation_shows(fused_emulator: Emulator, udf: Udf) -> None:
    code, steps, _ = checked("roads")
    assert code == 0
    assert steps == {"token": "ok", "environment": "ok", "instance": "ok", "UDF": "ok", "write access": "unknown"}
    assert {request.method for request in fused_emulator.requests} == {"GET"}


def test_write_access_is_tested_by_one_tile_if_wanted(fused_emulator: Emulator, udf: Udf) -> None:
    code, steps, _ = checked("roads", "--write")
    assert (code, steps["write access"]) == (0, "ok")
    assert len(fused_emulator.cached_tiles(udf)) == 4


@pytest.mark.parametrize(
    ("fault", "code", "right", "wrong", "remedy"),
    [
        ({"status": 401}, 1, [], "token", "It came from FUSED_SERVICE_ACCOUNT_TOKEN"),
        ({"status": 403, "path": "execution-env"}, 1, [], "environment", "use the token of a service account"),
        ({"status": 200, "body": [], "path": "realtime-instance"}, 1, ["token", "environment"], "instance", "--client-id"),
        ({"status": 404, "path": "by-slug"}, 1, ["token", "environment", "instance"], "UDF", "fused-cache-ops udfs"),
        (
            {"status": 403, "path": "delete"},
            1,
            ["token", "environment", "instance", "UDF"],
            "write access",
            "write access to the UDF",
        ),
        ({"status": 503, "path": "execution-env"}, 75, [], "token", ""),
    ],
    ids=["token", "environment", "instance", "udf", "write", "unavailable"],
)
def test_a_check_says_which_part_is_wrong_and_how_to_mend_it(
    fused_emulator: Emulator, udf: Udf, fault: dict[str, Any], code: int, right: list[str], wrong: str, remedy: str
) -> None:
    fused_emulator.misbehave(times=None, **fault)
    found, steps, said = checked("roads", "--write")
    assert found == code
    assert f"The check of the {wrong} failed." in said
    assert remedy in said
    assert steps == dict.fromkeys(right, "ok") | {wrong: "unknown" if code == 75 else "wrong"}


def test_a_check_without_a_token_says_what_to_set() -> None:
    done = runner.invoke(program, ["check"])
    assert done.exit_code == 1
    assert "set FUSED_SERVICE_ACCOUNT_TOKEN" in done.stderr
    assert "--token-file" in done.stderr


def test_testing_write_access_needs_a_udf(fused_emulator: Emulator) -> None:
    assert runner.invoke(program, ["check", "--write"]).exit_code == 2


# -- completion -------------------------------------------------------------------------------------------------------------


def test_bash_completes_commands_with_the_script() -> None:
    script = runner.invoke(program, ["completion", "bash"]).stdout
    Path("bin").mkdir()
    Path("bin/fused-cache-ops").write_text(f"#!{sys.executable}\nfrom fused_cache_ops.cli import main\nmain()\n")
    Path("bin/fused-cache-ops").chmod(0o755)
    ask = "COMP_WORDS=(fused-cache-ops inv); COMP_CWORD=1; _fused_cache_ops_completion fused-cache-ops; echo ${COMPREPLY[@]}"
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{ask}"],
        env=os.environ | {"PATH": f"{Path('bin').absolute()}:{os.environ['PATH']}"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["invalidate"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_each_shell_has_a_script(shell: str) -> None:
    done = runner.invoke(program, ["completion", shell])
    assert "fused-cache-ops" in done.stdout
    assert "_FUSED_CACHE_OPS_COMPLETE" in done.stdout


def test_completion_is_installed_where_the_shell_looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    done = runner.invoke(program, ["completion", "fish", "--install"])
    assert done.exit_code == 0, done.output
    assert "fused-cache-ops" in (tmp_path / ".config/fish/completions/fused-cache-ops.fish").read_text()
