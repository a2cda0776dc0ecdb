"""The examples that share one invalidation among workers: mapped tasks, a real Dask cluster, dynamic steps."""

from pathlib import Path

import pytest

from fused_cache_ops import plan_invalidation
from fused_cache_ops.demo.pipelines import PIPELINES, run_pipeline
from fused_cache_ops.emulator import Emulator

AREA = {"bounds": (-9.25, 38.68, -9.08, 38.80), "zooms": "10-16"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(f"{name}-server")) for name in PIPELINES])
def test_four_shards_are_one_invalidation(name: str, tmp_path: Path, templates: Path, request: pytest.FixtureRequest) -> None:
    plan = plan_invalidation("parcels", **AREA)
    variables = {}
    with Emulator() as emulator:
        if name == "prefect":  # Dask's workers need a server that they can reach
            variables["PREFECT_API_URL"] = request.getfixturevalue("prefect_server").url
        udf = emulator.register(lambda **tile: tile, name="parcels")
        emulator.fill_cache(udf, [*plan.tiles(), (10, 0, 0)])
        pipeline = PIPELINES[name].another("invalidate_in_shards")
        run_pipeline(pipeline, tmp_path, emulator=emulator.environment(), variables=variables, templates=templates)
        sent = [request.tiles for request in emulator.requests if request.path.endswith("batch-delete")]
        assert emulator.cached_tiles(udf) == {(10, 0, 0)}, (tmp_path / "output.log").read_text()
    assert sorted(tiles or 0 for tiles in sent) == sorted(shard.tile_count or 0 for shard in plan.shards(4))
