"""One call over several instances and UDFs: what is sent where and in which order, and what is left if a part of it fails."""

import itertools
import json
import logging
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fused_cache_ops import (
    AuthenticationError,
    ConfigurationError,
    FusedClient,
    InvalidationPlan,
    InvalidationResult,
    InvalidInputError,
    NotFoundError,
    PartialInvalidationError,
    PermissionDeniedError,
    Tile,
    UnavailableError,
    invalidate_cache,
    plan_invalidation,
)
from fused_cache_ops.emulator import Emulator, ReceivedRequest, Udf
from fused_cache_ops.selection.spans import Spans
from fused_cache_ops.selection.spool import Spool

TILES = [Tile(9, x, 7) for x in range(95)]


@pytest.fixture
def land(fused_emulator: Emulator) -> Emulator:
    """A canvas whose maps run on another instance than the preferred one."""
    fused_emulator.add_instance("fused-maps")
    fused_emulator.add_canvas("land", access_scope="public", share_client_id="fused-maps")
    return fused_emulator


@pytest.fixture
def roads(land: Emulator) -> Udf:
    return add(land, "roads")


def add(emulator: Emulator, name: str, *callees: str) -> Udf:
    code = "import fused\n\ndef udf():\n    pass\n" + "".join(f"    fused.load({callee!r})()\n" for callee in callees)
    return emulator.register(dict, name=name, canvas="land", code=code)


def sent(emulator: Emulator) -> list[ReceivedRequest]:
    return [request for request in emulator.requests if request.path.endswith("delete")]


def places(emulator: Emulator, *udfs: Udf) -> list[tuple[str, str]]:
    """The names of UDFs and the instances of the invalidations that succeeded, in order."""
    names = {udf.id: udf.slug for udf in udfs}
    paths = [request.path.split("/") for request in sent(emulator) if request.status < 300]
    return [(names[path[-2]], path[path.index("realtime-shared") + 1]) for path in paths]


# -- instances ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "client_id", ["fused-maps,fused-team", ["fused-maps", "fused-team"], " fused-maps , fused-team,fused-maps"]
)
def test_several_instances_are_invalidated_without_a_look_up(land: Emulator, roads: Udf, client_id: Any) -> None:
    result = invalidate_cache(roads.id, tiles=TILES, client={"client_id": client_id})
    assert (result.client_id, result.client_ids) == ("fused-maps", ("fused-maps", "fused-team"))
    assert (result.tiles_invalidated, result.requests_sent) == (95, 2)
    assert len(land.requests) == 2


