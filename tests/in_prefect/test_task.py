"""The task in real flow runs on Prefect's test server."""

import inspect
from typing import Any

import duckdb
import polars
import pyarrow
import pytest
from prefect import flow, get_client, task, unmapped
from prefect.client.schemas.objects import State

from fused_cache_ops import Tile
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.errors import AuthenticationError, ConfigurationError, InvalidInputError, UnavailableError
from prefect_fused import FusedCredentials, invalidate_cache

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("prefect_api")]


@pytest.fixture
def credentials(fused_emulator: Emulator) -> FusedCredentials:
    return FusedCredentials(token=fused_emulator.token, base_url=fused_emulator.base_url)


def invalidate(run: Any) -> State[Any]:
    """Run a function as a flow, and return the flow's state."""
    return flow(run, name="test")(return_state=True)


def test_tiles_from_an_upstream_task_are_invalidated(fused_emulator: Emulator, credentials: FusedCredentials, udf: Udf) -> None:
    @task
    def load() -> list[Any]:
        return ["1/0/0", Tile(1, 1, 1), (1, 0, 1)]

    @flow
    def pipeline() -> dict[str, Any]:
        return invalidate_cache("roads", credentials=credentials, tiles=load())

    result = pipeline()
    assert (result["udf_id"], result["tiles_invalidated"], result["objects_deleted"]) == (udf.id, 3, 3)
    assert fused_emulator.cached_tiles(udf) == {(1, 1, 0)}


def test_mapping_over_udfs_hands_each_the_groups_of_options_whole(
    fused_emulator: Emulator, credentials: FusedCredentials, udf: Udf
) -> None:
    other = fused_emulator.register(lambda **tile: tile, name="other")

    @flow
    def pipeline() -> list[dict[str, Any]]:
        mapped = invalidate_cache.with_options(retries=0).map(
            [udf.shared_token, other.shared_token],
            credentials=unmapped(credentials),
            tiles=unmapped(["1/0/0", "1/0/1", "2/0/0"]),
            refresh={"count": 5, "zooms": "1"},
            limits={"deadline": 20, "max_concurrency": 2},
        )
        return mapped.result()

    assert [result["refresh"]["runs"] for result in pipeline()] == [2, 2]


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"limits": {"deadlin": 5}}, r"limits: unknown key 'deadlin'. Did you mean deadline\?"),
        ({"limits": {"deadline": None}}, r"limits: deadline is None"),
        ({"limits": 5}, r"limits is of type int: pass a mapping"),
        ({"refresh": {"zoms": 5}}, r"refresh: unknown key 'zoms'. Did you mean zooms\?"),
    ],
    ids=str,
)
def test_a_group_that_cannot_be_meant_is_refused(fused_emulator: Emulator, keywords: Any, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        invalidate_cache.fn("roads", tiles=["1/0/0"], **keywords)
    assert fused_emulator.requests == []


def test_without_tiles_the_whole_udf_is_invalidated(fused_emulator: Emulator, credentials: FusedCredentials, udf: Udf) -> None:
    @flow
    def pipeline() -> dict[str, Any]:
        return invalidate_cache("roads", credentials)

    assert pipeline()["tiles_invalidated"] is None
    assert fused_emulator.cached_tiles(udf) == set()


def test_without_credentials_the_environment_is_used(fused_emulator: Emulator, udf: Udf) -> None:
    assert invalidate_cache.fn("roads", tiles=["1/0/0"])["tiles_invalidated"] == 1


@pytest.mark.parametrize(
    "selection",
    [
        {"bounds": (1, 1, 2, 2)},
        {"geometry": {"type": "Point", "coordinates": [1.5, 1.5]}},
        {"geometry": "POINT(1.5 1.5)"},
        {"geometry": polars.DataFrame({"shape": ["POINT (166979 166998)"]}), "geometry_column": "shape", "crs": "EPSG:3857"},
        {"geometry": duckdb.sql("SELECT 'POINT (1.5 1.5)' AS shape"), "geometry_column": "shape", "crs": "EPSG:4326"},
        {"cells": ["89756a535a7ffff"]},
        {"cells": pyarrow.array([0x89756A535A7FFFF], pyarrow.uint64()), "render_resolution": 5},
    ],
    ids=lambda selection: "-".join(selection),
)
def test_every_selection_of_the_core_can_be_given(
    fused_emulator: Emulator, credentials: FusedCredentials, udf: Udf, selection: dict[str, Any]
) -> None:
    @flow
    def pipeline(selection: dict[str, Any]) -> dict[str, Any]:
        return invalidate_cache("roads", credentials=credentials, zooms="0-1", **selection)

    assert pipeline(selection)["tiles_invalidated"] == 2
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 0), (1, 0, 1), (1, 1, 1)}


def test_a_load_that_returns_none_invalidates_nothing(
    fused_emulator: Emulator, credentials: FusedCredentials, udf: Udf
) -> None:
    @task
    def load() -> None:
        return None

    def run() -> None:
        invalidate_cache("roads", credentials=credentials, tiles=load())

    with pytest.raises(InvalidInputError, match="tiles is None"):
        invalidate(run).result()
    assert fused_emulator.requests == []


