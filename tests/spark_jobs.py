"""Jobs of a real Spark, on two executors in processes of their own, held against the same work on this machine. Run by
scripts/spark."""

import datetime
import decimal
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import shapely
from pyspark.sql import SparkSession

from fused_cache_ops import FusedCacheError, FusedClient, InvalidInputError, plan_invalidation
from fused_cache_ops.changes import changed_geometry
from fused_cache_ops.emulator import Emulator
from fused_cache_ops.spark import changed_tiles, our_error, tiles

EXAMPLE = Path(__file__).parents[1] / "examples" / "spark" / "invalidate_after_load.py"
ROWS = 20_000_000
LISBON = (-9.3, 38.6)


def session(master: str = "local-cluster[2,1,1024]") -> SparkSession:
    made = (
        SparkSession.builder.master(master)
        .config("spark.executor.memory", "700m")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "8")
        .config("spark.ui.showConsoleProgress", "false")
        .getOrCreate()
    )
    made.sparkContext.setLogLevel("OFF")
    return made


def numbers(frame: Any) -> set[tuple[int, int, int]]:
    """The tiles of a DataFrame, each of which must come once."""
    rows = [(row.z, row.x, row.y) for row in frame.collect()]
    assert len(rows) == len(set(rows)), "a tile came twice"
    return set(rows)


def single(**selection: Any) -> set[Any]:
    return {tuple(tile) for tile in plan_invalidation("udf", **selection).tiles()}


