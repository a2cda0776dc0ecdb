"""The documentation: it builds, it is complete, and what it shows is what runs."""

from __future__ import annotations

import html
import importlib.util
import json
import os
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml

import fused_cache_ops
from fused_cache_ops import CacheMap, FusedCacheError, Tile
from fused_cache_ops.cli.commands import program
from fused_cache_ops.emulator import Emulator

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "registries" not in page.parts)
READMES = [ROOT / "README.md", *(ROOT / name / "README.md" for name in ("airflow", "prefect", "dagster"))]
NAMES = ["airflow", "prefect", "dagster"]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}(?: [^\n]*)?\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands(command: Any = None, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command of the program, with its words."""
    command = typer.main.get_command(program) if command is None else command
    if not hasattr(command, "commands"):
        yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield from commands(inner, *path, name)


# -- the site -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder


def shown(page: Path) -> str:
    """A built page as text."""
    return html.unescape(re.sub(r"<[^>]*>", "", page.read_text()))


in_one_process = pytest.mark.xdist_group("site")


@in_one_process
def test_every_command_and_option_is_in_the_documentation(site: Path) -> None:
    page = shown(site / "command-line.html")
    found = dict(commands())
    assert {("plan",), ("invalidate",), ("map", "suggest"), ("completion",)} <= set(found)
    sections = page.split("Count and draw what an invalidation would send.")[1]
    assert "\\" not in sections
    for path, command in found.items():
        start = sections.find(f"\nfused-cache-ops {' '.join(path)} [OPTIONS]")
        assert start >= 0, path
        section = sections[start + 1 :].split("\nfused-cache-ops ")[0]
        options = [name for parameter in command.params if not getattr(parameter, "hidden", False) for name in parameter.opts]
        assert [name for name in options if name.startswith("-") and name not in section] == [], path


@in_one_process
def test_every_public_name_is_in_the_reference(site: Path) -> None:
    import dagster_fused
    import prefect_fused

    core = (site / "api/core.html").read_text() + (site / "api/client.html").read_text()
    assert [name for name in fused_cache_ops.__all__ if f'id="fused_cache_ops.{name}"' not in core] == []
    for package in (prefect_fused, dagster_fused):
        page = (site / f"api/{package.__name__.partition('_')[0]}.html").read_text()
        assert [name for name in package.__all__ if not re.search(rf'id="{package.__name__}\.\w+\.{name}"', page)] == []


@in_one_process
def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loaded = re.compile(
        r'<(?:script|img|iframe)[^>]* src="?(?:https?:)?//|<link(?![^>]*rel="?canonical)[^>]* href="?(?:https?:)?//'
    )
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    assert [page.name for page in pages if loaded.search(page.read_text())] == []


@in_one_process
def test_links_out_of_the_documentation_lead_to_files_of_the_repository(site: Path) -> None:
    repository = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader=yaml.BaseLoader)["repo_url"]
    targets = {
        target
        for page in site.rglob("*.html")
        for target in re.findall(rf'href="{re.escape(repository)}/blob/main/([^"#]+)', page.read_text())
    }
    assert {"action.yml", "tests/core/test_chaos.py"} <= targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


# -- completeness ---------------------------------------------------------------------------------------------------------


def test_every_error_has_a_cause_and_a_remedy() -> None:
    errors = {
        name
        for name in fused_cache_ops.__all__
        if isinstance(found := getattr(fused_cache_ops, name), type) and issubclass(found, FusedCacheError)
    }
    section = (DOCS / "errors.md").read_text().split("\n## By error\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.{20,} \| .{20,}) \|$", section, re.MULTILINE))
    assert set(rows) == errors


@pytest.mark.parametrize("readme", READMES, ids=named)
def test_the_links_of_the_readmes_lead_somewhere(readme: Path) -> None:
    for target in re.findall(r'(?:]\(|src=")(?!\w+:|#)([^)#"\s]+)', readme.read_text()):
        assert (readme.parent / target).exists(), target


SITE_ONLY = {page for page in PAGES if re.search(r'^--8<-- "|^::: ', page.read_text(), re.MULTILINE)}
"""Pages whose content stands elsewhere until the site is built."""


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_link_leads_to_what_can_be_read_on_github_too(page: Path) -> None:
    for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", page.read_text()):
        found = (page.parent / target).resolve()
        assert found.exists(), target
        assert found not in SITE_ONLY or found.parent.name == "api", f"{target}: link to the file that it shows"


FROM_PYPI = ("dagster-webserver", "dagster-dg-cli", "create-dagster", "fastapi<0.151", "-e", ".")
INSTALL = re.compile(r"pip install ((?:'[^']*'|[^\s'`\"#])+(?: (?:'[^']*'|[^\s'`\"#]+))*)")


@pytest.mark.parametrize("page", [*READMES, *PAGES, DOCS / "invalidate.ipynb"], ids=named)
def test_every_command_to_install_works_from_a_clone(page: Path) -> None:
    for command in INSTALL.findall(page.read_text()):
        for requirement in shlex.split(command):
            path, _, extras = requirement.partition("[")
            found = re.fullmatch(r"\.{1,2}/fused-cache-ops(/\w+)?", path)
            if found is None:
                assert path in FROM_PYPI, f"{page}: {requirement}"
                continue
            declared = tomllib.loads((ROOT / f".{found[1] or ''}" / "pyproject.toml").read_text())["project"]
            assert set(filter(None, extras.rstrip("]").split(","))) <= declared.get("optional-dependencies", {}).keys()


def test_no_message_names_a_command_that_needs_a_package_index() -> None:
    sources = [*(ROOT / "fused_cache_ops").rglob("*.py"), *ROOT.glob("*/src/**/*.py")]
    assert len(sources) > 100
    assert [str(each) for each in sources if "pip install" in each.read_text()] == []


def test_the_page_that_messages_name_lists_every_extra() -> None:
    table = (DOCS / "errors.md").read_text().partition("## Something is not installed")[2].partition("\n## ")[0]
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    listed = {
        name for row in table.splitlines() if row.startswith("| `") for name in re.findall(r"`([a-z0-9]+)`", row.split("|")[1])
    }
    assert listed == {*declared, "demo"}


# -- code -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def start_page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("start_page", Path(__file__).with_name("start_page.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def environment_in(home: Path) -> dict[str, str]:
    home.mkdir()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "DAGSTER_HOME"))}
    commands = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return inherited | {"HOME": str(home), "PREFECT_HOME": str(home), "PATH": commands}


def test_a_newcomer_without_an_orchestrator_can_follow_the_page(start_page: ModuleType, tmp_path: Path) -> None:
    environment = environment_in(tmp_path / "home")
    assert start_page.follow(DOCS / "start/python.md", tmp_path, environment=environment, instead={}) == 4


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(f"{name}-page")) for name in NAMES])
def test_a_newcomer_can_follow_the_page(start_page: ModuleType, name: str, templates: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    environment = environment_in(home)
    if name == "prefect":
        shutil.copy(templates / "prefect.db", home)
    instead = {"airflow db migrate": f"cp {shlex.quote(str(templates / 'airflow.db'))} ."}
    assert start_page.follow(DOCS / "start" / f"{name}.md", tmp_path, environment=environment, instead=instead) == 3


@pytest.mark.parametrize("name", [pytest.param("airflow", marks=pytest.mark.xdist_group("airflow-page"))])
def test_the_same_pipeline_in_all_three_makes_the_map_fresh(
    start_page: ModuleType, name: str, templates: Path, tmp_path: Path
) -> None:
    instead = {"airflow db migrate": f"cp {shlex.quote(str(templates / 'airflow.db'))} ."}
    environment = environment_in(tmp_path / "home")
    page = DOCS / "start/from-dataset-to-map.md"
    assert start_page.follow(page, tmp_path, environment=environment, instead=instead) == 4


def test_the_page_on_partitions_shows_the_example_that_is_run() -> None:
    [shown] = blocks(DOCS / "airflow-partitions.md", "python")
    assert shown == (ROOT / "airflow/dags/invalidate_on_partition.py").read_text()


def test_the_everyday_job_without_an_orchestrator_makes_the_map_fresh(start_page: ModuleType, tmp_path: Path) -> None:
    environment = environment_in(tmp_path / "home")
    assert start_page.follow(DOCS / "everyday/python.md", tmp_path, environment=environment, instead={}) == 3


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(f"{name}-page")) for name in NAMES])
def test_the_everyday_job_makes_the_map_fresh(start_page: ModuleType, name: str, templates: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    environment = environment_in(home)
    if name == "prefect":
        shutil.copy(templates / "prefect.db", home)
    if name == "airflow":  # the port of the page may be taken
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        environment["AIRFLOW__API__PORT"] = str(port)
        environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] = f"http://127.0.0.1:{port}/execution/"
        environment["AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT"] = "120"
    if name == "dagster":  # which the page installs
        environment["PYTHONPATH"] = str(tmp_path / "parcels-project" / "src")
    instead = {"airflow db migrate": f"cp {shlex.quote(str(templates / 'airflow.db'))} ."}
    page = DOCS / "everyday" / f"{name}.md"
    assert start_page.follow(page, tmp_path, environment=environment, instead=instead) == 2


FOLLOWED = [*sorted((DOCS / "start").glob("*.md")), *sorted((DOCS / "everyday").glob("*.md"))]


@pytest.mark.parametrize("page", FOLLOWED, ids=named)
def test_a_newcomer_is_told_what_to_save_a_file_as(page: Path) -> None:
    said = re.findall(r'[Ss]ave this as\s+`([^`]+)`:\n\n```(?:python|toml|yaml) title="([^"]+)"', page.read_text())
    titles = re.findall(r'^```(?:python|toml|yaml) title="([^"]+)"', page.read_text(), re.MULTILINE)
    assert said == [(title, title) for title in titles]


NEEDS_JAVA = DOCS / "spark.md"  # scripts/spark runs the job that it shows
NEEDS_TOOLS = DOCS / "recipes.md"  # scripts/recipes runs what it shows
OF_AIRFLOW = DOCS / "airflow-partitions.md"  # an example that runs with the others
ELSEWHERE = (NEEDS_JAVA, NEEDS_TOOLS, OF_AIRFLOW, *FOLLOWED)
WITH_PYTHON = [page for page in [*PAGES, READMES[0]] if page not in ELSEWHERE and blocks(page, "python")]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=named)
def test_the_python_of_a_page_runs(
    page: Path, fused_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("expired.list").write_text("8/120/97\n15/9647/12320\n")
    roads = fused_emulator.register(dict, name="roads")
    fused_emulator.add_canvas("maps", access_scope="public", share_client_id=fused_emulator.client_id)
    fused_emulator.register(dict, name="parcels", canvas="maps")
    if page == DOCS / "dbt.md":
        shutil.copytree(ROOT / "tests/core/dbt/first", "target")
        Path("target/changed_parcels.csv").write_text("z,x,y\n14,7773,6276\n")
        for udf in ("parcels", "streets", "prices", "prices_legend"):
            fused_emulator.register(dict, name=udf)
    names: dict[str, Any] = {"run_my_pipeline": lambda: fused_cache_ops.invalidate_cache("roads", tiles=["15/9647/12320"])}
    orchestrated = 0
    for block in blocks(page, "python"):
        if page == READMES[0] and "from fused_cache_ops" not in block:
            orchestrated += 1  # a line of the programs that the pages for newcomers run
            continue
        if "import icechunk" in block and sys.version_info < (3, 11):
            continue
        code = block.replace("fsh_…", roads.shared_token).replace("again_after=130", "again_after=0.01")
        exec(compile(code, named(page), "exec"), names)
    assert orchestrated == (3 if page == READMES[0] else 0)
    for name, test in list(names.items()):
        if name.startswith("test_"):
            with Emulator() as emulator, monkeypatch.context() as patch:
                for variable, value in emulator.environment().items():
                    patch.setenv(variable, value)
                test(emulator)


@pytest.mark.parametrize("page", [*READMES[1:], NEEDS_JAVA, NEEDS_TOOLS], ids=named)
def test_the_python_of_a_wrappers_page_compiles(page: Path) -> None:
    assert blocks(page, "python")
    for block in blocks(page, "python"):
        compile(block, named(page), "exec")


@pytest.mark.parametrize("page", [page for page in [*PAGES, *READMES] if blocks(page, "sh")], ids=named)
def test_the_commands_of_a_page_exist_with_their_options(page: Path) -> None:
    known = dict(commands())
    for block in blocks(page, "sh"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.replace('\\"', "'"), comments=True)
            for given in " ".join("|" if word in ("|", "&&", ">", "&") else shlex.quote(word) for word in words).split("|"):
                check_command(shlex.split(given), known)


def check_command(words: list[str], known: dict[tuple[str, ...], Any]) -> None:
    if words[:1] != ["fused-cache-ops"]:
        return
    path = next((tuple(words[1 : 1 + length]) for length in (2, 1) if tuple(words[1 : 1 + length]) in known), None)
    assert path is not None, f"{words}: there is no such command"
    command = known[path]
    context = typer.Context(command, info_name=" ".join(path))
    command.make_parser(context).parse_args(words[1 + len(path) :])


def test_a_command_that_does_not_exist_is_found_out() -> None:
    with pytest.raises(AssertionError, match="no such command"):
        check_command(["fused-cache-ops", "invalidated", "roads"], dict(commands()))
    with pytest.raises(Exception, match="No such option"):
        check_command(["fused-cache-ops", "invalidate", "roads", "--zoom", "1"], dict(commands()))


@pytest.mark.parametrize("page", [*PAGES, *READMES], ids=named)
def test_the_data_on_a_page_can_be_read(page: Path) -> None:
    for block in blocks(page, "toml"):
        CacheMap.from_dict(tomllib.loads(block))
    for block in blocks(page, "yaml"):
        assert yaml.safe_load(block)
    for block in blocks(page, "json"):
        json.loads(block)
    languages = set(re.findall(r"^```(\S+)", page.read_text(), re.MULTILINE))
    assert languages <= {"python", "sh", "text", "toml", "yaml", "json", "js"}


# -- what is sent to catalogues -------------------------------------------------------------------------------------------

REGISTRIES = DOCS / "registries"


def test_every_module_in_astronomers_file_is_there() -> None:
    content = yaml.safe_load((REGISTRIES / "airflow/.astro-registry.yaml").read_text())
    listed = [entry["module"] for kind in content.values() if isinstance(kind, list) for entry in kind]
    assert len(listed) == 7
    for path in listed:
        module, _, name = path.rpartition(".")
        source = (ROOT / "airflow/src" / f"{module.replace('.', '/')}.py").read_text()
        assert re.search(rf"^(class|def) {name}\b", source, re.MULTILINE), path


def test_the_versions_that_the_provider_says_it_was_tested_with_are_those_of_the_script() -> None:
    (versions,) = re.findall(r"for version in \$\{\*:-([^}]+)\}", (ROOT / "scripts/airflow-versions").read_text())
    (listed,) = re.findall(r"Tested with Airflow ([^(]+) \(", (ROOT / "airflow/README.md").read_text())
    assert re.split(r", | and ", listed) == versions.split()


def test_prefects_files_are_those_of_the_collection() -> None:
    registries = runpy.run_path(str(ROOT / "scripts/registries"))
    for file, content in (("blocks.json", registries["blocks"]()), ("flows.json", registries["all_flows"]())):
        written = json.loads((REGISTRIES / "prefect" / file).read_text())
        assert written == json.loads(json.dumps(content)), "run scripts/registries"


def test_the_example_for_dagsters_catalogue_runs(fused_emulator: Emulator) -> None:

    udf = fused_emulator.register(dict, name="roads")
    fused_emulator.fill_cache(udf, [Tile.containing(-9.14, 38.71, 12), (15, 0, 0)])
    defs = runpy.run_path(str(REGISTRIES / "dagster/fused.py"))["defs"]
    assert defs.resolve_implicit_global_asset_job_def().execute_in_process().success
    assert fused_emulator.cached_tiles(udf) == {(15, 0, 0)}
