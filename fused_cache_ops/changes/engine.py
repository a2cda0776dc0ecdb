"""DuckDB as the engine of a comparison: a connection of our own, its memory, its temporary files, and what its errors mean.

It loads no extension and uses no network. What does not fit into memory goes to a folder that is removed afterwards.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fused_cache_ops.errors import ConfigurationError, FusedCacheError, InvalidInputError
from fused_cache_ops.progress import CALLBACK_INTERVAL, LOG_INTERVAL
from fused_cache_ops.selection.shapes import import_geo
from fused_cache_ops.wording import quoted, rendered_to_nothing

logger = logging.getLogger(__name__)

OnFraction = Callable[[float], object]
"""``on_progress(fraction)``: how much of the comparison is done, from 0 to 1."""

_SETTINGS = (
    "enable_geoparquet_conversion = false",  # WKB stays as it is
    "enable_progress_bar = true",  # it is asked for, not drawn
    "enable_progress_bar_print = false",
)
_SIZES = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SHARE = 0.5  # of the memory that there is
_LEAST = 10**8
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_DISK_IS_FULL = ("no space left", "max_temp_directory_size", "disk quota", "errno 28")


class Engine:
    """A connection to DuckDB.

    Args:
        memory_limit: how much memory to use, as text such as ``"2GB"`` or as a number of bytes. None: half of what the machine,
            or the process's control group, has.
        temporary_directory: where to make the folder for what does not fit. None: where the system keeps temporary files.
        on_progress: called in the caller's thread now and then.

    Raises:
        ConfigurationError: DuckDB is not installed, or one of these is not usable.
    """

    def __init__(self, memory_limit: str | int | None, temporary_directory: Any, on_progress: OnFraction | None) -> None:
        self._duckdb = import_geo("duckdb", extra="changes")
        self._limit = _checked_limit(memory_limit)
        self._on_progress = on_progress
        self._started = self._told = self._logged = time.monotonic()
        self._folder = _folder(temporary_directory)
        settings = {
            "memory_limit": self._limit,
            "threads": str(_processors()),
            "temp_directory": self._folder.name,
            "preserve_insertion_order": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "arrow_large_buffer_size": "true",
            "default_collation": "",
        }
        try:
            self._connection = self._duckdb.connect(config=settings)
            for setting in _SETTINGS:
                self._connection.execute(f"SET {setting}")
        except self._duckdb.Error as error:
            self._folder.cleanup()
            raise ConfigurationError(
                f"memory_limit = {quoted(memory_limit)} is not an amount of memory: pass text such as '2GB', or a number of "
                f"bytes. {_first_line(error)}"
            ) from None

    def close(self) -> None:
        """End the connection and remove its temporary files."""
        self._connection.close()
        self._folder.cleanup()

    def register(self, name: str, table: Any) -> None:
        """Make an Arrow table available to SQL."""
        self._connection.register(name, table)

    def load(self, name: str, batches: Iterator[Any]) -> None:
        """Store batches of one schema, of which there is at least one, in a temporary table.

        Raises:
            FusedCacheError: see `named`.
        """
        for number, batch in enumerate(batches):
            self._connection.register("batch", batch)
            self.run(f"{'INSERT INTO' if number else 'CREATE TEMP TABLE'} {name} {'' if number else 'AS'} FROM batch")
            self._connection.unregister("batch")

    def run(self, sql: str, what: str = "") -> None:
        """Run a statement, and report its progress.

        Args:
            sql: the statement.
            what: what it reads, for messages. If it is given, and memory was short, the statement is run again by one thread,
                which needs less.

        Raises:
            FusedCacheError: see `named`.
        """
        try:
            self._run(sql)
        except self._duckdb.OutOfMemoryException as error:
            if not what or _is_about_disk(error):
                raise self.named(error, what) from None
            logger.info("Fused cache: memory_limit = %s is short, comparing with one thread.", self._limit)
            try:
                self._run("SET threads = 1")
                self._run(sql)
            except self._duckdb.Error as again:
                raise self.named(again, what) from None
        except self._duckdb.Error as error:
            raise self.named(error, what) from None

    def rows(self, sql: str, what: str) -> Any:
        """The rows that a query returns."""
        self.run(sql, what)
        return self._connection.fetchall()

    def has_room(self, size: int) -> bool:
        """Whether so many bytes are less than half of the memory that may be used."""
        ((limit,),) = self._connection.execute("SELECT current_setting('memory_limit')").fetchall()
        number, unit = limit.split()
        return 2 * size < float(number) * _SIZES[unit]

    def numbers(self, sql: str) -> Any:
        """The whole numbers in the only column of a query, none of them null, as an array of numpy."""
        try:
            ((_, values),) = self._connection.execute(sql).fetchnumpy().items()
        except self._duckdb.Error as error:
            raise self.named(error, "") from None
        return values

    def stream(self, sql: str, rows: int) -> Iterator[Any]:
        """The rows of a query on temporary tables, as batches of Arrow."""
        relation = self._connection.sql(sql)
        read = getattr(relation, "to_arrow_reader", None) or relation.fetch_arrow_reader  # until DuckDB 1.5
        try:
            yield from read(rows)
        except (self._duckdb.Error, OSError) as error:  # the latter is what DuckDB's stream raises
            raise self.named(error, "") from None

    def named(self, error: Exception, what: str) -> FusedCacheError:
        """What an error of DuckDB means for the caller.

        A full disk may have room later, so that error is retryable. The others are not.
        """
        reason = _first_line(error)
        if _is_about_disk(error):
            full = ConfigurationError(
                f"There is no room for temporary files in {quoted(self._folder.name, 300)}: free some, name another folder by "
                f"temporary_directory=, or raise memory_limit=. {reason}"
            )
            full.retryable = True
            return full
        if isinstance(error, self._duckdb.OutOfMemoryException) or "Out of Memory" in reason:
            return ConfigurationError(
                f"The comparison does not fit into memory_limit = {self._limit!r}, even with one thread: raise it. {what} "
                f"{reason}"
            )
        if isinstance(error, self._duckdb.Error):
            return InvalidInputError(f"before and after cannot be compared: {reason}")
        return ConfigurationError(f"The temporary files of the comparison cannot be read: {reason}")

    def _run(self, sql: str) -> None:
        """Run a statement in another thread, so that this one can report, and end it when it is interrupted."""
        failed: list[BaseException] = []
        done = threading.Event()

        def work() -> None:
            try:
                self._connection.execute(sql)
            except BaseException as error:
                failed.append(error)
            finally:
                done.set()

        thread = threading.Thread(target=work, name="fused-cache-difference", daemon=True)
        thread.start()
        try:
            while not done.wait(CALLBACK_INTERVAL):
                self._tell()
        except BaseException:
            self._connection.interrupt()
            raise
        finally:
            thread.join()
        if failed:
            raise failed[0]

    def _tell(self) -> None:
        fraction = min(max(self._connection.query_progress(), 0.0), 100.0) / 100
        now = time.monotonic()
        if self._on_progress is not None:
            self._on_progress(fraction)
        if now - self._logged >= LOG_INTERVAL:
            self._logged = now
            logger.info(
                "Fused cache: comparing both states, %.0f%% of a step after %.0f s.", fraction * 100, now - self._started
            )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _is_about_disk(error: Exception) -> bool:
    return any(sign in str(error).lower() for sign in _DISK_IS_FULL)


def _checked_limit(given: Any) -> str:
    if given is None:
        return f"{max(int(_memory() * _SHARE), _LEAST)}B"
    if isinstance(given, bool) or not isinstance(given, (str, int)) or (isinstance(given, int) and given < 1):
        raise ConfigurationError(
            f"memory_limit = {quoted(given)} is not an amount of memory: pass text such as '2GB', or a number of bytes."
        )
    return f"{given}B" if isinstance(given, int) else given


def _memory() -> int:
    """How many bytes of memory the machine has, or the control group of this process."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else []
    for path in _LIMITS:
        try:
            found.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # there is no such group, or it is unlimited ("max")
            pass
    return min(found, default=4 * 10**9)


def _processors() -> int:
    """How many processors this process may use. DuckDB itself ignores its affinity."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _folder(parent: Any) -> tempfile.TemporaryDirectory[str]:
    if parent is not None and (not isinstance(parent, (str, os.PathLike)) or rendered_to_nothing(os.fspath(parent))):
        raise ConfigurationError(f"temporary_directory = {quoted(parent)} is not a path. To use the system's, omit it.")
    try:
        if parent is not None:
            Path(parent).mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix="fused-cache-", dir=parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise ConfigurationError(f"temporary_directory = {quoted(parent, 300)} cannot be used: {error}.") from None
