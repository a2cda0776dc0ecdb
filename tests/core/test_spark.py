"""Tiles of Spark's tables, without Spark: what an executor does with a batch, and what is read of a DataFrame. Real jobs are in
tests/spark_jobs.py."""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
import shapely

from fused_cache_ops import (
    CacheMap,
    ConfigurationError,
    FusedClient,
    InvalidInputError,
    UnavailableError,
    invalidate_cache,
    invalidate_dataset,
    plan_invalidation,
)
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.selection.frames import marked_text, our_error
from fused_cache_ops.spark import _How, changed_tiles, cover, tiles

POINTS = [shapely.Point(-9.14 + number / 50, 38.72) for number in range(30)]
WKB = [each.wkb for each in POINTS]


def how(kind: str = "geometry", columns: tuple[str, ...] = ("g",), **keywords: Any) -> _How:
    known: dict[str, Any] = {"zooms": (10, 11, 12), "buffer": 0, "max_tiles": 10_000, "max_zoom": 29}
    return _How(kind, {**known, **keywords}, columns)


def covered(columns: dict[str, Any], of: _How, *, unplaced: bool = False) -> list[Any]:
    """What an executor returns for a batch, checked as Spark does, which takes columns by position and only of this type."""
    found: list[Any] = []
    for batch in cover([pa.record_batch(columns)], how=of, unplaced=unplaced):
        assert batch.schema.names == ["z", "x", "y"]
        assert set(batch.schema.types) == {pa.int32()}
        found += list(zip(*(batch.column(axis).to_pylist() for axis in range(3))))
    return found


def single(**selection: Any) -> set[Any]:
    return {tuple(tile) for tile in plan_invalidation("udf", **selection).tiles()}


EXPECTED = single(geometry=[each.__geo_interface__ for each in POINTS], zooms="10-12")


@pytest.mark.parametrize(
    ("columns", "of"),
    [
        ({"p0": WKB}, how(crs="EPSG:4326")),
        ({"p0": [each.wkt for each in POINTS]}, how(crs="EPSG:4326")),
        ({"p0": [each.x for each in POINTS], "p1": [each.y for each in POINTS]}, how("coordinates", ("lon", "lat"), crs=4326)),
        ({"p0": WKB, "p1": pa.array([4326] * 30, pa.int32())}, how()),
        ({"p0": WKB, "p1": pa.array([0] * 30, pa.int32())}, how()),
    ],
    ids=["binary", "text", "coordinates", "own type", "own type without a system"],
)
def test_an_executor_covers_as_this_machine_does(columns: Any, of: _How) -> None:
    found = covered(columns, of)
    assert set(found) == EXPECTED
    assert len(found) == len(EXPECTED)  # each once


def test_an_executor_covers_cells_as_this_machine_does() -> None:
    cells = [0x8A393306001FFFF, 0x8A39330600EFFFF]
    found = covered({"p0": pa.array(cells, pa.int64())}, how("cells", ("cell",), render_resolution=None))
    assert set(found) == single(cells=cells, zooms="10-12")


def test_each_reference_system_of_a_column_is_read() -> None:
    meters = shapely.Point(-1_017_460, 4_679_000)
    batch = {"p0": [WKB[0], meters.wkb], "p1": pa.array([4326, 3857], pa.int32())}
    near = single(geometry=meters.wkt, crs="EPSG:3857", zooms="10-12")
    assert set(covered(batch, how())) == single(geometry=POINTS[0].__geo_interface__, zooms="10-12") | near


def test_a_large_area_comes_in_batches() -> None:
    box = shapely.box(-10, 36, -6, 42).wkb
    sizes = [
        len(batch)
        for batch in cover([pa.record_batch({"p0": [box]})], how=how(zooms=(14,), crs=4326, max_tiles=10**6), unplaced=False)
    ]
    assert len(sizes) >= 1
    assert max(sizes) <= 200_000
    assert sum(sizes) == plan_invalidation("udf", bounds=(-10, 36, -6, 42), zooms=14).tile_count


