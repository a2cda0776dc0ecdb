"""A stand-in for Fused on loopback that is fast enough to measure clients: nginx, or asyncio if nginx is missing.

`sending.py` starts it. It listens on a port for each scheme and latency, and counts connections and requests.

python benchmarks/loopback.py certificates|asyncio FOLDER LATENCY…
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

UDF = "0b6c1a2e-5d1f-4c3e-9a77-1f2e3d4c5b6a"
TOKEN = "a-token-of-the-usual-length-0123456789abcdef"
TILE_BY_TILE, IN_BATCHES = "tile-by-tile", "in-batches"  # client ids: what the server answers to batch-delete

# What the real SDK looks up before its first invalidation.
CODE = json.dumps({"type": "geopandas_v2", "entrypoint": "udf", "code": "@fused.udf\ndef udf():\n    return 1\n"})
LOOK_UPS = {
    f"/server/v1/udf/by-id/{UDF}": json.dumps({"id": UDF, "udf_body": CODE}),
    "/server/v1/realtime-instance/available": json.dumps([{"client_id": TILE_BY_TILE, "preference_rank": 5}]),
}
NGINX_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
ECHO_MODULE = "modules/ngx_http_echo_module.so"


class Counts(NamedTuple):
    """What a server has seen so far."""

    connections: int
    requests: int


@dataclass(frozen=True)
class Server:
    name: str
    ports: dict[str, int]

    def base_url(self, scheme: str, latency: int) -> str:
        return f"{scheme}://127.0.0.1:{self.ports[f'{scheme} {latency}']}/server/v1"

    def counts(self) -> Counts:
        """Each call is itself a connection and a request."""
        port = next(port for name, port in self.ports.items() if name.startswith("http "))
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET /status HTTP/1.0\r\n\r\n")
            answer = connection.makefile("rb").read()
        accepted, _, requests = map(int, answer.partition(b"requests\n")[2].split()[:3])
        return Counts(accepted, requests)


def make_certificates(folder: Path) -> None:
    """A server's certificate, its authority, and certifi's bundle with that authority added.

    The bundle has the size of a real one because reading it is most of what a new connection costs.
    """
    import certifi
    import trustme

    authority = trustme.CA()
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    (folder / "bundle.pem").write_bytes(Path(certifi.where()).read_bytes() + authority.cert_pem.bytes())


# -- nginx ---------------------------------------------------------------------------------------------------------------


def find_nginx() -> str | None:
    """nginx, if it is installed with the module that can wait."""
    nginx = shutil.which("nginx", path=NGINX_PATH)
    return nginx if nginx and _echo_module() else None


def _echo_module() -> Path | None:
    folders = (Path("/usr/lib/nginx"), Path("/usr/lib64/nginx"), Path("/usr/local/nginx"), Path("/etc/nginx"))
    return next((folder / ECHO_MODULE for folder in folders if (folder / ECHO_MODULE).exists()), None)


@contextlib.contextmanager
def run_nginx(folder: Path, latencies: tuple[int, ...]) -> Iterator[Server]:
    nginx = find_nginx()
    assert nginx
    ports = _free_ports([f"{scheme} {latency}" for scheme in ("http", "https") for latency in latencies])
    for path, text in LOOK_UPS.items():
        file = folder / "www" / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    configuration = folder / "nginx.conf"
    configuration.write_text(_nginx_configuration(folder, ports))
    command = [nginx, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(configuration)]
    version = subprocess.run([nginx, "-v"], check=True, capture_output=True, text=True).stderr.split("/")[-1].split()[0]
    # The shell ends nginx when this process closes the pipe or is gone, even if it was killed.
    guard = ["/bin/sh", "-c", '"$@" & read -r _; kill $!; wait', "sh", *command]
    with subprocess.Popen(guard, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL):
        server = Server(f"nginx {version}", ports)
        _wait_for(server)
        yield server


def _nginx_configuration(folder: Path, ports: dict[str, int]) -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    servers = [
        f"""
    server {{
        listen 127.0.0.1:{port} {"ssl" if name.startswith("https") else ""} backlog=1024;
        location ~ /delete$ {{ echo_sleep {int(name.split()[1]) / 1000}; echo_exec @deleted; }}
        location @deleted {{ return 204; }}
        location ~ /batch-delete$ {{ return 404; }}
        location = /status {{ stub_status; }}
        location / {{ root {folder}/www; default_type application/json; }}
    }}"""
        for name, port in ports.items()
    ]
    return f"""
