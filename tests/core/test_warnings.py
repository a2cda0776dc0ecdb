"""Warnings that people read: none is missing by default, the most important comes first, what needs no action is one line."""

import logging

import pytest

from fused_cache_ops import FusedClient, invalidate_cache
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.lineage.graph import CallGraph
from fused_cache_ops.lineage.lookup import Lookup
from fused_cache_ops.lineage.report import report_on, warnings_from
from fused_cache_ops.service.canvases import Canvas, UdfRecord

TILE = "3/1/2"
COMMON = "https://github.com/fusedio/udfs/tree/2f41ae1/public/common/"


def register(emulator: Emulator, name: str, code: str) -> Udf:
    return emulator.register(lambda **parameters: parameters, name=name, canvas="maps", code=code)


def warnings_of(udf: str, **codes: str) -> list[str]:
    """The warnings about a UDF of a canvas with these UDFs, if no relatives are invalidated."""
    records = {name: UdfRecord(name, name, canvas_name="maps", code=code) for name, code in codes.items()}
    canvas = Canvas("c", "maps", udfs=tuple(records.values()))
    report = report_on(records[udf], Lookup(records[udf], canvas, ("fused-team",), ()), CallGraph(canvas))
    return list(warnings_from(report, None))


def test_callers_are_named_by_default_however_their_code_is_written(fused_emulator: Emulator) -> None:
    roads = register(fused_emulator, "roads", "@fused.udf\ndef udf():\n    return 1\n")
    codes = {
        "joined": 'P = "ro"\nfused.run(P + "ads")',
        "by_id": f'fused.run("{roads.id.upper()}")',
        "by_token": f'fused.run("{roads.shared_token}")',
        "over_http": f'pd.read_parquet("https://udf.ai/{roads.shared_token}.parquet")',
        "through_another": 'fused.run("joined")',
        "at_run_time": "def udf(name):\n    fused.run(name)",
        "broken": "def udf(:",
    }
    for name, code in codes.items():
        register(fused_emulator, name, code)
    with FusedClient() as client:
        for given in ("maps/roads", roads.shared_token):
            warnings = " ".join(client.invalidate_cache(given, tiles=[TILE]).warnings or ())
            hidden = [name for name in codes if name not in warnings]
            assert hidden == ([] if given == roads.shared_token else ["by_token", "over_http"])


def test_a_call_that_did_not_read_the_canvas_does_not_say_that_there_are_no_callers(
    fused_emulator: Emulator, client: FusedClient
) -> None:
    register(fused_emulator, "roads", "@fused.udf\ndef udf():\n    return 1\n")
    assert client.invalidate_cache("maps/roads", tiles=[TILE]).warnings is None  # its instance is configured
    with FusedClient() as asking:
        assert asking.invalidate_cache("maps/roads", tiles=[TILE]).warnings == ()


def test_libraries_of_which_only_functions_are_called_are_one_line() -> None:
    code = f'a = fused.load("{COMMON}")\nb = fused.load("{COMMON.replace("common", "utils")}")\na.get_tiles()\nb.draw()\n'
    (warning,) = warnings_of("roads", roads=code)
    assert warning.startswith("2 libraries on GitHub")


def test_functions_of_a_library_that_keep_results_are_named_with_folder_and_age() -> None:
    code = f'common = fused.load("{COMMON}")\ndef udf(bounds):\n    return common.read_tiff(bounds, "s3://b/a.tif")\n'
    warning, _ = warnings_of("roads", roads=code)
    assert "common.read_tiff (line 3, folder 'tmp', 7,776,000 s)" in warning


def test_caches_of_one_udf_are_one_line() -> None:
    code = "@fused.cache(cache_folder_path='roads')\ndef a(): ...\n@fused.cache(cache_max_age='1h')\ndef b(): ...\n"
    (warning,) = warnings_of("roads", roads=code)
    assert "a (line 1, folder 'roads', 48h unless set otherwise), b (line 3, folder 'tmp', 3,600 s)" in warning


def test_what_cannot_be_a_call_of_the_udf_is_not_warned_of() -> None:
    assert warnings_of("roads", roads="", other="fused.run('gone')", aged="@fused.udf(cache_max_age=AGE)\ndef udf(): ...") == []


def test_what_is_certain_comes_before_what_is_possible() -> None:
    code = f'fused.load("{COMMON}").get()\nfused.run("fsh_x")\nfused.run(name)\n@fused.cache\ndef a(): ...\n'
    warnings = warnings_of("roads", roads=code, map='fused.run("roads")')
    parts = ("1 caller", "@fused.cache", "fsh_********", "only known at run time", "on GitHub")
    assert [part in warning for part, warning in zip(parts, warnings)] == [True] * 5


def logged_of(fused_emulator: Emulator, caplog: pytest.LogCaptureFixture, *codes: str) -> str:
    register(fused_emulator, "roads", "def udf(): ...")
    for number, code in enumerate(codes):
        register(fused_emulator, f"broken{number}", code)
    caplog.set_level(logging.INFO, "fused_cache_ops")
    result = invalidate_cache("maps/roads", tiles=[TILE])
    assert len(result.warnings or ()) == len(codes)
    (line,) = [record.getMessage() for record in caplog.records if "may stay stale" in record.getMessage()]
    return line


def test_the_log_says_a_reason_once_and_the_result_for_each_udf(
    fused_emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    line = logged_of(fused_emulator, caplog, *["def udf(:"] * 14)
    assert line.count("cannot be parsed") == 1
    assert line.count(", line 1") == 10
    assert "and 4 more: " in line


def test_the_log_has_ten_reasons_and_the_result_has_all(fused_emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    line = logged_of(fused_emulator, caplog, *(f"fused.run(name{number})" for number in range(14)))
    assert line.count("only known at run time") == 10
    assert line.endswith("And 4 more.")


def test_code_that_the_deadline_leaves_no_time_for_is_said_to_be_unknown() -> None:
    records = tuple(UdfRecord(name, name, code="fused.run('roads')") for name in ("roads", "a", "b"))
    late = iter([False, False, True])
    graph = CallGraph(Canvas("c", "maps", udfs=records), is_late=lambda: next(late))
    assert [udf.name for udf in graph.levels("roads", "callers")[0]] == ["a"]
    assert [each.reason for each in graph.nodes["b"].unknown] == ["the deadline left no time to read the code"]


def test_names_from_the_service_are_one_line_without_control_characters(fused_emulator: Emulator) -> None:
    register(fused_emulator, "roads", "def udf(): ...")
    register(fused_emulator, "evil\x1b[2J\n\u202e", "fused.run('roads')")
    with FusedClient() as client:
        report = client.inspect("maps/roads")
        result = client.invalidate_cache("maps/roads", tiles=[TILE])
    assert [each.name for each in report.callers or ()] == ["evil\\x1b[2J\\n\\u202e"]
    assert all(warning.isprintable() for warning in result.warnings or ())
