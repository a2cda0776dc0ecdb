"""The record of what is done: a second call sends the rest, and a record that does not belong never invalidates wrongly."""

import io
import json
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from fused_cache_ops import FusedClient, Tile, invalidate_cache
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.errors import ConfigurationError, FusedCacheError, InvalidInputError, PermissionDeniedError
from fused_cache_ops.integration import RunCheckpoint
from fused_cache_ops.outcome.invalidation import PartialInvalidationError
from fused_cache_ops.sending.checkpoint import FORMAT
from fused_cache_ops.stores import LocalFile, StoredObject, reason

TILES = [Tile(17, number % 1000, number // 1000) for number in range(95)]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 10)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.json"


def fail_part_way(client: FusedClient, emulator: Emulator, udf: Udf, place: Any, **selection: Any) -> FusedCacheError:
    """A call that ends for good after three batches."""
    emulator.fill_cache(udf, TILES)
    emulator.behave()
    seen = 0

    def refuse_the_fourth() -> None:
        nonlocal seen
        seen += 1
        if seen == 3:
            emulator.misbehave(status=403, times=None, path="delete")

    emulator.before_invalidation = refuse_the_fourth
    with pytest.raises((PartialInvalidationError, PermissionDeniedError)) as caught:
        client.invalidate_cache(udf.id, checkpoint=place, **(selection or {"tiles": TILES}))
    emulator.before_invalidation = None
    emulator.behave()
    emulator.forget_requests()
    return caught.value


def sent(emulator: Emulator) -> int:
    return sum(request.tiles or 0 for request in emulator.requests)


def test_a_second_call_sends_only_the_rest(client: FusedClient, fused_emulator: Emulator, udf: Udf, place: Path) -> None:
    first = fail_part_way(client, fused_emulator, udf, place)
    assert isinstance(first, PartialInvalidationError)
    assert "run the same call again to send the rest" in str(first)
    left = len(list(first.remaining))
    result = client.invalidate_cache(udf.id, tiles=TILES, checkpoint=place)
    assert (result.tiles_invalidated, result.tiles_already_done) == (left, 95 - left)
    assert sent(fused_emulator) == left
    assert fused_emulator.cached_tiles(udf) & set(TILES) == set()


@pytest.mark.parametrize(
    "selection",
    [
        {"bounds": (-9.25, 38.68, -9.08, 38.80), "zooms": "10-14"},
        {"tiles": [Tile(5, 1, 1), Tile(5, 9, 9)], "zooms": "5-9"},
        {"tiles": {f"9/{x}/7" for x in range(95)}},
        {"geometry": "POLYGON ((-9.2 38.7, -9.1 38.7, -9.1 38.8, -9.2 38.7))", "zooms": "10-16"},
    ],
    ids=["bounds", "children", "a set", "geometry"],
)
def test_every_kind_of_selection_resumes(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, place: Path, selection: dict[str, Any]
) -> None:
    first = fail_part_way(client, fused_emulator, udf, place, **selection)
    done = first.result.tiles_invalidated if isinstance(first, PartialInvalidationError) else 0
    result = client.invalidate_cache(udf.id, checkpoint=place, **selection)
    assert done
    assert result.tiles_already_done == done
    assert sent(fused_emulator) == result.tiles_invalidated


def test_tile_by_tile_resumes_too(tmp_path: Path) -> None:
    with Emulator(batch_endpoint=False) as emulator:
        udf = emulator.register(lambda: None, name="roads")
        settings = {"token": emulator.token, "base_url": emulator.base_url, "deadline": 20}
        with FusedClient(**settings, max_concurrency=4) as client:
            first = fail_part_way(client, emulator, udf, tmp_path / "c.json")
            left = len(list(first.remaining or ()))
            result = client.invalidate_cache(udf.id, tiles=TILES, checkpoint=tmp_path / "c.json")
        assert (result.tiles_invalidated, result.tiles_already_done) == (left, 95 - left)
        assert 0 < left < 95
        assert emulator.cached_tiles(udf) == set()


def test_all_done_removes_it(client: FusedClient, udf: Udf, place: Path) -> None:
    client.invalidate_cache(udf.id, tiles=TILES, checkpoint=place)
    assert not place.exists()
    assert list(place.parent.iterdir()) == []


def test_it_reads_well(client: FusedClient, fused_emulator: Emulator, udf: Udf, place: Path) -> None:
    first = fail_part_way(client, fused_emulator, udf, place)
    record = json.loads(place.read_text())
    assert (record["format"], record["version"]) == ("fused-cache-ops checkpoint", 2)
    assert (record["udf_id"], record["base_url"]) == (udf.id, fused_emulator.base_url)
    [target] = record["targets"]
    assert (target["udf_id"], target["client_id"], target["pass"]) == (udf.id, fused_emulator.client_id, 1)
    assert record["tiles"] == 95
    assert record["tiles_done"] == 95 - len(list(first.remaining or ()))
    assert sum(stop - start for start, stop in target["done"]) == record["tiles_done"]
    assert fused_emulator.token not in place.read_text()


@pytest.mark.parametrize(
    "other", [{"tiles": TILES[:-1]}, {"tiles": TILES[::-1]}, {"shard": (0, 2)}, {"zooms": "16-17"}], ids=str
)
def test_a_record_of_another_selection_is_refused(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, place: Path, other: dict[str, Any]
) -> None:
    fail_part_way(client, fused_emulator, udf, place)
    before = place.read_text()
    with pytest.raises(InvalidInputError, match="belongs to another invalidation"):
        client.invalidate_cache(udf.id, checkpoint=place, **({"tiles": TILES} | other))
    assert fused_emulator.requests == []
    assert place.read_text() == before


def test_a_record_of_another_udf_is_refused(client: FusedClient, fused_emulator: Emulator, udf: Udf, place: Path) -> None:
    fail_part_way(client, fused_emulator, udf, place)
    other = fused_emulator.register(lambda: None, name="rivers")
    with pytest.raises(InvalidInputError, match=f"udf_id '{udf.id}', not '{other.id}'"):
        client.invalidate_cache("rivers", tiles=TILES, checkpoint=place)


@pytest.mark.parametrize("content", [b"hello", b'{"a": 1}', b"[1, 2]", b"\xff\x00", b'{"format": "another"}'])
def test_a_file_of_somebody_else_is_left_as_it_is(client: FusedClient, udf: Udf, place: Path, content: bytes) -> None:
    place.write_bytes(content)
    with pytest.raises(InvalidInputError, match="is not a checkpoint"):
        client.invalidate_cache(udf.id, tiles=TILES, checkpoint=place)
    assert place.read_bytes() == content


def test_a_record_of_a_later_version_is_refused(client: FusedClient, fused_emulator: Emulator, udf: Udf, place: Path) -> None:
    fail_part_way(client, fused_emulator, udf, place)
    place.write_text(json.dumps(json.loads(place.read_text()) | {"version": 3}))
    with pytest.raises(InvalidInputError, match="version 3"):
        client.invalidate_cache(udf.id, tiles=TILES, checkpoint=place)


NONSENSE: dict[str, Any] = {
    "beyond the end": {"done": [[0, 96]]},
    "backwards": {"done": [[20, 10]]},
    "negative": {"done": [[-5, 10]]},
    "no spans": {"done": "all"},
    "no spans for a target": {"targets": [{"udf_id": "u"}]},
    "no targets": {"targets": None},
    "no time": {"updated": "yesterday"},
    "no time of the first pass": {"first_pass_ended": "yesterday"},
    "long ago": {"updated": (datetime.now(timezone.utc) - timedelta(hours=13)).isoformat()},
}


@pytest.mark.parametrize("change", NONSENSE.values(), ids=NONSENSE)
def test_a_record_that_makes_no_sense_or_is_old_sends_everything(
    client: FusedClient,
    fused_emulator: Emulator,
    udf: Udf,
    place: Path,
    change: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    fail_part_way(client, fused_emulator, udf, place)
    record = json.loads(place.read_text())
    (record["targets"][0] if "done" in change else record).update(change)
    place.write_text(json.dumps(record))
    result = client.invalidate_cache(udf.id, tiles=TILES, checkpoint=place)
    assert (result.tiles_invalidated, result.tiles_already_done) == (95, 0)
    assert "everything is sent" in caplog.text


@pytest.mark.parametrize("kept", range(0, 400, 23))
def test_a_truncated_record_sends_everything_or_is_refused(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, place: Path, kept: int
) -> None:
    fail_part_way(client, fused_emulator, udf, place)
    whole = place.read_bytes()
    place.write_bytes(whole[: min(kept, len(whole) - 1)])
    try:
        result = client.invalidate_cache(udf.id, tiles=TILES, checkpoint=place)
    except InvalidInputError:
        assert kept < len(FORMAT) + 16  # too little to tell whose it is
        assert fused_emulator.requests == []
    else:
        assert (result.tiles_invalidated, result.tiles_already_done) == (95, 0)


@pytest.mark.parametrize("left", [b"", b"\0\0\0", b" \0\n", b"\t\r\n"], ids=repr)
def test_what_a_crash_left_is_no_record(client: FusedClient, udf: Udf, place: Path, left: bytes) -> None:
    place.write_bytes(left)
    assert client.invalidate_cache(udf.id, tiles=TILES, checkpoint=place).tiles_invalidated == len(TILES)


@pytest.mark.parametrize("other", [b"X", b"XX", b"0"])
def test_what_is_something_else_is_left_untouched(client: FusedClient, udf: Udf, place: Path, other: bytes) -> None:
    place.write_bytes(other)
    with pytest.raises(InvalidInputError, match="is not a checkpoint and is left untouched"):
        client.invalidate_cache(udf.id, tiles=TILES, checkpoint=place)
    assert place.read_bytes() == other


@pytest.mark.parametrize(("hours", "said"), [(-13, "an earlier load"), (1, "the future")])
def test_a_record_of_another_time_is_said_to_be(
    client: FusedClient,
    fused_emulator: Emulator,
    udf: Udf,
    place: Path,
    caplog: pytest.LogCaptureFixture,
    hours: int,
    said: str,
) -> None:
    fail_part_way(client, fused_emulator, udf, place)
    record = json.loads(place.read_text())
    moment = datetime.now(timezone.utc) + timedelta(hours=hours)
    place.write_text(json.dumps({**record, "updated": moment.isoformat()}))
    assert client.invalidate_cache(udf.id, tiles=TILES, checkpoint=place).tiles_invalidated == len(TILES)
    assert f"is from {said} ({moment.isoformat()}): everything is sent" in caplog.text


def test_a_folder_has_a_file_for_each_selection(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, tmp_path: Path
) -> None:
    folder = f"{tmp_path}/new/"
    fail_part_way(client, fused_emulator, udf, folder)
    fail_part_way(client, fused_emulator, udf, folder, tiles=TILES[:80])
    assert len(list((tmp_path / "new").iterdir())) == 2
    assert client.invalidate_cache(udf.id, tiles=TILES, checkpoint=folder).tiles_already_done > 0
    assert client.invalidate_cache(udf.id, tiles=TILES[:80], checkpoint=folder).tiles_already_done > 0
    assert list((tmp_path / "new").iterdir()) == []


def test_any_store_that_fsspec_knows_will_do(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    place = "memory://checkpoints/load.json"
    first = fail_part_way(client, fused_emulator, udf, place)
    left = len(list(first.remaining or ()))
    assert client.invalidate_cache(udf.id, tiles=TILES, checkpoint=place).tiles_invalidated == left
    import fsspec

    assert fsspec.filesystem("memory").find("/checkpoints") == []


def test_what_was_made_for_a_record_is_removed_with_it(client: FusedClient, udf: Udf, tmp_path: Path) -> None:
    client.invalidate_cache(udf.id, tiles=TILES, checkpoint=f"{tmp_path}/airflow/run-1/task/")
    assert list(tmp_path.iterdir()) == []


def test_folders_that_were_there_stay(client: FusedClient, udf: Udf, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    client.invalidate_cache(udf.id, tiles=TILES, checkpoint=f"{tmp_path}/checkpoints/run-1/")
    assert list(tmp_path.rglob("*")) == [tmp_path / "checkpoints"]


def test_a_folder_with_something_else_in_it_stays(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "run-1"
    fail_part_way(client, fused_emulator, udf, f"{folder}/")
    (folder / "notes.txt").touch()
    client.invalidate_cache(udf.id, tiles=TILES, checkpoint=f"{folder}/")
    assert list(folder.iterdir()) == [folder / "notes.txt"]


def test_a_retry_removes_the_folders_that_the_first_try_made(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "run-1"
    fail_part_way(client, fused_emulator, udf, f"{folder}/")
    assert len(list(folder.iterdir())) == 1
    client.invalidate_cache(udf.id, tiles=TILES, checkpoint=f"{folder}/")
    assert list(tmp_path.iterdir()) == []


def test_calls_that_share_a_new_folder_do_not_lose_it_to_one_another(tmp_path: Path) -> None:
    def come_and_go(number: int) -> None:
        for _ in range(200):
            file = LocalFile(tmp_path / "run" / "task" / f"{number}.json")
            file.write(b"{}")
            file.delete()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(come_and_go, range(4)))
    assert list(tmp_path.rglob("*.json")) == []


def test_without_fsspec_a_url_says_what_to_install(client: FusedClient, udf: Udf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ConfigurationError, match="install fused-cache-ops with the extra fsspec"):
        client.invalidate_cache(udf.id, tiles=TILES, checkpoint="s3://bucket/key")


def test_a_url_of_a_store_that_nobody_knows_is_refused(client: FusedClient, udf: Udf) -> None:
    with pytest.raises(ConfigurationError, match="cannot be used"):
        client.invalidate_cache(udf.id, tiles=TILES, checkpoint="nonsense://bucket/key")


def test_a_place_that_cannot_be_written_fails_before_the_first_tile(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"checkpoint = .* cannot be"):
        client.invalidate_cache(udf.id, tiles=TILES, checkpoint=tmp_path / "file" / "c.json")
    assert fused_emulator.requests == []


@pytest.mark.parametrize("place", ["", "None", " null ", 5, True])
def test_what_is_no_place_is_refused(client: FusedClient, udf: Udf, place: Any) -> None:
    with pytest.raises(InvalidInputError, match="checkpoint is"):
        client.invalidate_cache(udf.id, tiles=TILES, checkpoint=place)


@pytest.mark.parametrize("selection", [{"tiles": iter(TILES)}, {"tiles_file": io.StringIO("1/0/0\n")}], ids=["tiles", "file"])
def test_what_can_be_read_only_once_has_no_checkpoint(
    client: FusedClient, udf: Udf, place: Path, selection: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInputError, match="read more than once"):
        client.invalidate_cache(udf.id, checkpoint=place, **selection)


def test_where_there_is_nothing_to_resume_there_is_no_record(client: FusedClient, udf: Udf, place: Path) -> None:
    client.invalidate_cache(udf.id, checkpoint=place, tiles=[])
    assert not place.exists()


def test_ctrl_c_leaves_a_record(client: FusedClient, fused_emulator: Emulator, udf: Udf, place: Path) -> None:
    fused_emulator.misbehave(latency=0.15, times=None)

    def leave(done: int, total: int | None, retries: int) -> None:
        if done > 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.invalidate_cache(udf.id, tiles=TILES, checkpoint=place, on_progress=leave)
    assert json.loads(place.read_text())["tiles_done"] > 10


PROGRAM = """
import sys
import fused_cache_ops.invalidate
from fused_cache_ops import Tile, invalidate_cache
fused_cache_ops.sending.call.MAX_BATCH = int(sys.argv[3])
tiles = [Tile(17, number % 1000, number // 1000) for number in range(int(sys.argv[2]))]
print(invalidate_cache("roads", tiles=tiles, checkpoint=sys.argv[1], client={"max_concurrency": 8}))
"""


@pytest.mark.parametrize("batch", [True, False], ids=["batches", "tile by tile"])
def test_kill_minus_9_at_random_moments_loses_nothing(tmp_path: Path, batch: bool, capsys: pytest.CaptureFixture[str]) -> None:
    count, size, dice = (12_000, 20, random.Random(1)) if batch else (2500, 10, random.Random(2))
    with Emulator(batch_endpoint=batch) as emulator:
        udf = emulator.register(lambda: None, name="roads")
        emulator.fill_cache(udf, [(17, number % 1000, number // 1000) for number in range(count)])
        emulator.misbehave(latency=0.02, times=None)
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "c.json"), str(count), str(size)]
        kills = recorded = 0
        while True:
            seen = len(emulator.requests)
            process = subprocess.Popen(command, env=emulator.environment() | {"PATH": ""}, stdout=subprocess.PIPE, text=True)
            while process.poll() is None and len(emulator.requests) < seen + 3:  # until it has begun
                time.sleep(0.01)
            if kills == 2:  # at the latest, what has been done is on record
                while process.poll() is None and not recorded:
                    time.sleep(0.01)
                    recorded = json.loads((tmp_path / "c.json").read_text())["tiles_done"]
            try:
                output, _ = process.communicate(timeout=dice.uniform(0.1, 0.9) if kills < 10 else 120)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                kills += 1
        time.sleep(0.1)
        lost = len(emulator.cached_tiles(udf))
        received = [request for request in emulator.requests if request.path.endswith("delete") and request.status < 300]
        tiles = sum(request.tiles or 1 for request in received)
    with capsys.disabled():
        print(f"\n  killed {kills} times, {tiles:,} tiles sent for {count:,}, {lost} lost", end="")
    assert process.returncode == 0
    assert kills >= 3
    assert lost == 0
    assert not (tmp_path / "c.json").exists()
    assert "more by an earlier call" in output
    # Each kill costs what was under way or not yet written down, half a second's work; never a new beginning.
    assert tiles < count * 2.5


def test_a_record_that_could_not_be_written_is_not_promised(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 10)
    written = LocalFile.write
    count = 0

    def until_the_disk_is_full(store: Any, content: bytes) -> None:
        nonlocal count
        count += 1
        if count > 1:
            raise OSError(28, "No space left on device")
        written(store, content)

    monkeypatch.setattr(LocalFile, "write", until_the_disk_is_full)
    fused_emulator.before_invalidation = lambda: fused_emulator.misbehave(status=403, times=None)
    with pytest.raises(PartialInvalidationError) as caught:
        client.invalidate_cache(udf.id, tiles=[f"9/{x}/0" for x in range(50)], checkpoint=place)
    assert "checkpoint" not in str(caught.value)


def test_a_draft_that_could_not_be_written_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        LocalFile(tmp_path / "record.json").write(b"{}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("other", ["selection", "udf_id", "version"])
def test_an_old_record_is_set_aside_whatever_it_is_of(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, place: Path, other: str
) -> None:
    place.write_text(
        json.dumps(
            {
                "format": "fused-cache-ops checkpoint",
                "version": 1,
                "udf_id": udf.id,
                "client_id": fused_emulator.client_id,
                "base_url": fused_emulator.base_url,
                "selection": "of yesterday",
                "updated": (datetime.now(timezone.utc) - timedelta(hours=13)).isoformat(),
                "done": [[0, 2]],
            }
            | {other: 99}
        )
    )
    assert client.invalidate_cache(udf.id, tiles=["1/0/0", "1/0/1"], checkpoint=place).tiles_invalidated == 2
    assert not place.exists()


# -- records of an orchestrator's runs --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["records/", "record.json"])
def test_a_retry_of_the_same_run_resumes_and_another_run_sends_everything(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, tmp_path: Path, name: str
) -> None:
    place = f"{tmp_path}/{name}"
    fail_part_way(client, fused_emulator, udf, RunCheckpoint(place, "monday"))
    resumed = client.invalidate_cache(udf.id, tiles=TILES, checkpoint=RunCheckpoint(place, "monday"))
    assert resumed.tiles_already_done > 0
    fail_part_way(client, fused_emulator, udf, RunCheckpoint(place, "monday"))
    other = client.invalidate_cache(udf.id, tiles=TILES, checkpoint=RunCheckpoint(place, "tuesday"))
    assert (other.tiles_already_done, other.tiles_invalidated) == (0, 95)


def test_a_record_that_is_ignored_is_logged(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fail_part_way(client, fused_emulator, udf, RunCheckpoint(place, "monday"))
    assert json.loads(place.read_text())["run"] == "monday"
    assert client.invalidate_cache(udf.id, tiles=TILES, checkpoint=place).tiles_already_done == 0
    assert "is of another run: everything is sent" in caplog.text


def test_a_retry_whose_selection_has_changed_sends_everything(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fail_part_way(client, fused_emulator, udf, RunCheckpoint(place, "monday"))
    result = client.invalidate_cache(udf.id, tiles=TILES[::-1], checkpoint=RunCheckpoint(place, "monday"))
    assert (result.tiles_already_done, result.tiles_invalidated) == (0, 95)
    assert "has changed" in caplog.text


def test_a_url_that_lost_a_slash_is_not_taken_for_a_path(
    fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    fused_emulator.register(dict, name="roads")
    with pytest.raises(InvalidInputError, match=r"checkpoint begins with s3:/, .* write s3://, as text"):
        invalidate_cache("roads", tiles=["1/0/0"], checkpoint=Path("s3://bucket/record.json"))
    assert list(tmp_path.iterdir()) == []


# -- the places of records, and of what is announced ------------------------------------------------------


def test_why_a_place_cannot_be_used_is_said_by_the_system_or_by_the_store() -> None:
    assert reason(OSError(28, "No space left on device")) == "No space left on device"
    assert reason(OSError("the bucket is gone")) == "OSError: the bucket is gone"
    assert reason(TimeoutError("late")) == "TimeoutError: late"


def test_an_object_is_named_by_its_address_without_what_grants_access() -> None:
    assert StoredObject("memory://records/a.json", "checkpoint").name == "memory://records/a.json"
    assert StoredObject("memory://me:hunter2@records/a.json", "checkpoint").name == "memory://********@records/a.json"