def test_they_can_come_from_the_environment(land: Emulator, roads: Udf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSED_CLIENT_ID", "all")
    assert set(invalidate_cache(roads.id).client_ids) == {"fused-maps", "fused-team"}


@pytest.mark.parametrize("client_id", ["", ",", "a,,b", "all,a", [], "a/b,c", ["None"], 5, {"a": 1}])
def test_what_is_no_instance_is_refused(land: Emulator, roads: Udf, client_id: Any) -> None:
    with pytest.raises(ConfigurationError, match="client_id"):
        invalidate_cache(roads.id, client={"client_id": client_id})
    assert land.requests == []


def test_where_maps_run_on_the_preferred_instance_it_is_invalidated_once(fused_emulator: Emulator) -> None:
    fused_emulator.add_canvas("land", share_client_id="fused-team")
    result = invalidate_cache(add(fused_emulator, "roads").id)
    assert (result.client_ids, result.requests_sent) == (("fused-team",), 4)


@pytest.mark.parametrize("path", ["/udf/by-id", "/collection/by-id"])
@pytest.mark.parametrize("status", [403, 404])
def test_a_token_that_may_not_look_falls_back_and_says_so(
    land: Emulator, roads: Udf, caplog: pytest.LogCaptureFixture, path: str, status: int
) -> None:
    land.misbehave(status=status, path=path, times=None)
    result = invalidate_cache(roads.id, tiles=TILES)
    assert result.client_ids == ("fused-team",)
    assert result.warnings is not None
    assert f"({status})" in result.warnings[0]
    assert [record.levelno for record in caplog.records if "stale" in record.message] == [logging.WARNING]


@pytest.mark.parametrize("path", ["/udf/by-id", "/collection/by-id", "realtime-instance"])
def test_a_look_up_that_fails_otherwise_never_falls_back(land: Emulator, roads: Udf, path: str) -> None:
    land.misbehave(status=503, path=path, times=None)
    with FusedClient(deadline=0.5) as client, pytest.raises(UnavailableError) as caught:
        client.invalidate_cache(roads.id, tiles=TILES)
    assert sent(land) == []
    assert caught.value.unfinished == ()
    assert len(list(caught.value.remaining or ())) == 95


def test_a_token_that_may_not_list_instances_still_reaches_the_maps(land: Emulator, roads: Udf) -> None:
    land.misbehave(status=403, path="realtime-instance", times=None)
    assert invalidate_cache(roads.id).client_ids == ("fused-maps",)


# -- what fails in a part -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [403, 404, 422, 503])
def test_an_instance_that_fails_does_not_keep_the_others_stale(land: Emulator, roads: Udf, status: int) -> None:
    land.fill_cache(roads, TILES, client_id="fused-maps")
    land.misbehave(status=status, path="/realtime-shared/fused-team/", times=None)
    with FusedClient(deadline=2) as client, pytest.raises(PartialInvalidationError) as caught:
        client.invalidate_cache(roads.id, tiles=TILES)
    assert land.cached_tiles(roads, client_id="fused-maps") == set()
    error = caught.value
    assert [(each.udf_id, each.client_id) for each in error.unfinished] == [(roads.id, "fused-team")]
    assert list(error.unfinished[0].remaining or ()) == list(error.remaining or ()) == TILES
    assert (error.result.tiles_invalidated, error.retryable) == (0, status == 503)
    assert "1 of 2 invalidations succeeded" in str(error)


def test_a_token_that_is_refused_ends_the_call(land: Emulator, roads: Udf) -> None:
    land.misbehave(status=401, path="/realtime-shared/fused-team/", times=None)
    with pytest.raises(AuthenticationError) as caught:
        invalidate_cache(roads.id, tiles=TILES)
    assert len(sent(land)) == 1
    assert [each.client_id for each in caught.value.unfinished] == ["fused-team", "fused-maps"]


def test_where_every_instance_fails_the_error_names_each(land: Emulator, roads: Udf) -> None:
    land.misbehave(status=403, path="/realtime-shared/", times=None)
    with pytest.raises(PermissionDeniedError) as caught:
        invalidate_cache(roads.id)
    assert [each.client_id for each in caught.value.unfinished] == ["fused-team", "fused-maps"]
    assert caught.value.remaining is None


def test_a_whole_udf_that_fails_in_a_part_says_what_is_left(land: Emulator, roads: Udf) -> None:
    land.misbehave(status=403, path="/realtime-shared/fused-maps/", times=None)
    with pytest.raises(PartialInvalidationError) as caught:
        invalidate_cache(roads.id)
    assert [tuple(each) for each in caught.value.unfinished] == [(roads.id, "fused-maps", None)]
    assert caught.value.remaining is None


def test_such_an_error_can_be_pickled(land: Emulator, roads: Udf) -> None:
    land.misbehave(status=503, path="/realtime-shared/fused-maps/", times=None)
    with FusedClient(deadline=1) as client, pytest.raises(PartialInvalidationError) as caught:
        client.invalidate_cache(roads.id, tiles=TILES)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.retryable, copy.result, str(copy)) == (True, caught.value.result, str(caught.value))
    assert list(copy.unfinished[0].remaining) == TILES


def test_one_that_is_down_leaves_time_for_the_others(land: Emulator, roads: Udf) -> None:
    land.misbehave(status=503, path="/realtime-shared/fused-team/", times=None)
    with FusedClient(deadline=3) as client, pytest.raises(PartialInvalidationError) as caught:
        client.invalidate_cache(roads.id, tiles=TILES)
    assert [each.client_id for each in caught.value.unfinished] == ["fused-team"]


# -- what can be read once ----------------------------------------------------------------------------------------------


def test_a_generator_is_sent_to_every_instance(land: Emulator, roads: Udf) -> None:
    for client_id in ("fused-team", "fused-maps"):
        land.fill_cache(roads, TILES, client_id=client_id)
    result = invalidate_cache(roads.id, tiles=iter(TILES))
    assert (result.tiles_invalidated, land.cached_tiles(roads)) == (95, set())


def test_what_is_left_of_a_generator_is_the_union(land: Emulator, roads: Udf) -> None:
    land.misbehave(status=403, path="/realtime-shared/fused-team/", times=None)
    with pytest.raises(PartialInvalidationError) as caught:
        invalidate_cache(roads.id, tiles=iter(TILES))
    assert list(caught.value.remaining or ()) == TILES


