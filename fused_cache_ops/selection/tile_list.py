"""Lists of tiles in files, as tile tools write them: ``z/x/y``, CSV, JSON lines or quadkeys, one tile a line, gzip or not."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fused_cache_ops.errors import InvalidInputError
from fused_cache_ops.selection.keywords import TilesFile
from fused_cache_ops.tiles.tile import HIGHEST_ZOOM, ZOOM_LIMIT, Tile, parse_tile
from fused_cache_ops.wording import rendered_to_nothing, shortened

_PATH = re.compile(r"(\d{1,10})/(\d{1,10})/(\d{1,10})", re.ASCII)
_QUADKEY = re.compile(rf"[0-3]{{1,{ZOOM_LIMIT}}}", re.ASCII)


class TileList(Iterator[Tile]):
    """The checked tiles of a list, line by line. Blank lines and lines that begin with ``#`` are passed over.

    A line that cannot be read raises `InvalidInputError`, which names it; reading on then goes past it.
    """

    def __init__(self, source: TilesFile, *, max_zoom: int = HIGHEST_ZOOM) -> None:
        self._name = check_source(source)
        self._lines = _lines(source, self._name)
        self._max_zoom = max_zoom
        self._columns: dict[str, int] | None = None

    def __next__(self) -> Tile:
        for number, line in self._lines:
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            try:
                tile = self._parse(line)
            except (InvalidInputError, ValueError) as error:
                reason = str(error)
            else:
                if tile is None:
                    continue
                return tile
            shown = ascii(shortened(line, 60))
            raise InvalidInputError(f"{self._name}, line {number}: {shown} is no tile: {reason}")
        raise StopIteration

    def _parse(self, line: str) -> Tile | None:
        if match := _PATH.fullmatch(line):
            item: Any = (int(match[1]), int(match[2]), int(match[3]))
        elif line[0] in "{[" or (line[0] == '"' and "/" in line):
            item = json.loads(line)
        elif _QUADKEY.fullmatch(line):
            item = _from_quadkey(line)
        elif "," in line:
            cells = [cell.strip().strip('"') for cell in line.split(",")]
            if self._columns is None:
                self._columns = {"z": 0, "x": 1, "y": 2}
                names = [cell.lower() for cell in cells]
                if {"z", "x", "y"} <= set(names):
                    self._columns = {name: names.index(name) for name in "zxy"}
                    return None
            if len(cells) <= max(self._columns.values()):
                raise ValueError(f"it has {len(cells)} columns.")
            item = tuple(int(cells[self._columns[name]]) for name in "zxy")
        else:
            raise ValueError("write z/x/y, z,x,y, JSON ({'z': …, 'x': …, 'y': …}) or a quadkey, one a line.")
        return parse_tile(item, max_zoom=self._max_zoom)


def write_tile_list(tiles: Iterable[Tile], path: str | os.PathLike[str]) -> int:
    """Write tiles as a list, one ``z/x/y`` a line, gzipped if the name ends in ``.gz``; how many they were."""
    count = 0
    with gzip.open(path, "wt") if os.fspath(path).endswith(".gz") else Path(path).open("w") as file:
        for count, tile in enumerate(tiles, 1):  # noqa: B007
            file.write("%d/%d/%d\n" % tile)
    return count


def check_source(source: TilesFile) -> str:
    """A list's name, for messages.

    Raises:
        InvalidInputError: it is no path and no open file, or there is no such file.
    """
    if isinstance(source, os.PathLike):
        source = os.fspath(source)
    if isinstance(source, str):
        if rendered_to_nothing(source):
            raise InvalidInputError(f"tiles_file is {source!r}: it looks like a template that rendered to nothing.")
        if source == "-":
            return "standard input"
        if not Path(source).is_file():
            raise InvalidInputError(f"tiles_file = {source!r}: there is no such file.")
        return source
    if not hasattr(source, "read"):
        raise InvalidInputError(f"tiles_file is of type {type(source).__name__}: give a path, '-' or an open file.")
    return str(getattr(source, "name", "tiles_file"))


def is_repeatable(source: TilesFile) -> bool:
    """Whether a list can be read a second time: a file can, standard input and an open file cannot."""
    return isinstance(source, (str, os.PathLike)) and source != "-"


def _lines(source: TilesFile, name: str) -> Iterator[tuple[int, str]]:
    if isinstance(source, (str, os.PathLike)) and source != "-":
        with Path(source).open("rb") as file:
            yield from _decoded(file, name)
    else:
        yield from _decoded(sys.stdin.buffer if source == "-" else source, name)


def _decoded(file: Any, name: str) -> Iterator[tuple[int, str]]:
    if isinstance(file, io.TextIOBase):
        yield from enumerate(file, 1)
        return
    buffered = file if hasattr(file, "peek") else io.BufferedReader(file)
    if buffered.peek(2)[:2] == b"\x1f\x8b":
        buffered = gzip.GzipFile(fileobj=buffered)
    try:
        for number, line in enumerate(buffered, 1):
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise InvalidInputError(f"{name} is neither text nor gzip to its end: {error}.") from None


def _from_quadkey(quadkey: str) -> tuple[int, int, int]:
    x = int("".join(str(int(digit) & 1) for digit in quadkey), 2)
    y = int("".join(str(int(digit) >> 1) for digit in quadkey), 2)
    return len(quadkey), x, y
