"""Rasters: where their grids are, and the blocks in which two states differ."""

import itertools
import math
import random
import warnings
from pathlib import Path
from typing import Any

import mercantile
import numpy as np
import pytest
import rasterio
import rasterio.enums
import rasterio.transform
import rasterio.vrt
import rasterio.warp
import rasterio.windows
import shapely
from affine import Affine
from rasterio.control import GroundControlPoint
from typer.testing import CliRunner

from fused_cache_ops import InvalidInputError, UnavailableError, invalidate_cache, plan_invalidation
from fused_cache_ops.changes import changed_raster, raster_footprint
from fused_cache_ops.changes.windows import merged
from fused_cache_ops.cli.commands import program
from fused_cache_ops.emulator import Udf

UTM = {"crs": "EPSG:32629", "transform": Affine(10, 0, 480_000, 0, -10, 4_290_000)}  # Lisbon
DEGREES = {"crs": "EPSG:4326", "transform": Affine(0.01, 0, -10, 0, -0.01, 40)}
TILED = {"tiled": True, "blockxsize": 64, "blockysize": 64}


def write(path: Path, data: Any = None, overviews: Any = (), **how: Any) -> str:
    """A GeoTIFF of 256 × 256 pixels."""
    data = np.zeros((1, 256, 256), "float32") if data is None else np.atleast_3d(data) if data.ndim == 3 else data[np.newaxis]
    profile = {"driver": "GTiff", "count": len(data), "height": data.shape[1], "width": data.shape[2], "dtype": data.dtype}
    given = {**profile, **UTM, **TILED, "compress": "deflate", **how}
    with rasterio.open(path, "w", **{name: value for name, value in given.items() if value is not None}) as file:
        file.write(data)
    if overviews:
        with rasterio.open(path, "r+") as file:
            file.build_overviews(overviews, rasterio.enums.Resampling.average)
    return str(path)


def tiles(geometry: Any, zooms: Any = 12, **more: Any) -> set[Any]:
    return {tuple(tile) for tile in plan_invalidation("udf", geometry=geometry, zooms=zooms, **more).tiles()}


def numbers(seed: int = 1) -> Any:
    return np.random.default_rng(seed).normal(size=(256, 256)).astype("float32")


def changed_windows(table: Any) -> set[Any]:
    """The rectangles of a difference, in pixels of the grid in UTM."""
    places = shapely.from_wkb(table.column("geometry").to_numpy())
    found = [each.bounds for each in places]
    return {
        (round((w - 480_000) / 10), round((4_290_000 - n) / 10), round((e - 480_000) / 10), round((4_290_000 - s) / 10))
        for w, s, e, n in found
    }


# -- footprints --------------------------------------------------------------------------------------------------


def test_a_raster_is_where_its_grid_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif")
    box = shapely.box(480_000, 4_290_000 - 2560, 482_560, 4_290_000)
    assert tiles(path, "10-16") == tiles(box.wkt, "10-16", crs="EPSG:32629")


@pytest.mark.parametrize("form", ["dataset", "list", "path", "vrt"])
def test_every_form_of_a_raster_is_read(tmp_path: Path, form: str) -> None:
    path = write(tmp_path / "a.tif")
    if form == "dataset":
        with rasterio.open(path) as dataset:
            assert tiles(dataset) == tiles(path)
    elif form == "vrt":
        from rasterio.shutil import copy

        copy(path, tmp_path / "a.vrt", driver="VRT")
        assert tiles(str(tmp_path / "a.vrt")) == tiles(path)
    else:
        assert tiles([path, path] if form == "list" else Path(path)) == tiles(path)


def test_a_wide_grid_is_reprojected_along_its_edges(tmp_path: Path) -> None:
    laea = {"crs": "EPSG:3035", "transform": Affine(20_000, 0, 2_500_000, 0, -20_000, 5_500_000)}
    found = tiles(write(tmp_path / "a.tif", **laea), 6)
    with rasterio.open(tmp_path / "a.tif") as file:
        west, south, east, north = rasterio.warp.transform_bounds(file.crs, "EPSG:4326", *file.bounds, densify_pts=101)
    assert {(each.z, each.x, each.y) for each in mercantile.tiles(west, south, east, north, 6)} >= found
    assert mercantile.tile(10, north - 0.01, 6).y == min(y for _, _, y in found)  # beyond the corners


