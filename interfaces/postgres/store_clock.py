"""The time that all processes share: the database's.

What is due is decided by PostgreSQL's clock. A process whose own clock is an hour off, or is set while it runs, would
plan in another time than it is held to; so none asks its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Lock
from typing import NamedTuple

from application.errors import StoreUnavailable
from interfaces.postgres.pool import Pool

LOOK_EVERY_SECONDS = 30.0


class _Seen(NamedTuple):
    """The database's time at a moment of a clock that nobody sets."""

    at: datetime
    monotonic: float


class StoreClock:
    """Between two looks the time goes on by the host's monotonic clock; so it does while the database is away. The first
    look raises StoreUnavailable."""

    def __init__(self, pool: Pool, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._monotonic = monotonic
        self._looking = Lock()
        self._looked = monotonic()
        self._seen = self._look()

    def now(self) -> datetime:
        if self._monotonic() - self._looked > LOOK_EVERY_SECONDS and self._looking.acquire(blocking=False):
            try:
                self._looked = self._monotonic()
                self._seen = self._look()
            except StoreUnavailable:
                pass
            finally:
                self._looking.release()
        seen = self._seen
        return seen.at + timedelta(seconds=self._monotonic() - seen.monotonic)

    def _look(self) -> _Seen:
        """The answer was true somewhere between question and answer."""
        asked = self._monotonic()
        at = self._ask()
        return _Seen(at, (asked + self._monotonic()) / 2)

    def _ask(self) -> datetime:
        with self._pool.connection() as connection:
            row = connection.execute("SELECT clock_timestamp()").fetchone()
        if row is None:
            raise StoreUnavailable("PostgreSQL told no time")
        at: datetime = row[0]
        return at
