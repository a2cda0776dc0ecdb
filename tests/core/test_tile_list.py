"""Lists of tiles in files: every format, streamed, with the line named where one is bad."""

import gzip
import io
import os
import tracemalloc
from pathlib import Path
from typing import Any

import mercantile
import pytest

from fused_cache_ops import FusedClient, Tile, plan_invalidation
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.errors import InvalidInputError
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
        "[15, 9647, 12320]\n[1, 0, 1]\n",
        '"15/9647/12320"\n"1/0/1"\n',
        QUADKEYS,
        "\ufeff15/9647/12320\n1/0/1\n",
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_every_format_is_read(tmp_path: Path, text: str, packed: bool) -> None:
    path = tmp_path / "tiles.list"
    content = text.encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    assert list(read(path)) == list(read(str(path))) == WANTED


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
