"""The GitHub Action and the GitLab component: their scripts run in a shell as the service would, against the emulator."""

import html
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import deltalake
import pyarrow
import pytest
import yaml
from typer.main import get_command

from fused_cache_ops import __version__
from fused_cache_ops.cli.ci import LARGEST_OUTPUT, NOT_GIVEN, PREFIX, _summary, _text
from fused_cache_ops.cli.commands import program
from fused_cache_ops.cli.options import CHANGES_OF
from fused_cache_ops.emulator import Emulator, Udf

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
COMPONENT = (ROOT / "templates/invalidate/template.yml").read_text()
PROGRAM = f"#!{sys.executable} -I\nfrom fused_cache_ops.cli import main\nmain()\n"


class Step(NamedTuple):
    code: int
    outputs: dict[str, str]
    summary: str
    log: str
    commands: list[str]

    @property
    def result(self) -> dict[str, Any]:
        return dict(json.loads(self.outputs["result"]))


def read_outputs(text: str) -> dict[str, str]:
    """The outputs in a file, as GitHub's runner reads them."""
    outputs, lines = {}, iter(text.split("\n"))
    for line in lines:
        name, separator, delimiter = line.partition("<<")
        if separator:
            value: list[str] = []
            while (each := next(lines)) != delimiter:
                value.append(each)
            outputs[name] = "\n".join(value)
    return outputs


def workflow_commands(log: str) -> list[str]:
    """The commands in a log that GitHub's runner would carry out."""
    found, resume = [], None
    for line in log.splitlines():
        if resume is not None:
            resume = None if line == f"::{resume}::" else resume
        elif line.startswith("::stop-commands::"):
            resume = line.removeprefix("::stop-commands::")
        elif re.match(r"\s*(::|##\[)", line):
            found.append(line)
    return found


