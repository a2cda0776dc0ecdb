"""The recipes of docs/recipes.md, run as they stand there with the real tools: which maps became fresh? For scripts/recipes."""

import argparse
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests

from fused_cache_ops.emulator import Emulator, Udf

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"
BLOCKS = dict(re.findall(r'```python title="([^"]+)"\n(.*?)```', PAGE.read_text(), re.DOTALL))
HERE, MOVED, OTHER = (12, 1944, 1569), (12, 2074, 1409), (12, 0, 0)  # Lisbon, Paris, and neither

SQLMESH = {
    "config.yaml": """
gateways: {local: {connection: {type: duckdb, database: lake.duckdb}}}
default_gateway: local
model_defaults: {dialect: duckdb, start: 2026-11-01}
""",
    "models/trips.sql": """
MODEL (name city.trips, kind INCREMENTAL_BY_TIME_RANGE (time_column day), cron '@daily');
SELECT day::DATE AS day FROM (SELECT unnest(generate_series(DATE '2026-11-01', DATE '2026-12-31', INTERVAL 1 DAY)) AS day)
WHERE day BETWEEN @start_ds AND @end_ds
""",
    "models/streets.sql": """
MODEL (name city.streets, kind FULL, cron '@weekly');
SELECT 1 AS id
""",
}
SQLMESH_STEP = """
import sys
from sqlmesh import Context
context = Context(paths="project")
when = sys.argv[2]
if sys.argv[1] == "restate":
    plan = context.plan(restate_models=["city.trips"], start="2026-11-05", end="2026-11-06", execution_time=when, **HOW)
    print({each.name.replace('"', "") for each in plan.restatements})
elif sys.argv[1] == "plan":
    context.plan(execution_time=when, **HOW)
else:
    print(context.run(execution_time=when))
""".replace("**HOW", "auto_apply=True, no_prompts=True")
DLT_SOURCE = """
import dlt, json, pathlib
rows = json.loads(pathlib.Path("rows.json").read_text())
@dlt.resource(write_disposition="merge", primary_key="id")
def stations():
    yield from rows["stations"]
@dlt.resource(write_disposition="replace")
def streets():
    yield from rows["streets"]
"""
OVERTURE = """
import runpy
import overturemaps.releases
# There is no catalog on this machine.
overturemaps.releases.get_available_releases = lambda: (["2026-11-18.0", "2026-10-21.0", "2026-09-23.0"], "2026-11-18.0")
runpy.run_path("after_overture.py")
"""


