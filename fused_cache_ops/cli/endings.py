"""How a command ends: exit codes, and what it says of a failure."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from typing import Any

from fused_cache_ops.cli.output import output
from fused_cache_ops.cli.spelling import as_options
from fused_cache_ops.errors import FusedCacheError, Remaining
from fused_cache_ops.outcome.announcement import AnnouncementError
from fused_cache_ops.outcome.dataset import DatasetInvalidationError, DatasetResult
from fused_cache_ops.outcome.dbt import DbtNodesFailedError
from fused_cache_ops.outcome.invalidation import PartialInvalidationError, RefreshError, VerificationError

EXIT_CODES: Mapping[int, str] = {
    0: "Everything is done, or there was nothing to do.",
    1: "Permanent failure. Nothing was invalidated.",
    2: "The command line is wrong.",
    3: "Permanent failure after a part was invalidated.",
    4: "Everything is invalidated, but a tile that was verified still came from the cache. Running it again may help.",
    5: "Everything is invalidated, but not everything could be refreshed, and trying again would not help.",
    75: "Temporary failure, also after a part was invalidated. Run it again.",
    130: "Interrupted by Ctrl-C. A checkpoint is kept. SIGTERM: 143.",
}


class CommandFailed(Exception):
    """The end of a command that failed, with what it knows beyond the error.

    Args:
        error: the error, or the interruption.
        result: what was done or found out, as JSON types. Default: that of the error.
        saved_to: the file that has the remaining tiles, for a dataset the file of each UDF.
        prints_remaining: whether to print them, unless they are part of the JSON document.
        hint: what to do, if it was interrupted.
    """

    def __init__(
        self,
        error: FusedCacheError | KeyboardInterrupt,
        *,
        result: Mapping[str, Any] | None = None,
        saved_to: str | Mapping[str, str] | None = None,
        prints_remaining: bool = False,
        hint: str = "",
    ) -> None:
        super().__init__(str(error))
        found = getattr(error, "result", None)
        self.error, self.saved_to, self.prints_remaining, self.hint = error, saved_to, prints_remaining, hint
        self.result = result if result is not None or found is None else found.to_dict()
        self.remaining: Remaining | Mapping[str, Remaining | None] | None = getattr(error, "remaining", None)
        if isinstance(found, DatasetResult):
            self.remaining = {udf: failure.remaining for udf, failure in found.failed.items()}


def exit_code(error: BaseException) -> int:
    """The exit code of a failure."""
    if isinstance(error, KeyboardInterrupt):
        return int(128 + getattr(error, "signal", signal.SIGINT))
    failures = list(error.result.failed.values()) if isinstance(error, DatasetInvalidationError) else [error]
    if all(isinstance(each, VerificationError) for each in failures):
        return 4
    if getattr(error, "retryable", False):
        return 75  # sysexits' EX_TEMPFAIL
    if all(isinstance(each, RefreshError) for each in failures):
        return 5
    if all(isinstance(each, AnnouncementError) for each in failures):
        return 6
    if isinstance(error, (DatasetInvalidationError, DbtNodesFailedError)):
        return 3 if any(result.client_ids for result in error.result.results.values()) else 1
    return 3 if isinstance(error, PartialInvalidationError) else 1


def report(failed: CommandFailed) -> int:
    """Say how a command failed, and return its exit code."""
    error = failed.error
    output.is_done = True  # its exit code is known
    message = (
        as_options(error.message)
        if isinstance(error, FusedCacheError)
        else " ".join(filter(None, ("Interrupted.", failed.hint)))
    )
    if isinstance(error, FusedCacheError) and isinstance(error, (PartialInvalidationError, DatasetInvalidationError)):
        message = " ".join(filter(None, (message, _where_the_rest_is(failed))))
    code = exit_code(error)
    if output.as_json:
        kind = type(error).__name__ if isinstance(error, FusedCacheError) else "Interrupted"
        output.write(_document(failed, kind, message, code))
    output.complain(message)
    if failed.prints_remaining and not output.as_json and failed.remaining is not None:
        output.write(f"{text}\n" for text in _tiles(failed.remaining))
    for each in failed.remaining.values() if isinstance(failed.remaining, Mapping) else (failed.remaining,):
        for reason in each.unreadable if each is not None else ():
            output.complain(f"Missing from the remaining tiles: {reason}")
    return code


def _where_the_rest_is(failed: CommandFailed) -> str:
    """Where a command puts the tiles not yet confirmed."""
    parts = failed.remaining.values() if isinstance(failed.remaining, Mapping) else (failed.remaining,)
    if all(each is None for each in parts):
        return ""
    if failed.saved_to is not None:
        files = [failed.saved_to] if isinstance(failed.saved_to, str) else failed.saved_to.values()
        return f"The tiles not yet confirmed are in {', '.join(files)}: pass it to the next call by --tiles-file."
    if output.as_json:
        return "The tiles not yet confirmed are in the key remaining."
    if failed.prints_remaining:
        return "The tiles not yet confirmed are printed: keep them for --tiles-file of the next call."
    return "To keep the tiles not yet confirmed, use --remaining."


def report_usage(message: str) -> int:
    """Say as JSON what is wrong with the command line, and return the exit code."""
    said = {"kind": "UsageError", "message": message, "retryable": False, "status": None, "exit_code": 2}
    output.write([json.dumps({"error": said, "result": None, "remaining": None, "unfinished": []}), "\n"])
    output.complain(message)
    return 2


def _document(failed: CommandFailed, kind: str, message: str, code: int) -> Iterator[str]:
    """One JSON document, in pieces: what remains may be millions of tiles."""
    error = failed.error
    head: dict[str, Any] = {
        "error": {
            "kind": kind,
            "message": message,
            "retryable": getattr(error, "retryable", False) or isinstance(error, KeyboardInterrupt),
            "status": getattr(error, "status", None),
            "exit_code": code,
        },
        "result": failed.result,
        "unfinished": [
            {"udf_id": each.udf_id, "client_id": each.client_id, "whole_udf": each.remaining is None}
            for each in getattr(error, "unfinished", ())
        ],
    }
    if failed.saved_to is not None:
        yield json.dumps(head | {"remaining": None, "remaining_file": failed.saved_to}) + "\n"
        return
    yield json.dumps(head)[:-1] + ', "remaining": '
    yield from _remaining(failed.remaining)
    yield "}\n"


def _remaining(remaining: Remaining | Mapping[str, Remaining | None] | None) -> Iterator[str]:
    if remaining is None:
        yield "null"
        return
    if isinstance(remaining, Mapping):
        separator = "{"
        for udf, each in remaining.items():
            yield f"{separator}{json.dumps(udf)}: "
            yield from _remaining(each)
            separator = ", "
        yield "{}" if separator == "{" else "}"
        return
    separator = "["
    for text in _tiles(remaining):
        yield f'{separator}"{text}"'
        separator = ", "
    yield "[]" if separator == "[" else "]"


def _tiles(remaining: Remaining | Mapping[str, Remaining | None]) -> Iterator[str]:
    parts = remaining.values() if isinstance(remaining, Mapping) else (remaining,)
    return ("%d/%d/%d" % tile for part in parts if part is not None for tile in part)
