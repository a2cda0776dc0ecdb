"""Icechunk: what was written to an array since a snapshot of its repository."""

import datetime
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyproj
import pytest
import shapely
from typer.testing import CliRunner

from fused_cache_ops import InvalidInputError, UnavailableError, plan_invalidation
from fused_cache_ops.changes import cells, changes_of_icechunk
from fused_cache_ops.changes.feeds import in_our_terms
from fused_cache_ops.changes.icechunk import _names
from fused_cache_ops.cli.commands import program

if sys.version_info < (3, 11):
    pytest.skip("Icechunk needs Python 3.11", allow_module_level=True)

import icechunk
import zarr

WEST, NORTH, STEP = 480_000, 4_290_000, 10  # in EPSG:32629, at Lisbon
IS_FIRST = icechunk.__version__.startswith("1.")
ROOT = "1CECHNKREP0F1RSTCMT0"


def add(group: Any, name: str, values: Any, dimensions: Any, **how: Any) -> Any:
    values = np.asarray(values)
    array = group.create_array(name, shape=values.shape, dtype=values.dtype, dimension_names=dimensions, **how)
    array[...] = values
    return array


def add_grid(group: Any, rows: int = 40, columns: int = 60, **how: Any) -> None:
    """An array of two times and 10 × 20 cells in a chunk, with the coordinates of the cells' centers in meters."""
    given = {"chunks": (1, 10, 20), **how}
    add(group, "a", np.ones((2, rows, columns), "float32"), ("time", "y", "x"), **given)
    add(group, "time", np.arange(2), ("time",))
    add(group, "y", NORTH - STEP * (np.arange(rows) + 0.5), ("y",))
    add(group, "x", WEST + STEP * (np.arange(columns) + 0.5), ("x",))


class Repository:
    """A repository in memory, with one commit."""

    def __init__(self, first: Callable[[Any], Any] = add_grid, storage: Any = None) -> None:
        self.repo = icechunk.Repository.create(storage or icechunk.in_memory_storage())
        self.first = self.commit(lambda group: first(group))

    def commit(self, change: Callable[[Any], Any], **how: Any) -> str:
        session = self.repo.writable_session("main")
        change(zarr.group(store=session.store))
        return str(session.commit("a load", **how))

    def changes(self, since: Any = None, **how: Any) -> Any:
        given = {"array": "a", "crs": "EPSG:32629", "since": since or self.first, "margin": 0, **how}
        return changes_of_icechunk(self.repo, **given)

    def windows(self, since: Any = None, **how: Any) -> set[Any]:
        """The rectangles that changed: left, top, right and bottom in cells of the grid in meters."""
        places = shapely.from_wkb(self.changes(since, **how).column("geometry").to_numpy())
        found = [each.bounds for each in places]
        return {tuple(round(each / STEP) for each in (w - WEST, NORTH - n, e - WEST, NORTH - s)) for w, s, e, n in found}


def write(*where: Any, value: float = 5, name: str = "a") -> Callable[[Any], None]:
    return lambda group: group[name].__setitem__(where, value)


def resize(*shape: int) -> Callable[[Any], None]:
    """What a load does that appends: the coordinates grow with the array, and are written anew."""

    def change(group: Any) -> None:
        for name, size in zip(("time", "y", "x"), shape):
            values = {"time": np.arange(size), "y": NORTH - STEP * (np.arange(size) + 0.5)}
            group[name].resize((size,))
            group[name][...] = values.get(name, WEST + STEP * (np.arange(size) + 0.5))
        group["a"].resize(shape)

    return change


WHOLE = {(0, 0, 60, 40)}


# -- chunks ------------------------------------------------------------------------------------------------------


def test_the_chunk_that_was_written_changed() -> None:
    of = Repository()
    of.commit(write(1, 12, 22))
    assert of.windows() == {(20, 10, 40, 20)}


def test_chunks_of_several_commits_and_times_are_one_place() -> None:
    of = Repository()
    of.commit(write(0, 12, 22))
    of.commit(write(1, 12, 22))
    of.commit(write(slice(None), 39, 59))
    assert of.windows() == {(20, 10, 40, 20), (40, 30, 60, 40)}


def test_neighbors_are_one_rectangle() -> None:
    of = Repository()
    of.commit(write(0, slice(0, 11), slice(None)))
    assert of.windows() == {(0, 0, 60, 20)}


def test_of_a_sharded_array_the_shard_changed() -> None:
    of = Repository(lambda group: add_grid(group, chunks=(1, 10, 10), shards=(1, 20, 40)))
    of.commit(write(0, 25, 45))
    assert of.windows() == {(40, 20, 60, 40)}


def test_equal_values_that_were_written_count() -> None:
    of = Repository()
    of.commit(write(0, 0, 0, value=1))
    assert of.windows() == {(0, 0, 20, 10)}


def test_another_array_that_was_written_does_not_count() -> None:
    of = Repository(lambda group: [add_grid(group), add(group, "b", np.zeros((40, 60)), ("y", "x"))])
    of.commit(write(0, 0, name="b"))
    assert of.windows() == set()


