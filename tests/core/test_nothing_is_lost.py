"""No tile is lost: batches, what remains, spans, and records."""

import json
import math
import pickle
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import fsspec
import pytest

from fused_cache_ops import InvalidInputError, Tile, UnavailableError
from fused_cache_ops.selection.batches import Batch, TileBatches
from fused_cache_ops.selection.remaining import RemainingTiles
from fused_cache_ops.selection.spans import Spans
from fused_cache_ops.sending.checkpoint import LIFETIME, Checkpoint, check_location, is_folder
from fused_cache_ops.sending.outbox import Outbox

TILES = [Tile(5, number, 3) for number in range(10)]


def batches(tiles: list[Tile] = TILES, size: int = 4) -> Iterator[Batch]:
    return TileBatches(iter(tiles), size)


def test_batches_are_taken_in_order_and_all_of_them() -> None:
    outbox = Outbox(batches())
    taken = [outbox.take() for _ in range(4)]
    assert [list(each) for each in taken if each is not None] == [TILES[:4], TILES[4:8], TILES[8:]]
    assert taken[3] is None


def test_looking_ahead_takes_nothing() -> None:
    outbox = Outbox(batches())
    assert (outbox.look_ahead(), outbox.look_ahead()) == (4, 4)
    assert list(outbox.take() or ()) == TILES[:4]
    assert Outbox(iter(())).look_ahead() == 0


def test_what_was_put_back_comes_first() -> None:
    outbox = Outbox(batches())
    first, second = outbox.take(), outbox.take()
    assert first is not None
    assert second is not None
    outbox.put_back(second)
    outbox.put_back(first)
    remaining = outbox.remaining()
    assert (list(remaining), remaining.unreadable) == (TILES, ())


def test_what_is_left_can_be_read_again_and_again() -> None:
    outbox = Outbox(batches(TILES * 300))
    outbox.take()
    outbox.look_ahead()
    remaining = outbox.remaining()
    again = iter(remaining)
    assert next(again) == TILES[4]
    assert list(remaining) == list(remaining) == (TILES * 300)[4:]
    assert list(again) == (TILES * 300)[5:]


def test_in_hand_is_what_was_put_back_alone() -> None:
    outbox = Outbox(batches())
    first = outbox.take()
    assert first is not None
    outbox.put_back(first)
    in_hand = outbox.in_hand()
    assert (list(in_hand), in_hand.unreadable) == (TILES[:4], ())


def test_one_by_one_keeps_every_tile_and_its_position() -> None:
    outbox = Outbox(batches())
    outbox.look_ahead()
    outbox.one_by_one()
    taken = []
    while (batch := outbox.take()) is not None:
        taken.append((batch.start, list(batch)))
    assert taken == [(number, [tile]) for number, tile in enumerate(TILES)]


class Broken(Iterator[Tile]):
    """Tiles among which some cannot be read, as in a file with malformed lines."""

    def __init__(self, *found: Any) -> None:
        self._found = iter(found)

    def __next__(self) -> Tile:
        each = next(self._found)
        if isinstance(each, Exception):
            raise each
        return Tile(*each)


def test_tiles_after_one_that_cannot_be_read_are_not_lost() -> None:
    remaining = RemainingTiles(lambda: Broken(TILES[0], InvalidInputError("line 2"), TILES[1]), ("known",))
    assert list(remaining) == TILES[:2]
    assert remaining.unreadable == ("known", "line 2")
    assert list(remaining) == TILES[:2]
    assert remaining.unreadable == ("known", "line 2")


def test_a_stream_that_breaks_says_that_the_rest_is_missing() -> None:
    remaining = RemainingTiles(lambda: Broken(TILES[0], RuntimeError("the database is gone"), TILES[1]))
    assert list(remaining) == TILES[:1]
    (told,) = remaining.unreadable
    assert told.startswith("the rest of the tiles")
    assert "RuntimeError: the database is gone" in told


def test_reasons_are_kept_up_to_a_hundred_and_tiles_all() -> None:
    found = [each for number in range(150) for each in (InvalidInputError(f"line {number}"), TILES[0])]
    remaining = RemainingTiles(lambda: Broken(*found))
    assert len(list(remaining)) == 150
    assert remaining.unreadable == tuple(f"line {number}" for number in range(100))


