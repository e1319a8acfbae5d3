"""Connections to PostgreSQL, and what its errors mean to the service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg_pool import ConnectionPool

from application.errors import StoreUnavailable

SESSION = "-c timezone=UTC -c lock_timeout=10s -c statement_timeout=60s -c idle_in_transaction_session_timeout=60s"
RETRY_AFTER_SECONDS = 2.0


LIVELINESS = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}
LIMIT_EXCEEDED = "54"  # SQLSTATE class: what was asked is too large, however often it is asked


class Pool(ConnectionPool[psycopg.Connection]):
    """A borrowed connection's errors are the service's own: nobody can forget to translate them. Where one connection was
    lost, probably all were: they are renewed together, or whoever asks would try one dead connection after the other."""

    def _check_connection(self, conn: psycopg.Connection) -> None:
        try:
            super()._check_connection(conn)
        except psycopg.Error:
            self.drain()
            raise

    @contextmanager
    def connection(self, timeout: float | None = None) -> Iterator[psycopg.Connection]:
        with store_errors(), super().connection(timeout) as connection:
            try:
                yield connection
            except psycopg.Error as problem:
                if connection.closed:  # in a pipeline its loss can show as any error
                    raise psycopg.OperationalError("the connection was lost") from problem
                raise


def open_pool(conninfo: str, size: int) -> Pool:
    """Connections are in autocommit mode: a transaction is always written as one. Raises StoreUnavailable."""
    session = {"autocommit": True, "options": SESSION, "application_name": "scaivault", "connect_timeout": 5}
    pool = Pool(
        conninfo,
        kwargs={**session, **LIVELINESS},
        min_size=1,
        max_size=size,
        timeout=10,
        reconnect_timeout=5,  # then whoever asks next tries afresh, instead of waiting out a long back-off
        check=Pool.check_connection,
        open=False,
    )
    with store_errors():
        pool.open(wait=True, timeout=15)
    return pool


@contextmanager
def store_errors() -> Iterator[None]:
    """Turns PostgreSQL's being away, busy or read-only, and an empty pool, into StoreUnavailable; other errors are ours
    and pass."""
    try:
        yield
    except (
        psycopg.OperationalError,
        psycopg.InterfaceError,
        psycopg.errors.IdleInTransactionSessionTimeout,
    ) as problem:
        if (problem.sqlstate or "").startswith(LIMIT_EXCEEDED):
            raise
        raise StoreUnavailable(f"PostgreSQL: {type(problem).__name__}", RETRY_AFTER_SECONDS) from problem
    except psycopg.errors.ReadOnlySqlTransaction as problem:
        raise StoreUnavailable("PostgreSQL is read-only", RETRY_AFTER_SECONDS) from problem
