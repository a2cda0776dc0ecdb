"""Homes of the orchestrators in temporary folders, set before any of them is imported; and the emulator."""

import os
import re
import tempfile
from pathlib import Path

HOME = Path(tempfile.mkdtemp(prefix="fused-tests-"))
AIRFLOW_DAGS = HOME / "airflow" / "dags"
AIRFLOW_DAGS.mkdir(parents=True)
(HOME / "dagster").mkdir()
(HOME / "dagster" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
for name in [name for name in os.environ if name.startswith(("FUSED_", "AIRFLOW", "PREFECT_", "DAGSTER_"))]:
    del os.environ[name]
(HOME / "home").mkdir()
os.environ.update(
    HOME=str(HOME / "home"),
    AIRFLOW_HOME=str(HOME / "airflow"),
    AIRFLOW__CORE__DAGS_FOLDER=str(AIRFLOW_DAGS),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    DAGSTER_HOME=str(HOME / "dagster"),
    PREFECT_HOME=str(HOME / "prefect"),
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="180",
    DO_NOT_TRACK="1",
    FUSED_SYSTEM_TRUST="0",
)

import contextlib  # noqa: E402
import fcntl  # noqa: E402
import json  # noqa: E402
import shutil  # noqa: E402
import socket  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from typing import Any, NamedTuple  # noqa: E402
from urllib.parse import urlsplit  # noqa: E402

import pytest  # noqa: E402
import requests  # noqa: E402

try:
    import hypothesis
except ImportError:  # beside an orchestrator alone
    pass
else:
    # The same examples each time, so that no run fails by luck; HYPOTHESIS_PROFILE=random looks for new ones, by hand. No
    # deadline: a busy machine is no failure.
    hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
    hypothesis.settings.register_profile("random", deadline=None, print_blob=True)
    hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))

from fused_cache_ops import FusedClient  # noqa: E402
from fused_cache_ops.demo.pipelines import PIPELINES  # noqa: E402
from fused_cache_ops.emulator import Assumptions, Emulator, H3Table, Udf  # noqa: E402


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The groups first, and those of Prefect before all: a group is run by one process, and must not be what is left to run
    at the end."""
    groups = {item: next((mark.args[0] for mark in item.iter_markers("xdist_group")), "") for item in items}
    items.sort(key=groups.__getitem__, reverse=True)  # which leaves the order within a group as it is


@pytest.fixture
def udf(fused_emulator: Emulator) -> Udf:
    """A UDF named ``roads``, with four cached tiles."""
    registered = fused_emulator.register(lambda **parameters: parameters, name="roads")
    fused_emulator.fill_cache(registered, [(1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)])
    return registered


@pytest.fixture
def client(fused_emulator: Emulator) -> Iterator[FusedClient]:
    """A client that knows its instance, so that only invalidations are sent for a UDF's id."""
    with FusedClient(client_id=fused_emulator.client_id, deadline=20) as client:
        yield client


SECRET = "Zq7Xw9Kt3Vb5Lm1R"
PIECE = 6  # characters, that must not be seen either

ADDRESSES = {
    "signature": "https://127.0.0.1:9/data/a{end}?X-Amz-Signature={secret}",
    "password": "https://me:{secret}@127.0.0.1:9/data/a{end}",
    "token in a query": "https://127.0.0.1:9/a{end}?token={secret}&x=1",
    "password of a store": "s3://key:{secret}@bucket/a{end}",
    "chained": "simplecache::https://me:{secret}@127.0.0.1:9/a{end}",
    "path of a drive": "abfs://me:{secret}@account/a{end}",
}


