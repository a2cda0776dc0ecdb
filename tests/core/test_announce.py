"""What open maps are told: the document, the places where it is put, and what a call says of it."""

import base64
import contextlib
import hashlib
import hmac
import http.server
import itertools
import json
import logging
import multiprocessing
import pickle
import re
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from fused_cache_ops import (
    AnnouncementError,
    CacheMap,
    DatasetInvalidationError,
    FusedCacheError,
    FusedClient,
    InvalidationResult,
    InvalidInputError,
    PartialInvalidationError,
    invalidate_cache,
    invalidate_dataset,
    plan_dataset,
    plan_invalidation,
)
from fused_cache_ops.announcements.changed import LARGEST_CHANGE, Changed
from fused_cache_ops.announcements.document import LARGEST, MOST_CHANGES, amended
from fused_cache_ops.announcements.places import open_place
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.keywords.announce import read_announce
from fused_cache_ops.selection.reading import read_selection
from fused_cache_ops.selection.selection import Selection
from fused_cache_ops.tiles.projection import latitude_of_row

HOOK = "https://hooks.example.com/T0K3N/Zq7Xw9Kt3V?key=Vb5Lm1RsQx"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "roads.json"


def read(place: Path) -> Any:
    return json.loads(place.read_text())


def entry_of(**selection: Any) -> dict[str, Any]:
    selected = read_selection(**selection)
    assert isinstance(selected, Selection)
    return Changed().add(selected.batches(50_000)).entry()


def size_of(entry: Any) -> int:
    return len(json.dumps(entry, separators=(",", ":")))


def in_entry(entry: Any) -> Callable[[int, int, int], bool]:
    """Whether a listener would draw a tile anew."""
    if "tiles" in entry:
        return lambda z, x, y: f"{z}/{x}/{y}" in set(entry["tiles"])
    if "ranges" in entry:
        return lambda z, x, y: any(
            each["z"] == z and each["x"][0] <= x <= each["x"][1] and each["y"][0] <= y <= each["y"][1]
            for each in entry["ranges"]
        )
    first, last = entry["zooms"]
    west, south, east, north = entry["bounds"]

    def contains(z: int, x: int, y: int) -> bool:
        left, right = x / 2**z * 360 - 180, (x + 1) / 2**z * 360 - 180
        top, bottom = latitude_of_row(y, 2**z), latitude_of_row(y + 1, 2**z)
        return first <= z <= last and left < east and right > west and bottom < north and top > south

    return contains


# -- the document ------------------------------------------------------------------------------------------------


def test_the_document_says_which_tiles_changed_and_nothing_else(fused_emulator: Emulator, udf: Udf, place: Path) -> None:
    invalidate_cache("roads", tiles=["1/0/0", "5/3/7"], announce=place)
    document = read(place)
    assert list(document) == ["version", "at", "source", "changes"]
    assert (document["version"], document["source"]) == (1, "roads")
    assert document["changes"] == [{"version": 1, "at": document["at"], "tiles": ["1/0/0", "5/3/7"]}]
    text = place.read_text()
    hidden = (udf.id, udf.shared_token, fused_emulator.base_url, fused_emulator.client_id, fused_emulator.token)
    assert [each for each in hidden if each in text] == []


def test_each_announcement_has_the_next_version_and_the_newest_comes_first(udf: Udf, place: Path) -> None:
    for tile in ("1/0/0", "1/0/1", "1/1/0"):
        invalidate_cache("roads", tiles=[tile], announce=place)
    document = read(place)
    assert document["version"] == 3
    assert [(each["version"], each["tiles"]) for each in document["changes"]] == [
        (3, ["1/1/0"]),
        (2, ["1/0/1"]),
        (1, ["1/0/0"]),
    ]


def test_the_whole_udf_is_everything(udf: Udf, place: Path) -> None:
    invalidate_cache("roads", announce=place)
    assert read(place)["changes"][0]["everything"] is True
    assert "bounds" not in read(place)["changes"][0]


def test_an_empty_selection_is_not_announced(udf: Udf, place: Path) -> None:
    assert invalidate_cache("roads", tiles=[], announce=place).announcement is None
    assert not place.exists()


