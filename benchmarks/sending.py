"""Invalidations on the wire compared with other clients: requests per second, CPU time and peak memory, as ratios.

python benchmarks/sending.py [--quick] [--million] [--write docs/measurements.md]

Every client runs in its own process, and they take turns, so that noise affects all of them. `--quick` is a smoke test that
needs only Python. `--million` sends all of a million tiles one by one instead of stopping after a while.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import NamedTuple

# The kernel counts this process's memory, at the moment of a fork, as the child's: nothing large is imported here.
from loopback import IN_BATCHES, TILE_BY_TILE, TOKEN, UDF, Server, find_nginx, run_asyncio, run_nginx
from pages import write_section

BEFORE = """
import json, sys, time
def start():  # after imports and lookups, before connections and certificates
    global wall, cpu
    wall, cpu = time.perf_counter(), time.process_time()
base_url, client_id, udf, token, arguments = sys.argv[1:]
count, in_flight, bounds = json.loads(arguments)
tiles = ((15, number % 32768, number // 32768) for number in range(count))
url = f"{base_url}/realtime-shared/{client_id}/udf-cache/by-id/{udf}"
headers = {"Authorization": f"Fused-Service-Token {token}"}
"""
AFTER = """
print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]))
"""
SDK = """
import warnings
warnings.simplefilter("ignore")
import fused
fused.options.base_url = base_url
loaded = fused.load(udf)
loaded.invalidate_cache(z=0, x=0, y=0)  # it looks up the real-time instance once
start()
for z, x, y in tiles:
    loaded.invalidate_cache(z=z, x=x, y=y)
"""
REQUESTS = """
import requests
start()
for z, x, y in tiles:
    requests.delete(f"{url}/delete", params={"z": z, "x": x, "y": y}, headers=headers).raise_for_status()
"""
SESSION = """
import requests
start()
with requests.Session() as session:
    for z, x, y in tiles:
        session.delete(f"{url}/delete", params={"z": z, "x": x, "y": y}, headers=headers).raise_for_status()
