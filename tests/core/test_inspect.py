"""What could keep a map stale: the report, as a client and as the command line give it."""

import json
import pickle
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fused_cache_ops import FusedClient, UdfReport
from fused_cache_ops.cli.commands import program
from fused_cache_ops.cli.report import report_table
from fused_cache_ops.code.calls import age_in_seconds, read_source
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.errors import (
    AuthenticationError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    UnexpectedResponseError,
)
from fused_cache_ops.service.canvases import read_canvas, read_udf
from fused_cache_ops.udf_reference import parse_udf

runner = CliRunner()

MAP = """
import fused

@fused.udf(cache_max_age="1h")
def udf(bounds, style="plain"):
    parcels = fused.load("parcels")
    fused.run("team/shared_styles")
    fused.load(style)
    return parcels(bounds=bounds)
"""

PARCELS = """
@fused.udf
def udf(bounds):
    @fused.cache(cache_max_age="12h")
    def read():
        return fused.run("raw")

    return fused.submit("clean", [read()])
"""


@pytest.fixture
def parcels(fused_emulator: Emulator) -> Udf:
    """A UDF with a caller and two callees, in a team canvas whose maps run on another instance."""
    fused_emulator.add_instance("fused-shared", 1)
    fused_emulator.add_canvas("maps", access_scope="team", share_client_id="fused-shared")
    register(fused_emulator, "map", MAP)
    register(fused_emulator, "raw", "@fused.udf(cache_max_age=0)\ndef udf():\n    return 1\n")
    register(fused_emulator, "clean", "@fused.udf\ndef udf(table):\n    return table\n")
    return register(fused_emulator, "parcels", PARCELS)


@pytest.fixture
def inspecting(fused_emulator: Emulator) -> FusedClient:
    """A client that does not know its instance."""
    return FusedClient(deadline=20)


def register(emulator: Emulator, name: str, code: str, canvas: str = "maps") -> Udf:
    return emulator.register(lambda **parameters: parameters, name=name, canvas=canvas, code=code)


def test_the_report_names_all_that_could_keep_the_map_stale(inspecting: FusedClient, parcels: Udf) -> None:
    report = inspecting.inspect("maps/parcels")
    assert (report.udf_id, report.name, report.canvas) == (parcels.id, "parcels", "maps")
    assert (report.client_ids, report.share_client_id, report.map_is_reached) == (
        ("fused-team", "fused-shared"),
        "fused-shared",
        True,
    )
    assert report.access_scope == "team"
    assert report.callers is not None
    assert report.callees is not None
    assert [(each.name, each.level, each.cache_max_age) for each in report.callers] == [("map", 1, 3600)]
    assert [(each.name, each.level, each.cache_max_age) for each in report.callees] == [("clean", 1, None), ("raw", 1, 0)]
    assert report.cache_max_age is None
    assert [(each.kind, each.udf, each.function, each.line, each.max_age) for each in report.inner_caches] == [
        ("@fused.cache", "parcels", "read", 4, 43200),
        ("fused.submit", "parcels", "udf", 8, None),
    ]
    assert [str(each) for each in report.outside] == ["map, line 7: 'team/shared_styles' (the team's canvas 'default')"]
    assert [(each.udf, each.line) for each in report.unknown] == [("map", 8)]
    assert str(report) == ("UDF parcels: 1 caller, 2 callees, 2 inner caches, 1 call out of the canvas, 1 thing not known")


def test_a_report_takes_three_requests_and_none_that_changes_anything(
    fused_emulator: Emulator, inspecting: FusedClient, parcels: Udf
) -> None:
    for udf in (parcels.id, "maps/parcels", parcels.shared_token):
        with FusedClient() as client:
            fused_emulator.forget_requests()
            assert client.inspect(udf).udf_id == parcels.id
        assert [request.method for request in fused_emulator.requests] == ["GET"] * 3


