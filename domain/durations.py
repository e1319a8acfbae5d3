"""Durations as the API writes them: a whole number and one unit, such as `90d`, `48h`, `15m`, `30s`."""

from __future__ import annotations

import re
from datetime import timedelta

LONGEST = timedelta(days=36500)  # what is added to a time must not leave the calendar
UNITS = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
FORM = re.compile(r"([1-9][0-9]{0,9})([smhd])")


def duration_text(duration: timedelta) -> str:
    """In the largest unit of which there are at least two, rounded down; `1d` and `1h` are written so too."""
    for letter, unit in reversed(UNITS.items()):
        count = duration // unit
        if count >= 2 or count * unit == duration:  # noqa: PLR2004
            return f"{count}{letter}"
    return f"{duration // UNITS['s']}s"


def parse_duration(text: str) -> timedelta:
    """Positive, at most a hundred years. Raises ValueError with what is wrong."""
    match = FORM.fullmatch(text)
    if match is None:
        raise ValueError("a duration is a whole number and one of s, m, h, d, such as 15m")
    count, unit = int(match[1]), UNITS[match[2]]
    if count > LONGEST // unit:
        raise ValueError("longer than a hundred years")
    return count * unit
