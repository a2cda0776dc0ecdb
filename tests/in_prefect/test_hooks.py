"""Invalidation after a load that is a flow, a task or a transaction: once, never for nothing, and never to its harm."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from prefect import flow, get_client, task
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId, LogFilterLevel
from prefect.client.schemas.objects import State
from prefect.states import Failed
from prefect.transactions import CommitMode, Transaction, get_transaction, transaction

from fused_cache_ops.emulator import Emulator, Udf
from fused_cache_ops.errors import InvalidInputError
from prefect_fused import FusedCredentials, invalidate_cache, invalidate_on_commit, invalidate_on_completion

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("prefect_api")]

LEFT = {(1, 0, 1), (1, 1, 0), (1, 1, 1)}  # of the four tiles in the cache, after one has been invalidated


def invalidations(emulator: Emulator) -> int:
    return [request.method for request in emulator.requests if request.status < 400].count("DELETE")


# -- flows and tasks ----------------------------------------------------------------------------------------------------


def test_a_flow_that_completes_invalidates_what_it_returned(fused_emulator: Emulator, udf: Udf) -> None:
    @flow(on_completion=[invalidate_on_completion("roads", from_result="tiles")])
    def load() -> list[str]:
        return ["1/0/0"]

    load()
    assert fused_emulator.cached_tiles(udf) == LEFT


def test_a_task_that_completes_invalidates_what_it_returned(fused_emulator: Emulator, udf: Udf) -> None:
    @task(on_completion=[invalidate_on_completion("roads", FusedCredentials(), from_result="tiles")])
    def load() -> list[str]:
        return ["1/0/0"]

    flow(lambda: load(), name="test")()
    assert fused_emulator.cached_tiles(udf) == LEFT


def test_async_loads_invalidate_too(fused_emulator: Emulator, udf: Udf) -> None:
    @task(on_completion=[invalidate_on_completion("roads", from_result="tiles")])
    async def load() -> list[str]:
        return ["1/0/0"]

    @flow(on_completion=[invalidate_on_completion("roads", from_result="tiles")])
    async def pipeline() -> list[str]:
        await load()
        return ["1/0/1"]

    asyncio.run(pipeline())
    assert fused_emulator.cached_tiles(udf) == {(1, 1, 0), (1, 1, 1)}


def test_without_a_selection_the_whole_udf_is_invalidated(fused_emulator: Emulator, udf: Udf) -> None:
    @flow(on_completion=[invalidate_on_completion("roads", limits={"deadline": 5})])
    def load() -> None: ...

    load()
    assert fused_emulator.cached_tiles(udf) == set()


def test_a_load_that_fails_invalidates_nothing(fused_emulator: Emulator, udf: Udf) -> None:
    @flow(on_completion=[invalidate_on_completion("roads")])
    def load() -> None:
        raise ValueError

    load(return_state=True)
    assert fused_emulator.requests == []


def test_a_cached_load_invalidates_nothing(fused_emulator: Emulator, udf: Udf) -> None:
    @task(on_completion=[invalidate_on_completion(udf.id)], cache_key_fn=lambda *_: f"load-{udf.id}", persist_result=True)
    def load() -> int:
        return 1

    @flow
    def pipeline() -> list[str]:
        return [load(return_state=True).name for _ in range(2)]

    assert pipeline() == ["Completed", "Cached"]
    assert invalidations(fused_emulator) == 1


def test_a_cached_load_invalidates_if_the_last_invalidation_has_failed(fused_emulator: Emulator, udf: Udf) -> None:
    @task(on_completion=[invalidate_on_completion(udf.id)], cache_key_fn=lambda *_: f"again-{udf.id}", persist_result=True)
    def load() -> int:
        return 1

    fused_emulator.misbehave(status=403, times=None, path="delete")
    flow(lambda: load() and None, name="test")()
    fused_emulator.behave()
    for _ in range(2):
        flow(lambda: load() and None, name="test")()
    assert invalidations(fused_emulator) == 1


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: [state]], ids=["a state", "a list of states"])
def test_a_flow_that_returns_the_state_of_its_load_invalidates_what_the_load_returned(
    fused_emulator: Emulator, udf: Udf, wrap: Callable[[Any], Any]
) -> None:
    @task
    def load() -> list[str]:
        return ["1/0/0"]

    @flow(on_completion=[invalidate_on_completion("roads", from_result="tiles")])
    def pipeline() -> Any:
        return wrap(load(return_state=True))

    pipeline()
    assert fused_emulator.cached_tiles(udf) == LEFT


def test_a_flow_that_returns_futures_invalidates_what_each_load_returned(fused_emulator: Emulator, udf: Udf) -> None:
    @task
    def load(x: int) -> list[str]:
        return [f"1/{x}/0"]

    @flow(on_completion=[invalidate_on_completion("roads", from_result="tiles")])
    def pipeline() -> Any:
        return load.map([0, 1])

    pipeline(return_state=True)
    assert fused_emulator.cached_tiles(udf) == {(1, 0, 1), (1, 1, 1)}


def test_a_generator_has_no_result_and_the_log_says_so(
    fused_emulator: Emulator, udf: Udf, caplog: pytest.LogCaptureFixture
) -> None:
    @task(on_completion=[invalidate_on_completion("roads", from_result="tiles")])
    def load() -> Any:
        yield "1/0/0"

    flow(lambda: list(load()) and None, name="test")()
    assert "load is a generator, of which Prefect keeps no result" in caplog.text
    assert fused_emulator.requests == []


def test_put_on_failure_by_mistake_it_invalidates_nothing(fused_emulator: Emulator, udf: Udf) -> None:
    @flow(on_failure=[invalidate_on_completion("roads")])
    def load() -> State[Any]:
        return Failed()

    load(return_state=True)
    assert fused_emulator.requests == []


def test_a_load_that_returns_none_invalidates_nothing(fused_emulator: Emulator, udf: Udf) -> None:
    @flow(on_completion=[invalidate_on_completion("roads", from_result="tiles")])
    def load() -> None: ...

    assert load(return_state=True).is_completed()
    assert fused_emulator.requests == []


def test_a_hook_that_fails_says_so_loudly_in_the_runs_log(fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=401, times=None)

    @flow(on_completion=[invalidate_on_completion("roads", from_result="tiles")])
    def load() -> list[str]:
        return ["1/0/0"]

    state = load(return_state=True)
    assert state.is_completed()
    with get_client(sync_client=True) as api:
        for _ in range(50):
            logs = asyncio.run(_errors(state.state_details.flow_run_id))
            if any("stay stale until invalidated" in line and "401" in line for line in logs):
                break
        else:
            pytest.fail(f"not in the log: {logs}")
        assert api.read_flow_run(state.state_details.flow_run_id).state.is_completed()


async def _errors(flow_run_id: Any) -> list[str]:
    await asyncio.sleep(0.2)
    async with get_client() as api:
        logs = await api.read_logs(LogFilter(level=LogFilterLevel(ge_=40), flow_run_id=LogFilterFlowRunId(any_=[flow_run_id])))
    return [log.message for log in logs]


# -- transactions -------------------------------------------------------------------------------------------------------


def in_a_transaction(hook: Callable[[Any], None], outcome: Callable[[], None] = lambda: None) -> list[str]:
    """Run a load in a transaction with a commit hook; what became of the load."""
    happened: list[str] = []

    @task
    def load() -> None:
        get_transaction().set("tiles", ["1/0/0"])  # type: ignore[union-attr]
        happened.append("loaded")

    load.on_commit(hook)

    @load.on_rollback
    def remove(_: Transaction) -> None:
        happened.append("rolled back")

    @flow
    def pipeline() -> None:
        with transaction():
            load()
            outcome()

    pipeline(return_state=True)
    return happened


def test_a_commit_invalidates_what_was_stored_in_the_transaction(fused_emulator: Emulator, udf: Udf) -> None:
    assert in_a_transaction(invalidate_on_commit("roads", from_transaction="tiles")) == ["loaded"]
    assert fused_emulator.cached_tiles(udf) == LEFT


def test_a_transaction_of_its_own_takes_the_hook_too(fused_emulator: Emulator, udf: Udf) -> None:
    @flow
    def pipeline() -> None:
        with transaction() as load:
            load.set("tiles", ["1/0/0"])
            load.stage(None, on_commit_hooks=[invalidate_on_commit("roads", from_transaction="tiles")])
            assert fused_emulator.requests == []

    pipeline()
    assert fused_emulator.cached_tiles(udf) == LEFT


def test_a_rollback_invalidates_nothing(fused_emulator: Emulator, udf: Udf) -> None:
    def fail() -> None:
        raise ValueError

    assert in_a_transaction(invalidate_on_commit("roads"), fail) == ["loaded", "rolled back"]
    assert fused_emulator.requests == []


def test_a_failing_invalidation_never_rolls_back_the_load(fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=401, times=None)
    assert in_a_transaction(invalidate_on_commit("roads", from_transaction="tiles")) == ["loaded"]
    assert [request.status for request in fused_emulator.requests] == [401]


def test_transient_errors_are_retried_inside_the_commit(fused_emulator: Emulator, udf: Udf) -> None:
    fused_emulator.misbehave(status=503, retry_after=0.1, times=3)
    assert in_a_transaction(invalidate_on_commit("roads", from_transaction="tiles")) == ["loaded"]
    assert fused_emulator.cached_tiles(udf) == LEFT


def test_an_invalidation_task_inside_the_transaction_would_roll_the_load_back(fused_emulator: Emulator, udf: Udf) -> None:
    """Why there is a hook: Prefect rolls back at the task's first failing attempt, and then the retry succeeds."""
    fused_emulator.misbehave(status=503, retry_after=60, times=1)
    purge = invalidate_cache.with_options(retry_delay_seconds=0)
    happened = in_a_transaction(lambda _: None, lambda: purge("roads", tiles=["1/0/0"], limits={"deadline": 30}))
    assert happened == ["loaded", "rolled back"]
    assert fused_emulator.cached_tiles(udf) == LEFT