def test_with_a_configured_instance_a_report_takes_two_requests(
    fused_emulator: Emulator, client: FusedClient, parcels: Udf
) -> None:
    report = client.inspect(parcels.id)
    assert len(fused_emulator.requests) == 2
    assert (report.client_ids, report.map_is_reached) == (("fused-team",), False)
    assert "maps run on fused-shared, fused-team is invalidated" in str(report)


def test_a_report_is_json_and_its_fields_are_all_there(inspecting: FusedClient, parcels: Udf) -> None:
    report = inspecting.inspect(parcels.id)
    fields = json.loads(json.dumps(report.to_dict()))
    assert set(fields) == {*UdfReport.__dataclass_fields__, "map_is_reached"}
    assert fields == report.to_dict()
    assert pickle.loads(pickle.dumps(report)) == report


def test_callees_are_listed_in_the_order_of_invalidation(fused_emulator: Emulator, inspecting: FusedClient) -> None:
    for name, callee in (("a", "b"), ("b", "c"), ("c", None)):
        register(fused_emulator, name, f"fused.load({callee!r})" if callee else "")
    report = inspecting.inspect("maps/a")
    assert [(each.name, each.level) for each in report.callees or ()] == [("c", 2), ("b", 1)]


def test_a_udf_without_relatives_and_caches_has_an_empty_report(fused_emulator: Emulator, inspecting: FusedClient) -> None:
    fused_emulator.add_canvas("maps", access_scope="public", share_client_id="fused-team")
    register(fused_emulator, "alone", "@fused.udf\ndef udf():\n    return 1\n")
    report = inspecting.inspect("maps/alone")
    assert report.callers == report.callees == report.inner_caches == report.unknown == report.outside == ()
    assert report.map_is_reached is True
    assert str(report) == "UDF alone: nothing found that could keep its map stale"


def test_an_unknown_name_of_any_udf_of_the_canvas_may_be_a_call_of_this_one(
    fused_emulator: Emulator, inspecting: FusedClient, parcels: Udf
) -> None:
    register(fused_emulator, "other", "def udf(name):\n    fused.load(name)\n")
    register(fused_emulator, "broken", "def udf(:\n")
    assert {"other", "broken"} <= {each.udf for each in inspecting.inspect(parcels.id).unknown}


def test_udfs_of_other_canvases_are_never_read(fused_emulator: Emulator, inspecting: FusedClient, parcels: Udf) -> None:
    register(fused_emulator, "foreign", 'fused.load("parcels")', canvas="elsewhere")
    report = inspecting.inspect(parcels.id)
    assert "foreign" not in json.dumps(report.to_dict())


def test_shared_tokens_in_code_are_masked(fused_emulator: Emulator, inspecting: FusedClient) -> None:
    code = 'fused.run("fsh_verysecret")\nfused.load("https://udf.ai/fc_verysecret/udf")\n'
    udf = register(fused_emulator, "leaky", code)
    report = inspecting.inspect(udf.id)
    assert [each.name for each in report.outside] == ["fsh_********", "https://udf.ai/fc_********"]
    assert "verysecret" not in repr(report) + json.dumps(report.to_dict()) + str(report)


# -- what the token may not see ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [403, 404])
def test_a_canvas_that_may_not_be_read_is_named_and_the_rest_is_reported(
    fused_emulator: Emulator, inspecting: FusedClient, parcels: Udf, status: int
) -> None:
    fused_emulator.misbehave(status=status, path="/collection/by-id", times=None)
    report = inspecting.inspect(parcels.id)
    assert report.callers is report.callees is report.access_scope is report.share_client_id is report.map_is_reached is None
    assert (report.client_ids, report.canvas, len(report.inner_caches)) == (("fused-team",), "maps", 2)
    reasons = [str(each) for each in report.unknown]
    assert reasons[0].startswith(f"This token may not read the canvas 'maps' ({status}), so ")
    assert reasons[1].startswith("parcels, line 6: 'raw' cannot be looked up")