def test_the_only_array_with_rows_and_columns_need_not_be_named() -> None:
    of = Repository()
    of.commit(write(0, 1))
    assert of.windows(array=None) == of.windows(array="a")


def test_one_of_several_arrays_must_be_named_even_if_the_other_is_gone() -> None:
    of = Repository()
    of.commit(lambda group: add(group, "b", np.zeros((10, 20)), ("y", "x")))
    second = of.repo.lookup_branch("main")
    of.commit(lambda group: group.__delitem__("b"))
    with pytest.raises(InvalidInputError, match=r"has 'a', 'b' with rows and columns: name the one .* by array="):
        of.windows(array=None, since=second)


def test_an_array_in_a_group_finds_its_coordinates_there_or_around() -> None:
    def make(group: Any) -> None:
        add_grid(group)
        add(group.create_group("g"), "b", np.zeros((40, 60)), ("y", "x"), chunks=(10, 20))

    of = Repository(make)
    of.commit(write(0, 0, name="g/b"))
    assert of.windows(array="/g/b") == {(0, 0, 20, 10)}


@pytest.mark.parametrize("seed", range(8))
def test_the_rectangles_cover_the_chunks_that_were_written_and_no_more(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, columns, high, wide = (int(each) for each in random.integers(1, (30, 30, 9, 9)))
    of = Repository(lambda group: add_grid(group, rows + 1, columns + 1, chunks=(1, high, wide)))
    changed = np.zeros((rows + 1, columns + 1), dtype=bool)
    for _ in range(random.integers(1, 6)):
        row, column = int(random.integers(0, rows + 1)), int(random.integers(0, columns + 1))
        of.commit(write(0, row, column))
        top, left = row // high * high, column // wide * wide
        changed[top : top + high, left : left + wide] = True
    covered = np.zeros_like(changed, dtype=int)
    for left, top, right, bottom in of.windows():
        covered[top:bottom, left:right] += 1
    assert (covered == changed).all()


# -- shapes ------------------------------------------------------------------------------------------------------


def test_columns_that_were_added_changed_and_the_last_ones_edge() -> None:
    of = Repository()
    of.commit(resize(2, 40, 80))
    assert of.windows() == {(59, 0, 80, 40)}


def test_columns_that_were_added_in_two_commits_changed() -> None:
    of = Repository()
    of.commit(resize(2, 40, 70))
    of.commit(resize(2, 50, 80))
    assert of.windows() == {(59, 0, 80, 50), (0, 39, 80, 50)}


def test_rows_that_were_removed_changed_where_they_were() -> None:
    of = Repository()
    of.commit(resize(2, 25, 60))
    assert of.windows() - {(0, 20, 60, 30), (0, 20, 60, 25)} == {(0, 24, 60, 40)}


@pytest.mark.parametrize("times", [1, 3])
def test_another_dimension_that_grew_or_shrank_changes_everything(times: int) -> None:
    of = Repository()
    of.commit(resize(times, 40, 60))
    assert of.windows() == WHOLE


def test_what_was_written_to_rows_that_were_then_removed_changed_where_they_were() -> None:
    of = Repository()
    of.commit(write(0, 39, 59))
    of.commit(resize(2, 20, 60))
    assert of.windows() == {(0, 19, 60, 40)}


def test_columns_of_an_array_that_had_none_changed() -> None:
    of = Repository(lambda group: add_grid(group, 40, 0))
    second = of.commit(lambda group: group.attrs.update(title="other"))
    assert of.windows() == set()
    of.commit(resize(2, 40, 30))
    assert of.windows(second) == {(0, 0, 30, 40)}


def test_what_was_lost_while_an_array_was_smaller_changed() -> None:
    of = Repository()
    of.commit(resize(2, 40, 20))
    of.commit(resize(2, 40, 60))
    assert of.windows() == WHOLE


def test_an_array_that_was_resized_more_often_than_is_looked_at_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fused_cache_ops.changes.icechunk._MOST_SNAPSHOTS", 1)
    of = Repository()
    of.commit(resize(2, 40, 70))
    assert of.windows() == WHOLE | {(0, 0, 70, 40)}


def test_what_was_lost_while_an_array_was_smaller_for_a_moment_changed() -> None:
    of = Repository()
    of.commit(lambda group: [resize(2, 40, 20)(group), resize(2, 40, 60)(group)])
    assert of.windows() in (WHOLE, {(20, 0, 60, 40)})


def random_change(random: np.random.Generator) -> Callable[[Any], None]:
    """A commit as loads make them: cells that are written, an array that is resized or replaced, coordinates written anew."""
    kind = random.choice(["write", "write", "resize", "again", "replace", "smaller and larger"])

    def change(group: Any) -> None:
        shape = group["a"].shape
        if kind == "write":
            place = tuple(int(random.integers(0, size)) for size in shape)
            group["a"][place] = random.integers(2, 9)
        elif kind == "resize":
            resize(int(random.integers(1, 4)), *(int(random.integers(2, 60)) for _ in range(2)))(group)
        elif kind == "again":
            resize(*shape)(group)
        elif kind == "replace":
            add(group, "a", np.ones(shape, "float32"), ("time", "y", "x"), chunks=(1, 7, 9), overwrite=True)
        else:
            resize(shape[0], 1, shape[2])(group)
            resize(*shape)(group)

    return change


def values(of: Repository, snapshot: str) -> Any:
    """The array at a snapshot, in a larger one of nothing."""
    store = of.repo.readonly_session(snapshot_id=snapshot).store
    found = zarr.open_array(store, path="a", mode="r")[...]
    padded = np.full((4, 64, 64), np.nan)
    padded[: found.shape[0], : found.shape[1], : found.shape[2]] = found
    return padded


@pytest.mark.parametrize("seed", range(5))
def test_no_cell_that_differs_is_left_out_whatever_happened_in_between(seed: int) -> None:
    random = np.random.default_rng(seed)
    of = Repository(lambda group: add_grid(group, 30, 40, chunks=(1, 7, 9)))
    snapshots = [of.first]
    for _ in range(6):
        snapshots.append(of.commit(random_change(random)))
    for since in snapshots:
        one, other = values(of, since), values(of, snapshots[-1])
        differs = ~((one == other) | (np.isnan(one) & np.isnan(other))).all(axis=0)
        covered = np.zeros((64, 64), dtype=bool)
        for left, top, right, bottom in of.windows(since):
            covered[top:bottom, left:right] = True
        assert not (differs & ~covered).any()


# -- everything --------------------------------------------------------------------------------------------------


def rewrite(group: Any) -> None:
    for name in ("a", "x", "y", "time"):
        del group[name]
    add_grid(group, 30, 50)


EVERYTHING: dict[str, Callable[[Any], Any]] = {
    "an attribute": lambda group: group["a"].attrs.update(scale_factor=2),
    "a group's attribute": lambda group: group.attrs.update(title="other"),
    "a coordinate's attribute": lambda group: group["time"].attrs.update(units="days since 2000-01-01"),
    "a time": lambda group: group["time"].__setitem__(0, 7),
    "no time": lambda group: group.__delitem__("time"),
    "the reference system": lambda group: add(group, "spatial_ref", 0, ()).attrs.update(crs_wkt="EPSG:32629"),
}


@pytest.mark.parametrize("change", EVERYTHING.values(), ids=EVERYTHING)
def test_everything_changes_if_the_same_values_mean_something_else(change: Callable[[Any], Any]) -> None:
    of = Repository()
    of.commit(change)
    assert of.windows() == WHOLE


def test_an_array_that_was_written_anew_changed_where_it_was_and_where_it_is() -> None:
    of = Repository()
    of.commit(rewrite)
    assert of.windows() == WHOLE | {(0, 0, 50, 30)}


def test_an_array_that_was_replaced_by_its_like_changed() -> None:
    of = Repository()
    of.commit(lambda group: add(group, "a", np.ones((2, 40, 60), "float32"), ("time", "y", "x"), overwrite=True))
    assert of.windows() == WHOLE


def test_coordinates_that_moved_change_both_places() -> None:
    of = Repository()
    of.commit(lambda group: group["x"].__setitem__(..., WEST + STEP * (np.arange(60) + 100.5)))
    assert of.windows() == WHOLE | {(100, 0, 160, 40)}


def test_coordinates_that_were_written_with_equal_values_change_nothing() -> None:
    of = Repository()
    of.commit(lambda group: [group[name].__setitem__(..., group[name][...]) for name in ("x", "y", "time")])
    assert of.windows() == set()


def test_no_number_equals_itself_and_nothing_else() -> None:
    of = Repository(lambda group: [add_grid(group), group.__delitem__("time"), add(group, "time", [np.nan, 1], ("time",))])
    of.commit(lambda group: group["time"].__setitem__(..., [np.nan, 1]))
    assert of.windows() == set()
    of.commit(lambda group: group["time"].__setitem__(..., [0, 1]))
    assert of.windows() == WHOLE


def test_another_reference_system_changes_both_places() -> None:
    of = Repository(lambda group: [add_grid(group), group.attrs.update({"proj:code": "EPSG:32629"})])
    of.commit(lambda group: group.attrs.update({"proj:code": "EPSG:32630"}))
    found = plan_invalidation("udf", geometry=of.changes(crs=None, margin=0), zooms=12)
    box = shapely.box(WEST, NORTH - 400, WEST + 600, NORTH).wkt
    places = [plan_invalidation("udf", geometry=box, crs=crs, zooms=12) for crs in ("EPSG:32629", "EPSG:32630")]
    assert {*found.tiles()} == {*places[0].tiles(), *places[1].tiles()}
    assert not {*places[0].tiles()} & {*places[1].tiles()}


def test_an_array_that_was_deleted_changed_where_it_was() -> None:
    of = Repository()
    of.commit(lambda group: group.__delitem__("a"))
    assert of.windows() == WHOLE


def test_an_array_that_is_new_changed_where_it_is() -> None:
    assert Repository().windows(since=ROOT) == WHOLE


@pytest.mark.skipif(IS_FIRST, reason="Icechunk 1 cannot move arrays")
@pytest.mark.parametrize("names", [("a", "b"), ("b",), ("a",)], ids=str)
def test_an_array_that_was_moved_changed_under_both_names(names: Any) -> None:
    def make(group: Any) -> None:
        add_grid(group)
        add(group, "other", np.zeros((40, 60)), ("y", "x"))

    of = Repository(make)
    for source, target in itertools.pairwise(["a", "c", "b"]):
        session = of.repo.rearrange_session("main")
        session.move(f"/{source}", f"/{target}")
        session.commit("a move")
    for name in names:
        assert of.windows(array=name) == WHOLE
    assert of.windows(array="other") == set()


def test_names_are_followed_through_moves() -> None:
    """As Icechunk 2 lists them: the latest first, with all that a group holds."""
    moves = [("/h", "/i"), ("/h/a", "/i/a"), ("/other", "/b"), ("/g", "/h"), ("/g/a", "/h/a")]
    found = [_names(SimpleNamespace(moved_nodes=moves), path) for path in ("i/a", "a", "g/a", "b")]
    assert found == [["i/a", "h/a", "g/a"], ["a"], ["g/a"], ["b", "other"]]


# -- since -------------------------------------------------------------------------------------------------------


def test_the_same_snapshot_changed_nothing() -> None:
    of = Repository()
    assert of.windows() == set()
    assert of.changes(margin=0).num_rows == 0


def test_a_commit_that_only_rewrites_manifests_changed_nothing() -> None:
    of = Repository()
    of.repo.rewrite_manifests("tidy", branch="main")
    assert of.windows() == set()


def test_a_tag_a_branch_and_a_time_name_a_snapshot() -> None:
    of = Repository()
    of.repo.create_tag("shown", of.first)
    of.repo.create_branch("map", of.first)
    time = next(each.written_at for each in of.repo.ancestry(snapshot_id=of.first))
    of.commit(write(0, 0, 0))
    second = of.commit(write(0, 39, 59))
    of.repo.create_tag("next", second)
    of.commit(write(0, 20, 20))
    for since in ("shown", "map", time, time.isoformat(), time + datetime.timedelta(microseconds=1)):
        assert of.windows(since, tag="next") == {(0, 0, 20, 10), (40, 30, 60, 40)}, since
    assert of.windows(second) == {(20, 20, 40, 30)}


def test_a_name_of_a_tag_and_a_branch_is_an_error() -> None:
    of = Repository()
    of.repo.create_tag("shown", of.first)
    of.repo.create_branch("shown", of.first)
    with pytest.raises(InvalidInputError, match="'shown' is a tag and a branch: pass the id of the snapshot"):
        of.windows("shown")


@pytest.mark.parametrize("how", ["amended", "rolled back", "elsewhere", "backwards"])
def test_a_snapshot_that_is_not_in_the_history_is_an_error_and_never_nothing(how: str) -> None:
    of = Repository()
    second = of.commit(write(0, 0, 0))
    if how == "amended" and not IS_FIRST:
        session = of.repo.writable_session("main")
        zarr.group(store=session.store)["a"][0, 39, 59] = 4
        session.amend("again")
    elif how == "backwards":
        of.repo.create_tag("old", of.first)
        with pytest.raises(InvalidInputError, match="not in the history"):
            of.windows(second, tag="old")
        return
    else:
        of.repo.reset_branch("main", of.first)
        if how != "rolled back":
            of.commit(write(0, 39, 59))
    with pytest.raises(InvalidInputError, match=r"not in the history of what the map is to show.* invalidate the whole UDF"):
        of.windows(second)


def test_a_snapshot_that_has_expired_is_an_error_and_the_root_is_everything() -> None:
    of = Repository()
    for number in range(3):
        of.commit(write(0, 0, number * 20))
    last = next(iter(of.repo.ancestry(branch="main")))
    of.repo.expire_snapshots(older_than=last.written_at)
    with pytest.raises(InvalidInputError, match="has it expired"):
        of.windows()
    assert of.windows(ROOT) == WHOLE


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"since": "None"}, "looks like a value that is missing"),
    ({"since": 7}, "since is an int: pass the id of a snapshot"),
    ({"since": "main"}, "is what the map is to show, which never differs from itself"),
    ({"since": "yesterday"}, "has it expired"),
    ({"since": "0" * 20}, "has it expired"),
    ({"since": "2020-01-01"}, "has no time zone"),
    ({"since": "2020-01-01T00:00:00Z"}, "is before the first snapshot"),
    ({"since": "2990-01-01T00:00:00Z"}, "is in the future"),
    ({"array": "b"}, "array = 'b' is not in a Repository, which has 'a', 'time', 'x', 'y'"),
    ({"array": "/"}, "array = '' is not in"),
    ({"array": ""}, "looks like a value that is missing"),
    ({"branch": "other"}, "name of a branch by branch="),
    ({"tag": "other"}, "name of a branch by branch="),
    ({"dimensions": ("lat", "lon")}, "must name the rows and the columns.*'time', 'y', 'x'"),
    ({"dimensions": "yx"}, "must name the rows and the columns"),
    ({"crs": None}, "does not say its coordinate reference system: name it by crs="),
    ({"crs": "+proj=utm +zone=29 +units=km", "array": "metres"}, "is in 'm', but its reference system is in 'kilometre'"),
    ({"crs": "EPSG:4326"}, "'y' goes beyond 90 degrees: name the reference system"),
    ({"margin": -1}, "margin = -1 must be"),
]


