"""Fused's own SDK runs UDFs, looks at canvases and mints session tokens in the emulator: it is the judge of each endpoint."""

from collections.abc import Callable
from typing import Any

import pytest

from fused_cache_ops.emulator import Emulator, Udf

CODE = "@fused.udf\ndef udf(x: int = 0, y: int = 0, z: int = 0):\n    return 1\n"

Sdk = Callable[..., Any]


@pytest.fixture
def roads(fused_emulator: Emulator) -> Udf:
    fused_emulator.add_canvas("transport", access_scope="public")
    return fused_emulator.register(lambda **parameters: {"ran": parameters}, name="roads", canvas="transport", code=CODE)


def test_the_sdk_runs_a_udf_by_every_form_of_shared_token(fused_emulator: Emulator, roads: Udf, sdk: Sdk) -> None:
    older = fused_emulator.register(dict, name="older", shared_token="UDF_abc")
    oldest = fused_emulator.register(dict, name="oldest", shared_token="0123456789abcdef" * 4)
    token = fused_emulator.canvas_of(roads).share_token
    tokens = [roads.shared_token, f"{token}/roads", f"{token}-roads", "fc_team/transport/roads"]
    tokens += [older.shared_token, oldest.shared_token]
    answers = sdk("result = [fused.run(token, year=2026) for token in tokens]", tokens=tokens)
    assert answers == [{"ran": {"year": "2026"}}] * 4 + [{"year": "2026"}] * 2
    paths = [request.path for request in fused_emulator.requests]
    assert paths == [f"/{token}/run/file" for token in tokens]


def test_the_sdk_sees_the_tier_that_answered(fused_emulator: Emulator, roads: Udf, sdk: Sdk) -> None:
    lines = "result = [source(shared, z=3, x=2, y=1), source(shared, z=3, x=2, y=1)]"
    shared = fused_emulator.canvas_url_token(roads)
    assert sdk(lines, shared=shared) == [None, "memory"]
    fused_emulator.forget_memory()
    assert sdk(lines, shared=shared) == ["object_storage", "memory"]


@pytest.mark.parametrize(
    ("memory", "storage"),
    [({"x-cache": "HIT"}, {"x-fused-cached": "s3"}), ({"x-cache": "hit"}, {"x-fused-cached": "false"})],
    ids=str,
)
def test_the_sdk_reads_the_cache_headers_in_every_variant(
    fused_emulator: Emulator, roads: Udf, sdk: Sdk, memory: dict[str, str], storage: dict[str, str]
) -> None:
    fused_emulator.assumptions.fresh_headers = {}
    fused_emulator.assumptions.memory_headers = memory
    fused_emulator.assumptions.storage_headers = storage
    shared = fused_emulator.canvas_url_token(roads)
    assert sdk("result = [source(shared), source(shared)]", shared=shared) == [None, "memory"]
    fused_emulator.forget_memory()
    assert sdk("result = source(shared)", shared=shared) == "object_storage"


@pytest.mark.parametrize("status", [401, 403, 404])
def test_the_sdk_is_refused_by_a_team_canvas_without_a_session_token(
    fused_emulator: Emulator, roads: Udf, sdk: Sdk, status: int
) -> None:
    fused_emulator.add_canvas("transport")
    fused_emulator.assumptions.refusal_status = status
    shared = fused_emulator.canvas_url_token(roads)
    refused = sdk("result = refusal(lambda: fused.run(shared))", shared=shared)
    assert refused.startswith("HTTPError")
    assert "not shared publicly" in refused
    assert [request.status for request in fused_emulator.requests] == [status]


def test_the_sdk_runs_a_udf_of_a_team_canvas_as_a_teammate(fused_emulator: Emulator, roads: Udf, sdk: Sdk) -> None:
    fused_emulator.add_canvas("transport")
    shared = fused_emulator.canvas_url_token(roads)
    assert sdk("result = fused.run(shared)", token=fused_emulator.bearer_token, shared=shared) == {"ran": {}}


def test_the_sdk_mints_a_session_token_that_runs_the_canvas_until_it_is_revoked(
    fused_emulator: Emulator, roads: Udf, sdk: Sdk
) -> None:
    canvas = fused_emulator.add_canvas("transport").share_token
    lines = """
import requests
from fused.api.api import _session_token_expires_at
minted = FusedAPI()._session_token(canvas, "30m")
query = {"fused_session_token": minted.session_token}
def ask():
    return requests.get(f"{fused.options.shared_udf_base_url}/{canvas}/roads", params=query).status_code
before = ask()
revoke = f"{fused.options.base_url}/session-token/by-access-token/{canvas}"
requests.delete(revoke, headers=FusedAPI()._generate_headers())
gap = (_session_token_expires_at(minted.session_token) - minted.expires_at).total_seconds()
result = [minted.session_token.count(":"), abs(gap) < 2, before, ask()]
"""
    assert sdk(lines, canvas=canvas) == [2, True, 200, 403]
    assert fused_emulator.session_tokens == []