def test_instances_that_may_not_be_listed_are_named(fused_emulator: Emulator, inspecting: FusedClient, parcels: Udf) -> None:
    fused_emulator.misbehave(status=403, path="realtime-instance", times=None)
    report = inspecting.inspect(parcels.id)
    assert (report.client_ids, report.map_is_reached) == (("fused-shared",), True)
    assert "This token may not list real-time instances (403)" in [str(each) for each in report.unknown]


def test_a_token_without_an_instance_is_named(fused_emulator: Emulator, inspecting: FusedClient, parcels: Udf) -> None:
    fused_emulator.misbehave(status=200, body=[], path="realtime-instance", times=None)
    assert any("has no real-time instance" in each.reason for each in inspecting.inspect(parcels.id).unknown)


def test_a_udf_that_may_not_be_seen_is_an_error(inspecting: FusedClient) -> None:
    with pytest.raises(NotFoundError):
        inspecting.inspect("maps/nowhere")


def test_a_reference_that_cannot_be_read_is_an_error_before_any_request(
    fused_emulator: Emulator, inspecting: FusedClient
) -> None:
    with pytest.raises(InvalidInputError):
        inspecting.inspect("")
    assert fused_emulator.requests == []


def test_transient_trouble_with_the_canvas_is_retried(fused_emulator: Emulator, inspecting: FusedClient, parcels: Udf) -> None:
    fused_emulator.misbehave(status=503, path="/collection/by-id", times=2)
    assert inspecting.inspect(parcels.id).access_scope == "team"


def test_trouble_that_stays_is_an_error_and_never_a_report_with_gaps(fused_emulator: Emulator, parcels: Udf) -> None:
    fused_emulator.misbehave(status=503, path="/collection/by-id", times=None)
    with FusedClient(deadline=0.5) as client, pytest.raises(UnavailableError):
        client.inspect(parcels.id)


def test_a_token_that_expired_is_an_error(fused_emulator: Emulator, inspecting: FusedClient, parcels: Udf) -> None:
    fused_emulator.misbehave(status=401, path="/collection/by-id", times=None)
    with pytest.raises(AuthenticationError):
        inspecting.inspect(parcels.id)


# -- records ----------------------------------------------------------------------------------------------------------


def answering(monkeypatch: pytest.MonkeyPatch, client: FusedClient, answer: object) -> Any:
    service = client._service
    monkeypatch.setattr(service, "_request", lambda *_, **__: answer)
    return service


@pytest.mark.parametrize(
    "record",
    [
        {"id": "1"},
        {"id": "1", "slug": None, "udf_body": None, "collection_id": None, "collection_name": None},
        {"id": "1", "udf_body": "not JSON"},
        {"id": "1", "udf_body": "[" * 100_000},
        {"id": "1", "udf_body": "[]"},
        {"id": "1", "udf_body": json.dumps({"code": 1, "entrypoint": 2, "cache_max_age": "x", "headers": 3})},
        {"id": "1", "udf_body": json.dumps({"cache_max_age": True, "headers": []})},
    ],
)
def test_a_udf_needs_only_its_id(monkeypatch: pytest.MonkeyPatch, client: FusedClient, record: dict[str, Any]) -> None:
    service = answering(monkeypatch, client, record)
    udf = read_udf(service, parse_udf("roads"), retrier=service.start())
    assert udf.id == "1"
    assert (udf.name, udf.code, udf.canvas_id, udf.max_age, udf.modules) == (None, None, None, None, ())


def test_a_udf_without_a_canvas_is_reported_as_such(monkeypatch: pytest.MonkeyPatch, client: FusedClient) -> None:
    answering(monkeypatch, client, {"id": "1", "slug": "roads"})
    report = client.inspect("roads")
    assert report.callers is None
    assert report.unknown[0].reason.startswith("The service does not say which canvas the UDF is in")
    assert str(report.unknown[1]) == "roads: the service did not return the code"