def memory() -> int:
    """The most memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def refused(make: Callable[[], Any], words: str) -> None:
    """A call that must end in an error of ours, before anything is sent."""
    said = outcome(lambda: plan_invalidation("udf", tiles=make()))
    assert isinstance(said, FusedCacheError), f"not refused: {words}"
    assert words in said.message, said.message
    print(f"    {type(said).__name__}: {said.message[:150]}")


def outcome(act: Callable[[], Any]) -> Any:
    """What a call returned or raised."""
    try:
        return act()
    except Exception as error:
        return error


def points(spark: Any, count: int = 500) -> tuple[Any, list[Any]]:
    places = [shapely.Point(LISBON[0] + number % 40 / 100, LISBON[1] + number // 40 / 100) for number in range(count)]
    rows = [(number, each.wkb, each.wkt, each.x, each.y) for number, each in enumerate(places)]
    return spark.createDataFrame(rows, "id int, binary binary, text string, lon double, lat double"), places


def types(spark: Any) -> None:
    """Every form of a place, and shards."""
    frame, places = points(spark)
    expected = single(geometry=[each.__geo_interface__ for each in places], zooms="10-14", buffer=1)
    how: Any = {"zooms": "10-14", "buffer": 1}
    own = frame.selectExpr("id", "st_geomfromwkb(binary, 4326) as place")
    forms = {
        "binary": tiles(frame, geometry_column="binary", crs="EPSG:4326", **how),
        "text": tiles(frame, geometry_column="text", crs="EPSG:4326", **how),
        "coordinates": tiles(frame, geometry_column=("lon", "lat"), crs="EPSG:4326", **how),
        "Spark's own type": tiles(own, **how),
    }
    for name, made in forms.items():
        assert numbers(made) == expected, name
    nowhere = spark.createDataFrame([(float("nan"), LISBON[1])], "lon double, lat double")
    beside = nowhere.unionAll(frame.select("lon", "lat"))  # in a partition of its own
    assert numbers(tiles(beside, geometry_column=("lon", "lat"), crs="EPSG:4326", **how)) == expected
    shards = [numbers(tiles(own, shard=(number, 3), **how)) for number in range(3)]
    assert set().union(*shards) == expected
    assert sum(map(len, shards)) == len(expected)
    ids = ["8a39330600effff", "8a393306001ffff", "89393306003ffff"]
    cells = spark.createDataFrame(
        [(each, int(each, 16), decimal.Decimal(int(each, 16))) for each in ids], "t string, n long, d decimal(20,0)"
    )
    for column in "tnd":
        assert numbers(tiles(cells, cells_column=column, zooms="8-12")) == single(cells=ids, zooms="8-12"), column
    plan = plan_invalidation("udf", tiles=forms["binary"])
    assert {tuple(tile) for tile in plan.tiles()} == expected
    print(
        f"    {len(forms)} forms of a geometry, 3 of a cell and 3 shards: the same {len(expected):,} tiles as on this machine"
    )


def states(spark: Any) -> None:
    """Two states with every type, held against `changed_geometry`."""
    frame, _ = points(spark)
    before = frame.selectExpr(
        *("id", "binary", "lon as number", "cast(id as float) as real", "text"),
        *("array(id, 2) as list", "struct(id as a, 'x' as b) as struct"),
        *("date'2026-11-22' as day", "timestamp'2026-11-22 06:30:00' as moment"),
        *("cast(id as decimal(12,3)) as money", "id % 2 = 0 as flag"),
    )
    moved = "case when id = 3 then unhex(hex((select binary from f where id = 400))) else binary end as binary"
    before.createOrReplaceTempView("f")
    changes = {
        "number": "case when id = 5 then 1.5d when id = 6 then double('NaN') else number end as number",
        "text": "case when id = 7 then null else text end as text",
        "list": "case when id = 8 then array(id, 3) else list end as list",
        "struct": "case when id = 9 then struct(id as a, 'y' as b) else struct end as struct",
        "money": "case when id = 10 then cast(0 as decimal(12,3)) else money end as money",
    }
    columns = [moved if name == "binary" else changes.get(name, name) for name in before.columns]
    after = (
        before.where("id not in (20, 21)")
        .selectExpr(*columns)
        .unionAll(before.where("id = 30").selectExpr("9999 as id", *before.columns[1:]))
    )
    ours = numbers(changed_tiles(before, after, key="id", geometry_column="binary", crs=4326, zooms=16))
    with tempfile.TemporaryDirectory() as folder:
        for name, each in (("before", before), ("after", after)):
            pyarrow.parquet.write_table(each.toArrow(), f"{folder}/{name}.parquet")
        found = changed_geometry(f"{folder}/before.parquet", f"{folder}/after.parquet", geometry_column="binary", crs=4326)
        theirs = single(geometry=found, zooms=16)
    assert ours == theirs, ours ^ theirs
    only = numbers(changed_tiles(before, after, key="id", columns=["text"], geometry_column="binary", crs=4326, zooms=16))
    assert only < ours
    assert numbers(changed_tiles(before, before, key="id", geometry_column="binary", crs=4326, zooms=16)) == set()
    unplaced = before.selectExpr("id", "cast(null as binary) as binary", "number")
    other = unplaced.selectExpr("id", "binary", "number + 1 as number")
    [row] = changed_tiles(unplaced, other, key="id", geometry_column="binary", crs=4326, zooms=16).collect()
    assert (row.z, row.x, row.y) == (None, None, None)
    more = frame.selectExpr(
        "id", "binary", "map('a', id, 'b', 2) as m", "parse_json('{\"a\": 1}') as v", "make_ym_interval(1, id) as i"
    )
    same = frame.selectExpr(
        "id", "binary", "map('b', 2, 'a', id) as m", "parse_json('{ \"a\" : 1 }') as v", "make_ym_interval(1, id) as i"
    )
    assert numbers(changed_tiles(more, same, key="id", geometry_column="binary", crs=4326, zooms=16)) == set()
    print(f"    {len(before.columns)} types: the same {len(ours)} tiles as changed_geometry; maps by entries, variants by text")


def errors(spark: Any) -> None:
    """What is wrong comes back in our words, and nothing is sent."""
    frame, _ = points(spark, 20)
    bad = spark.createDataFrame([(1, b"abc")], "id int, g binary")
    refused(lambda: tiles(bad, zooms=14, geometry_column="g", crs=4326), "column 'g' of geometry")
    refused(lambda: tiles(bad, zooms=14, geometry_column="h", crs=4326), "no column 'h'")
    refused(lambda: tiles(frame, zooms=14, geometry_column="binary"), "does not say its coordinate reference system")
    refused(lambda: tiles(frame, zooms=14, geometry_column="binary", crs="EPSG:999999"), "EPSG:999999")
    refused(lambda: tiles(frame.selectExpr("1L as cell"), zooms=14, cells_column="cell"), "is not a valid H3 cell")
    twice = frame.unionAll(frame)
    refused(
        lambda: changed_tiles(twice, frame, key="id", geometry_column="binary", crs=4326, zooms=14),
        "before has several rows with the same key",
    )
    refused(lambda: changed_tiles(frame, frame, key=None, geometry_column="binary", crs=4326, zooms=14), "key = None")
    nothing = frame.selectExpr("cast(null as int) as id", "binary", "text", "lon", "lat")
    refused(
        lambda: changed_tiles(frame, nothing, key="id", geometry_column="binary", crs=4326, zooms=14),
        "after has rows whose key id is null",
    )
    counted = outcome(lambda: tiles(bad, zooms=14, geometry_column="g", crs=4326).count())
    assert isinstance(our_error(counted), InvalidInputError), counted


def many(spark: Any) -> None:
    """20,000,000 rows, sent to the emulator in flat memory, beside a tenth of them on this machine alone."""
    how: Any = {"geometry_column": ("lon", "lat"), "crs": 4326, "zooms": "8-18", "max_tiles": 10**7}

    def rows(count: int) -> Any:
        places = "-9.5d + (id * 7919 % 1000003) / 1000003d as lon", "38.2d + (id * 104729 % 1000033) / 1000033d as lat"
        return spark.range(count).selectExpr("id", *places)

    with Emulator() as emulator:
        udf = emulator.register(dict, name="roads")
        settings: Any = {"token": emulator.token, "base_url": emulator.base_url, "client_id": emulator.client_id}
        with FusedClient(**settings, deadline=3000) as client:
            for count in (ROWS // 10, ROWS):
                frame = rows(count)
                counted, began = frame.count(), time.monotonic()
                result = client.invalidate_cache(udf.id, tiles=tiles(frame, **how))
                took = time.monotonic() - began
                sent = f"{counted:,} rows, {result.tiles_invalidated:,} tiles sent in {took:.0f} s"
                print(f"    {sent}; most memory of the driver's Python so far: {memory()} MiB", flush=True)
    part = rows(ROWS // 10)
    table = part.select("lon", "lat").toArrow()
    began = time.monotonic()
    here = single(geometry=table, **how)
    alone = time.monotonic() - began
    assert numbers(tiles(part, **how)) == here
    print(f"    of {ROWS // 10:,} rows the same {len(here):,} tiles as on this machine alone, in {alone:.0f} s")


def executors() -> list[int]:
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [int(line.split()[0]) for line in listed if "CoarseGrainedExecutorBackend" in line and "/bin/java" in line]


def killed(spark: Any) -> None:
    """An executor is killed while a job runs."""
    frame = spark.range(4_000_000, numPartitions=16).selectExpr(
        "-9.5d + (id % 10007) / 10007d as lon", "38.2d + (id % 10009) / 10009d as lat"
    )
    how: Any = {"geometry_column": ("lon", "lat"), "crs": 4326, "zooms": "8-16"}
    expected = tiles(frame, **how).count()
    found: list[Any] = []

    def plan() -> None:
        try:
            found.append(plan_invalidation("udf", tiles=tiles(frame, **how)).tile_count)
        except FusedCacheError as error:
            found.append(error)

    job = threading.Thread(target=plan)
    job.start()
    time.sleep(3)
    running = executors()
    assert len(running) == 2, running
    assert job.is_alive(), "the job ended before an executor could be killed"
    os.kill(running[0], signal.SIGKILL)
    job.join()
    print(f"    executor {running[0]} was killed: {found[0]!r} of {expected:,} tiles")
    assert found == [expected] or isinstance(found[0], FusedCacheError)


def without_the_package(_: Any) -> None:
    """Executors whose Python does not have the package."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([f"{folder}/bin/pip", "install", "--quiet", "pyarrow", "pandas<3"], check=True)
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import spark_jobs; spark_jobs.lacking()"
        environment = {**os.environ, "PYSPARK_PYTHON": f"{folder}/bin/python"}
        # In a folder of its own: executors on this machine find what lies in the working folder.
        subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=folder)


