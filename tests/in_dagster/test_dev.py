"""A real ``dagster dev``, daemon included: automation invalidates after a load, and the token appears nowhere."""

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

from fused_cache_ops import plan_invalidation
from fused_cache_ops.emulator import Emulator, Udf

pytestmark = pytest.mark.xdist_group("dagster-dev")

EXAMPLE = Path(__file__).parents[2] / "dagster" / "cache_as_asset.py"
TOKEN = "t0p-s3cret-t0ken"
LISBOA: Any = {"bounds": (-9.25, 38.68, -9.08, 38.80), "zooms": "10-14"}
PORTO: Any = {"bounds": (-8.70, 41.13, -8.55, 41.19), "zooms": "10-14"}

TWICE = """
import dagster as dg
from dagster_fused import FusedResource, build_fused_cache_asset

twice = build_fused_cache_asset("twice", udf="parcels", selection={"tiles": ["10/486/391"], "again_after": 20})
defs = dg.Definitions(assets=[twice], resources={"fused": FusedResource()})
"""

READY = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"
LAUNCH = """mutation Launch($parameters: ExecutionParams!) {
  launchRun(executionParams: $parameters) { __typename ... on LaunchRunSuccess { run { runId } } }
}"""
RUNS = """{ runsOrError { ... on Runs { results {
  runId status runConfigYaml tags { key value } assets { key { path } }
  eventConnection(afterCursor: null) { events { __typename
    ... on MessageEvent { message }
    ... on ExecutionStepFailureEvent { error { message stack } }
    ... on MaterializationEvent { partition metadataEntries { label description
      ... on JsonMetadataEntry { jsonString } ... on TextMetadataEntry { text } ... on IntMetadataEntry { intValue }
      ... on TableMetadataEntry { table { records } } } }
    ... on AssetCheckEvaluationEvent { evaluation { success } }
    ... on LogsCapturedEvent { fileKey logKey } } }
} } } }"""
RESOURCE = """query Resource($selector: ResourceSelector!) { topLevelResourceDetailsOrError(resourceSelector: $selector) {
  __typename ... on ResourceDetails { configuredValues { key value type } configFields { name description } }
} }"""
LOGS = """query Logs($key: [String!]!) { capturedLogs(logKey: $key) { stdout stderr } }"""


class House(NamedTuple):
    """``dagster dev``: its URL and its home; and the emulator, with a UDF and its cached tiles."""

    url: str
    home: Path
    emulator: Emulator
    udf: Udf


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One ``dagster dev`` of the example and `TWICE`, in a process group that ends with the tests."""
    home = tmp_path_factory.mktemp("dagster-dev")
    home.joinpath("dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    twice = tmp_path_factory.mktemp("twice") / "twice.py"
    twice.write_text(TWICE)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    files = ["-f", str(EXAMPLE), "-f", str(twice)]
    command = [sys.executable, "-m", "dagster", "dev", *files, "-h", "127.0.0.1", "-p", str(port)]
    with contextlib.ExitStack() as stack:
        emulator = stack.enter_context(Emulator(token=TOKEN))
        udf = emulator.register(lambda **tile: tile, name="parcels")
        emulator.fill_cache(udf, [*plan_invalidation("p", **LISBOA).tiles(), *plan_invalidation("p", **PORTO).tiles()])
        variables = {"PARCELS_SHARED_TOKEN": udf.shared_token, "FUSED_RUN_BASE_URL": emulator.root_url}
        environment = os.environ | {"DAGSTER_HOME": str(home)} | emulator.environment() | variables
        log = stack.enter_context((home / "output.log").open("wb"))
        server = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True)
        stack.callback(end, server)
        built = House(f"http://127.0.0.1:{port}", home, emulator, udf)
        wait_for(lambda: len(query(built.url, READY)["repositoriesOrError"]["nodes"]) == 2, home)
        yield built


def end(server: subprocess.Popen[bytes]) -> None:
    server.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)


def wait_for(what: Callable[[], Any], home: Path, seconds: float = 300) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(requests.RequestException, KeyError):
            if found := what():
                return found
        time.sleep(0.5)
    raise AssertionError((home / "output.log").read_text()[-5000:])


def stored(home: Path) -> Iterator[tuple[str, bytes]]:
    """Every file in Dagster's home, and every value in its databases, uncompressed, as Dagster compresses its snapshots."""
    for path in home.rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes()
        if path.suffix == ".db":
            with contextlib.closing(sqlite3.connect(path)) as database:
                for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                    for number, row in enumerate(database.execute(f'SELECT * FROM "{table}"')):
                        for value in row:
                            with contextlib.suppress(zlib.error):
                                if isinstance(value, bytes):
                                    yield f"{path}: {table} {number}", zlib.decompress(value)


