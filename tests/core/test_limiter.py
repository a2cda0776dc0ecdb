"""One pace for all workers: when the gate closes, what opens it, and how the rate finds a server's limit."""

import math
from typing import Any

import pytest
from limiter_simulation import CHANCE, MIXED, SERVERS, Bucket, simulate, simulate_alone, yields

from fused_cache_ops.service.limiter import Limiter, Turn


def limiter() -> Limiter:
    """One whose pauses are always the longest ones."""
    return Limiter(draw=lambda low, high: high)


def turn_of(pace: Limiter, now: float) -> Turn:
    turn = pace.ask(now)
    assert isinstance(turn, Turn)
    return turn


def test_without_trouble_there_is_no_pace() -> None:
    pace = limiter()
    assert [turn_of(pace, 5.0).at for _ in range(100)] == [5.0] * 100


def test_a_ceiling_spaces_requests_evenly() -> None:
    pace = Limiter(4.0)
    assert [turn_of(pace, 1.0).at for _ in range(4)] == [1.0, 1.25, 1.5, 1.75]


def test_too_many_requests_close_the_gate_for_everybody() -> None:
    pace = limiter()
    pace.throttled(turn_of(pace, 0.0), 0.1, 2.0)
    assert pace.ask(0.1) == 2.0
    assert pace.ask(1.1) == pytest.approx(1.0)


def test_when_the_pause_is_over_one_request_goes_first() -> None:
    pace = limiter()
    pace.throttled(turn_of(pace, 0.0), 0.0, 1.0)
    assert turn_of(pace, 1.0).probe
    assert [pace.ask(1.0) for _ in range(3)] == [math.inf] * 3


def test_the_one_that_succeeds_opens_the_gate() -> None:
    pace = limiter()
    pace.throttled(turn_of(pace, 0.0), 0.0, 1.0)
    pace.succeeded(turn_of(pace, 1.0), 1.1)
    assert not turn_of(pace, 1.1).probe


def test_one_that_came_to_nothing_leaves_its_place_to_another() -> None:
    pace = limiter()
    pace.throttled(turn_of(pace, 0.0), 0.0, 1.0)
    pace.abandoned(turn_of(pace, 1.0), 1.1)
    assert turn_of(pace, 1.0).probe


def test_each_failure_of_the_first_one_makes_the_pause_longer() -> None:
    pace, now, pauses = limiter(), 0.0, []
    pace.throttled(turn_of(pace, now), now, None)
    for _ in range(10):
        pause = pace.ask(now)
        assert isinstance(pause, float)
        pauses.append(pause)
        now += pause
        pace.throttled(turn_of(pace, now), now, None)
    assert pauses == pytest.approx([0.25, 0.5, 1, 2, 4, 8, 16, 30, 30, 30])


def test_the_rate_is_cut_once_a_burst() -> None:
    pace = limiter()
    turns = [turn_of(pace, number / 100) for number in range(50)]
    pace.throttled(turns[0], 0.5, 1.0)
    rate = pace.rate
    for turn in turns[1:]:
        pace.throttled(turn, 0.5, 1.0)
    assert pace.rate == rate


def test_a_later_answer_of_the_burst_may_ask_for_more_time() -> None:
    pace = limiter()
    first, second = turn_of(pace, 0.0), turn_of(pace, 0.0)
    pace.throttled(first, 0.1, 1.0)
    pace.throttled(second, 0.2, 5.0)
    assert pace.ask(0.2) == 5.0


def test_other_trouble_closes_the_gate_and_leaves_the_rate_alone() -> None:
    pace = Limiter(100.0, draw=lambda low, high: high)
    first, second = turn_of(pace, 0.0), turn_of(pace, 0.0)
    pace.troubled(first, 0.1)
    pace.troubled(second, 0.1)
    assert pace.ask(0.1) == pytest.approx(0.25)
    assert pace.rate == 100.0


def test_a_single_failure_among_successes_holds_nobody_up() -> None:
    pace = limiter()
    for number in range(20):
        pace.troubled(turn_of(pace, number), number + 0.1)
        pace.succeeded(turn_of(pace, number), number + 0.2)
    assert turn_of(pace, 20.0).at == 20.0


def test_a_turn_is_void_once_the_gate_has_closed() -> None:
    pace = limiter()
    early, late = turn_of(pace, 0.0), turn_of(pace, 0.0)
    pace.throttled(early, 0.1, 1.0)
    assert pace.is_void(late)


def test_the_rate_never_goes_over_the_ceiling() -> None:
    pace, now = Limiter(5.0), 0.0
    pace.throttled(turn_of(pace, now), now, 0.1)
    for _ in range(1000):
        turn = pace.ask(now)
        if isinstance(turn, Turn):
            now = max(now, turn.at)
            pace.succeeded(turn, now)
            assert pace.rate is not None
            assert pace.rate <= 5.0
        else:
            now += turn


