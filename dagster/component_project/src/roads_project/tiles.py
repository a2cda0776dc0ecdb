"""What the loads change on the map."""

from typing import Any

TILES = {"north": ["1/0/0", "1/1/0"], "south": ["1/0/1", "1/1/1"]}


def changed_tiles(context: Any, partition_key: str) -> list[str]:
    return TILES[partition_key]  # yours would query the tiles that the partition's rows fall in
