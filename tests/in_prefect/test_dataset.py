"""The task for datasets in real flow runs on Prefect's test server."""

import importlib.util
import time
import uuid
from pathlib import Path
from typing import Any

import h3
import pytest
from prefect import flow, get_client
from prefect.assets import Asset, materialize
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.utilities.schema_tools.hydration import HydrationContext, hydrate

from fused_cache_ops import CacheMap, DatasetInvalidationError, InvalidInputError
from fused_cache_ops.emulator import Emulator, Udf
from prefect_fused import FusedCredentials, build_dataset_triggers, invalidate_dataset, invalidate_dataset_flow

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("prefect_api")]

BOUNDS = (13.0, 52.3, 13.8, 52.7)
CACHED = [(9, 275, 167), (12, 2200, 1343), (12, 0, 0)]


@pytest.fixture
def credentials(fused_emulator: Emulator) -> FusedCredentials:
    return FusedCredentials(token=fused_emulator.token, base_url=fused_emulator.base_url)


@pytest.fixture
def udfs(fused_emulator: Emulator) -> dict[str, Udf]:
    found = {name: fused_emulator.register(dict, name=name) for name in ("parcels", "overview", "totals", "untouched")}
    for udf in found.values():
        fused_emulator.fill_cache(udf, CACHED)
    return found


def a_map(*udfs: dict[str, object]) -> CacheMap:
    return CacheMap.from_dict({"datasets": {"s3://bucket/parcels": {"udfs": list(udfs)}}})


THREE = a_map({"udf": "parcels", "zooms": "10-12"}, {"udf": "overview", "zooms": "4-9"}, {"udf": "totals", "whole_udf": True})


def artifact() -> str:
    with get_client(sync_client=True) as api:
        found = api.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["fused-cache-s3-bucket-parcels"]))
        )
    return str(max(found, key=lambda each: each.created).data)


def test_one_load_makes_every_udf_fresh_and_shows_what_was_done(
    fused_emulator: Emulator, credentials: FusedCredentials, udfs: dict[str, Udf]
) -> None:
    @flow
    def pipeline() -> dict[str, Any]:
        return invalidate_dataset("s3://bucket/parcels", credentials, cache_map=THREE, bounds=BOUNDS)

    assert list(pipeline()["results"]) == ["parcels", "overview", "totals"]
    assert [fused_emulator.cached_tiles(udf) for udf in udfs.values()] == [
        {(9, 275, 167), (12, 0, 0)},
        {(12, 2200, 1343), (12, 0, 0)},
        set(),
        set(CACHED),
    ]
    assert "| totals | invalidated all of UDF" in artifact()


def test_each_udf_emits_the_events_that_a_call_of_its_own_would_emit(
    credentials: FusedCredentials, udfs: dict[str, Udf], monkeypatch: pytest.MonkeyPatch
) -> None:
    emitted: list[tuple[str, str, str | None]] = []

    def emit(event: str, resource: dict[str, str], payload: dict[str, Any], **_: Any) -> None:
        emitted.append((event, payload["udf"], payload.get("udf_id")))

    monkeypatch.setattr("prefect_fused.invalidation.emit_event", emit)
    pair = a_map({"udf": "missing", "whole_udf": True}, {"udf": "totals", "whole_udf": True})

    @flow
    def pipeline() -> None:
        invalidate_dataset("s3://bucket/parcels", credentials, cache_map=pair)

    with pytest.raises(DatasetInvalidationError):
        pipeline()
    assert emitted == [
        ("fused.cache.invalidated", "totals", udfs["totals"].id),
        ("fused.cache.invalidation-failed", "missing", None),
    ]


def test_a_udf_that_fails_fails_the_task_with_the_others_done(
    fused_emulator: Emulator, credentials: FusedCredentials, udfs: dict[str, Udf]
) -> None:
    pair = a_map({"udf": "missing", "whole_udf": True}, {"udf": "totals", "whole_udf": True})

    @flow
    def pipeline() -> None:
        invalidate_dataset("s3://bucket/parcels", credentials, cache_map=pair)

    with pytest.raises(DatasetInvalidationError):
        pipeline()
    assert fused_emulator.cached_tiles(udfs["totals"]) == set()
    assert "| missing | failed: " in artifact()


