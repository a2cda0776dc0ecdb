"""The token is searched for wherever it could have got to: logs, reprs, results, errors, tracebacks, pickles, homes."""

import contextlib
import io
import json
import logging
import os
import pickle
import subprocess
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.traceback import Traceback

from fused_cache_ops import FusedClient, invalidate_cache, invalidate_dataset, refresh_cache
from fused_cache_ops.demo.pipelines import PIPELINES, PipelineFailed, run_pipeline
from fused_cache_ops.demo.stations import UDF_NAME, build_udf, create_table
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.errors import FusedCacheError
from fused_cache_ops.outcome.invalidation import PartialInvalidationError
from fused_cache_ops.tiles.tile import Tile

TOKEN = "t0p-s3cret-t0ken"


def everything_about(error: BaseException) -> str:
    """An error as people and tools show it: with its chain, its attributes, and the locals of every frame of ours."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    # The first frame is the test's, which does hold the token.
    shown.stack = traceback.StackSummary.from_list(list(shown.stack)[1:])
    console = Console(width=10_000, record=True, file=io.StringIO())
    rich = Traceback.from_exception(
        type(error),
        error,
        error.__traceback__ and error.__traceback__.tb_next,
        show_locals=True,
        locals_max_string=None,
    )
    console.print(rich)
    return "\n".join([*shown.format(), console.export_text(), repr(error), str(error), repr(vars(error)), repr(error.args)])


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


FAULTS: dict[str, dict[str, Any]] = {
    "unauthorised": {"status": 401, "times": None},
    "echoed": {"status": 403, "times": None, "body": {"detail": f"Fused-Service-Token {TOKEN} may not do this"}},
    "echoed as text": {"status": 422, "times": None, "body": {"detail": [{"loc": ["header"], "msg": TOKEN}]}},
    "redirected": {"status": 302, "times": None, "location": f"https://elsewhere.example.com/?token={TOKEN}"},
    "limited": {"status": 429, "times": None, "retry_after": 60},
    "unavailable": {"status": 503, "times": None},
    "dropped": {"drop": True, "times": None},
    "slow": {"latency": 2.0, "times": None},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("tiles", [1, 3], ids=["single", "batch"])
def test_no_failure_shows_the_token(
    fused_emulator: Emulator, udf: Udf, log: pytest.LogCaptureFixture, fault: dict[str, Any], tiles: int
) -> None:
    fused_emulator.store.add_token(fused_emulator.environment_id, token=TOKEN)
    fused_emulator.misbehave(**fault)
    with pytest.raises(FusedCacheError) as caught:
        invalidate_cache(
            "roads",
            tiles=[Tile(1, 0, 0), Tile(1, 0, 1), Tile(1, 1, 1)][:tiles],
            client={"token": TOKEN, "base_url": fused_emulator.base_url, "timeout": 0.2, "deadline": 0.5},
        )
    shown = everything_about(caught.value)
    assert TOKEN not in shown
    assert TOKEN not in log.text
    assert TOKEN.encode() not in pickle.dumps(caught.value)


def test_no_success_shows_the_token(fused_emulator: Emulator, udf: Udf, log: pytest.LogCaptureFixture) -> None:
    fused_emulator.store.add_token(fused_emulator.environment_id, token=TOKEN)
    with FusedClient(token=TOKEN) as client:
        result = client.invalidate_cache("roads", tiles=["1/0/0", "1/0/1"])
        environment = client.check()
        connections = client._service._open_connections()
        shown = [result, result.to_dict(), environment, client, vars(client), connections, vars(connections)]
    assert TOKEN not in repr(shown) + str(result) + log.text
    assert TOKEN.encode() not in pickle.dumps(result)
    assert [request for request in fused_emulator.requests if TOKEN in request.path + request.query] == []


@pytest.mark.parametrize(
    "settings",
    [{"base_url": "nonsense"}, {"client_id": "../x"}, {"timeout": -1}, {"token": f"Basic {TOKEN}"}],
    ids=str,
)
def test_no_configuration_error_shows_the_token(settings: dict[str, Any]) -> None:
    with pytest.raises(FusedCacheError) as caught:
        FusedClient(**({"token": TOKEN} | settings))
    assert TOKEN not in str(caught.value) + repr(vars(caught.value))
    with pytest.raises(FusedCacheError) as caught:
        invalidate_cache("roads", client={"token": TOKEN} | settings)
    assert TOKEN not in everything_about(caught.value)


@pytest.mark.parametrize("wrong", ["dedline", "deadline"])
@pytest.mark.parametrize("call", [invalidate_cache, refresh_cache, invalidate_dataset])
def test_a_clients_settings_are_sealed_before_anything_can_fail(call: Any, wrong: str) -> None:
    settings = {"token": TOKEN, "passcode": f"pass-{TOKEN}", wrong: "soon"}
    given = dict(settings)
    with pytest.raises(FusedCacheError) as caught:
        call("roads", client=settings)
    assert settings == given  # copied, never changed
    frames = [
        frame for frame, _ in traceback.walk_tb(caught.value.__traceback__) if "fused_cache_ops" in frame.f_code.co_filename
    ]
    assert frames
    assert TOKEN not in str(caught.value) + repr([frame.f_locals for frame in frames])


def test_a_partial_failure_shows_no_token_and_can_leave_the_process(
    fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 2)
    fused_emulator.store.add_token(fused_emulator.environment_id, token=TOKEN)
    fused_emulator.before_invalidation = lambda: fused_emulator.misbehave(status=401, times=None)
    with pytest.raises(PartialInvalidationError) as caught:
        invalidate_cache("roads", tiles=["1/0/0", "1/0/1", "1/1/0", "1/1/1"], client={"token": TOKEN})
    assert TOKEN not in everything_about(caught.value) + everything_about(caught.value.cause) + log.text
    assert TOKEN.encode() not in pickle.dumps(caught.value)


TWICE = """
import contextlib, runpy, sys
run, sys.argv = (runpy.run_module, sys.argv[2:]) if sys.argv[1] == "-m" else (runpy.run_path, sys.argv[1:])
for _ in range(2):
    with contextlib.suppress(SystemExit):
        run(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xdist_group(f"{name}-token_leaks")) for name in PIPELINES]
)
def test_no_orchestrator_writes_the_token_anywhere(
    name: str, tmp_path: Path, templates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipeline that succeeds and then fails, in one process, and then every file that the orchestrator left in its home."""
    # Airflow stays at INFO: at DEBUG its own supervisor prints every secret that it has been told to mask.
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "DEBUG")
    database, home = tmp_path / "stations.sqlite", tmp_path / "home"
    home.mkdir()
    create_table(database)
    with Emulator(token=TOKEN) as emulator:
        emulator.register(build_udf(database), name=UDF_NAME)

        # From the second invalidation on.
        refusal: dict[str, Any] = {"status": 401, "path": "batch-delete", "body": {"detail": f"bad token {TOKEN}"}}
        emulator.before_invalidation = lambda: emulator.misbehave(**refusal, times=None)
        known = PIPELINES[name]
        twice = replace(
            known, commands=lambda path: [[command[0], "-c", TWICE, *command[1:]] for command in known.commands(path)]
        )
        variables = {"STATIONS_DATABASE": str(database)}
        with contextlib.suppress(PipelineFailed):  # `airflow dags test` ends well whatever becomes of the run
            run_pipeline(twice, home, emulator=emulator.environment(), variables=variables, templates=templates)
        assert [request.status for request in emulator.requests if request.method == "POST"] == [200, 401]
    assert "answered 401" in (home / "output.log").read_text()
    files = [path for path in home.rglob("*") if path.is_file()]
    assert len(files) > 1
    assert [str(path) for path in files if TOKEN.encode() in path.read_bytes()] == []


def test_the_command_line_shows_no_token(fused_emulator: Emulator, udf: Udf) -> None:
    def run(*arguments: str) -> str:
        environment = os.environ | {"FUSED_SERVICE_ACCOUNT_TOKEN": TOKEN}
        done = subprocess.run(
            [sys.executable, "-c", "from fused_cache_ops.cli import main; main()", *arguments],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
        )
        return done.stdout + done.stderr

    outputs = [run("check"), run("invalidate", "roads", "1/0/0"), run("invalidate", "--help")]
    fused_emulator.store.add_token(fused_emulator.environment_id, token=TOKEN)
    outputs += [run("check"), run("invalidate", "roads", "1/0/0", "--json"), run("invalidate", "roads", "1/9/9")]
    assert "401" in outputs[0]
    assert json.loads(outputs[4])["tiles_invalidated"] == 1
    assert TOKEN not in "".join(outputs)