def test_a_rotated_grid_is_no_box(tmp_path: Path) -> None:
    rotated = Affine(10, 10, 480_000, 10, -10, 4_290_000)
    path = write(tmp_path / "a.tif", transform=rotated)
    corners = [
        (rotated.a * x + rotated.b * y + rotated.c, rotated.d * x + rotated.e * y + rotated.f)
        for x, y in itertools.product((0, 256), repeat=2)
    ]
    outline = shapely.convex_hull(shapely.multipoints(corners))
    assert tiles(path, 15) == tiles(outline.wkt, 15, crs="EPSG:32629")


@pytest.mark.parametrize("transform", [Affine(0.01, 0, -10, 0, 0.01, 37.44), Affine(-0.01, 0, -7.44, 0, -0.01, 40)])
def test_a_grid_that_runs_the_other_way_is_the_same_place(tmp_path: Path, transform: Affine) -> None:
    assert tiles(write(tmp_path / "a.tif", **{**DEGREES, "transform": transform})) == tiles(
        write(tmp_path / "b.tif", **DEGREES)
    )


def test_longitudes_from_0_to_360_are_all_round_the_earth(tmp_path: Path) -> None:
    world = {**DEGREES, "transform": Affine(360 / 256, 0, 0, 0, -180 / 256, 90)}
    assert tiles(write(tmp_path / "a.tif", **world), 3) == set(itertools.product([3], range(8), range(8)))


def test_a_world_with_rotated_poles_is_the_whole_world(tmp_path: Path) -> None:
    rotated = "+proj=ob_tran +o_proj=longlat +o_lon_p=-162 +o_lat_p=39.25 +lon_0=180 +to_meter=0.0174532925199433"
    world = {"crs": rotated, "transform": Affine(360 / 256, 0, -180, 0, -180 / 256, 90)}
    assert tiles(write(tmp_path / "a.tif", **world), 3) == set(itertools.product([3], range(8), range(8)))


def test_a_grid_across_the_antimeridian_is_on_both_sides(tmp_path: Path) -> None:
    across = {**DEGREES, "transform": Affine(10 / 256, 0, 175, 0, -10 / 256, 5)}
    found = tiles(write(tmp_path / "a.tif", **across), 5)
    assert found == tiles(shapely.MultiPolygon([shapely.box(175, -5, 180, 5), shapely.box(-180, -5, -175, 5)]).wkt, 5)


