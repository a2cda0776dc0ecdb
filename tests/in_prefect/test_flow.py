"""The flow that is deployed as it is, and the example flows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, get_client
from prefect.assets import materialize
from prefect.client.schemas.objects import State
from prefect.exceptions import ParameterTypeError
from prefect.flows import Flow, load_flow_from_entrypoint

from fused_cache_ops.demo.stations import build_udf, create_table
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.errors import InvalidInputError
from prefect_fused import FusedCredentials, invalidate_cache, invalidate_cache_flow

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("prefect_api")]

EXAMPLES = Path(__file__).parents[2] / "prefect" / "flows"


# -- the flow -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "left"),
    [
        ({"tiles": ["1/0/0"]}, 3),
        ({"tiles": ["1/0/0"], "zooms": "1-2", "buffer": 1}, 0),
        ({"bounds": [1, 1, 2, 2], "zooms": "1"}, 3),
        ({"geometry": "POINT(1.5 1.5)", "zooms": "1"}, 3),
        ({"geometry": {"type": "Point", "coordinates": [1.5, 1.5]}, "zooms": "1"}, 3),
        ({"tiles": []}, 4),
        ({"whole_udf": True}, 0),
    ],
    ids=str,
)
def test_every_selection_of_the_form_is_invalidated(
    fused_emulator: Emulator, udf: Udf, parameters: dict[str, Any], left: int
) -> None:
    invalidate_cache_flow("roads", **parameters)
    assert len(fused_emulator.cached_tiles(udf)) == left


@pytest.mark.parametrize(
    "parameters", [{}, {"tiles": None}, {"zooms": "1-2"}, {"whole_udf": True, "tiles": ["1/0/0"]}], ids=str
)
def test_an_empty_form_never_invalidates_everything(fused_emulator: Emulator, udf: Udf, parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="whole_udf"):
        invalidate_cache_flow("roads", **parameters)
    assert fused_emulator.requests == []


@pytest.mark.parametrize(
    "parameters", [{"bounds": [1, 2, 3]}, {"when_too_many": "all"}, {"buffer": -1}, {"tiles": "1/0/0"}], ids=str
)
def test_what_the_form_would_not_take_is_refused(fused_emulator: Emulator, udf: Udf, parameters: dict[str, Any]) -> None:
    with pytest.raises(ParameterTypeError):
        invalidate_cache_flow("roads", **parameters)


def test_a_shared_token_is_no_parameter(fused_emulator: Emulator, udf: Udf) -> None:
    with pytest.raises(InvalidInputError, match="plain text") as caught:
        invalidate_cache_flow(udf.shared_token, whole_udf=True)
    assert udf.shared_token not in str(caught.value)
    assert fused_emulator.requests == []


def test_a_stored_block_is_named(fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch) -> None:
    FusedCredentials.from_env().save("for-the-flow", overwrite=True)
    monkeypatch.delenv("FUSED_SERVICE_ACCOUNT_TOKEN")
    assert invalidate_cache_flow("roads", tiles=["1/0/0"], credentials="for-the-flow")["tiles_invalidated"] == 1


def test_the_form_describes_every_field() -> None:
    fields = invalidate_cache_flow.parameters.properties
    assert [name for name, field in fields.items() if not field.get("description", "").endswith(".")] == []
    assert invalidate_cache_flow.parameters.required == ["udf"]


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"tiles": ["1/0/0"]}, "invalidate-roads-1-tile"),
        ({"tiles": ["1/0/0"], "zooms": "0-1"}, "invalidate-roads-2-tiles"),
        ({"bounds": [1, 1, 2, 2], "zooms": "1-2"}, "invalidate-roads-2-tiles"),
        ({"whole_udf": True}, "invalidate-roads"),
    ],
    ids=str,
)
def test_the_run_is_named_after_the_udf_and_its_tiles(
    fused_emulator: Emulator, udf: Udf, parameters: dict[str, Any], name: str
) -> None:
    state: State[Any] = invalidate_cache_flow("roads", **parameters, return_state=True)
    with get_client(sync_client=True) as api:
        assert api.read_flow_run(state.state_details.flow_run_id).name == name


# -- assets -------------------------------------------------------------------------------------------------------------


def test_the_tiles_of_a_materialized_asset_are_invalidated(fused_emulator: Emulator, udf: Udf) -> None:
    @materialize("postgres://warehouse/roads")
    def load() -> list[str]:
        return ["1/0/0"]

    @materialize("fused://team/roads")
    def map_of_roads(tiles: list[str]) -> dict[str, Any]:
        return invalidate_cache("roads", tiles=tiles)

    flow(lambda: map_of_roads(load()), name="test")()
    assert len(fused_emulator.cached_tiles(udf)) == 3


# -- the examples -------------------------------------------------------------------------------------------------------


@pytest.fixture
def example(fused_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Flow[..., Any]]:
    """Loads the flow of an example, over a table of its own."""
    database = tmp_path / "stations.sqlite"
    create_table(database)
    monkeypatch.setenv("STATIONS_DATABASE", str(database))
    for name in ("charging_stations", "charging_density"):
        udf = fused_emulator.register(build_udf(database), name=name)
        fused_emulator.fill_cache(udf, [(10, 485, 392), (10, 486, 391), (10, 486, 392), (10, 0, 0)])

    def load(file: str, function: str | None = None) -> Flow[..., Any]:
        return load_flow_from_entrypoint(f"{EXAMPLES / file}.py:{function or file}")

    return load


def requested(emulator: Emulator) -> list[str]:
    """The invalidations that have arrived, as method and number of tiles."""
    return [f"{request.method} {request.tiles}" for request in emulator.requests if request.method != "GET"]


def test_the_example_of_tiles_runs(fused_emulator: Emulator, example: Callable[..., Flow[..., Any]]) -> None:
    assert example("load_then_invalidate")()["tiles_invalidated"] == 2
    assert len(requested(fused_emulator)) == 1


def test_the_example_of_a_whole_udf_runs(fused_emulator: Emulator, example: Callable[..., Flow[..., Any]]) -> None:
    assert example("invalidate_whole_udf")()["tiles_invalidated"] is None
    assert len(requested(fused_emulator)) == 1


def test_the_example_of_a_refresh_runs(
    fused_emulator: Emulator, example: Callable[..., Flow[..., Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (stations,) = [udf for udf in fused_emulator.store.udfs(fused_emulator.environment_id) if udf.slug == "charging_stations"]
    monkeypatch.setenv("STATIONS_SHARED_TOKEN", stations.shared_token)
    result = example("refresh_after_load")()
    assert (result["runs"], result["failed"]) == (2, [])
    assert len(fused_emulator.cached_tiles(stations)) == 4


def test_the_example_of_many_udfs_runs(fused_emulator: Emulator, example: Callable[..., Flow[..., Any]]) -> None:
    results = example("invalidate_many_udfs")()
    assert len({result["udf_id"] for result in results}) == 2
    assert len(requested(fused_emulator)) == 2


def test_the_example_of_a_dataset_runs(fused_emulator: Emulator, example: Callable[..., Flow[..., Any]]) -> None:
    for name in ("charging_overview", "charging_totals"):
        fused_emulator.register(dict, name=name)
    results = example("invalidate_dataset", "refresh_maps")()["results"]
    assert [each["tiles_invalidated"] for each in results.values()] == [2, 7, None]
    assert len(requested(fused_emulator)) == 3


def test_the_example_of_a_transaction_runs(fused_emulator: Emulator, example: Callable[..., Flow[..., Any]]) -> None:
    load = example("invalidate_on_commit", "load_in_transaction")
    assert load(most_stations=4, return_state=True).is_failed()
    assert requested(fused_emulator) == []
    assert load(most_stations=6, return_state=True).is_completed()  # the first load's rows are gone again
    assert len(requested(fused_emulator)) == 1


def test_every_example_is_run_by_a_test() -> None:
    here = "".join(
        path.read_text() for path in [*Path(__file__).parents[1].rglob("test_*.py"), EXAMPLES.parent / "prefect.yaml"]
    )
    assert [path.stem for path in EXAMPLES.glob("*.py") if f'"{path.stem}"' not in here and path.name not in here] == []


@pytest.mark.parametrize(
    ("name", "invalidated"),
    [
        ("invalidate_loaded_rows", "new"),
        ("invalidate_delta_changes", "sold"),
        ("invalidate_folder_changes", "sold"),
        ("invalidate_hex_partition", "hex"),
        ("invalidate_icechunk_changes", "price"),
        ("invalidate_changed_raster", "height"),
    ],
)
def test_what_changed_comes_from_the_data_itself(
    fused_emulator: Emulator, parcel_sources: Callable[[], set[str]], name: str, invalidated: str
) -> None:
    example: Flow[Any, Any] = load_flow_from_entrypoint(f"{EXAMPLES / name}.py:{name}")
    assert example()["tiles_invalidated"] > 0
    assert parcel_sources() == {"kept", "new", "sold", "hex", "price", "height"} - {invalidated}