"""
ORJSON = """
import orjson, requests
headers["Content-Type"] = "application/json"
batches = [
    [{"z": 15, "x": 8000 + batch * 50 + x, "y": 12000 + y} for x in range(50) for y in range(1000)]
    for batch in range(count // 50_000)
]
start()
with requests.Session() as session:
    for batch in batches:
        session.post(f"{url}/batch-delete", data=orjson.dumps({"tiles": batch}), headers=headers).raise_for_status()
"""
OURS = """
import requests
from fused_cache_ops import FusedClient
start()
with FusedClient(token=token, client_id=client_id, base_url=base_url, max_concurrency=in_flight, deadline=7200) as client:
    selection = {"bounds": bounds, "zooms": 15, "max_tiles": 10**9} if bounds else {"tiles": tiles}
    result = client.invalidate_cache(udf, **selection)
assert result.tiles_invalidated == count, result
if client_id == "in-batches":
    assert result.objects_deleted == count and result.requests_sent == -(-count // 50_000), result
"""
PYTHON_CLIENTS = {"SDK": SDK, "requests.delete": REQUESTS, "Session": SESSION, "orjson": ORJSON, "ours": OURS}
WRK_SCRIPT = """
local number = 0
wrk.headers["Authorization"] = "Fused-Service-Token {token}"
request = function()
    number = number + 1
    return wrk.format("DELETE", "{path}?z=15&x=" .. number % 32768 .. "&y=" .. math.floor(number / 32768))
end
"""
DESCRIPTIONS = {
    "SDK": "Fused's own package, `udf.invalidate_cache(z=…, x=…, y=…)` in a loop, with a new session and connection per call",
    "requests.delete": "as in the documentation, `requests.delete(url, params=…, headers=…)` in a loop",
    "Session": "one `requests.Session`, `session.delete(…)` in a loop",
    "curl": "`curl --parallel --parallel-max N`, with all URLs in one configuration file",
    "wrk": "a load generator in C that ignores the responses and checks no certificates, as the upper limit",
    "ours": "`invalidate_cache(udf, tiles=…)`, with `max_concurrency=N`",
}
LATENCIES = (0, 30, 100)  # milliseconds
IN_FLIGHT = {16: 0.93, 32: 0.80, 64: 0.80}  # and the target, as a fraction of wrk
MIB = 1024 * (1 if sys.platform != "darwin" else 1024)  # of the kernel's ru_maxrss


class Finished(NamedTuple):
    output: str
    wall: float
    cpu: float
    peak: float  # MiB


@dataclass(frozen=True)
class Sent:
    tiles: int
    wall: float
    cpu: float
    peak: float
    connections: int

    @property
    def rate(self) -> float:
        return self.tiles / self.wall

    @property
    def cpu_milliseconds(self) -> float:
        return self.cpu / self.tiles * 1000


Client = tuple[str, int]  # the name and how many requests are in flight at once


@dataclass(frozen=True)
class Bench:
    folder: Path
    server: Server
    batch_server: Server  # it counts the tiles of a batch, which nginx cannot
    quick: bool

    @property
    def rounds(self) -> int:
        return 1 if self.quick else 3

    def measure(
        self,
        client: Client,
        scheme: str,
        latency: int,
        count: int,
        *,
        client_id: str = TILE_BY_TILE,
        bounds: Sequence[float] = (),
        stop_after: float | None = None,
    ) -> Sent:
        """Send ``count`` tiles and see that every one arrived."""
        name, in_flight = client
        print(f"  {scheme} {latency} ms, {count:,} tiles: {_label(client)}", end="", file=sys.stderr, flush=True)
        server = self.batch_server if client_id == IN_BATCHES else self.server
        base_url = server.base_url(scheme, latency)
        before = server.counts()
        if name == "wrk":
            finished = self._run([*self._wrk(base_url), f"-c{in_flight}", f"-d{1 if self.quick else 3}s", base_url])
            assert "Non-2xx" not in finished.output, finished.output
            assert "Socket errors" not in finished.output, finished.output
            count = int(re.findall(r"(\d+) requests in", finished.output)[0])
            finished = finished._replace(wall=count / float(re.findall(r"Requests/sec: +([\d.]+)", finished.output)[0]))
        elif name == "curl":
            finished = self._run([*self._curl(base_url, count), "--parallel", "--parallel-max", str(in_flight)])
        else:
            program = BEFORE + PYTHON_CLIENTS[name] + AFTER
            arguments = json.dumps([count, in_flight, bounds])
            command = [sys.executable, "-c", program, base_url, client_id, UDF, TOKEN, arguments]
            finished = self._run(command, stop_after=stop_after)
        after = server.counts()
        arrived = after.requests - before.requests - 1
        if stop_after:
            count = arrived - 1  # without the batch that it tries first
        elif name in PYTHON_CLIENTS:  # the whole process's, from its start, is not what is compared
            wall, cpu = json.loads(finished.output.splitlines()[-1])
            finished = finished._replace(wall=wall, cpu=cpu)
        if client_id == IN_BATCHES:
            assert arrived == count / 50_000, f"{arrived} requests for {count:,} tiles"
        else:
            assert arrived >= count, f"{arrived:,} of {count:,} tiles arrived"
        sent = Sent(count, finished.wall, finished.cpu, finished.peak, after.connections - before.connections - 1)
        print(f", {sent.rate:,.0f}/s, {sent.connections:,} connections", file=sys.stderr)
        return sent

    def _run(self, command: list[str], *, stop_after: float | None = None) -> Finished:
        """A process from start to end; what it used is the kernel's word, not its own."""
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "HOME": str(self.folder),  # no .netrc, no credentials of the SDK
            "FUSED_AUTH_TOKEN_TYPE": "Fused-Service-Token",
            "FUSED_AUTH_TOKEN": TOKEN,
            "REQUESTS_CA_BUNDLE": str(self.folder / "bundle.pem"),
            # The SDK reads the system's store too. With the authority alone in its place, and certifi's bundle as above, it
            # reads two bundles for each call, as it does out of the box.
            "SSL_CERT_FILE": str(self.folder / "authority.pem"),
        }
        started = time.perf_counter()
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
            timer = threading.Timer(stop_after or 3600, process.kill)
            timer.start()
            try:
                assert process.stdout
                output = process.stdout.read()
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            finally:
                timer.cancel()
                if process.returncode is None:
                    process.kill()
                    process.wait()
            if process.returncode and not stop_after:
                errors.seek(0)
                raise RuntimeError(f"{command[0]} ended with {process.returncode}: {errors.read()[-3000:]}")
        wall = time.perf_counter() - started
        return Finished(output, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / MIB)

    def _wrk(self, base_url: str) -> list[str]:
        script = self.folder / "wrk.lua"
        script.write_text(WRK_SCRIPT.format(token=TOKEN, path=f"/{_delete_url(base_url).split('/', 3)[3]}"))
        return ["wrk", "-t1", "-s", str(script)]

    def _curl(self, base_url: str, count: int) -> list[str]:
        lines = ['request = "DELETE"', f'header = "Authorization: Fused-Service-Token {TOKEN}"']
        for number in range(count):
            query = f"z=15&x={number % 32768}&y={number // 32768}"
            lines += [f'url = "{_delete_url(base_url)}?{query}"', 'output = "/dev/null"']
        configuration = self.folder / "curl.txt"
        configuration.write_text("\n".join(lines))
        return ["curl", "--config", str(configuration), "--no-progress-meter", "--cacert", str(self.folder / "bundle.pem")]


Results = dict[Client, list[Sent]]


def _delete_url(base_url: str) -> str:
    return f"{base_url}/realtime-shared/{TILE_BY_TILE}/udf-cache/by-id/{UDF}/delete"


def _label(client: Client) -> str:
    name, in_flight = client
    return name if in_flight == 1 else f"{name}, {in_flight} in flight"


def bounds_of(width: int, height: int) -> tuple[float, float, float, float]:
    """Bounds that meet exactly ``width`` × ``height`` tiles at zoom 15."""

    def longitude(x: float) -> float:
        return x / 2**15 * 360 - 180

    def latitude(y: float) -> float:
        return math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * y / 2**15))))

    return longitude(8000.5), latitude(12000 + height - 0.5), longitude(8000 + width - 0.5), latitude(12000.5)


