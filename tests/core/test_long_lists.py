"""Long lists: pieces of plain lines are read at once, and exactly as line by line."""

import gzip
import io
import json
from array import array
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fused_cache_ops import InvalidInputError, Tile, plan_invalidation
from fused_cache_ops.selection import tile_list
from fused_cache_ops.selection.batches import TileBatch, TileBatches
from fused_cache_ops.selection.pieces import Piece
from fused_cache_ops.selection.reading import read_selection
from fused_cache_ops.selection.tile_list import TileFile, TileList

PLAIN = st.integers(0, 30).flatmap(
    lambda zoom: st.tuples(st.just(zoom), st.integers(0, 2**zoom - 1), st.integers(0, 2**zoom - 1)).map(
        lambda t: "%d/%d/%d" % t
    )
)
ODD = st.sampled_from(
    [
        "",
        "   ",
        "# 1/2/3",
        "05/1/1",
        "5/01/1",
        "5/1/1 ",
        "\t5/1/1",
        "5/1/1\r",
        "5,1,1",
        "z,x,y",
        "y,x,z",
        '{"z": 5, "x": 1, "y": 2}',
        "[5, 1, 2]",
        '"5/1/2"',
        "0213",
        "0",
        "5/32/1",
        "5/1/32",
        "31/1/1",
        "32/1/1",
        "5/1",
        "5/1/2/3",
        "//",
        "5//1",
        "/5/1",
        "5/1/",
        "-5/1/1",
        "+5/1/1",
        "5/1.0/1",
        "5/1e0/1",
        "5/4294967296/1",
        "5/12345678901/1",
        "5/00000000001/1",
        "5/٣/1",
        "5/\x001/1",
        "5/1/1\x0b",
        "5/1/1\x85",
        "5/1/1,6/1/1",
        "5/1_0/1",
        "nonsense",
        "1" * 5000 + "/1/1",
        "{" * 2000,
    ]
)


def read_all(tiles: Any) -> list[Any]:
    """The tiles and the errors of a stream, in their order."""
    found: list[Any] = []
    while True:
        try:
            tile = next(tiles, None)
        except InvalidInputError as error:
            found.append(str(error))
        else:
            if tile is None:
                return found
            found.append(tile)


def read_batches(tiles: Any, size: int) -> tuple[list[Any], list[str]]:
    """The tiles of batches, and the errors. What comes before an error is in the batch after it."""
    batches = TileBatches(tiles, size)
    found: list[Tile] = []
    errors: list[str] = []
    while True:
        try:
            batch = next(batches, None)
        except InvalidInputError as error:
            errors.append(str(error))
        else:
            if batch is None:
                return found, errors
            found.extend(batch)


def line_by_line(content: Any) -> list[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tile_list, "_plain_piece", lambda lines, max_zoom: None)
        return read_all(TileList(io.StringIO(content).read if isinstance(content, str) else io.BytesIO(content).read, "list"))


@settings(max_examples=300, deadline=None)
@given(st.lists(PLAIN | ODD, max_size=30), st.booleans(), st.integers(1, 200), st.integers(1, 7))
@example(["1/0/0", "1/0/2", "1/1/1"], True, 1000, 2)
@example(["1/0/2", "1/0/0"], True, 6, 2)
@example(["1/0/0", "1/0/2"], False, 6, 1)
def test_pieces_are_read_as_line_by_line(lines: list[str], ends: bool, chunk: int, size: int) -> None:
    text = "\n".join(lines) + "\n" * ends
    expected = line_by_line(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tile_list, "_CHUNK", chunk)
        assert read_all(TileList(io.StringIO(text).read, "list")) == expected
        tiles, errors = read_batches(TileList(io.StringIO(text).read, "list"), size)
        assert tiles == [each for each in expected if isinstance(each, Tile)]
        assert errors == [each for each in expected if isinstance(each, str)]
        in_bytes = line_by_line(text.encode())
        assert read_all(TileList(io.BytesIO(text.encode()).read, "list")) == in_bytes


