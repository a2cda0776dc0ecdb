"""The fixture that comes with the package, in a user's own test."""

import subprocess
import sys
from pathlib import Path


def test_a_users_test_gets_an_emulator(tmp_path: Path) -> None:
    tmp_path.joinpath("test_mine.py").write_text(
        """
import json
import os
from fused_cache_ops import invalidate_cache

def test_mine(fused_emulator, monkeypatch):
    udf = fused_emulator.register(lambda z, x, y: [z, x, y], name="roads")
    fused_emulator.fill_cache(udf, [(1, 0, 0), (1, 0, 1)])
    assert "FUSED_CLIENT_ID" not in os.environ
    connection = json.loads(os.environ["AIRFLOW_CONN_FUSED_DEFAULT"])
    assert connection == {"conn_type": "fused", "host": fused_emulator.base_url, "password": fused_emulator.token}
    assert invalidate_cache("roads", tiles=["1/0/0"]).tiles_invalidated == 1
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 1)}
"""
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