POINTS = [GroundControlPoint(row, column, column, row) for row, column in ((0, 0), (0, 9), (9, 9))]


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"transform": Affine.identity(), "crs": None}, "has no georeferencing"),
        ({"crs": None}, "does not say its coordinate reference system"),
        ({"crs": "EPSG:4326", "transform": Affine.identity(), "gcps": POINTS}, "ground control points"),
        ({"crs": "EPSG:4807", "transform": Affine(0.05, 0, -5, 0, -0.05, 60)}, "in grads and not in degrees"),
    ],
    ids=["nothing", "no system", "control points", "grads"],
)
@pytest.mark.filterwarnings("ignore")
def test_what_is_nowhere_is_refused(tmp_path: Path, how: Any, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        tiles(write(tmp_path / "a.tif", **how))


def test_a_raster_without_a_system_takes_the_one_that_is_named(tmp_path: Path) -> None:
    assert tiles(write(tmp_path / "a.tif", crs=None), crs="EPSG:32629") == tiles(write(tmp_path / "b.tif"))


@pytest.mark.parametrize("path", ["gone.tif", "/vsicurl/http://127.0.0.1:9/a.tif"])
def test_a_raster_that_is_not_there_may_be_there_later(tmp_path: Path, path: str) -> None:
    with pytest.raises((UnavailableError, InvalidInputError), match="cannot be read as a raster"):
        tiles(path)


def test_a_file_that_is_no_raster_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_text("hello")
    with pytest.raises(InvalidInputError, match="cannot be read as a raster"):
        tiles(str(tmp_path / "a.tif"))


def test_valid_data_alone_is_found_by_block(tmp_path: Path) -> None:
    data = np.full((256, 256), np.nan, "float32")
    data[70:75, 130:140] = 1
    path = write(tmp_path / "a.tif", data, nodata=math.nan)
    assert changed_windows(raster_footprint(path, valid_data=True)) == {(128, 64, 192, 128)}
    assert changed_windows(raster_footprint(path)) == {(0, 0, 256, 256)}


# -- what differs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"compress": "lzw"}, {"compress": None}, {"tiled": False, "blockysize": 1}], ids=str)
@pytest.mark.parametrize("other", [{}, {"compress": "zstd"}], ids=["stored alike", "stored otherwise"])
def test_the_blocks_that_differ_are_found(tmp_path: Path, how: Any, other: Any) -> None:
    data = numbers()
    after = data.copy()
    after[10, 10] += 1
    after[130:200, 70:80] += 1
    found = changed_raster(
        write(tmp_path / "a.tif", data, **how), write(tmp_path / "b.tif", after, **{**how, **other}), margin=0
    )
    area = shapely.union_all([shapely.box(*each) for each in changed_windows(found)])
    assert area.contains(shapely.box(10, 10, 11, 11))
    assert area.contains(shapely.box(70, 130, 80, 200))
    if how.get("tiled", True):
        assert changed_windows(found) == {(0, 0, 64, 64), (64, 128, 128, 256)}


def test_equal_rasters_have_no_changes(tmp_path: Path) -> None:
    data = numbers()
    data[:3] = np.nan
    data[5, 5] = -0.0
    after = data.copy()
    after[5, 5] = 0.0
    found = changed_raster(write(tmp_path / "a.tif", data), write(tmp_path / "b.tif", after, compress="zstd"))
    assert found.num_rows == 0
    assert tiles(found) == set()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float64", "complex64"])
def test_every_type_of_pixel_is_compared(tmp_path: Path, dtype: str) -> None:
    data = np.arange(256 * 256).reshape(256, 256).astype(dtype)
    after = data.copy()
    after[200, 200] = 1
    found = changed_raster(write(tmp_path / "a.tif", data), write(tmp_path / "b.tif", after), margin=0)
    assert changed_windows(found) == {(192, 192, 256, 256)}


def test_small_differences_may_be_tolerated(tmp_path: Path) -> None:
    data = numbers()
    after = data + np.float32(0.001)
    after[0, 0] += 1
    before, later = write(tmp_path / "a.tif", data), write(tmp_path / "b.tif", after)
    assert changed_windows(changed_raster(before, later, tolerance=0.01, margin=0)) == {(0, 0, 64, 64)}


@pytest.mark.parametrize(("bands", "found"), [(None, 2), ([1, 2], 2), (1, 1), ([2], 1)])
@pytest.mark.parametrize("interleave", ["band", "pixel"])
def test_bands_can_be_chosen(tmp_path: Path, bands: Any, found: int, interleave: str) -> None:
    data = np.stack([numbers(1), numbers(2)])
    after = data.copy()
    after[0, 0, 0] += 1
    after[1, 255, 255] += 1
    before, later = (write(tmp_path / f"{name}.tif", each, interleave=interleave) for name, each in (("a", data), ("b", after)))
    assert changed_raster(before, later, bands=bands).num_rows == found


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ({"transform": Affine(10, 0, 480_010, 0, -10, 4_290_000)}, "georeferencing"),
        ({"crs": "EPSG:32630"}, "reference system"),
    ],
)
def test_another_grid_is_an_error_or_everything(tmp_path: Path, how: Any, what: str) -> None:
    before, after = write(tmp_path / "a.tif", numbers()), write(tmp_path / "b.tif", numbers(), **how)
    with pytest.raises(InvalidInputError, match=f"differ in {what}"):
        changed_raster(before, after)
    found = changed_raster(before, after, when_grid_differs="everything", margin=0)
    assert tiles(found, 13) == tiles([before, after], 13)


def test_another_size_is_everything_too(tmp_path: Path) -> None:
    before, after = write(tmp_path / "a.tif", numbers()), write(tmp_path / "b.tif", numbers()[:200])
    with pytest.raises(InvalidInputError, match="differ in size"):
        changed_raster(before, after)
    assert changed_raster(before, after, when_grid_differs="everything").num_rows > 0


