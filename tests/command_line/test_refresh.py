"""``fused-cache-ops refresh``, and ``--refresh`` of the commands that invalidate and plan."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fused_cache_ops.cli.commands import program
from fused_cache_ops.emulator import Emulator, Udf

ALL = ["1/0/0", "1/0/1", "1/1/0", "1/1/1"]
runner = CliRunner()


@pytest.fixture(autouse=True)
def shared_token(udf: Udf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSED_SHARED_TOKEN", udf.shared_token)


def test_invalidate_refreshes(fused_emulator: Emulator, udf: Udf) -> None:
    done = runner.invoke(program, ["invalidate", "roads", *ALL, "--refresh", "3"])
    assert (done.exit_code, "3 runs" in done.stdout) == (0, True), done.output
    assert len(fused_emulator.cached_tiles(udf)) == 3


def test_invalidate_refreshes_a_pipe(fused_emulator: Emulator, udf: Udf) -> None:
    done = runner.invoke(
        program, ["invalidate", "roads", "--tiles-file", "-", "--refresh", "all", "--json"], input="1/0/0 3\n1/1/1\n"
    )
    assert json.loads(done.stdout)["refresh"]["runs"] == 2
    assert {run.tile for run in fused_emulator.runs} == {(1, 0, 0), (1, 1, 1)}


def test_refresh_refreshes_and_invalidates_nothing(fused_emulator: Emulator) -> None:
    done = runner.invoke(program, ["refresh", "roads", "--bounds=-180,-80,180,80", "--zooms", "0-1", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["runs"], found["already_cached"]) == (1, 4)
    assert [request for request in fused_emulator.requests if "delete" in request.path] == []


def test_parameters_are_sent_as_given(fused_emulator: Emulator) -> None:
    arguments = ["refresh", "roads", "1/0/0", "--refresh-parameter", "color=a=b", "--refresh-parameter", "empty="]
    assert runner.invoke(program, arguments).exit_code == 0
    assert fused_emulator.runs[0].parameters["color"] == "a=b"


@pytest.mark.parametrize("text", ["color", "=red", ""])
def test_a_parameter_without_a_value_is_a_usage_error(fused_emulator: Emulator, text: str) -> None:
    done = runner.invoke(program, ["refresh", "roads", "1/0/0", "--refresh-parameter", text])
    assert done.exit_code == 2
    assert fused_emulator.requests == []


@pytest.mark.parametrize("amount", ["many", "-1", "1.5", ""])
def test_an_amount_that_is_none_fails_before_anything_is_sent(fused_emulator: Emulator, amount: str) -> None:
    done = runner.invoke(program, ["invalidate", "roads", *ALL, f"--refresh={amount}"])
    assert done.exit_code == 1
    assert fused_emulator.requests == []


@pytest.mark.parametrize(
    ("fault", "code"), [({"status": 500}, 5), ({"status": 503, "times": None}, 75)], ids=["for good", "may pass"]
)
def test_the_exit_code_of_a_refresh_that_failed(fused_emulator: Emulator, fault: dict[str, int], code: int) -> None:
    fused_emulator.misbehave(**fault, path="/run/tiles/2/0/0")
    done = runner.invoke(program, ["refresh", "roads", "2/0/0", "2/0/1", "--refresh-deadline", "1", "--json"])
    document = json.loads(done.stdout)
    assert (done.exit_code, document["error"]["kind"], document["error"]["exit_code"]) == (code, "RefreshError", code)
    assert len(document["result"]["failed"]) == 1


def test_a_refresh_that_failed_does_not_fail_the_invalidation(fused_emulator: Emulator) -> None:
    fused_emulator.misbehave(status=500, path="/run/tiles/1/1/1")
    done = runner.invoke(program, ["invalidate", "roads", *ALL, "--refresh", "all"])
    assert done.exit_code == 0
    assert "1 failed" in done.stdout


def test_a_refresh_that_failed_fails_the_invalidation_if_asked_for(fused_emulator: Emulator) -> None:
    fused_emulator.misbehave(status=500, path="/run/tiles/1/1/1")
    done = runner.invoke(program, ["invalidate", "roads", *ALL, "--refresh", "all", "--refresh-must-succeed", "--json"])
    document = json.loads(done.stdout)
    assert done.exit_code == 5
    assert document["result"]["tiles_invalidated"] == 4
    assert document["remaining"] == []


def test_plan_says_how_many_runs_it_would_be(fused_emulator: Emulator) -> None:
    done = runner.invoke(program, ["plan", "roads", *ALL, "--refresh", "3", "--json"])
    assert json.loads(done.stdout)["refresh_runs"] == 3
    assert runner.invoke(program, ["plan", "roads", *ALL, "--refresh", "all", "--refresh-max-tiles", "3"]).exit_code == 1
    assert fused_emulator.requests == []


def test_defaults_of_a_refresh_come_from_the_settings_file(
    fused_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fused-cache.toml").write_text("[settings.refresh]\nmax_tiles = 3\n")
    assert "more than 3 tiles" in runner.invoke(program, ["refresh", "roads", *ALL]).output
    Path("fused-cache.toml").write_text("[settings.refresh]\nconcurrency = 0\n")
    assert "refresh: concurrency = 0 must be" in runner.invoke(program, ["refresh", "roads", *ALL]).output
    assert fused_emulator.requests == []


def test_a_file_cannot_ask_for_a_refresh(fused_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fused-cache.toml").write_text('[settings]\nrefresh = "all"\n')  # it says how to send, never what
    assert runner.invoke(program, ["invalidate", "roads", *ALL]).exit_code == 1
    assert fused_emulator.requests == []


def test_a_dataset_refreshes_what_its_map_says(
    fused_emulator: Emulator, udf: Udf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = fused_emulator.register(lambda **tile: tile, name="other")
    Path("fused-cache.toml").write_text(
        f'[datasets.land]\nudfs = [{{ udf = "{udf.shared_token}", refresh = "all" }}, {{ udf = "{other.shared_token}" }}]\n'
    )
    done = runner.invoke(program, ["dataset", "land", *ALL, "--json"])
    assert done.exit_code == 0, done.output
    first, second = json.loads(done.stdout)["results"].values()
    assert (first["refresh"]["runs"], second["refresh"]) == (4, None)
    assert runner.invoke(program, ["dataset", "land", *ALL, "--refresh", "2"]).exit_code == 1  # in one place
    made = runner.invoke(program, ["dataset", "land", *ALL, "--plan", "--json"])
    assert [plan["refresh_runs"] for plan in json.loads(made.stdout)["plans"].values()] == [4, None]


def test_a_dataset_that_is_invalidated_but_not_refreshed_has_an_exit_code_of_its_own(
    fused_emulator: Emulator, udf: Udf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fused-cache.toml").write_text(f'[datasets.land]\nudfs = [{{ udf = "{udf.shared_token}" }}]\n')
    fused_emulator.misbehave(status=500, path="/run/tiles/1/1/1")
    done = runner.invoke(program, ["dataset", "land", *ALL, "--refresh", "all", "--refresh-must-succeed", "--json"])
    document = json.loads(done.stdout)
    assert done.exit_code == document["error"]["exit_code"] == 5
    assert list(document["remaining"].values()) == [[]]


def test_a_number_of_tiles_is_for_the_udfs_of_a_dataset_that_have_tiles(
    fused_emulator: Emulator, udf: Udf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    report = fused_emulator.register(lambda **given: given, name="report")
    Path("fused-cache.toml").write_text(
        f'[datasets.land]\nudfs = [{{ udf = "{udf.shared_token}" }}, {{ udf = "{report.shared_token}", whole_udf = true }}]\n'
    )
    done = runner.invoke(program, ["dataset", "land", *ALL, "--refresh", "3", "--json"])
    assert done.exit_code == 0, done.output
    assert [each["refresh"]["runs"] for each in json.loads(done.stdout)["results"].values()] == [3, 1]


def test_a_map_with_an_unreadable_refresh_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fused-cache.toml").write_text('[datasets.land]\nudfs = [{ udf = "roads", refresh = "some" }]\n')
    done = runner.invoke(program, ["dataset", "land", *ALL, "--plan"])
    assert done.exit_code == 1
    assert "refresh = 'some' must be a whole number of tiles" in " ".join(done.output.split())


def test_the_lines_that_the_emulator_prints_are_enough_to_verify(
    fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    udf = fused_emulator.register(lambda z, x, y: 1, name="land")
    monkeypatch.setenv("FUSED_SHARED_TOKEN", udf.shared_token)
    done = CliRunner().invoke(program, ["invalidate", "land", "1/0/0", "--verify-tiles", "1"])
    assert done.exit_code == 0, done.output
    assert "1 of 1" in done.stdout