class Recipe:
    """A recipe in a folder of its own, with the maps that it may invalidate.

    Args:
        emulator: the service.
        folder: an empty one.
        python: the interpreter with the tool.
        name: the file of the recipe.
    """

    def __init__(self, emulator: Emulator, folder: Path, python: Path | str, name: str) -> None:
        self.folder, self.python, self.name, self.emulator = folder, str(python), name, emulator
        self.environment = os.environ | emulator.environment() | {"DO_NOT_TRACK": "1", "RUNTIME__DLTHUB_TELEMETRY": "false"}
        self.environment |= {"HOME": str(folder), "SQLMESH__DISABLE_ANONYMIZED_ANALYTICS": "true"}
        self.environment["DLT_DATA_DIR"] = str(folder / "dlt-state")  # for root, it is not in the home
        self.udfs: dict[str, Udf] = {}
        folder.mkdir(parents=True)
        (folder / name).write_text(BLOCKS[name])

    def maps(self, **datasets: str) -> None:
        """Register a map for each dataset, and write the cache map."""
        lines = []
        for udf, dataset in datasets.items():
            self.udfs[udf] = self.emulator.register(dict, name=udf)
            lines.append(f'[datasets."{dataset}"]\nudfs = [{{ udf = "{udf}", whole_udf = true }}]\n')
        (self.folder / "fused-cache.toml").write_text("\n".join(lines))

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        there = self.environment | environment
        return subprocess.run(
            [self.python, *command], cwd=self.folder, env=there, capture_output=True, text=True, check=False, timeout=600
        )

    def needs(self, *command: str) -> str:
        """Run what comes before the step."""
        done = self.run(*command)
        if done.returncode:
            raise SystemExit(f"{command} failed.\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        return done.stdout

    def expect(self, what: str, left: dict[str, set[Any]], *, fails: str | None = None, script: str | None = None) -> None:
        """Run the step: afterwards, these tiles are still cached, of each map."""
        for udf in self.udfs.values():
            self.emulator.fill_cache(udf, [HERE, MOVED, OTHER])
        done = self.run(script or self.name)
        found = {name: self.emulator.cached_tiles(udf) for name, udf in self.udfs.items()}
        print(f"{self.name}, {what}: {done.returncode}, {done.stdout.strip() or 'nothing'}", flush=True)
        if found != left or (done.returncode == 0) == (fails is not None) or (fails or "") not in done.stderr:
            raise SystemExit(f"Found {found}, expected {left}.\n{done.stdout}{done.stderr[-4000:]}")


ALL, NONE = {HERE, MOVED, OTHER}, set[Any]()


def sqlmesh(emulator: Emulator, folder: Path, python: Path) -> None:
    recipe = Recipe(emulator, folder / "work", python, "after_sqlmesh.py")
    recipe.maps(trips="lake.city.trips", streets="lake.city.streets")
    for name, text in SQLMESH.items():
        path = recipe.folder / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (recipe.folder / "load.py").write_text(SQLMESH_STEP)
    recipe.expect("before the first plan", {"trips": ALL, "streets": ALL}, fails="run its first plan")
    recipe.needs("load.py", "plan", "2026-11-17")
    recipe.expect("the first plan", {"trips": NONE, "streets": NONE})
    recipe.needs("load.py", "run", "2026-11-18")
    recipe.expect("the next day", {"trips": NONE, "streets": ALL})
    recipe.needs("load.py", "run", "2026-11-18")
    recipe.expect("nothing to do", {"trips": ALL, "streets": ALL})
    assert "{'lake.city.trips'}" in recipe.needs("load.py", "restate", "2026-11-18")
    recipe.expect("a restatement, which does not show", {"trips": ALL, "streets": ALL})
    model = recipe.folder / "project/models/streets.sql"
    model.write_text(model.read_text().replace("1 AS id", "2 AS id"))
    recipe.needs("load.py", "plan", "2026-11-18")
    recipe.expect("another model", {"trips": ALL, "streets": NONE})


def dlt(emulator: Emulator, folder: Path, python: Path) -> None:
    recipe = Recipe(emulator, folder / "work", python, "load_with_dlt.py")
    recipe.maps(stations="stations", streets="streets")
    (recipe.folder / "source.py").write_text(DLT_SOURCE)

    def rows(**tables: Any) -> None:
        (recipe.folder / "rows.json").write_text(json.dumps(tables))

    rows(stations=[{"id": 1, "tags": ["a"]}], streets=[{"id": 1}])
    recipe.expect("the first load", {"stations": NONE, "streets": NONE})
    rows(stations=[], streets=[])
    recipe.expect("a replacement by nothing", {"stations": ALL, "streets": NONE})
    rows(stations=[{"id": 1, "tags": ["b"]}], streets=[])
    recipe.expect("a merge", {"stations": NONE, "streets": NONE})


def watermark(emulator: Emulator, folder: Path, _python: Path) -> None:
    import duckdb

    recipe = Recipe(emulator, folder / "work", sys.executable, "after_airbyte.py")
    recipe.maps(stations="stations")

    def load(sql: str) -> None:
        with duckdb.connect(str(recipe.folder / "lake.duckdb")) as lake:
            lake.execute(sql)

    load("CREATE TABLE stations (id INT, lon DOUBLE, lat DOUBLE, _airbyte_extracted_at TIMESTAMPTZ)")
    recipe.expect("no row", {"stations": ALL}, fails="invalidate the whole UDF")
    load("INSERT INTO stations VALUES (0, -9.14, 38.71, '2026-11-16 02:00:00+00'), (1, 20, 20, '2026-11-17 02:00:00+00')")
    recipe.expect("the first look", {"stations": NONE})
    load("INSERT INTO stations VALUES (2, 2.35, 48.86, '2026-11-18 02:00:00+00')")
    recipe.expect("a row", {"stations": {HERE, OTHER}})
    load("INSERT INTO stations VALUES (3, -9.14, 38.71, '2026-11-18 01:30:00+00')")
    recipe.expect("a row that came late", {"stations": {OTHER}})
    load("INSERT INTO stations VALUES (4, -9.14, 38.71, NULL)")
    recipe.expect("a row that does not say when", {"stations": ALL}, fails="1 rows do not say")


@contextmanager
def cron_jobs(emulator: Emulator, jobs: dict[str, Any]) -> Iterator[str]:
    """The emulator with cron jobs, which it does not have itself."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            _, _, udf = self.path.partition("/cronjob/by-udf-id/")
            if udf:
                status, content = (200, json.dumps(jobs[udf]).encode()) if udf in jobs else (404, b"{}")
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                address = emulator.base_url.partition("/server")[0] + self.path
                passed = requests.request(self.command, address, headers=headers, data=body, timeout=60)
                status, content = passed.status_code, passed.content
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield emulator.base_url.replace(emulator.base_url.split("/")[2], f"127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


def cron(emulator: Emulator, folder: Path, _python: Path) -> None:
    recipe = Recipe(emulator, folder / "work", sys.executable, "after_cron.py")
    recipe.maps(stations="stations")
    recipe.environment |= {"LOADER_UDF_ID": "loader", "AGAIN_AFTER": "0.1"}
    jobs: dict[str, Any] = {}
    with cron_jobs(emulator, jobs) as url:
        recipe.environment["FUSED_BASE_URL"] = url
        recipe.expect("no job", {"stations": ALL}, fails="404")
        jobs["loader"] = {"udf": "loader", "last_run": None}
        recipe.expect("no run", {"stations": ALL}, fails="has not run yet")
        for day, left in (("2026-11-17", NONE), ("2026-11-18", NONE), ("2026-11-18", ALL)):
            jobs["loader"]["last_run"] = f"{day}T02:00:00Z"
            recipe.expect(f"last run on {day}", {"stations": left})


def overture(emulator: Emulator, folder: Path, python: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    recipe = Recipe(emulator, folder / "work", python, "after_overture.py")
    recipe.maps(places="places")
    (recipe.folder / "step.py").write_text(OVERTURE)
    recipe.environment["CHANGELOG"] = str(recipe.folder / "changelog")
    kind = pa.struct([(end, pa.float32()) for end in ("xmin", "xmax", "ymin", "ymax")])

    def publish(release: str, **places: tuple[float, float]) -> None:
        boxes = [{"xmin": x, "xmax": x + 0.0001, "ymin": y, "ymax": y + 0.0001} for x, y in places.values()]
        table = pa.table({"id": list(places), "change_type": list(places), "bbox": pa.array(boxes, kind)})
        path = recipe.folder / "changelog" / release / "theme=places/type=place"
        path.mkdir(parents=True)
        pq.write_table(table, path / "part-0.parquet")

    lisbon, paris = (-9.14, 38.71), (2.35, 48.86)
    publish("2026-10-21.0", added=lisbon, unchanged=paris)
    (recipe.folder / "release.txt").write_text("2026-09-23.0")
    recipe.expect("a changelog is missing", {"places": ALL}, fails="FileNotFoundError", script="step.py")
    publish("2026-11-18.0", removed=paris)
    recipe.expect("two releases", {"places": {OTHER}}, script="step.py")
    recipe.expect("no new release", {"places": ALL}, script="step.py")
    (recipe.folder / "release.txt").write_text("2026-10-21.0")
    recipe.expect("one release", {"places": {HERE, OTHER}}, script="step.py")
    (recipe.folder / "release.txt").write_text("2025-01-22.0")
    recipe.expect("a release that is gone", {"places": ALL}, fails="is not a release any more", script="step.py")


RECIPES: dict[str, Callable[[Emulator, Path, Path], None]] = {
    "sqlmesh": sqlmesh,
    "dlt": dlt,
    "watermark": watermark,
    "cron": cron,
    "overturemaps": overture,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder with an environment for each tool")
    parser.add_argument("names", nargs="*", choices=[[], *RECIPES], help="the recipes to run. Default: all")
    arguments = parser.parse_args()
    for name in arguments.names or RECIPES:
        with Emulator() as emulator:
            RECIPES[name](emulator, arguments.folder / "work" / name, arguments.folder / name / "bin" / "python")
    print("Right maps, and no others.")


if __name__ == "__main__":
    main()
