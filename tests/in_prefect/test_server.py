"""A real Prefect server: deployments that are served and worked on, a trigger, a cancellation, and a look for the token."""

import contextlib
import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import httpx
import pytest

from fused_cache_ops.demo.stations import build_udf, create_table
from fused_cache_ops.emulator import Emulator, Udf

pytestmark = pytest.mark.xdist_group("prefect-server")

FLOWS = Path(__file__).parents[2] / "prefect" / "flows"
TOKEN = "t0p-s3cret-t0ken"

SERVED = """
from prefect import flow, serve
from prefect_fused import FusedCredentials, invalidate_cache, invalidate_cache_flow, invalidate_on_completion

@flow(on_completion=[invalidate_on_completion("roads", from_result="tiles")])
def load():
    return ["15/1/1", "15/1/2"]

@flow
def submitted(udf: str):
    invalidate_cache.submit(udf, credentials=FusedCredentials.load("production"), tiles=["15/1/1", "15/1/2"]).wait()

@flow
def twice(udf: str):
    block = FusedCredentials.load("production")
    tiles = ["15/1/1", "15/1/2"]
    return invalidate_cache(udf, block, tiles=tiles, again_after=15, again_deployment="Invalidate Fused cache/served")

if __name__ == "__main__":
    FusedCredentials.from_env().save("production")
    serve(*(each.to_deployment("served") for each in (invalidate_cache_flow, load, submitted, twice)))
"""


@dataclass
class House:
    """The server, the emulator, and a table of stations."""

    url: str
    home: Path
    environment: dict[str, str]
    emulator: Emulator
    stations: Udf
    roads: Udf

    def ask(self, method: str, path: str, **body: Any) -> Any:
        for _ in range(30):
            answer = httpx.request(method, f"{self.url}{path}", json=body or None, timeout=120)
            if answer.status_code != 503:  # a database that is busy
                break
            time.sleep(1)
        answer.raise_for_status()
        return answer.json()

    def start(self, deployment: str, **parameters: Any) -> str:
        """Ask for a run of a deployment; its id."""
        found = eventually(lambda: self._deployment(deployment))
        run = self.ask("POST", f"/deployments/{found}/create_flow_run", parameters=parameters, state={"type": "SCHEDULED"})
        return str(run["id"])

    def _deployment(self, name: str) -> str | None:
        with contextlib.suppress(httpx.HTTPStatusError):
            return str(self.ask("GET", f"/deployments/name/{name}")["id"])
        return None

    def state(self, run: str) -> str:
        return str(self.ask("GET", f"/flow_runs/{run}")["state_name"])

    def ends(self, run: str) -> str:
        """The state that a run ends in."""
        eventually(lambda: self.state(run) in ("Completed", "Failed", "Cancelled", "Crashed"))
        return self.state(run)

    def logs(self, run: str) -> list[str]:
        found = self.ask("POST", "/logs/filter", logs={"flow_run_id": {"any_": [run]}})
        return [str(line["message"]) for line in found]

    def tables(self) -> dict[str, list[Any]]:
        """Every row of the server's database."""
        with contextlib.closing(sqlite3.connect(f"file:{self.home / 'prefect.db'}?mode=ro", uri=True)) as database:
            names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name: list(database.execute(f'SELECT * FROM "{name}"')) for name in names}

    def invalidations(self, udf: Udf) -> list[int | None]:
        """The numbers of tiles of each batch that has been invalidated of a UDF."""
        sent = [request for request in self.emulator.requests if request.method != "GET" and udf.id in request.path]
        return [request.tiles for request in sent if request.status == 200]


