"""The core's keywords as fields, for both run configuration and a component's YAML."""

import enum
from collections.abc import Mapping
from typing import Any, Union

from pydantic import BaseModel, Field, create_model, field_validator

from fused_cache_ops.integration import (
    CALL_OPTIONS,
    SELECTION_DEFAULTS,
    WHOLE_UDF,
    Option,
    read_boolean,
    read_number,
    read_seconds,
)

LEFT_OUT = "not-given"
"""What stands for a field that was left out, and has no default of its own. Dagster cannot tell a null from it, and a null must
not invalidate everything."""

FIELDS = tuple(name for name, option in CALL_OPTIONS.items() if option.stored)
"""The keywords that a run's configuration may hold."""


def left_out(name: str) -> Any:
    """A keyword's default, as text if it has none."""
    default = CALL_OPTIONS[name].default
    return LEFT_OUT if default is None else default.value if isinstance(default, enum.Enum) else default


def described(name: str) -> str:
    """A keyword's help, with what it is by default."""
    default = left_out(name)
    if CALL_OPTIONS[name].default is WHOLE_UDF:
        said = f"{default!r} means omitted. If every selection is omitted, the whole UDF is invalidated."
    elif default == LEFT_OUT:
        said = f"{default!r} means omitted."
    else:
        said = f"Default: {default}."
    more = " Meanwhile the step is up for retry, which counts as one of its retries." * (name == "again_after")
    more += " While it is run, the step is up for retry, which counts as one of its retries." * (name == "h3_index")
    more += " Here, the shared token is the resource's." * (name == "verify_tiles")
    return f"{CALL_OPTIONS[name].help}{more} {said}"


_TEXT = ("antimeridian", "layer", "order", "checkpoint", "related", "when_too_many")
_KINDS: Mapping[Any, Any] = {read_number: int, read_seconds: float, read_boolean: bool}


def _kind(name: str, option: Option) -> Any:
    """A type that Dagster's configuration knows. It has no unions, so that what takes several types takes any."""
    return str if name in _TEXT else _KINDS.get(option.read, Any)


class _Fields(BaseModel):
    @field_validator("*", mode="before")
    @classmethod
    def _refuse_null(cls, value: Any) -> Any:
        if value is None:
            raise ValueError(
                "null may be a value that is missing and is not accepted: omit the field, or give [] to invalidate nothing."
            )
        return value

    def given(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as the core's keywords."""
        return {
            name: value
            for name in FIELDS
            if name in type(self).model_fields and (value := getattr(self, name)) != left_out(name)
        }


def _fields(name: str, doc: str, names: tuple[str, ...], *, templated: bool = False) -> Any:
    declared: Any = {}
    for each in names:
        kind = _kind(each, CALL_OPTIONS[each])
        # A component's YAML may have a template in place of a number.
        declared[each] = (Union[kind, str] if templated and kind is not Any else kind, _field(each))
    return create_model(name, __base__=_Fields, __doc__=doc, __module__=__name__, **declared)


def _field(name: str) -> Any:
    return Field(default=left_out(name), description=described(name))


SelectionFields = _fields(
    "SelectionFields", "What to invalidate. Without a selection: the whole UDF.", tuple(SELECTION_DEFAULTS), templated=True
)
CallFields = _fields("CallFields", "What to invalidate, and how. Without a selection: the whole UDF.", FIELDS)
