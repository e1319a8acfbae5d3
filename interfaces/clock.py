"""The time and the ids of the real world."""

from __future__ import annotations

from datetime import UTC, datetime

from ulid import ULID


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


class UlidIds:
    def new(self, prefix: str) -> str:
        return f"{prefix}_{str(ULID()).lower()}"