@pytest.fixture(params=ADDRESSES)
def planted(request: pytest.FixtureRequest) -> Callable[..., str]:
    """The address of something that cannot be read, with a secret in it. Its end can be given."""
    return lambda end="": ADDRESSES[request.param].format(end=end, secret=SECRET)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Announce without trying again."""
    monkeypatch.setattr("fused_cache_ops.sending.call.PATIENCE", 0.2)


@pytest.fixture
def leaked() -> Callable[[str], set[str]]:
    """Which pieces of the secret are in a text."""
    pieces = {SECRET[at : at + PIECE] for at in range(len(SECRET) - PIECE + 1)}
    return lambda text: pieces & {text[at : at + PIECE] for at in range(len(text))}


DBT_FILES = Path(__file__).parent / "core" / "dbt"


@pytest.fixture
def dbt_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The target folder of examples/dbt after its first build, in which one parcel changed."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "city" / "target"
    shutil.copytree(DBT_FILES / "first", folder)
    (folder / "changed_parcels.csv").write_text("z,x,y\n14,7776,6278\n")
    return folder


@pytest.fixture
def dbt_udfs(fused_emulator: Emulator) -> dict[str, Udf]:
    """The UDFs that its exposures name. Each has the changed tile in its cache, and another one."""
    made = {name: fused_emulator.register(dict, name=name) for name in ("parcels", "streets", "prices", "prices_legend")}
    for udf in made.values():
        fused_emulator.fill_cache(udf, [(14, 7776, 6278), (14, 0, 0)])
    return made


@pytest.fixture
def table() -> dict[str, str]:
    """What the UDFs read."""
    return {"load": "old"}


@pytest.fixture
def loader(fused_emulator: Emulator, table: dict[str, str]) -> Udf:
    """A hidden, cached loader, in a canvas whose maps run on another instance than the preferred one."""
    fused_emulator.add_instance("fused-maps")
    fused_emulator.add_canvas("land", access_scope="public", share_client_id="fused-maps")
    return fused_emulator.register(
        lambda **parameters: table["load"], name="loader", canvas="land", visible=False, code="def udf():\n    return 1\n"
    )


@pytest.fixture
def parcels(fused_emulator: Emulator, loader: Udf) -> Udf:
    """The visible UDF that draws what the loader returns, and keeps a result of its own."""

    def draw(z: int, x: int, y: int) -> str:
        return str(fused_emulator.load("loader")(region="all"))

    code = 'def udf(bounds):\n    return fused.load("loader")(region="all")\n'
    return fused_emulator.register(draw, name="parcels", canvas="land", code=code)


@pytest.fixture
def inner(fused_emulator: Emulator, loader: Udf, table: dict[str, str]) -> Udf:
    """A UDF whose function keeps what it read, in a folder of its own."""
    read = fused_emulator.cache(cache_folder_path="land_inner")(lambda: table["load"])
    code = """
import fused

@fused.udf
def udf(bounds):
    @fused.cache(cache_folder_path="land_inner")
    def read():
        return 1
    return read()
