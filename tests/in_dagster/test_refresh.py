"""The op and the check that refresh, and ``refresh`` of what invalidates."""

from typing import Any

import dagster as dg
import pytest

from dagster_fused import (
    FusedResource,
    build_fused_cache_asset,
    build_fused_refresh_check,
    build_invalidate_cache_op,
    build_refresh_cache_op,
    fused_invalidate_cache_on_success,
    invalidate_cache_op,
)
from fused_cache_ops.emulator import Emulator, Udf

pytestmark = pytest.mark.xdist_group("dagster")

ALL = ["1/0/0", "1/0/1", "1/1/0", "1/1/1"]


@pytest.fixture
def fused(fused_emulator: Emulator, udf: Udf) -> FusedResource:
    return FusedResource(token=fused_emulator.token, base_url=fused_emulator.base_url, shared_token=udf.shared_token)


def run(fused: FusedResource, *ops: dg.OpDefinition, config: Any = None) -> dg.ExecuteInProcessResult:
    @dg.job
    def job() -> None:
        before = None
        for op in ops:
            before = op() if before is None else op(start_after=before)

    return job.execute_in_process(config, resources={"fused": fused}, raise_on_error=False)


def test_an_op_refreshes_after_the_op_that_invalidates(fused_emulator: Emulator, fused: FusedResource, udf: Udf) -> None:
    invalidate = build_invalidate_cache_op("invalidate", udf="roads", selection={"tiles": ALL})
    refresh = build_refresh_cache_op("warm", udf="roads", selection={"tiles": ALL, "refresh": 3})
    done = run(fused, invalidate, refresh)
    assert done.output_for_node("warm")["runs"] == 3
    assert len(fused_emulator.cached_tiles(udf)) == 3


def test_an_op_refreshes_what_comes_from_upstream(fused_emulator: Emulator, fused: FusedResource) -> None:
    refresh = build_refresh_cache_op("warm", udf="roads", from_upstream="tiles")

    @dg.op
    def load() -> list[str]:
        return ["3/1/1", "3/1/2"]

    @dg.job
    def job() -> None:
        refresh(tiles=load())

    done = job.execute_in_process(resources={"fused": fused})
    assert done.output_for_node("warm")["runs"] == 2


def test_an_op_that_could_not_refresh_fails(fused_emulator: Emulator, fused: FusedResource) -> None:
    fused_emulator.misbehave(status=500, path="/run/tiles/3/1/1")
    done = run(fused, build_refresh_cache_op("warm", udf="roads", selection={"tiles": ["3/1/1"]}))
    assert not done.success
    (failure,) = [event for event in done.all_events if event.is_step_failure]
    assert "1 result could not be refreshed" in str(failure.event_specific_data)


def test_an_unreadable_refresh_is_refused_where_it_is_defined() -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="unknown keys"):
        build_refresh_cache_op("warm", udf="roads", selection={"tile": ALL})  # type: ignore[typeddict-unknown-key]


def test_the_launchpad_can_refresh(fused_emulator: Emulator, fused: FusedResource) -> None:
    config = {"udf": "roads", "tiles": ALL, "refresh": {"parameters": {"color": "red"}}}
    done = run(fused, invalidate_cache_op, config={"ops": {"invalidate_cache_op": {"config": config}}})
    assert done.output_for_node("invalidate_cache_op")["refresh"]["runs"] == 4
    assert [each.parameters for each in fused_emulator.runs] == [{"color": "red"}] * 4


@pytest.mark.parametrize("selection", [{"refresh": 5}, {"refresh": {"zooms": "1"}}], ids=str)
def test_a_hook_does_not_refresh(selection: Any) -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=r"refresh takes long, and Hook .* cannot wait for it"):
        fused_invalidate_cache_on_success(udf="roads", selection={"tiles": ALL, **selection})


def test_an_asset_refreshes_what_it_invalidates(fused_emulator: Emulator, fused: FusedResource) -> None:
    asset = build_fused_cache_asset("cache", udf="roads", selection={"tiles": ALL, "refresh": {"zooms": "1"}})
    done = dg.materialize([asset], resources={"fused": fused})
    (event,) = done.get_asset_materialization_events()
    shown = event.materialization.metadata["refresh"].value
    assert isinstance(shown, dict)
    assert shown["runs"] == 4


@pytest.mark.parametrize("fails", [False, True])
def test_a_check_refreshes(fused_emulator: Emulator, fused: FusedResource, udf: Udf, fails: bool) -> None:
    if fails:
        fused_emulator.misbehave(status=500, path="/run/tiles/1/1/1")
    asset = build_fused_cache_asset("cache", udf="roads", selection={"tiles": ALL})
    check = build_fused_refresh_check(asset, udf="roads", selection={"tiles": ALL})
    done = dg.materialize([asset, check], resources={"fused": fused})
    (evaluation,) = done.get_asset_check_evaluations()
    assert done.success  # the map is right either way
    assert (evaluation.passed, evaluation.severity) == (not fails, dg.AssetCheckSeverity.WARN)
    assert evaluation.metadata["runs"].value == (3 if fails else 4)


def test_a_check_without_a_selection_is_refused() -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="pass selection_fn or selection"):
        build_fused_refresh_check(dg.AssetKey("cache"), udf="roads")
