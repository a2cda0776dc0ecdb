"""Tile lists in files, as tile tools write them: ``z/x/y``, CSV, JSON lines or quadkeys, one tile per line, gzipped or not."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import operator
import os
import re
import stat
import sys
import tempfile
import threading
import weakref
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

from fused_cache_ops.errors import InvalidInputError, unreadable
from fused_cache_ops.keywords.values import TilesFile
from fused_cache_ops.selection.pieces import Piece, PieceStream, TilesInPieces, read_count
from fused_cache_ops.selection.shapes import is_pipe as path_is_pipe
from fused_cache_ops.tiles.tile import HIGHEST_ZOOM, QUADKEY, Tile, from_quadkey, parse_tile
from fused_cache_ops.wording import quoted, rendered_to_nothing

LONGEST_LINE = 65_536
"""Characters. A longer line is not a tile, and would have to be held in memory completely."""

_CHUNK = 1 << 17
_FILED_AT_ONCE = 10_000  # tiles
_PATH = re.compile(r"(\d{1,10})/(\d{1,10})/(\d{1,10})(?:[ \t]+(\d{1,18}))?", re.ASCII)
_JSON_TEXT = re.compile(r'"[^",;\t]*/[^",;\t]*"')
_GZIP = b"\x1f\x8b"
_CSV_NUMBER = re.compile(r"(-?\d{1,18})(?:\.0*)?", re.ASCII)  # pandas writes 10.0 where a value is missing elsewhere
_NAMED = ("tile", "quadkey")
"""Columns that hold whole tiles."""

_AS_JSON = bytes.maketrans(b"/\n ", b",,,")


class TileList(PieceStream):
    """The validated tiles of a list. Blank lines and lines that begin with ``#`` are skipped.

    A line ``z/x/y count``, or a column ``count``, says how often a tile is requested. CSV is separated by commas, semicolons or
    tabs. Its columns are ``z``, ``x`` and ``y``, or ``tile``, or ``quadkey``. Without a header, there are three in this order.

    Lines of three plain numbers are read many at a time. A piece of the list that holds anything else is read line by line.
    A malformed line raises `InvalidInputError`, which names it. Reading further continues after that line.

    Args:
        read: ``read(n)`` returns up to ``n`` more bytes or characters, and nothing at the end.
        name: how messages name the list.
        max_zoom: the highest zoom allowed.
        order: ``"zxy"`` or ``"xyz"``, the order of three numbers without names. None: JSON lists are an error.
    """

    def __init__(
        self, read: Callable[[int], Any], name: str, *, max_zoom: int = HIGHEST_ZOOM, order: str | None = None
    ) -> None:
        super().__init__()
        self._name = name
        self._pieces = _Pieces(read, name)
        self._max_zoom = max_zoom
        self._order = order
        self._table: _Csv | None = None
        self._unfinished = ""  # the begun record of a CSV whose quoted cell holds a line feed
        self._begun = False  # whether a line has been read that is neither blank nor a remark
        self._count = 0  # of the line that was parsed last
        self._lines: Iterator[tuple[int, Any]] = iter(())
        self._failure: InvalidInputError | None = None

    def next_piece(self) -> Piece:
        while True:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            found, counts = array("I"), array("Q")
            for number, line in self._lines:
                try:
                    text = self._record(line if isinstance(line, str) else line.decode())
                    if text:
                        found.extend(self._parse(text) or ())
                        counts.extend([self._count] * (len(found) // 3 - len(counts)))
                except (InvalidInputError, ValueError, RecursionError) as error:
                    reason = str(error) or type(error).__name__
                    self._failure = InvalidInputError(
                        f"{self._name}, line {number}: {quoted(line, 60)} is not a valid tile: {reason}"
                    )
                    break
            else:
                if not found:
                    number, lines = next(self._pieces, (0, None))
                    if lines is None:
                        self._check_finished()
                        return Piece(found)
                    if not self._unfinished and (plain := _plain_piece(lines, self._max_zoom)):
                        self._begun = True
                        return plain
                    self._lines = enumerate(_lines_of(lines), number)
            if found:
                return Piece(found, counts=counts if any(counts) else None)

    def _record(self, line: str) -> str:
        """A line without blanks around it, or several where a quoted cell of a CSV holds a line feed. Nothing if it is blank, a
        remark, or not complete."""
        if not self._unfinished:
            text = line.strip()
            if not text or text.startswith("#"):
                return ""
            if "\t" in text:  # then a cell may be empty
                text = line.strip(" \r")
        else:
            text = f"{self._unfinished}\n{line}"
        self._unfinished = ""
        if self._table is not None and text.count('"') % 2:
            if len(text) > LONGEST_LINE:
                raise ValueError(f"a quoted cell has more than {LONGEST_LINE:,} characters.")
            self._unfinished = text
            return ""
        return text

    def _check_finished(self) -> None:
        """Reject a list that ends within a quoted cell."""
        if self._unfinished:
            begun, self._unfinished = self._unfinished, ""
            raise InvalidInputError(f"{self._name} ends within a quoted cell: {quoted(begun, 60)} has no closing quote.")

    def _parse(self, line: str) -> Tile | None:
        self._count = 0
        first, self._begun = not self._begun, True
        if self._table is not None and self._table.separator in line and line[0] not in "{[":
            item, self._count = self._table.read(line)
        elif match := _PATH.fullmatch(line.strip()):
            item = Tile(int(match[1]), int(match[2]), int(match[3]))
            self._count = int(match[4] or 0)
        elif line[0] in "{[" or _JSON_TEXT.fullmatch(line):
            item = json.loads(line)
            if isinstance(item, list) and self._order is None:
                raise ValueError(
                    "it does not say which number is the zoom. The command lines of mercantile, utiles and supermercado write "
                    "[x, y, z], others write [z, x, y]: pass order='xyz' or order='zxy'."
                )
        elif QUADKEY.fullmatch(bare := line.strip('"')):
            item = Tile(*from_quadkey(bare))
        elif first and bare.lower() in _NAMED:
            return None  # the header of a CSV with one column
        elif separator := next(filter(line.__contains__, ",;\t"), None):
            self._table = _Csv(separator, line)
            if self._table.has_header:
                return None
            item, self._count = self._table.read(line)
        else:
            raise ValueError("write z/x/y, z/x/y count, z,x,y, JSON ({'z': …, 'x': …, 'y': …}) or a quadkey, one per line.")
        return parse_tile(item, max_zoom=self._max_zoom, order=self._order or "zxy")


class _Csv:
    """The columns of a CSV list.

    Args:
        separator: what separates its cells.
        line: its first line, which is a header or a tile.
    """

    def __init__(self, separator: str, line: str) -> None:
        self.separator = separator
        self._problem = ""
        names = [cell.strip().lower() for cell in self._cells(line)]
        whole = next(filter(names.__contains__, _NAMED), None)
        self.has_header = True
        if {"z", "x", "y"} <= set(names):
            self._wanted = [names.index(axis) for axis in "zxy"]
        elif whole is not None:
            self._wanted = [names.index(whole)]
        elif all(map(_CSV_NUMBER.fullmatch, names)):
            self.has_header = False
            self._wanted = [0, 1, 2]
        else:
            self.has_header, self._wanted = False, [0]
            self._problem = f"the columns are {quoted(names)}. Name them z, x and y, or tile (z/x/y), or quadkey."
        if self.has_header and (repeated := [each for each in ("z", "x", "y", *_NAMED) if names.count(each) > 1]):
            self.has_header, self._problem = False, f"there is more than one column {repeated[0]}."
        self._whole = whole if len(self._wanted) == 1 else None
        self._counted = names.index("count") if "count" in names else None
        self._last = max(*self._wanted, self._counted or 0)

    def read(self, line: str) -> tuple[Any, int]:
        """A tile, to be validated, and how often it is requested.

        Raises:
            ValueError: the line has too few columns, or there is no tile in them.
        """
        if self._problem:
            raise ValueError(self._problem)
        cells = self._cells(line)
        if len(cells) <= self._last:
            raise ValueError(f"it has {len(cells)} columns.")
        count = 0 if self._counted is None else read_count(cells[self._counted])
        values = [cells[number].strip() for number in self._wanted]
        if self._whole == "quadkey":
            return Tile(*from_quadkey(values[0])), count
        if self._whole == "tile":
            return values[0], count
        numbers = [_csv_number(value) for value in values]
        return (Tile(*numbers) if self.has_header else tuple(numbers)), count

    def _cells(self, line: str) -> list[str]:
        if '"' not in line:
            return line.split(self.separator)
        try:
            return next(csv.reader([line], delimiter=self.separator, strict=True, skipinitialspace=True))
        except csv.Error as error:
            raise ValueError(f"it is not CSV: {error}.") from None


def _csv_number(cell: str) -> int:
    if cell.isdecimal() and cell.isascii():  # the common case
        return int(cell)
    match = _CSV_NUMBER.fullmatch(cell)
    if match is None:
        raise ValueError(f"{quoted(cell, 30)} is not a whole number.")
    return int(match[1])


class TileFile:
    """A list in a file that is opened once and can be read any number of times, each time from the start.

    Replacing the file in the meantime has no effect. Changing it in place is an error, and so is any part that differs from
    what was first read, so that exactly what was checked is sent.

    Args:
        file: open for reading. It is closed when this object is no longer referenced.
        name: how messages name the file.
        max_zoom: the highest zoom allowed.
        order: as for `TileList`.
    """

    def __init__(self, file: IO[bytes], name: str, max_zoom: int, order: str | None = None) -> None:
        self.name = name
        self._file = file
        self._max_zoom = max_zoom
        self._order = order
        self._lock = threading.Lock()
        self._state = _state(file)
        self._owner: TileFile | None = None
        self._digests: list[bytes] = []  # one for each chunk that has been read
        weakref.finalize(self, file.close)

    @classmethod
    def open(cls, path: str | os.PathLike[str], max_zoom: int, order: str | None = None) -> TileFile:
        """Open a list.

        Raises:
            InvalidInputError: the file cannot be opened.
        """
        name = os.fspath(path)
        try:
            return cls(Path(path).open("rb", buffering=0), name, max_zoom, order)
        except (OSError, ValueError) as error:
            raise unreadable(error, f"tiles_file = {quoted(name)} cannot be opened: {error}.") from None

    def read(self) -> TileList:
        """The file's tiles, from the start."""
        return TileList(_decompressed(_Chunks(self).read), self.name, max_zoom=self._max_zoom, order=self._order)

    def limited(self, max_zoom: int) -> TileFile:
        """The same file, with another highest zoom."""
        other = object.__new__(TileFile)
        vars(other).update(vars(self), _max_zoom=max_zoom)
        other._owner = self  # which closes the file
        return other

    def copied(self) -> TileFile:
        """A private copy, which no one else can change.

        Raises:
            InvalidInputError: the file was changed.
            OSError: there is no room for the copy.
        """
        own = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the object
        try:
            chunks = _Chunks(self)
            while piece := chunks.read(_CHUNK):
                own.write(piece)
            own.flush()
        except BaseException:
            own.close()
            raise
        return TileFile(own, self.name, self._max_zoom, self._order)

    def chunk(self, number: int) -> bytes:
        """One of the chunks in which the file is read.

        Raises:
            InvalidInputError: the file was changed.
        """
        with self._lock:
            content, start = b"", number * _CHUNK
            while more := _read_at(self._file, start + len(content), _CHUNK - len(content)):
                content += more
            digest = blake2b(content, digest_size=16).digest()
            if number < len(self._digests):
                same = self._digests[number] == digest
            else:
                same = True
                self._digests.append(digest)
            if not same or _state(self._file) != self._state:
                raise InvalidInputError(
                    f"{self.name} was changed while it was in use: write a list to a new file, or move it into place once it "
                    "is complete."
                )
        return content

    def __reduce__(self) -> tuple[object, ...]:
        return _reopened, (self.name, self._max_zoom, self._order, self._state, tuple(self._digests))