def ratio(ours: list[Sent], theirs: list[Sent]) -> float:
    """How many times as fast, round by round, since the two of a round ran side by side."""
    return median(one.rate / other.rate for one, other in zip(ours, theirs))


def rate(sent: list[Sent]) -> float:
    return median(one.rate for one in sent)


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def figure(number: float) -> str:
    """Three digits that count."""
    return f"{number:,.0f}" if number >= 99.5 else f"{number:.3g}"


def target(what: str, found: float, sign: str, wanted: float, unit: str) -> list[str]:
    met = found >= wanted if sign == "≥" else found <= wanted
    return [what, f"{figure(found)} {unit}", f"{sign} {wanted:g} {unit}", "yes" if met else "no"]


def matrix(settings: dict[tuple[str, int], Results], clients: list[Client]) -> str:
    header = ["", *(f"{scheme}, {latency} ms" for scheme, latency in settings)]
    rows = []
    for client in clients:
        cells = [(ratio(found[client], found["SDK", 1]), rate(found[client])) for found in settings.values()]
        rows.append([_label(client), *(f"{figure(times)} × ({figure(a_second)}/s)" for times, a_second in cells)])
    return table(header, rows)


def headline(results: Results) -> str:
    header = ["", "× the SDK", "of wrk", "requests/s", "CPU ms per request", "tiles", "connections"]
    rows = []
    for client, sent in results.items():
        limit = results.get(("wrk", client[1]))
        rows.append(
            [
                _label(client),
                figure(ratio(sent, results["SDK", 1])),
                f"{ratio(sent, limit):.2f}" if limit else "",
                figure(rate(sent)),
                f"{median(one.cpu_milliseconds for one in sent):.2f}",
                f"{sent[-1].tiles:,}",
                f"{sent[-1].connections:,}",
            ]
        )
    return table(header, rows)


def versions(server: Server) -> str:
    found = [f"Python {platform.python_version()}"]
    found += [f"{name} {version(name)}" for name in ("requests", "urllib3", "fused", "orjson")]
    found.append(f"{server.name} as the server")
    for name, option in (("curl", "--version"), ("wrk", "-v")):
        if shutil.which(name):
            said = subprocess.run([name, option], check=False, capture_output=True, text=True).stdout
            found += re.findall(rf"^{name} [\w.]+(?:/[\d.]+)?", said)
        else:
            found.append(f"{name} is not installed and was left out")
    return f"{', '.join(found)}; {os.cpu_count()} cores, everything on loopback."


