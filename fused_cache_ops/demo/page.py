"""What a demonstration in a browser needs: a web server on this machine, and packages of npm in a folder of their own."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp


@contextlib.contextmanager
def serving(application: ASGIApp, port: int = 0) -> Iterator[str]:
    """A web application on a loopback port, and its address. 0: a free port."""
    config = uvicorn.Config(application, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", port)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="fused-demo-page", daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=10)


def npm_packages(folder: Path, packages: Sequence[str]) -> Path:
    """The ``node_modules`` of a folder in which these packages are installed, each as ``name@version``.

    Raises:
        RuntimeError: npm is missing, or it failed.
    """
    installed = folder / "installed.json"
    with contextlib.suppress(OSError, ValueError):
        if json.loads(installed.read_text()) == list(packages):
            return folder / "node_modules"
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(f"npm is not installed: it fetches {', '.join(packages)}. Install Node.js, which has it.")
    folder.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"npm could not install {', '.join(packages)} in {folder}:\n{done.stderr.strip()[-2000:]}")
    installed.write_text(json.dumps(list(packages)))
    return folder / "node_modules"