@pytest.mark.parametrize(("how", "message"), WRONG, ids=str)
def test_what_cannot_be_meant_is_an_error(how: dict[str, Any], message: str) -> None:
    of = Repository()
    if how.get("array") == "metres":
        of.commit(lambda group: [group[name].attrs.update(units="m") for name in ("x", "y")])
        how = how | {"array": "a"}
    with pytest.raises(InvalidInputError, match=message):
        changes_of_icechunk(of.repo, **{"since": of.first, "array": "a", "crs": "EPSG:32629", **how})


@pytest.mark.parametrize(
    ("repo", "message"),
    [
        ("{folder}/nowhere", "(?i)pass the path of the folder"),
        ("s3://user:hunter2@lake/repo?key=hunter2", "is not on this machine: pass icechunk.Repository.open"),
        (7, "repo is an int: pass an icechunk.Repository"),
        ("null", "looks like a value that is missing"),
    ],
)
def test_what_is_no_repository_is_an_error(tmp_path: Path, repo: Any, message: str) -> None:
    given = repo.format(folder=tmp_path) if isinstance(repo, str) else repo
    with pytest.raises(InvalidInputError, match=message) as raised:
        changes_of_icechunk(given, since="7", array="a")
    assert "hunter2" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_store_that_does_not_answer_is_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    of = Repository(storage=icechunk.local_filesystem_storage(str(folder)))
    of.commit(write(0, 0, 0))
    (folder / "transactions").rename(folder / "away")
    with pytest.raises(UnavailableError, match=r"(?i)since '\w+': \w+Error: session error: object [^|]*found[^|]*$"):
        changes_of_icechunk(str(folder), since=of.first, array="a", crs="EPSG:32629")


