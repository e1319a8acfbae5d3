"""When others want to be asked again: `Retry-After` (RFC 9110 §10.2.3) in both of its forms, and the words of a CA."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_SECONDS = 86400.0


_IN_WORDS = re.compile(
    r"retry after (\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.\d+)? ?(?:UTC|Z)(?!\w)", re.ASCII | re.IGNORECASE
)


def retry_after_seconds(headers: Mapping[str, str], longest_seconds: float = LONGEST_SECONDS) -> float | None:
    """Within [0, longest], or None where nothing usable is said. A date is read against the response's own `Date`, so
    that neither clock needs to be right. `headers` looks up case-insensitively."""
    said = headers.get("Retry-After", "").strip()
    if said.isascii() and said.isdecimal():
        return min(float(said), longest_seconds)
    asked = seconds_since_1970(said)
    return None if asked is None else _from_now_until(asked, headers, longest_seconds)


def seconds_in_words(text: str, headers: Mapping[str, str], longest_seconds: float) -> float | None:
    """The same for a text with "retry after 2026-11-23 21:10:00 UTC" in it, which is how Let's Encrypt writes it, or
    with the time as in RFC 3339."""
    if not (written := _IN_WORDS.search(text)):
        return None
    try:
        asked = datetime.fromisoformat(f"{written[1]}T{written[2]}+00:00").timestamp()
    except ValueError:
        return None
    return _from_now_until(asked, headers, longest_seconds)


def _from_now_until(asked: float, headers: Mapping[str, str], longest_seconds: float) -> float:
    answered = seconds_since_1970(headers.get("Date", ""))
    return min(max(asked - (time.time() if answered is None else answered), 0.0), longest_seconds)


def seconds_since_1970(http_date: str) -> float | None:
    """None for what is no date. One without a zone is in UTC, as all are (RFC 9110 §5.6.7)."""
    try:
        moment = parsedate_to_datetime(http_date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