Run = Callable[..., Step]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkout in which the step runs."""
    (tmp_path / "checkout").mkdir()
    monkeypatch.chdir(tmp_path / "checkout")
    return tmp_path / "checkout"


@pytest.fixture
def github(fused_emulator: Emulator, folder: Path, tmp_path: Path) -> Run:
    """Run the action with these inputs, after its installation."""
    temporary = tmp_path / "runner"
    (temporary / "fused-cache-ops/bin").mkdir(parents=True)
    executable = temporary / "fused-cache-ops/bin/fused-cache-ops"
    executable.write_text(PROGRAM)
    executable.chmod(0o755)

    def run(**inputs: str) -> Step:
        given = {name: each.get("default", "") for name, each in ACTION["inputs"].items()}
        given |= {name.replace("_", "-"): value for name, value in inputs.items()}
        assert given.keys() == ACTION["inputs"].keys()
        files = {name: tmp_path / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for file in files.values():
            file.write_text("")
        step = ACTION["runs"]["steps"][-1]
        variables = {
            name: re.sub(r"\$\{\{ inputs\.([\w-]+) }}", lambda m: given[m[1]], text) for name, text in step["env"].items()
        }
        named = {name: str(file) for name, file in files.items()} | {"RUNNER_TEMP": str(temporary), "GITHUB_ACTIONS": "true"}
        (tmp_path / "script.sh").write_text(step["run"])
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(tmp_path / "script.sh")],
            env=os.environ | named | {"GITHUB_ACTION_PATH": str(ROOT)} | variables,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        outputs = read_outputs(files["GITHUB_OUTPUT"].read_text())
        return Step(
            done.returncode, outputs, files["GITHUB_STEP_SUMMARY"].read_text(), done.stdout, workflow_commands(done.stdout)
        )

    return run


# -- what the action does -------------------------------------------------------------------------------------------------


def test_tiles_are_invalidated(github: Run, fused_emulator: Emulator, udf: Udf) -> None:
    step = github(udf="roads", tiles="1/0/0\n1/0/1  1/1/0")
    assert step.code == 0, step.log
    assert fused_emulator.cached_tiles(udf) == {(1, 1, 1)}
    assert step.result["tiles_invalidated"] == 3
    assert step.outputs["exit-code"] == "0"
    assert json.loads(Path(step.outputs["result-file"]).read_text()) == step.result


def test_the_summary_has_the_counts_and_the_footprint(github: Run, udf: Udf) -> None:
    step = github(udf="roads", bounds="-9.25,38.68,-9.08,38.80", zooms="10-12")
    assert "### Fused cache of 'roads': invalidated\n" in html.unescape(step.summary)
    assert "| tiles | 15 |\n" in step.summary
    assert "| 12 | 9 | -9.31641, 38.61687, -9.05273, 38.82259 |\n" in step.summary
    drawn = re.search(r"```geojson\n(.*)\n```", step.summary)
    assert drawn is not None
    assert [each["properties"]["tiles"] for each in json.loads(drawn[1])["features"]] == [2, 4, 9]
    assert "<svg" in Path(step.outputs["plan-page"]).read_text()


def test_a_footprint_too_large_for_a_summary_is_left_out(tmp_path: Path) -> None:
    plan = {"tile_count": 1, "tiles_per_zoom": {"1": 1}}
    ring = [[0.0, 0.0], *[[number / 1000, 1.0] for number in range(30_000)], [0.0, 0.0]]
    geometry = {"type": "MultiPolygon", "coordinates": [[ring]]}
    feature = {"type": "Feature", "properties": {"zoom": 1}, "geometry": geometry}
    (tmp_path / "footprint").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    summary = "\n".join(_summary(plan, plan, tmp_path / "footprint"))
    assert "| 1 | 1 | 0.00000, 0.00000, 29.99900, 1.00000 |" in summary
    assert "geojson" not in summary


def test_a_datasets_udfs_are_in_the_summary(github: Run, fused_emulator: Emulator, udf: Udf, folder: Path) -> None:
    (folder / "fused-cache.toml").write_text('[datasets.d]\nudfs = [{ udf = "roads" }, { udf = "rods" }]\n')
    step = github(dataset="d", tiles="1/0/0")
    assert step.code == 3
    assert "| roads | 1 |" in step.summary
    assert re.search(r"\| rods \| failed: .*404", html.unescape(step.summary))
    assert step.result["remaining"] is None
    assert Path(step.result["remaining_file"]["rods"]).read_text() == "1/0/0\n"


@pytest.mark.parametrize("diff", ["changes_of=lake\nsince=0", '{"changes_of": "lake", "since": 0}'])
def test_what_a_table_recorded_is_invalidated(github: Run, fused_emulator: Emulator, udf: Udf, folder: Path, diff: str) -> None:
    for place in ("POINT (-1.5 1.5)", "POINT (1.5 1.5)"):
        deltalake.write_deltalake(folder / "lake", pyarrow.table({"place": [place]}), mode="append")
    step = github(udf="roads", diff=diff, geometry_column="place", crs="EPSG:4326", zooms="1")
    assert step.code == 0, step.log
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 0), (1, 0, 1), (1, 1, 1)}


@pytest.mark.parametrize("folders", ["rails", '["rails", "tmp"]', "rails\ntmp"])
def test_inner_caches_are_deleted_and_the_summary_tells(github: Run, fused_emulator: Emulator, udf: Udf, folders: str) -> None:
    for folder in ("rails", "tmp"):
        fused_emulator.cache(cache_folder_path=folder)(lambda: 1)()
    step = github(udf="roads", tiles="1/0/0", inner_caches=folders)
    assert step.code == 0, step.summary
    assert "| inner caches | rails" in step.summary
    assert fused_emulator.inner_caches() == ([] if "tmp" in folders else ["tmp"])


@pytest.mark.parametrize("folders", ["[]", None])
def test_no_inner_cache_is_deleted_unless_it_is_named(
    github: Run, fused_emulator: Emulator, udf: Udf, folders: str | None
) -> None:
    fused_emulator.cache(cache_folder_path="rails")(lambda: 1)()
    step = github(udf="roads", tiles="1/0/0", **({} if folders is None else {"inner_caches": folders}))
    assert (step.code, fused_emulator.inner_caches()) == (0, ["rails"])


@pytest.mark.parametrize(
    "index",
    [
        '{"path": "s3://lake/hexes/", "run": true, "prefix": ["a=1", "a=2"]}',
        'path=s3://lake/hexes/\nrun=true\nprefix=["a=1", "a=2"]',
    ],
    ids=["JSON", "lines"],
)
def test_an_h3_table_is_indexed_first(github: Run, fused_emulator: Emulator, udf: Udf, index: str) -> None:
    table = fused_emulator.add_h3_table("s3://lake/hexes/")
    step = github(udf="roads", tiles="1/0/0", h3_index=index)
    assert step.code == 0, step.summary
    assert [run["prefix"] for run in table.runs] == [["a=1", "a=2"]]


def test_an_h3_table_that_is_not_indexed_yet_fails_for_now(github: Run, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.add_h3_table("s3://lake/hexes/").set_indexed(0)
    step = github(udf="roads", tiles="1/0/0", h3_index="s3://lake/hexes/", loaded_at="2026-11-22T06:30:00Z")
    assert (step.code, fused_emulator.cached_tiles(udf) >= {(1, 0, 0)}) == (75, True)


@pytest.mark.parametrize("index", ["{", "run=true\nrun=false", "path", "paths=a", '{"paths": 1}'])
def test_an_index_that_cannot_be_meant_is_refused(github: Run, fused_emulator: Emulator, udf: Udf, index: str) -> None:
    step = github(udf="roads", tiles="1/0/0", h3_index=index)
    assert step.code in (1, 2)
    assert len(fused_emulator.cached_tiles(udf)) == 4


def test_the_summary_tells_what_was_refreshed(github: Run, fused_emulator: Emulator, udf: Udf) -> None:
    step = github(
        udf=udf.shared_token, tiles="1/0/0 1/0/1 1/1/0", refresh="count=2\nparameters=color=red\nparameters=title=a b"
    )
    assert step.code == 0, step.log
    assert "| refreshed | 2 runs" in step.summary
    assert [run.parameters for run in fused_emulator.runs] == [{"color": "red", "title": "a b"}] * 2


@pytest.mark.parametrize(
    ("refresh", "runs"),
    [
        ("2", 2),
        ("all", 3),
        ("zooms=1\nmust_succeed=true", 3),
        ("concurrency=1", 3),
        ('{"count": 1, "parameters": {"color": "a=b"}, "deadline": 30}', 1),
    ],
)
def test_a_refresh_is_a_number_lines_or_json(github: Run, fused_emulator: Emulator, udf: Udf, refresh: str, runs: int) -> None:
    step = github(udf=udf.shared_token, tiles="1/0/0 1/0/1 1/1/0", refresh=refresh)
    assert step.code == 0, step.log
    assert len(fused_emulator.runs) == runs


@pytest.mark.parametrize(
    ("refresh", "said"),
    [
        ("zoms=1", "unknown key 'zoms'. Did you mean zooms?"),
        ('{"zoms": 1}', "unknown key 'zoms'. Did you mean zooms?"),
        ('{"count": 1', "not a JSON mapping"),
        ("zooms=1\nall", "line 'all' is not NAME=VALUE"),
        ("count=1\ncount=2", "has a key twice"),
        ('{"parameters": [1]}', "parameters is of type list"),
        ("soon", "must be a whole number"),
    ],
)
def test_a_refresh_that_cannot_be_meant_is_refused(
    github: Run, fused_emulator: Emulator, udf: Udf, refresh: str, said: str
) -> None:
    step = github(udf=udf.shared_token, tiles="1/0/0", refresh=refresh)
    assert step.code in (1, 2)
    assert said in step.log
    assert fused_emulator.requests == []


@pytest.mark.parametrize("group", ["announce", "h3_index"])
def test_a_group_without_keys_is_not_taken_for_one_that_was_not_given(
    github: Run, fused_emulator: Emulator, udf: Udf, group: str
) -> None:
    step = github(udf=udf.shared_token, tiles="1/0/0", **{group: "{}"})
    assert step.code == 2
    assert f"The input {group.replace('_', '-')} has no key" in step.log
    assert fused_emulator.requests == []


def test_a_dry_run_sends_nothing(github: Run, fused_emulator: Emulator, udf: Udf) -> None:
    step = github(udf="roads", bounds="-9.25,38.68,-9.08,38.80", zooms="10-12", dry_run="true", verify_tiles="3")
    assert (step.code, step.result["tile_count"]) == (0, 15)
    assert "only planned" in step.summary
    assert fused_emulator.requests == []


def test_a_dry_run_of_a_dataset_sends_nothing(github: Run, fused_emulator: Emulator, udf: Udf, folder: Path) -> None:
    (folder / "fused-cache.toml").write_text('[datasets.d]\nudfs = [{ udf = "roads" }, { udf = "rails", whole_udf = true }]\n')
    step = github(dataset="d", tiles="1/0/0", dry_run="true")
    assert step.code == 0, step.log
    assert "### Fused cache of d: only planned\n" in step.summary
    assert "| roads | 1 | 1 |\n| rails | everything | 1 |\n" in step.summary
    assert fused_emulator.requests == []


@pytest.mark.parametrize("given", ["[]", " [ ]\n"])
def test_an_empty_list_invalidates_nothing(github: Run, fused_emulator: Emulator, udf: Udf, given: str) -> None:
    step = github(udf="roads", tiles=given)
    assert step.code == 0, step.log
    assert "nothing to invalidate" in step.summary
    assert fused_emulator.requests == []


def test_an_empty_file_invalidates_nothing(github: Run, fused_emulator: Emulator, udf: Udf, folder: Path) -> None:
    (folder / "changed.list").touch()
    step = github(udf="roads", tiles_file="changed.list")
    assert step.code == 0, step.log
    assert "nothing to invalidate" in step.summary
    assert fused_emulator.requests == []


def test_several_boxes_and_flags_reach_the_command(github: Run, fused_emulator: Emulator, udf: Udf) -> None:
    step = github(udf="roads", bounds='["-100,10,-99,11", "99,10,100,11"]', zooms="1", client_id="fused-team")
    assert step.code == 0, step.log
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 1), (1, 1, 1)}


def test_callers_are_invalidated_too_and_looked_up_once(github: Run, fused_emulator: Emulator) -> None:
    roads = fused_emulator.register(dict, name="roads", code="def udf():\n    pass\n")
    report = fused_emulator.register(dict, name="report", code="def udf():\n    fused.load('roads')()\n")
    step = github(udf=roads.id, tiles="1/0/0", related="callers")
    assert list(step.result["related"]) == [report.id]
    looked_up = [request.path for request in fused_emulator.requests if request.method == "GET"]
    assert len(looked_up) == len(set(looked_up))
    planned = github(udf=roads.id, tiles="1/0/0", related="callers", dry_run="true").result
    assert [each["name"] for each in planned["targets"]] == ["roads", "report"]


def test_two_states_of_a_table_are_two_lines(github: Run, udf: Udf, folder: Path) -> None:
    place = '{"type": "Feature", "properties": {"id": %d}, "geometry": {"type": "Point", "coordinates": [%d, 10]}}'
    for name, features in (("before", [place % (1, -90)]), ("after", [place % (1, -90), place % (2, 90)])):
        (folder / f"{name}.geojson").write_text('{"type": "FeatureCollection", "features": [%s]}' % ", ".join(features))
    step = github(udf="roads", diff="before.geojson\nafter.geojson", zooms="1")
    assert (step.code, step.result["tiles_invalidated"]) == (0, 1), step.log


# -- what it refuses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [*((name, "") for name in ACTION["inputs"] if name != "extras"), ("tiles", " \n"), ("tiles", "null"), ("whole-udf", " ")],
)
def test_an_input_that_was_given_but_is_empty_is_an_error(
    fused_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    from typer.testing import CliRunner

    given = {"udf": "roads", "whole-udf": "true", name: value}
    for key, text in given.items():
        monkeypatch.setenv(f"{PREFIX}{key.upper().replace('-', '_')}", text)
    done = CliRunner().invoke(program, ["ci", "--folder", str(tmp_path)])
    assert done.exit_code == 2
    assert f"The input {name} was given, but is empty." in done.stderr
    assert fused_emulator.requests == []


def test_everything_has_to_be_said(github: Run, fused_emulator: Emulator, udf: Udf) -> None:
    step = github(udf="roads")
    assert step.code == 2
    assert "--whole-udf" in step.result["error"]["message"]
    assert fused_emulator.requests == []


def test_everything_is_invalidated_if_said(github: Run, fused_emulator: Emulator, udf: Udf) -> None:
    step = github(udf="roads", whole_udf="true")
    assert step.code == 0, step.log
    assert fused_emulator.cached_tiles(udf) == set()
    assert "| tiles | everything |" in step.summary


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"whole_udf": "true"}, "exactly one of the inputs udf and dataset"),
        ({"udf": "roads", "dataset": "d", "tiles": "1/0/0"}, "exactly one of the inputs udf and dataset"),
        ({"udf": "roads", "whole_udf": "yes"}, "whole-udf must be true or false"),
        ({"udf": "roads", "tiles": "1/0/0", "whole_udf": "true"}, "exactly one"),
        ({"udf": "roads", "tiles": "[]", "tiles_file": "x"}, "both given"),
        ({"udf": "roads", "tiles": "[]", "whole_udf": "true"}, "exactly one"),
        ({"udf": "roads", "tiles": "[1, 2"}, "not a JSON list"),
        ({"udf": "roads", "tiles": "[1, 2]"}, "quote its entries"),
        ({"udf": "roads", "bounds": "[]", "zooms": "1"}, "is an empty list"),
        ({"udf": "roads", "diff": "before", "zooms": "1"}, "needs 2 lines, not 1"),
        ({"udf": "roads", "tiles": "1/0/0", "map": "other.toml"}, "map is not for invalidate"),
        ({"udf": "roads", "tiles": "1/0/0", "verify_tiles": "x"}, "valid integer"),
    ],
    ids=str,
)
def test_wrong_inputs_are_refused_before_anything_is_sent(
    github: Run, fused_emulator: Emulator, udf: Udf, inputs: dict[str, str], reason: str
) -> None:
    step = github(**inputs)
    assert step.code == 2
    assert reason in step.result["error"]["message"]
    assert [request.method for request in fused_emulator.requests if request.method != "GET"] == []


def test_a_401_fails_the_job(github: Run, fused_emulator: Emulator, udf: Udf) -> None:
    step = github(udf="roads", tiles="1/0/0", token="not-the-token")
    assert step.code == 1
    assert (step.result["error"]["status"], step.outputs["exit-code"]) == (401, "1")
    assert [line.partition("::Failed")[0] for line in step.commands] == ["::error title=Fused cache"]
    assert "not-the-token" not in step.log + step.summary + json.dumps(step.outputs)
    assert len(fused_emulator.cached_tiles(udf)) == 4


def test_the_token_may_be_an_input(github: Run, fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUSED_SERVICE_ACCOUNT_TOKEN")
    step = github(udf="roads", tiles="1/0/0", token=f"{fused_emulator.token}\n")
    assert step.code == 0, step.log


def test_what_remains_after_a_temporary_failure_is_a_file(github: Run, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=503, times=None, path="delete")
    step = github(udf="roads", tiles="1/0/0 1/0/1", deadline="1")
    assert step.code == 75
    assert Path(step.outputs["remaining-file"]).read_text().split() == ["1/0/0", "1/0/1"]
    assert "failed for now" in step.summary


def test_a_job_that_is_cancelled_hands_back_what_remains(fused_emulator: Emulator, udf: Udf, folder: Path) -> None:
    fused_emulator.misbehave(latency=300.0, times=None, path="delete")
    (folder / "output").touch()
    given = {"FUSED_INPUT_UDF": udf.id, "FUSED_INPUT_TILES": "1/0/0 1/0/1", "FUSED_INPUT_CLIENT_ID": "fused-team"}
    given["GITHUB_OUTPUT"] = str(folder / "output")
    code = "from fused_cache_ops.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, "ci", "--folder", "kept"], env=os.environ | given)
    end = time.monotonic() + 120
    while not fused_emulator.requests_under_way and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 143
    outputs = read_outputs((folder / "output").read_text())
    assert outputs["exit-code"] == "143"
    assert Path(outputs["remaining-file"]).read_text().split() == ["1/0/0", "1/0/1"]


def test_a_result_too_large_for_an_output_is_in_the_file(github: Run, fused_emulator: Emulator, udf: Udf, folder: Path) -> None:
    udfs = ", ".join(f'{{ udf = "{"road" * 50}{number}", max_tiles = 1 }}' for number in range(1000))
    (folder / "fused-cache.toml").write_text(f"[datasets.d]\nudfs = [{udfs}]\n")
    step = github(dataset="d", tiles="1/0/0 1/0/1")
    assert step.code == 1
    assert len(step.outputs["result"]) < LARGEST_OUTPUT
    assert step.result["error"]["kind"] == "DatasetInvalidationError"
    assert len(json.loads(Path(step.outputs["result-file"]).read_text())["result"]["failed"]) == 1000


def test_millions_of_tiles_that_remain_are_never_in_memory(
    github: Run, fused_emulator: Emulator, udf: Udf, folder: Path
) -> None:
    (folder / "fused-cache.toml").write_text('[datasets.d]\nudfs = [{ udf = "rods" }]\n')
    (folder / "changed.list").write_text("".join(f"17/{number % 1000}/{number // 1000}\n" for number in range(40_000)))
    step = github(dataset="d", tiles_file="changed.list")
    assert step.code == 1
    assert len(step.outputs["result"]) < 5_000
    assert Path(step.result["remaining_file"]["rods"]).read_text().count("\n") == 40_000


def test_wrong_settings_in_the_checkout_are_reported(github: Run, udf: Udf, folder: Path) -> None:
    (folder / "fused-cache.toml").write_text('[settings]\nbase_url = "https://elsewhere.example"\n')
    step = github(udf="roads", tiles="1/0/0")
    assert step.code == 1
    assert "base_url must not be in a file" in step.result["error"]["message"]


# -- injection ----------------------------------------------------------------------------------------------------------------

HOSTILE = [
    "$(touch injected)",
    "`touch injected`",
    "; touch injected",
    '"; touch injected; "',
    "'; touch injected; '",
    "x\ntouch injected",
    "${IFS}|touch injected&",
    "--help",
    "-q",
    "--token-file=/etc/passwd",
    "%0A::set-env name=INJECTED::1",
    "::add-mask::roads",
    "x\n::add-mask::roads\n##[add-mask]roads",
    "EOF\nresult=injected\nexit-code<<EOF\n0\nEOF",
    "${{ secrets.GITHUB_TOKEN }}",
    "| x |\n\n<script>alert(1)</script> [a](javascript:b) ![c](https://example.com/c.png)",
]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("udf" if number % 2 else "tiles", value) for number, value in enumerate(HOSTILE)),
        *((name, HOSTILE[number]) for number, name in enumerate(("dataset", "zooms", "client_id"), start=10)),
    ],
)
def test_no_value_is_taken_for_code(
    github: Run, fused_emulator: Emulator, udf: Udf, folder: Path, tmp_path: Path, name: str, value: str
) -> None:
    (folder / "fused-cache.toml").write_text('[datasets.d]\nudfs = [{ udf = "roads" }]\n')
    target = {"dataset": value} if name == "dataset" else {"udf": "roads"}
    step = github(**({"tiles": "1/0/0"} | target | {name: value}))
    assert step.code in (1, 2), step.log
    assert list(tmp_path.rglob("injected")) == []
    assert step.outputs.keys() <= {"exit-code", "result", "result-file", "plan-page", "remaining-file"}
    assert step.outputs["exit-code"] == str(step.result["error"]["exit_code"]) == str(step.code)
    assert [re.match(r"::error title=Fused cache::", command) is not None for command in step.commands] == [True]
    assert len(fused_emulator.cached_tiles(udf)) == 4
    assert not re.search(r"<script|\]\(|^::", step.summary.partition("<details>")[0], re.MULTILINE)


def test_an_answer_of_the_service_is_not_taken_for_a_command(github: Run, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=422, body={"detail": "no\n::add-mask::roads\n::set-output name=result::1"}, path="delete")
    step = github(udf="roads", tiles="1/0/0")
    assert step.code == 1
    assert len(step.commands) == 1
    assert step.commands[0].startswith("::error title=Fused cache::")


def test_what_the_commands_print_is_between_two_lines_that_nobody_can_guess(github: Run, udf: Udf) -> None:
    runs = [github(udf="rods", tiles="1/0/0").log.splitlines() for _ in range(2)]
    stopped = [lines[0].removeprefix("::stop-commands::") for lines in runs]
    assert stopped[0] != stopped[1]
    for lines, token in zip(runs, stopped):
        assert re.fullmatch(r"[0-9a-f]{64}", token)
        said = next(number for number, line in enumerate(lines) if "404" in line)
        assert said < lines.index(f"::{token}::")


def test_no_input_is_part_of_a_script() -> None:
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step["run"]
    (job,) = yaml.safe_load(COMPONENT.partition("\n---\n")[2]).values()
    assert "$[[" not in "".join(job["script"])


@pytest.mark.parametrize(
    "text",
    ["a | b", "<b>", "`a`", "*a*", "_a_", "[a](b)", "a\nb", "# a", "- a", "1. a", "&amp;", "https://a.b", "www.a.b", "@a"],
)
def test_nothing_in_the_summary_is_markup(text: str) -> None:
    shown = _text(text)
    assert re.fullmatch(r"(?:[^\W_]|[ ,/()]|&#\d+;)*", shown)
    assert html.unescape(shown) == " ".join(text.split())


# -- the installation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extras", "installed"),
    [
        ("geo", "[cli,geo]"),
        ("geo,h3", "[cli,geo,h3]"),
        ("none", "[cli]"),
        ("", None),
        ("geo]; x", None),
        ("$(touch injected)", None),
    ],
)
def test_the_action_installs_its_own_checkout(tmp_path: Path, folder: Path, extras: str, installed: str | None) -> None:
    step = ACTION["runs"]["steps"][0]
    assert step["env"] == {"FUSED_EXTRAS": "${{ inputs.extras }}"}
    recorder = tmp_path / "bin/python3"
    recorder.parent.mkdir()
    recorder.write_text(
        '#!/bin/sh\nif [ "$3" = venv ]; then mkdir -p "$4/bin" && ln -s "$0" "$4/bin/python"; else echo "$@" > "$RECORD"; fi\n'
    )
    recorder.chmod(0o755)
    variables = {
        "FUSED_EXTRAS": extras,
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_ACTION_PATH": "/action",
        "RECORD": str(tmp_path / "r"),
    }
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        env=os.environ | variables | {"PATH": f"{recorder.parent}:{os.environ['PATH']}"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert list(tmp_path.rglob("injected")) == []
    if installed is None:
        assert done.returncode == 2
        assert "extras" in done.stdout
    else:
        assert (tmp_path / "r").read_text().split()[-1] == f"/action{installed}"


# -- the inputs ---------------------------------------------------------------------------------------------------------------

NO_INPUTS = {
    "--token-file",  # token, or the variable
    "--ca-bundle",
    "--client-certificate",
    "--max-concurrency",
    "--remaining",  # always on
    "--shared-token",  # only a variable
    "--yes",
    "--json",
    "--plan",  # dry-run
    "--quiet",
    "--verbose",
    "--help",
}


def inputs_of_the_component() -> dict[str, Any]:
    return dict(next(iter(yaml.safe_load_all(COMPONENT)))["spec"]["inputs"])


def test_every_option_is_an_input_of_both() -> None:
    commands: Any = get_command(program)
    options = {
        option.opts[0].removeprefix("--")
        for command in ("invalidate", "dataset")
        for option in commands.commands[command].params
        if option.opts[0].startswith("--") and option.opts[0] not in NO_INPUTS
        if not option.opts[0].startswith(("--refresh-", "--h3-index-", "--announce-"))  # keys of these inputs
    } - {name.replace("_", "-") for name in CHANGES_OF}  # keys of diff
    expected = options | {"udf", "dataset", "tiles", "dry-run", "extras"}
    assert ACTION["inputs"].keys() - {"token"} == expected
    assert inputs_of_the_component().keys() - {"job-name", "stage", "image", "version", "folder"} == expected


def test_every_input_of_the_action_is_passed_on() -> None:
    passed = ACTION["runs"]["steps"][-1]["env"]
    expected = {f"{PREFIX}{name.upper().replace('-', '_')}": f"${{{{ inputs.{name} }}}}" for name in ACTION["inputs"]}
    del expected[f"{PREFIX}EXTRAS"]
    assert passed == expected


def test_what_may_be_left_out_is_told_from_what_is_empty() -> None:
    for name, declared in (ACTION["inputs"] | inputs_of_the_component()).items():
        assert declared["default"], name
        assert "required" not in declared
    assert ACTION["inputs"]["tiles"]["default"] == inputs_of_the_component()["tiles"]["default"] == NOT_GIVEN


def test_the_component_installs_this_version() -> None:
    assert inputs_of_the_component()["version"]["default"] == __version__


# -- the component ------------------------------------------------------------------------------------------------------------


class Refused(Exception):
    """GitLab creates no pipeline."""


def interpolated(**given: str) -> dict[str, Any]:
    """The component's only job, as GitLab makes it: each value is checked, then put into the text, which is read as YAML."""
    header, _, body = COMPONENT.partition("\n---\n")
    values = {}
    for name, declared in yaml.safe_load(header)["spec"]["inputs"].items():
        value = given.pop(name.replace("-", "_"), declared["default"])
        pattern = re.sub(r"\\x\{(\w+)}", lambda found: chr(int(found[1], 16)), declared.get("regex", "")).replace(r"\z", r"\Z")
        if not re.search(pattern, value) or value not in declared.get("options", [value]):
            raise Refused(name)
        values[name] = value
    assert not given
    text = re.sub(r"\$\[\[ inputs\.([\w-]+) ]]", lambda found: values[found[1]], body)
    (job,) = yaml.safe_load(text).values()
    return dict(job)


