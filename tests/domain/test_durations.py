from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.durations import LONGEST, parse_duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90d", timedelta(days=90)),
        ("48h", timedelta(hours=48)),
        ("15m", timedelta(minutes=15)),
        ("30s", timedelta(seconds=30)),
        ("1s", timedelta(seconds=1)),
        ("36500d", LONGEST),
        ("3153600000s", LONGEST),
    ],
)
def test_a_duration_is_a_whole_number_and_a_unit(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text",
    [
        "",
        "90",
        "d",
        "0s",
        "00m",
        "05m",
        "-5m",
        "+5m",
        "1.5h",
        "5 m",
        "5M",
        "5w",
        "1h30m",
        " 5m",
        "5m\n",
        "\u0665m",
        "5\u00b5",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="whole number"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["36501d", "9999999999d", "3153600001s"])
def test_more_than_a_hundred_years_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="hundred years"):
        parse_duration(text)


@given(st.text(max_size=12))
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        assert timedelta() < parse_duration(text) <= LONGEST
    except ValueError as problem:
        assert str(problem)  # noqa: PT017  either is right
