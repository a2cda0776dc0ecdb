"""What was checked is what is sent, and what remains belongs to the error: whatever becomes of the caller's list or file."""

import io
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fused_cache_ops import FusedCacheError, FusedClient, InvalidInputError, PartialInvalidationError, Tile, plan_invalidation
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.integration import refuse_single_use
from prefect_fused import invalidate_cache as prefect_task

TILES = [Tile(9, number % 500, number // 500) for number in range(1000)]


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 100)


@pytest.fixture
def full(fused_emulator: Emulator) -> Udf:
    udf = fused_emulator.register(dict, name="full")
    fused_emulator.fill_cache(udf, TILES)
    return udf


class ProgressBar:
    """As tqdm: an iterable around a generator, of a class that has a length, which it may not know."""

    def __init__(self, iterable: Any, total: "int | None" = None) -> None:
        self._iterable, self._total = iterable, total

    def __iter__(self) -> Iterator[Any]:
        yield from self._iterable

    def __len__(self) -> int:
        if self._total is None:
            raise TypeError("object of type 'generator' has no len()")
        return self._total

    def __contains__(self, item: object) -> bool:
        return False


# -- collections ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [None, len(TILES)])
def test_a_progress_bar_around_a_generator_is_read_once_and_sent(
    client: FusedClient, fused_emulator: Emulator, full: Udf, total: "int | None"
) -> None:
    tiles = ProgressBar((tile for tile in TILES), total)
    assert client.invalidate_cache(full.id, tiles=tiles).tiles_invalidated == len(TILES)  # type: ignore[arg-type]
    assert fused_emulator.cached_tiles(full) == set()


def test_one_that_is_used_up_is_an_error_and_no_success(client: FusedClient, fused_emulator: Emulator, full: Udf) -> None:
    tiles: Any = ProgressBar((tile for tile in TILES), len(TILES))
    client.invalidate_cache(full.id, tiles=tiles)
    with pytest.raises(InvalidInputError, match="has a length of 1,000 but returned 0 tiles"):
        client.invalidate_cache(full.id, tiles=tiles)


@pytest.mark.parametrize("kind", ["tiles", "bounds", "geometry"])
def test_under_a_retry_no_iterator_is_taken(kind: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{kind} is of type .*, which can be read only once"):
        refuse_single_use({kind: iter([])})  # type: ignore[misc]


@pytest.mark.parametrize(
    "selection", [{"bounds": [iter((0, 0, 1, 1))]}, {"geometry": [[], iter([])]}, {"tiles": ProgressBar([])}]
)
def test_under_a_retry_nothing_is_taken_that_may_hide_one(selection: Any) -> None:
    with pytest.raises(InvalidInputError, match="which can be read only once"):
        refuse_single_use(selection)


def test_prefect_refuses_an_iterator_of_boxes_before_anything_is_sent(fused_emulator: Emulator, full: Udf) -> None:
    with pytest.raises(InvalidInputError, match="bounds is of type"):
        prefect_task.fn(full.id, bounds=iter([(0, 0, 1, 1)]), zooms=3)
    assert fused_emulator.requests == []


def test_what_remains_of_a_list_survives_its_clearing(
    client: FusedClient, fused_emulator: Emulator, full: Udf, small_batches: None
) -> None:
    tiles = list(TILES)
    fused_emulator.before_invalidation = lambda: fused_emulator.misbehave(status=403, times=None)
    with pytest.raises(PartialInvalidationError) as caught:
        client.invalidate_cache(full.id, tiles=tiles)
    tiles.clear()
    assert set(caught.value.remaining) == fused_emulator.cached_tiles(full)
    assert len(list(caught.value.remaining)) == 900


# -- files ------------------------------------------------------------------------------------------------------------


def failing_after_one(emulator: Emulator, then: Callable[[], object] = lambda: None) -> Callable[[], None]:
    """Let one request succeed, do something, and refuse the others."""

    def hook() -> None:
        emulator.misbehave(status=403, times=None)
        then()

    return hook


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tiles.list"
    path.write_text("".join(f"{tile}\n" for tile in TILES))
    return path


@pytest.mark.parametrize("becomes", ["removed", "rewritten", "replaced"])
def test_what_remains_of_a_file_survives_what_becomes_of_it(
    client: FusedClient, fused_emulator: Emulator, full: Udf, path: Path, small_batches: None, becomes: str
) -> None:
    fused_emulator.before_invalidation = failing_after_one(fused_emulator)
    with pytest.raises(PartialInvalidationError) as caught:
        client.invalidate_cache(full.id, tiles_file=path)
    if becomes == "removed":
        path.unlink()
    elif becomes == "rewritten":
        path.write_text("1/0/0\n")
    else:
        path.with_suffix(".new").write_text("1/0/0\n")
        path.with_suffix(".new").replace(path)
    assert set(caught.value.remaining) == fused_emulator.cached_tiles(full)
    assert list(pickle.loads(pickle.dumps(caught.value)).remaining) == list(caught.value.remaining)


def test_what_remains_can_be_saved_over_the_file_that_it_is_read_from(
    client: FusedClient, fused_emulator: Emulator, full: Udf, path: Path, small_batches: None
) -> None:
    fused_emulator.before_invalidation = failing_after_one(fused_emulator)
    with pytest.raises(PartialInvalidationError) as caught:
        client.invalidate_cache(full.id, tiles_file=path)
    assert caught.value.remaining.save(path) == 900
    fused_emulator.before_invalidation = None
    fused_emulator.behave()
    client.invalidate_cache(full.id, tiles_file=path)
    assert fused_emulator.cached_tiles(full) == set()
    assert [file.name for file in path.parent.iterdir()] == ["tiles.list"]  # no draft is left


def test_a_save_that_fails_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remaining = plan_invalidation("roads", tiles=TILES)._selection.remaining(_nothing_done())  # type: ignore[union-attr]
    before = path.read_text()

    def full_disk(*_: object) -> Iterator[Tile]:
        yield TILES[0]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(remaining), "__iter__", full_disk)
    with pytest.raises(OSError, match="No space left"):
        remaining.save(path)
    assert path.read_text() == before
    assert [file.name for file in path.parent.iterdir()] == ["tiles.list"]


def _nothing_done() -> Any:
    from fused_cache_ops.selection.spans import Spans

    return Spans()


def test_a_file_that_is_replaced_in_mid_call_is_sent_as_it_was_checked(
    client: FusedClient, fused_emulator: Emulator, full: Udf, path: Path, small_batches: None, tmp_path: Path
) -> None:
    def replace() -> None:
        new = tmp_path / "new.list"
        new.write_text("".join(f"9/{499 - tile.x}/400\n" for tile in TILES))
        new.replace(path)
        fused_emulator.before_invalidation = None

    fused_emulator.before_invalidation = replace
    client.invalidate_cache(full.id, tiles_file=path, checkpoint=tmp_path / "record.json")
    assert fused_emulator.cached_tiles(full) == set()


@pytest.mark.parametrize("with_checkpoint", [False, True], ids=["plain", "checkpoint"])
def test_a_file_that_is_changed_in_place_is_an_error_and_its_record_stays(
    client: FusedClient,
    fused_emulator: Emulator,
    full: Udf,
    path: Path,
    small_batches: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    with_checkpoint: bool,
) -> None:
    monkeypatch.setattr("fused_cache_ops.selection.tile_list._CHUNK", 1000)
    record = tmp_path / "record.json"

    def rewrite() -> None:
        content = path.read_text().splitlines()
        path.write_text("\n".join([*content[:500], *(line.replace("9/", "8/", 1) for line in content[500:])]) + "\n")
        fused_emulator.before_invalidation = None

    fused_emulator.before_invalidation = rewrite
    with pytest.raises(FusedCacheError, match="was changed while it was in use"):
        client.invalidate_cache(full.id, tiles_file=path, **({"checkpoint": record} if with_checkpoint else {}))
    assert record.exists() == with_checkpoint
    assert {tile for tile in fused_emulator.cached_tiles(full) if tile[1] >= 0}  # not all was sent, and nobody said so


@given(st.data())
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_a_file_that_is_mutated_at_random_never_ends_in_a_wrong_success(fused_emulator: Emulator, data: Any) -> None:
    """Whatever is done to the file after which request: a success has sent exactly what the file held at first."""
    import tempfile

    after = data.draw(st.integers(0, 5))
    mutation = data.draw(st.sampled_from(["append", "truncate", "swap", "rewrite", "replace", "remove", "nothing"]))
    at = data.draw(st.integers(0, 2000))
    emulator = fused_emulator
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 50)
        patch.setattr("fused_cache_ops.selection.tile_list._CHUNK", 256)
        udf = emulator.register(dict, name="roads")
        tiles = TILES[:300]
        others = [Tile(8, tile.x % 256, tile.y) for tile in TILES[:300]]
        emulator.fill_cache(udf, [*tiles, *others])
        path = Path(folder, "tiles.list")
        path.write_text("".join(f"{tile}\n" for tile in tiles))
        seen = 0

        def mutate() -> None:
            nonlocal seen
            seen += 1
            if seen != after + 1:
                return
            content = path.read_text()
            if mutation == "append":
                path.open("a").write(f"{others[0]}\n")
            elif mutation == "truncate":
                path.open("r+").truncate(at)
            elif mutation == "swap":
                path.write_text(content.replace("9/", "8/"))
            elif mutation == "rewrite":
                path.write_text("".join(f"{tile}\n" for tile in others))
            elif mutation == "replace":
                Path(folder, "new").write_text("".join(f"{tile}\n" for tile in others))
                Path(folder, "new").replace(path)
            elif mutation == "remove":
                path.unlink()

        emulator.before_invalidation = mutate
        before = emulator.cached_tiles(udf)
        with FusedClient(client_id=emulator.client_id) as client:
            try:
                result = client.invalidate_cache(udf.id, tiles_file=path)
            except FusedCacheError as error:
                failure: FusedCacheError | None = error
            else:
                failure = None
                assert result.tiles_invalidated == 300
        gone = before - emulator.cached_tiles(udf)
        assert gone <= set(tiles)
        if failure is None:
            assert gone == set(tiles)
        elif not (failure.remaining and failure.remaining.unreadable):
            assert set(tiles) - gone <= set(failure.remaining or ())


