"""What could not be read is transient: a store that is down, a file that is not there yet. What is wrong stays wrong."""

import gzip
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from fused_cache_ops import CacheMap, FusedClient, InvalidInputError, UnavailableError, plan_invalidation
from fused_cache_ops.changes import changed_geometry
from fused_cache_ops.emulator import Udf


@pytest.fixture
def store() -> Iterator[tuple[str, set[str]]]:
    """The address of a store without HEAD, and the names of the files for which it is down."""
    down: set[str] = set()

    class Store(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"type": "Point", "coordinates": [1, 1]}'
            self.send_response(503 if self.path.strip("/") in down else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", down
        server.shutdown()


def test_a_store_that_is_down_may_answer_the_next_time(store: tuple[str, set[str]]) -> None:
    address, down = store
    selection: Any = {"geometry": f"{address}/shape.geojson", "zooms": 3}
    down.add("shape.geojson")
    with pytest.raises(UnavailableError, match="cannot be read as a vector file"):
        plan_invalidation("roads", **selection)
    down.clear()
    assert plan_invalidation("roads", **selection).tile_count == 1


@pytest.mark.parametrize(
    "selection",
    [
        {"geometry": "/nowhere/a.geojson", "zooms": 3},
        {"geometry": "/nowhere/a.parquet", "zooms": 3},
        {"geometry": "http://127.0.0.1:9/a.parquet", "zooms": 3},
        {"cells": "/nowhere/cells.txt", "zooms": 3},
        {"tiles_file": "/nowhere.list"},
        {"tiles_file": "file:///nowhere.list"},
    ],
    ids=str,
)
def test_a_file_that_is_not_there_may_appear_later(selection: Any) -> None:
    with pytest.raises(UnavailableError):
        plan_invalidation("roads", **selection)


@pytest.mark.parametrize("name", ["nowhere.parquet", "nowhere.gpkg"])
def test_a_state_that_is_not_there_may_appear_later(name: str) -> None:
    state = pyarrow.table({"id": [1], "geometry": ["POINT (1 1)"]})
    with pytest.raises(UnavailableError, match=f"after = '/{name}' cannot be read as a"):
        changed_geometry(state, f"/{name}", key="id", geometry_column="geometry", crs=4326)


@pytest.mark.parametrize(
    "selection",
    [
        {"geometry": "{}/wrong.geojson", "zooms": 3},
        {"geometry": "{}/wrong.parquet", "zooms": 3},
        {"cells": "{}/wrong.txt", "zooms": 3},
        {"tiles_file": "{}/wrong.txt"},
        {"tiles_file": "{}/wrong.gz"},
        {"tiles_file": "{}"},
        {"cells": "{}", "zooms": 3},
    ],
    ids=str,
)
def test_what_was_read_and_is_wrong_stays_wrong(selection: Any, tmp_path: Path) -> None:
    for name in ("wrong.geojson", "wrong.parquet", "wrong.txt"):
        (tmp_path / name).write_text("neither")
    (tmp_path / "wrong.gz").write_bytes(gzip.compress(b"1/0/0")[:12] + b"broken")
    given = {name: value.format(tmp_path) if isinstance(value, str) else value for name, value in selection.items()}
    with pytest.raises(InvalidInputError):
        list(plan_invalidation("roads", **given).tiles())


def test_a_checkpoint_store_that_says_slow_down_is_transient(
    client: FusedClient, udf: Udf, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SlowDown(Exception):
        """What a store's own package raises."""

    def refuse(*arguments: Any, **options: Any) -> None:
        raise SlowDown

    monkeypatch.setattr(MemoryFileSystem, "cat_file", refuse)
    with pytest.raises(UnavailableError, match=r"checkpoint = 'memory://.*SlowDown"):
        client.invalidate_cache(udf.id, tiles=["1/0/0"], checkpoint="memory://records/")
    assert fsspec.filesystem("memory") is not None


def test_file_urls_are_paths(client: FusedClient, udf: Udf, tmp_path: Path) -> None:
    (tmp_path / "some tiles.txt").write_text("1/0/0\n")
    (tmp_path / "shape.geojson").write_text('{"type": "Point", "coordinates": [1, 1]}')
    assert plan_invalidation("roads", tiles_file=f"file://{tmp_path}/some%20tiles.txt").tile_count == 1
    assert plan_invalidation("roads", geometry=f"file://{tmp_path}/shape.geojson", zooms=3).tile_count == 1
    (tmp_path / "records").mkdir()
    client.invalidate_cache(udf.id, tiles=["1/0/0"], checkpoint=f"file://{tmp_path}/records/")
    assert {path.name for path in tmp_path.iterdir()} == {"some tiles.txt", "shape.geojson", "records"}


# -- lists of lists ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selection", "count"),
    [
        ({"tiles": [["1/0/0", "1/0/1"], [], ["1/1/1"]]}, 3),
        ({"tiles": [[], ["1/1/1"]]}, 1),
        ({"tiles": [[], []]}, 0),
        ({"tiles": [[[1, 0, 0]], [[1, 0, 1], [1, 1, 1]]]}, 3),
        ({"tiles": [[{"z": 1, "x": 0, "y": 0}], [(1, 0, 1)]]}, 2),
        ({"tiles": (["1/0/0"], ("1/0/1",))}, 2),
        ({"tiles": [[1, 0, 0], [1, 0, 1]]}, 2),
        ({"bounds": [[[1, 1, 2, 2]], [[100, 1, 101, 2]]], "zooms": 3}, 2),
        ({"bounds": [[1, 1, 2, 2], [100, 1, 101, 2]], "zooms": 3}, 2),
        ({"geometry": [["POINT (1 1)"], [], ["POINT (100 1)"]], "zooms": 3}, 2),
        ({"cells": [["893933676c3ffff"], []], "zooms": 3}, 1),
    ],
    ids=str,
)
def test_the_lists_of_several_loads_are_one_list(selection: Any, count: int) -> None:
    assert plan_invalidation("roads", **selection).tile_count == count


@pytest.mark.parametrize("tiles", [[["1/0/0"], None], [None, ["1/0/0"]], [["1/0/0"], [None]]], ids=str)
def test_one_load_that_returned_none_fails_all(tiles: Any) -> None:
    with pytest.raises(InvalidInputError):
        plan_invalidation("roads", tiles=tiles)


def test_a_key_is_found_as_orchestrators_write_addresses() -> None:
    read = CacheMap.from_dict({"datasets": {"s3://bucket/parcels/": {"udfs": []}, "roads": {"udfs": []}}})
    assert read.key_of("S3://bucket/parcels#part", None) == "s3://bucket/parcels/"
    assert read.key_of("s3://bucket/other", "roads") == "roads"
    assert read.key_of(None, "rivers") is None
