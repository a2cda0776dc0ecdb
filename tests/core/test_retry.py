"""Patience: what a Retry-After means, and how the pauses grow."""

import logging
import random
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate

import pytest

from fused_cache_ops.errors import RateLimitedError, UnavailableError
from fused_cache_ops.service import retry
from fused_cache_ops.service.limiter import Limiter
from fused_cache_ops.service.retry import Retrier, Stopped, parse_retry_after


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 5 ", 5.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        (None, None),
        ("", None),
        ("-1", None),
        ("soon", None),
        ("1.5", 1.5),
        ("٣", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value) == seconds


@pytest.mark.parametrize("zone", ["", " -0000", " GMT", " +0000", " UT"])
def test_a_date_without_a_zone_is_in_utc(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        in_a_minute = time.strftime("%a, %d %b %Y %H:%M:%S", time.gmtime(time.time() + 60))
        assert 50 < (parse_retry_after(f"{in_a_minute}{zone}") or 0) <= 60
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_date_to_come_is_that_many_seconds_away() -> None:
    seconds = parse_retry_after(formatdate(time.time() + 60, usegmt=True))
    assert seconds is not None
    assert 55 < seconds <= 60


def test_a_monstrous_retry_after_is_a_number_all_the_same() -> None:
    assert (parse_retry_after("9" * 5000) or 0) > 1e9


def test_pauses_are_drawn_from_a_bound_that_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: list[float] = []

    def draw(low: float, high: float) -> float:
        bounds.append(high)
        return 0.0

    monkeypatch.setattr(retry.random, "uniform", draw)
    retrier = Retrier(60, Limiter(draw=lambda low, high: 0.0))

    def fail_twelve_times(seconds_left: float) -> str:
        if len(bounds) < 12:
            raise UnavailableError("not now")
        return "done"

    assert retrier.run(fail_twelve_times) == "done"
    assert bounds == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30]
    assert (retrier.requests_sent, retrier.retries) == (13, 12)


def test_after_a_stop_nothing_is_sent() -> None:
    retrier = Retrier(deadline=60)
    retrier.stop()
    with pytest.raises(Stopped):
        retrier.run(lambda seconds_left: "sent")
    assert retrier.requests_sent == 0


def test_after_the_deadline_nothing_is_sent() -> None:
    retrier = Retrier(deadline=0.01)
    time.sleep(0.02)
    with pytest.raises(UnavailableError, match=r"The deadline of 0\.01 s has passed"):
        retrier.run(lambda seconds_left: "sent")


def test_the_gate_that_one_answer_closed_is_closed_for_all() -> None:
    retrier = Retrier(deadline=0.5)

    def limited(seconds_left: float) -> None:
        raise RateLimitedError("slow down", retry_after=30)

    with pytest.raises(RateLimitedError):
        retrier.run(limited)
    with pytest.raises(UnavailableError):
        retrier.run(lambda seconds_left: None)
    assert retrier.requests_sent == 1