# -- streams, and lines that cannot be read ----------------------------------------------------------------------------


def test_bad_lines_in_what_was_not_read_yet_are_told_and_the_others_handed_back(
    client: FusedClient, fused_emulator: Emulator, full: Udf, path: Path, small_batches: None
) -> None:
    lines = path.read_text().splitlines()
    lines[550], lines[700], lines[800] = "first", "second", "9/9999/0"
    path.write_text("\n".join(lines))
    with pytest.raises(PartialInvalidationError, match="line 551") as caught:
        client.invalidate_cache(full.id, tiles_file=path)
    left = set(caught.value.remaining)
    assert left == fused_emulator.cached_tiles(full) - {TILES[550], TILES[700], TILES[800]}
    assert [reason.partition(":")[0].rpartition(", ")[2] for reason in caught.value.remaining.unreadable] == [
        "line 551",
        "line 701",
        "line 801",
    ]


def test_a_list_that_is_torn_says_from_which_line_on_it_cannot_know(
    client: FusedClient, fused_emulator: Emulator, full: Udf, tmp_path: Path, small_batches: None
) -> None:
    import gzip

    content = gzip.compress("".join(f"{tile}\n" for tile in TILES).encode())
    path = tmp_path / "tiles.list.gz"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(FusedCacheError, match="cannot be read from line") as caught:
        client.invalidate_cache(full.id, tiles_file=path)
    left = set(caught.value.remaining or ())
    assert left == {tile for tile in fused_emulator.cached_tiles(full) if tile in left}
    assert "cannot be read from line" in caught.value.remaining.unreadable[-1]  # type: ignore[union-attr]


