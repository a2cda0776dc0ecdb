"""A wrapper for a fourth orchestrator, as an example: it stands on the public names and on ``integration`` alone."""

import ast
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fused_cache_ops import InvalidInputError
from fused_cache_ops.emulator import Emulator, Udf

EXAMPLE = Path(__file__).parents[2] / "examples" / "fused_luigi.py"
ALL = ["1/0/0", "1/0/1", "1/1/0", "1/1/1"]


@pytest.fixture
def luigi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    import luigi as module

    return module


@pytest.fixture
def run(luigi: Any) -> Callable[..., bool]:
    """Run a task with what it requires, in a real Luigi. Whether it succeeded."""

    def build(task: Any) -> bool:
        return bool(luigi.build([task], local_scheduler=True, log_level="WARNING"))

    return build


def task(**keywords: Any) -> Any:
    from fused_luigi import FusedInvalidateCache

    return FusedInvalidateCache(**({"load": "2026-11-27"} | keywords))


def test_tiles_are_invalidated(run: Callable[..., bool], fused_emulator: Emulator, udf: Udf) -> None:
    one = task(udf="roads", tiles=json.dumps(ALL[:3]))
    assert run(one)
    assert fused_emulator.cached_tiles(udf) == {(1, 1, 1)}
    assert json.loads(Path(one.output().path).read_text())["tiles_invalidated"] == 3


def test_each_load_is_invalidated_once(run: Callable[..., bool], fused_emulator: Emulator, udf: Udf) -> None:
    for load, requests in (("monday", 1), ("monday", 1), ("tuesday", 2)):
        assert run(task(udf=udf.id, tiles='["1/0/0"]', load=load))
        assert sum(request.method == "DELETE" for request in fused_emulator.requests) == requests


def test_what_the_load_changed_comes_from_its_output(
    luigi: Any, run: Callable[..., bool], fused_emulator: Emulator, udf: Udf
) -> None:
    from fused_luigi import FusedInvalidateCache

    class LoadRoads(luigi.Task):  # type: ignore[misc]
        def output(self) -> Any:
            return luigi.LocalTarget("changed.list")

        def run(self) -> None:
            with self.output().open("w") as file:
                file.write("1/0/0\n1/0/1\n")

    class InvalidateRoads(FusedInvalidateCache):
        udf = "roads"

        def requires(self) -> Any:
            return LoadRoads()

        def changed(self) -> Mapping[str, Any]:
            return {"tiles_file": self.input().path}

    assert run(InvalidateRoads(load="2026-11-27"))
    assert fused_emulator.cached_tiles(udf) == {(1, 1, 0), (1, 1, 1)}


@pytest.mark.parametrize("changed", [{}, {"zooms": "3"}, {"tiles": None}], ids=str)
def test_a_load_that_says_nothing_does_not_invalidate_everything(
    run: Callable[..., bool], fused_emulator: Emulator, udf: Udf, changed: dict[str, Any]
) -> None:
    one = task(udf="roads")
    one.changed = lambda: changed
    assert not run(one)
    assert len(fused_emulator.cached_tiles(udf)) == 4


def test_a_text_that_is_empty_does_not_invalidate_everything(
    run: Callable[..., bool], fused_emulator: Emulator, udf: Udf
) -> None:
    assert not run(task(udf="roads", tiles=""))
    assert len(fused_emulator.cached_tiles(udf)) == 4


def test_a_failure_fails_the_task_and_leaves_no_result(run: Callable[..., bool], fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=403, times=None, path="delete")
    one = task(udf="roads", tiles='["1/0/0"]')
    assert not run(one)
    assert not one.complete()


def test_tiles_are_refreshed_with_the_shared_token_of_the_environment(
    run: Callable[..., bool], fused_emulator: Emulator, udf: Udf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSED_SHARED_TOKEN", udf.shared_token)
    one = task(udf="roads", tiles=json.dumps(ALL), refresh="2", verify_tiles="1")
    assert run(one)
    result = json.loads(Path(one.output().path).read_text())
    assert (result["refresh"]["runs"], len(result["verification"]["fresh"])) == (2, 1)
    assert udf.shared_token not in str(one) + repr(one.to_str_params()) + json.dumps(result)


def test_a_shared_token_is_no_parameter(luigi: Any, udf: Udf) -> None:
    with pytest.raises(InvalidInputError, match="pass the UDF's id or name") as caught:
        task(udf=udf.shared_token)
    assert udf.shared_token not in str(caught.value)


def test_every_keyword_is_a_parameter(luigi: Any) -> None:
    from fused_luigi import KEYWORDS, FusedInvalidateCache

    assert {name for name, _ in FusedInvalidateCache.get_params()} == {*KEYWORDS, "udf", "load", "results", "deadline"}


def test_a_wrapper_takes_at_most_150_lines_and_no_inner_module() -> None:
    text = EXAMPLE.read_text()
    assert len(text.splitlines()) <= 150
    modules = {each.module for each in ast.walk(ast.parse(text)) if isinstance(each, ast.ImportFrom)}
    assert {name for name in modules if name and name.startswith("fused")} == {"fused_cache_ops", "fused_cache_ops.integration"}