@pytest.mark.parametrize("what", ["nodata", "scales", "offsets", "units", "names", "colors", "overviews"])
def test_what_gives_the_same_pixels_another_meaning_changes_everything(tmp_path: Path, what: str) -> None:
    data = np.zeros((256, 256), "uint8")
    kind = {"photometric": "palette"} if what == "colors" else {}
    before, after = (write(tmp_path / f"{name}.tif", data, **kind) for name in "ab")
    with rasterio.open(after, "r+") as file:
        if what == "nodata":
            file.nodata = 7
        elif what == "scales":
            file.scales = [0.1]
        elif what == "offsets":
            file.offsets = [1]
        elif what == "units":
            file.units = ["ft"]
        elif what == "names":
            file.descriptions = ["depth"]
        elif what == "colors":
            file.write_colormap(1, {0: (255, 0, 0, 255)})
        else:
            file.build_overviews([2], rasterio.enums.Resampling.nearest)
    assert changed_windows(changed_raster(before, after, margin=0)) == {(0, 0, 256, 256)}


def test_a_mask_counts(tmp_path: Path) -> None:
    data = numbers()
    paths = [write(tmp_path / f"{name}.tif", data) for name in "ab"]
    for number, path in enumerate(paths):
        mask = np.full((256, 256), 255, "uint8")
        mask[200:, 200:] = 255 * (1 - number)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
            file.write_mask(mask)
    assert changed_windows(changed_raster(*paths, margin=0)) == {(192, 192, 256, 256)}


