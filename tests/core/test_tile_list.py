"""Lists of tiles in files: every format, streamed, with the line named where one is bad."""

import gzip
import io
import os
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import mercantile
import pytest

from fused_cache_ops import FusedClient, Tile, plan_invalidation
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.integration import refuse_single_use
from fused_cache_ops.outcome.invalidation import PartialInvalidationError
from fused_cache_ops.selection.tile_list import TileFile, TileList, list_source

WANTED = [Tile(15, 9647, 12320), Tile(1, 0, 1)]
QUADKEYS = "\n".join(mercantile.quadkey(tile.x, tile.y, tile.z) for tile in WANTED)


def read(source: Any) -> TileList:
    """The tiles of a list, wherever it is."""
    found = list_source(source, 30)
    return found.read() if isinstance(found, TileFile) else found


@pytest.mark.skipif(not hasattr(os, "pread"), reason="without forks, no process shares a file's position")
def test_reading_leaves_the_files_position_alone_which_forked_processes_share(tmp_path: Path) -> None:
    (tmp_path / "tiles.list").write_text("15/9647/12320\n" * 100_000)
    file = (tmp_path / "tiles.list").open("rb", buffering=0)
    listed = TileFile(file, "tiles.list", 30)
    assert sum(1 for _ in listed.read()) == 100_000
    assert file.tell() == 0


@pytest.mark.parametrize(
    "text",
    [
        "15/9647/12320\n1/0/1\n",
        "15/9647/12320\r\n1/0/1",
        "\n# expired by osm2pgsql\n15/9647/12320\n\n  1/0/1  \n",
        "15,9647,12320\n1,0,1\n",
        "15, 9647, 12320\n1, 0, 1\n",
        "z,x,y\n15,9647,12320\n1,0,1\n",
        "name,Y,X,Z\na,12320,9647,15\nb,1,0,1\n",
        '"z","x","y"\n"15","9647","12320"\n"1","0","1"\n',
        '{"z": 15, "x": 9647, "y": 12320}\n{"y": 1, "x": 0, "z": 1}\n',
        '"15/9647/12320"\n"1/0/1"\n',
        QUADKEYS,
        f"quadkey\n{QUADKEYS}",
        "id;z;x;y\n7;15;9647;12320\n8;1;0;1\n",
        "15\t9647\t12320\n1\t0\t1\n",
        "\tz\tx\ty\n0\t15\t9647\t12320\n\t1\t0\t1\n",
        "z,x,y\n15.0,9647.0,12320.0\n1,0,1.\n",
        'name,z,x,y\n"Lisbon, PT",15,9647,12320\n"a ""b"", c",1,0,1\n',
        'name,z,x,y\n"first\nsecond, line",15,9647,12320\nb,1,0,1\n',
        "area,tile\n1,15/9647/12320\n2,1/0/1\n",
        "tile\n15/9647/12320\n1/0/1\n",
        "\ufeff15/9647/12320\n1/0/1\n",
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_every_format_is_read(tmp_path: Path, text: str, packed: bool) -> None:
    path = tmp_path / "tiles.list"
    content = text.encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    assert list(read(path)) == list(read(str(path))) == WANTED


@pytest.mark.parametrize(
    ("order", "text"),
    [
        ("xyz", "[9647, 12320, 15]\n[0, 1, 1]\n"),
        ("xyz", "\x1e[9647, 12320, 15]\n\x1e[0, 1, 1]\n"),  # mercantile tiles --seq
        ("xyz", "9647,12320,15\n0,1,1\n"),
        ("zxy", "[15, 9647, 12320]\n[1, 0, 1]\n"),
        ("xyz", "15/9647/12320\n1/0/1\n"),
        ("xyz", "z,x,y\n15,9647,12320\n1,0,1\n"),
        ("xyz", '{"z": 15, "x": 9647, "y": 12320}\n{"y": 1, "x": 0, "z": 1}\n'),
        ("xyz", QUADKEYS),
    ],
)
def test_an_order_is_that_of_numbers_without_names(tmp_path: Path, order: str, text: str) -> None:
    (tmp_path / "tiles.list").write_text(text)
    assert list(TileFile.open(tmp_path / "tiles.list", 30, order).read()) == WANTED


def test_a_file_of_json_lists_has_to_say_its_order(tmp_path: Path) -> None:
    (tmp_path / "tiles.list").write_text("[4, 6, 4]\n")
    with pytest.raises(InvalidInputError, match=r"pass order='xyz' or order='zxy'\.$"):
        list(read(tmp_path / "tiles.list"))


@pytest.mark.parametrize(("order", "other", "line"), [("zxy", "xyz", "[9647, 12320, 15]"), ("xyz", "zxy", "15,9647,12320")])
def test_what_is_a_tile_only_in_the_other_order_says_so(tmp_path: Path, order: str, other: str, line: str) -> None:
    (tmp_path / "tiles.list").write_text(line)
    with pytest.raises(InvalidInputError, match=f"It is a tile as .* pass order='{other}'"):
        list(TileFile.open(tmp_path / "tiles.list", 30, order).read())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("zoom,column,row\n1,0,1\n", "Name them z, x and y"),
        ("z,x,x,y\n1,0,1,1\n", "more than one column x"),
        ("z,x,y\n1_0,0,1\n", "'1_0' is not a whole number"),
        ("z,x,y\n\u0661,0,1\n", "is not a whole number"),
        ("z,x,y\n1.5,0,1\n", "'1.5' is not a whole number"),
        ('name,z,x,y\n"a,1,0,1\nb,1,0,1\n', "ends within a quoted cell"),
        ('name,z,x,y\n"a"b",1,0,1"\n', "it is not CSV"),
    ],
)
def test_csv_that_is_not_a_list_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "tiles.csv").write_text(text)
    with pytest.raises(InvalidInputError, match=said):
        list(read(tmp_path / "tiles.csv"))


