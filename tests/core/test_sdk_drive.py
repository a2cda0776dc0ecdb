"""Fused's own SDK deletes inner caches and indexes H3 tables in the emulator: it is the judge of these endpoints."""

from collections.abc import Callable
from typing import Any

import pytest

from fused_cache_ops.emulator import Emulator

Sdk = Callable[..., Any]


@pytest.fixture
def inner(fused_emulator: Emulator) -> Callable[[], Any]:
    """A function with an inner cache in the folder ``roads``, of which there is another one beside it."""
    table = iter(range(100))
    fused_emulator.cache(cache_folder_path="roads_old")(lambda: 0)()
    return fused_emulator.cache(cache_folder_path="/roads/")(lambda: next(table))


def test_the_sdk_deletes_an_inner_cache_by_its_folder(fused_emulator: Emulator, inner: Callable[[], Any], sdk: Sdk) -> None:
    before = [inner(), inner()]
    sdk('result = fused.api.delete("/mount/fused-system/cached_data/roads")')
    assert (before, inner()) == ([0, 0], 1)
    assert [(request.method, request.path, request.scheme) for request in fused_emulator.requests][-2:] == [
        ("POST", "/server/v1/efs/fused-team/list", "Fused-Service-Token"),
        ("DELETE", "/server/v1/efs/fused-team/delete-dir", "Fused-Service-Token"),
    ]


def test_the_sdk_lists_and_deletes_the_files_of_an_inner_cache(
    fused_emulator: Emulator, inner: Callable[[], Any], sdk: Sdk
) -> None:
    inner()
    lines = """
folders = fused.api.list("/mount/fused-system/cached_data")
(entry,) = fused.api.list("/mount/fused-system/cached_data/roads")
(file,) = fused.api.list(entry, details=True)
fused.api.delete(file.url)
result = [folders, file.is_directory, file.size > 0, refusal(lambda: fused.api.list(entry))]
"""
    folders, is_directory, has_size, refused = sdk(lines)
    assert [folder.partition("/fused-system/")[2] for folder in folders] == ["cached_data/roads_old", "cached_data/roads"]
    assert (is_directory, has_size) == (False, True)
    assert "404" in refused or "not found" in refused


def test_the_sdk_indexes_an_h3_table(fused_emulator: Emulator, sdk: Sdk) -> None:
    table = fused_emulator.add_h3_table("s3://lake/hexes/", "old")
    table.write("new")
    lines = """
before = fused.h3.index_status("s3://lake/hexes/")
run = fused.h3.index("s3://lake/hexes/", prefix="date=2026-11-22")
after = fused.h3.index_status("s3://lake/hexes/")
result = [run.status(), before["status"], before["indexed_as_of"] < after["indexed_as_of"],
          fused.h3.index_status("s3://lake/unknown/")]
"""
    assert sdk(lines) == ["succeeded", "ready", True, None]
    assert table.query() == "new"
    assert table.runs[0]["prefix"] == "date=2026-11-22"


def test_the_sdk_is_refused_a_second_run_and_sees_one_fail(fused_emulator: Emulator, sdk: Sdk) -> None:
    table = fused_emulator.add_h3_table("s3://lake/hexes/", "old")
    table.run_seconds = None
    table.start()
    lines = """
result = [refusal(lambda: fused.h3.index("s3://lake/hexes/")), fused.h3.index_status("s3://lake/hexes/")["indexing"]]
"""
    refused, going = sdk(lines)
    assert table.runs[0]["id"] in refused
    assert going
    table.run_fails = "a file is no Parquet"
    table.finish()
    table.run_seconds = 0
    lines = 'run = fused.h3.index("s3://lake/hexes/")\nresult = [run.status(), run.error()]'
    assert sdk(lines) == ["failed", "a file is no Parquet"]
    assert table.query() == "old"


def test_the_sdk_keeps_a_callers_results_in_a_folder_named_after_the_udf(fused_emulator: Emulator, sdk: Sdk) -> None:
    fused_emulator.assumptions.service_token_is_user = True
    code = "@fused.udf\ndef udf(n: int = 0):\n    return 1\n"
    double = fused_emulator.register(lambda n: 2 * int(n), name="double", code=code)
    lines = """
import os, pathlib
from fused._options import options
options.cache_directory = pathlib.Path(os.environ["HOME"]) / "cached_data"
fused.submit(fused.load(udf_id), [{"n": 2}], collect=False).results()
result = sorted(folder.name for folder in options.cache_directory.iterdir())
"""
    assert sdk(lines, udf_id=double.id) == ["run-double"]


def test_the_sdk_lists_a_folder_of_an_object_store_with_sizes_and_times(fused_emulator: Emulator, sdk: Sdk) -> None:
    fused_emulator.add_file("s3://lake/parcels/date=1/a.parquet", b"12345")
    fused_emulator.add_file("s3://lake/parcels/b.parquet")
    fused_emulator.add_file("s3://lake/parcels_old/c.parquet")
    lines = """
found = fused.api.list("s3://lake/parcels/", details=True)
(deep,) = fused.api.list("s3://lake/parcels/date=1/", details=True)
result = [[(each.file_name, each.is_directory) for each in found], deep.url, deep.size, deep.last_modified.year > 2000,
          refusal(lambda: fused.api.list("s3://lake/gone/", details=True))]
"""
    folders, url, size, has_time, refused = sdk(lines)
    assert folders == [["date=1", True], ["b.parquet", False]]
    assert (url, size, has_time) == ("s3://lake/parcels/date=1/a.parquet", 5, True)
    assert "not found" in refused
