"""What webhook receivers said: the table `delivery_responses`. Nothing of it can be made from the events, or needs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from interfaces.postgres.pool import Pool

KEPT_FOR = timedelta(days=7)

KEEP = """
WITH expired AS (
    DELETE FROM delivery_responses WHERE delivery_id IN (
        SELECT delivery_id FROM delivery_responses WHERE expires_at < now() AND delivery_id <> %(id)s
        ORDER BY expires_at LIMIT 10 FOR UPDATE SKIP LOCKED)
)
INSERT INTO delivery_responses VALUES (%(id)s, %(status)s, %(text)s, now() + %(kept_for)s)
ON CONFLICT (delivery_id) DO UPDATE
SET status = excluded.status, body = excluded.body, expires_at = excluded.expires_at
"""
OF = "SELECT delivery_id, body FROM delivery_responses WHERE delivery_id = ANY(%s) AND expires_at > now()"


class PostgresResponseLog:
    """Each one that is kept takes some with it whose time is over."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def keep(self, delivery_id: str, status: int, text: str) -> None:
        with self._pool.connection() as connection:
            connection.execute(KEEP, {"id": delivery_id, "status": status, "text": text, "kept_for": KEPT_FOR})

    def of(self, delivery_ids: Sequence[str]) -> Mapping[str, str]:
        """The bodies that there still are."""
        with self._pool.connection() as connection:
            return dict(connection.execute(OF, [list(delivery_ids)]).fetchall())
