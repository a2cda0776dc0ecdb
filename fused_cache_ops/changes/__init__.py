"""What changed between two states of a table, as what ``geometry=`` takes. Needs the extra ``changes``, ``delta`` or
``iceberg``."""

from __future__ import annotations

from fused_cache_ops.changes.difference import changed_geometry
from fused_cache_ops.changes.feeds import changes_of_delta, changes_of_iceberg

__all__ = ["changed_geometry", "changes_of_delta", "changes_of_iceberg"]
