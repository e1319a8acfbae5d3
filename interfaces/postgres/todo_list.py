"""The to-do list's table (`application/process/todo.py` says what it is)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta

from application.process.todo import Claim
from interfaces.postgres.pool import Pool

CLAIM = """
WITH due AS (
    SELECT process, subject FROM todo
    WHERE due_at <= clock_timestamp() AND (lease_until IS NULL OR lease_until < clock_timestamp())
    ORDER BY due_at LIMIT %s FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE todo SET lease_until = clock_timestamp() + %s, fence = nextval('todo_fence'), attempts = attempts + 1
    FROM due WHERE todo.process = due.process AND todo.subject = due.subject
    RETURNING todo.process, todo.subject, todo.fence, todo.attempts, todo.due_at
)
SELECT process, subject, fence, attempts FROM claimed ORDER BY due_at
"""
EXTEND = """
UPDATE todo SET lease_until = clock_timestamp() + %s
FROM unnest(%s::text[], %s::text[], %s::bigint[]) AS held (process, subject, fence)
WHERE todo.process = held.process AND todo.subject = held.subject AND todo.fence = held.fence
  AND todo.lease_until > clock_timestamp()
RETURNING todo.fence
"""
RELEASE = """
UPDATE todo SET lease_until = NULL, due_at = greatest(due_at, clock_timestamp() + %s)
WHERE process = %s AND subject = %s AND fence = %s
"""
HAND_BACK = "UPDATE todo SET lease_until = NULL WHERE process = %s AND subject = %s AND fence = %s"
NEXT_DUE = """
SELECT min(greatest(due_at, coalesce(lease_until, due_at))) - clock_timestamp() FROM todo
"""


class PostgresTodoList:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def claim(self, limit: int, lease: timedelta) -> Sequence[Claim]:
        with self._pool.connection() as connection:
            return [Claim(*row) for row in connection.execute(CLAIM, [limit, lease]).fetchall()]

    def extend(self, claims: Collection[Claim], lease: timedelta) -> Collection[Claim]:
        held = [
            [claim.process for claim in claims],
            [claim.subject for claim in claims],
            [claim.fence for claim in claims],
        ]
        with self._pool.connection() as connection:
            fences = {fence for (fence,) in connection.execute(EXTEND, [lease, *held]).fetchall()}
        return [claim for claim in claims if claim.fence in fences]

    def release(self, claim: Claim, retry_in: timedelta) -> None:
        row = [claim.process, claim.subject, claim.fence]
        with self._pool.connection() as connection:
            if retry_in:
                connection.execute(RELEASE, [retry_in, *row])
            else:
                connection.execute(HAND_BACK, row)

    def next_due_in(self) -> timedelta | None:
        with self._pool.connection() as connection:
            row = connection.execute(NEXT_DUE).fetchone()
        wait: timedelta | None = row[0] if row else None
        return wait