def test_a_load_whose_record_is_there_already_invalidates_nothing(fused_emulator: Emulator, udf: Udf) -> None:
    @task(cache_key_fn=lambda *_: f"commit-{udf.id}", persist_result=True)
    def load() -> int:
        return 1

    load.on_commit(invalidate_on_commit(udf.id))
    flow(lambda: [load() for _ in range(3)] and None, name="test")()
    assert invalidations(fused_emulator) == 1


def test_nothing_stored_invalidates_nothing(fused_emulator: Emulator, udf: Udf) -> None:
    assert in_a_transaction(invalidate_on_commit("roads", from_transaction="bounds", zooms="1-2")) == ["loaded"]
    assert fused_emulator.requests == []


def completed_in_a_transaction(emulator: Emulator, outcome: Callable[[], None], **options: Any) -> list[int]:
    """Run a load with a completion hook in a transaction; how many invalidations there were inside of it, and after it."""
    seen: list[int] = []

    @task(on_completion=[invalidate_on_completion("roads", from_result="tiles")])
    def load() -> list[str]:
        return ["1/0/0"]

    @flow
    def pipeline() -> None:
        with transaction(**options):
            load()
            seen.append(invalidations(emulator))
            outcome()

    pipeline(return_state=True)
    return [*seen, invalidations(emulator)]


