"""The commands ``dataset`` and ``map`` of the command line."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from fused_cache_ops import CacheMap
from fused_cache_ops.cli.commands import program
from fused_cache_ops.emulator import Emulator, Udf

MAP = """
[datasets."s3://bucket/parcels/"]
udfs = [
  { udf = "parcels", zooms = "10-12", buffer = 1 },
  { udf = "totals", whole_udf = true, related = "callers" },
]
"""
KEY = "s3://bucket/parcels/"
Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    Path("fused-cache.toml").write_text(MAP)
    return lambda *arguments: CliRunner().invoke(program, list(arguments))


@pytest.fixture
def udfs(fused_emulator: Emulator) -> dict[str, Udf]:
    code = 'import fused\n\n@fused.udf\ndef udf():\n    return fused.run("totals")\n'
    found = {name: fused_emulator.register(dict, name=name) for name in ("parcels", "totals")}
    return found | {"report": fused_emulator.register(dict, name="report", code=code)}


def test_a_dataset_is_invalidated_as_the_map_says(run: Run, fused_emulator: Emulator, udfs: dict[str, Udf]) -> None:
    fused_emulator.fill_cache(udfs["parcels"], [(12, 2200, 1343), (12, 0, 0)])
    done = run("dataset", KEY, "--bounds", "13,52.3,13.8,52.7", "--json")

    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert list(result["results"]) == ["parcels", "totals"]
    assert list(result["results"]["totals"]["related"]) == [udfs["report"].id]
    assert fused_emulator.cached_tiles(udfs["parcels"]) == {(12, 0, 0)}


def test_a_dataset_is_shown_as_a_table(run: Run, udfs: dict[str, Udf]) -> None:
    done = run("dataset", KEY, "12/0/0")

    assert done.exit_code == 0, done.output
    assert re.search(r"parcels .* done", done.stdout)
    assert re.search(r"totals +│ all", done.stdout)


def test_a_udf_that_does_not_exist_is_exit_code_3_with_the_others_done(run: Run, fused_emulator: Emulator) -> None:
    fused_emulator.register(dict, name="parcels")
    done = run("dataset", KEY, "12/0/0", "--json")

    assert done.exit_code == 3
    result = json.loads(done.stdout)["result"]
    assert list(result["results"]) == ["parcels"]
    assert result["failed"]["totals"]["error"] == "NotFoundError"


def test_a_failure_that_may_pass_is_exit_code_75(run: Run, fused_emulator: Emulator, udfs: dict[str, Udf]) -> None:
    fused_emulator.misbehave(status=503, times=None, method="DELETE", path=udfs["totals"].id)
    assert run("dataset", KEY, "12/0/0", "--deadline", "1").exit_code == 75


def test_a_plan_of_a_dataset_needs_no_token_and_sends_nothing(
    run: Run, fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FUSED_SERVICE_ACCOUNT_TOKEN")
    done = run("dataset", KEY, "--bounds", "13,52.3,13.8,52.7", "--plan")

    assert done.exit_code == 0, done.output
    assert "would invalidate everything of UDF totals" in done.stdout
    assert not fused_emulator.requests


def test_an_unknown_dataset_is_exit_code_1_and_suggests_the_nearest(run: Run, fused_emulator: Emulator) -> None:
    done = run("dataset", "s3://bucket/parcels", "12/0/0")

    assert done.exit_code == 1
    assert f"Did you mean '{KEY}'?" in done.stderr


def test_the_map_is_checked_without_a_token(run: Run, fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUSED_SERVICE_ACCOUNT_TOKEN")
    done = run("map", "check")

    assert done.exit_code == 0, done.output
    assert "fused-cache.toml is valid: 1 dataset, 2 UDFs." in done.stdout
    assert "were not looked up" in done.stdout


def test_the_check_says_what_could_keep_each_udf_stale(run: Run, udfs: dict[str, Udf]) -> None:
    done = run("map", "check")

    assert done.exit_code == 0, done.output
    assert done.stdout.count("Not known of any of them: ") == 1  # and not once for each UDF
    assert "│ not known: " not in done.stdout
    assert "is called by report" not in done.stdout  # the map says related = "callers"
    Path("fused-cache.toml").write_text(MAP.replace(', related = "callers"', ""))
    assert "is called by report" in run("map", "check").stdout


def test_the_check_fails_for_a_udf_that_does_not_exist(run: Run, fused_emulator: Emulator) -> None:
    fused_emulator.register(dict, name="parcels")
    done = run("map", "check", "--json")

    assert done.exit_code == 1
    assert list(json.loads(done.stdout)["result"]["udfs"]["totals"]) == ["error"]


def test_a_mistake_in_the_map_is_exit_code_1(run: Run) -> None:
    Path("fused-cache.toml").write_text("[datasets.a]\nudfs = [{ udf = 'x', zoom = 3 }]\n")
    done = run("map", "check")

    assert done.exit_code == 1
    assert "unknown key 'zoom'. Did you mean zooms?" in done.stderr


def test_the_map_is_drawn_as_a_tree_with_the_callers(run: Run, udfs: dict[str, Udf]) -> None:
    done = run("map", "show")

    assert done.exit_code == 0, done.output
    lines = [line.strip("│├└─ ") for line in done.stdout.splitlines()]
    assert lines[1:] == [
        KEY,
        "parcels  (zooms=10-12 buffer=1)",
        "totals  (whole related=callers)",
        "is called by report",
    ]


def test_the_map_is_drawn_as_mermaid(run: Run, udfs: dict[str, Udf]) -> None:
    done = run("map", "show", "--format", "mermaid")

    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("flowchart LR\n")
    assert 'n0 -->|"zooms=10-12 buffer=1"| n1' in done.stdout
    assert 'n2 -.->|"is called by"| n3' in done.stdout


def test_the_map_is_drawn_as_an_svg_picture(run: Run, udfs: dict[str, Udf]) -> None:
    Path("fused-cache.toml").write_text(MAP.replace("parcels/", "<b>&amp;/"))
    done = run("map", "show", "--format", "svg")

    assert done.exit_code == 0, done.output
    texts = [each.text for each in ElementTree.fromstring(done.stdout).iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["s3://bucket/<b>&amp;/", "parcels", "zooms=10-12 buffer=1", "totals", "whole related=callers", "report"]


def test_a_first_draft_is_a_valid_map(run: Run, fused_emulator: Emulator) -> None:
    code = '@fused.udf\ndef udf(path="s3://bucket/roads/all.parquet"):\n    return gpd.read_parquet(path)\n'
    fused_emulator.register(dict, name="roads", code=code)
    done = run("map", "suggest", "--output", "draft.toml")

    assert done.exit_code == 0, done.output
    assert list(CacheMap.read("draft.toml").datasets) == ["s3://bucket/roads/"]
    assert 'gpd.read_parquet("s3://bucket/roads/all.parquet")' in Path("draft.toml").read_text()


def test_a_draft_never_overwrites_a_file(run: Run, fused_emulator: Emulator) -> None:
    done = run("map", "suggest", "--output", "fused-cache.toml")

    assert done.exit_code == 1
    assert "never overwritten" in done.stderr
    assert Path("fused-cache.toml").read_text() == MAP


def test_a_draft_is_checked_filled_in_and_used(run: Run, fused_emulator: Emulator) -> None:
    code = '@fused.udf\ndef udf(path="s3://bucket/roads/all.parquet"):\n    return gpd.read_parquet(path)\n'
    udf = fused_emulator.register(dict, name="roads", code=code)
    fused_emulator.fill_cache(udf, [(12, 2200, 1343)])
    run("map", "suggest", "--output", "draft.toml")

    check = run("map", "check", "draft.toml", "--json")
    assert json.loads(check.stdout)["warnings"] == [
        (
            "Dataset 's3://bucket/roads/': the entry default/roads says no zooms, which a load given by bounds, geometry, "
            'cells or hex_dataset needs. Write zooms = "10-14" into it, whichever zooms its map has, or whole_udf = true.'
        )
    ]
    assert "default/roads says no zooms" in " ".join(run("map", "check", "draft.toml").stdout.split())
    called = ("dataset", "s3://bucket/roads/", "--bounds", "13,52.3,13.8,52.7", "--map", "draft.toml")
    assert "draft.toml, dataset 's3://bucket/roads/': the entry default/roads says no zooms" in run(*called).stderr

    draft = Path("draft.toml").read_text()
    Path("draft.toml").write_text(draft.replace(' },  # <- fill in: zooms = "10-14", or whole_udf = true', ', zooms = "12" },'))
    assert json.loads(run("map", "check", "draft.toml", "--json").stdout)["warnings"] == []
    assert run(*called).exit_code == 0
    assert not fused_emulator.cached_tiles(udf)
