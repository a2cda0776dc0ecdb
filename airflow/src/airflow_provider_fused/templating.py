"""An operator's fields after Airflow has rendered them, as the core's keywords."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from fused_cache_ops.integration import CallKeywords


def refuse_tables(fields: Mapping[str, Any]) -> None:
    """Reject tables where a DAG is defined. Airflow would store one as text.

    :raises InvalidInputError: a field is an Arrow or pandas table, or hands one out
    """
    for name, value in fields.items():
        if hasattr(value, "__arrow_c_stream__") or hasattr(value, "__arrow_c_array__"):
            from fused_cache_ops import InvalidInputError

            raise InvalidInputError(
                f"{name} is a {type(value).__name__}, which a field of a task cannot hold: pass the path or URL of a Parquet "
                "file, a list of tiles, or cells as text. Or return the table from a function under "
                "@task.fused_invalidate_cache, which runs with the task."
            )


def read_fields(rendered: Mapping[str, Any]) -> CallKeywords:
    """The core's keywords from rendered fields.

    :raises InvalidInputError: a field rendered to nothing, cannot be read, or could not be read again by a retry
    """
    from fused_cache_ops.integration import read_rendered, refuse_single_use, sealed

    masked = {name: sealed(value) for name, value in rendered.items() if name == "shared_token"}
    keywords = cast("CallKeywords", read_rendered({**rendered, **masked}))
    refuse_single_use(keywords)
    return keywords
