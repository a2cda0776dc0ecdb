#!/bin/sh
# stac-geoparquet 0.8.3 with geopandas 1.2.0: STAC writes the bbox of an Item across the antimeridian with west > east, and
# stac-geoparquet declares that column as GeoParquet's covering, where a reader takes xmin <= xmax for granted. Reading with
# bbox= then finds the Item from neither side, though the geometry is there: selecting by geometry (cx) finds it. Seen:
#
#   east of Fiji: bbox=[] cx=['fiji']
#   west of Fiji: bbox=[] cx=['fiji']
#   Lisbon: bbox=['lisbon'] cx=['lisbon']
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv environment
environment/bin/python -m pip install -q --disable-pip-version-check \
    stac-geoparquet==0.8.3 pystac==1.15.2 geopandas==1.2.0 pyarrow==26.0.1 shapely==2.2.0
environment/bin/python - >said <<'PYTHON'
import datetime

import geopandas
import pystac
import shapely
import stac_geoparquet.arrow

when = datetime.datetime(2026, 11, 1, tzinfo=datetime.timezone.utc)
fiji = shapely.MultiPolygon([shapely.box(179, -17, 180, -16), shapely.box(-180, -17, -179, -16)])
lisbon = shapely.box(-10, 38, -9, 39)
items = [
    pystac.Item(name, shapely.geometry.mapping(shape), bbox, when, {}, collection="c")
    for name, shape, bbox in (("fiji", fiji, [179, -17, -179, -16]), ("lisbon", lisbon, [-10, 38, -9, 39]))
]
stac_geoparquet.arrow.to_parquet(stac_geoparquet.arrow.parse_stac_items_to_arrow(items), "items.parquet")
frame = geopandas.read_parquet("items.parquet")
for name, west, south, east, north in (
    ("east of Fiji", -179.8, -16.8, -179.2, -16.2),
    ("west of Fiji", 179.2, -16.8, 179.8, -16.2),
    ("Lisbon", -9.8, 38.2, -9.2, 38.8),
):
    by_bbox = geopandas.read_parquet("items.parquet", bbox=(west, south, east, north))
    print(f"{name}: bbox={list(by_bbox.id)} cx={list(frame.cx[west:east, south:north].id)}")
PYTHON
cat said
cat >seen <<'SAID'
east of Fiji: bbox=[] cx=['fiji']
west of Fiji: bbox=[] cx=['fiji']
Lisbon: bbox=['lisbon'] cx=['lisbon']
SAID
diff seen said