def test_a_bucket_that_does_not_answer_is_tried_again_and_shows_no_secret() -> None:
    frame = "\n  | \n  | context:\n  |    0: icechunk::repository::open"
    text = f"  x error getting object metadata from object store dispatch\n  | failure at s3://k:hunter2@b{frame}"
    with pytest.raises(UnavailableError, match=r"failed: IcechunkError: error getting .* dispatch failure at s3://\*+@b\.$"):
        with in_our_terms("It failed", "a Repository"):
            raise icechunk.IcechunkError(text)


# -- where cells are ---------------------------------------------------------------------------------------------


def add_map(group: Any, longitudes: Any, latitudes: Any = (10.0, 0.0), names: Any = ("lat", "lon")) -> None:
    """An array with one chunk for each cell, to which nothing is written."""
    shape = len(latitudes), len(longitudes)
    group.create_array("a", shape=shape, dtype="f4", dimension_names=names, chunks=(1, 1))
    add(group, names[0], np.asarray(latitudes), (names[0],))
    add(group, names[1], np.asarray(longitudes), (names[1],))


def boxes(of: Repository, **how: Any) -> list[tuple[float, ...]]:
    places = shapely.from_wkb(of.changes(crs=None, **how).column("geometry").to_numpy())
    return sorted(tuple(round(each, 9) for each in place.bounds) for place in places)