def test_a_generator_that_fails_before_the_first_batch_hands_its_tiles_back(
    client: FusedClient, fused_emulator: Emulator, full: Udf
) -> None:
    def rows() -> Iterator[Tile]:
        yield from TILES[:400]
        raise LookupError("the cursor is gone")

    with pytest.raises(InvalidInputError, match=r"LookupError: the cursor is gone\. Nothing was invalidated") as caught:
        client.invalidate_cache(full.id, tiles=rows())
    assert caught.value.remaining is not None
    assert list(caught.value.remaining) == TILES[:400]
    assert isinstance(caught.value.__cause__, LookupError)
    assert not caught.value.retryable
    assert fused_emulator.cached_tiles(full) == set(TILES)


def test_ctrl_c_hands_back_what_is_not_done(
    client: FusedClient, fused_emulator: Emulator, full: Udf, small_batches: None
) -> None:
    def interrupt(done: int, total: "int | None", retries: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        client.invalidate_cache(full.id, tiles=TILES, on_progress=interrupt)
    left: Any = caught.value.remaining  # type: ignore[attr-defined]
    assert fused_emulator.cached_tiles(full) <= set(left) <= set(TILES)


# -- plans ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "selection",
    [
        {"tiles": TILES},
        {"tiles": TILES[:3], "zooms": "7-9", "buffer": 1},
        {"bounds": (0, 0, 10, 10), "zooms": "3-6"},
        {"geometry": "POLYGON ((0 0, 10 0, 10 10, 0 0))", "zooms": "3-6"},
        {"tiles": TILES, "shard": (1, 3)},
        {},
    ],
    ids=str,
)
def test_a_plan_can_be_pickled(selection: Any) -> None:
    plan = plan_invalidation("roads", **selection)
    copied = pickle.loads(pickle.dumps(plan))
    assert copied == plan
    assert list(copied.tiles()) == list(plan.tiles())


def test_a_plan_of_a_file_can_be_pickled_while_the_file_stays_as_it_is(path: Path) -> None:
    pickled = pickle.dumps(plan_invalidation("roads", tiles_file=path))
    assert list(pickle.loads(pickled).tiles()) == TILES
    path.write_text("1/0/0\n")
    with pytest.raises(InvalidInputError, match="was changed since it was planned"):
        pickle.loads(pickled)


