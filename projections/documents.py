"""A view that keeps one document per aggregate, as the API shows it.

A batch of events costs two statements however long it is: the rows it touches are read, folded and written back. The
same `apply` serves the transaction of a command, a rebuild of everything, and the folding in the shadow of a live view."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from psycopg import Connection, Cursor
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool

from domain.event import DomainEvent
from domain.provenance import Recorded

Pool = ConnectionPool[Connection]
Row = tuple[str, int, msgspec.Struct | None]
"""The tenant, the first event's position, and the document."""


class Column(msgspec.Struct, frozen=True):
    """A column beside the document, for look-ups. `definition` is its SQL type with its constraints."""

    definition: str
    value: Callable[[Any], Any]


class Condition(msgspec.Struct, frozen=True):
    """What a row must meet: SQL over the view's columns with a `%s` for each of the values."""

    sql: str
    values: Sequence[Any] = ()


class DocumentView(msgspec.Struct, frozen=True):
    """`name` is the table; `fold` makes the document after an event from the one before. None stands for no document: there
    is none before the first event, and none after the last of what is deleted."""

    name: str
    document_type: type[msgspec.Struct]
    event_class: type[DomainEvent]
    fold: Callable[[Any, Recorded], msgspec.Struct | None]
    columns: Mapping[str, Column] = {}
    indexes: Sequence[str] = ()

    @property
    def ddl(self) -> str:
        columns = [
            "id text PRIMARY KEY",
            "tenant_id text NOT NULL",
            "first_position bigint NOT NULL",
            "position bigint NOT NULL",
            "document json NOT NULL",
            *(f"{name} {column.definition}" for name, column in self.columns.items()),
        ]
        by_creation = f"CREATE INDEX ON {self.name} (tenant_id, first_position)"
        return ";\n".join([f"CREATE TABLE {self.name} ({', '.join(columns)})", by_creation, *self.indexes])

    def apply(self, cursor: Cursor[TupleRow], events: Sequence[Recorded]) -> None:
        mine = [recorded for recorded in events if isinstance(recorded.event, self.event_class)]
        if not mine:
            return
        ids = list({recorded.event.originator_id: None for recorded in mine})
        decode = msgspec.json.Decoder(self.document_type).decode
        cursor.execute(
            f"SELECT id, tenant_id, first_position, document::text FROM {self.name} WHERE id = ANY(%s)",  # noqa: S608
            [ids],
        )
        rows: dict[str, Row] = {row[0]: (row[1], row[2], decode(row[3])) for row in cursor.fetchall()}
        last: dict[str, int] = {}
        for recorded in mine:
            subject = recorded.event.originator_id
            tenant_id, first_position, document = rows.get(subject, (recorded.by.tenant_id, recorded.position, None))
            rows[subject] = (tenant_id, first_position, self.fold(document, recorded))
            last[subject] = recorded.position
        gone = [subject for subject, (_, _, document) in rows.items() if document is None]
        if gone:
            cursor.execute(f"DELETE FROM {self.name} WHERE id = ANY(%s)", [gone])  # noqa: S608
        kept = [row for row in rows.items() if row[1][2] is not None]
        if kept:
            self._write(cursor, sorted(kept, key=lambda row: row[1][1]), last)

    def _write(
        self,
        cursor: Cursor[TupleRow],
        rows: Sequence[tuple[str, Row]],
        last: Mapping[str, int],
    ) -> None:
        names = ["id", "tenant_id", "first_position", "position", "document", *self.columns]
        changes = ", ".join(f"{name} = excluded.{name}" for name in names[3:])
        cursor.executemany(
            f"INSERT INTO {self.name} ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))}) "  # noqa: S608
            f"ON CONFLICT (id) DO UPDATE SET {changes}",
            [
                [
                    subject,
                    tenant_id,
                    first_position,
                    last[subject],
                    msgspec.json.encode(document).decode(),
                    *(column.value(document) for column in self.columns.values()),
                ]
                for subject, (tenant_id, first_position, document) in rows
            ],
        )

    def one(self, pool: Pool, tenant_id: str, subject_id: str) -> Any:
        """The document, or None where the tenant has none of that id."""
        found = self.one_with_position(pool, tenant_id, subject_id)
        return None if found is None else found[0]

    def one_with_position(self, pool: Pool, tenant_id: str, subject_id: str) -> tuple[Any, int] | None:
        """The document and the position of the last event that changed it."""
        with pool.connection() as connection:
            row = connection.execute(
                f"SELECT document::text, position FROM {self.name} WHERE id = %s AND tenant_id = %s",  # noqa: S608
                [subject_id, tenant_id],
            ).fetchone()
        return (msgspec.json.decode(row[0], type=self.document_type), row[1]) if row else None

    def positions(self, pool: Pool, subject_ids: Sequence[str]) -> Mapping[str, int]:
        """By id the position of the last event that changed the document, of those that there are."""
        with pool.connection() as connection:
            rows = connection.execute(
                f"SELECT id, position FROM {self.name} WHERE id = ANY(%s)",  # noqa: S608
                [list(subject_ids)],
            ).fetchall()
        return dict(rows)

    def page(
        self,
        pool: Pool,
        tenant_id: str,
        after: int,
        limit: int,
        matching: Mapping[str, Any],
        conditions: Sequence[Condition] = (),
    ) -> Sequence[tuple[int, Any]]:
        """The documents in the order of their creation with their positions in it, from behind `after` on, whose
        columns have the values of `matching` and that meet all conditions."""
        wanted = [*(Condition(f"{column} = %s", [value]) for column, value in matching.items()), *conditions]
        also = "".join(f" AND {condition.sql}" for condition in wanted)
        values = [value for condition in wanted for value in condition.values]
        with pool.connection() as connection:
            rows = connection.execute(
                f"SELECT first_position, document::text FROM {self.name} "  # noqa: S608
                f"WHERE tenant_id = %s AND first_position > %s{also} ORDER BY first_position LIMIT %s",
                [tenant_id, after, *values, limit],
            ).fetchall()
        return [(position, msgspec.json.decode(document, type=self.document_type)) for position, document in rows]