@pytest.mark.parametrize("elsewhere", [False, True])
def test_pixels_that_changed_without_their_overviews_are_warned_about(tmp_path: Path, elsewhere: bool) -> None:
    data = np.tile(numbers(), (2, 2))
    after = data.copy()
    if elsewhere:
        after[500, 500] += 1
    paths = [
        write(tmp_path / f"{name}.tif", each, overviews=[2, 4], compress=None) for name, each in (("a", data), ("b", after))
    ]
    with rasterio.open(paths[1], "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        changed = data[:64, :64].copy()
        changed[3, 3] += 1
        file.write(changed, 1, window=rasterio.windows.Window(0, 0, 64, 64))
    with pytest.warns(UserWarning, match="changed where its overviews did not"):
        assert (0, 0, 64, 64) in changed_windows(changed_raster(*paths, margin=0))


def test_files_beside_a_raster_are_a_part_of_it(tmp_path: Path) -> None:
    data = numbers()
    paths = [write(tmp_path / f"{name}.tif", data) for name in "ab"]
    for path, hidden in zip(paths, (False, True)):
        mask = np.full((256, 256), 255, "uint8")
        mask[:20, :20] = 0 if hidden else 255
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
            file.write_mask(mask)
    assert (tmp_path / "b.tif.msk").exists()
    assert changed_windows(changed_raster(*paths, margin=0)) == {(0, 0, 64, 64)}


@pytest.mark.parametrize("beside", ["YES", "NO"])
def test_overviews_are_compared_wherever_they_are(tmp_path: Path, beside: str) -> None:
    data = numbers()
    paths = [write(tmp_path / f"{name}.tif", data) for name in "ab"]
    for path, resampling in zip(paths, ("average", "nearest")):
        with rasterio.Env(TIFF_USE_OVR=beside), rasterio.open(path, "r+") as file:
            file.build_overviews([2, 4], rasterio.enums.Resampling[resampling])
    assert (tmp_path / "a.tif.ovr").exists() == (beside == "YES")
    assert changed_windows(changed_raster(*paths, margin=0)) == {(0, 0, 256, 256)}


def vrt_of(source: str, path: Path) -> str:
    from rasterio.shutil import copy

    copy(source, path, driver="VRT")
    return str(path)


def test_rasters_that_are_made_from_the_same_file_are_warned_about(tmp_path: Path) -> None:
    sources = [write(tmp_path / f"{name}.tif") for name in "ab"]
    views = [vrt_of(source, tmp_path / f"{number}.vrt") for number, source in enumerate([*sources, sources[0]])]
    with pytest.warns(UserWarning, match=r"both made from '.*a.tif', which never differs from itself"):
        changed_raster(views[0], views[2])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        changed_raster(*views[:2])


@pytest.mark.parametrize("compress", [None, "deflate"])
def test_a_raster_that_breaks_off_is_not_taken_for_equal(tmp_path: Path, compress: Any) -> None:
    path = write(tmp_path / "a.tif", numbers(), compress=compress)
    half = Path(path).read_bytes()[: Path(path).stat().st_size // 2]
    (tmp_path / "b.tif").write_bytes(half)
    (tmp_path / "c.tif").write_bytes(half)
    for pair in ("bc", "ba"):
        with pytest.raises(UnavailableError, match=r"before = '.*b.tif' cannot be read as a raster: .*\(expected|got|b.tif"):
            changed_raster(*(tmp_path / f"{name}.tif" for name in pair))


def test_a_raster_that_is_written_while_it_is_compared_is_compared_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fused_cache_ops.changes import rasters

    before, after = write(tmp_path / "a.tif"), write(tmp_path / "b.tif")

    def writing(*given: Any, **how: Any) -> Any:
        write(tmp_path / "b.tif", numbers(), compress=None)
        return differing(*given, **how)

    differing = rasters._differing
    monkeypatch.setattr(rasters, "_differing", writing)
    with pytest.raises(UnavailableError, match="was written while they were compared"):
        changed_raster(before, after)


def test_a_file_of_several_rasters_is_refused_and_each_of_them_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", numbers())
    write(tmp_path / "a.tif", numbers(2), APPEND_SUBDATASET="YES", transform=Affine(10, 0, 580_000, 0, -10, 4_290_000))
    for act in (lambda: tiles(path), lambda: changed_raster(path, write(tmp_path / "b.tif")), lambda: raster_footprint(path)):
        with pytest.raises(InvalidInputError, match=r"holds 2 rasters, of which only the first .*GTIFF_DIR:1:"):
            act()
    pages = [tiles(f"GTIFF_DIR:{number}:{path}") for number in (1, 2)]
    assert pages[0]
    assert pages[1]
    assert pages[0].isdisjoint(pages[1])


def test_an_open_raster_is_not_compared_with_its_own_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif")
    with rasterio.open(path) as opened_before:
        write(tmp_path / "a.tif", numbers())
        with pytest.raises(InvalidInputError, match="keep a copy from before the load"):
            changed_raster(opened_before, path)


def test_a_raster_that_is_compared_with_itself_is_warned_about(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif")
    with pytest.warns(UserWarning, match="keep a copy from before the load"):
        assert changed_raster(path, Path(path)).num_rows == 0


def test_a_raster_that_is_open_for_writing_is_not_compared(tmp_path: Path) -> None:
    before = write(tmp_path / "a.tif")
    with rasterio.open(write(tmp_path / "b.tif"), "r+") as after:
        with pytest.raises(InvalidInputError, match=r"is open for writing.*close it first"):
            changed_raster(before, after)
    assert changed_raster(before, after).num_rows == 0


def test_a_warped_view_has_an_outline_and_is_not_compared(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif")
    with rasterio.open(path) as source, rasterio.vrt.WarpedVRT(source, crs="EPSG:3857") as view:
        assert tiles(view) >= tiles(path)
        assert raster_footprint(view).num_rows == 1
        for act in (lambda: changed_raster(view, path), lambda: raster_footprint(view, valid_data=True)):
            with pytest.raises(InvalidInputError, match="is a WarpedVRT, which has no file"):
                act()
    with pytest.raises(InvalidInputError, match="is closed"):
        tiles(view)


@pytest.mark.parametrize("dtype", ["int64", "uint64", "int8", "uint8"])
def test_a_tolerance_does_not_round_whole_numbers(tmp_path: Path, dtype: str) -> None:
    most = np.iinfo(dtype).max
    data = np.full((256, 256), most, dtype)
    data[100] = np.iinfo(dtype).min
    after = data.copy()
    after[0, 0] -= 3
    after[100, 100] = most  # as far as it gets
    before, later = write(tmp_path / "a.tif", data), write(tmp_path / "b.tif", after)
    everything = {(0, 0, 64, 64), (64, 64, 128, 128)}
    assert changed_windows(changed_raster(before, later, tolerance=2.9, margin=0)) == everything
    assert changed_windows(changed_raster(before, later, tolerance=3, margin=0)) == {(64, 64, 128, 128)}


def test_a_shift_of_small_pixels_is_another_grid(tmp_path: Path) -> None:
    small = {"transform": Affine(0.001, 0, 480_000, 0, -0.001, 4_290_000)}
    moved = {"transform": Affine(0.001, 0, 480_000.002, 0, -0.001, 4_290_000)}
    with pytest.raises(InvalidInputError, match="differ in georeferencing"):
        changed_raster(write(tmp_path / "a.tif", **small), write(tmp_path / "b.tif", **moved))


def test_neighboring_blocks_are_one_rectangle(tmp_path: Path) -> None:
    data = numbers()
    after = data.copy()
    after[:, 70:180] += 1
    after[200, 5] += 1
    found = changed_raster(write(tmp_path / "a.tif", data), write(tmp_path / "b.tif", after), margin=0)
    assert changed_windows(found) == {(64, 0, 192, 192), (0, 192, 192, 256)}


def test_overviews_that_were_built_anew_have_changed(tmp_path: Path) -> None:
    data = numbers()
    before, after = (write(tmp_path / f"{name}.tif", data, overviews=[2, 4]) for name in "ab")
    with rasterio.open(after, "r+") as file:
        file.build_overviews([2, 4], rasterio.enums.Resampling.nearest)
    assert changed_windows(changed_raster(before, after, margin=0)) == {(0, 0, 256, 256)}


@pytest.mark.parametrize("zoom", [8, 12, 16])
def test_a_change_reaches_beyond_its_pixels_at_each_zoom(tmp_path: Path, zoom: int) -> None:
    data = numbers()
    after = data.copy()
    after[0, 0] += 1
    before, later = write(tmp_path / "a.tif", data), write(tmp_path / "b.tif", after)
    exact = tiles(changed_raster(before, later, margin=0), zoom + 8)  # pixels of the tiles at the zoom
    reached = {(x + right, y + down) for _, x, y in exact for right in (-9, 9) for down in (-9, 9)}
    found = tiles(changed_raster(before, later), zoom)
    assert tiles(changed_raster(before, later, margin=0), zoom) <= found
    allowed = {(zoom, (x + right) >> 8, (y + down) >> 8) for x, y in reached for right in (-1, 0, 1) for down in (-1, 0, 1)}
    inner = {(zoom, (x + right) >> 8, (y + down) >> 8) for _, x, y in exact for right in (-8, 8) for down in (-8, 8)}
    assert inner <= found <= allowed | {(zoom, x >> 8, y >> 8) for _, x, y in exact}


def test_differences_can_be_given_together_with_other_areas(tmp_path: Path) -> None:
    data = numbers()
    after = data.copy()
    after[0, 0] += 1
    found = changed_raster(write(tmp_path / "a.tif", data), write(tmp_path / "b.tif", after))
    assert tiles([found, "POINT (20 20)"], 10) == tiles(found, 10) | tiles("POINT (20 20)", 10)


def rendered(raster: Any, tile: Any, resampling: Any) -> Any:
    """The pixels of a tile, as servers of tiles make them."""
    west, south, east, north = mercantile.xy_bounds(*tile)
    where = {"crs": "EPSG:3857", "transform": rasterio.transform.from_bounds(west, south, east, north, 256, 256)}
    with rasterio.vrt.WarpedVRT(raster, resampling=resampling, width=256, height=256, **where) as view:
        return view.read(1)


@pytest.mark.parametrize("resampling", ["bilinear", "lanczos"])
def test_every_tile_that_is_drawn_otherwise_is_found(tmp_path: Path, resampling: str) -> None:
    data = np.random.default_rng(1).normal(size=(1500, 1500)).astype("float32")
    after = data.copy()
    for column, row in ((0, 0), (511, 511), (700, 300), (1499, 1499)):
        after[row, column] += 1000
    where = Affine(30, 0, 480_000, 0, -30, 4_290_000)
    paths = [
        write(tmp_path / f"{name}.tif", each, driver="COG", blocksize=128, transform=where, **dict.fromkeys(TILED))
        for name, each in (("a", data), ("b", after))
    ]
    found = tiles(changed_raster(*paths), "7-13")
    with rasterio.open(paths[0]) as one, rasterio.open(paths[1]) as other:
        assert one.overviews(1)
        footprint = rasterio.warp.transform_bounds(one.crs, "EPSG:4326", *one.bounds)
        drawn = set()
        for tile in mercantile.tiles(*footprint, range(7, 14)):
            old, new = (rendered(each, tile, rasterio.enums.Resampling[resampling]) for each in (one, other))
            if not np.array_equal(old, new):
                drawn.add((tile.z, tile.x, tile.y))
    assert len(drawn) >= 9
    assert drawn <= found
    assert len(found) < 60  # of 150


@pytest.mark.parametrize("resampling", ["bilinear", "cubic", "lanczos"])
def test_tiles_that_are_finer_than_the_raster_are_found_too(tmp_path: Path, resampling: str) -> None:
    data = numbers()
    after = data.copy()
    after[127, 127] += 1000  # at the corner of its block
    where = Affine(1000, 0, 480_000, 0, -1000, 4_290_000)
    paths = [write(tmp_path / f"{name}.tif", each, transform=where) for name, each in (("a", data), ("b", after))]
    found = tiles(changed_raster(*paths), 15)
    with rasterio.open(paths[0]) as one, rasterio.open(paths[1]) as other:
        around = rasterio.warp.transform_bounds(one.crs, "EPSG:4326", 606_500, 4_160_500, 609_000, 4_163_500)
        drawn = set()
        for tile in mercantile.tiles(*around, 15):
            old, new = (rendered(each, tile, rasterio.enums.Resampling[resampling]) for each in (one, other))
            if not np.array_equal(old, new):
                drawn.add((tile.z, tile.x, tile.y))
    assert drawn
    assert drawn <= found


def test_neighboring_windows_of_different_heights_stay_two() -> None:
    assert set(merged([(252, 0, 256, 8), (256, 0, 260, 4)])) == {(252, 0, 256, 8), (256, 0, 260, 4)}


@pytest.mark.parametrize("how", [{"nodata": 0}, {"nodata": 1}])
def test_a_tolerance_does_not_hide_that_a_pixel_became_valid(tmp_path: Path, how: Any) -> None:
    data = np.zeros((256, 256), "uint8")
    after = data.copy()
    after[3, 3] = 1
    before, later = write(tmp_path / "a.tif", data, **how), write(tmp_path / "b.tif", after, **how)
    assert changed_windows(changed_raster(before, later, tolerance=2, margin=0)) == {(0, 0, 64, 64)}


def test_what_hides_a_chosen_band_counts(tmp_path: Path) -> None:
    data = np.full((4, 256, 256), 255, "uint8")
    after = data.copy()
    after[3, 3, 3] = 0
    before, later = (
        write(tmp_path / f"{name}.tif", each, photometric="RGB", alpha="YES") for name, each in (("a", data), ("b", after))
    )
    assert changed_windows(changed_raster(before, later, bands=[1, 2, 3], margin=0)) == {(0, 0, 64, 64)}


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"tolerance": math.nan}, "tolerance = nan"),
        ({"tolerance": math.inf}, "tolerance = inf"),
        ({"tolerance": 10**400}, "tolerance = 10"),
        ({"margin": 10**400}, "margin = 10"),
        ({"bands": b"\x01"}, "bands = b"),
        ({"bands": 2}, "must be numbers from 1 to 1"),
        ({"bands": []}, "must be numbers"),
        ({"tolerance": -1}, "tolerance = -1"),
        ({"tolerance": True}, "tolerance = True"),
        ({"margin": 65}, "margin = 65"),
        ({"when_grid_differs": "x"}, "when_grid_differs = 'x'"),
        ({"when_grid_differs": np.array(["x", "y"])}, "when_grid_differs = array"),
    ],
)
def test_what_cannot_be_compared_by_is_refused(tmp_path: Path, given: Any, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        changed_raster(write(tmp_path / "a.tif"), write(tmp_path / "b.tif"), **given)


def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif")
    for act in (lambda: changed_raster("\ud800.tif", path), lambda: tiles("\ud800.tif"), lambda: tiles(path, crs="\ud800")):
        with pytest.raises(InvalidInputError):
            act()


def test_whether_data_must_be_valid_is_said_by_a_boolean(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="valid_data = 'False' must be"):
        raster_footprint(write(tmp_path / "a.tif"), valid_data="False")  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [{"layer": "x"}, {"geometry_column": "place"}], ids=str)
