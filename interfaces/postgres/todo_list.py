"""The to-do list's table (`application/process/todo.py` says what it is)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta

from psycopg import Connection

from application.process.todo import MOST_IN_A_LANE, NO_LIMITS, Claim, Claimed
from interfaces.postgres.pool import Pool

CLAIM_LOCK = 1396785497

# now() stands still within a transaction: what is due, and when the next will be, is told of one instant.
IS_FREE = "t.due_at <= now() AND (t.lease_until IS NULL OR t.lease_until < now())"
MARK = """
UPDATE todo t SET lease_until = clock_timestamp() + %(lease)s, fence = nextval('todo_fence'), attempts = attempts + 1
"""
CLAIM = f"""
WITH due AS (
    SELECT process, subject FROM todo t WHERE process = %(process)s AND lane IS NULL AND {IS_FREE}
    ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), claimed AS (
    {MARK} FROM due WHERE t.process = due.process AND t.subject = due.subject
    RETURNING t.process, t.subject, t.fence, t.attempts, t.due_at
)
SELECT process, subject, fence, attempts FROM claimed ORDER BY due_at
"""  # noqa: S608
CLAIM_IN_LANES = f"""
WITH RECURSIVE lanes AS (  -- each once, however many rows it has
    (SELECT lane FROM todo WHERE process = %(process)s AND lane IS NOT NULL ORDER BY lane LIMIT 1)
    UNION ALL
    SELECT (SELECT t.lane FROM todo t WHERE t.process = %(process)s AND t.lane > lanes.lane ORDER BY t.lane LIMIT 1)
    FROM lanes WHERE lanes.lane IS NOT NULL
), held AS (
    SELECT lane, count(*) AS rows FROM todo WHERE process = %(process)s AND lease_until >= now() GROUP BY lane
), room AS (
    SELECT lane, coalesce(limited.most, %(most)s) - coalesce(held.rows, 0) AS room
    FROM lanes LEFT JOIN held USING (lane)
    LEFT JOIN unnest(%(lanes)s::text[], %(limits)s::int[]) AS limited (lane, most) USING (lane)
    WHERE lane IS NOT NULL
), due AS (
    SELECT d.subject FROM room CROSS JOIN LATERAL (
        SELECT t.subject, t.due_at, row_number() OVER (ORDER BY t.due_at, t.place) AS in_lane FROM todo t
        WHERE t.process = %(process)s AND t.lane = room.lane AND {IS_FREE}
          AND (t.queue IS NULL OR NOT EXISTS (
              SELECT FROM todo e WHERE e.process = t.process AND e.queue = t.queue AND e.place < t.place))
        ORDER BY t.due_at, t.place LIMIT greatest(room.room, 0)
    ) d ORDER BY %(most)s - room.room + d.in_lane, d.due_at LIMIT %(limit)s
), claimed AS (
    {MARK} FROM due WHERE t.process = %(process)s AND t.subject = due.subject AND {IS_FREE}
    RETURNING t.process, t.subject, t.fence, t.attempts, t.due_at, t.place
)
SELECT process, subject, fence, attempts FROM claimed ORDER BY due_at, place
"""  # noqa: S608
NEXT_DUE = """
SELECT least(
    (SELECT min(due_at) FROM todo WHERE process = %(process)s AND due_at > now()),
    (SELECT min(lease_until) FROM todo WHERE process = %(process)s AND lease_until >= now())
) - clock_timestamp()
"""
OVERDUE = """
SELECT now() - due_at FROM todo
WHERE process = %s AND due_at < now() - %s AND (lease_until IS NULL OR lease_until < now()) ORDER BY due_at LIMIT 1
"""
EXTEND = """
UPDATE todo SET lease_until = clock_timestamp() + %s
FROM unnest(%s::text[], %s::text[], %s::bigint[]) AS held (process, subject, fence)
WHERE todo.process = held.process AND todo.subject = held.subject AND todo.fence = held.fence
  AND todo.lease_until > clock_timestamp()
RETURNING todo.fence
"""
RELEASE = """
UPDATE todo SET lease_until = NULL, attempts = CASE WHEN %s THEN attempts ELSE greatest(attempts - 1, 0) END,
    due_at = CASE WHEN %s THEN greatest(due_at, clock_timestamp() + %s) ELSE due_at END
WHERE process = %s AND subject = %s AND fence = %s
"""

HASTEN = """
UPDATE todo SET due_at = least(due_at, now()) WHERE process = %s AND (lease_until IS NULL OR lease_until < now())
"""


class PostgresTodoList:
    """`in_lanes` are the processes whose rows stand in lanes."""

    def __init__(self, pool: Pool, in_lanes: Collection[str]) -> None:
        self._pool = pool
        self._in_lanes = in_lanes

    def claim(self, process: str, limit: int, lease: timedelta, lane_limits: Mapping[str, int] = NO_LIMITS) -> Claimed:
        wanted = {"process": process, "limit": limit, "lease": lease}
        with self._pool.connection() as connection, connection.transaction():
            if process in self._in_lanes:
                claims = _claim_in_lanes(connection, wanted, lane_limits)
            else:
                claims = [Claim(*row) for row in connection.execute(CLAIM.encode(), wanted).fetchall()]
            row = connection.execute(NEXT_DUE, wanted).fetchone()
        return Claimed(claims, row[0] if row else None)

    def overdue(self, process: str, by: timedelta) -> timedelta | None:
        """For how long the oldest row has been due that nobody has claimed; None where that is less than `by`."""
        with self._pool.connection() as connection:
            row = connection.execute(OVERDUE, [process, by]).fetchone()
        return row[0] if row else None

    def extend(self, claims: Collection[Claim], lease: timedelta) -> Collection[Claim]:
        held = [
            [claim.process for claim in claims],
            [claim.subject for claim in claims],
            [claim.fence for claim in claims],
        ]
        with self._pool.connection() as connection:
            fences = {fence for (fence,) in connection.execute(EXTEND, [lease, *held]).fetchall()}
        return [claim for claim in claims if claim.fence in fences]

    def release(self, claim: Claim, retry_in: timedelta, *, counted: bool = True) -> None:
        row = [claim.process, claim.subject, claim.fence]
        with self._pool.connection() as connection:
            connection.execute(RELEASE, [counted, bool(retry_in), retry_in, *row])

    def hasten(self, process: str) -> None:
        with self._pool.connection() as connection:
            connection.execute(HASTEN, [process])


def _claim_in_lanes(
    connection: Connection, wanted: Mapping[str, object], lane_limits: Mapping[str, int]
) -> list[Claim]:
    """One at a time, or two workers would fill the same room."""
    connection.execute("SELECT pg_advisory_xact_lock(%s)", [CLAIM_LOCK])
    limited = {"most": MOST_IN_A_LANE, "lanes": list(lane_limits), "limits": list(lane_limits.values())}
    return [Claim(*row) for row in connection.execute(CLAIM_IN_LANES.encode(), {**wanted, **limited}).fetchall()]
