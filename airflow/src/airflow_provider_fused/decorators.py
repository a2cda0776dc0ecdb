"""``@task.fused_invalidate_cache``: a function that returns what the load changed."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_fused._compat import AirflowFailException
from airflow_provider_fused.operators import SELECTION_FIELDS, FusedInvalidateCacheOperator
from fused_cache_ops import InvalidInputError
from fused_cache_ops.integration import require_kind

if TYPE_CHECKING:
    from airflow.sdk.bases.decorator import DecoratedOperator, determine_kwargs, task_decorator_factory
    from airflow.sdk.definitions.context import context_merge
else:
    try:
        from airflow.sdk.bases.decorator import DecoratedOperator, determine_kwargs, task_decorator_factory
        from airflow.sdk.definitions.context import context_merge
    except ImportError:
        from airflow.decorators.base import DecoratedOperator, task_decorator_factory
        from airflow.utils.context import context_merge
        from airflow.utils.operator_helpers import determine_kwargs


class _FusedInvalidateCacheDecoratedOperator(DecoratedOperator, FusedInvalidateCacheOperator):
    """Invalidates what the function returns: a list of tiles, or a dict of the operator's selection arguments.

    :param python_callable: the decorated function
    :param op_args: the function's positional arguments (templated)
    :param op_kwargs: the function's keyword arguments (templated)
    """

    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *FusedInvalidateCacheOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **FusedInvalidateCacheOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.fused_invalidate_cache"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if "tiles_from_events" in kwargs:
            raise InvalidInputError("The function returns what changed: omit tiles_from_events, or use the operator.")
        super().__init__(python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs, **kwargs)

    def execute(self, context: Any) -> dict[str, Any]:
        context_merge(context, self.op_kwargs)
        returned = self.python_callable(*self.op_args, **determine_kwargs(self.python_callable, self.op_args, context))
        if inspect.iscoroutine(returned):
            returned = asyncio.run(returned)
        self._take(_selection(returned), context)
        return FusedInvalidateCacheOperator.execute(self, context)


def _selection(returned: Any) -> Mapping[str, Any]:
    """The selection arguments that a function returned.

    :raises AirflowFailException: they select nothing, so a function that forgot its ``return`` invalidates nothing
    """
    if not isinstance(returned, Mapping):
        return {"tiles": returned}
    if unknown := [name for name in returned if name not in SELECTION_FIELDS]:
        raise AirflowFailException(
            f"The function returned a dict with the unknown keys {unknown}: return a list of tiles, or a dict such as "
            "{'bounds': [west, south, east, north], 'zooms': '10-14'}."
        )
    try:
        require_kind(returned, "The function returned")
    except InvalidInputError as error:
        raise AirflowFailException(str(error)) from error
    return returned


def fused_invalidate_cache_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> Any:
    """The decorator behind ``@task.fused_invalidate_cache``.

    :param python_callable: the function to decorate
    :param kwargs: arguments of `FusedInvalidateCacheOperator`: ``udf``, and any that the function does not return
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=False,  # a function's "-> dict" is its selection, not what the task returns
        decorated_operator_class=_FusedInvalidateCacheDecoratedOperator,
        **kwargs,
    )