def test_a_raster_has_no_layers_and_no_columns(tmp_path: Path, given: Any) -> None:
    path = write(tmp_path / "a.tif")
    with rasterio.open(path) as dataset:
        for raster in (path, dataset, [path]):
            with pytest.raises(InvalidInputError, match="is a raster: omit it"):
                tiles(raster, **given)


@pytest.mark.parametrize("given", [None, 5, []])
def test_what_is_no_raster_is_refused(tmp_path: Path, given: Any) -> None:
    path = write(tmp_path / "a.tif")
    for pair in ((given, path), (path, given)):
        with pytest.raises(InvalidInputError, match="pass the path or URL of a raster"):
            changed_raster(*pair)


@pytest.mark.parametrize(
    "address", ["/vsicurl/http://me:hunter2secret@127.0.0.1:9/a.tif", "http://127.0.0.1:9/a.tif?sig=hunter2secret"]
)
def test_the_credentials_of_an_address_are_not_shown(address: str) -> None:
    for act in (lambda: tiles(address), lambda: changed_raster(address, f"{address}#")):
        with pytest.raises((InvalidInputError, UnavailableError)) as caught:
            act()
        assert "hunter2" not in str(caught.value)


def test_what_changed_in_a_raster_is_invalidated(udf: Udf, tmp_path: Path) -> None:
    data = numbers()
    after = data.copy()
    after[0, 0] += 1
    found = changed_raster(write(tmp_path / "a.tif", data), write(tmp_path / "b.tif", after))
    assert invalidate_cache("roads", geometry=found, zooms="8-12").tiles_invalidated


