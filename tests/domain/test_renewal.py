"""When a certificate is due, for every lifetime that CAs issue."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.durations import duration_text
from domain.renewal import (
    Lifetime,
    Plan,
    Window,
    ask_again_after,
    call_off_at,
    draw,
    fraction_of,
    held_until,
    is_usable,
    pace,
    plan_by_ari,
    plan_by_lifetime,
    retry_after,
    warnings,
)

BEGIN = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY, HOUR, MINUTE, SECOND = (timedelta(**{unit: 1}) for unit in ("days", "hours", "minutes", "seconds"))
FRACTIONS = st.floats(0, 1, exclude_max=True)
LIFETIMES = st.timedeltas(10 * SECOND, 400 * DAY)


def lasting(length: timedelta) -> Lifetime:
    return Lifetime(BEGIN, BEGIN + length)


NINETY = lasting(90 * DAY)


# --- the lifetime's rule ---


@pytest.mark.parametrize(
    ("length", "left"),
    [
        (90 * DAY, 30 * DAY),
        (64 * DAY, 64 * DAY / 3),
        (45 * DAY, 15 * DAY),
        (10 * DAY, 10 * DAY / 3),
        (10 * DAY - SECOND, (10 * DAY - SECOND) / 2),
        (160 * HOUR, 80 * HOUR),
        (119 * SECOND, 59.5 * SECOND),
    ],
)
def test_without_a_suggestion_a_third_of_the_lifetime_is_left_and_half_of_a_short_one(
    length: timedelta, left: timedelta
) -> None:
    lifetime = lasting(length)
    assert lifetime.window == Window(lifetime.not_after - left - length / 50, lifetime.not_after - left)
    assert plan_by_lifetime(lifetime, 0.0) == Plan(lifetime.window.start, "lifetime")


@given(LIFETIMES, FRACTIONS)
def test_the_rule_is_kept_long_before_the_last_line(length: timedelta, fraction: float) -> None:
    lifetime = lasting(length)
    plan = plan_by_lifetime(lifetime, fraction)
    assert lifetime.window.start <= plan.at <= lifetime.window.end < lifetime.last_line < lifetime.not_after


def test_certificates_of_one_moment_are_spread_over_the_window() -> None:
    fractions = [fraction_of(f"{number:064x}"[::-1]) for number in range(4096)]
    tenths = [int(fraction * 10) for fraction in fractions]
    assert all(300 <= tenths.count(tenth) <= 520 for tenth in range(10))
    assert all(0 <= fraction < 1 for fraction in (fraction_of("f" * 64), fraction_of("0" * 64)))


# --- the CA's window ---


def test_the_instant_of_the_window_is_the_plan() -> None:
    assert plan_by_ari(NINETY, BEGIN + 60 * DAY) == Plan(BEGIN + 60 * DAY, "ari")


def test_no_window_is_later_than_the_last_line() -> None:
    assert plan_by_ari(NINETY, BEGIN + 75 * DAY).rule == "ari"
    assert plan_by_ari(NINETY, BEGIN + 75 * DAY + SECOND) == Plan(BEGIN + 75 * DAY, "last_line")


@pytest.mark.parametrize(
    ("start", "end", "usable"),
    [
        (60 * DAY, 61 * DAY, True),
        (-3 * HOUR, -2 * HOUR, True),
        (89 * DAY, 900 * DAY, True),
        (61 * DAY, 60 * DAY, False),
        (60 * DAY, 60 * DAY, False),
        (90 * DAY, 91 * DAY, False),
        (9000 * DAY, 9001 * DAY, False),
    ],
)
def test_a_suggestion_has_a_length_and_begins_before_the_end(start: timedelta, end: timedelta, *, usable: bool) -> None:
    assert is_usable(Window(BEGIN + start, BEGIN + end), NINETY) is usable


@given(FRACTIONS, st.timedeltas(-5 * DAY, 5 * DAY))
def test_the_instant_lies_in_what_is_left_of_the_window_and_is_now_when_it_is_over(
    fraction: float, late: timedelta
) -> None:
    window = Window(BEGIN, BEGIN + 2 * DAY)
    now = BEGIN + late
    at = draw(window, fraction, now)
    if now >= window.end:
        assert at == now
    else:
        assert max(now, window.start) <= at <= window.end
        assert window.takes(at) or at == window.end  # rounding to microseconds


def test_instants_are_spread_evenly_over_the_window() -> None:
    window = Window(BEGIN, BEGIN + 4 * DAY)
    drawn = [draw(window, fraction, BEGIN) - BEGIN for fraction in (0.0, 0.25, 0.5, 1.0)]
    assert drawn == [each * 0.98 for each in (timedelta(), DAY, 2 * DAY, 4 * DAY)]  # early enough to arrive in it


@pytest.mark.parametrize(
    ("said", "after"),
    [
        (None, 6 * HOUR),
        (0, MINUTE),
        (59, MINUTE),
        (61, 61 * SECOND),
        (21600, 6 * HOUR),
        (86400, 12 * HOUR),
        (1e9, 12 * HOUR),
        (1e300, 12 * HOUR),
    ],
)
def test_the_ca_is_asked_again_when_it_says_but_at_least_twice_a_day(said: float | None, after: timedelta) -> None:
    assert ask_again_after(said) == after


# --- failures and the breaker ---


def test_failures_are_tried_again_after_1_10_and_100_minutes_and_then_daily() -> None:
    after = [retry_after(attempt, NINETY) for attempt in range(1, 7)]
    assert after == [MINUTE, 10 * MINUTE, 100 * MINUTE, DAY, DAY, DAY]


def test_a_lifetime_of_minutes_has_retries_of_seconds() -> None:
    after = [retry_after(attempt, lasting(119 * SECOND)) for attempt in range(1, 6)]
    assert after[0] == after[1] == SECOND
    assert SECOND < after[2] < 2 * SECOND
    assert 10 * SECOND < after[3] == after[4] < 20 * SECOND


@pytest.mark.parametrize(("length", "expected"), [(90 * DAY, 1.0), (7 * DAY, 1.0), (84 * HOUR, 0.5)])
def test_the_pace_is_by_the_lifetime_for_those_under_a_week(length: timedelta, expected: float) -> None:
    assert pace(lasting(length)) == expected


def test_the_breaker_lets_one_pass_in_six_hours_and_four_in_a_week() -> None:
    renewed: list[datetime] = []
    now = BEGIN
    while now < BEGIN + 30 * DAY:
        until = held_until(renewed[-4:], NINETY)
        now = max(now, until or now)
        renewed.append(now)
    assert renewed[:5] == [BEGIN, BEGIN + 6 * HOUR, BEGIN + 12 * HOUR, BEGIN + 18 * HOUR, BEGIN + 7 * DAY]
    for moment in renewed:
        assert sum(moment <= other < moment + 6 * HOUR for other in renewed) <= 1
        assert sum(moment <= other < moment + 7 * DAY for other in renewed) <= 4


@pytest.mark.parametrize("length", [90 * DAY, 45 * DAY, 160 * HOUR, 3 * DAY, DAY, 119 * SECOND])
def test_the_breaker_never_holds_renewals_that_come_when_they_are_due(length: timedelta) -> None:
    lifetime = lasting(length)
    every = plan_by_lifetime(lifetime, 0.0).at - BEGIN
    renewed = [BEGIN + number * every for number in range(4)]
    until = held_until(renewed, lifetime)
    assert until is not None
    assert until <= renewed[-1] + every


def test_who_was_never_renewed_is_not_held() -> None:
    assert held_until([], NINETY) is None


# --- warnings ---


@pytest.mark.parametrize(
    ("length", "told"),
    [
        (398 * DAY, ["30d", "7d", "1d"]),
        (90 * DAY, ["27d", "7d", "1d"]),
        (45 * DAY, ["13d", "4d", "21h"]),
        (160 * HOUR, ["2d", "16h", "3h"]),
        (119 * SECOND, ["35s", "11s", "2s"]),
    ],
)
def test_what_nears_its_end_is_told_in_time_for_its_lifetime(length: timedelta, told: list[str]) -> None:
    assert [duration_text(before) for before, _ in warnings(lasting(length))] == told


@given(LIFETIMES)
def test_what_is_renewed_in_time_is_never_told_to_near_its_end(length: timedelta) -> None:
    lifetime = lasting(length)
    befores = [before for before, _ in warnings(lifetime)]
    assert befores == sorted(befores, reverse=True)
    half_width_of_a_suggestion = length / 100
    assert all(at > lifetime.window.end + half_width_of_a_suggestion for _, at in warnings(lifetime))


@pytest.mark.parametrize(
    ("length", "begun_with", "takes"),
    [
        (90 * DAY, 30 * DAY, 15 * DAY),
        (160 * HOUR, 80 * HOUR, 40 * HOUR),
        (2 * DAY, DAY, 12 * HOUR),
        (119 * SECOND, 59 * SECOND, 30 * SECOND),
        (90 * DAY, -DAY, 7.5 * DAY),
    ],
)
def test_an_order_is_called_off_while_there_is_time_for_another(
    length: timedelta, begun_with: timedelta, takes: timedelta
) -> None:
    lifetime = lasting(length)
    began_at = lifetime.not_after - begun_with
    assert call_off_at(began_at, lifetime) == began_at + takes
