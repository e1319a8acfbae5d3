"""What subscribers can be told, each with the body that they get: webhooks, polls and replays all send these bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from psycopg import Cursor
from psycopg.rows import TupleRow

from domain.announcement import Announced, announcement_of, causation
from domain.provenance import Recorded
from domain.terms import Candidate, Terms
from projections.documents import Pool

COLUMNS = "position, event_id, tenant_id, event_type, path, dns_names, at, causation, request_id, body"
WILDCARD = re.compile(r"[*?]")

# The order of the look-ups is written down, whatever the planner knows of the table: an index for each path or type.
OF_PATHS = """
SELECT a.* FROM unnest(%(paths)s::text[]) AS asked (path) CROSS JOIN LATERAL (
    SELECT position, tenant_id, event_type, path, dns_names FROM announcements
    WHERE tenant_id = %(tenant_id)s AND path = asked.path AND position > %(after)s AND position <= %(upto)s
      AND event_type = ANY(%(types)s) ORDER BY position LIMIT %(limit)s
) a ORDER BY a.position LIMIT %(limit)s
"""
OF_TYPES = """
SELECT a.* FROM unnest(%(types)s::text[]) AS asked (event_type) CROSS JOIN LATERAL (
    SELECT position, tenant_id, event_type, path, dns_names FROM announcements
    WHERE tenant_id = %(tenant_id)s AND event_type = asked.event_type AND position > %(after)s AND position <= %(upto)s
      AND path ^@ ANY(%(prefixes)s) ORDER BY position LIMIT %(limit)s
) a ORDER BY a.position LIMIT %(limit)s
"""


class Announcements:
    name = "announcements"
    ddl = """
CREATE TABLE announcements (
    position bigint PRIMARY KEY,
    event_id text NOT NULL UNIQUE,
    tenant_id text NOT NULL,
    event_type text NOT NULL,
    path text NOT NULL,
    dns_names text[] NOT NULL,
    at timestamptz NOT NULL,
    causation text NOT NULL,
    request_id text,
    body text NOT NULL
);
CREATE INDEX ON announcements (tenant_id, event_type, position);
CREATE INDEX ON announcements (tenant_id, path, position);
CREATE INDEX ON announcements (tenant_id, at)"""

    def apply(self, cursor: Cursor[TupleRow], events: Sequence[Recorded]) -> None:
        rows = []
        for recorded in events:
            told = announcement_of(recorded)
            if told is not None:
                body = msgspec.json.encode(told).decode()
                names = list(told.data.domains) if hasattr(told.data, "domains") else []
                row = [told.sequence, told.event_id, told.tenant_id, told.event_type, told.path, names]
                rows.append([*row, told.timestamp, causation(recorded), told.request_id, body])
        if rows:
            values = ", ".join(["%s"] * len(rows[0]))
            cursor.executemany(f"INSERT INTO announcements ({COLUMNS}) VALUES ({values})", rows)  # noqa: S608

    def read(self, pool: Pool, after: int, limit: int) -> Sequence[Announced]:
        """Of all tenants, in order, from behind the position `after` on."""
        return _select(pool, "position > %s ORDER BY position LIMIT %s", [after, limit])

    def at(self, pool: Pool, positions: Sequence[int]) -> Sequence[Announced]:
        """Those that there are, in order."""
        return _select(pool, "position = ANY(%s) ORDER BY position", [list(positions)]) if positions else []

    def candidates(self, pool: Pool, terms: Terms, after: int, upto: int, limit: int) -> Sequence[Candidate]:
        """Those behind `after`, up to `upto`, that the terms may ask for: of paths with wildcards the beginnings are
        compared, and names are not. No bodies are read for it."""
        prefixes = {WILDCARD.split(path, maxsplit=1)[0] for path in terms.paths}
        asked = {
            "tenant_id": terms.tenant_id,
            "types": sorted(set(terms.event_types)),
            "paths": sorted(set(terms.paths)),
            "prefixes": sorted(prefixes),
            "after": after,
            "upto": upto,
            "limit": limit,
        }
        query = OF_TYPES if any(map(WILDCARD.search, terms.paths)) else OF_PATHS
        with pool.connection() as connection:
            rows = connection.execute(query, asked).fetchall()
        return [
            Candidate(position, tenant_id, event_type, path, tuple(dns_names))
            for position, tenant_id, event_type, path, dns_names in rows
        ]

    def positions(self, pool: Pool, tenant_id: str, event_ids: Sequence[str]) -> dict[str, int]:
        """Of those of the events that there are."""
        query = "SELECT event_id, position FROM announcements WHERE tenant_id = %s AND event_id = ANY(%s)"
        with pool.connection() as connection:
            return dict(connection.execute(query, [tenant_id, list(event_ids)]).fetchall())

    def first_since(self, pool: Pool, tenant_id: str, at: datetime) -> int | None:
        """The lowest position of the tenant's at that time or later. Times need not rise with positions."""
        query = "SELECT min(position) FROM announcements WHERE tenant_id = %s AND at >= %s"
        with pool.connection() as connection:
            row = connection.execute(query, [tenant_id, at]).fetchone()
        return row[0] if row else None

    def last_until(self, pool: Pool, tenant_id: str, at: datetime) -> int:
        """The highest position of the tenant's up to that time; 0 where there is none."""
        query = "SELECT coalesce(max(position), 0) FROM announcements WHERE tenant_id = %s AND at <= %s"
        with pool.connection() as connection:
            row = connection.execute(query, [tenant_id, at]).fetchone()
        return row[0] if row else 0

    def last(self, pool: Pool) -> int:
        """The last position, 0 where there is none."""
        with pool.connection() as connection:
            row = connection.execute("SELECT coalesce(max(position), 0) FROM announcements").fetchone()
        return row[0] if row else 0


def _select(pool: Pool, condition: str, parameters: Sequence[Any]) -> Sequence[Announced]:
    with pool.connection() as connection, connection.cursor() as cursor:
        query = f"SELECT {COLUMNS} FROM announcements WHERE {condition}"  # noqa: S608
        rows: Sequence[Sequence[Any]] = cursor.execute(query.encode(), parameters).fetchall()
    return [
        Announced(position, event_id, tenant_id, event_type, path, tuple(dns_names), *rest)
        for position, event_id, tenant_id, event_type, path, dns_names, *rest in rows
    ]


ANNOUNCEMENTS = Announcements()