@pytest.fixture
def gitlab(fused_emulator: Emulator, folder: Path, tmp_path: Path) -> Run:
    """Run the component's script with these inputs, where fused-cache-ops is installed."""
    executable = tmp_path / "bin/fused-cache-ops"
    executable.parent.mkdir()
    executable.write_text(PROGRAM)
    executable.chmod(0o755)

    def run(**inputs: str) -> Step:
        job = interpolated(**inputs)
        variables = {}
        for name, value in job["variables"].items():
            assert isinstance(value, str) or value["expand"] is False  # otherwise GitLab expands $ in it
            variables[name] = value if isinstance(value, str) else value["value"]
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", "\n".join(job["script"])],
            env=os.environ | {"PATH": f"{executable.parent}:{os.environ['PATH']}", "CI": "true"} | variables,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        kept = folder / job["artifacts"]["paths"][0]
        return Step(done.returncode, {"result": (kept / "result.json").read_text()}, "", done.stdout, [])

    return run


def test_the_component_invalidates_tiles(gitlab: Run, fused_emulator: Emulator, udf: Udf) -> None:
    step = gitlab(udf="roads", tiles="1/0/0 1/0/1")
    assert step.code == 0, step.log
    assert step.result["tiles_invalidated"] == 2
    assert len(fused_emulator.cached_tiles(udf)) == 2


