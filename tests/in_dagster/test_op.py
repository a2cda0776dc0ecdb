"""The ops in real jobs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow
import pyarrow.parquet
import pytest

from dagster_fused import FusedResource, InvalidateCacheConfig, build_invalidate_cache_op, invalidate_cache_op
from fused_cache_ops import Tile
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.errors import InvalidInputError, UnavailableError

pytestmark = pytest.mark.xdist_group("dagster")


@pytest.fixture
def fused(fused_emulator: Emulator) -> FusedResource:
    return FusedResource(token=fused_emulator.token, base_url=fused_emulator.base_url, deadline=30)


@dg.job
def configured_job() -> None:
    invalidate_cache_op()


def launch(fused: FusedResource, **config: Any) -> dg.ExecuteInProcessResult:
    return configured_job.execute_in_process(
        run_config={"ops": {"invalidate_cache_op": {"config": config}}}, resources={"fused": fused}
    )


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def test_a_launch_without_tiles_invalidates_the_whole_udf(fused: FusedResource, fused_emulator: Emulator, udf: Udf) -> None:
    result = launch(fused, udf="roads").output_for_node("invalidate_cache_op")
    assert (result["udf_id"], result["tiles_invalidated"]) == (udf.id, None)
    assert fused_emulator.cached_tiles(udf) == set()


def test_a_launch_with_tiles_takes_every_form(fused: FusedResource, fused_emulator: Emulator, udf: Udf) -> None:
    launch(fused, udf="roads", tiles=["1/0/0", [1, 1, 1], {"z": 1, "x": 0, "y": 1}])
    assert fused_emulator.cached_tiles(udf) == {(1, 1, 0)}


@pytest.mark.parametrize(
    "selection",
    [
        {"bounds": [1, 1, 2, 2]},
        {"bounds": [[1, 1, 2, 2]]},
        {"geometry": {"type": "Point", "coordinates": [1.5, 1.5]}},
        {"geometry": "POINT(1.5 1.5)"},
        {"geometry": "POINT (166979 166998)", "crs": "EPSG:3857"},
        {"cells": ["89756a535a7ffff"]},
        {"cells": ["89756a535a7ffff"], "render_resolution": 5},
        {"cells": ["89756a535a7ffff"], "render_resolution": {"0": 1, "1": 5}},
    ],
    ids=str,
)
@pytest.mark.parametrize("zooms", ["0-1", [0, 1]], ids=str)
def test_a_launch_with_every_selection_of_the_core(
    fused: FusedResource, fused_emulator: Emulator, udf: Udf, selection: dict[str, Any], zooms: Any
) -> None:
    launch(fused, udf="roads", zooms=zooms, **selection)
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 0), (1, 0, 1), (1, 1, 1)}


@pytest.mark.parametrize("name", ["bounds", "geometry", "tiles_file", "cells", "hex_dataset", "partition"])
def test_a_launch_with_a_selection_of_null_invalidates_nothing(
    fused: FusedResource, fused_emulator: Emulator, name: str
) -> None:
    with pytest.raises(Exception, match=name):
        launch(fused, udf="roads", zooms=1, **{name: None})
    assert fused_emulator.requests == []


def test_a_built_op_takes_a_geometry_from_upstream(fused: FusedResource, fused_emulator: Emulator, udf: Udf) -> None:
    @dg.op
    def load() -> str:
        return "POINT(1.5 1.5)"

    invalidate = build_invalidate_cache_op("invalidate", udf="roads", from_upstream="geometry", selection={"zooms": 1})

    @dg.job
    def pipeline() -> None:
        invalidate(geometry=load())

    pipeline.execute_in_process(resources={"fused": fused})
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 0), (1, 0, 1), (1, 1, 1)}


@pytest.mark.parametrize("selection", [{"geometry": 1, "cells": 2}, {"cells": 1, "hex_dataset": 2}], ids=list)
def test_two_kinds_of_selection_are_refused_when_the_op_is_built(selection: Any) -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="given together"):
        build_invalidate_cache_op("invalidate", udf="roads", selection=selection)


def test_a_built_op_takes_a_table_from_an_io_manager(
    fused: FusedResource, fused_emulator: Emulator, udf: Udf, tmp_path: Path
) -> None:
    class Files(dg.IOManager):
        """Keeps a table as a Parquet file, and hands out a table of its own making."""

        def handle_output(self, context: dg.OutputContext, obj: pyarrow.Table) -> None:
            pyarrow.parquet.write_table(obj, tmp_path / "table.parquet")

        def load_input(self, context: dg.InputContext) -> pyarrow.Table:
            return pyarrow.parquet.read_table(tmp_path / "table.parquet")

    @dg.op(out=dg.Out(io_manager_key="files"))
    def load() -> pyarrow.Table:
        return pyarrow.table({"shape": ["POINT (1.5 1.5)"]})

    known: Any = {"zooms": 1, "geometry_column": "shape", "crs": "EPSG:4326"}
    invalidate = build_invalidate_cache_op("invalidate", udf="roads", from_upstream="geometry", selection=known)

    @dg.job
    def pipeline() -> None:
        invalidate(geometry=load())

    pipeline.execute_in_process(resources={"fused": fused, "files": Files()})
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 0), (1, 0, 1), (1, 1, 1)}


@pytest.mark.parametrize("partition", ["date=1", ["date=1", "date=2"]])
def test_a_built_op_takes_the_partition_of_a_dataset_from_upstream(
    fused: FusedResource, fused_emulator: Emulator, udf: Udf, tmp_path: Path, partition: Any
) -> None:
    for name in ("date=1", "date=2", "date=3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "83756afffffffff.parquet").touch()

    @dg.op
    def load() -> Any:
        return partition

    known: Any = {"zooms": 1, "hex_dataset": str(tmp_path)}
    invalidate = build_invalidate_cache_op("invalidate", udf="roads", from_upstream="partition", selection=known)

    @dg.job
    def pipeline() -> None:
        invalidate(partition=load())

    pipeline.execute_in_process(resources={"fused": fused})
    assert (1, 1, 0) not in fused_emulator.cached_tiles(udf)


@pytest.mark.parametrize("selection", [{"tiles": iter(["1/0/0"])}, {"tiles_file": "-"}], ids=list)
def test_a_selection_that_a_second_run_would_find_empty_is_refused(selection: Any) -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="read only once"):
        build_invalidate_cache_op("invalidate", udf="roads", selection=selection)


def test_a_shared_token_is_in_no_description() -> None:
    assert "secret" not in (build_invalidate_cache_op("invalidate", udf="fsh_secret").description or "")


@pytest.mark.parametrize("selection", [{"bound": (0, 0, 1, 1)}, {"bounds": (0, 0, 1, 1), "tiles": []}])
def test_a_selection_that_cannot_be_meant_is_refused_when_the_op_is_built(selection: Any) -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="one kind of tiles"):
        build_invalidate_cache_op("invalidate", udf="roads", selection=selection)


def test_a_launch_with_an_empty_list_sends_nothing(fused: FusedResource, fused_emulator: Emulator) -> None:
    assert launch(fused, udf="roads", tiles=[]).output_for_node("invalidate_cache_op")["tiles_invalidated"] == 0
    assert fused_emulator.requests == []


@pytest.mark.parametrize("tiles", [None, "1/0/0", 5])
def test_a_launch_with_tiles_that_are_none_invalidates_nothing(
    fused: FusedResource, fused_emulator: Emulator, udf: Udf, tiles: Any
) -> None:
    with pytest.raises(Exception, match="tiles"):
        launch(fused, udf="roads", tiles=tiles)
    assert fused_emulator.requests == []


def test_the_result_is_in_the_outputs_metadata(fused: FusedResource, udf: Udf) -> None:
    events = launch(fused, udf="roads", tiles=["1/0/0", "1/0/1"]).filter_events(
        lambda event: event.event_type_value == "STEP_OUTPUT"
    )
    metadata = events[0].step_output_data.metadata
    assert (metadata["tiles_invalidated"].value, metadata["objects_deleted"].value) == (2, 2)
    assert metadata["udf_id"].value == udf.id
    assert [dict(record.data) for record in metadata["tiles_per_zoom"].records] == [{"zoom": 1, "tiles": 2}]
    assert metadata["footprint"].value["features"][0]["properties"]["tiles"] == 2


def test_the_op_comes_after_what_it_starts_after(fused: FusedResource, fused_emulator: Emulator, udf: Udf) -> None:
    order: list[str] = []
    fused_emulator.before_invalidation = lambda: order.append("invalidate")

    @dg.op(out=dg.Out(dg.Nothing))
    def load() -> None:
        order.append("load")

    @dg.job
    def pipeline() -> None:
        invalidate_cache_op(start_after=load())

    pipeline.execute_in_process(
        run_config={"ops": {"invalidate_cache_op": {"config": {"udf": "roads"}}}}, resources={"fused": fused}
    )
    assert order == ["load", "invalidate"]


def test_a_built_op_takes_tiles_from_upstream(fused: FusedResource, fused_emulator: Emulator, udf: Udf) -> None:
    @dg.op
    def load() -> list[Tile]:
        return [Tile(1, 0, 0), Tile(1, 1, 1)]

    invalidate = build_invalidate_cache_op("invalidate", udf="roads", from_upstream="tiles")

    @dg.job
    def pipeline() -> None:
        invalidate(tiles=load())

    pipeline.execute_in_process(resources={"fused": fused})
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 1), (1, 1, 0)}


def test_upstream_tiles_that_are_none_invalidate_nothing(fused: FusedResource, fused_emulator: Emulator) -> None:
    @dg.op
    def load() -> Any:
        return None

    invalidate = build_invalidate_cache_op("invalidate", udf="roads", from_upstream="tiles")

    @dg.job
    def pipeline() -> None:
        invalidate(tiles=load())

    with pytest.raises(dg.Failure, match="tiles is None"):
        pipeline.execute_in_process(resources={"fused": fused})
    assert fused_emulator.requests == []


def test_a_job_that_leaves_the_tiles_unconnected_is_refused(fused: FusedResource) -> None:
    invalidate = build_invalidate_cache_op("invalidate", udf="roads", from_upstream="tiles")

    @dg.job
    def pipeline() -> None:
        invalidate()

    with pytest.raises((dg.DagsterInvalidConfigError, dg.DagsterInvalidDefinitionError)):
        pipeline.execute_in_process(resources={"fused": fused})


def test_a_built_op_with_fixed_tiles(fused: FusedResource, fused_emulator: Emulator, udf: Udf) -> None:
    invalidate = build_invalidate_cache_op("invalidate", udf="roads", selection={"tiles": ["1/0/0"]}, tags={"team": "maps"})

    @dg.job
    def pipeline() -> None:
        invalidate()

    pipeline.execute_in_process(resources={"fused": fused})
    assert len(fused_emulator.cached_tiles(udf)) == 3
    assert invalidate.tags["team"] == "maps"


def test_fixed_and_upstream_tiles_together_are_refused() -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="only once"):
        build_invalidate_cache_op("invalidate", udf="roads", selection={"tiles": ["1/0/0"]}, from_upstream="tiles")


def test_it_can_be_called_directly(fused: FusedResource, udf: Udf) -> None:
    config = InvalidateCacheConfig(udf="roads", tiles=["1/0/0"])
    assert invalidate_cache_op(dg.build_op_context(), config=config, fused=fused)["tiles_invalidated"] == 1


@pytest.mark.parametrize(("status", "requests"), [(401, 1), (403, 1), (404, 1), (422, 1), (302, 1)])
def test_what_will_not_pass_is_not_retried(
    fused: FusedResource, fused_emulator: Emulator, instance: dg.DagsterInstance, status: int, requests: int
) -> None:
    invalidate = build_invalidate_cache_op("invalidate", udf="roads", retry_policy=dg.RetryPolicy(max_retries=2))

    @dg.job
    def pipeline() -> None:
        invalidate()

    fused_emulator.misbehave(status=status, times=None)
    result = pipeline.execute_in_process(resources={"fused": fused}, instance=instance, raise_on_error=False)
    assert not result.success
    assert len(fused_emulator.requests) == requests


def test_transient_errors_are_left_to_the_retry_policy(
    fused: FusedResource, fused_emulator: Emulator, udf: Udf, instance: dg.DagsterInstance
) -> None:
    invalidate = build_invalidate_cache_op("invalidate", udf="roads", retry_policy=dg.RetryPolicy(max_retries=2))

    @dg.job
    def pipeline() -> None:
        invalidate()

    fused_emulator.misbehave(status=503, retry_after=60, times=2)
    result = pipeline.execute_in_process(resources={"fused": fused}, instance=instance)
    assert result.success
    assert [request.status for request in fused_emulator.requests][:3] == [503, 503, 200]


def test_when_the_retries_are_used_up_the_error_is_the_cores(fused: FusedResource, fused_emulator: Emulator) -> None:
    fused_emulator.misbehave(status=503, retry_after=60, times=None)
    with pytest.raises(UnavailableError):
        launch(fused, udf="roads")


def test_a_shared_token_is_refused_before_dagster_stores_the_runs_configuration(fused: FusedResource, udf: Udf) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        config: Any = {"ops": {"invalidate_cache_op": {"config": {"udf": udf.shared_token, "tiles": ["1/0/0"]}}}}
        with pytest.raises(InvalidInputError, match="udf is a shared token") as caught:
            configured_job.execute_in_process(run_config=config, resources={"fused": fused}, instance=instance)
        assert instance.get_runs() == []
    assert udf.shared_token not in str(caught.value)