@settings(max_examples=50, deadline=None)
@given(st.lists(PLAIN | ODD, max_size=30), st.integers(20, 200))
def test_a_compressed_file_is_read_as_the_plain_one(lines: list[str], chunk: int) -> None:
    text = "\n".join(lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tile_list, "_CHUNK", chunk)
        read = tile_list._decompressed(io.BytesIO(gzip.compress(text.encode())).read)
        assert read_all(TileList(read, "list")) == line_by_line(text.encode())


@pytest.mark.parametrize("bad", [1, 2, 10_000, 10_001, 50_000])
def test_the_message_names_the_line_wherever_it_is_in_its_piece(tmp_path: Path, bad: int) -> None:
    lines = ["15/1234/5678"] * 50_000
    lines[bad - 1] = "15/32768/0"
    (tmp_path / "tiles.list").write_text("\n".join(lines) + "\n")
    tiles = TileFile.open(tmp_path / "tiles.list", 30).read()
    with pytest.raises(InvalidInputError, match=rf"line {bad}: b?'15/32768/0' is not a valid tile: .*x=32768 is outside"):
        read_to_the_error(tiles)
    assert sum(1 for _ in tiles) == 50_000 - bad


def read_to_the_error(tiles: TileList) -> None:
    for _ in tiles:
        pass


def test_most_pieces_of_a_plain_list_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiles.list").write_text("".join(f"15/{number}/7\n" for number in range(30_000)))
    monkeypatch.setattr(TileList, "_parse", lambda self, line: pytest.fail(f"{line} was read alone"))
    assert plan_invalidation("roads", tiles_file=tmp_path / "tiles.list").tiles_per_zoom == {15: 30_000}


def test_many_pieces_without_tiles_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile_list, "_CHUNK", 4)
    text = "# \n" * 20_000 + "1/0/0"
    assert list(TileList(io.StringIO(text).read, "list")) == [Tile(1, 0, 0)]


@pytest.mark.parametrize("line", ["05/1/1", "5/00000000001/1"])
def test_leading_zeros_are_read_as_before(line: str) -> None:
    found = read_all(TileList(io.StringIO(f"{line}\n").read, "list"))
    assert found == line_by_line(f"{line}\n")


def test_what_a_slow_pipe_has_is_sent_before_more_comes() -> None:
    arrived = iter([b"1/0/0\n1/0", b"/1\n", b""])
    tiles = TileList(lambda most: next(arrived), "pipe")
    assert tiles.take(10).numbers == array("I", [1, 0, 0])
    assert tiles.take(10).numbers == array("I", [1, 0, 1])
    assert not tiles.take(10)


@settings(max_examples=200, deadline=None)
@given(st.lists(PLAIN, min_size=1, max_size=40), st.integers(1, 9), st.integers(20, 300))
def test_bodies_that_are_rewritten_lines_hold_the_same_tiles(lines: list[str], size: int, chunk: int) -> None:
    text = "".join(f"{line}\n" for line in lines).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tile_list, "_CHUNK", chunk)
        batches = list(TileBatches(TileList(io.BytesIO(text).read, "list"), size))
    assert [line for batch in batches for line in map(str, batch)] == lines
    for batch in batches:
        assert json.loads(batch.body()) == {"tiles": [tile._asdict() for tile in batch]}
        assert [batch.at(offset) for offset in range(len(batch))] == list(batch)
        plain = [Piece(piece.numbers) for piece in batch._pieces]
        assert batch.body() == TileBatch(plain, 0).body()
        assert batch.fingerprint() == TileBatch(plain, 0).fingerprint()


def test_a_list_in_memory_is_taken_in_pieces_and_one_by_one() -> None:
    selection: Any = read_selection(tiles=[(1, 0, 0), (1, 0, 1), (1, 1, 0)])
    assert [list(batch) for batch in selection.batches(2)] == [[Tile(1, 0, 0), Tile(1, 0, 1)], [Tile(1, 1, 0)]]
    assert list(selection.tiles()) == [Tile(1, 0, 0), Tile(1, 0, 1), Tile(1, 1, 0)]
