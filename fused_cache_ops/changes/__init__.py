"""What changed between two states of a table, as what ``geometry=`` takes. Needs the extra ``changes``, ``delta``,
``iceberg``, ``icechunk`` or ``raster``."""

from __future__ import annotations

from fused_cache_ops.changes.difference import changed_geometry
from fused_cache_ops.changes.feeds import changes_of_delta, changes_of_iceberg
from fused_cache_ops.changes.folders import ChangedFiles, changed_files, changes_of_folder, folder_listing
from fused_cache_ops.changes.icechunk import changes_of_icechunk
from fused_cache_ops.changes.rasters import changed_raster, raster_footprint

__all__ = [
    "ChangedFiles",
    "changed_files",
    "changed_geometry",
    "changed_raster",
    "changes_of_delta",
    "changes_of_folder",
    "changes_of_iceberg",
    "changes_of_icechunk",
    "folder_listing",
    "raster_footprint",
]
