"""A local stand-in for the Fused service: for tests, for demonstrations, and for trying things out.

It runs registered Python functions as UDFs, caches their results in SQLite, and serves the endpoints that this
package and Fused's own SDK use. It can be told to misbehave. Needs the extra ``emulator``.
"""

from __future__ import annotations

try:
    from fused_cache_ops.emulator.server import Emulator
except ImportError as error:  # pragma: no cover - depends on what is installed
    from fused_cache_ops.wording import extra_needed

    raise ImportError(f"The emulator cannot start. {extra_needed(str(error.name), 'emulator')}") from error
from fused_cache_ops.emulator.assumptions import Assumptions
from fused_cache_ops.emulator.faults import Fault
from fused_cache_ops.emulator.runs import Run
from fused_cache_ops.emulator.store import Canvas, ReceivedRequest, Udf
from fused_cache_ops.emulator.tables import H3Table

__all__ = ["Assumptions", "Canvas", "Emulator", "Fault", "H3Table", "ReceivedRequest", "Run", "Udf"]
