"""What the READMEs show is what runs."""

import re
from pathlib import Path

import pytest

from fused_cache_ops import NotFoundError, PartialInvalidationError, settings
from fused_cache_ops.emulator import Emulator
from fused_cache_ops.selection.tile_list import TileFile
from fused_cache_ops.tiles.tile import HIGHEST_ZOOM

ROOT = Path(__file__).parents[2]
NAMES = ["airflow", "prefect", "dagster"]
README = (ROOT / "README.md").read_text()


def example(page: Path, title: str | None = None) -> str:
    """The first block of Python of a page, or of its section of that title."""
    text = page.read_text()
    if title is not None:
        text = text.split(f"\n## {title}\n", 1)[1]
    match = re.search(r"```python.*?\n(.*?)```", text, re.DOTALL)
    assert match is not None, f"{page} has no example"
    return match[1]


@pytest.mark.parametrize("name", NAMES)
def test_the_pages_of_an_orchestrator_show_the_same_program(name: str) -> None:
    shown = example(ROOT / name / "README.md")
    assert example(ROOT / "docs/start" / f"{name}.md", "3. Add the missing step") == shown
    line = re.search(rf"In {name.capitalize()} .*?```python\n(.*?)\n```", README, re.DOTALL)
    assert line is not None
    assert line[1] in shown


def test_the_example_of_the_core_runs(fused_emulator: Emulator) -> None:
    udf = fused_emulator.register(dict, name="roads")
    fused_emulator.fill_cache(udf, [(15, 9647, 12320), (15, 9647, 12321)])
    exec(example(ROOT / "README.md", "Use it"), {})
    assert fused_emulator.cached_tiles(udf) == set()


def test_the_readme_is_short() -> None:
    text = re.sub(r"```.*?```", "", README.split("\n## Documentation\n")[0], flags=re.DOTALL)
    words = re.sub(r"\]\([^)]*\)|<img[^>]*>", " ", text).split()
    assert len(words) <= 500


def test_ci_runs_the_readmes_commands() -> None:
    commands = re.findall(r"^(scripts/\w+)", README, re.MULTILINE)
    assert commands == ["scripts/demo", "scripts/test"]
    assert "scripts/test" in (ROOT / ".ci/run").read_text().splitlines()
    assert all((ROOT / command).stat().st_mode & 0o111 for command in commands)


def test_the_defaults_in_the_table_are_the_cores() -> None:
    rows = re.findall(r"^\| .* \| ([^|]*) \|$", (ROOT / "docs/settings.md").read_text(), re.MULTILINE)
    assert f"`{settings.DEFAULT_BASE_URL}`" in rows
    for value in (settings.DEFAULT_TIMEOUT, settings.DEFAULT_DEADLINE, settings.DEFAULT_CONCURRENCY):
        assert f"{value:g}" in rows


def test_the_example_of_errors_runs_and_catches(
    fused_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 1)
    code = example(ROOT / "docs/errors.md")
    with pytest.raises(NotFoundError):
        exec(code, {})
    fused_emulator.register(dict, name="roads")
    exec(code, {})
    fused_emulator.before_invalidation = lambda: fused_emulator.misbehave(status=403)  # for the second request
    with pytest.raises(PartialInvalidationError):
        exec(code, {})
    assert list(TileFile.open("remaining.list.gz", HIGHEST_ZOOM).read()) == [(15, 9647, 12321)]


def test_the_example_of_a_plan_runs(fused_emulator: Emulator) -> None:
    fused_emulator.register(dict, name="roads")
    exec(example(ROOT / "docs/selections.md"), {})
    assert [request.method for request in fused_emulator.requests if request.method == "POST"] == ["POST"]


def test_the_example_of_large_invalidations_runs(
    fused_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fused_emulator.register(dict, name="roads")
    exec(example(ROOT / "docs/at-scale.md"), {})
    assert [request.method for request in fused_emulator.requests].count("POST") == 4
    assert list(tmp_path.glob("checkpoints/*")) == []
