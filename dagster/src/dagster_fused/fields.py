"""The core's selection keywords as fields, for both run configuration and a component's YAML."""

import enum
from typing import Any, Optional

from pydantic import BaseModel, Field, field_validator

from fused_cache_ops.integration import CALL_HELP, SELECTION_DEFAULTS, WHOLE_UDF


def _left_out(name: str) -> Any:
    """A keyword's default, as text if it is a sentinel.

    Dagster cannot distinguish a null from an omitted field, and a null must not invalidate everything.
    """
    default = SELECTION_DEFAULTS[name]  # type: ignore[literal-required]
    return default.value if isinstance(default, enum.Enum) else default


def _field(name: str) -> Any:
    default = _left_out(name)
    left_out = f" Default: {default}."
    if SELECTION_DEFAULTS[name] is WHOLE_UDF:  # type: ignore[literal-required]
        left_out = f" {default!r} means omitted. If every selection is omitted, the whole UDF is invalidated."
    elif isinstance(default, str) and default == "not-given":
        left_out = f" {default!r} means omitted."
    elif default is None:
        left_out = ""
    return Field(default=default, description=f"{CALL_HELP[name]}{left_out}")


class SelectionFields(BaseModel):
    """What to invalidate. Without a selection: the whole UDF."""

    tiles: Any = _field("tiles")
    tiles_file: Any = _field("tiles_file")
    bounds: Any = _field("bounds")
    geometry: Any = _field("geometry")
    cells: Any = _field("cells")
    hex_dataset: Any = _field("hex_dataset")
    whole_udf: Any = _field("whole_udf")
    geometry_column: Any = _field("geometry_column")
    crs: Any = _field("crs")
    render_resolution: Any = _field("render_resolution")
    partition: Any = _field("partition")
    zooms: Any = _field("zooms")
    buffer: Any = _field("buffer")
    max_tiles: Any = _field("max_tiles")
    when_too_many: Any = _field("when_too_many")
    max_zoom: Any = _field("max_zoom")
    shard: Any = _field("shard")
    checkpoint: Optional[str] = Field(default=None, description=CALL_HELP["checkpoint"])
    related: str = Field(default="not-given", description=f"{CALL_HELP['related']} 'not-given' means omitted.")
    max_related: int = Field(default=20, description=CALL_HELP["max_related"])
    again_after: float = Field(
        default=0.0,
        description=f"{CALL_HELP['again_after']} Meanwhile the step is up for retry, which counts as one of its retries. "
        "0 means no second pass.",
    )

    refresh: Any = Field(default=0, description=f"{CALL_HELP['refresh']} A number, or 'all'. 0 means none.")
    refresh_zooms: Any = Field(default=None, description=CALL_HELP["refresh_zooms"])
    refresh_concurrency: int = Field(default=4, description=CALL_HELP["refresh_concurrency"])
    max_refresh: int = Field(default=1000, description=CALL_HELP["max_refresh"])
    refresh_parameters: Any = Field(default=None, description=CALL_HELP["refresh_parameters"])
    refresh_deadline: float = Field(default=600.0, description=CALL_HELP["refresh_deadline"])
    fail_on_refresh_error: bool = Field(default=False, description=CALL_HELP["fail_on_refresh_error"])

    @field_validator(*(name for name, default in SELECTION_DEFAULTS.items() if default is not None), mode="before")
    @classmethod
    def _refuse_null(cls, value: Any) -> Any:
        if value is None:
            raise ValueError(
                "null may be a failed selection and is not accepted: omit the field, or give [] to invalidate nothing."
            )
        return value

    def given(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as the core's keywords."""
        fields = {name: getattr(self, name) for name in SelectionFields.model_fields}
        return {name: value for name, value in fields.items() if value != SelectionFields.model_fields[name].default}