class Clock:
    """Time that passes only where somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: "float | None" = None) -> bool:
        self.now += seconds or 0.0
        return False


def simulated(monkeypatch: pytest.MonkeyPatch, draw: Callable[[float, float], float]) -> tuple[Clock, Retrier]:
    """Patience of 15 seconds that nobody has to have."""
    clock, limiter = Clock(), Limiter(draw=draw)
    monkeypatch.setattr(retry.time, "monotonic", clock.monotonic)
    monkeypatch.setattr(retry.random, "uniform", draw)
    monkeypatch.setattr(limiter.changed, "wait", clock.wait)
    retrier = Retrier(15.0, limiter)
    monkeypatch.setattr(retrier._stop, "wait", clock.wait)
    return clock, retrier


@pytest.mark.parametrize("back_after", [0.5, 3.0, 9.0, 14.0, 14.7])
@pytest.mark.parametrize("seed", range(20))
def test_no_call_gives_up_before_its_deadline(monkeypatch: pytest.MonkeyPatch, back_after: float, seed: int) -> None:
    """A service that is back before the deadline is found to be, whatever pauses were drawn."""
    clock, retrier = simulated(monkeypatch, random.Random(seed).uniform)
    tries: list[float] = []

    def send(seconds_left: float) -> str:
        tries.append(retrier.elapsed)
        clock.now += 0.02
        if retrier.elapsed < back_after:
            raise UnavailableError("not now")
        return "done"

    assert retrier.run(send) == "done"
    assert tries[-1] <= 15.0
    assert len(tries) < 40  # no hammering, not even at the end


def test_one_that_is_not_back_is_tried_until_the_deadline_and_not_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, retrier = simulated(monkeypatch, random.uniform)
    tries: list[float] = []

    def send(seconds_left: float) -> str:
        tries.append(retrier.elapsed)
        clock.now += 0.02
        raise UnavailableError("not now")

    with pytest.raises(UnavailableError, match="not now"):
        retrier.run(send)
    assert 14.5 < tries[-1] <= 15.0
    assert len(tries) < 40


def logged_by(calls: "list[Retrier]", caplog: pytest.LogCaptureFixture) -> "list[tuple[str, str]]":
    """Levels and messages above DEBUG, when each of these fails three times for its own UDF and then succeeds."""
    caplog.set_level(logging.INFO, "fused_cache_ops")
    for number, each in enumerate(calls):
        left = iter(range(3))

        def send(seconds_left: float, number: int = number, left: "Iterator[int]" = left) -> None:
            if next(left, None) is not None:
                raise UnavailableError(f"Failed looking up UDF 'map{number}': no response.")

        each.run(send)
    return [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> "Callable[[], Retrier]":
    """Makes a call that pauses for a moment only."""
    monkeypatch.setattr(retry.random, "uniform", lambda low, high: 0.0)
    return lambda: Retrier(60, Limiter(draw=lambda low, high: 0.001))


def test_a_call_of_many_parts_logs_a_reason_once_and_once_more_if_all_requests_pause(
    patient: "Callable[[], Retrier]", caplog: pytest.LogCaptureFixture
) -> None:
    whole = patient()
    (info, first), (warning, second) = logged_by([whole.branch() for _ in range(8)], caplog)
    assert (info, warning) == ("INFO", "WARNING")
    assert first == "Failed looking up UDF 'map0': no response. Retrying in 0.0 s, for up to 60 s."
    assert second == "Failed looking up UDF 'map0': no response. All requests pause for 0.0 s. Retrying for up to 60 s."


def test_another_call_logs_the_same_reason_again(patient: "Callable[[], Retrier]", caplog: pytest.LogCaptureFixture) -> None:
    assert [level for level, _ in logged_by([patient(), patient()], caplog)] == ["INFO", "WARNING"] * 2


def test_another_reason_is_logged_as_well(patient: "Callable[[], Retrier]", caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fused_cache_ops")
    reasons = iter(["Failed a: gone.", "Failed a: busy.", "Failed b: gone.", "Failed b: busy.", "Failed c: gone."])

    def send(seconds_left: float) -> None:
        for reason in reasons:
            raise UnavailableError(reason)

    patient().run(send)
    logged = [(record.levelname, record.getMessage().partition(". ")[0]) for record in caplog.records]
    assert logged == [("INFO", "Failed a: gone"), ("WARNING", "Failed a: busy"), ("WARNING", "Failed b: gone")]


def test_a_pause_that_the_server_asks_for_is_never_shortened() -> None:
    retrier = Retrier(deadline=20)

    def limited(seconds_left: float) -> None:
        raise RateLimitedError("slow down", retry_after=30)

    with pytest.raises(RateLimitedError, match="Gave up after 1"):
        retrier.run(limited)
    assert retrier.elapsed < 15
