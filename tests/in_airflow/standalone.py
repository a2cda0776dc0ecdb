"""Run `airflow standalone` against the emulator: load, asset event, invalidation; the events of two loads, which refresh
only the UDFs of their dataset; the event of a partition; and a second pass for which no worker waits, and whose triggerer is
restarted meanwhile.

Run by scripts/airflow-standalone.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h3
import requests

from fused_cache_ops import Tile
from fused_cache_ops.emulator import Emulator

DAGS = Path(__file__).parents[2] / "airflow" / "dags"
TOKEN = "t0p-s3cret-t0ken-of-standalone"

TWICE = """
from airflow.sdk import dag
from airflow_provider_fused.operators import FusedInvalidateCacheOperator


@dag(schedule=None)
def twice():
    FusedInvalidateCacheOperator(task_id="invalidate", udf="parcels", tiles=["10/0/0"], again_after=45)


twice()
"""

DATASETS = """
from datetime import datetime

from airflow.sdk import Asset, Metadata, dag, task
from airflow_provider_fused.operators import FusedInvalidateDatasetOperator

BUILDINGS = Asset(name="buildings", uri="s3://bucket/buildings")
ROADS = Asset(name="roads_table", uri="postgres://host/database/schema/roads")


@dag(schedule=None)
def load_buildings():
    @task(outlets=[BUILDINGS])
    def load():
        yield Metadata(BUILDINGS, {"tiles": ["10/486/391", "10/486/392"]})

    load()


@dag(schedule=None)
def load_roads():
    @task(outlets=[ROADS])
    def load():
        yield Metadata(ROADS, {"tiles": ["10/500/300"]})

    load()


@dag(schedule=(BUILDINGS | ROADS), start_date=datetime(2026, 1, 1))
def refresh_maps():
    @task
    def changed(triggering_asset_events=None) -> list[str]:
        return [tile for events in triggering_asset_events.values() for event in events for tile in event.extra["tiles"]]

    FusedInvalidateDatasetOperator(task_id="invalidate", tiles=changed())


load_buildings()
load_roads()
refresh_maps()
"""
MAP = """
[datasets."s3://bucket/buildings"]
udfs = [{ udf = "buildings" }, { udf = "buildings_overview", zooms = "9" }]

[datasets.roads_table]
udfs = [{ udf = "roads" }]

[datasets.rivers_table]
udfs = [{ udf = "rivers", whole_udf = true }]
"""
CACHED = {(9, 243, 195), (9, 243, 196), (9, 250, 150), (10, 486, 391), (10, 486, 392), (10, 500, 300), (10, 0, 0)}
GONE = {
    "load_buildings": {
        "buildings": {(10, 486, 391), (10, 486, 392)},
        "buildings_overview": {(10, 486, 391), (10, 486, 392), (9, 243, 195), (9, 243, 196)},  # with their parents
        "roads": set(),
        "rivers": set(),
    },
    "load_roads": {"buildings": set(), "buildings_overview": set(), "roads": {(10, 500, 300)}, "rivers": set()},
}
"""The tiles that each load's event must remove from the cache of each UDF."""