def test_a_stream_that_breaks_can_be_read_again_up_to_there() -> None:
    stream = Broken(*TILES[:4], InvalidInputError("line 5"), *TILES[4:])
    remaining = RemainingTiles.of_stream(list(batches(TILES[:2], 2)), stream)
    assert list(remaining) == TILES[:2] + TILES
    assert list(remaining) == TILES[:2] + TILES


def test_what_is_left_survives_pickling_and_a_file(tmp_path: Path) -> None:
    remaining = RemainingTiles(lambda: iter(TILES), ("line 7",))
    read = pickle.loads(pickle.dumps(remaining))
    assert (list(read), list(read), read.unreadable) == (TILES, TILES, ("line 7",))
    assert remaining.save(tmp_path / "rest.list") == len(TILES)
    assert (tmp_path / "rest.list").read_text().splitlines() == [f"5/{number}/3" for number in range(10)]


@pytest.mark.parametrize(
    ("sets", "common"),
    [
        ([], []),
        ([[(0, 5)]], [(0, 5)]),
        ([[(0, 5)], []], []),
        ([[], [(0, 5)]], []),
        ([[(0, 5)], [(5, 9)]], []),
        ([[(0, 5), (7, 9)], [(2, 8)]], [(2, 5), (7, 8)]),
        ([[(2, 8)], [(0, 5), (7, 9)]], [(2, 5), (7, 8)]),
        ([[(0, 4), (6, 9)], [(0, 4), (6, 9)], [(3, 7)]], [(3, 4), (6, 7)]),
        ([[(0, 9)], [(1, 2), (3, 4), (5, 6)]], [(1, 2), (3, 4), (5, 6)]),
    ],
    ids=str,
)
def test_done_for_all_is_what_is_done_for_each(sets: list[list[tuple[int, int]]], common: list[tuple[int, int]]) -> None:
    found = Spans.common([Spans(each) for each in sets])
    assert list(found) == common
    assert found.count == sum(stop - start for start, stop in common)


def test_what_is_missing_is_looked_for_in_every_window() -> None:
    done = Spans([(2, 4), (6, 8), (11, 12)])
    assert list(done.missing([(0, 3), (3, 7), (7, 10), (20, math.inf)])) == [(0, 2), (4, 6), (8, 10), (20, math.inf)]


def test_where_nothing_is_missing_no_span_is() -> None:
    assert list(Spans([(0, 3), (5, 9)]).missing([(0, 3), (4, 4), (6, 9)])) == []


KEY = {"udf_id": "roads", "base_url": "https://fused.example.com", "selection": "abc"}


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """The record of a call that has done the positions 0 to 2 and 7 of ten."""
    place = tmp_path / "record.json"
    checkpoint = Checkpoint(place, KEY, 10)
    checkpoint.spans("roads", "one", 1).add(0, 3)
    checkpoint.spans("roads", "two", 2).add(7, 8)
    checkpoint.save(at_once=True)
    return place


def test_what_is_done_is_read_for_each_target_and_pass(record: Path) -> None:
    checkpoint = Checkpoint(record, KEY, 10)
    assert checkpoint.saved_count == 4
    assert list(checkpoint.spans("roads", "one", 1)) == [(0, 3)]
    assert list(checkpoint.spans("roads", "two", 2)) == [(7, 8)]
    for other in (("roads", "one", 2), ("roads", "two", 1), ("rivers", "one", 1)):
        assert list(checkpoint.spans(*other)) == []


def test_what_is_forgotten_is_sent_again(record: Path) -> None:
    checkpoint = Checkpoint(record, KEY, 10)
    assert list(checkpoint.forget("roads", "one", 1)) == list(checkpoint.spans("roads", "one", 1)) == []
    assert list(checkpoint.spans("roads", "two", 2)) == [(7, 8)]
    assert list(checkpoint.forget("roads", "three", 1)) == []
    checkpoint.forget("roads", "two", 2).add(0, 1)
    assert list(checkpoint.spans("roads", "two", 2)) == [(0, 1)]


