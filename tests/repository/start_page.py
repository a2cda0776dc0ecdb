"""Follow a page of docs/start to the letter: python start_page.py docs/start/airflow.md [FOLDER]

Stands alone, so that it can also be run where a wheel has been installed beside its own orchestrator. Then the installation is
left out. With FOLDER, which holds a clone, the page's own command installs it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

BLOCK = re.compile(r'^```(sh|text|(?:python|toml|yaml) title="(.+?)")\n(.*?)^```$', re.DOTALL | re.MULTILINE)


def follow(
    page: Path, folder: Path, *, environment: Mapping[str, str], instead: Mapping[str, str], install: bool = False
) -> int:
    """Write the page's files into a folder, run its commands there, and compare what they show with what the page shows.

    Args:
        page: the page.
        folder: an empty folder.
        environment: the environment of the commands.
        instead: what to run in place of a command.
        install: whether to install as the page says. The folder then holds a clone.

    Returns:
        How many outputs were compared.

    Raises:
        AssertionError: a command failed, or showed something else.
    """
    outputs = folder / "outputs"
    outputs.mkdir()
    kept = folder / "files"
    kept.mkdir()
    script, expected = ["set -eu"], {}
    for language, name, content in BLOCK.findall(
        page.read_text().partition("\n## With Fused\n")[0]
    ):  # the rest is for another machine
        if name:
            file = kept / str(len(script))
            file.write_text(content)
            script.append(f"mkdir -p {shlex.quote(str(Path(name).parent))} && cp {file} {shlex.quote(name)}")
        elif language == "text":
            expected[len(script)] = content.strip()
        elif install or "pip install" not in content:
            lines = [instead.get(line, line) for line in content.splitlines()]
            script.append("\n".join([f"exec >{outputs}/{len(script) + 1}", *lines]))
    text = "\n".join(script)
    inherited = {key: value for key, value in environment.items() if not key.startswith("FUSED_")}
    with (outputs / "errors").open("w") as errors:
        process = subprocess.Popen(
            ["bash", "-c", text], cwd=folder, env=inherited, stdin=subprocess.DEVNULL, stderr=errors, start_new_session=True
        )
        try:
            code = process.wait(900)
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
    given = sys.argv[2:]
    with contextlib.ExitStack() as stack:
        folder = given[0] if given else stack.enter_context(tempfile.TemporaryDirectory())
        commands = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {**os.environ, "PATH": commands, "PREFECT_HOME": folder}
        began = time.monotonic()
        count = follow(Path(sys.argv[1]), Path(folder), environment=environment, instead={}, install=bool(given))
    print(f"{sys.argv[1]} holds: {count} outputs are as it says ({time.monotonic() - began:.0f} s).")
