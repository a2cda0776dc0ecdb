"""The core's log lines in the log of the run that they belong to."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterator
from contextvars import ContextVar

from prefect.logging.handlers import APILogHandler

from prefect_fused.run import Run

_run: ContextVar[Run | None] = ContextVar("prefect_fused_run", default=None)
_loggers = [logging.getLogger("fused_cache_ops"), logging.getLogger("prefect_fused")]


class _RunLogHandler(APILogHandler):
    """Sends log lines to the run that they belong to. Prefect's own handlers take care of the console."""

    def emit(self, record: logging.LogRecord) -> None:
        run = _run.get()
        # PREFECT_LOGGING_EXTRA_LOGGERS may already have added a handler of Prefect's.
        handlers = logging.getLogger(record.name.partition(".")[0]).handlers
        if run is None or any(isinstance(other, APILogHandler) and other is not self for other in handlers):
            return
        record = copy.copy(record)
        record.flow_run_id, record.task_run_id = run.flow_run_id, run.task_run_id
        super().emit(record)


_handler = _RunLogHandler()


@contextlib.contextmanager
def logs_of(run: Run) -> Iterator[None]:
    """Send the log lines of the core and of this package to the run, from this thread and those that the core starts."""
    if not run.exists:
        yield
        return
    for each in _loggers:
        if each.level == logging.NOTSET:  # otherwise Python's default drops everything below a warning
            each.setLevel(logging.INFO)
        each.addHandler(_handler)
    token = _run.set(run)
    try:
        yield
    finally:
        _run.reset(token)