@pytest.mark.parametrize("name", KEY)
def test_a_record_of_anything_else_is_refused(record: Path, name: str) -> None:
    before = record.read_bytes()
    with pytest.raises(InvalidInputError, match=f"belongs to another invalidation .*{name} "):
        Checkpoint(record, KEY | {name: "other"}, 10)
    assert record.read_bytes() == before


def change(record: Path, **changed: Any) -> None:
    record.write_text(json.dumps(json.loads(record.read_text()) | changed))


@pytest.mark.parametrize(("hours", "done"), [(11.9, 4), (12.1, 0), (-1, 0), (-0.0005, 4)])
def test_a_record_lasts_for_twelve_hours(record: Path, hours: float, done: int) -> None:
    change(record, updated=(datetime.now(timezone.utc) - timedelta(hours=hours)).isoformat())
    assert timedelta(hours=12) == LIFETIME
    assert Checkpoint(record, KEY, 10).saved_count == done


@pytest.mark.parametrize(
    ("spans", "done"),
    [
        ([[0, 10]], 10),
        ([[0, 11]], 0),
        ([[3, 3]], 0),
        ([[4, 3]], 0),
        ([[-1, 3]], 0),
        ([[9, 10], [11, 12]], 0),
        ([[0, 2], [3, 3]], 0),
    ],
)
def test_positions_that_cannot_be_are_all_sent_again(record: Path, spans: list[list[int]], done: int) -> None:
    change(record, targets=[{"udf_id": "roads", "client_id": "one", "pass": 1, "done": spans}])
    assert Checkpoint(record, KEY, 10).saved_count == done


def test_the_second_pass_waits_from_the_end_of_the_first(record: Path) -> None:
    checkpoint = Checkpoint(record, KEY, 10)
    assert checkpoint.wait_left(600) == 600
    checkpoint.end_pass(2)
    assert Checkpoint(record, KEY, 10).wait_left(600) == 600
    checkpoint.end_pass(1)
    time.sleep(0.01)
    assert 100 < Checkpoint(record, KEY, 10).wait_left(600) < 600
    assert Checkpoint(record, KEY, 10).wait_left(0) == 0


def test_a_first_pass_that_ended_before_counts_from_then(record: Path) -> None:
    ended = datetime.now(timezone.utc) - timedelta(seconds=400)
    change(record, first_pass_ended=ended.isoformat())
    checkpoint = Checkpoint(record, KEY, 10)
    checkpoint.end_pass(1)
    assert 0 < checkpoint.wait_left(600) < 201
    assert checkpoint.wait_left(300) == 0


def test_a_first_pass_that_ends_in_the_future_is_not_waited_for_longer(record: Path) -> None:
    change(record, first_pass_ended=(datetime.now(timezone.utc) + timedelta(hours=1)).isoformat())
    assert Checkpoint(record, KEY, 10).wait_left(60) == 60


def test_nothing_is_written_twice(record: Path) -> None:
    checkpoint = Checkpoint(record, KEY, 10)
    written = record.stat().st_mtime_ns
    checkpoint.save()
    assert record.stat().st_mtime_ns == written


def test_more_that_is_done_is_not_written_at_once_but_if_told_to(record: Path) -> None:
    checkpoint = Checkpoint(record, KEY, 10)
    checkpoint.spans("roads", "one", 1).add(3, 5)
    checkpoint._saved_at = math.inf
    checkpoint.save()
    assert (checkpoint.saved_count, json.loads(record.read_text())["tiles_done"]) == (4, 4)
    checkpoint.save(at_once=True)
    assert (checkpoint.saved_count, json.loads(record.read_text())["tiles_done"]) == (6, 6)


def test_more_that_is_done_is_written_after_a_while(record: Path) -> None:
    checkpoint = Checkpoint(record, KEY, 10)
    checkpoint.spans("roads", "one", 1).add(3, 5)
    checkpoint._saved_at = -math.inf
    checkpoint.save()
    assert json.loads(record.read_text())["tiles_done"] == 6


def test_a_record_that_is_removed_is_gone(record: Path) -> None:
    checkpoint = Checkpoint(record, KEY, 10)
    checkpoint.remove()
    assert not record.exists()
    checkpoint.remove()
    assert Checkpoint(record, KEY, 10).saved_count == 0


