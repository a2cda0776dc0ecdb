"""The index of an H3 table: what `fused.h3.query` returns is old until it has the load, and nothing is sent before that."""

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from fused_cache_ops import (
    CacheMap,
    DatasetInvalidationError,
    FusedClient,
    IndexWait,
    InvalidationInterrupted,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    invalidate_cache,
    invalidate_dataset,
    plan_dataset,
    plan_invalidation,
)
from fused_cache_ops.cache_map.dataset import plan_dataset as planned
from fused_cache_ops.emulator import Emulator, H3Table, Udf
from fused_cache_ops.sending import indexing

PATH = "s3://lake/hexes/"
TILE = "1/0/0"


def now(**ago: float) -> str:
    return (datetime.now(timezone.utc) - timedelta(**ago)).isoformat()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "_FIRST_PAUSE", 0.02)
    monkeypatch.setattr(indexing, "_LONGEST_PAUSE", 0.02)


@pytest.fixture
def hexes(fused_emulator: Emulator) -> H3Table:
    """A table whose index is a minute old."""
    table = fused_emulator.add_h3_table(PATH, "old")
    table.set_indexed(time.time() - 60)
    return table


@pytest.fixture
def map_of_hexes(fused_emulator: Emulator, hexes: H3Table) -> Udf:
    return fused_emulator.register(lambda **tile: hexes.query(), name="hexes")


@pytest.fixture
def purged(fused_emulator: Emulator) -> Callable[[], list[str]]:
    return lambda: [each.path for each in fused_emulator.requests if each.method == "DELETE" or "batch-delete" in each.path]


def posted(emulator: Emulator) -> list[int]:
    """The statuses of the requests for a run."""
    return [each.status for each in emulator.requests if each.path.endswith("/tasks/run")]


# -- looking only -------------------------------------------------------------------------------------------------------


def test_an_index_that_is_older_than_the_load_is_a_transient_error_before_anything_is_sent(
    hexes: H3Table, map_of_hexes: Udf, purged: Callable[[], list[str]]
) -> None:
    hexes.write("new")
    with pytest.raises(UnavailableError, match="Nothing was invalidated") as caught:
        invalidate_cache("hexes", tiles=[TILE], h3_index={"path": PATH, "loaded_at": now()})
    assert caught.value.retryable
    assert "No run of it is going: pass run=True" in str(caught.value)
    assert list(caught.value.remaining or ()) == [(1, 0, 0)]
    assert (purged(), hexes.runs) == ([], [])


def test_an_index_that_is_new_enough_is_looked_at_once(
    fused_emulator: Emulator, hexes: H3Table, map_of_hexes: Udf, seen: Callable[[Udf], Any]
) -> None:
    before = seen(map_of_hexes)
    loaded_at = now(seconds=1)
    hexes.write("new")
    hexes.start()
    invalidate_cache("hexes", tiles=[TILE], h3_index={"path": PATH, "loaded_at": loaded_at})
    assert (before, seen(map_of_hexes)) == ("old", "new")
    assert sum("/h3/index" in request.path for request in fused_emulator.requests) == 1


def test_a_run_that_is_going_is_no_failure_if_the_index_is_new_enough(hexes: H3Table, map_of_hexes: Udf) -> None:
    hexes.run_seconds = None
    hexes.start()
    invalidate_cache("hexes", tiles=[TILE], h3_index={"path": PATH, "loaded_at": now(seconds=90)})
    with pytest.raises(UnavailableError, match="A run of it is going"):
        invalidate_cache("hexes", tiles=[TILE], h3_index={"path": PATH, "loaded_at": now(seconds=30)})


def test_the_time_of_the_load_may_stand_beside_it(hexes: H3Table, map_of_hexes: Udf) -> None:
    with pytest.raises(UnavailableError):
        invalidate_cache("hexes", h3_index={"path": PATH}, loaded_at=now())
    assert invalidate_cache("hexes", h3_index={"path": PATH}, loaded_at=now(hours=1)).seconds_until_invalidated


def test_a_table_that_was_never_indexed_is_a_permanent_error(fused_emulator: Emulator, udf: Udf) -> None:
    with pytest.raises(NotFoundError, match=r"has no index, .* pass run=True"):
        invalidate_cache(udf.id, h3_index={"path": PATH, "loaded_at": now()})
    assert len(fused_emulator.cached_tiles(udf)) == 4


def test_an_empty_selection_looks_at_nothing(fused_emulator: Emulator, hexes: H3Table) -> None:
    invalidate_cache("hexes", tiles=[], h3_index={"path": PATH, "run": True})
    assert fused_emulator.requests == []


