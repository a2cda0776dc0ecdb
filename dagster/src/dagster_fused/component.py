"""A component for ``dg`` projects: the cache of a UDF as an asset, defined in YAML."""

import os
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Annotated, Any, Literal, Optional, Union, cast, get_args

import dagster as dg
from dagster.components.resolved.core_models import (
    AssetAttributesModel,
    AssetSpecKwargs,
    MultiRunBackfillPolicyModel,
    SingleRunBackfillPolicyModel,
    resolve_asset_spec,
    resolve_backfill_policy,
    resolve_partitions_def,
)
from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from dagster_fused.assets import (
    AFTER_EACH_LOAD,
    build_fused_cache_asset,
    build_fused_cache_assets,
    build_fused_cache_check,
)
from dagster_fused.fields import SelectionFields
from dagster_fused.resources import FusedResource
from fused_cache_ops.integration import (
    ANNOUNCE_OPTIONS,
    CALL_OPTIONS,
    H3_INDEX_OPTIONS,
    LIMIT_OPTIONS,
    REFRESH_OPTIONS,
    SENDING_OPTIONS,
    CallKeywords,
    Option,
    Secret,
    check_keys,
    sealed_udf,
)

_EXAMPLES = """
  # To invalidate only what a load changed, instead of the whole UDF. See the README of dagster-fused.
  # selection:
  #   bounds: [-9.25, 38.68, -9.08, 38.80]
  #   zooms: 10-16
  # selection_fn: my_project.tiles.changed_tiles   # def changed_tiles(context, partition_key): return ["15/9647/12320"]
"""


class FusedInvalidateCacheScaffoldParams(BaseModel):
    """Parameters of ``dg scaffold defs``."""

    udf: Optional[str] = Field(default=None, description="The UDF: its id, name or canvas/name. Default: the folder's name.")
    table: Optional[str] = Field(default=None, description="Key of the asset that the UDF reads, such as raw/roads.")


class FusedInvalidateCacheScaffolder(dg.Scaffolder[FusedInvalidateCacheScaffoldParams]):
    """Writes a ``defs.yaml`` that loads without changes."""

    @classmethod
    def get_scaffold_params(cls) -> type[FusedInvalidateCacheScaffoldParams]:
        return FusedInvalidateCacheScaffoldParams

    def scaffold(self, request: dg.ScaffoldRequest[FusedInvalidateCacheScaffoldParams]) -> None:
        folder = request.target_path.parent if request.append else request.target_path
        udf = request.params.udf or folder.name
        asset: dict[str, Any] = {"key": f"{re.sub('[^A-Za-z0-9_]', '_', udf)}_cache"}
        if request.params.table:
            asset["deps"] = [request.params.table]
        dg.scaffold_component(request, {"udf": udf, "asset": asset, "token_env": "FUSED_SERVICE_ACCOUNT_TOKEN"})
        if request.scaffold_format == "yaml":
            path = request.target_path if request.append else request.target_path / "defs.yaml"
            with path.open("a") as file:
                file.write(_EXAMPLES.lstrip("\n"))


def _with_known_keys(given: Any, model: type[BaseModel], where: str) -> Any:
    """What was given, unless it has a key that the model does not: the error suggests the nearest."""
    if isinstance(given, Mapping):
        check_keys(given, model.model_fields, where)
    return given


class SelectionModel(SelectionFields, dg.Model):  # type: ignore[misc]
    """What to invalidate. With neither this nor selection_fn: the whole UDF."""

    @model_validator(mode="before")
    @classmethod
    def _suggest(cls, given: Any) -> Any:
        return _with_known_keys(given, cls, "selection")


def _resolve_selection(context: dg.ResolutionContext, value: Any) -> dict[str, Any]:
    given = value.given() if isinstance(value, SelectionModel) else value
    resolved = dict(context.resolve_value(given))
    if not resolved:
        raise ValueError("selection is empty: omit it to invalidate the whole UDF.")
    return resolved


def _resolve_function(context: dg.ResolutionContext, value: str) -> Callable[..., Any]:
    found = context.resolve_value(value)
    if callable(found):
        return found
    module, _, name = str(found).rpartition(".")
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"selection_fn = {found!r} cannot be imported ({error}): use package.module.function, or a template variable."
        ) from error
    return function  # type: ignore[no-any-return]


