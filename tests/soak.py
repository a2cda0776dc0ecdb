"""Real schedulers, loads at random moments, and a look at every map all the time: none may stay stale for long.

Loads overlap, some of them fail, and the service is down now and then, so that steps are retried. In Airflow
loads are mapped, and some runs are cleared. Run by scripts/soak.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests
from in_airflow.standalone import airflow_environment, free_port, session, standalone, wait

from fused_cache_ops.emulator import Emulator

TILES = [(4, x, 5) for x in range(8)]

DAGSTER = """
import dagster as dg
from dagster_fused import FusedResource, build_fused_cache_asset, loads_since_invalidation


def changed(context, partition_key):
    return [tile for load in loads_since_invalidation(context, "table") for tile in load.metadata["tiles"].value]


cache = build_fused_cache_asset(
    "cache", udf="roads", deps=["table"], selection_fn=changed, retry_policy=dg.RetryPolicy(max_retries=5, delay=1)
)
automation = dg.AutomationConditionSensorDefinition(
    "automation", target="*", default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=5
)
defs = dg.Definitions(
    assets=[dg.AssetSpec("table"), cache],
    sensors=[automation],
    executor=dg.in_process_executor,
    resources={"fused": FusedResource(deadline=5)},
)
"""

PREFECT = """
from prefect_fused import build_dataset_triggers, invalidate_dataset_flow

MAP = "HOME/fused-cache.toml"  # a run has a working folder of its own

if __name__ == "__main__":
    invalidate_dataset_flow.serve("after-load", parameters={"cache_map": MAP}, triggers=build_dataset_triggers(MAP))
"""


AIRFLOW = """
from datetime import datetime
from pathlib import Path

from airflow.sdk import Asset, Metadata, dag, task
from airflow.timetables.assets import AssetOrTimeSchedule
from airflow.timetables.trigger import CronTriggerTimetable
from airflow_provider_fused.assets import loads_since_invalidation

TABLE, MAP = Asset("table"), Asset("map")


@dag(schedule=None)
def load():
    @task
    def changed(params=None) -> list[str]:
        return params["tiles"]

    @task(outlets=[TABLE])
    def write(tile: str, params=None):
        if params["fails"]:
            raise RuntimeError("the load fails, as it was asked to")
        with Path("HOME", "table", tile.replace("/", "-")).open("ab") as rows:
            rows.write(b".")
        yield Metadata(TABLE, {"tiles": [tile]})

    write.expand(tile=changed())


@dag(
    schedule=AssetOrTimeSchedule(timetable=CronTriggerTimetable("* * * * *", timezone="UTC"), assets=[TABLE]),
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
)
def invalidate():
    @task.fused_invalidate_cache(udf="roads", inlets=[TABLE, MAP], outlets=[MAP], retries=5, retry_delay=1)
    def changed() -> list[str]:
        return [tile for load in loads_since_invalidation(TABLE, MAP) for tile in load["tiles"]]

    changed()


load()
invalidate()
"""


class Table:
    """Rows by tile, in files, so that other processes can write to it. A row is a byte: appending one needs no lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        for tile in TILES:
            self._file(tile).touch()

    def _file(self, tile: tuple[int, int, int]) -> Path:
        return self._folder / "-".join(map(str, tile))

    def __getitem__(self, tile: tuple[int, int, int]) -> int:
        return self._file(tile).stat().st_size

    def append(self, tile: tuple[int, int, int]) -> None:
        with self._file(tile).open("ab") as rows:
            rows.write(b".")


