"""`Retry-After` (RFC 9110 §10.2.3), in both of its forms."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

LONGEST_SECONDS = 86400.0


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Within [0, 24 h], or None where nothing usable is said. A date is read against the response's own `Date`, so
    that neither clock needs to be right. `headers` looks up case-insensitively."""
    said = headers.get("Retry-After", "").strip()
    if said.isascii() and said.isdecimal():
        return min(float(said), LONGEST_SECONDS)
    asked = _seconds_since_1970(said)
    if asked is None:
        return None
    answered = _seconds_since_1970(headers.get("Date", ""))
    return min(max(asked - (time.time() if answered is None else answered), 0.0), LONGEST_SECONDS)


def _seconds_since_1970(http_date: str) -> float | None:
    try:
        return parsedate_to_datetime(http_date).timestamp()
    except (ValueError, OverflowError):
        return None
