"""The packages as such: what an import costs, one version, nothing shadowed."""

import re
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_TEXTS = {".md", ".py", ".toml", ".yaml", ".yml", ""}


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_importing_the_package_imports_nothing_heavy() -> None:
    added = modules_after("import fused_cache_ops") - modules_after("pass")
    ours = {name for name in added if name.startswith("fused_cache_ops")}
    assert ours == {"fused_cache_ops"}
    assert {name.partition(".")[0] for name in added - ours} <= set(sys.stdlib_module_names)


def test_names_load_on_first_use() -> None:
    assert "requests" not in modules_after("from fused_cache_ops import FusedClient, InvalidationResult, Tile")
    assert "fused_cache_ops.tiles" in modules_after("from fused_cache_ops import Tile")


def test_tiles_bounds_and_lists_need_nothing_heavy() -> None:
    code = "from fused_cache_ops import plan_invalidation; plan_invalidation('roads', bounds=(0, 0, 1, 1), zooms=9)"
    assert not {"numpy", "shapely", "mercantile", "pyarrow"} & modules_after(code)


def test_every_public_name_is_there() -> None:
    import fused_cache_ops

    assert {name for name in dir(fused_cache_ops) if getattr(fused_cache_ops, name) is not None} >= set(fused_cache_ops.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fused_cache_ops.nothing


def test_airflow_operator_adds_neither_requests_nor_the_client() -> None:
    added = modules_after(
        "import airflow.sdk; from airflow.sdk import BaseOperator; before = set(sys.modules); "
        "import airflow_provider_fused.operators; "
        "sys.modules = {name: 0 for name in set(sys.modules) - before}"
    )
    packages = {name.partition(".")[0] for name in added} - set(sys.stdlib_module_names)
    assert packages == {"airflow", "airflow_provider_fused", "fused_cache_ops"}
    assert not {"fused_cache_ops.client", "airflow_provider_fused.hooks"} & added


def test_importing_the_dagster_integration_registers_it_and_imports_nothing_else() -> None:
    added = modules_after(
        "import dagster; before = set(sys.modules); import dagster_fused; "
        "from dagster_shared.libraries import DagsterLibraryRegistry; "
        "assert DagsterLibraryRegistry.get()['dagster-fused'] == dagster_fused.__version__; "
        "sys.modules = {name: 0 for name in set(sys.modules) - before}"
    )
    assert {name for name in added if name.partition(".")[0] not in sys.stdlib_module_names} == {"dagster_fused"}


def test_every_public_name_of_the_dagster_integration_is_there() -> None:
    import dagster_fused

    assert [name for name in dir(dagster_fused) if getattr(dagster_fused, name) is None] == []
    assert set(dagster_fused.__all__) < set(dir(dagster_fused))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dagster_fused.nothing


def test_one_version_for_all_four() -> None:
    names = ["fused-cache-ops", "airflow-provider-fused", "prefect-fused", "dagster-fused"]
    assert {version(name) for name in names} == {version("fused-cache-ops")}
    assert f"## [{version('fused-cache-ops')}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("name", ["airflow", "prefect", "dagster"])
def test_the_folder_of_a_wrapper_never_shadows_the_orchestrator(name: str) -> None:
    assert not (ROOT / name / "__init__.py").exists()
    assert not (ROOT / "tests" / name).exists()
    found = subprocess.run(
        [sys.executable, "-c", f"import importlib.util; print(importlib.util.find_spec('{name}').origin)"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "site-packages" in found


def test_no_test_skips_on_a_missing_import() -> None:
    word = "import" + "orskip"
    assert [path.name for path in (ROOT / "tests").rglob("*.py") if word in path.read_text()] == []


def test_only_the_core_is_named_as_core_dependency() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert re.search(r'^dependencies = \["requests>=[\d.]+"\]$', pyproject, re.MULTILINE)


def test_the_version_is_set_in_one_place() -> None:
    """``scripts/version`` sets it everywhere. Elsewhere it is history, or another project's."""
    listed = (ROOT / "scripts" / "version").read_text()
    history = {"CHANGELOG.md", "uv.lock", "airflow/src/airflow_provider_fused/provider_info.py"}
    others = {"dagster/component_project/pyproject.toml"}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    pattern = re.compile(rf"(?<![\d.]){re.escape(version('fused-cache-ops'))}(?![\d.])")
    texts = {name: ROOT / name for name in tracked if not name.startswith("tests/") and name not in history | others}
    found = [name for name, path in texts.items() if path.suffix in _TEXTS and pattern.search(path.read_text())]
    assert [name for name in found if name not in listed] == []


def test_every_command_line_can_read_its_settings_on_python_3_10() -> None:
    needed = requires("fused-cache-ops") or []
    extras, readers = (
        {line.partition("extra == ")[2] for line in needed if line.startswith(name)} for name in ("typer", "tomli")
    )
    assert extras
    assert extras <= readers
