"""The resource: settings, environment variables, and a token that is never shown."""

import json

import dagster as dg
import pytest
from dagster_shared.libraries import DagsterLibraryRegistry

from dagster_fused import FusedResource, invalidate_cache_op
from fused_cache_ops.emulator import Emulator, Udf

pytestmark = pytest.mark.xdist_group("dagster")


def test_every_field_has_a_description() -> None:
    assert [name for name, field in FusedResource.model_fields.items() if not field.description] == []


def test_the_token_is_in_no_repr() -> None:
    assert "s3cret" not in repr(FusedResource(token="s3cret")) + str(FusedResource(token="s3cret"))


@pytest.mark.parametrize("name", ["token", "shared_token", "passcode"])
def test_the_secrets_are_marked_as_such(name: str) -> None:
    extra = FusedResource.model_fields[name].json_schema_extra
    assert extra == {"dagster__is_secret": True}


def test_the_passcode_reaches_the_client_and_is_in_no_repr() -> None:
    resource = FusedResource(token="t", passcode="0pen-s3same")
    passcode = resource.get_client()._service._passcode
    assert passcode is not None
    assert passcode.reveal() == "0pen-s3same"
    assert "0pen-s3same" not in repr(resource) + str(resource)


def test_the_token_is_read_from_an_environment_variable_at_run_time(
    fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = FusedResource(token=dg.EnvVar("MY_TOKEN"), base_url=dg.EnvVar("MY_URL"))
    monkeypatch.delenv("FUSED_SERVICE_ACCOUNT_TOKEN")
    monkeypatch.setenv("MY_TOKEN", fused_emulator.token)
    monkeypatch.setenv("MY_URL", fused_emulator.base_url)

    @dg.job
    def pipeline() -> None:
        invalidate_cache_op()

    definitions = dg.Definitions(jobs=[pipeline], resources={"fused": resource})
    result = definitions.resolve_job_def("pipeline").execute_in_process(
        run_config={"ops": {"invalidate_cache_op": {"config": {"udf": "roads"}}}}
    )
    assert result.success
    assert fused_emulator.cached_tiles(udf) == set()


def test_left_out_fields_come_from_the_cores_environment(fused_emulator: Emulator) -> None:
    assert FusedResource().get_client().base_url == fused_emulator.base_url


def test_the_limits_reach_the_client() -> None:
    limits = {"timeout": 2, "deadline": 5, "max_concurrency": 3, "max_requests_per_second": 2.5}
    client = FusedResource(token="t", **limits).get_client()
    assert (client.timeout, client.deadline, client.max_concurrency, client._service.limiter.rate) == (2, 5, 3, 2.5)


def test_the_library_is_registered_with_its_version() -> None:
    from importlib.metadata import version

    assert json.loads(json.dumps(DagsterLibraryRegistry.get()))["dagster-fused"] == version("dagster-fused")