def test_after_a_header_that_names_no_tiles_no_line_is_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / "tiles.csv").write_text("column,row,zoom\n1,1,2\n")
    stream = read(tmp_path / "tiles.csv")
    for _ in range(2):
        with pytest.raises(InvalidInputError, match="Name them z, x and y"):
            next(stream)
    assert list(stream) == []


def test_the_counts_of_a_csv_with_quoted_commas_are_read(tmp_path: Path) -> None:
    (tmp_path / "tiles.csv").write_text('count,z,x,y,name\n7,1,0,1,"a, b"\n')
    piece = read(tmp_path / "tiles.csv").take(10)
    assert (list(piece), list(piece.counts or ())) == ([(1, 0, 1)], [7])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
@pytest.mark.parametrize("packed", [False, True])
def test_a_named_pipe_is_read_once_and_kept(tmp_path: Path, packed: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    content = b"15/9647/12320\n1/0/1\n"
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(gzip.compress(content) if packed else content))
    writer.start()
    found = list_source(tmp_path / "pipe", 30)
    writer.join()
    assert isinstance(found, TileFile)
    assert list(found.read()) == list(found.read()) == WANTED


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such paths")
def test_a_pipe_that_was_used_up_is_not_an_empty_list() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"1/0/1\n")
    os.close(writing)
    try:
        assert plan_invalidation("roads", tiles_file=f"/dev/fd/{reading}").tile_count == 1
        with pytest.raises(InvalidInputError, match="is a pipe that was read before"):
            plan_invalidation("roads", tiles_file=f"/dev/fd/{reading}")
    finally:
        os.close(reading)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_what_may_be_run_again_refuses_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInputError, match="tiles_file can be read only once"):
        refuse_single_use({"tiles_file": tmp_path / "pipe"})


@pytest.mark.parametrize("source", [io.StringIO("1/0/1\n"), io.BytesIO(b"1/0/1\n"), io.BytesIO(gzip.compress(b"1/0/1\n"))])
def test_an_open_file_is_read(source: Any) -> None:
    assert list(read(source)) == [(1, 0, 1)]


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"1/0/1\n")))
    assert list(read("-")) == [(1, 0, 1)]


