"""What changed between two states of a table, as what ``geometry=`` takes. Needs the extra ``changes``, ``delta``,
``iceberg``, ``icechunk`` or ``raster``."""

from __future__ import annotations

from fused_cache_ops.changes.difference import changed_geometry
from fused_cache_ops.changes.feeds import changes_of_delta, changes_of_iceberg
from fused_cache_ops.changes.icechunk import changes_of_icechunk
from fused_cache_ops.changes.rasters import changed_raster, raster_footprint

__all__ = [
    "changed_geometry",
    "changed_raster",
    "changes_of_delta",
    "changes_of_iceberg",
    "changes_of_icechunk",
    "raster_footprint",
]