def test_the_sdk_mints_by_the_canvas_name_and_not_for_public_canvases_nor_for_long(
    fused_emulator: Emulator, roads: Udf, sdk: Sdk
) -> None:
    mint = "result = [refusal(lambda: FusedAPI()._session_token(canvas, age)) for canvas, age in asked]"
    (refused,) = sdk(mint, asked=[("fc_team/transport", "1h")])
    assert "needs no session token" in refused
    fused_emulator.add_canvas("transport")
    asked = [("fc_team/transport", "1h"), ("fc_team/transport", "2d"), ("fc_unknown", "1h")]
    minted, _, unknown = sdk(mint, asked=asked)
    assert minted is None
    assert "not found" in unknown
    assert [request.status for request in fused_emulator.requests] == [400, 200, 422, 404]


def test_the_sdk_looks_canvases_up(fused_emulator: Emulator, roads: Udf, sdk: Sdk) -> None:
    fused_emulator.add_instance("instance-7")
    canvas = fused_emulator.add_canvas("transport", share_client_id="instance-7")
    lines = """
api = FusedAPI()
found = api.get_collection_by_id(canvas)
listed = api.list_collections(whose="team")
full = api.get_team_collection_by_name("transport")
result = [found.access_scope.value, found.share_client_id, found.share_token,
          [(each["name"], each["udf_ids"]) for each in listed], [each["id"] for each in full["udfs"]],
          refusal(lambda: api.list_collections()), refusal(lambda: api.get_collection_by_id("unknown"))]
"""
    found = sdk(lines, canvas=canvas.id)
    assert found[:3] == ["team", "instance-7", canvas.share_token]
    assert found[3:5] == [[["transport", [roads.id]]], [roads.id]]
    assert "not a user" in found[5]
    assert "not found" in found[6]


def test_the_sdk_looks_a_users_canvases_up(fused_emulator: Emulator, sdk: Sdk) -> None:
    mine = fused_emulator.add_canvas("mine", email=fused_emulator.email)
    lines = """
api = FusedAPI()
result = [api.get_collection_by_name("mine")["id"], [each["name"] for each in api.list_collections(lite=False)]]
"""
    assert sdk(lines, token=fused_emulator.bearer_token) == [mine.id, ["mine"]]


def test_the_sdk_lists_a_teams_udfs_with_their_names(fused_emulator: Emulator, roads: Udf, sdk: Sdk) -> None:
    lines = 'result = {name: udf.collection_name for name, udf in FusedAPI().get_udfs(whose="team").items()}'
    (found,) = sdk(lines).items()
    assert "roads" in found[0]
    assert found[1] == "transport"


@pytest.mark.parametrize("is_user", [False, True])
def test_the_sdk_runs_a_loaded_udf_with_a_service_token_only_where_that_is_a_user(
    fused_emulator: Emulator, roads: Udf, sdk: Sdk, is_user: bool
) -> None:
    fused_emulator.assumptions.service_token_is_user = is_user
    lines = """
udf = fused.load(udf_id)
result = refusal(lambda: udf()) or udf(z=3, x=2, y=1)
"""
    found = sdk(lines, udf_id=roads.id)
    if is_user:
        assert found == {"ran": {"z": 3, "x": 2, "y": 1}}
        assert fused_emulator.cached_tiles(roads) == {(3, 2, 1)}
    else:
        assert "not a user" in found


def test_the_sdk_maps_a_loaded_udf(fused_emulator: Emulator, sdk: Sdk) -> None:
    fused_emulator.assumptions.service_token_is_user = True
    code = "@fused.udf\ndef udf(n: int = 0):\n    return 1\n"
    double = fused_emulator.register(lambda n: 2 * int(n), name="double", code=code)
    lines = "result = fused.submit(fused.load(udf_id), [{'n': 1}, {'n': 2}], collect=False).results()"
    assert sdk(lines, udf_id=double.id) == [2, 4]


def test_the_sdk_invalidates_on_the_instance_that_it_is_told(fused_emulator: Emulator, roads: Udf, sdk: Sdk) -> None:
    fused_emulator.add_instance("instance-7")
    fused_emulator.add_canvas("transport", access_scope="public", share_client_id="instance-7")
    lines = """
api = FusedAPI()
udf = fused.load(udf_id)
seen = [source(shared)]
api.invalidate_cache(udf_id)
seen.append(source(shared))
api.invalidate_cache(udf_id, client_id="instance-7")
result = [*seen, source(shared)]
"""
    shared = fused_emulator.canvas_url_token(roads)
    assert sdk(lines, udf_id=roads.id, shared=shared) == [None, "memory", None]
