"""The demonstration in a browser: what it serves, without a browser. ``scripts/browser --pictures`` looks at it in one."""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from typer.testing import CliRunner

from fused_cache_ops.cli.commands import program
from fused_cache_ops.demo import map as map_module
from fused_cache_ops.demo.map import map_demo
from fused_cache_ops.demo.page import npm_packages
from fused_cache_ops.demo.pictures import SIZE, Picture
from fused_cache_ops.tiles.tile import Tile

ROOT = Path(__file__).parents[2]
LISBON = Tile.containing(-9.14, 38.72, 10)


# -- pictures ---------------------------------------------------------------------------------------------------------------


def pixels(png: bytes) -> list[bytes]:
    """The rows of a picture, as numbers of its palette, with every checksum verified."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    parts, place = {}, 8
    while place < len(png):
        (length,) = struct.unpack_from(">I", png, place)
        name, data = png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        assert struct.unpack_from(">I", png, place + 8 + length) == (zlib.crc32(name + data),)
        parts[name] = data
        place += 12 + length
    assert list(parts) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    assert parts[b"IHDR"] == struct.pack(">IIBBBBB", SIZE, SIZE, 8, 3, 0, 0, 0)
    rows = zlib.decompress(parts[b"IDAT"])
    assert len(rows) == SIZE * (SIZE + 1)
    return [rows[start + 1 : start + 1 + SIZE] for start in range(0, len(rows), SIZE + 1)]


def test_a_picture_has_what_was_drawn_where_it_was_drawn() -> None:
    picture = Picture([(255, 255, 255), (0, 0, 255)])
    picture.circle(100, 50, 5, 1)
    rows = pixels(picture.png())
    drawn = {(x, y) for y, row in enumerate(rows) for x, color in enumerate(row) if color}
    assert drawn == {(x, y) for x in range(90, 111) for y in range(40, 61) if (x - 100) ** 2 + (y - 50) ** 2 <= 25}


@pytest.mark.parametrize(("x", "y"), [(-3, 10), (SIZE + 2, 10), (10, -3), (10, SIZE + 2), (-900, -900), (9000, 9000)])
def test_what_reaches_over_the_edge_of_a_tile_is_cut_off(x: int, y: int) -> None:
    picture = Picture([(255, 255, 255), (0, 0, 255)])
    picture.circle(x, y, 5, 1)
    rows = pixels(picture.png())
    inside = {(left, top) for left in range(SIZE) for top in range(SIZE) if (left - x) ** 2 + (top - y) ** 2 <= 25}
    assert {(left, top) for top, row in enumerate(rows) for left, color in enumerate(row) if color} == inside


def test_numbers_differ_from_one_another() -> None:
    drawn = set()
    for number in range(120):
        picture = Picture([(255, 255, 255), (0, 0, 255)])
        picture.number(number, 4, 4, 3, 1)
        drawn.add(picture.png())
    assert len(drawn) == 120


# -- the page ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The address of the page. MapLibre itself is not needed where nothing draws."""
    (tmp_path / "maplibre-gl/dist").mkdir(parents=True)
    monkeypatch.setattr(map_module, "npm_packages", lambda folder, packages: tmp_path)
    with map_demo() as address:
        yield address


def settings_of(page: str) -> dict[str, Any]:
    text = requests.get(page, timeout=60).text
    settings: dict[str, Any] = json.loads(text.split('id="settings">')[1].split("</script>")[0])
    return settings


def test_a_load_leaves_the_map_stale_until_the_step_invalidates_and_announces(page: str) -> None:
    settings = settings_of(page)
    tile = settings["tiles"].format(z=LISBON.z, x=LISBON.x, y=LISBON.y)
    first = requests.get(tile, timeout=60)
    assert first.headers["cache-control"] == "public, max-age=600"
    assert requests.get(page + settings["announced"], timeout=60).status_code == 404
    loaded = requests.post(f"{page}/load", timeout=60).json()
    assert loaded["rows"] == 7
    assert requests.get(tile, timeout=60).content == first.content  # stale
    stepped = requests.post(f"{page}/step", timeout=60).json()
    assert stepped == {"rows": 7, "changed": 0, "asked": []}
    announced = requests.get(page + settings["announced"], timeout=60).json()
    assert announced["source"] == "charging_stations"
    (change,) = announced["changes"]
    assert len(change["tiles"]) == loaded["changed"]
    assert str(LISBON) in change["tiles"]
    assert requests.get(tile, timeout=60).content != first.content  # fresh
    assert requests.get(f"{page}/state", timeout=60).json()["asked"] == [str(LISBON)]


def test_a_tile_that_the_load_did_not_name_has_not_changed(page: str) -> None:
    """Dots reach over the edges of tiles, so those beside them change too."""
    settings = settings_of(page)
    around = [Tile(13, x, y) for x in range(3880, 3895) for y in range(3135, 3150)]
    before = {tile: requests.get(settings["tiles"].format(z=tile.z, x=tile.x, y=tile.y), timeout=60).content for tile in around}
    requests.post(f"{page}/load", timeout=60)
    requests.post(f"{page}/step", timeout=60)
    changed = set(requests.get(page + settings["announced"], timeout=60).json()["changes"][0]["tiles"])
    again = settings["tiles"].format(z="{z}", x="{x}", y="{y}") + "&cache_max_age=0s"
    drawn = {tile: requests.get(again.format(z=tile.z, x=tile.x, y=tile.y), timeout=60).content for tile in around}
    different = {str(tile) for tile in around if drawn[tile] != before[tile]}
    assert different
    assert different <= changed


def test_the_document_can_be_looked_at_for_nothing(page: str) -> None:
    requests.post(f"{page}/load", timeout=60)
    requests.post(f"{page}/step", timeout=60)
    address = page + settings_of(page)["announced"]
    first = requests.get(address, timeout=60)
    again = requests.get(address, headers={"If-None-Match": first.headers["etag"]}, timeout=60)
    assert (again.status_code, again.content) == (304, b"")
    assert {"date", "last-modified"} <= first.headers.keys()


def test_the_page_has_the_listener_and_loads_nothing_from_elsewhere(page: str) -> None:
    listener = requests.get(f"{page}/fused-cache-listener.js", timeout=60)
    assert listener.headers["content-type"].startswith("text/javascript")
    assert listener.text == (ROOT / "fused_cache_ops/announcements/fused-cache-listener.js").read_text()
    html = (ROOT / "fused_cache_ops/demo/map.html").read_text()
    assert "://" not in html
    assert '"/fused-cache-listener.js"' in html


def test_without_npm_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"npm is not installed: it fetches maplibre-gl@6.17.0. Install Node.js"):
        npm_packages(tmp_path / "packages", ["maplibre-gl@6.17.0"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = CliRunner().invoke(program, ["demo", "--map"], env={"COLUMNS": "300"})
    assert done.exit_code == 1
    assert "The page cannot be served: npm is not installed" in done.stderr


def test_packages_that_are_installed_are_not_asked_for_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "installed.json").write_text('["maplibre-gl@6.17.0"]')
    monkeypatch.setenv("PATH", "")
    assert npm_packages(tmp_path, ["maplibre-gl@6.17.0"]) == tmp_path / "node_modules"
    with pytest.raises(RuntimeError):
        npm_packages(tmp_path, ["maplibre-gl@6.18.0"])


def test_a_port_without_the_page_is_refused() -> None:
    done = CliRunner().invoke(program, ["demo", "--port", "8000"], env={"COLUMNS": "300"})
    assert done.exit_code == 2
    assert "it goes with --map" in done.stderr
