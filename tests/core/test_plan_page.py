"""The page of a plan and its picture: colors, outlines, the view, what it may load, and what a notebook shows."""

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from fused_cache_ops import (
    CacheMap,
    DatasetResult,
    FusedClient,
    InvalidationResult,
    plan_dataset,
    plan_invalidation,
)
from fused_cache_ops.cli.commands import program
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.errors import FusedCacheError, InvalidInputError
from fused_cache_ops.plan.drawing import View, outline
from fused_cache_ops.tiles.blocks import Block

BOUNDS = (-9.2, 38.65, -9.05, 38.8)
TILES = "https://tiles.example.com/{z}/{x}/{y}.png"
FIJI = (176, -20, -178, -15)


def page(basemap: str | None = None, **selection: Any) -> str:
    return plan_invalidation("roads", **(selection or {"bounds": BOUNDS, "zooms": "10-14"})).to_html(basemap)


def policy(shown: str) -> str:
    found = re.search(r'Content-Security-Policy" content="([^"]*)"', shown)
    assert found is not None
    return found[1].replace("&#x27;", "'")


# -- colors -------------------------------------------------------------------------------------------------------------


def test_the_colors_of_the_legend_are_those_of_the_map() -> None:
    looks: dict[str, set[tuple[str, ...]]] = {}
    for zoom, kind, fill, stroke in re.findall(r'<path class="(z\d+) (\w+)" d="[^"]*" fill="(\S+)" stroke="(\S+)"/>', page()):
        looks.setdefault(zoom, set()).add((kind, fill, stroke))
    assert list(map(len, looks.values())) == [1] * 5
    assert page().count('class="z14 fill"') == 2


def test_only_the_deepest_zoom_is_filled_and_nothing_is_translucent() -> None:
    picture = plan_invalidation("roads", bounds=BOUNDS, zooms="10-14").to_svg()
    layers = ElementTree.fromstring(picture).findall(".//*[@class='footprint']/{*}path")
    assert {layer.get("class"): layer.get("fill") != "none" for layer in layers} == {
        "z14 fill": True,
        **{f"z{zoom} line": False for zoom in range(10, 14)},
    }
    assert "opacity" not in picture


def luminance(color: str) -> float:
    channels = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    linear = (each / 12.92 if each <= 0.03928 else ((each + 0.055) / 1.055) ** 2.4 for each in channels)
    return sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), linear))


def is_monotonous(values: Iterable[float]) -> bool:
    found = list(values)
    return found in (sorted(found), sorted(found, reverse=True))


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
def test_the_colors_are_one_scale_that_stands_out_from_land_and_sea(is_dark: bool) -> None:
    from fused_cache_ops.plan.drawing import STYLE, colors

    grounds = re.findall(r"\.(?:sea|land) \{ fill: (#\w+)", STYLE)[2 * is_dark :][:2]
    scale = [luminance(color[is_dark]) for color in colors(range(15)).values()]
    assert is_monotonous(scale)
    for ground in map(luminance, grounds):
        assert all((max(one, ground) + 0.05) / (min(one, ground) + 0.05) > 3 for one in scale)


# -- outlines -----------------------------------------------------------------------------------------------------------


def test_the_outline_of_adjacent_blocks_has_no_line_between_them() -> None:
    assert sorted(outline([Block(9, 0, 0, 1, 2), Block(9, 1, 0, 1, 2)])) == [
        (0, 0, 0, 2),
        (0, 0, 2, 0),
        (0, 2, 2, 2),
        (2, 0, 2, 2),
    ]


def test_the_outline_of_long_rows_is_that_of_the_same_area_in_columns() -> None:
    rows = outline([Block(9, 0, row, 4, 1) for row in range(3)])
    columns = outline([Block(9, column, 0, 1, 3) for column in range(4)])
    assert sorted(rows) == sorted(columns)


def test_an_outline_goes_around_a_hole() -> None:
    around = [Block(9, 0, 0, 3, 1), Block(9, 0, 1, 1, 1), Block(9, 2, 1, 1, 1), Block(9, 0, 2, 3, 1)]
    assert {(1, 1, 2, 1), (1, 2, 2, 2), (1, 1, 1, 2), (2, 1, 2, 2)} <= set(outline(around))


def test_the_outline_of_overlapping_blocks_is_that_of_their_union() -> None:
    assert sorted(outline([Block(9, 0, 0, 2, 2), Block(9, 1, 0, 2, 2)])) == sorted(outline([Block(9, 0, 0, 3, 2)]))


# -- the view -----------------------------------------------------------------------------------------------------------