def _resolve_variable(context: dg.ResolutionContext, value: Optional[str]) -> Optional[str]:
    """The name of an environment variable, not resolved: a template would put the token itself into the snapshot."""
    if value is not None and not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", value):
        raise ValueError(
            "token_env, shared_token_env and passcode_env take the name of an environment variable, such as "
            "FUSED_SERVICE_ACCOUNT_TOKEN, not the secret, and not a template like {{ env.X }}, which would put the secret into "
            "Dagster's snapshots."
        )
    return value


def _resolve_group(declared: Mapping[str, Option], name: str) -> Callable[[dg.ResolutionContext, Any], Any]:
    """A group of options, whose misspelled keys are found when the YAML is loaded."""

    def resolve(context: dg.ResolutionContext, value: Any) -> Any:
        resolved = context.resolve_value(value)
        if isinstance(resolved, Mapping):
            check_keys(resolved, declared, name)
        return resolved

    return resolve


def _resolve_plain(context: dg.ResolutionContext, value: Any) -> Any:
    return context.resolve_value(value)


def _group(declared: Mapping[str, Option], name: str, kind: Any, description: str) -> Any:
    return dg.Resolver(_resolve_group(declared, name), model_field_type=kind, description=description)


def _keyword(name: str) -> Any:
    return dg.Resolver.default(description=CALL_OPTIONS[name].help)


def _default(name: str) -> Any:
    return CALL_OPTIONS[name].default


_NOT_AUTOMATED = "dagster_fused/not_automated"
"""Metadata of a spec whose automation_condition was null in YAML, which a spec without one does not tell."""


def _resolve_asset(context: dg.ResolutionContext, model: Any) -> dg.AssetSpec:
    spec: dg.AssetSpec = resolve_asset_spec(context, model)
    if "automation_condition" in model.model_fields_set and model.automation_condition is None:
        return spec.merge_attributes(metadata={_NOT_AUTOMATED: True})
    return spec


class RetryPolicyModel(dg.Model):
    """A ``dagster.RetryPolicy`` in YAML."""

    max_retries: int = Field(default=1, ge=0, description="How often a step is retried.")
    delay: Optional[float] = Field(default=None, ge=0, description="Seconds before the first retry.")
    backoff: Optional[Literal["LINEAR", "EXPONENTIAL", "linear", "exponential"]] = Field(
        default=None, description="How the delay grows."
    )
    jitter: Optional[Literal["FULL", "PLUS_MINUS", "full", "plus_minus"]] = Field(
        default=None, description="How the delay is spread."
    )

    @model_validator(mode="before")
    @classmethod
    def _suggest(cls, given: Any) -> Any:
        return _with_known_keys(given, cls, "retry_policy")


def _resolve_retry_policy(context: dg.ResolutionContext, model: Any) -> Optional[dg.RetryPolicy]:
    if model is None:
        return None
    given = RetryPolicyModel.model_validate(context.resolve_value(model.model_dump(exclude_none=True)))
    return dg.RetryPolicy(
        max_retries=given.max_retries,
        delay=given.delay,
        backoff=None if given.backoff is None else dg.Backoff(given.backoff.upper()),
        jitter=None if given.jitter is None else dg.Jitter(given.jitter.upper()),
    )