@pytest.mark.parametrize("retry_after", [1.0, None])
@pytest.mark.parametrize("workers", [1, 16, 64])
@pytest.mark.parametrize("server", SERVERS)
def test_no_tile_is_lost_and_the_rate_does_not_collapse(server: str, workers: int, retry_after: float | None) -> None:
    make, count = SERVERS[server]
    outcome = simulate(make(), count, workers, retry_after=retry_after)
    one_at_a_time = count * 0.031
    assert outcome.done == count
    assert outcome.seconds <= 1.45 * max(make().ideal(count), one_at_a_time if workers == 1 else 0)
    assert outcome.rejected <= 0.04


@pytest.mark.parametrize("seed", range(5))
def test_at_the_defaults_a_limit_costs_a_tenth_at_most(seed: int) -> None:
    make, count = SERVERS["200/s, bursts of 200"]
    outcome = simulate(make(), count, 16, retry_after=1.0, seed=seed)
    assert outcome.done == count
    assert outcome.seconds <= 1.10 * make().ideal(count)
    assert outcome.rejected <= 0.01


@pytest.mark.parametrize(("retry_after", "at_least"), [(1.0, 8.0), (None, 35.0), (MIXED, 12.0)], ids=["1 s", "none", "mixed"])
def test_too_many_at_random_does_not_starve_a_call(retry_after: Any, at_least: float) -> None:
    """4% of the requests, whatever the rate: where each cut was kept, 2.2, 8.2 and 4.6 tiles a second were left."""
    found = yields("4% of requests at random", 16, retry_after, 4)
    assert sum(found) / len(found) >= at_least
    assert min(found) >= at_least * 0.6


@pytest.mark.parametrize("server", CHANCE)
@pytest.mark.parametrize("retry_after", [1.0, None, MIXED], ids=["1 s", "none", "mixed"])
def test_no_chance_brings_a_call_to_a_halt(server: str, retry_after: Any) -> None:
    assert min(yields(server, 16, retry_after, 2)) >= (8 if "4%" in server else 25)


class Falls:
    """A server whose limit falls while it is used."""

    def __init__(self, rate: float, later: float, at: float) -> None:
        self._servers, self._at = (Bucket(rate, 100), Bucket(later, 10)), at

    def take(self, now: float) -> bool | None:
        return self._servers[now >= self._at].take(now)


@pytest.mark.parametrize("retry_after", [1.0, None])
@pytest.mark.parametrize("later", [5.0, 20.0])
def test_a_limit_that_really_falls_is_kept_to(later: float, retry_after: float | None) -> None:
    before = simulate(Falls(200, later, 30), 10**6, 16, retry_after=retry_after, seconds_at_most=30)
    whole = simulate(Falls(200, later, 30), 10**6, 16, retry_after=retry_after, seconds_at_most=300)
    assert whole.done - before.done >= 0.8 * later * 270
    assert whole.rejected <= 0.10


def throttled_each_second(pace: Limiter, now: float, seconds: int, taken: int) -> float:
    """``taken`` requests in each second, then "too many": what is taken has nothing to do with the rate."""
    for _ in range(seconds):
        turn = pace.ask(now)
        assert isinstance(turn, Turn)
        for _ in range(taken):
            pace.succeeded(turn, now)
        last = pace.ask(now)
        assert isinstance(last, Turn)
        pace.throttled(last, now + 0.5, 0.4)
        now += 1.0
    return now


def test_a_cut_that_does_not_pay_is_taken_back() -> None:
    pace = Limiter(400.0)
    now = throttled_each_second(pace, 0.0, 7, taken=100)
    best = pace.rate
    assert best is not None
    rates = []
    for _ in range(12):  # the lower the rate, the fewer are taken
        now = throttled_each_second(pace, now, 1, taken=20)
        rates.append(pace.rate)
    assert min(rate for rate in rates if rate) < best / 2
    assert max(rate for rate in rates[5:] if rate) > 0.8 * best


def test_a_rest_is_not_taken_for_a_low_yield() -> None:
    pace, busy = Limiter(100.0), Limiter(100.0)
    now = throttled_each_second(pace, 0.0, 6, taken=50)
    throttled_each_second(busy, 0.0, 6, taken=50)
    throttled_each_second(busy, now, 1, taken=50)
    throttled_each_second(pace, now + 3600, 1, taken=50)
    assert pace.rate is not None
    assert busy.rate is not None
    assert pace.rate > 0.5 * busy.rate


def test_workers_that_know_nothing_of_one_another_lose_tiles() -> None:
    """What the limiter is for: the simulation itself can show a loss."""
    make, count = SERVERS["50/s, bursts of 10"]
    outcome = simulate_alone(make(), count, 64, retry_after=1.0)
    assert outcome.done < count
    assert outcome.rejected > 0.5
