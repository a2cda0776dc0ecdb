"""The listener of open maps: what can be said of it without a browser. ``scripts/browser`` runs it in one."""

import re
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fused_cache_ops.cli.commands import program

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/open-maps.md").read_text()
LISTENER = (files("fused_cache_ops") / "announcements" / "fused-cache-listener.js").read_text(encoding="utf-8")
EXPORTED = set(re.findall(r"^export (?:async )?function (\w+)\(", LISTENER, re.MULTILINE))

runner = CliRunner()


def test_the_command_prints_the_listener_as_it_stands() -> None:
    done = runner.invoke(program, ["listener"])
    assert (done.exit_code, done.stdout) == (0, LISTENER)


def test_the_command_writes_the_listener_to_a_file(tmp_path: Path) -> None:
    target = tmp_path / "fused-cache-listener.js"
    done = runner.invoke(program, ["listener", "--output", str(target)])
    assert done.exit_code == 0
    assert target.read_bytes() == LISTENER.encode()


def test_a_file_that_cannot_be_written_is_named_with_the_reason(tmp_path: Path) -> None:
    target = tmp_path / "missing" / "fused-cache-listener.js"
    done = runner.invoke(program, ["listener", "--output", str(target)], env={"COLUMNS": "300"})
    assert done.exit_code == 1
    assert f"{target} cannot be written: No such file or directory." in done.stderr


def test_the_wheel_has_the_listener_and_the_page_of_the_demonstration() -> None:
    """A wheel has every file of the package that git knows. ``scripts/wheels`` looks into real ones."""
    assert 'packages = ["fused_cache_ops"]' in (ROOT / "pyproject.toml").read_text()
    tracked = subprocess.run(
        ["git", "ls-files", "fused_cache_ops"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert {"fused_cache_ops/announcements/fused-cache-listener.js", "fused_cache_ops/demo/map.html"} <= set(tracked.split())


def test_what_the_page_imports_is_exported() -> None:
    imported = set(re.findall(r'^import \{ (\w+) } from "\./fused-cache-listener\.js";$', PAGE, re.MULTILINE))
    assert imported == EXPORTED == {"listen", "listenForMapLibre", "listenForLeaflet", "listenForOpenLayers"}


def test_every_option_of_the_page_is_one_of_the_listener_with_its_default() -> None:
    section = PAGE.split("\n## Options\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", section, re.MULTILINE))
    (own,) = re.findall(r"^export function listen\(url, hear, \{ (.+) } = \{}\)", LISTENER, re.MULTILINE)
    (longest,) = re.findall(r"^const MAX_AGE = (\d+);$", LISTENER, re.MULTILINE)
    defaults = {name: value or "none" for name, _, value in (part.partition(" = ") for part in own.split(", "))}
    assert rows == {**defaults, "maxAge": longest, "transformRequest": "none"}
    assert "options.transformRequest" in LISTENER


def test_each_library_has_a_page_that_is_run_in_a_browser() -> None:
    shown = re.findall(r'^```js title="(\w+)\.js"$', PAGE, re.MULTILINE)
    assert shown == ["maplibre", "leaflet", "openlayers", "another"]
    driver = (ROOT / "scripts/browser.mjs").read_text()
    assert [name for name in shown[:3] if f'"{name}"' not in driver] == []


@pytest.mark.parametrize("version", ["maplibre-gl@6.17.0", "maplibre-gl@5.24.1", "leaflet@1.9.4", "ol@10.11.0"])
def test_the_versions_that_the_page_names_are_those_that_are_run(version: str) -> None:
    assert f'{version}"' in (ROOT / "scripts/browser").read_text()
    assert version.partition("@")[2] in PAGE.split("\n## What it cannot do\n")[1]


def test_nothing_of_a_document_can_become_markup_or_code() -> None:
    dangerous = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createElement|\beval\b|new Function|import\("
    assert re.search(dangerous, LISTENER) is None


def test_addresses_of_tiles_and_documents_stay_as_they_are() -> None:
    """A version in an address would be another entry in every cache, Fused's included."""
    assert re.search(r"searchParams|URLSearchParams|[`\"'][?&]\w*=", LISTENER) is None


def test_it_depends_on_nothing() -> None:
    assert re.search(r"^import |\brequire\(", LISTENER, re.MULTILINE) is None