def test_the_view_crosses_the_antimeridian_by_the_shorter_way() -> None:
    view = View.of(plan_invalidation("roads", bounds=FIJI, zooms=9).footprint())
    west, south, east, north = view.bounds()
    assert 170 < west < 176 < 182 < east < 188
    assert south < -20 < -15 < north


def test_the_view_of_the_world_is_the_world() -> None:
    view = View.of(plan_invalidation("roads", bounds=(-180, -85, 180, 85), zooms="0-3").footprint())
    assert (view.x, view.y, view.width, view.height) == (0, 0, 1, 1)


def test_a_city_is_not_a_dot_in_a_coarse_tile() -> None:
    view = View.of(plan_invalidation("roads", bounds=BOUNDS, zooms="4-14").footprint())
    west, _, east, _ = view.bounds()
    assert east - west < 1
    assert 4 in view.beyond
    assert "wider than the map" in page(bounds=BOUNDS, zooms="4-14")


def test_coarse_tiles_elsewhere_are_in_the_view() -> None:
    view = View.of(plan_invalidation("roads", tiles=["14/7782/6285", "5/20/12"]).footprint())
    assert view.beyond == ()
    assert view.overlaps(Block(5, 20, 12, 1, 1))


def test_a_large_part_of_the_world_is_drawn_over_its_land() -> None:
    assert 'class="land"' in page(bounds=(-30, 20, 40, 60), zooms=5).split("<aside>")[0]


def test_the_coast_is_drawn_over_what_is_filled() -> None:
    shown = page(bounds=(-180, -85, 180, 85), zooms=3)
    assert shown.index('z3 fill"') < shown.index('class="coast"')


def test_a_small_part_of_the_world_has_a_small_map_that_shows_where_it_is() -> None:
    drawn, aside = page().split("<aside>")
    assert 'class="land"' not in drawn
    assert 'class="here"' in aside


def test_a_page_of_many_scattered_tiles_is_small() -> None:
    tiles = [(18, 123_000 + number * 7919 % 60_000, 101_000 + number * 104_729 % 40_000) for number in range(100_000)]
    plan = plan_invalidation("roads", tiles=tiles)
    assert len(plan.to_html(TILES)) < 3_000_000
    assert "drawn at" in plan.to_html()


# -- the basemap --------------------------------------------------------------------------------------------------------


def test_without_a_basemap_the_page_may_load_and_run_nothing() -> None:
    assert re.fullmatch(r"default-src 'none'; style-src 'sha256-\S+'", policy(page()))


def test_the_policy_allows_exactly_the_style_and_script_of_the_page() -> None:
    shown = page(TILES)
    allowed = policy(shown)
    for text in (shown.split("<style>")[1].split("</style>")[0], shown.rsplit("<script>")[1].split("</script>")[0]):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in allowed
    assert "unsafe" not in allowed
    assert "connect-src https://tiles.example.com;" in allowed
    assert ' style="' not in shown


def test_what_the_page_loads_is_pinned_by_its_hash() -> None:
    loaded = re.findall(r"<(?:script|link)[^>]*https://[^>]*>", page(TILES))
    assert len(loaded) == 2
    assert all('integrity="sha384-' in each and 'crossorigin="anonymous"' in each for each in loaded)


def test_the_drawing_stays_in_the_page_with_a_basemap() -> None:
    drawn = page().split('<section class="card map">')[1].split("</section>")[0]
    assert drawn in page(TILES)


def test_the_map_has_a_layer_for_each_zoom() -> None:
    data = json.loads(page(TILES).split('id="plan">')[1].split("</script>")[0])
    assert [layer["zoom"] for layer in data["layers"]] == [14, 10, 11, 12, 13]
    assert data["style"]["sources"]["basemap"]["tiles"] == [TILES]


def test_a_style_is_loaded_by_its_address() -> None:
    shown = page("http://127.0.0.1:8000/style.json")
    assert '"style":"http://127.0.0.1:8000/style.json"' in shown
    assert "connect-src https: http://127.0.0.1:8000;" in policy(shown)