@pytest.mark.parametrize("status", [403, 422])
def test_a_service_that_refuses_the_look_fails_the_call_before_anything_is_sent(
    fused_emulator: Emulator, map_of_hexes: Udf, purged: Callable[[], list[str]], status: int
) -> None:
    fused_emulator.misbehave(status=status, path="/h3/index", times=None)
    with pytest.raises(Exception, match=str(status)) as caught:
        invalidate_cache("hexes", h3_index={"path": PATH, "loaded_at": now()})
    assert getattr(caught.value, "retryable", None) is False
    assert purged() == []


# -- running it ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"loaded_at": None}], ids=["without a time", "with the time of the load"])
def test_a_run_makes_the_map_fresh(
    fused_emulator: Emulator, hexes: H3Table, map_of_hexes: Udf, seen: Callable[[Udf], Any], more: Any
) -> None:
    before = seen(map_of_hexes)
    hexes.write("new")
    invalidate_cache("hexes", tiles=[TILE])  # right after the load, the old answer is cached again
    assert (before, seen(map_of_hexes)) == ("old", "old")
    hexes.run_seconds = 0.1
    given = {name: now() for name in more}
    invalidate_cache("hexes", tiles=[TILE], h3_index={"path": PATH, "run": True, "prefix": "date=2026-11-22", **given})
    assert seen(map_of_hexes) == "new"
    assert [(run["prefix"], run["status"]) for run in hexes.runs] == [("date=2026-11-22", "succeeded")]


def test_an_index_that_has_the_load_is_not_run_again(hexes: H3Table, map_of_hexes: Udf) -> None:
    loaded_at = now(seconds=90)
    invalidate_cache("hexes", h3_index={"path": PATH, "run": True, "loaded_at": loaded_at})
    assert hexes.runs == []


def test_a_table_that_was_never_indexed_is_indexed(hexes: H3Table, map_of_hexes: Udf, seen: Callable[[Udf], Any]) -> None:
    hexes.set_indexed(None)
    hexes.write("new")
    invalidate_cache("hexes", tiles=[TILE], h3_index={"path": PATH, "run": True, "prefix": ["date=1", "date=2"]})
    assert (seen(map_of_hexes), hexes.runs[0]["prefix"]) == ("new", ["date=1", "date=2"])


@pytest.mark.parametrize("given", [{}, {"loaded_at": None}], ids=["without a time", "with the time of the load"])
def test_a_run_that_began_before_the_load_is_waited_for_and_followed_by_another(
    hexes: H3Table, map_of_hexes: Udf, when: Callable[..., Any], seen: Callable[[Udf], Any], given: Any
) -> None:
    hexes.run_seconds = None
    hexes.start()
    hexes.write("new")
    time.sleep(0.01)
    when(lambda: "indexing" in str(hexes.status()), lambda: (time.sleep(0.1), setattr(hexes, "run_seconds", 0)))
    invalidate_cache("hexes", tiles=[TILE], h3_index={"path": PATH, "run": True, **{name: now() for name in given}})
    assert [run["status"] for run in hexes.runs] == ["succeeded", "succeeded"]
    assert seen(map_of_hexes) == "new"


def test_a_run_that_begins_between_the_look_and_the_request_is_waited_for(
    fused_emulator: Emulator, hexes: H3Table, map_of_hexes: Udf
) -> None:
    fused_emulator.misbehave(status=409, path="/tasks/run", times=1, body={"detail": "job 7 is indexing it"})
    invalidate_cache("hexes", tiles=[TILE], h3_index={"path": PATH, "run": True})
    assert posted(fused_emulator) == [409, 200]


def test_a_lost_answer_is_not_taken_for_no_run(fused_emulator: Emulator, hexes: H3Table, map_of_hexes: Udf) -> None:
    hexes.run_seconds = 0.2
    fused_emulator.misbehave(drop=True, after_work=True, path="/tasks/run", times=1)
    loaded_at = now()
    time.sleep(0.01)
    invalidate_cache("hexes", tiles=[TILE], h3_index={"path": PATH, "run": True, "loaded_at": loaded_at})
    assert [run["status"] for run in hexes.runs] == ["succeeded"]


@pytest.mark.parametrize("more", [{}, {"loaded_at": None}], ids=["without a time", "with the time of the load"])
def test_where_the_service_does_not_know_the_run_the_index_tells(
    fused_emulator: Emulator, hexes: H3Table, map_of_hexes: Udf, more: Any
) -> None:
    hexes.run_seconds = 0.2
    fused_emulator.misbehave(status=404, path="/tasks/", method="GET", times=None)
    loaded_at = now()
    time.sleep(0.01)
    invalidate_cache("hexes", tiles=[TILE], h3_index={"path": PATH, "run": True, **dict.fromkeys(more, loaded_at)})
    assert [run["status"] for run in hexes.runs] == ["succeeded"]


