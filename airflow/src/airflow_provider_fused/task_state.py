"""Records of what is done in Airflow's task state store, which came with 3.3, for workers that share no folder."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from typing import Any

logger = logging.getLogger(__name__)

TASK_STATE = "airflow://task-state"
"""The value of ``checkpoint`` that stands for the store."""

_RETENTION = timedelta(hours=12)
"""The core ignores an older record. The store would keep one that was left behind for 30 days."""

_INTERVAL = 5.0
"""Seconds between two writes, each of which is a request to Airflow's API."""


class TaskStateStore:
    """The state store of one task instance. It survives a retry, and a clear too, so a record's name has to tell which load it
    belongs to.

    :param accessor: the context's ``task_state_store``
    """

    def __init__(self, accessor: Any) -> None:
        self._accessor = accessor

    def __repr__(self) -> str:
        return repr(TASK_STATE)

    def record(self, name: str) -> _TaskStateRecord:
        """The record of that name."""
        return _TaskStateRecord(self._accessor, f"fused checkpoint {name.removesuffix('.json')}")


class _TaskStateRecord:
    """A record under a key of its own. Its size is limited, as that of every value in the store."""

    interval = _INTERVAL

    def __init__(self, accessor: Any, key: str) -> None:
        self.name = f"{TASK_STATE} ({key})"
        self._accessor = accessor
        self._key = key

    def read(self) -> bytes | None:
        found = _try(lambda: self._accessor.get(self._key))
        return None if found is None else json.dumps(found).encode()

    def write(self, content: bytes) -> None:
        value = json.loads(content)
        size, limit = len(json.dumps(value)), _largest()
        if limit and size > limit:
            # The last record that was written stays, so a retry sends more than it has to, and never less.
            raise OSError(
                f"it has {size:,} bytes, over {limit:,} ([state_store] max_value_storage_bytes), so a retry sends again what "
                "is done from now on. Use the URL of a folder, such as s3://bucket/checkpoints/"
            )
        _try(lambda: self._accessor.set(self._key, value, retention=_RETENTION))

    def delete(self) -> None:
        _try(lambda: self._accessor.delete(self._key))


def _largest() -> int:
    """Bytes of JSON that a value may have. 0: any number, also where a backend of the workers keeps values elsewhere."""
    from airflow.configuration import conf

    if conf.get("workers", "state_store_backend", fallback=""):
        return 0
    return int(conf.getint("state_store", "max_value_storage_bytes", fallback=65_535))


def _try(action: Any) -> Any:
    try:
        return action()
    except OSError:
        raise
    except Exception as error:  # of Airflow's API, or of a backend
        raise OSError(f"{type(error).__name__}: {error}") from error


def store_of(context: Any) -> TaskStateStore:
    """The store of a task instance.

    :raises InvalidInputError: this Airflow has none
    """
    from fused_cache_ops import InvalidInputError

    accessor = context.get("task_state_store")
    if accessor is None:
        raise InvalidInputError(
            f"checkpoint = {TASK_STATE!r} is the task state store of Airflow 3.3 and later, which there is not here: give the "
            "URL of a folder that all workers reach, such as s3://bucket/checkpoints/."
        )
    return TaskStateStore(accessor)