def test_an_address_cannot_end_the_script() -> None:
    shown = page("https://tiles.example.com/</script><script>alert(1)</script>/style.json")
    assert "<script>alert" not in shown


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("", "must begin with https://"),
        ("tiles/{z}/{x}/{y}.png", "must begin with https://"),
        ("javascript:alert(1)", "must begin with https://"),
        ("http://tiles.example.com/{z}/{x}/{y}.png", "unencrypted"),
        ("https://tiles.example.com/{z}/{x}.png", r"\{z\}, \{x\} and \{y\} once each"),
        ("https://tiles.example.com/{z}/{x}/{y}/{key}", "no other placeholder"),
        ("https://tiles.example.com/{z}/{x}/{y}/{", "braces"),
        ("https://{s}.example.com/{z}/{x}/{y}", "host"),
        ("https://kärte.example.com;x/style.json", "punycode"),
        (7, "type int"),
    ],
    ids=str,
)
def test_a_basemap_that_is_no_address_is_refused(address: Any, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        page(address)


@pytest.mark.parametrize(
    "address",
    [
        "https://user:s3cret@tiles.example.com/{z}/{x}/{y}.png",
        "https://tiles.example.com/style.json?key=s3cret",
        "https://tiles.example.com/style.json#s3cret",
        "https://www.fused.io/server/v1/realtime-shared/fsh_s3cret/run/tiles/{z}/{x}/{y}",
    ],
)
def test_a_basemap_with_credentials_is_refused_and_never_shown(address: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        page(address)
    assert "s3cret" not in str(caught.value)


runner = CliRunner()


def test_the_command_writes_a_page_with_a_basemap(tmp_path: Path) -> None:
    written = tmp_path / "plan.html"
    options = ["--bounds=-9.2,38.65,-9.05,38.8", "--zooms", "12", "--html", str(written), "--basemap", TILES]
    done = runner.invoke(program, ["plan", "roads", *options])
    assert done.exit_code == 0, done.output
    assert TILES in written.read_text(encoding="utf-8")


def test_the_command_refuses_a_basemap_without_a_page() -> None:
    done = runner.invoke(program, ["plan", "roads", "--whole-udf", "--basemap", TILES])
    assert done.exit_code != 0
    assert "--html" in done.output


# -- in a notebook ------------------------------------------------------------------------------------------------------


def result(**changed: Any) -> InvalidationResult:
    return InvalidationResult("<id>", "c", 1_234, 5, 2, 0, 1.5, client_ids=("c",), **changed)


def test_a_plan_shows_its_counts_and_its_map_in_a_notebook() -> None:
    shown = plan_invalidation("<roads>", bounds=BOUNDS, zooms="10-14")._repr_html_()
    picture = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', shown)
    assert picture is not None
    assert ElementTree.fromstring(base64.b64decode(picture[1])).tag.endswith("svg")
    assert "&lt;roads&gt;" in shown
    assert len(shown) < 60_000


@pytest.mark.parametrize("selection", [{}, {"tiles": []}], ids=["whole UDF", "nothing"])
def test_a_plan_without_tiles_shows_no_map_in_a_notebook(selection: dict[str, Any]) -> None:
    shown = plan_invalidation("roads", **selection)._repr_html_()
    assert "<img" not in shown
    assert ("everything" in shown) == (not selection)


def test_a_result_shows_in_a_notebook(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    shown = client.invalidate_cache("roads", bounds=BOUNDS, zooms="10-12")._repr_html_()
    assert udf.id in shown
    assert "cached objects deleted" in shown


def test_every_text_of_a_result_is_escaped_in_a_notebook() -> None:
    shown = result(note="<script>", warnings=("<b>stale</b>",))._repr_html_()
    assert "1,234" in shown
    assert not {"<script>", "<b>", "<id>"} & set(re.findall(r"<[^>]*>", shown))


def test_a_datasets_result_shows_what_failed_in_a_notebook() -> None:
    failed = {"<two>": FusedCacheError("<no> way")}
    shown = DatasetResult("s3://key:s3cret@bucket/roads", {"one": result()}, failed)._repr_html_()
    assert "&lt;two&gt;" in shown
    assert "failed: FusedCacheError: &lt;no&gt; way" in shown
    assert "s3cret" not in shown


def test_a_datasets_result_shows_what_stayed_stale_in_a_notebook() -> None:
    coarser = result(note="zooms 13 and 14 stay stale", zooms_left_stale=(13, 14))
    assert "invalidated. zooms 13 and 14 stay stale" in DatasetResult("roads", {"one": coarser})._repr_html_()


def test_a_datasets_plan_shows_in_a_notebook() -> None:
    udfs = [{"udf": "one", "zooms": "10-12"}, {"udf": "two", "zooms": "0-12", "max_tiles": 1}]
    cache_map = CacheMap.from_dict({"datasets": {"roads": {"udfs": udfs}}})
    shown = plan_dataset("roads", cache_map=cache_map, bounds=BOUNDS)._repr_html_()
    assert "refused" in shown
    assert "one" in shown


def test_what_a_notebook_shows_has_no_script_and_no_color_of_its_own() -> None:
    shown = result()._repr_html_() + plan_invalidation("roads", tiles=["1/0/0"])._repr_html_().split("<img")[0]
    assert not re.search(r"<script|<style|color:|background", shown)


def test_a_shared_token_is_not_shown_in_a_notebook() -> None:
    assert "s3cret" not in plan_invalidation("fsh_s3cret", tiles=["1/0/0"])._repr_html_()
