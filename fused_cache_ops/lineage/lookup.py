"""What the service says of a UDF, its canvas, and the real-time instances on which its results may lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from fused_cache_ops.errors import ConfigurationError, InvalidInputError, NotFoundError, PermissionDeniedError
from fused_cache_ops.service.canvases import Canvas, UdfRecord, read_canvas, read_udf
from fused_cache_ops.udf_reference import UdfReference

if TYPE_CHECKING:
    from fused_cache_ops.service.retry import Retrier
    from fused_cache_ops.service.service import Service

_LACKING = "so access, callers, callees and the instance of its maps are not known"
_INSTEAD = "Omit related, and invalidate each caller and callee by itself."


@dataclass(frozen=True)
class UnknownPart:
    """Something that could not be found out.

    Attributes:
        udf: the name or id of the UDF whose code it is about. None: not about code.
        line: the line of that code, from 1. None: not about one line.
        reason: what is not known, and why.
    """

    udf: str | None
    line: int | None
    reason: str

    def __str__(self) -> str:
        return f"{place(self.udf, self.line)}{self.reason}"


def place(udf: str | None, line: int | None) -> str:
    """Where something stands in code, as the beginning of a sentence about it."""
    if udf is None:
        return ""
    return f"{udf}: " if line is None else f"{udf}, line {line}: "


class Lookup(NamedTuple):
    """What was looked up.

    Attributes:
        udf: the UDF's record. None: not read.
        canvas: its canvas. None: not read.
        client_ids: the real-time instances that an invalidation must reach, the preferred one first.
        unknown: what the token may not see, or the service does not say.
    """

    udf: UdfRecord | None
    canvas: Canvas | None
    client_ids: tuple[str, ...]
    unknown: tuple[UnknownPart, ...]


def look_up(
    service: Service, retrier: Retrier, reference: UdfReference, *, relatives: bool = False, code: bool = False
) -> Lookup:
    """Look up what an invalidation needs to know. At most three requests, and none if the UDF is given by its id, the instance
    is configured, and no relatives are wanted.

    If this token may not see the UDF or its canvas, or the service does not say which canvas that is, only the service's
    preferred instance is known. Other errors are not taken for that.

    Args:
        service: the deployment.
        retrier: the call.
        reference: the UDF.
        relatives: whether the UDFs of the canvas are needed too.
        code: whether the code of the UDF is needed.

    Raises:
        InvalidInputError: the relatives are needed, and the service does not list the UDFs of the canvas.
        PermissionDeniedError, NotFoundError: this token may not see what is needed.
        ConfigurationError: the token has no real-time instance.
        FusedCacheError: a lookup failed.
    """
    reads_canvas = relatives or not service.instances_are_set
    udf = canvas = None
    unknown: list[UnknownPart] = []
    if reads_canvas or code or reference.udf_id is None:
        try:
            udf = read_udf(service, reference, retrier=retrier)
        except (NotFoundError, PermissionDeniedError) as error:
            if relatives or code or reference.udf_id is None:
                raise
            unknown.append(UnknownPart(None, None, f"This token may not look the UDF up ({error.status}), {_LACKING}"))
    if udf is not None and reads_canvas:
        canvas = canvas_of(service, retrier, udf, unknown, required=relatives)
    client_ids = _instances(service, retrier, canvas, unknown)
    return Lookup(udf, canvas, client_ids, tuple(unknown))


def look_up_everything(service: Service, retrier: Retrier, reference: UdfReference) -> Lookup:
    """Look up all that can be known of a UDF. Three requests. Only the UDF itself must be visible.

    Raises:
        NotFoundError: the UDF does not exist, or this token may not see it.
        FusedCacheError: a lookup failed for another reason than a lack of permission.
    """
    udf = read_udf(service, reference, retrier=retrier)
    unknown: list[UnknownPart] = []
    canvas = canvas_of(service, retrier, udf, unknown, required=False)
    if canvas is not None:
        for value, what in (
            (canvas.share_client_id, "which instance the canvas's shared UDFs run on"),
            (canvas.access_scope, "who may run the canvas's shared UDFs"),
        ):
            if value is None:
                unknown.append(UnknownPart(None, None, f"The service does not say {what}"))
    client_ids: tuple[str, ...] = ()
    try:
        client_ids = _instances(service, retrier, canvas, unknown)
    except (NotFoundError, PermissionDeniedError) as error:
        unknown.append(UnknownPart(None, None, f"This token may not list real-time instances ({error.status})"))
    except ConfigurationError as error:  # it has none
        unknown.append(UnknownPart(None, None, error.message.rstrip(".")))
    return Lookup(udf, canvas, client_ids, tuple(unknown))


def canvas_of(
    service: Service, retrier: Retrier, udf: UdfRecord, unknown: list[UnknownPart], *, required: bool
) -> Canvas | None:
    """The UDF's canvas, or None if this token may not read it. What is not known is added to ``unknown``."""
    shown = udf.canvas_name or udf.canvas_id
    if udf.canvas_id is None:
        if required:
            raise InvalidInputError(
                f"related needs the canvas of UDF {udf.name or udf.id}, and the service does not say which one it is in. "
                f"{_INSTEAD}"
            )
        unknown.append(UnknownPart(None, None, f"The service does not say which canvas the UDF is in, {_LACKING}"))
        return None
    try:
        canvas = read_canvas(service, udf.canvas_id, retrier=retrier)
    except (NotFoundError, PermissionDeniedError) as error:
        if required:
            error.args = (f"{error.message} related needs to read the canvas {shown!r}. {_INSTEAD}",)
            raise
        unknown.append(UnknownPart(None, None, f"This token may not read the canvas {shown!r} ({error.status}), {_LACKING}"))
        return None
    if required and canvas.udfs is None:
        raise InvalidInputError(
            f"related needs the UDFs of the canvas {shown!r}, and the service does not list them. {_INSTEAD}"
        )
    if canvas.udfs is None:
        unknown.append(UnknownPart(None, None, "The service does not say which UDFs are in the canvas"))
    return canvas


def _instances(service: Service, retrier: Retrier, canvas: Canvas | None, unknown: list[UnknownPart]) -> tuple[str, ...]:
    """The configured instances, otherwise the preferred one and the one that maps run on."""
    shared = canvas.share_client_id if canvas is not None and not service.instances_are_set else None
    found: tuple[str, ...] = ()
    try:
        found = service.resolve_client_ids(retrier=retrier)
    except (NotFoundError, PermissionDeniedError) as error:
        if shared is None:
            raise
        unknown.append(UnknownPart(None, None, f"This token may not list real-time instances ({error.status})"))
    except ConfigurationError as error:  # it has none
        if shared is None:
            raise
        unknown.append(UnknownPart(None, None, error.message.rstrip(".")))
    return tuple(dict.fromkeys((*found, *([shared] if shared else []))))
