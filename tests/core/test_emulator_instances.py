"""The emulator keeps maps stale as the service does: caches per instance, tiers, UDFs that call UDFs, late runs."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from fused_cache_ops import FusedClient
from fused_cache_ops.emulator import Emulator, Udf


def get(url: str, **options: Any) -> requests.Response:
    return requests.get(url, timeout=60, **options)


@pytest.fixture
def table() -> dict[str, str]:
    """What the UDFs read."""
    return {"load": "old"}


@pytest.fixture
def parcels(fused_emulator: Emulator, table: dict[str, str]) -> Udf:
    """A UDF whose shared runs go to an instance that is not the preferred one."""
    fused_emulator.add_instance("instance-7")
    fused_emulator.add_canvas("land", access_scope="public", share_client_id="instance-7")
    return fused_emulator.register(lambda **parameters: table["load"], name="parcels", canvas="land")


def test_invalidating_on_the_wrong_instance_leaves_the_map_stale(
    fused_emulator: Emulator, parcels: Udf, table: dict[str, str]
) -> None:
    url = fused_emulator.tile_url(parcels, 1, 0, 0)
    seen = [get(url).json()]
    table["load"] = "new"
    for client_id in (fused_emulator.client_id, "instance-7"):
        with FusedClient(client_id=client_id) as client:
            client.invalidate_cache(parcels.id, tiles=["1/0/0"])
        seen.append(get(url).json())
    assert seen == ["old", "old", "new"]


def test_where_instances_share_their_caches_any_of_them_will_do(
    fused_emulator: Emulator, parcels: Udf, table: dict[str, str]
) -> None:
    fused_emulator.assumptions.mixed_instances = True
    url = fused_emulator.tile_url(parcels, 1, 0, 0)
    get(url)
    table["load"] = "new"
    with FusedClient(client_id=fused_emulator.client_id) as client:
        client.invalidate_cache(parcels.id, tiles=["1/0/0"])
    assert get(url).json() == "new"


def test_what_each_instance_has_is_told_apart(fused_emulator: Emulator, parcels: Udf) -> None:
    fused_emulator.fill_cache(parcels, [(1, 0, 0)])
    fused_emulator.fill_cache(parcels, [(1, 1, 1)], client_id=fused_emulator.client_id)
    assert fused_emulator.cached_tiles(parcels, client_id="instance-7") == {(1, 0, 0)}
    assert fused_emulator.cached_tiles(parcels, client_id=fused_emulator.client_id) == {(1, 1, 1)}
    assert fused_emulator.cached_tiles(parcels) == {(1, 0, 0), (1, 1, 1)}


@pytest.mark.parametrize("reached", [True, False])
def test_the_memory_tier_may_or_may_not_be_invalidated(
    fused_emulator: Emulator, parcels: Udf, table: dict[str, str], reached: bool
) -> None:
    fused_emulator.assumptions.memory_is_invalidated = reached
    url = fused_emulator.tile_url(parcels, 1, 0, 0)
    get(url)
    table["load"] = "new"
    with FusedClient(client_id="instance-7") as client:
        client.invalidate_cache(parcels.id)
    answer = get(url)
    assert (answer.json(), answer.headers["x-cache"]) == (("new", "Miss") if reached else ("old", "Hit"))


@pytest.fixture
def chain(fused_emulator: Emulator, table: dict[str, str]) -> tuple[Udf, Udf]:
    """A hidden loader, and the visible UDF that calls it."""
    fused_emulator.add_canvas("land", access_scope="public")
    loader = fused_emulator.register(lambda **parameters: table["load"], name="loader", canvas="land", visible=False)

    def parcels(z: int, x: int, y: int) -> dict[str, str]:
        return {"drawn": fused_emulator.load("loader")(region="all")}

    return loader, fused_emulator.register(parcels, canvas="land")


def test_a_caller_stays_stale_until_both_are_invalidated(
    fused_emulator: Emulator, chain: tuple[Udf, Udf], table: dict[str, str]
) -> None:
    loader, parcels = chain
    url = fused_emulator.tile_url(parcels, 1, 0, 0)
    seen = [get(url).json()["drawn"]]
    table["load"] = "new"
    with FusedClient() as client:
        client.invalidate_cache(loader.id)
        seen.append(get(url).json()["drawn"])  # the caller's own result
        client.invalidate_cache(parcels.id)
        seen.append(get(url).json()["drawn"])
    assert seen == ["old", "old", "new"]


def test_a_caller_that_is_invalidated_alone_gets_the_loaders_cached_result(
    fused_emulator: Emulator, chain: tuple[Udf, Udf], table: dict[str, str]
) -> None:
    _, parcels = chain
    url = fused_emulator.tile_url(parcels, 1, 0, 0)
    get(url)
    table["load"] = "new"
    with FusedClient() as client:
        client.invalidate_cache(parcels.id)
    answer = get(url)
    assert (answer.json()["drawn"], answer.headers["x-cache"]) == ("old", "Miss")


def test_a_called_udf_runs_on_its_callers_instance(fused_emulator: Emulator, chain: tuple[Udf, Udf]) -> None:
    loader, parcels = chain
    fused_emulator.add_instance("instance-7")
    fused_emulator.add_canvas("land", access_scope="public", share_client_id="instance-7")
    get(fused_emulator.tile_url(parcels, 1, 0, 0))
    get(f"{fused_emulator.root_url}/{loader.shared_token}", params={"region": "all"})
    assert get(f"{fused_emulator.root_url}/{loader.shared_token}", params={"region": "all"}).headers["x-cache"] == "Hit"
    with FusedClient(client_id="instance-7") as client:
        client.invalidate_cache(loader.id)
    assert get(f"{fused_emulator.root_url}/{loader.shared_token}", params={"region": "all"}).headers["x-cache"] == "Miss"


def test_a_udf_of_another_canvas_is_not_found(fused_emulator: Emulator) -> None:
    fused_emulator.register(dict, name="loader", canvas="elsewhere")
    udf = fused_emulator.register(lambda **parameters: fused_emulator.load("loader")(), name="parcels", canvas="land")
    answer = get(fused_emulator.tile_url(udf, 1, 0, 0))
    assert answer.status_code == 500
    assert "no UDF 'loader' in the canvas 'land'" in answer.json()["detail"]


@pytest.mark.parametrize("stored", [True, False])
def test_a_run_that_began_before_an_invalidation_may_store_its_result_after_it(
    fused_emulator: Emulator, table: dict[str, str], stored: bool, when: Callable[..., threading.Thread]
) -> None:
    fused_emulator.assumptions.late_results_are_stored = stored
    begun, go_on = threading.Event(), threading.Event()

    def parcels(z: int, x: int, y: int) -> str:
        read = table["load"]
        begun.set()
        assert go_on.wait(120)
        return read

    udf = fused_emulator.register(parcels)
    url = fused_emulator.tile_url(udf, 1, 0, 0)
    with ThreadPoolExecutor(1) as pool, FusedClient() as client:
        early = pool.submit(get, url)
        assert begun.wait(120)
        table["load"] = "new"
        client.invalidate_cache(udf.id)
        go_on.set()
        assert early.result().json() == "old"
        assert get(url).json() == ("old" if stored else "new")
        client.invalidate_cache(udf.id)  # a second pass
        assert get(url).json() == "new"


def test_results_are_kept_as_long_as_the_udf_says(fused_emulator: Emulator) -> None:
    udf = fused_emulator.register(dict, name="impatient", cache_max_age=0)
    url = fused_emulator.tile_url(udf, 1, 0, 0)
    assert [get(url).headers["x-cache"] for _ in range(2)] == ["Miss", "Miss"]
    assert get(url, params={"cache_max_age": "3600"}).headers["x-cache"] == "Hit"


def test_an_old_deployments_shared_runs_are_served_too(fused_emulator: Emulator, parcels: Udf) -> None:
    token = fused_emulator.canvas_url_token(parcels)
    assert get(f"{fused_emulator.base_url}/realtime-shared/{token}/run/tiles/1/0/0").json() == "old"


def test_a_canvas_keeps_its_id_and_token_and_lists_its_udfs(fused_emulator: Emulator, chain: tuple[Udf, Udf]) -> None:
    before = fused_emulator.canvas_of(chain[0])
    after = fused_emulator.add_canvas("land", share_client_id="fused-team")
    assert (after.id, after.share_token) == (before.id, before.share_token)
    header = {"Authorization": f"Fused-Service-Token {fused_emulator.token}"}
    record = get(f"{fused_emulator.base_url}/collection/by-id/{after.id}", headers=header).json()
    assert (record["access_scope"], record["share_client_id"]) == ("team", "fused-team")
    assert {each["slug"]: each["is_visible"] for each in record["udfs"]} == {"loader": False, "parcels": True}
    assert {each["collection_id"] for each in record["udfs"]} == {after.id}
    assert len({each["udf_body_hash"] for each in record["udfs"]}) == 2
    brief = get(f"{fused_emulator.base_url}/collection/exec-env/lite", headers=header).json()
    assert [sorted(each["udf_ids"]) for each in brief if each["id"] == after.id] == [sorted(udf.id for udf in chain)]
    assert "share_client_id" not in brief[0]


@pytest.mark.parametrize("scope", ["team", "public"])
def test_a_canvas_is_found_by_its_token_and_by_others_if_it_is_public(fused_emulator: Emulator, scope: Any) -> None:
    canvas = fused_emulator.add_canvas("land", access_scope=scope)
    allowed = {"team": 403, "public": 200}[scope]
    assert get(f"{fused_emulator.base_url}/collection/by-token/{canvas.share_token}").status_code == allowed
    assert get(f"{fused_emulator.base_url}/collection/by-token/fc_team/land").status_code == allowed
    assert get(f"{fused_emulator.base_url}/collection/by-token/fc_unknown").status_code == 404
    found = get(f"{fused_emulator.base_url}/collection/by-id/{canvas.id}").status_code
    assert found == {"team": 404, "public": 200}[scope]
    session, _ = fused_emulator.store.add_session_token(canvas.id, 60)
    url = f"{fused_emulator.base_url}/collection/by-token/{canvas.share_token}"
    assert get(url, params={"fused_session_token": session}).json()["id"] == canvas.id