def test_the_component_needs_everything_to_be_said(gitlab: Run, fused_emulator: Emulator, udf: Udf) -> None:
    assert gitlab(udf="roads").code == 2
    assert gitlab(udf="roads", tiles="").code == 2
    assert gitlab(udf="roads", tiles="   ").code == 2
    assert fused_emulator.requests == []
    assert gitlab(udf="roads", whole_udf="true").code == 0


def test_the_component_fails_on_a_401(gitlab: Run, fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSED_SERVICE_ACCOUNT_TOKEN", "not-the-token")
    step = gitlab(udf="roads", tiles="1/0/0")
    assert (step.code, step.result["error"]["status"]) == (1, 401)
    assert "not-the-token" not in step.log


def test_only_a_temporary_failure_is_retried_by_gitlab() -> None:
    job = interpolated(udf="roads")
    assert job["retry"] == {"max": 2, "exit_codes": [75]}


def test_a_temporary_failure_ends_the_component_with_75(gitlab: Run, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=503, times=None, path="delete")
    assert gitlab(udf="roads", tiles="1/0/0", deadline="1").code == 75


OF_YAML = ["$FUSED_SERVICE_ACCOUNT_TOKEN", "# x", "{a: b}", "- x", "!!python/none", "*x", "\tx", "'", '"']


@pytest.mark.parametrize("value", [*HOSTILE, *OF_YAML])
def test_no_value_of_the_component_is_taken_for_code_or_yaml(
    gitlab: Run, fused_emulator: Emulator, udf: Udf, tmp_path: Path, value: str
) -> None:
    if "\n" in value:
        with pytest.raises(Refused):
            interpolated(udf=value)
        return
    job = interpolated(udf=value)
    assert job.keys() == interpolated().keys()
    assert job["variables"] | {"FUSED_INPUT_UDF": None} == interpolated()["variables"] | {"FUSED_INPUT_UDF": None}
    assert job["variables"]["FUSED_INPUT_UDF"]["value"] == value
    step = gitlab(udf=value, tiles="1/0/0")
    assert step.code == 1, step.log
    assert list(tmp_path.rglob("injected")) == []
    assert fused_emulator.token not in step.log


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x85", "\u2028", "\u2029"], ids=ascii)
@pytest.mark.parametrize("name", [name for name, declared in inputs_of_the_component().items() if "options" not in declared])
def test_no_value_of_the_component_leaves_its_line(name: str, end: str) -> None:
    with pytest.raises(Refused):
        interpolated(**{name.replace("-", "_"): f"x{end}  script: [touch injected]"})


@pytest.mark.parametrize("name", ["job-name", "stage", "image", "version", "extras", "folder"])
@pytest.mark.parametrize("value", ['x"', "x\\", "$x", "x'", "../x]", "", "$(x)", "`x`"])
def test_what_stands_in_quotes_or_in_a_script_is_plain(name: str, value: str) -> None:
    with pytest.raises(Refused):
        interpolated(**{name.replace("-", "_"): value})


# -- linters ------------------------------------------------------------------------------------------------------------------


def check(schema: str, *files: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
    command += ["--data-transform", "gitlab-ci"] * ("gitlab" in schema)
    done = subprocess.run([*command, *map(str, files)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_both_fit_the_schemas_of_their_services(tmp_path: Path) -> None:
    check("vendor.github-actions", ROOT / "action.yml")
    header, _, body = COMPONENT.partition("\n---\n")
    (tmp_path / "header.yml").write_text(header)
    (tmp_path / "body.yml").write_text(body)
    check("vendor.gitlab-ci", tmp_path / "header.yml", tmp_path / "body.yml")
    (tmp_path / "job.yml").write_text(yaml.safe_dump({"job": interpolated(udf="roads", tiles="1/0/0")}))
    check("vendor.gitlab-ci", tmp_path / "job.yml")


# -- the documentation --------------------------------------------------------------------------------------------------------

PAGE = (ROOT / "docs/ci.md").read_text()
WORKFLOW, PIPELINE = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_the_examples_fit_the_schemas_of_their_services(tmp_path: Path) -> None:
    (tmp_path / "workflow.yml").write_text(WORKFLOW)
    (tmp_path / "pipeline.yml").write_text(PIPELINE)
    check("vendor.github-workflows", tmp_path / "workflow.yml")
    check("vendor.gitlab-ci", tmp_path / "pipeline.yml")


def test_the_step_in_the_documentation_runs(github: Run, fused_emulator: Emulator, udf: Udf, folder: Path) -> None:
    (folder / "changed.list").write_text("1/0/0\n")
    (step,) = [each for each in yaml.safe_load(WORKFLOW)["jobs"]["load"]["steps"] if each.get("id") == "fused"]
    assert step["uses"].endswith(f"@v{__version__}")
    assert step["with"].pop("token") == "${{ secrets.FUSED_SERVICE_ACCOUNT_TOKEN }}"
    assert github(**{name.replace("-", "_"): value for name, value in step["with"].items()}).code == 0
    assert len(fused_emulator.cached_tiles(udf)) == 3


def test_the_component_in_the_documentation_runs(gitlab: Run, fused_emulator: Emulator, udf: Udf, folder: Path) -> None:
    (folder / "changed.list").write_text("1/0/0\n")
    (included,) = yaml.safe_load(PIPELINE)["include"]
    assert included["component"].endswith(f"/invalidate@{__version__}")
    assert gitlab(**{name.replace("-", "_"): value for name, value in included["inputs"].items()}).code == 0
    assert len(fused_emulator.cached_tiles(udf)) == 3


def test_the_outputs_in_the_documentation_are_those_of_the_action() -> None:
    assert re.findall(r"^\| `([\w-]+)` \|", PAGE, re.MULTILINE) == list(ACTION["outputs"])
    written = {f"${{{{ steps.run.outputs.{name} }}}}" for name in ACTION["outputs"]}
    assert {each["value"] for each in ACTION["outputs"].values()} == written


def test_the_files_that_the_documentation_names_are_there() -> None:
    for target in re.findall(r"]\((?!#)([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
