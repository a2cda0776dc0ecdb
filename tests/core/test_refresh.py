"""Refresh: after an invalidation, the UDF is run again, so that the first visitor does not wait."""

import pickle
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fused_cache_ops import (
    FusedClient,
    InvalidationResult,
    PartialInvalidationError,
    RefreshError,
    RefreshResult,
    UnavailableError,
    invalidate_cache,
    plan_invalidation,
    refresh_cache,
)
from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.errors import ConfigurationError, InvalidInputError

ALL = ["1/0/0", "1/0/1", "1/1/0", "1/1/1"]


@pytest.fixture
def parcels(fused_emulator: Emulator) -> Udf:
    """A UDF whose results are its tiles."""
    return fused_emulator.register(lambda z, x, y: [z, x, y], name="parcels")


def tiles_run(emulator: Emulator) -> list[str]:
    """The tiles of all runs so far, in order."""
    return ["%d/%d/%d" % run.tile for run in emulator.runs if run.tile is not None]


def refreshed(result: InvalidationResult) -> RefreshResult:
    assert result.refresh is not None
    return result.refresh


def test_what_was_invalidated_is_cached_again(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    result = client.invalidate_cache(udf.id, tiles=ALL, shared_token=udf.shared_token, refresh="all")
    assert (refreshed(result).runs, refreshed(result).already_cached, refreshed(result).failed) == (4, 0, ())
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)}
    assert sorted(tiles_run(fused_emulator)) == ALL
    assert "refreshed: 4 runs" in str(result)


