"""How deliveries went, by subscription and minute."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
from psycopg import Cursor
from psycopg.rows import TupleRow

from domain.delivery import Delivery
from domain.provenance import Recorded
from projections.documents import Pool
from projections.times import whole_seconds

DAY = timedelta(hours=24)

ADD = """
INSERT INTO delivery_statistics AS s VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (subscription_id, minute) DO UPDATE SET
    attempts = s.attempts + excluded.attempts,
    successes = s.successes + excluded.successes,
    measured = s.measured + excluded.measured,
    duration_ms = s.duration_ms + excluded.duration_ms,
    first_failure_at = coalesce(s.first_failure_at, excluded.first_failure_at),
    last_success_at = coalesce(excluded.last_success_at, s.last_success_at)
"""
LAST_DAY = """
SELECT coalesce(sum(attempts), 0), coalesce(sum(successes), 0), coalesce(sum(measured), 0),
    coalesce(sum(duration_ms), 0)
FROM delivery_statistics WHERE subscription_id = %s AND minute > %s
"""
LAST_SUCCESS = """
SELECT last_success_at FROM delivery_statistics
WHERE subscription_id = %s AND successes > 0 ORDER BY minute DESC LIMIT 1
"""
FAILING_SINCE = """
SELECT first_failure_at FROM delivery_statistics
WHERE subscription_id = %(id)s AND first_failure_at IS NOT NULL AND minute > coalesce((
    SELECT max(minute) FROM delivery_statistics WHERE subscription_id = %(id)s AND successes > 0
), '-infinity') ORDER BY minute LIMIT 1
"""


class Statistics(msgspec.Struct, frozen=True):
    """Of the attempts in the last 24 hours; the rate is in [0, 1], None where there were none. A delivery that was tried
    three times counts three times."""

    deliveries_24h: int
    success_rate_24h: float | None
    mean_latency_ms_24h: float | None
    last_delivery_at: datetime | None


class DeliveryStatistics:
    name = "delivery_statistics"
    ddl = """
CREATE TABLE delivery_statistics (
    subscription_id text NOT NULL,
    minute timestamptz NOT NULL,
    attempts integer NOT NULL,
    successes integer NOT NULL,
    measured integer NOT NULL,
    duration_ms bigint NOT NULL,
    first_failure_at timestamptz,
    last_success_at timestamptz,
    PRIMARY KEY (subscription_id, minute)
)"""

    def apply(self, cursor: Cursor[TupleRow], events: Sequence[Recorded]) -> None:
        rows = []
        for recorded in events:
            event = recorded.event
            match event:
                case Delivery.Delivered(subscription_id=subscription_id, duration_ms=duration_ms):
                    outcome = [1, *_measured(duration_ms), None, event.timestamp]
                case (
                    Delivery.AttemptFailed(subscription_id=subscription_id, duration_ms=duration_ms)
                    | Delivery.GivenUp(subscription_id=subscription_id, duration_ms=duration_ms)
                ):
                    outcome = [0, *_measured(duration_ms), event.timestamp, None]
                case _:
                    continue
            if not subscription_id:
                continue  # the first form of these events did not say
            minute = event.timestamp.replace(second=0, microsecond=0)
            rows.append([subscription_id, minute, 1, *outcome])
        if rows:
            cursor.executemany(ADD, rows)

    def one(self, pool: Pool, subscription_id: str, now: datetime) -> Statistics:
        with pool.connection() as connection:
            sums = connection.execute(LAST_DAY, [subscription_id, now - DAY]).fetchone() or (0, 0, 0, 0)
            last = connection.execute(LAST_SUCCESS, [subscription_id]).fetchone()
        attempts, successes, measured, duration_ms = map(int, sums)
        return Statistics(
            deliveries_24h=attempts,
            success_rate_24h=round(successes / attempts, 4) if attempts else None,
            mean_latency_ms_24h=round(duration_ms / measured, 1) if measured else None,
            last_delivery_at=whole_seconds(last[0]) if last else None,
        )

    def failing_since(self, pool: Pool, subscription_id: str) -> datetime | None:
        """The first failure in a later minute than the last success, None where there is none."""
        with pool.connection() as connection:
            row = connection.execute(FAILING_SINCE, {"id": subscription_id}).fetchone()
        return row[0] if row else None


def _measured(duration_ms: int | None) -> tuple[int, int]:
    return (0, 0) if duration_ms is None else (1, duration_ms)


DELIVERY_STATISTICS = DeliveryStatistics()