def test_a_plan_goes_on_after_the_call_that_it_was_told_of(fused_emulator: Emulator, full: Udf) -> None:
    plans: list[Any] = []
    with FusedClient(client_id=fused_emulator.client_id) as client:
        client.invalidate_cache(full.id, bounds=(0, 0, 10, 10), zooms=5, on_plan=plans.append)
        client.cancel()
    assert len(list(plans[0].tiles())) == plans[0].tile_count


def test_an_open_file_of_whatever_kind_is_read_and_left_open(tmp_path: Path, client: FusedClient, udf: Udf) -> None:
    import codecs
    import gzip
    import tempfile

    path = tmp_path / "tiles.list"
    path.write_text("1/0/0\n1/0/1\n")
    opened: list[Any] = [path.open(), path.open("rb"), path.open("rb", buffering=0), codecs.open(str(path), encoding="utf-8")]  # noqa: SIM115
    opened += [io.BytesIO(path.read_bytes()), io.StringIO("1/0/0\n1/0/1\n"), io.BytesIO(gzip.compress(path.read_bytes()))]
    with tempfile.NamedTemporaryFile("w+") as text, tempfile.NamedTemporaryFile() as binary:
        text.write("1/0/0\n1/0/1\n")
        binary.write(b"1/0/0\n1/0/1\n")
        for file in [*opened, text, binary]:
            file.seek(0)
            assert client.invalidate_cache(udf.id, tiles_file=file).tiles_invalidated == 2
            assert not file.closed
    for file in opened:
        file.close()


def test_a_line_without_an_end_is_refused_in_little_memory(tmp_path: Path) -> None:
    import gzip
    import tracemalloc

    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(200):
            file.write(b"1" * 1_000_000)
    tracemalloc.start()
    with pytest.raises(InvalidInputError, match=r"line 1: .* more than 65,536 characters"):
        plan_invalidation("roads", tiles_file=path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize(
    "selection",
    [
        {"tiles": [(1, 10**5000, 0)]},
        {"tiles": ["1/0/0"], "buffer": 10**5000},
        {"tiles": ["1/0/0"], "max_tiles": -(10**5000)},
        {"tiles": ["1/0/0"], "max_zoom": 10**5000},
        {"tiles": ["1/0/0"], "shard": (0, -(10**5000))},
        {"bounds": (10**5000, 0, 1, 1), "zooms": 3},
        {"bounds": (0, 0, 1, 1), "zooms": 10**5000},
        {"bounds": (0, 0, 1, 1), "zooms": [10**5000]},
        {"tiles_file": "a\0b"},
        {"geometry": "a\0b", "zooms": 3},
        {"geometry": "[" * 100_000, "zooms": 3},
        {"geometry": '{"type": "Feature", "geometry": ' * 5000, "zooms": 3},
    ],
    ids=lambda selection: "-".join(selection),
)
def test_monstrous_values_end_in_an_error_of_ours(selection: Any) -> None:
    with pytest.raises(InvalidInputError):
        plan_invalidation("roads", **selection)


@pytest.mark.parametrize("place", ["~nobody-of-this-name/record.json", "a\0b"])
def test_a_checkpoint_at_an_impossible_path_is_an_error_of_ours(client: FusedClient, udf: Udf, place: str) -> None:
    with pytest.raises(FusedCacheError, match="checkpoint = "):
        client.invalidate_cache(udf.id, tiles=["1/0/0"], checkpoint=place)


def test_a_list_with_deep_json_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "tiles.list"
    path.write_text("1/0/0\n" + "[" * 50_000 + "\n")
    with pytest.raises(InvalidInputError, match="line 2"):
        plan_invalidation("roads", tiles_file=path)


def test_threads_may_read_one_selection_at_once(path: Path) -> None:
    plan = plan_invalidation("roads", tiles_file=path)
    found: list[list[Tile]] = []
    readers = [threading.Thread(target=lambda: found.append(list(plan.tiles()))) for _ in range(8)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert found == [TILES] * 8


def test_a_slow_pipe_is_sent_as_it_comes(fused_emulator: Emulator, full: Udf) -> None:
    """Reading waits for no more than there is, so that a deadline ends what a pipe has not written yet."""
    import os

    reading, writing = os.pipe()
    os.write(writing, b"".join(b"%d/%d/%d\n" % tile for tile in TILES[:3]))
    with FusedClient(client_id=fused_emulator.client_id, deadline=60) as client, os.fdopen(reading, "rb") as pipe:
        tiles = iter(plan_of(pipe))
        assert [next(tiles) for _ in range(3)] == TILES[:3]
        os.close(writing)
        assert list(tiles) == []
        assert client.invalidate_cache(full.id, tiles=TILES[:3]).tiles_invalidated == 3


def plan_of(pipe: Any) -> Any:
    from fused_cache_ops.selection.tile_list import list_source

    return list_source(pipe, 30)