def eventually(find: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 300
    while not (found := find()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


@pytest.fixture(scope="module")
def house(prefect_server: Any, end_process: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder, home = tmp_path_factory.mktemp("house"), prefect_server.home
    (folder / "served.py").write_text(SERVED)
    create_table(folder / "stations.sqlite")
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    with Emulator(token=TOKEN) as emulator, contextlib.ExitStack() as stack:
        environment = {
            **prefect_server.environment,
            **emulator.environment(),
            "STATIONS_DATABASE": str(folder / "stations.sqlite"),
            "PREFECT_LOGGING_LEVEL": "DEBUG",
            "PREFECT_RUNNER_POLL_FREQUENCY": "2",  # seconds, as the next
            "PREFECT_WORKER_QUERY_SECONDS": "3",
        }
        stations = emulator.register(build_udf(folder / "stations.sqlite"), name="charging_stations")
        roads = emulator.register(dict, name="roads")

        def start(name: str, *command: str) -> None:
            log = stack.enter_context((home / f"{name}.log").open("wb"))
            process = subprocess.Popen(command, cwd=FLOWS.parent, env=environment, stdout=log, stderr=log)
            stack.callback(end_process, process)

        start("served", sys.executable, str(folder / "served.py"))
        start("worker", *prefect, "worker", "start", "--pool", "fused", "--type", "process")
        built = House(prefect_server.url, home, environment, emulator, stations, roads)
        eventually(lambda: built.ask("POST", "/work_pools/filter"))
        subprocess.run([*prefect, "deploy", "--all"], cwd=FLOWS.parent, env=environment, check=True, capture_output=True)
        yield built


def test_a_served_deployment_invalidates_and_shows_it(house: House) -> None:
    parameters = {"bounds": [-9.25, 38.68, -9.08, 38.80], "zooms": "10-14", "credentials": "production"}
    run = house.start("Invalidate Fused cache/served", udf="charging_stations", **parameters)
    assert house.ends(run) == "Completed"
    assert house.invalidations(house.stations) == [104]
    artifacts = house.ask("POST", "/artifacts/filter", flow_runs={"id": {"any_": [run]}})
    assert [artifact["key"] for artifact in artifacts] == ["fused-cache-charging-stations"]
    eventually(lambda: any("invalidated 104 tiles" in line for line in house.logs(run)))


def test_a_hook_of_a_served_flow_invalidates(house: House) -> None:
    assert house.ends(house.start("load/served")) == "Completed"
    eventually(lambda: house.invalidations(house.roads) == [2])  # hooks run after the state is set


def test_the_event_of_an_asset_starts_the_deployment_that_invalidates(house: House) -> None:
    """With `prefect.yaml` as it is; the worker runs it."""
    before = len(house.invalidations(house.stations))
    subprocess.run([sys.executable, str(FLOWS / "load_asset.py")], env=house.environment, check=True, capture_output=True)
    eventually(lambda: house.invalidations(house.stations)[before:] == [2])


MATERIALIZED = """
from prefect import flow
from prefect.assets import Asset, materialize

STATIONS, ROADS = Asset(key="s3://bucket/stations"), Asset(key="s3://bucket/roads")

@materialize(STATIONS, ROADS)
def load():
    STATIONS.add_metadata({"tiles": ["10/486/391"]})
    ROADS.add_metadata({"tiles": ["10/1/1", "10/2/2"]})

@flow
def load_both():
    load()

load_both()
"""


def test_the_event_of_every_asset_of_the_map_starts_the_invalidation_of_its_udfs(
    house: House, end_process: Callable[[Any], None], tmp_path: Path
) -> None:
    overview, totals = (house.emulator.register(dict, name=name) for name in ("charging_overview", "charging_totals"))
    cached = {
        house.stations: [(10, 486, 391), (10, 0, 0)],
        overview: [(9, 243, 195), (12, 0, 0)],
        totals: [(3, 0, 0)],
        house.roads: [(10, 1, 1), (10, 2, 2), (10, 5, 5)],
    }
    for udf, tiles in cached.items():
        house.emulator.fill_cache(udf, tiles)
    served = FLOWS / "invalidate_dataset_on_asset.py"
    process = subprocess.Popen([sys.executable, str(served)], env=house.environment, stdout=DEVNULL, stderr=DEVNULL)
    try:
        eventually(lambda: house._deployment("Invalidate Fused caches of a dataset/after-load"))
        (tmp_path / "load.py").write_text(MATERIALIZED)
        subprocess.run([sys.executable, str(tmp_path / "load.py")], env=house.environment, check=True, capture_output=True)
        expected = [{(10, 0, 0)}, {(12, 0, 0)}, set(), {(10, 5, 5)}]
        eventually(lambda: [house.emulator.cached_tiles(udf) & set(tiles) for udf, tiles in cached.items()] == expected)
    finally:
        end_process(process)


def test_the_second_pass_is_a_run_for_which_nobody_waits(house: House) -> None:
    before = len(house.invalidations(house.roads))
    assert house.ends(house.start("twice/served", udf="roads")) == "Completed"
    states = [run["state_name"] for run in house.ask("POST", "/flow_runs/filter", limit=200)]
    if len(house.invalidations(house.roads)) == before + 1:  # on a very busy machine, the second pass may have begun
        assert states.count("Scheduled") == 1
        assert "Running" not in states
    eventually(lambda: house.invalidations(house.roads)[before:] == [2, 2])


@pytest.mark.parametrize("deployment", ["Invalidate Fused cache", "submitted"])
def test_a_cancelled_run_stops_sending(house: House, deployment: str) -> None:
    """In the flow's main thread, which Prefect's signal reaches, and in a thread of its task runner, which it does not."""
    house.emulator.misbehave(status=503, retry_after=1, times=None)
    parameters: dict[str, Any] = {} if deployment == "submitted" else {"whole_udf": True, "credentials": "production"}
    before = len(house.emulator.requests)
    run = house.start(f"{deployment}/served", udf="roads", **parameters)
    eventually(lambda: len(house.emulator.requests) > before + 1)
    house.ask("POST", f"/flow_runs/{run}/set_state", state={"type": "CANCELLING", "name": "Cancelling"}, force=True)
    assert house.ends(run) == "Cancelled"
    sent = len(house.emulator.requests)
    time.sleep(2.5)
    house.emulator.behave()
    assert len(house.emulator.requests) == sent


def answered_403(rows: dict[str, list[Any]]) -> dict[str, list[Any]] | None:
    """The tables, once the log of the failure is among them."""
    return rows if "answered 403" in str(rows["log"]) else None


def test_the_token_is_in_no_table_and_no_file_of_the_server(house: House) -> None:
    house.emulator.misbehave(status=403, times=None, body={"detail": f"bad token {TOKEN}"})
    parameters = {"tiles": ["15/1/1"], "credentials": "production"}
    assert house.ends(house.start("Invalidate Fused cache/served", udf="roads", **parameters)) == "Failed"
    rows = eventually(lambda: answered_403(house.tables()))
    for table in ("flow_run", "task_run", "artifact", "log", "events", "block_document"):
        assert rows[table] != [], table
    assert [table for table, found in rows.items() if TOKEN in str(found)] == []
    files = [path for path in house.home.rglob("*") if path.is_file()]
    assert [str(path) for path in files if TOKEN.encode() in path.read_bytes()] == []


ALERTED = """
import sys, time
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.events import DeploymentEventTrigger, emit_event
from prefect_fused import build_failed_trigger_alert, invalidate_cache_flow

if __name__ == "__main__":
    webhook = CustomWebhookNotificationBlock(name="maps", url=sys.argv[1], json_data={"said": "{{subject}}: {{body}}"})
    webhook.save("maps")
    build_failed_trigger_alert(webhook, triggers=["misfit__automation_*"]).create()
    event = {"expect": {"load.done"}, "match": {"prefect.resource.id": "load.one"}}
    trigger = DeploymentEventTrigger(**event, parameters={"udf": "roads", "bounds": "not four numbers"})
    invalidate_cache_flow.to_deployment("misfit", triggers=[trigger]).apply()
    while True:
        emit_event("load.done", {"prefect.resource.id": "load.one"})
        time.sleep(3)
"""


@contextlib.contextmanager
def listening() -> Iterator[tuple[str, list[Any]]]:
    """A place that notifications are sent to, and what has arrived there."""
    arrived: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            arrived.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *given: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/alert", arrived
        server.shutdown()


def test_somebody_is_told_of_a_trigger_that_started_no_run(house: House, end_process: Any, tmp_path: Path) -> None:
    (tmp_path / "alerted.py").write_text(ALERTED)
    with listening() as (address, arrived):
        command = [sys.executable, str(tmp_path / "alerted.py"), address]
        process = subprocess.Popen(command, env=house.environment, stdout=DEVNULL, stderr=DEVNULL)
        try:
            eventually(lambda: arrived)
        finally:
            end_process(process)
    said = arrived[0]["said"]
    assert said.startswith("A load was not followed by an invalidation: The trigger misfit__automation_")
    assert "bounds" in said
    assert house.emulator.token not in said
