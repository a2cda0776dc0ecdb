"""H3 tables, which are read by their index, and the runs that index them, with their endpoints."""

import threading
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException
from pydantic import BaseModel

from fused_cache_ops.emulator.store import Caller


class H3Table:
    """A table of which `query` returns what was in it when its last run of the index began.

    Args:
        path: its path, as UDFs name it.
        rows: what is in it. It is indexed.

    Attributes:
        run_seconds: how long a run of its index takes. None: until `finish`.
        run_fails: the error with which runs end. None: they succeed.
        runs: the records of all runs so far, in order.
    """

    def __init__(self, path: str, rows: Any = None) -> None:
        self.path = path
        self.run_seconds: float | None = 0.0
        self.run_fails: str | None = None
        self.runs: list[dict[str, Any]] = []
        self._lock = threading.RLock()
        self._rows = self._indexed = rows
        self._as_of: float | None = time.time()
        self._begun: tuple[float, Any] | None = None

    def write(self, rows: Any) -> None:
        """Replace what is in it. Its index does not know."""
        with self._lock:
            self._rows = rows

    def query(self) -> Any:
        """What `fused.h3.query` returns."""
        with self._lock:
            self._look()
            return self._indexed

    def set_indexed(self, moment: float | None) -> None:
        """Set the time of its index, in seconds since the epoch. None: it was never indexed."""
        with self._lock:
            self._as_of, self._indexed = moment, None if moment is None else self._rows

    def start(self, prefix: Any = None) -> dict[str, Any] | None:
        """Start a run of its index. None: one is going already."""
        with self._lock:
            self._look()
            if self._begun is not None:
                return None
            self._begun = (time.time(), self._rows)
            task_id = str(uuid.uuid4())
            run = {"id": task_id, "task": "h3.index", "engine": "realtime", "status": "running", "error": None}
            self.runs.append({**run, "prefix": prefix})
            return self.record(task_id)

    def finish(self) -> None:
        """End the run that is going."""
        with self._lock:
            if self._begun is not None:
                (began, rows), self._begun = self._begun, None
                if self.run_fails is None:
                    self._as_of, self._indexed = began, rows
                status = "succeeded" if self.run_fails is None else "failed"
                self.runs[-1] |= {"status": status, "error": self.run_fails}

    def record(self, task_id: str) -> dict[str, Any] | None:
        """A run as the service describes it."""
        with self._lock:
            self._look()
            found = next((run for run in self.runs if run["id"] == task_id), None)
            return None if found is None else {name: value for name, value in found.items() if name != "prefix"}

    def status(self) -> dict[str, Any] | None:
        """The index as the service describes it. None: there is neither an index nor a run."""
        with self._lock:
            self._look()
            if self._as_of is None and not self.runs:
                return None
            last = self.runs[-1] if self.runs else {"status": "succeeded", "id": None}
            state = "ready" if self._as_of is not None else "indexing" if self._begun else "failed"
            return {
                "path": self.path,
                "status": state,
                "indexing": self._begun is not None,
                "job_id": last["id"] if self._begun is not None else None,
                "indexed_as_of": None if self._as_of is None else _iso(self._as_of),
                "last_run_mode": "incremental",
                "failures": [{"path": self.path, "error": last["error"]}] if last["status"] == "failed" else [],
            }

    def _look(self) -> None:
        if self._begun is not None and self.run_seconds is not None and time.time() - self._begun[0] >= self.run_seconds:
            self.finish()


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).isoformat()


class _TaskBody(BaseModel):
    task: str
    args: dict[str, Any]
    engine: str | None = None


def h3_indexes(tables: dict[str, H3Table], caller: Callable[..., Any]) -> APIRouter:
    """The state of indexes, and the tasks that make them."""
    Known = Annotated[Caller, Depends(caller)]  # noqa: N806
    router = APIRouter()

    @router.get("/h3/index")
    async def index_status(path: str, who: Known) -> dict[str, Any]:
        table = tables.get(path.rstrip("/"))
        found = None if table is None else table.status()
        if found is None:
            raise HTTPException(404, f"{path} is not indexed")
        return found

    @router.post("/tasks/run")
    async def run(body: _TaskBody, who: Known) -> dict[str, Any]:
        path = body.args.get("path")
        if body.task != "h3.index" or not isinstance(path, str):
            raise HTTPException(422, f"There is no task {body.task!r}, or it has no path")
        if not who.may_write:
            raise HTTPException(403, "Write access is required")
        table = tables.get(path.rstrip("/"))
        if table is None:
            raise HTTPException(404, f"There are no files under {path}")
        started = table.start(body.args.get("prefix"))
        if started is None:
            raise HTTPException(409, f"{path} is being indexed by {table.runs[-1]['id']}")
        return started

    @router.get("/tasks/{task_id}")
    async def task(task_id: str, who: Known) -> dict[str, Any]:
        found = next(filter(None, (table.record(task_id) for table in list(tables.values()))), None)
        if found is None:
            raise HTTPException(404, "Task not found")
        return found

    return router
