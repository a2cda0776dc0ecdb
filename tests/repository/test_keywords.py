"""One declaration of the keywords: every signature, configuration, template field and option is held to it.

The exceptions are named here, each with its reason.
"""

import inspect
import re
from typing import Any

import pytest

from airflow_provider_fused.notifications import FusedInvalidateCacheNotifier
from airflow_provider_fused.operators import FusedInvalidateCacheOperator, FusedRefreshCacheOperator
from dagster_fused import InvalidateCacheConfig
from dagster_fused.component import SelectionModel
from dagster_fused.invalidation import FIELDS
from fused_cache_ops import FusedClient, invalidate_cache, refresh_cache
from fused_cache_ops.call_keywords import CALL_DEFAULTS, CALL_HELP, CallKeywords
from fused_cache_ops.cli import options
from fused_cache_ops.cli.commands import invalidate, plan, refresh
from fused_cache_ops.running.keywords import REFRESH_DEFAULTS, REFRESH_HELP, RefreshKeywords
from fused_cache_ops.selection.keywords import KINDS, NOT_GIVEN, SELECTION_DEFAULTS, WHOLE_UDF, SelectionKeywords
from prefect_fused import ainvalidate_cache, invalidate_cache_flow
from prefect_fused import invalidate_cache as task
from prefect_fused.keywords import LIMITS, REFRESH_TASK_DEFAULTS, TASK_DEFAULTS, TaskKeywords

CALLBACKS = {"on_progress", "on_plan"}  # no text, and each orchestrator has places of its own for what they tell
SENDING = {"checkpoint", "verify_tiles", "shared_token", "related", "max_related", "again_after", *REFRESH_DEFAULTS}


def defaults_of(function: Any) -> dict[str, Any]:
    """The defaults of a function's parameters."""
    return {name: each.default for name, each in inspect.signature(function).parameters.items()}


def test_every_keyword_has_a_type_a_default_and_a_line_of_help() -> None:
    assert list(SelectionKeywords.__annotations__) == list(SELECTION_DEFAULTS)
    assert set(CallKeywords.__annotations__) == set(CALL_DEFAULTS) == set(CALL_HELP)
    assert set(KINDS) <= set(SELECTION_DEFAULTS)


def test_a_refresh_of_its_own_has_the_same_keywords() -> None:
    own = {"udf", "shared_token", "on_progress", "token", "base_url", "selection"}
    assert defaults_of(refresh_cache).keys() == REFRESH_DEFAULTS.keys() | own
    assert defaults_of(FusedClient.refresh_cache).keys() == REFRESH_DEFAULTS.keys() | own - {"token", "base_url"} | {"self"}
    found = {name: defaults_of(refresh_cache)[name] for name in REFRESH_DEFAULTS}
    assert found == {**REFRESH_DEFAULTS, "refresh": "all"}
    assert set(RefreshKeywords.__annotations__) == set(REFRESH_DEFAULTS) == set(REFRESH_HELP)


def test_a_refresh_in_airflow_and_prefect_has_the_same_keywords() -> None:
    wanted = {*SELECTION_DEFAULTS, *REFRESH_DEFAULTS, "shared_token"}
    assert set(FusedRefreshCacheOperator.template_fields) == {"udf", "fused_conn_id"} | wanted
    assert set(REFRESH_TASK_DEFAULTS) == wanted | LIMITS.keys()


def test_every_keyword_is_described_where_it_is_explained() -> None:
    described = inspect.getdoc(invalidate_cache) or ""
    assert [name for name in CALL_DEFAULTS if not re.search(rf"^    {name}: ", described, re.MULTILINE)] == []


def test_the_function_is_the_declaration_and_the_clients_settings() -> None:
    found = defaults_of(invalidate_cache)
    settings = defaults_of(FusedClient)
    # A client may have more settings than one call needs.
    own = {"token", "client_id", "base_url", "timeout", "deadline", "max_concurrency", "max_requests_per_second"}
    assert found == {"udf": inspect.Parameter.empty} | CALL_DEFAULTS | {name: settings[name] for name in own}


def test_the_client_refuses_what_is_not_declared(client: FusedClient) -> None:
    with pytest.raises(TypeError, match="Unknown keyword bound: the keywords are tiles, "):
        client.invalidate_cache("roads", bound=(0, 0, 1, 1))  # type: ignore[call-arg]


def test_airflows_operator_is_the_declaration() -> None:
    found = defaults_of(FusedInvalidateCacheOperator)
    expected = {name: default for name, default in CALL_DEFAULTS.items() if name not in CALLBACKS}
    assert {name: found[name] for name in expected} == expected
    # These are Airflow's own, and the connection.
    assert found.keys() - expected.keys() == {"udf", "fused_conn_id", "kwargs"}


