"""Patience: what a Retry-After means, and how the pauses grow."""

import time
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
