"""The examples that load GeoParquet: the tiles of what changed, old and new, are invalidated, and no others."""

from pathlib import Path

import geopandas
import mercantile
import pytest
import shapely

from fused_cache_ops import plan_invalidation
from fused_cache_ops.demo.pipelines import PIPELINES, run_pipeline
from fused_cache_ops.emulator import Emulator


def parcel(x: int, y: int) -> shapely.Polygon:
    """A parcel well inside one tile at zoom 14."""
    return shapely.box(*mercantile.bounds(x, y, 14)).buffer(-0.002)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xdist_group(f"{name}-changed_footprint")) for name in PIPELINES]
)
def test_exactly_the_changed_footprint_is_invalidated(name: str, tmp_path: Path, templates: Path) -> None:
    before = {"kept": parcel(7782, 6285), "moved": parcel(7800, 6285), "removed": parcel(7820, 6285)}
    after = {"kept": parcel(7782, 6285), "moved": parcel(7801, 6285), "added": parcel(7840, 6285)}
    table, delivery, home = tmp_path / "parcels.parquet", tmp_path / "delivery.parquet", tmp_path / "home"
    home.mkdir()
    for path, parcels in ((table, before), (delivery, after)):
        frame = geopandas.GeoDataFrame({"id": list(parcels)}, geometry=list(parcels.values()), crs="EPSG:4326")
        frame.to_crs("EPSG:3763").to_parquet(path)  # Portugal's own grid: it has to be reprojected
    columns = {"kept": 7782, "old place": 7800, "new place": 7801, "removed": 7820, "added": 7840}
    with Emulator() as emulator:
        udf = emulator.register(lambda **tile: tile, name="parcels")
        emulator.fill_cache(udf, [(14, x, 6285) for x in columns.values()])
        pipeline = PIPELINES[name].another("invalidate_changed_footprint")
        variables = {"PARCELS_TABLE": str(table), "PARCELS_DELIVERY": str(delivery)}
        run_pipeline(pipeline, home, emulator=emulator.environment(), variables=variables, templates=templates)
        assert emulator.cached_tiles(udf) == {(14, 7782, 6285)}, (home / "output.log").read_text()
        sent = sum(request.tiles or 0 for request in emulator.requests)
    changed = [before["moved"], before["removed"], after["moved"], after["added"]]
    assert sent == plan_invalidation("parcels", geometry=changed, zooms="10-14").tile_count