class FusedSettings(dg.Model, dg.Resolvable):
    """How both components run: the settings of a `FusedResource`, and those of the steps. Secrets are named by environment
    variables, never written."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    token_env: Annotated[
        str,
        dg.Resolver(
            _resolve_variable,
            model_field_type=str,
            inject_before_resolve=False,
            description="Name of the environment variable that holds the token of a Fused service account.",
        ),
    ] = "FUSED_SERVICE_ACCOUNT_TOKEN"  # noqa: S105
    shared_token_env: Annotated[
        Optional[str],
        dg.Resolver(
            _resolve_variable,
            model_field_type=str,
            inject_before_resolve=False,
            description="Name of the environment variable that holds the UDF's shared token, for verify_tiles and refresh.",
        ),
    ] = None
    passcode_env: Annotated[
        Optional[str],
        dg.Resolver(
            _resolve_variable,
            model_field_type=str,
            inject_before_resolve=False,
            description="Name of the environment variable that holds the passcode of a public canvas, for verify_tiles and "
            "refresh.",
        ),
    ] = None
    client_id: Annotated[
        Optional[str],
        dg.Resolver.default(
            description="One real-time instance, several with commas, or all. Default: FUSED_CLIENT_ID, otherwise the "
            "preferred one and the one that maps run on."
        ),
    ] = None
    base_url: Annotated[
        Optional[str],
        dg.Resolver.default(
            description="Address of the deployment. Default: FUSED_BASE_URL, otherwise https://www.fused.io/server/v1."
        ),
    ] = None
    resource_key: Annotated[
        Optional[str],
        dg.Resolver.default(
            description="Key of a FusedResource that the project defines, to use in place of one made of the settings above."
        ),
    ] = None

    limits: Annotated[
        Optional[dict[str, Any]],
        _group(
            LIMIT_OPTIONS,
            "limits",
            Optional[dict[str, Any]],
            "The limits of each call: timeout and deadline in seconds, max_concurrency, max_requests_per_second.",
        ),
    ] = None

    retry_policy: Annotated[
        Optional[dg.RetryPolicy],
        dg.Resolver(
            _resolve_retry_policy,
            model_field_type=RetryPolicyModel,
            description="How steps are retried after transient errors: max_retries, delay in seconds, backoff (linear, "
            "exponential) and jitter (full, plus_minus). Default: the run's.",
        ),
    ] = None
    pool: Annotated[
        Optional[str],
        dg.Resolver.default(description="The pool that limits how many of these steps run at once, in the whole deployment."),
    ] = None
    op_tags: Annotated[
        Optional[dict[str, Any]],
        dg.Resolver.default(description="Tags of the steps, such as the resources that they need on Kubernetes."),
    ] = None
    backfill_policy: Annotated[
        Optional[dg.BackfillPolicy],
        dg.Resolver(
            resolve_backfill_policy,
            model_field_type=Union[SingleRunBackfillPolicyModel, MultiRunBackfillPolicyModel],
            description="How many partitions of a backfill a run has: type single_run, or multi_run with "
            "max_partitions_per_run. Default: single_run.",
        ),
    ] = None

    @classmethod
    def model(cls) -> type[BaseModel]:
        """The model of the YAML, which suggests the nearest for a key that it does not have."""
        model = super().model()

        def suggest(own: type[BaseModel], given: Any) -> Any:
            return _with_known_keys(given, own, "attributes")

        validator: Any = model_validator(mode="before")(classmethod(suggest))  # type: ignore[arg-type]
        return create_model(model.__name__, __base__=model, __doc__=model.__doc__, __validators__={"suggest": validator})

    def of_steps(self) -> dict[str, Any]:
        """The arguments of assets and checks that say how their steps run."""
        return {name: value for name in ("retry_policy", "pool", "op_tags") if (value := getattr(self, name)) is not None}

    def resources(self, key: str) -> dict[str, Any]:
        """A resource of these settings under a key of its own, so that components do not conflict. Empty if the project
        defines it."""
        if self.resource_key is not None:
            if self.limits is not None:
                raise ValueError(
                    f"limits are those of the resource {self.resource_key!r}: set them there, or omit resource_key."
                )
            return {}
        return {
            key: FusedResource(
                token=dg.EnvVar(self.token_env),
                shared_token=dg.EnvVar(self.shared_token_env) if self.shared_token_env else None,
                passcode=dg.EnvVar(self.passcode_env) if self.passcode_env else None,
                client_id=self.client_id,
                base_url=self.base_url,
                **(self.limits or {}),
            )
        }


_SENDING = tuple(name for name in SENDING_OPTIONS if name not in ("verify_tiles", "fail_on_stale"))
"""The keywords that stand beside the selection. To verify is a check of its own."""


@dg.scaffold_with(FusedInvalidateCacheScaffolder)
class FusedInvalidateCacheComponent(dg.Component, FusedSettings):
    """The cache of a Fused UDF as an asset. Materializing it invalidates what its upstream changed.

    By default, it is materialized after each load of an upstream asset, if the project's automation sensor is on.
    """

    udf: Annotated[
        str, dg.Resolver.default(description="Id, name, canvas/name, team/name, user@host/name or shared token of the UDF.")
    ]
    asset: Annotated[
        dg.AssetSpec,
        dg.Resolver(
            _resolve_asset,
            model_field_type=AssetSpecKwargs.model(),
            description="The asset that represents the cache: key, deps (the tables that the UDF reads), partitions_def, "
            "group_name, and so on. Default automation_condition: after each load of an upstream asset, whatever the "
            "partition. null: none.",
        ),
    ]
    selection: Annotated[
        dict[str, Any],
        dg.Resolver(
            _resolve_selection,
            model_field_type=SelectionModel,
            description="What to invalidate. With neither this nor selection_fn: the whole UDF.",
        ),
    ] = Field(default_factory=dict)
    selection_fn: Annotated[
        Optional[Callable[..., Any]],
        dg.Resolver(
            _resolve_function,
            model_field_type=str,
            description="selection_fn(context, partition_key) returns what a partition changed. Give package.module.function, "
            "or a template variable.",
        ),
    ] = None
    checkpoint: Annotated[Optional[str], _keyword("checkpoint")] = _default("checkpoint")
    related: Annotated[Optional[str], _keyword("related")] = _default("related")
    max_related: Annotated[int, _keyword("max_related")] = _default("max_related")
    inner_caches: Annotated[
        Any,
        dg.Resolver(_resolve_plain, model_field_type=Union[str, list[str]], description=CALL_OPTIONS["inner_caches"].help),
    ] = _default("inner_caches")
    h3_index: Annotated[
        Any,
        _group(
            H3_INDEX_OPTIONS,
            "h3_index",
            dict[str, Any],
            f"{CALL_OPTIONS['h3_index'].help} While it is run, the step is up for retry.",
        ),
    ] = _default("h3_index")
    loaded_at: Annotated[
        Any,
        dg.Resolver(
            _resolve_plain,
            model_field_type=Union[str, float],
            description=f"{CALL_OPTIONS['loaded_at'].help} Default: the time of the latest load of an upstream asset.",
        ),
    ] = _default("loaded_at")
    again_after: Annotated[float, _keyword("again_after")] = _default("again_after")
    refresh: Annotated[
        Any,
        _group(
            REFRESH_OPTIONS,
            "refresh",
            Union[int, str, dict[str, Any]],
            f"{CALL_OPTIONS['refresh'].help} A number, all, or a mapping with {', '.join(REFRESH_OPTIONS)}.",
        ),
    ] = _default("refresh")
    announce: Annotated[
        Any,
        _group(
            ANNOUNCE_OPTIONS,
            "announce",
            Union[str, dict[str, Any]],
            CALL_OPTIONS["announce"].help,
        ),
    ] = _default("announce")
    verify_tiles: Annotated[
        int,
        dg.Resolver.default(
            description="Adds a check that requests this many of the tiles through the shared token: none may be cached."
        ),
    ] = 0

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The asset, its check, and a resource under a key of its own, so that instances do not conflict."""
        spec = self.asset
        resource_key = self.resource_key or f"fused_{'__'.join(spec.key.path)}"
        kept = ("description", "group_name", "owners", "code_version", "metadata", "freshness_policy")
        given = {name: getattr(spec, name) for name in kept}
        is_automated = not given["metadata"].get(_NOT_AUTOMATED)
        given["metadata"] = {name: value for name, value in spec.metadata.items() if name != _NOT_AUTOMATED}
        sending = {name: value for name in _SENDING if (value := getattr(self, name)) != _default(name)}
        asset = build_fused_cache_asset(
            spec.key.path[-1],
            udf=self.udf,
            deps=spec.deps,
            selection_fn=self.selection_fn,
            selection=cast(CallKeywords, self.selection | sending) or None,
            partitions_def=spec.partitions_def,
            automation_condition=(spec.automation_condition or AFTER_EACH_LOAD) if is_automated else None,
            backfill_policy=self.backfill_policy,
            resource_key=resource_key,
            key_prefix=spec.key.path[:-1] or None,
            kinds=spec.kinds | {"fused"},
            tags={name: value for name, value in spec.tags.items() if not name.startswith("dagster/kind/")},
            **{name: value for name, value in given.items() if value},
            **self.of_steps(),
        )
        if not (self.shared_token_env or self.resource_key or isinstance(sealed_udf(self.udf), Secret)):
            for name in ("verify_tiles", "refresh"):
                if getattr(self, name) not in (0, "0"):
                    raise ValueError(
                        f"{name} needs a shared token of the UDF {self.udf}: set shared_token_env to the name of the "
                        "environment variable that has it."
                    )
        checks = []
        if self.verify_tiles:
            checks.append(
                build_fused_cache_check(
                    asset,
                    udf=self.udf,
                    selection_fn=self.selection_fn,
                    selection=self.selection or None,  # type: ignore[arg-type]
                    verify_tiles=self.verify_tiles,
                    resource_key=resource_key,
                    **self.of_steps(),
                )
            )
        return dg.Definitions(assets=[asset], asset_checks=checks, resources=self.resources(resource_key))


