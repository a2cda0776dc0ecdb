"""One load, many maps: a cache map, and the invalidation of every UDF that shows a dataset."""

import json
import pickle
import threading
from pathlib import Path
from xml.etree import ElementTree

import pyarrow
import pytest

from fused_cache_ops import (
    CacheMap,
    ConfigurationError,
    DatasetFirstPass,
    DatasetInvalidationError,
    FusedClient,
    InvalidInputError,
    NotFoundError,
    PartialInvalidationError,
    invalidate_dataset,
    plan_dataset,
    plan_invalidation,
)
from fused_cache_ops.cache_map.drawing import described, to_mermaid, to_svg
from fused_cache_ops.changes import changed_geometry
from fused_cache_ops.emulator import Emulator
from fused_cache_ops.selection.reading import read_selection

AREA = (13.0, 52.3, 13.8, 52.7)
SQUARE = {"type": "Polygon", "coordinates": [[[13, 52.3], [13.8, 52.3], [13.8, 52.7], [13, 52.7], [13, 52.3]]]}
NAMES = ("parcels", "overview", "totals", "untouched")


@pytest.fixture
def emulator(fused_emulator):
    return fused_emulator


@pytest.fixture
def udfs(emulator):
    found = {name: emulator.register(dict, name=name) for name in NAMES}
    for udf in found.values():
        emulator.fill_cache(udf, [(9, 275, 167), (12, 2200, 1343), (12, 0, 0)])
    return found


@pytest.fixture
def client(emulator):
    with FusedClient(token=emulator.token, base_url=emulator.base_url, client_id=emulator.client_id, deadline=20) as made:
        yield made


def a_map(*udfs):
    return CacheMap.from_dict({"datasets": {"parcels": {"udfs": list(udfs)}}})


THREE = a_map(
    {"udf": "parcels", "zooms": "10-12", "buffer": 1}, {"udf": "overview", "zooms": "4-9"}, {"udf": "totals", "whole_udf": True}
)


def test_every_udf_of_a_dataset_is_fresh_and_another_is_untouched(client, emulator, udfs):
    result = client.invalidate_dataset("parcels", cache_map=THREE, bounds=AREA)

    assert list(result.results) == ["parcels", "overview", "totals"]
    assert [emulator.cached_tiles(udfs[name]) for name in NAMES] == [
        {(9, 275, 167), (12, 0, 0)},
        {(12, 2200, 1343), (12, 0, 0)},
        set(),
        {(9, 275, 167), (12, 2200, 1343), (12, 0, 0)},
    ]


@pytest.mark.parametrize(
    "selection",
    [
        {"bounds": AREA},
        {"geometry": SQUARE},
        {"geometry": [SQUARE, {"type": "Point", "coordinates": [10, 50]}]},
        {"tiles": ["12/2200/1343", "12/2201/1343"]},
        {"cells": ["871f18800ffffff", "871f18801ffffff"]},
    ],
    ids=["bounds", "one shape", "two shapes", "tiles", "cells"],
)
def test_each_udf_gets_the_tiles_that_a_call_of_its_own_would_get(client, emulator, udfs, selection):
    shared = client.invalidate_dataset("parcels", cache_map=THREE, **selection).results

    own = client.invalidate_cache("parcels", zooms="10-12", buffer=1, **selection)
    assert shared["parcels"].tiles_invalidated == own.tiles_invalidated
    assert (
        shared["overview"].tiles_invalidated == client.invalidate_cache("overview", zooms="4-9", **selection).tiles_invalidated
    )


def test_cells_are_drawn_for_each_udf_at_its_own_resolution(client, udfs):
    cells = ["8a1f18800007fff"]
    plain, coarse = {"udf": "parcels", "zooms": 14}, {"udf": "overview", "zooms": 14, "render_resolution": 6}

    shared = client.invalidate_dataset("parcels", cache_map=a_map(plain, coarse), cells=cells).results

    own = client.invalidate_cache("overview", zooms=14, render_resolution=6, cells=cells).tiles_invalidated
    assert shared["overview"].tiles_invalidated == own > shared["parcels"].tiles_invalidated


