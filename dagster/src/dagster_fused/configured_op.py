"""The op that is configured at launch. Defining it and its run configuration is slow, so ops built in code do without."""

from typing import Any, cast

import dagster as dg
from dagster._config import String
from dagster._config.config_type import ConfigType, ConfigTypeKind
from pydantic import Field

from dagster_fused.fields import CallFields
from dagster_fused.ops import RESULT, START_AFTER, invalidate_in_op
from dagster_fused.resources import FusedResource
from fused_cache_ops import InvalidInputError
from fused_cache_ops.integration import CallKeywords, Secret, refuse_stored_webhook, sealed_udf


class InvalidateCacheConfig(CallFields, dg.Config):  # type: ignore[misc]
    """The run configuration of `invalidate_cache_op`."""

    udf: str = Field(description="Id, name, canvas/name, team/name or user@host/name of the UDF. Not a shared token.")

    def keywords(self) -> CallKeywords:
        """The core's keywords."""
        return cast(CallKeywords, self.given())


@dg.op(ins={"start_after": START_AFTER}, out=RESULT)
def invalidate_cache_op(context: dg.OpExecutionContext, config: InvalidateCacheConfig, fused: FusedResource) -> dict[str, Any]:
    """Invalidate the cached results of a Fused UDF, as configured at launch: all of them, or those of some tiles.

    Permanent errors fail the step without retries. Transient errors are left to the ``RetryPolicy`` of the job or op.
    """
    return invalidate_in_op(context, fused, config.udf, config.keywords())


class _UdfName(String):
    """Text that is not a shared token. It is checked before Dagster stores a run with its configuration."""

    def post_process(self, value: Any) -> Any:
        if isinstance(sealed_udf(value), Secret):
            # Not a PostProcessingError, whose message Dagster begins with the value.
            raise InvalidInputError(
                "udf is a shared token, which grants access, and Dagster stores a run's configuration in plain text: pass the "
                "UDF's id or name, or define an op in code with build_invalidate_cache_op."
            )
        return value


class _Place(ConfigType):
    """Where to announce, which is not an address to post to. It is checked as `_UdfName`."""

    def __init__(self) -> None:
        super().__init__("FusedAnnouncement", ConfigTypeKind.ANY)

    def post_process(self, value: Any) -> Any:
        refuse_stored_webhook(value, "Dagster stores a run's configuration")
        return value


_fields = cast(Any, invalidate_cache_op.config_schema.config_type).fields
_fields["udf"].config_type = _UdfName()  # type: ignore[no-untyped-call]
_fields["announce"].config_type = _Place()