def test_what_was_saved_with_a_udf_is_read_from_its_body(monkeypatch: pytest.MonkeyPatch, client: FusedClient) -> None:
    body = {"name": "roads", "code": "1", "entrypoint": "main", "cache_max_age": 60, "headers": [{"module_name": "h"}, 3]}
    for text in (json.dumps(body), body):
        service = answering(monkeypatch, client, {"id": "1", "udf_body": text})
        udf = read_udf(service, parse_udf("roads"), retrier=service.start())
        assert (udf.name, udf.code, udf.entrypoint, udf.max_age, udf.modules) == ("roads", "1", "main", 60, ("h", "?"))


def test_a_canvas_needs_nothing(monkeypatch: pytest.MonkeyPatch, client: FusedClient) -> None:
    service = answering(monkeypatch, client, {})
    canvas = read_canvas(service, "c", retrier=service.start())
    assert (canvas.id, canvas.name, canvas.access_scope, canvas.share_client_id, canvas.udfs) == ("c", None, None, None, None)


@pytest.mark.parametrize(
    "record",
    [
        None,
        [],
        "text",
        {"udfs": {}},
        {"udfs": [3]},
        {"udfs": [{}]},
        {"share_client_id": 5},
        {"share_client_id": "a/b"},
        {"name": []},
    ],
)
def test_a_malformed_canvas_is_an_error(monkeypatch: pytest.MonkeyPatch, client: FusedClient, record: object) -> None:
    service = answering(monkeypatch, client, record)
    with pytest.raises(UnexpectedResponseError, match=r"base_url|share_client_id"):
        read_canvas(service, "c", retrier=service.start())


def everything_about(error: BaseException) -> str:
    """An error as tools show it, with the locals of every frame of ours. The first frame is the test's."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    shown.stack = traceback.StackSummary.from_list(list(shown.stack)[1:])
    return "".join(shown.format())


def test_a_malformed_canvas_shows_neither_its_token_nor_its_passcode(
    fused_emulator: Emulator, inspecting: FusedClient, parcels: Udf
) -> None:
    body = {"share_token": "fc_verysecret", "passcode": "verysecret", "name": 5}
    for answer in (body, [body], json.dumps(body)):
        fused_emulator.misbehave(status=200, body=answer, path="/collection/by-id")
        with pytest.raises(UnexpectedResponseError) as caught:
            inspecting.inspect(parcels.id)
        assert "verysecret" not in everything_about(caught.value)


def test_a_canvas_that_is_not_json_shows_neither_its_token_nor_its_passcode(fused_emulator: Emulator) -> None:
    text = '{"share_token": "fc_verysecret", "passcode": "verysecret"'
    response = f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(response)

        thread = threading.Thread(target=answer)
        thread.start()
        with FusedClient(base_url=f"http://127.0.0.1:{server.getsockname()[1]}/server/v1", deadline=20) as client:
            service = client._service
            with pytest.raises(UnexpectedResponseError, match=r"Is base_url right") as caught:
                read_canvas(service, "c", retrier=service.start())
        thread.join()
    assert caught.value.status == 200
    assert "verysecret" not in everything_about(caught.value)


@pytest.mark.parametrize("canvas_id", ["..", "a/b", "a?b"])
def test_an_id_that_would_change_the_address_is_never_requested(client: FusedClient, canvas_id: str) -> None:
    with pytest.raises(UnexpectedResponseError, match="collection_id"):
        read_canvas(client._service, canvas_id, retrier=client._service.start())


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_the_report_as_json(parcels: Udf) -> None:
    done = runner.invoke(program, ["inspect", "maps/parcels", "--json"])
    assert done.exit_code == 0
    with FusedClient() as client:
        assert json.loads(done.stdout) == client.inspect(parcels.id).to_dict()


def test_the_table_names_everything_within_eighty_columns(inspecting: FusedClient, parcels: Udf) -> None:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(report_table(inspecting.inspect(parcels.id)))
    shown = captured.get()
    assert max(map(len, shown.splitlines())) <= 80
    for expected in ("map", "raw", "clean", "level 1", "read()", "team/shared_styles", "line 8", parcels.id):
        assert expected in shown


def test_the_table_of_what_may_not_be_seen_says_so(fused_emulator: Emulator, parcels: Udf) -> None:
    fused_emulator.misbehave(status=403, path="/collection/by-id", times=None)
    done = runner.invoke(program, ["inspect", "maps/parcels"])
    assert done.exit_code == 0
    assert "This token may not read the canvas" in done.stdout


@pytest.mark.parametrize(("fault", "code"), [({"status": 404}, 1), ({"status": 503}, 75)])
def test_the_command_ends_as_the_others_do(fused_emulator: Emulator, parcels: Udf, fault: dict[str, int], code: int) -> None:
    fused_emulator.misbehave(**fault, path="/udf/", times=None)
    done = runner.invoke(program, ["inspect", "maps/parcels", "--deadline", "0.3"])
    assert done.exit_code == code


# -- Fused's own SDK is the judge -------------------------------------------------------------------------------------

AGES = """
import json, sys
from fused.models.udf import Udf
ages = []
for decorator in json.loads(sys.argv[1]):
    code = f"import fused\\nAGE = '2h'\\n{decorator}\\ndef udf():\\n    return 1\\n"
    try:
        ages.append(Udf(name="u", entrypoint="udf", code=code).cache_max_age)
    except Exception:
        ages.append("refused")
