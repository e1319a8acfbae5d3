"""A store with all its inline views and followers on PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from psycopg.sql import SQL, Identifier

from application.event_store import EventStore
from application.mapper import EventMapper
from domain.provenance import Recorded
from interfaces.postgres.pool import Pool
from interfaces.postgres.recorder import PostgresRecorder
from projections.catch_up import catch_up
from projections.views import FOLLOWING, INLINE, View
from tests.projections.folding import rows
from tests.projections.story import DECISIONS

ALL = 2**62


class Live:
    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.recorder = PostgresRecorder(pool, EventMapper(), INLINE)
        self.store = EventStore(self.recorder, DECISIONS)

    @property
    def history(self) -> Sequence[Recorded]:
        return self.recorder.read(0, ALL)

    def catch_up(self) -> int:
        """Brings all that follows up to the end; the position that all have reached."""
        return min(catch_up(self.pool, view, self.recorder.read) for view in FOLLOWING)

    def views(self) -> Mapping[str, Sequence[str]]:
        """All rows of all views, as text."""
        return {view.name: rows(self.pool, view) for view in (*INLINE, *FOLLOWING)}

    def everything(self) -> Mapping[str, Sequence[str]]:
        """All rows of all tables that an append may write to."""
        return {**self.views(), "events": self.table("events"), "todo": self.table("todo")}

    def table(self, name: str) -> Sequence[str]:
        with self.pool.connection() as connection:
            query = SQL("SELECT row::text FROM {} row ORDER BY 1").format(Identifier(name))
            return [text for (text,) in connection.execute(query).fetchall()]

    def execute(self, statement: str, *values: object) -> int:
        """How many rows it changed."""
        with self.pool.connection() as connection:
            return connection.execute(statement.encode(), values or None).rowcount


def rebuilt(view: View, events: Sequence[Recorded], pool: Pool) -> Sequence[str]:
    """The rows that the view would have of these events, folded at once where nobody sees it."""
    with pool.connection() as connection, connection.transaction(force_rollback=True), connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA aside")
        cursor.execute("SET LOCAL search_path = aside, public")
        cursor.execute(view.ddl.encode())
        view.apply(cursor, events)
        query = SQL("SELECT row::text FROM aside.{} row ORDER BY 1").format(Identifier(view.name))
        return [text for (text,) in cursor.execute(query).fetchall()]
