"""How the example pipeline of each orchestrator is run: for real, in a separate process with its own home folder."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Pipeline:
    """An example pipeline.

    Attributes:
        title: the orchestrator's name.
        package: the wrapper for it.
        example: the example file, relative to the wrapper's folder.
        commands: the commands to run one after the other, given the file's path.
        environment: the environment variables they need, given a home folder, the example and the emulator's variables.
        database: the file in that folder that holds the orchestrator's state, if it can be created beforehand.
        migrate: the command that creates the database.
        migrates_itself: whether the orchestrator creates a missing database itself.
    """

    title: str
    package: str
    example: str
    commands: Callable[[Path], list[list[str]]]
    environment: Callable[[Path, Path, Mapping[str, str]], dict[str, str]]
    database: str | None = None
    migrate: tuple[str, ...] = ()
    migrates_itself: bool = False

    def path(self) -> Path:
        """The example's path: next to the wrapper in its wheel, or in the wrapper's folder of a checkout.

        Raises:
            ModuleNotFoundError: the wrapper is not installed.
        """
        spec = importlib.util.find_spec(self.package)
        if spec is None or spec.origin is None:
            distribution = "airflow-provider-fused" if self.title == "Airflow" else self.package.replace("_", "-")
            raise ModuleNotFoundError(
                f"{self.title} is not set up here: install {distribution} with the extra demo (docs/errors.md shows how).",
                name=self.package,
            )
        package = Path(spec.origin).parent
        installed = package / "examples" / Path(self.example).name
        return installed if installed.exists() else package.parents[1] / self.example

    def another(self, name: str) -> Pipeline:
        """The example ``name.py`` in the same folder, whose DAG, flow or job has the same name."""

        def commands(example: Path) -> list[list[str]]:
            return [
                [name if word == "load_then_invalidate" else word for word in command] for command in self.commands(example)
            ]

        return replace(self, example=str(Path(self.example).with_name(f"{name}.py")), commands=commands)


def _airflow_environment(home: Path, example: Path, emulator: Mapping[str, str]) -> dict[str, str]:
    connection = {
        "conn_type": "fused",
        "host": emulator["FUSED_BASE_URL"],
        "password": emulator["FUSED_SERVICE_ACCOUNT_TOKEN"],
    }
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(example.parent),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_FUSED_DEFAULT": json.dumps(connection),
    }


def _prefect_environment(home: Path, example: Path, emulator: Mapping[str, str]) -> dict[str, str]:
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "DO_NOT_TRACK": "1",
        **emulator,
    }


def _dagster_environment(home: Path, example: Path, emulator: Mapping[str, str]) -> dict[str, str]:
    home.joinpath("dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    return {"DAGSTER_HOME": str(home), **emulator}


def _airflow_commands(example: Path) -> list[list[str]]:
    return [[sys.executable, "-m", "airflow", "dags", "test", "load_then_invalidate"]]


def _python_commands(example: Path) -> list[list[str]]:
    return [[sys.executable, str(example)]]


PIPELINES = {
    "airflow": Pipeline(
        "Airflow",
        "airflow_provider_fused",
        "dags/load_then_invalidate.py",
        _airflow_commands,
        _airflow_environment,
        database="airflow.db",
        migrate=(sys.executable, "-m", "airflow", "db", "migrate"),
    ),
    "prefect": Pipeline(
        "Prefect",
        "prefect_fused",
        "flows/load_then_invalidate.py",
        _python_commands,
        _prefect_environment,
        database="prefect.db",
        migrate=(sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"),
        migrates_itself=True,
    ),
    "dagster": Pipeline("Dagster", "dagster_fused", "definitions.py", _python_commands, _dagster_environment),
}


class PipelineFailed(Exception):
    """An orchestrator's command failed. The message ends with the command's last output."""


def run_pipeline(
    pipeline: Pipeline,
    home: Path,
    *,
    emulator: Mapping[str, str],
    variables: Mapping[str, str],
    templates: Path | None = None,
    on_wait: Callable[[str], None] = lambda line: None,
) -> None:
    """Run a pipeline's commands.

    Args:
        pipeline: the pipeline to run.
        home: an empty folder for the orchestrator's state.
        emulator: the emulator's environment variables. Airflow gets them as a connection.
        variables: further environment variables.
        templates: a folder that keeps the orchestrator's fresh database between runs. None: it is created each time.
        on_wait: called a few times per second with the latest line of output.

    Raises:
        PipelineFailed: a command failed.
    """
    example = pipeline.path()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FUSED_")}
    environment = inherited | pipeline.environment(home, example, emulator) | dict(variables)
    log = home / "output.log"
    for command in [*_migrations(pipeline, home, templates), *pipeline.commands(example)]:
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, cwd=home, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
            try:
                while process.poll() is None:
                    on_wait(_last_line(log))
                    time.sleep(0.2)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        if process.returncode != 0:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
            raise PipelineFailed(f"{' '.join(command[1:])} ended with {process.returncode}:\n{tail}")
        if templates is not None and pipeline.database is not None and command == list(pipeline.migrate):
            templates.mkdir(parents=True, exist_ok=True)
            shutil.copy(home / pipeline.database, templates)


def _migrations(pipeline: Pipeline, home: Path, templates: Path | None) -> list[list[str]]:
    """The commands to run before the pipeline, so that its orchestrator has a database."""
    if pipeline.database is None or (home / pipeline.database).exists():
        return []
    if templates is not None and (templates / pipeline.database).exists():
        shutil.copy(templates / pipeline.database, home)
        return []
    return [] if templates is None and pipeline.migrates_itself else [list(pipeline.migrate)]


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 2000))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "starting")
