"""The plan: counted before anything is made, limited, and drawn."""

import json
import warnings
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import mercantile
import pytest
import shapely
from typer.testing import CliRunner

from fused_cache_ops import FusedClient, InvalidationPlan, invalidate_cache, plan_invalidation
from fused_cache_ops.cli.commands import program
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.errors import InvalidInputError

BOUNDS = (-9.2, 38.65, -9.05, 38.8)


def test_a_plan_counts_what_is_then_sent(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    plan = plan_invalidation(udf.id, bounds=BOUNDS, zooms="10-15")
    result = client.invalidate_cache(udf.id, bounds=BOUNDS, zooms="10-15")
    assert plan.tile_count == result.tiles_invalidated == sum((plan.tiles_per_zoom or {}).values())
    assert plan.request_count == result.requests_sent


def test_the_estimate_is_near_the_bodies_size() -> None:
    from fused_cache_ops.selection.reading import read_selection

    selection = read_selection(bounds=BOUNDS, zooms="10-17")
    real = sum(len(batch.body()) for batch in selection.batches(50_000))
    plan = plan_invalidation("roads", bounds=BOUNDS, zooms="10-17")
    assert real * 0.9 < plan.estimated_bytes < real * 1.1


def test_a_plan_sends_nothing(fused_emulator: Emulator, udf: Udf) -> None:
    plan = plan_invalidation("roads", bounds=BOUNDS, zooms=12)
    assert isinstance(plan, InvalidationPlan)
    assert fused_emulator.requests == []


def test_a_plan_needs_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUSED_SERVICE_ACCOUNT_TOKEN", raising=False)
    assert plan_invalidation("roads", tiles=["1/0/0"]).tile_count == 1


def test_the_whole_udf_has_no_tiles() -> None:
    plan = plan_invalidation("roads")
    assert (plan.tile_count, plan.tiles_per_zoom, plan.request_count, list(plan.tiles())) == (None, None, 1, [])
    assert "everything" in str(plan)


def test_nothing_is_no_request() -> None:
    plan = plan_invalidation("roads", tiles=[])
    assert (plan.tile_count, plan.request_count) == (0, 0)


def test_tiles_are_new_each_time() -> None:
    plan = plan_invalidation("roads", bounds=BOUNDS, zooms=12)
    assert list(plan.tiles()) == list(plan.tiles())


def test_a_generator_cannot_be_planned() -> None:
    with pytest.raises(InvalidInputError, match="can be read only once"):
        plan_invalidation("roads", tiles=iter(["1/0/0"]))


def test_a_plan_is_json() -> None:
    plan = plan_invalidation("fsh_secret", bounds=BOUNDS, zooms=[10, 12])
    shown = json.dumps(plan.to_dict()) + repr(plan) + str(plan)
    assert "secret" not in shown


@pytest.mark.parametrize(
    "selection",
    [
        {"tiles": ["1/0/0"], "bounds": BOUNDS},
        {"tiles": [], "geometry": []},
        {"bounds": BOUNDS, "geometry": "POINT(0 0)", "zooms": 1},
        {"tiles_file": "x", "tiles": []},
    ],
    ids=str,
)
def test_two_kinds_of_selection_are_refused(selection: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="use one kind of selection at a time"):
        plan_invalidation("roads", **selection)


@pytest.mark.parametrize(
    ("selection", "reason"),
    [
        ({"zooms": 5}, "needs a selection, but there is none"),
        ({"buffer": 1}, "needs a selection, but there is none"),
        ({"bounds": BOUNDS}, "bounds needs zooms"),
        ({"bounds": BOUNDS, "zooms": "None"}, "expected zoom levels"),
        ({"bounds": BOUNDS, "zooms": 5, "buffer": -1}, "buffer"),
        ({"bounds": BOUNDS, "zooms": 5, "buffer": 1.5}, "buffer"),
        ({"bounds": BOUNDS, "zooms": 5, "max_tiles": 0}, "max_tiles"),
        ({"bounds": BOUNDS, "zooms": 5, "when_too_many": "drop"}, "when_too_many"),
        ({"bounds": BOUNDS, "zooms": 31}, "from 0 to 30"),
    ],
    ids=str,
)
def test_keywords_that_make_no_sense_are_refused(selection: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        plan_invalidation("roads", **selection)


@pytest.mark.parametrize("name", ["tiles", "bounds", "geometry", "tiles_file"])
def test_a_selection_of_none_never_means_the_whole_udf(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, name: str
) -> None:
    with pytest.raises(InvalidInputError, match=name):
        client.invalidate_cache("roads", **{name: None, "zooms": 5})
    assert fused_emulator.requests == []


# -- too many -----------------------------------------------------------------------------------------------------------


def test_too_many_fail_with_the_count_and_the_remedies(fused_emulator: Emulator, udf: Udf) -> None:
    with pytest.raises(InvalidInputError) as caught:
        invalidate_cache("roads", bounds=(-180, -90, 180, 90), zooms=[3, 12])
    for part in ("16,777,280 tiles", "max_tiles=1,000,000", "zoom 12: 16,777,216", "whole-udf", "coarser"):
        assert part in str(caught.value)
    assert fused_emulator.requests == []


def test_too_many_become_the_whole_udf_and_the_result_says_so(fused_emulator: Emulator, udf: Udf) -> None:
    with pytest.warns(UserWarning, match="the whole UDF is invalidated instead"):
        result = invalidate_cache("roads", bounds=BOUNDS, zooms=14, max_tiles=10, when_too_many="whole-udf")
    assert result.tiles_invalidated is None
    assert "over max_tiles=10" in (result.note or "")
    assert fused_emulator.cached_tiles(udf) == set()


def test_too_many_become_coarser_and_the_result_says_what_stays_stale(fused_emulator: Emulator, udf: Udf) -> None:
    counts = plan_invalidation("roads", bounds=BOUNDS, zooms="10-15").tiles_per_zoom or {}
    limit = counts[10] + counts[11] + counts[12]
    with pytest.warns(UserWarning, match="zooms 13, 14, 15 are left stale"):
        result = invalidate_cache("roads", bounds=BOUNDS, zooms="10-15", max_tiles=limit, when_too_many="coarser")
    assert (result.tiles_invalidated, result.zooms_left_stale) == (limit, (13, 14, 15))
    assert "13, 14, 15" in str(result)


@pytest.mark.parametrize("way", ["function", "client", "verify_cache", "plan"])
@pytest.mark.parametrize(
    "selection",
    [
        {"bounds": BOUNDS, "zooms": "10-14", "max_tiles": 20, "when_too_many": "coarser"},
        {"geometry": "POLYGON((0 0, 1 1, 1 0, 0 1, 0 0))", "zooms": 3},
    ],
    ids=["too many", "geometry"],
)
def test_a_warning_names_the_callers_line(client: FusedClient, udf: Udf, way: str, selection: dict[str, Any]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if way == "function":
            invalidate_cache("roads", **selection)
        elif way == "client":
            client.invalidate_cache("roads", **selection)
        elif way == "verify_cache":
            client.verify_cache("roads", verify_tiles=1, shared_token=udf.shared_token, **selection)
        else:
            plan_invalidation("roads", **selection)
    assert {warning.filename for warning in caught if warning.category is UserWarning} == {__file__}


def test_coarser_never_leaves_everything_stale() -> None:
    with pytest.raises(InvalidInputError, match="over max_tiles=1"):
        plan_invalidation("roads", bounds=BOUNDS, zooms="12-15", max_tiles=1, when_too_many="coarser")


def test_a_plain_list_is_sent_as_it_is_given() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plan_invalidation("roads", tiles=["1/0/0", "1/0/1"], max_tiles=1).tile_count == 2
    with pytest.raises(InvalidInputError, match="over max_tiles=1"):
        plan_invalidation("roads", tiles=["1/0/0", "1/0/1"], zooms=2, max_tiles=1)


# -- the footprint ------------------------------------------------------------------------------------------------------


def test_the_footprint_is_one_merged_feature_a_zoom() -> None:
    plan = plan_invalidation("roads", bounds=[BOUNDS, (20, 20, 21, 21)], zooms=[9, 12])
    collection = plan.to_geojson()
    assert [feature["properties"]["zoom"] for feature in collection["features"]] == [9, 12]
    for feature in collection["features"]:
        shape = shapely.from_geojson(json.dumps(feature))
        assert shape.geom_type == "MultiPolygon"
        assert shape.is_valid
        assert len(shape.geoms) == 2
        boxes = [mercantile.bounds(tile.x, tile.y, tile.z) for tile in plan.tiles() if tile.z == feature["properties"]["zoom"]]
        assert abs(shape.area - sum((box.east - box.west) * (box.north - box.south) for box in boxes)) < 1e-6


def test_a_fine_footprint_is_drawn_at_a_coarser_zoom() -> None:
    scattered = [(15, 2 * number % 30_000, 2 * (number // 300)) for number in range(30_000)]
    plan = plan_invalidation("roads", tiles=scattered)
    ((zoom, (drawn, blocks)),) = plan.footprint().items()
    assert (zoom, drawn < 15, len(blocks) <= 20_000) == (15, True, True)
    assert {(x >> 15 - drawn, y >> 15 - drawn) for _, x, y in scattered} == {(block.x, block.y) for block in blocks}


@pytest.mark.parametrize(
    "selection",
    [{}, {"tiles": []}, {"tiles": ["15/9647/12320"]}, {"bounds": (-180, -90, 180, 90), "zooms": "0-3"}],
    ids=["whole UDF", "nothing", "one tile", "the world"],
)
def test_every_plan_has_a_page_that_loads_nothing(selection: dict[str, Any]) -> None:
    page = plan_invalidation("roads<script>", **selection).to_html()
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    assert "://" not in page
    assert "nan" not in page.lower().split("<svg")[-1]


def test_the_map_alone_is_a_picture_of_few_rectangles() -> None:
    plan = plan_invalidation("roads", bounds=BOUNDS, zooms=[9, 12])
    picture = ElementTree.fromstring(plan.to_svg())
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(picture.findall(".//*[@class='footprint']/{*}path")) == 2
    scattered = plan_invalidation("roads", tiles=[(15, 2 * number, 2 * (number % 90)) for number in range(5_000)])
    assert 1 < scattered.to_svg(most_blocks=100).count("h-") <= 100
    assert plan_invalidation("roads").to_svg() == plan_invalidation("roads", tiles=[]).to_svg() == ""


# -- on the command line ------------------------------------------------------------------------------------------------

runner = CliRunner()


def test_the_command_prints_counts_and_writes_the_page(tmp_path: Path) -> None:
    page, footprint = tmp_path / "plan.html", tmp_path / "plan.geojson"
    options = ["--bounds", "-9.2,38.65,-9.05,38.8", "--zooms", "10-12", "--html", str(page), "--geojson", str(footprint)]
    done = runner.invoke(program, ["plan", "roads", *options])
    assert done.exit_code == 0, done.output
    assert "would invalidate" in done.stdout
    assert page.read_text().startswith("<!doctype html>")
    assert len(json.loads(footprint.read_text())["features"]) == 3


def test_the_command_lists_tiles_for_other_tools(tmp_path: Path) -> None:
    done = runner.invoke(program, ["plan", "roads", "--geometry", "POINT(0.1 -0.1)", "--zooms", "1-2", "--list"])
    assert done.stdout.split() == ["1/1/1", "2/2/2"]


def test_the_command_reads_a_list_from_standard_input(fused_emulator: Emulator, udf: Udf) -> None:
    done = runner.invoke(program, ["invalidate", "roads", "--tiles-file", "-", "--json"], input="1/0/0\n1/1/1\n")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["objects_deleted"] == 2


@pytest.mark.parametrize("options", [["--bounds", "a,b"], ["--bounds", "1,2,3,4"], ["--geometry", "", "--zooms", "5"]])
def test_the_command_refuses_nonsense(options: list[str]) -> None:
    assert runner.invoke(program, ["plan", "roads", *options]).exit_code in (1, 2)
