"""One declaration of the keywords: every signature, configuration, template field and option is held to it.

The exceptions are named here, each with its reason.
"""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_fused.notifications import FusedInvalidateCacheNotifier
from airflow_provider_fused.operators import (
    FusedInvalidateCacheOperator,
    FusedInvalidateDatasetOperator,
    FusedRefreshCacheOperator,
)
from dagster_fused import FusedCacheMapComponent, FusedInvalidateCacheComponent, FusedResource, InvalidateCacheConfig
from dagster_fused.component import SelectionModel
from dagster_fused.fields import FIELDS, left_out
from fused_cache_ops import (
    AnnounceOptions,
    ConfigurationError,
    FusedClient,
    H3IndexOptions,
    RefreshOptions,
    invalidate_cache,
    invalidate_dataset,
    invalidate_dbt,
    refresh_cache,
)
from fused_cache_ops.cli import options
from fused_cache_ops.cli.commands import dataset, invalidate, plan, refresh
from fused_cache_ops.keywords.announce import ANNOUNCE_OPTIONS
from fused_cache_ops.keywords.call import CALL_DEFAULTS, CALL_OPTIONS, NEEDS_SELECTION, SENDING_OPTIONS, CallKeywords
from fused_cache_ops.keywords.client import CLIENT_OPTIONS, LIMIT_OPTIONS
from fused_cache_ops.keywords.h3_index import H3_INDEX_OPTIONS
from fused_cache_ops.keywords.refresh import REFRESH_OPTIONS
from fused_cache_ops.keywords.rules import STATED
from fused_cache_ops.keywords.selection import DETAILS, KINDS, SELECTION_DEFAULTS
from fused_cache_ops.keywords.values import NOT_GIVEN
from prefect_fused import ainvalidate_cache, invalidate_cache_flow
from prefect_fused import invalidate_cache as task
from prefect_fused.keywords import DATASET_TASK_DEFAULTS, DBT_TASK_DEFAULTS, REFRESH_TASK_DEFAULTS, TASK_DEFAULTS

CALLBACKS = {"on_progress", "on_plan"}  # not text, and each orchestrator has places of its own for what they say

OF_STEPS: dict[str, Any] = {**CALL_DEFAULTS, **dict.fromkeys(STATED, NOT_GIVEN)}
"""The defaults where values come from other steps, so that None may be one that went missing."""


def defaults_of(function: Any) -> dict[str, Any]:
    """The defaults of a function's parameters."""
    return {name: each.default for name, each in inspect.signature(function).parameters.items()}


@pytest.mark.parametrize(
    "declared",
    [CALL_OPTIONS, REFRESH_OPTIONS, H3_INDEX_OPTIONS, ANNOUNCE_OPTIONS, CLIENT_OPTIONS],
    ids=["call", "refresh", "index", "announce", "client"],
)
def test_every_keyword_has_a_line_of_help(declared: Any) -> None:
    assert [name for name, option in declared.items() if not re.fullmatch(r"[A-Z].+\.", option.help)] == []


def test_the_types_of_a_call_are_its_keywords() -> None:
    assert set(CallKeywords.__annotations__) == set(CALL_DEFAULTS)


def test_what_selects_tiles_needs_no_other_selection() -> None:
    assert not {*KINDS, "whole_udf"} & set(NEEDS_SELECTION)
    assert set(DETAILS) < set(NEEDS_SELECTION)


def test_every_keyword_is_described_where_it_is_explained() -> None:
    described = inspect.getdoc(invalidate_cache) or ""
    assert [name for name in (*CALL_DEFAULTS, "client") if not re.search(rf"^    {name}: ", described, re.MULTILINE)] == []
    index = (Path(__file__).parents[2] / "docs/h3-index.md").read_text()
    assert [name for name in H3_INDEX_OPTIONS if f"| `{name}` |" not in index] == []
    assert [name for name in H3_INDEX_OPTIONS if f"    {name}: " not in (H3IndexOptions.__doc__ or "")] == []
    maps = (Path(__file__).parents[2] / "docs/open-maps.md").read_text()
    assert [name for name in ANNOUNCE_OPTIONS if f"| `{name}` |" not in maps] == []
    assert [name for name in ANNOUNCE_OPTIONS if f"    {name}: " not in (AnnounceOptions.__doc__ or "")] == []
    page = (Path(__file__).parents[2] / "docs/refresh.md").read_text()
    assert [name for name in REFRESH_OPTIONS if f"| `{name}` |" not in page] == []
    assert [name for name in REFRESH_OPTIONS if f"    {name}: " not in (RefreshOptions.__doc__ or "")] == []