COLUMNS = [
    ("0 to 360", np.arange(5, 360, 10.0), 20, [(-160, 5, -150, 15)]),
    ("across 180 in 0 to 360", np.arange(0, 360, 10.0), 18, [(-180, 5, -175, 15), (175, 5, 180, 15)]),
    ("170 to -170", [170.0, 175, 180, -175, -170], 4, [(-172.5, 5, -167.5, 15)]),
    ("350 to 10", [350.0, 0, 10], 2, [(5, 5, 15, 15)]),
    ("irregular", [0.0, 1, 3, 7], 2, [(2, 5, 5, 15)]),
    ("the last one of irregular ones", [0.0, 1, 3, 7], 3, [(5, 5, 9, 15)]),
    ("far apart", [-170.0, 100], 1, [(-180, 5, -125, 15), (-35, 5, 0, 15), (0, 5, 90, 15), (90, 5, 180, 15)]),
    ("descending", [3.0, 2, 1], 0, [(2.5, 5, 3.5, 15)]),
    ("whole numbers", [1, 2, 3], 0, [(0.5, 5, 1.5, 15)]),
]


@pytest.mark.parametrize(
    ("longitudes", "column", "expected"), [each[1:] for each in COLUMNS], ids=[each[0] for each in COLUMNS]
)
def test_cells_reach_halfway_to_their_neighbors(longitudes: Any, column: int, expected: Any) -> None:
    of = Repository(lambda group: add_map(group, longitudes))
    of.commit(write(0, column))
    assert boxes(of) == expected


