"""The demonstration in each orchestrator, and that it can fail."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from fused_cache_ops.demo.maps import run_maps_demo
from fused_cache_ops.demo.pipelines import PIPELINES, Pipeline, PipelineFailed, run_pipeline
from fused_cache_ops.demo.run import run_demo


def in_group(names: list[str]) -> list[object]:
    return [pytest.param(name, marks=pytest.mark.xdist_group(f"{name}-demo")) for name in names]


@pytest.mark.parametrize("name", in_group(list(PIPELINES)))
def test_the_map_is_stale_then_invalidated_then_fresh(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from fused_cache_ops.cli import main; main()", "demo", name],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shown = " ".join(done.stdout.split())  # long lines are wrapped
    assert done.stdout.count("FRESH") == 5  # the UDF and its caller, then the three UDFs of the dataset
    for word in (
        "STALE",
        "FRESH",
        "untouched",
        "POST …/batch-delete (200)",
        f"✓ {PIPELINES[name].title}",
        "many maps",
        "finds it cached",
        "✓ Refresh",
    ):
        assert word in shown


def demonstrate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> tuple[bool, str]:
    example = tmp_path / "definitions.py"
    example.write_text(script)
    dagster = PIPELINES["dagster"]
    changed = Pipeline(dagster.title, dagster.package, str(example), dagster.commands, dagster.environment)
    monkeypatch.setitem(PIPELINES, "dagster", changed)
    output = io.StringIO()
    good = run_demo(["dagster"], Console(file=output, width=160))
    return good, output.getvalue()


LOAD = "from fused_cache_ops.demo.stations import load_new_stations as load\n"
INVALIDATE = "from fused_cache_ops import invalidate_cache as invalidate\n"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (LOAD + "load()", "ended without invalidating"),
        (LOAD + INVALIDATE + "load(); invalidate('charging_stations', tiles=['10/0/0'])", "NOT AS EXPECTED"),
        (LOAD + INVALIDATE + "load(); invalidate('charging_stations')", "NOT AS EXPECTED"),
        (LOAD + INVALIDATE + "invalidate('charging_stations', tiles=['10/486/392']); load()", "NOT AS EXPECTED"),
        ("raise SystemExit('the load failed')", "the load failed"),
    ],
    ids=["no invalidation", "other tile", "too much", "too early", "failed load"],
)
def test_a_pipeline_that_does_it_wrong_is_found_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, reason: str
) -> None:
    good, output = demonstrate(monkeypatch, tmp_path, script)
    assert not good
    assert reason in output


@pytest.mark.parametrize(
    "calls",
    [
        "invalidate('charging_stations', tiles=['10/486/392'])",
        "[invalidate(f'charging_{name}') for name in ('stations', 'overview', 'totals', 'prices')]",
    ],
    ids=["one map of three", "another dataset's too"],
)
def test_a_dataset_whose_maps_are_not_all_right_is_found_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, calls: str
) -> None:
    (tmp_path / "caches_of_dataset.py").write_text(f"{LOAD}{INVALIDATE}load(); {calls}")
    monkeypatch.setitem(PIPELINES, "dagster", replace(PIPELINES["dagster"], example=str(tmp_path / "definitions.py")))
    output = io.StringIO()
    assert not run_maps_demo("dagster", Console(file=output, width=160))
    assert "NOT AS EXPECTED" in output.getvalue()


def test_a_wrapper_that_is_not_installed_is_named() -> None:
    missing = Pipeline("Prefect", "prefect_fused_missing", "x.py", PIPELINES["prefect"].commands, dict)
    with pytest.raises(ModuleNotFoundError, match="Prefect is not set up here"):
        missing.path()


def test_a_failing_command_shows_its_last_output(tmp_path: Path) -> None:
    failing = Pipeline(
        "Dagster",
        "dagster_fused",
        "definitions.py",
        lambda example: [[sys.executable, "-c", "import os; print(os.environ['SAID']); raise SystemExit(3)"]],
        lambda home, example, emulator: {},
    )
    with pytest.raises(PipelineFailed, match=r"(?s)ended with 3:.*goodbye"):
        run_pipeline(failing, tmp_path, emulator={}, variables={"SAID": json.dumps("goodbye")})