def test_a_run_that_fails_is_a_transient_error_and_says_why(
    hexes: H3Table, map_of_hexes: Udf, purged: Callable[[], list[str]]
) -> None:
    hexes.run_fails = "bad.parquet: no column hex"
    with pytest.raises(UnavailableError, match=r"its run .* failed \(bad.parquet: no column hex\)\. Nothing") as caught:
        invalidate_cache("hexes", tiles=[TILE], h3_index={"path": PATH, "run": True})
    assert caught.value.retryable
    assert purged() == []


def test_its_deadline_ends_the_wait(hexes: H3Table, map_of_hexes: Udf, purged: Callable[[], list[str]]) -> None:
    hexes.run_seconds = None
    with pytest.raises(UnavailableError, match=r"not done within 0\.2 s\. Raise the deadline of h3_index"):
        invalidate_cache("hexes", tiles=[TILE], h3_index={"path": PATH, "run": True, "deadline": 0.2})
    assert purged() == []


def test_the_wait_does_not_count_toward_the_deadline_of_the_call(hexes: H3Table, map_of_hexes: Udf) -> None:
    hexes.run_seconds = 1.5
    with FusedClient(deadline=1.2) as client:
        client.invalidate_cache("hexes", tiles=[TILE], h3_index={"path": PATH, "run": True})


def test_cancelling_ends_the_wait_and_everything_remains(hexes: H3Table, map_of_hexes: Udf, when: Callable[..., Any]) -> None:
    hexes.run_seconds = None
    client = FusedClient()
    when(lambda: hexes.runs, client.cancel)
    with client, pytest.raises(Exception, match="cancelled") as caught:
        client.invalidate_cache("hexes", tiles=[TILE], h3_index={"path": PATH, "run": True})
    assert list(getattr(caught.value, "remaining", ())) == [(1, 0, 0)]


def test_a_second_pass_and_a_retry_do_not_run_it_again(
    hexes: H3Table, map_of_hexes: Udf, fused_emulator: Emulator, tmp_path: Path, purged: Callable[[], list[str]]
) -> None:
    index = {"path": PATH, "run": True, "loaded_at": now()}
    invalidate_cache("hexes", tiles=[TILE], h3_index=index, again_after=0.05)
    assert len(hexes.runs) == 1
    how: Any = {"tiles": [TILE, "1/0/1"], "h3_index": index, "checkpoint": tmp_path / "c.json"}
    fused_emulator.misbehave(status=403, path="batch-delete", times=1)
    with pytest.raises(Exception, match="403"):
        invalidate_cache("hexes", **how)
    assert invalidate_cache("hexes", **how).tiles_invalidated == 2
    assert len(hexes.runs) == 1


def test_an_orchestrator_can_look_from_one_process_after_the_other(hexes: H3Table) -> None:
    hexes.run_seconds = None
    with FusedClient() as client:
        first = client.look_at_index({"path": PATH, "run": True})
        assert first is not None
        again = client.look_at_index({"path": PATH, "run": True}, IndexWait.from_dict(first.to_dict()))
        assert again is not None
        assert (again.run_id, again.until) == (hexes.runs[0]["id"], first.until)
        hexes.finish()
        assert client.look_at_index({"path": PATH, "run": True}, again) is None
    assert len(hexes.runs) == 1


# -- several UDFs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def many(fused_emulator: Emulator, hexes: H3Table) -> tuple[CacheMap, list[Udf], Udf]:
    """Ten UDFs of the table, and one that has nothing to do with it."""
    udfs = [fused_emulator.register(lambda **tile: hexes.query(), name=f"hexes{number}") for number in range(10)]
    other = fused_emulator.register(lambda **tile: "other", name="other")
    entries: list[Any] = [{"udf": f"hexes{number}", "h3_index": {"path": PATH, "run": True}} for number in range(10)]
    return CacheMap.from_dict({"datasets": {"d": {"udfs": [*entries, {"udf": "other"}]}}}), udfs, other


