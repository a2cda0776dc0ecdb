"""The emulator: every endpoint with its scopes and errors, UDFs that run and are cached, and misbehavior on demand."""

import json
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import requests

from fused_cache_ops.emulator import Emulator, Udf


def call(emulator: Emulator, method: str, path: str, token: str | None = None, **options: Any) -> requests.Response:
    token = f"Fused-Service-Token {emulator.token}" if token is None else token
    header = {"Authorization": token} if token else {}
    return requests.request(method, emulator.base_url + path, headers=header, timeout=120, allow_redirects=False, **options)


def bearer(emulator: Emulator) -> str:
    return f"Bearer {emulator.bearer_token}"


def purge_path(udf: Udf, action: str = "delete", client_id: str = "fused-team") -> str:
    return f"/realtime-shared/{client_id}/udf-cache/by-id/{udf.id}/{action}"


def test_a_user_endpoint_answers_a_user_and_refuses_a_service_token(fused_emulator: Emulator) -> None:
    assert call(fused_emulator, "GET", "/user/self").status_code == 403
    assert call(fused_emulator, "GET", "/user/self", bearer(fused_emulator)).json() == {"email": "me@example.com"}


@pytest.mark.parametrize("path", ["/user/self", "/execution-env/self", "/realtime-instance/available", "/udf/by-id/x"])
@pytest.mark.parametrize("token", ["", "x", "Fused-Service-Token wrong", "Basic {token}", "Bearer {token}"])
def test_bad_credentials_are_401(fused_emulator: Emulator, path: str, token: str) -> None:
    answer = call(fused_emulator, "GET", path, token.format(token=fused_emulator.token))
    assert answer.status_code == 401
    assert isinstance(answer.json()["detail"], str)


def test_the_scheme_may_be_in_lower_case(fused_emulator: Emulator) -> None:
    token = f"fused-service-token {fused_emulator.token}"
    assert call(fused_emulator, "GET", "/execution-env/self", token).json()["name"] == "team"


def test_instances_are_listed_with_their_ranks(fused_emulator: Emulator) -> None:
    fused_emulator.store.add_instance("unranked", fused_emulator.environment_id, None)
    listed = call(fused_emulator, "GET", "/realtime-instance/available").json()
    assert [(entry["client_id"], entry.get("preference_rank")) for entry in listed] == [
        ("fused-team", 5),
        ("unranked", None),
    ]
    assert "preference_rank" not in listed[1]


@pytest.mark.parametrize(
    "path",
    [
        "/udf/by-id/{0.id}",
        "/udf/exec-env/self/by-slug/roads",
        "/udf/exec-env/self/by-collection/default/by-slug/roads",
        "/udf/shared/by-token/{0.shared_token}",
    ],
)
def test_a_teams_udf_is_found_by_every_look_up(fused_emulator: Emulator, udf: Udf, path: str) -> None:
    record = call(fused_emulator, "GET", path.format(udf)).json()
    assert (record["id"], record["slug"], record["collection_name"]) == (udf.id, "roads", "default")
    assert json.loads(record["udf_body"])["type"] == "geopandas_v2"


@pytest.mark.parametrize("who", ["by-user-email/me@example.com", "by-user-handle/me"])
@pytest.mark.parametrize("canvas", ["", "/by-collection/default"])
def test_a_users_udf_is_found_by_email_and_handle(fused_emulator: Emulator, who: str, canvas: str) -> None:
    udf = fused_emulator.register(dict, name="mine", email="me@example.com")
    assert call(fused_emulator, "GET", f"/udf/{who}{canvas}/by-slug/mine").json()["id"] == udf.id
    assert call(fused_emulator, "GET", "/udf/exec-env/self/by-slug/mine").status_code == 404


def test_udfs_are_listed_in_pages(fused_emulator: Emulator) -> None:
    for name in "abcde":
        fused_emulator.register(dict, name=name)
    listed = call(fused_emulator, "GET", "/udf/exec-env/self", params={"skip": 1, "limit": 3}).json()
    assert [record["slug"] for record in listed] == ["b", "c", "d"]