# -- what is measured ----------------------------------------------------------------------------------------------------


def find_clients(quick: bool) -> list[Client]:
    clients: list[Client] = [("SDK", 1), ("requests.delete", 1), ("Session", 1)]
    clients += [("curl", 32)] if shutil.which("curl") else []
    for in_flight in (32,) if quick else IN_FLIGHT:
        clients += [("wrk", in_flight)] if shutil.which("wrk") else []
        clients.append(("ours", in_flight))  # right after its limit
    return clients


def tile_by_tile(bench: Bench, clients: list[Client]) -> dict[tuple[str, int], Results]:
    """Every client in every setting; that of the targets gets the most tiles and rounds."""
    settings: dict[tuple[str, int], Results] = {}
    for scheme, latency in (("http", 0), ("https", 30)) if bench.quick else itertools.product(("http", "https"), LATENCIES):
        main = (scheme, latency) == ("https", 30)
        if bench.quick:
            counts = {"SDK": 3, "requests.delete": 5, "Session": 20}
            count = 300
        else:
            counts = {"SDK": 50, "requests.delete": 50, "Session": 50 if latency == 100 else 200}
            count = 5000 if main else 1000
        results: Results = {client: [] for client in clients}
        for _ in range(bench.rounds if main else 1):
            for client in clients:
                results[client].append(bench.measure(client, scheme, latency, counts.get(client[0], count)))
        settings[scheme, latency] = results
    return settings


def speed_targets(results: Results) -> list[list[str]]:
    limit = f" (wrk: {figure(ratio(results['wrk', 32], results['SDK', 1]))} ×)" if ("wrk", 32) in results else ""
    rows = [target(f"32 in flight, relative to the SDK{limit}", ratio(results["ours", 32], results["SDK", 1]), "≥", 100, "×")]
    for in_flight, wanted in IN_FLIGHT.items():
        if ("wrk", in_flight) in results:
            found = ratio(results["ours", in_flight], results["wrk", in_flight])
            rows.append(target(f"{in_flight} in flight, relative to wrk", found, "≥", wanted, "×"))
    return rows


def one_after_another(bench: Bench) -> tuple[str, list[list[str]]]:
    clients: Results = {("Session", 1): [], ("ours", 1): []}
    for _ in range(bench.rounds):
        for client, found in clients.items():
            found.append(bench.measure(client, "http", 0, 100 if bench.quick else 2000))
    session, ours = (min(one.cpu_milliseconds for one in found) for found in clients.values())
    text = f"""\
- **CPU per request**, sequential, http, 0 ms, best of {bench.rounds}: {ours / session:.2f} × that of one
  `requests.Session` ({ours:.2f} ms and {session:.2f} ms)."""
    return text, [target("CPU per request, sequential, http, 0 ms", ours, "≤", 0.65, "ms")]


def memory_one_by_one(bench: Bench, million: bool) -> tuple[str, list[list[str]]]:
    some, many = (2000, 4000) if bench.quick else (100_000, 1_000_000)
    stop_after = None if million else 1 if bench.quick else 15
    first = bench.measure(("ours", 32), "https", 0, some)
    second = bench.measure(("ours", 32), "https", 0, many, stop_after=stop_after)
    end = f"stopped after {stop_after} s, {second.tiles:,} tiles in; `--million` sends all" if stop_after else "all of them"
    text = f"""\
- **Memory, one by one**, 32 in flight, https, 0 ms: {first.peak:.1f} MiB peak for {some:,} tiles
  ({first.rate:,.0f}/s over {first.connections} connections), {second.peak:.1f} MiB for {many:,} ({end})."""
    return text, [
        target(f"peak memory, {some:,} tiles one by one", first.peak, "≤", 40, "MiB"),
        target(f"peak memory, {many:,} tiles one by one", second.peak, "≤", 45, "MiB"),
    ]


