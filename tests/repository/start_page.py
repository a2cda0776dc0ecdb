"""Follow a page of docs/start to the letter: python start_page.py docs/start/airflow.md

Stands alone, so that it can also be run where a wheel has been installed beside its own orchestrator. The installation is left
out, and the emulator picks a free port.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

BLOCK = re.compile(r'^```(sh|text|python title="(.+?)")\n(.*?)^```$', re.DOTALL | re.MULTILINE)


def follow(page: Path, folder: Path, *, environment: Mapping[str, str], instead: Mapping[str, str]) -> int:
    """Write the page's files into a folder, run its commands there, and compare what they show with what the page shows.

    Args:
        page: the page.
        folder: an empty folder.
        environment: the environment of the commands.
        instead: what to run in place of a command.

    Returns:
        How many outputs were compared.

    Raises:
        AssertionError: a command failed, or showed something else.
    """
    outputs = folder / "outputs"
    outputs.mkdir()
    script, expected = ["set -eu"], {}
    for language, name, content in BLOCK.findall(page.read_text()):
        if name:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(content)
        elif language == "text":
            expected[len(script)] = content.strip()
        elif "pip install" not in content:
            lines = [instead.get(line, line) for line in content.splitlines()]
            script.append("\n".join([f"exec >outputs/{len(script) + 1}", *lines]))
    text = "\n".join(script).replace("fused-cache-ops emulator ", "fused-cache-ops emulator --port 0 ")
    inherited = {key: value for key, value in environment.items() if not key.startswith("FUSED_")}
    with (outputs / "errors").open("w") as errors:
        process = subprocess.Popen(
            ["bash", "-c", text], cwd=folder, env=inherited, stdin=subprocess.DEVNULL, stderr=errors, start_new_session=True
        )
        try:
            code = process.wait(300)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # an emulator that the page did not get to end
    said = (outputs / "errors").read_text()[-4000:]
    assert code == 0, f"{page} ended with {code}:\n{said}"
    for number, wanted in expected.items():
        shown = (outputs / str(number)).read_text().strip()
        assert shown.endswith(wanted), f"{page} shows {wanted}, but this was shown:\n{shown[-4000:]}\n{said}"
    return len(expected)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        commands = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {**os.environ, "PATH": commands, "PREFECT_HOME": folder, "DO_NOT_TRACK": "1"}
        count = follow(Path(sys.argv[1]), Path(folder), environment=environment, instead={})
    print(f"{sys.argv[1]} holds: {count} outputs are as it says.")