def test_another_teams_udf_is_not_visible(fused_emulator: Emulator, udf: Udf) -> None:
    other = fused_emulator.store.add_environment("other")
    token = f"Fused-Service-Token {fused_emulator.store.add_token(other)}"
    assert call(fused_emulator, "GET", f"/udf/by-id/{udf.id}", token).status_code == 404
    assert call(fused_emulator, "DELETE", purge_path(udf), token).status_code == 404


def test_deleting_everything_and_one_tile(fused_emulator: Emulator, udf: Udf) -> None:
    answer = call(fused_emulator, "DELETE", purge_path(udf), params={"z": 1, "x": 0, "y": 1})
    assert (answer.status_code, answer.content) == (204, b"")
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 0), (1, 1, 0), (1, 1, 1)}
    assert call(fused_emulator, "DELETE", purge_path(udf)).status_code == 204
    assert fused_emulator.cached_tiles(udf) == set()


@pytest.mark.parametrize("query", [{"z": 1}, {"z": 1, "x": 0}, {"x": 0, "y": 0}, {"z": "a", "x": 0, "y": 0}, {"z": ""}])
def test_a_partial_or_unreadable_tile_is_422_and_deletes_nothing(
    fused_emulator: Emulator, udf: Udf, query: dict[str, Any]
) -> None:
    answer = call(fused_emulator, "DELETE", purge_path(udf), params=query)
    assert answer.status_code == 422
    assert set(answer.json()["detail"][0]) >= {"loc", "msg", "type"}
    assert len(fused_emulator.cached_tiles(udf)) == 4


def test_deleting_needs_write_access_a_known_instance_and_a_known_udf(fused_emulator: Emulator, udf: Udf) -> None:
    reader = fused_emulator.store.add_token(fused_emulator.environment_id, may_write=False)
    assert call(fused_emulator, "DELETE", purge_path(udf), f"Fused-Service-Token {reader}").status_code == 403
    assert call(fused_emulator, "DELETE", purge_path(udf, client_id="elsewhere")).status_code == 404
    unknown = purge_path(udf).replace(udf.id, str(uuid.uuid4()))
    assert call(fused_emulator, "DELETE", unknown).status_code == 404
    assert len(fused_emulator.cached_tiles(udf)) == 4


def test_a_batch_counts_different_tiles_and_objects(fused_emulator: Emulator, udf: Udf) -> None:
    for year in ("2025", "2026"):  # one tile holds an object for each set of parameters
        requests.get(fused_emulator.tile_url(udf, 3, 1, 1), params={"year": year}, timeout=120)
    tiles = [{"z": 3, "x": 1, "y": 1}, {"z": 3, "x": 1, "y": 1}, {"z": 1, "x": 0, "y": 0}, {"z": 9, "x": 9, "y": 9}]
    answer = call(fused_emulator, "POST", purge_path(udf, "batch-delete"), json={"tiles": tiles})
    assert answer.json() == {"udf_id": udf.id, "tiles_requested": 3, "objects_deleted": 3}


@pytest.mark.parametrize("tiles", [[], [{"z": 0, "x": 0, "y": 0}] * 50_001, [{"z": 0}], [[0, 0, 0]], "x", None])
def test_a_batch_that_is_none_is_422(fused_emulator: Emulator, udf: Udf, tiles: Any) -> None:
    answer = call(fused_emulator, "POST", purge_path(udf, "batch-delete"), json={"tiles": tiles})
    assert answer.status_code == 422


def test_a_deployment_without_the_batch_endpoint_answers_404() -> None:
    with Emulator(batch_endpoint=False) as emulator:
        udf = emulator.register(dict, name="roads")
        body = {"tiles": [{"z": 0, "x": 0, "y": 0}]}
        assert call(emulator, "POST", purge_path(udf, "batch-delete"), json=body).status_code in (404, 405)


