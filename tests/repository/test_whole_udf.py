"""Nothing given by mistake invalidates everything: in the core, the command line, and each orchestrator."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from airflow_provider_fused.decorators import _selection
from airflow_provider_fused.operators import FusedInvalidateCacheOperator
from dagster_fused import FusedResource, build_fused_cache_asset, build_invalidate_cache_op, invalidate_cache_op
from fused_cache_ops import (
    WHOLE_UDF,
    FusedCacheError,
    FusedClient,
    InvalidInputError,
    Tile,
    UnavailableError,
    invalidate_cache,
    plan_invalidation,
)
from fused_cache_ops.cli.commands import program
from fused_cache_ops.emulator import Emulator, Udf
from prefect_fused import invalidate_cache as prefect_task

SHAPERS = {
    "zooms": "3-4",
    "buffer": 1,
    "max_tiles": 500,
    "when_too_many": "coarser",
    "max_zoom": 20,
    "shard": (0, 2),
    "checkpoint": "record.json",
    "verify_tiles": 3,
}


@pytest.mark.parametrize("whole", [{}, {"whole_udf": True}, {"tiles": WHOLE_UDF}], ids=["left out", "said", "sentinel"])
@pytest.mark.parametrize("shaper", SHAPERS)
def test_what_shapes_a_selection_needs_one(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, shaper: str, whole: dict[str, Any]
) -> None:
    with pytest.raises(
        InvalidInputError, match=f"{shaper} = .* needs a selection, .* one of tiles, tiles_file, bounds, geometry"
    ):
        client.invalidate_cache(udf.id, **whole, **{shaper: SHAPERS[shaper]})
    assert fused_emulator.requests == []


@pytest.mark.parametrize("shaper", [name for name in SHAPERS if name not in ("checkpoint", "verify_tiles")])
def test_a_plan_refuses_a_shaper_alone_too(shaper: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{shaper} = "):
        plan_invalidation("roads", **{shaper: SHAPERS[shaper]})


@pytest.mark.parametrize("keywords", [{"on_progress": print}, {"on_plan": print}, {"shared_token": "fsh_x"}], ids=str)
def test_what_shapes_no_selection_needs_none(client: FusedClient, fused_emulator: Emulator, udf: Udf, keywords: Any) -> None:
    client.invalidate_cache(udf.id, **keywords)
    assert fused_emulator.cached_tiles(udf) == set()


def test_the_whole_udf_can_be_said(client: FusedClient, fused_emulator: Emulator, udf: Udf) -> None:
    assert client.invalidate_cache(udf.id, whole_udf=True).tiles_invalidated is None
    assert fused_emulator.cached_tiles(udf) == set()


def test_the_whole_udf_and_a_selection_contradict_each_other(client: FusedClient, udf: Udf) -> None:
    with pytest.raises(InvalidInputError, match="tiles and whole_udf are both given"):
        client.invalidate_cache(udf.id, whole_udf=True, tiles=[])


@pytest.mark.parametrize("value", [None, "yes", 1, 0, [], "true"])
def test_whole_udf_is_true_or_false(client: FusedClient, fused_emulator: Emulator, udf: Udf, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"whole_udf = .* must be True or False"):
        client.invalidate_cache(udf.id, whole_udf=value)
    assert fused_emulator.requests == []


# -- where the selection comes from data ------------------------------------------------------------------------------


@pytest.mark.parametrize("returned", [{}, {"zooms": "3"}, {"whole_udf": False}, {"buffer": 1, "max_tiles": 5}], ids=str)
def test_airflows_decorated_function_has_to_say_the_whole_udf(returned: dict[str, Any]) -> None:
    from airflow_provider_fused._compat import AirflowFailException

    with pytest.raises(AirflowFailException, match=r"The function returned no selection: .* or whole_udf=True"):
        _selection(returned)
    assert _selection({"whole_udf": True}) == {"whole_udf": True}


@pytest.mark.parametrize("rendered", ["", "None", "maybe", "1"])
def test_a_template_that_renders_to_neither_true_nor_false_fails(rendered: str) -> None:
    from airflow_provider_fused.templating import read_fields

    with pytest.raises(InvalidInputError, match="whole_udf rendered to"):
        read_fields({"whole_udf": rendered})
    assert read_fields({"whole_udf": "True"}) == {"whole_udf": True}
    assert read_fields({"whole_udf": "false"}) == {"whole_udf": False}


def test_dagsters_selection_fn_has_to_say_the_whole_udf() -> None:
    from dagster_fused.invalidation import select

    with pytest.raises(InvalidInputError, match=r"names none of .* or whole_udf=True"):
        select(lambda context, key: {"zooms": "3"}, {}, [(None, None)])
    assert select(lambda context, key: {"whole_udf": True}, {}, [(None, None)]) == {"whole_udf": True}


@pytest.mark.parametrize(
    "selection", [{"max_tiles": 5}, {"checkpoint": "x.json"}, {"verify_tiles": 1}, {"zooms": "3"}], ids=str
)
def test_dagsters_definitions_refuse_a_shaper_alone(selection: Any) -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="needs a selection"):
        build_fused_cache_asset("roads_cache", udf="roads", selection=selection)


@pytest.mark.parametrize("options", [["--tiles-file", ""], ["--geometry", ""], ["--bounds", ""], [""]], ids=str)
def test_an_option_that_is_empty_is_not_one_that_was_left_out(fused_emulator: Emulator, udf: Udf, options: list[str]) -> None:
    done = CliRunner().invoke(program, ["invalidate", udf.id, *options, "--whole-udf"], env=fused_emulator.environment())
    assert done.exit_code == 2
    assert fused_emulator.requests == []


# -- random combinations, against a model of what may be invalidated ---------------------------------------------------

CACHED = {Tile(2, x, y) for x in range(4) for y in range(4)} | {Tile(3, 0, 0), Tile(1, 0, 0)}
BOX = (-170.0, 70.0, -100.0, 84.0)  # 2/0/0


class Given(NamedTuple):
    """Keywords, and the most that they may invalidate: tiles, everything (None), or nothing since they are an error."""

    keywords: dict[str, Any]
    allowed: "set[Tile] | None"
    must_fail: bool


KIND = st.sampled_from(
    [
        ("tiles", ["2/0/0", "2/1/1"], {Tile(2, 0, 0), Tile(2, 1, 1)}),
        ("tiles", [], set()),
        ("tiles", None, "error"),
        ("tiles", "", "error"),
        ("tiles", "None", "error"),
        ("bounds", BOX, {Tile(2, 0, 0)}),
        ("bounds", [], set()),
        ("bounds", None, "error"),
        ("bounds", "", "error"),
        ("geometry", "POLYGON ((-170 70, -100 70, -100 84, -170 70))", {Tile(2, 0, 0)}),
        ("geometry", None, "error"),
        ("geometry", "null", "error"),
        ("tiles_file", "", "error"),
        ("tiles_file", None, "error"),
        ("tiles_file", "/nowhere.list", "error"),
        ("whole_udf", True, "everything"),
        ("whole_udf", False, "nothing said"),
        ("whole_udf", None, "error"),
        ("whole_udf", "", "error"),
    ]
)
SHAPER = st.sampled_from([("zooms", "2"), ("buffer", 0), ("max_tiles", 100), ("when_too_many", "coarser"), ("max_zoom", 12)])


@st.composite
def calls(draw: Any) -> Given:
    """Some of the keywords, whatever they come to."""
    kinds = draw(st.lists(KIND, max_size=2, unique_by=lambda kind: kind[0]))
    shapers = dict(draw(st.lists(SHAPER, max_size=3, unique_by=lambda shaper: shaper[0])))
    shaping = {name for name in shapers if name != "buffer"}  # a buffer of 0 is the default
    keywords = {name: value for name, value, _ in kinds} | shapers
    meanings = [meaning for _, _, meaning in kinds if meaning != "nothing said"]
    if "error" in meanings or len(meanings) > 1:
        return Given(keywords, set(), True)
    if not meanings or meanings == ["everything"]:
        return Given(keywords, set() if shaping else None, bool(shaping))
    name = next(name for name, _, meaning in kinds if meaning == meanings[0])
    if name in ("bounds", "geometry") and "zooms" not in shapers:
        return Given(keywords, set(), True)
    return Given(keywords, meanings[0], False)


def core(emulator: Emulator, udf: Udf, keywords: dict[str, Any]) -> None:
    with FusedClient(client_id=emulator.client_id) as client:
        client.invalidate_cache(udf.id, **keywords)


def function(emulator: Emulator, udf: Udf, keywords: dict[str, Any]) -> None:
    invalidate_cache(udf.id, client={"client_id": emulator.client_id}, **keywords)


def airflow(emulator: Emulator, udf: Udf, keywords: dict[str, Any]) -> None:
    FusedInvalidateCacheOperator(task_id="invalidate", udf=udf.id, **keywords).execute({})


def prefect(emulator: Emulator, udf: Udf, keywords: dict[str, Any]) -> None:
    prefect_task.fn(udf.id, **keywords)


def dagster_op(emulator: Emulator, udf: Udf, keywords: dict[str, Any]) -> None:
    op = build_invalidate_cache_op("invalidate", udf=udf.id, selection=keywords or None)  # type: ignore[arg-type]
    op(dg.build_op_context(), fused=FusedResource())


def dagster_config(emulator: Emulator, udf: Udf, keywords: dict[str, Any]) -> None:
    @dg.job
    def job() -> None:
        invalidate_cache_op()

    config = {"ops": {"invalidate_cache_op": {"config": json.loads(json.dumps({"udf": udf.id, **keywords}))}}}
    with dg.DagsterInstance.ephemeral() as instance:
        job.execute_in_process(run_config=config, resources={"fused": FusedResource()}, instance=instance)


CALLERS: list[tuple[Callable[..., None], int]] = [
    (core, 150),
    (function, 60),
    (airflow, 60),
    (prefect, 60),
    (dagster_op, 60),
    (dagster_config, 25),
]


@pytest.fixture
def maps(fused_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> tuple[Emulator, Udf]:
    connection = {"conn_type": "fused", "host": fused_emulator.base_url, "password": fused_emulator.token}
    monkeypatch.setenv("AIRFLOW_CONN_FUSED_DEFAULT", json.dumps(connection))
    return fused_emulator, fused_emulator.register(dict, name="roads")


@pytest.mark.xdist_group("airflow")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("call", "examples"), CALLERS, ids=[call.__name__ for call, _ in CALLERS])
def test_no_combination_of_keywords_invalidates_more_than_it_says(
    maps: tuple[Emulator, Udf], call: Callable[..., None], examples: int
) -> None:
    emulator, udf = maps

    @given(calls())
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    def check(given: Given) -> None:
        emulator.fill_cache(udf, CACHED)
        succeeded = False
        with contextlib.suppress(FusedCacheError, dg.DagsterError, dg.Failure, ValueError, TypeError, *_airflow_errors()):
            call(emulator, udf, given.keywords)
            succeeded = True
        gone = CACHED - emulator.cached_tiles(udf)
        if given.allowed is not None:
            assert gone <= given.allowed, given
        assert succeeded != given.must_fail, given
        if succeeded:
            assert gone == (CACHED if given.allowed is None else given.allowed), given

    check()


def _airflow_errors() -> tuple[type[Exception], ...]:
    from airflow_provider_fused._compat import AirflowException

    return (AirflowException,)


def test_a_list_that_went_missing_between_two_tries_is_not_everything(
    client: FusedClient, fused_emulator: Emulator, udf: Udf, tmp_path: Path
) -> None:
    path = tmp_path / "tiles.list"
    path.write_text("1/0/0\n")
    client.invalidate_cache(udf.id, tiles_file=path)
    path.unlink()
    with pytest.raises(UnavailableError, match="no such file"):
        client.invalidate_cache(udf.id, tiles_file=path)
    assert len(fused_emulator.cached_tiles(udf)) == 3
