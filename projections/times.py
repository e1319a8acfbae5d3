"""Times as resources show them."""

from __future__ import annotations

from datetime import datetime


def whole_seconds(at: datetime) -> datetime:
    return at.replace(microsecond=0)
