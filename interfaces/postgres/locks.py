"""Locks that hold across processes and machines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from interfaces.postgres.pool import Pool


class PostgresLocks:
    """Advisory locks, held for as long as their transaction. Different names may share a lock, never the reverse."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Raises StoreUnavailable when the lock cannot be had in time."""
        with self._pool.connection() as connection, connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(1396785495, hashtext(%s))", [name])
            yield
