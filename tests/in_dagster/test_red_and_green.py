"""Each row of the README's table of what is red and what stays green, in real runs."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from dagster_fused import (
    FusedResource,
    build_fused_cache_asset,
    build_fused_cache_assets,
    build_fused_cache_check,
    build_fused_refresh_check,
    build_invalidate_cache_op,
    build_refresh_cache_op,
    fused_invalidate_cache_on_success,
)
from fused_cache_ops import CacheMap
from fused_cache_ops.emulator import Emulator, Udf

pytestmark = pytest.mark.xdist_group("dagster")

TILE = "1/0/0"
RETRIES = dg.RetryPolicy(max_retries=2)


class House:
    """An emulator with a UDF of which four tiles are cached, and what runs against it."""

    def __init__(self, emulator: Emulator, udf: Udf, always_cached: Callable[[str], None]) -> None:
        self.emulator, self.udf, self.always_cached = emulator, udf, always_cached

    @property
    def fused(self) -> FusedResource:
        return FusedResource(
            token=self.emulator.token, base_url=self.emulator.base_url, shared_token=self.udf.shared_token, deadline=5
        )

    def op(self, definition: dg.OpDefinition) -> dg.ExecuteInProcessResult:
        job = dg.JobDefinition(name="job", graph_def=dg.GraphDefinition(name="graph", node_defs=[definition]))
        return job.execute_in_process(resources={"fused": self.fused}, raise_on_error=False)

    def asset(self, *checks: dg.AssetChecksDefinition, asset: dg.AssetsDefinition) -> dg.ExecuteInProcessResult:
        return dg.materialize([asset, *checks], resources={"fused": self.fused}, raise_on_error=False)

    def cache(self, **selection: Any) -> dg.AssetsDefinition:
        return build_fused_cache_asset("cache", udf="roads", selection=selection, retry_policy=RETRIES)


def an_op(**selection: Any) -> dg.OpDefinition:
    return build_invalidate_cache_op("invalidate", udf="roads", selection=selection, retry_policy=RETRIES)


def metadata(done: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = done.get_asset_materialization_events()
    return {name: value.value for name, value in event.materialization.metadata.items()}


def retries(done: dg.ExecuteInProcessResult) -> int:
    return len([event for event in done.all_events if event.event_type_value == "STEP_RESTARTED"])


def everything(house: House) -> None:
    assert house.op(an_op(tiles=[TILE])).success
    assert metadata(house.asset(asset=house.cache(tiles=[TILE])))["tiles_invalidated"] == 1


def nothing(house: House) -> None:
    assert house.op(an_op(tiles=[])).success
    done = house.asset(asset=house.cache(tiles=[]))
    assert metadata(done)["tiles_invalidated"] == 0
    assert house.emulator.requests == []


def warnings(house: House) -> None:
    house.emulator.register(dict, name="caller", code='def udf():\n    return fused.run("roads")\n')
    done = house.asset(asset=house.cache(tiles=[TILE]))
    assert done.success
    assert "1 caller of this UDF keeps results of its own" in str(metadata(done)["warnings"])


def transient(house: House) -> None:
    house.emulator.misbehave(status=503, retry_after=60, times=None)
    for done in (house.op(an_op(tiles=[TILE])), house.asset(asset=house.cache(tiles=[TILE]))):
        assert (done.success, retries(done)) == (False, 2)
        assert done.get_asset_materialization_events() == []


def permanent(house: House) -> None:
    @dg.op
    def forgot() -> Any:
        return None

    invalidate = build_invalidate_cache_op("invalidate", udf="roads", from_upstream="tiles", retry_policy=RETRIES)

    @dg.job
    def of_none() -> None:
        invalidate(tiles=forgot())

    none = of_none.execute_in_process(resources={"fused": house.fused}, raise_on_error=False)
    assert house.emulator.requests == []
    house.emulator.misbehave(status=403, times=None)
    for done in (none, house.op(an_op(tiles=[TILE])), house.asset(asset=house.cache(tiles=[TILE]))):
        assert (done.success, retries(done)) == (False, 0)
        assert done.get_asset_materialization_events() == []


def stale(house: House) -> None:
    house.always_cached(TILE)
    failed = house.op(an_op(tiles=[TILE], verify_tiles=1))
    assert (failed.success, retries(failed)) == (False, 2)
    assert (1, 0, 0) not in house.emulator.cached_tiles(house.udf)
    assert house.op(an_op(tiles=[TILE], verify_tiles=1, fail_on_stale=False)).success
    cache = house.cache(tiles=[TILE])
    check = build_fused_cache_check(cache, udf="roads", selection={"tiles": [TILE]}, severity=dg.AssetCheckSeverity.WARN)
    done = house.asset(check, asset=cache)
    (evaluation,) = done.get_asset_check_evaluations()
    assert metadata(done)["tiles_invalidated"] == 1
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.WARN)


def not_refreshed(house: House) -> None:
    house.emulator.misbehave(status=500, path="/run/tiles/1/0/0", times=None)
    asset = house.cache(tiles=[TILE], refresh="all")
    check = build_fused_refresh_check(asset, udf="roads", selection={"tiles": [TILE]})
    done = house.asset(check, asset=asset)
    assert done.success
    assert "1/0/0" in str(metadata(done)["refresh"])
    (evaluation,) = done.get_asset_check_evaluations()
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert not house.op(an_op(tiles=[TILE], refresh={"must_succeed": True})).success
    assert not house.op(build_refresh_cache_op("warm", udf="roads", selection={"tiles": [TILE]})).success


def one_of_several(house: House) -> None:
    cache_map = CacheMap.from_dict({"datasets": {"lake": {"udfs": [{"udf": name} for name in ("roads", "missing")]}}})
    assets = build_fused_cache_assets(cache_map, selection_fn=lambda context, key: [TILE])
    done = dg.materialize(assets, resources={"fused": house.fused}, raise_on_error=False)
    (event,) = done.get_asset_materialization_events()
    assert "roads" in str(event.asset_key)
    assert (1, 0, 0) not in house.emulator.cached_tiles(house.udf)
    assert len([event for event in done.all_events if event.is_step_failure]) == 1


def hook(house: House) -> None:
    house.emulator.misbehave(status=401, times=None)

    @dg.asset(hooks={fused_invalidate_cache_on_success("roads", selection={"tiles": [TILE]})})
    def table() -> None: ...

    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize([table], resources={"fused": house.fused}, instance=instance)
        levels = [entry.level for entry in instance.all_logs(done.run_id) if "NOT invalidated" in entry.user_message]
    assert done.success
    assert len(done.get_asset_materialization_events()) == 1
    assert levels == [40]


ROWS: dict[str, Callable[[House], None]] = {
    "Everything selected is invalidated": everything,
    "Nothing was selected (`[]`)": nothing,
    "The result has `warnings`: the map may stay stale all the same": warnings,
    "A transient error outlasts the deadline": transient,
    "A permanent error, or None": permanent,
    "A tile of `verify_tiles` still came from the cache": stale,
    "Something could not be refreshed": not_refreshed,
    "One of the UDFs of a cache map failed": one_of_several,
    "A hook failed": hook,
}


def test_every_row_of_the_table_is_run(what_happened: Callable[[str], set[str]]) -> None:
    assert what_happened("dagster") == set(ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_what_is_red_and_what_stays_green_is_as_the_table_says(
    row: str, fused_emulator: Emulator, udf: Udf, always_cached: Callable[[str], None]
) -> None:
    ROWS[row](House(fused_emulator, udf, always_cached))
