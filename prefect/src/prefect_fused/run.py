"""The run that an invalidation is part of."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext, TaskRunContext


@dataclass(frozen=True)
class Run:
    """The run that an invalidation is part of. Without any id, there is no run.

    Attributes:
        flow_run_id: The id of the flow run.
        task_run_id: The id of the task run.
        is_over: Whether the flow has completed, so that it can no longer be cancelled.
        attempt: How often the flow run has been started.
    """

    flow_run_id: UUID | None = None
    task_run_id: UUID | None = None
    is_over: bool = False
    attempt: int = 0

    @classmethod
    def current(cls) -> Run:
        """The run that the calling code is part of."""
        flow, task = FlowRunContext.get(), TaskRunContext.get()
        task_run = task.task_run if task else None
        flow_run = flow.flow_run if flow else None
        flow_run_id = flow_run.id if flow_run else task_run.flow_run_id if task_run else None
        return cls(flow_run_id, task_run.id if task_run else None, attempt=flow_run.run_count if flow_run else 0)

    @property
    def step(self) -> str:
        """What identifies the run for a record. It is the same for a retry of a task, and different for whatever may follow
        another load."""
        if self.task_run_id is not None:
            return f"prefect task run {self.task_run_id}"
        return f"prefect flow run {self.flow_run_id}, attempt {self.attempt}"

    @property
    def exists(self) -> bool:
        return self.flow_run_id is not None or self.task_run_id is not None

    def is_cancelled(self) -> bool:
        """Whether the flow run is cancelled or being cancelled."""
        if self.flow_run_id is None:
            return False
        with get_client(sync_client=True) as api:
            state = api.read_flow_run(self.flow_run_id).state
        return state is not None and (state.is_cancelling() or state.is_cancelled())

    def related(self) -> list[dict[str, str]]:
        """The runs as an event's related resources."""
        found = {"flow-run": self.flow_run_id, "task-run": self.task_run_id}
        return [
            {"prefect.resource.id": f"prefect.{role}.{run_id}", "prefect.resource.role": role}
            for role, run_id in found.items()
            if run_id is not None
        ]


def flow_file() -> str | None:
    """The file of the flow that the calling code is part of, if it has one here."""
    context = FlowRunContext.get()
    try:
        return None if context is None or context.flow is None else inspect.getsourcefile(inspect.unwrap(context.flow.fn))
    except TypeError:  # not a function of a file
        return None
