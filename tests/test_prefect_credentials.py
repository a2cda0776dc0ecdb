"""The block: saved, loaded, and never showing its token."""

from collections.abc import Iterator

import pytest
from prefect.blocks.core import Block
from prefect.testing.utilities import prefect_test_harness

from fused_cache_ops import FusedClient
from fused_cache_ops.emulator import Emulator
from prefect_fused import FusedCredentials

pytestmark = pytest.mark.xdist_group("prefect")


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=180):
        yield


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


def test_empty_fields_are_taken_from_the_environment(fused_emulator: Emulator) -> None:
    for block in (FusedCredentials(), FusedCredentials(token="", client_id="", base_url="")):
        assert block.get_client().base_url == fused_emulator.base_url


def test_the_clients_limits_can_be_set(fused_emulator: Emulator) -> None:
    assert FusedCredentials().get_client(deadline=5, timeout=2).deadline == 5


def test_the_form_describes_every_field() -> None:
    fields = FusedCredentials.model_fields
    assert [name for name, field in fields.items() if not (field.description or "").endswith(".")] == []
    assert "secret_fields" in FusedCredentials.model_json_schema()
    assert FusedCredentials.model_json_schema()["secret_fields"] == ["token"]
    assert FusedCredentials.get_description()
    assert "invalidate_cache" in (FusedCredentials.get_code_example() or "")