def test_rows_without_a_place_are_said_only_where_they_have_changed() -> None:
    batch = {"p0": pa.array([None, WKB[0]], pa.binary())}
    assert (None, None, None) not in covered(batch, how(crs=4326))
    assert covered(batch, how(crs=4326), unplaced=True).count((None, None, None)) == 1


def test_the_tiles_of_several_batches_come_once() -> None:
    batches = [pa.record_batch({"p0": WKB}) for _ in range(5)]
    assert sum(len(batch) for batch in cover(batches, how=how(crs=4326), unplaced=False)) == len(EXPECTED)


def test_an_empty_batch_has_no_tiles() -> None:
    assert covered({"p0": pa.array([], pa.binary())}, how(crs=4326)) == []


@pytest.mark.parametrize(
    ("columns", "of", "match"),
    [
        ({"p0": [b"abc"]}, how(crs=4326), "'g' of geometry"),
        ({"p0": WKB[:1]}, how(), "does not say its coordinate reference system"),
        ({"p0": pa.array([1], pa.int64())}, how("cells", ("cell",)), "is not a valid H3 cell"),
        ({"p0": WKB[:1], "p1": pa.array([999_999], pa.int32())}, how(), "EPSG:999999"),
        ({"p0": [shapely.box(-60, -60, 60, 60).wkb]}, how(zooms=(14,), crs=4326), "over max_tiles=10,000"),
    ],
)
def test_the_errors_of_a_row_come_back_as_ours(columns: Any, of: _How, match: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        covered(columns, of)
    # As Spark hands it to the driver: text among text.
    text = f"[PYTHON_EXCEPTION] An exception was thrown:\nTraceback …\nRuntimeError: {caught.value}\n\n\tat org.apache.spark.X"
    error = our_error(Exception(text))
    assert isinstance(error, InvalidInputError)
    assert match in error.message


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ModuleNotFoundError: No module named 'fused_cache_ops'", ConfigurationError),
        ("Job aborted: ExecutorLostFailure", UnavailableError),
        ("FUSED_CACHE_ERROR {not json", UnavailableError),
        ('FUSED_CACHE_ERROR {"kind": "os", "message": "x"}', UnavailableError),
        ('FUSED_CACHE_ERROR {"kind": "Any", "message": "x"}', UnavailableError),
    ],
)
def test_other_errors_of_a_job_say_what_to_do(text: str, kind: type) -> None:
    error = our_error(Exception(text))
    assert type(error) is kind
    assert "Nothing was sent." in error.message


def test_an_error_of_ours_stays_as_it_is() -> None:
    error = InvalidInputError("frame has no column 'G'")
    assert our_error(error) is error


def test_what_an_executor_lacks_is_said_to_be_missing_there() -> None:
    error = our_error(Exception(marked_text(ConfigurationError("This needs shapely."))))
    assert (type(error), error.message) == (ConfigurationError, "On an executor of Spark: This needs shapely.")


def test_what_an_error_of_a_job_quotes_is_masked() -> None:
    text = "cannot read s3://me:hunter2secret@bucket/a?X-Amz-Signature=abc123"
    assert "hunter2" not in our_error(Exception(text)).message
    assert "abc123" not in our_error(Exception(text)).message


# -- DataFrames as tiles -----------------------------------------------------------------------------------------


class DataFrame:
    """What is used of a DataFrame when it is read."""

    def __init__(self, table: Any, failure: str | None = None) -> None:
        self._table, self._failure = table, failure
        self.columns = table.schema.names
        self.read = 0

    def mapInArrow(self) -> None:  # noqa: N802
        raise AssertionError

    def select(self, *names: str) -> "DataFrame":
        own = DataFrame(self._table.select(names), self._failure)
        own._count = self._count  # type: ignore[method-assign]
        return own

    def _count(self) -> None:
        self.read += 1

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        self._count()

        def batches() -> Iterator[Any]:
            yield from self._table.to_batches(max_chunksize=3)
            if self._failure:
                raise ValueError(self._failure)

        return pa.RecordBatchReader.from_batches(self._table.schema, batches()).__arrow_c_stream__(requested_schema)


