"""Each row of the README's table of what is red and what stays green, in real flow runs."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from prefect import flow
from prefect.client.schemas.objects import State

from fused_cache_ops import CacheMap
from fused_cache_ops.emulator import Emulator, Udf
from prefect_fused import FusedCredentials, invalidate_cache, invalidate_dataset, invalidate_on_completion, refresh_cache

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("prefect_api")]

TILE = "1/0/0"
INVALIDATED, FAILED = "fused.cache.invalidated", "fused.cache.invalidation-failed"


class House:
    """An emulator with a UDF of which four tiles are cached, and the events that runs against it emit."""

    def __init__(self, emulator: Emulator, udf: Udf, always_cached: Callable[[str], None], errors: Callable[[], str]) -> None:
        self.emulator, self.udf, self.always_cached, self.errors = emulator, udf, always_cached, errors
        self.events: list[str] = []
        self.credentials = FusedCredentials(token=emulator.token, base_url=emulator.base_url, shared_token=udf.shared_token)

    def run(self, task: Any, *arguments: Any, **keywords: Any) -> tuple[State[Any], int, list[str]]:
        """The state of a task's run, how many runs of the task there were, and the events."""
        self.events.clear()
        states: list[State[Any]] = []
        runs: list[str] = []

        @flow
        def pipeline() -> None:
            quick = task.with_options(retry_delay_seconds=0, on_running=[lambda task, run, state: runs.append(state.name)])
            common = {"credentials": self.credentials, "limits": {"deadline": 5}, "return_state": True}
            states.append(quick(*arguments, **common, **keywords))

        pipeline(return_state=True)
        return states[0], len(runs), list(self.events)

    def invalidate(self, **keywords: Any) -> tuple[State[Any], int, list[str]]:
        return self.run(invalidate_cache, "roads", **{"tiles": [TILE], **keywords})


def everything(house: House) -> None:
    state, _, events = house.invalidate()
    assert (state.is_completed(), state.result()["tiles_invalidated"], events) == (True, 1, [INVALIDATED])


def nothing(house: House) -> None:
    state, _, events = house.invalidate(tiles=[])
    assert (state.is_completed(), state.result()["tiles_invalidated"], events) == (True, 0, [])
    assert house.emulator.requests == []


def warnings(house: House) -> None:
    house.emulator.register(dict, name="caller", code='def udf():\n    return fused.run("roads")\n')
    state, _, events = house.invalidate()
    assert (state.is_completed(), events) == (True, [INVALIDATED])
    assert "1 caller of this UDF keeps results of its own" in state.result()["warnings"][0]


def transient(house: House) -> None:
    house.emulator.misbehave(status=503, retry_after=60, times=None)
    state, _, events = house.invalidate()
    assert (state.is_failed(), set(events)) == (True, {FAILED})
    assert len(house.emulator.requests) == 3  # two retries


def permanent(house: House) -> None:
    state, _, events = house.invalidate(tiles=iter([TILE]))  # refused before the call
    assert (state.is_failed(), events) == (True, [])
    state, _, events = house.invalidate(tiles=None)
    assert (state.is_failed(), events) == (True, [FAILED])
    assert house.emulator.requests == []
    house.emulator.misbehave(status=403, times=None)
    state, _, events = house.invalidate()
    assert (state.is_failed(), events) == (True, [FAILED])
    assert len(house.emulator.requests) == 1


def stale(house: House) -> None:
    house.always_cached(TILE)
    state, runs, events = house.invalidate(verify_tiles=1)
    assert (state.is_failed(), runs, set(events)) == (True, 3, {INVALIDATED})
    assert (1, 0, 0) not in house.emulator.cached_tiles(house.udf)
    state, runs, events = house.invalidate(verify_tiles=1, fail_on_stale=False)
    assert (state.is_completed(), runs, events) == (True, 1, [INVALIDATED])


def not_judged(house: House) -> None:
    house.emulator.misbehave(status=500, path="/run/tiles/1/0/0", times=None)
    state, _, events = house.invalidate(verify_tiles=1)
    assert (state.is_completed(), events) == (True, [INVALIDATED])
    assert state.result()["verification"]["unknown"][0].startswith("1/0/0: ")


def not_refreshed(house: House) -> None:
    house.emulator.misbehave(status=500, path="/run/tiles/1/0/0", times=None)
    state, _, events = house.invalidate(refresh="all")
    assert (state.is_completed(), len(state.result()["refresh"]["failed"]), events) == (True, 1, [INVALIDATED])
    state, _, events = house.invalidate(refresh={"must_succeed": True})
    assert (state.is_failed(), set(events)) == (True, {INVALIDATED})
    state, _, events = house.run(refresh_cache, "roads", tiles=[TILE])
    assert (state.is_failed(), events) == (True, [])


def one_of_several(house: House) -> None:
    cache_map = CacheMap.from_dict({"datasets": {"lake": {"udfs": [{"udf": "roads"}, {"udf": "missing"}]}}})
    state, _, events = house.run(invalidate_dataset, "lake", cache_map=cache_map, tiles=[TILE])
    assert (state.is_failed(), sorted(events)) == (True, [INVALIDATED, FAILED])
    assert (1, 0, 0) not in house.emulator.cached_tiles(house.udf)


def hook(house: House) -> None:
    house.emulator.misbehave(status=401, times=None)

    @flow(on_completion=[invalidate_on_completion("roads", house.credentials, from_result="tiles")])
    def load() -> list[str]:
        return [TILE]

    assert load(return_state=True).is_completed()
    assert house.events == [FAILED]
    assert "stay stale until invalidated" in house.errors()


ROWS: dict[str, Callable[[House], None]] = {
    "Everything selected is invalidated": everything,
    "Nothing was selected (`[]`)": nothing,
    "The result has `warnings`: the map may stay stale all the same": warnings,
    "A transient error outlasts the deadline": transient,
    "A permanent error, or None": permanent,
    "A tile of `verify_tiles` still came from the cache": stale,
    "A tile of `verify_tiles` could not be judged": not_judged,
    "Something could not be refreshed": not_refreshed,
    "One of several UDFs failed (a dataset, dbt)": one_of_several,
    "A hook failed": hook,
}


def test_every_row_of_the_table_is_run(what_happened: Callable[[str], set[str]]) -> None:
    assert what_happened("prefect") == set(ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_what_is_red_and_what_stays_green_is_as_the_table_says(
    row: str,
    fused_emulator: Emulator,
    udf: Udf,
    always_cached: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def errors() -> str:
        return "\n".join(each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR)

    house = House(fused_emulator, udf, always_cached, errors)
    monkeypatch.setattr("prefect_fused.invalidation.emit_event", lambda event, *_, **__: house.events.append(event))
    ROWS[row](house)
