"""A load for the examples: a GeoParquet delivery of land parcels replaces the table, and the changed footprint is saved.

The map changes where a parcel *was* as well as where it *is*, so the footprint is the union of both. Needs geopandas.
"""

from __future__ import annotations

import os
from pathlib import Path


def load_delivery() -> str:
    """Replace the table ``PARCELS_TABLE`` with ``PARCELS_DELIVERY``. Both are GeoParquet files with a column ``id``.

    Returns:
        The path of a third file, next to the table: the parcels that were added, removed or redrawn, before and after.
    """
    import geopandas
    import pandas

    table, delivery = Path(os.environ["PARCELS_TABLE"]), Path(os.environ["PARCELS_DELIVERY"])
    old, new = (geopandas.read_parquet(path).set_index("id") for path in (table, delivery))
    in_both = old.index.intersection(new.index)
    untouched = in_both[old.geometry.loc[in_both].geom_equals(new.geometry.loc[in_both])]
    changed = table.with_name("changed.parquet")
    pandas.concat([old.drop(untouched), new.drop(untouched)]).to_parquet(changed)
    new.reset_index().to_parquet(table)
    return str(changed)