load_module {_echo_module()};
{"user root;" if os.geteuid() == 0 else ""}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 10000000;
    keepalive_timeout 600;
    client_max_body_size 10m;
    ssl_certificate {folder}/server.pem;
    ssl_certificate_key {folder}/server.pem;
    {" ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)}
{"".join(servers)}
}}
"""


def _free_ports(names: list[str]) -> dict[str, int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in names]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return {name: each.getsockname()[1] for name, each in zip(names, sockets)}


def _wait_for(server: Server) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError):
            server.counts()
            return
        time.sleep(0.05)
    raise RuntimeError("nginx did not start")


# -- asyncio, in a process of its own ------------------------------------------------------------------------------------


@contextlib.contextmanager
def run_asyncio(folder: Path, latencies: tuple[int, ...]) -> Iterator[Server]:
    command = [sys.executable, __file__, "asyncio", str(folder), *map(str, latencies)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        try:
            yield Server("asyncio", json.loads(process.stdout.readline()))
        finally:
            process.terminate()


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as much of it as the clients measured here speak."""

    connections = requests = 0  # of all connections

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        _Connection.connections += 1

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n") + 4) > 3:
            head = bytes(self._received[:end])
            length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
            total = end + (int(length[1]) if length else 0)
            if len(self._received) < total:
                return
            body = bytes(self._received[end:total])
            del self._received[:total]
            _Connection.requests += 1
            self._respond(head, body)

    def _respond(self, head: bytes, body: bytes) -> None:
        method, target, version = head[: head.index(b"\r\n")].decode().split(" ")
        status, text = self._answer(method, target.partition("?")[0], body)
        length = "" if status.startswith("204") else f"Content-Length: {len(text)}\r\nContent-Type: application/json\r\n"
        answer = f"HTTP/1.1 {status}\r\n{length}\r\n{text}".encode()
        if "/udf-cache/" in target and self._seconds:
            asyncio.get_running_loop().call_later(self._seconds, self._write, answer)
        else:
            self._write(answer)
        if version == "HTTP/1.0":
            self._transport.close()

    def _answer(self, method: str, path: str, body: bytes) -> tuple[str, str]:
        if method == "DELETE" and path.endswith("/delete"):
            return "204 No Content", ""
        if path.endswith("/batch-delete") and f"/{IN_BATCHES}/" in path:
            count = body.count(b'"z"')
            return "200 OK", json.dumps({"udf_id": UDF, "tiles_requested": count, "objects_deleted": count})
        if path == "/status":  # as nginx words it
            return "200 OK", f"server accepts handled requests\n {self.connections} {self.connections} {self.requests} \n"
        return ("200 OK", LOOK_UPS[path]) if path in LOOK_UPS else ("404 Not Found", "{}")

    def _write(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


async def _serve(folder: Path, latencies: list[int]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    loop = asyncio.get_running_loop()
    ports = {}
    for scheme in ("http", "https"):
        for latency in latencies:
            server = await loop.create_server(
                lambda latency=latency: _Connection(latency / 1000),
                "127.0.0.1",
                0,
                ssl=context if scheme == "https" else None,
                backlog=1024,
            )
            ports[f"{scheme} {latency}"] = server.sockets[0].getsockname()[1]
    print(json.dumps(ports), flush=True)
    await loop.run_in_executor(None, sys.stdin.buffer.read)  # until the parent is gone, however it went


if __name__ == "__main__":
    if sys.argv[1] == "certificates":
        make_certificates(Path(sys.argv[2]))
    else:
        asyncio.run(_serve(Path(sys.argv[2]), [int(latency) for latency in sys.argv[3:]]))
