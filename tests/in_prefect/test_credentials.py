"""The block: saved, loaded, and never showing its token."""

import os
import subprocess
import sys

import pytest
from prefect.blocks.core import Block
from prefect.settings import PREFECT_API_URL
from prefect.testing.standard_test_suites import BlockStandardTestSuite

from fused_cache_ops import FusedClient
from fused_cache_ops.emulator import Emulator
from fused_cache_ops.errors import ConfigurationError
from prefect_fused import FusedCredentials

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("prefect_api")]


def test_a_saved_block_opens_a_client(fused_emulator: Emulator) -> None:
    FusedCredentials(token=fused_emulator.token, base_url=fused_emulator.base_url).save("production")
    loaded = FusedCredentials.load("production")
    assert isinstance(loaded, FusedCredentials)
    with loaded.get_client() as client:
        assert isinstance(client, FusedClient)
        assert client.check().name == "team"


def test_the_block_loads_by_its_slug(fused_emulator: Emulator) -> None:
    FusedCredentials(token="a-token", client_id="team").save("by-slug")
    loaded = Block.load("fused-credentials/by-slug")
    assert isinstance(loaded, FusedCredentials)
    assert loaded.client_id == "team"


def test_the_token_is_not_in_the_blocks_repr_or_dump() -> None:
    block = FusedCredentials(token="s3cret-token")
    assert "s3cret-token" not in repr(block) + str(block) + str(block.model_dump()) + block.model_dump_json()


def test_a_saved_passcode_reaches_the_client_and_is_not_shown(fused_emulator: Emulator) -> None:
    FusedCredentials(token=fused_emulator.token, passcode="0pen-s3same").save("guarded")
    block = FusedCredentials.load("guarded")
    assert isinstance(block, FusedCredentials)
    assert "0pen-s3same" not in repr(block) + str(block) + str(block.model_dump()) + block.model_dump_json()
    passcode = block.get_client()._service._passcode
    assert passcode is not None
    assert passcode.reveal() == "0pen-s3same"
    assert FusedCredentials(passcode="").get_client()._service._passcode is None


def test_empty_fields_are_taken_from_the_environment(fused_emulator: Emulator) -> None:
    for block in (FusedCredentials(), FusedCredentials(token="", client_id="", base_url="")):
        assert block.get_client().base_url == fused_emulator.base_url


def test_the_clients_limits_can_be_set(fused_emulator: Emulator) -> None:
    assert FusedCredentials().get_client(deadline=5, timeout=2).deadline == 5


def test_the_form_describes_every_field() -> None:
    fields = FusedCredentials.model_fields
    assert [name for name, field in fields.items() if not (field.description or "").endswith(".")] == []
    assert "secret_fields" in FusedCredentials.model_json_schema()
    assert FusedCredentials.model_json_schema()["secret_fields"] == ["token", "passcode", "shared_token"]
    assert FusedCredentials.get_description()
    assert "invalidate_cache" in (FusedCredentials.get_code_example() or "")


class TestFusedCredentials(BlockStandardTestSuite):
    """What Prefect asks of every block."""

    @pytest.fixture
    def block(self) -> type[Block]:
        return FusedCredentials

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        """Prefect's own test of this name fetches the image, from the network."""
        assert str(block._logo_url).startswith("https://")


def test_a_block_from_the_environment_needs_no_environment_later(
    fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    FusedCredentials.from_env().save("from-env")
    for name in ("FUSED_SERVICE_ACCOUNT_TOKEN", "FUSED_BASE_URL"):
        monkeypatch.delenv(name)
    loaded = FusedCredentials.load("from-env")
    assert isinstance(loaded, FusedCredentials)
    with loaded.get_client() as client:
        assert client.check().name == "team"


def test_the_tokens_of_fuseds_sdk_are_taken_too(fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUSED_SERVICE_ACCOUNT_TOKEN")
    monkeypatch.setenv("FUSED_AUTH_TOKEN_TYPE", "Bearer")
    monkeypatch.setenv("FUSED_AUTH_TOKEN", fused_emulator.bearer_token)
    block = FusedCredentials.from_env()
    monkeypatch.delenv("FUSED_AUTH_TOKEN")
    with block.get_client() as client:
        assert client.check().name == "team"


def test_an_environment_without_a_token_makes_no_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUSED_SERVICE_ACCOUNT_TOKEN", raising=False)
    with pytest.raises(ConfigurationError, match="No Fused token found"):
        FusedCredentials.from_env()


def test_the_settings_of_the_block_are_the_clients(fused_emulator: Emulator) -> None:
    block = FusedCredentials(run_base_url="https://udf.example.com", max_requests_per_second=5, client_certificate="")
    client = block.get_client(deadline=7)
    assert (client.run_base_url, client._service.limiter.rate, client.deadline) == ("https://udf.example.com", 5, 7)
    assert block.get_client(max_requests_per_second=9)._service.limiter.rate == 9
    with pytest.raises(ConfigurationError, match="max_requests_per_second = 0"):
        FusedCredentials(max_requests_per_second=0).get_client()


def test_the_clients_certificates_are_the_blocks(fused_emulator: Emulator) -> None:
    block = FusedCredentials(ca_bundle="/nowhere/ca.pem", base_url="https://fused.example.com", client_id="team")
    with pytest.raises(ConfigurationError, match=r"ca_bundle.*nowhere"):
        block.get_client().check()


def test_the_block_is_registered_by_its_collection() -> None:
    command = [sys.executable, "-m", "prefect", "block", "register", "-m", "prefect_fused"]
    environment = os.environ | {"PREFECT_API_URL": PREFECT_API_URL.value()}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert "Fused Credentials" in done.stdout
