"""What subscriptions asked for, and at which positions of the history: who is to be told of an event follows from its own
time, however late somebody looks.

Who polls may have asked for all of it again: then the terms of that moment hold from there on."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import Cursor
from psycopg.rows import TupleRow

from domain.acknowledgement import Rewound
from domain.provenance import Recorded
from domain.subscription import Subscription
from domain.terms import Terms
from projections.documents import Pool

COLUMNS = "subscription_id, tenant_id, paths, event_types, dns_names, ordered, after, upto"
OPEN = f"INSERT INTO terms ({COLUMNS}, is_polled) VALUES (%s, %s, %s, %s, %s, %s, %s, NULL, %s)"  # noqa: S608
CLOSE = "UPDATE terms SET upto = %s WHERE subscription_id = %s AND upto IS NULL"
LAST = "SELECT * FROM terms WHERE subscription_id = %(subscription_id)s ORDER BY after DESC LIMIT 1"
REVISE = f"""
INSERT INTO terms ({COLUMNS}, is_polled)
SELECT subscription_id, tenant_id, %(paths)s, %(event_types)s, %(dns_names)s, %(ordered)s, %(position)s,
    CASE WHEN upto IS NOT NULL THEN %(position)s END, is_polled
FROM ({LAST}) AS last
WHERE (paths, event_types, dns_names, ordered)
    IS DISTINCT FROM (%(paths)s::text[], %(event_types)s::text[], %(dns_names)s::text[], %(ordered)s)
"""  # noqa: S608
"""Of a disabled subscription too: terms that end where they begin, and are there to be taken up again."""
REOPEN = f"""
INSERT INTO terms ({COLUMNS}, is_polled)
SELECT subscription_id, tenant_id, paths, event_types, dns_names, ordered, %(position)s, NULL, is_polled
FROM ({LAST}) AS last
"""  # noqa: S608
DROP = """
DELETE FROM terms WHERE subscription_id = %(subscription_id)s AND is_polled AND upto IS NOT NULL AND after >= %(cursor)s
"""
SHORTEN = """
UPDATE terms SET upto = %(cursor)s WHERE subscription_id = %(subscription_id)s AND is_polled AND upto > %(cursor)s
"""
STRETCH = """
UPDATE terms SET after = least(after, %(cursor)s)
WHERE subscription_id = %(subscription_id)s AND is_polled AND upto IS NULL
"""
SINCE = f"""
SELECT {COLUMNS} FROM terms
WHERE NOT is_polled AND (upto IS NULL OR upto > %s) ORDER BY after, subscription_id
"""  # noqa: S608
POLLED = f"SELECT {COLUMNS} FROM terms WHERE is_polled AND subscription_id = %s ORDER BY after"  # noqa: S608


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
    is_polled boolean NOT NULL,
    PRIMARY KEY (subscription_id, after)
);
CREATE INDEX ON terms (upto) WHERE NOT is_polled"""

    def apply(self, cursor: Cursor[TupleRow], events: Sequence[Recorded]) -> None:
        for recorded in events:
            if isinstance(recorded.event, Subscription.Event | Rewound):
                _apply(cursor, recorded)

    def since(self, pool: Pool, position: int) -> Sequence[Terms]:
        """All webhooks' that may ask for an event behind that position."""
        return self._select(pool, SINCE, position)

    def polled(self, pool: Pool, subscription_id: str) -> Sequence[Terms]:
        """A polling subscription's from its beginning on, each behind the one before."""
        return self._select(pool, POLLED, subscription_id)

    def _select(self, pool: Pool, query: str, parameter: object) -> Sequence[Terms]:
        with pool.connection() as connection:
            rows = connection.execute(query.encode(), [parameter]).fetchall()
        return [
            Terms(subscription_id, tenant_id, tuple(paths), tuple(event_types), tuple(dns_names), ordered, after, upto)
            for subscription_id, tenant_id, paths, event_types, dns_names, ordered, after, upto in rows
        ]


def _apply(cursor: Cursor[TupleRow], recorded: Recorded) -> None:
    event, position = recorded.event, recorded.position
    subscription_id = event.originator_id
    match event:
        case Subscription.Subscribed(target=target):
            what = [list(event.paths), list(event.event_types), list(event.dns_names), event.ordered]
            cursor.execute(OPEN.encode(), [subscription_id, event.tenant_id, *what, position, target is None])
        case Subscription.Revised():
            revised = {
                "subscription_id": subscription_id,
                "paths": list(event.paths),
                "event_types": list(event.event_types),
                "dns_names": list(event.dns_names),
                "ordered": event.ordered,
                "position": position,
            }
            cursor.execute(REVISE.encode(), revised)
            if cursor.rowcount:
                cursor.execute(CLOSE + " AND after < %s", [position, subscription_id, position])
        case Subscription.Disabled() | Subscription.Unsubscribed():
            cursor.execute(CLOSE, [position, subscription_id])
        case Subscription.Enabled():
            cursor.execute(REOPEN.encode(), {"position": position, "subscription_id": subscription_id})
        case Rewound(subscription_id=rewound_id, cursor=after):
            for statement in (DROP, SHORTEN, STRETCH):
                cursor.execute(statement, {"subscription_id": rewound_id, "cursor": after})
        case _:
            pass


TERMS = TermsView()
