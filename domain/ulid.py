"""Ids that sort by time, made of what is known: the same input gives the same id."""

from __future__ import annotations

from datetime import datetime

CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def ulid_text(timestamp: datetime, randomness: bytes) -> str:
    """A lower-case ULID: 48 bits of milliseconds and the ten bytes given."""
    number = int(timestamp.timestamp() * 1000) << 80 | int.from_bytes(randomness)
    return "".join(CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))
