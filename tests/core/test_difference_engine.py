"""What a comparison of two states needs: memory, temporary files, and time. And how it reads files with unusual names."""

import contextlib
import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import shapely

from fused_cache_ops import ConfigurationError, InvalidInputError
from fused_cache_ops.changes import changed_geometry, engine
from fused_cache_ops.changes.engine import Engine
from fused_cache_ops.selection.reading import read_selection

ROWS = 100_000
GIVEN: Any = {"geometry_column": "geometry", "crs": "EPSG:4326"}


def rows(count: int = ROWS, **more: Any) -> pa.Table:
    ids = pa.array(range(count))
    texts = pa.array([f"{number:01000}" for number in range(count)])
    return pa.table({"id": ids, "text": texts, "geometry": pa.array([shapely.to_wkb(shapely.Point(1, 2))] * count), **more})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two states of 100 MB, which have other places and texts for the same keys."""
    folder = tmp_path_factory.mktemp("states")
    paths = [str(folder / name) for name in ("before.parquet", "after.parquet")]
    old = rows()
    new = old.set_column(1, "text", pa.array([f"{number:01000}" for number in range(1, ROWS + 1)]))
    for path, state in zip(paths, (old, new)):
        pyarrow.parquet.write_table(state, path, row_group_size=2000)
    return paths


def points(*places: tuple[int, int], **columns: Any) -> pa.Table:
    shapes = [shapely.to_wkb(shapely.Point(place)) for place in places]
    return pa.table({"id": range(len(places)), "geometry": pa.array(shapes, pa.binary()), **columns})


def places(table: Any) -> set[tuple[float, float]]:
    return {shape.coords[0] for shape in shapely.from_wkb(table["geometry"].to_pylist())}


# Memory and temporary files


def test_what_does_not_fit_into_memory_is_written_to_a_folder_that_is_removed(tmp_path: Path, files: list[str]) -> None:
    folder = tmp_path / "not" / "yet" / "there"
    found = changed_geometry(*files, memory_limit="80MB", temporary_directory=folder, **GIVEN)
    assert found.num_rows == ROWS
    assert list(folder.iterdir()) == []


def test_a_memory_limit_that_is_too_small_is_named_with_the_largest_block(files: list[str]) -> None:
    with pytest.raises(
        ConfigurationError, match=r"does not fit into memory_limit = '4MB', .*: raise it.* has \d+ MiB"
    ) as caught:
        changed_geometry(*files, memory_limit="4MB", **GIVEN)
    assert not caught.value.retryable


def test_one_thread_is_tried_where_two_need_too_much(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    run = Engine._run

    def short_at_first(self: Engine, sql: str) -> None:
        ran.append(sql)
        if "FULL JOIN" in sql and "SET threads = 1" not in ran:
            raise self._duckdb.OutOfMemoryException("Out of Memory Error: failed to allocate data")
        run(self, sql)

    monkeypatch.setattr(Engine, "_run", short_at_first)
    assert changed_geometry(points((1, 1)), points((2, 2)), **GIVEN).num_rows == 2
    assert "SET threads = 1" in ran


def test_a_full_disk_is_named_and_may_be_retried(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_SETTINGS", (*engine._SETTINGS, "max_temp_directory_size = '1MB'"))
    with pytest.raises(
        ConfigurationError, match=r"no room for temporary files in .*: free some, name another folder"
    ) as caught:
        changed_geometry(*files, memory_limit="80MB", **GIVEN)
    assert caught.value.retryable


@pytest.mark.parametrize("limit", ["lots", True, 0, -1, 1.5, "None"])
def test_what_is_no_amount_of_memory_is_refused(limit: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"memory_limit = '?{limit}'? is not an amount of memory"):
        changed_geometry(points((1, 1)), points((1, 1)), memory_limit=limit, **GIVEN)


@pytest.mark.parametrize("limit", ["1GB", "512 MiB", 10**9])
def test_an_amount_of_memory_is_text_or_a_number_of_bytes(limit: Any) -> None:
    assert changed_geometry(points((1, 1)), points((1, 1)), memory_limit=limit, **GIVEN).num_rows == 0


def test_the_default_heeds_the_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text("1000000000\n")
    monkeypatch.setattr(engine, "_LIMITS", (str(limit), str(tmp_path / "nothing")))
    assert engine._checked_limit(None) == "500000000B"
    limit.write_text("max\n")
    assert int(engine._checked_limit(None)[:-1]) > 0


@pytest.mark.parametrize("folder", ["", "None", 5])
def test_a_temporary_directory_given_by_mistake_is_refused(folder: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"temporary_directory = .* is not a path"):
        changed_geometry(points((1, 1)), points((1, 1)), temporary_directory=folder, **GIVEN)


def test_a_temporary_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"temporary_directory = .*file/below' cannot be used"):
        changed_geometry(points((1, 1)), points((1, 1)), temporary_directory=str(tmp_path / "file" / "below"), **GIVEN)


def test_without_the_extra_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ConfigurationError, match="duckdb is not installed: install fused-cache-ops with the extra changes"):
        changed_geometry(points((1, 1)), points((1, 1)), **GIVEN)


# Progress


def test_a_long_comparison_reports_its_progress_and_ends_when_it_is_interrupted() -> None:
    class Interrupted(BaseException):
        pass

    seen: list[float] = []

    def report(fraction: float) -> None:
        seen.append(fraction)
        raise Interrupted

    running = Engine(None, None, report)
    with pytest.raises(Interrupted), contextlib.closing(running):
        running.run("SELECT count(*) FROM range(1000000000000) a, range(1000000) b")
    assert len(seen) == 1
    assert 0 <= seen[0] <= 1


# As a stream


def test_the_places_come_as_a_stream_where_that_is_asked_for(tmp_path: Path, files: list[str]) -> None:
    found = changed_geometry(*files, temporary_directory=tmp_path, stream=True, **GIVEN)
    assert isinstance(found, pa.RecordBatchReader)
    assert len(list(tmp_path.iterdir())) == 1
    assert sum(batch.num_rows for batch in found) == ROWS
    assert list(tmp_path.iterdir()) == []


def test_a_stream_that_is_dropped_leaves_nothing_behind(tmp_path: Path, files: list[str]) -> None:
    found = changed_geometry(*files, temporary_directory=tmp_path, stream=True, **GIVEN)
    del found
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_stream_is_what_geometry_takes() -> None:
    found = changed_geometry(points((1, 1)), points((2, 2)), stream=True, **GIVEN)
    assert read_selection(geometry=found, zooms=8).tiles_per_zoom() == {8: 2}  # type: ignore[union-attr]


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    twice = pa.concat_tables([points((1, 1))] * 2)
    with pytest.raises(InvalidInputError, match="several rows with the same key"):
        changed_geometry(twice, points((1, 1)), temporary_directory=tmp_path, **GIVEN)
    assert list(tmp_path.iterdir()) == []


# Names


@pytest.mark.parametrize("name", ["o'brien.parquet", "all*.parquet", "a[1].parquet", 'x"; DROP.parquet', "date=2026/a.parquet"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    pyarrow.parquet.write_table(points((1, 1), (2, 2)), path)
    assert places(changed_geometry(path, points((1, 1), (3, 3)), **GIVEN)) == {(2, 2), (3, 3)}


@pytest.mark.parametrize("names", [("Name", "name"), ('a"b', "c'd"), ("k0", "g"), ("", "select"), ("é", "É")])
@pytest.mark.parametrize("as_file", [False, True])
def test_a_column_may_have_any_name(tmp_path: Path, names: tuple[str, str], as_file: bool) -> None:
    old = points((1, 1), (2, 2), **{names[0]: [1, 2], names[1]: ["a", "b"]})
    new = points((1, 1), (2, 2), **{names[1]: ["a", "c"], names[0]: [1, 2]})
    states: Any = [old, new]
    if as_file:
        states = [tmp_path / "old.parquet", tmp_path / "new.parquet"]
        for state, path in zip((old, new), states):
            pyarrow.parquet.write_table(state, path)
    assert places(changed_geometry(*states, **GIVEN)) == {(2, 2)}
    assert places(changed_geometry(*states, columns=[names[0]], **GIVEN)) == set()


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, files: list[str]) -> None:
    path = tmp_path / "cut.parquet"
    whole = Path(files[0]).read_bytes()
    path.write_bytes(whole[:100_000] + bytes(200_000) + whole[300_000:])
    with pytest.raises(InvalidInputError, match="before and after cannot be compared: "):
        changed_geometry(path, files[1], **GIVEN)


def test_a_stream_that_fails_is_an_error(files: list[str]) -> None:
    def broken() -> Iterator[Any]:
        yield points((1, 1)).to_batches()[0]
        raise OSError("gone")

    reader = pa.RecordBatchReader.from_batches(points((1, 1)).schema, broken())
    with pytest.raises(OSError, match="gone"):
        changed_geometry(reader, points((1, 1)), **GIVEN)
