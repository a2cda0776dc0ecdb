"""The chunks that were written to an array in an Icechunk repository, beside Icechunk's own list of them.

python benchmarks/icechunk_changes.py [chunks on a side]

Each way opens the repository and runs in a process of its own, in turns. Shown are the number of rectangles or of chunks, the
least time, and the peak memory, imports included.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIDE = 10  # cells of a chunk
OURS = """
import icechunk, pyarrow, pyproj, shapely, zarr
pyarrow.array([0])  # imports pandas, if that is there
from fused_cache_ops.changes import changes_of_icechunk
changes_of_icechunk(path, since=head, array="a")  # what is imported and looked up once
started = time.perf_counter()
found = changes_of_icechunk(path, since=since, array="a")
"""
PLAIN = """
import icechunk
started = time.perf_counter()
repo = icechunk.Repository.open(icechunk.local_filesystem_storage(path))
diff = repo.diff(from_snapshot_id=since, to_snapshot_id=repo.lookup_branch("main"))
found = diff.updated_chunks["/a"]
"""
PROGRAM = """
import os, sys, time
os.environ["ICECHUNK_LOG"] = "error"
path, since, head = sys.argv[1:]
{program}
seconds = time.perf_counter() - started
peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
print(len(found), seconds, peak)
"""


def write(folder: Path, side: int) -> dict[str, list[str]]:
    """A repository of an array in degrees, of which three chunks were written, and then all. Returns both snapshots of each."""
    import icechunk
    import numpy as np
    import zarr

    repo = icechunk.Repository.create(icechunk.local_filesystem_storage(str(folder)))
    cells = side * SIDE

    def commit(change: Callable[[Any], None]) -> str:
        session = repo.writable_session("main")
        change(zarr.group(store=session.store))
        return str(session.commit("a load"))

    def create(group: Any) -> None:
        given = {"chunks": (SIDE, SIDE), "dtype": "f4", "dimension_names": ("lat", "lon")}
        group.create_array("a", shape=(cells, cells), **given)[:] = 1
        for name, end in (("lat", 60), ("lon", 40)):
            array = group.create_array(name, shape=(cells,), dtype="f8", dimension_names=(name,))
            array[:] = end - 20 * (np.arange(cells) + 0.5) / cells

    def write_three(group: Any) -> None:
        for place in (0.3, 0.52, 0.6):
            group["a"][int(place * cells), int((1 - place) * cells)] = 7

    def write_all(group: Any) -> None:
        group["a"][:] = 2

    first = commit(create)
    second = commit(write_three)
    repo.create_branch("three", second)
    third = commit(write_all)
    repo.create_branch("all", third)
    return {"three": [first, second], "all": [second, third]}


def measured(program: str, given: list[str]) -> tuple[int, float, float]:
    """How much was found, the time and the peak memory in MiB."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("{program}", program), *given], capture_output=True, text=True, check=True
    )
    found, seconds, peak = run.stdout.split()
    return int(found), float(seconds), float(peak)


def main() -> None:
    """Print a table."""
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print(f"| {side * side:,} chunks, written: | changes_of_icechunk | repo.diff alone | ratio |")
    print("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for kind, (since, head) in write(Path(folder), side).items():
            programs = [text.replace('"main"', f'"{kind}"') for text in (OURS, PLAIN)]
            programs[0] = programs[0].replace('array="a"', f'array="a", branch="{kind}"')
            runs = [[measured(program, [folder, since, head]) for program in programs] for _ in range(5)]
            (count, ours, peak), (chunks, plain, their_peak) = (min(each, key=lambda run: run[1]) for each in zip(*runs))
            print(f"| {chunks:,} | {count:,} rectangles, {ours * 1000:.0f} ms, {peak:.0f} MiB ", end="")
            print(f"| {plain * 1000:.0f} ms, {their_peak:.0f} MiB | {ours / plain:.1f} |", flush=True)


if __name__ == "__main__":
    main()