def test_the_map_beside_the_flows_file_is_read(credentials: FusedCredentials, udfs: dict[str, Udf], tmp_path: Path) -> None:
    (tmp_path / "fused-cache.toml").write_text('[datasets.parcels]\nudfs = [{ udf = "totals", whole_udf = true }]\n')
    code = (
        "from prefect import flow\nfrom prefect_fused import invalidate_dataset\n\n\n"
        "@flow\ndef pipeline(credentials):\n    return invalidate_dataset('parcels', credentials)\n"
    )
    (tmp_path / "beside_map.py").write_text(code)
    spec = importlib.util.spec_from_file_location("beside_map", tmp_path / "beside_map.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    assert list(module.pipeline(credentials)["results"]) == ["totals"]


def test_a_generator_is_refused_because_a_retry_would_find_it_empty(credentials: FusedCredentials) -> None:
    with pytest.raises(InvalidInputError, match=r"can be read only once"):
        invalidate_dataset.fn("s3://bucket/parcels", credentials, cache_map=THREE, tiles=(each for each in ["1/0/0"]))


def test_an_unknown_keyword_is_refused(credentials: FusedCredentials) -> None:
    with pytest.raises(TypeError, match=r"shared_token"):
        invalidate_dataset.fn("s3://bucket/parcels", credentials, cache_map=THREE, shared_token="fsh_x")  # type: ignore[call-arg]


def test_the_form_invalidates_a_dataset(fused_emulator: Emulator, udfs: dict[str, Udf], tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    path.write_text('[datasets."s3://bucket/parcels"]\nudfs = [{ udf = "overview", zooms = "4-9" }]')
    assert invalidate_dataset_flow("s3://bucket/parcels", bounds=list(BOUNDS), cache_map=str(path))["failed"] == {}
    assert fused_emulator.cached_tiles(udfs["overview"]) == {(12, 2200, 1343), (12, 0, 0)}


def test_an_empty_form_invalidates_nothing(fused_emulator: Emulator, tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    path.write_text('[datasets."s3://bucket/parcels"]\nudfs = [{ udf = "overview" }, { udf = "totals", whole_udf = true }]')
    with pytest.raises(InvalidInputError, match=r"for overview: give one of tiles, .*the load has to say what it changed"):
        invalidate_dataset_flow("s3://bucket/parcels", cache_map=str(path))
    assert not fused_emulator.requests


def test_an_empty_form_is_enough_for_udfs_that_are_invalidated_as_a_whole(
    fused_emulator: Emulator, udfs: dict[str, Udf], tmp_path: Path
) -> None:
    path = tmp_path / "map.toml"
    path.write_text('[datasets."s3://bucket/parcels"]\nudfs = [{ udf = "totals", whole_udf = true }]')
    invalidate_dataset_flow("s3://bucket/parcels", cache_map=str(path))
    assert fused_emulator.cached_tiles(udfs["totals"]) == set()


@pytest.mark.parametrize("payload", [{"tiles": ["1/0/0"]}, {"tiles": []}, {"tiles": None}, {"rows": 5}])
def test_every_event_of_an_asset_starts_a_run_whatever_the_load_said(payload: dict[str, Any]) -> None:
    (trigger,) = build_dataset_triggers(CacheMap.from_dict({"datasets": {"s3://a/1": {"udfs": [{"udf": "overview"}]}}}))
    event = {"id": "0190", "resource": {"id": "s3://a/1"}, "payload": payload}
    context = HydrationContext(raise_on_error=True, render_jinja=True, jinja_context={"event": event})  # as an automation does
    assert hydrate(trigger.parameters or {}, context) == {
        "dataset": "s3://a/1",
        "event": "0190",
        "event_entry": "tiles",
    }


def test_the_triggers_are_of_all_assets_and_only_whole_udfs_need_no_selection() -> None:
    whole, some = {"udfs": [{"udf": "totals", "whole_udf": True}]}, {"udfs": [{"udf": "overview", "zooms": "4-9"}]}
    datasets = {"s3://a/1": whole, "s3://a/2": some, "no asset's key": some, "s3://a/3": {"udfs": []}}
    needing, needing_none = build_dataset_triggers(CacheMap.from_dict({"datasets": datasets}), selection="bounds")

    assert needing.match.root == {"prefect.resource.id": ["s3://a/2"]}
    assert set(needing.parameters or {}) == {"dataset", "event", "event_entry"}
    assert (needing.parameters or {})["event_entry"] == "bounds"
    assert needing_none.match.root == {"prefect.resource.id": ["s3://a/1"]}
    assert set(needing_none.parameters or {}) == {"dataset"}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("tiles", [(1, 0, 0), (9, 275, 167), (12, 2200, 1343)]),
        ("tiles", [{"z": 12, "x": 2200, "y": 1343}, {"z": 9, "x": 275, "y": 167}, {"z": 1, "x": 0, "y": 0}]),
        ("bounds", [list(BOUNDS), [-1.0, 1.0, -0.5, 1.5]]),
        ("cells", [int(h3.latlng_to_cell(52.5, 13.4, 2), 16)]),
    ],
    ids=["tuples", "dicts", "several boxes", "whole-number cells"],
)
def test_what_an_assets_event_says_is_read_from_the_event_whatever_its_form(
    fused_emulator: Emulator, udfs: dict[str, Udf], tmp_path: Path, entry: str, said: Any
) -> None:
    key = f"s3://bucket/{uuid.uuid4()}"
    asset = Asset(key=key)
    path = tmp_path / "map.toml"
    path.write_text(f'[datasets."{key}"]\nudfs = [{{ udf = "overview", zooms = "1-9" }}]')

    @materialize(asset)
    def load() -> None:
        asset.add_metadata({entry: said})

    flow(lambda: load() and None, name="test")()

    def find() -> list[dict[str, Any]]:
        with get_client(sync_client=True) as api:
            wanted = {"resource": {"id": [key]}, "event": {"name": ["prefect.asset.materialization.succeeded"]}}
            return list(api.request("POST", "/events/filter", json={"filter": wanted}).json()["events"])

    while not (found := find()):
        time.sleep(0.2)
    result = invalidate_dataset_flow(key, cache_map=str(path), event=found[0]["id"], event_entry=entry)
    assert result["failed"] == {}
    assert (9, 275, 167) not in fused_emulator.cached_tiles(udfs["overview"])


@pytest.mark.parametrize(
    ("event", "more", "reason"),
    [("soon", {}, "not the id of an event"), (str(uuid.UUID(int=1)), {"tiles": []}, "both given")],
    ids=["no id", "two selections"],
)
def test_an_event_that_cannot_be_meant_is_refused(event: str, more: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        invalidate_dataset_flow("s3://a/1", event=event, **more)


def test_a_map_without_assets_has_no_triggers() -> None:
    with pytest.raises(InvalidInputError, match="lists no Prefect asset"):
        build_dataset_triggers(CacheMap.from_dict({"datasets": {"parcels": {"udfs": [{"udf": "overview"}]}}}))
