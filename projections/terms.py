"""What webhook subscriptions asked for, and at which positions of the history: who is owed an event follows from its own
time, however late somebody looks."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import Cursor
from psycopg.rows import TupleRow

from domain.provenance import Recorded
from domain.subscription import Subscription, Terms
from projections.documents import Pool

OPEN = """
INSERT INTO terms (subscription_id, tenant_id, paths, event_types, dns_names, ordered, after, upto)
VALUES (%s, %s, %s, %s, %s, %s, %s, NULL)
"""
CLOSE = "UPDATE terms SET upto = %s WHERE subscription_id = %s AND upto IS NULL"
REVISE = """
INSERT INTO terms (subscription_id, tenant_id, paths, event_types, dns_names, ordered, after, upto)
SELECT subscription_id, tenant_id, %(paths)s, %(event_types)s, %(dns_names)s, %(ordered)s, %(position)s,
    CASE WHEN upto IS NOT NULL THEN %(position)s END
FROM terms WHERE subscription_id = %(subscription_id)s ORDER BY after DESC LIMIT 1
"""
"""Of a disabled subscription too: terms that end where they begin, and are there to be taken up again."""
REOPEN = """
INSERT INTO terms (subscription_id, tenant_id, paths, event_types, dns_names, ordered, after, upto)
SELECT subscription_id, tenant_id, paths, event_types, dns_names, ordered, %s, NULL
FROM terms WHERE subscription_id = %s ORDER BY after DESC LIMIT 1
"""
SINCE = """
SELECT subscription_id, tenant_id, paths, event_types, dns_names, ordered, after, upto FROM terms
WHERE upto IS NULL OR upto > %s ORDER BY after, subscription_id
"""


class TermsView:
    name = "terms"
    ddl = """
CREATE TABLE terms (
    subscription_id text NOT NULL,
    tenant_id text NOT NULL,
    paths text[] NOT NULL,
    event_types text[] NOT NULL,
    dns_names text[] NOT NULL,
    ordered boolean NOT NULL,
    after bigint NOT NULL,
    upto bigint,
    PRIMARY KEY (subscription_id, after)
);
CREATE INDEX ON terms (upto)"""

    def apply(self, cursor: Cursor[TupleRow], events: Sequence[Recorded]) -> None:
        for recorded in events:
            if isinstance(recorded.event, Subscription.Event):
                _apply(cursor, recorded)

    def since(self, pool: Pool, position: int) -> Sequence[Terms]:
        """All that may ask for an event behind that position."""
        with pool.connection() as connection:
            rows = connection.execute(SINCE, [position]).fetchall()
        return [
            Terms(subscription_id, tenant_id, tuple(paths), tuple(event_types), tuple(dns_names), ordered, after, upto)
            for subscription_id, tenant_id, paths, event_types, dns_names, ordered, after, upto in rows
        ]


def _apply(cursor: Cursor[TupleRow], recorded: Recorded) -> None:
    event, position = recorded.event, recorded.position
    subscription_id = event.originator_id
    match event:
        case Subscription.Subscribed() if event.target is not None:
            what = [list(event.paths), list(event.event_types), list(event.dns_names), event.ordered]
            cursor.execute(OPEN, [subscription_id, event.tenant_id, *what, position])
        case Subscription.Revised():
            revised = {
                "subscription_id": subscription_id,
                "paths": list(event.paths),
                "event_types": list(event.event_types),
                "dns_names": list(event.dns_names),
                "ordered": event.ordered,
                "position": position,
            }
            cursor.execute(REVISE, revised)
            cursor.execute(CLOSE + " AND after < %s", [position, subscription_id, position])
        case Subscription.Disabled() | Subscription.Unsubscribed():
            cursor.execute(CLOSE, [position, subscription_id])
        case Subscription.Enabled():
            cursor.execute(REOPEN, [position, subscription_id])
        case _:
            pass


TERMS = TermsView()