def wait(what: str, done: Callable[[], object], seconds: float) -> None:
    started = time.monotonic()
    while not done():
        if time.monotonic() - started > seconds:
            raise SystemExit(f"{what}: not within {seconds:.0f} s")
        time.sleep(1)
    print(f"{what}: after {time.monotonic() - started:.0f} s", flush=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def airflow_environment(home: Path, emulator: Emulator) -> dict[str, str]:
    """The environment of an Airflow that has its home there, and the emulator as its default connection."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # it starts its parts by name
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "120",
        "AIRFLOW_CONN_FUSED_DEFAULT": json.dumps({"conn_type": "fused", "host": emulator.base_url, "password": emulator.token}),
    }


@contextlib.contextmanager
def standalone(home: Path, environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A complete Airflow that is up, ended with all that it started. Yields its process and its address."""
    url = environment["AIRFLOW__API__BASE_URL"]
    with (home / "standalone.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "airflow", "standalone"], env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:

        def healthy() -> bool:
            if server.poll() is not None:
                raise SystemExit((home / "standalone.log").read_text()[-3000:])
            with contextlib.suppress(requests.RequestException):
                answer = requests.get(f"{url}/api/v2/monitor/health", timeout=5).json()
                return answer["scheduler"]["status"] == answer["metadatabase"]["status"] == "healthy"
            return False

        wait("Airflow is up", healthy, 600)
        yield server, url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)


def session(url: str) -> requests.Session:
    """A session of Airflow's API that is signed in."""
    signed_in = requests.Session()
    token = signed_in.get(f"{url}/auth/token", timeout=30).json()["access_token"]
    signed_in.headers["Authorization"] = f"Bearer {token}"
    return signed_in


def refresh_datasets(home: Path, airflow: list[str], environment: dict[str, str], emulator: Emulator) -> None:
    """Two loads, each with an event of its own: the UDFs that show its dataset are invalidated, and no others."""
    udfs = {name: emulator.register(lambda **tile: tile, name=name) for name in GONE["load_roads"]}

    def ended() -> list[str]:
        with contextlib.closing(sqlite3.connect(f"file:{home / 'airflow.db'}?mode=ro", uri=True)) as database:
            query = "SELECT state FROM dag_run WHERE dag_id = 'refresh_maps' AND state IN ('success', 'failed')"
            return [state for (state,) in database.execute(query)]

    for count, (load, expected) in enumerate(GONE.items(), 1):
        for udf in udfs.values():
            emulator.fill_cache(udf, CACHED)
        subprocess.run([*airflow, "dags", "trigger", load], env=environment, check=True, capture_output=True)
        wait(f"The event of {load} has triggered refresh_maps, which has ended", lambda at=count: len(ended()) == at, 400)
        gone = {name: CACHED - emulator.cached_tiles(udf) for name, udf in udfs.items()}
        print(f"Runs of refresh_maps: {ended()}. Tiles gone: {gone}", flush=True)
        if set(ended()) != {"success"} or gone != expected:
            raise SystemExit(f"After {load}, these tiles should be gone, and no others: {expected}")


def load_partitions(home: Path, url: str, emulator: Emulator) -> None:
    """The run of a partition: its event starts the partitioned DAG with the same key, and only the partition is invalidated."""
    udf = emulator.register(lambda **tile: tile, name="hexes")
    cells = {date: h3.latlng_to_cell(50.0, longitude, 8) for date, longitude in (("2026-11-22", 10.0), ("2026-11-23", 30.0))}
    tiles = {}
    for date, cell in cells.items():
        folder = home / "hexes" / f"date={date}"
        folder.mkdir(parents=True)
        (folder / f"{cell}.parquet").touch()
        latitude, longitude = h3.cell_to_latlng(cell)
        tiles[date] = Tile.containing(longitude, latitude, 10)
    emulator.fill_cache(udf, tiles.values())
    answer = session(url).post(
        f"{url}/api/v2/dags/load_partition/dagRuns",
        json={"logical_date": None, "partition_key": "2026-11-22"},
        timeout=30,
    )
    print(f"Run of a partition: {answer.status_code} {answer.text[:300]}", flush=True)
    wait(
        "The partition's event has triggered its invalidation", lambda: emulator.cached_tiles(udf) == {tiles["2026-11-23"]}, 400
    )


def restart_triggerer(server: subprocess.Popen[bytes], airflow: list[str], environment: dict[str, str], log: Any) -> Any:
    """End the triggerer of `airflow standalone` for good, and start another one."""
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == server.pid and b"triggerer" in (folder / "cmdline").read_bytes():
                os.kill(int(folder.name), signal.SIGKILL)
                print("The triggerer was killed", flush=True)
    return subprocess.Popen([*airflow, "triggerer"], env=environment, stdout=log, stderr=log, start_new_session=True)


def wait_twice(
    home: Path, airflow: list[str], environment: dict[str, str], emulator: Emulator, restart: Callable[[], object]
) -> None:
    """A task with a second pass: while it waits, it is deferred, and occupies no slot. Its triggerer is restarted."""
    emulator.forget_requests()

    def sent() -> int:
        return sum(request.method == "DELETE" for request in emulator.requests)

    def states() -> dict[str, int]:
        with contextlib.closing(sqlite3.connect(f"file:{home / 'airflow.db'}?mode=ro", uri=True)) as database:
            return dict(
                database.execute(
                    "SELECT state, COUNT(*) FROM task_instance "
                    "WHERE state IN ('running', 'queued', 'deferred') OR dag_id = 'twice' GROUP BY state"
                )
            )

    subprocess.run([*airflow, "dags", "trigger", "twice"], env=environment, check=True, capture_output=True)
    wait("The first pass", lambda: sent() == 1, 200)
    wait("The task is deferred", lambda: states() == {"deferred": 1}, 30)
    restart()
    for _ in range(5):
        time.sleep(3)
        print(f"While it waits, task instances by state: {states()}, invalidations sent: {sent()}", flush=True)
    wait("The second pass", lambda: sent() == 2, 200)
    wait("The task has succeeded", lambda: states() == {"success": 1}, 60)


def main() -> None:
    home = Path(tempfile.mkdtemp(prefix="fused-airflow-"))
    (home / "dags").mkdir()
    shutil.copy(DAGS / "invalidate_on_asset.py", home / "dags")
    partitioned = (DAGS / "invalidate_on_partition.py").read_text().replace('udf="parcels"', 'udf="hexes"')
    (home / "dags" / "invalidate_on_partition.py").write_text(partitioned)
    (home / "dags" / "twice.py").write_text(TWICE)
    (home / "dags" / "datasets.py").write_text(DATASETS)
    (home / "dags" / "fused-cache.toml").write_text(MAP)
    with Emulator(token=TOKEN) as emulator:
        udf = emulator.register(lambda **tile: tile, name="parcels")
        emulator.fill_cache(udf, [(10, 486, 391), (10, 486, 392), (10, 0, 0)])
        environment = airflow_environment(home, emulator) | {"PARCELS_HEXES": str(home / "hexes")}
        with standalone(home, environment) as (server, url):
            airflow = [sys.executable, "-m", "airflow"]

            def known() -> bool:
                done = subprocess.run([*airflow, "dags", "list", "-o", "json"], env=environment, capture_output=True, text=True)
                return all(name in done.stdout for name in ("load_parcels", "refresh_maps", "twice", "load_partition"))

            wait("The DAGs are known", known, 180)
            subprocess.run([*airflow, "dags", "trigger", "load_parcels"], env=environment, check=True, capture_output=True)
            wait("The load's event has triggered the invalidation", lambda: emulator.cached_tiles(udf) == {(10, 0, 0)}, 400)
            time.sleep(10)  # for its log and its state
            runs = subprocess.run(
                [*airflow, "dags", "list-runs", "invalidate_on_asset", "-o", "json"],
                env=environment,
                check=True,
                capture_output=True,
                text=True,
            )
            for run in json.loads(runs.stdout.splitlines()[-1]):  # after warnings, such as that graphviz is missing
                print(f"Run {run['run_id']}: {run['state']}")
            refresh_datasets(home, airflow, environment, emulator)
            load_partitions(home, url, emulator)
            restarted: list[subprocess.Popen[bytes]] = []
            with (home / "triggerer.log").open("wb") as own:
                try:
                    wait_twice(
                        *(home, airflow, environment, emulator),
                        lambda: restarted.append(restart_triggerer(server, airflow, environment, own)),
                    )
                finally:
                    for process in restarted:
                        os.killpg(process.pid, signal.SIGKILL)
            if "--wait" in sys.argv:
                input(f"{url}  Enter ends it. ")
    leaks = [path for path in home.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    print(
        f"{sum(1 for path in home.rglob('*') if path.is_file())} files in Airflow's home, {len(leaks)} of them with the token"
    )
    if leaks:
        raise SystemExit(f"The token is in {', '.join(str(path.relative_to(home)) for path in leaks)}")
    shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