def test_a_udf_runs_once_and_is_then_answered_from_the_cache(fused_emulator: Emulator) -> None:
    calls = []
    udf = fused_emulator.register(lambda **parameters: calls.append(parameters) or len(calls), name="counter")
    url = fused_emulator.tile_url(udf, 3, 2, 1)
    first, second = requests.get(url, timeout=120), requests.get(url, timeout=120)
    assert (first.json(), first.headers["x-cache"]) == (1, "Miss")
    assert (second.json(), second.headers["x-cache"]) == (1, "Hit")
    assert calls == [{"z": 3, "x": 2, "y": 1}]


def test_parameters_make_results_of_their_own(fused_emulator: Emulator) -> None:
    udf = fused_emulator.register(lambda **parameters: parameters, name="echo")
    url = f"{fused_emulator.root_url}/{udf.shared_token}"
    assert requests.get(url, params={"year": "2025"}, timeout=120).json() == {"year": "2025"}
    assert requests.get(url, params={"year": "2026"}, timeout=120).headers["x-cache"] == "Miss"
    assert requests.get(f"{url}.json", params={"year": "2025"}, timeout=120).headers["x-cache"] == "Hit"


def test_cache_max_age_forces_a_run(fused_emulator: Emulator) -> None:
    udf = fused_emulator.register(dict, name="empty")
    url = fused_emulator.tile_url(udf, 0, 0, 0)
    requests.get(url, timeout=120)
    assert requests.get(url, params={"cache_max_age": "0s"}, timeout=120).headers["x-cache"] == "Miss"
    assert requests.get(url, params={"cache_max_age": "1h"}, timeout=120).headers["x-cache"] == "Hit"
    assert requests.get(url, params={"cache_max_age": "often"}, timeout=120).status_code == 422


def test_a_udf_that_fails_is_500_and_is_not_cached(fused_emulator: Emulator) -> None:
    answers = iter([ZeroDivisionError("by zero"), "well"])

    def moody(**parameters: int) -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    udf = fused_emulator.register(moody)
    url = fused_emulator.tile_url(udf, 0, 0, 0)
    assert requests.get(url, timeout=120).status_code == 500
    assert requests.get(url, timeout=120).json() == "well"


def test_an_unknown_shared_token_is_404(fused_emulator: Emulator) -> None:
    assert requests.get(f"{fused_emulator.root_url}/fsh_unknown", timeout=120).status_code == 404


