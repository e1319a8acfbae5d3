"""Views that follow the history at their own pace, and the readers that keep such a position.

The position's row is locked for the length of a batch, so one replica at a time is active, without any leader. Events
and position are written in one transaction: a batch happens once. An event that a view cannot take parks that view
alone: its position stays, the error is raised at every attempt, and nothing is passed over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from psycopg import Cursor
from psycopg.rows import TupleRow

from projections.documents import Pool

BATCH = 500

Read = Callable[[int, int], Sequence[Any]]
"""Events, or what was made of them, behind a position; at most so many; each says its `position`."""


class Follower(Protocol):
    """`apply` gets every event once, in order, in batches; what it writes with the cursor is committed with the
    position."""

    @property
    def name(self) -> str: ...

    def apply(self, cursor: Cursor[TupleRow], events: Sequence[Any]) -> None: ...


def catch_up(pool: Pool, follower: Follower, read: Read) -> int:
    """Takes what is new, batch by batch, and gives the position reached. While another replica is at it, waits for it."""
    while True:
        with pool.connection() as connection, connection.transaction(), connection.cursor() as cursor:
            cursor.execute("INSERT INTO positions VALUES (%s, 0) ON CONFLICT DO NOTHING", [follower.name])
            cursor.execute("SELECT position FROM positions WHERE reader = %s FOR UPDATE", [follower.name])
            row = cursor.fetchone()
            position: int = row[0] if row else 0
            events = read(position, BATCH)
            if not events:
                return position
            follower.apply(cursor, events)
            position = events[-1].position
            cursor.execute("UPDATE positions SET position = %s WHERE reader = %s", [position, follower.name])
        if len(events) < BATCH:
            return position