class ConnectedDataFrame(DataFrame):
    """One of Spark Connect, which has a column for whatever is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return object()


DataFrame.__module__ = "pyspark.sql.dataframe"
ConnectedDataFrame.__module__ = "pyspark.sql.connect.dataframe"
TILES = [(5, x, 3) for x in range(10)]


def frame(rows: list[Any], failure: str | None = None) -> DataFrame:
    types = pa.schema([(name, pa.int32()) for name in ("y", "z", "x")])  # by name, never by position
    return DataFrame(
        pa.table({"y": [r[2] for r in rows], "z": [r[0] for r in rows], "x": [r[1] for r in rows]}, types), failure
    )


def test_a_dataframe_is_read_once_and_sent(fused_emulator: Emulator, udf: Udf) -> None:
    given = frame(TILES)
    fused_emulator.fill_cache(udf, TILES)
    result = invalidate_cache("roads", tiles=given)
    assert result.tiles_invalidated == 10
    assert given.read == 1
    assert not set(TILES) & fused_emulator.cached_tiles(udf)


def test_a_call_that_needs_them_twice_runs_the_job_once(client: FusedClient, udf: Udf, tmp_path: Any) -> None:
    given = frame(TILES)
    how_sent: Any = {"again_after": 0.01, "checkpoint": tmp_path / "record.json", "announce": tmp_path / "map.json"}
    assert client.invalidate_cache(udf.id, tiles=given, **how_sent).second_pass == "done"
    assert given.read == 1


def test_a_job_that_fails_sends_nothing(fused_emulator: Emulator, udf: Udf) -> None:
    failure = marked_text(InvalidInputError("column 'g' cannot be read"))
    with pytest.raises(InvalidInputError, match=r"^column 'g' cannot be read$"):
        invalidate_cache("roads", tiles=frame(TILES, failure))
    assert fused_emulator.requests == []


def test_a_tile_that_is_none_is_refused(udf: Udf) -> None:
    with pytest.raises(InvalidInputError, match=r"33"):
        invalidate_cache("roads", tiles=frame([(5, 33, 1)]))


def test_a_shard_of_a_dataframe_is_refused(fused_emulator: Emulator, udf: Udf) -> None:
    with pytest.raises(InvalidInputError, match=r"pass shard to fused_cache_ops\.spark\.tiles"):
        invalidate_cache("roads", tiles=frame(TILES), shard=(0, 2))
    assert fused_emulator.requests == []


@pytest.mark.parametrize(("rows", "left"), [([(None, None, None)], 0), ([], 4)])
def test_a_row_of_nulls_says_that_what_has_no_place_changed(
    fused_emulator: Emulator, udf: Udf, rows: list[Any], left: int
) -> None:
    cache_map = CacheMap.from_dict({"datasets": {"lake": {"udfs": [{"udf": "roads", "whole_udf": True}]}}})
    invalidate_dataset("lake", cache_map=cache_map, tiles=frame(rows))
    assert len(fused_emulator.cached_tiles(udf)) == left


@pytest.mark.parametrize("kind", [DataFrame, ConnectedDataFrame])
def test_other_columns_of_tiles_are_read(udf: Udf, kind: Any) -> None:
    given = kind(pa.table({"tile": ["1/0/0", "1/0/1"]}))
    assert plan_invalidation("roads", tiles=given).tile_count == 2
    assert invalidate_cache("roads", tiles=given).tiles_invalidated == 2


@pytest.mark.parametrize(
    "call", [tiles, lambda given, **how: changed_tiles(given, given, **how)], ids=["tiles", "changed_tiles"]
)
def test_what_is_no_dataframe_is_refused(call: Any) -> None:
    with pytest.raises(InvalidInputError, match="not a DataFrame of Spark"):
        call(pa.table({"g": WKB}), zooms=3)


def test_what_an_executor_is_told_can_be_sent_to_it() -> None:
    import pickle

    assert pickle.loads(pickle.dumps(how(crs="EPSG:4326"))) == how(crs="EPSG:4326")
    assert pickle.loads(pickle.dumps(cover)) is cover
    assert json.loads(marked_text(InvalidInputError("a\n'b'")).partition(" ")[2])["message"] == "a\n'b'"
