"""Connections to PostgreSQL, and what its errors mean to the service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from application.errors import StoreUnavailable

Pool = ConnectionPool[psycopg.Connection]

SESSION = "-c timezone=UTC -c lock_timeout=10s -c statement_timeout=60s -c idle_in_transaction_session_timeout=60s"
RETRY_AFTER_SECONDS = 2.0


def open_pool(conninfo: str, size: int) -> Pool:
    """Connections are in autocommit mode: a transaction is always written as one. Raises StoreUnavailable."""
    pool = ConnectionPool(
        conninfo,
        kwargs={"autocommit": True, "options": SESSION, "application_name": "scaivault", "connect_timeout": 5},
        min_size=1,
        max_size=size,
        timeout=10,
        check=ConnectionPool.check_connection,
        open=False,
    )
    with store_errors():
        pool.open(wait=True, timeout=15)
    return pool


@contextmanager
def store_errors() -> Iterator[None]:
    """Turns PostgreSQL's being away, busy or read-only into StoreUnavailable; other errors are ours and pass."""
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout, PoolClosed) as problem:
        raise StoreUnavailable(f"PostgreSQL: {type(problem).__name__}", RETRY_AFTER_SECONDS) from problem
    except psycopg.errors.ReadOnlySqlTransaction as problem:
        raise StoreUnavailable("PostgreSQL is read-only", RETRY_AFTER_SECONDS) from problem