def test_the_command_line_compares_rasters(udf: Udf, tmp_path: Path) -> None:
    data = numbers()
    after = data.copy()
    after[0, 0] += 1
    difference = [write(tmp_path / "a.tif", data), write(tmp_path / "b.tif", after)]
    ran = CliRunner().invoke(program, ["plan", "roads", "--zooms", "14", "--list", "--diff", *difference])
    assert set(ran.output.split()) == {f"{z}/{x}/{y}" for z, x, y in tiles(changed_raster(*difference), 14)}
    refused = CliRunner().invoke(program, ["plan", "roads", "--zooms", "14", "--key", "id", "--diff", *difference])
    assert refused.exit_code == 2
    assert "--key is for tables" in refused.output
    other = write(tmp_path / "c.tif", data[:128])
    refused = CliRunner().invoke(program, ["plan", "roads", "--zooms", "14", "--diff", difference[0], other])
    assert "name each by --geometry" in refused.output
    refused = CliRunner().invoke(program, ["plan", "roads", "--zooms", "14", "--diff", difference[0], "b.parquet"])
    assert refused.exit_code == 2
    assert "a raster and a file that is none" in refused.output


# -- whatever a raster is stored like --------------------------------------------------------------------------------


def _stored(choose: random.Random) -> dict[str, Any]:
    """How a GeoTIFF may be stored."""
    tiled = {"tiled": True, "blockxsize": choose.choice([16, 64, 256]), "blockysize": choose.choice([16, 64, 128])}
    compress = choose.choice([None, "deflate", "lzw", "zstd", "packbits"])
    return {
        **choose.choice([tiled, tiled, {"tiled": False, "blockxsize": None, "blockysize": choose.choice([1, 3, 16])}]),
        "compress": compress,
        "predictor": choose.choice([1, 2]) if compress in ("deflate", "lzw", "zstd") else None,
        "interleave": choose.choice(["band", "pixel"]),
        "sparse_ok": choose.choice([True, False]),
    }


