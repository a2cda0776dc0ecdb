"""The recipes for CDNs: what they send, to a stand-in that keeps what it received."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from fused_cache_ops.emulator import Emulator

PAGE = (Path(__file__).parents[2] / "docs/cdn.md").read_text()
CODE = dict(re.findall(r'^```python title="(\w+)\.py"\n(.*?)^```$', PAGE, re.DOTALL | re.MULTILINE))


class Service:
    """A stand-in for the API of a CDN."""

    def __init__(self) -> None:
        self.received: list[tuple[str, dict[str, str], Any]] = []
        self.status = 200
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.received.append((self.path, dict(self.headers), body))
                self.send_response(service.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    thread = threading.Thread(target=service.server.serve_forever, args=[0.01])
    thread.start()
    yield service
    service.server.shutdown()
    thread.join()
    service.server.server_close()


def function(recipe: str, name: str, service: Service | None = None) -> Any:
    code = CODE[recipe]
    if service is not None:
        code, count = re.subn(r"https://api\.\w+\.com", service.url, code)
        assert count == 1
    names: dict[str, Any] = {}
    exec(compile(code, recipe, "exec"), names)
    return names[name]


ADDRESSES = [f"https://maps.example.com/roads/14/7942/{row}.png" for row in range(250)]


def test_cloudflare_is_sent_a_hundred_addresses_at_a_time(service: Service) -> None:
    function("cloudflare", "purge_cloudflare", service)(ADDRESSES, "zone-1", "s3cret")
    assert [path for path, _, _ in service.received] == ["/client/v4/zones/zone-1/purge_cache"] * 3
    assert [header["Authorization"] for _, header, _ in service.received] == ["Bearer s3cret"] * 3
    sent = [body["files"] for _, _, body in service.received]
    assert [len(files) for files in sent] == [100, 100, 50]
    assert [address for files in sent for address in files] == ADDRESSES


def test_fastly_is_sent_256_keys_at_a_time(service: Service) -> None:
    keys = [f"roads/14/7942/{row}" for row in range(300)]
    function("fastly", "purge_fastly", service)(keys, "service-1", "s3cret")
    assert [path for path, _, _ in service.received] == ["/service/service-1/purge"] * 2
    assert [header["Fastly-Key"] for _, header, _ in service.received] == ["s3cret"] * 2
    assert [key for _, _, body in service.received for key in body["surrogate_keys"]] == keys
    assert len(service.received[0][2]["surrogate_keys"]) == 256


@pytest.mark.parametrize(("recipe", "name"), [("cloudflare", "purge_cloudflare"), ("fastly", "purge_fastly")])
def test_a_purge_that_is_refused_fails_so_that_nothing_is_announced(service: Service, recipe: str, name: str) -> None:
    service.status = 429
    with pytest.raises(requests.HTTPError, match="429"):
        function(recipe, name, service)(ADDRESSES, "x", "s3cret")
    assert len(service.received) == 1


def test_cloudfront_is_waited_for_before_more_paths_are_sent() -> None:
    calls: list[tuple[Any, ...]] = []

    def create(**given: Any) -> dict[str, Any]:
        batch = given["InvalidationBatch"]
        assert batch["Paths"]["Quantity"] == len(batch["Paths"]["Items"])
        calls.append(("create", given["DistributionId"], batch["Paths"]["Items"], batch["CallerReference"]))
        return {"Invalidation": {"Id": f"I{len(calls)}"}}

    def waiter(name: str) -> Any:
        return SimpleNamespace(wait=lambda **given: calls.append((name, given)))

    client = SimpleNamespace(create_invalidation=create, get_waiter=waiter)
    addresses = [f"https://maps.example.com/roads/14/1/{row}.png" for row in range(3001)]
    function("cloudfront", "purge_cloudfront")(addresses, "E1", client)
    assert [call[0] for call in calls] == ["create", "invalidation_completed"] * 2
    assert calls[0][2][0] == "/roads/14/1/0.png"
    assert len(calls[0][2]) == 3000
    assert calls[1][1] == {"DistributionId": "E1", "Id": "I1"}
    assert calls[0][3] != calls[2][3]


def test_the_cdn_is_purged_between_the_invalidation_and_the_announcement(
    fused_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    udf = fused_emulator.register(lambda **tile: tile, name="roads")
    fused_emulator.fill_cache(udf, [(10, 485, 392), (10, 0, 0)])
    code = CODE["after_load"].rpartition("\n\n\n")[0]
    names: dict[str, Any] = {}
    exec(compile(code, "after_load", "exec"), names)
    seen: list[tuple[list[str], bool, bool]] = []

    def purge(addresses: list[str]) -> None:
        seen.append((addresses, (10, 485, 392) in fused_emulator.cached_tiles(udf), Path("roads.json").exists()))

    names["refresh_map"]({"tiles": ["10/485/392"]}, purge)
    assert seen == [(["https://maps.example.com/roads/10/485/392.png"], False, False)]
    assert json.loads(Path("roads.json").read_text())["changes"][0]["tiles"] == ["10/485/392"]
    assert fused_emulator.cached_tiles(udf) == {(10, 0, 0)}
