"""UDFs and canvases as the service describes them: who is in a canvas, with which code, and where its shared UDFs run.

Only what is needed is kept. A canvas's passcode is dropped, and its shared token is sealed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fused_cache_ops.errors import InvalidRequestError, NotFoundError, UnexpectedResponseError
from fused_cache_ops.secret import Secret, sealed
from fused_cache_ops.udf_reference import UdfReference, checked_identifier
from fused_cache_ops.wording import one_line, quoted

if TYPE_CHECKING:
    from fused_cache_ops.service.retry import Retrier
    from fused_cache_ops.service.service import Service

_PAGE = 300  # the service's own default
_WANTED = ("id", "name", "username", "access_scope", "share_client_id", "udfs")


@dataclass(frozen=True)
class UdfRecord:
    """One UDF. Whatever the service left out is None.

    Attributes:
        id: the UDF's id.
        name: its name in the canvas, the slug.
        canvas_id: the id of its canvas.
        canvas_name: the name of its canvas.
        code: its source.
        entrypoint: the name of its function in the source.
        max_age: ``cache_max_age`` of the record, in seconds. The one in the source's decorator is not read here.
        modules: the names of modules that were saved with the source.
    """

    id: str
    name: str | None = None
    canvas_id: str | None = None
    canvas_name: str | None = None
    code: str | None = field(default=None, repr=False)
    entrypoint: str | None = None
    max_age: int | None = None
    modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Canvas:
    """One canvas. Whatever the service left out is None.

    Attributes:
        id: the canvas's id.
        name: its name.
        username: the handle of its owner.
        access_scope: ``"public"`` or ``"team"``: who may run its shared UDFs.
        share_client_id: the real-time instance that its shared UDFs run on.
        udfs: its UDFs.
        share_token: the token that it is shared by.
    """

    id: str
    name: str | None = None
    username: str | None = None
    access_scope: str | None = None
    share_client_id: str | None = None
    udfs: tuple[UdfRecord, ...] | None = None
    share_token: Secret | None = field(default=None, repr=False)


def read_udf(service: Service, reference: UdfReference, *, retrier: Retrier) -> UdfRecord:
    """The record of a UDF, in one request. The UDF's code is never run.

    Raises:
        NotFoundError: the UDF does not exist, or this token may not see it.
        UnexpectedResponseError: the record is malformed.
        FusedCacheError: the lookup failed.
    """
    path = reference.lookup if reference.udf_id is None else ("udf", "by-id", reference.udf_id)
    what = f"looking up UDF {reference.shown}"
    try:
        record = service.read(path, what=what, retrier=retrier, secret=reference.secret)
    except (NotFoundError, InvalidRequestError) as error:
        if reference.secret is not None:
            hint = "if the token is right, give the UDF by its id or name, and the token as shared_token"
            error.args = (f"{error.message} Not every kind of shared token is known to look a UDF up: {hint}.",)
        raise
    return _udf(record, f"UDF {reference.shown}")


def read_canvas(service: Service, canvas_id: str, *, retrier: Retrier) -> Canvas:
    """A canvas with the records of its UDFs, in one request.

    Raises:
        NotFoundError: the canvas does not exist, or this token may not see it.
        PermissionDeniedError: this token may not read it.
        UnexpectedResponseError: the record is malformed.
        FusedCacheError: the lookup failed.
    """
    canvas_id = checked_identifier(canvas_id, "collection_id in the service's response", UnexpectedResponseError)
    shown = f"canvas {canvas_id}"
    try:
        record, trouble = (
            _named(service.read(("collection", "by-id", canvas_id), what=f"looking up {shown}", retrier=retrier)),
            None,
        )
    except UnexpectedResponseError as error:
        record, trouble = None, error
    if trouble is not None:
        # Raised anew, because the response, which is in the error's text and frames, may hold the canvas's token and passcode.
        is_answer = trouble.status is not None and 200 <= trouble.status < 300
        text = f"Failed looking up {shown}: the response is not Fused's. Is base_url right?" if is_answer else trouble.message
        status, trouble = trouble.status, None
        raise UnexpectedResponseError(text, status=status)
    if record is None:
        raise UnexpectedResponseError(f"The service's description of {shown} is not a JSON object: is base_url right?")
    udfs = record.get("udfs")
    if udfs is not None and not isinstance(udfs, list):
        raise _malformed(shown, "udfs", udfs)
    client_id = _text(record, "share_client_id", shown)
    return Canvas(
        id=_text(record, "id", shown) or canvas_id,
        name=_text(record, "name", shown),
        username=_text(record, "username", shown),
        access_scope=_text(record, "access_scope", shown),
        share_client_id=client_id
        and checked_identifier(client_id, f"share_client_id of {shown} in the service's response", UnexpectedResponseError),
        udfs=None if udfs is None else tuple(_udf(each, f"a UDF of {shown}") for each in udfs),
        share_token=record.get("share_token"),
    )


def read_team_udfs(service: Service, *, retrier: Retrier) -> tuple[UdfRecord, ...]:
    """The records of all UDFs of the token's team, with their code, 300 in a request. No UDF is run.

    The service does not say how many there are. So it is asked until a page brings nothing new, as Fused's SDK does.

    Raises:
        PermissionDeniedError: this token may not list them.
        UnexpectedResponseError: the list or a record in it is malformed.
        FusedCacheError: the lookup failed.
    """
    found: dict[str, UdfRecord] = {}
    what = "listing the UDFs of the team"
    skip = 0
    while True:
        query = f"?skip={skip}&limit={_PAGE}"
        page = service.read(("udf", "exec-env", "self"), what=what, retrier=retrier, query=query)
        if not isinstance(page, list):
            raise UnexpectedResponseError(f"Failed {what}: the service's response is not a list: is base_url right?")
        before = len(found)
        for each in page:
            udf = _udf(each, "a UDF of the team")
            found.setdefault(udf.id.lower(), udf)
        if len(found) == before:
            return tuple(found.values())
        skip += len(page)


def _named(record: object) -> dict[str, Any] | None:
    """The fields that are wanted, without the canvas's passcode, and with its token as a secret."""
    if not isinstance(record, dict):
        return None
    token = sealed(record.get("share_token"))
    return {name: record.get(name) for name in _WANTED} | {"share_token": token if isinstance(token, Secret) else None}