def fail() -> None:
    raise ValueError


def test_a_completion_in_a_transaction_invalidates_at_the_commit(fused_emulator: Emulator, udf: Udf) -> None:
    assert completed_in_a_transaction(fused_emulator, lambda: None) == [0, 1]
    assert fused_emulator.cached_tiles(udf) == LEFT


def test_a_completion_that_is_rolled_back_invalidates_nothing(fused_emulator: Emulator, udf: Udf) -> None:
    assert completed_in_a_transaction(fused_emulator, fail) == [0, 0]


def test_a_load_that_commits_by_itself_is_invalidated_even_if_the_rest_fails(fused_emulator: Emulator, udf: Udf) -> None:
    assert completed_in_a_transaction(fused_emulator, fail, commit_mode=CommitMode.EAGER) == [1, 1]


# -- mistakes are found when the hook is made ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"udf": ""}, "empty"),
        ({"udf": "roads", "from_result": "tile"}, "not a kind of selection"),
        ({"udf": "roads", "from_result": "tiles", "tiles": ["1/0/0"]}, "more than one selection"),
        ({"udf": "roads", "tiles": [], "bounds": (0, 0, 1, 1)}, "more than one selection"),
    ],
    ids=str,
)
def test_a_hook_that_could_only_fail_is_refused(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        invalidate_on_completion(**arguments)
    if "from_result" in arguments:
        arguments = {**arguments, "from_transaction": arguments["from_result"]}
        del arguments["from_result"]
    with pytest.raises(InvalidInputError, match=reason):
        invalidate_on_commit(**arguments)


def test_an_unknown_keyword_is_refused() -> None:
    with pytest.raises(TypeError, match="Unknown keyword tile"):
        invalidate_on_completion("roads", tile=["1/0/0"])  # type: ignore[call-arg]