def test_a_document_holds_the_last_changes_only() -> None:
    content = None
    for _ in range(MOST_CHANGES + 7):
        content, version = amended(content, "roads", {"everything": True})
    document = json.loads(content or b"")
    assert [each["version"] for each in document["changes"]] == list(range(version, version - MOST_CHANGES, -1))


def test_large_changes_make_room_for_the_newest() -> None:
    tiles = {"tiles": [f"14/{number}/0" for number in range(1300)]}
    content = None
    for _ in range(9):
        content, version = amended(content, "roads", tiles)
    document = json.loads(content or b"")
    assert len(content or b"") <= LARGEST
    assert 3 <= len(document["changes"]) < 9
    assert document["changes"][0]["version"] == version


@pytest.mark.parametrize(
    "content", [b"{}", b"[]", b"1", b"{", b'{"version": true}', b'{"version": 1, "changes": [1]}', b"hello"]
)
def test_what_is_not_a_document_is_left_untouched(udf: Udf, place: Path, content: bytes) -> None:
    place.write_bytes(content)
    result = invalidate_cache("roads", tiles=["1/0/0"], announce=place)
    assert result.announcement is not None
    assert "something else is there" in str(result.announcement.error)
    assert place.read_bytes() == content


def test_the_document_of_another_map_is_left_untouched(fused_emulator: Emulator, udf: Udf, place: Path) -> None:
    fused_emulator.register(dict, name="rivers")
    invalidate_cache("roads", tiles=["1/0/0"], announce=place)
    result = invalidate_cache("rivers", tiles=["1/0/0"], announce=place)
    assert "it is the document of 'roads'" in str(result)
    assert read(place)["version"] == 1


@pytest.mark.parametrize("left", [b"", b"\0" * 200, b"\n"], ids=["empty", "zeros", "a line feed"])
def test_what_a_crash_left_is_replaced(udf: Udf, place: Path, left: bytes) -> None:
    place.write_bytes(left)
    invalidate_cache("roads", tiles=["1/0/0"], announce=place)
    assert read(place)["version"] == 1


# -- many tiles --------------------------------------------------------------------------------------------------

TILES = st.integers(0, 20).flatmap(
    lambda zoom: st.tuples(st.just(zoom), st.integers(0, 2**zoom - 1), st.integers(0, 2**zoom - 1))
)


@given(st.lists(TILES, min_size=1, max_size=60))
def test_a_few_tiles_are_said_exactly(tiles: list[tuple[int, int, int]]) -> None:
    entry = entry_of(tiles=tiles)
    contains = in_entry(entry)
    assert all(contains(*tile) for tile in tiles)
    near = {(z, x + right, y + down) for z, x, y in tiles for right in (-1, 0, 1) for down in (-1, 0, 1)} - set(tiles)
    assert not any(contains(*tile) for tile in near)