def test_a_whole_globe_is_drawn_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    of = Repository(lambda group: add_map(group, np.arange(0, 360, 0.5), np.arange(90, -90.5, -0.5)))
    of.commit(lambda group: group.attrs.update(title="other"))
    assert shapely.union_all([shapely.box(*each) for each in boxes(of)]).equals(shapely.box(-180, -90, 180, 90))
    assert plan_invalidation("udf", geometry=of.changes(crs=None), zooms=3).tile_count == 64
    assert not [each for each in recwarn if "edge" in str(each.message)]


def test_packed_coordinates_are_unpacked() -> None:
    of = Repository(lambda group: add_map(group, np.array([10, 20, 30], "int16")))
    of.commit(lambda group: group["lon"].attrs.update(scale_factor=0.1, add_offset=5))
    of.commit(write(0, 1))
    assert boxes(of, since=of.repo.lookup_branch("main")) == []
    first = list(of.repo.ancestry(branch="main"))[1].id
    assert boxes(of, since=first) == [(6.5, 5, 7.5, 15)]


def test_a_single_column_needs_its_edges() -> None:
    of = Repository(lambda group: add_map(group, [20.0]))
    with pytest.raises(InvalidInputError, match="'lon' is a single value, which does not tell how large the cell is"):
        boxes(of)
    of.commit(lambda group: group["lon"].attrs.update(bounds="lon_bnds"))
    second = of.commit(lambda group: add(group, "lon_bnds", [[10.0, 25.0]], ("lon", "side")))
    of.commit(write(0, 0))
    assert boxes(of, since=second) == [(10, 5, 25, 15)]
    of.commit(lambda group: [group.__delitem__("lon_bnds"), add(group, "lon_bnds", [[1.0, 2, 3]], ("lon", "corner"))])
    with pytest.raises(InvalidInputError, match="is a single value"):
        boxes(of)
    of.commit(lambda group: group.attrs.update({"spatial:transform": [4, 0, 18, 0, -2, 10]}))
    fifth = of.repo.lookup_branch("main")
    of.commit(write(0, 0))
    assert boxes(of, since=fifth) == [(18, 5, 22, 15)]


def test_a_single_row_is_as_high_as_a_transform_says() -> None:
    of = Repository(
        lambda group: [add_map(group, [20.0, 21], [5.0]), group.attrs.update({"spatial:transform": [1, 0, 0, 0, -4, 0]})]
    )
    of.commit(write(0, 0))
    assert boxes(of) == [(19.5, 3, 20.5, 7)]


@pytest.mark.parametrize(
    ("longitudes", "message"),
    [
        ([1.0, 3, 2], "is not sorted"),
        ([1.0, 1, 2], "is not sorted, or has a value twice"),
        ([1.0, np.nan, 2], "values that are no numbers"),
        ([True, False], "is of type bool, and not of numbers"),
    ],
)
def test_coordinates_without_edges_are_an_error(longitudes: Any, message: str) -> None:
    of = Repository(lambda group: add_map(group, longitudes))
    with pytest.raises(InvalidInputError, match=message):
        boxes(of)


@pytest.mark.parametrize(
    ("names", "said"),
    [(("lat", "v"), {}), (("u", "v"), {"standard_name": "latitude"}), (("u", "v"), {"units": "degree_north"})],
    ids=str,
)
def test_degrees_are_not_taken_for_meters(names: Any, said: Any) -> None:
    of = Repository(lambda group: [add_map(group, [1.0, 2], names=names), group[names[0]].attrs.update(said)])
    with pytest.raises(InvalidInputError, match=r"coordinates in degrees, .* but its reference system is projected"):
        of.changes(dimensions=names)


def test_an_array_without_coordinates_or_names_is_an_error() -> None:
    def make(group: Any) -> None:
        add(group, "a", np.zeros((4, 4)), ("y", "x"))
        add(group, "b", np.zeros((4, 4)), None)
        add(group, "c", np.zeros((4, 4)), ("line", "sample"))

    of = Repository(make)
    for array, message in (("a", "no array 'y' of one dimension"), ("b", "no names of dim"), ("c", "say which are its rows")):
        with pytest.raises(InvalidInputError, match=f"(?i){message}"):
            of.changes(array=array)


def test_one_dimension_in_degrees_is_not_enough_for_both_to_be() -> None:
    of = Repository(lambda group: add_map(group, [1.0, 2], names=("lat", "x")))
    with pytest.raises(InvalidInputError, match="does not say its coordinate reference system"):
        boxes(of)


