"""The image, the crontab and the Kubernetes CronJob: what they run, and with which rights."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from fused_cache_ops import __version__
from fused_cache_ops.cli.endings import EXIT_CODES
from fused_cache_ops.emulator import Emulator, Udf

ROOT = Path(__file__).parents[2]
CRON_JOB = yaml.safe_load((ROOT / "deploy/cronjob.yaml").read_text())
CONTAINERFILE = (ROOT / "deploy/Containerfile").read_text().replace("\\\n", "")
NEAR_LISBON = (6, 30, 24)


@pytest.fixture
def path(fused_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A search path on which fused-cache-ops is; and the token only in a file."""
    executable = tmp_path / "bin/fused-cache-ops"
    executable.parent.mkdir()
    executable.write_text(f"#!{sys.executable}\nfrom fused_cache_ops.cli import main\nmain()\n")
    executable.chmod(0o755)
    (tmp_path / "token").write_text(f"{fused_emulator.token}\n")
    monkeypatch.delenv("FUSED_SERVICE_ACCOUNT_TOKEN")
    return f"{executable.parent}:{os.environ['PATH']}"


@pytest.fixture
def cached(fused_emulator: Emulator, udf: Udf) -> Udf:
    fused_emulator.fill_cache(udf, [NEAR_LISBON])
    return udf


def instructions(name: str, stage: int) -> list[str]:
    """The arguments of an instruction in a stage of the image's file."""
    stages = re.split(r"^(?=FROM )", CONTAINERFILE, flags=re.MULTILINE)[1:]
    return re.findall(rf"^{name} (.*)$", stages[stage], re.MULTILINE)


# -- the image ----------------------------------------------------------------------------------------------------------------


def test_the_image_does_not_run_as_root() -> None:
    (user,) = instructions("USER", -1)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)  # a number, so that runAsNonRoot can tell


def test_its_base_is_named_in_full_with_a_version() -> None:
    bases = {each.partition(" ")[0] for stage in (0, 1) for each in instructions("FROM", stage)}
    assert len(bases) == 1
    assert re.fullmatch(r"docker\.io/library/python:3\.\d+-slim-\w+", bases.pop())


def test_what_it_copies_is_there_and_is_not_ignored() -> None:
    copied = [source for each in instructions("COPY", 0) for source in each.split()[:-1]]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"  # so that no token or .git that lies about gets into a layer
    for source in copied:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignored


def test_no_secret_is_built_in() -> None:
    words = "\n".join(line for line in CONTAINERFILE.splitlines() if not line.startswith("#"))
    assert not re.search(r"(?i:token|secret)|FUSED_", words)


