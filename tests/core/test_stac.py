"""STAC: the Items that changed, as pystac, JSON, and stac-geoparquet hold them."""

import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pystac
import pytest
import shapely
import stac_geoparquet.arrow

from fused_cache_ops import InvalidInputError, plan_invalidation
from fused_cache_ops.changes import changed_geometry

LISBON = shapely.box(-9.1404, 38.709, -9.1396, 38.711)
PORTO = shapely.box(-8.61, 41.15, -8.6, 41.16)
FIJI = shapely.MultiPolygon([shapely.box(179, -17, 180, -16), shapely.box(-180, -17, -179, -16)])
LISBON_TILES, FIJI_TILES = {"12/1944/1569"}, {"3/7/4", "3/0/4"}
NOON = datetime.datetime(2026, 11, 2, 12, tzinfo=datetime.timezone.utc)


def item(name: str, shape: Any, bbox: list[float] | None = None, *, updated: datetime.datetime = NOON) -> pystac.Item:
    if bbox is None and shape is not None:
        bbox = [179, -17, -179, -16] if shape is FIJI else list(shape.bounds)
    properties = {"updated": pystac.utils.datetime_to_str(updated)}
    geometry = None if shape is None else shapely.geometry.mapping(shape)
    return pystac.Item(name, geometry, bbox, NOON, properties, collection="scenes")


def tiles(geometry: Any, zooms: Any = 12) -> set[str]:
    return {str(tile) for tile in plan_invalidation("scenes", geometry=geometry, zooms=zooms).tiles()}


def written(path: Path, *items: pystac.Item) -> Path:
    stac_geoparquet.arrow.to_parquet(arrow(*items), path)
    return path


def arrow(*items: pystac.Item) -> pyarrow.RecordBatchReader:
    return stac_geoparquet.arrow.parse_stac_items_to_arrow(items)


@pytest.mark.parametrize("bbox", [[-9.1404, 38.709, -9.1396, 38.711], [-9.1404, 38.709, 0, -9.1396, 38.711, 90]], ids=len)
def test_an_item_without_a_geometry_has_a_bbox(tmp_path: Path, bbox: list[float]) -> None:
    there = item("a", None, bbox)
    content = {**there.to_dict(), "bbox": bbox}  # which pystac leaves out beside a geometry that is null
    (tmp_path / "item.json").write_text(json.dumps(content))
    forms = {
        "object": there,
        "objects": [there, there],
        "ItemCollection": pystac.ItemCollection([there]),
        "dict": content,
        "dicts": [content],
        "text": json.dumps(content),
        "FeatureCollection": {"type": "FeatureCollection", "features": [content]},
        "file": tmp_path / "item.json",
    }
    assert {name: tiles(form) for name, form in forms.items()} == dict.fromkeys(forms, LISBON_TILES)


def test_an_item_with_a_geometry_does_not_use_its_bbox() -> None:
    assert tiles(item("a", LISBON, [-10, 30, 10, 50])) == LISBON_TILES


def test_a_bbox_across_the_antimeridian_is_on_both_sides() -> None:
    assert tiles(item("a", None, [179, -17, -179, -16]), 3) == FIJI_TILES


@pytest.mark.parametrize("bbox", [[1, 2, 3], "1,2,3,4", [1, 2, 3, "a"]], ids=str)
def test_a_bbox_that_is_none_is_refused(bbox: Any) -> None:
    with pytest.raises(InvalidInputError, match="is not a bbox"):
        tiles({**item("a", None, [0, 0, 1, 1]).to_dict(), "bbox": bbox})


def test_no_items_are_no_tiles() -> None:
    assert tiles(pystac.ItemCollection([])) == set()


def test_an_item_without_any_place_is_said() -> None:
    with pytest.raises(InvalidInputError, match="null"):
        tiles({**item("a", LISBON).to_dict(), "geometry": None, "bbox": None})


class Subclass(pystac.Collection):
    """As pystac-client has one."""