def lacking() -> None:
    spark = session("local[2]")
    frame, _ = points(spark, 5)
    refused(lambda: tiles(frame, zooms=14, geometry_column="binary", crs=4326), "does not have fused-cache-ops")
    spark.stop()


def submitted(_: Any) -> None:
    """The example, by spark-submit."""
    with tempfile.TemporaryDirectory() as folder, Emulator() as emulator:
        udf = emulator.register(dict, name="roads", canvas="maps")
        for name, x in (("before", -9.14), ("after", -9.11)):
            rows = [[1, 2], [shapely.Point(-8.5, 38.5).wkb, shapely.Point(x, 38.72).wkb]]
            pyarrow.parquet.write_table(pyarrow.table(rows, names=["id", "geometry"]), f"{folder}/{name}.parquet")
        moved = single(geometry="MULTIPOINT (-9.14 38.72, -9.11 38.72)", crs="EPSG:4326", zooms="8-16")
        emulator.fill_cache(udf, [*moved, (16, 0, 0)])
        command = [f"{Path(sys.executable).parent}/spark-submit", "--master", "local[2]", str(EXAMPLE)]
        arguments = [f"{folder}/before.parquet", f"{folder}/after.parquet", "maps/roads"]
        environment = {**os.environ, **emulator.environment(), "SPARK_LOCAL_IP": "127.0.0.1"}
        done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        assert emulator.cached_tiles(udf) == {(16, 0, 0)}
        print(f"    {done.stdout.strip().splitlines()[-1]}")


def connect(_: Any) -> None:
    """The same calls over Spark Connect, in a process of their own."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import spark_jobs; spark_jobs.connected()"
    subprocess.run([sys.executable, "-c", code], check=True)


def connected() -> None:
    spark = SparkSession.builder.remote("local[2]").getOrCreate()
    types(spark)
    states(spark)
    errors(spark)
    spark.stop()


OF_THEIR_OWN = (without_the_package, submitted, connect)
"""The parts that make a session of their own."""

PARTS: dict[str, Callable[[Any], None]] = {each.__name__: each for each in (types, states, errors, many, killed, *OF_THEIR_OWN)}

if __name__ == "__main__":
    began = datetime.datetime.now()
    wanted = sys.argv[1:] or list(PARTS)
    own = {each.__name__ for each in OF_THEIR_OWN}
    spark = session() if set(wanted) - own else None
    for part in wanted:
        if part in own and spark is not None:
            spark.stop()
            spark = None
        print(f"{part}: {(PARTS[part].__doc__ or '').strip()}", flush=True)
        PARTS[part](spark)
    if spark is not None:
        spark.stop()
    print(f"All right, in {(datetime.datetime.now() - began).seconds} s.")