@pytest.mark.parametrize("seed", range(100))
def test_the_pixels_that_differ_are_covered_whatever_the_files_are_like(tmp_path: Path, seed: int) -> None:
    choose, numbers = random.Random(seed), np.random.default_rng(seed)
    shape = choose.choice([1, 2, 3]), choose.choice([1, 5, 90, 256, 301]), choose.choice([1, 7, 100, 257, 300])
    dtype = choose.choice(["uint8", "int16", "uint16", "int32", "float32", "float64", "int8"])
    nodata = choose.choice([None, 0, 1, *[math.nan] * dtype.startswith("float")])
    overviews = choose.choice([(), (2,)])
    before = numbers.integers(0, 4, shape).astype(dtype)
    after, stored = before.copy(), _stored(choose)
    pixels = [tuple(choose.randrange(size) for size in shape) for _ in range(choose.choice([0, 1, 3]))]
    for pixel in pixels:
        after[pixel] = 5
    paths = [
        write(tmp_path / f"{name}.tif", data, overviews, nodata=nodata, **how)
        for name, data, how in (("before", before, stored), ("after", after, choose.choice([stored, _stored(choose)])))
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a pixel that "average" passes over, beside "no data"
        windows = changed_windows(changed_raster(*paths, margin=0))
    for _, y, x in pixels:
        assert any(west <= x < east and north <= y < south for west, north, east, south in windows)
    for west, north, east, south in windows:  # four pixels beside one that changed may have changed in an overview
        assert any(west - 4 <= x < east + 4 and north - 4 <= y < south + 4 for _, y, x in pixels)