def test_a_list_that_can_be_read_once_reaches_every_udf(client, udfs):
    entries = {"udf": "parcels"}, {"udf": "overview", "max_zoom": 20}, {"udf": "totals", "whole_udf": True}
    result = client.invalidate_dataset("parcels", cache_map=a_map(*entries), tiles=(f"12/{x}/7" for x in range(30_000 // 10)))

    assert [each.tiles_invalidated for each in result.results.values()] == [3000, 3000, None]


def test_a_list_that_can_be_read_once_reaches_udfs_that_want_the_same(client, udfs):
    same = a_map({"udf": "parcels"}, {"udf": "overview"}, {"udf": "totals", "whole_udf": True})
    result = client.invalidate_dataset("parcels", cache_map=same, tiles=(f"12/{x}/7" for x in range(3000)))

    assert [each.tiles_invalidated for each in result.results.values()] == [3000, 3000, None]


def test_a_generator_without_tiles_invalidates_no_whole_udf(client, emulator, udfs):
    only = a_map({"udf": "totals", "whole_udf": True})
    result = client.invalidate_dataset("parcels", cache_map=only, tiles=(each for each in ()))

    assert result.results["totals"].tiles_invalidated == 0
    assert len(emulator.cached_tiles(udfs["totals"])) == 3


@pytest.mark.parametrize("given", [{"verify_tiles": 1}, {"checkpoint": "folder/"}, {"zooms": 3}])
def test_what_needs_a_selection_is_refused_beside_everything(client, emulator, udfs, given):
    with pytest.raises(InvalidInputError, match=r"needs a selection"):
        client.invalidate_dataset("parcels", cache_map=THREE, whole_udf=True, **given)
    assert not emulator.requests


def test_a_udf_that_cannot_be_verified_because_all_of_it_is_invalidated_fails_alone(client, udfs):
    token = udfs["overview"].shared_token
    many = {"udf": token, "zooms": 12, "max_tiles": 1, "when_too_many": "whole-udf", "verify_tiles": 1}
    warned = pytest.warns(UserWarning, match=r"over max_tiles=1")
    with warned, pytest.raises(DatasetInvalidationError, match=r"verify_tiles needs tiles") as caught:
        client.invalidate_dataset("parcels", cache_map=a_map({"udf": "parcels", "zooms": 12}, many), bounds=AREA)
    assert list(caught.value.result.results) == ["parcels"]


def test_a_selection_keeps_the_watch_that_ends_a_slow_reading():
    def watch():
        raise InvalidInputError("over")

    with pytest.raises(InvalidInputError, match=r"over"):
        next(read_selection(watch, tiles=(each for each in ["1/0/0"])).tiles())


def test_a_limit_of_one_udf_leaves_the_deep_zooms_of_another(client, udfs):
    narrow = {"udf": "overview", "zooms": "0-12", "max_tiles": 5, "when_too_many": "whole-udf"}
    with pytest.warns(UserWarning, match=r"over max_tiles=5"):
        shared = client.invalidate_dataset(
            "parcels", cache_map=a_map(narrow, {"udf": "parcels", "zooms": 14}), geometry=[SQUARE, SQUARE]
        ).results

    assert shared["overview"].tiles_invalidated is None
    assert (
        shared["parcels"].tiles_invalidated == client.invalidate_cache("parcels", zooms=14, geometry=SQUARE).tiles_invalidated
    )


@pytest.mark.parametrize("empty", [{"tiles": []}, {"geometry": {"type": "FeatureCollection", "features": []}}, {"bounds": []}])
def test_a_load_that_changed_nothing_invalidates_nothing_not_even_a_whole_udf(client, emulator, udfs, empty):
    result = client.invalidate_dataset("parcels", cache_map=THREE, **empty)

    assert [each.tiles_invalidated for each in result.results.values()] == [0, 0, 0]
    assert len(emulator.cached_tiles(udfs["totals"])) == 3


def test_without_a_selection_every_udf_has_to_be_whole_in_the_map(client, emulator, udfs):
    with pytest.raises(InvalidInputError, match=r"does not say whole_udf = true for parcels"):
        client.invalidate_dataset("parcels", cache_map=THREE)
    assert not emulator.requests

    only = a_map({"udf": "totals", "whole_udf": True})
    assert client.invalidate_dataset("parcels", cache_map=only).results["totals"].tiles_invalidated is None


def test_everything_is_invalidated_if_the_call_says_so(client, emulator, udfs):
    client.invalidate_dataset("parcels", cache_map=THREE, whole_udf=True)

    assert [len(emulator.cached_tiles(udfs[name])) for name in NAMES] == [0, 0, 0, 3]


@pytest.mark.parametrize(("name", "value"), [("zooms", "3"), ("buffer", 2)])
def test_what_the_map_says_may_not_be_said_again_in_the_call(client, emulator, udfs, name, value):
    with pytest.raises(InvalidInputError, match=rf"{name} = .* is given in the call, and .* for parcels"):
        client.invalidate_dataset("parcels", cache_map=THREE, bounds=AREA, **{name: value})
    assert not emulator.requests


def test_what_the_map_leaves_open_is_said_in_the_call(client, udfs):
    result = client.invalidate_dataset("parcels", cache_map=a_map({"udf": "parcels"}), bounds=AREA, zooms="10-12")

    assert result.results["parcels"].tiles_invalidated > 0


def test_a_udf_that_fails_does_not_keep_the_others_from_being_fresh(client, emulator, udfs):
    entries = {"udf": "parcels", "zooms": 12}, {"udf": "missing", "zooms": 12}, {"udf": "totals", "whole_udf": True}
    with pytest.raises(DatasetInvalidationError, match=r"^1 of 3 UDFs .* missing: ") as caught:
        client.invalidate_dataset("parcels", cache_map=a_map(*entries), bounds=AREA)

    error = caught.value
    assert isinstance(error.result.failed["missing"], NotFoundError)
    assert list(error.result.results) == ["parcels", "totals"]
    assert (12, 2200, 1343) not in emulator.cached_tiles(udfs["parcels"])
    remaining = list(error.remaining_by_udf["missing"])
    client.invalidate_cache("totals", tiles=remaining)
    assert len(remaining) == error.result.results["parcels"].tiles_invalidated
    assert not error.retryable


def test_a_selection_that_is_refused_for_one_udf_fails_that_one_only(client, udfs):
    entries = {"udf": "parcels", "zooms": 12}, {"udf": "overview", "zooms": 18, "max_tiles": 10}
    with pytest.raises(DatasetInvalidationError, match=r"overview: .*over max_tiles=10") as caught:
        client.invalidate_dataset("parcels", cache_map=a_map(*entries), geometry=SQUARE)

    assert list(caught.value.result.results) == ["parcels"]


@pytest.mark.parametrize("name", ["changed", "added", "removed"])
def test_rows_that_change_without_having_a_place_invalidate_a_whole_udf_and_no_tile(name):
    table = pyarrow.table({"id": [1, 2], "price": [10, 20], "g": ["POINT (1 1)", None]})
    other = {
        "changed": table.set_column(1, "price", [[10, 21]]),
        "added": pyarrow.concat_tables(
            [table, pyarrow.table({"id": [3], "price": [1], "g": pyarrow.nulls(1, pyarrow.string())})]
        ),
        "removed": table[:1],
    }
    changed = changed_geometry(table, other[name], geometry_column="g", crs="EPSG:4326")

    plans = plan_dataset("parcels", cache_map=THREE, geometry=changed).plans

    assert {udf: plan.tile_count for udf, plan in plans.items()} == {"parcels": 0, "overview": 0, "totals": None}


@pytest.mark.parametrize("character", ["\x1b", "\x07", "\ufffe", "\ud800"])
def test_a_picture_of_a_map_is_xml_whatever_its_names_are(character):
    cache_map = CacheMap.from_dict({"datasets": {f"d{character}": {"udfs": [{"udf": "parcels"}]}}})

    ElementTree.fromstring(to_svg(cache_map, {"parcels": [f"a{character}b"]}))


def test_the_error_survives_pickling(client, udfs):
    with pytest.raises(DatasetInvalidationError) as caught:
        client.invalidate_dataset("parcels", cache_map=a_map({"udf": "missing", "whole_udf": True}))

    copied = pickle.loads(pickle.dumps(caught.value))
    assert str(copied) == str(caught.value)
    assert copied.result.to_dict() == caught.value.result.to_dict()


def test_a_checkpoint_folder_has_a_file_for_each_udf(client, udfs, tmp_path):
    same = {"udf": "parcels", "zooms": 12}, {"udf": "overview", "zooms": 12}, {"udf": "missing", "zooms": 12}
    with pytest.raises(DatasetInvalidationError):
        client.invalidate_dataset("parcels", cache_map=a_map(*same), bounds=AREA, checkpoint=f"{tmp_path}/")
    assert not list(tmp_path.iterdir())

    with pytest.raises(InvalidInputError, match=r"must be a folder"):
        client.invalidate_dataset("parcels", cache_map=a_map(*same), bounds=AREA, checkpoint=tmp_path / "file")


def test_progress_adds_up_and_is_told_in_the_callers_thread(client, udfs):
    told = []

    def on_progress(done, total, retries):
        told.append((done, total, retries, threading.current_thread()))

    result = client.invalidate_dataset("parcels", cache_map=THREE, bounds=AREA, on_progress=on_progress)

    count = sum(each.tiles_invalidated or 0 for each in result.results.values())
    assert told[-1] == (count, count, 0, threading.current_thread())


def test_the_plan_names_every_udf_before_anything_is_sent(client, emulator, udfs):
    plans = []
    client.invalidate_dataset(
        "parcels", cache_map=THREE, bounds=AREA, on_plan=lambda plan: plans.append((plan, len(emulator.requests)))
    )

    ((plan, requests),) = plans
    assert requests == 0
    assert list(plan.to_dict()["plans"]) == ["parcels", "overview", "totals"]
    assert "3 UDFs" in str(plan)


def test_a_dataset_without_udfs_is_nothing_to_do_and_says_so(client, emulator):
    result = client.invalidate_dataset("parcels", cache_map=a_map(), tiles=["1/0/0"])

    assert "nothing to do" in str(result)
    assert not emulator.requests


def test_an_unknown_dataset_suggests_the_nearest(client):
    with pytest.raises(InvalidInputError, match=r"does not list the dataset 'parcel'. Did you mean 'parcels'\?"):
        client.invalidate_dataset("parcel", cache_map=THREE, tiles=["1/0/0"])


def test_cancelling_ends_every_udf(client, emulator, udfs):
    with pytest.raises(DatasetInvalidationError, match=r"cancelled"):
        client.invalidate_dataset("parcels", cache_map=THREE, bounds=AREA, on_plan=lambda _: client.cancel())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fused-cache-dataset")]


def test_shards_of_a_dataset_add_up_and_a_whole_udf_is_invalidated_once(client, emulator, udfs):
    entries = {"udf": "parcels", "zooms": 12}, {"udf": "totals", "whole_udf": True}
    parts = [
        client.invalidate_dataset("parcels", cache_map=a_map(*entries), geometry=SQUARE, shard=(number, 3)).results
        for number in range(3)
    ]

    whole = client.invalidate_cache("parcels", zooms=12, geometry=SQUARE).tiles_invalidated
    assert sum(part["parcels"].tiles_invalidated for part in parts) == whole
    assert [part["totals"].tiles_invalidated for part in parts] == [None, 0, 0]


def test_shared_tokens_are_masked_and_told_apart(client, emulator, udfs):
    tokens = [udfs[name].shared_token for name in ("parcels", "overview")]
    shared = a_map(*({"udf": token, "zooms": 12, "verify_tiles": 1} for token in tokens))
    result = client.invalidate_dataset("parcels", cache_map=shared, bounds=AREA)

    assert len(result.results) == 2
    said = f"{shared!r}{result!r}{result}{result.to_dict()}"
    assert not [token for token in tokens if token in said or token[4:] in said]
    assert all(each.verification.fresh for each in result.results.values())


# -- the file --------------------------------------------------------------------------------------------------------

GOOD = (
    '[datasets."s3://bucket/parcels/"]\nudfs = [{ udf = "parcels", zooms = "10-12" }, { udf = "totals", whole_udf = true }]\n'
)


def test_a_map_is_read_from_a_file(tmp_path):
    path = tmp_path / "fused-cache.toml"
    path.write_text(GOOD)

    assert [entry.label for entry in CacheMap.read(path).entries("s3://bucket/parcels/")] == ["parcels", "totals"]


def test_a_map_is_read_from_pyproject(tmp_path):
    path = tmp_path / "pyproject.toml"
    path.write_text('[tool.fused-cache.datasets.parcels]\nudfs = [{ udf = "parcels" }]\n')

    assert list(CacheMap.read(path).datasets) == ["parcels"]


def test_a_part_of_a_key_may_be_any_release():
    entry = {"udfs": [{"udf": "maps/places"}]}
    datasets = {"s3://bucket/release/*/": entry, "s3://bucket/release/2026-01-01.0/": {"udfs": []}}
    cache_map = CacheMap.from_dict({"datasets": datasets})
    assert len(cache_map.entries("s3://bucket/release/2026-04-15.0/")) == 1
    assert cache_map.entries("s3://bucket/release/2026-01-01.0/") == ()
    for other in ("s3://bucket/release/", "s3://bucket/release/a/b/", "s3://other/release/a/"):
        with pytest.raises(InvalidInputError, match="does not list"):
            cache_map.entries(other)


def test_a_dataset_that_two_keys_stand_for_is_an_error():
    cache_map = CacheMap.from_dict({"datasets": {"s3://bucket/*/a/": {"udfs": []}, "s3://bucket/b/*/": {"udfs": []}}})
    with pytest.raises(InvalidInputError, match=r"as 's3://bucket/\*/a/' and as 's3://bucket/b/\*/'"):
        cache_map.entries("s3://bucket/b/a/")


def test_what_a_udf_is_run_with_is_never_shown():
    entry = {
        "udf": "maps/roads",
        "shared_token_env": "ROADS",
        "refresh": {"count": 1, "parameters": {"api_key": "hunter2"}},
    }
    cache_map = CacheMap.from_dict({"datasets": {"d": {"udfs": [entry]}}})
    shown = [described(cache_map.entries("d")[0]), to_mermaid(cache_map, {}), to_svg(cache_map, {})]
    assert "hunter2" not in "".join(shown)
    assert "api_key" in shown[0]


def test_a_map_beside_the_pipeline_comes_before_the_working_folder(tmp_path, monkeypatch):
    beside, working = tmp_path / "dags", tmp_path / "working"
    for folder, key in ((beside, "beside"), (working, "working")):
        folder.mkdir()
        (folder / "fused-cache.toml").write_text(f"[datasets.{key}]\nudfs = []\n")
    monkeypatch.chdir(working)

    assert list(CacheMap.read(beside=beside / "dag.py").datasets) == ["beside"]
    assert list(CacheMap.read(beside=tmp_path / "dag.py").datasets) == ["working"]


def test_the_function_reads_the_map_of_the_working_folder(emulator, udfs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("fused-cache.toml").write_text(GOOD)

    result = invalidate_dataset("s3://bucket/parcels/", bounds=AREA)
    assert result.results["parcels"].tiles_invalidated > 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[datasets\n", r"line 1"),
        ("[dataset.parcels]\nudfs = []\n", r"unknown key 'dataset'. Did you mean datasets\?"),
        ("datasets = 3\n", r"datasets = 3 must be a table"),
        ("[datasets.parcels]\n", r"dataset 'parcels': udfs is missing"),
        ("[datasets.parcels]\nudfs = 'maps'\n", r"udfs = 'maps' is not a list"),
        ("[datasets.parcels]\nudfs = ['maps']\n", r"entry 1 is of type str: pass a mapping"),
        ("[datasets.parcels]\nudfs = [{ zooms = 3 }]\n", r"entry 1: udf is missing"),
        ("[datasets.parcels]\nudfs = [{ udf = 'a' }, { udf = 'a' }]\n", r"entry 2: udf a is listed twice"),
        (
            "[datasets.parcels]\nudfs = [{ udf = 'a' }, { udf = 'b' }, { udf = 'team/a' }]\n",
            r"entry 3: udf team/a is listed twice for this dataset, first as a\.",
        ),
        ("[datasets.parcels]\nudfs = [{ udf = 'a', zoom = 3 }]\n", r"unknown key 'zoom'. Did you mean zooms\?"),
        ("[datasets.parcels]\nudfs = [{ udf = 'a', zooms = '9-4' }]\n", r"entry 1 \(a\): zooms = '9-4'"),
        ("[datasets.parcels]\nudfs = [{ udf = 'a', buffer = true }]\n", r"entry 1 \(a\): buffer = True"),
        ("[datasets.parcels]\nudfs = [{ udf = 'a', max_tiles = 0 }]\n", r"max_tiles = 0"),
        ("[datasets.parcels]\nudfs = [{ udf = 'a', when_too_many = 'less' }]\n", r"when_too_many = 'less'"),
        ("[datasets.parcels]\nudfs = [{ udf = 'a', render_resolution = 16 }]\n", r"render_resolution"),
        ("[datasets.parcels]\nudfs = [{ udf = 'a', related = 'all' }]\n", r"related = 'all'"),
        ("[datasets.parcels]\nudfs = [{ udf = 'a', again_after = -1 }]\n", r"again_after = -1"),
        ("[datasets.parcels]\nudfs = [{ udf = 'a', verify_tiles = '2' }]\n", r"verify_tiles = '2'"),
        ("[datasets.parcels]\nudfs = [{ udf = 'a', whole_udf = 1 }]\n", r"whole_udf = 1 must be true or false"),
        ("[datasets.parcels]\nudfs = [{ udf = 'a', whole_udf = true, zooms = 3 }]\n", r"zooms cannot shape the whole UDF"),
        ("[datasets.parcels]\nudfs = [{ udf = '' }]\n", r"entry 1: udf"),
    ],
)
def test_a_map_that_is_not_right_says_where_and_why(tmp_path, text, said):
    path = tmp_path / "fused-cache.toml"
    path.write_text(text)

    with pytest.raises(InvalidInputError, match=said) as caught:
        CacheMap.read(path)
    assert str(path) in str(caught.value)


def test_a_map_that_is_not_there_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match=r"There is no cache map '.*other.*' and '.*fused-cache.toml'"):
        CacheMap.read(beside=tmp_path / "other" / "dag.py")


def test_a_password_in_the_address_of_a_dataset_is_not_shown(client):
    key = "https://user:hunter2@host/parcels/"
    with pytest.raises(InvalidInputError) as caught:
        client.invalidate_dataset(key, cache_map=THREE, tiles=["1/0/0"])
    assert "hunter2" not in str(caught.value)
    empty = CacheMap.from_dict({"datasets": {key: {"udfs": []}}})
    result = client.invalidate_dataset(key, cache_map=empty, tiles=["1/0/0"])
    assert "hunter2" not in f"{result}{result.to_dict()}"


def test_a_udf_that_is_not_complete_is_in_the_results_and_in_the_failures(client, emulator, udfs):
    emulator.add_instance("fused-maps")
    emulator.misbehave(status=403, times=None, path="/fused-maps/")
    pair = FusedClient(client_id=["fused-team", "fused-maps"], deadline=20)
    with pair, pytest.raises(DatasetInvalidationError) as caught:
        pair.invalidate_dataset("parcels", cache_map=a_map({"udf": "parcels", "zooms": 12}), bounds=AREA)

    result = caught.value.result
    assert isinstance(result.failed["parcels"], PartialInvalidationError)
    assert result.results["parcels"] is result.failed["parcels"].result
    assert {each.client_id for each in caught.value.unfinished} == {"fused-maps"}


def test_a_checkpoint_resumes_each_udf(client, emulator, udfs, tmp_path):
    pair = a_map({"udf": "parcels", "zooms": 12}, {"udf": "overview", "zooms": 12})
    emulator.misbehave(status=403, times=None, path=udfs["overview"].id)
    with pytest.raises(DatasetInvalidationError):
        client.invalidate_dataset("parcels", cache_map=pair, bounds=AREA, checkpoint=f"{tmp_path}/")
    emulator.behave()

    result = client.invalidate_dataset("parcels", cache_map=pair, bounds=AREA, checkpoint=f"{tmp_path}/")
    assert len(result.results) == 2
    assert not list(tmp_path.iterdir())


def test_the_area_is_read_once(client, udfs, monkeypatch):
    from fused_cache_ops.selection import geometry

    readings = []
    read = geometry.read_geometry
    monkeypatch.setattr(geometry, "read_geometry", lambda *given: readings.append(1) or read(*given))
    client.invalidate_dataset("parcels", cache_map=THREE, geometry=SQUARE)

    assert len(readings) == 1


def test_a_plan_needs_no_token(udfs, monkeypatch):
    monkeypatch.delenv("FUSED_SERVICE_ACCOUNT_TOKEN")

    plan = plan_dataset("parcels", cache_map=THREE, bounds=AREA)
    parcels = plan_invalidation("parcels", zooms="10-12", buffer=1, bounds=AREA)
    overview = plan_invalidation("overview", zooms="4-9", bounds=AREA)
    assert [each.tile_count for each in plan.plans.values()] == [parcels.tile_count, overview.tile_count, None]


AGAIN = a_map({"udf": "parcels", "zooms": 12, "again_after": 60}, {"udf": "totals", "whole_udf": True})


def test_two_passes_are_made_without_waiting_and_add_up(client, emulator, udfs):
    first = client.first_dataset_pass("parcels", cache_map=AGAIN, bounds=AREA)
    assert first.again_after == 60
    emulator.fill_cache(udfs["parcels"], [(12, 2200, 1343)])  # by a run that was under way
    emulator.fill_cache(udfs["totals"], [(1, 0, 0)])

    second = client.second_dataset_pass(
        "parcels", DatasetFirstPass.from_dict(json.loads(json.dumps(first.to_dict()))), cache_map=AGAIN, bounds=AREA
    )
    assert (12, 2200, 1343) not in emulator.cached_tiles(udfs["parcels"])
    assert emulator.cached_tiles(udfs["totals"]) == {(1, 0, 0)}
    assert [each.second_pass for each in second.results.values()] == ["done", None]


def test_a_second_pass_of_another_selection_is_refused(client, udfs):
    first = client.first_dataset_pass("parcels", cache_map=AGAIN, bounds=AREA)
    with pytest.raises(InvalidInputError, match=r"has changed since the first pass for parcels"):
        client.second_dataset_pass("parcels", first, cache_map=AGAIN, bounds=(0, 0, 1, 1))


def test_nothing_changed_needs_no_second_pass(client, udfs):
    assert client.first_dataset_pass("parcels", cache_map=AGAIN, tiles=[]).again_after == 0


def test_an_interrupted_dataset_says_what_remains_for_each_udf(
    fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fused_cache_ops.sending.call.MAX_BATCH", 1)
    udfs = [fused_emulator.register(dict, name=f"udf{number}") for number in range(12)]
    tiles = [(2, 0, 0), (2, 1, 0), (2, 2, 0)]
    for udf in udfs:
        fused_emulator.fill_cache(udf, tiles)
    fused_emulator.misbehave(latency=0.3, times=None)

    def interrupt(done: int, total: int | None, retries: int) -> None:
        if done:
            raise KeyboardInterrupt

    cache_map = CacheMap.from_dict({"datasets": {"d": {"udfs": [{"udf": udf.slug} for udf in udfs]}}})
    with pytest.raises(KeyboardInterrupt) as caught:
        invalidate_dataset("d", cache_map=cache_map, tiles=tiles, on_progress=interrupt)
    result = caught.value.result  # type: ignore[attr-defined]
    assert result.failed
    for udf in udfs:
        error = result.failed.get(udf.slug)
        remaining = set() if error is None else {tuple(tile) for tile in error.remaining}
        assert fused_emulator.cached_tiles(udf) <= remaining


def many(**keywords: object) -> CacheMap:
    return CacheMap.from_dict({"datasets": {"d": {"udfs": [{"udf": f"u{number}", **keywords} for number in range(300)]}}})


def test_the_message_of_many_failures_says_a_common_reason_once(client):
    with pytest.raises(DatasetInvalidationError, match="300 of 300 UDFs") as caught:
        client.invalidate_dataset("d", cache_map=many(max_tiles=1, zooms=12), bounds=AREA)
    message = str(caught.value)
    assert "u0, u1, u2, u3, u4, u5, u6, u7, u8, u9, and 290 more: " in message
    assert message.count("99 tiles are selected") == 1


def test_the_message_of_many_udfs_that_do_not_exist_is_short(client):
    with pytest.raises(DatasetInvalidationError, match="300 of 300 UDFs") as caught:
        client.invalidate_dataset("d", cache_map=many(), tiles=["1/0/0"])
    assert "u9, and 290 more: " in str(caught.value)
    assert str(caught.value).count("It does not exist") == 1
    assert len(caught.value.result.failed) == 300


def test_a_plan_of_a_dataset_says_that_callers_were_not_looked_up() -> None:
    plan = plan_dataset("parcels", cache_map=THREE, bounds=AREA)
    assert str(plan).splitlines()[-1].startswith("not looked up, because this plan sends nothing: instances, callers")
    assert "instances, callers and callees" in plan._repr_html_()


def test_a_plan_of_a_dataset_that_no_udf_shows_says_nothing_of_callers() -> None:
    plan = plan_dataset("a", cache_map=CacheMap.from_dict({"datasets": {"a": {"udfs": []}}}, "a.toml"), tiles=["1/0/0"])
    assert "callers" not in str(plan)


def test_entries_without_zooms_are_named_with_their_file() -> None:
    found = CacheMap.from_dict(
        {"datasets": {"a": {"udfs": [{"udf": "x"}, {"udf": "y", "zooms": "3"}, {"udf": "z"}]}}}, "a.toml"
    )
    with pytest.raises(InvalidInputError, match=r"^a.toml, dataset 'a': the entries x, z say no zooms, which bounds needs\."):
        plan_dataset("a", cache_map=found, bounds=(0, 0, 1, 1))


def test_an_entry_that_does_not_suit_a_call_is_named_with_its_file() -> None:
    found = CacheMap.from_dict({"datasets": {"a": {"udfs": [{"udf": "x", "zooms": "12-14"}]}}}, "a.toml")
    with pytest.raises(InvalidInputError, match=r"^a.toml, dataset 'a', x: .*12-14"):
        plan_dataset("a", cache_map=found, bounds=(0, 0, 1, 1), max_zoom=10)


def test_a_mistake_of_the_call_is_not_blamed_on_an_entry() -> None:
    found = CacheMap.from_dict({"datasets": {"a": {"udfs": [{"udf": "x", "zooms": "12"}]}}}, "a.toml")
    with pytest.raises(InvalidInputError, match=r"^buffer = 99 must be"):
        plan_dataset("a", cache_map=found, bounds=(0, 0, 1, 1), buffer=99)


@pytest.mark.parametrize("what", [{"verify_tiles": 2}, {"refresh": "all"}, {"refresh": {"zooms": "3"}}])
def test_a_map_that_runs_a_udf_needs_its_shared_token_when_it_is_read(what: dict[str, object]) -> None:
    with pytest.raises(
        InvalidInputError, match=r"entry 1 \(x\): \w+ needs a shared token of the UDF: name the environment.*_env"
    ):
        CacheMap.from_dict({"datasets": {"a": {"udfs": [{"udf": "x", "zooms": "3", **what}]}}})
    for token in ({"udf": "x", "shared_token_env": "TOKEN"}, {"udf": f"fsh_{'a' * 32}"}):
        CacheMap.from_dict({"datasets": {"a": {"udfs": [{"zooms": "3", **what, **token}]}}})


def test_a_call_that_runs_a_udf_without_a_shared_token_names_its_entry(client: FusedClient) -> None:
    found = CacheMap.from_dict({"datasets": {"a": {"udfs": [{"udf": "x"}]}}}, "a.toml")
    with pytest.raises(ConfigurationError, match=r"verify_tiles needs .* a.toml, dataset 'a', says none for x: name the env"):
        client.invalidate_dataset("a", cache_map=found, tiles=["1/0/0"], verify_tiles=1)
