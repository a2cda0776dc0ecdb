"""What the READMEs show is what runs."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from fused_cache_ops import NotFoundError, PartialInvalidationError, settings
from fused_cache_ops.emulator import Emulator
from fused_cache_ops.selection.tile_list import TileFile
from fused_cache_ops.tiles.tile import HIGHEST_ZOOM

ROOT = Path(__file__).parents[1]
NAMES = ["airflow", "prefect", "dagster"]


@pytest.fixture(scope="module")
def readme_example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme_example", Path(__file__).with_name("readme_example.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(f"{name}-readme")) for name in NAMES])
def test_the_example_of_each_orchestrator_runs(readme_example: ModuleType, name: str, templates: Path) -> None:
    readme_example.run_example(name, readme_example.example(ROOT / "README.md", name.capitalize()), templates)


@pytest.mark.parametrize("name", NAMES)
def test_the_page_of_each_wrapper_shows_the_same_example(readme_example: ModuleType, name: str) -> None:
    shown = readme_example.example(ROOT / name / "README.md")
    assert shown == readme_example.example(ROOT / "README.md", name.capitalize())


def test_the_example_of_the_core_runs(readme_example: ModuleType, fused_emulator: Emulator) -> None:
    udf = fused_emulator.register(dict, name="roads")
    fused_emulator.fill_cache(udf, [(15, 9647, 12320), (15, 9647, 12321)])
    exec(readme_example.example(ROOT / "README.md", "Plain Python and the command line"), {})
    assert fused_emulator.cached_tiles(udf) == set()


def test_the_defaults_in_the_table_are_the_cores() -> None:
    rows = re.findall(r"^\| .* \| ([^|]*) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert f"`{settings.DEFAULT_BASE_URL}`" in rows
    for value in (settings.DEFAULT_TIMEOUT, settings.DEFAULT_DEADLINE, settings.DEFAULT_CONCURRENCY):
        assert f"{value:g}" in rows


def test_the_example_of_errors_runs_and_catches(
    readme_example: ModuleType, fused_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 1)
    code = readme_example.example(ROOT / "README.md", "Errors")
    with pytest.raises(NotFoundError):
        exec(code, {})
    fused_emulator.register(dict, name="roads")
    exec(code, {})
    fused_emulator.before_invalidation = lambda: fused_emulator.misbehave(status=403)  # for the second request
    with pytest.raises(PartialInvalidationError):
        exec(code, {})
    assert list(TileFile.open("remaining.list.gz", HIGHEST_ZOOM).read()) == [(15, 9647, 12321)]


def test_the_example_of_a_plan_runs(readme_example: ModuleType, fused_emulator: Emulator) -> None:
    fused_emulator.register(dict, name="roads")
    exec(readme_example.example(ROOT / "README.md", "Selecting what to invalidate"), {})
    assert [request.method for request in fused_emulator.requests if request.method == "POST"] == ["POST"]


def test_the_example_of_large_invalidations_runs(
    readme_example: ModuleType, fused_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fused_emulator.register(dict, name="roads")
    exec(readme_example.example(ROOT / "README.md", "Large invalidations"), {})
    assert [request.method for request in fused_emulator.requests].count("POST") == 4
    assert list((tmp_path / "checkpoints").iterdir()) == []