@pytest.mark.parametrize(
    "line",
    ["1/9/9", "1/0", "roads", "1/0/-1", "1,0", "1,0,a", "{", '{"z": 1}', "[1, 0]", "5", "1 0 1", "40/0/0", "x,y\u0000", "null"],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "tiles.list"
    path.write_text(f"1/0/1\n\n{line}\n1/1/1\n")
    stream = read(path)
    assert next(stream) == (1, 0, 1)
    with pytest.raises(InvalidInputError, match=r"tiles\.list, line 3: "):
        next(stream)
    assert list(stream) == [(1, 1, 1)]


@pytest.mark.parametrize("source", ["", "None", "null", 5, None, b"x"])
def test_what_is_not_a_file_is_refused_before_any_request(client: FusedClient, fused_emulator: Emulator, source: Any) -> None:
    with pytest.raises(InvalidInputError, match="tiles_file"):
        client.invalidate_cache("roads", tiles_file=source)
    assert fused_emulator.requests == []


def test_what_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiles.list"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InvalidInputError, match=r"line 1: b'.xff.xfe.x00.x01' is not a valid tile: 'utf-8' codec"):
        list(read(path))


def test_a_list_is_invalidated(tmp_path: Path, client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    path = tmp_path / "tiles.list"
    path.write_text("1/0/0\n1/1/1\n")
    result = client.invalidate_cache(udf.id, tiles_file=path)
    assert (result.tiles_invalidated, result.objects_deleted) == (2, 2)


def test_an_empty_list_sends_nothing(tmp_path: Path, client: FusedClient, fused_emulator: Emulator) -> None:
    path = tmp_path / "tiles.list"
    path.write_text("# nothing expired\n")
    assert client.invalidate_cache("roads", tiles_file=path).tiles_invalidated == 0
    assert fused_emulator.requests == []


def test_a_bad_line_far_down_loses_nothing(
    tmp_path: Path, client: FusedClient, fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 10)
    good = [Tile(9, number % 500, number // 500) for number in range(95)]
    fused_emulator.fill_cache(udf, good)
    path = tmp_path / "tiles.list"
    path.write_text("\n".join([*map(str, good[:55]), "nonsense", *map(str, good[55:])]))
    with pytest.raises(PartialInvalidationError, match="line 56") as caught:
        client.invalidate_cache(udf.id, tiles_file=path)
    assert set(caught.value.remaining) == {tile for tile in fused_emulator.cached_tiles(udf) if tile[0] == 9}


def test_a_long_list_is_read_in_flat_memory(tmp_path: Path) -> None:
    path = tmp_path / "tiles.list"
    with path.open("w") as file:
        file.writelines(f"17/{number % 1000}/{number // 1000}\n" for number in range(100_000))
    tracemalloc.start()
    count = sum(1 for _ in read(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 100_000
    assert peak < 2_000_000  # 100,000 tiles would take five times that


# -- parents, children, neighbors ----------------------------------------------------------------------------------------


def expanded(tiles: Any, **options: Any) -> list[Tile]:
    return list(plan_invalidation("roads", tiles=tiles, **options).tiles())


def test_zooms_add_parents_and_children() -> None:
    found = expanded([(3, 5, 2)], zooms="2-5")
    children = {(4, x, y) for x in (10, 11) for y in (4, 5)}
    grandchildren = {(5, x, y) for x in range(20, 24) for y in range(8, 12)}
    assert set(found) == {(2, 2, 1), (3, 5, 2)} | children | grandchildren
    assert len(found) == 1 + 1 + 4 + 16


def test_what_neighbors_share_is_sent_once() -> None:
    siblings = [(3, 4, 2), (3, 5, 2), (3, 4, 3), (3, 5, 3)]
    assert sorted(expanded(siblings, zooms=[1, 2, 3])) == [(1, 1, 0), (2, 2, 1), *sorted(siblings)]


def test_the_listed_tile_is_kept_whatever_the_zooms() -> None:
    assert set(expanded([(3, 5, 2)], zooms=1)) == {(3, 5, 2), (1, 1, 0)}


def test_a_buffer_adds_neighbors_once_and_wraps() -> None:
    assert sorted(expanded([(3, 0, 0), (3, 1, 0)], buffer=1)) == sorted((3, x, y) for x in (7, 0, 1, 2) for y in (0, 1))


def test_millions_of_children_with_a_buffer_are_counted_and_not_made() -> None:
    with pytest.raises(InvalidInputError, match="zoom 20: 16,793,604"):
        expanded([(8, 5, 2)], zooms=20, buffer=1)


def test_a_file_is_expanded_too(tmp_path: Path, client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    path = tmp_path / "tiles.list"
    path.write_text("0/0/0\n")
    assert client.invalidate_cache(udf.id, tiles_file=path, zooms=[0, 1]).tiles_invalidated == 5
    assert fused_emulator.cached_tiles(udf) == set()


def test_children_of_a_generator_are_sent(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    assert client.invalidate_cache(udf.id, tiles=iter(["0/0/0"]), zooms=1).objects_deleted == 4