@pytest.mark.parametrize(("retry_after", "header"), [(None, None), (7, "7"), ("Wed, 21 Oct 2015 07:28:00 GMT",) * 2])
def test_rate_limits_with_and_without_retry_after(
    fused_emulator: Emulator, retry_after: int | str | None, header: str | None
) -> None:
    fused_emulator.misbehave(status=429, retry_after=retry_after, times=2)
    answers = [call(fused_emulator, "GET", "/execution-env/self") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers.get("retry-after") == header


def test_faults_strike_only_what_they_name(fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=503, method="DELETE", path="udf-cache", times=None)
    assert call(fused_emulator, "GET", "/execution-env/self").status_code == 200
    assert call(fused_emulator, "DELETE", purge_path(udf)).status_code == 503
    fused_emulator.behave()
    assert call(fused_emulator, "DELETE", purge_path(udf)).status_code == 204


def test_a_dropped_connection_before_and_after_the_work(fused_emulator: Emulator, udf: Udf) -> None:
    for after_work, left in ((False, 4), (True, 0)):
        fused_emulator.misbehave(drop=True, after_work=after_work)
        with pytest.raises(requests.ConnectionError):
            call(fused_emulator, "DELETE", purge_path(udf))
        assert len(fused_emulator.cached_tiles(udf)) == left


def test_a_redirect_names_its_target(fused_emulator: Emulator) -> None:
    fused_emulator.misbehave(status=307, location="https://elsewhere.example.com/")
    answer = call(fused_emulator, "GET", "/execution-env/self")
    assert (answer.status_code, answer.headers["location"]) == (307, "https://elsewhere.example.com/")


def test_latency_goes_with_every_other_fault(fused_emulator: Emulator) -> None:
    fused_emulator.misbehave(latency=0.2)
    fused_emulator.misbehave(status=503)
    started = time.monotonic()
    assert call(fused_emulator, "GET", "/execution-env/self").status_code == 503
    assert time.monotonic() - started >= 0.2


def test_what_was_kept_in_a_file_is_there_in_the_next_run(tmp_path: Path) -> None:
    database = tmp_path / "fused.sqlite"
    with Emulator(database=database) as emulator:
        udf = emulator.register(lambda **parameters: "first run", name="roads")
        token = emulator.token
        requests.get(emulator.tile_url(udf, 1, 1, 1), timeout=120)
    with Emulator(database=database) as emulator:
        answer = requests.get(emulator.tile_url(udf, 1, 1, 1), timeout=120)
        assert (answer.json(), answer.headers["x-cache"]) == ("first run", "Hit")
        assert call(emulator, "GET", f"/udf/by-id/{udf.id}", f"Fused-Service-Token {token}").status_code == 200
        assert requests.get(emulator.tile_url(udf, 1, 0, 0), timeout=120).status_code == 500  # not registered again
        again = emulator.register(lambda **parameters: "second run", name="roads")
        assert (again.id, again.shared_token) == (udf.id, udf.shared_token)
        assert requests.get(emulator.tile_url(udf, 1, 0, 0), timeout=120).json() == "second run"


def test_it_stops_within_moments_and_frees_its_port() -> None:
    with Emulator() as emulator:
        url = emulator.root_url
        with requests.Session() as session:
            session.get(f"{url}/fsh_x", timeout=120)
            started = time.monotonic()
            emulator.stop()
    assert time.monotonic() - started < 30  # idle connections are kept for longer
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=120)


# -- tiles as a browser gets them -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n...", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"RIFF....WEBP", "image/webp"),
        (b"\x1a\x05\x0a\x03abc", "application/vnd.mapbox-vector-tile"),
        (b"", "application/vnd.mapbox-vector-tile"),
    ],
)
def test_bytes_of_a_udf_arrive_as_they_are_from_the_cache_too(fused_emulator: Emulator, body: bytes, kind: str) -> None:
    udf = fused_emulator.register(lambda **tile: body, name="pictures")
    for tier in ("Miss", "Hit"):
        answer = requests.get(fused_emulator.tile_url(udf, 10, 1, 2), timeout=60)
        assert (answer.content, answer.headers["content-type"], answer.headers["x-cache"]) == (body, kind, tier)


def test_bytes_of_a_udf_are_bytes_for_a_udf_that_loads_it(fused_emulator: Emulator) -> None:
    fused_emulator.register(lambda z, x, y: b"\x89PNG", name="pictures")
    udf = fused_emulator.register(lambda z, x, y: len(fused_emulator.load("pictures")(z=z, x=x, y=y)), name="sizes")
    assert requests.get(fused_emulator.tile_url(udf, 10, 1, 2), timeout=60).json() == 4


def test_pages_of_every_origin_may_read_a_tile_and_keep_it_as_long_as_they_are_told(fused_emulator: Emulator) -> None:
    udf = fused_emulator.register(lambda **tile: tile, name="roads")
    first = requests.get(fused_emulator.tile_url(udf, 10, 1, 2), timeout=60)
    assert first.headers["access-control-allow-origin"] == "*"
    assert "cache-control" not in first.headers
    fused_emulator.assumptions.shared_headers = {"cache-control": "public, max-age=600"}
    again = requests.get(fused_emulator.tile_url(udf, 10, 1, 2), timeout=60)
    assert again.headers["cache-control"] == "public, max-age=600"
    assert "access-control-allow-origin" not in again.headers


def test_what_needs_a_token_is_not_for_pages_of_other_origins(fused_emulator: Emulator) -> None:
    assert "access-control-allow-origin" not in call(fused_emulator, "GET", "/execution-env/self").headers
