#!/bin/sh
# pystac 1.15.2: Collection.update_extent_from_items takes the least west and the greatest east of the Items' boxes. That of an
# Item across the antimeridian has west > east, so its numbers fall inside or outside of the others by chance: with one in
# Europe, the extent is neither the whole width nor a box that crosses, and the Item in Fiji lies outside of it. Alone, it is
# right. Seen:
#
#   Fiji alone: [[179, -17, -179, -16]]
#   with Lisbon: [[-10, -17, -9, 39]]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv environment
environment/bin/python -m pip install -q --disable-pip-version-check pystac==1.15.2
environment/bin/python - >said <<'PYTHON'
import datetime

import pystac

when = datetime.datetime(2026, 11, 1, tzinfo=datetime.timezone.utc)


def extent(**boxes):
    nothing = pystac.Extent(pystac.SpatialExtent([[0, 0, 0, 0]]), pystac.TemporalExtent([[None, None]]))
    collection = pystac.Collection("c", "Some scenes", nothing)
    collection.add_items(pystac.Item(name, None, box, when, {}) for name, box in boxes.items())
    collection.update_extent_from_items()
    return collection.extent.spatial.bboxes


fiji, lisbon = [179, -17, -179, -16], [-10, 38, -9, 39]
print("Fiji alone:", extent(fiji=fiji))
print("with Lisbon:", extent(fiji=fiji, lisbon=lisbon))
PYTHON
cat said
cat >seen <<'SAID'
Fiji alone: [[179, -17, -179, -16]]
with Lisbon: [[-10, -17, -9, 39]]
SAID
diff seen said