def test_the_index_of_a_dataset_is_run_once_and_others_do_not_wait(
    fused_emulator: Emulator, hexes: H3Table, many: Any, seen: Callable[[Udf], Any], when: Callable[..., Any]
) -> None:
    known, udfs, other = many
    before = [seen(udf) for udf in udfs]
    fused_emulator.fill_cache(other, [(1, 0, 0)])
    hexes.write("new")
    hexes.run_seconds = None
    when(lambda: not fused_emulator.cached_tiles(other), hexes.finish)
    result = invalidate_dataset("d", cache_map=known, tiles=[TILE], h3_index={"prefix": "date=2026-11-22"}, loaded_at=now())
    assert (before, [seen(udf) for udf in udfs]) == (["old"] * 10, ["new"] * 10)
    assert len(result.results) == 11
    assert [run["prefix"] for run in hexes.runs] == ["date=2026-11-22"]


def test_a_udf_with_an_index_does_not_wait_for_the_second_pass_of_another(
    fused_emulator: Emulator, hexes: H3Table, many: Any, when: Callable[..., Any]
) -> None:
    _, udfs, _ = many
    hexes.run_seconds = 0.2
    entries: list[Any] = [{"udf": "hexes0", "h3_index": {"path": PATH, "run": True}}, {"udf": "other", "again_after": 5}]
    known = CacheMap.from_dict({"datasets": {"d": {"udfs": entries}}})
    fused_emulator.fill_cache(udfs[0], [(1, 0, 0)])
    seconds: list[float] = []
    began = time.monotonic()
    when(lambda: not fused_emulator.cached_tiles(udfs[0]), lambda: seconds.append(time.monotonic() - began))
    told: list[int] = []
    with FusedClient() as client:
        result = client.invalidate_dataset(
            "d", cache_map=known, tiles=[TILE], on_progress=lambda *_: told.append(threading.get_ident())
        )
    assert result.results["other"].second_pass == "done"
    assert seconds[0] < 4
    assert set(told) == {threading.get_ident()}


@pytest.mark.parametrize("waits_for", ["index", "second pass"])
def test_cancelling_a_dataset_that_waits_says_what_is_done_and_what_remains(
    fused_emulator: Emulator, hexes: H3Table, many: Any, when: Callable[..., Any], waits_for: str
) -> None:
    known, _, other = many
    fused_emulator.fill_cache(other, [(1, 0, 0)])
    hexes.run_seconds = None if waits_for == "index" else 0
    given: Any = {} if waits_for == "index" else {"again_after": 60}
    client = FusedClient()
    when(lambda: not fused_emulator.cached_tiles(other) and hexes.runs, client.cancel)
    with client, pytest.raises(DatasetInvalidationError, match="cancelled") as caught:
        client.invalidate_dataset("d", cache_map=known, tiles=[TILE], **given)
    assert {len(list(left or ())) for left in caught.value.remaining_by_udf.values()} == {1}
    assert set(caught.value.result.failed) >= {f"hexes{number}" for number in range(10)}


def test_ctrl_c_while_an_index_is_waited_for_says_what_is_done_and_what_is_not(
    fused_emulator: Emulator, hexes: H3Table, many: Any
) -> None:
    known, _, other = many
    fused_emulator.fill_cache(other, [(1, 0, 0)])
    hexes.run_seconds = None

    def interrupt(*_: Any) -> None:
        if not fused_emulator.cached_tiles(other) and hexes.runs:
            raise KeyboardInterrupt

    with pytest.raises(InvalidationInterrupted) as caught:
        invalidate_dataset("d", cache_map=known, tiles=[TILE], on_progress=interrupt)
    assert caught.value.result is not None
    assert "hexes0" in caught.value.result.failed
    assert fused_emulator.cached_tiles(other) == set()


def test_an_index_that_fails_does_not_keep_other_udfs_stale(fused_emulator: Emulator, hexes: H3Table, many: Any) -> None:
    known, _, other = many
    fused_emulator.fill_cache(other, [(1, 0, 0)])
    hexes.run_fails = "no"
    with pytest.raises(DatasetInvalidationError) as caught:
        invalidate_dataset("d", cache_map=known, tiles=[TILE])
    assert fused_emulator.cached_tiles(other) == set()
    assert sorted(caught.value.result.failed) == sorted(f"hexes{number}" for number in range(10))
    assert {len(list(left or ())) for left in caught.value.remaining_by_udf.values()} == {1}
    assert len(hexes.runs) == 1


def test_a_dataset_can_be_looked_at_from_one_process_after_the_other(hexes: H3Table, many: Any) -> None:
    known, udfs, _ = many
    hexes.run_seconds = None
    with FusedClient() as client:
        first = client.look_at_dataset_indexes("d", cache_map=known)
        assert first.seconds is not None
        hexes.finish()
        done = client.look_at_dataset_indexes("d", type(first).from_dict(first.to_dict()), cache_map=known)
        assert (done.seconds, len(done.done)) == (None, 1)
        passed = client.first_dataset_pass("d", cache_map=known, indexes=done, tiles=[TILE])
    assert len(passed.result.results) == len(udfs) + 1
    assert len(hexes.runs) == 1