def test_every_call_invalidates_again(fused_emulator: Emulator, credentials: FusedCredentials, udf: Udf) -> None:
    @flow(persist_result=True)
    def pipeline() -> None:
        for _ in range(3):
            invalidate_cache(udf.id, credentials=credentials)

    pipeline()
    assert [request.method for request in fused_emulator.requests].count("DELETE") == 3


def test_what_will_not_pass_is_not_retried(fused_emulator: Emulator, credentials: FusedCredentials) -> None:
    fused_emulator.misbehave(status=401, times=None)

    def run() -> None:
        invalidate_cache("roads", credentials=credentials)

    with pytest.raises(AuthenticationError):
        invalidate(run).result()
    assert len(fused_emulator.requests) == 1


def test_transient_errors_are_retried_by_prefect(fused_emulator: Emulator, credentials: FusedCredentials, udf: Udf) -> None:
    fused_emulator.misbehave(status=503, retry_after=60, times=2)
    quick = invalidate_cache.with_options(retry_delay_seconds=0)

    def run() -> dict[str, Any]:
        return quick("roads", credentials=credentials, limits={"deadline": 30})

    assert invalidate(run).result()["retries"] == 0
    assert [request.status for request in fused_emulator.requests][:3] == [503, 503, 200]


def test_retries_end(fused_emulator: Emulator, credentials: FusedCredentials, udf: Udf) -> None:
    fused_emulator.misbehave(status=503, retry_after=60, times=None)

    def run() -> None:
        invalidate_cache.with_options(retry_delay_seconds=0)("roads", credentials=credentials, limits={"deadline": 30})

    with pytest.raises(UnavailableError):
        invalidate(run).result()
    assert len(fused_emulator.requests) == 3


def test_it_maps_over_udfs(fused_emulator: Emulator, credentials: FusedCredentials, udf: Udf) -> None:
    other = fused_emulator.register(dict, name="rivers")
    fused_emulator.fill_cache(other, [(1, 0, 0)])

    @flow
    def pipeline() -> list[dict[str, Any]]:
        futures = invalidate_cache.map(["roads", "rivers"], credentials=unmapped(credentials), tiles=unmapped(["1/0/0"]))
        return futures.result()

    assert {result["udf_id"] for result in pipeline()} == {udf.id, other.id}
    assert fused_emulator.cached_tiles(other) == set()


def test_the_run_is_named_after_the_udf(fused_emulator: Emulator, credentials: FusedCredentials, udf: Udf) -> None:
    @flow
    def pipeline() -> State[Any]:
        return invalidate_cache("roads", credentials=credentials, return_state=True)

    state = pipeline()
    assert state.name == "Completed"
    assert read_name(state) == "invalidate-roads"


def read_name(state: State[Any]) -> str:
    with get_client(sync_client=True) as api:
        return str(api.read_task_run(state.state_details.task_run_id).name)


def test_the_runs_name_counts_tiles_and_masks_a_shared_token(
    fused_emulator: Emulator, credentials: FusedCredentials, udf: Udf
) -> None:
    @flow
    def pipeline() -> State[Any]:
        return invalidate_cache(udf.shared_token, credentials=credentials, tiles=["1/0/0", "1/0/1"], return_state=True)

    assert read_name(pipeline()) == "invalidate-fsh_********-2-tiles"


@pytest.mark.parametrize("arguments", [{"tiles": (tile for tile in ["1/0/0"])}, {"credentials": "production"}], ids=list)
def test_what_a_retry_could_not_mend_is_refused_at_once(
    fused_emulator: Emulator, credentials: FusedCredentials, arguments: dict[str, Any]
) -> None:
    def run() -> None:
        invalidate_cache("roads", **({"credentials": credentials} | arguments))

    with pytest.raises((InvalidInputError, ConfigurationError), match=r"read only once|pass a FusedCredentials"):
        invalidate(run).result()
    assert fused_emulator.requests == []


def test_the_task_is_synchronous() -> None:
    assert not invalidate_cache.isasync
    assert not inspect.iscoroutinefunction(invalidate_cache.fn)


def test_mapping_over_a_dict_is_refused_since_prefect_would_drop_its_values(fused_emulator: Emulator, udf: Udf) -> None:
    @flow
    def pipeline() -> None:
        invalidate_cache.map({"roads": ["1/0/0"]})

    with pytest.raises(InvalidInputError, match="keys of a dict"):
        pipeline()
    assert fused_emulator.requests == []


def test_what_mapped_loads_returned_is_one_selection(fused_emulator: Emulator, udf: Udf) -> None:
    @task
    def load(x: int) -> list[str]:
        return [f"1/{x}/0"]

    @flow
    def pipeline() -> Any:
        return invalidate_cache("roads", tiles=load.map([0, 1]))

    assert pipeline()["tiles_invalidated"] == 2


@pytest.mark.parametrize("name", ["zooms", "related", "render_resolution"])
def test_none_is_not_the_same_as_omitted(fused_emulator: Emulator, name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{name} is None"):
        invalidate_cache.fn("roads", tiles=["1/0/0"], **{name: None})  # type: ignore[call-overload]
    assert fused_emulator.requests == []
