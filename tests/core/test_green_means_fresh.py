"""When the step is green, the map is right: each way in which a map stays stale, seen as the map sees it."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from fused_cache_ops import FusedClient, InvalidInputError, PartialInvalidationError, invalidate_cache
from fused_cache_ops.emulator import Emulator, Udf

TILE = "1/0/0"


# -- callers and callees ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [True, False])
def test_a_caller_of_the_invalidated_udf_is_fresh_if_callers_are_asked_for(
    loader: Udf, parcels: Udf, table: dict[str, str], seen: Callable[..., Any], whole: bool
) -> None:
    before = seen(parcels)
    table["load"] = "new"
    selection: Any = {} if whole else {"tiles": [TILE]}
    # The loader is cached by the parameters of the call, so it is invalidated whole. Its caller draws tiles.
    result = invalidate_cache("land/loader", related="callers", **selection)
    assert (before, seen(parcels)) == ("old", "new")
    assert list(result.related) == [parcels.id]
    assert (result.tiles_invalidated, result.related[parcels.id].tiles_invalidated) == (None, None if whole else 1)
    assert result.note == (None if whole else "all of it is invalidated, because parcels calls it by parameters")


def test_a_callee_is_invalidated_first_and_whole(
    fused_emulator: Emulator, loader: Udf, parcels: Udf, table: dict[str, str], seen: Callable[..., Any]
) -> None:
    before = seen(parcels)
    table["load"] = "new"
    result = invalidate_cache("land/parcels", tiles=[TILE], related="callees")
    assert (before, seen(parcels)) == ("old", "new")
    deletes = [request.path.split("/by-id/")[1] for request in fused_emulator.requests if request.method == "DELETE"]
    assert deletes == [*[f"{loader.id}/delete"] * 2, *[f"{parcels.id}/delete"] * 2]
    assert (result.related[loader.id].tiles_invalidated, result.tiles_invalidated) == (None, 1)


def test_without_being_asked_the_result_warns_of_callers(
    loader: Udf, parcels: Udf, table: dict[str, str], seen: Callable[..., Any]
) -> None:
    seen(parcels)
    table["load"] = "new"
    result = invalidate_cache("land/loader")
    assert seen(parcels) == "old"
    assert result.warnings == (
        "1 caller of this UDF keeps results of its own (parcels): pass related='callers' to invalidate it too.",
    )


def test_with_tiles_it_warns_that_what_the_callers_get_is_old_too(
    fused_emulator: Emulator, loader: Udf, parcels: Udf, seen: Callable[..., Any]
) -> None:
    seen(parcels)
    result = invalidate_cache("land/loader", tiles=[TILE])
    assert fused_emulator.cached_calls(loader) == [{"region": "all"}]
    assert result.warnings is not None
    assert "(parcels)" in result.warnings[0]
    assert "cached by parameters and not by tiles, so that it stays old as well." in result.warnings[0]


def test_every_udf_that_another_one_calls_is_whole_and_the_outermost_keep_their_tiles(
    fused_emulator: Emulator, loader: Udf, parcels: Udf, table: dict[str, str], seen: Callable[..., Any]
) -> None:
    atlas = fused_emulator.register(
        lambda z, x, y: fused_emulator.load("parcels")(z=z, x=x, y=y),
        name="atlas",
        canvas="land",
        code='def udf(bounds):\n    return fused.run("parcels")\n',
    )
    before = seen(atlas)
    fused_emulator.fill_cache(atlas, [(2, 0, 0)])
    fused_emulator.fill_cache(parcels, [(2, 0, 0)])
    table["load"] = "new"
    result = invalidate_cache(
        "land/loader", tiles=[TILE], related="callers", verify_tiles=1, shared_token=loader.shared_token, refresh="all"
    )
    assert (before, seen(atlas)) == ("old", "new")
    assert fused_emulator.cached_tiles(atlas) == {(1, 0, 0), (2, 0, 0)}
    assert (2, 0, 0) not in fused_emulator.cached_tiles(parcels)
    assert {udf_id: each.tiles_invalidated for udf_id, each in result.related.items()} == {parcels.id: None, atlas.id: 1}
    assert (str(result.verification), result.refresh and result.refresh.runs) == ("verified: 1 of 1", 1)


def test_a_shard_cannot_be_of_udfs_that_call_one_another(fused_emulator: Emulator, parcels: Udf) -> None:
    with pytest.raises(InvalidInputError, match=r"shard = \(0, 2\) and related are both given"):
        invalidate_cache("land/loader", tiles=[TILE, "1/0/1"], related="callers", shard=(0, 2))
    assert fused_emulator.requests == []


# -- instances ----------------------------------------------------------------------------------------------------------


def test_the_instance_that_maps_run_on_is_reached_by_default(
    loader: Udf, table: dict[str, str], seen: Callable[..., Any]
) -> None:
    before = seen(loader)
    table["load"] = "new"
    result = invalidate_cache(loader.id, tiles=[TILE])
    assert (before, seen(loader)) == ("old", "new")
    assert (result.client_id, result.client_ids) == ("fused-team", ("fused-team", "fused-maps"))
    assert result.tiles_invalidated == 1


def test_and_so_are_all_instances_if_asked_for(
    fused_emulator: Emulator, loader: Udf, table: dict[str, str], seen: Callable[..., Any]
) -> None:
    fused_emulator.add_instance("fused-third", 9)
    for client_id in ("fused-third", "fused-team"):
        fused_emulator.fill_cache(loader, [(1, 0, 0)], client_id=client_id)
    before = seen(loader)
    table["load"] = "new"
    result = invalidate_cache(loader.id, tiles=[TILE], client={"client_id": "all"})
    assert (before, seen(loader)) == ("old", "new")
    assert fused_emulator.cached_tiles(loader, client_id="fused-third") == set()
    assert result.client_ids == ("fused-third", "fused-team", "fused-maps")


def test_where_instances_share_their_caches_that_does_no_harm(
    fused_emulator: Emulator, loader: Udf, table: dict[str, str], seen: Callable[..., Any]
) -> None:
    fused_emulator.assumptions.mixed_instances = True
    seen(loader)
    table["load"] = "new"
    assert invalidate_cache(loader.id, tiles=[TILE]).tiles_invalidated == 1
    assert seen(loader) == "new"


def test_one_that_leaves_the_maps_instance_out_is_warned(loader: Udf) -> None:
    with FusedClient(client_id="fused-team") as client:
        report = client.inspect(loader.id)
        result = client.invalidate_cache("land/loader", related="callers")
    assert report.map_is_reached is False
    assert result.warnings == (
        "Maps run on instance fused-maps, which client_id leaves out: omit client_id, or add this instance.",
    )


# -- runs under way -----------------------------------------------------------------------------------------------------


def test_a_run_that_stores_its_old_result_after_the_first_pass_is_caught_by_the_second(
    fused_emulator: Emulator,
    slow: tuple[Udf, threading.Event],
    seen: Callable[..., Any],
    when: Callable[..., threading.Thread],
) -> None:
    udf, go = slow

    def sent() -> int:
        return sum(request.method == "DELETE" for request in fused_emulator.requests)

    when(lambda: sent() >= 2, go.set)  # the first pass is over, on both instances
    result = invalidate_cache(udf.id, tiles=[TILE], again_after=3)
    assert result.second_pass == "done"
    assert sent() == 4
    assert seen(udf) == "new"


def test_without_a_second_pass_it_stays(
    fused_emulator: Emulator, slow: tuple[Udf, threading.Event], seen: Callable[[Udf], Any]
) -> None:
    udf, go = slow
    invalidate_cache(udf.id, tiles=[TILE])
    go.set()
    while not fused_emulator.cached_tiles(udf):  # until the run has stored its result
        threading.Event().wait(0.05)
    assert seen(udf) == "old"


# -- verification -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({"x-fused-cached": "s3"}, "from_cache"),
        ({"x-fused-cached": ""}, "from_cache"),
        ({"x-cache": "HIT"}, "from_cache"),
        ({"x-cache": "Hit from cloudfront"}, "unknown"),
        ({"x-cache": "Miss", "age": "7"}, "unknown"),
        ({"x-cache": "Miss"}, "fresh"),
    ],
    ids=str,
)
def test_stale_is_never_taken_for_fresh(fused_emulator: Emulator, loader: Udf, headers: dict[str, str], found: str) -> None:
    fused_emulator.misbehave(status=200, body={}, headers=headers, path="/run/tiles/", times=None)
    result = invalidate_cache(loader.id, tiles=[TILE], verify_tiles=1, shared_token=loader.shared_token, fail_on_stale=False)
    assert result.verification is not None
    assert len(getattr(result.verification, found)) == 1


def test_the_tiles_of_a_team_canvas_are_verified_with_a_session_token(fused_emulator: Emulator, table: dict[str, str]) -> None:
    fused_emulator.add_canvas("team-maps", access_scope="team")
    udf = fused_emulator.register(lambda **parameters: table["load"], name="rivers", canvas="team-maps")
    result = invalidate_cache(udf.id, tiles=[TILE], verify_tiles=1, shared_token=fused_emulator.canvas_url_token(udf))
    assert result.verification is not None
    assert result.verification.fresh == (TILE,)


def test_the_current_form_of_shared_tokens_is_read(fused_emulator: Emulator, loader: Udf) -> None:
    canvas = fused_emulator.canvas_of(loader)
    fused_emulator.add_canvas("land", access_scope="public", share_client_id=canvas.share_client_id)
    result = invalidate_cache(fused_emulator.canvas_url_token(loader), tiles=[TILE], verify_tiles=1)
    assert result.verification is not None
    assert result.verification.fresh == (TILE,)


# -- inner caches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folders", ["own", "land_inner", ["land_inner"], ["own", "tmp"]], ids=str)
@pytest.mark.parametrize("whole", [True, False])
def test_inner_caches_that_are_named_are_deleted_before_the_udf_is_invalidated(
    fused_emulator: Emulator, inner: Udf, table: dict[str, str], seen: Callable[..., Any], folders: Any, whole: bool
) -> None:
    before = seen(inner)
    table["load"] = "new"
    fused_emulator.cache(cache_folder_path="land_inner_2")(lambda: 1)()  # of another function
    selection: Any = {} if whole else {"tiles": [TILE]}
    result = invalidate_cache("land/inner", inner_caches=folders, **selection)
    assert (before, seen(inner)) == ("old", "new")
    assert result.inner_caches[0] == "land_inner"
    assert result.warnings == ()
    assert fused_emulator.inner_caches() == ["land_inner_2"]
    sent = [request.path.rsplit("/", 1)[1] for request in fused_emulator.requests if request.method == "DELETE"]
    assert sent == ["delete-dir", "delete", "delete"]  # on the one instance that has it, then the UDF on both


@pytest.mark.parametrize("given", [{}, {"inner_caches": []}, {"inner_caches": "land_other"}], ids=str)
def test_inner_caches_that_are_not_named_stay_and_the_result_says_what_deletes_them(
    inner: Udf, table: dict[str, str], seen: Callable[..., Any], given: Any
) -> None:
    seen(inner)
    table["load"] = "new"
    result = invalidate_cache("land/inner", **given)
    assert seen(inner) == "old"
    assert result.warnings is not None
    assert result.warnings[0].endswith("inner_caches='own' deletes them.")


def test_the_inner_caches_of_relatives_are_deleted_too(
    fused_emulator: Emulator, inner: Udf, table: dict[str, str], seen: Callable[..., Any]
) -> None:
    code = 'def udf(bounds):\n    return fused.run("inner")\n'
    udf = fused_emulator.register(lambda **tile: fused_emulator.load("inner")(), name="outer", canvas="land", code=code)
    before = seen(udf)
    table["load"] = "new"
    result = invalidate_cache("land/outer", tiles=[TILE], related="callees", inner_caches="own")
    assert (before, seen(udf), result.inner_caches) == ("old", "new", ("land_inner",))


def test_a_second_pass_deletes_inner_caches_again(
    fused_emulator: Emulator, inner: Udf, table: dict[str, str], seen: Callable[..., Any], when: Callable[..., Any]
) -> None:
    before = seen(inner)

    def sent() -> int:
        return sum(request.path.endswith("by-id/" + inner.id + "/delete") for request in fused_emulator.requests)

    def run_with_old_rows() -> None:
        seen(inner)  # after the first pass, and before the load is committed
        table["load"] = "new"

    when(lambda: sent() >= 2, run_with_old_rows)
    result = invalidate_cache("land/inner", inner_caches="own", again_after=3)
    assert (before, seen(inner), result.second_pass) == ("old", "new", "done")


@pytest.mark.parametrize("status", [403, 404, 405, 501])
def test_a_service_that_does_not_delete_inner_caches_fails_the_call_and_the_udf_is_invalidated(
    fused_emulator: Emulator, inner: Udf, status: int
) -> None:
    fused_emulator.fill_cache(inner, [(1, 0, 0)])
    fused_emulator.misbehave(status=status, path="/efs/", times=None)
    with FusedClient(deadline=2) as client, pytest.raises(PartialInvalidationError) as caught:
        client.invalidate_cache("land/inner", tiles=[TILE], inner_caches="own")
    assert fused_emulator.cached_tiles(inner) == set()
    assert caught.value.retryable is (status == 501)
    said = str(caught.value)
    assert all(part in said for part in (str(status), "Folder land_inner", "fused-maps"))
    assert ("cache_reset" in said) is (status != 501)
    assert (caught.value.result.tiles_invalidated, caught.value.result.inner_caches) == (1, ())


def test_inner_caches_are_named_with_udf_function_and_line(fused_emulator: Emulator, loader: Udf) -> None:
    code = "import fused\n\n@fused.udf\ndef udf():\n    @fused.cache\n    def read():\n        return 1\n    return read()\n"
    fused_emulator.register(lambda **parameters: 1, name="inner", canvas="land", code=code)
    result = invalidate_cache("land/inner")
    cache = "read (line 5, folder 'tmp', 48h unless set otherwise)"
    remedy = "inner_caches=['tmp'] deletes them, and what else the team keeps in 'tmp'."
    assert result.warnings == (f"inner: @fused.cache keeps results when the UDF is invalidated: {cache}. {remedy}",)