def query(url: str, text: str, **variables: Any) -> dict[str, Any]:
    answer = requests.post(f"{url}/graphql", json={"query": text, "variables": variables}, timeout=60).json()
    if "errors" in answer:
        raise AssertionError(answer["errors"])
    data: dict[str, Any] = answer["data"]
    return data


def launch(url: str, *, asset: str, partition: str | None, file: str = EXAMPLE.name) -> None:
    selector = {
        "repositoryLocationName": file,
        "repositoryName": "__repository__",
        "jobName": "__ASSET_JOB",
        "assetSelection": [{"path": [asset]}],
    }
    tags = [] if partition is None else [{"key": "dagster/partition", "value": partition}]
    answer = query(url, LAUNCH, parameters={"selector": selector, "executionMetadata": {"tags": tags}, "runConfigData": {}})
    assert answer["launchRun"]["__typename"] == "LaunchRunSuccess", answer


def runs(url: str) -> list[dict[str, Any]]:
    """The runs, the latest first."""
    found: list[dict[str, Any]] = query(url, RUNS)["runsOrError"]["results"]
    return found


def test_automation_invalidates_after_a_load_and_shows_no_token(house: House) -> None:
    url, home, emulator, udf = house
    launch(url, asset="parcels", partition="lisboa")

    def purged() -> Any:
        done = [run for run in runs(url) if run["status"] in ("SUCCESS", "FAILURE")]
        return done if len(done) == 2 else None

    purge, load = wait_for(purged, home)
    events = purge["eventConnection"]["events"]
    keys = [event["logKey"] for event in events if event["__typename"] == "LogsCapturedEvent"]
    logs = [query(url, LOGS, key=[run["runId"], "compute_logs", key[-1]]) for run in (purge, load) for key in keys]
    selector = {"repositoryLocationName": EXAMPLE.name, "repositoryName": "__repository__", "resourceName": "fused"}
    resource = query(url, RESOURCE, selector=selector)
    sent = [request.tiles for request in emulator.requests if request.path.endswith("delete")]
    left = emulator.cached_tiles(udf)
    assert (load["status"], purge["status"]) == ("SUCCESS", "SUCCESS")
    assert {"key": "dagster/partition", "value": "lisboa"} in purge["tags"]
    assert sent == [plan_invalidation("p", **LISBOA).tile_count]
    assert left >= set(plan_invalidation("p", **PORTO).tiles())
    (check,) = [event for event in events if event["__typename"] == "AssetCheckEvaluationEvent"]
    assert check["evaluation"]["success"]
    # What the searches below search is really there.
    (materialization,) = [event for event in events if event["__typename"] == "MaterializationEvent"]
    assert {"tiles_invalidated", "tiles_per_zoom", "footprint"} <= {
        each["label"] for each in materialization["metadataEntries"]
    }
    assert "FUSED_SERVICE_ACCOUNT_TOKEN" in str(resource)
    assert keys
    places = dict(stored(home))
    assert [place for place, content in places.items() if b"PARCELS_SHARED_TOKEN" in content]  # the snapshots name the variable
    for secret in (TOKEN, udf.shared_token):
        assert secret not in str([purge, load, logs, resource])
        assert [place for place, content in places.items() if secret.encode() in content] == []


def spawned() -> int:
    """The processes that Dagster has spawned for runs and their steps, below this one, from Linux's ``/proc``."""
    above, spawned = {}, set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            process = int(stat.parent.name)
            above[process] = int(stat.read_text().rpartition(")")[2].split()[1])
            if b"spawn_main" in stat.with_name("cmdline").read_bytes():
                spawned.add(process)

    def is_below(process: int) -> bool:
        while process in above:
            process = above[process]
            if process == os.getpid():
                return True
        return False

    return sum(map(is_below, spawned))


def test_no_step_process_waits_for_the_second_pass(house: House) -> None:
    before = len(house.emulator.requests)

    def invalidations() -> int:
        return sum(request.method == "DELETE" for request in house.emulator.requests[before:])

    launch(house.url, asset="twice", partition=None, file="twice.py")
    wait_for(lambda: invalidations() == 1, house.home)
    # What the step ran in ends. Only the run itself is left, which Dagster keeps until all of its steps are over.
    waiting = wait_for(lambda: spawned() == 1, house.home, seconds=15)
    sent = invalidations()
    wait_for(lambda: runs(house.url)[0]["status"] == "SUCCESS", house.home)
    assert (waiting, sent, invalidations()) == (True, 1, 2)
