"""The notifier, for tasks and DAGs to which no further task can be added."""

from __future__ import annotations

import asyncio
import inspect
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_fused.operators import CALL_FIELDS, FusedInvalidateCacheOperator
from airflow_provider_fused.task_state import TASK_STATE
from airflow_provider_fused.templating import refuse_tables
from fused_cache_ops import InvalidInputError
from fused_cache_ops.integration import RunCheckpoint, refuse_unknown, refuse_what_takes_long

if TYPE_CHECKING:
    from airflow.sdk import BaseNotifier

    from airflow_provider_fused.hooks import FusedHook
    from fused_cache_ops.integration import CallKeywords
else:
    try:
        from airflow.sdk import BaseNotifier
    except ImportError:
        from airflow.notifications.basenotifier import BaseNotifier


_NO_TIME_FOR = ("again_after", "refresh")


class FusedInvalidateCacheNotifier(BaseNotifier):
    """Invalidate the cache of a Fused UDF in ``on_success_callback``, or in a deadline alert.

    Prefer the operator: Airflow does not retry callbacks, and a failed callback appears only in the log, not in the run.
    Task-level callbacks run where the task ran. DAG-level callbacks run in the DAG processor, which then needs the connection.
    Those of a deadline alert (``AsyncCallback(FusedInvalidateCacheNotifier, kwargs={"udf": "roads"})``) run in the triggerer.
    Airflow stores their arguments in plain text, so that they take no shared token.

    :param udf: id, ``name``, ``canvas/name``, ``team/name``, ``user@host/name`` or shared token (templated)
    :param fused_conn_id: the connection of type ``fused`` (templated)
    :param fields: further arguments of `airflow_provider_fused.operators.FusedInvalidateCacheOperator`: ``tiles``,
        ``bounds``, ``zooms`` and so on (templated). Not ``again_after`` and ``refresh``, because a callback cannot wait

    :raises fused_cache_ops.InvalidInputError: one of these is given
    """

    template_fields: Sequence[str] = ("udf", "fused_conn_id")  # and any further fields that are given
    udf: str
    fused_conn_id: str

    def __init__(self, *, udf: str, fused_conn_id: str = "fused_default", context: Any = None, **fields: Any) -> None:
        super().__init__()
        self.context: Any = context or {}  # which a deadline alert passes here
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
        keywords = self._keywords()
        with self._hook().get_conn() as client:
            client.invalidate_cache(self.udf, **keywords)

    async def async_notify(self, context: Any) -> None:
        """Invalidate the cache in the triggerer, for a deadline alert, in a thread, so that other triggers go on.

        :raises fused_cache_ops.FusedCacheError: the invalidation failed, or an argument is a shared token. Airflow only logs it
        """
        from fused_cache_ops.integration import NOT_GIVEN, Secret, refuse_stored_webhook, sealed_udf

        refuse_stored_webhook(getattr(self, "announce", NOT_GIVEN), "Airflow stores the arguments of a deadline alert")
        keywords = self._keywords()
        if isinstance(sealed_udf(self.udf), Secret) or keywords.get("shared_token") is not None:
            raise InvalidInputError(
                "Airflow stores the arguments of a deadline alert in plain text, and one of them is a shared token, which "
                "grants access: pass the UDF's id or name, and revoke the token."
            )
        with await self._hook().aget_conn() as client:
            try:
                await asyncio.to_thread(client.invalidate_cache, self.udf, **keywords)
            except asyncio.CancelledError:
                client.cancel()
                raise

    def _hook(self) -> FusedHook:
        from airflow_provider_fused.hooks import FusedHook

        return FusedHook(self.fused_conn_id)

    def _keywords(self) -> CallKeywords:
        """The core's keywords."""
        from airflow_provider_fused.templating import read_fields

        keywords = read_fields({name: getattr(self, name) for name in self._fields})
        location: Any = keywords.get("checkpoint")
        if location == TASK_STATE:
            raise InvalidInputError(f"checkpoint = {TASK_STATE!r} is a task's, and a callback is none: omit it.")
        if location is not None:  # a callback is not retried, so that no other one may resume its record
            keywords["checkpoint"] = RunCheckpoint(location, f"airflow callback {uuid.uuid4()}")
        return keywords


def _signature() -> inspect.Signature:
    """The operator's signature, without what is not the notifier's, for editors, ``help`` and other inspection."""
    operators = inspect.signature(FusedInvalidateCacheOperator.__init__).parameters
    names = ("self", "udf", *(name for name in CALL_FIELDS if name not in _NO_TIME_FOR), "fused_conn_id")
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, default=None)  # from a deadline alert
    return inspect.Signature([*(operators[name] for name in names), context], return_annotation=None)


FusedInvalidateCacheNotifier.__init__.__signature__ = _signature()  # type: ignore[attr-defined]