print(json.dumps(ages))
"""


def test_ages_are_read_as_the_sdk_reads_them(run_python: Callable[..., str]) -> None:
    written = ["'2h'", "'2H '", "30", "0", "'45s'", "'3d'", "'10m'", "None", "AGE", "'30'", "'2 hours'", "'1h '", "-1"]
    # The SDK also takes "0", though not in this place.
    theirs = json.loads(run_python(AGES, json.dumps([f"@fused.udf(cache_max_age={age})" for age in written])))
    ours = [None if age == "AGE" else age_in_seconds(eval(age)) for age in written]
    assert ours == [None if age == "refused" else age for age in theirs]


KEPT = """
import json, sys, warnings
warnings.simplefilter("ignore")
import fused
import fused._submit as submitting
from fused.models.udf import Udf

u = Udf(name="u", entrypoint="udf", code="@fused.udf\\ndef udf(n):\\n    return n\\n")
kept = []
keep = []

def cache(function, **options):
    keep.append(True)
    return function

def run(udf, arguments, *, run_cache_max_age, **options):
    made = submitting._make_run_cache_fn(run, u, run_cache_max_age, None, None, None)
    keep.append(made is not run)

def wrap(**options):
    return lambda function: function

submitting._submit_internal = run
for call in json.loads(sys.argv[1]):
    keep.clear()
    submitting.fused_cache = lambda *functions, **options: cache(*functions, **options) if functions else wrap(**options)
    eval(call)
    kept.append(any(keep))
print(json.dumps(kept))
"""


def test_client_side_caches_are_found_where_the_sdk_keeps_results(run_python: Callable[..., str]) -> None:
    options = ["", "cache=False", "cache_max_age=0", "cache_max_age='1h'", "run_cache_max_age=0", "run_cache_max_age='1h'"]
    options += ["cache_max_age=0, run_cache_max_age='1h'", "cache_max_age='1h', run_cache_max_age=0", "cache_max_age=None"]
    options += ["cache=False, run_cache_max_age='1h'"]
    callees = [
        "fused.submit('x', [{{'n': 1}}], {})",
        "fused.submit(u, [{{'n': 1}}], {})",
        "fused.submit(u, [{{'n': 1}}], collect=False, {})",
        "u.map([{{'n': 1}}], {})",
    ]
    calls = [callee.format(option) for callee in callees for option in options]
    theirs = json.loads(run_python(KEPT, json.dumps(calls)))
    ours = [bool(read_source(f"u = fused.load('x')\n{call}").caches) for call in calls]
    assert dict(zip(calls, ours)) == dict(zip(calls, theirs))


@pytest.fixture
def run_python() -> Callable[..., str]:
    def run(code: str, *arguments: str) -> str:
        done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    return run
