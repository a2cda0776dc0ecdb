"""The command line. Needs the extra ``cli``, and the extra ``emulator`` for the emulator and the demonstration."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """The program ``fused-cache-ops``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # in a locale without UTF-8, escapes are better than a traceback
            stream.reconfigure(errors="backslashreplace")
    try:
        from fused_cache_ops.cli.commands import program
        from fused_cache_ops.cli.output import output
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich", "click"):
            raise
        from fused_cache_ops.wording import extra_needed

        sys.exit(extra_needed(str(error.name), "cli"))
    try:
        program()
    finally:
        output.write([])  # what is still buffered, such as a help that nobody reads to its end
