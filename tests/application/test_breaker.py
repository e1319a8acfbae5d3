"""An endpoint that lets everybody wait is left alone for a while."""

from __future__ import annotations

import pytest

from application.process.breaker import (
    FIRST_PAUSE_SECONDS,
    FORGOTTEN_AFTER_SECONDS,
    LONGEST_PAUSE_SECONDS,
    QUICK_SECONDS,
    WASTED_SECONDS,
    Breaker,
)


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def breaker(time: Time) -> Breaker:
    return Breaker(time)


def test_failures_that_cost_no_time_are_nobodys_trouble(breaker: Breaker) -> None:
    for _ in range(1000):
        breaker.failed("a", 0.01)
    assert breaker.limits() == {}


def test_quick_failures_do_not_add_up(breaker: Breaker) -> None:
    for _ in range(1000):
        breaker.failed("a", QUICK_SECONDS - 0.001)
    assert breaker.limits() == {}


def test_a_quick_failure_among_slow_ones_hides_nothing(breaker: Breaker) -> None:
    for _ in range(2):
        breaker.failed("a", WASTED_SECONDS / 2)
        breaker.failed("a", 0.01)
    assert breaker.limits() == {"a": 0}


def test_a_probe_that_fails_quickly_opens_the_lane(breaker: Breaker, time: Time) -> None:
    breaker.failed("a", WASTED_SECONDS)
    time.now += FIRST_PAUSE_SECONDS
    breaker.failed("a", 0.01)
    assert breaker.limits() == {}


def test_a_lane_that_nobody_tried_for_long_is_forgotten(breaker: Breaker, time: Time) -> None:
    breaker.failed("a", WASTED_SECONDS)
    breaker.failed("b", WASTED_SECONDS - 1)
    time.now += FORGOTTEN_AFTER_SECONDS
    assert breaker.limits() == {"a": 1}
    time.now += FIRST_PAUSE_SECONDS
    assert breaker.limits() == {}
    breaker.failed("b", WASTED_SECONDS - 1)
    assert breaker.limits() == {}
    breaker.failed("b", QUICK_SECONDS)
    assert breaker.limits() == {"b": 0}


def test_a_lane_that_wasted_too_much_time_in_a_row_is_closed_and_then_probed_one_at_a_time(
    breaker: Breaker, time: Time
) -> None:
    breaker.failed("a", WASTED_SECONDS / 2)
    assert breaker.limits() == {}
    breaker.failed("a", WASTED_SECONDS / 2)
    breaker.failed("b", 1)
    assert breaker.limits() == {"a": 0}
    time.now += FIRST_PAUSE_SECONDS
    assert breaker.limits() == {"a": 1}


def test_a_success_forgets_what_was_wasted(breaker: Breaker) -> None:
    breaker.failed("a", WASTED_SECONDS)
    breaker.succeeded("a")
    breaker.failed("a", WASTED_SECONDS - 1)
    assert breaker.limits() == {}


def test_each_probe_that_fails_doubles_the_pause_up_to_the_longest(breaker: Breaker, time: Time) -> None:
    breaker.failed("a", WASTED_SECONDS)
    pause = FIRST_PAUSE_SECONDS
    for _ in range(10):
        time.now += pause - 0.001
        assert breaker.limits() == {"a": 0}
        time.now += 0.001
        assert breaker.limits() == {"a": 1}
        breaker.failed("a", 15)
        pause = min(LONGEST_PAUSE_SECONDS, 2 * pause)


def test_those_that_were_under_way_when_it_closed_do_not_lengthen_the_pause(breaker: Breaker, time: Time) -> None:
    for _ in range(4):
        breaker.failed("a", WASTED_SECONDS)
    time.now += FIRST_PAUSE_SECONDS
    assert breaker.limits() == {"a": 1}