def batches(bench: Bench) -> tuple[str, list[list[str]]]:
    count = 1_000_000
    clients: Results = {("ours", 16): [], ("orjson", 1): []}
    for _ in range(bench.rounds):
        for client, found in clients.items():
            area = bounds_of(1000, 1000) if client[0] == "ours" else ()
            found.append(bench.measure(client, "https", 30, count, client_id=IN_BATCHES, bounds=area))
    times = median(ours.cpu / theirs.cpu for ours, theirs in zip(*clients.values()))
    ours, theirs = ([1000 * median(one.cpu for one in found), median(one.wall for one in found)] for found in clients.values())
    text = f"""\
- **Batches**, https, 30 ms: {count:,} tiles of bounds at zoom 15 are 20 requests. Computing, encoding and sending
  them takes {times:.2f} × the CPU of `orjson.dumps` on ready-made lists with a bare session
  ({ours[0]:.0f} ms and {theirs[0]:.0f} ms), in {ours[1]:.2f} s beside {theirs[1]:.2f} s."""
    return text, [target(f"{count:,} tiles of bounds in batches, CPU relative to orjson", times, "≤", 2.5, "×")]


def memory_in_batches(bench: Bench) -> tuple[str, list[list[str]]]:
    width, height = (1000, 1000) if bench.quick else (4000, 2500)
    areas = ((250, 200), (width, height))
    few, many = (
        bench.measure(("ours", 16), "https", 0, wide * high, client_id=IN_BATCHES, bounds=bounds_of(wide, high))
        for wide, high in areas
    )
    text = f"""\
- **Memory in batches**: {few.peak:.1f} MiB peak for {few.tiles:,} tiles of bounds,
  {many.peak:.1f} MiB for {many.tiles:,}."""
    return text, [
        target(f"peak memory, {many.tiles:,} tiles in batches, in excess of 50,000", many.peak - few.peak, "≤", 40, "MiB")
    ]


def report(bench: Bench, million: bool) -> str:
    clients = find_clients(bench.quick)
    settings = tile_by_tile(bench, clients)
    best = settings["https", 30]
    details = [one_after_another(bench), memory_one_by_one(bench, million), batches(bench), memory_in_batches(bench)]
    targets = speed_targets(best) + [row for _, rows in details for row in rows]
    names = dict(clients)
    described = "\n".join(f"- **{name}**: {text}." for name, text in DESCRIPTIONS.items() if name in names)
    bullets = "\n".join(text for text, _ in details)
    warning = "\n**The quick smoke test: its figures mean little.**\n" if bench.quick else ""
    return f"""## Invalidations on the wire
{warning}
{versions(bench.server)}

The ratios are what matters: the clients took turns on the same machine, each in its own process. The times exclude
imports and the SDK's lookups. They include connections and certificates, with a certificate bundle of realistic size.
The sequential loops got fewer tiles. The server counted every tile.

### One request per tile, https, 30 ms until the server responds

Medians; rounds: {bench.rounds}.

{headline(best)}
{described}

Connections: the SDK's lookups used three of their own, and wrk makes an extra one to test the address.

### Targets

{table(["", "measured", "target", "met"], targets)}
### Other latencies, and plain http

Speed relative to the SDK's loop, and requests per second, for {"300" if bench.quick else "1,000"} tiles (fewer for the loops).
The times include connecting, which matters when so little is sent. https at 30 ms repeats the table above.

{matrix(settings, clients)}
### Batches, memory, CPU

{bullets}

To reproduce:

```sh
python benchmarks/sending.py --write docs/measurements.md  # takes minutes; --quick takes seconds
```

Clients that are not installed are skipped. nginx needs its `echo` module (Debian: `libnginx-mod-http-echo`) to delay
its responses. Without it, an asyncio server is used instead.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke test of a few seconds")
    parser.add_argument("--million", action="store_true", help="send all of the million tiles one by one")
    parser.add_argument("--write", type=Path, metavar="PATH", help="write the results as a page of Markdown")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers stop too
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        loopback = Path(__file__).with_name("loopback.py")
        subprocess.run([sys.executable, str(loopback), "certificates", str(folder)], check=True)
        server = batch_server = stack.enter_context(run_asyncio(folder, LATENCIES))
        if not options.quick and find_nginx():
            server = stack.enter_context(run_nginx(folder, LATENCIES))
        page = report(Bench(folder, server, batch_server, options.quick), options.million)
    print(page)
    if options.write:
        write_section(options.write, "sending", page)


if __name__ == "__main__":
    main()