def catalogue(kind: type[pystac.Catalog]) -> pystac.Catalog:
    if not issubclass(kind, pystac.Collection):
        return kind("scenes", "All scenes")
    space, time = pystac.SpatialExtent([[0, 0, 1, 1]]), pystac.TemporalExtent([[None, None]])
    return kind("scenes", "All scenes", pystac.Extent(space, time))


@pytest.mark.parametrize("kind", [pystac.Collection, Subclass, pystac.Catalog])
def test_what_lists_items_does_not_say_which_of_them_changed(tmp_path: Path, kind: type[pystac.Catalog]) -> None:
    given = catalogue(kind)
    content = given.to_dict()
    (tmp_path / "scenes").write_text(json.dumps(content))
    for form in (given, [given], content, json.dumps(content), tmp_path / "scenes", [str(tmp_path / "scenes")]):
        with pytest.raises(InvalidInputError, match=f"the STAC {content['type']} 'scenes'.*pass the Items that changed"):
            tiles(form)


@pytest.mark.parametrize("zoom", [3, 8])
def test_stac_geoparquet_selects_as_its_items_do(tmp_path: Path, zoom: int) -> None:
    items = [item("a", LISBON), item("b", PORTO), item("c", FIJI)]
    wanted = tiles(items, zoom)
    assert tiles(written(tmp_path / "items.parquet", *items), zoom) == wanted
    assert tiles(arrow(*items).read_all(), zoom) == wanted


def test_the_covering_of_stac_geoparquet_is_not_used_across_the_antimeridian(tmp_path: Path) -> None:
    path = written(tmp_path / "items.parquet", item("a", LISBON), item("c", FIJI))
    box = pyarrow.parquet.read_table(path, columns=["bbox"])["bbox"][1].as_py()
    assert box["xmin"] > box["xmax"]
    assert tiles(path, 3) == FIJI_TILES | tiles(LISBON, 3)


def test_whole_numbers_in_the_bbox_do_not_matter(tmp_path: Path) -> None:
    path = written(tmp_path / "items.parquet", item("a", shapely.box(1, 2, 3, 4), [1, 2, 3, 4]))
    assert tiles(path, 5) == tiles(shapely.box(1, 2, 3, 4), 5)


def difference(tmp_path: Path, before: list[pystac.Item], after: list[pystac.Item]) -> set[str]:
    states = [written(tmp_path / f"{name}.parquet", *items) for name, items in (("before", before), ("after", after))]
    return tiles(changed_geometry(*states, key="id", columns=["updated"]), 8)


LATER = NOON + datetime.timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("after", "wanted"),
    [
        ([item("a", LISBON), item("b", PORTO)], []),
        ([item("b", PORTO), item("a", LISBON)], []),
        ([item("a", LISBON), item("b", PORTO, updated=LATER)], [PORTO]),
        ([item("a", LISBON), item("b", FIJI)], [PORTO, FIJI]),
        ([item("a", LISBON)], [PORTO]),
        ([item("a", LISBON), item("b", PORTO), item("c", FIJI)], [FIJI]),
    ],
    ids=["equal", "in another order", "a millisecond later", "moved", "gone", "new"],
)
def test_two_states_tell_which_items_changed(tmp_path: Path, after: list[pystac.Item], wanted: list[Any]) -> None:
    before = [item("a", LISBON), item("b", PORTO)]
    assert difference(tmp_path, before, after) == set().union(*(tiles(shape, 8) for shape in wanted))


def test_states_with_other_assets_are_compared_by_the_columns_that_are_named(tmp_path: Path) -> None:
    red, green = item("a", LISBON), item("a", LISBON, updated=LATER)
    red.add_asset("red", pystac.Asset("red.tif"))
    green.add_asset("green", pystac.Asset("green.tif"))
    assert difference(tmp_path, [red], [green]) == tiles(LISBON, 8)
    with pytest.raises(InvalidInputError, match="columns"):
        changed_geometry(tmp_path / "before.parquet", tmp_path / "after.parquet", key="id")
