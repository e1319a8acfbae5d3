"""What webhook receivers said: the table `delivery_responses`. Nothing of it can be made from the events, or needs to."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import timedelta

import structlog

from application.errors import StoreUnavailable
from interfaces.postgres.pool import Pool

KEPT_FOR = timedelta(days=7)
EXPIRE_EVERY_SECONDS = 60.0
MOST_EXPIRED = 10_000  # at a time

EXPIRE = """
DELETE FROM delivery_responses WHERE delivery_id IN (
    SELECT delivery_id FROM delivery_responses WHERE expires_at < now()
    ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED)
"""
KEEP = """
INSERT INTO delivery_responses VALUES (%(id)s, %(status)s, %(text)s, now() + %(kept_for)s)
ON CONFLICT (delivery_id) DO UPDATE
SET status = excluded.status, body = excluded.body, expires_at = excluded.expires_at
"""
OF = "SELECT delivery_id, body FROM delivery_responses WHERE delivery_id = ANY(%s) AND expires_at > now()"


log = structlog.get_logger()


class PostgresResponseLog:
    """Each statement is a transaction of its own, and none waits for one row while it holds another."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def keep(self, delivery_id: str, status: int, text: str) -> None:
        with self._pool.connection() as connection:
            connection.execute(KEEP, {"id": delivery_id, "status": status, "text": text, "kept_for": KEPT_FOR})

    def run(self, stop: threading.Event) -> None:
        """Forgets, now and then, what is old."""
        while not stop.wait(EXPIRE_EVERY_SECONDS):
            try:
                self.expire(MOST_EXPIRED)
            except StoreUnavailable as failure:
                log.warning("store_unavailable", detail=failure.detail)

    def expire(self, limit: int) -> None:
        """So many of those whose time is over, at most. Raises StoreUnavailable."""
        with self._pool.connection() as connection:
            connection.execute(EXPIRE, [limit])

    def of(self, delivery_ids: Sequence[str]) -> Mapping[str, str]:
        """The bodies that there still are."""
        with self._pool.connection() as connection:
            return dict(connection.execute(OF, [list(delivery_ids)]).fetchall())