def test_a_folder_has_a_record_for_each_udf_and_selection(tmp_path: Path) -> None:
    Checkpoint(f"{tmp_path}/new/", KEY, 10)
    Checkpoint(tmp_path / "new", KEY | {"selection": "def"}, 10)
    Checkpoint(f"file://{tmp_path}/new/", KEY | {"udf_id": "rivers"}, 10)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"roads-abc.json", "roads-def.json", "rivers-abc.json"}


def test_a_folder_is_told_from_a_file(tmp_path: Path) -> None:
    assert is_folder("records/")
    assert is_folder("s3://bucket/records/")
    assert is_folder(tmp_path)
    assert not is_folder(tmp_path / "record.json")
    assert not is_folder("s3://bucket/record.json")


@pytest.mark.parametrize("location", [None, 7, "", " ", "None", "a\0b", Path("null")], ids=repr)
def test_a_checkpoint_that_is_no_place_is_refused(location: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^checkpoint"):
        check_location(location)


def test_a_home_that_nobody_has_is_no_place() -> None:
    with pytest.raises(InvalidInputError, match="is not a path"):
        Checkpoint("~nobody-of-this-name/record.json", KEY, 10)


@pytest.mark.parametrize("before", [b"", b"\n "])
def test_a_record_of_ours_that_is_cut_off_sends_everything(record: Path, before: bytes) -> None:
    record.write_bytes(before + record.read_bytes()[:60])
    assert Checkpoint(record, KEY, 10).saved_count == 0


@pytest.mark.parametrize("updated", [None, "yesterday"])
def test_a_record_of_no_time_sends_everything(record: Path, updated: Any) -> None:
    change(record, updated=updated)
    assert Checkpoint(record, KEY, 10).saved_count == 0


def test_a_record_of_no_time_that_is_of_something_else_is_refused(record: Path) -> None:
    change(record, updated=None, udf_id="rivers")
    with pytest.raises(InvalidInputError, match="belongs to another invalidation"):
        Checkpoint(record, KEY, 10)


def test_something_else_is_named_and_left(record: Path) -> None:
    record.write_text("a letter")
    with pytest.raises(InvalidInputError, match=f"'{record}' is not a checkpoint"):
        Checkpoint(record, KEY, 10)
    assert record.read_text() == "a letter"


def test_a_record_says_when_the_first_call_began(record: Path) -> None:
    assert datetime.fromisoformat(json.loads(record.read_text())["started"]) <= datetime.now(timezone.utc)
    change(record, started="2020-01-01T00:00:00+00:00")
    Checkpoint(record, KEY, 10)
    assert json.loads(record.read_text())["started"] == "2020-01-01T00:00:00+00:00"


def test_folders_are_made_for_a_record(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "a" / "b" / "record.json", KEY, 10)
    assert (tmp_path / "a" / "b" / "record.json").exists()


def test_a_file_url_needs_no_other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    Checkpoint(f"file://{tmp_path}/record.json", KEY, 10)
    assert (tmp_path / "record.json").exists()


def test_a_store_has_files_and_folders_too() -> None:
    memory = fsspec.filesystem("memory")
    Checkpoint("memory://guards/", KEY, 10)
    memory.pipe_file("/guards/letter.json", b"a letter")
    with pytest.raises(InvalidInputError, match=r"'memory://guards/letter.json' is not a checkpoint"):
        Checkpoint("memory://guards/letter.json", KEY, 10)
    assert memory.ls("/guards", detail=False) == ["/guards/letter.json", "/guards/roads-abc.json"]


@pytest.mark.parametrize(
    ("error", "reason"), [(OSError(28, "No space left on device"), "No space left on device"), (OSError("odd"), "OSError: odd")]
)
def test_what_cannot_be_written_is_said_once(
    record: Path, error: OSError, reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(store: Any, content: bytes) -> None:
        raise error

    checkpoint = Checkpoint(record, KEY, 10)
    monkeypatch.setattr(type(checkpoint._store), "write", fail)
    checkpoint.save(at_once=True)
    checkpoint.save(at_once=True)
    said = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert said == [f"The checkpoint {record} cannot be written: {reason}."]
    with pytest.raises(UnavailableError, match=f"cannot be written: {reason}."):
        Checkpoint(record, KEY, 10)