class House:
    """A table, its map, and who looks at it.

    Attributes:
        data: the version of each tile's data.
        stuck: the tiles that stayed stale for too long, with the seconds.
    """

    def __init__(self, emulator: Emulator, home: Path, patience: float) -> None:
        self.data = Table(home / "table")
        self.stuck: list[tuple[tuple[int, int, int], float]] = []
        self.longest = 0.0
        self._patience = patience
        self.emulator = emulator
        self._udf = emulator.register(lambda z, x, y: self.data[z, x, y], name="roads")
        self._stale_since: dict[tuple[int, int, int], float] = {}

    def write(self) -> str:
        """A load: new rows in one tile. Returns the tile."""
        tile = random.choice(TILES)
        self.data.append(tile)
        return "/".join(map(str, tile))

    def look(self) -> None:
        """Ask for every tile, as visitors do, and compare what the map shows with the data."""
        for tile in TILES:
            before = self.data[tile]
            with contextlib.suppress(requests.RequestException, ValueError):
                shown = requests.get(self.emulator.tile_url(self._udf, *tile), timeout=30).json()
                if shown in (before, self.data[tile]):
                    since = self._stale_since.pop(tile, None)
                    self.longest = max(self.longest, time.monotonic() - since if since else 0)
                    continue
                since = self._stale_since.setdefault(tile, time.monotonic())
                if (seconds := time.monotonic() - since) > self._patience:
                    self.stuck.append((tile, round(seconds)))
                    self._stale_since.pop(tile)

    def is_fresh(self) -> bool:
        self.look()
        return not self._stale_since


@contextlib.contextmanager
def running(home: Path, *commands: tuple[list[str], Callable[[], object]]) -> Iterator[None]:
    """Processes that are started in this order, each once the one before is ready, and ended with all that they started."""
    started = []
    with (home / "log").open("ab") as log:
        try:
            for command, is_ready in commands:
                started.append(
                    subprocess.Popen([sys.executable, *command], stdout=log, stderr=log, cwd=home, start_new_session=True)
                )
                while not is_ready():
                    if started[-1].poll() is not None:
                        raise SystemExit((home / "log").read_text()[-3000:])
                    time.sleep(1)
            yield
        finally:
            for process in reversed(started):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
            time.sleep(5)
            for process in started:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def dagster(home: Path, house: House) -> Iterator[Callable[[bool], None]]:
    """Dagster's daemon, whose automation invalidates. The loads report what they have materialized."""
    os.environ["DAGSTER_HOME"] = str(home)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    (home / "soak_definitions.py").write_text(DAGSTER)
    import dagster as dg

    def load(fails: bool) -> None:
        if not fails:
            tile = house.write()
            with dg.DagsterInstance.get() as instance:
                instance.report_runless_asset_event(dg.AssetMaterialization("table", metadata={"tiles": [tile]}))

    daemon = ["-m", "dagster._daemon", "run", "-f", "soak_definitions.py"]
    with running(home, (daemon, lambda: "automation" in (home / "log").read_text())):
        yield load


@contextlib.contextmanager
def prefect(home: Path, house: House) -> Iterator[Callable[[bool], None]]:
    """Prefect's server, an automation, and a process that serves the deployment. The loads are flows."""
    port = free_port()
    os.environ |= {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_RUNNER_POLL_FREQUENCY": "2",
    }
    (home / "served.py").write_text(PREFECT.replace("HOME", str(home)))
    (home / "fused-cache.toml").write_text('[datasets."s3://bucket/table"]\nudfs = [{ udf = "roads" }]\n')
    server = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]

    def asked(method: str, path: str) -> Any:
        with contextlib.suppress(requests.RequestException):
            answer = requests.request(method, f"{os.environ['PREFECT_API_URL']}{path}", json={} if method == "POST" else None)
            return answer.ok and answer.json()

    is_up, is_served = (lambda: asked("GET", "/health")), (lambda: asked("POST", "/automations/filter"))
    with running(home, (server, is_up), (["served.py"], is_served)):
        from prefect import flow
        from prefect.assets import Asset, materialize

        table = Asset(key="s3://bucket/table")

        @materialize(table)
        def write(fails: bool) -> None:
            if fails:
                raise RuntimeError("the load fails, as it was asked to")
            table.add_metadata({"tiles": [house.write()]})

        @flow
        def load(fails: bool) -> None:
            write(fails)

        yield lambda fails: load(fails, return_state=True) and None


