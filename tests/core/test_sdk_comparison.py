"""Fused's own SDK is the judge of the emulator, and of what we send."""

from collections.abc import Callable
from urllib.parse import parse_qsl

import pytest

from fused_cache_ops import FusedClient
from fused_cache_ops.emulator import Emulator, ReceivedRequest, Udf

LINES = """
udf = fused.load(name)
for tile in tiles:
    udf.invalidate_cache(**tile)
result = {"version": fused.__version__, "id": udf.metadata["fused:id"], "name": udf.name}
"""

RunSdk = Callable[..., dict[str, str]]


@pytest.fixture
def run_sdk(fused_emulator: Emulator, sdk: Callable[..., dict[str, str]]) -> RunSdk:
    """Load a UDF with the real SDK, and invalidate each tile ({}: everything)."""

    def run(name: str, tiles: list[dict[str, int]], *, bearer: bool = False) -> dict[str, str]:
        return sdk(LINES, token=fused_emulator.bearer_token if bearer else None, name=name, tiles=tiles)

    return run


def purges(emulator: Emulator) -> list[ReceivedRequest]:
    return [request for request in emulator.requests if "/udf-cache/" in request.path]


CODE = "@fused.udf\ndef udf():\n    return 1\n"


@pytest.fixture
def roads(fused_emulator: Emulator) -> Udf:
    udf = fused_emulator.register(lambda: 1, name="roads", code=CODE)
    # What the SDK executes has to be a UDF in its own terms.
    fused_emulator.store.add_udf(type(udf)(**(udf.__dict__ | {"entrypoint": "udf"})))
    fused_emulator.fill_cache(udf, [(15, 9647, 12320), (15, 9647, 12321), (15, 9648, 12320)])
    return udf


def test_the_sdk_loads_a_udf_and_invalidates_a_tile_and_the_whole(
    fused_emulator: Emulator, roads: Udf, run_sdk: RunSdk
) -> None:
    loaded = run_sdk("team/roads", [{"z": 15, "x": 9647, "y": 12320}])
    assert loaded["id"] == roads.id
    assert fused_emulator.cached_tiles(roads) == {(15, 9647, 12321), (15, 9648, 12320)}
    run_sdk(roads.id, [{}])
    assert fused_emulator.cached_tiles(roads) == set()


def test_the_sdk_as_a_user_loads_by_name_and_by_email(fused_emulator: Emulator, run_sdk: RunSdk) -> None:
    udf = fused_emulator.register(lambda: 1, name="mine", email="me@example.com", code=CODE)
    fused_emulator.store.add_udf(type(udf)(**(udf.__dict__ | {"entrypoint": "udf"})))
    for name in ("mine", "me@example.com/mine", "me/mine"):
        assert run_sdk(name, [{}], bearer=True)["id"] == udf.id
    assert {request.scheme for request in purges(fused_emulator)} == {"Bearer"}


@pytest.mark.parametrize(
    ("sdk_arguments", "our_arguments"),
    [({}, {}), ({"z": 15, "x": 9647, "y": 12320}, {"tiles": [(15, 9647, 12320)]})],
    ids=["whole UDF", "one tile"],
)
def test_our_request_is_the_sdks_field_by_field(
    fused_emulator: Emulator,
    roads: Udf,
    run_sdk: RunSdk,
    sdk_arguments: dict[str, int],
    our_arguments: dict[str, list[tuple[int, int, int]]],
) -> None:
    run_sdk("team/roads", [sdk_arguments])
    with FusedClient() as client:
        client.invalidate_cache("team/roads", **our_arguments)
    theirs, ours = purges(fused_emulator)
    assert ours.method == theirs.method == "DELETE"
    assert ours.path == theirs.path
    assert sorted(parse_qsl(ours.query)) == sorted(parse_qsl(theirs.query))
    assert ours.scheme.lower() == theirs.scheme.lower() == "fused-service-token"
    assert ours.status == theirs.status == 204


def test_our_look_ups_are_the_sdks(fused_emulator: Emulator, roads: Udf, run_sdk: RunSdk) -> None:
    def look_ups() -> list[tuple[str, str, str]]:
        return [(request.method, request.path, request.query) for request in fused_emulator.requests if request.method == "GET"]

    run_sdk("team/roads", [{}])
    theirs = look_ups()
    fused_emulator.forget_requests()
    with FusedClient() as client:
        client.invalidate_cache("team/roads")
    # The SDK does not ask which instance the canvas's maps run on.
    assert [each for each in look_ups() if "/collection/" not in each[1]] == theirs


def test_the_sdk_needs_a_call_for_each_tile_and_we_one_for_all(fused_emulator: Emulator, roads: Udf, run_sdk: RunSdk) -> None:
    tiles = [{"z": 15, "x": 9647, "y": y} for y in range(12320, 12325)]
    run_sdk("team/roads", tiles)
    assert len(purges(fused_emulator)) == 5
    with FusedClient() as client:
        client.invalidate_cache("team/roads", tiles=tiles)
    assert len(purges(fused_emulator)) == 6