@pytest.mark.parametrize(
    "templated", [FusedInvalidateCacheOperator(task_id="t", udf="roads").template_fields], ids=["operator"]
)
def test_every_field_of_airflow_is_templated(templated: Any) -> None:
    assert set(templated) == {"udf", "fused_conn_id"} | (CALL_DEFAULTS.keys() - CALLBACKS)


def test_airflows_notifier_has_the_operators_signature() -> None:
    operators, found = defaults_of(FusedInvalidateCacheOperator), defaults_of(FusedInvalidateCacheNotifier)
    assert found == {name: operators[name] for name in found}
    assert operators.keys() - found.keys() == {"kwargs", "again_after", *REFRESH_DEFAULTS}  # a callback cannot wait


@pytest.mark.parametrize("function", [task, ainvalidate_cache], ids=["task", "coroutine"])
def test_prefects_tasks_are_the_declaration_and_the_limits_of_a_call(function: Any) -> None:
    found = defaults_of(function.fn)
    expected = {name: default for name, default in CALL_DEFAULTS.items() if name not in CALLBACKS} | LIMITS
    own = {"again_deployment": None}  # who makes the second pass, so that no worker waits for it
    assert found == {"udf": inspect.Parameter.empty, "credentials": None} | expected | own
    assert set(TaskKeywords.__annotations__) == set(TASK_DEFAULTS) == set(expected | own)


@pytest.mark.parametrize("name", TASK_DEFAULTS)
def test_prefects_tasks_describe_each_keyword(name: str) -> None:
    assert re.search(rf"^    {name}: ", inspect.getdoc(task.fn) or "", re.MULTILINE)


def test_prefects_flow_is_a_form_of_its_own() -> None:
    found = defaults_of(invalidate_cache_flow.fn)
    # No shard: a form starts one run. No secret: Prefect keeps parameters in clear. The whole UDF has to be said. No second
    # pass: it is scheduled as a run of this flow. No refresh, which needs the secret: there is a task for it.
    left_out = {"shard", "shared_token", "verify_tiles", "checkpoint", "again_after", *REFRESH_DEFAULTS} | CALLBACKS
    assert found.keys() == {"udf", "credentials", "whole_udf", "deadline"} | (CALL_DEFAULTS.keys() - left_out)
    assert {found[name] for name in KINDS} == {None}
    assert found["partition"] is None  # a form cannot leave a field out
    shapes = SELECTION_DEFAULTS.keys() - {*KINDS, "shard", "partition"}
    assert {name: found[name] for name in shapes} == {name: CALL_DEFAULTS[name] for name in shapes}  # type: ignore[literal-required]


@pytest.mark.parametrize("model", [InvalidateCacheConfig, SelectionModel])
def test_dagsters_fields_are_the_declaration(model: Any) -> None:
    fields = model.model_fields
    own = {"udf", "verify_tiles"} if model is InvalidateCacheConfig else set()  # the component has them beside the selection
    sending = {"checkpoint", "related", "max_related", "again_after", *REFRESH_DEFAULTS}
    assert fields.keys() == SELECTION_DEFAULTS.keys() | sending | own
    for name, default in SELECTION_DEFAULTS.items():
        # Dagster cannot tell null from left out, so what stands for left out is text.
        text = default.value if default in (WHOLE_UDF, NOT_GIVEN) else default  # type: ignore[attr-defined]
        assert fields[name].default == text
        assert fields[name].description.startswith(CALL_HELP[name])


def test_dagsters_selections_are_the_declaration() -> None:
    # The shared token is the resource's, where it is a secret; it takes no callbacks.
    assert set(FIELDS) == CALL_DEFAULTS.keys() - {"shared_token"} - CALLBACKS


@pytest.mark.parametrize("command", [plan, invalidate, refresh], ids=["plan", "invalidate", "refresh"])
def test_the_commands_options_are_the_declaration(command: Any) -> None:
    found = defaults_of(command)
    assert SELECTION_DEFAULTS.keys() | {"whole_udf"} <= found.keys()
    for name, default in SELECTION_DEFAULTS.items():
        assert found[name] == (None if default in (WHOLE_UDF, NOT_GIVEN) else default)
    if command is invalidate:
        assert found.keys() >= SENDING
    if command is refresh:
        assert found.keys() >= REFRESH_DEFAULTS.keys() - {"fail_on_refresh_error"}  # that it fails is what it is for


def test_each_option_has_help() -> None:
    assert [name for name, each in options._TYPES.items() if not each.__metadata__[0].help] == []