"""
    return fused_emulator.register(lambda **tile: read(), name="inner", canvas="land", code=code)


@pytest.fixture
def hexes(fused_emulator: Emulator) -> tuple[H3Table, Udf]:
    """An H3 table whose rows the index does not have yet, and the UDF that draws it, of which a result is cached."""
    fused_emulator.add_canvas("land", access_scope="public")
    table = fused_emulator.add_h3_table("s3://lake/hexes/", "old")
    udf = fused_emulator.register(lambda **tile: table.query(), name="hexes", canvas="land")
    requests.get(fused_emulator.tile_url(udf, 1, 0, 0), timeout=120)
    table.write("new")
    table.run_seconds = 1.0
    return table, udf


@pytest.fixture
def slow(fused_emulator: Emulator, loader: Udf, table: dict[str, str]) -> Iterator[tuple[Udf, threading.Event]]:
    """A UDF with a run under way, which read the table before the load, and stores its result once it is let go."""
    reading, go = threading.Event(), threading.Event()

    def run_slowly(**parameters: Any) -> str:
        found = table["load"]
        if not go.is_set():
            reading.set()
            assert go.wait(120)
        return found

    udf = fused_emulator.register(run_slowly, name="slow", canvas="land", code="def udf():\n    return 1\n")
    url = fused_emulator.tile_url(udf, 1, 0, 0)
    visitor = threading.Thread(target=lambda: requests.get(url, timeout=120), daemon=True)
    visitor.start()
    assert reading.wait(120)
    table["load"] = "new"
    yield udf, go
    go.set()
    visitor.join(120)


def _write_prices(path: Path, bounds: Any) -> None:
    """An Icechunk repository, of which one chunk is within the bounds of a tile."""
    import icechunk
    import zarr

    repo = icechunk.Repository.create(icechunk.local_filesystem_storage(str(path)))
    session = repo.writable_session("main")
    group = zarr.group(store=session.store)
    group.create_array("price", shape=(2, 2), chunks=(1, 1), dtype="f4", dimension_names=("lat", "lon"))
    for name, middle in (("lat", (bounds.north + bounds.south) / 2), ("lon", (bounds.west + bounds.east) / 2)):
        group.create_array(name, shape=(2,), dtype="f8", dimension_names=(name,))[:] = [middle, middle + 0.01]
    repo.create_branch("shown", session.commit("All prices"))


@pytest.fixture
def parcel_sources(
    fused_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Callable[[], set[str]]:
    """What the examples load: a delivery for DuckDB, a Delta table, an H3 dataset, an Icechunk repository, a folder, a raster.
    Returns which parcels are still cached."""
    import deltalake
    import duckdb
    import geopandas
    import h3
    import mercantile
    import numpy
    import pyarrow
    import rasterio
    import rasterio.transform
    import shapely

    from fused_cache_ops.changes import folder_listing

    if "icechunk" in request.node.name and sys.version_info < (3, 11):
        pytest.skip("Icechunk needs Python 3.11")

    names = ("kept", "new", "sold", "hex", "price", "height")
    tiles = {name: mercantile.Tile(7782 + 30 * number, 6285, 14) for number, name in enumerate(names)}
    wkb = {name: shapely.to_wkb(shapely.box(*mercantile.bounds(tile)).buffer(-0.002)) for name, tile in tiles.items()}
    database, delivery, delta, hexes = (tmp_path / name for name in ("p.duckdb", "new.parquet", "delta", "hexes"))
    with duckdb.connect(str(database)) as connection:
        connection.sql("CREATE TABLE parcels (id VARCHAR, geometry BLOB)")
        connection.sql(f"COPY (SELECT 'new' AS id, unhex('{wkb['new'].hex()}') AS geometry) TO '{delivery}'")
    rows = pyarrow.table({"id": ["kept", "sold"], "geometry": pyarrow.array([wkb["kept"], wkb["sold"]], pyarrow.binary())})
    deltalake.write_deltalake(str(delta), rows, configuration={"delta.enableChangeDataFeed": "true"})
    bounds = mercantile.bounds(tiles["hex"])
    cell = h3.latlng_to_cell((bounds.north + bounds.south) / 2, (bounds.west + bounds.east) / 2, 8)
    (hexes / "date=2026-11-22").mkdir(parents=True)
    (hexes / "date=2026-11-22" / f"{cell}.parquet").touch()
    files, shown = tmp_path / "files", tmp_path / "shown.json"
    files.mkdir()
    for name in ("kept", "sold"):
        geopandas.GeoDataFrame(geometry=[shapely.from_wkb(wkb[name])], crs=4326).to_parquet(files / f"{name}.parquet")
    shown.write_text(json.dumps(folder_listing(files, footprints=True)))
    places = {"PARCELS_DATABASE": database, "PARCELS_DELIVERY": delivery, "PARCELS_DELTA": delta, "PARCELS_HEXES": hexes}
    places |= {"PARCELS_FOLDER": files, "PARCELS_SHOWN": shown}
    if sys.version_info >= (3, 11):
        _write_prices(tmp_path / "icechunk", mercantile.bounds(tiles["price"]))
    where: Any = {"crs": "EPSG:4326", "transform": rasterio.transform.from_bounds(*mercantile.bounds(tiles["height"]), 16, 16)}
    with rasterio.open(tmp_path / "heights.tif", "w", width=16, height=16, count=1, dtype="uint8", **where) as raster:
        raster.write(numpy.zeros((1, 16, 16), "uint8"))
    places |= {"PARCELS_ICECHUNK": tmp_path / "icechunk", "PARCELS_RASTER": tmp_path / "heights.tif"}
    for variable, path in places.items():
        monkeypatch.setenv(variable, str(path))
    udf = fused_emulator.register(lambda **tile: tile, name="parcels")
    fused_emulator.fill_cache(udf, [(tile.z, tile.x, tile.y) for tile in tiles.values()])
    return lambda: {name for name, tile in tiles.items() if (tile.z, tile.x, tile.y) in fused_emulator.cached_tiles(udf)}


@pytest.fixture
def seen(fused_emulator: Emulator) -> Callable[[Udf], Any]:
    """What the map shows of a UDF's tile 1/0/0."""
    return lambda udf: requests.get(fused_emulator.tile_url(udf, 1, 0, 0), timeout=120).json()


