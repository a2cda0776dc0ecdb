"""Fixtures for testing your own pipelines. pytest finds them if this package is installed with the extra ``emulator``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fused_cache_ops.emulator import Emulator


@pytest.fixture
def fused_emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A running `fused_cache_ops.emulator.Emulator`, new for each test. The test's environment points to it.

    ``FUSED_BASE_URL`` and ``FUSED_SERVICE_ACCOUNT_TOKEN`` are set, and Airflow's connection ``fused_default``. Every other
    ``FUSED_…`` setting of this package is removed, so that no test reaches the real service.
    """
    from fused_cache_ops.emulator import Emulator

    with Emulator() as emulator:
        for name in (
            "FUSED_CLIENT_ID",
            "FUSED_AUTH_TOKEN",
            "FUSED_AUTH_TOKEN_TYPE",
            "FUSED_CANVAS_PASSCODE",
            "FUSED_RUN_BASE_URL",
        ):
            monkeypatch.delenv(name, raising=False)
        for name, value in emulator.environment().items():
            monkeypatch.setenv(name, value)
        connection = {"conn_type": "fused", "host": emulator.base_url, "password": emulator.token}
        monkeypatch.setenv("AIRFLOW_CONN_FUSED_DEFAULT", json.dumps(connection))
        yield emulator
