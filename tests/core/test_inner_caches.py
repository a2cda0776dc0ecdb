"""The folders of inner caches: their names, how often each is deleted, and what a retry does with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fused_cache_ops import (
    CacheMap,
    DatasetInvalidationError,
    FusedClient,
    InvalidationResult,
    InvalidInputError,
    PartialInvalidationError,
    invalidate_cache,
    invalidate_dataset,
    plan_dataset,
    plan_invalidation,
)
from fused_cache_ops.code.calls import read_source
from fused_cache_ops.emulator import Emulator, Udf

CODE = """
@fused.udf
def udf():
    @fused.cache(cache_folder_path={folder!r})
    def read():
        return 1
    return read()
"""


@pytest.fixture
def sent(fused_emulator: Emulator) -> Callable[[], list[str]]:
    """What was deleted, in order: ``delete-dir``, or the last part of the address of an invalidation."""
    return lambda: [
        request.path.rsplit("/", 1)[1]
        for request in fused_emulator.requests
        if request.method == "DELETE" or request.path.endswith("batch-delete")
    ]


def fill(emulator: Emulator, *folders: str) -> None:
    for folder in folders:
        emulator.cache(cache_folder_path=folder)(lambda: 1)()


def add(emulator: Emulator, name: str, folder: str = "roads") -> Udf:
    return emulator.register(dict, name=name, canvas="maps", code=CODE.format(folder=folder))


@pytest.mark.parametrize(
    "given",
    [None, "", [""], ["roads", ""], " ", "None", 5, {"roads": 1}, b"roads", [b"roads"], [None], [5]]
    + ["../tmp", "roads/..", "/roads", "roads/", "a//b", ".", "a/./b", "..", "a\\b", "a\0b", "a\nb", " a", "a/ b", "x" * 1001],
    ids=repr,
)
def test_what_is_no_folder_of_inner_caches_is_refused_before_anything_is_sent(fused_emulator: Emulator, given: Any) -> None:
    with pytest.raises(InvalidInputError, match="inner_caches"):
        invalidate_cache("maps/roads", inner_caches=given)
    with pytest.raises(InvalidInputError, match="inner_caches"):
        plan_invalidation("maps/roads", inner_caches=given)
    assert fused_emulator.requests == []


@pytest.mark.parametrize("folder", ["land", "land/parcels", "table_to_tile", "a b", "année"])
def test_a_folder_is_deleted_and_those_beside_it_stay(fused_emulator: Emulator, udf: Udf, folder: str) -> None:
    fill(fused_emulator, folder, f"{folder}2", "other")
    result = invalidate_cache(udf.id, inner_caches=[folder])
    assert result.inner_caches == (folder,)
    left = fused_emulator.inner_caches()
    assert "other" in left
    assert folder not in left
    assert f"{folder}2".partition("/")[0] in left


def test_a_folder_that_is_not_there_is_done_after_one_look(
    fused_emulator: Emulator, client: FusedClient, udf: Udf, sent: Callable[[], list[str]]
) -> None:
    result = client.invalidate_cache(udf.id, inner_caches="never/used")
    assert (result.inner_caches, sent()) == (("never/used",), ["delete"])
    assert result.requests_sent == len(fused_emulator.requests) == 2


@pytest.mark.parametrize(
    "body",
    [[], {}, {"items": {}}, {"items": ["roads"]}, {"items": [{"name": "roads"}]}, {"items": [{"file_name": ""}]}],
    ids=str,
)
def test_a_list_that_cannot_be_read_is_not_taken_for_a_folder_that_is_not_there(
    fused_emulator: Emulator, udf: Udf, body: Any
) -> None:
    fill(fused_emulator, "roads")
    fused_emulator.misbehave(status=200, path="/list", body=body, times=None)
    with pytest.raises(PartialInvalidationError, match="malformed") as caught:
        invalidate_cache(udf.id, inner_caches="roads")
    assert not caught.value.retryable
    assert fused_emulator.cached_tiles(udf) == set()


@pytest.mark.parametrize("body", [{"detail": "no"}, {"error": "no"}], ids=str)
def test_an_answer_that_says_that_something_failed_is_no_yes(fused_emulator: Emulator, udf: Udf, body: Any) -> None:
    fill(fused_emulator, "roads")
    fused_emulator.misbehave(status=200, path="/delete-dir", body=body, times=None)
    with pytest.raises(PartialInvalidationError, match="Folder roads"):
        invalidate_cache(udf.id, inner_caches="roads")


def test_an_empty_selection_deletes_none_either(fused_emulator: Emulator, udf: Udf) -> None:
    fill(fused_emulator, "roads")
    assert invalidate_cache(udf.id, tiles=[], inner_caches="roads").inner_caches == ()
    assert fused_emulator.inner_caches() == ["roads"]


def test_a_single_use_list_of_names_is_read_once(fused_emulator: Emulator, udf: Udf) -> None:
    fill(fused_emulator, "a", "b")
    assert invalidate_cache(udf.id, inner_caches=iter(["a", "b", "a"])).inner_caches == ("a", "b")
    assert fused_emulator.inner_caches() == []


@pytest.mark.parametrize(
    ("decorator", "folder"),
    [
        ("cache_folder_path='roads'", "roads"),
        ("cache_folder_path='/roads/'", "roads"),  # as the SDK reads it
        ("cache_folder_path=FOLDER + '/2026'", "lake/2026"),
        ("cache_folder_path='roads', cache_storage='mount'", "roads"),
        ("cache_folder_path='roads', cache_storage='local'", None),
        ("cache_folder_path='../../etc'", None),
        ("cache_folder_path=name", None),
    ],
)
def test_the_folder_is_read_from_the_code(decorator: str, folder: str | None) -> None:
    code = f"FOLDER = 'lake'\n@fused.udf\ndef udf(name):\n    @fused.cache({decorator})\n    def read():\n        return 1\n"
    assert [cache.folder for cache in read_source(code).caches] == [folder]


def test_own_is_what_the_code_names_and_not_what_the_team_shares(fused_emulator: Emulator) -> None:
    code = CODE.format(folder="roads") + CODE.format(folder="tmp") + CODE.format(folder="roads/deep") + "fused.cache(print)\n"
    fused_emulator.register(dict, name="roads", canvas="maps", code=code)
    fill(fused_emulator, "roads", "tmp")
    assert invalidate_cache("maps/roads", inner_caches="own").inner_caches == ("roads", "roads/deep")
    assert fused_emulator.inner_caches() == ["tmp"]
    assert invalidate_cache("maps/roads", inner_caches=["tmp", "own"]).inner_caches == ("tmp", "roads", "roads/deep")


def test_own_looks_the_code_up_also_where_nothing_else_is(fused_emulator: Emulator, client: FusedClient) -> None:
    udf = add(fused_emulator, "roads")
    assert client.invalidate_cache(udf.id, inner_caches="own").inner_caches == ("roads",)


def test_own_without_the_code_is_refused(fused_emulator: Emulator, client: FusedClient) -> None:
    udf = add(fused_emulator, "roads")
    fused_emulator.misbehave(status=200, body={"id": udf.id}, path="/udf/by-id", times=None)
    with pytest.raises(InvalidInputError, match="needs the code of UDF"):
        client.invalidate_cache(udf.id, inner_caches="own")


def test_a_transient_failure_is_tried_again_and_then_sends_everything_anew(
    fused_emulator: Emulator, tmp_path: Path, client: FusedClient, sent: Callable[[], list[str]]
) -> None:
    udf = add(fused_emulator, "roads")
    fill(fused_emulator, "roads")
    how: Any = {"tiles": ["1/0/0", "1/0/1"], "checkpoint": tmp_path / "done.json", "inner_caches": "roads"}
    fused_emulator.misbehave(status=503, path="/delete-dir", times=None)
    with FusedClient(client_id="fused-team", deadline=1) as hurried, pytest.raises(PartialInvalidationError) as caught:
        hurried.invalidate_cache(udf.id, **how)
    assert caught.value.retryable
    assert caught.value.result.tiles_invalidated == 2
    fused_emulator.behave()
    fused_emulator.forget_requests()
    # What was computed since then may come from the old inner cache.
    result = client.invalidate_cache(udf.id, **how)
    assert (sent(), result.tiles_invalidated, result.tiles_already_done) == (["delete-dir", "batch-delete"], 2, 0)


def test_what_a_checkpoint_has_is_not_deleted_again(
    fused_emulator: Emulator, tmp_path: Path, client: FusedClient, sent: Callable[[], list[str]]
) -> None:
    udf = add(fused_emulator, "roads")
    fill(fused_emulator, "roads")
    how: Any = {"tiles": ["1/0/0", "1/0/1"], "checkpoint": tmp_path / "done.json", "inner_caches": "roads"}
    fused_emulator.misbehave(status=403, path="batch-delete", times=1)
    with pytest.raises(PartialInvalidationError) as caught:
        client.invalidate_cache(udf.id, **how)
    assert caught.value.result.inner_caches == ("roads",)
    assert [each.udf_id for each in caught.value.unfinished] == [udf.id]
    fill(fused_emulator, "roads")
    fused_emulator.forget_requests()
    result = client.invalidate_cache(udf.id, **how)
    assert (sent(), result.inner_caches, fused_emulator.inner_caches()) == (["batch-delete"], ("roads",), ["roads"])


def test_a_dataset_deletes_each_folder_once_before_its_udfs(
    fused_emulator: Emulator, sent: Callable[[], list[str]], table: dict[str, str], seen: Callable[..., Any]
) -> None:
    read = fused_emulator.cache(cache_folder_path="roads")(lambda: table["load"])
    names = [f"roads{number}" for number in range(12)]
    udfs = [
        fused_emulator.register(lambda **tile: read(), name=name, canvas="maps", code=CODE.format(folder="roads"))
        for name in names
    ]
    before = [seen(udf) for udf in udfs]
    table["load"] = "new"
    entries = [{"udf": f"maps/{name}", "inner_caches": "own" if number % 2 else ["roads"]} for number, name in enumerate(names)]
    known = CacheMap.from_dict({"datasets": {"d": {"udfs": entries}}})
    assert plan_dataset("d", cache_map=known, tiles=["1/0/0"]).plans["maps/roads1"].inner_caches == ("own",)
    result = invalidate_dataset("d", cache_map=known, tiles=["1/0/0"])
    assert (before, [seen(udf) for udf in udfs]) == (["old"] * 12, ["new"] * 12)
    assert sent() == ["delete-dir"] + ["delete"] * 12
    assert {each.inner_caches for each in result.results.values()} == {("roads",)}


def test_one_refusal_is_for_every_udf_of_a_dataset_and_asked_for_once(fused_emulator: Emulator) -> None:
    for name in ("a", "b"):
        add(fused_emulator, name)
    fused_emulator.misbehave(status=403, path="/efs/", times=None)
    known = CacheMap.from_dict({"datasets": {"d": {"udfs": [{"udf": "maps/a"}, {"udf": "maps/b"}]}}})
    with pytest.raises(DatasetInvalidationError) as caught:
        invalidate_dataset("d", cache_map=known, tiles=["1/0/0"], inner_caches=(name for name in ["roads"]))
    assert set(caught.value.result.failed) == {"maps/a", "maps/b"}
    assert not caught.value.retryable
    assert sum("/efs/" in request.path for request in fused_emulator.requests) == 1


@pytest.mark.parametrize("given", ["", ["a/"], 5, ["../x"]], ids=repr)
def test_a_map_with_what_is_no_folder_is_refused_when_it_is_read(given: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"entry 1 \(roads\): inner_caches"):
        CacheMap.from_dict({"datasets": {"d": {"udfs": [{"udf": "roads", "inner_caches": given}]}}})


def test_the_plan_shows_the_folders_and_counts_their_requests(fused_emulator: Emulator, client: FusedClient) -> None:
    udf = add(fused_emulator, "roads")
    plan = client.plan_invalidation(udf.id, tiles=["1/0/0"], inner_caches=["own", "tmp"])
    assert plan.inner_caches == ("roads", "tmp")
    assert [(each.name, each.relation) for each in plan.targets or ()] == [
        ("roads", "inner caches"),
        ("tmp", "inner caches"),
        ("roads", "udf"),
    ]
    assert plan.request_count == 3
    assert "inner caches deleted before: roads, tmp" in str(plan)
    assert plan_invalidation(udf.id, tiles=["1/0/0"], inner_caches="own").to_dict()["inner_caches"] == ["own"]


def test_the_result_with_its_folders_is_json_and_can_be_merged(fused_emulator: Emulator, client: FusedClient) -> None:
    udf = add(fused_emulator, "roads")
    result = client.invalidate_cache(udf.id, tiles=["1/0/0"], inner_caches="own")
    assert InvalidationResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result
    assert InvalidationResult.merge([result, result]).inner_caches == ("roads",)
    assert "and inner caches (roads)" in str(result)
