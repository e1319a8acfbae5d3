"""The figures that are asked of the database when somebody looks, each by one query that has to be cheap.

They cross tenants, and name none. A query that takes too long or fails is left out and counted; the others go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg
import structlog
from psycopg import Connection

from interfaces.measurements import QUERY_FAILURES, Measurements
from interfaces.postgres.pool import Pool

PATIENCE_SECONDS = 2.0
QUERY_SECONDS = 2.0
ALL_SECONDS = 8.0
"""Below the ten seconds that Prometheus waits."""

Rows = Sequence[tuple[Any, ...]]

EVENTS = "SELECT coalesce(max(position), 0) FROM events"

# A reader that has taken all there is stands at the last of what it reads, which need not be the last event.
FOLLOWERS = """
SELECT reader, greatest(0, last.position - coalesce(p.position, 0)) FROM (
    SELECT reader, (SELECT coalesce(max(position), 0) FROM events) AS position FROM unnest(%(of_events)s::text[]) reader
    UNION ALL
    SELECT reader, (SELECT coalesce(max(position), 0) FROM announcements)
    FROM unnest(%(of_announcements)s::text[]) reader
) last LEFT JOIN positions p USING (reader)
"""

# By how many of the bounds have been reached: 0 has expired, 1 has less than a day, and so on.
CERTIFICATES = """
SELECT width_bucket(not_after, ARRAY(
    SELECT now() + days * interval '1 day' FROM unnest(%(days)s::int[]) days ORDER BY days
)), count(*) FROM certificates GROUP BY 1
"""

# Of a queue only the row with the lowest place can be claimed: the others wait, whatever their time. What is counted
# over all rows is in the index (process, due_at); what needs more is asked of the few rows that are held or queued.
TODO = """
WITH everything AS (
    SELECT process, count(*) AS n, count(*) FILTER (WHERE due_at <= now()) AS due FROM todo GROUP BY process
), held AS (
    SELECT process, count(*) AS n, count(*) FILTER (WHERE due_at <= now()) AS due FROM todo
    WHERE lease_until >= now() GROUP BY process
), queued AS (
    SELECT process, due_at, lease_until, row_number() OVER (PARTITION BY process, queue ORDER BY place) AS place
    FROM todo WHERE queue IS NOT NULL
), blocked AS (
    SELECT process, count(*) AS due FROM queued
    WHERE place > 1 AND due_at <= now() AND (lease_until IS NULL OR lease_until < now()) GROUP BY process
), counted AS (
    SELECT process, coalesce(everything.n, 0) AS n, coalesce(held.n, 0) AS held,
        coalesce(everything.due, 0) - coalesce(held.due, 0) - coalesce(blocked.due, 0) AS due
    FROM everything FULL JOIN unnest(%(processes)s::text[]) AS process USING (process)
    LEFT JOIN held USING (process) LEFT JOIN blocked USING (process)
)
SELECT process, due, n - held - due AS waiting, held, coalesce(extract(epoch FROM now() - (
    SELECT t.due_at FROM todo t
    WHERE t.process = counted.process AND t.due_at <= now() AND (t.lease_until IS NULL OR t.lease_until < now())
      AND (t.queue IS NULL OR NOT EXISTS (
          SELECT FROM todo e WHERE e.process = t.process AND e.queue = t.queue AND e.place < t.place))
    ORDER BY t.due_at LIMIT 1
)), 0) FROM counted
"""

DELIVERIES = "SELECT status, count(*) FROM deliveries WHERE status <> 'delivered' GROUP BY status"

ORDERS = (
    "SELECT kind, subject, part, amount FROM order_statistics WHERE kind IN ('ended', 'phase', 'phase_ms', 'renewal')"
)
RUNNING = "SELECT phase, count(*) FROM order_statistics WHERE kind = 'running' GROUP BY phase"
LEFT = """
SELECT coalesce(sum(amount), 0), coalesce(extract(epoch FROM now() - min(since)), 0) FROM order_statistics
WHERE kind = 'left'
"""

MEASUREMENTS = "SELECT name, labels, value FROM measurements"

QUERIES: Mapping[str, str] = {
    "events": EVENTS,
    "followers": FOLLOWERS,
    "todo": TODO,
    "certificates": CERTIFICATES,
    "deliveries": DELIVERIES,
    "orders": ORDERS,
    "orders_running": RUNNING,
    "values_left": LEFT,
    "measurements": MEASUREMENTS,
}
DAYS = (0, 1, 7, 14, 30, 60)
"""What of a certificate's time left is told apart."""

log = structlog.get_logger()


class Figures:
    """`processes` are told of also while they have nothing to do. `of_events` are the followers of all events,
    `of_announcements` those of what subscribers are told."""

    def __init__(
        self,
        pool: Pool,
        measurements: Measurements,
        processes: Sequence[str],
        of_events: Sequence[str],
        of_announcements: Sequence[str],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._measurements = measurements
        self._values = {
            "processes": list(processes),
            "of_events": list(of_events),
            "of_announcements": list(of_announcements),
            "days": list(DAYS),
        }
        self._monotonic = monotonic

    def read(self) -> Mapping[str, Rows]:
        """By query what it found; those that failed are not there. Raises StoreUnavailable."""
        found: dict[str, Rows] = {}
        with self._pool.connection(PATIENCE_SECONDS) as connection:
            end = self._monotonic() + ALL_SECONDS
            for name, query in QUERIES.items():
                try:
                    found[name] = self._ask(connection, query, end - self._monotonic())
                except (psycopg.Error, TimeoutError) as problem:
                    if connection.closed:
                        raise
                    self._measurements.count(QUERY_FAILURES, query=name)
                    log.warning("figure_left_out", query=name, problem=str(problem))
        return found

    def _ask(self, connection: Connection, query: str, seconds_left: float) -> Rows:
        """With one core, for a moment."""
        if seconds_left <= 0:
            raise TimeoutError("the time for all queries is over")
        limit = max(1, round(1000 * min(QUERY_SECONDS, seconds_left)))
        with connection.transaction():
            connection.execute(f"SET LOCAL statement_timeout = {limit}")
            connection.execute("SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL jit = off")
            return connection.execute(query.encode(), self._values).fetchall()