def test_every_setting_of_a_client_is_described_where_it_is_explained() -> None:
    described = inspect.getdoc(FusedClient) or ""
    assert [name for name in CLIENT_OPTIONS if not re.search(rf"^    {name}: ", described, re.MULTILINE)] == []


def test_the_function_is_the_declaration_and_a_client() -> None:
    own = {"udf": inspect.Parameter.empty, "on_progress": None, "on_plan": None, "client": None}
    assert defaults_of(invalidate_cache) == own | CALL_DEFAULTS


def test_the_functions_of_a_refresh_and_a_dataset_have_the_same_groups() -> None:
    assert defaults_of(refresh_cache).keys() == {"udf", "refresh", "shared_token", "on_progress", "client", "selection"}
    assert defaults_of(refresh_cache)["refresh"] == "all"
    assert defaults_of(invalidate_dataset).keys() == {"dataset", "cache_map", "on_progress", "on_plan", "client", "keywords"}


def test_a_client_is_the_declaration() -> None:
    assert defaults_of(FusedClient) == {name: option.default for name, option in CLIENT_OPTIONS.items()}


def test_the_client_refuses_what_is_not_declared(client: FusedClient) -> None:
    with pytest.raises(TypeError, match="Unknown keyword bound: the keywords are tiles, "):
        client.invalidate_cache("roads", bound=(0, 0, 1, 1))  # type: ignore[call-arg]


@pytest.mark.parametrize("function", [invalidate_dataset, invalidate_dbt, refresh_cache])
def test_a_setting_of_the_client_that_is_given_to_a_function_says_where_it_belongs(function: Any) -> None:
    with pytest.raises(TypeError, match=r"token is a setting of the client.* client=\{'token': …\}"):
        function("parcels", token="t")


