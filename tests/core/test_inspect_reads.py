"""What inspect finds besides callers: H3 tables with their indexes, layers that draw by bounds, and folders of caches."""

from typing import Any

import pytest
from typer.testing import CliRunner

from fused_cache_ops import FusedClient, invalidate_cache
from fused_cache_ops.cli.commands import program
from fused_cache_ops.code.calls import read_source
from fused_cache_ops.code.layers import tile_layers
from fused_cache_ops.emulator import Emulator, Udf

HEXES = """
import fused

@fused.udf
def udf(bounds: fused.types.Bounds, path: str = "s3://lake/hexes/", date: str = "2026-11-22"):
    base = "s3://lake"
    rows = fused.h3.query(path, bbox=bounds)
    more = fused.h3.query(path=f"{base}/more", bbox=bounds)
    return fused.h3.query(f"s3://lake/{date}", bbox=bounds), fused.h3.grid(path)
"""


def test_the_h3_tables_that_are_queried_are_named_as_far_as_they_are_known() -> None:
    code = HEXES.replace("fused.h3.grid", "other.h3.query")
    assert read_source(code).h3_tables == (("s3://lake/hexes/", 7), ("s3://lake/more", 8), ("s3://lake/2026-11-22", 9))
    assert read_source("from fused import h3\nh3.query(name)\nh3.query()\n").h3_tables == ()


def test_inspect_says_what_their_indexes_have(fused_emulator: Emulator) -> None:
    fused_emulator.register(dict, name="hexes", canvas="maps", code=HEXES)
    table = fused_emulator.add_h3_table("s3://lake/hexes/")
    table.set_indexed(1_795_329_000)
    table.run_seconds = None
    table.start()
    with FusedClient() as client:
        report = client.inspect("maps/hexes")
    assert [(each.path, each.status) for each in report.h3_tables] == [
        ("s3://lake/hexes/", "ready"),
        ("s3://lake/more", "not indexed"),
        ("s3://lake/2026-11-22", "not indexed"),
    ]
    assert (report.h3_tables[0].indexed_as_of, report.h3_tables[0].is_running) == ("2026-11-22T06:30:00+00:00", True)
    assert report.to_dict()["h3_tables"][0]["line"] == 7
    assert "3 H3 tables" in str(report)
    shown = " ".join(CliRunner().invoke(program, ["inspect", "maps/hexes"], env={"COLUMNS": "300"}).stdout.split())
    assert "s3://lake/hexes/ (ready, has what was written until 2026-11-22T06:30:00+00:00, a run is going)" in shown


@pytest.mark.parametrize("status", [403, 422])
def test_an_index_that_the_token_may_not_see_is_not_known(fused_emulator: Emulator, status: int) -> None:
    fused_emulator.register(dict, name="hexes", canvas="maps", code=HEXES)
    fused_emulator.misbehave(status=status, path="/h3/index", times=None)
    with FusedClient() as client:
        report = client.inspect("maps/hexes")
    assert {each.status for each in report.h3_tables} == {None}
    assert sum(f"cannot be looked up ({status})" in str(each) for each in report.unknown) == 3


def test_no_more_than_ten_indexes_are_looked_at(fused_emulator: Emulator) -> None:
    code = "".join(f"fused.h3.query('s3://lake/{number}')\n" for number in range(30))
    fused_emulator.register(dict, name="hexes", canvas="maps", code=code)
    with FusedClient() as client:
        assert len(client.inspect("maps/hexes").h3_tables) == 30
    assert sum("/h3/index" in each.path for each in fused_emulator.requests) == 10


LAYERS = [
    ('{"layers": [{"type": "vector", "udf": "roads", "tile": true}, {"udf": "rails"}]}', [("roads", 1)]),
    ("config = {\n  'layers': [\n    {'udf': 'roads', 'tile': True}]}", [("roads", 3)]),
    ("<fused-map layers='[{ udf: \"{{roads}}\", tile: true }]'></fused-map>", [("roads", 1)]),
    ('f"""{{ "udf": "maps/roads", "style": 1, "tile": true }}"""', [("maps/roads", 1)]),
    ('{"udf": "roads", "tile": false}, {"tile": true, "tileUrl": "x"}, {"udf": "roads"}', []),
    ('{"udf": "roads", "hextile": true}', []),
    ("def udf(): pass", []),
]


@pytest.mark.parametrize(("source", "found"), LAYERS, ids=[row[0][:40] for row in LAYERS])
def test_layers_with_tile_true_are_found_in_code_json_and_html(source: str, found: Any) -> None:
    assert list(tile_layers(source)) == found


def test_a_layer_that_may_ask_without_a_tile_is_named_and_warned_of_where_tiles_are_selected(fused_emulator: Emulator) -> None:
    fused_emulator.register(dict, name="roads", canvas="maps", code="def udf(bounds): ...")
    fused_emulator.register(dict, name="atlas", canvas="maps", code='<fused-map>{"udf": "roads", "tile": true}</fused-map>')
    with FusedClient() as client:
        report = client.inspect("maps/roads")
    assert [str(each) for each in report.layers] == ["atlas, line 1: draws roads"]
    warned = invalidate_cache("maps/roads", tiles=["1/0/0"]).warnings or ()
    assert warned[0].startswith("atlas, line 1: draws roads with tile: true, which may ask for it by bounds")
    assert not any("tile: true" in each for each in invalidate_cache("maps/roads").warnings or ())


@pytest.mark.parametrize(
    ("line", "folders"),
    [
        ("fused.load('roads').map(range(3))", ["run-roads"]),
        ("fused.load('team/roads').map(range(3))", ["run-roads"]),
        ("fused.submit('roads', [1])", ["run-roads"]),
        ("fused.submit(fused.load('roads'), [1])", ["run-roads", "submit-roads"]),
        ("fused.submit('fsh_0123456789abcdef0123456789abcdef', [1])", [None]),
        ("fused.submit(name, [1])", [None]),
        ("fused.submit('roads', [1], cache=False)", []),
    ],
)
def test_the_folder_of_a_caller_s_cache_is_named_after_the_udf_as_the_sdk_does(line: str, folders: list[str | None]) -> None:
    assert [folder for cache in read_source(line).caches for folder in cache.folders] == folders


def test_the_callers_cache_can_be_deleted_by_its_folder(fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.register(dict, name="atlas", canvas="maps", code="fused.load('roads').map([1])\n")
    first = invalidate_cache("maps/atlas").warnings or ()
    assert any("inner_caches=['run-roads'] deletes them" in each for each in first)
    second = invalidate_cache("maps/atlas", inner_caches=["run-roads"]).warnings or ()
    assert not any("run-roads" in each for each in second)


@pytest.mark.parametrize("host", ["udf.ai", "www.udf.ai", "unstable.udf.ai"])
def test_a_udf_that_is_read_over_http_is_a_call_whichever_host_answers(host: str) -> None:
    code = f'pd.read_parquet("https://{host}/fsh_0123456789abcdef0123456789abcdef.parquet?name=a")'
    assert len(read_source(code).loads) == 1
    other = 'pd.read_parquet("https://notudf.ai/fsh_0123456789abcdef0123456789abcdef.parquet")'
    assert read_source(other).loads == ()