def test_a_curved_grid_is_an_error() -> None:
    def make(group: Any) -> None:
        for name in ("a", "y", "x"):
            add(group, name, np.zeros((4, 4)), ("y", "x"))

    with pytest.raises(InvalidInputError, match="no array 'y' of one dimension"):
        Repository(make).changes()


def test_numbers_of_rows_and_columns_are_no_degrees() -> None:
    def make(group: Any) -> None:
        add(group, "a", np.ones((4, 4)), ("y", "x")).attrs["coordinates"] = "lat lon"
        for name in ("y", "x"):
            add(group, name, np.arange(4), (name,))
        for name in ("lat", "lon"):
            add(group, name, np.zeros((4, 4)), ("y", "x"))

    of = Repository(make)
    for crs in ("EPSG:4326", "EPSG:4269"):
        with pytest.raises(InvalidInputError, match="coordinates of two dimensions"):
            of.changes(crs=crs)
    assert of.changes(crs="EPSG:32629").num_rows == 0


def test_columns_that_are_named_first_are_an_error() -> None:
    of = Repository(lambda group: add_map(group, [10.0, 20, 30]))
    with pytest.raises(InvalidInputError, match="name the columns first"):
        of.changes(crs=None, dimensions=("lon", "lat"))


def test_more_coordinates_than_are_read_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "_MOST_CELLS", 59)
    with pytest.raises(InvalidInputError, match="has 60 values of 'x': 59 are the most"):
        Repository().changes()


def test_coordinates_of_another_size_than_the_array_are_an_error() -> None:
    of = Repository()
    of.commit(lambda group: group["a"].resize((2, 40, 80)))
    with pytest.raises(InvalidInputError, match="has 80 cells along 'x', but the array of that name has 60 values"):
        of.windows()


UTM = shapely.box(WEST, NORTH - 10, WEST + 20, NORTH).bounds
TRANSFORMS: dict[str, Callable[[Any], Any]] = {
    "spatial:": lambda group: group["a"].attrs.update(
        {"spatial:transform": [10, 0, WEST, 0, -10, NORTH], "proj:code": "EPSG:32629"}
    ),
    "of the group": lambda group: group.attrs.update(
        {"spatial:transform": [10, 0, WEST, 0, -10, NORTH], "proj:code": "EPSG:32629"}
    ),
    "nodes": lambda group: group["a"].attrs.update(
        {
            "spatial:transform": [10, 0, WEST + 5, 0, -10, NORTH - 5],
            "spatial:registration": "node",
            "proj:projjson": pyproj.CRS("EPSG:32629").to_json_dict(),
        }
    ),
    "GDAL's": lambda group: add(group, "spatial_ref", 0, ()).attrs.update(
        {"GeoTransform": f"{WEST} 10 0 {NORTH} 0 -10", "crs_wkt": "EPSG:32629"}
    ),
}


@pytest.mark.parametrize("change", TRANSFORMS.values(), ids=TRANSFORMS)
def test_a_transform_places_an_array_without_coordinates(change: Callable[[Any], Any]) -> None:
    def make(group: Any) -> None:
        add(group, "a", np.zeros((4, 4)), ("y", "x"), chunks=(1, 2))
        change(group)

    of = Repository(make)
    of.commit(write(0, 0))
    assert boxes(of) == [UTM]


SYSTEMS: dict[str, Callable[[Any], Any]] = {
    "a variable that is named": lambda group: [
        group["a"].attrs.update(grid_mapping="projection: x y"),
        add(group, "projection", 0, ()).attrs.update(crs_wkt="EPSG:32629"),
    ],
    "spatial_ref": lambda group: add(group, "spatial_ref", 0, ()).attrs.update(spatial_ref="EPSG:32629"),
    "CF": lambda group: add(group, "crs", 0, ()).attrs.update(
        grid_mapping_name="transverse_mercator",
        longitude_of_central_meridian=-9.0,
        latitude_of_projection_origin=0.0,
        scale_factor_at_central_meridian=0.9996,
        false_easting=500000.0,
        false_northing=0.0,
    ),
    "proj:": lambda group: group.attrs.update({"proj:code": "EPSG:32629"}),
}


@pytest.mark.parametrize("change", SYSTEMS.values(), ids=SYSTEMS)
def test_the_reference_system_is_what_the_array_says(change: Callable[[Any], Any]) -> None:
    of = Repository(lambda group: [add_grid(group), change(group)])
    of.commit(write(0, 0, 0))
    expected = of.changes().column("geometry").to_pylist()
    found = of.changes(crs=None)
    assert found.column("geometry").to_pylist() == expected
    tiles = {str(each) for each in plan_invalidation("udf", geometry=found, zooms=14).tiles()}
    box = shapely.box(WEST, NORTH - 100, WEST + 200, NORTH).wkt
    assert tiles >= {str(each) for each in plan_invalidation("udf", geometry=box, crs="EPSG:32629", zooms=14).tiles()}