@pytest.fixture
def deletes(fused_emulator: Emulator) -> Callable[[], int]:
    """How many invalidations of single tiles and whole UDFs have been sent."""
    return lambda: sum(request.method == "DELETE" for request in fused_emulator.requests)


SDK_SERVER = """
import json, os, sys, traceback, warnings
warnings.simplefilter("ignore")
import fused
from fused.api import FusedAPI
for line in sys.stdin:
    task = json.loads(line)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(task[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            os.environ.clear()
            os.environ.update(task["environment"])
            exec(task["code"], {"fused": fused, "FusedAPI": FusedAPI, "json": json})
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

SDK_PREAMBLE = """
fused.options.base_url = {base_url!r}
fused.options.shared_udf_base_url = {run_base_url!r}
def source(udf, **parameters):
    answer = fused.run(udf, _return_response=True, **parameters)
    return answer.cache_source and answer.cache_source.value
def refusal(call):
    try:
        call()
    except Exception as error:
        return f"{{type(error).__name__}}: {{error}}"
"""


@pytest.fixture(scope="session")
def sdk_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A process that has imported the real SDK, which takes seconds, and runs each snippet in a fork of its own."""
    environment = os.environ | {"HOME": str(tmp_path_factory.mktemp("sdk"))}
    with subprocess.Popen(
        [sys.executable, "-c", SDK_SERVER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        yield server


@pytest.fixture
def sdk(fused_emulator: Emulator, tmp_path: Path, sdk_server: subprocess.Popen[str]) -> Callable[..., Any]:
    """Run lines of Python with the real SDK, in a process and home of its own. Returns their ``result``."""
    assert sdk_server.stdin is not None
    assert sdk_server.stdout is not None
    commands, answers = sdk_server.stdin, sdk_server.stdout

    def run(lines: str, *, token: str | None = None, **names: Any) -> Any:
        preamble = SDK_PREAMBLE.format(base_url=fused_emulator.base_url, run_base_url=fused_emulator.root_url)
        given = "".join(f"{name} = {value!r}\n" for name, value in names.items())
        environment = os.environ | {"HOME": str(tmp_path), "FUSED_SYSTEM_TRUST": "0"}
        if token is None:
            environment |= {"FUSED_AUTH_TOKEN_TYPE": "Fused-Service-Token", "FUSED_AUTH_TOKEN": fused_emulator.token}
        else:  # as after a login
            credentials = tmp_path / ".fused" / "credentials"
            credentials.parent.mkdir(exist_ok=True)
            login = {"access_token": token, "auth_scheme": "Bearer", "refresh_token": "none", "id_token": "none", "scope": ""}
            credentials.write_text(json.dumps(login | {"expires_in": 3600, "expires_at": "2999-01-01T00:00:00+00:00"}))
        task = {
            "code": f"{preamble}{given}{lines}\nprint(json.dumps(result))",
            "environment": environment,
            "stdout": str(tmp_path / "stdout"),
            "stderr": str(tmp_path / "stderr"),
        }
        commands.write(f"{json.dumps(task)}\n")
        commands.flush()
        assert answers.readline().strip() == "0", (tmp_path / "stderr").read_text()
        return json.loads((tmp_path / "stdout").read_text().splitlines()[-1])

    return run


@pytest.fixture
def when() -> Callable[..., threading.Thread]:
    """``when(condition, action)`` acts as soon as a condition holds, in a thread: no test guesses how long that takes."""

    def start(condition: Callable[[], object], action: Callable[[], object]) -> threading.Thread:
        def wait() -> None:
            end = time.monotonic() + 120
            while not condition():
                assert time.monotonic() < end
                time.sleep(0.01)
            action()

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        return thread

    return start


@pytest.fixture(scope="session")
def shared_templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the orchestrators' fresh databases: each is made once, and copied for every test that needs its own. The
    processes of a run share it."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "templates"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def templates(shared_templates: Path, request: pytest.FixtureRequest) -> Path:
    """The same folder, with the database of the orchestrator that the test is run for."""
    _make_template(request.getfixturevalue("name"), shared_templates)
    return shared_templates


def _make_template(name: str, templates: Path) -> Path | None:
    pipeline = PIPELINES[name]
    if pipeline.database is None:
        return None
    made = templates / pipeline.database
    with (templates / f"{name}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            home = templates / name
            home.mkdir(exist_ok=True)
            environment = os.environ | {f"{name.upper()}_HOME": str(home)}
            done = subprocess.run(pipeline.migrate, env=environment, check=False, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            (home / pipeline.database).replace(made)
    return made


def fresh_database(name: str, home: Path, templates: Path) -> Path:
    """An orchestrator's fresh database in its home."""
    made = _make_template(name, templates)
    assert made is not None
    return Path(shutil.copy(made, home))


@pytest.fixture(scope="session")
def airflow_database(shared_templates: Path) -> Path:
    """Airflow's own database, ready for `dag.test()`."""
    return fresh_database("airflow", Path(os.environ["AIRFLOW_HOME"]), shared_templates)


@pytest.fixture(scope="session")
def install_dag(airflow_database: Path) -> Callable[[Path], Path]:
    """Copies a file of DAGs to where `dag.test()` finds it, in the words of the Airflow that is installed."""
    from airflow import __version__

    def copy(source: Path) -> Path:
        text = source.read_text()
        if __version__.startswith("2."):
            text = re.sub(
                r"^from airflow.sdk import (Asset, Metadata, )?dag, task.*$",
                "from airflow.decorators import dag, task\n"
                "from airflow.datasets import Dataset as Asset\n"
                "from airflow.datasets.metadata import Metadata",
                text,
                flags=re.MULTILINE,
            )
            text = text.replace("triggering_asset_events", "triggering_dataset_events")
            text = text.replace("airflow.timetables.assets", "airflow.timetables.datasets")
            text = text.replace("AssetOrTimeSchedule", "DatasetOrTimeSchedule").replace("assets=[TABLE]", "datasets=[TABLE]")
        target = AIRFLOW_DAGS / source.name
        target.write_text(text)
        return target

    return copy


@pytest.fixture(scope="session")
def prefect_api(pytestconfig: pytest.Config) -> Iterator[None]:
    """Prefect's test server, one for all tests of its group."""
    from prefect.settings import PREFECT_API_URL  # importing Prefect takes seconds
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        # Prefect leaves a client open in each flow run (``prefect.results``, which asks for the server's default storage).
        port = urlsplit(PREFECT_API_URL.value()).port
        pytestconfig.addinivalue_line("filterwarnings", rf"ignore:Exception ignored in. <socket\.socket .*raddr=.*, {port}\)")
        yield


@pytest.fixture(scope="session")
def end_process() -> Callable[[subprocess.Popen[bytes]], None]:
    """Ends a process: kindly, and if that takes too long on a busy machine, at once."""
    return _end


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class PrefectServer(NamedTuple):
    """A real server: its API's URL, its home, and the environment for the processes that are to use it."""

    url: str
    home: Path
    environment: dict[str, str]


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory, shared_templates: Path) -> Iterator[PrefectServer]:
    """`prefect server start`, for what other processes have to reach."""
    import httpx

    home = tmp_path_factory.mktemp("prefect-server")
    fresh_database("prefect", home, shared_templates)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    environment = os.environ | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",  # seconds: SQLite takes its time where several write
        "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(600):
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/health").is_success:
                    break
            assert server.poll() is None, (home / "server.log").read_text()
            time.sleep(0.2)
        yield PrefectServer(url, home, environment)
    finally:
        _end(server)


@pytest.fixture
def what_happened() -> Callable[[str], set[str]]:
    """The rows of a README's table "What is red, and what stays green", by what happened."""

    def rows(orchestrator: str) -> set[str]:
        text = (Path(__file__).parents[1] / orchestrator / "README.md").read_text()
        table = text.partition("What is red, and what stays green:\n\n")[2].partition("\n\n")[0]
        return {row.split("|")[1].strip() for row in table.splitlines()[2:]}

    return rows


@pytest.fixture
def always_cached(fused_emulator: Emulator) -> Callable[[str], None]:
    """Lets a tile come from the cache, whatever is invalidated."""

    def keep(tile: str) -> None:
        headers = Assumptions().memory_headers
        fused_emulator.misbehave(status=200, headers=headers, body={}, path=f"/run/tiles/{tile}", times=None)

    return keep