def _udf(record: Any, shown: str) -> UdfRecord:
    if not isinstance(record, dict):
        raise UnexpectedResponseError(f"The service's description of {shown} is not a JSON object: is base_url right?")
    udf_id = record.get("id")
    if not isinstance(udf_id, str):
        raise UnexpectedResponseError(f"The service returned no id for {shown}: is base_url right?")
    body = _body(record.get("udf_body"))
    max_age = body.get("cache_max_age")
    return UdfRecord(
        id=checked_identifier(udf_id, f"the id of {shown} in the service's response", UnexpectedResponseError),
        name=_text(record, "slug", shown) or one_line(_only_text(body.get("name")) or "") or None,
        canvas_id=_text(record, "collection_id", shown),
        canvas_name=_text(record, "collection_name", shown),
        code=_only_text(body.get("code")),
        entrypoint=_only_text(body.get("entrypoint")),
        max_age=max_age if isinstance(max_age, int) and not isinstance(max_age, bool) and max_age >= 0 else None,
        modules=_modules(body.get("headers")),
    )


def _body(body: object) -> Mapping[str, Any]:
    """What the UDF's author saved, which is JSON as text. A UDF whose text is not readable has no code."""
    if isinstance(body, str):
        try:
            body = json.loads(body)
        except (ValueError, RecursionError):
            return {}
    return body if isinstance(body, dict) else {}


def _modules(headers: object) -> tuple[str, ...]:
    if not isinstance(headers, list):
        return ()
    named = (header.get("module_name") if isinstance(header, dict) else header for header in headers)
    return tuple(one_line(name) if isinstance(name, str) else "?" for name in named)


def _text(record: Mapping[str, Any], name: str, shown: str) -> str | None:
    value = record.get(name)
    if value is not None and not isinstance(value, str):
        raise _malformed(shown, name, value)
    return one_line(value or "") or None


def _only_text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _malformed(shown: str, name: str, value: object) -> UnexpectedResponseError:
    kind = type(value).__name__
    return UnexpectedResponseError(f"The service described {shown} with {name} of type {quoted(kind)}: is base_url right?")
