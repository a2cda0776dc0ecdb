"""The keywords of the tasks and hooks: the core's keywords, and what Prefect's have in addition."""

from typing import Annotated, Any, Optional, Union

from pydantic import SecretStr

from fused_cache_ops import InvalidInputError
from fused_cache_ops.integration import (
    CALL_OPTIONS,
    LIMIT_OPTIONS,
    DatasetKeywords,
    Limits,
    Option,
    Refresh,
    Secret,
    SelectionKeywords,
    check_keys,
    defaults_of,
    read_rendered,
    stated,
)

_LIMITS = Option(
    None,
    "The limits of this call: a mapping with timeout (seconds that one request may take), deadline (seconds that one attempt "
    "may take, the core's own retries included), max_concurrency and max_requests_per_second.",
)


class DatasetTaskKeywords(DatasetKeywords, total=False):
    """The keywords of the task for dbt. Artifacts and logs take the place of the core's callbacks."""

    limits: Annotated[Optional[Limits], _LIMITS]


class DatasetAgainKeywords(DatasetTaskKeywords, total=False):
    """The keywords of the task for a dataset."""

    again_deployment: Annotated[
        Optional[str],
        Option(
            None,
            "The deployment of invalidate_cache_flow that makes the second pass, as flow/deployment, so that no worker waits. "
            "The task is then Completed after the first pass, and its result has second_pass: 'scheduled'. It needs a saved "
            "block, or a token in the environment of the deployment's worker.",
        ),
    ]


class TaskKeywords(DatasetAgainKeywords, total=False):
    """The keywords of the tasks and hooks."""

    shared_token: Annotated[Union[SecretStr, Secret, str, None], CALL_OPTIONS["shared_token"]]


class RefreshTaskKeywords(SelectionKeywords, total=False):
    """The keywords of the task that refreshes."""

    refresh: Annotated[
        Refresh,
        Option("all", "How many of the tiles, or a mapping as for invalidate_cache. By default all, and must_succeed is True."),
    ]
    shared_token: Annotated[Union[SecretStr, Secret, str, None], CALL_OPTIONS["shared_token"]]
    limits: Annotated[Optional[Limits], _LIMITS]


TASK_DEFAULTS = defaults_of(TaskKeywords)
DATASET_TASK_DEFAULTS = defaults_of(DatasetAgainKeywords)
DBT_TASK_DEFAULTS = defaults_of(DatasetTaskKeywords)
REFRESH_TASK_DEFAULTS = defaults_of(RefreshTaskKeywords)

GROUPS = ("refresh", "h3_index", "announce", "limits")
"""The keywords that may be a mapping, which `.map` must not split."""


def split(keywords: Any) -> tuple[Any, Limits]:
    """The core's keywords, and the limits of the call.

    Raises:
        fused_cache_ops.InvalidInputError: The limits are not a mapping of limits, or a keyword is None that may be missing.
    """
    rest = stated(keywords)
    limits = rest.pop("limits", None)
    if limits is None:
        return rest, {}
    check_keys(limits, LIMIT_OPTIONS, "limits", example="{'deadline': 300}")
    if missing := [name for name, value in limits.items() if value is None and name != "max_requests_per_second"]:
        raise InvalidInputError(f"limits: {missing[0]} is None: omit it for its default.")
    read: Limits = read_rendered({"limits": limits})["limits"]
    return rest, read
