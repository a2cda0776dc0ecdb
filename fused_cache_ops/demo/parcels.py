"""A load for the examples: a GeoParquet delivery of land parcels replaces the table, and the changed footprint is saved.

The map changes where a parcel *was* as well as where it *is*, so the footprint is the union of both. Needs the extra
``changes``.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def load_delivery() -> str:
    """Replace the table ``PARCELS_TABLE`` with ``PARCELS_DELIVERY``. Both are GeoParquet files with a column ``id``.

    Returns:
        The path of a third file, next to the table: the parcels that were added, removed or redrawn, before and after.
    """
    from pyarrow import parquet

    from fused_cache_ops.changes import changed_geometry

    table, delivery = Path(os.environ["PARCELS_TABLE"]), Path(os.environ["PARCELS_DELIVERY"])
    changed = table.with_name("changed.parquet")
    parquet.write_table(changed_geometry(table, delivery, key="id"), changed)
    shutil.copyfile(delivery, table)
    return str(changed)
