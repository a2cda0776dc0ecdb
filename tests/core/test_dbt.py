"""What a dbt build changed, from files that dbt wrote for examples/dbt, and the maps that show it."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fused_cache_ops import (
    CacheMap,
    DatasetInvalidationError,
    DbtNodesFailedError,
    FusedCacheError,
    FusedClient,
    InvalidInputError,
    UnavailableError,
    plan_dbt,
)
from fused_cache_ops.dbt.artifacts import read_build
from fused_cache_ops.emulator import Emulator, Udf

FILES = Path(__file__).with_name("dbt")
CHANGED = [(14, 7776, 6278), (14, 7773, 6276)]
OTHER = (14, 0, 0)
TABLES = {"model.city.parcels", "model.city.streets", "seed.city.parcels_delivered", "seed.city.streets_delivered"}
VIEW = "model.city.streets_by_letter"
PRICES = {"model.city.prices", "model.city.prices_total"}


class Project:
    """The folder of a project, with the files of a build, which can be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.target = folder / "target"

    def has(self, build: str) -> Project:
        shutil.copytree(FILES / build, self.target, dirs_exist_ok=True)
        (self.target / "changed_parcels.csv").write_text("z,x,y\n" + "".join(f"{z},{x},{y}\n" for z, x, y in CHANGED))
        return self

    def change(self, file: str, change: Callable[[Any], object]) -> Project:
        path = self.target / file
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        return self

    def result(self, uid: str, **fields: Any) -> Project:
        def change(content: Any) -> None:
            next(each for each in content["results"] if each["unique_id"] == uid).update(fields)

        return self.change("run_results.json", change)

    def node(self, uid: str, **config: Any) -> Project:
        return self.change("manifest.json", lambda content: content["nodes"][uid]["config"].update(config))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path / "city").has("first")


@pytest.fixture
def udfs(fused_emulator: Emulator) -> dict[str, Udf]:
    made = {name: fused_emulator.register(dict, name=name) for name in ("parcels", "streets", "prices", "prices_legend")}
    for udf in made.values():
        fused_emulator.fill_cache(udf, [*CHANGED, OTHER])
    return made


# -- what changed ---------------------------------------------------------------------------------------------------------


def test_everything_that_was_built_has_changed_by_its_id_and_table(project: Project) -> None:
    build = read_build(project.target)
    assert set(build.changed) == TABLES | PRICES | {VIEW}
    assert build.changed["model.city.parcels"] == "city.main.parcels"
    assert build.changed["seed.city.parcels_delivered"] == "city.main.parcels_delivered"  # null in the results
    assert build.not_built == {}


def test_what_failed_or_was_skipped_has_not_changed(project: Project) -> None:
    build = read_build(project.has("failed").target)
    assert set(build.changed) == TABLES | {VIEW}
    assert build.not_built == {"model.city.prices": "error", "model.city.prices_total": "skipped"}


def test_a_retry_holds_only_what_it_built(project: Project) -> None:
    assert set(read_build(project.has("retried").target).changed) == PRICES


def test_several_builds_are_one_and_a_retry_repairs_what_failed(project: Project, tmp_path: Path) -> None:
    failed, retried = Project(tmp_path / "a").has("failed"), Project(tmp_path / "b").has("retried")
    for order in ([failed.target, retried.target], [retried.target, failed.target]):
        build = read_build(order)
        assert set(build.changed) == TABLES | PRICES | {VIEW}
        assert build.not_built == {}
        assert len(build.invocations) == 2


@pytest.mark.parametrize(
    ("config", "rows", "has_changed"),
    [
        ({"incremental_strategy": "append"}, 0, False),
        ({"incremental_strategy": "merge"}, 0, False),
        ({"incremental_strategy": "delete+insert"}, 0, False),
        ({"incremental_strategy": "delete+insert", "unique_key": None}, 0, True),
        ({"incremental_strategy": "insert_overwrite"}, 0, True),
        ({"incremental_strategy": None}, 0, True),
        ({"incremental_strategy": "append", "full_refresh": True}, 0, True),
        ({"materialized": "table", "incremental_strategy": "append"}, 0, True),
        ({"incremental_strategy": "append"}, 3, True),
        ({"incremental_strategy": "append"}, None, True),
        ({"incremental_strategy": "append"}, "0", True),
        ({"incremental_strategy": "append"}, False, True),
    ],
)
def test_no_rows_are_no_change_only_where_rows_are_added(project: Project, config: Any, rows: Any, has_changed: bool) -> None:
    project.node("model.city.parcels", **config)
    project.result("model.city.parcels", adapter_response={"rows_affected": rows})
    assert ("model.city.parcels" in read_build(project.target).changed) is has_changed


