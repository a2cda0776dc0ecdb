"""The cost of importing our modules in addition to the orchestrator: CPU time, as a median of alternating processes.

python benchmarks/imports.py [--quick]
"""

from __future__ import annotations

import statistics
import subprocess
import sys

ROUNDS = 1 if "--quick" in sys.argv else 9
PAIRS = {
    "fused_cache_ops, over Python": ("pass", "import fused_cache_ops"),
    "fused_cache_ops.invalidate_cache, over Python": ("pass", "from fused_cache_ops import invalidate_cache"),
    "the operator, over airflow.sdk": (
        "from airflow.sdk import BaseOperator, BaseOperatorLink, dag",
        "from airflow_provider_fused.operators import FusedInvalidateCacheOperator",
    ),
    "prefect_fused, over prefect": ("from prefect import flow, task; import prefect.blocks.abstract", "import prefect_fused"),
    "dagster_fused, over dagster": ("import dagster", "import dagster_fused"),
    "its resource and op, over dagster": (
        "import dagster",
        "from dagster_fused import FusedResource, build_invalidate_cache_op",
    ),
}
PROGRAM = """
import sys, time
{before}
started = time.process_time()
{after}
print((time.process_time() - started) * 1000, "requests" in sys.modules)
"""


def cost(before: str, after: str) -> tuple[float, bool]:
    program = PROGRAM.format(before=before, after=after)
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    milliseconds, brings_requests = done.stdout.split()[-2:]
    return float(milliseconds), brings_requests == "True"


def main() -> None:
    costs: dict[str, list[float]] = {name: [] for name in PAIRS}
    for _ in range(ROUNDS):
        for name, (before, after) in PAIRS.items():
            costs[name].append(cost(before, after)[0])
    for name, (before, after) in PAIRS.items():
        already, ours = cost(before, "pass")[1], cost(before, after)[1]
        requests = "requests is there already" if already else "brings requests" if ours else "without requests"
        print(f"{name:<46} {statistics.median(costs[name]):7.1f} ms  {requests}")


if __name__ == "__main__":
    main()
