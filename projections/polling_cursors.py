"""How far each polling subscription has come."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import Cursor
from psycopg.rows import TupleRow

from domain.acknowledgement import Acknowledged, Rewound
from domain.provenance import Recorded
from domain.subscription import Subscription
from projections.documents import Pool

BEGIN = "INSERT INTO polling_cursors VALUES (%s, %s, '{}')"
ACKNOWLEDGE = """
UPDATE polling_cursors SET position = greatest(position, %(cursor)s), acknowledged = ARRAY(
    SELECT DISTINCT p FROM unnest(acknowledged || %(positions)s::bigint[]) AS p
    WHERE p > greatest(position, %(cursor)s) ORDER BY p
) WHERE subscription_id = %(subscription_id)s AND position >= %(after)s
"""
REWIND = """
UPDATE polling_cursors SET position = least(position, %(cursor)s), acknowledged = ARRAY(
    SELECT p FROM unnest(acknowledged) AS p WHERE p <= %(cursor)s AND p > least(position, %(cursor)s) ORDER BY p
) WHERE subscription_id = %(subscription_id)s
"""
END = "DELETE FROM polling_cursors WHERE subscription_id = %s"


class PollingCursors:
    """`acknowledged` are positions beyond the cursor."""

    name = "polling_cursors"
    ddl = """
CREATE TABLE polling_cursors (
    subscription_id text PRIMARY KEY,
    position bigint NOT NULL,
    acknowledged bigint[] NOT NULL
)"""

    def apply(self, cursor: Cursor[TupleRow], events: Sequence[Recorded]) -> None:
        for recorded in events:
            match recorded.event:
                case Subscription.Subscribed(target=None):
                    cursor.execute(BEGIN, [recorded.event.originator_id, recorded.position])
                case Acknowledged(subscription_id=subscription_id, positions=positions, after=after, cursor=position):
                    acknowledged = {"after": after, "cursor": position, "positions": list(positions)}
                    cursor.execute(ACKNOWLEDGE, {**acknowledged, "subscription_id": subscription_id})
                case Rewound(subscription_id=subscription_id, cursor=position):
                    cursor.execute(REWIND, {"cursor": position, "subscription_id": subscription_id})
                case Subscription.Unsubscribed():
                    cursor.execute(END, [recorded.event.originator_id])
                case _:
                    pass

    def one(self, pool: Pool, subscription_id: str) -> tuple[int, frozenset[int]] | None:
        """The position up to which all is dealt with, and those beyond it that are."""
        query = "SELECT position, acknowledged FROM polling_cursors WHERE subscription_id = %s"
        with pool.connection() as connection:
            row = connection.execute(query, [subscription_id]).fetchone()
        return (row[0], frozenset(row[1])) if row else None


POLLING_CURSORS = PollingCursors()