def test_where_there_is_one_place_a_generator_is_not_kept(
    fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Spool] = []
    made = Spool.__init__

    def remember(spool: Spool, stream: Iterator[Tile]) -> None:
        made(spool, stream)
        kept.append(spool)

    monkeypatch.setattr(Spool, "__init__", remember)
    invalidate_cache(udf.id, tiles=(Tile(17, x, 0) for x in range(120_000)))
    assert [spool.keeps for spool in kept] == [False]
    assert sum(map(len, (spool.kept_from(0) for spool in kept))) <= 150_000


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 60))
def test_every_reader_of_a_spool_gets_every_tile(steps: list[int], count: int) -> None:
    tiles = [Tile(9, x, 7) for x in range(count)]
    spool = Spool(iter(tiles))
    readers = [(spool.read(), []) for _ in range(4)]  # type: ignore[var-annotated]
    for step in steps:
        reader, found = readers[step]
        found.extend(tile for tile in [next(reader, None)] if tile is not None)
    for reader, found in readers:
        assert [*found, *reader] == tiles


def test_a_long_stream_is_kept_in_a_file() -> None:
    tiles = [Tile(17, x, x // 2) for x in range(50_000)]
    spool = Spool(iter(tiles))
    assert list(spool.read()) == tiles
    assert list(spool.read()) == tiles
    assert spool._filed > 0


# -- related UDFs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def family(land: Emulator) -> list[Udf]:
    """``raw`` ← ``clean`` ← ``roads`` ← ``map`` ← ``atlas``."""
    chain = ["raw", "clean", "roads", "map", "atlas"]
    return [add(land, name, *chain[number - 1 : number]) for number, name in enumerate(chain)]


@pytest.mark.parametrize(
    ("related", "order"),
    [
        ("callers", ["roads", "map", "atlas"]),
        ("callees", ["raw", "clean", "roads"]),
        ("both", ["raw", "clean", "roads", "map", "atlas"]),
    ],
)
def test_callees_come_first_then_the_udf_then_its_callers(
    land: Emulator, family: list[Udf], related: Any, order: list[str]
) -> None:
    result = invalidate_cache("land/roads", tiles=TILES, related=related)
    assert places(land, *family) == [(name, client) for name in order for client in ("fused-team", "fused-maps")]
    names = {udf.id: udf.slug for udf in family}
    tiles = {names[udf_id]: each.tiles_invalidated for udf_id, each in result.related.items()}
    # Those that another one calls are cached by its parameters. Only the outermost keeps the tiles.
    assert tiles | {"roads": result.tiles_invalidated} == dict.fromkeys(order[:-1]) | {order[-1]: 95}
    assert result.requests_sent == 3 + len(sent(land))


def test_the_result_is_json_with_its_relatives(land: Emulator, family: list[Udf]) -> None:
    result = invalidate_cache("land/roads", tiles=TILES, related="both")
    assert InvalidationResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_an_empty_selection_invalidates_no_relative_either(land: Emulator, family: list[Udf]) -> None:
    result = invalidate_cache("land/roads", tiles=[], related="both")
    assert (result.tiles_invalidated, result.related, land.requests) == (0, {}, [])


def test_more_relatives_than_the_guard_allows_are_an_error_before_anything_is_sent(land: Emulator, family: list[Udf]) -> None:
    with pytest.raises(InvalidInputError, match=r"roads has 4 related UDFs .* over max_related=3"):
        invalidate_cache("land/roads", related="both", max_related=3)
    assert sent(land) == []


def test_a_circle_is_sent_once(land: Emulator) -> None:
    udfs = [add(land, "roads", "map"), add(land, "map", "roads")]
    invalidate_cache("land/roads", related="both", client={"client_id": "fused-maps"})
    assert places(land, *udfs) == [("map", "fused-maps"), ("roads", "fused-maps")]


def test_a_udf_of_another_canvas_is_never_invalidated(land: Emulator, roads: Udf) -> None:
    land.register(dict, name="foreign", canvas="elsewhere", code="def udf():\n    fused.load('land/roads')\n")
    add(land, "map", "roads", "elsewhere/foreign", "fsh_verysecret")
    result = invalidate_cache("land/roads", related="both")
    assert len(result.related) == 1
    assert any("elsewhere/foreign" in warning for warning in result.warnings or ())
    assert "verysecret" not in str(result.warnings)


@pytest.mark.parametrize("status", [403, 404])
def test_a_canvas_that_the_token_may_not_see_is_an_error_with_the_remedy(land: Emulator, roads: Udf, status: int) -> None:
    land.misbehave(status=status, path="/collection/by-id", times=None)
    with pytest.raises((PermissionDeniedError, NotFoundError), match="Omit related, and invalidate each"):
        invalidate_cache(roads.id, related="callers")
    assert sent(land) == []


@pytest.mark.parametrize("record", [{}, {"collection_id": None}])
def test_a_udf_without_a_canvas_has_no_relatives(land: Emulator, roads: Udf, record: dict[str, Any]) -> None:
    land.misbehave(status=200, body={"id": roads.id, "slug": "roads"} | record, path="/udf/by-id", times=None)
    with pytest.raises(InvalidInputError, match="does not say which one it is in"):
        invalidate_cache(roads.id, related="callers")
    assert invalidate_cache(roads.id).client_ids == ("fused-team",)


@pytest.mark.parametrize("related", ["all", "", "None", "callers,callees", 5, [], True])
def test_an_unknown_value_is_refused(land: Emulator, roads: Udf, related: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"related = .* must be one of 'callers', 'callees', 'both'"):
        invalidate_cache(roads.id, related=related)
    assert land.requests == []


@pytest.mark.parametrize("most", [0, -1, True, 1.5, "20", None])
def test_an_invalid_guard_is_refused(land: Emulator, roads: Udf, most: Any) -> None:
    with pytest.raises(InvalidInputError, match="max_related = "):
        invalidate_cache(roads.id, related="callers", max_related=most)
    assert land.requests == []


def test_a_relative_that_fails_does_not_keep_the_udf_stale(land: Emulator, family: list[Udf]) -> None:
    land.misbehave(status=403, path=family[0].id, method="DELETE", times=None)
    with pytest.raises(PartialInvalidationError) as caught:
        invalidate_cache("land/roads", tiles=TILES, related="both")
    error = caught.value
    assert {(each.udf_id, each.remaining) for each in error.unfinished} == {(family[0].id, None)}
    assert (error.result.tiles_invalidated, list(error.remaining or ())) == (None, [])
    assert len(error.result.related) == 4


# -- the plan -----------------------------------------------------------------------------------------------------------


def test_the_plan_that_looks_up_shows_what_is_sent_where(land: Emulator, family: list[Udf]) -> None:
    with FusedClient() as client:
        plan = client.plan_invalidation("land/roads", tiles=TILES, related="both")
        land.forget_requests()
        client.invalidate_cache("land/roads", tiles=TILES, related="both")
    assert plan.targets is not None
    assert [(each.name, each.client_id) for each in plan.targets] == places(land, *family)
    assert [each.relation for each in plan.targets[::2]] == ["callee", "callee", "udf", "caller", "caller"]
    assert plan.request_count == len(sent(land))
    assert json.loads(json.dumps(plan.to_dict()))["targets"][0]["name"] == "raw"
    assert "on 2 instances" in str(plan)
    assert "4 related UDFs" in str(plan)
    assert "roads: everything, because of map" in str(plan)
    assert [(each.name, each.called_by) for each in plan.targets[::2]][-2:] == [("map", ("atlas",)), ("atlas", ())]


def test_on_plan_gets_that_plan_before_anything_is_sent(land: Emulator, family: list[Udf]) -> None:
    plans: list[InvalidationPlan] = []

    def look(plan: InvalidationPlan) -> None:
        assert sent(land) == []
        plans.append(plan)

    invalidate_cache("land/roads", tiles=TILES, related="callers", on_plan=look)
    assert [len(plan.targets or ()) for plan in plans] == [6]


def test_a_plan_that_never_looks_up_refuses_relatives(land: Emulator) -> None:
    with pytest.raises(InvalidInputError, match=r"use FusedClient\.plan_invalidation"):
        plan_invalidation("land/roads", related="callers")
    assert land.requests == []


def test_a_plan_sends_nothing_and_an_empty_one_asks_nothing(land: Emulator, roads: Udf) -> None:
    with FusedClient() as client:
        assert client.plan_invalidation(roads.id, tiles=[]).targets is None
        assert land.requests == []
        assert client.plan_invalidation(roads.id).request_count == 2
    assert sent(land) == []


# -- checkpoints --------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.json"


def test_one_checkpoint_holds_every_target(land: Emulator, family: list[Udf], place: Path) -> None:
    land.misbehave(status=403, path=f"fused-maps/udf-cache/by-id/{family[2].id}", times=None)
    with pytest.raises(PartialInvalidationError):
        invalidate_cache("land/roads", tiles=TILES, related="callees", checkpoint=place)
    record = json.loads(place.read_text())
    done = {(each["udf_id"], each["client_id"]) for each in record["targets"] if each["done"]}
    assert done == {(udf.id, client) for udf in family[:3] for client in ("fused-team", "fused-maps")} - {
        (family[2].id, "fused-maps")
    }
    land.behave()
    land.forget_requests()
    result = invalidate_cache("land/roads", tiles=TILES, related="callees", checkpoint=place)
    assert places(land, *family) == [("roads", "fused-maps")]
    assert (result.tiles_invalidated, result.tiles_already_done) == (95, 0)
    assert not place.exists()


def test_callers_are_sent_again_if_the_udf_was_not_complete(land: Emulator, family: list[Udf], place: Path) -> None:
    land.misbehave(status=403, path=f"fused-maps/udf-cache/by-id/{family[2].id}", times=None)
    with pytest.raises(PartialInvalidationError):
        invalidate_cache("land/roads", tiles=TILES, related="callers", checkpoint=place)
    land.behave()
    land.forget_requests()
    invalidate_cache("land/roads", tiles=TILES, related="callers", checkpoint=place)
    assert places(land, *family) == [
        ("roads", "fused-maps"),
        *((name, client) for name in ("map", "atlas") for client in ("fused-team", "fused-maps")),
    ]


def test_the_checkpoint_knows_both_passes(land: Emulator, roads: Udf, place: Path) -> None:
    arrived = itertools.count(1)

    def refuse_the_fourth() -> None:
        if next(arrived) == 3:
            land.misbehave(status=403, path="fused-maps", times=None)

    land.before_invalidation = refuse_the_fourth
    with pytest.raises(PartialInvalidationError):
        invalidate_cache(roads.id, tiles=TILES, again_after=1, checkpoint=place)
    land.behave()
    land.forget_requests()
    result = invalidate_cache(roads.id, tiles=TILES, again_after=1, checkpoint=place)
    assert places(land, roads) == [("roads", "fused-maps")]
    assert result.second_pass == "done"
    assert not place.exists()


# -- the second pass ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "130", True, 86_401, None])
def test_an_invalid_wait_is_refused(land: Emulator, roads: Udf, seconds: Any) -> None:
    with pytest.raises(InvalidInputError, match="again_after = "):
        invalidate_cache(roads.id, again_after=seconds)
    assert land.requests == []


def test_what_can_be_read_once_cannot_be_sent_again(land: Emulator, roads: Udf) -> None:
    with pytest.raises(InvalidInputError, match="again_after = 130 needs a selection that can be read more than once"):
        invalidate_cache(roads.id, tiles=iter(TILES), again_after=130)
    assert land.requests == []


def test_the_wait_does_not_count_toward_the_deadline(land: Emulator, roads: Udf) -> None:
    with FusedClient(client_id="fused-maps", deadline=1) as client:
        result = client.invalidate_cache(roads.id, tiles=TILES, again_after=1.5)
    assert (result.second_pass, result.tiles_invalidated, result.requests_sent) == ("done", 95, 2)
    assert result.elapsed_seconds >= 1.5


def test_cancelling_ends_the_wait_and_everything_remains(
    roads: Udf, when: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fused_cache_ops")
    with FusedClient(client_id="fused-maps") as client:
        when(lambda: "the second pass begins" in caplog.text, client.cancel)
        with pytest.raises(PartialInvalidationError, match="waiting for the second pass") as caught:
            client.invalidate_cache(roads.id, tiles=TILES, again_after=600)
    assert list(caught.value.remaining or ()) == TILES
    assert (caught.value.result.tiles_invalidated, caught.value.result.second_pass) == (95, None)


def test_progress_goes_on_through_both_passes(land: Emulator, roads: Udf) -> None:
    told: list[tuple[int, int | None]] = []
    invalidate_cache(roads.id, tiles=TILES, again_after=0.1, on_progress=lambda done, total, _: told.append((done, total)))
    assert told[0] == (0, 380)
    assert told[-1] == (380, 380)
    assert told == sorted(told, key=lambda each: each[0])


# -- spans --------------------------------------------------------------------------------------------------------------

SPANS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).map(sorted), max_size=6)


@given(st.lists(SPANS, min_size=1, max_size=4))
def test_what_is_common_is_in_each(several: list[list[Any]]) -> None:
    expected = set.intersection(*({n for start, stop in spans for n in range(start, stop)} for spans in several))
    common = Spans.common([Spans(spans) for spans in several])
    assert {n for start, stop in common for n in range(start, stop)} == expected
    assert common.count == len(expected)