def test_a_full_refresh_without_rows_is_a_change(project: Project) -> None:
    project.result("model.city.parcels", adapter_response={"rows_affected": 0})
    project.change("run_results.json", lambda content: content["args"].update(full_refresh=True))
    assert "model.city.parcels" in read_build(project.target).changed


@pytest.mark.parametrize("status", ["success", "partial success", "error"])
def test_a_batch_that_succeeded_is_a_change_whatever_the_status_says(project: Project, status: str) -> None:
    batches = {"successful": [["2026-11-28", "2026-11-29"]], "failed": [["2026-11-29", "2026-11-30"]]}
    build = read_build(project.result("model.city.parcels", status=status, batch_results=batches).target)
    assert "model.city.parcels" in build.changed
    assert build.not_built == {"model.city.parcels": "partial success" if status == "success" else status}


def test_a_view_that_did_not_run_changes_with_its_table(project: Project) -> None:
    def only_streets(content: Any) -> None:
        content["results"] = [each for each in content["results"] if each["unique_id"] == "model.city.streets"]

    project.change("run_results.json", only_streets)
    assert set(read_build(project.target).changed) == {"model.city.streets", VIEW}


def test_a_change_passes_through_views_and_ephemeral_models_and_ends_at_tables(project: Project) -> None:
    def chain(content: Any) -> None:
        for name, materialized, above in (
            ("a", "ephemeral", "model.city.streets"),
            ("b", "view", "model.city.a"),
            ("c", "table", "model.city.b"),
            ("d", "view", "model.city.c"),
        ):
            content["nodes"][f"model.city.{name}"] = {
                "config": {"materialized": materialized},
                "depends_on": {"nodes": [above]},
            }

    changed = read_build(project.change("manifest.json", chain).target).changed
    assert {name for name in "abcd" if f"model.city.{name}" in changed} == {"a", "b"}


# -- what is refused ------------------------------------------------------------------------------------------------------


def edit(file: str, *path: Any, value: Any) -> Callable[[Project], object]:
    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return lambda project: project.change(file, change)


def half(file: str) -> Callable[[Project], object]:
    return lambda project: (project.target / file).write_bytes((project.target / file).read_bytes()[:200])