def test_a_reference_system_that_contradicts_the_arrays_is_an_error() -> None:
    of = Repository(lambda group: [add_grid(group), group.attrs.update({"proj:code": "EPSG:32629"})])
    with pytest.raises(InvalidInputError, match="is in 'EPSG:32629', but crs = 'EPSG:32630' was given"):
        of.changes(crs="EPSG:32630")


def test_names_of_rows_and_columns_are_told_by_what_coordinates_say_or_by_the_caller() -> None:
    def make(group: Any) -> None:
        add_map(group, [1.0, 2], names=("u", "v"))

    of = Repository(make)
    of.commit(write(0, 1))
    assert changes_of_icechunk(of.repo, since=of.first, array="a", dimensions=("u", "v"), crs="EPSG:4326").num_rows == 1
    third = of.commit(lambda group: [group["u"].attrs.update(axis="Y"), group["v"].attrs.update(standard_name="longitude")])
    of.commit(write(0, 0))
    assert changes_of_icechunk(of.repo, since=third, array="a", crs="EPSG:4326").num_rows == 1


def test_a_margin_widens_the_tiles_at_each_zoom() -> None:
    of = Repository(lambda group: add_map(group, np.arange(-179.5, 180), np.arange(89.5, -90, -1)))
    of.commit(write(89, 180))  # from 0 to 1 degree, whose corner is at the corner of four tiles

    def count(**how: Any) -> int:
        found = changes_of_icechunk(of.repo, since=of.first, array="a", **how)
        return plan_invalidation("udf", geometry=found, zooms=1).tile_count

    assert (count(), count(margin=0)) == (4, 1)


def test_cells_that_are_larger_than_a_tiles_pixels_reach_into_their_neighbors() -> None:
    of = Repository()
    of.commit(write(0, 0, 0))
    assert [of.windows(margin=margin) for margin in (0, 1, 9)] == [{(0, 0, 20, 10)}, {(0, 0, 21, 11)}, {(0, 0, 23, 13)}]


# -- the command line --------------------------------------------------------------------------------------------


def test_the_command_line_plans_what_a_repository_recorded(tmp_path: Path) -> None:
    of = Repository(lambda group: add_map(group, [10.0, 20, 30]), icechunk.local_filesystem_storage(str(tmp_path / "r")))
    of.commit(write(0, 1))
    for address in (str(tmp_path / "r"), f"file://{tmp_path / 'r'}"):
        how = ["--changes-of", address, "--since", of.first, "--array", "a", "--zooms", "6", "--list"]
        done = CliRunner().invoke(program, ["plan", "roads", *how])
        assert done.exit_code == 0, done.stderr
        found = set(done.stdout.split())
        assert found == {str(each) for each in plan_invalidation("r", geometry=of.changes(crs=None, margin=9), zooms=6).tiles()}


def test_the_command_line_says_what_a_repository_needs(tmp_path: Path) -> None:
    def make(group: Any) -> None:
        add_grid(group)
        add(group, "curved", np.zeros((4, 4)), ("u", "v"))

    of = Repository(make, icechunk.local_filesystem_storage(str(tmp_path / "r")))
    zarr.open_group(str(tmp_path / "s.zarr"), mode="w").create_array("a", shape=(4,), dtype="i4")
    for address, more, message in (
        ("r", [], "has 'a', 'curved' with rows and columns: name the one that the map shows by --array."),
        ("r", ["--array", "a", "--geometry-column", "g"], "--geometry-column is for a folder (with its listing"),
        ("r", ["--array", "b"], "--array = 'b' is not in"),
        ("r", ["--array", "curved"], "in Python: changes_of_icechunk takes dimensions"),
        ("https://lake/r", ["--array", "a"], "--array is for an Icechunk repository on this machine, and 'https://lake/r' is"),
        ("s.zarr", ["--array", "a"], "Zarr keeps no record of what changed"),
    ):
        where = address if "://" in address else str(tmp_path / address)
        how = ["--changes-of", where, "--since", of.first, "--zooms", "6", *more]
        done = CliRunner().invoke(program, ["plan", "roads", *how, "--json"])
        assert done.exit_code == 1
        assert message in json.loads(done.stdout)["error"]["message"]


@pytest.mark.parametrize("form", ["path", "url", "group", "array", "repository", "folder"])
def test_zarr_as_a_geometry_says_what_to_pass(tmp_path: Path, form: str) -> None:
    group = zarr.open_group(str(tmp_path / "s.zarr"), mode="w")
    array = group.create_array("a", shape=(4,), dtype="i4")
    forms = {"path": str(tmp_path / "s.zarr"), "url": "s3://lake/s.zarr/", "group": group, "array": array}
    repo = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "r")))
    given = forms.get(form, str(tmp_path / "r") if form == "folder" else repo)
    with pytest.raises(InvalidInputError, match=r"Zarr keeps no record of what changed.*bounds=|changes_of_icechunk"):
        plan_invalidation("udf", geometry=given, zooms=3)
