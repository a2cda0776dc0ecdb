"""What goes where: results to standard output, words and progress to standard error."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from fused_cache_ops.errors import UnavailableError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from fused_cache_ops.progress import OnProgress


class Output:
    """How the command that is running prints.

    Attributes:
        as_json: whether standard output is one JSON document, also if the command fails.
        quiet: whether standard error has errors only.
        verbose: whether it has the log, and progress without a terminal too.
        is_done: whether what the command is for is done, so that it does not fail if that cannot be printed.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self, *, as_json: bool = False) -> None:
        """Start anew, for the next command of this process."""
        self.as_json = as_json
        self.quiet = self.verbose = self.is_done = False

    def show(self, document: Any, draw: Callable[[], Iterable[RenderableType]]) -> None:
        """Print a result: the document with ``--json``, otherwise what is drawn."""
        if self.as_json:
            self.write([json.dumps(document), "\n"])
        else:
            self.draw(*draw())

    def draw(self, *drawn: RenderableType) -> None:
        """Print what Rich draws, in colors only in a terminal."""
        from rich.console import Console

        shown = Console()
        # Not its capture, which flushes standard output, and may fail there.
        captured = io.StringIO()
        colors: Any = shown.color_system if shown.is_terminal else None
        console = Console(file=captured, width=shown.width, force_terminal=shown.is_terminal, color_system=colors)
        for each in drawn:
            console.print(each)
        self.write([captured.getvalue()])

    def write(self, texts: Iterable[str]) -> None:
        """Print texts as they are. If nobody reads any more, the rest is dropped: that does not fail the command.

        Raises:
            UnavailableError: standard output cannot be written, and printing is what the command is for.
        """
        stream: Any = sys.stdout
        if stream is None:  # it was closed
            if any(texts):
                self._lose("it is closed")
            return
        try:
            for text in texts:
                stream.write(text)
            stream.flush()
        except BrokenPipeError:
            _write_nowhere(stream)
        except (OSError, ValueError) as error:  # a full disk, a closed stream
            _write_nowhere(stream)
            self._lose(str(getattr(error, "strerror", None) or error))

    def _lose(self, reason: str) -> None:
        """Standard output cannot be written."""
        said = f"Standard output cannot be written: {reason}."
        if not self.is_done:
            self.is_done = True  # so that its failure is reported once
            raise UnavailableError(said)
        self.complain(f"{said} The exit code says what was done.")

    def complain(self, text: str) -> None:
        """Say on standard error what went wrong. Never in color if NO_COLOR is set."""
        from rich.text import Text

        with contextlib.suppress(OSError, ValueError, AttributeError):  # standard error may be closed
            _terminal().print(Text(text, style="red"), soft_wrap=True)

    def say(self, text: str) -> None:
        """Say something on standard error, unless it is to be quiet."""
        if not self.quiet:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                _terminal().print(text, markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def progress(self) -> Iterator[OnProgress]:
        """Log to standard error and draw a progress bar, as far as wanted. SIGTERM ends the call as Ctrl-C does."""
        from rich.logging import RichHandler
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        from fused_cache_ops.wording import counted

        terminal = _terminal()
        level = logging.INFO if self.verbose else logging.ERROR if self.quiet else logging.WARNING
        handler = RichHandler(console=terminal, show_path=False, show_time=False, show_level=False)
        logger = logging.getLogger("fused_cache_ops")
        logger.addHandler(handler)
        logger.setLevel(level)
        columns = (
            TextColumn("tiles"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[retried]}"),
        )
        is_shown = terminal.is_terminal and not self.quiet
        try:
            with _interrupted_by_sigterm(), Progress(*columns, console=terminal, transient=True, disable=not is_shown) as bars:
                bar = bars.add_task("", total=None, retried="")

                def show(done: int, total: int | None, retries: int) -> None:
                    bars.update(bar, completed=done, total=total, retried=counted(retries, "retry") if retries else "")

                yield show
        finally:
            logger.removeHandler(handler)


output = Output()
"""That of the command that is running."""


def _write_nowhere(stream: Any) -> None:
    """Keep Python from failing as it flushes once more at its exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _terminal() -> Console:
    from rich.console import Console

    return Console(stderr=True)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, as sent by a scheduler to end the process. Tiles not yet confirmed are handed back, as after Ctrl-C."""

    signal = signal.SIGTERM


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    def interrupt(*_: object) -> NoReturn:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