def _resolve_functions(context: dg.ResolutionContext, value: Any) -> Any:
    if isinstance(value, dict):
        return {str(context.resolve_value(key)): _resolve_function(context, each) for key, each in value.items()}
    return _resolve_function(context, value)


# What the partitions_def of an asset takes in YAML. Any text would pass there, also that of a misspelled type.
_IN_YAML = get_args(AssetAttributesModel.model_fields["partitions_def"].annotation)
_OneDefinition: Any = Union[(*(each for each in _IN_YAML if each is not str), Annotated[str, Field(pattern=r"\{\{")])]


def _resolve_partitions(context: dg.ResolutionContext, value: Any) -> Any:
    if isinstance(value, dict):
        return {str(context.resolve_value(key)): _resolve_partitions(context, each) for key, each in value.items()}
    if not isinstance(value, str):
        return resolve_partitions_def(context, value)
    found = context.resolve_value(value)
    if not isinstance(found, dg.PartitionsDefinition):
        raise ValueError(
            f"partitions_def = {value!r} is a {type(found).__name__}, not a partitions definition: give a type, such as "
            "{type: static, partition_keys: [north, south]}, or a template variable that returns a definition."
        )
    return found


class FusedCacheMapComponent(dg.Component, FusedSettings):
    """The caches of every Fused UDF in a cache map as assets, each downstream of the asset of its dataset."""

    cache_map: Annotated[
        str,
        dg.Resolver.default(description="The path of the map. A relative path is looked for in the component's folder first."),
    ] = "fused-cache.toml"
    selection_fn: Annotated[
        Any,
        dg.Resolver(
            _resolve_functions,
            model_field_type=Union[str, dict[str, str]],
            description="selection_fn(context, partition_key) returns what a load changed, without zooms: for all datasets, or "
            "one for each dataset's key. Give package.module.function, or a template variable. Not needed for UDFs with "
            "whole_udf = true.",
        ),
    ] = None
    partitions_def: Annotated[
        Any,
        dg.Resolver(
            _resolve_partitions,
            model_field_type=Union[_OneDefinition, dict[str, _OneDefinition]],
            inject_before_resolve=False,
            description="The partitions of all datasets' assets, or of each by its dataset's key, as in an asset's "
            "partitions_def: type (hourly, daily, weekly, time_window, static) with start_date or partition_keys, or a "
            "template such as {{ dg.MonthlyPartitionsDefinition(start_date='2026-01-01') }}. Default: none.",
        ),
    ] = None
    datasets: Annotated[
        Optional[list[str]], dg.Resolver.default(description="The keys to build assets for. Default: all of the map.")
    ] = None
    key_prefix: Annotated[str, dg.Resolver.default(description="What the assets' keys begin with.")] = "fused_cache"
    group_name: Annotated[Optional[str], dg.Resolver.default(description="The assets' group.")] = None

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The assets, their checks, and a resource."""
        from fused_cache_ops import CacheMap

        resource_key = self.resource_key or self._own_key(context)
        group: Any = {"group_name": self.group_name} if self.group_name else {}
        built = build_fused_cache_assets(
            CacheMap.read(self.cache_map, beside=context.path / "defs.yaml"),
            selection_fn=self.selection_fn,
            partitions_def=self.partitions_def,
            datasets=self.datasets,
            key_prefix=self.key_prefix,
            resource_key=resource_key,
            backfill_policy=self.backfill_policy,
            **group,
            **self.of_steps(),
        )
        return dg.Definitions(
            assets=[each for each in built if not isinstance(each, dg.AssetChecksDefinition)],
            asset_checks=[each for each in built if isinstance(each, dg.AssetChecksDefinition)],
            resources=self.resources(resource_key),
        )

    def _own_key(self, context: dg.ComponentLoadContext) -> str:
        """A resource key for this instance alone: where it is defined, and which of the file's documents it is."""
        path = context.component_path
        place = f"{os.path.relpath(path.file_path, context.project_root)}_{path.instance_key or 0}"
        return f"fused_{re.sub('[^A-Za-z0-9]+', '_', f'{self.key_prefix}_{place}').strip('_')}"
