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
    from fused_cache_ops.integration import read_rendered, refuse_single_use, sealed, stated

    read = {name: sealed(value) if name == "shared_token" else _without_proxy(name, value) for name, value in rendered.items()}
    keywords = cast("CallKeywords", read_rendered(stated(read)))
    refuse_single_use(keywords)
    return keywords


def _without_proxy(name: str, value: Any) -> Any:
    """An ``ObjectStoragePath``, which is not a path for anything else, as the path or URL that it stands for.

    :raises InvalidInputError: it names a connection, whose credentials only Airflow can read
    """
    if type(value).__name__ != "ObjectStoragePath":
        return value
    if getattr(value, "conn_id", None):
        from fused_cache_ops import InvalidInputError

        raise InvalidInputError(
            f"{name} names the connection {value.conn_id!r}, which only Airflow can use: pass a URL without it, and give the "
            "credentials by the environment, or read the file in a function under @task.fused_invalidate_cache."
        )
    return str(value)
