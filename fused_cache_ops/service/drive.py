"""Folders on the drive of an instance, in which functions under ``@fused.cache`` keep their results.

The endpoints are those of Fused's SDK. They are not in the service's reference, and whether it lets a service token use them is
not known.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fused_cache_ops.errors import (
    FusedCacheError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    UnexpectedResponseError,
)

if TYPE_CHECKING:
    from fused_cache_ops.service.retry import Retrier
    from fused_cache_ops.service.service import Service

_ROOT = "fused-system/cached_data"
_ELSE = (
    "It is not documented whether Fused lets a service token delete it. The UDF is invalidated nevertheless, but may compute "
    "old results from it until it expires. In the code, cache_max_age, cache_reset=True, or a new version argument of the "
    "cached function make new ones."
)


def delete_inner_caches(service: Service, client_id: str, folder: str, *, retrier: Retrier) -> None:
    """Delete a folder of inner caches on an instance. One that is not there is done.

    Raises:
        PermissionDeniedError, NotFoundError, InvalidRequestError: the service does not do it.
        FusedCacheError: the request failed.
    """
    what = f"deleting the inner caches in the folder {folder!r} on instance {client_id}"
    try:
        if not _exists(service, client_id, folder, what, retrier):
            return
        try:
            _send(service, "DELETE", client_id, "delete-dir", f"/{_ROOT}/{folder}", what, retrier)
        except NotFoundError:
            if _exists(service, client_id, folder, what, retrier):
                raise
    except (PermissionDeniedError, NotFoundError, InvalidRequestError, UnexpectedResponseError) as error:
        kind: type[FusedCacheError] = InvalidRequestError if isinstance(error, UnexpectedResponseError) else type(error)
        raise kind(f"{error.message} {_ELSE}", status=error.status) from error


def _exists(service: Service, client_id: str, folder: str, what: str, retrier: Retrier) -> bool:
    """Whether a folder is listed. Only folders that are there are listed, because a 404 would not tell which one it is of."""
    above = _ROOT
    for part in folder.split("/"):
        if part not in _folders(service, client_id, above, what, retrier):
            return False
        above += f"/{part}"
    return True


def _folders(service: Service, client_id: str, folder: str, what: str, retrier: Retrier) -> set[str]:
    return set(_names(_send(service, "POST", client_id, "list", folder, what, retrier), what))


def _names(answer: Any, what: str) -> Iterator[str]:
    items = answer.get("items") if isinstance(answer, dict) else None
    # What cannot be read must not be taken for a folder that is not there.
    if not isinstance(items, list) or not all(isinstance(item, dict) and _is_name(item.get("file_name")) for item in items):
        raise UnexpectedResponseError(f"Failed {what}: the service's list of folders is malformed: is base_url right?")
    return (item["file_name"] for item in items if item.get("is_directory", True))


def _is_name(name: object) -> bool:
    return isinstance(name, str) and bool(name)


def _send(service: Service, method: str, client_id: str, action: str, item: str, what: str, retrier: Retrier) -> Any:
    return service.send(
        method,
        ("efs", client_id, action),
        what=what,
        retrier=retrier,
        body=json.dumps({"item": item}).encode(),
        query="?limit=-1" if action == "list" else "",
        confirms=method == "DELETE",
    )