def test_a_visitor_afterwards_causes_no_run(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    client.invalidate_cache(udf.shared_token, tiles=ALL, refresh="all")
    fused_emulator.forget_runs()
    again = client.refresh_cache(udf.shared_token, tiles=ALL)
    assert (again.runs, again.already_cached) == (0, 4)
    assert again.seconds_median is None
    assert fused_emulator.runs == []


def test_nothing_is_run_unless_it_is_asked_for(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    assert client.invalidate_cache(udf.shared_token, tiles=ALL).refresh is None
    assert fused_emulator.runs == []


def test_coarse_zooms_come_first(client: FusedClient, fused_emulator: Emulator, parcels: Udf) -> None:
    listed = ["5/1/1", "2/0/0", "4/1/1", "3/2/2", "2/1/0"]
    client.refresh_cache(parcels.shared_token, tiles=listed, refresh={"count": 3, "concurrency": 1})
    assert tiles_run(fused_emulator) == ["2/0/0", "2/1/0", "3/2/2"]


@pytest.mark.parametrize("name", ["hot.list", "hot.csv"])
def test_the_hottest_tiles_come_first_if_the_list_counts_them(
    client: FusedClient, fused_emulator: Emulator, parcels: Udf, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    if name.endswith("csv"):
        path.write_text("count,z,x,y\n7,5,1,1\n1,2,0,0\n900,4,1,1\n,3,2,2\n")
    else:
        path.write_text("5/1/1 7\n2/0/0 1\n4/1/1 900\n3/2/2 0\n")
    client.refresh_cache(parcels.shared_token, tiles_file=path, refresh={"count": 2, "concurrency": 1})
    assert tiles_run(fused_emulator) == ["4/1/1", "5/1/1"]


def test_a_list_that_counts_some_of_its_tiles_puts_the_others_last(
    client: FusedClient, fused_emulator: Emulator, parcels: Udf, tmp_path: Path
) -> None:
    path = tmp_path / "hot.list"
    path.write_text("# from the log\n2/0/0\n5/1/1   7\n\n4/1/1\t900\n3/2/2\n")
    client.refresh_cache(parcels.shared_token, tiles_file=path, refresh={"concurrency": 1})
    assert tiles_run(fused_emulator) == ["4/1/1", "5/1/1", "2/0/0", "3/2/2"]


def test_an_arrow_table_may_count_its_tiles(client: FusedClient, fused_emulator: Emulator, parcels: Udf) -> None:
    table = pa.table({"z": [2, 3, 4], "x": [0, 1, 1], "y": [0, 1, 1], "count": [None, 5.0, 8.0]})
    client.refresh_cache(parcels.shared_token, tiles=table, refresh={"count": 2, "concurrency": 1})
    assert tiles_run(fused_emulator) == ["4/1/1", "3/1/1"]


def test_what_is_invalidated_does_not_depend_on_the_counts(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, tmp_path: Path
) -> None:
    path = tmp_path / "hot.list"
    path.write_text("1/0/0 5\n1/1/1 9\n")
    result = client.invalidate_cache(udf.id, tiles_file=path)
    assert (result.tiles_invalidated, result.objects_deleted) == (2, 2)
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 1), (1, 1, 0)}


def test_zooms_alone_mean_all_of_their_tiles(client: FusedClient, fused_emulator: Emulator, parcels: Udf) -> None:
    result = client.invalidate_cache(parcels.shared_token, bounds=(0, 0, 20, 20), zooms="2-6", refresh={"zooms": "2-4"})
    assert {tile.partition("/")[0] for tile in tiles_run(fused_emulator)} == {"2", "3", "4"}
    assert refreshed(result).runs == len(fused_emulator.runs)


def test_a_number_and_zooms_are_the_first_of_these_zooms(client: FusedClient, fused_emulator: Emulator, parcels: Udf) -> None:
    client.refresh_cache(parcels.shared_token, bounds=(0, 0, 20, 20), zooms="2-6", refresh={"count": 3, "zooms": "5,6"})
    assert Counter(tile.partition("/")[0] for tile in tiles_run(fused_emulator)) == {"5": 3}


def test_a_tile_listed_twice_is_run_once(client: FusedClient, fused_emulator: Emulator, parcels: Udf) -> None:
    found = client.refresh_cache(parcels.shared_token, tiles=["3/1/1", "3/1/1"], refresh={"max_tiles": 1})
    assert (found.runs, found.not_requested) == (1, 0)
    assert tiles_run(fused_emulator) == ["3/1/1"]


def test_each_shard_refreshes_its_own_tiles(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    results = [client.invalidate_cache(udf.shared_token, tiles=ALL, shard=(i, 2), refresh="all") for i in (0, 1)]
    assert sorted(tiles_run(fused_emulator)) == ALL
    assert refreshed(InvalidationResult.merge(results)).runs == 4


def test_the_whole_udf_is_run_once_without_a_tile(client: FusedClient, fused_emulator: Emulator) -> None:
    report = fused_emulator.register(lambda **given: given, name="report")
    result = client.invalidate_cache(report.shared_token, whole_udf=True, refresh={"count": 1, "parameters": {"year": 2026}})
    (run,) = fused_emulator.runs
    assert (run.tile, run.parameters, refreshed(result).runs) == (None, {"year": "2026"}, 1)


def test_what_a_map_asks_for_with_its_parameters_is_cached(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    parameters = {"color": "a b&c", "opacity": 0.5}
    client.refresh_cache(udf.shared_token, tiles=["1/0/0"], refresh={"parameters": parameters})
    (run,) = fused_emulator.runs
    assert run.parameters == {"color": "a b&c", "opacity": "0.5"}


def test_an_empty_selection_refreshes_nothing(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    result = client.invalidate_cache(udf.shared_token, tiles=[], refresh="all")
    assert refreshed(result) == RefreshResult(elapsed_seconds=refreshed(result).elapsed_seconds)
    assert fused_emulator.requests == []


def test_what_became_the_whole_udf_is_not_refreshed(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    with pytest.warns(UserWarning, match="the whole UDF is invalidated instead"):
        result = client.invalidate_cache(
            udf.shared_token, bounds=(0, 0, 20, 20), zooms="8", max_tiles=2, when_too_many="whole-udf", refresh=1
        )
    assert str(refreshed(result)).startswith("nothing was refreshed, because ")
    assert fused_emulator.runs == []


@pytest.mark.parametrize("given", [{}, {"count": 4}, {"zooms": "1"}], ids=str)
def test_more_than_max_refresh_is_an_error_before_anything_is_sent(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, given: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInputError, match=r"more than 3 tiles.*refresh=\{'zooms': '0-8'\}"):
        client.invalidate_cache(udf.shared_token, tiles=ALL, refresh={"max_tiles": 3, **given})
    assert fused_emulator.requests == []


def test_a_generator_is_counted_before_anything_is_sent(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    with pytest.raises(InvalidInputError, match="more than 3 tiles"):
        client.invalidate_cache(udf.shared_token, tiles=iter(ALL), refresh={"max_tiles": 3})
    assert fused_emulator.requests == []


def test_a_generator_is_invalidated_and_refreshed(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    result = client.invalidate_cache(udf.shared_token, tiles=iter(ALL), refresh="all")
    assert (result.tiles_invalidated, result.objects_deleted, refreshed(result).runs) == (4, 4, 4)


@pytest.mark.parametrize("stops", [2, 0])
def test_what_a_generator_yielded_before_it_failed_is_handed_back(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, stops: int
) -> None:
    def changed() -> Iterator[str]:
        yield from ALL[:stops]
        raise OSError("the cursor is closed")

    with pytest.raises(UnavailableError, match="OSError: the cursor is closed") as caught:
        client.invalidate_cache(udf.shared_token, tiles=changed(), refresh="all")
    assert ["%d/%d/%d" % tile for tile in caught.value.remaining] == ALL[:stops]  # type: ignore[attr-defined]
    assert fused_emulator.requests == []


def test_what_is_read_once_is_handed_back_if_there_is_too_much_to_refresh(client: FusedClient, udf: Udf) -> None:
    with pytest.raises(InvalidInputError) as caught:
        client.invalidate_cache(udf.shared_token, tiles=iter(ALL), refresh={"max_tiles": 1})
    assert len(list(caught.value.remaining or ())) == 4


def test_nothing_to_verify_is_no_missing_verification(client: FusedClient, udf: Udf) -> None:
    result = client.invalidate_cache(udf.shared_token, tiles=[], refresh="all", verify_tiles=2)
    assert result.verification is not None
    assert result.verification.sampled == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"refresh": None}, r"refresh = None must be a whole number of tiles, 'all', or a mapping"),
        ({"refresh": True}, r"refresh = True must be"),
        ({"refresh": -1}, r"refresh = -1 must be"),
        ({"refresh": 1.5}, r"refresh = 1\.5 must be"),
        ({"refresh": ""}, r"refresh = '' must be"),
        ({"refresh": {"zooms": "deep"}}, r"refresh: zooms = 'deep'"),
        ({"refresh": {"count": 1, "concurrency": 0}}, r"refresh: concurrency = 0 must be a whole number from 1 to 64"),
        ({"refresh": {"count": 1, "concurrency": 65}}, r"refresh: concurrency = 65"),
        ({"refresh": {"count": 1, "max_tiles": 0}}, r"refresh: max_tiles = 0 must be a whole number above 0"),
        ({"refresh": {"count": 1, "deadline": 0}}, r"refresh: deadline = 0 must be a number of seconds above 0"),
        ({"refresh": {"count": 1, "deadline": float("inf")}}, r"refresh: deadline = inf"),
        ({"refresh": {"count": 1, "parameters": "a=b"}}, r"refresh: parameters is of type str"),
        ({"refresh": {"count": 1, "parameters": {"": 1}}}, r"'' is not the name"),
        ({"refresh": {"count": 1, "parameters": {"fused_session_token": "x"}}}, r"'fused_session_token' is not the name"),
        ({"refresh": {"count": 1, "parameters": {"flag": True}}}, r"refresh: parameters\['flag'\] is of type bool"),
        ({"refresh": {"count": 1, "must_succeed": 1}}, r"refresh: must_succeed = 1 must be True or False"),
    ],
    ids=str,
)
def test_what_cannot_be_read_fails_before_anything_is_sent(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        client.invalidate_cache(udf.shared_token, tiles=ALL, **given)
    assert fused_emulator.requests == []


@pytest.mark.parametrize("given", [{"refresh": {"zooms": "1"}}, {"refresh": 500}, {"refresh": "500"}], ids=str)
@pytest.mark.parametrize("whole", [{}, {"whole_udf": True}], ids=["left out", "said"])
def test_a_refresh_of_tiles_without_a_selection_does_not_invalidate_everything(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, given: dict[str, Any], whole: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInputError, match=r"needs a selection"):
        client.invalidate_cache(udf.shared_token, **given, **whole)
    assert fused_emulator.requests == []


def test_without_a_shared_token_nothing_is_sent(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    with pytest.raises(ConfigurationError, match="refresh needs a shared token"):
        client.invalidate_cache(udf.id, tiles=ALL, refresh=1)
    with pytest.raises(ConfigurationError, match="refresh_cache needs a shared token"):
        client.refresh_cache(udf.id, tiles=ALL)
    assert fused_emulator.requests == []


def test_a_refresh_of_nothing_is_refused(client: FusedClient, udf: Udf) -> None:
    with pytest.raises(InvalidInputError, match="refresh = 0 would refresh nothing"):
        client.refresh_cache(udf.shared_token, tiles=ALL, refresh=0)


def test_what_could_not_be_refreshed_is_told_and_the_invalidation_stands(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, caplog: pytest.LogCaptureFixture
) -> None:
    fused_emulator.misbehave(status=500, body={"detail": "no such column"}, path="/run/tiles/1/1/1")
    result = client.invalidate_cache(udf.shared_token, tiles=ALL, refresh="all")
    (failed,) = refreshed(result).failed
    assert failed.startswith("1/1/1: ")
    assert "answered 500 (no such column)" in failed
    assert (result.tiles_invalidated, refreshed(result).runs, refreshed(result).is_complete) == (4, 3, False)
    assert "Everything is invalidated. 1 result could not be refreshed: 1/1/1" in caplog.text


def test_a_udf_that_fails_is_run_once(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=500, times=None, path="/run/tiles/")
    assert client.refresh_cache(udf.shared_token, tiles=["1/0/0"]).retryable is False
    assert len([request for request in fused_emulator.requests if "/run/" in request.path]) == 1


def test_a_failed_refresh_is_an_error_if_asked_for(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=500, path="/run/tiles/1/1/1")
    with pytest.raises(RefreshError, match="Everything is invalidated") as caught:
        client.invalidate_cache(udf.shared_token, tiles=ALL, refresh={"must_succeed": True})
    error = caught.value
    assert error.result is not None
    assert (error.result.tiles_invalidated, error.refresh.runs, error.retryable) == (4, 3, False)
    assert list(error.not_refreshed) == [(1, 1, 1)]
    assert list(error.remaining or "?") == []  # all of it is invalidated


def test_a_refresh_error_survives_pickling(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=404, path="/run/tiles/1/1/1")
    with pytest.raises(RefreshError) as caught:
        client.refresh_cache(udf.shared_token, tiles=ALL, refresh={"must_succeed": True})
    read = pickle.loads(pickle.dumps(caught.value))
    assert (str(read), read.refresh, list(read.not_refreshed)) == (str(caught.value), caught.value.refresh, [(1, 1, 1)])
    assert udf.shared_token not in repr(pickle.dumps(caught.value))


@pytest.mark.parametrize("fault", [{"status": 429, "retry_after": 0}, {"status": 503}, {"drop": True}], ids=str)
def test_what_may_pass_is_asked_for_again(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, fault: dict[str, Any]
) -> None:
    fused_emulator.misbehave(**fault, path="/run/tiles/")
    found = client.refresh_cache(udf.shared_token, tiles=["1/0/0"])
    assert found.is_complete
    assert found.runs + found.already_cached == 1


def test_a_429_makes_all_runs_wait(client: FusedClient, fused_emulator: Emulator, parcels: Udf) -> None:
    fused_emulator.misbehave(status=429, retry_after=1, path="/run/tiles/")
    found = client.refresh_cache(parcels.shared_token, bounds=(0, 0, 20, 20), zooms="6", refresh={"concurrency": 1})
    assert found.is_complete
    assert found.elapsed_seconds >= 1


def test_the_refresh_has_a_deadline_of_its_own(fused_emulator: Emulator) -> None:
    def slow(z: int, x: int, y: int) -> list[int]:
        time.sleep(0.5)
        return [z, x, y]

    registered = fused_emulator.register(slow)
    with FusedClient(token=fused_emulator.token, base_url=fused_emulator.base_url, deadline=100) as client:
        found = client.refresh_cache(
            registered.shared_token, bounds=(0, 0, 40, 40), zooms="6", refresh={"concurrency": 1, "deadline": 1}
        )
    assert found.not_requested > 0
    assert (found.is_complete, found.retryable) == (False, True)


def test_a_deadline_that_has_passed_for_the_invalidation_does_not_end_the_refresh(fused_emulator: Emulator, udf: Udf) -> None:
    with FusedClient(token=fused_emulator.token, base_url=fused_emulator.base_url, deadline=5) as client:
        fused_emulator.misbehave(latency=6, times=1, path="/run/tiles/")
        result = client.invalidate_cache(udf.shared_token, tiles=["1/0/0"], refresh=1)
    assert refreshed(result).is_complete


def test_at_most_so_many_run_at_the_same_time(client: FusedClient, fused_emulator: Emulator) -> None:
    running, most, lock, together = 0, 0, threading.Lock(), threading.Barrier(3)

    def watched(z: int, x: int, y: int) -> list[int]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(60)  # for those that run at the same time
        with lock:
            running -= 1
        return [z, x, y]

    registered = fused_emulator.register(watched)
    tiles = [(5, x, 0) for x in range(12)]
    assert client.refresh_cache(registered.shared_token, tiles=tiles, refresh={"concurrency": 3}).is_complete
    assert most == 3


def test_verification_and_refresh_read_the_same_responses(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    result = client.invalidate_cache(udf.shared_token, tiles=ALL, refresh="all", verify_tiles=4)
    assert result.verification is not None
    assert len(result.verification.fresh) == refreshed(result).runs == len(fused_emulator.runs) == 4


def test_a_sampled_tile_that_is_not_to_be_refreshed_is_no_part_of_the_refresh(
    client: FusedClient, fused_emulator: Emulator, parcels: Udf
) -> None:
    result = client.invalidate_cache(
        parcels.shared_token, tiles=["2/0/0", "9/1/1", "9/1/2"], refresh={"zooms": "2"}, verify_tiles=3
    )
    assert result.verification is not None
    assert (len(result.verification.fresh), refreshed(result).runs, len(fused_emulator.runs)) == (3, 1, 3)


def test_a_stale_tile_is_still_told_when_it_is_refreshed(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(
        status=200, after_work=False, body={"objects_deleted": 1}, path="delete", times=None
    )  # says it did, and did not
    result = client.invalidate_cache(udf.shared_token, tiles=ALL, refresh="all", verify_tiles=4, fail_on_stale=False)
    assert result.verification is not None
    assert (len(result.verification.from_cache), refreshed(result).already_cached) == (4, 4)


def test_a_tile_that_a_lost_request_may_have_computed_is_not_taken_for_stale(
    client: FusedClient, fused_emulator: Emulator, udf: Udf
) -> None:
    fused_emulator.misbehave(drop=True, after_work=True, path="/run/tiles/")
    result = client.invalidate_cache(udf.shared_token, tiles=["1/0/0"], refresh=1, verify_tiles=1)
    assert result.verification is not None
    assert result.verification.from_cache == ()
    (unknown,) = result.verification.unknown
    assert "an earlier request of this call may have computed it" in unknown
    assert refreshed(result).already_cached == 1


def test_the_refresh_comes_after_the_second_pass(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    client.invalidate_cache(udf.shared_token, tiles=ALL, again_after=0.01, refresh="all")
    paths = [request.path for request in fused_emulator.requests if "batch-delete" in request.path or "/run/" in request.path]
    assert ["batch" in path for path in paths] == [True, True, False, False, False, False]
    assert len(fused_emulator.cached_tiles(udf)) == 4


def test_only_the_second_of_two_separate_passes_refreshes(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    keywords: Any = {"tiles": ALL, "again_after": 1, "refresh": "all"}
    first = client.first_pass(udf.shared_token, **keywords)
    assert fused_emulator.runs == []
    result = client.second_pass(udf.shared_token, first, **keywords)
    assert refreshed(result).runs == len(fused_emulator.runs) == 4


def test_a_checkpoint_continues_the_refresh_without_a_second_invalidation(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, tmp_path: Path
) -> None:
    keywords: Any = {"tiles": ALL, "refresh": {"must_succeed": True}, "checkpoint": tmp_path / "record.json"}
    fused_emulator.misbehave(status=500, path="/run/tiles/1/1/1")
    with pytest.raises(RefreshError):
        client.invalidate_cache(udf.shared_token, **keywords)
    fused_emulator.forget_runs()
    fused_emulator.forget_requests()
    result = client.invalidate_cache(udf.shared_token, **keywords)
    assert tiles_run(fused_emulator) == ["1/1/1"]
    assert [request for request in fused_emulator.requests if "delete" in request.path] == []
    assert (refreshed(result).runs, refreshed(result).already_done, result.tiles_already_done) == (1, 3, 4)
    assert not (tmp_path / "record.json").exists()


def test_a_refresh_that_is_no_error_leaves_no_checkpoint(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, tmp_path: Path
) -> None:
    fused_emulator.misbehave(status=500, path="/run/tiles/1/1/1")
    client.invalidate_cache(udf.shared_token, tiles=ALL, refresh="all", checkpoint=tmp_path / "record.json")
    assert not (tmp_path / "record.json").exists()  # otherwise the next load would invalidate nothing


def test_another_refresh_does_not_continue_from_the_checkpoint_of_the_first(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, tmp_path: Path
) -> None:
    keywords: Any = {"tiles": ALL, "checkpoint": tmp_path / "record.json"}
    fused_emulator.misbehave(status=500, path="/run/tiles/1/0/0")
    with pytest.raises(RefreshError):
        client.invalidate_cache(udf.shared_token, refresh={"count": 2, "must_succeed": True}, **keywords)
    fused_emulator.forget_runs()
    result = client.invalidate_cache(udf.shared_token, refresh={"must_succeed": True}, **keywords)
    assert refreshed(result).already_done == 0
    assert len(fused_emulator.cached_tiles(udf)) == 4


def test_a_cancelled_refresh_says_that_all_is_invalidated(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    begun = threading.Event()

    def slow(**_: object) -> list[int]:
        begun.set()
        time.sleep(0.5)
        return []

    registered = fused_emulator.register(slow)
    canceller = threading.Thread(target=lambda: (begun.wait(30), client.cancel()))
    canceller.start()
    with pytest.raises(PartialInvalidationError, match="before refreshing failed") as caught:
        client.invalidate_cache(registered.shared_token, tiles=ALL, refresh={"concurrency": 1})
    canceller.join()
    assert list(caught.value.remaining or "?") == []
    assert len(fused_emulator.runs) < 4


def test_a_team_canvas_is_refreshed_with_one_session_token(client: FusedClient, fused_emulator: Emulator) -> None:
    fused_emulator.add_canvas("maps", access_scope="team")
    registered = fused_emulator.register(lambda z, x, y: [z, x, y], name="parcels", canvas="maps")
    token = fused_emulator.canvas_url_token(registered)
    found = client.refresh_cache(token, tiles=ALL)
    assert (found.runs, found.failed) == (4, ())
    assert len(fused_emulator.session_tokens) == 1


def test_a_cdn_that_may_have_answered_is_no_refresh(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=200, headers={"x-cache": "Hit from cloudfront"}, path="/run/tiles/")
    found = client.refresh_cache(udf.shared_token, tiles=["1/0/0"])
    assert found.runs == found.already_cached == 0
    assert "a cache in front of Fused may have answered" in found.failed[0]


def test_the_bytes_of_the_results_are_counted(client: FusedClient, fused_emulator: Emulator) -> None:
    registered = fused_emulator.register(lambda z, x, y: "x" * 1000)
    assert client.refresh_cache(registered.shared_token, tiles=["1/0/0", "1/0/1"]).bytes == 2004


def test_progress_counts_what_is_refreshed(client: FusedClient, udf: Udf) -> None:
    told: list[tuple[int, int | None, int]] = []
    client.refresh_cache(udf.shared_token, tiles=ALL, on_progress=lambda *each: told.append(each))
    assert told[-1] == (4, 4, 0)


def test_the_plan_says_how_many_runs_it_would_be(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    made = plan_invalidation("roads", tiles=ALL, refresh=3)
    assert made.refresh_runs == made.to_dict()["refresh_runs"] == 3
    assert str(made).endswith("and run it 3 times to refresh")
    assert plan_invalidation("roads", tiles=ALL).refresh_runs is None
    assert client.plan_invalidation(udf.id, tiles=ALL, refresh={"zooms": "1"}).refresh_runs == 4
    assert fused_emulator.runs == []


def test_a_plan_of_too_many_runs_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="more than 3 tiles"):
        plan_invalidation("roads", tiles=ALL, refresh={"max_tiles": 3})


def test_the_plan_that_is_shown_before_sending_has_the_runs(client: FusedClient, udf: Udf) -> None:
    plans: list[Any] = []
    client.invalidate_cache(udf.shared_token, tiles=ALL, refresh=2, on_plan=plans.append)
    assert plans[0].refresh_runs == 2


def test_the_result_is_json_and_back(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=500, path="/run/tiles/1/1/1")
    result = client.invalidate_cache(udf.shared_token, tiles=ALL, refresh="all")
    assert InvalidationResult.from_dict(result.to_dict()) == result


def test_the_functions_need_no_client(fused_emulator: Emulator, udf: Udf) -> None:
    settings: Any = {"token": fused_emulator.token, "base_url": fused_emulator.base_url}
    assert refreshed(invalidate_cache(udf.shared_token, tiles=ALL, refresh=2, client=settings)).runs == 2
    found = refresh_cache(udf.shared_token, tiles=ALL, client=settings)
    assert (found.runs, found.already_cached) == (2, 2)


def test_a_shared_token_is_in_no_log_and_no_failure(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    fused_emulator.misbehave(status=500, body={"detail": f"failed for {udf.shared_token}"}, path="/run/tiles/1/1/1")
    result = client.invalidate_cache(udf.shared_token, tiles=ALL, refresh="all")
    assert udf.shared_token not in caplog.text + repr(result) + str(result.to_dict())


def test_no_thread_is_left_behind(client: FusedClient, udf: Udf) -> None:
    client.refresh_cache(udf.shared_token, tiles=ALL)
    assert [thread for thread in threading.enumerate() if "cache-ops-run" in thread.name] == []