@pytest.mark.parametrize("spread", [40, 200, 1500, 16_384])
def test_many_tiles_are_all_within_what_is_said(spread: int) -> None:
    steps = [(number * 7919) % (spread * spread) for number in range(5000)]
    tiles = [(14, step % spread, step // spread) for step in steps]
    entry = entry_of(tiles=tiles)
    assert size_of(entry) <= LARGEST_CHANGE
    contains = in_entry(entry)
    assert all(contains(*tile) for tile in tiles[::50])


def test_a_rectangle_of_many_tiles_is_one_range() -> None:
    entry = entry_of(tiles=[(14, 7000 + number % 100, 6000 + number // 100) for number in range(10_000)])
    assert entry == {"ranges": [{"z": 14, "x": [7000, 7099], "y": [6000, 6099]}]}


def test_the_tiles_of_an_area_are_not_generated() -> None:
    entry = entry_of(bounds=(-180, -85, 180, 85), zooms="0-12", max_tiles=10**15)
    assert [each["z"] for each in entry["ranges"]] == list(range(13))
    assert entry["ranges"][-1]["x"] == [0, 2**12 - 1]


def test_what_is_too_scattered_is_everything_within_its_bounds() -> None:
    tiles = [(14, (number * 7919) % 16_384, (number * 104_729) % 16_384) for number in range(30_000)]
    entry = entry_of(tiles=[*tiles, (12, 5, 5)])
    assert entry == {"everything": True, "zooms": [12, 14], "bounds": entry["bounds"]}
    assert entry["bounds"] == pytest.approx([-180, -85.0511, 180, 85.0511], abs=0.1)


def test_the_tiles_of_a_generator_are_announced(udf: Udf, place: Path) -> None:
    invalidate_cache("roads", tiles=(f"4/{x}/3" for x in range(3)), announce=place)
    assert read(place)["changes"][0]["tiles"] == ["4/0/3", "4/1/3", "4/2/3"]


def test_a_shard_announces_its_own_tiles(udf: Udf, place: Path) -> None:
    for number in range(2):
        invalidate_cache("roads", tiles=["1/0/0", "1/0/1", "1/1/0", "1/1/1"], shard=(number, 2), announce=place)
    assert [each["tiles"] for each in read(place)["changes"]] == [["1/1/0", "1/1/1"], ["1/0/0", "1/0/1"]]


# -- what is confirmed -------------------------------------------------------------------------------------------


@pytest.fixture
def failing() -> Iterator[tuple[FusedClient, str]]:
    """A client that sends tile by tile, of which the third fails; and a UDF."""
    with Emulator(batch_endpoint=False) as emulator:
        udf = emulator.register(dict, name="roads")
        seen = 0

        def refuse_the_third() -> None:
            nonlocal seen
            seen += 1
            if seen == 2:
                emulator.misbehave(status=403, path="delete", times=1)

        emulator.before_invalidation = refuse_the_third
        settings: Any = {"token": emulator.token, "base_url": emulator.base_url, "client_id": emulator.client_id}
        with FusedClient(**settings, max_concurrency=1) as client:
            yield client, udf.id


TILE_BY_TILE = [f"5/{x}/3" for x in range(6)]


def test_of_a_call_that_fails_what_is_confirmed_is_announced(failing: tuple[FusedClient, str], place: Path) -> None:
    client, udf = failing
    with pytest.raises(PartialInvalidationError) as caught:
        client.invalidate_cache(udf, tiles=TILE_BY_TILE, announce=place)
    left = {str(tile) for tile in caught.value.remaining or ()}
    assert caught.value.result.tiles_invalidated == 2
    assert caught.value.result.announcement is not None
    contains = in_entry(read(place)["changes"][0])
    assert {f"5/{x}/3" for x in range(32) if contains(5, x, 3)} == set(TILE_BY_TILE) - left


def test_of_a_call_that_confirmed_nothing_nothing_is_announced(fused_emulator: Emulator, udf: Udf, place: Path) -> None:
    fused_emulator.misbehave(status=403, method="DELETE", times=None)
    with pytest.raises(FusedCacheError):
        invalidate_cache("roads", tiles=["1/0/0"], announce=place)
    assert not place.exists()


def test_a_whole_udf_that_failed_on_one_instance_is_not_announced(fused_emulator: Emulator, udf: Udf, place: Path) -> None:
    fused_emulator.misbehave(status=403, path=f"/{fused_emulator.client_id}/", times=None)
    other = fused_emulator.add_instance("other") if hasattr(fused_emulator, "add_instance") else "rt-other"
    with pytest.raises(FusedCacheError), FusedClient(client_id=f"{fused_emulator.client_id},{other}") as client:
        client.invalidate_cache(udf.id, announce=place)
    assert not place.exists()


def test_a_resumed_call_announces_what_the_checkpoint_had_too(
    failing: tuple[FusedClient, str], place: Path, tmp_path: Path
) -> None:
    client, udf = failing
    how: Any = {"tiles": TILE_BY_TILE, "announce": place, "checkpoint": str(tmp_path / "record.json")}
    with pytest.raises(PartialInvalidationError):
        client.invalidate_cache(udf, **how)
    result = client.invalidate_cache(udf, **how)
    assert result.tiles_already_done == 2
    assert read(place)["version"] == 2
    assert read(place)["changes"][0]["ranges"] == [{"z": 5, "x": [0, 5], "y": [3, 3]}]


def test_of_two_passes_the_second_one_announces(client: FusedClient, udf: Udf, place: Path) -> None:
    how: Any = {"tiles": ["1/0/0"], "again_after": 130, "announce": place}
    first = client.first_pass(udf.id, **how)
    assert not place.exists()
    result = client.second_pass(udf.id, first, **how)
    assert read(place)["version"] == 1
    assert result.announcement is not None
    assert result.announcement.version == 1


@pytest.mark.parametrize("selection", [{"tiles": ["1/0/0"]}, {}], ids=["tiles", "whole"])
def test_a_second_pass_that_fails_announces_what_the_first_one_confirmed(
    fused_emulator: Emulator, client: FusedClient, udf: Udf, place: Path, selection: Any
) -> None:
    how: Any = {**selection, "again_after": 130, "announce": place}
    first = client.first_pass(udf.id, **how)
    fused_emulator.misbehave(status=403, method="DELETE", times=None)
    fused_emulator.misbehave(status=403, path="delete", times=None)
    with pytest.raises(FusedCacheError):
        client.second_pass(udf.id, first, **how)
    (change,) = read(place)["changes"]
    assert change.get("tiles") == selection.get("tiles")
    assert change.get("everything", False) is not bool(selection)


def test_a_call_with_both_passes_announces_once(client: FusedClient, udf: Udf, place: Path) -> None:
    client.invalidate_cache(udf.id, tiles=["1/0/0"], again_after=0.01, announce=place)
    assert read(place)["version"] == 1


def test_it_is_announced_after_the_refresh(fused_emulator: Emulator, udf: Udf, place: Path) -> None:
    existed = []
    seen = fused_emulator.register(lambda **_: existed.append(place.exists()) or 1, name="seen")
    invalidate_cache("seen", tiles=["1/0/0"], refresh="all", shared_token=seen.shared_token, announce=place)
    assert existed == [False]
    assert place.exists()


def test_a_list_that_changes_while_it_is_sent_is_announced_as_everything(
    udf: Udf, client: FusedClient, place: Path, tmp_path: Path
) -> None:
    tiles = tmp_path / "expired.list"
    tiles.write_text("1/0/0\n1/0/1\n")

    def change(*_: Any) -> None:
        tiles.write_text("1/1/1\n" * 3)

    result = client.invalidate_cache(udf.id, tiles_file=str(tiles), announce=place, on_progress=change)
    assert result.tiles_invalidated == 2
    assert read(place)["changes"][0]["everything"] is True


# -- several UDFs ------------------------------------------------------------------------------------------------


@pytest.fixture
def canvas(fused_emulator: Emulator) -> None:
    fused_emulator.register(dict, name="streets", canvas="maps", code="@fused.udf\ndef udf():\n    return 1\n")
    fused_emulator.register(
        dict, name="total", canvas="maps", code="@fused.udf\ndef udf():\n    return fused.run('maps/streets', x=1)\n"
    )


@pytest.mark.usefixtures("canvas")
def test_with_related_each_udf_has_a_document_in_the_folder(tmp_path: Path) -> None:
    result = invalidate_cache("maps/streets", tiles=["1/0/0"], related="callers", announce=f"{tmp_path}/maps/")
    assert read(tmp_path / "maps" / "streets.json")["changes"][0]["everything"] is True
    assert read(tmp_path / "maps" / "total.json")["changes"][0]["tiles"] == ["1/0/0"]
    assert {each.announcement.source for each in (result, *result.related.values()) if each.announcement} == {
        "streets",
        "total",
    }


@pytest.mark.usefixtures("canvas")
@pytest.mark.parametrize(
    "act", [invalidate_cache, lambda *a, **k: FusedClient().plan_invalidation(*a, **k)], ids=["call", "plan"]
)
def test_with_related_a_file_is_refused_before_anything_is_sent(fused_emulator: Emulator, place: Path, act: Any) -> None:
    with pytest.raises(InvalidInputError, match="must be a folder"):
        act("maps/streets", tiles=["1/0/0"], related="callers", announce=place)
    assert fused_emulator.requests == []


def dataset_map(**entries: Any) -> CacheMap:
    udfs = [{"udf": f"maps/{name}", **more} for name, more in entries.items()]
    return CacheMap.from_dict({"datasets": {"lake": {"udfs": udfs}}})


@pytest.mark.usefixtures("canvas")
def test_each_udf_of_a_dataset_has_a_document_in_the_folder(tmp_path: Path) -> None:
    cache_map = dataset_map(streets={}, total={"announce": {"source": "sums"}})
    result = invalidate_dataset("lake", cache_map=cache_map, tiles=["1/0/0"], announce=f"{tmp_path}/")
    assert {path.name for path in tmp_path.glob("*.json")} == {"streets.json", "sums.json"}
    assert all(each.announcement and each.announcement.version == 1 for each in result.results.values())


@pytest.mark.usefixtures("canvas")
def test_an_entry_names_a_place_of_its_own(tmp_path: Path) -> None:
    cache_map = dataset_map(streets={"announce": f"{tmp_path}/a.json"}, total={})
    invalidate_dataset("lake", cache_map=cache_map, tiles=["1/0/0"])
    assert read(tmp_path / "a.json")["source"] == "streets"


@pytest.mark.usefixtures("canvas")
@pytest.mark.parametrize(
    ("entries", "given", "match"),
    [
        ({"streets": {}, "total": {}}, "a.json", "must be a folder"),
        ({"streets": {}}, {"to": "maps/", "source": "x"}, "names one map"),
        ({"streets": {}, "total": {"announce": {"source": "streets"}}}, "maps/", "the same document"),
        ({"streets": {"announce": "a.json"}, "total": {"announce": "a.json"}}, None, "the same document"),
        ({"streets": {"announce": "a.json"}}, "maps/", "to is given in the call"),
        ({"streets": {}}, {"must_succeed": True}, "to is missing"),
        ({"streets": {"announce": {"source": "a b"}}, "total": {"announce": {"source": "a-b"}}}, "maps/", "the same document"),
        ({"streets": {}, "total": {}}, "env:ONE_FILE", "must be a folder"),
        ({"streets": {"announce": "env:ONE_FILE"}, "total": {"announce": "env:ONE_FILE"}}, None, "the same document"),
    ],
)
@pytest.mark.parametrize("act", [invalidate_dataset, plan_dataset])
def test_places_that_cannot_tell_udfs_apart_are_refused(
    fused_emulator: Emulator, entries: Any, given: Any, match: str, act: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONE_FILE", "a.json")
    more = {} if given is None else {"announce": given}
    with pytest.raises(InvalidInputError, match=match):
        act("lake", cache_map=dataset_map(**entries), tiles=["1/0/0"], **more)
    assert fused_emulator.requests == []


@pytest.mark.usefixtures("canvas")
def test_two_addresses_of_one_host_are_two_places() -> None:
    places = {name: {"announce": {"to": f"https://hooks.example.com/{name}", "source": "m"}} for name in ("streets", "total")}
    assert "2 UDFs" in str(plan_dataset("lake", cache_map=dataset_map(**places), tiles=["1/0/0"]))


@pytest.mark.usefixtures("canvas")
def test_a_udf_of_a_dataset_that_fails_takes_no_announcement_from_the_others(fused_emulator: Emulator, tmp_path: Path) -> None:
    cache_map = dataset_map(streets={}, gone={}, total={})
    with pytest.raises(DatasetInvalidationError):
        invalidate_dataset("lake", cache_map=cache_map, tiles=["1/0/0"], announce=f"{tmp_path}/")
    assert {path.name for path in tmp_path.glob("*.json")} == {"streets.json", "total.json"}


# -- two writers -------------------------------------------------------------------------------------------------


def _announce_often(place: str, count: int) -> None:
    announcing = read_announce(place)
    assert announcing is not None
    for number in range(count):
        open_place(announcing, "roads").announce("roads", {"tiles": [f"20/{number}/0"]}, 60.0)


def test_of_two_processes_that_announce_at_once_neither_loses_a_version(place: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_announce_often, args=(str(place), 20)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    document = read(place)
    assert document["version"] == 40
    assert [each["version"] for each in document["changes"]] == list(range(40, 0, -1))


class _Conditional(MemoryFileSystem):
    """A store that, like S3, replaces an object only if its state is the one that was asked for."""

    protocol = "s3"
    store: dict[str, Any] = {}  # noqa: RUF012
    put: list[dict[str, Any]] = []  # noqa: RUF012
    between: list[Callable[[], None]] = []  # noqa: RUF012

    def info(self, path: str, **kwargs: Any) -> Any:
        return {**super().info(path), "ETag": hashlib.md5(self.cat_file(path)).hexdigest()}

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        for action in self.between[:]:
            self.between.remove(action)
            action()
        self.put.append(kwargs)
        now = self.info(path)["ETag"] if self.exists(path) else None
        wanted = kwargs.get("IfMatch")
        if (kwargs.get("IfNoneMatch") == "*" and now is not None) or (wanted is not None and wanted != now):
            error = OSError(5, "At least one of the pre-conditions you specified did not hold")
            error.__cause__ = type("ClientError", (Exception,), {"response": {"Error": {"Code": "PreconditionFailed"}}})()
            raise error
        super().pipe_file(path, value)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> type[_Conditional]:
    monkeypatch.setitem(import_module("fsspec.registry")._registry, "s3", _Conditional)
    for each in (_Conditional.store, _Conditional.put, _Conditional.between):
        each.clear()
    return _Conditional


def test_an_object_of_s3_is_replaced_only_if_nobody_else_did(udf: Udf, s3: type[_Conditional]) -> None:
    place = "s3://bucket/roads.json"
    invalidate_cache("roads", tiles=["1/0/0"], announce=place)
    s3.between.append(lambda: _announce_often(place, 1))  # between reading and writing
    result = invalidate_cache("roads", tiles=["1/0/1"], announce=place)
    document = json.loads(s3().cat_file("s3://bucket/roads.json"))
    assert [each["version"] for each in document["changes"]] == [3, 2, 1]
    assert result.announcement is not None
    assert (result.announcement.version, result.announcement.note) == (3, None)


def test_an_object_of_s3_can_be_polled(udf: Udf, s3: type[_Conditional]) -> None:
    invalidate_cache("roads", tiles=["1/0/0"], announce="s3://bucket/roads.json")
    assert s3.put == [{"CacheControl": "no-cache", "ContentType": "application/json", "IfNoneMatch": "*"}]


def test_of_a_store_that_knows_no_conditions_it_is_said(udf: Udf) -> None:
    result = invalidate_cache("roads", tiles=["1/0/0"], announce="memory://maps/roads.json")
    assert result.announcement is not None
    assert "one may be lost there" in str(result.announcement.note)


# -- webhooks ----------------------------------------------------------------------------------------------------


class _Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        hook: Any = self.server
        hook.received.append((self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
        status = hook.statuses.pop(0) if hook.statuses else 204
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[Any]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hook) as server:
        added: Any = server
        added.received, added.statuses = [], []
        added.url = f"http://127.0.0.1:{server.server_port}/hook/Zq7Xw9Kt3V?key=Vb5Lm1RsQx"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_webhook_gets_the_document_without_a_token(fused_emulator: Emulator, udf: Udf, hook: Any) -> None:
    result = invalidate_cache("roads", tiles=["1/0/0"], announce=hook.url)
    [(path, headers, body)] = hook.received
    assert path == "/hook/Zq7Xw9Kt3V?key=Vb5Lm1RsQx"
    assert headers["Content-Type"] == "application/json"
    assert "Authorization" not in headers
    assert fused_emulator.token not in f"{headers}{body!r}"
    document = json.loads(body)
    assert (document["source"], document["changes"][0]["tiles"]) == ("roads", ["1/0/0"])
    assert result.announcement is not None
    assert result.announcement.version == document["version"] > 1_700_000_000_000


@pytest.mark.parametrize(
    "secret", ["whsec_" + base64.b64encode(b"a key of bytes").decode(), "plain text"], ids=["whsec", "text"]
)
def test_what_is_posted_is_signed_as_standard_webhooks_says(
    udf: Udf, hook: Any, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.setenv("MAP_SECRET", secret)
    invalidate_cache("roads", tiles=["1/0/0"], announce={"to": hook.url, "secret": "MAP_SECRET"})
    [(_, headers, body)] = hook.received
    key = b"a key of bytes" if secret.startswith("whsec_") else secret.encode()
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, "sha256").digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert secret not in f"{headers}{body!r}"


def test_a_webhook_that_is_down_for_a_moment_is_tried_again_with_the_same_id(udf: Udf, hook: Any) -> None:
    hook.statuses = [503, 429]
    result = invalidate_cache("roads", tiles=["1/0/0"], announce=hook.url)
    assert result.announcement is not None
    assert result.announcement.error is None
    assert len(hook.received) == 3
    assert len({headers["webhook-id"] for _, headers, _ in hook.received}) == 1


def test_a_redirect_is_not_followed(udf: Udf, hook: Any) -> None:
    hook.statuses = [302]
    result = invalidate_cache("roads", tiles=["1/0/0"], announce=hook.url)
    assert [path for path, *_ in hook.received] == ["/hook/Zq7Xw9Kt3V?key=Vb5Lm1RsQx"]
    assert result.announcement is not None
    assert "redirects are never followed" in str(result.announcement.error)


def test_an_environment_variable_names_the_place(udf: Udf, hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAP_WEBHOOK", f" {hook.url}\n")
    result = invalidate_cache("roads", tiles=["1/0/0"], announce="env:MAP_WEBHOOK")
    assert len(hook.received) == 1
    assert result.announcement is not None
    assert result.announcement.to == "env:MAP_WEBHOOK"


# -- what is said, and what is not -------------------------------------------------------------------------------


def test_a_failure_to_announce_is_said_and_undoes_nothing(udf: Udf, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    caplog.set_level(logging.WARNING)
    result = invalidate_cache("roads", tiles=["1/0/0"], announce=tmp_path / "file" / "roads.json")
    assert result.tiles_invalidated == 1
    assert "not announced: " in str(result)
    assert "not announced" in caplog.text


@pytest.mark.parametrize("to", ["ftp://127.0.0.1:1/a.json", "x" * 300 + ".json"], ids=["no server", "too long"])
def test_a_place_that_cannot_be_used_keeps_nothing_stale(fused_emulator: Emulator, udf: Udf, to: str) -> None:
    result = invalidate_cache("roads", tiles=["1/0/0"], announce=to)
    assert (1, 0, 0) not in fused_emulator.cached_tiles(udf)
    assert result.announcement is not None
    assert result.announcement.error is not None


def test_a_failure_to_announce_is_an_error_if_it_must_succeed(udf: Udf, hook: Any) -> None:
    hook.statuses = [404]
    with pytest.raises(AnnouncementError, match="Everything is invalidated, but it could not be announced") as caught:
        invalidate_cache("roads", tiles=["1/0/0"], announce={"to": hook.url, "must_succeed": True})
    assert caught.value.result.tiles_invalidated == 1
    assert caught.value.retryable is False
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.result) == (str(caught.value), caught.value.result)


def test_a_retry_after_a_failed_announcement_sends_nothing_again(
    fused_emulator: Emulator, udf: Udf, hook: Any, tmp_path: Path
) -> None:
    how: Any = {"tiles": ["1/0/0", "1/0/1"], "checkpoint": str(tmp_path / "record.json")}
    how["announce"] = {"to": hook.url, "must_succeed": True}
    hook.statuses = [404]
    with pytest.raises(AnnouncementError):
        invalidate_cache("roads", **how)
    sent = len(fused_emulator.requests)
    result = invalidate_cache("roads", **how)
    assert [each.path for each in fused_emulator.requests[sent:] if "delete" in each.path] == []
    assert result.tiles_already_done == 2
    assert json.loads(hook.received[-1][2])["changes"][0]["tiles"] == ["1/0/0", "1/0/1"]


def test_the_result_of_an_announcement_survives_its_dict(udf: Udf, place: Path) -> None:
    result = invalidate_cache("roads", tiles=["1/0/0"], announce=place)
    assert InvalidationResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result
    assert "as version 1 of &#x27;roads&#x27;" in result._repr_html_()


def test_of_shards_the_one_that_was_not_announced_is_said(udf: Udf, place: Path) -> None:
    good = invalidate_cache("roads", tiles=["1/0/0"], announce=place)
    place.write_text("else")
    bad = invalidate_cache("roads", tiles=["1/0/1"], announce=place)
    for order in itertools.permutations((good, bad)):
        assert InvalidationResult.merge(order).announcement == bad.announcement


def test_a_plan_says_where_it_would_be_announced(place: Path) -> None:
    plan = plan_invalidation("roads", tiles=["1/0/0"], announce=place)
    assert f"announced to {place}" in str(plan)
    assert plan.to_dict()["announce"] == plan.announce
    assert not place.exists()


@pytest.mark.parametrize(
    "given",
    [None, "", " ", "None", {}, {"to": None}, {"to": ""}, {"to": "a", "x": 1}, {"source": "x"}, 5, ["a"], b"a"]
    + [{"to": "a", "source": ""}, {"to": "a", "source": 5}, {"to": "a", "source": "a\nb"}, {"to": "a", "source": "x" * 201}]
    + [{"to": "a", "must_succeed": "yes"}, {"to": "a", "secret": "NAME"}, {"to": HOOK, "secret": "not a name"}]
    + ["http://example.com/x", "https://", "https://me:pw@example.com/x", "https://example.com/x#y", "https://exa mple.com/"]
    + [
        "~nobody77/a.json",
        "nosuch://a/b.json",
        Path("s3://bucket/a.json"),
        Path("https://hooks.example.com/T0K3N"),
        "github://a",
        "a.json\nb.json",
    ]
    + ["env:", "env:not a name", "env:NOT_SET_HERE", "a\0b", {"to": HOOK, "secret": "NOT_SET_HERE"}],
    ids=repr,
)
def test_what_cannot_be_announced_to_is_refused_before_anything_is_sent(fused_emulator: Emulator, udf: Udf, given: Any) -> None:
    with pytest.raises(FusedCacheError, match=r"^announce|environment variable") as caught:
        invalidate_cache("roads", tiles=["1/0/0"], announce=given)
    assert caught.value.retryable is False
    assert fused_emulator.requests == []


def pieces(text: str) -> set[str]:
    return {secret for secret in ("T0K3N", "Zq7Xw9Kt3V", "Vb5Lm1RsQx", "9Kt3V", "Lm1Rs") if secret in text}


def test_an_address_to_post_to_is_seen_nowhere(udf: Udf, hook: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level(logging.DEBUG)
    hook.statuses = [404, 404]
    seen = []
    result = invalidate_cache("roads", tiles=["1/0/0"], announce={"to": hook.url}, on_plan=lambda plan: seen.append(plan))
    seen += [result, result.to_dict(), result._repr_html_(), *(f"{each} {each!r} {each.to_dict()}" for each in seen)]
    with pytest.raises(AnnouncementError) as caught:
        invalidate_cache("roads", tiles=["1/0/0"], announce={"to": hook.url, "must_succeed": True})
    seen += [caught.value, repr(caught.value), pickle.dumps(caught.value)]
    for bad in ({"to": HOOK, "x": 1}, {"to": HOOK, "secret": "MISSING_HERE"}, f"{HOOK}#x", f"http://{HOOK[8:]}"):
        with pytest.raises(FusedCacheError) as refused:
            invalidate_cache("roads", tiles=["1/0/0"], announce=bad)
        seen += [refused.value, repr(refused.value)]
    # What a library says of an address that cannot be reached quotes it.
    down = invalidate_cache("roads", tiles=["1/0/0"], announce="http://127.0.0.1:9/T0K3N/Zq7Xw9Kt3V?key=Vb5Lm1RsQx")
    seen += [down, down.to_dict()]
    assert pieces(f"{seen}{caplog.text}") == set()


def test_an_address_in_a_map_is_seen_nowhere() -> None:
    cache_map = dataset_map(streets={"announce": HOOK})
    plan = plan_dataset("lake", cache_map=cache_map, tiles=["1/0/0"])
    assert pieces(f"{cache_map!r}{cache_map}{plan}{plan!r}{plan.to_dict()}") == set()
    with pytest.raises(InvalidInputError) as caught:
        plan_dataset("lake", cache_map=cache_map, tiles=["1/0/0"], announce=HOOK)
    assert pieces(str(caught.value)) == set()


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>", "../../etc/passwd", "a/b", "straße 7", ".hidden"])
def test_a_name_with_markup_or_a_path_stays_text_in_the_folder(udf: Udf, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "maps"
    invalidate_cache("roads", tiles=["1/0/0"], announce={"to": f"{folder}/", "source": name})
    [file] = list(tmp_path.rglob("*.json"))
    assert file.parent == folder
    assert re.fullmatch(r"[\w-][\w.-]*\.json", file.name)
    assert read(file)["source"] == name


def test_cancelling_does_not_wait_for_a_place_that_does_not_answer(
    fused_emulator: Emulator, udf: Udf, client: FusedClient, place: Path
) -> None:
    place.with_name(f".{place.name}.lock").touch()
    import fcntl

    with place.with_name(f".{place.name}.lock").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with contextlib.suppress(FusedCacheError):
            client.invalidate_cache(
                udf.id, tiles=["1/0/0"], again_after=600, announce=place, on_progress=lambda *_: client.cancel()
            )
    assert not place.exists()