RESULTS, MANIFEST = "run_results.json", "manifest.json"
SCHEMA = "https://schemas.getdbt.com/dbt/{}.json"
WRONG: dict[str, tuple[Callable[[Project], object], str]] = {
    "another version": (
        edit(RESULTS, "metadata", "dbt_schema_version", value=SCHEMA.format("run-results/v4")),
        "has version v4 of run-results, but v6 can be read",
    ),
    "another file": (
        edit(RESULTS, "metadata", "dbt_schema_version", value=SCHEMA.format("sources/v3")),
        "is not dbt's run_results",
    ),
    "no version": (edit(MANIFEST, "metadata", "dbt_schema_version", value=None), "is not dbt's manifest.json"),
    "a newer manifest": (
        edit(MANIFEST, "metadata", "dbt_schema_version", value=SCHEMA.format("manifest/v99")),
        "v12 and v20 can be read",
    ),
    "half a results file": (half(RESULTS), "run_results.json is not complete JSON"),
    "half a manifest": (half(MANIFEST), "manifest.json is not complete JSON"),
    "no metadata": (lambda project: (project.target / RESULTS).write_text("[]"), "has no metadata"),
    "no results": (edit(RESULTS, "results", value=None), "has no list of results"),
    "a result without an id": (edit(RESULTS, "results", 0, value={"status": "success"}), "without a unique_id"),
    "compile": (edit(RESULTS, "args", "which", value="compile"), "dbt 'compile', not of build, run"),
    "docs": (edit(RESULTS, "args", "which", value="generate"), "dbt 'generate', not of build, run"),
    "no command": (edit(RESULTS, "args", "which", value=None), "dbt None, not of build, run"),
    "empty": (edit(RESULTS, "args", "empty", value=True), "--empty, which loads no rows"),
    "another project": (edit(MANIFEST, "nodes", value={}), "does not know seed.city.parcels_delivered"),
    "no nodes": (edit(MANIFEST, "nodes", value=None), "has no nodes"),
    "an older manifest": (
        edit(MANIFEST, "metadata", "invocation_id", value="another"),
        "of another invocation than .*, and older",
    ),
    "wrong exposures": (edit(MANIFEST, "exposures", value=[1]), "exposures is not a mapping"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_not_a_build_is_refused_with_the_file_and_the_reason(
    project: Project, client: FusedClient, fused_emulator: Emulator, udfs: dict[str, Udf], wrong: str
) -> None:
    change, said = WRONG[wrong]
    change(project)
    with pytest.raises(InvalidInputError, match=said) as caught:
        client.invalidate_dbt(project.folder)
    assert str(project.target) in str(caught.value) or "run_results.json" in str(caught.value)
    assert fused_emulator.requests == []


def places(content: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    """Every place in a document, of long lists and mappings the first ones."""
    yield path
    items = (
        list(content.items()) if isinstance(content, dict) else list(enumerate(content)) if isinstance(content, list) else []
    )
    for key, value in items[:8]:
        yield from places(value, *path, key)


@pytest.mark.parametrize("file", [RESULTS, MANIFEST])
@pytest.mark.parametrize("other", [None, 3, "text", [], {}, [None], {"a": None}], ids=repr)
def test_whatever_stands_in_a_file_is_read_or_refused(project: Project, udfs: dict[str, Udf], file: str, other: Any) -> None:
    path = project.target / file
    whole = path.read_text()
    for place in places(json.loads(whole)):
        content = json.loads(whole)
        inner = content
        for key in place[:-1]:
            inner = inner[key]
        if place:
            inner[place[-1]] = other
        path.write_text(json.dumps(content if place else other))
        with contextlib.suppress(FusedCacheError):
            plan_dbt(project.target)


def test_without_a_map_or_an_exposure_nothing_is_known_and_that_is_an_error(project: Project, client: FusedClient) -> None:
    project.change(MANIFEST, lambda content: content.update(exposures={}))
    with pytest.raises(InvalidInputError, match="Nothing says which UDFs show"):
        client.invalidate_dbt(project.target)


def test_a_keyword_that_is_unknown_is_refused(project: Project) -> None:
    with pytest.raises(TypeError, match="Unknown keyword zoms"):
        plan_dbt(project.target, zoms=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("file", [RESULTS, MANIFEST])
def test_a_file_that_is_not_there_yet_is_transient(project: Project, client: FusedClient, file: str) -> None:
    (project.target / file).unlink()
    with pytest.raises(UnavailableError, match=file):
        client.invalidate_dbt(project.target)


@pytest.mark.parametrize("path", [None, "", [], 3, "https://host/target", "None"], ids=repr)
def test_a_path_that_is_none_is_refused(path: Any) -> None:
    with pytest.raises(InvalidInputError, match="path"):
        plan_dbt(path)


def test_a_manifest_of_a_later_command_is_taken_if_it_knows_everything(project: Project) -> None:
    later = {"invocation_id": "another", "generated_at": "2026-11-29T23:00:00Z"}
    project.change(MANIFEST, lambda content: content["metadata"].update(later))
    assert set(read_build(project.target).changed) >= TABLES


@pytest.mark.parametrize("newer_than", ["2026-11-29T20:52:02+00:00", "2026-11-29T20:52:02Z", "2026-11-30"])
def test_results_older_than_asked_for_are_refused(project: Project, newer_than: str) -> None:
    with pytest.raises(InvalidInputError, match="older than newer_than"):
        plan_dbt(project.target, newer_than=newer_than)


def test_results_newer_than_asked_for_are_taken(project: Project) -> None:
    assert plan_dbt(project.target, newer_than="2026-11-29T20:52:00Z").plans


# -- which maps -----------------------------------------------------------------------------------------------------------


def test_exposures_are_a_map_and_each_says_what_changed(
    project: Project, client: FusedClient, fused_emulator: Emulator, udfs: dict[str, Udf]
) -> None:
    result = client.invalidate_dbt(project.folder)
    assert set(result.results) == set(udfs)
    left = {name: fused_emulator.cached_tiles(udf) for name, udf in udfs.items()}
    assert left == {"parcels": {OTHER}, "streets": set(), "prices": set(), "prices_legend": set()}


def test_a_failed_build_invalidates_what_it_built_and_says_what_stays_stale(
    project: Project, client: FusedClient, fused_emulator: Emulator, udfs: dict[str, Udf]
) -> None:
    with pytest.raises(DbtNodesFailedError, match=r"did not build 2 nodes: model.city.prices \(error\)") as caught:
        client.invalidate_dbt(project.has("failed").target)
    left = {name: len(fused_emulator.cached_tiles(udf)) for name, udf in udfs.items()}
    assert left == {"parcels": 1, "streets": 0, "prices": 3, "prices_legend": 3}
    assert caught.value.result.not_built == {"model.city.prices": "error", "model.city.prices_total": "skipped"}
    assert not caught.value.retryable
    assert pickle.loads(pickle.dumps(caught.value)).result == caught.value.result


@pytest.mark.parametrize("key", ["city.main.streets", "model.city.streets", "CITY.MAIN.Streets"])
def test_the_map_names_tables_or_ids(
    project: Project, client: FusedClient, fused_emulator: Emulator, udfs: dict[str, Udf], key: str
) -> None:
    project.change(MANIFEST, lambda content: content.update(exposures={}))
    cache_map = CacheMap.from_dict({"datasets": {key: {"udfs": [{"udf": "streets", "whole_udf": True}]}}})
    result = client.invalidate_dbt(project.target, cache_map=cache_map)
    assert list(result.results) == ["streets"]
    assert "model.city.parcels" in result.not_shown
    assert len(fused_emulator.cached_tiles(udfs["parcels"])) == 3


def test_a_udf_that_shows_several_models_is_invalidated_once(
    project: Project, client: FusedClient, fused_emulator: Emulator, udfs: dict[str, Udf]
) -> None:
    project.change(MANIFEST, lambda content: content.update(exposures={}))
    udf = {"udfs": [{"udf": "streets"}]}
    cache_map = CacheMap.from_dict({"datasets": {"model.city.streets": udf, VIEW: udf, "model.city.parcels": udf}})
    client.invalidate_dbt(project.target, cache_map=cache_map, tiles=["14/0/0"])
    assert [request.method for request in fused_emulator.requests].count("DELETE") == 1
    assert fused_emulator.cached_tiles(udfs["streets"]) == set(CHANGED)


def test_a_udf_is_whole_if_it_is_whole_anywhere(
    project: Project, client: FusedClient, fused_emulator: Emulator, udfs: dict[str, Udf]
) -> None:
    cache_map = CacheMap.from_dict({"datasets": {"model.city.streets": {"udfs": [{"udf": "streets", "zooms": "3"}]}}})
    plan = plan_dbt(project.target, cache_map=cache_map)
    assert [plan.tile_count for udf, plan in plan.plans.items() if udf.startswith("streets")] == [None]


def test_a_whole_udf_whose_own_selection_is_empty_does_not_hide_another_selection(
    project: Project, client: FusedClient, fused_emulator: Emulator, udfs: dict[str, Udf]
) -> None:
    (project.target / "none.csv").write_text("z,x,y\n")

    def plant(content: Any) -> None:
        fused = {"udf": "parcels", "whole_udf": True, "tiles_file": "target/none.csv"}
        content["exposures"]["exposure.city.streets_map"]["config"]["meta"]["fused"] = fused

    client.invalidate_dbt(project.change(MANIFEST, plant).target)
    assert fused_emulator.cached_tiles(udfs["parcels"]) == {OTHER}


def test_without_a_selection_a_udf_that_is_not_whole_is_refused(project: Project, client: FusedClient, udfs: Any) -> None:
    project.change(MANIFEST, lambda content: content.update(exposures={}))
    cache_map = CacheMap.from_dict({"datasets": {"model.city.streets": {"udfs": [{"udf": "streets"}]}}})
    with pytest.raises(InvalidInputError, match="no selection"):
        client.invalidate_dbt(project.target, cache_map=cache_map)


def test_a_selection_in_the_call_and_in_an_exposure_is_refused(
    project: Project, client: FusedClient, fused_emulator: Emulator
) -> None:
    with pytest.raises(InvalidInputError, match="tiles is given in the call, and an exposure selects for parcels"):
        client.invalidate_dbt(project.target, tiles=["1/0/0"])
    assert fused_emulator.requests == []


def test_a_shared_token_in_an_exposure_is_refused_and_not_shown(project: Project) -> None:
    def plant(content: Any) -> None:
        content["exposures"]["exposure.city.streets_map"]["config"]["meta"]["fused"] = {"udf": "fsh_5ecr3tT0ken"}

    with pytest.raises(InvalidInputError, match="shared_token_env") as caught:
        plan_dbt(project.change(MANIFEST, plant).target)
    assert "5ecr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("fused", "said"),
    [
        ({"udf": "streets", "whole": True}, "unknown key 'whole'"),
        ({"whole_udf": True}, "udf is missing"),
        ("streets", "must be a mapping"),
        ([], None),
    ],
)
def test_a_misspelled_exposure_is_named(project: Project, fused: Any, said: str | None) -> None:
    def plant(content: Any) -> None:
        content["exposures"]["exposure.city.streets_map"]["config"]["meta"]["fused"] = fused

    project.change(MANIFEST, plant)
    if said is None:
        assert not any(udf.startswith("streets") for udf in plan_dbt(project.target).plans)
        return
    with pytest.raises(InvalidInputError, match=f"exposure.city.streets_map.*{said}"):
        plan_dbt(project.target)


# -- a build is handled once ----------------------------------------------------------------------------------------------


def test_a_build_that_was_handled_is_refused_until_it_is_asked_for(
    project: Project, client: FusedClient, fused_emulator: Emulator, udfs: dict[str, Udf]
) -> None:
    client.invalidate_dbt(project.target)
    sent = len(fused_emulator.requests)
    with pytest.raises(InvalidInputError, match="for this dbt build before"):
        client.invalidate_dbt(project.target)
    assert len(fused_emulator.requests) == sent
    assert client.invalidate_dbt(project.target, repeat=True).results


def test_a_build_whose_udf_failed_is_not_handled(
    project: Project, client: FusedClient, fused_emulator: Emulator, udfs: dict[str, Udf]
) -> None:
    fused_emulator.misbehave(status=403, times=None, path=udfs["streets"].id)
    with pytest.raises(DatasetInvalidationError):
        client.invalidate_dbt(project.target)
    fused_emulator.behave()
    assert client.invalidate_dbt(project.target).failed == {}


def test_a_failed_build_is_handled_and_its_retry_is_another_one(
    project: Project, client: FusedClient, fused_emulator: Emulator, udfs: dict[str, Udf]
) -> None:
    with pytest.raises(DbtNodesFailedError):
        client.invalidate_dbt(project.has("failed").target)
    fused_emulator.fill_cache(udfs["streets"], CHANGED)
    result = client.invalidate_dbt(project.has("retried").target)
    assert set(result.results) == {"prices", "prices_legend"}
    assert len(fused_emulator.cached_tiles(udfs["streets"])) == 2


def test_a_plan_sends_nothing_and_records_nothing(project: Project, fused_emulator: Emulator, udfs: dict[str, Udf]) -> None:
    plan = plan_dbt(project.target)
    assert plan.to_dict()["changed"]["model.city.streets"] == "city.main.streets"
    assert "changed: model.city.streets" in str(plan)
    assert plan_dbt(project.target).to_dict() == plan.to_dict()
    assert fused_emulator.requests == []


def test_a_build_that_changed_nothing_sends_nothing_and_says_so(
    project: Project, client: FusedClient, fused_emulator: Emulator
) -> None:
    project.change(RESULTS, lambda content: content.update(results=[]))
    result = client.invalidate_dbt(project.target)
    assert (result.results, result.note) == ({}, "dbt changed no rows")
    assert fused_emulator.requests == []


def test_what_a_build_says_survives_json(project: Project) -> None:
    build = read_build(project.has("failed").target)
    assert type(build).from_dict(json.loads(json.dumps(build.to_dict()))) == build
    assert copy.deepcopy(build) == build