def test_a_function_without_a_token_says_how_it_takes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("FUSED_SERVICE_ACCOUNT_TOKEN", "FUSED_AUTH_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigurationError, match=r"or pass client=\{'token': …\}"):
        invalidate_cache("parcels")


def test_airflows_operator_is_the_declaration() -> None:
    found = defaults_of(FusedInvalidateCacheOperator)
    assert {name: found[name] for name in CALL_DEFAULTS} == OF_STEPS
    # These are Airflow's own, the connection, and what only Airflow has.
    assert found.keys() - CALL_DEFAULTS.keys() == {"udf", "fused_conn_id", "tiles_from_events", "kwargs"}


def test_every_field_of_airflow_is_templated() -> None:
    own = {"udf", "fused_conn_id", "tiles_from_events"}
    assert set(FusedInvalidateCacheOperator.template_fields) == own | CALL_DEFAULTS.keys()
    refreshing = {*SELECTION_DEFAULTS, "refresh", "shared_token"}
    assert set(FusedRefreshCacheOperator.template_fields) == {"udf", "fused_conn_id"} | refreshing
    of_a_dataset = {"dataset", "cache_map", "fused_conn_id", "tiles_from_events"} | (CALL_DEFAULTS.keys() - {"shared_token"})
    assert set(FusedInvalidateDatasetOperator.template_fields) == of_a_dataset


def test_airflows_notifier_has_the_operators_signature() -> None:
    operators, found = defaults_of(FusedInvalidateCacheOperator), defaults_of(FusedInvalidateCacheNotifier)
    assert found.pop("context") is None  # which a deadline alert passes
    assert found == {name: operators[name] for name in found}
    # A callback cannot wait, and no event has triggered it.
    assert operators.keys() - found.keys() == {"kwargs", "again_after", "refresh", "tiles_from_events"}


@pytest.mark.parametrize("function", [task, ainvalidate_cache], ids=["task", "coroutine"])
def test_prefects_tasks_are_the_declaration_and_the_limits_of_a_call(function: Any) -> None:
    own = {"limits": None, "again_deployment": None}  # the latter makes the second pass, so that no worker waits for it
    assert defaults_of(function.fn) == {"udf": inspect.Parameter.empty, "credentials": None} | OF_STEPS | own
    assert set(TASK_DEFAULTS) == CALL_DEFAULTS.keys() | own.keys()
    assert set(DATASET_TASK_DEFAULTS) == TASK_DEFAULTS.keys() - {"shared_token"}
    assert set(DBT_TASK_DEFAULTS) == TASK_DEFAULTS.keys() - {"shared_token", "again_deployment"}
    assert set(REFRESH_TASK_DEFAULTS) == {*SELECTION_DEFAULTS, "refresh", "shared_token", "limits"}


@pytest.mark.parametrize("name", TASK_DEFAULTS)
def test_prefects_tasks_describe_each_keyword(name: str) -> None:
    assert re.search(rf"^    {name}: ", inspect.getdoc(task.fn) or "", re.MULTILINE)


def test_prefects_flow_is_a_form_of_its_own() -> None:
    found = defaults_of(invalidate_cache_flow.fn)
    # No shard: a form starts one run. No secret: Prefect keeps parameters in clear, and the block has it. The whole UDF has to
    # be said.
    left_out = {"shard", "shared_token", "checkpoint"}
    event = {"event", "event_entry"}  # what an asset's event says need not fit into parameters
    own = {"udf", "credentials", "whole_udf", "deadline", "again_deployment"}
    assert found.keys() == own | event | (CALL_DEFAULTS.keys() - left_out)
    assert {found[name] for name in KINDS} == {None}
    assert found["partition"] is None  # a form cannot leave a field out
    shapes = SELECTION_DEFAULTS.keys() - {*KINDS, "shard", "partition"}
    assert {name: found[name] for name in shapes} == {name: CALL_DEFAULTS[name] for name in shapes}  # type: ignore[literal-required]


@pytest.mark.parametrize(
    ("model", "names"),
    [(InvalidateCacheConfig, CALL_DEFAULTS.keys() - {"shared_token"} | {"udf"}), (SelectionModel, SELECTION_DEFAULTS.keys())],
    ids=["op", "component"],
)
def test_dagsters_fields_are_the_declaration(model: Any, names: Any) -> None:
    fields = model.model_fields
    assert fields.keys() == names
    for name in names - {"udf"}:
        assert fields[name].default == left_out(name) is not None  # Dagster cannot tell null from left out
        assert fields[name].description.startswith(CALL_OPTIONS[name].help)


def test_dagsters_selections_are_the_declaration() -> None:
    # The shared token is the resource's, where it is a secret.
    assert set(FIELDS) == CALL_DEFAULTS.keys() - {"shared_token"}


def test_dagsters_component_has_beside_the_selection_what_controls_sending() -> None:
    fields = FusedInvalidateCacheComponent.model_fields
    names = SENDING_OPTIONS.keys() - {"fail_on_stale"}  # verify_tiles is a check of its own there
    assert {name: fields[name].default for name in names} == {name: CALL_DEFAULTS[name] for name in names}  # type: ignore[literal-required]
    assert "limits" in fields
    assert "limits" in FusedCacheMapComponent.model_fields
    assert LIMIT_OPTIONS.keys() < FusedResource.model_fields.keys()


@pytest.mark.parametrize("command", [plan, invalidate, refresh, dataset], ids=["plan", "invalidate", "refresh", "dataset"])
def test_the_commands_options_are_the_declaration(command: Any) -> None:
    found = defaults_of(command)
    for name, default in SELECTION_DEFAULTS.items():
        assert found[name] == (default if isinstance(default, (int, str)) else None)
    if command in (invalidate, dataset):
        assert found.keys() >= SENDING_OPTIONS.keys()
    if command is not plan:
        own = {options.refresh_name(key) for key in REFRESH_OPTIONS}
        if command is not refresh:
            own |= options.KEYS.keys()
        assert found.keys() >= own - (
            {"refresh_must_succeed"} if command is refresh else set()
        )  # that it fails is what it is for


def test_each_option_has_help() -> None:
    declared = options._SELECTING | options._SENDING | options._OF_GROUPS | options._REFRESH
    assert [name for name, each in declared.items() if not each.__metadata__[0].help] == []
