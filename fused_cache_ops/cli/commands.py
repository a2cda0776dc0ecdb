"""All commands of ``fused-cache-ops``, in the order of the help."""

# Importing a module adds its commands.
from fused_cache_ops.cli.invalidating import dataset, invalidate, plan  # isort: skip
from fused_cache_ops.cli.refreshing import refresh  # isort: skip
from fused_cache_ops.cli.looking import check, inspect, udfs  # isort: skip
from fused_cache_ops.cli.listing import listing  # isort: skip
from fused_cache_ops.cli.maps import map_program  # isort: skip
from fused_cache_ops.cli.local import completion, demo, emulator, listener  # isort: skip
from fused_cache_ops.cli.ci import ci  # isort: skip
from fused_cache_ops.cli.program import program

__all__ = [
    "check",
    "ci",
    "completion",
    "dataset",
    "demo",
    "emulator",
    "inspect",
    "invalidate",
    "listener",
    "listing",
    "map_program",
    "plan",
    "program",
    "refresh",
    "udfs",
]
