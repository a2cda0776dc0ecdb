"""Homes of the orchestrators in temporary folders, set before any of them is imported; and the emulator."""

import os
import tempfile
from pathlib import Path

HOME = Path(tempfile.mkdtemp(prefix="fused-tests-"))
AIRFLOW_DAGS = HOME / "airflow" / "dags"
AIRFLOW_DAGS.mkdir(parents=True)
(HOME / "dagster").mkdir()
(HOME / "dagster" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
for name in [name for name in os.environ if name.startswith(("FUSED_", "AIRFLOW", "PREFECT_", "DAGSTER_"))]:
    del os.environ[name]
(HOME / "home").mkdir()
os.environ.update(
    HOME=str(HOME / "home"),
    AIRFLOW_HOME=str(HOME / "airflow"),
    AIRFLOW__CORE__DAGS_FOLDER=str(AIRFLOW_DAGS),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    DAGSTER_HOME=str(HOME / "dagster"),
    PREFECT_HOME=str(HOME / "prefect"),
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="180",
    DO_NOT_TRACK="1",
    FUSED_SYSTEM_TRUST="0",
)

import shutil  # noqa: E402
from collections.abc import Iterator  # noqa: E402

import pytest  # noqa: E402

from fused_cache_ops import FusedClient  # noqa: E402
from fused_cache_ops.emulator import Emulator, Udf  # noqa: E402


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture
def udf(fused_emulator: Emulator) -> Udf:
    """A UDF named ``roads``, with four cached tiles."""
    registered = fused_emulator.register(lambda **parameters: parameters, name="roads")
    fused_emulator.fill_cache(registered, [(1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)])
    return registered


@pytest.fixture
def client(fused_emulator: Emulator) -> Iterator[FusedClient]:
    """A client that knows its instance, so that only invalidations are sent for a UDF's id."""
    with FusedClient(client_id=fused_emulator.client_id, deadline=20) as client:
        yield client


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[None]:
    """Prefect's test server, one for all tests of its group."""
    from prefect.testing.utilities import prefect_test_harness  # importing Prefect takes seconds

    with prefect_test_harness(server_startup_timeout=180):
        yield
