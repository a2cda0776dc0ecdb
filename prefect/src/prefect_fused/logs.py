"""The core's log lines, in the log of the run that they are about."""

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
    """Sends log lines to the run that they are about; Prefect's own handlers see to the console."""

    def emit(self, record: logging.LogRecord) -> None:
        run = _run.get()
        # PREFECT_LOGGING_EXTRA_LOGGERS may have put a handler of Prefect's there already.
        handlers = logging.getLogger(record.name.partition(".")[0]).handlers
        if run is None or any(isinstance(other, APILogHandler) and other is not self for other in handlers):
            return
        record = copy.copy(record)
        record.flow_run_id, record.task_run_id = run.flow_run_id, run.task_run_id
        super().emit(record)


_handler = _RunLogHandler()


@contextlib.contextmanager
def logs_of(run: Run) -> Iterator[None]:
    """Send the core's log lines, and ours, to the run: from this thread and from those that the core starts."""
    if not run.exists:
        yield
        return
    for each in _loggers:
        if each.level == logging.NOTSET:  # else Python's default drops everything below a warning
            each.setLevel(logging.INFO)
        each.addHandler(_handler)
    token = _run.set(run)
    try:
        yield
    finally:
        _run.reset(token)
