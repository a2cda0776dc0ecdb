"""What open maps are told, in real runs."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_fused import FusedResource, build_fused_cache_asset, build_invalidate_cache_op, invalidate_cache_op
from fused_cache_ops import InvalidInputError
from fused_cache_ops.emulator import Emulator

pytestmark = [pytest.mark.xdist_group("dagster"), pytest.mark.usefixtures("udf")]

HOOK = "https://hooks.example.com/T0K3N/Zq7Xw9Kt3V"


@pytest.fixture
def fused(fused_emulator: Emulator) -> FusedResource:
    return FusedResource(token=fused_emulator.token, base_url=fused_emulator.base_url)


def run_op(op: Any, fused: FusedResource, config: Any = None) -> Any:
    @dg.job
    def job() -> None:
        op()

    return job.execute_in_process(config, resources={"fused": fused}, raise_on_error=False)


@pytest.mark.parametrize("form", ["op", "config", "asset"])
def test_a_run_announces_what_it_invalidated(form: str, fused: FusedResource, tmp_path: Path) -> None:
    how: Any = {"tiles": ["1/0/0"], "announce": {"to": str(tmp_path / "map.json"), "source": "streets"}}
    if form == "asset":
        done: Any = dg.materialize([build_fused_cache_asset("cache", udf="roads", selection=how)], resources={"fused": fused})
        [event] = done.get_asset_materialization_events()
        assert "as version 1 of 'streets'" in event.materialization.metadata["announcement"].value
    elif form == "op":
        done = run_op(build_invalidate_cache_op("invalidate", udf="roads", selection=how), fused)
    else:
        done = run_op(invalidate_cache_op, fused, {"ops": {"invalidate_cache_op": {"config": {"udf": "roads", **how}}}})
    assert done.success
    document = json.loads((tmp_path / "map.json").read_text())
    assert (document["source"], document["changes"][0]["tiles"]) == ("streets", ["1/0/0"])


def test_what_must_be_announced_fails_the_step(fused: FusedResource, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text("else")
    how: Any = {"announce": {"to": str(tmp_path / "map.json"), "must_succeed": True}}
    done = run_op(build_invalidate_cache_op("invalidate", udf="roads", selection=how), fused)
    assert not done.success


@pytest.mark.parametrize("how", [HOOK, {"to": HOOK}], ids=["text", "mapping"])
def test_an_address_to_post_to_is_refused_before_the_run_is_stored(fused: FusedResource, how: Any) -> None:
    config = {"ops": {"invalidate_cache_op": {"config": {"udf": "roads", "announce": how}}}}
    with pytest.raises(InvalidInputError, match="env:MAP_WEBHOOK") as caught:
        run_op(invalidate_cache_op, fused, config)
    assert "T0K3N" not in str(caught.value)