def test_what_the_map_and_the_call_both_say_is_refused(many: Any) -> None:
    known, *_ = many
    with pytest.raises(InvalidInputError, match="h3_index: run is given in the call"):
        plan_dataset("d", cache_map=known, tiles=[TILE], h3_index={"run": True})
    bare = CacheMap.from_dict({"datasets": {"d": {"udfs": [{"udf": "other"}]}}})
    with pytest.raises(InvalidInputError, match="h3_index: path is missing, and the cache map does not say it"):
        plan_dataset("d", cache_map=bare, tiles=[TILE], h3_index={"prefix": "date=1"})


# -- what it looks like -------------------------------------------------------------------------------------------------


def test_the_plan_says_what_the_index_must_have(many: Any) -> None:
    assert "the index of 's3://lake/hexes/' is run until it has" in str(
        plan_invalidation("hexes", h3_index={"path": PATH, "run": True})
    )
    plan = plan_invalidation("hexes", h3_index={"path": PATH}, loaded_at="2026-01-01T00:00:00Z")
    assert plan.h3_index == "the index of 's3://lake/hexes/' must have what was loaded until 2026-01-01T00:00:00+00:00"
    known, *_ = many
    plans = planned("d", cache_map=known, tiles=[TILE]).plans
    assert plans["hexes0"].h3_index == "the index of 's3://lake/hexes/' is run until it has what was loaded until the load"
    assert plans["other"].h3_index is None


WRONG = [
    (None, "None, which may be a value that is missing"),
    ({}, "empty mapping"),
    ("s3://lake/hexes/", "of type str: pass a mapping"),
    ({"path": PATH}, "loaded_at is missing"),
    ({"path": "", "run": True}, "path = '' is not the path"),
    ({"run": True}, "path is missing"),
    ({"path": PATH, "runs": True}, r"unknown key 'runs'. Did you mean run\?"),
    ({"path": PATH, "run": "yes"}, "run = 'yes' must be True or False"),
    ({"path": PATH, "loaded_at": None}, "loaded_at is None"),
    ({"path": PATH, "loaded_at": "yesterday"}, "is not a time"),
    ({"path": PATH, "loaded_at": "2026-01-01T00:00:00"}, "has no time zone"),
    ({"path": PATH, "loaded_at": "2999-01-01T00:00:00Z"}, "is in the future"),
    ({"path": PATH, "loaded_at": ""}, "looks like a value that is missing"),
    ({"path": PATH, "loaded_at": True}, "is not a time"),
    ({"path": PATH, "loaded_at": 0, "prefix": "a"}, "prefix is for a run"),
    ({"path": PATH, "loaded_at": 0, "deadline": 5}, "deadline is for a run"),
    ({"path": PATH, "run": True, "prefix": []}, "prefix = "),
    ({"path": PATH, "run": True, "prefix": ""}, "prefix = "),
    ({"path": PATH, "run": True, "prefix": ["a", 5]}, "prefix = "),
    ({"path": PATH, "run": True, "deadline": 0}, "deadline = 0"),
    ({"path": PATH, "run": True, "deadline": "soon"}, "deadline = 'soon'"),
]


@pytest.mark.parametrize(("given", "problem"), WRONG, ids=[str(row[0]) for row in WRONG])
def test_what_cannot_be_read_is_refused_before_anything_is_sent(fused_emulator: Emulator, given: Any, problem: str) -> None:
    with pytest.raises(InvalidInputError, match=problem):
        invalidate_cache("hexes", h3_index=given)
    with pytest.raises(InvalidInputError, match=problem):
        plan_invalidation("hexes", h3_index=given)
    assert fused_emulator.requests == []


@pytest.mark.parametrize(
    "body",
    [[], {}, {"status": 5}, {"status": "ready", "indexed_as_of": "soon"}, {"status": "ready", "indexed_as_of": 5}],
    ids=str,
)
def test_a_malformed_answer_is_an_error_and_nothing_is_sent(
    fused_emulator: Emulator, map_of_hexes: Udf, purged: Callable[[], list[str]], body: Any
) -> None:
    fused_emulator.misbehave(status=200, path="/h3/index", body=body, times=None)
    with pytest.raises(Exception, match="malformed"):
        invalidate_cache("hexes", h3_index={"path": PATH, "loaded_at": now()})
    assert purged() == []
