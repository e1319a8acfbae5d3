"""What this process measured is added to the table that all processes share."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection, Mapping

import msgspec
import psycopg
import structlog
from psycopg import Connection

from application.errors import StoreUnavailable
from interfaces.measurements import Measurements, Series
from interfaces.postgres.pool import Pool

FLUSH_SECONDS = 5.0
PATIENCE_SECONDS = 2.0
HOST, OTHER = "ca", "other"
MOST_HOSTS = 50
"""Tenants name the CAs: this many hosts have series of their own, beside those of the catalogue."""

LIMITS = "SET LOCAL statement_timeout = '2s'; SET LOCAL lock_timeout = '2s'"
ADD = """
INSERT INTO measurements AS m (name, labels, value)
SELECT name, labels::jsonb, value
FROM unnest(%s::text[], %s::text[], %s::double precision[]) AS added (name, labels, value)
ORDER BY 1, 2  -- all processes lock the rows in the same order
ON CONFLICT (name, labels) DO UPDATE SET value = m.value + excluded.value
"""
KNOWN = "SELECT DISTINCT labels->>%s FROM measurements WHERE labels ? %s"

log = structlog.get_logger()


class PostgresMeasurements:
    """`named_hosts` have series of their own in any case."""

    def __init__(self, pool: Pool, measurements: Measurements, named_hosts: Collection[str] = ()) -> None:
        self._pool = pool
        self._measurements = measurements
        self._named_hosts = frozenset(named_hosts)
        self._known_hosts: frozenset[str] = self._named_hosts | {OTHER}

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(FLUSH_SECONDS):
            self.flush()

    def flush(self) -> None:
        """What cannot be written now is kept for the next time. A commit whose answer is lost is counted twice."""
        taken = self._measurements.take()
        if not taken:
            return
        try:
            with self._pool.connection(PATIENCE_SECONDS) as connection, connection.transaction():
                connection.execute(LIMITS)
                increments = self._with_bounded_hosts(connection, taken)
                labels = [msgspec.json.encode(dict(series.labels)).decode() for series in increments]
                names = [series.name for series in increments]
                connection.execute(ADD, [names, labels, list(increments.values())])
        except (StoreUnavailable, psycopg.Error) as problem:
            self._measurements.give_back(taken)
            log.warning("measurements_kept", problem=str(problem))

    def _with_bounded_hosts(self, connection: Connection, taken: Mapping[Series, float]) -> Mapping[Series, float]:
        """The first so many hosts that any process saw; the others are one."""
        new = {value for series in taken for name, value in series.labels if name == HOST} - self._known_hosts
        if new:
            connection.execute("LOCK TABLE measurements IN SHARE ROW EXCLUSIVE MODE")  # or two would fill the same room
            rows = connection.execute(KNOWN, [HOST, HOST]).fetchall()
            counted = {host for (host,) in rows} - self._named_hosts - {OTHER}
            self._known_hosts |= counted
            room = sorted(new - counted)[: max(0, MOST_HOSTS - len(counted))]
            known = self._known_hosts | set(room)
        else:
            known = self._known_hosts
        increments: dict[Series, float] = defaultdict(float)
        for series, value in taken.items():
            labels = ((n, v if n != HOST or v in known else OTHER) for n, v in series.labels)
            increments[Series(series.name, tuple(labels))] += value
        return increments