def test_it_installs_what_is_declared(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    recorder = tmp_path / "bin/python"
    recorder.write_text('#!/bin/sh\necho "$@" >> "$RECORD"\n')
    recorder.chmod(0o755)
    (run,) = instructions("RUN", 0)
    (extras,) = (each.removeprefix("EXTRAS=") for each in instructions("ARG", 0))
    script = run.replace("/opt/fused-cache-ops/bin/python", "python")
    variables = {"PATH": f"{recorder.parent}:{os.environ['PATH']}", "EXTRAS": extras, "RECORD": str(tmp_path / "record")}
    subprocess.run(["sh", "-c", script], env=os.environ | variables, check=True)
    assert (tmp_path / "record").read_text().splitlines()[-1].endswith(" .[cli,changes,geo]")
    declared = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert set(extras.split(",")) <= set(declared)


def test_its_entry_point_is_the_program(path: str) -> None:
    (entry,), (command,) = instructions("ENTRYPOINT", -1), instructions("CMD", -1)
    done = subprocess.run(
        [*json.loads(entry), *json.loads(command)], env=os.environ | {"PATH": path}, check=True, capture_output=True
    )
    assert b"invalidate" in done.stdout


# -- cron ---------------------------------------------------------------------------------------------------------------------


def cron_command(tmp_path: Path) -> str:
    """The crontab's command as cron gives it to the shell, with this test's paths."""
    (line,) = re.findall(r"^\d.*$", (ROOT / "deploy/crontab").read_text(), re.MULTILINE)
    command = line.split(maxsplit=5)[5]
    assert "%" not in command  # cron ends the command there
    return command.replace("/etc/fused/token", str(tmp_path / "token")).replace("/run/lock/", f"{tmp_path}/")


def run_by_cron(command: str, path: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PATH": path}
    return subprocess.run(["/bin/sh", "-c", command], env=environment, input="", capture_output=True, check=False, text=True)


def test_cron_runs_the_crontab_and_mails_nothing(fused_emulator: Emulator, cached: Udf, tmp_path: Path, path: str) -> None:
    done = run_by_cron(cron_command(tmp_path), path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert NEAR_LISBON not in fused_emulator.cached_tiles(cached)


def test_cron_mails_a_failure_without_the_token(fused_emulator: Emulator, cached: Udf, tmp_path: Path, path: str) -> None:
    (tmp_path / "token").write_text("not-the-token")
    done = run_by_cron(cron_command(tmp_path), path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "401" in done.stderr
    assert "not-the-token" not in done.stderr


# -- Kubernetes ---------------------------------------------------------------------------------------------------------------


def the_container() -> dict[str, Any]:
    (container,) = CRON_JOB["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return dict(container)


def test_the_cron_job_fits_the_schema_of_kubernetes() -> None:
    kubernetes_validate.validate(CRON_JOB, kubernetes_validate.latest_version(), strict=True)


def test_the_cron_job_runs_the_image_of_this_version() -> None:
    assert the_container()["image"].endswith(f"/fused-cache-ops:{__version__}")


def run_by_kubernetes(tmp_path: Path, path: str, *more: str) -> int:
    mount = Path(the_container()["volumeMounts"][0]["mountPath"]) / "token"
    arguments = [each.replace(str(mount), str(tmp_path / "token")) for each in the_container()["args"]]
    assert f"--token-file={tmp_path / 'token'}" in arguments
    return subprocess.run(["fused-cache-ops", *arguments, *more], env=os.environ | {"PATH": path}, check=False).returncode


def test_the_cron_job_invalidates(fused_emulator: Emulator, cached: Udf, tmp_path: Path, path: str) -> None:
    assert run_by_kubernetes(tmp_path, path) == 0
    assert NEAR_LISBON not in fused_emulator.cached_tiles(cached)


def what_kubernetes_does(code: int) -> str:
    """By the first rule that a container's exit code matches. ``Count`` without one: try again, up to backoffLimit."""
    for rule in CRON_JOB["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]:
        found = rule.get("onExitCodes")
        if found and (code in found["values"]) is (found["operator"] == "In"):
            assert found["containerName"] == the_container()["name"]
            return str(rule["action"])
    return "Count"


@pytest.mark.parametrize("code", [code for code in EXIT_CODES if code])
def test_kubernetes_tries_only_a_temporary_failure_again(code: int) -> None:
    assert what_kubernetes_does(code) == ("Count" if code == 75 else "FailJob")


@pytest.mark.parametrize(("status", "action"), [(503, "Count"), (401, "FailJob"), (403, "FailJob")])
def test_what_kubernetes_does_about_an_answer(
    fused_emulator: Emulator, cached: Udf, tmp_path: Path, path: str, status: int, action: str
) -> None:
    fused_emulator.misbehave(status=status, times=None)
    assert what_kubernetes_does(run_by_kubernetes(tmp_path, path, "--deadline=1")) == action


def test_no_two_jobs_run_at_once_and_none_has_more_rights_than_it_needs() -> None:
    assert CRON_JOB["spec"]["concurrencyPolicy"] == "Forbid"
    pod = CRON_JOB["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (user,) = instructions("USER", -1)
    assert user == f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy needs it
    assert the_container()["securityContext"]["readOnlyRootFilesystem"] is True
    assert "env" not in the_container()


def test_the_shell_lines_in_the_files_are_of_this_repository() -> None:
    (build,) = re.findall(r"^#   podman build (.*)$", CONTAINERFILE, re.MULTILINE)
    assert (ROOT / shlex.split(build)[1]).exists()
