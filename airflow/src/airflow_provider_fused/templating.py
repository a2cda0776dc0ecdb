"""An operator's fields after Airflow has rendered them, as the core's keywords."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from fused_cache_ops.integration import CallKeywords


def read_fields(rendered: Mapping[str, Any]) -> CallKeywords:
    """The core's keywords from rendered fields.

    :raises InvalidInputError: a field rendered to nothing, cannot be read, or could not be read again by a retry
    """
    from fused_cache_ops.integration import read_rendered, refuse_single_use, sealed

    masked = {name: sealed(value) for name, value in rendered.items() if name == "shared_token"}
    keywords = cast("CallKeywords", read_rendered({**rendered, **masked}))
    refuse_single_use(keywords)
    return keywords
