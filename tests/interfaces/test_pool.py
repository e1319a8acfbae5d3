"""Connections that were lost are replaced, however many there were."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psycopg

from application.errors import StoreUnavailable
from interfaces.postgres.pool import Pool, open_pool

MANY = 12
SOON_SECONDS = 8.0


def backends(pool: Pool, many: int) -> set[int]:
    """Those of so many connections, which are held at the same time and given back."""
    together = threading.Barrier(many)

    def held() -> int:
        with pool.connection() as connection:
            together.wait(timeout=20)
            return connection.info.backend_pid

    with ThreadPoolExecutor(many) as threads:
        return {future.result() for future in [threads.submit(held) for _ in range(many)]}


def test_after_all_connections_were_lost_the_next_is_there_soon(database: str) -> None:
    with open_pool(database, MANY) as pool:
        lost = backends(pool, MANY)
        with psycopg.connect(database, autocommit=True) as connection:
            for pid in lost:
                connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        begun = time.monotonic()
        with suppress(StoreUnavailable), pool.connection() as connection:
            assert connection.info.backend_pid not in lost
        assert time.monotonic() - begun < SOON_SECONDS
        assert not backends(pool, MANY) & lost