def _read_at(file: IO[bytes], position: int, size: int) -> bytes:
    """Some bytes of a file. Its own position is left alone where possible, because forked processes share it."""
    if hasattr(os, "pread"):
        return os.pread(file.fileno(), size, position)
    file.seek(position)  # Windows, which has no forks
    return file.read(size)


def filed(tiles: Iterator[Tile], watch: Callable[[], None]) -> IO[bytes]:
    """A temporary list of tiles that can be read only once. They are read to the end."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by whoever reads it
    try:
        file_tiles(tiles, file, watch)
    except BaseException:
        file.close()
        raise
    return file


def file_tiles(tiles: Iterator[Tile], file: IO[bytes], watch: Callable[[], None]) -> None:
    """Write tiles as a list, with how often each is requested. If reading them fails, those before are written."""
    stream = tiles if isinstance(tiles, PieceStream) else TilesInPieces(tiles)

    def write(piece: Piece) -> None:
        counts = piece.counts or itertools.repeat(0)
        file.write("".join(["%d/%d/%d %d\n" % (*tile, count) for tile, count in zip(piece, counts)]).encode())

    try:
        while piece := stream.take(_FILED_AT_ONCE):
            write(piece)
            watch()
    except BaseException:
        if isinstance(stream, TilesInPieces):
            write(stream.held())
        raise
    finally:
        file.flush()


def _reopened(name: str, max_zoom: int, order: str | None, state: tuple[int, int], digests: tuple[bytes, ...]) -> TileFile:
    file = TileFile.open(name, max_zoom, order)
    if file._state != state:
        raise InvalidInputError(f"{name} was changed since it was planned: plan again.")
    file._digests = list(digests)
    return file


class _Chunks:
    """One pass over a file, from the start."""

    def __init__(self, file: TileFile) -> None:
        self._file = file
        self._number = 0
        self._rest = b""

    def read(self, most: int) -> bytes:
        if not self._rest:
            self._rest = self._file.chunk(self._number)
            self._number += 1
        piece, self._rest = self._rest[:most], self._rest[most:]
        return piece


class _Pieces(Iterator[tuple[int, Any]]):
    """Whole lines, some at a time, and the number of the first one. Lines longer than `LONGEST_LINE` are not held in memory.

    After an error, there are no more, because it is unknown where the next line begins.
    """

    def __init__(self, read: Callable[[int], Any], name: str) -> None:
        self._read = read
        self._name = name
        self._number = 1
        self._rest: Any = None
        self._failure: Exception | None = None
        self._over = False

    def __next__(self) -> tuple[int, Any]:
        while not self._over:
            first, piece = self._number, self._next_piece()
            if piece:
                self._number += piece.count("\n" if isinstance(piece, str) else b"\n")
                self._check_rest()
                return first, piece
            self._check_rest()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        raise StopIteration

    def _next_piece(self) -> Any:
        """The whole lines of what is read next. At the end, the last line may lack its line feed."""
        try:
            piece = self._read(_CHUNK)
        except InvalidInputError:
            self._over = True
            raise
        except (ValueError, EOFError, OSError, zlib.error) as error:  # not UTF-8, not gzip, truncated, closed
            self._over = True
            raise unreadable(
                error, f"{self._name} cannot be read from line {self._number} on, as text or gzip: {error}."
            ) from None
        if not isinstance(piece, (str, bytes)):
            self._over = True
            raise InvalidInputError(f"{self._name} returns {type(piece).__name__}: open it as text or as bytes.")
        if self._rest is None:
            self._rest = piece[:0]
            mark = "\ufeff" if isinstance(piece, str) else b"\xef\xbb\xbf"
            piece = piece.removeprefix(mark)  # type: ignore[arg-type]
        self._over = not piece
        text = self._rest + piece
        end = len(text) if self._over else text.rfind("\n" if isinstance(text, str) else b"\n") + 1
        self._rest = text[end:]
        return text[:end]

    def _check_rest(self) -> None:
        """An endless line is an error, but first come the lines before it."""
        if len(self._rest) > LONGEST_LINE:
            self._over = True
            self._failure = InvalidInputError(
                f"{self._name}, line {self._number}: {quoted(self._rest[:60])} has more than {LONGEST_LINE:,} characters: is "
                "it a list with one tile per line?"
            )


def _lines_of(piece: Any) -> list[Any]:
    lines: list[Any] = piece.split("\n" if isinstance(piece, str) else b"\n")
    return lines if lines[-1] else lines[:-1]


def _plain_piece(lines: Any, max_zoom: int) -> Piece | None:
    """The tiles of lines ``z/x/y`` or ``z/x/y count``, if all lines are alike and all tiles are valid. Otherwise None.

    All of it runs in C: no Python code runs per line.
    """
    if isinstance(lines, str):
        if not lines.isascii():
            return None
        lines = lines.encode()
    text: bytes = lines if lines.endswith(b"\n") else lines + b"\n"
    shape = text.translate(None, b"0123456789")
    is_counted = shape[:3] == b"// "
    if shape != (b"// \n" if is_counted else b"//\n") * text.count(b"\n"):
        return None
    try:
        # JSON refuses nothing between two slashes, and leading zeros.
        read = json.loads(b"[%b]" % text.translate(_AS_JSON)[:-1])
        counts = array("Q", read[3::4]) if is_counted else None
        if is_counted:
            del read[3::4]
        numbers = array("I", read)
    except (ValueError, OverflowError):
        return None
    zooms = numbers[0::3]
    if max(zooms) > max_zoom:
        return None
    beyond = any(map(operator.rshift, numbers[1::3], zooms)) or any(map(operator.rshift, numbers[2::3], zooms))
    return None if beyond else Piece(numbers, b"" if is_counted else text, counts)


class _Unread(io.RawIOBase):
    """A stream that starts with what has already been read from it."""

    def __init__(self, begun: bytes, read: Callable[[int], bytes]) -> None:
        self._begun, self._read = begun, read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._begun[: len(buffer)] or self._read(len(buffer)) or b""
        self._begun = self._begun[len(piece) :] if self._begun else b""
        buffer[: len(piece)] = piece
        return len(piece)


def _decompressed(read: Callable[[int], Any]) -> Callable[[int], Any]:
    """``read`` itself, or if it returns gzip, a function that returns the decompressed content."""
    chosen: Callable[[int], Any] | None = None

    def read_on(most: int) -> Any:
        nonlocal chosen
        if chosen is None:
            first = read(most)
            if isinstance(first, bytes) and 0 < len(first) < len(_GZIP):
                first += read(most)
            if isinstance(first, bytes) and first[:2] == _GZIP:
                chosen = gzip.GzipFile(fileobj=io.BufferedReader(_Unread(first, read), _CHUNK)).read1
            else:
                chosen = read
                return first
        return chosen(most)

    return read_on


def list_source(
    source: TilesFile, max_zoom: int, order: str | None = None, watch: Callable[[], object] = bool
) -> TileFile | TileList:
    """A list from a file or a pipe, which can be read any number of times, or from a stream, which can be read only once.

    A pipe is read to the end at once, into a temporary file. ``watch`` is called meanwhile.

    Raises:
        InvalidInputError: ``source`` is neither a path nor an open file, or cannot be opened.
    """
    name = check_source(source)
    if is_repeatable(source):
        return TileFile.open(source, max_zoom, order)  # type: ignore[arg-type]
    if is_pipe(source):
        return TileFile(_spooled(source, watch), name, max_zoom, order)  # type: ignore[arg-type]
    stream: Any = getattr(sys.stdin, "buffer", sys.stdin) if source == "-" else source
    read = getattr(stream, "read1", stream.read)  # what a slow pipe has, without waiting for more
    return TileList(_decompressed(read), name, max_zoom=max_zoom, order=order)


_USED_UP: set[tuple[int, int]] = set()
"""The pipes that this process has read to the end."""


def _spooled(path: str | os.PathLike[str], watch: Callable[[], object]) -> IO[bytes]:
    """The content of a pipe as a temporary file, because a pipe can be read only once, and a list is read as often as needed.

    Raises:
        InvalidInputError: it cannot be read, or this process has read it before.
    """
    shown = f"tiles_file = {quoted(os.fspath(path), 300)}"
    file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by its list
    try:
        with Path(path).open("rb", buffering=0) as pipe:
            found = os.fstat(pipe.fileno())
            while piece := pipe.read(_CHUNK):
                file.write(piece)
                watch()
        file.flush()
        identity = (found.st_dev, found.st_ino)
        if file.tell():
            _USED_UP.add(identity)
        elif identity in _USED_UP:
            raise InvalidInputError(
                f"{shown} is a pipe that was read before, and has nothing left: save the list as a file to read it again."
            )
    except BaseException as error:
        file.close()
        if isinstance(error, (OSError, ValueError)):
            raise unreadable(error, f"{shown} cannot be read: {error}.") from None
        raise
    return file


def write_tile_list(tiles: Iterable[Tile], path: str | os.PathLike[str]) -> int:
    """Write tiles as a list, one ``z/x/y`` per line, gzipped if the name ends in ``.gz``. Returns the number of tiles.

    The file appears once it is complete, and replaces an existing one.
    """
    target = Path(os.path.realpath(path))
    special = target.exists() and not target.is_file()  # a terminal or a pipe, which cannot be replaced
    draft = target if special else target.with_name(f".{target.name}.{os.getpid()}.draft")
    count = 0
    try:
        with gzip.open(draft, "wt") if target.name.endswith(".gz") else draft.open("w", encoding="ascii") as file:
            for count, tile in enumerate(tiles, 1):  # noqa: B007
                file.write("%d/%d/%d\n" % tile)
        if not special:
            draft.replace(target)
    except BaseException:
        if not special:
            draft.unlink(missing_ok=True)
        raise
    return count


def check_source(source: TilesFile) -> str:
    """Check the source of a list, and return its name for messages.

    Raises:
        InvalidInputError: ``source`` is neither a path nor an open file, or the file does not exist.
    """
    if isinstance(source, os.PathLike):
        source = os.fspath(source)
    if isinstance(source, str):
        if rendered_to_nothing(source):
            raise InvalidInputError(f"tiles_file is {source!r}, which looks like a template that rendered to nothing.")
        if source == "-":
            return "standard input"
        if "\0" in source or Path(source).is_dir():
            raise InvalidInputError(f"tiles_file = {quoted(source, 300)} is not a file.")
        if not Path(source).is_file() and not is_pipe(source):
            raise unreadable(FileNotFoundError(), f"tiles_file = {quoted(source, 300)}: no such file.")
        return source
    if not hasattr(source, "read"):
        raise InvalidInputError(f"tiles_file is of type {type(source).__name__}: pass a path, '-' or an open file.")
    return str(getattr(source, "name", "tiles_file"))


def is_repeatable(source: TilesFile) -> bool:
    """Whether a list can be read more than once. The path of a file can; standard input, a pipe and an open file cannot."""
    return isinstance(source, (str, os.PathLike)) and source != "-" and not is_pipe(source)


def is_pipe(source: Any) -> bool:
    """Whether a source is the path of a pipe."""
    return isinstance(source, (str, os.PathLike)) and path_is_pipe(os.fspath(source))


def _state(file: IO[bytes]) -> tuple[int, int]:
    """What usually changes when a file's content changes."""
    found = os.fstat(file.fileno())
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else (0, 0)
