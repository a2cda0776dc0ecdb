"""The examples that share one purge among workers: mapped tasks, a real Dask cluster, dynamic steps."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fused_cache_ops import plan_invalidation
from fused_cache_ops.demo.pipelines import PIPELINES, run_pipeline
from fused_cache_ops.emulator import Emulator

AREA = {"bounds": (-9.25, 38.68, -9.08, 38.80), "zooms": "10-16"}


@contextlib.contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """A Prefect server of its own, as Dask's workers need one that they can reach; its API's URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    environment = os.environ | {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(600):
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/health").is_success:
                    break
            assert server.poll() is None, (home / "server.log").read_text()
            time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in PIPELINES])
def test_four_shards_are_one_purge(name: str, tmp_path: Path) -> None:
    plan = plan_invalidation("parcels", **AREA)
    variables = {}
    with Emulator() as emulator, contextlib.ExitStack() as stack:
        if name == "prefect":
            variables["PREFECT_API_URL"] = stack.enter_context(prefect_server(tmp_path))
        udf = emulator.register(lambda **tile: tile, name="parcels")
        emulator.fill_cache(udf, [*plan.tiles(), (10, 0, 0)])
        run_pipeline(
            PIPELINES[name].another("invalidate_in_shards"), tmp_path, emulator=emulator.environment(), variables=variables
        )
        sent = [request.tiles for request in emulator.requests if request.path.endswith("batch-delete")]
        assert emulator.cached_tiles(udf) == {(10, 0, 0)}, (tmp_path / "output.log").read_text()
    assert sorted(tiles or 0 for tiles in sent) == sorted(shard.tile_count or 0 for shard in plan.shards(4))