@contextlib.contextmanager
def airflow(home: Path, house: House) -> Iterator[Callable[[bool], None]]:
    """A complete Airflow, in which the asset's events start the invalidation. Loads are mapped, and one in ten is cleared."""
    (home / "dags").mkdir()
    (home / "dags" / "soak.py").write_text(AIRFLOW.replace("HOME", str(home)))
    environment = airflow_environment(home, house.emulator)
    connection = json.loads(environment["AIRFLOW_CONN_FUSED_DEFAULT"]) | {"extra": {"deadline": 5}}
    environment["AIRFLOW_CONN_FUSED_DEFAULT"] = json.dumps(connection)
    with standalone(home, environment) as (_, url):
        api, dags = session(url), f"{url}/api/v2/dags"
        wait("The DAGs are known", lambda: all(api.get(f"{dags}/{name}").ok for name in ("load", "invalidate")), 180)

        def load(fails: bool) -> None:
            tiles = ["/".join(map(str, tile)) for tile in random.sample(TILES, random.randrange(1, 4))]
            run = {"logical_date": None, "conf": {"tiles": tiles, "fails": fails}}
            answer = api.post(f"{dags}/load/dagRuns", json=run, timeout=60)
            answer.raise_for_status()
            if random.random() < 0.1:
                time.sleep(random.uniform(0, 60))
                cleared = {
                    "dag_run_id": answer.json()["dag_run_id"],
                    "dry_run": False,
                    "only_failed": False,
                    "reset_dag_runs": True,
                }
                api.post(f"{dags}/load/clearTaskInstances", json=cleared, timeout=60).raise_for_status()

        yield load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("orchestrator", choices=["airflow", "dagster", "prefect"])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--patience", type=float, default=120, help="seconds that an invalidation may take")
    parser.add_argument("--every", type=float, default=6, help="seconds between two loads, on average")
    arguments = parser.parse_args()
    orchestrators: dict[str, Any] = {"airflow": airflow, "dagster": dagster, "prefect": prefect}
    home = Path(tempfile.mkdtemp(prefix=f"soak-{arguments.orchestrator}-"))
    with Emulator() as emulator, contextlib.ExitStack() as stack:
        os.environ |= emulator.environment()
        house = House(emulator, home, arguments.patience)
        load = stack.enter_context(orchestrators[arguments.orchestrator](home, house))
        over = threading.Event()
        loads = failed = 0
        threads = []
        watch = threading.Thread(target=lambda: [house.look() for _ in iter(lambda: over.wait(1), True)], daemon=True)
        watch.start()
        end = time.monotonic() + arguments.minutes * 60
        while time.monotonic() < end:
            fails = random.random() < 0.1
            threads.append(threading.Thread(target=load, args=(fails,)))
            threads[-1].start()
            loads, failed = loads + 1, failed + fails
            if random.random() < 0.1:
                emulator.misbehave(status=503, times=random.randrange(1, 5), path="delete")
            time.sleep(random.expovariate(1 / arguments.every))
        for thread in threads:
            thread.join()
        emulator.behave()
        over.set()
        watch.join()
        left = time.monotonic() + arguments.patience
        while not house.is_fresh() and time.monotonic() < left:
            time.sleep(1)
        is_fresh = house.is_fresh()
        sent = sum(request.method != "GET" for request in emulator.requests)
        print(f"{arguments.orchestrator}: {loads} loads, {failed} of them failed, {sent} invalidations sent.")
        print(f"The longest time that a tile was stale: {house.longest:.0f} s. Stuck: {house.stuck or 'none'}.")
        print(f"Fresh in the end: {is_fresh}. Log: {home}", flush=True)
    raise SystemExit(bool(house.stuck) or not is_fresh)


if __name__ == "__main__":
    main()
