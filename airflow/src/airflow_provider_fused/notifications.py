"""The notifier, for tasks and DAGs to which no further task can be added."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_fused.operators import CALL_FIELDS, FusedInvalidateCacheOperator
from airflow_provider_fused.templating import refuse_tables
from fused_cache_ops.integration import RunCheckpoint, refuse_unknown, refuse_what_takes_long

if TYPE_CHECKING:
    from airflow.sdk import BaseNotifier
else:
    try:
        from airflow.sdk import BaseNotifier
    except ImportError:
        from airflow.notifications.basenotifier import BaseNotifier


_NO_TIME_FOR = ("again_after", "refresh")


class FusedInvalidateCacheNotifier(BaseNotifier):
    """Invalidate the cache of a Fused UDF in ``on_success_callback``.

    Prefer the operator: Airflow does not retry callbacks, and a failed callback appears only in the log, not in the run.
    Task-level callbacks run where the task ran. DAG-level callbacks run in the DAG processor, which then needs the connection.

    :param udf: id, ``name``, ``canvas/name``, ``team/name``, ``user@host/name`` or shared token (templated)
    :param fused_conn_id: the connection of type ``fused`` (templated)
    :param fields: further arguments of `airflow_provider_fused.operators.FusedInvalidateCacheOperator`: ``tiles``,
        ``bounds``, ``zooms`` and so on (templated). Not ``again_after`` and ``refresh``, because a callback cannot wait

    :raises fused_cache_ops.InvalidInputError: one of these is given
    """

    template_fields: Sequence[str] = ("udf", "fused_conn_id")  # and any further fields that are given
    udf: str
    fused_conn_id: str

    def __init__(self, *, udf: str, fused_conn_id: str = "fused_default", **fields: Any) -> None:
        super().__init__()
        refuse_what_takes_long(fields, "a callback", "FusedInvalidateCacheOperator")
        refuse_unknown(fields, CALL_FIELDS)
        refuse_tables(fields)
        self._fields = tuple(fields)
        self.template_fields = ("udf", *self._fields, "fused_conn_id")
        for name, value in (fields | {"udf": udf, "fused_conn_id": fused_conn_id}).items():
            setattr(self, name, value)

    def notify(self, context: Any) -> None:
        """Invalidate the cache.

        :raises fused_cache_ops.FusedCacheError: the invalidation failed. Airflow only logs it
        """
        from airflow_provider_fused.hooks import FusedHook
        from airflow_provider_fused.templating import read_fields

        keywords = read_fields({name: getattr(self, name) for name in self._fields})
        if keywords.get("checkpoint") is not None:  # a callback is not retried, so that no other one may resume its record
            location: Any = keywords["checkpoint"]
            keywords["checkpoint"] = RunCheckpoint(location, f"airflow callback {uuid.uuid4()}")
        with FusedHook(self.fused_conn_id).get_conn() as client:
            client.invalidate_cache(self.udf, **keywords)


def _signature() -> inspect.Signature:
    """The operator's signature, without what is not the notifier's, for editors, ``help`` and other inspection."""
    operators = inspect.signature(FusedInvalidateCacheOperator.__init__).parameters
    names = ("self", "udf", *(name for name in CALL_FIELDS if name not in _NO_TIME_FOR), "fused_conn_id")
    return inspect.Signature([operators[name] for name in names], return_annotation=None)


FusedInvalidateCacheNotifier.__init__.__signature__ = _signature()  # type: ignore[attr-defined]
