"""How full the buckets of the CAs' rate limits are, by what our own orders did and what the CAs said."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from psycopg import Cursor
from psycopg.rows import TupleRow

from domain.account import Account
from domain.order import Order
from domain.provenance import Recorded
from domain.rate_limit import FULL, Bucket, Entry, Level, after, entries_when_placed, limits_of
from projections.documents import Pool

READ = """
SELECT ca, bucket, subject, full_at, blocked_until FROM rate_limits
JOIN unnest(%s::text[], %s::text[], %s::text[]) AS asked (ca, bucket, subject) USING (ca, bucket, subject)
"""
WRITE = """
INSERT INTO rate_limits VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (ca, bucket, subject) DO UPDATE SET full_at = excluded.full_at, blocked_until = excluded.blocked_until
"""
DELETE = """
DELETE FROM rate_limits USING unnest(%s::text[], %s::text[], %s::text[]) AS gone (ca, bucket, subject)
WHERE rate_limits.ca = gone.ca AND rate_limits.bucket = gone.bucket AND rate_limits.subject = gone.subject
"""
OF_ACCOUNT = """
SELECT ca, bucket, subject, full_at, blocked_until FROM rate_limits
WHERE ca = %s AND bucket IN ('failed_authorizations', 'consecutive_failed_authorizations')
  AND starts_with(subject, %s) AND (full_at > now() OR blocked_until > now()) ORDER BY subject LIMIT %s
"""


class RateLimitLedger:
    name = "rate_limits"
    ddl = """
CREATE TABLE rate_limits (
    ca text NOT NULL,
    bucket text NOT NULL,
    subject text NOT NULL,
    full_at timestamptz,
    blocked_until timestamptz,
    PRIMARY KEY (ca, bucket, subject)
)"""

    def apply(self, cursor: Cursor[TupleRow], events: Sequence[Recorded]) -> None:
        entries = [(entry, recorded.event.timestamp) for recorded in events for entry in entries_of(recorded)]
        if not entries:
            return
        cursor.execute(READ, _columns({entry.bucket for entry, _ in entries}))
        known = _levels(cursor.fetchall())
        levels = dict(known)
        for entry, at in entries:
            levels[entry.bucket] = after(levels.get(entry.bucket, FULL), entry, at)
        emptied = [bucket for bucket in known if levels[bucket] == FULL]
        if emptied:
            cursor.execute(DELETE, _columns(emptied))
        cursor.executemany(
            WRITE,
            [
                [bucket.ca, bucket.limit, bucket.subject, level.full_at, level.blocked_until]
                for bucket, level in levels.items()
                if level not in (known.get(bucket, FULL), FULL)
            ],
        )

    def levels(self, pool: Pool, buckets: Collection[Bucket]) -> Mapping[Bucket, Level]:
        with pool.connection() as connection:
            return _levels(connection.execute(READ, _columns(buckets)).fetchall())

    def failures_of(self, pool: Pool, ca: str, account_id: str, limit: int) -> Mapping[Bucket, Level]:
        """The names at which the account has failed, as far as it counts still."""
        with pool.connection() as connection:
            return _levels(connection.execute(OF_ACCOUNT, [ca, f"{account_id} ", limit]).fetchall())


def entries_of(recorded: Recorded) -> Iterator[Entry]:
    event = recorded.event
    match event:
        case Account.Registered(directory_url=ca):
            if "new_registrations" in limits_of(ca):
                yield Entry(Bucket(ca, "new_registrations", ""), "taken")
        case Order.Placed(charges=charges) | Order.ReplacementRefused(charges=charges):
            yield from entries_when_placed(charges)
        case Order.Throttled(bucket=bucket, until=until):
            yield Entry(bucket, "blocked", until)
        case Order.Completed(ledger=ledger) | Order.Failed(ledger=ledger):
            yield from ledger
        case _:
            pass


def _columns(buckets: Collection[Bucket]) -> Sequence[Sequence[str]]:
    ordered = list(buckets)
    return [
        [bucket.ca for bucket in ordered],
        [bucket.limit for bucket in ordered],
        [bucket.subject for bucket in ordered],
    ]


def _levels(rows: Sequence[TupleRow]) -> dict[Bucket, Level]:
    return {Bucket(ca, limit, subject): Level(full_at, blocked) for ca, limit, subject, full_at, blocked in rows}


RATE_LIMITS = RateLimitLedger()
